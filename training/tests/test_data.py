"""The manifest is checked, and sampling is balanced."""

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.faces import DetectedFace
from detector.tests.portraits import astronaut
from training.data import (
    FAKE,
    REAL,
    Box,
    _face_picture,
    _subject,
    counterparts,
    limited,
    load_pictures,
    read_manifest,
    sampling_weights,
)
from training.tests.factories import make_sample

FIELDS = ["path", "split", "label", "source", "generator", "group", "width", "height"]
FIELDS += ["face_x", "face_y", "face_w", "face_h", "face_score"]


def write_manifest(folder: Path, *rows: dict[str, str]) -> Path:
    defaults = {"split": "train", "label": "0_real", "source": "s", "generator": "photo", "group": "g"}
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="")
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow({"path": f"{number}.png", **defaults, **row})
    return folder


def test_rows_become_samples(tmp_path: Path) -> None:
    box = {"face_x": "1.5", "face_y": "2", "face_w": "30", "face_h": "40"}
    samples = read_manifest(write_manifest(tmp_path, {"label": "1_fake", **box}, {"group": "other"}))

    assert [sample.label for sample in samples] == [FAKE, REAL]
    assert samples[0].yunet == (1.5, 2.0, 30.0, 40.0)
    assert samples[1].yunet is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"split": "train"}, {"split": "val"}], "more than one split"),
        ([{"split": "train"}, {"split": "test_unseen"}], "more than one split"),
        ([{"split": "training"}], "unknown split"),
        ([{"label": "fake"}], "unknown split"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_manifest(write_manifest(tmp_path, *rows))


def test_one_group_may_be_in_both_test_sets(tmp_path: Path) -> None:
    assert len(read_manifest(write_manifest(tmp_path, {"split": "test"}, {"split": "test_unseen"}))) == 2


def test_classes_and_sources_are_balanced() -> None:
    samples = [make_sample(REAL, "large", str(i)) for i in range(100)]
    samples += [make_sample(REAL, "small", str(i)) for i in range(4)]
    samples += [make_sample(FAKE, "fakes", str(i)) for i in range(7)]

    weights = sampling_weights(samples, source_power=0.5)

    assert weights.sum() == pytest.approx(1)
    assert weights[-7:].sum() == pytest.approx(0.5)
    # Square roots: 10 to 2 of the reals' half.
    assert weights[:100].sum() == pytest.approx(0.5 * 10 / 12)
    assert weights[100:104].sum() == pytest.approx(0.5 * 2 / 12)


def test_the_share_of_the_real_ones_can_be_another() -> None:
    samples = [make_sample(REAL, "reals", "1"), make_sample(REAL, "reals", "2"), make_sample(FAKE, "fakes", "3")]
    assert sampling_weights(samples, source_power=0.5, real_share=0.6).tolist() == pytest.approx([0.3, 0.3, 0.4])


def test_frames_of_one_video_share_its_weight() -> None:
    samples = [make_sample(REAL, "videos", "one")] * 9 + [make_sample(REAL, "videos", "two"), make_sample(FAKE)]
    weights = sampling_weights(samples, source_power=1.0)
    assert weights[:9].sum() == pytest.approx(weights[9])


def test_training_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="both classes"):
        sampling_weights([make_sample(REAL)], source_power=0.5)


def test_a_limit_counts_each_source_split_and_label() -> None:
    samples = [make_sample(REAL, "a"), make_sample(REAL, "a"), make_sample(FAKE, "a"), make_sample(REAL, "b")]
    assert [(each.source, each.label) for each in limited(samples, 1)] == [("a", REAL), ("a", FAKE), ("b", REAL)]
    assert limited(samples, None) == samples


