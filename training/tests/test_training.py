"""The parts of training, each in a process of its own: what is fitted to what, and what is gone on from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detector.tests.portraits import astronaut_jpeg
from training.data import manifest_sha256
from training.tests.running import ROOT, run_script

pytestmark = pytest.mark.training


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
print(evaluate_model(MODEL_DIR, faces, deliveries=False, keep=False)["n_copies"])
"""


def test_what_test_pictures_are_copies_of_is_not_learnt_by_the_baseline_and_counted(tmp_path: Path) -> None:
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
    assert counted == "1"


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
    config = dataclasses.replace(SMOKE, stages=(stage,), average=(), batch_size=64, draws_per_epoch=64)
    batches = AugmentedBatches(pictures, config, stage_number=0)
    print(float(batches[0][1].mean()), len(batches._donors))
"""


def test_a_stage_says_how_many_reals_are_blended_and_with_whom(tmp_path: Path) -> None:
    printed = run_script(tmp_path, BLENDING)
    none, every, fakes_too = (line.split() for line in printed[-3:])

    assert 0.2 < float(none[0]) < 0.8
    assert [float(every[0]), float(fakes_too[0])] == [1.0, 1.0]
    assert [int(each[1]) for each in (none, every, fakes_too)] == [1, 1, 2]


TAUGHT = """
import dataclasses
import numpy as np
from training.config import SMOKE, Stage
from training.data import FAKE, REAL
from training.tests.factories import make_face_picture, make_sample
from training.train import AugmentedBatches
known = [(REAL, "photos"), (FAKE, "gan"), (FAKE, "blended")]
pictures = [
    dataclasses.replace(make_face_picture(label), sample=make_sample(label, source))
    for label, source in ((REAL, "photos"), (FAKE, "gan"), (FAKE, "unknown"))
]
for share in (0.0, 1.0):
    stage = Stage(epochs=1, size=32, learning_rate=1e-4, pseudo_fake_share=share)
    config = dataclasses.replace(SMOKE, stages=(stage,), average=(), batch_size=64, draws_per_epoch=64)
    targets = AugmentedBatches(pictures, config, stage_number=0, classes=known)[0][1]
    print(sorted(set(zip(targets["logit"][:, 0].tolist(), map(tuple, targets["classes"].tolist())))))
"""


def test_of_each_picture_its_source_is_learnt_and_of_a_blend_that_it_is_one(tmp_path: Path) -> None:
    """Of a source without a class only the label is."""
    genuine, gan, blended = (0.0, (1.0, 0.0, 0.0)), (1.0, (0.0, 1.0, 0.0)), (1.0, (0.0, 0.0, 1.0))
    unknown = (1.0, (0.0, 0.0, 0.0))
    none, every = run_script(tmp_path, TAUGHT)[-2:]
    assert none == str(sorted([genuine, gan, unknown]))
    assert every == str(sorted([blended, gan, unknown]))


HELD_OUT = """
import json
import math
from dataclasses import replace
import numpy as np
from training import train
from training.config import SMOKE, Stage
from training.model import build_backbone, build_classifier
from training.tests.factories import make_face_picture, make_sample

def picture(number, split):
    label = number % 2
    source, generator = (("photos", "photo"), ("gan", "stylegan1"))[label]
    sample = make_sample(label, source, str(number // 4), split=split, generator=generator)
    return replace(make_face_picture(seed=number), sample=sample)

pictures = [picture(number, "train") for number in range(8)]
validation = [picture(number, "val") for number in range(8, 24)]
fits = []  # which pictures of val each has seen, the fit that it begins with included, and which in all views

def numbered(features, kinds, weights, *, class_count, start=None, **options):
    # Stands in for a fit: its log odds are its number, plus those of four classes to one.
    weighed = weights.reshape(-1, len(pictures) + len(validation))[:, len(pictures) :] > 0
    before = fits[round(start[1][-1])][0] if start else np.zeros(len(validation), bool)
    fits.append((weighed.any(axis=0) | before, weighed.all(axis=0)))
    return np.zeros((features.shape[1], class_count)), np.array([0.0] + [len(fits) - 1.0] * (class_count - 1))

train.fit_kinds = numbered
config = replace(SMOKE, stages=(Stage(epochs=1, size=32, learning_rate=0.1),), average=())
model = build_classifier(build_backbone(), dropout=0.0, seed=1)
held_out = train.refit(model, pictures, validation, config, inverse_penalty=1e-3)
number_of_fit = np.rint(held_out - math.log(4)).astype(int)
print(len(validation), config.refit_folds, len(set(number_of_fit.tolist())))
for number in sorted(set(number_of_fit.tolist())):
    others = number_of_fit != number
    print(*(np.array_equal(others, each) for each in fits[number]))
"""


def test_calibration_rests_on_fits_that_never_saw_the_picture(tmp_path: Path) -> None:
    """And that saw all others of `val`, in each view."""
    printed = run_script(tmp_path, HELD_OUT)
    assert printed[-4:] == ["16 3 3", *["True True"] * 3]


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
# Folded, or with a classifier that is served, the network would be another one than the stages hold.
stages = tuple(replace(each, source_loss=0.0) for each in SMOKE.stages)
config = replace(SMOKE.networks()[0], stages=stages, refit=None, normalized_from=None, limit_per_source=1)
model = train(config, run_dir)
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


TAUGHT_LATER = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from training.config import SMOKE, Stage
from training.data import limited, load_pictures, read_manifest
from training.model import CLASSIFIER
from training.paths import BACKBONE_WEIGHTS, FACES_DIR
from training.train import learnt
run_dir = Path(sys.argv[1])
run_dir.mkdir()
stages = tuple(Stage(epochs=1 - number, size=96, learning_rate=1e-3, source_loss=number / 2) for number in range(2))
config = replace(SMOKE.networks()[0], stages=stages, average=(), draws_per_epoch=64)
samples = limited(read_manifest(FACES_DIR), 1)
train, val = ([each for each in samples if each.split == split] for split in ("train", "val"))
pictures, validation = (load_pictures(FACES_DIR, each, cache_dir=run_dir) for each in (train, val))
for _again in range(2):  # the second time from what is stored
    model, backbone = learnt(config, run_dir, pictures, validation, backbone_weights=BACKBONE_WEIGHTS)
    first = replace(config, stages=stages[:1])
    other, of_first = learnt(first, run_dir, pictures, validation, backbone_weights=BACKBONE_WEIGHTS)
    print(all(np.array_equal(*both) for both in zip(backbone.get_weights(), of_first.get_weights(), strict=True)))
    print(model.get_layer(CLASSIFIER).units, other.get_layer(CLASSIFIER).units)
"""


def test_a_stage_that_learns_sources_begins_where_the_one_before_ended(tmp_path: Path) -> None:
    printed = run_script(tmp_path, TAUGHT_LATER, str(tmp_path / "run"))
    same, units, same_again, units_again = printed[-4:]

    assert (same, same_again) == ("True", "True")
    taught, plain = (int(each) for each in units.split())
    assert taught > 20
    assert plain == 1
    assert units_again == units


INTERRUPTED = """
import sys
from dataclasses import replace
from pathlib import Path
import keras
from training.config import SMOKE, Stage
from training.train import train

stage = Stage(epochs=2, size=96, learning_rate=1e-4, source_loss=0.5)
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
    assert second.stdout.count("val_logit_auc") == 3
    for number in (0, 1):
        assert len((tmp_path / "run" / f"stage_{number}.csv").read_text().splitlines()) == 3
