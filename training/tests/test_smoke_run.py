"""The whole of training on a few pictures: fold, fit, resume, calibrate, export with parity, evaluate, card."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector.predictor import load_predictor
from training.evaluate import DELIVERIES
from training.paths import FACES_DIR
from training.tests.running import ROOT, run_module, run_script

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run folder and model folder of one smoke run, whose model goes beside the run where nothing else is said."""
    run_dir = tmp_path_factory.mktemp("smoke") / "runs" / "smoke"
    run_module("training.train", "--smoke", "--run-dir", str(run_dir))
    return run_dir, run_dir / "model"


def test_a_smoke_run_writes_a_model_that_serving_accepts(smoke: tuple[Path, Path]) -> None:
    _run_dir, model_dir = smoke
    predictor = load_predictor(model_dir)

    assert predictor.spec.input_size == 224
    assert predictor.spec.config["limit_per_source"] == 3
    second = predictor.spec.second_opinion
    assert second is not None
    assert second.weights_sha256 != predictor.spec.weights_sha256
    assert 0 < second.asked_between[0] < second.asked_between[1] < 1
    assert second.asked_of_reals > 0
    assert second.third is not None
    assert second.third.weights_sha256 not in (predictor.spec.weights_sha256, second.weights_sha256)
    assert (model_dir / "model.tflite").stat().st_size > 8_000_000
    assert {each.name for each in model_dir.iterdir()} == {
        "model.tflite",
        "second.tflite",
        "third.tflite",
        "spec.json",
        "metrics.json",
        "README.md",
        "roc.svg",
        "reliability.svg",
        "sources.svg",
    }


def test_every_table_says_how_many_pictures_it_rests_on(smoke: tuple[Path, Path]) -> None:
    metrics = json.loads((smoke[1] / "metrics.json").read_text())

    assert metrics["model_version"] == load_predictor(smoke[1]).spec.version
    for split in ("val", "test", "test_unseen"):
        overall = metrics["tables"][split]["overall"]
        assert overall["n"] == overall["n_real"] + overall["n_fake"] > 20
        assert 0 <= overall["auc_ci"][0] <= overall["auc"] <= overall["auc_ci"][1] <= 1
        assert sum(row["n"] for row in metrics["tables"][split]["by_source"].values()) == overall["n"]
    assert metrics["delivery_test"]["jpeg_50"]["n"] > 20


def test_val_is_judged_by_fits_that_did_not_see_it(smoke: tuple[Path, Path]) -> None:
    run_dir, model_dir = smoke
    held_out = json.loads((run_dir / "held_out_logits.json").read_text())
    overall = json.loads((model_dir / "metrics.json").read_text())["tables"]["val"]["overall"]
    assert len(held_out) == overall["n"] + overall["n_no_face"]
    assert all(path.startswith("val/") for path in held_out)
    assert len(set(held_out.values())) > len(held_out) // 2


def test_an_evaluation_of_a_few_pictures_replaces_nothing(smoke: tuple[Path, Path]) -> None:
    before = (smoke[1] / "metrics.json").read_bytes()
    printed = run_module(
        "training.evaluate", "--limit-per-source", "1", "--no-deliveries", "--model-dir", str(smoke[1])
    )
    assert "test_unseen" in printed
    assert (smoke[1] / "metrics.json").read_bytes() == before


def test_data_without_unseen_sources_can_be_measured(smoke: tuple[Path, Path], tmp_path: Path) -> None:
    """What `export_reviews` writes has no such split."""
    faces, model_dir = tmp_path / "faces", tmp_path / "model"
    faces.mkdir()
    shutil.copytree(smoke[1], model_dir)
    for split in ("train", "val", "test"):
        (faces / split).symlink_to((FACES_DIR / split).resolve())  # which may be relative, as in CI
    with (FACES_DIR / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test" and row["source"] == "ffhq_sg1_140k"]
    with (faces / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows[:4], *rows[-4:]])

    run_module("training.evaluate", "--model-dir", str(model_dir), FACES_DIR=str(faces))

    metrics = json.loads((model_dir / "metrics.json").read_text())
    assert set(metrics["tables"]) == {"val", "test"}  # that of val is training's
    assert metrics["tables"]["test"]["overall"]["n"] == 8
    assert "## Evaluation" in (model_dir / "README.md").read_text()


