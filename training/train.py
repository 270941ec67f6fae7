"""Trains the detector: `python -m training.train` (`make train`); resumes from the last epoch of the run folder."""

import argparse
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from detector.predictor import DecisionRule, is_too_small
from detector.preprocessing import INPUT_SIZE
from training.augment import evaluation_input, training_input
from training.calibration import fit, fit_band, is_between, joined
from training.config import FULL, SMOKE, Config
from training.data import (
    CLASSES,
    FAKE,
    KINDS,
    REAL,
    FacePicture,
    Sample,
    counterparts,
    limited,
    load_pictures,
    manifest_sha256,
    overlapping,
    read_manifest,
    sampling_weights,
    source_classes,
    without_copies,
)
from training.evaluate import Scores, evaluate_model, print_tables
from training.export import Asked, export, mean_map
from training.model import (
    CLASSIFIER,
    KINDS_CLASSIFIER,
    POOLED_LEVELS,
    SOURCES_CLASSIFIER,
    TRAINED_LOG_ODDS,
    build_backbone,
    build_classifier,
    copy_backbone_weights,
    fitted_classifiers,
    freeze_below,
    load_backbone_weights,
    settle_statistics,
)
from training.optimizer import LayerwiseAdamW, rate_factors
from training.paths import BACKBONE_WEIGHTS, FACES_DIR, MODEL_DIR, RUNS_DIR
from training.regression import ANY_FAKE, fit_kinds

# A channel that hardly varies in training keeps a small weight: elsewhere it may vary more.
_LEAST_DEVIATION = 0.05
# How the pictures are drawn that the classifier is fitted to: close to what is served.
_REFIT_AUGMENTATION, _REFIT_MARGINS = 0.3, (1.3, 1.9)
# In the run folder: network logits of the pictures of `val`, by path, each of a fit without the picture's group.
_HELD_OUT = "held_out_logits.json"
# In the run folder: (label, source) of the classes that the last classifier tells apart.
_SOURCES = "fitted_sources.json"
# The class of all blends, whatever their sources: what they have in common is the blending.
_BLENDED = (FAKE, "blended")
# What a network that learns to tell sources apart puts out.
_LOGIT, _CLASSES = "logit", "classes"

# Of a batch: (n, 1) float32, FAKE = 1; besides, where classes of sources are learnt, (n, classes) which one it is.
Targets = NDArray[np.float32] | dict[str, NDArray[np.float32]]


class AugmentedBatches(keras.utils.PyDataset):
    """Balanced, augmented batches; every batch is a function of (seed, stage, epoch, index) alone."""

    def __init__(
        self,
        pictures: list[FacePicture],
        config: Config,
        *,
        stage_number: int,
        first_epoch: int = 0,
        classes: Sequence[tuple[int, str]] = (),
    ) -> None:
        super().__init__(workers=2, max_queue_size=12)
        self._pictures = pictures
        self._classes = classes
        self._config = config
        self._stage_number = stage_number
        self._stage = config.stages[stage_number]
        self._epoch = first_epoch
        samples = [each.sample for each in pictures]
        self._weights = sampling_weights(
            samples,
            source_power=config.source_power,
            matched_boost=self._stage.matched_boost,
            real_share=self._stage.real_share,
        )
        own = self._stage.pseudo_fake_share
        self._blend_share = config.pseudo_fake_share if own is None else own
        self._counterparts = counterparts(samples)
        labels = (REAL, FAKE) if self._stage.fake_donors else (REAL,)
        self._donors = [each for each in pictures if each.sample.label in labels and each.keypoints is not None]

    def __len__(self) -> int:
        return self._config.draws_per_epoch // self._config.batch_size

    def on_epoch_end(self) -> None:
        self._epoch += 1

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Targets]:
        """Returns (batch, size, size, 3) uint8 RGB, and what is to be learnt of them."""
        batch_size = self._config.batch_size
        rng = np.random.default_rng([self._config.seed, self._stage_number, self._epoch, index])
        inputs: list[NDArray[np.uint8]] = []
        shown: list[tuple[int, str]] = []

        def add(picture: FacePicture, seed: int, donor: FacePicture | None = None) -> None:
            inputs.append(
                training_input(
                    picture,
                    np.random.default_rng(seed),
                    size=self._stage.size,
                    donor=donor,
                    augmentation=self._stage.augmentation,
                    margins=self._stage.margins,
                )
            )
            shown.append((picture.sample.label, picture.sample.source) if donor is None else _BLENDED)

        for choice in rng.choice(len(self._pictures), batch_size, p=self._weights):
            if len(inputs) >= batch_size:
                break
            picture = self._pictures[int(choice)]
            seed = int(rng.integers(2**63))
            can_blend = picture.sample.label == REAL and picture.keypoints is not None
            donor = None
            if can_blend and rng.random() < self._blend_share:
                donor = self._donors[int(rng.integers(len(self._donors)))]
            add(picture, seed, donor)
            if len(inputs) < batch_size and rng.random() < self._stage.pair_share:
                others = self._counterparts.get(int(choice))
                if donor is not None:
                    add(picture, seed)
                elif others:
                    add(self._pictures[int(rng.choice(others))], seed)
        return np.stack(inputs), _targets(shown, self._classes)


