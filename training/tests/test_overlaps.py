"""Copies of a picture are found whatever happened to them; other pictures are not taken for copies."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detector.faces import BoundingBox
from detector.tests.portraits import astronaut
from training import data
from training.data import FacePicture, overlapping
from training.overlaps import LEAST_INLIERS, find, inliers, keypoints
from training.tests.factories import make_face_picture, make_sample


def picture(pixels: NDArray[np.uint8], path: str) -> FacePicture:
    height, width = pixels.shape[:2]
    box = BoundingBox(width // 4, height // 4, width // 2, height // 2)
    return FacePicture(make_sample(path=path), np.ascontiguousarray(pixels), box, None, served=True)


def remade(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Smaller, brighter, its middle painted over, and saved with loss."""
    small = cv2.resize(pixels, (190, 190), interpolation=cv2.INTER_AREA)
    small = np.clip(small * 1.1 + 10, 0, 255).astype(np.uint8)
    small[90:110, 90:110] = 128
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def test_a_remade_copy_is_found_among_others() -> None:
    portrait = astronaut()[:240, 100:340]
    others = [replace(make_face_picture(seed=seed), sample=make_sample(path=f"train/{seed}.jpg")) for seed in range(6)]
    tests = [picture(portrait, "test/a.jpg"), picture(astronaut()[260:500, :240], "test/b.jpg")]

    pairs = find(tests, [*others, picture(remade(portrait), "train/copy.jpg")])

    ((test, other, count),) = pairs
    assert (test, other) == ("test/a.jpg", "train/copy.jpg")
    assert count >= LEAST_INLIERS


def test_a_picture_without_structure_matches_nothing() -> None:
    blank = keypoints(picture(np.full((200, 200, 3), 90, np.uint8), "a"))
    assert len(blank[0]) == len(blank[1]) == 0
    assert inliers(blank, keypoints(picture(astronaut(), "b"))) == 0


@pytest.mark.parametrize(("version", "expected"), [("this", [("test/a.jpg", "train/b.jpg")]), ("another", [])])
def test_the_list_counts_for_the_data_it_was_made_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, expected: list[tuple[str, str]]
) -> None:
    path = tmp_path / "overlaps.json"
    path.write_text(json.dumps({"data_version": "this", "pairs": [["test/a.jpg", "train/b.jpg", 20]]}))
    monkeypatch.setattr(data, "OVERLAPS", path)
    monkeypatch.setattr(data, "manifest_sha256", lambda faces_dir: version)
    assert overlapping(tmp_path) == expected