SOURCES = """
import sys
from pathlib import Path
from training.config import SMOKE
from training.data import read_manifest, source_classes
from training.model import CLASSIFIER, SOURCES_CLASSIFIER
from training.paths import FACES_DIR
from training.train import train
run_dir = Path(sys.argv[1])
learnt = source_classes(each for each in read_manifest(FACES_DIR) if each.split == "train")
for config, where in zip(SMOKE.networks(), (run_dir, run_dir.with_name("smoke-second"))):
    model = train(config, where)
    print(model.get_layer(SOURCES_CLASSIFIER).units - len(learnt), [each for each, _ in learnt].count(0))
    logs = [(where / f"stage_{number}.csv").read_text() for number in range(len(config.stages))]
    print(model.get_layer(CLASSIFIER).units, ["classes_loss" in each.splitlines()[0] for each in logs])
"""


def test_each_source_is_told_apart(smoke: tuple[Path, Path], tmp_path: Path) -> None:
    printed = run_script(tmp_path, SOURCES, str(smoke[0]))
    classes = json.loads((smoke[0] / "fitted_sources.json").read_text())

    assert [printed[-4], printed[-2]] == ["0 16", "0 16"]
    # Where a stage says so the network learns the sources too, by a classifier that is not served.
    assert [printed[-3], printed[-1]] == ["1 [False, True, True]", "1 [False, False]"]
    assert classes[0] == [0, "aaf_asian"]
    assert classes[16:18] == [[1, "ciplab_edits"], [1, "dfdc_faces224"]]


def test_the_card_holds_the_measured_figures(smoke: tuple[Path, Path]) -> None:
    card = (smoke[1] / "README.md").read_text()
    auc = json.loads((smoke[1] / "metrics.json").read_text())["tables"]["test"]["overall"]["auc"]
    assert f"{auc:.3f}" in card
    for heading in ("Out-of-scope use", "Bias, risks and limitations", "Training details", "Evaluation", "History"):
        assert heading in card


def test_a_kind_of_fakes_can_be_left_out(smoke: tuple[Path, Path]) -> None:
    run_dir, model_dir = smoke
    trial = ("--variant", "refit", "--only", "fake_edit", "--limit-per-source", "2", "--draws-per-epoch", "32")
    printed = run_module(
        "training.leave_one_out", *trial, "--runs-dir", str(run_dir.parent / "folds"), "--model-dir", str(model_dir)
    )

    row = json.loads((model_dir / "metrics.json").read_text())["leave_one_out"]["refit"]["fake_edit"]
    # Two retouched pictures, against at most two reals of each source.
    assert row["n_fake"] == 2
    assert row["n_real"] > 20
    assert 0 <= row["auc"] <= 1
    # Photoshop edits come with the portraits that they were made from.
    assert 0 <= row["auc_same_sources"] <= 1
    assert row["auc_change"].keys() == DELIVERIES.keys()
    assert all(abs(change) <= 1 for change in row["auc_change"].values())
    assert "fake_edit" in printed
    card = (model_dir / "README.md").read_text()
    assert "without fake_edit" in card
    assert "AUC, change by halved" in card


def test_sources_of_both_classes_can_be_left_out(smoke: tuple[Path, Path]) -> None:
    run_dir, model_dir = smoke
    trial = ("--variant", "refit", "--only", "new_sources", "--limit-per-source", "2", "--draws-per-epoch", "32")
    run_module(
        "training.leave_one_out", *trial, "--runs-dir", str(run_dir.parent / "folds"), "--model-dir", str(model_dir)
    )

    row = json.loads((model_dir / "metrics.json").read_text())["leave_one_out"]["refit"]["new_sources"]
    # Four sources of each class are left out; `val` has none of one generator. Nothing else is measured.
    assert (row["n_real"], row["n_fake"]) == (8, 6)


def test_the_baseline_is_measured_on_the_same_folds(smoke: tuple[Path, Path]) -> None:
    model_dir = smoke[1]
    run_module("training.baseline", "--limit-per-source", "2", "--model-dir", str(model_dir))

    metrics = json.loads((model_dir / "metrics.json").read_text())
    assert set(metrics["baseline"]["frozen_head"]) == {"test", "test_unseen"}
    folds = metrics["leave_one_out"]["frozen_head"]
    assert len(folds) == 10
    assert (folds["new_sources"]["n_real"], folds["new_sources"]["n_fake"]) == (8, 6)
    assert all(0 <= row["auc"] <= 1 for row in folds.values())
    assert "frozen_head: without fake_gan" in (model_dir / "README.md").read_text()


