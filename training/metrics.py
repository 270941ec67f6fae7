"""The one set of figures that training, reports and CI use."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from detector.model_cards import FIGURES
from detector.predictor import DecisionRule
from detector.quality import wilson

METRICS = (*FIGURES, "real_error", "fake_error")
_BINS = 15
# Shares of pictures, and of which classes.
_SHARES = {"acc": (0, 1), "real_acc": (0,), "fake_acc": (1,)}


def evaluate(
    y_true: NDArray[np.int_],
    y_score: NDArray[np.float64],
    *,
    rule: DecisionRule,
    prior: float = 0.5,
    undecided: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Returns `METRICS`; without an error of answers that were not given.

    Args:
        y_true: (n,) labels, FAKE = 1.
        y_score: (n,) fake_probability, 0 to 1.
        rule: Gives acc (share of right verdicts), real_acc (reals called Real), fake_acc (fakes called Fake), decided
            (share outside the band of uncertainty), decided_error (share of wrong verdicts among those), real_error
            and fake_error (likewise among the decided Reals and the decided Fakes); for the last four both classes
            weigh the same.
        prior: Share of fakes among uploads to which ece is weighted.
        undecided: (n,) what is uncertain wherever its score lies; None where nothing is.

    Raises:
        ValueError: One class only, or a score outside 0 to 1.
    """
    if set(np.unique(y_true)) != {0, 1}:
        raise ValueError("Both classes are needed; use `class_figures` for a source of one class.")
    fpr, tpr, _thresholds = roc_curve(y_true, y_score, drop_intermediate=False)
    crossing = int(np.argmin(np.abs(fpr - (1 - tpr))))
    called_fake = calls_fake(y_score, rule)
    return {
        "auc": float(roc_auc_score(y_true, y_score)),
        "ap": float(average_precision_score(y_true, y_score)),
        "eer": float((fpr[crossing] + 1 - tpr[crossing]) / 2),
        "acc": float(np.mean(called_fake == (y_true == 1))),
        "real_acc": float(np.mean(~called_fake[y_true == 0])),
        "fake_acc": float(np.mean(called_fake[y_true == 1])),
        "ece": expected_calibration_error(y_true, y_score, prior=prior),
        **_decided_figures(y_true, y_score, rule, undecided),
    }


