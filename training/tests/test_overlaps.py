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
from training.data import FacePicture, manifest_sha256, overlapping, read_manifest, without_copies
from training.overlaps import LEAST_INLIERS, find, inliers, keypoints
from training.tests.factories import make_face_picture, make_sample
from training.tests.test_data import write_manifest


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


PAIRS = [("test/a.jpg", "train/a.jpg"), ("test/b.jpg", "train/b.jpg")]
ROWS = {path: {"path": path, "split": path.split("/")[0], "group": path} for pair in PAIRS for path in pair}


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two pictures of `train`, each with a copy in `test`, and a list that was made of this data."""
    write_manifest(tmp_path, *ROWS.values())
    listed = {"data_version": manifest_sha256(tmp_path), "pairs": [[*pair, 20] for pair in PAIRS]}
    (tmp_path / "overlaps.json").write_text(json.dumps(listed))
    monkeypatch.setattr(data, "OVERLAPS", tmp_path / "overlaps.json")
    return tmp_path


def test_the_list_counts_for_the_data_it_was_made_of(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert overlapping(faces) == PAIRS
    assert [each.path for each in without_copies(read_manifest(faces), faces)] == ["test/a.jpg", "test/b.jpg"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        ("test/a.jpg", {"face_score": "0.9"}, PAIRS),
        ("train/b.jpg", {"path": "train/new.jpg"}, PAIRS[:1]),
        ("test/b.jpg", {"path": "test/new.jpg"}, PAIRS[:1]),
        ("test/b.jpg", {"split": "val"}, PAIRS[:1]),
        ("train/b.jpg", {"split": "test"}, PAIRS[:1]),
    ],
)
def test_known_copies_stay_out_of_changed_data_which_is_said_not_to_be_searched(
    faces: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    change: dict[str, str],
    expected: list[tuple[str, str]],
) -> None:
    """Or one changed row would bring all of them back, without a word."""
    write_manifest(faces, *(row | change if row["path"] == path else row for row in ROWS.values()))

    assert overlapping(faces) == expected
    assert overlapping(faces) == expected

    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "Of its 2 pairs" in printed
    assert f" {len(expected)} are in this data" in printed
    assert "python -m training.overlaps" in printed


def test_nothing_is_said_of_data_without_test_pictures(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(faces, ROWS["train/a.jpg"])
    assert overlapping(faces) == []
    assert capsys.readouterr().out == ""