RESUMED = """
import sys
from pathlib import Path
from training.config import SMOKE
from training.train import train_all
print(len(train_all(SMOKE, Path(sys.argv[1]))))
"""


def test_an_interrupted_run_goes_on_from_its_last_stage(smoke: tuple[Path, Path], tmp_path: Path) -> None:
    run_dir, _model_dir = smoke
    for name in ("stage_2.weights.h5", "stage_2.csv", "refit.weights.h5", "held_out_logits.json"):
        (run_dir / name).unlink()
    shutil.rmtree(run_dir / "stage_2")
    others = [run_dir.with_name(f"smoke-{name}") / "refit.weights.h5" for name in ("second", "third")]
    finished = [run_dir / "stage_0.weights.h5", run_dir / "stage_1.weights.h5", *others]
    before = [each.stat().st_mtime_ns for each in finished]

    assert run_script(tmp_path, RESUMED, str(run_dir))[-1] == "3"

    assert (run_dir / "stage_2.weights.h5").is_file()
    assert len((run_dir / "stage_2.csv").read_text().splitlines()) == 2  # the heading, and its epoch
    assert (run_dir / "held_out_logits.json").is_file()
    assert (run_dir / "refit.weights.h5").is_file()
    assert [each.stat().st_mtime_ns for each in finished] == before


def test_another_config_in_the_same_run_folder_is_refused(smoke: tuple[Path, Path], tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"seed": 1}')
    result = subprocess.run(
        [sys.executable, "-m", "training.train", "--config", str(config), "--run-dir", str(smoke[0])],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "describes another run" in result.stderr


def test_other_data_in_the_same_run_folder_is_refused(smoke: tuple[Path, Path]) -> None:
    """Or the network of the old data would be signed with the new one's hash."""
    path = smoke[0] / "data.json"
    data = path.read_text()
    path.write_text(json.dumps({**json.loads(data), "manifest": "0" * 64}))
    result = subprocess.run(
        [sys.executable, "-m", "training.train", "--smoke", "--run-dir", str(smoke[0])],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    path.write_text(data)
    assert result.returncode != 0
    assert "on other data" in result.stderr


LEVELS = """
import sys
from pathlib import Path
import numpy as np
from training.calibration import Calibration
from training.config import SMOKE
from training.export import mean_map, serving_model
from training.model import fitted_classifiers
from training.train import train
model = train(SMOKE.networks()[0], Path(sys.argv[1]))
print(*(float(np.abs(each.get_weights()[0]).max()) for each, _log_odds in fitted_classifiers(model)))
rng = np.random.default_rng(0)
calibration = Calibration(temperature=0.8, bias=-0.4, prior=0.2)
x = rng.integers(0, 256, (1, 28, 28, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.float32)
logit = float(np.asarray(model(x))[0, 0]) / calibration.temperature + calibration.bias
inputs = rng.integers(0, 256, (6, 224, 224, 3), dtype=np.uint8)
labels = np.array([0, 0, 0, 0, 1, 1])
usual = mean_map(model, calibration, inputs, labels)
served = serving_model(model, calibration, usual)
probability, cam = (np.asarray(each)[0] for each in served(x))
bias = calibration.bias + float(usual.mean())
print(abs(float(probability[0]) - 1 / (1 + np.exp(-logit))), abs(float(cam.mean()) + bias - logit))
cams = np.stack([np.asarray(served(each[None].astype(np.float32))[1])[0] for each in inputs])
print(float(np.abs(cams[labels == 0].mean(axis=0) + cams[labels == 1].mean(axis=0)).max()), float(np.abs(usual).max()))
"""


def test_the_levels_join_the_verdict_and_its_map(smoke: tuple[Path, Path], tmp_path: Path) -> None:
    printed = run_script(tmp_path, LEVELS, str(smoke[0]))
    fitted, differences, maps = printed[-3:]
    left, usual = map(float, maps.split())

    kinds, sources = map(float, fitted.split())
    assert kinds > 0.0
    assert sources > 0.0
    assert max(map(float, differences.split())) < 1e-4
    # What is usual is no evidence: the maps of half fakes, half reals have nothing left in the mean.
    assert usual > 0.01
    assert left < 1e-3 * usual
