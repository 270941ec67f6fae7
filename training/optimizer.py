"""Learning rates that rise with the depth of the layer."""

from collections.abc import Sequence
from typing import Any

import keras


class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW with a factor to the learning rate of each variable.

    To scale the gradients instead would change nothing: Adam divides by their size. Weight decay stays that of AdamW.
    """

    def __init__(self, *arguments: Any, factors: Sequence[float], **options: Any) -> None:
        """Takes the factors in the order of the variables that the optimizer will be built for, and AdamW's own."""
        super().__init__(*arguments, **options)
        self._factors = tuple(factors)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Makes AdamW's step at the variable's own rate."""
        super().update_step(gradient, variable, learning_rate * self._factors[self._get_variable_index(variable)])


def rate_factors(model: keras.Model, backbone: keras.Model, *, lowest: float) -> list[float]:
    """Returns a factor for each of the model's trainable variables: `lowest` at the input, 1.0 behind the backbone.

    Args:
        model: What `build_classifier` returned.
        backbone: Its backbone; layers that are frozen count for the depth.
        lowest: Above 0, and at most 1.0, which gives all the same.
    """
    layers = [layer for layer in backbone.layers if layer.weights]
    factors = {
        id(variable): lowest ** (1 - position / (len(layers) - 1))
        for position, layer in enumerate(layers)
        for variable in layer.trainable_variables
    }
    return [factors.get(id(variable), 1.0) for variable in model.trainable_variables]
