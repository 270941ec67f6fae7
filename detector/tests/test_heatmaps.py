import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.heatmaps import FAKE_COLOUR, MAX_ALPHA, PALETTE, REAL_COLOUR, encode_heatmap, evidence_map, heatmap_uri


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
    assert pixels.shape == (192, 256, 4)
    painted = pixels[..., 3] > 0
    assert painted[32:96, 80:144].all()
    assert painted.sum() == 64 * 64


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
    assert tuple(pixels[32, 48, :3]) == FAKE_COLOUR
    assert tuple(pixels[32, 80, :3]) == REAL_COLOUR


@pytest.mark.parametrize(
    ("width", "height", "sides", "shape"),
    [
        (4000, 3000, [1600], (120, 160)),
        (3000, 4000, [1600], (160, 120)),
        # The smallest face needs the most, and gets it up to a limit.
        (4000, 3000, [1600, 800], (240, 320)),
        (4000, 3000, [1600, 200], (240, 320)),
        (64, 64, [64], (64, 64)),
        (40, 40, [30], (40, 40)),
        (20000, 32, [32], (1, 320)),
    ],
)
def test_a_map_is_no_finer_than_it_needs_to_be(
    width: int, height: int, sides: list[int], shape: tuple[int, int]
) -> None:
    faces = [{"crop": [0, 0, side, side], "cam": uniform(6.0)} for side in sides]
    assert decode(encode_heatmap(faces, width=width, height=height)).shape[:2] == shape


def test_in_a_page_it_is_the_same_map() -> None:
    faces = [{"crop": [0, 0, 100, 100], "cam": uniform(6.0)}]
    uri = heatmap_uri(faces, width=150, height=100)
    assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}", uri)
    assert base64.b64decode(uri.partition(",")[2]) == encode_heatmap(faces, width=150, height=100)