def test_without_a_found_face_the_manifest_s_box_is_used(tmp_path: Path) -> None:
    box = {"face_x": "20", "face_y": "10", "face_w": "60", "face_h": "90"}
    folder = write_manifest(tmp_path, box)
    Image.fromarray(np.full((120, 100, 3), 128, np.uint8)).save(folder / "0.png")

    (picture,) = load_pictures(folder, read_manifest(folder), cache_dir=tmp_path / "cache", progress=False)

    assert not picture.served
    assert picture.keypoints is None
    assert picture.bbox == (20, 40, 60, 60)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_found_boxes_are_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-written file would stop every later run."""
    folder = write_manifest(tmp_path, {})
    Image.new("RGB", (100, 120)).save(folder / "0.png")

    def fail(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            load_pictures(folder, read_manifest(folder), cache_dir=tmp_path / "cache", progress=False)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(load_pictures(folder, read_manifest(folder), cache_dir=tmp_path / "cache", progress=False)) == 1
    (kept,) = (tmp_path / "cache").iterdir()
    assert json.loads(kept.read_text()) == {"0.png": None}


def test_the_manifest_s_box_follows_a_picture_that_is_decoded_at_half_its_size(tmp_path: Path) -> None:
    """As a reviewed one of 1,920 px is, of whose faces one is meant."""
    second = {"path": "1.jpg", "face_x": "1450", "face_y": "300", "face_w": "200", "face_h": "300"}
    folder = write_manifest(tmp_path, {**second, "path": "0.jpg"}, second)
    scene = Image.new("RGB", (1920, 1080), (90, 90, 90))
    scene.save(folder / "0.jpg")
    portrait = Image.fromarray(astronaut()).resize((900, 900))
    scene.paste(portrait, (0, 90))
    scene.paste(portrait, (1020, 90))
    scene.save(folder / "1.jpg")

    blank, pair = load_pictures(folder, read_manifest(folder), progress=False)

    assert blank.pixels.shape == (540, 960, 3)
    assert blank.bbox == (725, 200, 100, 100)
    assert pair.served
    assert pair.bbox.x > 480


@pytest.mark.parametrize(
    ("yunet", "chosen"),
    [
        ((30, 10, 20, 40), 0),  # its centre is at 40, 30 px, of 200 x 100
        ((150, 10, 20, 40), 1),
        ((150, 50, 20, 40), 2),
        ((60, 10, 100, 40), 1),  # 110, 30
        ((10, 5, 50, 40), 0),  # 35, 25
        ((150, 5, 20, 40), 1),  # 160, 25
        ((150, 20, 20, 64), 2),  # 160, 52
        (None, 0),
    ],
)
def test_the_label_is_about_the_face_that_is_nearest_to_the_manifest_s(yunet: Box | None, chosen: int) -> None:
    centres = [(0.2, 0.3), (0.8, 0.3), (0.8, 0.7)]
    faces = [DetectedFace((x - 0.1, y - 0.2, x + 0.1, y + 0.2), 0.9, np.zeros((6, 2), np.float32)) for x, y in centres]
    assert _subject(faces, yunet, (100, 200, 3)) is faces[chosen]
    assert _subject([], yunet, (100, 200, 3)) is None


def test_a_face_is_in_pixels_and_without_any_the_middle_is_taken() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    found = _face_picture(make_sample(REAL), pixels, [[0.1, 0.2, 0.3, 0.6], [0.5, 0.25], [0.75, 0.5]], None)
    assert (found.bbox, found.served) == ((20, 20, 40, 40), True)
    assert found.keypoints is not None
    assert found.keypoints.tolist() == [[100, 25], [150, 50]]
    middle = _face_picture(make_sample(REAL), pixels, None, None)
    assert (middle.bbox, middle.keypoints, middle.served) == ((65, 15, 70, 70), None, False)


def test_sources_that_hold_both_classes_can_be_drawn_more_often() -> None:
    samples = [make_sample(REAL, "both", "a"), make_sample(FAKE, "both", "b"), make_sample(REAL, "reals", "c")]
    weights = sampling_weights(samples, source_power=0.5, matched_boost=3.0)
    assert weights.tolist() == pytest.approx([0.5 * 3 / 4, 0.5, 0.5 * 1 / 4])


def test_counterparts_are_of_the_same_group_and_the_other_class() -> None:
    samples = [
        make_sample(REAL, "video", "1"),
        make_sample(FAKE, "video", "1"),
        make_sample(FAKE, "video", "1"),
        make_sample(REAL, "video", "2"),
        make_sample(FAKE, "other", "2"),
    ]
    assert counterparts(samples) == {0: [1, 2], 1: [0], 2: [0]}
