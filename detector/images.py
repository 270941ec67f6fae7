"""Bytes to upright RGB pixels, safely: no Django, no LiteRT.

Everything about a picture is judged from its content, never from its name or declared type.
"""

import hashlib
import io
import math
import struct
import time
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from detector.exceptions import InvalidImage

ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP")
DEFAULT_MAX_BYTES = 15 * 1024 * 1024
DEFAULT_MAX_PIXELS = 50_000_000
# A face needs some pixels to be judged at all; anything thinner than this is a line, not a photo.
MIN_SIDE = 32
# Decoded pixels are kept at up to this long side: enough for a face a tenth as wide as the picture,
# and small enough that a 50-megapixel PNG does not stay in memory whole.
WORKING_SIDE = 2048

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
# What Pillow's decoders raise on damaged data, by format.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A picture that was decoded completely.

    Attributes:
        pixels: (height, width, 3) uint8, RGB, upright; long side at most `WORKING_SIDE` px, so it may be
            smaller than the original.
        format: One of `ACCEPTED_FORMATS`.
        width: Width of the upright original in px.
        height: Height of the upright original in px.
        byte_count: Size of the original file in bytes.
        sha256: Hex digest of the original bytes.
        decode_ms: Wall time that decoding took, in ms.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
    byte_count: int
    sha256: str
    decode_ms: float


def decode_image(
    data: bytes, *, max_bytes: int = DEFAULT_MAX_BYTES, max_pixels: int = DEFAULT_MAX_PIXELS
) -> DecodedImage:
    """Returns the decoded picture.

    Args:
        data: The file as uploaded.
        max_bytes: Largest accepted file, in bytes.
        max_pixels: Largest accepted picture, in px; checked in the header, before decoding.

    Raises:
        InvalidImage: Not a JPEG, PNG or WebP still, too large, too small, truncated or damaged.
    """
    started = time.perf_counter()
    if not data:
        raise InvalidImage("The file is empty.", code="empty")
    if len(data) > max_bytes:
        raise InvalidImage(
            f"The file has {_megabytes(len(data))} MB; at most {_megabytes(max_bytes)} MB are accepted.",
            code="too_large",
        )
    image = _open(data)
    with image:
        original_format = _FORMAT_NAMES[str(image.format)]
        _check_header(image, original_format, max_pixels)
        stored_width, stored_height = image.size
        try:
            image.draft("RGB", (WORKING_SIDE // 2, WORKING_SIDE // 2))
            image.load()
            orientation = _orientation(image)
            upright = _to_rgb(_reduced(image))
        except MemoryError as error:
            raise InvalidImage("The picture needs too much memory to be decoded.", code="too_many_pixels") from error
        except _DECODER_ERRORS as error:
            raise InvalidImage(
                "The picture is damaged or incomplete and could not be read to its end.", code="truncated"
            ) from error
    if orientation in _TRANSPOSE:
        upright = upright.transpose(_TRANSPOSE[orientation])
    turned = orientation in (5, 6, 7, 8)
    return DecodedImage(
        pixels=np.asarray(upright),
        format=original_format,
        width=stored_height if turned else stored_width,
        height=stored_width if turned else stored_height,
        byte_count=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        decode_ms=(time.perf_counter() - started) * 1000,
    )


def encode_jpeg(pixels: NDArray[np.uint8], *, max_side: int | None = None, quality: int = 85) -> bytes:
    """Returns a JPEG without any metadata.

    Args:
        pixels: (height, width, 3) uint8, RGB.
        max_side: Long side of the result in px at most; None keeps the size.
        quality: JPEG quality, 1 to 95.
    """
    image = Image.fromarray(pixels)
    if max_side is not None:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS)
    except _BOMBS as error:
        raise InvalidImage("The picture has far too many pixels.", code="too_many_pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidImage(
            "This is not a JPEG, PNG or WebP picture. The content counts, not the file name.", code="format"
        ) from error
    except _DECODER_ERRORS as error:
        raise InvalidImage("The picture's header is damaged.", code="broken") from error


def _check_header(image: Image.Image, original_format: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidImage(
            f"The picture has {width * height / 1e6:.0f} megapixels; "
            f"at most {max_pixels / 1e6:.0f} megapixels are accepted.",
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


def _reduced(image: Image.Image) -> Image.Image:
    factor = -(-max(image.size) // WORKING_SIDE)
    # reduce() averages whole blocks, which palette indices and some exotic modes do not allow.
    if factor > 1 and image.mode in ("L", "RGB", "RGBA", "LA", "CMYK"):
        return image.reduce((min(factor, image.width), min(factor, image.height)))
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: keep the high byte. convert("L") would clip everything above 255 to white.
        levels = np.asarray(image).astype(np.float32) / 257.0
        image = Image.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    rgb = image.convert("RGB")
    if max(rgb.size) > WORKING_SIDE:
        rgb.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return rgb


def _megabytes(byte_count: int) -> str:
    """Returns the size with one decimal, rounded up: a file just over a limit must not read as if it fitted."""
    return f"{math.ceil(byte_count / (1024 * 1024) * 10) / 10:.1f}".removesuffix(".0")