def _targets(shown: Sequence[tuple[int, str]], classes: Sequence[tuple[int, str]]) -> Targets:
    """Returns what is to be learnt of pictures of these labels and sources; of a source without a class, the label."""
    labels = np.array([label for label, _source in shown], np.float32)[:, None]
    if not classes:
        return labels
    of_classes = np.array([[each == one for one in classes] for each in shown], np.float32)
    return {_LOGIT: labels, _CLASSES: of_classes}


def train(
    config: Config,
    run_dir: Path,
    *,
    faces_dir: Path = FACES_DIR,
    backbone_weights: Path = BACKBONE_WEIGHTS,
    leave_out: Callable[[Sample], bool] | None = None,
) -> keras.Model:
    """Returns the trained classifier (logits), resuming from the last finished epoch in run_dir.

    Args:
        config: All knobs; saved as run_dir/config.json.
        run_dir: Checkpoints and the log; a run with another config in the same folder is refused.
        faces_dir: The folder with manifest.csv.
        backbone_weights: Keras' MobileNetV2 ImageNet weights without top.
        leave_out: Samples for which it is true are neither trained nor validated on, like those that test pictures are
            copies of (`training.overlaps`).

    Raises:
        ValueError: run_dir holds a run with another config, or on other data.
    """
    _claim(run_dir, config, faces_dir=faces_dir, backbone_weights=backbone_weights)
    fitted = run_dir / "refit.weights.h5"
    if config.refit is not None and fitted.is_file():
        classes = json.loads((run_dir / _SOURCES).read_text()) if config.refit_sources else []
        model, _backbone = _built(replace(config, normalized_from=None), sources=classes)
        model.load_weights(fitted)
        return model
    samples = without_copies(limited(read_manifest(faces_dir), config.limit_per_source), faces_dir)
    samples = [each for each in samples if not (leave_out and leave_out(each))]
    cache_dir = run_dir.parent
    pictures = load_pictures(faces_dir, [each for each in samples if each.split == "train"], cache_dir=cache_dir)
    validation = load_pictures(faces_dir, [each for each in samples if each.split == "val"], cache_dir=cache_dir)
    model, backbone = learnt(config, run_dir, pictures, validation, backbone_weights=backbone_weights)
    classes = []
    if config.refit is not None and config.refit_sources:
        classes = source_classes(each.sample for each in _fitted_to(pictures, validation, config))
        (run_dir / _SOURCES).write_text(json.dumps(classes, indent=1) + "\n")
    if config.normalized_from is not None or config.stages[-1].source_loss or classes:
        model = _served(model, backbone, config, pictures, sources=classes)
    if config.refit is not None:
        held_out = refit(model, pictures, validation, config, inverse_penalty=config.refit)
        if held_out is not None:
            logits = dict(zip((each.sample.path for each in validation), held_out.tolist(), strict=True))
            (run_dir / _HELD_OUT).write_text(json.dumps(logits))
        _save(model, fitted)
    return model


