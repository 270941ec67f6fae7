"""Pixels and a face box to model input: the only place where this is defined. Training imports it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.faces import BoundingBox
from detector.images import Picture, as_image

INPUT_SIZE = 224
# Side of the square crop as a multiple of the face box's longer side. BlazeFace's box spans brow to chin;
# 1.6 adds hair line and jaw, where blending borders lie, and is what most training pictures have around the face.
FACE_MARGIN = 1.6
# Crops are brought down to this side before they are scaled to the input. Training pictures show faces at about this
# resolution; without it a sharp photo would look unlike anything the network has seen.
MAX_SOURCE_SIDE = 192


def square_crop(bbox: BoundingBox, *, width: int, height: int, margin: float = FACE_MARGIN) -> BoundingBox:
    """Returns the square round the face, in px.

    It is shifted, not padded, to stay inside the picture; it shrinks only where the picture is smaller than it.

    Args:
        bbox: The face box in px.
        width: The picture's width in px.
        height: The picture's height in px.
        margin: Side of the square as a multiple of the box's longer side.
    """
    side = max(1, min(round(max(bbox.width, bbox.height) * margin), width, height))
    x = round(bbox.x + bbox.width / 2 - side / 2)
    y = round(bbox.y + bbox.height / 2 - side / 2)
    return BoundingBox(min(max(x, 0), width - side), min(max(y, 0), height - side), side, side)


def face_input(
    picture: Picture, crop: BoundingBox, *, size: int = INPUT_SIZE, max_source_side: int = MAX_SOURCE_SIDE
) -> NDArray[np.uint8]:
    """Returns (size, size, 3) uint8 RGB, 0 to 255; the exported graph holds the normalisation.

    Args:
        picture: RGB.
        crop: The square to take, in px of `picture`.
        size: Side of the result in px.
        max_source_side: Larger crops are first reduced to this side, antialiased.
    """
    # Cut out first: interpolated within the whole picture, the border would depend on what lies around it.
    image = as_image(picture).crop((crop.x, crop.y, crop.x + crop.width, crop.y + crop.height))
    if crop.width > max_source_side:
        image = image.resize((max_source_side, max_source_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def scaled(bbox: BoundingBox, across: float, down: float) -> BoundingBox:
    """Returns the box of `scaled_sides` in whole px."""
    left, top, width, height = scaled_sides(bbox, across, down)
    return BoundingBox(round(left), round(top), round(width), round(height))


def scaled_sides(box: Sequence[float], across: float, down: float) -> tuple[float, float, float, float]:
    """Returns (left, top, width, height) in px of a picture that is `across` times as wide and `down` times as high.

    Each side was rounded when a picture was made smaller: in a long one the factor of the short side leads astray.

    Args:
        box: (left, top, width, height) in px.
        across: The other picture's width / this one's.
        down: The other picture's height / this one's.
    """
    left, top, width, height = box
    return left * across, top * down, width * across, height * down
