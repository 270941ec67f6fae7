"""MobileNetV2 with a dense classifier; what is served has its batch normalisation folded into the convolutions.

Architecture: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
Batch normalisation that stays frozen is an affine map, which a convolution can absorb: the folded network computes the
same function and trains faster. One that learns along allows higher rates, with which fewer pictures teach as much.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.data import CLASSES

# Expansion, output channels, repeats, stride of the first: table 2 of the paper.
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FEATURES = "features"
_FEATURES_STRIDE = 32
CLASSIFIER = "classifier"
# What the fitted classifier sees: each block's depthwise convolution, where it has most channels, and the features.
LEVELS = (*(f"block_{index}_depthwise_relu" for index in range(sum(repeats for _, _, repeats, _ in _BLOCKS))), FEATURES)
KINDS_CLASSIFIER = "kinds_classifier"
SOURCES_CLASSIFIER = "sources_classifier"
_LOG_ODDS = "_log_odds"
TRAINED_LOG_ODDS = CLASSIFIER + _LOG_ODDS
POOLED_LEVELS = "pooled_levels"
# Parts of the crop as (top, bottom, left, right), 0 to 1: with the face at 1 / 1.6 of its side, these are the eyes and
# nose, and nose, mouth and chin. What surrounds both is the third part.
_PARTS = ((0.2, 0.5, 0.2, 0.8), (0.5, 0.8, 0.2, 0.8))


def build_backbone(*, normalized_from: int | None = None) -> keras.Model:
    """Returns the backbone: (n, h, w, 3) float32 RGB in -1 to 1 -> (n, h / 32, w / 32, 1280).

    Args:
        normalized_from: The first block (0 to 16) whose batch normalisation, and that of all after it, is a layer of
            its own; None folds all. Those near the input take most of the time and change least.
    """
    first = len(LEVELS) if normalized_from is None else normalized_from
    inputs = x = keras.Input((None, None, 3), name="rgb")
    stem = layers.Conv2D(32, 3, strides=2, padding="same", name="stem_convolution", use_bias=first > 0)
    x = _activated(x, stem, "stem")
    channels = 32
    index = 0
    for expansion, out_channels, repeats, first_stride in _BLOCKS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            name = f"block_{index}"
            biased = index < first
            y = x
            if expansion > 1:
                expand = layers.Conv2D(channels * expansion, 1, name=f"{name}_expand_convolution", use_bias=biased)
                y = _activated(y, expand, f"{name}_expand")
            depthwise = layers.DepthwiseConv2D(
                3, strides=stride, padding="same", name=f"{name}_depthwise", use_bias=biased
            )
            y = _activated(y, depthwise, f"{name}_depthwise_relu")
            y = _normalized(y, layers.Conv2D(out_channels, 1, name=f"{name}_project", use_bias=biased))
            x = layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and channels == out_channels else y
            channels = out_channels
            index += 1
    features = layers.Conv2D(1280, 1, name=f"{FEATURES}_convolution", use_bias=index < first)
    x = _activated(x, features, FEATURES)
    return keras.Model(inputs, x, name="mobilenet_v2")


def build_classifier(
    backbone: keras.Model,
    *,
    dropout: float,
    seed: int,
    sources: tuple[int, int] | None = None,
    trained_sources: tuple[int, int] | None = None,
) -> keras.Model:
    """Returns the network to train: (n, h, w, 3) uint8-valued RGB, 0 to 255 -> (n, 1) logit of being fake.

    The logit is the sum of two: that of a dense classifier on the pooled features, which is trained with the network,
    and the log odds of any kind of fake against real of a classifier of `CLASSES` on the layers of `LEVELS`, pooled by
    parts of the face (multi-level features, as in Hariharan et al., "Hypercolumns for Object Segmentation and
    Fine-grained Localization", CVPR 2015). The second is zero while the network is trained; `training.train.refit` fits
    it and silences the first.

    Args:
        backbone: What `build_backbone` returned.
        dropout: Before the first classifier.
        seed: Of its start values.
        sources: How many sources of genuine pictures and of fakes a third classifier tells apart, which sees what the
            second does and whose log odds are averaged with that one's; None: there is no third.
        trained_sources: How many of each the first classifier tells apart; None: it tells fake from real alone.
    """
    inputs = keras.Input((None, None, 3), name="picture")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="to_unit_range")(inputs)
    levels = keras.Model(backbone.input, [backbone.get_layer(name).output for name in LEVELS], name="levels")(x)
    pooled = layers.GlobalAveragePooling2D(name="pool")(levels[-1])
    dropped = layers.Dropout(dropout, seed=seed, name="dropout")(pooled)
    initializer = keras.initializers.GlorotUniform(seed=seed)
    units = sum(trained_sources) if trained_sources else 1
    logit = layers.Dense(units, kernel_initializer=initializer, name=CLASSIFIER)(dropped)
    if trained_sources:
        logit = FakeLogOdds(trained_sources[0], name=TRAINED_LOG_ODDS)(logit)
    by_parts = [PartPooling(stride)(each) for each, stride in zip(levels, _strides(), strict=True)]
    beside = layers.Concatenate(name=POOLED_LEVELS)(by_parts)
    counts = {KINDS_CLASSIFIER: (1, len(CLASSES) - 1)}
    if sources is not None:
        counts[SOURCES_CLASSIFIER] = sources
    fitted = []
    for name, (genuine, fakes) in counts.items():
        classes = layers.Dense(genuine + fakes, kernel_initializer="zeros", trainable=False, name=name)(beside)
        fitted.append(FakeLogOdds(genuine, name=name + _LOG_ODDS)(classes))
    odds = fitted[0] if len(fitted) == 1 else layers.Average(name="fitted")(fitted)
    return keras.Model(inputs, layers.Add(name="logit")([logit, odds]), name="detector")


def fitted_classifiers(model: keras.Model) -> list[tuple[keras.layers.Dense, "FakeLogOdds"]]:
    """Returns the classifiers of what `build_classifier` returned that `training.train.refit` fits, with their odds."""
    there = {each.name for each in model.layers}
    names = [name for name in (KINDS_CLASSIFIER, SOURCES_CLASSIFIER) if name in there]
    return [(model.get_layer(name), model.get_layer(name + _LOG_ODDS)) for name in names]


@keras.saving.register_keras_serializable("training")
class FakeLogOdds(layers.Layer):
    """From (n, classes) logits to (n, 1) log odds of all fakes against all genuine ones; 0 where all are the same.

    Args:
        genuine: How many of the classes, from the first on, are genuine.
    """

    def __init__(self, genuine: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.genuine = genuine

    def call(self, classes: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the log odds; see the class."""
        real = keras.ops.logsumexp(classes[:, : self.genuine], axis=1, keepdims=True)
        fake = keras.ops.logsumexp(classes[:, self.genuine :], axis=1, keepdims=True)
        return fake - real - math.log((classes.shape[1] - self.genuine) / self.genuine)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """Returns (n, 1)."""
        return input_shape[0], 1

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes."""
        return {**super().get_config(), "genuine": self.genuine}


@keras.saving.register_keras_serializable("training")
class PartPooling(layers.Layer):
    """Pools (n, h, w, c) by parts of the face to (n, parts * c): the means over the parts of `part_masks`, one by one.

    Args:
        stride: Pixels of the network's input to one position; finer ones than the features' are averaged to theirs.
    """

    def __init__(self, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the means; see the class."""
        x = averaged_to_features(x, self.stride)
        shape = keras.ops.shape(x)
        flat = keras.ops.reshape(x, (shape[0], shape[1] * shape[2], shape[3]))
        masks = part_masks(shape[1])
        masks = masks / keras.ops.sum(masks, axis=1, keepdims=True)
        return keras.ops.reshape(keras.ops.matmul(masks, flat), (shape[0], (len(_PARTS) + 1) * shape[3]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int | None]:
        """Returns (n, parts * c)."""
        channels = input_shape[-1]
        return input_shape[0], None if channels is None else (len(_PARTS) + 1) * channels

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes."""
        return {**super().get_config(), "stride": self.stride}


def averaged_to_features(x: keras.KerasTensor, stride: int) -> keras.KerasTensor:
    """Returns (n, h, w, c) of a layer with this stride at the positions of the features, by averages."""
    factor = _FEATURES_STRIDE // stride
    return keras.ops.average_pool(x, factor, factor) if factor > 1 else x


def part_masks(side: int) -> keras.KerasTensor:
    """Returns (parts, side * side) float32: how much of each position lies in each part; columns add up to 1."""
    masks = []
    for top, bottom, left, right in _PARTS:
        mask = keras.ops.reshape(_covered(side, top, bottom)[:, None] * _covered(side, left, right)[None], (-1,))
        masks.append(mask)
    masks.append(1.0 - sum(masks))
    return keras.ops.stack(masks)


def _covered(side: int, start: float, end: float) -> keras.KerasTensor:
    """Returns (side,) float32: how much of each of so many equal cells lies between start and end, 0 to 1."""
    cells = keras.ops.cast(keras.ops.arange(side), "float32")
    count = keras.ops.cast(side, "float32")
    return keras.ops.clip(keras.ops.minimum(cells + 1, end * count) - keras.ops.maximum(cells, start * count), 0.0, 1.0)


def _strides() -> list[int]:
    """Returns the stride of each of `LEVELS`."""
    strides, stride = [], 2
    for _expansion, _channels, repeats, first in _BLOCKS:
        stride *= first
        strides += [stride] * repeats
    return [*strides, stride]


def load_backbone_weights(backbone: keras.Model, weights_path: Path) -> None:
    """Copies ImageNet weights in Keras' own layout into the backbone, folding what has no layer there.

    Args:
        backbone: What `build_backbone` returned.
        weights_path: A `.weights.h5` of `keras.applications.MobileNetV2(include_top=False)`.
    """
    original = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None)
    original.load_weights(weights_path)
    copy_backbone_weights(original, backbone)


def copy_backbone_weights(source: keras.Model, target: keras.Model) -> None:
    """Has the target compute what the source computes; batch normalisation without a layer in the target is folded.

    Args:
        source: A backbone of `build_backbone`, or MobileNetV2 of keras.applications.
        target: What `build_backbone` returned, with no more normalisation than the source.
    """
    for theirs, own in zip(_units(source), _units(target), strict=True):
        convolution, norm = theirs
        if norm is None or own[1] is not None:
            own[0].set_weights(convolution.get_weights())
            if norm is not None and own[1] is not None:
                own[1].set_weights(norm.get_weights())
            continue
        gamma, beta, mean, variance = norm.get_weights()
        scale = gamma / np.sqrt(variance + norm.epsilon)
        per_channel = scale[:, None] if isinstance(convolution, layers.DepthwiseConv2D) else scale
        own[0].set_weights([convolution.get_weights()[0] * per_channel, beta - mean * scale])


def _units(backbone: keras.Model) -> list[tuple[keras.layers.Layer, keras.layers.BatchNormalization | None]]:
    """Returns each convolution with the batch normalisation behind it, if there is one, from the input on."""
    by_input = {id(layer.input): layer for layer in backbone.layers if isinstance(layer, layers.BatchNormalization)}
    convolutions = [layer for layer in backbone.layers if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)]
    return [(layer, by_input.get(id(layer.output))) for layer in convolutions]


def settle_statistics(model: keras.Model, backbone: keras.Model, inputs: Iterable[NDArray[np.uint8]]) -> None:
    """Has batch normalisation take its means and variances from these batches alone.

    Those that it kept in training are of the weights of each step; the weights that stay are an average (Izmailov et
    al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, section 3.2).

    Args:
        model: What `build_classifier` returned.
        backbone: Its backbone.
        inputs: (n, h, w, 3) uint8 RGB each.
    """
    norms = [layer for layer in backbone.layers if isinstance(layer, layers.BatchNormalization)]
    kept = [norm.momentum for norm in norms]
    for count, batch in enumerate(inputs):
        for norm in norms:
            norm.momentum = count / (count + 1)  # the mean of all so far
        model(batch, training=True)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def freeze_below(backbone: keras.Model, share: float) -> int:
    """Freezes the first `share` (0 to 1) of the backbone's layers and returns how many layers stay trainable."""
    first = round(len(backbone.layers) * share)
    for position, layer in enumerate(backbone.layers):
        layer.trainable = position >= first
    return len(backbone.layers) - first


def _activated(x: keras.KerasTensor, convolution: keras.layers.Layer, name: str) -> keras.KerasTensor:
    return layers.ReLU(6.0, name=name)(_normalized(x, convolution))


def _normalized(x: keras.KerasTensor, convolution: keras.layers.Layer) -> keras.KerasTensor:
    """Returns the convolution's output, behind batch normalisation where it has no bias."""
    x = convolution(x)
    if convolution.use_bias:
        return x
    return layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{convolution.name}_norm")(x)