def learnt(
    config: Config,
    run_dir: Path,
    pictures: list[FacePicture],
    validation: list[FacePicture],
    *,
    backbone_weights: Path,
) -> tuple[keras.Model, keras.Model]:
    """Returns the classifier after all stages, and its backbone, as they were trained: normalisation is not folded.

    Args:
        config: All knobs.
        run_dir: Checkpoints and the log.
        pictures: To learn from.
        validation: Measured after each epoch.
        backbone_weights: Keras' ImageNet weights.
    """
    keras.utils.set_random_seed(config.seed)
    classes: list[tuple[int, str]] = []
    model, backbone = _built(config)
    load_backbone_weights(backbone, backbone_weights)
    for number, stage in enumerate(config.stages):
        if bool(stage.source_loss) != bool(classes):
            classes = [*source_classes(each.sample for each in pictures), _BLENDED] if stage.source_loss else []
            before = backbone
            model, backbone = _built(config, trained_sources=classes)
            copy_backbone_weights(before, backbone)
        finished = run_dir / f"stage_{number}.weights.h5"
        if finished.is_file():
            model.load_weights(finished)
            continue
        if stage.epochs:
            _fit_stage(model, backbone, config, number, pictures, validation, run_dir, classes=classes)
        _save(model, finished)
    if config.average:
        _average(model, [(run_dir / f"stage_{number}.weights.h5", share) for number, share in config.average])
    return model, backbone


def _built(
    config: Config, *, sources: Sequence[tuple[int, str]] = (), trained_sources: Sequence[tuple[int, str]] = ()
) -> tuple[keras.Model, keras.Model]:
    """Returns a classifier and its backbone, without weights worth having."""
    backbone = build_backbone(normalized_from=config.normalized_from)
    counts = {"sources": _counts(sources), "trained_sources": _counts(trained_sources)}
    return build_classifier(backbone, dropout=config.dropout, seed=config.seed, **counts), backbone


def _counts(classes: Sequence[tuple[int, str]]) -> tuple[int, int] | None:
    """Returns how many of these (label, source) are genuine and how many fakes; None for none."""
    fakes = sum(label == FAKE for label, _source in classes)
    return (len(classes) - fakes, fakes) if classes else None


def _fitted_to(pictures: list[FacePicture], validation: list[FacePicture], config: Config) -> list[FacePicture]:
    """Returns the pictures that the classifier is fitted to in the end, those of training first."""
    return [*pictures, *validation] if "val" in config.refit_splits else pictures


