"""The parts that hostile files are made of: JPEG segments, PNG chunks, RIFF chunks, TIFF directories."""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

MARKER = b"HOSTILE-PAYLOAD-7f3a"
SCRIPT = b"<script>alert('" + MARKER + b"')</script>"
MEGABYTE = 1024 * 1024

# Picture types of PNG's header by their samples a pixel.
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}


@cache
def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def save(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@cache
def jpeg(width: int = 200, height: int = 160, **options: Any) -> bytes:
    return save(noise(width, height), "JPEG", **options)


@cache
def png(width: int = 200, height: int = 160, **options: Any) -> bytes:
    return save(noise(width, height), "PNG", **options)


@cache
def webp(width: int = 200, height: int = 160, **options: Any) -> bytes:
    return save(noise(width, height), "WEBP", **options)


# JPEG


def segment(marker: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A marker segment; `length` lies about its size."""
    size = len(payload) + 2 if length is None else length
    return struct.pack(">BBH", 0xFF, marker, size) + payload


def segments_of(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the first scan, the scan's header included."""
    position = 2
    while position < len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position, position + 2 + length
        if marker == 0xDA:
            return
        position += 2 + length


def with_segments(data: bytes, *added: bytes) -> bytes:
    """The JPEG with segments put in right after its start."""
    return data[:2] + b"".join(added) + data[2:]


def without_segment(data: bytes, marker: int) -> bytes:
    for found, start, end in reversed(list(segments_of(data))):
        if found == marker:
            data = data[:start] + data[end:]
    return data


def patched_segment(data: bytes, marker: int, offset: int, new: bytes) -> bytes:
    """The JPEG with bytes of the payload of its first such segment replaced."""
    start = next(start for found, start, _ in segments_of(data) if found == marker)
    at = start + 4 + offset
    return data[:at] + new + data[at + len(new) :]


def frame_marker(data: bytes) -> int:
    return next(marker for marker, _, _ in segments_of(data) if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xCC))


def with_size(data: bytes, width: int, height: int) -> bytes:
    return patched_segment(data, frame_marker(data), 1, struct.pack(">HH", height, width))


def endless_progressive(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG of one colour in many scans that say nothing, each of which costs a pass over all blocks."""
    plain = save(Image.new("L", (width, height), 90), "JPEG", progressive=True)
    header = plain[: next(start for marker, start, _ in segments_of(plain) if marker == 0xDA)]
    # One code of one bit, "0", for each table: end of block, run of 2 ** 14 of them, with 14 bits that follow.
    end_of_band = segment(0xC4, bytes([0x10, 1]) + bytes(15) + bytes([0xE0]))
    direct = segment(0xC4, bytes([0x00, 1]) + bytes(15) + bytes([0]))
    blocks = (-(-width // 8)) * (-(-height // 8))
    runs = -(-blocks // (2**15 - 1))
    bits = ("0" + "1" * 14) * runs
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0x00])) + bytes(-(-blocks // 8))
    one = segment(0xDA, bytes([1, 1, 0, 1, 63, 0x00])) + body
    return header + end_of_band + direct + first + one * scans + b"\xff\xd9"


# PNG


def chunk(kind: bytes, payload: bytes = b"", *, length: int | None = None, crc: int | None = None) -> bytes:
    """A chunk; `length` and `crc` lie."""
    size = len(payload) if length is None else length
    checksum = zlib.crc32(kind + payload) if crc is None else crc
    return struct.pack(">I", size) + kind + payload + struct.pack(">I", checksum)


PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = chunk(b"IEND")


def png_header(width: int, height: int, *, depth: int = 8, colour: int = RGB, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def zeros_deflated(byte_count: int) -> bytes:
    """As many zero bytes, a thousand times smaller."""
    press = zlib.compressobj(9)
    block = bytes(MEGABYTE)
    parts = [press.compress(block) for _ in range(byte_count // MEGABYTE)]
    return b"".join([*parts, press.compress(bytes(byte_count % MEGABYTE)), press.flush()])


def blank_png(
    width: int, height: int, *, depth: int = 8, colour: int = RGB, interlace: int = 0, extra: bytes = b""
) -> bytes:
    """A complete, valid, black PNG of a few kilobytes, however large it is decoded."""
    row = -(-width * SAMPLES[colour] * depth // 8) + 1
    size = row * height if not interlace else sum(_pass_bytes(width, height, SAMPLES[colour] * depth))
    palette = chunk(b"PLTE", bytes(range(48))) if colour == PALETTE else b""
    header = png_header(width, height, depth=depth, colour=colour, interlace=interlace)
    return PNG_START + header + palette + extra + chunk(b"IDAT", zeros_deflated(size)) + PNG_END


def _pass_bytes(width: int, height: int, bits: int) -> Iterator[int]:
    for left, top, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            yield rows * (-(-columns * bits // 8) + 1)


def chunks_of(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk."""
    position = len(PNG_START)
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], position, position + 12 + length
        position += 12 + length


def with_chunks(data: bytes, *added: bytes, after: bytes = b"IHDR") -> bytes:
    end = next(end for kind, _, end in chunks_of(data) if kind == after)
    return data[:end] + b"".join(added) + data[end:]


def without_chunk(data: bytes, kind: bytes) -> bytes:
    for found, start, end in reversed(list(chunks_of(data))):
        if found == kind:
            data = data[:start] + data[end:]
    return data


def with_wrong_crc(data: bytes, kind: bytes) -> bytes:
    end = next(end for found, _, end in chunks_of(data) if found == kind)
    return data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]


def with_flipped_byte(data: bytes, kind: bytes) -> bytes:
    """The chunk's middle byte changed, its checksum left as it was."""
    start, end = next((start, end) for found, start, end in chunks_of(data) if found == kind)
    middle = (start + end) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


# WebP


def riff_chunk(kind: bytes, payload: bytes, *, size: int | None = None) -> bytes:
    length = len(payload) if size is None else size
    return kind + struct.pack("<I", length) + payload + bytes(len(payload) % 2)


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def webp_canvas(width: int, height: int, *, flags: int = 0) -> bytes:
    return riff_chunk(
        b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


def webp_body(data: bytes) -> bytes:
    """The picture's own chunks, without the file header and without VP8X."""
    body = data[12:]
    return body[18:] if body.startswith(b"VP8X") else body


# TIFF directories, as EXIF and multi-picture JPEGs hold them


def exif(entries: Iterable[tuple[int, int, int, int]], tail: bytes = b"", *, next_at: int = 0) -> bytes:
    """A little-endian directory; an entry is tag, type, count, and value or offset."""
    listed = list(entries)
    directory = b"".join(struct.pack("<HHII", *entry) for entry in listed)
    return b"II*\0" + struct.pack("<IH", 8, len(listed)) + directory + struct.pack("<I", next_at) + tail
