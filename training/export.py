"""The trained classifier to a LiteRT file with its spec, checked against Keras."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from detector.faces import BoundingBox
from detector.predictor import (
    WEIGHT_FILES,
    DecisionRule,
    LiteRTClassifier,
    ModelSpec,
    OtherNetwork,
    SecondOpinion,
    golden_picture,
    load_predictor,
)
from detector.preprocessing import FACE_MARGIN, INPUT_SIZE, MAX_SOURCE_SIDE, face_input
from training.calibration import Calibration
from training.config import Config
from training.data import FAKE, REAL
from training.model import CLASSIFIER, FakeLogOdds, averaged_to_features, fitted_classifiers, part_masks
from training.paths import write_atomically

NAME = "mobilenet_v2"
PARITY_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Asked:
    """When others than the first network are asked: `SecondOpinion`, less what follows from weights."""

    between: tuple[float, float]
    of_reals: float
    of_fakes: float


def export(
    models: Sequence[keras.Model],
    calibration: Calibration,
    model_dir: Path,
    *,
    usual_maps: Sequence[NDArray[np.float32]],
    uncertain_band: tuple[float, float],
    config: Config,
    data_version: str,
    asked: Asked | None = None,
) -> ModelSpec:
    """Writes the networks and spec.json, each whole, and returns the spec.

    In between, the folder holds weights of another spec, which serving refuses by their SHA-256.

    Args:
        models: One to three that `training.train.train` returned.
        calibration: Folded into the weights of all, whose mean it was fitted to.
        usual_maps: What `mean_map` returned for each; subtracted from its class-activation maps.
        model_dir: The model's folder.
        uncertain_band: (low, high) in real_probability; saved in the spec.
        config: Saved in the spec.
        data_version: SHA-256 of the manifest.
        asked: When those after the first are asked.

    Raises:
        ValueError: Keras and LiteRT differ by more than `PARITY_TOLERANCE`; or there are several networks and it is not
            said when those after the first are asked, or the other way round.
    """
    if len(models) not in ((1,) if asked is None else (2, 3)):
        raise ValueError(f"There are {len(models)} networks, and the others are asked as follows: {asked}.")
    # One bias leads from the mean of a map to the logit, whichever network drew it.
    level = float(usual_maps[0].mean())
    exported = [
        _converted(serving_model(model, calibration, usual_map - usual_map.mean() + level))
        for model, usual_map in zip(models, usual_maps, strict=True)
    ]
    (weights, golden_probability), *exported_others = exported
    others = [OtherNetwork(hashlib.sha256(each).hexdigest(), golden) for each, golden in exported_others]
    second = None
    if asked is not None:
        second = SecondOpinion(
            asked_between=list(asked.between),
            asked_of_reals=asked.of_reals,
            asked_of_fakes=asked.of_fakes,
            weights_sha256=others[0].weights_sha256,
            golden_fake_probability=others[0].golden_fake_probability,
            third=others[1] if len(others) > 1 else None,
        )
    digest = hashlib.sha256(b"".join(each for each, _golden in exported)).hexdigest()
    spec = ModelSpec(
        name=NAME,
        version=f"{NAME}-{digest[:8]}",
        input_size=INPUT_SIZE,
        color_order="RGB",
        value_range=[0, 255],
        positive_class="fake",
        face_margin=FACE_MARGIN,
        max_source_side=MAX_SOURCE_SIDE,
        decision_threshold=DecisionRule().real_threshold,
        calibration=asdict(calibration),
        uncertain_band=list(uncertain_band),
        cam_bias=calibration.bias + level,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        golden_fake_probability=golden_probability,
        code_version=code_version(),
        data_version=data_version,
        config=config.to_dict(),
        second_opinion=second,
    )
    model_dir.mkdir(parents=True, exist_ok=True)
    for name, (content, _golden) in zip(WEIGHT_FILES, exported, strict=False):
        write_atomically(model_dir / name, content)
    for name in WEIGHT_FILES[len(exported) :]:
        (model_dir / name).unlink(missing_ok=True)
    write_atomically(model_dir / "spec.json", (json.dumps(asdict(spec), indent=2) + "\n").encode())
    load_predictor(model_dir)
    return spec


def _converted(served: keras.Model) -> tuple[bytes, float]:
    """Returns the network for LiteRT, and what it says of the golden picture.

    Raises:
        ValueError: Keras and LiteRT differ by more than `PARITY_TOLERANCE`.
    """
    weights: bytes = tf.lite.TFLiteConverter.from_keras_model(served).convert()
    classifier = LiteRTClassifier(weights, num_threads=1)
    difference = parity_difference(served, classifier)
    if not difference < PARITY_TOLERANCE:
        raise ValueError(f"Keras and LiteRT differ by {difference:.2e}; at most {PARITY_TOLERANCE} is accepted.")
    golden = golden_picture()
    probability, _cam = classifier(face_input(golden, BoundingBox(0, 0, golden.shape[1], golden.shape[0])))
    return weights, probability


def mean_map(
    model: keras.Model, calibration: Calibration, inputs: NDArray[np.uint8], labels: NDArray[np.int_]
) -> NDArray[np.float32]:
    """Returns the mean class-activation map, (7, 7) float32, of pictures of which half count as fake.

    Args:
        model: What `training.train.train` returned.
        calibration: As for `export`.
        inputs: (n, 224, 224, 3) uint8 RGB.
        labels: (n,) FAKE = 1; both classes.
    """
    side = INPUT_SIZE // 32
    served = serving_model(model, calibration, np.zeros((side, side), np.float32))
    maps = keras.Model(served.input, served.outputs[1])
    found = np.concatenate([np.asarray(maps.predict_on_batch(each[None].astype(np.float32))) for each in inputs])
    return np.asarray((found[labels == FAKE].mean(axis=0) + found[labels == REAL].mean(axis=0)) / 2, np.float32)


def serving_model(model: keras.Model, calibration: Calibration, usual_map: NDArray[np.float32]) -> keras.Model:
    """Returns (1, 224, 224, 3) RGB 0 to 255 -> (1, 1) calibrated fake_probability and (1, 7, 7) class-activation map.

    A classifier of means commutes with them, so the maps come first: at each position, what its features and lower
    levels (averaged to the features' positions) add to the logit of each class, with the weights of the parts of the
    face that the position lies in. Their means give the logits, and one pass gives both. The map that is shown holds
    the classes of fakes as far as this picture was taken for them, less the genuine ones likewise, in the mean of the
    fitted classifiers, less what it usually is, so that it shows what speaks for fake or real in this picture rather
    than where the network looks in every one; its mean plus a bias is the logit of fake_probability.
    """
    kernel, bias = model.get_layer(CLASSIFIER).get_weights()
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    inputs = keras.Input(batch_shape=(1, INPUT_SIZE, INPUT_SIZE, 3), name="picture")
    levels = backbone(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs))
    side = levels[-1].shape[1]
    masks = np.asarray(part_masks(side))
    areas = masks.mean(axis=1)
    ends = np.cumsum([level.shape[-1] * len(masks) for level in levels])[:-1]
    kernels: list[NDArray[np.float32]] = []
    biases: list[NDArray[np.float32]] = []
    ranges: list[tuple[int, int, FakeLogOdds]] = []
    for classifier, log_odds in fitted_classifiers(model):
        # Only differences between classes count, so the first one needs no weights: all are told against it.
        of_classes, of_class = (each[..., 1:] - each[..., :1] for each in classifier.get_weights())
        begin = sum(len(each) for each in biases)
        kernels.append(of_classes)
        biases.append(of_class)
        ranges.append((begin, begin + len(of_class), log_odds))
    classes = sum(len(each) for each in biases)
    # (parts, channels, classes) each
    weights_of_parts = [
        each.reshape(len(masks), -1, classes) for each in np.split(np.concatenate(kernels, axis=1), ends)
    ]
    for begin, end, log_odds in ranges:
        # The parts make up the whole, so a mean over the whole is one over the parts, each as large as it is; and what
        # is added to each class of fakes is added to the log odds.
        weights_of_parts[-1][..., begin + log_odds.genuine - 1 : end] += areas[:, None, None] * kernel
    maps = []
    for level, weights in zip(levels, weights_of_parts, strict=True):
        project = keras.layers.Conv2D(len(masks) * classes, 1, use_bias=False)
        maps.append(project(averaged_to_features(level, INPUT_SIZE // level.shape[1])))
        of_channels = np.moveaxis(weights / areas[:, None, None], 1, 0)
        project.set_weights([of_channels.reshape(1, 1, -1, len(masks) * classes)])
    activation = keras.layers.Add(name="class_activation")(maps)
    of_parts = keras.ops.reshape(activation, (side * side, len(masks), classes))
    at_positions = keras.ops.sum(of_parts * masks.T[..., None], axis=1)
    means = keras.ops.mean(at_positions, axis=0, keepdims=True) + np.concatenate(biases)
    odds, evidences = [], []
    for begin, end, log_odds in ranges:
        first = ((0, 0), (1, 0))
        logits = keras.ops.pad(means[:, begin:end], first)
        of_class_maps = keras.ops.pad(at_positions[:, begin:end], first)
        odds.append(log_odds(logits))
        real, fake = slice(None, log_odds.genuine), slice(log_odds.genuine, None)
        evidences.append(
            keras.ops.sum(of_class_maps[:, fake] * keras.ops.softmax(logits[:, fake]), axis=1)
            - keras.ops.sum(of_class_maps[:, real] * keras.ops.softmax(logits[:, real]), axis=1)
        )
    logit = sum(odds) / len(odds) + bias
    evidence = sum(evidences) / len(evidences)
    centred = keras.ops.reshape(evidence - keras.ops.mean(evidence), (1, side, side))
    usual = usual_map[None]
    cam = keras.layers.Identity(name="cam")((centred + logit[..., None]) / calibration.temperature - usual)
    calibrated = logit / calibration.temperature + calibration.bias
    probability = keras.layers.Activation("sigmoid", name="fake_probability")(calibrated)
    return keras.Model(inputs, [probability, cam], name="served")


def parity_difference(served: keras.Model, classifier: LiteRTClassifier, *, count: int = 8) -> float:
    """Returns the largest absolute difference of probability between Keras and LiteRT on fixed inputs."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for index in range(count):
        face = _fixed_input(rng, index)
        expected, expected_cam = (np.asarray(each)[0] for each in served(face[None].astype(np.float32)))
        probability, cam = classifier(face)
        # The map is in logits, whose size is unbounded: compare it in relation to its own range.
        cam_difference = float(np.abs(cam - expected_cam).max() / max(1.0, np.abs(expected_cam).max()))
        worst = max(worst, abs(probability - float(expected[0])), cam_difference)
    return worst


def code_version() -> str:
    """Returns the commit of this checkout, "-modified" where it has changes, "unknown" outside a checkout."""
    root = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty=-modified", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _fixed_input(rng: np.random.Generator, index: int) -> NDArray[np.uint8]:
    """Returns a (224, 224, 3) uint8 picture: noise, or smooth fields as photographs have."""
    if index % 2:
        return rng.integers(0, 256, (INPUT_SIZE, INPUT_SIZE, 3), dtype=np.uint8)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return face_input(coarse, BoundingBox(0, 0, 8, 8))
