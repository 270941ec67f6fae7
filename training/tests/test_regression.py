from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from training import regression
from training.regression import ANY_FAKE, fit_kinds


def test_it_finds_what_scikit_learn_finds() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.integers(3, size=300)
    features = (rng.normal(size=(300, 20)) + 0.5 * kinds[:, None] * rng.normal(size=20)).astype(np.float32)
    weights = rng.uniform(0.5, 2.0, 300)

    kernel, bias = fit_kinds(features, kinds, weights, class_count=3, inverse_penalty=0.1)

    reference = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(features, kinds, sample_weight=weights)
    assert np.abs(kernel - reference.coef_.T).max() < 2e-3
    # Only differences of the biases count.
    assert np.abs((bias - bias[0]) - (reference.intercept_ - reference.intercept_[0])).max() < 1e-2


def test_a_class_that_does_not_occur_is_unlikely() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.integers(2, size=200)
    features = rng.normal(size=(200, 5)).astype(np.float32)

    kernel, bias = fit_kinds(features, kinds, np.ones(200), class_count=3, inverse_penalty=1.0)

    logits = features @ kernel + bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert shares[:, 2].max() < 0.01


def test_a_fake_of_unknown_kind_counts_as_one_of_any_kind() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.integers(3, size=600)
    # Class 1 stands out along one axis, class 2 along another.
    features = rng.normal(size=(600, 4)).astype(np.float32)
    features[kinds == 1, 0] += 3.0
    features[kinds == 2, 1] += 3.0
    told = np.where((kinds > 0) & (np.arange(600) % 2 == 0), ANY_FAKE, kinds)
    options: dict[str, Any] = {"class_count": 3, "inverse_penalty": 1.0}

    of_all = fit_kinds(features, kinds, np.ones(600), **options)
    of_told = fit_kinds(features, told, np.ones(600), **options)
    dropped = told != ANY_FAKE
    of_rest = fit_kinds(features[dropped], kinds[dropped], np.ones(int(dropped.sum())), **options)

    def share_called_fake(fit: tuple[NDArray[np.float64], NDArray[np.float64]]) -> float:
        logits = features @ fit[0] + fit[1]
        return float((np.logaddexp(logits[:, 1], logits[:, 2]) > logits[:, 0]).mean())

    assert abs(share_called_fake(of_told) - share_called_fake(of_all)) < 0.02
    # Left out, they would make fakes look rarer than they are.
    assert share_called_fake(of_rest) < share_called_fake(of_told) - 0.01


def test_the_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    kinds = np.array([0, 1, 2, ANY_FAKE, ANY_FAKE, 0, 1, 2])
    features = rng.normal(size=(8, 3)).astype(np.float32)
    losses = []

    def keep(loss: Any, start: NDArray[np.float64], **_options: Any) -> Any:
        losses.append(loss)
        return SimpleNamespace(x=start)

    monkeypatch.setattr(regression, "minimize", keep)
    fit_kinds(features, kinds, rng.uniform(0.5, 2.0, 8), class_count=3, inverse_penalty=1.0)
    at = rng.normal(size=12)
    found = losses[0](at)[1]
    step = 1e-2
    for place in range(12):
        ahead, behind = at.copy(), at.copy()
        ahead[place] += step
        behind[place] -= step
        assert found[place] == pytest.approx((losses[0](ahead)[0] - losses[0](behind)[0]) / (2 * step), abs=2e-2)
