"""The whole of training on a few pictures: fold, fit, resume, calibrate, export with parity, evaluate, card."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector.predictor import load_predictor
from detector.tests.portraits import astronaut_jpeg
from training.data import manifest_sha256
from training.evaluate import DELIVERIES
from training.paths import FACES_DIR

pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[2]


def run_module(*arguments: str, **environment: str) -> str:
    """Runs `python -m ...` in its own process: TensorFlow stays out of the suite's, and its warnings too."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    result = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def run_script(folder: Path, text: str, *arguments: str) -> list[str]:
    """The lines that such a script prints, in its own process likewise."""
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


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


PARTS = """
from training.tests.factories import make_sample
from training.train import _parts
samples = [make_sample(source=f"source{n % 2}", group=str(n % 7)) for n in range(70)]
parts = _parts(samples, 3, seed=1)
print(sorted(set(parts.tolist())), len({(s.source, s.group, int(p)) for s, p in zip(samples, parts)}))
"""


def test_a_group_is_held_out_whole(tmp_path: Path) -> None:
    printed = run_script(tmp_path, PARTS)
    assert printed[-1] == "[0, 1, 2] 14"


VIEWS = """
from dataclasses import replace
import numpy as np
from training.augment import evaluation_input
from training.config import SMOKE
from training.tests.factories import make_face_picture
from training.train import _refit_inputs
pictures = [make_face_picture(seed=seed) for seed in (1, 2)]
for as_served, others in ((True, 0), (False, 2), (True, 1)):
    config = replace(SMOKE, refit_as_served=as_served, refit_views=others)
    views = [view.copy() for view in _refit_inputs(pictures, config, np.random.default_rng(1))]
    served = np.stack([evaluation_input(each) for each in pictures])
    known = {served.tobytes(): "served", served[:, :, ::-1].tobytes(): "mirrored"}
    print(*(known.get(view.tobytes(), "other") for view in views))
"""


def test_the_fit_sees_pictures_as_they_are_served_and_mirrored(tmp_path: Path) -> None:
    printed = run_script(tmp_path, VIEWS)
    assert printed[-3:] == ["served mirrored", "other other", "served mirrored other"]


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


ODDS = """
import numpy as np
from training.model import FakeLogOdds
logits = np.random.default_rng(0).normal(0.0, 3.0, (5, 7)).astype(np.float32)
shares = np.exp(logits)
fake, real = shares[:, 4:].sum(axis=1), shares[:, :4].sum(axis=1)
odds = np.asarray(FakeLogOdds(4)(logits))[:, 0]
print(float(np.abs(odds - np.log((fake / 3) / (real / 4))).max()), float(np.asarray(FakeLogOdds(4)(0 * logits)).max()))
"""


def test_fakes_are_weighed_against_genuine_ones_whatever_their_numbers(tmp_path: Path) -> None:
    difference, alike = map(float, run_script(tmp_path, ODDS)[-1].split())
    assert difference < 1e-5
    assert alike == pytest.approx(0.0, abs=1e-6)


SOURCES = """
import sys
from pathlib import Path
from training.config import SMOKE
from training.data import read_manifest, source_classes
from training.model import SOURCES_CLASSIFIER
from training.paths import FACES_DIR
from training.train import train
run_dir = Path(sys.argv[1])
learnt = source_classes(each for each in read_manifest(FACES_DIR) if each.split == "train")
for config, where in zip(SMOKE.networks(), (run_dir, run_dir.with_name("smoke-second"))):
    print(train(config, where).get_layer(SOURCES_CLASSIFIER).units - len(learnt), [each for each, _ in learnt].count(0))
"""


def test_each_source_is_told_apart(smoke: tuple[Path, Path], tmp_path: Path) -> None:
    printed = run_script(tmp_path, SOURCES, str(smoke[0]))
    classes = json.loads((smoke[0] / "fitted_sources.json").read_text())

    assert printed[-2:] == ["0 16", "0 16"]
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
    trial = ("--only", "fake_edit", "--limit-per-source", "2", "--draws-per-epoch", "32")
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
    trial = ("--only", "new_sources", "--limit-per-source", "2", "--draws-per-epoch", "32")
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


COPIES = """
import sys
from pathlib import Path
from training import baseline, data
from training.evaluate import evaluate_model
from training.paths import MODEL_DIR
faces = Path(sys.argv[1])
data.OVERLAPS, baseline.RUNS_DIR = faces / "overlaps.json", faces
baseline.load_backbone_weights = lambda *arguments: None
print(*(len(pictures) for pictures, _features in baseline.frozen_features(faces).values()))
print(evaluate_model(MODEL_DIR, faces, deliveries=False, keep=False)["n_train"])
"""


