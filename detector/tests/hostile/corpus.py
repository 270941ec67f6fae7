"""Some three hundred named uploads and what has to become of each."""

import base64
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from PIL import Image

from detector.tests.hostile.workshop import (
    GREY,
    GREY_ALPHA,
    MARKER,
    MEGABYTE,
    PALETTE,
    PNG_END,
    PNG_START,
    RGB,
    RGBA,
    SCRIPT,
    blank_png,
    chunk,
    endless_progressive,
    exif,
    frame_marker,
    jpeg,
    noise,
    patched_segment,
    png,
    png_header,
    riff,
    riff_chunk,
    save,
    segment,
    segments_of,
    webp,
    webp_body,
    webp_canvas,
    with_chunks,
    with_flipped_byte,
    with_segments,
    with_size,
    with_wrong_crc,
    without_chunk,
    without_segment,
    zeros_deflated,
)
from detector.tests.portraits import astronaut

BOUNDARY = "hostile"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
# 4xx and no row; or a row with a verdict, as a photo that is odd but whole; or either, where decoders disagree.
Outcome = Literal["refused", "accepted", "either"]
Bytes = bytes | Callable[[], bytes]


@dataclass(frozen=True)
class Case:
    """One request to the upload page; the body is made when it is asked for, as all of them together are too large."""

    name: str
    outcome: Outcome
    make_body: Callable[[], bytes]
    content_type: str = MULTIPART

    def __str__(self) -> str:
        return self.name


def part(
    data: bytes, *, field: str = "picture", file_name: str | None = "a.jpg", kind: str = "image/jpeg", more: str = ""
) -> bytes:
    name = "" if file_name is None else f'; filename="{file_name}"'
    head = f'Content-Disposition: form-data; name="{field}"{name}\r\n' + (f"Content-Type: {kind}\r\n" if kind else "")
    return f"--{BOUNDARY}\r\n{head}{more}\r\n".encode("utf-8", "surrogateescape") + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def file_case(name: str, outcome: Outcome, data: Bytes, **options: Any) -> Case:
    return Case(name, outcome, lambda: part(data() if callable(data) else data, **options) + END)


def cases() -> Iterator[Case]:
    """Every case, in the same order each time."""
    for family in (
        truncations,
        sides,
        bombs,
        broken_jpegs,
        broken_pngs,
        broken_webps,
        metadata,
        polyglots,
        renamed_formats,
        moving_pictures,
        colour_oddities,
        file_names,
        content_types,
        forms,
    ):
        for case in family():
            yield Case(f"{family.__name__}: {case.name}", case.outcome, case.make_body, case.content_type)


WHOLE = {
    "JPEG": jpeg(),
    "progressive JPEG": jpeg(progressive=True),
    "PNG": png(),
    "WebP": webp(),
    "lossless WebP": webp(lossless=True),
}