def class_figures(
    y_true: NDArray[np.int_],
    y_score: NDArray[np.float64],
    *,
    rule: DecisionRule,
    undecided: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Returns what one class alone can tell: acc, decided, decided_error, and real_acc or fake_acc.

    Args:
        y_true: (n,) labels, FAKE = 1.
        y_score: (n,) fake_probability, 0 to 1.
        rule: As for `evaluate`.
        undecided: As for `evaluate`.

    Raises:
        ValueError: No picture at all.
    """
    if len(y_true) == 0:
        raise ValueError("There is nothing to evaluate.")
    called_fake = calls_fake(y_score, rule)
    figures = {"acc": float(np.mean(called_fake == (y_true == 1)))}
    of_decided = _decided_figures(y_true, y_score, rule, undecided)
    figures |= {name: value for name, value in of_decided.items() if name.startswith("decided")}
    for name, label in (("real_acc", 0), ("fake_acc", 1)):
        chosen = y_true == label
        if chosen.any():
            figures[name] = float(np.mean(called_fake[chosen] == bool(label)))
    return figures


def calls_fake(y_score: NDArray[np.float64], rule: DecisionRule) -> NDArray[np.bool_]:
    """Returns (n,) whether the rule says Fake."""
    return ~((1.0 - y_score) > rule.real_threshold)


def _decided_figures(
    y_true: NDArray[np.int_], y_score: NDArray[np.float64], rule: DecisionRule, undecided: NDArray[np.bool_] | None
) -> dict[str, float]:
    called_fake = calls_fake(y_score, rule)
    real_score = 1.0 - y_score
    decided = np.where(called_fake, real_score <= rule.uncertain_above, real_score > rule.uncertain_up_to)
    if undecided is not None:
        decided &= ~undecided
    weights = prior_weights(y_true, 0.5)
    is_wrong = called_fake != (y_true == 1)
    figures = {"decided": float(weights[decided].sum())}
    answers = {"decided_error": decided, "real_error": decided & ~called_fake, "fake_error": decided & called_fake}
    for name, given in answers.items():
        if (share := float(weights[given].sum())) > 0:
            figures[name] = float(weights[given & is_wrong].sum()) / share
    return figures


def expected_calibration_error(y_true: NDArray[np.int_], y_score: NDArray[np.float64], *, prior: float = 0.5) -> float:
    """Returns the expected calibration error over 15 equal bins (Guo et al., ICML 2017), weighted to the prior.

    Raises:
        ValueError: A score outside 0 to 1.
    """
    return float(
        sum(
            weight * abs(share - mean)
            for weight, mean, share in reliability(y_true, y_score, prior=prior)
            if weight > 0
        )
    )


def roc_points(
    y_true: NDArray[np.int_], y_score: NDArray[np.float64], *, count: int = 101
) -> list[tuple[float, float]]:
    """Returns `count` points (fpr, tpr) of the ROC curve at evenly spaced fpr, for drawing.

    Raises:
        ValueError: One class only.
    """
    if set(np.unique(y_true)) != {0, 1}:
        raise ValueError("A ROC curve needs both classes.")
    fpr, tpr, _thresholds = roc_curve(y_true, y_score)
    grid = np.linspace(0, 1, count)
    return list(zip(grid.tolist(), np.interp(grid, fpr, tpr).tolist(), strict=True))


def reliability(
    y_true: NDArray[np.int_], y_score: NDArray[np.float64], *, prior: float = 0.5
) -> list[tuple[float, float, float]]:
    """Returns (weight, mean score, share of fakes) of each of 15 equal bins, weighted so that `prior` are fakes.

    Raises:
        ValueError: A score outside 0 to 1.
    """
    if len(y_score) and (y_score.min() < 0 or y_score.max() > 1):
        raise ValueError(f"Scores run from {y_score.min()} to {y_score.max()}; they must lie in 0 to 1.")
    weights = prior_weights(y_true, prior)
    bins = np.minimum((y_score * _BINS).astype(int), _BINS - 1)
    rows = []
    for index in range(_BINS):
        chosen = bins == index
        weight = float(weights[chosen].sum())
        mean = float(np.average(y_score[chosen], weights=weights[chosen])) if weight else (index + 0.5) / _BINS
        share = float(np.average(y_true[chosen], weights=weights[chosen])) if weight else 0.0
        rows.append((weight, mean, share))
    return rows


def prior_weights(y_true: NDArray[np.int_], prior: float) -> NDArray[np.float64]:
    """Returns (n,) weights that sum to 1, with `prior` of it on fakes; plain shares where only one class is there."""
    fakes = int(np.sum(y_true == 1))
    reals = len(y_true) - fakes
    if fakes == 0 or reals == 0:
        return np.full(len(y_true), 1 / max(1, len(y_true)))
    return np.where(y_true == 1, prior / fakes, (1 - prior) / reals)


def intervals(
    y_true: NDArray[np.int_],
    y_score: NDArray[np.float64],
    groups: Sequence[str],
    *,
    rule: DecisionRule,
    prior: float,
    undecided: NDArray[np.bool_] | None = None,
    repeats: int = 400,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns `<metric>_ci`: [low, high], 95 % bootstrap intervals over whole groups.

    Pictures of one group (frames of a video, one identity) are no independent evidence, so groups are drawn. Where all
    draws agree, as they do on a share of 0 or 1, they say nothing: such a share gets Wilson's interval (JASA 1927) for
    as many independent pictures as there are groups, another figure none. The calibration error gets none either: draws
    of a sample are further off than the sample.

    Args:
        y_true: (n,) labels, FAKE = 1.
        y_score: (n,) fake_probability.
        groups: (n,) group of each picture.
        rule: The decision rule.
        prior: Share of fakes for the calibration error.
        undecided: As for `evaluate`.
        repeats: Bootstrap draws.
        seed: Seeds the draws.
    """
    rng = np.random.default_rng(seed)
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    rows_of_group = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    draws: dict[str, list[float]] = {}
    for _ in range(repeats):
        rows = np.concatenate([rows_of_group[index] for index in rng.integers(len(names), size=len(names))])
        small = None if undecided is None else undecided[rows]
        figures = _available_figures(y_true[rows], y_score[rows], rule=rule, prior=prior, undecided=small)
        for name, value in figures.items():
            draws.setdefault(name, []).append(value)
    found = {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in draws.items() if name != "ece"}
    bounds = {}
    for name, (low, high) in found.items():
        if high - low > 1e-9:
            bounds[f"{name}_ci"] = [low, high]
        elif name in _SHARES:
            counted = np.isin(y_true, _SHARES[name])
            bounds[f"{name}_ci"] = list(wilson(low, len(set(members[counted].tolist()))))
    return bounds


def table_row(
    y_true: NDArray[np.int_],
    y_score: NDArray[np.float64],
    groups: Sequence[str],
    *,
    rule: DecisionRule,
    prior: float,
    undecided: NDArray[np.bool_] | None = None,
    repeats: int = 400,
) -> dict[str, Any]:
    """Returns n, n_real, n_fake, n_groups and every metric with its interval; None where one class can't give it."""
    row: dict[str, Any] = {
        "n": len(y_true),
        "n_real": int(np.sum(y_true == 0)),
        "n_fake": int(np.sum(y_true == 1)),
        "n_groups": len(set(groups)),
    }
    figures = _available_figures(y_true, y_score, rule=rule, prior=prior, undecided=undecided)
    row.update({name: figures.get(name) for name in METRICS})
    row.update(intervals(y_true, y_score, groups, rule=rule, prior=prior, undecided=undecided, repeats=repeats))
    return row


def _available_figures(
    y_true: NDArray[np.int_],
    y_score: NDArray[np.float64],
    *,
    rule: DecisionRule,
    prior: float,
    undecided: NDArray[np.bool_] | None,
) -> dict[str, float]:
    if len(np.unique(y_true)) == 2:
        return evaluate(y_true, y_score, rule=rule, prior=prior, undecided=undecided)
    return class_figures(y_true, y_score, rule=rule, undecided=undecided)
