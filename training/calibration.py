"""Logits to probabilities that mean something, for a stated share of fakes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from detector.predictor import DecisionRule
from training.metrics import prior_weights

# The prior is chosen, not measured: nobody knows the share of fakes among uploads. It is the largest one, at most a
# half, at which this share of validation reals is called Real.
REAL_ACC_TARGET = 0.96
_PRIORS = (0.05, 0.5)


@dataclass(frozen=True, slots=True)
class Calibration:
    """logit of fake_probability = network logit / temperature + bias, for uploads of which `prior` are fakes."""

    temperature: float
    bias: float
    prior: float

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns (n,) fake_probability for (n,) network logits."""
        return 1 / (1 + np.exp(-(logits / self.temperature + self.bias)))


def fit(logits: NDArray[np.float64], y_true: NDArray[np.int_], *, rule: DecisionRule) -> Calibration:
    """Returns temperature and bias (Platt scaling) and the prior that keeps `REAL_ACC_TARGET` of the reals.

    Args:
        logits: (n,) network logits of the validation split.
        y_true: (n,) labels, FAKE = 1.
        rule: The decision rule that the prior has to suit.

    Raises:
        ValueError: One class only, or logits that do not rise with fakeness.
    """
    if set(np.unique(y_true)) != {0, 1}:
        raise ValueError("Calibration needs pictures of both classes.")
    regression = LogisticRegression(C=1e6)
    regression.fit(logits[:, None], y_true, sample_weight=prior_weights(y_true, 0.5) * len(y_true))
    slope, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    if slope <= 0:
        raise ValueError("The network's logits do not rise with fakeness: it has learnt nothing.")
    at_half = slope * logits[y_true == 0] + intercept
    limit = np.log((1 - rule.real_threshold) / rule.real_threshold)
    shift = limit - np.quantile(at_half, REAL_ACC_TARGET)
    prior = float(np.clip(1 / (1 + np.exp(-shift)), *_PRIORS))
    # Rounded down to a figure that can be said.
    prior = max(_PRIORS[0], np.floor(prior * 100) / 100)
    return Calibration(1 / slope, intercept + float(np.log(prior / (1 - prior))), float(prior))