def truncations() -> Iterator[Case]:
    for name, data in WHOLE.items():
        yield file_case(f"whole {name}", "accepted", data)
        yield file_case(f"{name} without its last byte", "refused", data[:-1])
        for percent in range(5, 100, 5):
            yield file_case(f"{name} at {percent} %", "refused", data[: len(data) * percent // 100])
    for percent in range(15, 100, 20):
        cut = jpeg()[: len(jpeg()) * percent // 100]
        yield file_case(f"JPEG at {percent} % with an end put behind it", "refused", cut + b"\xff\xd9")
    for percent in range(15, 80, 20):  # later only a last bit of some details is missing, which shows nowhere
        cut = jpeg(progressive=True)[: len(jpeg(progressive=True)) * percent // 100]
        yield file_case(f"progressive JPEG at {percent} % with an end put behind it", "refused", cut + b"\xff\xd9")
    yield file_case("nothing", "refused", b"")
    yield file_case("one byte", "refused", b"\xff")
    for name, start in (("JPEG", b"\xff\xd8\xff"), ("PNG", PNG_START), ("WebP", b"RIFF\x1a\0\0\0WEBPVP8 ")):
        yield file_case(f"only the first bytes of a {name}", "refused", start)


def sides() -> Iterator[Case]:
    makers: dict[str, Callable[[int, int], bytes]] = {
        "JPEG": lambda width, height: save(Image.new("RGB", (width, height), "teal"), "JPEG"),
        "PNG": lambda width, height: blank_png(width, height),
        "WebP": lambda width, height: save(Image.new("RGB", (width, height), "teal"), "WEBP"),
    }
    shapes: dict[tuple[int, int], Outcome] = {
        (1, 1): "refused",
        (1, 200): "refused",
        (200, 1): "refused",
        (31, 32): "refused",
        (32, 32): "accepted",
        (1, 16_000): "refused",
        (16_000, 1): "refused",
        (16_000, 32): "accepted",
        (32, 16_000): "accepted",
    }
    for name, make in makers.items():
        for (width, height), outcome in shapes.items():
            yield file_case(f"{name} of {width} x {height}", outcome, make(width, height))
    for name in ("JPEG", "PNG"):
        make = makers[name]
        yield file_case(f"{name} of 20,000 x 32", "accepted", make(20_000, 32))
        yield file_case(f"{name} of 1 x 20,000", "refused", make(1, 20_000))
        yield file_case(f"{name} of 20,000 x 2,500", "accepted", partial(make, 20_000, 2_500))
        yield file_case(f"{name} of 20,000 x 20,000", "refused", partial(_claiming, make, 20_000))
    yield file_case("PNG of 1,500,000 x 33", "accepted", lambda: blank_png(1_500_000, 33, depth=1, colour=GREY))
    yield file_case("JPEG of 65,535 x 65,535", "refused", with_size(jpeg(), 65_535, 65_535))
    for width, height in ((0, 100), (100, 0), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (60_000, 60_000)):
        body = PNG_START + png_header(width, height) + chunk(b"IDAT", zlib.compress(b"\0")) + PNG_END
        yield file_case(f"PNG of {width} x {height}", "refused", body)
    for width, height in ((0, 0), (0, 160), (200, 0)):
        yield file_case(f"JPEG of {width} x {height}", "refused", with_size(jpeg(), width, height))
    for width, height in ((16_384, 16_384), (1 << 24, 1 << 24), (1 << 24, 1)):
        body = riff(webp_canvas(width, height), webp_body(webp()))
        yield file_case(f"WebP canvas of {width} x {height}", "refused", body)


def _claiming(make: Callable[[int, int], bytes], side: int) -> bytes:
    small = make(64, 64)
    if small.startswith(PNG_START):
        return PNG_START + png_header(side, side) + small[33:]
    return with_size(small, side, side)


def bombs() -> Iterator[Case]:
    kinds = {"grey": GREY, "colour": RGB, "palette": PALETTE, "grey with alpha": GREY_ALPHA, "colour with alpha": RGBA}
    for name, colour in kinds.items():
        for depth in {PALETTE: (1, 8), GREY: (1, 8, 16)}.get(colour, (8, 16)):
            yield file_case(
                f"50 megapixels of {name}, {depth} bits, in kilobytes",
                "accepted",
                partial(blank_png, 10_000, 5_000, depth=depth, colour=colour),
            )
    see_through = chunk(b"tRNS", b"\0\x80")
    yield file_case(
        "50 megapixels of a palette with alpha",
        "accepted",
        lambda: blank_png(10_000, 5_000, colour=PALETTE, extra=see_through),
    )
    yield file_case(
        "50 megapixels of colour with alpha, interlaced",
        "accepted",
        lambda: blank_png(10_000, 5_000, depth=16, colour=RGBA, interlace=1),
    )
    yield file_case("51 megapixels", "refused", lambda: blank_png(10_000, 5_001))
    yield file_case("a gigabyte of pixels", "refused", lambda: blank_png(32_768, 32_768, colour=GREY))
    yield file_case(
        "a PNG with 500 MB behind its pixels",
        "either",
        lambda: PNG_START + png_header(64, 64) + chunk(b"IDAT", zeros_deflated(500 * MEGABYTE)) + PNG_END,
    )
    flat = partial(save, Image.new("RGB", (8_000, 6_250), (9, 90, 120)), "JPEG")
    yield file_case("50 megapixels of JPEG", "accepted", flat)
    yield file_case("50 megapixels of progressive JPEG", "accepted", lambda: flat(progressive=True))
    yield file_case("50 megapixels of progressive JPEG in a strip with faces", "accepted", _strip_of_faces)
    yield file_case(
        "50 megapixels of progressive JPEG, full colour", "refused", lambda: flat(progressive=True, subsampling=0)
    )
    yield file_case(
        "50 megapixels of WebP", "refused", lambda: save(Image.new("RGB", (8_000, 6_250)), "WEBP", method=0)
    )
    yield file_case(
        "16 megapixels of lossless WebP with alpha",
        "accepted",
        lambda: save(Image.new("RGBA", (4_000, 4_000), (9, 90, 120, 40)), "WEBP", lossless=True, method=0),
    )
    yield file_case("GIF of 30 frames of 16 megapixels", "refused", _gif_bomb)
    yield file_case("TIFF whose strips unpack to 4 GB", "refused", _tiff_bomb)
    yield file_case("progressive JPEG of 5,000 scans", "refused", lambda: endless_progressive(4_000, 3_000, 5_000))
    yield file_case("progressive JPEG of 101 scans", "refused", lambda: endless_progressive(300, 200, 100))
    yield file_case(
        "progressive JPEG of 60 scans at 48 megapixels", "refused", lambda: endless_progressive(8_000, 6_000, 60)
    )
    yield file_case("JPEG of 3,500,000 segments", "refused", lambda: with_segments(jpeg(), segment(0xE5) * 3_500_000))
    yield file_case(
        "JPEG of 300,000 Huffman tables", "refused", lambda: with_segments(jpeg(), segment(0xC4, bytes(17)) * 300_000)
    )
    yield file_case("JPEG with 14 MB of filling", "refused", lambda: jpeg()[:2] + b"\xff" * 14 * MEGABYTE + jpeg()[2:])
    yield file_case(
        "JPEG with 14 MB of rubbish before its header",
        "refused",
        lambda: jpeg()[:2] + bytes(14 * MEGABYTE) + jpeg()[2:],
    )
    yield file_case("PNG of 1,200,000 chunks", "refused", lambda: with_chunks(png(), chunk(b"prVt") * 1_200_000))
    yield file_case(
        "PNG of 1,200,000 empty pixel chunks",
        "refused",
        lambda: PNG_START + png_header(64, 64) + chunk(b"IDAT") * 1_200_000 + PNG_END,
    )
    yield file_case("15 MB and a byte", "refused", lambda: jpeg() + bytes(15 * MEGABYTE + 1 - len(jpeg())))
    yield file_case("15 MB to the byte", "accepted", lambda: jpeg() + bytes(15 * MEGABYTE - len(jpeg())))


def _strip_of_faces() -> bytes:
    """Small ones, for which a finer copy is decoded, in a picture that is looked at in parts."""
    strip = Image.new("RGB", (1_660, 30_000), (9, 90, 120))
    portrait = Image.fromarray(astronaut()).resize((1_400, 1_400))
    for top in range(0, 28_000, 1_400):
        strip.paste(portrait, (100, top))
    return save(strip, "JPEG", progressive=True)


def _gif_bomb() -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4_000, 4_000, 0) + b"\x08" + b"\x04\x00\x01\x04\x01" + b"\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 4_000, 4_000, 0xF7, 0, 0) + bytes(768) + frame * 30 + b";"


def _tiff_bomb() -> bytes:
    strip = zeros_deflated(4 * MEGABYTE)
    listed = [
        (0x100, 4, 1, 60_000),
        (0x101, 4, 1, 60_000),
        (0x102, 3, 1, 8),
        (0x103, 3, 1, 8),
        (0x106, 3, 1, 1),
        (0x111, 4, 1, 8 + 2 + 9 * 12 + 4),
        (0x115, 3, 1, 1),
        (0x116, 4, 1, 60_000),
        (0x117, 4, 1, len(strip)),
    ]
    return exif(listed, strip)


def broken_jpegs() -> Iterator[Case]:
    good = jpeg()
    huffman = next(good[start + 4 : end] for marker, start, end in segments_of(good) if marker == 0xC4)
    tables = {
        "255 codes of each length": bytes([0x00]) + bytes([255]) * 16 + bytes(255 * 16),
        "codes that do not fit": bytes([0x00, 3]) + bytes(15) + bytes(3),
        "a class that does not exist": bytes([0xF9]) + huffman[1:],
        "more codes than bytes": bytes([0x00]) + bytes([16]) * 16,
        "no codes": bytes(17),
    }
    for name, table in tables.items():
        broken = without_segment(good, 0xC4)
        # JPEG has no checksums: what a wrong table makes of the bits is a picture, if an odd one.
        outcome: Outcome = "either" if name == "no codes" else "refused"
        yield file_case(f"Huffman table with {name}", outcome, with_segments(broken, segment(0xC4, table)))
    yield file_case("no Huffman tables", "either", without_segment(good, 0xC4))
    yield file_case("no quantisation tables", "refused", without_segment(good, 0xDB))
    yield file_case("quantisation by zero", "either", patched_segment(good, 0xDB, 1, bytes(64)))
    yield file_case("no frame", "refused", without_segment(good, 0xC0))
    yield file_case("no scan", "refused", without_segment(good, 0xDA))
    frame = next(good[start:end] for marker, start, end in segments_of(good) if marker == 0xC0)
    yield file_case("two frames", "refused", with_segments(good, frame))
    at = good.index(b"\xff\xc0") + 1
    for marker, kind in (
        (0xC3, "lossless"),
        (0xC5, "hierarchical"),
        (0xC9, "arithmetic"),
        (0xCB, "lossless arithmetic"),
    ):
        yield file_case(f"frame that says it is {kind}", "refused", good[:at] + bytes([marker]) + good[at + 1 :])
    fields = {
        "precision 16": (0, b"\x10"),
        "precision 0": (0, b"\0"),
        "no components": (5, b"\0"),
        "255 components": (5, b"\xff"),
        "two components": (5, b"\x02"),
        "sampling 0 x 0": (7, b"\0"),
        "sampling 15 x 15": (7, b"\xff"),
        "a table that is missing": (8, b"\x03"),
    }
    for name, (offset, new) in fields.items():
        yield file_case(f"frame with {name}", "refused", patched_segment(good, frame_marker(good), offset, new))
    yield file_case("scan of components that are not there", "refused", patched_segment(good, 0xDA, 1, b"\x09"))
    yield file_case("scan of 200 components", "refused", patched_segment(good, 0xDA, 0, b"\xc8"))
    yield file_case("segment of length 0", "either", with_segments(good, segment(0xE1, b"", length=0)))
    yield file_case("segment longer than the file", "refused", with_segments(good, segment(0xE1, b"x", length=65_535)))
    yield file_case("restart interval without restarts", "either", with_segments(good, segment(0xDD, b"\0\x01")))
    yield file_case("start after start", "either", b"\xff\xd8" + good)
    scan = good.index(b"\xff\xda")
    yield file_case("end before the scan", "refused", good[:scan] + b"\xff\xd9" + good[scan:])
    yield file_case("a scan of zeros", "either", good[: scan + 14] + bytes(4_000) + b"\xff\xd9")
    yield file_case("an empty scan", "refused", good[: scan + 14] + b"\xff\xd9")
    progressive = jpeg(progressive=True)
    first = progressive.index(b"\xff\xda")
    second = progressive.index(b"\xff\xda", first + 2)
    yield file_case("progressive with its first scan alone", "refused", progressive[:second] + b"\xff\xd9")
    yield file_case("progressive without its first scan", "refused", progressive[:first] + progressive[second:])
    yield file_case(
        "progressive from coefficient 63 to 1", "refused", patched_segment(progressive, 0xDA, 7, b"\x3f\x01")
    )


def broken_pngs() -> Iterator[Case]:
    good = png()
    palette = save(noise(200, 160).quantize(16), "PNG")
    for kind in (b"IHDR", b"IDAT", b"IEND"):
        yield file_case(f"wrong checksum of {kind.decode()}", "refused", with_wrong_crc(good, kind))
    yield file_case("wrong checksum of PLTE", "refused", with_wrong_crc(palette, b"PLTE"))
    yield file_case("a flipped bit in its pixels", "refused", with_flipped_byte(good, b"IDAT"))
    for kind in (b"IHDR", b"IDAT", b"IEND"):
        yield file_case(f"no {kind.decode()}", "refused", without_chunk(good, kind))
    yield file_case("no PLTE", "refused", without_chunk(palette, b"PLTE"))
    for length in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, len(good), 0):
        lie = chunk(b"tEXt", b"k\0" + MARKER, length=length)
        yield file_case(f"chunk that says it has {length} bytes", "refused", with_chunks(good, lie))
    yield file_case("two headers", "either", with_chunks(good, png_header(4_000, 4_000)))
    yield file_case("two headers, the second huge", "refused", with_chunks(good, png_header(60_000, 60_000)))
    raw = b"".join(b"\0" + bytes(192) for _ in range(64))
    for interlace in (0, 1):
        rows = zlib.compress(b"".join(b"\0" + bytes([200]) * 192 for _ in range(32)))
        body = PNG_START + png_header(64, 64, interlace=interlace) + chunk(b"IDAT", rows) + PNG_END
        yield file_case(f"half its rows, interlace {interlace}", "refused", body)
    yield file_case("all its rows, and black", "accepted", blank_png(64, 64))
    yield file_case("all its rows, black and interlaced", "accepted", blank_png(64, 64, interlace=1))
    pixels = {
        "a wrong sum of its bytes": zlib.compress(raw)[:-1] + b"\x99",
        "a byte flipped": _flipped(zlib.compress(raw, 0), 5_000),
        "half its rows": zlib.compress(raw[: len(raw) // 2]),
        "no rows": zlib.compress(b""),
        "a filter that does not exist": zlib.compress(b"\x77" + raw[1:]),
        "plain rows": raw,
    }
    for name, data in pixels.items():
        body = PNG_START + png_header(64, 64) + chunk(b"IDAT", data) + PNG_END
        yield file_case(f"pixels with {name}", "refused", body)
    for name, fields in {
        "depth 3": b"\x03\x02\0\0\0",
        "colour type 5": b"\x08\x05\0\0\0",
        "compression 9": b"\x08\x02\x09\0\0",
        "filter method 7": b"\x08\x02\0\x07\0",
        "interlace 2": b"\x08\x02\0\0\x02",
    }.items():
        header = chunk(b"IHDR", struct.pack(">II", 64, 64) + fields)
        body = PNG_START + header + chunk(b"IDAT", zlib.compress(raw)) + PNG_END
        yield file_case(f"header with {name}", "refused" if name[:3] in ("dep", "col") else "either", body)
    yield file_case(
        "header of 5 bytes", "refused", PNG_START + chunk(b"IHDR", b"\0\0\0@\0") + chunk(b"IDAT", b"") + PNG_END
    )
    yield file_case(
        "palette of 1,000 colours", "either", with_chunks(without_chunk(palette, b"PLTE"), chunk(b"PLTE", bytes(3_000)))
    )
    yield file_case(
        "transparency of 9,000 entries", "either", with_chunks(palette, chunk(b"tRNS", bytes(9_000)), after=b"PLTE")
    )
    yield file_case(
        "a picture in an unknown critical chunk",
        "refused",
        with_chunks(without_chunk(good, b"IDAT"), chunk(b"JDAT", zlib.compress(raw))),
    )


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def broken_webps() -> Iterator[Case]:
    good = webp()
    body = webp_body(good)
    for size in (0, 4, len(good) // 2, len(good) * 100, 0xFFFFFFFE):
        outcome: Outcome = "either" if size < len(good) else "refused"
        yield file_case(f"file that says it has {size} bytes", outcome, riff(body, size=size))
    for size in (0, 10, len(good) // 2, 0xFFFFFFFE):
        yield file_case(
            f"picture that says it has {size} bytes", "refused", riff(riff_chunk(b"VP8 ", body[8:], size=size))
        )
    yield file_case("canvas without a picture", "refused", riff(webp_canvas(200, 160)))
    yield file_case("canvas larger than its picture", "refused", riff(webp_canvas(4_000, 4_000), body))
    yield file_case(
        "alpha of rubbish",
        "either",
        riff(webp_canvas(200, 160, flags=0x10), riff_chunk(b"ALPH", b"\x01" + b"\xaa" * 500), body),
    )
    yield file_case("no start code", "refused", good.replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b", 1))
    yield file_case("picture of zeros", "refused", riff(riff_chunk(b"VP8 ", bytes(2_000))))
    yield file_case("lossless picture of zeros", "refused", riff(riff_chunk(b"VP8L", b"\x2f" + bytes(2_000))))
    yield file_case(
        "100,000 chunks of its own",
        "accepted",
        lambda: riff(webp_canvas(200, 160), body, riff_chunk(b"junk", MARKER) * 100_000),
    )


def metadata() -> Iterator[Case]:
    press = zeros_deflated(1_000 * MEGABYTE)
    yield file_case("zTXt of 1 GB", "refused", lambda: with_chunks(png(), chunk(b"zTXt", b"k\0\0" + press)))
    yield file_case("iTXt of 1 GB", "refused", lambda: with_chunks(png(), chunk(b"iTXt", b"k\0\x01\0\0\0" + press)))
    yield file_case("iCCP of 1 GB", "refused", lambda: with_chunks(png(), chunk(b"iCCP", b"k\0\0" + press)))
    astral = zlib.compress(("a" * 1_000_000 + "\U0001f600").encode())
    yield file_case(
        "63 iTXt of 1 MB, four bytes a letter in memory",
        "refused",
        lambda: with_chunks(png(), *[chunk(b"iTXt", b"%d\0\x01\0\0\0" % number + astral) for number in range(63)]),
    )
    yield file_case(
        "zTXt of 100 KB", "accepted", with_chunks(png(), chunk(b"zTXt", b"k\0\0" + zlib.compress(MARKER * 5_000)))
    )
    yield file_case("tEXt with a script", "accepted", with_chunks(png(), chunk(b"tEXt", b"Comment\0" + SCRIPT)))
    yield file_case(
        "iTXt with bytes that are no text",
        "either",
        with_chunks(png(), chunk(b"iTXt", b"k\0\0\0\0\0\xff\xfe" + MARKER)),
    )
    yield file_case("zTXt that is not compressed", "either", with_chunks(png(), chunk(b"zTXt", b"k\0\0" + MARKER)))
    yield file_case("text without its key", "either", with_chunks(png(), chunk(b"tEXt", MARKER)))
    directories = {
        "65,535 entries that are not there": b"II*\0\x08\0\0\0\xff\xff",
        "entries that overlap": exif([(tag, 7, 50_000, 8) for tag in range(1, 4_000)], bytes(10_000)),
        "a count of four billion": exif([(0x0112, 3, 0xFFFFFFFF, 8)]),
        "offsets outside": exif([(tag, 7, 100, 0xFFFFFF00) for tag in range(1, 200)]),
        "a directory that leads to itself": exif([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8)], next_at=8),
        "an orientation that is text": exif([(0x0112, 2, 4, 0x33323130)]),
        "an orientation of 60,000": exif([(0x0112, 3, 1, 60_000)]),
        "two orientations": exif([(0x0112, 3, 2, 0x00030006)]),
        "an unknown byte order": b"XX*\0\x08\0\0\0\0\0" + MARKER,
        "nothing": b"",
        "BigTIFF": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + b"\xff" * 8,
    }
    for name, directory in directories.items():
        body = directory + MARKER
        yield file_case(
            f"EXIF with {name} in a JPEG",
            "accepted",
            with_segments(jpeg(), segment(0xE1, (b"Exif\0\0" + body)[:65_000])),
        )
        yield file_case(f"EXIF with {name} in a PNG", "accepted", with_chunks(png(), chunk(b"eXIf", body)))
        container = riff(webp_canvas(200, 160, flags=0x08), webp_body(webp()), riff_chunk(b"EXIF", body))
        yield file_case(f"EXIF with {name} in a WebP", "accepted", container)
    yield file_case(
        "14 MB of EXIF in a JPEG",
        "accepted",
        lambda: with_segments(
            jpeg(), *_split_exif(exif([(tag, 7, 2_800, 65_536) for tag in range(1, 5_000)], bytes(14_000_000)))
        ),
    )
    yield file_case(
        "14 MB of EXIF in a PNG",
        "accepted",
        lambda: with_chunks(
            png(), chunk(b"eXIf", exif([(tag, 7, 2_800, 65_536) for tag in range(1, 5_000)], bytes(14_000_000)))
        ),
    )
    profile = segment(0xE2, b"ICC_PROFILE\0\x01\xff" + MARKER * 3_000)
    yield file_case(
        "12 MB of colour profiles, all the first of 255", "accepted", lambda: with_segments(jpeg(), profile * 200)
    )
    yield file_case("colour profile that lacks its parts", "accepted", with_segments(jpeg(), profile))
    yield file_case(
        "XMP with an entity bomb",
        "accepted",
        with_segments(jpeg(), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _entity_bomb())),
    )
    yield file_case(
        "XMP with an entity bomb in a PNG",
        "accepted",
        with_chunks(png(), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _entity_bomb())),
    )
    yield file_case(
        "Photoshop blocks of a size that is not there",
        "accepted",
        with_segments(jpeg(), segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff" + MARKER)),
    )
    yield file_case(
        "12 MB of comments", "accepted", lambda: with_segments(jpeg(), segment(0xFE, (MARKER * 4_000)[:65_000]) * 190)
    )
    for name, count in (("one", 1), ("four billion", 0xFFFFFFFF)):
        index = exif([(0xB000, 7, 4, 0x30303130), (0xB001, 4, 1, count), (0xB002, 7, 16, 50)], bytes(64))
        yield file_case(
            f"multi-picture index of {name} pictures",
            "accepted",
            with_segments(jpeg(), segment(0xE2, b"MPF\0" + index)),
        )
    yield file_case(
        "multi-picture index of rubbish", "accepted", with_segments(jpeg(), segment(0xE2, b"MPF\0" + b"\xaa" * 100))
    )


def _split_exif(data: bytes) -> list[bytes]:
    pieces = [data[at : at + 65_000] for at in range(0, len(data), 65_000)]
    return [segment(0xE1, b"Exif\0\0" + piece) for piece in pieces]


def _entity_bomb() -> bytes:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "boom"}">' for n in range(10))
    return f'<!DOCTYPE x [{entities}<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&a9;&f;</x>'.encode() + MARKER


def polyglots() -> Iterator[Case]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("payload.html", SCRIPT)
    tails = {
        "HTML": b"<html><body>" + SCRIPT + b"</body></html>",
        "PHP": b"<?php system($_GET['c']); /*" + MARKER + b"*/ ?>",
        "a shell script": b"\n#!/bin/sh\n# " + MARKER + b"\nrm -rf /\n",
        "JavaScript": b"*/=1;alert('" + MARKER + b"')/*",
        "a ZIP archive": archive.getvalue(),
        "a PDF": b"%PDF-1.7\n1 0 obj <</Type/Catalog>> " + MARKER + b"\n%%EOF",
        "a film": b"\0\0\0\x20ftypisom" + MARKER + bytes(range(256)) * 200,
        "a second JPEG": jpeg(320, 240) + MARKER,
    }
    for name, data in (("JPEG", jpeg()), ("PNG", png()), ("WebP", webp())):
        for what, tail in tails.items():
            yield file_case(f"{name} with {what} behind it", "accepted", data + tail)
        yield file_case(f"HTML before a {name}", "refused", SCRIPT + data)
        yield file_case(f"PDF before a {name}", "refused", b"%PDF-1.7\n" + data)
    yield file_case("GIF that is JavaScript", "refused", b"GIF89a/*" + bytes(20) + b"*/=1;alert('" + MARKER + b"');")
    yield file_case(
        "JPEG that is JavaScript",
        "accepted",
        jpeg()[:2] + segment(0xFE, b"*/=alert('" + MARKER + b"');/*" + b"x" * 9_000) + jpeg()[2:],
    )
    yield file_case(
        "JPEG that is HTML in its comment", "accepted", with_segments(jpeg(), segment(0xFE, b"<html>" + SCRIPT))
    )
    yield file_case(
        "JPEG with a PDF in its comment", "accepted", with_segments(jpeg(), segment(0xFE, b"\n%PDF-1.7\n" + MARKER))
    )
    yield file_case("PNG with PHP in its palette", "accepted", _png_with_payload_palette())
    yield file_case("PNG with a script in a chunk of its own", "accepted", with_chunks(png(), chunk(b"scRp", SCRIPT)))
    yield file_case(
        "WebP with a script in a chunk of its own",
        "accepted",
        riff(webp_canvas(200, 160), webp_body(webp()), riff_chunk(b"scRp", SCRIPT)),
    )
    yield file_case("WebP that is a WAV file", "refused", b"RIFF\x24\0\0\0WAVEfmt " + webp()[12:])
    yield file_case("JPEG inside a PNG's name", "refused", PNG_START + jpeg())


def _png_with_payload_palette() -> bytes:
    colours = (b"<?=" + MARKER + b"?>" + bytes(48))[:48]
    plain = save(noise(64, 64).quantize(16), "PNG")
    return with_chunks(without_chunk(plain, b"PLTE"), chunk(b"PLTE", colours))


def renamed_formats() -> Iterator[Case]:
    brands = {"HEIC": b"heic", "AVIF": b"avif", "MP4": b"isom", "QuickTime": b"qt  ", "CR3": b"crx "}
    files: dict[str, bytes] = {
        name: struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"mif1" + bytes(400)
        for name, brand in brands.items()
    }
    small = noise(64, 64)
    files |= {
        name: save(small, name)
        for name in ("BMP", "ICO", "TIFF", "GIF", "PPM", "TGA", "DDS", "EPS", "PDF", "SGI", "PCX")
    }
    files |= {
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg">' + SCRIPT + b"</svg>",
        "HTML": b"<!doctype html>" + SCRIPT,
        "an EXE": b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0" + bytes(200),
        "an ELF program": b"\x7fELF\x02\x01\x01" + bytes(200),
        "PSD": b"8BPS\0\x01" + bytes(6) + b"\0\x03" + struct.pack(">II", 64, 64) + b"\0\x08\0\x03" + bytes(500),
        "Matroska": b"\x1a\x45\xdf\xa3" + bytes(200),
        "MP3": b"ID3\x03\0\0\0\0\0\0" + bytes(200),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200),
        "a bare JPEG XL": b"\xff\x0a" + bytes(200),
        "WebAssembly": b"\0asm\x01\0\0\0" + bytes(100),
        "Java class": b"\xca\xfe\xba\xbe" + bytes(100),
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "SQLite": b"SQLite format 3\0" + bytes(500),
        "a pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "a NumPy array": b"\x93NUMPY\x01\0" + bytes(200),
        "text": b"just words " + MARKER,
        "a shell script": b"#!/bin/sh\nid\n",
        "an ImageMagick script": b"push graphic-context\nimage over 0,0 0,0 'https://example.com/x'\n",
        "MNG": b"\x8aMNG\r\n\x1a\n" + bytes(200),
    }
    for name, data in files.items():
        yield file_case(f"{name} named photo.jpg", "refused", data, file_name="photo.jpg")
    for name, data in WHOLE.items():
        yield file_case(
            f"{name} named photo.exe", "accepted", data, file_name="photo.exe", kind="application/x-msdownload"
        )


def moving_pictures() -> Iterator[Case]:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    yield file_case("animated PNG", "refused", save(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    yield file_case("animated WebP", "refused", save(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    yield file_case("animated GIF", "refused", save(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    many = [Image.new("L", (64, 64), number % 256) for number in range(500)]
    yield file_case(
        "animated WebP of 500 frames", "refused", lambda: save(many[0], "WEBP", save_all=True, append_images=many[1:])
    )
    for count in (0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF):
        control = chunk(b"acTL", struct.pack(">II", count, 0))
        outcome: Outcome = "refused" if 2 <= count < 2**31 else "either"
        yield file_case(f"PNG that says it has {count} frames", outcome, with_chunks(png(), control))
    control = chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 0, 0, 1, 1, 0, 0)
    )
    yield file_case("PNG whose only frame is larger than itself", "either", with_chunks(png(), control))
    yield file_case("multi-picture JPEG", "accepted", save(frames[0], "MPO", save_all=True, append_images=frames[1:]))


def colour_oddities() -> Iterator[Case]:
    cmyk = save(noise(200, 160).convert("CMYK"), "JPEG")
    yield file_case("CMYK", "accepted", cmyk)
    for transform in (0, 1, 2, 200):
        adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
        yield file_case(
            f"CMYK with Adobe transform {transform}", "accepted", with_segments(without_segment(cmyk, 0xEE), adobe)
        )
        yield file_case(f"colour with Adobe transform {transform}", "accepted", with_segments(jpeg(), adobe))
    yield file_case("CMYK without an Adobe segment", "accepted", without_segment(cmyk, 0xEE))
    yield file_case("Adobe segment of one byte", "accepted", with_segments(jpeg(), segment(0xEE, b"Adobe\0\x64")))
    yield file_case("grey", "accepted", save(noise(200, 160).convert("L"), "JPEG"))
    ramp = np.linspace(0, 65_535, 200 * 160).reshape(160, 200).astype(np.uint16)
    yield file_case("16-bit grey", "accepted", save(Image.fromarray(ramp), "PNG"))
    yield file_case("black and white", "accepted", save(noise(200, 160).convert("1"), "PNG"))
    yield file_case("wholly transparent", "accepted", save(Image.new("RGBA", (200, 160), (0, 0, 0, 0)), "PNG"))
    yield file_case("a palette of one colour", "accepted", save(Image.new("P", (200, 160)), "PNG"))
    yield file_case(
        "CMYK with a profile of rubbish",
        "accepted",
        with_segments(cmyk, segment(0xE2, b"ICC_PROFILE\0\x01\x01" + MARKER * 50)),
    )


NAMES = {
    "a script": "<script>alert(1)</script>.jpg",
    "an event handler": "<img src=x onerror=alert(1)>.jpg",
    "quotes": "a'b&quot;c.jpg",
    "a path": "../../../../etc/passwd",
    "a Windows path": "..\\..\\..\\windows\\system32\\config",
    "an absolute path": "/var/www/html/shell.php",
    "a drive": "C:\\autoexec.bat",
    "dots": "..",
    "one dot": ".",
    "nothing but a slash": "/",
    "a NUL": "photo.jpg\0.php",
    "an encoded NUL": "photo.php%00.jpg",
    "right-to-left": "photo\u202egpj.exe",
    "300 letters": "a" * 300 + ".jpg",
    "5,000 letters": "b" * 5_000 + ".jpg",
    "300 emoji": "\U0001f600" * 300,
    "lines": "a\x0bb\x1b[31mc.jpg",
    "a formula": "=HYPERLINK(1).jpg",
    "SQL": "'; DROP TABLE detector_detection; --.jpg",
    "a template": "{{ settings.SECRET_KEY }}{% include 'x' %}.jpg",
    "a format string": "%s%s%n{0.__class__}.jpg",
    "a device": "CON.jpg",
    "spaces": "   ",
    "two hundred combining marks": "e" + "\u0301" * 200 + ".jpg",
    "bytes that are no text": "\udcff\udcfe\udc80.jpg",
    "a semicolon and a second name": 'x.jpg"; filename="y.php',
}


# Django takes a part for a text if nothing is left of its file's name, and leaves out one whose header is over 1 KB or
# is no UTF-8.
NAMES_FOR_DJANGO = (
    "dots",
    "one dot",
    "nothing but a slash",
    "spaces",
    "5,000 letters",
    "300 emoji",
    "bytes that are no text",
)


def file_names() -> Iterator[Case]:
    for name, file_name in NAMES.items():
        outcome: Outcome = "either" if name in NAMES_FOR_DJANGO else "accepted"
        yield file_case(f"named with {name}", outcome, jpeg(), file_name=file_name)
    extended = "filename*=UTF-8''" + "%E2%80%AE" * 50 + "gpj.exe"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; {extended}\r\n\r\n'.encode()
    yield Case("named in the extended way", "accepted", lambda: head + jpeg() + b"\r\n" + END)
    broken = head.replace(b"UTF-8''", b"no-such-charset''")
    yield Case("named in a character set that does not exist", "either", lambda: broken + jpeg() + b"\r\n" + END)


def content_types() -> Iterator[Case]:
    for kind in (
        "text/html",
        "image/svg+xml",
        "application/x-php",
        "image/png",
        "x" * 300,
        "image/jpeg; charset=utf-7",
        "",
    ):
        yield file_case(f"JPEG sent as {kind[:30] or 'nothing'}", "accepted", jpeg(), kind=kind)
    for kind in ("image/jpeg", "image/png", "image/webp"):
        yield file_case(f"HTML sent as {kind}", "refused", SCRIPT, kind=kind)
    yield file_case(
        "JPEG in base64", "accepted", base64.b64encode(jpeg()), more="Content-Transfer-Encoding: base64\r\n"
    )
    yield file_case("broken base64", "refused", b"\xff\xd8!!!!", more="Content-Transfer-Encoding: base64\r\n")
    yield file_case("quoted-printable", "either", jpeg(), more="Content-Transfer-Encoding: quoted-printable\r\n")
    yield file_case("compressed part", "refused", zlib.compress(jpeg()), more="Content-Encoding: deflate\r\n")
    for kind in (
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "image/jpeg",
        "",
        "multipart/mixed",
    ):
        yield Case(f"body sent as {kind or 'nothing'}", "refused", lambda: part(jpeg()) + END, kind)
    for kind in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=" + "x" * 5_000,
        'multipart/form-data; boundary="\r\nX: y"',
        f"{MULTIPART}; charset=no-such-charset",
        f"{MULTIPART}; charset=utf-16",
    ):
        outcome: Outcome = "either" if "charset" in kind else "refused"
        yield Case(f"form sent as {kind[20:60]!r}", outcome, lambda: part(jpeg()) + END, kind)


def text(field: str, value: bytes) -> bytes:
    return part(value, field=field, file_name=None, kind="")


def forms() -> Iterator[Case]:
    whole = part(jpeg())
    yield Case("an empty body", "refused", lambda: b"")
    yield Case("no parts", "refused", lambda: END)
    yield Case("no end", "either", lambda: whole)
    yield Case(
        "a part that stops in its header",
        "refused",
        lambda: f"--{BOUNDARY}\r\nContent-Disposition: form-data; na".encode(),
    )
    yield Case("a part without a header", "refused", lambda: f"--{BOUNDARY}\r\n\r\n".encode() + jpeg() + b"\r\n" + END)
    yield Case("a header of 1 MB", "refused", lambda: part(jpeg(), more="X-Long: " + "a" * MEGABYTE + "\r\n") + END)
    yield Case(
        "ten thousand fields", "refused", lambda: b"".join(text(f"f{n}", b"x") for n in range(10_000)) + whole + END
    )
    yield Case("ten thousand times the same field", "refused", lambda: text("forget", b"x") * 10_000 + whole + END)
    yield Case("five thousand files", "refused", lambda: part(b"x", field="more") * 5_000 + whole + END)
    yield Case("two pictures", "refused", lambda: whole * 2 + END)
    yield Case("a field of 1 MB", "refused", lambda: text("note", bytes(MEGABYTE)) + whole + END)
    yield Case("a field name of 300 KB", "refused", lambda: text("n" * 300_000, b"x") + whole + END)
    yield Case("the picture as a text", "refused", lambda: text("picture", jpeg()) + END)
    yield Case("a picture of another name", "refused", lambda: part(jpeg(), field="photo") + END)
    yield Case("NUL in every field", "either", lambda: text("forget\0", b"\0") + text("x", b"\0\0") + whole + END)
    yield Case("a character set for all fields", "either", lambda: text("_charset_", b"utf-16") + whole + END)
    inner = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"\r\n'
        "Content-Type: multipart/mixed; boundary=inner\r\n\r\n"
        '--inner\r\nContent-Disposition: file; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    ).encode()
    yield Case("a form inside a form", "refused", lambda: inner + jpeg() + b"\r\n--inner--\r\n" + END)
    nested = b"".join(
        f"--b{n}\r\nContent-Type: multipart/mixed; boundary=b{n + 1}\r\n\r\n".encode() for n in range(2_000)
    )
    yield Case("two thousand forms inside each other", "refused", lambda: nested, "multipart/form-data; boundary=b0")
    yield Case("rubbish before the first part", "either", lambda: b"x" * 50_000 + b"\r\n" + whole + END)
    yield Case("rubbish after the last part", "either", lambda: whole + END + b"x" * 50_000)
    yield Case("bare line feeds", "refused", lambda: (whole + END).replace(b"\r\n", b"\n"))
    yield Case(
        "boundaries in the picture", "accepted", lambda: part(jpeg() + b"--hostile-not-quite\r\n-hostile--") + END
    )
