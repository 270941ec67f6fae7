"""Logits to probabilities that mean something, for a stated share of fakes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from detector.predictor import DecisionRule
from training.metrics import prior_weights

# The prior is chosen, not measured: nobody knows the share of fakes among uploads. It is the largest one, at most a
# half, at which this share of validation reals is called Real.
REAL_ACC_TARGET = 0.95
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


def is_between(logits: NDArray[np.float64], edges: tuple[float, float]) -> NDArray[np.bool_]:
    """Returns (n,) whether each logit lies between the edges."""
    return (logits > edges[0]) & (logits < edges[1])


def joined(
    first: NDArray[np.float64], *others: NDArray[np.float64], between: tuple[float, float]
) -> NDArray[np.float64]:
    """Returns (n,) logits of networks of which the others are asked where the first's lies between these two.

    There it is the mean of all, as `detector.predictor.SeveralNetworks` has it for calibrated ones.
    """
    return np.where(is_between(first, between), np.mean([first, *others], axis=0), first)


# Outside the band of uncertainty at most this share of the answers "Real" and of the answers "Fake" may be wrong on
# pictures as they are. One in twenty is what is promised: where a picture was compressed, reduced or blurred on its way
# more are wrong (the delivery table of the model card).
BAND_ERROR = 0.03
PROMISED_ERROR = 0.05


def fit_band(
    fake_probability: NDArray[np.float64], y_true: NDArray[np.int_], *, rule: DecisionRule
) -> tuple[float, float]:
    """Returns (low, high) in real_probability: the narrowest band outside which each answer is right often enough.

    Both classes weigh the same here, whatever the prior: who checks pictures checks suspicious ones, and an answer that
    is right only because fakes are assumed to be rare is none. The other way round, the prior makes some Fakes more
    likely real than fake that would pass here: the band reaches down to the rule's own edge at least.

    Args:
        fake_probability: (n,) calibrated scores of the validation split.
        y_true: (n,) labels, FAKE = 1.
        rule: The band holds its threshold, and what it calls an uncertain Fake.
    """
    real_probability = 1 - fake_probability
    called_fake = real_probability <= rule.real_threshold
    low = 1 - _edge(fake_probability[called_fake], y_true[called_fake], y_true, right=1)
    high = _edge(real_probability[~called_fake], y_true[~called_fake], y_true, right=0)
    # Rounded away from the answers, to figures that can be said.
    return float(np.floor(min(low, rule.uncertain_above) * 1000) / 1000), float(np.ceil(high * 1000) / 1000)


def _edge(score: NDArray[np.float64], labels: NDArray[np.int_], y_true: NDArray[np.int_], *, right: int) -> float:
    """Returns the lowest score from which on at most BAND_ERROR of the answers is wrong; 1.0 where there is none."""
    order = np.argsort(-score, kind="stable")
    is_right = labels[order] == right
    hits = np.cumsum(is_right) / np.sum(y_true == right)
    misses = np.cumsum(~is_right) / np.sum(y_true != right)
    good = np.flatnonzero(misses <= BAND_ERROR * (hits + misses))
    return float(score[order][good[-1]]) if len(good) else 1.0
