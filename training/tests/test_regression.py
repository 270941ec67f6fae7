import numpy as np
from sklearn.linear_model import LogisticRegression

from training.regression import fit_kinds


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