def refit(
    model: keras.Model,
    pictures: list[FacePicture],
    validation: list[FacePicture],
    config: Config,
    *,
    inverse_penalty: float,
) -> NDArray[np.float64] | None:
    """Fits the classifier anew to what all blocks hold of the training pictures, by logistic regression on their kinds.

    What fakes of all kinds have in common is little, and what sources have in common with them misleads: asked for the
    kind, the regression finds more that holds for new sources (training/history.md). Asked for the source, it finds
    what tells fakes of that source from its own genuine pictures; where the model has a classifier for that, the mean
    of both log odds counts, each from a fit of its own.

    Descent from zero hardly uses the lower levels (training/history.md); the best classifier for a network that stays
    as it is can be had exactly. Kirichenko et al., "Last Layer Re-Training is Sufficient for Robustness to Spurious
    Correlations", ICLR 2023, refit the last layer alone.

    Args:
        model: What `build_classifier` returned; its classifiers get new weights.
        pictures: Training pictures; each is seen as `refit_as_served` and `refit_views` say, none is blended.
        validation: Pictures of `val`; seen likewise where the config's `refit_splits` say so.
        config: The last stage names the size and how sources are balanced.
        inverse_penalty: Inverse strength of the L2 penalty.

    Returns:
        (n,) logits of the validation pictures as serving would crop them, each from a fit that did not see its group;
        None where none is fitted to them.
    """
    last = config.stages[-1]
    rng = np.random.default_rng([config.seed, len(config.stages)])
    pooled = keras.Model(model.input, model.get_layer(POOLED_LEVELS).output)
    shown = _fitted_to(pictures, validation, config)
    is_trained = np.arange(len(shown)) < len(pictures)
    samples = [each.sample for each in shown]

    def levels(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        batches = _Batches(inputs, np.zeros((len(inputs), 1), np.float32), config.batch_size)
        return np.asarray(pooled.predict(batches, verbose=0), np.float32)

    views = config.refit_views + 2 * config.refit_as_served
    found = np.empty((len(shown) * views, pooled.output.shape[-1]), np.float32)
    for view, inputs in enumerate(_refit_inputs(shown, config, rng)):
        found[view * len(shown) : (view + 1) * len(shown)] = levels(inputs)
    mean = found.mean(axis=0)
    deviation = np.hypot(found.std(axis=0), _LEAST_DEVIATION)
    found -= mean
    found /= deviation
    weights = sampling_weights(samples, source_power=config.source_power, matched_boost=last.matched_boost)
    weights *= len(samples) / views

    of_sources = source_classes(samples)
    # Of each classifier: the class of each picture.
    told = {
        KINDS_CLASSIFIER: [_class_of(each) for each in samples],
        SOURCES_CLASSIFIER: [of_sources.index((each.label, each.source)) for each in samples],
    }
    clean: NDArray[np.float32] | None = None  # of `val`, where parts of it are held out by turns
    part = np.full(len(shown), -1)
    held_out = np.zeros(len(validation))
    if not is_trained.all():
        clean = levels(np.stack([evaluation_input(each, size=last.size) for each in validation]))
        clean -= mean
        clean /= deviation
        part[~is_trained] = _parts([each.sample for each in validation], config.refit_folds, seed=config.seed)
    classifiers = fitted_classifiers(model)
    iterations, further_iterations = config.refit_iterations
    for classifier, log_odds in classifiers:
        fitted = functools.partial(
            fit_kinds,
            found,
            np.tile(told[classifier.name], views),
            class_count=classifier.units,
            inverse_penalty=inverse_penalty,
        )
        kernel, bias = fitted(np.tile(weights * is_trained, views), max_iterations=iterations)
        if clean is not None:
            further = functools.partial(fitted, start=(kernel, bias), max_iterations=further_iterations)
            for fold in range(config.refit_folds):
                of_others = further(np.tile(weights * (part != fold), views))
                left_out = part[~is_trained] == fold
                classes = clean[left_out] @ of_others[0] + of_others[1]
                odds = np.logaddexp.reduce(classes[:, log_odds.genuine :], axis=1)
                odds -= np.logaddexp.reduce(classes[:, : log_odds.genuine], axis=1)
                held_out[left_out] += odds / len(classifiers)
            kernel, bias = further(np.tile(weights, views))
        kernel /= deviation[:, None]
        bias -= mean @ kernel
        # The log odds take off again how many more classes of fakes there are.
        bias[log_odds.genuine :] += math.log((classifier.units - log_odds.genuine) / log_odds.genuine)
        classifier.set_weights([kernel, bias])
    trained = model.get_layer(CLASSIFIER)
    trained.set_weights([np.zeros_like(each) for each in trained.get_weights()])
    return None if clean is None else held_out


def _refit_inputs(pictures: list[FacePicture], config: Config, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Yields each view of all pictures that `refit` has the network see, (n, size, size, 3) uint8 RGB.

    All lie in the same memory: each is gone when the next is asked for.
    """
    size = config.stages[-1].size
    inputs = np.empty((len(pictures), size, size, 3), np.uint8)
    if config.refit_as_served:
        for index, picture in enumerate(pictures):
            inputs[index] = evaluation_input(picture, size=size)
        yield inputs
        yield inputs[:, :, ::-1]
    for _view in range(config.refit_views):
        for index, picture in enumerate(pictures):
            inputs[index] = training_input(
                picture, rng, size=size, augmentation=_REFIT_AUGMENTATION, margins=_REFIT_MARGINS
            )
        yield inputs


def _parts(samples: list[Sample], count: int, *, seed: int) -> NDArray[np.int_]:
    """Returns (n,) the number, 0 to count - 1, of the part that each sample's group was drawn into."""
    groups = [(each.source, each.group) for each in samples]
    names = sorted(set(groups))
    drawn = np.random.default_rng(seed).permutation(len(names)) % count
    part_of = dict(zip(names, drawn.tolist(), strict=True))
    return np.array([part_of[each] for each in groups])


def _class_of(sample: Sample) -> int:
    """Returns the place in `CLASSES`; of a fake whose generator nobody noted, such as a reviewed upload, ANY_FAKE."""
    if sample.label == REAL:
        return 0
    return CLASSES.index(KINDS[sample.generator]) if sample.generator in KINDS else ANY_FAKE


def _save(model: keras.Model, path: Path) -> None:
    """Writes the weights whole or not at all: that they are there says that this part of the run is over."""
    partial = path.with_name(f"partial-{path.name}")
    model.save_weights(partial)
    partial.replace(path)


def _average(model: keras.Model, parts: list[tuple[Path, float]]) -> None:
    """Gives the model the mean of the stored weights, each with its share."""
    means: list[NDArray[np.float32]] = []
    for path, share in parts:
        model.load_weights(path)
        weights = [share * weight for weight in model.get_weights()]
        means = [mean + weight for mean, weight in zip(means, weights, strict=True)] if means else weights
    model.set_weights(means)


def _served(
    model: keras.Model,
    backbone: keras.Model,
    config: Config,
    pictures: list[FacePicture],
    *,
    sources: Sequence[tuple[int, str]],
) -> keras.Model:
    """Returns the network that is fitted and served: all normalisation folded, so that it computes the same, and a
    classifier of these sources besides, which says nothing yet."""
    if config.normalized_from is not None:
        last = len(config.stages) - 1
        unseen = AugmentedBatches(pictures, config, stage_number=last, first_epoch=config.stages[last].epochs)
        settle_statistics(model, backbone, (unseen[index][0] for index in range(config.settling_batches)))
    result, folded = _built(replace(config, normalized_from=None), sources=sources)
    copy_backbone_weights(backbone, folded)
    # One that tells sources apart is not served: `refit` silences it in any case.
    for name in (KINDS_CLASSIFIER,) if config.stages[-1].source_loss else (CLASSIFIER, KINDS_CLASSIFIER):
        result.get_layer(name).set_weights(model.get_layer(name).get_weights())
    return result


def _claim(run_dir: Path, config: Config, *, faces_dir: Path, backbone_weights: Path) -> None:
    """Makes the folder this run's own: what it holds is only gone on from with the same settings and data."""
    path, data_path = run_dir / "config.json", run_dir / "data.json"
    data = {
        "manifest": manifest_sha256(faces_dir),
        "backbone": hashlib.sha256(backbone_weights.read_bytes()).hexdigest(),
        "left_out": sorted(other for _test, other in overlapping(faces_dir)),
    }
    elsewhere = "remove that folder or choose another --run-dir."
    if path.is_file() and Config.from_json(path.read_text()) != config:
        raise ValueError(f"{path} describes another run; {elsewhere}")
    if path.is_file() and (not data_path.is_file() or json.loads(data_path.read_text()) != data):
        raise ValueError(f"{run_dir} holds a run on other data, or from other weights; {elsewhere}")
    run_dir.mkdir(parents=True, exist_ok=True)
    data_path.write_text(json.dumps(data, indent=1) + "\n")
    path.write_text(json.dumps(config.to_dict(), indent=2) + "\n")


def _fit_stage(
    model: keras.Model,
    backbone: keras.Model,
    config: Config,
    number: int,
    pictures: list[FacePicture],
    validation: list[FacePicture],
    run_dir: Path,
    *,
    classes: Sequence[tuple[int, str]],
) -> None:
    stage = config.stages[number]
    freeze_below(backbone, stage.train_from)
    # Without the classifier that is fitted in the end: it says nothing yet.
    output = model.get_layer(CLASSIFIER).output
    if classes:
        output = {_LOGIT: model.get_layer(TRAINED_LOG_ODDS).output, _CLASSES: output}
    learner = keras.Model(model.input, output, name="learner")
    steps = config.draws_per_epoch // config.batch_size * stage.epochs
    warm_up = min(200, steps // 10)
    optimizer = LayerwiseAdamW(
        keras.optimizers.schedules.CosineDecay(
            stage.learning_rate / 20,
            max(1, steps - warm_up),
            alpha=0.01,
            warmup_target=stage.learning_rate,
            warmup_steps=warm_up,
        ),
        weight_decay=config.weight_decay,
        clipnorm=config.clip_norm,
        use_ema=True,
        ema_momentum=config.ema_momentum,
        factors=rate_factors(learner, backbone, lowest=stage.lowest_rate),
    )
    smoothed = {"from_logits": True, "label_smoothing": config.label_smoothing}
    loss: Any = keras.losses.BinaryCrossentropy(**smoothed)
    metrics: Any = [keras.metrics.AUC(from_logits=True, name="auc")]
    if classes:
        loss = {_LOGIT: loss, _CLASSES: keras.losses.CategoricalCrossentropy(**smoothed)}
        metrics = {_LOGIT: metrics}
    learner.compile(
        optimizer,
        loss=loss,
        loss_weights={_LOGIT: 1.0, _CLASSES: stage.source_loss} if classes else None,
        metrics=metrics,
        jit_compile=False,  # XLA slows TensorFlow down here
    )
    optimizer.build(learner.trainable_variables)
    backup_dir = run_dir / f"stage_{number}"
    val_inputs = np.stack([evaluation_input(each, size=stage.size) for each in validation])
    val_targets = _targets([(each.sample.label, each.sample.source) for each in validation], classes)
    batches = AugmentedBatches(
        pictures, config, stage_number=number, first_epoch=_finished_epochs(backup_dir), classes=classes
    )
    learner.fit(
        batches,
        epochs=stage.epochs,
        validation_data=_Batches(val_inputs, val_targets, config.batch_size),
        callbacks=[
            # Validation sees the averaged weights; the end of fit() keeps them.
            keras.callbacks.SwapEMAWeights(),
            keras.callbacks.BackupAndRestore(backup_dir, delete_checkpoint=False),
            keras.callbacks.CSVLogger(run_dir / f"stage_{number}.csv", append=True),
        ],
        verbose=1 if os.isatty(1) else 2,
    )


def network_logits(
    model: keras.Model, pictures: list[FacePicture], *, size: int, batch_size: int
) -> NDArray[np.float64]:
    """Returns (n,) uncalibrated logits of the pictures as serving would crop them, at `size` px."""
    inputs = np.stack([evaluation_input(each, size=size) for each in pictures])
    batches = _Batches(inputs, np.zeros((len(pictures), 1), np.float32), batch_size)
    return np.asarray(model.predict(batches, verbose=0), np.float64)[:, 0]


class _Batches(keras.utils.PyDataset):
    def __init__(self, inputs: NDArray[np.uint8], targets: Targets, batch_size: int) -> None:
        super().__init__()
        self._inputs, self._targets, self._batch_size = inputs, targets, batch_size

    def __len__(self) -> int:
        return -(-len(self._inputs) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Targets]:
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        if isinstance(self._targets, dict):
            return self._inputs[part], {name: each[part] for name, each in self._targets.items()}
        return self._inputs[part], self._targets[part]


def _finished_epochs(backup_dir: Path) -> int:
    path = backup_dir / "training_metadata.json"
    return int(json.loads(path.read_text())["epoch"]) if path.is_file() else 0


def main(arguments: list[str] | None = None) -> None:
    """Trains, calibrates, exports and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="every stage on a few pictures, a few minutes")
    parser.add_argument("--config", type=Path, help="JSON with other settings than FULL of training/config.py")
    parser.add_argument("--run-dir", type=Path, help="checkpoints and logs (default: training/runs/default or smoke)")
    parser.add_argument("--model-dir", type=Path, help="where the model is written (default: models/mobilenet_v2)")
    options = parser.parse_args(arguments)
    config = Config.from_json(options.config.read_text()) if options.config else SMOKE if options.smoke else FULL
    run_dir = options.run_dir or RUNS_DIR / ("smoke" if options.smoke else "default")
    models = train_all(config, run_dir)
    # A trial's model must not replace the real one.
    finish(models, config, options.model_dir or (run_dir / "model" if options.smoke else MODEL_DIR), run_dir=run_dir)


def train_all(config: Config, run_dir: Path, *, faces_dir: Path = FACES_DIR) -> list[keras.Model]:
    """Returns the networks that are served, trained."""
    return [
        train(each, where, faces_dir=faces_dir)
        for each, where in zip(config.networks(), _run_dirs(config, run_dir), strict=True)
    ]


def _run_dirs(config: Config, run_dir: Path) -> list[Path]:
    """Returns where each network trains: the others' folders are beside the first's, whose cache they share."""
    others = [run_dir.with_name(f"{run_dir.name}-{name}") for name in ("second", "third")]
    return [run_dir, *others][: len(config.networks())]


def finish(
    models: Sequence[keras.Model], config: Config, model_dir: Path, *, run_dir: Path, faces_dir: Path = FACES_DIR
) -> None:
    """Calibrates the trained networks on val, exports them, measures the export and writes its card.

    Where the classifier was fitted to val too, the calibration and the figures of val are those of fits that did not
    see the picture's group.
    """
    samples = limited(read_manifest(faces_dir), config.limit_per_source)
    held_out: list[dict[str, float]] = []
    if "val" in config.refit_splits:
        held_out = [json.loads((each / _HELD_OUT).read_text()) for each in _run_dirs(config, run_dir)]
        samples = [each for each in samples if each.split != "val" or each.path in held_out[0]]
    pictures = load_pictures(faces_dir, [each for each in samples if each.split == "val"], cache_dir=run_dir.parent)
    judged = [each for each in pictures if each.served]
    labels = np.array([each.sample.label for each in judged])
    if held_out:
        of_networks = [np.array([each[picture.sample.path] for picture in judged]) for each in held_out]
    else:
        of_networks = [network_logits(each, judged, size=INPUT_SIZE, batch_size=config.batch_size) for each in models]
    rule = DecisionRule()
    logits = joined(*of_networks, between=config.second_asked) if len(of_networks) > 1 else of_networks[0]
    calibration = fit(logits, labels, rule=rule)
    band = fit_band(calibration.probabilities(logits), labels, rule=rule)
    data_version = manifest_sha256(faces_dir)
    inputs = np.stack([evaluation_input(each) for each in judged])
    asked = None
    if len(of_networks) > 1:
        is_asked = is_between(of_networks[0], config.second_asked)
        low, high = calibration.probabilities(np.array(config.second_asked)).tolist()
        asked = Asked((low, high), *(float(is_asked[labels == label].mean()) for label in (REAL, FAKE)))
    export(
        models,
        calibration,
        model_dir,
        usual_maps=[mean_map(each, calibration, inputs, labels) for each in models],
        uncertain_band=band,
        config=config,
        data_version=data_version,
        asked=asked,
    )
    is_small = np.array([is_too_small(each.bbox) for each in judged])
    no_face = len(pictures) - len(judged)
    scores = Scores([each.sample for each in judged], calibration.probabilities(logits), is_small, no_face)
    print_tables(
        evaluate_model(
            model_dir,
            faces_dir,
            limit_per_source=config.limit_per_source,
            held_out=scores if held_out else None,
        )
    )


if __name__ == "__main__":
    main()
