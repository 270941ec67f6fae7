import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.heatmaps import FAKE_COLOUR, MAX_ALPHA, PALETTE, REAL_COLOUR, encode_heatmap, evidence_map


def decode(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.has_transparency_data) == ("PNG", True)
    return np.asarray(image.convert("RGBA"))


def colour_map(cam: Any, size: tuple[int, int]) -> Any:
    return PALETTE[evidence_map(cam, size)]


def uniform(value: float) -> list[list[float]]:
    return [[value] * 7 for _ in range(7)]


def test_the_map_covers_the_crop_and_nothing_else() -> None:
    pixels = decode(encode_heatmap([{"crop": [100, 40, 80, 80], "cam": uniform(6.0)}], width=320, height=240))
    assert pixels.shape == (240, 320, 4)
    painted = pixels[..., 3] > 0
    assert painted[40:120, 100:180].all()
    assert painted.sum() == 80 * 80


@pytest.mark.parametrize(
    ("value", "colour", "alpha"),
    [
        (6.0, FAKE_COLOUR, MAX_ALPHA),
        (3.0, FAKE_COLOUR, MAX_ALPHA // 2),
        (-6.0, REAL_COLOUR, MAX_ALPHA),
        # Stronger than full strength is not stronger than full strength.
        (20.0, FAKE_COLOUR, MAX_ALPHA),
    ],
)
def test_red_speaks_for_fake_and_blue_for_real(value: float, colour: tuple[int, int, int], alpha: int) -> None:
    pixels = colour_map(np.full((7, 7), value, dtype=np.float32), (32, 32))
    assert tuple(pixels[16, 16, :3]) == colour
    assert abs(int(pixels[16, 16, 3]) - alpha) <= 1


def test_no_evidence_is_not_painted() -> None:
    assert colour_map(np.zeros((7, 7), dtype=np.float32), (32, 32))[..., 3].max() == 0


def test_weak_evidence_stays_pale() -> None:
    assert colour_map(np.full((7, 7), 0.1, dtype=np.float32), (32, 32))[..., 3].max() < 10


def test_where_two_crops_overlap_the_most_fake_face_is_on_top() -> None:
    faces = [{"crop": [0, 0, 100, 100], "cam": uniform(6.0)}, {"crop": [50, 0, 100, 100], "cam": uniform(-6.0)}]
    pixels = decode(encode_heatmap(faces, width=150, height=100))
    assert tuple(pixels[50, 75, :3]) == FAKE_COLOUR
    assert tuple(pixels[50, 125, :3]) == REAL_COLOUR


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [(4000, 3000, (240, 320)), (3000, 4000, (320, 240)), (64, 64, (64, 64)), (20000, 32, (1, 320))],
)
def test_a_map_is_no_finer_than_it_needs_to_be(width: int, height: int, shape: tuple[int, int]) -> None:
    face = {"crop": [0, 0, min(width, height), min(width, height)], "cam": uniform(6.0)}
    assert decode(encode_heatmap([face], width=width, height=height)).shape[:2] == shape