def test_what_test_pictures_are_copies_of_is_neither_learnt_by_the_baseline_nor_counted(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    splits = ("train", "train", "train", "val", "test", "test", "test_unseen")
    rows = [f"{number}.jpg,{split},0_real,s,photo,{number},{','.join([''] * 4)}" for number, split in enumerate(splits)]
    header = "path,split,label,source,generator,group,face_x,face_y,face_w,face_h"
    (faces / "manifest.csv").write_text("\n".join([header, *rows]))
    for number in range(len(splits)):
        (faces / f"{number}.jpg").write_bytes(astronaut_jpeg())
    found = {"data_version": manifest_sha256(faces), "pairs": [["4.jpg", "1.jpg", 20], ["4.jpg", "3.jpg", 20]]}
    (faces / "overlaps.json").write_text(json.dumps(found))
    printed = run_script(tmp_path, COPIES, str(faces))
    baseline, counted = printed[-2:]

    assert baseline == "2 1 2 1"
    assert counted == "2"


UNJUDGED = """
from dataclasses import replace
import numpy as np
from training import baseline
from training.tests.factories import make_face_picture
pictures = [make_face_picture(number % 2) for number in range(6)]
measured = [*pictures, replace(pictures[0], served=False)]
features = {"train": (pictures, np.eye(6, 4, dtype=np.float32))}
features |= dict.fromkeys(("test", "test_unseen"), (measured, np.eye(7, 4, dtype=np.float32)))
print(*(row["n"] for row in baseline.frozen_head(features).values()))
"""


def test_the_baseline_is_measured_on_what_the_model_judges(tmp_path: Path) -> None:
    printed = run_script(tmp_path, UNJUDGED)
    assert printed[-1] == "6 6"


FOLDING = """
import keras, numpy as np
from training.model import build_backbone, copy_backbone_weights, load_backbone_weights
from training.paths import BACKBONE_WEIGHTS
folded, partly, again = build_backbone(), build_backbone(normalized_from=3), build_backbone()
load_backbone_weights(folded, BACKBONE_WEIGHTS)
load_backbone_weights(partly, BACKBONE_WEIGHTS)
copy_backbone_weights(partly, again)
original = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None)
original.load_weights(BACKBONE_WEIGHTS)
pictures = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype("float32")
wanted = original.predict(pictures, verbose=0)
print(*(float(np.abs(each.predict(pictures, verbose=0) - wanted).max()) for each in (folded, partly, again)))
print(*(sum(isinstance(layer, keras.layers.BatchNormalization) for layer in each.layers) for each in (folded, partly)))
"""


def test_folding_keeps_the_backbone_s_function(tmp_path: Path) -> None:
    printed = run_script(tmp_path, FOLDING)
    differences, norms = (line.split() for line in printed[-2:])
    # Features run from 0 to 6.
    assert max(map(float, differences)) < 1e-3
    # Three convolutions in each block from the third on, and the one of the features.
    assert [int(each) for each in norms] == [0, 3 * 14 + 1]


BLENDING = """
import dataclasses, sys
import numpy as np
from training.config import SMOKE, Stage
from training.data import FAKE, REAL
from training.tests.factories import make_face_picture
from training.train import AugmentedBatches
pictures = [make_face_picture(label) for label in (REAL, FAKE)]
for share, donors in ((0.0, False), (1.0, False), (1.0, True)):
    stage = Stage(epochs=1, size=32, learning_rate=1e-4, real_share=0.5, pseudo_fake_share=share, fake_donors=donors)
    config = dataclasses.replace(SMOKE, stages=(stage,), batch_size=64, draws_per_epoch=64)
    batches = AugmentedBatches(pictures, config, stage_number=0)
    print(float(batches[0][1].mean()), len(batches._donors))
"""


def test_a_stage_says_how_many_reals_are_blended_and_with_whom(tmp_path: Path) -> None:
    printed = run_script(tmp_path, BLENDING)
    none, every, fakes_too = (line.split() for line in printed[-3:])

    assert 0.2 < float(none[0]) < 0.8
    assert [float(every[0]), float(fakes_too[0])] == [1.0, 1.0]
    assert [int(each[1]) for each in (none, every, fakes_too)] == [1, 1, 2]


DISTILLED = """
import sys
from dataclasses import replace
from pathlib import Path
import h5py
import keras
import numpy as np
from training.config import SMOKE, Stage
from training.train import _Learner, train_all
stage = Stage(epochs=1, size=64, learning_rate=1e-3)
config = replace(
    SMOKE,
    draws_per_epoch=32,
    limit_per_source=1,
    stages=(stage,),
    second_stages=(stage,),
    average=(),
    normalized_from=None,
    refit=None,
    third_pretrained=False,
    distilled_stages=(replace(stage, mixed_share=0.5, batch_size=8, learning_rate=0.0),),
    distilled_share=0.75,
)
run_dir = Path(sys.argv[1])
count = len(train_all(config, run_dir, processes=2))
print(count, sorted(each.name for each in run_dir.parent.iterdir() if each.is_dir()))
def stored(folder):
    with h5py.File(run_dir.with_name(folder) / "stage_0.weights.h5") as file:
        found = []
        file.visititems(lambda name, each: found.append(np.array(each)) if isinstance(each, h5py.Dataset) else None)
    return found
print(max(float(np.abs(a - b).max()) for a, b in zip(stored("run"), stored("run-distilled"), strict=True)))
picture = keras.Input((1,))
def constant(value):
    layer = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(value))
    return keras.Model(picture, layer(picture))
learner = _Learner(picture, constant(0.0)(picture), name="learner")
learner.listen([constant(1.0), constant(3.0)], 0.75)
learner.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
x, y, said = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32), np.full((1, 1), 0.5, np.float32)
for training in (True, False):
    print(float(learner.compute_loss(x, y, said, training=training)))
"""


def test_a_distilled_network_begins_as_the_first_and_heeds_the_mean_of_all(tmp_path: Path) -> None:
    printed = run_script(tmp_path, DISTILLED, str(tmp_path / "run"))
    assert printed[-4] == "1 ['run', 'run-distilled', 'run-second']"
    # Its rate is zero.
    assert float(printed[-3]) < 1e-6

    def loss(target: float) -> float:
        return math.log1p(math.exp(0.5)) - target * 0.5

    # The teachers' mean logit is 2.
    assert [float(each) for each in printed[-2:]] == pytest.approx(
        [loss(0.25 + 0.75 / (1 + math.exp(-2.0))), loss(1.0)], rel=1e-5
    )


WORKERS = """
from dataclasses import replace
import numpy as np
from training.config import SMOKE, Stage
from training.data import FAKE, REAL
from training.tests.factories import make_face_picture
from training.train import AugmentedBatches, BatchWorkers
pictures = [make_face_picture(label) for label in (REAL, FAKE)]
stages = tuple(
    Stage(epochs=2, size=size, learning_rate=1e-4, mixed_share=share) for size, share in ((32, 0.0), (48, 0.5))
)
config = replace(SMOKE, stages=stages, batch_size=8, draws_per_epoch=32)
workers = BatchWorkers(pictures, [config], 2)
for number in (0, 1):
    here = AugmentedBatches(pictures, config, stage_number=number, first_epoch=1)
    there = AugmentedBatches(pictures, config, stage_number=number, first_epoch=1, workers=workers)
    same = [np.array_equal(a, b) for index in range(4) for a, b in zip(here[index], there[index])]
    labels = {float(each) for index in range(4) for each in here[index][1][:, 0]}
    print(all(same), here[0][0].shape, here[0][0].dtype, labels <= {0.0, 1.0})
workers.close()
"""


def test_processes_draw_what_threads_would(tmp_path: Path) -> None:
    printed = run_script(tmp_path, WORKERS)
    assert printed[-2:] == ["True (8, 32, 32, 3) uint8 True", "True (8, 48, 48, 3) uint8 False"]


LAYERWISE = """
import numpy as np
import keras
from training.model import CLASSIFIER, build_backbone, build_classifier, freeze_below, load_backbone_weights
from training.optimizer import LayerwiseAdamW, rate_factors
from training.paths import BACKBONE_WEIGHTS
keras.utils.set_random_seed(1)
backbone = build_backbone()
model = build_classifier(backbone, dropout=0.0, seed=1)
load_backbone_weights(backbone, BACKBONE_WEIGHTS)
freeze_below(backbone, 0.0)
factors = rate_factors(model, backbone, lowest=0.125)
optimizer = LayerwiseAdamW(1e-3, weight_decay=0.0, factors=factors)
model.compile(optimizer, loss=keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
first = next(layer for layer in backbone.layers if layer.weights)
watched = [first.kernel, model.get_layer(CLASSIFIER).kernel]
before = [np.array(each) for each in watched]
rng = np.random.default_rng(0)
model.train_on_batch(rng.integers(0, 256, (4, 32, 32, 3)).astype(np.float32), np.array([[0.0], [0.0], [1.0], [1.0]]))
print(*(float(np.abs(np.array(now) - then).max()) for now, then in zip(watched, before, strict=True)))
freeze_below(backbone, 0.66)
print(min(factors), max(factors), min(rate_factors(model, backbone, lowest=0.125)))
"""


def test_layers_near_the_input_learn_more_slowly(tmp_path: Path) -> None:
    printed = run_script(tmp_path, LAYERWISE)
    steps, factors = ([float(each) for each in line.split()] for line in printed[-2:])

    # Adam's first step is the rate itself, whatever the gradient.
    assert steps == pytest.approx([0.125e-3, 1e-3], rel=0.02)
    assert factors == pytest.approx([0.125, 1.0, 0.125**0.34], rel=0.1)


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


SETTLING = """
import numpy as np
import keras
from training.model import build_backbone, build_classifier, load_backbone_weights, settle_statistics
from training.paths import BACKBONE_WEIGHTS
backbone = build_backbone(normalized_from=3)
model = build_classifier(backbone, dropout=0.0, seed=1)
load_backbone_weights(backbone, BACKBONE_WEIGHTS)
norm = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization))
before = np.array(norm.moving_mean)
below = keras.Model(backbone.input, norm.input)
batches = [np.random.default_rng(n).integers(0, 256, (2, 64, 64, 3)).astype(np.float32) for n in range(3)]
settle_statistics(model, backbone, batches)
wanted = np.mean([np.asarray(below(each / 127.5 - 1)).mean(axis=(0, 1, 2)) for each in batches], axis=0)
after = np.array(norm.moving_mean)
print(float(np.abs(after - wanted).max()), float(np.abs(before - wanted).max()), norm.momentum)
"""


def test_normalisation_settles_on_what_it_is_shown_in_the_end(tmp_path: Path) -> None:
    printed = run_script(tmp_path, SETTLING)
    left, moved, momentum = map(float, printed[-1].split())

    assert left < 1e-4
    assert moved > 0.01
    assert momentum == 0.99


FULL_DISK = """
import sys
from pathlib import Path
from training.train import _save
folder = Path(sys.argv[1])

class Model:
    def save_weights(self, path):
        Path(path).write_bytes(b"half of it")
        raise OSError("No space left on device")

try:
    _save(Model(), folder / "stage_0.weights.h5")
except OSError as error:
    print(error, (folder / "stage_0.weights.h5").exists())
"""


def test_half_a_file_of_weights_is_not_taken_for_a_finished_stage(tmp_path: Path) -> None:
    printed = run_script(tmp_path, FULL_DISK, str(tmp_path))
    assert printed[-1] == "No space left on device False"


AVERAGE = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from training.config import SMOKE
from training.train import train
run_dir = Path(sys.argv[1])
# Folded, the network would be another one than the stages hold.
model = train(replace(SMOKE.networks()[0], refit=None, normalized_from=None, limit_per_source=1), run_dir)
result = model.get_weights()
means = [np.zeros_like(weight) for weight in result]
for number, share in SMOKE.average:
    model.load_weights(run_dir / f"stage_{number}.weights.h5")
    means = [mean + share * weight for mean, weight in zip(means, model.get_weights())]
last = model.get_weights()
print(max(float(np.abs(a - b).max()) for a, b in zip(result, means)))
print(max(float(np.abs(a - b).max()) for a, b in zip(result, last)))
"""


def test_the_result_is_the_mean_of_the_stages_named(tmp_path: Path) -> None:
    printed = run_script(tmp_path, AVERAGE, str(tmp_path / "run"))
    from_mean, from_last = (float(line) for line in printed[-2:])

    # The last stage's rate is low, so what it changed is little; the mean is exact but for float32.
    assert from_mean < 1e-6
    assert from_last > 5e-6


INTERRUPTED = """
import sys
from dataclasses import replace
from pathlib import Path
import keras
from training.config import SMOKE, Stage
from training.train import train

stage = Stage(epochs=2, size=96, learning_rate=1e-4)
config = replace(
    SMOKE, draws_per_epoch=32, limit_per_source=1, stages=(stage, stage), average=(), normalized_from=None
)


class Killed(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            sys.exit("killed in the second epoch")


fit = keras.Model.fit


def watched(self, *arguments, callbacks, **options):
    killed = [Killed()] if sys.argv[2] == "first" else []
    fit(self, *arguments, callbacks=[*callbacks, *killed], **options)
    print("steps", int(self.optimizer.iterations))


keras.Model.fit = watched
train(config, Path(sys.argv[1]))
"""


def test_a_killed_run_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}

    def run(which: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(tmp_path / "run"), which]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    assert "killed in the second epoch" in run("first").stderr
    second = run("second")

    assert second.returncode == 0, second.stderr[-3000:]
    # Two epochs of two steps in each stage, the optimizer's state included; the second process trained all but one.
    assert second.stdout.count("steps 4") == 2
    assert second.stdout.count("val_auc") == 3
    for number in (0, 1):
        assert len((tmp_path / "run" / f"stage_{number}.csv").read_text().splitlines()) == 3
