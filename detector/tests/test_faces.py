"""BlazeFace finds faces where they are and nothing where none is."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from detector import faces
from detector.exceptions import ModelUnavailable
from detector.faces import FAR, LAST, NEAR, BoundingBox, DetectedFace, FaceDetector, Look, parts
from detector.images import part_length
from detector.tests.portraits import astronaut

# Eileen Collins' face in the 512 px portrait, read off by eye: brow to chin, ear to ear.
FACE = (175, 75, 275, 180)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def overlap(box: BoundingBox, expected: tuple[int, int, int, int]) -> float:
    left, top = max(box.x, expected[0]), max(box.y, expected[1])
    right, bottom = min(box.x + box.width, expected[2]), min(box.y + box.height, expected[3])
    shared = max(0, right - left) * max(0, bottom - top)
    area = (expected[2] - expected[0]) * (expected[3] - expected[1])
    return shared / (box.width * box.height + area - shared)


def test_the_face_of_a_portrait_is_found_where_it_is(detector: FaceDetector) -> None:
    (face,) = detector.detect(astronaut())

    assert overlap(face.to_pixels(512, 512), FACE) > 0.6
    right_eye, left_eye, nose, mouth = face.keypoints[:4]
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_eye[1] < nose[1] < mouth[1]
    assert 0.65 <= face.score <= 1


def test_a_face_that_fills_the_picture_is_found(detector: FaceDetector) -> None:
    tight = astronaut()[70:185, 170:285]
    (face,) = detector.detect(tight)
    assert overlap(face.to_pixels(115, 115), (5, 5, 105, 110)) > 0.5


@pytest.mark.parametrize("side", [180, 240, 256, 320, 400, 479, 640])
def test_a_face_a_fifth_as_wide_as_the_picture_is_found(detector: FaceDetector, side: int) -> None:
    (face,) = detector.detect(Image.fromarray(astronaut()).resize((side, side)))
    left, top, right, bottom = (round(edge * side / 512) for edge in FACE)
    assert overlap(face.to_pixels(side, side), (left, top, right, bottom)) > 0.5


def test_no_look_is_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Look] = []
    look_at = FaceDetector._look

    def note(self: FaceDetector, image: Image.Image, window: Any, look: Look, **options: Any) -> Any:
        taken.append(look)
        return look_at(self, image, window, look, **options)

    monkeypatch.setattr(FaceDetector, "_look", note)
    for side, expected in ((127, [NEAR]), (128, [NEAR, LAST]), (255, [NEAR, LAST]), (256, [NEAR, FAR])):
        taken.clear()
        FaceDetector().detect(Image.new("RGB", (side, side), (96, 128, 160)))
        assert taken == expected


def test_in_a_small_picture_the_last_look_moves_no_box() -> None:
    tight = Image.fromarray(astronaut()[40:240, 130:330])
    (face,) = FaceDetector((NEAR,)).detect(tight)
    (served,) = FaceDetector().detect(tight)
    assert served.box == face.box


@pytest.mark.parametrize("scene_side", [1200, 2000])
def test_a_small_face_in_a_large_scene_is_found(detector: FaceDetector, scene_side: int) -> None:
    scene = Image.new("RGB", (scene_side, scene_side), (96, 128, 160))
    scene.paste(Image.fromarray(astronaut()), (scene_side - 700, 100))

    (face,) = detector.detect(np.asarray(scene))

    found = face.to_pixels(scene_side, scene_side)
    expected = (FACE[0] + scene_side - 700, FACE[1] + 100, FACE[2] + scene_side - 700, FACE[3] + 100)
    assert overlap(found, expected) > 0.5


@pytest.mark.parametrize("size", [(600, 6000), (8000, 700), (600, 1560)], ids=["screenshot", "panorama", "phone"])
@pytest.mark.parametrize("place", [0.0, 0.37, 0.62, 1.0])
def test_the_face_in_a_long_picture_is_found_where_it_is(
    detector: FaceDetector, size: tuple[int, int], place: float
) -> None:
    scene = Image.new("RGB", size, (96, 128, 160))
    left, top = (round(place * (side - 512)) if side > 700 else 50 for side in size)
    scene.paste(Image.fromarray(astronaut()), (left, top))

    (face,) = detector.detect(scene)

    expected = (FACE[0] + left, FACE[1] + top, FACE[2] + left, FACE[3] + top)
    assert overlap(face.to_pixels(*size), expected) > 0.5


@pytest.mark.parametrize("size", [(100, 100), (100, 250), (1000, 101), (33, 251), (32, 40_000), (2500, 1000)])
def test_parts_cover_a_picture_and_overlap_by_its_short_side(size: tuple[int, int]) -> None:
    found = parts(*size)
    along = 0 if size[0] > size[1] else 1
    spans = [(part[along], part[along + 2]) for part in found]

    assert [part[1 - along] for part in found] == [0] * len(found)
    assert [part[3 - along] for part in found] == [size[1 - along]] * len(found)
    assert (spans[0][0], spans[-1][1]) == (0, max(size))
    assert {end - start for start, end in spans} == {part_length(*size)}
    assert all(before[1] - after[0] >= min(size) for before, after in pairwise(spans))
    assert len(found) <= 16


def row_of_portraits(sizes: list[int]) -> NDArray[np.uint8]:
    scene = Image.new("RGB", (sum(sizes), max(sizes)), (96, 128, 160))
    left = 0
    for size in sizes:
        scene.paste(Image.fromarray(astronaut()).resize((size, size)), (left, 0))
        left += size
    return np.asarray(scene)


def test_several_faces_come_largest_first(detector: FaceDetector) -> None:
    scene = row_of_portraits([380, 640, 500])

    found = detector.detect(scene)
    widths = [face.to_pixels(scene.shape[1], scene.shape[0]).width for face in found]

    assert len(found) == 3
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((300, 300, 3), np.uint8),
        np.full((33, 900, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8),
    ],
    ids=["black", "white strip", "noise"],
)
def test_pictures_without_a_face_give_none(detector: FaceDetector, pixels: NDArray[np.uint8]) -> None:
    assert detector.detect(pixels) == []


def test_threads_agree(detector: FaceDetector) -> None:
    expected = detector.detect(astronaut())[0].box

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector.detect, [astronaut()] * 20))

    assert [faces[0].box for faces in found] == [pytest.approx(expected, abs=1e-5)] * 20


def test_boxes_are_clipped_to_the_picture() -> None:
    face = DetectedFace((-0.1, 0.5, 0.25, 1.2), 0.9, np.zeros((6, 2), np.float32))
    assert face.to_pixels(200, 100) == (0, 50, 50, 50)


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "_WHEEL", "no-such-distribution")
    with pytest.raises(ModelUnavailable, match="no-such-distribution"):
        FaceDetector()


@pytest.mark.parametrize(
    ("look", "long_side", "expected"),
    # NEAR shows 128 / 1.5 = 85 px of the picture, FAR 192: twice that many have to be left.
    [(NEAR, 1155, 6), (FAR, 1155, 3), (NEAR, 341, 1), (NEAR, 342, 2), (FAR, 767, 1), (FAR, 768, 2), (FAR, 100, 1)],
)
def test_blocks_leave_twice_as_many_pixels_as_a_look_takes(look: Look, long_side: int, expected: int) -> None:
    assert look.block_side(Image.new("RGB", (long_side // 2, long_side))) == expected
