"""Throws mutations of valid pictures at `decode_image`: it returns a whole picture or raises InvalidImage, in time.

`python -m detector.tests.hostile.fuzz --inputs N` runs as many, from `--seed` on; `make fuzz` does so for a long time.
hypothesis chooses the mutations, so a failure is shrunk to the fewest that cause it.
"""

import argparse
import time
import warnings
from collections import Counter
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from detector.exceptions import InvalidImage
from detector.images import ACCEPTED_FORMATS, WORKING_SIDE, decode_image, part_length
from detector.tests.hostile.workshop import (
    PNG_START,
    blank_png,
    chunk,
    exif,
    jpeg,
    noise,
    png,
    save,
    segment,
    webp,
    with_chunks,
    with_segments,
)

MOST_CPU_S = 2.0
MOST_PIXELS = 4_000_000  # a mutated header may ask for more, which is refused before anything is decoded
INTERESTING = (
    b"\0",
    b"\xff",
    b"\xff\xd8",
    b"\xff\xd9",
    b"\xff\xda",
    b"\xff\xc4",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
)

SEEDS = (
    jpeg(64, 48),
    jpeg(64, 48, progressive=True),
    jpeg(64, 48, restart_marker_blocks=3),
    save(noise(64, 48).convert("CMYK"), "JPEG"),
    save(noise(64, 48).convert("L"), "JPEG"),
    save(noise(64, 48), "MPO", save_all=True, append_images=[noise(64, 48, 1)]),
    with_segments(jpeg(64, 48), segment(0xE1, b"Exif\0\0" + exif([(0x0112, 3, 1, 6), (0x010E, 2, 20, 38)], bytes(40)))),
    png(64, 48),
    blank_png(64, 48, interlace=1),
    save(noise(64, 48).quantize(16), "PNG", transparency=0),
    save(noise(64, 48).convert("LA"), "PNG"),
    with_chunks(png(64, 48), chunk(b"zTXt", b"k\0\0x\x9c\x03\0\0\0\0\x01"), chunk(b"eXIf", exif([(0x0112, 3, 1, 8)]))),
    webp(64, 48),
    webp(64, 48, lossless=True),
    save(noise(64, 48).convert("RGBA"), "WEBP", exif=b"Exif\0\0" + exif([(0x0112, 3, 1, 3)])),
)


@dataclass(frozen=True)
class Mutation:
    """One change of the bytes; `where` is a share of the length, so that it means something for any file."""

    kind: str
    where: float
    amount: int
    new: bytes

    def apply(self, data: bytes) -> bytes:
        at = int(self.where * len(data))
        if self.kind == "replace":
            return data[:at] + self.new + data[at + len(self.new) :]
        if self.kind == "insert":
            return data[:at] + self.new + data[at:]
        if self.kind == "remove":
            return data[:at] + data[at + self.amount :]
        if self.kind == "repeat":
            return data[:at] + data[at : at + self.amount] * 3 + data[at + self.amount :]
        if self.kind == "cut":
            return data[:at]
        return data[:at] + bytes([data[at] ^ (1 << self.amount % 8)]) + data[at + 1 :] if data else data


# The head of a file holds its structure: half of all mutations go there.
PLACES = st.one_of(st.floats(0, 0.25), st.floats(0, 1, exclude_max=True))
MUTATIONS = st.builds(
    Mutation,
    kind=st.sampled_from(["flip", "replace", "insert", "remove", "repeat", "cut"]),
    where=PLACES,
    amount=st.integers(1, 64),
    new=st.one_of(st.sampled_from(INTERESTING), st.binary(min_size=1, max_size=8)),
)


def with_right_checksums(data: bytes) -> bytes:
    """The PNG with the checksum of each chunk made right, so that what is in the chunks is looked at."""
    fixed, position = PNG_START, len(PNG_START)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        payload = data[position + 8 : position + 8 + length]
        fixed += chunk(data[position + 4 : position + 8], payload)
        position += 12 + length
    return fixed


@st.composite
def files(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(SEEDS))
    for mutation in draw(st.lists(MUTATIONS, min_size=1, max_size=6)):
        data = mutation.apply(data)
    if data.startswith(PNG_START) and draw(st.booleans()):
        data = with_right_checksums(data)
    return data


def examine(data: bytes) -> str:
    """What became of the file: "picture", or the code of its refusal. Anything else is a fault and raises."""
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
            image = decode_image(data, max_pixels=MOST_PIXELS)
    except InvalidImage as error:
        return error.code
    finally:
        assert time.process_time() - started < MOST_CPU_S
    assert image.format in ACCEPTED_FORMATS
    assert image.pixels.ndim == 3
    assert image.pixels.shape[2] == 3
    assert part_length(*image.picture.size) <= WORKING_SIDE
    assert image.picture.width * image.picture.height <= WORKING_SIDE**2
    return "picture decoded twice" if decodes_again(data) else "picture"


def decodes_again(data: bytes) -> bool:
    """Whether the file, decoded as small as it goes, was decoded once more as for small faces: whole and upright."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode_image(data, max_pixels=MOST_PIXELS, least_side=1)
            finer = image.finer()
        except InvalidImage:
            return False
    if finer is not None:
        assert (finer.mode, finer.size, finer.info) == ("RGB", (image.width, image.height), {})
    return finer is not None


def fuzz(inputs: int, *, seed: int) -> Counter[str]:
    """What became of that many inputs; the first fault is raised, made as small as possible."""
    outcomes: Counter[str] = Counter()

    @seeded(seed)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(files())
    def run(data: bytes) -> None:
        outcomes[examine(data)] += 1

    run()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given_arguments = parser.parse_args()
    outcomes = fuzz(given_arguments.inputs, seed=given_arguments.seed)
    print(f"{outcomes.total()} inputs, no fault: {dict(outcomes.most_common())}")


if __name__ == "__main__":
    main()
