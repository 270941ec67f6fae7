"""The trained classifier to a LiteRT file with its spec, checked against Keras."""

import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from detector.faces import BoundingBox
from detector.predictor import DecisionRule, LiteRTClassifier, ModelSpec, golden_picture, load_predictor
from detector.preprocessing import FACE_MARGIN, INPUT_SIZE, MAX_SOURCE_SIDE, face_input
from training.calibration import Calibration
from training.config import Config
from training.data import FAKE, REAL
from training.model import CLASSIFIER, LEVELS_CLASSIFIER, averaged_to_features, part_masks

NAME = "mobilenet_v2"
PARITY_TOLERANCE = 1e-4


def export(
    model: keras.Model,
    calibration: Calibration,
    model_dir: Path,
    *,
    usual_map: NDArray[np.float32],
    uncertain_band: tuple[float, float],
    config: Config,
    data_version: str,
) -> ModelSpec:
    """Writes model.tflite and spec.json, both or neither, and returns the spec.

    Args:
        model: What `training.train.train` returned.
        calibration: Folded into the classifier's weights.
        usual_map: What `mean_map` returned; subtracted from each class-activation map.
        model_dir: The model's folder.
        uncertain_band: (low, high) in real_probability; saved in the spec.
        config: Saved in the spec.
        data_version: SHA-256 of the manifest.

    Raises:
        ValueError: Keras and LiteRT differ by more than `PARITY_TOLERANCE`.
    """
    served = serving_model(model, calibration, usual_map)
    weights: bytes = tf.lite.TFLiteConverter.from_keras_model(served).convert()
    classifier = LiteRTClassifier(weights, num_threads=1)
    difference = parity_difference(served, classifier)
    if not difference < PARITY_TOLERANCE:
        raise ValueError(f"Keras and LiteRT differ by {difference:.2e}; at most {PARITY_TOLERANCE} is accepted.")
    digest = hashlib.sha256(weights).hexdigest()
    golden = golden_picture()
    golden_probability, _cam = classifier(face_input(golden, BoundingBox(0, 0, golden.shape[1], golden.shape[0])))
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
        cam_bias=_bias(model, calibration) + float(usual_map.mean()),
        weights_sha256=digest,
        golden_fake_probability=golden_probability,
        code_version=code_version(),
        data_version=data_version,
        config=config.to_dict(),
    )
    model_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(model_dir / "model.tflite", weights)
    write_atomically(model_dir / "spec.json", (json.dumps(asdict(spec), indent=2) + "\n").encode())
    load_predictor(model_dir)
    return spec


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

    A classifier of means commutes with them, so the map comes first: at each position, what its features and lower
    levels (averaged to the features' positions) add to the logit, with the weights of the parts of the face that the
    position lies in, less what it usually is, so that the map shows what speaks for fake or real in this picture rather
    than where the network looks in every one. The logit is the map's mean plus a bias: one pass gives both.
    """
    kernel = model.get_layer(CLASSIFIER).get_weights()[0]
    (levels_kernel,) = model.get_layer(LEVELS_CLASSIFIER).get_weights()
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    inputs = keras.Input(batch_shape=(1, INPUT_SIZE, INPUT_SIZE, 3), name="picture")
    levels = backbone(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs))
    side = levels[-1].shape[1]
    masks = np.asarray(part_masks(side))
    areas = masks.mean(axis=1)
    ends = np.cumsum([level.shape[-1] * len(masks) for level in levels])[:-1]
    weights_of_parts = [each.reshape(len(masks), -1) for each in np.split(levels_kernel, ends)]
    # The parts make up the whole, so a mean over the whole is one over the parts, each as large as it is.
    weights_of_parts[-1] = weights_of_parts[-1] + areas[:, None] * kernel[:, 0]
    maps = []
    for level, weights in zip(levels, weights_of_parts, strict=True):
        project = keras.layers.Conv2D(len(masks), 1, use_bias=False)
        maps.append(project(averaged_to_features(level, INPUT_SIZE // level.shape[1])))
        project.set_weights([(weights / areas[:, None] / calibration.temperature).T[None, None]])
    of_parts = keras.layers.Add(name="class_activation")(maps) * masks.T.reshape(1, side, side, len(masks))
    cam = keras.layers.Reshape((side, side), name="cam")(keras.ops.sum(of_parts, axis=-1) - usual_map[None])
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((side * side, 1))(cam))
    offset = _bias(model, calibration) + float(usual_map.mean())
    shifted = keras.layers.Rescaling(1.0, offset=offset)(mean)
    probability = keras.layers.Activation("sigmoid", name="fake_probability")(shifted)
    return keras.Model(inputs, [probability, cam], name="served")


def _bias(model: keras.Model, calibration: Calibration) -> float:
    """Returns what the calibrated logit is without any evidence."""
    return float(model.get_layer(CLASSIFIER).get_weights()[1][0] / calibration.temperature + calibration.bias)


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


def write_atomically(path: Path, data: bytes) -> None:
    """Writes the file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chmod(name, 0o644)
    os.replace(name, path)


def _fixed_input(rng: np.random.Generator, index: int) -> NDArray[np.uint8]:
    """Returns a (224, 224, 3) uint8 picture: noise, or smooth fields as photographs have."""
    if index % 2:
        return rng.integers(0, 256, (INPUT_SIZE, INPUT_SIZE, 3), dtype=np.uint8)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return face_input(coarse, BoundingBox(0, 0, 8, 8))
