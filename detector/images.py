"""Bytes to upright RGB pixels, safely: no Django, no LiteRT.

Everything about a picture is judged from its content, never from its name or declared type.
"""

import functools
import hashlib
import io
import math
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from detector.exceptions import InvalidImage

ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP")
DEFAULT_MAX_BYTES = 15 * 1024 * 1024
DEFAULT_MAX_PIXELS = 50_000_000
# A face needs some pixels to be judged at all; anything thinner than this is a line, not a photo.
MIN_SIDE = 32
# Pillow's WebP decoder holds four copies of a picture, 16 bytes a pixel: this many are 256 MB.
MAX_WEBP_PIXELS = 16_000_000
MEGABYTE = 1024 * 1024
# A file of 15 MB can hold a million segments or scans that say nothing, and each costs time. Photos have some dozens of
# segments, PNGs a chunk for each 8 KB, progressive JPEGs about ten scans.
MAX_SEGMENTS = 2_000
MAX_CHUNKS = 50_000
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1_000_000_000  # pixels times scans: 50 megapixels in 20 scans
# A decoder keeps all coefficients of a JPEG with several scans: 50 megapixels with the usual halved colours are 150 MB.
MAX_COEFFICIENT_BYTES = 220_000_000
MAX_FILLING = 4_096  # bytes between a JPEG's segments, which the standard allows without end
# Pictures longer than that, as a multiple of their width (screenshots of chats, panoramas), are looked at in parts that
# are twice as long as wide, or an eighth as long as the whole: as a whole their faces would be tiny.
LONG_FROM, LENGTH_OF_PART, MOST_IN_A_ROW = 2.5, 2, 8
# A JPEG is decoded at a half, a quarter or an eighth of its size, which takes less time, as long as its long side, or
# that of such a part, keeps so many pixels: enough to find faces, and for one an eighth as wide as the picture.
LEAST_SIDE = 960
# The same for smaller faces, for which it is decoded once more.
DETAIL_SIDE = 2 * LEAST_SIDE
# The same for copies that people look at.
DISPLAY_SIDE = 1024
# Other formats can only be decoded whole. They are kept at up to this long side, so that a 50-megapixel PNG does not
# stay in memory as it is.
WORKING_SIDE = 2048
# Pictures that have to be converted before they can be made smaller are converted in tiles of about this side.
TILE_SIDE = 1024

# Multi-picture JPEGs (portrait mode, Ultra HDR) are ordinary phone photos: their first frame is the photo.
_FORMAT_NAMES = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "WEBP": "WEBP"}
_EXIF_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Nobody reads a PNG's texts here. 4 MB are more than any editor writes; Pillow's own limit of 64 MB can take up four
# times as much memory.
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024

_JPEG_START = b"\xff\xd8"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that carry the picture itself: a wrong checksum in one of them means wrong pixels.
_PNG_PICTURE_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Frames that no camera or browser writes: lossless, hierarchical, arithmetic. The decoder takes other data for them.
_RARE_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
# Markers that stand alone: none at all, TEM, the restart markers, and a second start of image.
_LONE_MARKERS = (0x00, 0x01, *range(0xD0, 0xD9))
# In a scan 0xFF 0x00 is a pixel's byte and 0xFF 0xD0-0xD7 a restart; anything else ends the scan.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FILLING = re.compile(rb"[^\xff]*\xff+")
# What libjpeg paints where a scan ended too early: the grey of a block without any data, inverted in CMYK.
_UNPAINTED = frozenset((127, 128))

_INCOMPLETE = "The picture is damaged or incomplete and could not be read to its end."
_TOO_MANY_PARTS = "The picture is stored in far more parts than any photo."

