"""What an evaluation leaves of the figures that it was told not to measure."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from detector.predictor import load_predictor
from detector.tests.portraits import astronaut_jpeg
from training.data import manifest_sha256, read_manifest
from training.evaluate import DELIVERIES, evaluate_model, score
from training.paths import MODEL_DIR
from training.tests.test_data import write_manifest


@pytest.mark.parametrize(
    ("before", "halved", "quartered"),
    [((240, 201), (120, 100), (60, 50)), ((112, 240), (56, 120), (32, 68)), ((32, 40), (32, 40), (32, 40))],
)
def test_a_delivered_picture_is_one_that_is_accepted(
    before: tuple[int, int], halved: tuple[int, int], quartered: tuple[int, int]
) -> None:
    picture = Image.new("RGB", before)
    assert DELIVERIES["halved"](picture).size == halved
    assert DELIVERIES["quartered"](picture).size == quartered


@pytest.mark.model
@pytest.mark.parametrize("is_of_the_same_pictures", [True, False])
def test_deliveries_that_are_skipped_stay_as_they_were_measured(tmp_path: Path, is_of_the_same_pictures: bool) -> None:
    faces = write_manifest(tmp_path, {"path": "0.jpg", "split": "test"})
    (faces / "0.jpg").write_bytes(astronaut_jpeg())
    model_dir = tmp_path / "model"
    shutil.copytree(MODEL_DIR, model_dir)
    path = model_dir / "metrics.json"
    before = json.loads(path.read_text())
    assert before["delivery_test"].keys() == DELIVERIES.keys()
    data_version = manifest_sha256(faces) if is_of_the_same_pictures else "another"
    path.write_text(json.dumps({**before, "data_version": data_version}))

    evaluate_model(model_dir, faces, deliveries=False)

    after = json.loads(path.read_text())
    assert after["tables"]["test"]["overall"]["n"] == 1
    assert after["n_train"] == before["n_train"], "these pictures say nothing about training"
    assert after["delivery_test"] == (before["delivery_test"] if is_of_the_same_pictures else {})


@pytest.mark.model
@pytest.mark.parametrize(("side", "is_small"), [(512, False), (180, True)])
def test_a_face_too_small_to_decide_is_none_that_was_decided(tmp_path: Path, side: int, is_small: bool) -> None:
    faces = write_manifest(tmp_path, {"path": "0.jpg", "split": "test"})
    (faces / "0.jpg").write_bytes(astronaut_jpeg())
    predictor = load_predictor(MODEL_DIR)
    scores = score(predictor, faces, read_manifest(faces), deliver=lambda picture: picture.resize((side, side)))
    assert scores.is_small.tolist() == [is_small]
    row = scores.row(rule=predictor.fitted_rule, prior=0.5, draws=2)
    assert row["decided"] == (not is_small), "the portrait is surely Real"
