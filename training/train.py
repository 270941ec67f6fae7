"""Trains the detector: `python -m training.train` (`make train`); resumes from the last epoch of the run folder."""

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from detector.predictor import DecisionRule
from detector.preprocessing import INPUT_SIZE
from training.augment import evaluation_input, training_input
from training.calibration import fit, fit_band
from training.config import FULL, SMOKE, Config, Stage
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
    read_manifest,
    sampling_weights,
)
from training.evaluate import evaluate_model, print_tables
from training.export import export, mean_map
from training.model import (
    CLASSIFIER,
    KINDS_CLASSIFIER,
    POOLED_LEVELS,
    build_backbone,
    build_classifier,
    copy_backbone_weights,
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


class AugmentedBatches(keras.utils.PyDataset):
    """Balanced, augmented batches; every batch is a function of (seed, stage, epoch, index) alone."""

    def __init__(self, pictures: list[FacePicture], config: Config, *, stage_number: int, first_epoch: int = 0) -> None:
        super().__init__(workers=2, max_queue_size=12)
        self._pictures = pictures
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

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns (batch, size, size, 3) float32 RGB, 0 to 255, and (batch, 1) float32 labels, FAKE = 1."""
        rng = np.random.default_rng([self._config.seed, self._stage_number, self._epoch, index])
        inputs: list[NDArray[np.uint8]] = []
        labels: list[int] = []

        def add(picture: FacePicture, label: int, seed: int, donor: FacePicture | None = None) -> None:
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
            labels.append(label)

        for choice in rng.choice(len(self._pictures), self._config.batch_size, p=self._weights):
            if len(inputs) >= self._config.batch_size:
                break
            picture = self._pictures[int(choice)]
            seed = int(rng.integers(2**63))
            can_blend = picture.sample.label == REAL and picture.keypoints is not None
            donor = None
            if can_blend and rng.random() < self._blend_share:
                donor = self._donors[int(rng.integers(len(self._donors)))]
            add(picture, picture.sample.label if donor is None else FAKE, seed, donor)
            if len(inputs) < self._config.batch_size and rng.random() < self._stage.pair_share:
                others = self._counterparts.get(int(choice))
                if donor is not None:
                    add(picture, REAL, seed)
                elif others:
                    add(self._pictures[int(rng.choice(others))], 1 - picture.sample.label, seed)
        return np.stack(inputs).astype(np.float32), np.array(labels, np.float32)[:, None]


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
        leave_out: Samples for which it is true are neither trained nor validated on.

    Raises:
        ValueError: run_dir holds a run with another config.
    """
    _claim(run_dir, config)
    keras.utils.set_random_seed(config.seed)
    samples = limited(read_manifest(faces_dir), config.limit_per_source)
    samples = [each for each in samples if leave_out is None or not leave_out(each)]
    cache_dir = run_dir.parent
    pictures = load_pictures(faces_dir, [each for each in samples if each.split == "train"], cache_dir=cache_dir)
    validation = load_pictures(faces_dir, [each for each in samples if each.split == "val"], cache_dir=cache_dir)
    backbone = build_backbone(normalized_from=config.normalized_from)
    model = build_classifier(backbone, dropout=config.dropout, seed=config.seed)
    load_backbone_weights(backbone, backbone_weights)
    for number, stage in enumerate(config.stages):
        finished = run_dir / f"stage_{number}.weights.h5"
        if finished.is_file():
            model.load_weights(finished)
            continue
        _fit_stage(model, backbone, config, number, stage, pictures, validation, run_dir)
        model.save_weights(finished)
    if config.average:
        _average(model, [(run_dir / f"stage_{number}.weights.h5", share) for number, share in config.average])
    if config.normalized_from is not None:
        model = _folded(model, backbone, config, pictures)
    if config.refit is not None:
        fitted = run_dir / "refit.weights.h5"
        if fitted.is_file():
            model.load_weights(fitted)
        else:
            refit(model, pictures, config, inverse_penalty=config.refit)
            model.save_weights(fitted)
    return model


def refit(model: keras.Model, pictures: list[FacePicture], config: Config, *, inverse_penalty: float) -> None:
    """Fits the classifier anew to what all blocks hold of the training pictures, by logistic regression on their kinds.

    What fakes of all kinds have in common is little, and what sources have in common with them misleads: asked for the
    kind, the regression finds more that holds for new sources (training/history.md).

    Descent from zero hardly uses the lower levels (training/history.md); the best classifier for a network that stays
    as it is can be had exactly. Kirichenko et al., "Last Layer Re-Training is Sufficient for Robustness to Spurious
    Correlations", ICLR 2023, refit the last layer alone.

    Args:
        model: What `build_classifier` returned; its two classifiers get new weights.
        pictures: Training pictures; each is seen `refit_views` times, lightly augmented, none is blended.
        config: The last stage names the size and how sources are balanced.
        inverse_penalty: Inverse strength of the L2 penalty.
    """
    last = config.stages[-1]
    rng = np.random.default_rng([config.seed, len(config.stages)])
    pooled = keras.Model(model.input, model.get_layer(POOLED_LEVELS).output)
    samples = [each.sample for each in pictures]
    labels = np.array([each.label for each in samples])
    found = np.empty((len(pictures) * config.refit_views, pooled.output.shape[-1]), np.float32)
    inputs = np.empty((len(pictures), last.size, last.size, 3), np.uint8)
    for view in range(config.refit_views):
        for index, picture in enumerate(pictures):
            inputs[index] = training_input(
                picture, rng, size=last.size, augmentation=_REFIT_AUGMENTATION, margins=_REFIT_MARGINS
            )
        rows = slice(view * len(pictures), (view + 1) * len(pictures))
        found[rows] = pooled.predict(_Batches(inputs, labels, config.batch_size), verbose=0)
    del inputs
    mean = found.mean(axis=0)
    deviation = np.hypot(found.std(axis=0), _LEAST_DEVIATION)
    found -= mean
    found /= deviation
    weights = sampling_weights(samples, source_power=config.source_power, matched_boost=last.matched_boost)
    kinds = np.array([_class_of(each) for each in samples])
    kernel, bias = fit_kinds(
        found,
        np.tile(kinds, config.refit_views),
        np.tile(weights * len(samples) / config.refit_views, config.refit_views),
        class_count=len(CLASSES),
        inverse_penalty=inverse_penalty,
    )
    kernel /= deviation[:, None]
    bias -= mean @ kernel
    bias[1:] += math.log(len(CLASSES) - 1)  # which fake_log_odds() takes off again
    model.get_layer(KINDS_CLASSIFIER).set_weights([kernel, bias])
    classifier = model.get_layer(CLASSIFIER)
    classifier.set_weights([np.zeros_like(each) for each in classifier.get_weights()])


def _class_of(sample: Sample) -> int:
    """Returns the place in `CLASSES`; of a fake whose generator nobody noted, such as a reviewed upload, ANY_FAKE."""
    if sample.label == REAL:
        return 0
    return CLASSES.index(KINDS[sample.generator]) if sample.generator in KINDS else ANY_FAKE


def _average(model: keras.Model, parts: list[tuple[Path, float]]) -> None:
    """Gives the model the mean of the stored weights, each with its share."""
    means: list[NDArray[np.float32]] = []
    for path, share in parts:
        model.load_weights(path)
        weights = [share * weight for weight in model.get_weights()]
        means = [mean + weight for mean, weight in zip(means, weights, strict=True)] if means else weights
    model.set_weights(means)


def _folded(model: keras.Model, backbone: keras.Model, config: Config, pictures: list[FacePicture]) -> keras.Model:
    """Returns the network that computes the same with all normalisation folded, which is what is fitted and served."""
    last = len(config.stages) - 1
    unseen = AugmentedBatches(pictures, config, stage_number=last, first_epoch=config.stages[last].epochs)
    settle_statistics(model, backbone, (unseen[index][0] for index in range(config.settling_batches)))
    folded = build_backbone()
    copy_backbone_weights(backbone, folded)
    result = build_classifier(folded, dropout=config.dropout, seed=config.seed)
    for name in (CLASSIFIER, KINDS_CLASSIFIER):
        result.get_layer(name).set_weights(model.get_layer(name).get_weights())
    return result


def _claim(run_dir: Path, config: Config) -> None:
    path = run_dir / "config.json"
    wanted = json.dumps(config.to_dict(), indent=2)
    if path.is_file() and Config.from_json(path.read_text()) != config:
        raise ValueError(f"{path} describes another run; remove that folder or choose another --run-dir.")
    run_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(wanted + "\n")


def _fit_stage(
    model: keras.Model,
    backbone: keras.Model,
    config: Config,
    number: int,
    stage: Stage,
    pictures: list[FacePicture],
    validation: list[FacePicture],
    run_dir: Path,
) -> None:
    freeze_below(backbone, stage.train_from)
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
        factors=rate_factors(model, backbone, lowest=stage.lowest_rate),
    )
    model.compile(
        optimizer,
        loss=keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.AUC(from_logits=True, name="auc")],
        jit_compile=False,
    )
    optimizer.build(model.trainable_variables)
    backup_dir = run_dir / f"stage_{number}"
    # BackupAndRestore leaves there in which epoch it went on, and fit() would begin the next stage in the same one.
    model._initial_epoch = None
    val_inputs = np.stack([evaluation_input(each, size=stage.size) for each in validation])
    val_labels = np.array([each.sample.label for each in validation], np.float32)[:, None]
    batches = AugmentedBatches(pictures, config, stage_number=number, first_epoch=_finished_epochs(backup_dir))
    model.fit(
        batches,
        epochs=stage.epochs,
        # Pictures stay uint8 until they are batched: 2,300 of them in float32 would take 1.4 GB.
        validation_data=_Batches(val_inputs, val_labels, config.batch_size),
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
    def __init__(self, inputs: NDArray[np.uint8], labels: NDArray[np.float32], batch_size: int) -> None:
        super().__init__()
        self._inputs, self._labels, self._batch_size = inputs, labels, batch_size

    def __len__(self) -> int:
        return -(-len(self._inputs) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        return self._inputs[part].astype(np.float32), self._labels[part]


def _finished_epochs(backup_dir: Path) -> int:
    path = backup_dir / "training_metadata.json"
    return int(json.loads(path.read_text())["epoch"]) if path.is_file() else 0


def main(arguments: list[str] | None = None) -> None:
    """Trains, calibrates, exports and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="every stage on a few pictures, about two minutes")
    parser.add_argument("--config", type=Path, help="JSON with other settings than FULL of training/config.py")
    parser.add_argument("--run-dir", type=Path, help="checkpoints and logs (default: training/runs/default or smoke)")
    parser.add_argument("--model-dir", type=Path, help="where the model is written (default: models/mobilenet_v2)")
    options = parser.parse_args(arguments)
    if options.smoke and options.model_dir is None:
        parser.error("--smoke needs --model-dir: its model must not replace the real one")
    config = Config.from_json(options.config.read_text()) if options.config else SMOKE if options.smoke else FULL
    run_dir = options.run_dir or RUNS_DIR / ("smoke" if options.smoke else "default")
    model = train(config, run_dir)
    finish(model, config, options.model_dir or MODEL_DIR, cache_dir=run_dir.parent)


def finish(
    model: keras.Model, config: Config, model_dir: Path, *, cache_dir: Path, faces_dir: Path = FACES_DIR
) -> None:
    """Calibrates the trained classifier on val, exports it, measures the export and writes its card."""
    samples = limited(read_manifest(faces_dir), config.limit_per_source)
    pictures = load_pictures(faces_dir, [each for each in samples if each.split == "val"], cache_dir=cache_dir)
    judged = [each for each in pictures if each.served]
    labels = np.array([each.sample.label for each in judged])
    logits = network_logits(model, judged, size=INPUT_SIZE, batch_size=config.batch_size)
    rule = DecisionRule()
    calibration = fit(logits, labels, rule=rule)
    band = fit_band(calibration.probabilities(logits), labels, rule=rule)
    data_version = manifest_sha256(faces_dir)
    usual_map = mean_map(model, calibration, np.stack([evaluation_input(each) for each in judged]), labels)
    export(
        model,
        calibration,
        model_dir,
        usual_map=usual_map,
        uncertain_band=band,
        config=config,
        data_version=data_version,
    )
    print_tables(evaluate_model(model_dir, faces_dir, limit_per_source=config.limit_per_source))


if __name__ == "__main__":
    main()
