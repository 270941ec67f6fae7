"""The one definition of the network's input."""

import numpy as np
import pytest

from detector.faces import BoundingBox
from detector.preprocessing import INPUT_SIZE, face_input, scaled, square_crop

PICTURE = (400, 300)


@pytest.mark.parametrize(
    ("bbox", "margin", "expected"),
    [
        (BoundingBox(150, 100, 50, 50), 2.0, (125, 75, 100, 100)),
        (BoundingBox(150, 100, 40, 60), 1.5, (125, 85, 90, 90)),
        (BoundingBox(0, 0, 50, 50), 2.0, (0, 0, 100, 100)),
        (BoundingBox(350, 250, 50, 50), 2.0, (300, 200, 100, 100)),
        (BoundingBox(100, 50, 200, 200), 2.0, (50, 0, 300, 300)),
        (BoundingBox(10, 10, 1, 1), 0.1, (10, 10, 1, 1)),
    ],
    ids=["inside", "longer side", "shifted right and down", "shifted left and up", "as large as fits", "one pixel"],
)
def test_the_square_stays_inside_the_picture(
    bbox: BoundingBox, margin: float, expected: tuple[int, int, int, int]
) -> None:
    assert square_crop(bbox, width=PICTURE[0], height=PICTURE[1], margin=margin) == expected


def test_the_input_has_the_size_and_colours_of_the_crop() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[100:200, 200:300] = (200, 100, 50)

    face = face_input(pixels, BoundingBox(200, 100, 100, 100))

    assert face.shape == (INPUT_SIZE, INPUT_SIZE, 3)
    assert face.dtype == np.uint8
    assert (face == (200, 100, 50)).all()


def test_sharp_crops_are_brought_to_the_training_resolution() -> None:
    checkered = (np.indices((800, 800)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = np.repeat(checkered[..., None], 3, axis=2)

    face = face_input(pixels, BoundingBox(0, 0, 800, 800), max_source_side=100)

    # Antialiased: a pattern finer than the target is even grey, not moiré.
    assert np.abs(face.astype(int) - 127).max() <= 3


def test_scaled_boxes_are_rounded() -> None:
    assert scaled(BoundingBox(10, 20, 30, 41), 2.5, 2.5) == (25, 50, 75, 102)
    assert scaled(BoundingBox(10, 20, 30, 41), 2.5, 2.0) == (25, 40, 75, 82)