# What people take for an ordinary photo as well, by how it begins. HEIC and AVIF name themselves among several brands.
_OTHER_FORMATS = {
    "an AVIF": re.compile(rb".{4}ftyp(?:.{4}){0,32}?avi[fs]", re.DOTALL),
    "a HEIC": re.compile(rb".{4}ftyp(?:.{4}){0,32}?(?:hei[cmsx]|hev[cmsx])", re.DOTALL),
    "a JPEG 2000": re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    "a JPEG XL": re.compile(rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"),
    "a GIF": re.compile(rb"GIF8[79]a"),
    "a TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "a BMP": re.compile(rb"BM.{4}\0{4}", re.DOTALL),
}

# What Pillow's decoders raise on damaged data, by format; an AssertionError on a palette picture without a palette.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AssertionError,
    struct.error,
    zlib.error,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


# What the steps of a detection take: each step that wanted an array would make a copy of all pixels.
Picture = Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A picture that was decoded completely.

    Attributes:
        picture: RGB, upright, without metadata. Of a larger JPEG the `part_length` has `least_side` px or up to twice
            as many, of others up to `WORKING_SIDE`; in all there are no more than in a square of that side. Not to be
            changed in place.
        format: One of `ACCEPTED_FORMATS`.
        width: Width of the upright original in px.
        height: Height of the upright original in px.
        byte_count: Size of the original file in bytes.
        sha256: Hex digest of the original bytes.
        decode_ms: Wall time that decoding took, in ms.
        data: The file as uploaded.
    """

    picture: Image.Image
    format: str
    width: int
    height: int
    byte_count: int
    sha256: str
    decode_ms: float
    data: bytes = field(repr=False)

    @functools.cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3) uint8, a copy of `picture`."""
        return np.asarray(self.picture)

    def finer(self) -> Image.Image | None:
        """Returns `picture` decoded anew with at least `DETAIL_SIDE` px of `part_length`, if the file holds more of it.

        Raises:
            InvalidImage: There is not enough memory for it.
        """
        if self.format != "JPEG" or part_length(*self.picture.size) >= min(
            DETAIL_SIDE, part_length(self.width, self.height)
        ):
            return None
        with _open(self.data) as image:
            return _load_upright(image, self.data, first_scan=0, least_side=DETAIL_SIDE)


def part_length(width: int, height: int) -> int:
    """Returns the long side, in px, of what is looked at by itself: of the whole picture unless that is a long one."""
    short, long = sorted((width, height))
    return long if long <= LONG_FROM * short else max(LENGTH_OF_PART * short, -(-long // MOST_IN_A_ROW))


def as_image(picture: Picture) -> Image.Image:
    """Returns (height, width, 3) uint8 RGB pixels as an image; one that is an image already is not copied."""
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def decode_image(
    data: bytes,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_webp_pixels: int = MAX_WEBP_PIXELS,
    least_side: int = LEAST_SIDE,
) -> DecodedImage:
    """Returns the decoded picture.

    Args:
        data: The file as uploaded.
        max_bytes: Largest accepted file, in bytes.
        max_pixels: Largest accepted picture, in px; checked in the header, before decoding.
        max_webp_pixels: The same for WebP, which takes more memory to decode; the smaller one counts.
        least_side: What the `part_length` of a larger JPEG keeps at least, in px.

    Raises:
        InvalidImage: Not a JPEG, PNG or WebP still, too large, too small, truncated or damaged.
    """
    started = time.perf_counter()
    if not data:
        raise InvalidImage("The file is empty.", code="empty")
    if len(data) > max_bytes:
        raise InvalidImage(
            f"The file has {_over(len(data), MEGABYTE)} MB; at most {limit_megabytes(max_bytes)} MB are accepted.",
            code="too_large",
        )
    first_scan = 0
    if data.startswith(_PNG_SIGNATURE):
        _check_chunks(data)
    elif data.startswith(_JPEG_START):
        first_scan = _first_scan(data)
    image = _open(data)
    with image:
        original_format = _FORMAT_NAMES[str(image.format)]
        _check_header(image, original_format, max_pixels, max_webp_pixels)
        stored_width, stored_height = image.size
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            _check_scans(image, data, first_scan)
        upright = _load_upright(image, data, first_scan=first_scan, least_side=least_side)
        turned = _orientation(image) in (5, 6, 7, 8)
    return DecodedImage(
        picture=upright,
        format=original_format,
        width=stored_height if turned else stored_width,
        height=stored_width if turned else stored_height,
        byte_count=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        decode_ms=(time.perf_counter() - started) * 1000,
        data=data,
    )


def decode_again(data: bytes, *, pixel_count: int, least_side: int = LEAST_SIDE) -> DecodedImage:
    """Returns a stored picture of so many px; the limits of today do not apply to what was accepted before them.

    Raises:
        InvalidImage: The file was damaged since.
    """
    limits = {"max_bytes": len(data), "max_pixels": pixel_count, "max_webp_pixels": pixel_count}
    return decode_image(data, **limits, least_side=least_side)


def encode_jpeg(picture: Picture, *, quality: int = 85) -> bytes:
    """Returns a JPEG without any metadata.

    Args:
        picture: RGB; an image must not bring metadata along.
        quality: JPEG quality, 1 to 95.
    """
    buffer = io.BytesIO()
    as_image(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def fitted(picture: Picture, max_side: int) -> Image.Image:
    """Returns a larger picture with a long side of max_side px, or up to an eighth less; any other as it is."""
    image = as_image(picture)
    if max(image.size) <= max_side:
        return image
    factor = -(-max(image.size) // max_side)
    if max(image.size) >= factor * max_side * 7 / 8:
        return image.reduce(factor)  # averages of whole blocks, which cost little; to interpolate takes as long again
    # Averages first all the same, which leave less to interpolate.
    smaller = image.reduce(max(1, max(image.size) // max_side))
    smaller.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return smaller


def middle_of_long(picture: Picture) -> Image.Image:
    """Returns the middle of a long picture, twice as long as it is wide; any other as it is."""
    image = as_image(picture)
    width, height = image.size
    if max(width, height) <= LONG_FROM * min(width, height):
        return image
    length = LENGTH_OF_PART * min(width, height)
    left, top = max(0, width - length) // 2, max(0, height - length) // 2
    return image.crop((left, top, left + min(width, length), top + min(height, length)))


def _load_upright(image: Image.Image, data: bytes, *, first_scan: int, least_side: int) -> Image.Image:
    """Returns the picture in RGB, upright and without metadata.

    Args:
        image: What was opened, not loaded yet.
        data: Its file.
        first_scan: Where a JPEG's first scan begins; 0 if it has none, or is known to be complete.
        least_side: What the `part_length` of a larger JPEG keeps at least, in px.

    Raises:
        InvalidImage: It is truncated or damaged, or there is not enough memory for it.
    """
    try:
        _draft(image, least_side)
        marked = _marked_row(image) if image.format == "PNG" else None
        image.load()
        if first_scan and _is_starved(image, data, first_scan, least_side):
            raise InvalidImage(_INCOMPLETE, code="truncated")
        if marked is not None and image.crop(marked[0]).tobytes() == marked[1]:
            raise InvalidImage(_INCOMPLETE, code="truncated")
        orientation = _orientation(image)
        upright = _to_working_rgb(image, max(WORKING_SIDE, 2 * least_side))
        if orientation in _TRANSPOSE:
            upright = upright.transpose(_TRANSPOSE[orientation])
    except MemoryError as error:
        raise InvalidImage("The picture needs too much memory to be decoded.", code="too_many_pixels") from error
    except _DECODER_ERRORS as error:
        raise InvalidImage(_INCOMPLETE, code="truncated") from error
    upright.info = {}  # the file's comment, profile and the like, which encoders would write into every copy
    return upright


def _draft(image: Image.Image, least_side: int) -> None:
    """Has a JPEG decoded at the least of its scales, 1 to 1/8, that leaves its `part_length` so many px.

    Of a long one it may be fewer: in all there are to be no more than in a square of twice that side, as of any other.
    """
    factor = next(each for each in (8, 4, 2, 1) if each == 1 or part_length(*image.size) >= each * least_side)
    while factor < 8 and image.width // factor * (image.height // factor) > (2 * least_side) ** 2:
        factor *= 2
    image.draft("RGB", (max(1, image.width // factor), max(1, image.height // factor)))


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, begin, end) of the content of each chunk of a PNG, up to the one that ends it.

    Raises:
        InvalidImage: It is incomplete, or has more parts than any picture.
    """
    position = len(_PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        begin = position + 8
        end = begin + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            raise InvalidImage(_INCOMPLETE, code="truncated")
        kind = data[position + 4 : begin]
        yield kind, begin, end
        if kind == b"IEND":
            return
        position = end + 4
    raise InvalidImage(_TOO_MANY_PARTS, code="broken")


def _check_chunks(data: bytes) -> None:
    """Raises InvalidImage for a PNG that is incomplete, has wrong checksums or more parts than any picture."""
    view = memoryview(data)
    for kind, begin, end in png_chunks(data):
        checksum = int.from_bytes(data[end : end + 4], "big")
        if kind in _PNG_PICTURE_CHUNKS and zlib.crc32(view[begin - 4 : end]) != checksum:
            raise InvalidImage(_INCOMPLETE, code="truncated")


def _marked_row(image: Image.Image) -> tuple[tuple[int, int, int, int], bytes]:
    """Returns the box of the row that a PNG's data bring last, and the noise that stands there before it is loaded.

    Where the compressed pixels end too early, but in good order, Pillow leaves the rows that lack as they were and says
    nothing. No file can know the noise, so what is still there was not painted.
    """
    # Interlaced, odd rows come with the last pass, whole.
    last = image.height - 1 if not image.info.get("interlace") or image.height % 2 == 0 else image.height - 2
    box = (0, last, image.width, last + 1)
    row = Image.new(image.mode, (image.width, 1))
    row.frombytes(os.urandom(len(row.tobytes())))
    image.im = Image.new(image.mode, image.size).im
    image.im.paste(row.im, box)
    return box, row.tobytes()


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, begin, end) of each segment of a JPEG, from its length on, up to the first scan or the end.

    Raises:
        InvalidImage: It has more parts than any photo, each of which would hold the decoder up.
    """
    position, filling = 2, 0
    for _ in range(MAX_SEGMENTS):
        found = _FILLING.match(data, position)
        if found is None or found.end() == len(data):
            return
        filling += found.end() - 1 - position
        if filling > MAX_FILLING:
            break
        marker, begin = data[found.end()], found.end() + 1
        position = begin if marker in _LONE_MARKERS else begin + max(2, _length_at(data, begin))
        yield marker, begin, position
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return
    raise InvalidImage(_TOO_MANY_PARTS, code="broken")


def _first_scan(data: bytes) -> int:
    """Returns where a JPEG's first scan begins, 0 where there is none.

    Raises:
        InvalidImage: It has more parts than any photo, or is of a kind that is not accepted.
    """
    for marker, begin, _end in jpeg_segments(data):
        if marker == _START_OF_SCAN:
            return begin - 2
        if marker in _RARE_FRAMES:
            raise InvalidImage("This kind of JPEG is not accepted; save it as an ordinary one.", code="format")
    return 0


def _check_scans(image: JpegImagePlugin.JpegImageFile, data: bytes, first_scan: int) -> None:
    """Raises InvalidImage for a JPEG whose scans would take too much time or memory, or do not make up a picture."""
    pixel_count = image.width * image.height
    samples = [across * down for _, across, down, _ in image.layer]
    if 0 in samples or len(data) <= first_scan + 4:  # a component without pixels, or nothing behind the scan's marker
        raise InvalidImage(_INCOMPLETE, code="truncated")
    coefficient_bytes = 2 * pixel_count * sum(samples) / max(samples, default=1)
    is_progressive = "progressive" in image.info
    if not is_progressive and data[first_scan + 4] == len(image.layer):
        return  # all in one scan, as most photos are
    scans = _scan_headers(data, first_scan)
    if len(scans) > MAX_SCANS or len(scans) * pixel_count > MAX_SCANNED_PIXELS:
        raise InvalidImage(_TOO_MANY_PARTS, code="broken")
    if coefficient_bytes > MAX_COEFFICIENT_BYTES:
        raise InvalidImage(
            "The picture is too large for a progressive JPEG. Saved as an ordinary JPEG it is accepted.",
            code="too_many_pixels",
        )
    components = {component for component, *_ in image.layer}
    if _delivered(scans, is_progressive) < {(c, k) for c in components for k in range(64 if is_progressive else 1)}:
        raise InvalidImage(_INCOMPLETE, code="truncated")


def _scan_headers(data: bytes, position: int) -> list[bytes]:
    """Returns what the header of each scan says, from the one at that position on; no more than are too many."""
    headers: list[bytes] = []
    while len(headers) <= MAX_SCANS:
        end = position + 2 + _length_at(data, position + 2)
        if data[position + 1] == _START_OF_SCAN:
            headers.append(data[position + 4 : end])
        found = _NEXT_MARKER.search(data, end)
        if found is None or data[found.start() + 1] == _END_OF_IMAGE:
            break
        position = found.start()
    return headers


def _delivered(scans: list[bytes], is_progressive: bool) -> set[tuple[int, int]]:
    """Returns each component and coefficient of it that the scans bring to its last bit; sequential ones bring all."""
    delivered = set()
    for header in scans:
        count = header[0] if header else 0
        components = header[1 : 1 + 2 * count : 2]
        first, last, bits = header[1 + 2 * count : 4 + 2 * count] if len(header) >= 4 + 2 * count else (1, 0, 0)
        if not is_progressive:
            first = last = bits = 0
        if bits & 15 == 0:
            delivered |= {(component, k) for component in components for k in range(first, min(last, 63) + 1)}
    return delivered


def _length_at(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 2], "big")


def _is_starved(image: Image.Image, data: bytes, first_scan: int, least_side: int) -> bool:
    """Returns whether a JPEG's only scan ends before its last block, though an end was put behind it.

    libjpeg fills up with grey and says nothing. Whether grey at the end is a part of the picture shows when more bytes
    are put there: the decoder of a complete picture has no use for them.
    """
    corner = image.getpixel((image.width - 1, image.height - 1))
    if not _UNPAINTED.issuperset(corner if isinstance(corner, tuple) else (corner,)):
        return False
    end = _NEXT_MARKER.search(data, first_scan + 2 + _length_at(data, first_scan + 2))
    if end is None or data[end.start() + 1] != _END_OF_IMAGE:
        return False
    fed = data[: end.start()] + bytes(range(1, 255)) + data[end.start() :]
    with Image.open(io.BytesIO(fed), formats=ACCEPTED_FORMATS) as again:
        _draft(again, least_side)
        return again.tobytes() != image.tobytes()


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS)
    except _BOMBS as error:
        raise InvalidImage("The picture has far too many pixels.", code="too_many_pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidImage(_other_format_sentence(data), code="format") from error
    except _DECODER_ERRORS as error:
        raise InvalidImage("The picture's header is damaged.", code="broken") from error


def _check_header(image: Image.Image, original_format: str, max_pixels: int, max_webp_pixels: int) -> None:
    width, height = image.size
    limit = min(max_pixels, max_webp_pixels) if original_format == "WEBP" else max_pixels
    if width * height > limit:
        of_others = f" of a WebP, {max_pixels / 1_000_000:g} of a JPEG or PNG" if limit < max_pixels else ""
        raise InvalidImage(
            f"The picture has {_over(width * height, 1_000_000)} megapixels; "
            f"at most {limit / 1_000_000:g} megapixels are accepted{of_others}.",
            code="too_many_pixels",
        )
    if min(width, height) < MIN_SIDE:
        raise InvalidImage(
            f"The picture is {width} x {height} pixels; each side needs at least {MIN_SIDE}.", code="too_small"
        )
    if original_format != "JPEG" and getattr(image, "is_animated", False):
        raise InvalidImage("Animated pictures are not accepted; upload a single still.", code="animated")


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation 1 to 8; 1 where it is absent or unreadable."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:
        # Damaged metadata says nothing about the pixels, which were read completely.
        return 1
    return value if isinstance(value, int) else 1


def _to_working_rgb(image: Image.Image, most_side: int) -> Image.Image:
    """Returns the picture in RGB, averaged by whole blocks of pixels until it is as small as it has to be.

    Its `part_length` has no more than most_side px then, and all of it no more than a square of that side.
    """
    side = max(part_length(*image.size), math.sqrt(image.width * image.height))
    factor = math.ceil(side / most_side)
    if factor == 1:
        return _to_rgb(image)
    blocks = (min(factor, image.width), min(factor, image.height))
    if image.mode in ("L", "RGB", "CMYK") and not image.has_transparency_data:
        return _to_rgb(image.reduce(blocks))
    # Palettes, transparency and 16 bits cannot be averaged as they are, and converted whole they would need several
    # times the memory of the picture: one tile after the other.
    reduced = Image.new("RGB", (-(-image.width // blocks[0]), -(-image.height // blocks[1])))
    tile_width, tile_height = (block * max(1, TILE_SIDE // block) for block in blocks)
    for top in range(0, image.height, tile_height):
        for left in range(0, image.width, tile_width):
            box = (left, top, min(image.width, left + tile_width), min(image.height, top + tile_height))
            reduced.paste(_to_rgb(image.crop(box)).reduce(blocks), (left // blocks[0], top // blocks[1]))
    return reduced


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: keep the high byte. convert("L") would clip everything above 255 to white.
        levels = np.asarray(image).astype(np.float32) / 257.0
        image = Image.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _other_format_sentence(data: bytes) -> str:
    """Returns what to do with a file that is none of `ACCEPTED_FORMATS`."""
    for name, start in _OTHER_FORMATS.items():
        if start.match(data):
            return f"This is {name} picture, not a JPEG, PNG or WebP. Save or export it as JPEG and try again."
    return (
        "This is not a JPEG, PNG or WebP picture. The content counts, not the file name. Save or export other pictures "
        "as JPEG."
    )


def limit_megabytes(byte_count: int) -> str:
    """Returns the limit in MB (binary) with one decimal, rounded down: what is said to be accepted has to be."""
    return f"{math.floor(byte_count * 10 / MEGABYTE) / 10:.1f}".removesuffix(".0")


def _over(count: int, unit: int) -> str:
    """Returns it in that unit with one decimal, rounded up: what is just over a limit must not read as if it fitted."""
    return f"{math.ceil(count * 10 / unit) / 10:.1f}".removesuffix(".0")
