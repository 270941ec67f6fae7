"""Multinomial logistic regression on more data than can be copied."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

# The kind of a fake of which no more is known; it may be any class but the first.
ANY_FAKE = -1


def fit_kinds(
    features: NDArray[np.float32],
    kinds: NDArray[np.int_],
    weights: NDArray[np.float64],
    *,
    class_count: int,
    inverse_penalty: float,
    start: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    max_iterations: int = 150,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns kernel (channels, classes) and bias (classes,), with the least penalised cross-entropy, by L-BFGS.

    What `sklearn.linear_model.LogisticRegression` minimises, half the kernel's squares plus inverse_penalty times the
    weighted losses. That one takes float64 steps, for which NumPy copies the features to float64 twice a step: for
    28,206 x 25,248 that is 5.6 GB more and several times the time.

    Args:
        features: (n, channels), standardised.
        kinds: (n,) class of each, 0 to class_count - 1, or `ANY_FAKE`: any class but 0. One that does not occur gets a
            low bias.
        weights: (n,) how much each counts; 0 leaves it out.
        class_count: How many classes there are.
        inverse_penalty: Inverse strength of the L2 penalty.
        start: Kernel and bias to begin at; None begins at zero.
        max_iterations: Steps after which it is good enough.
    """
    known, unknown = np.flatnonzero(kinds != ANY_FAKE), np.flatnonzero(kinds == ANY_FAKE)
    scale = (weights * inverse_penalty).astype(np.float32)
    shape = (features.shape[1] + 1, class_count)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        both = parameters.reshape(shape)
        kernel = both[:-1].astype(np.float32)
        logits = features @ kernel + both[-1].astype(np.float32)
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        totals = shares.sum(axis=1, keepdims=True)
        shares /= totals
        right = np.empty(len(kinds), np.float32)
        right[known] = shares[known, kinds[known]]
        right[unknown] = shares[unknown, 1:].sum(axis=1)
        right = np.maximum(right, np.finfo(np.float32).tiny)
        losses = -np.log(right)
        shares[known, kinds[known]] -= 1.0
        shares[unknown, 1:] *= 1.0 - 1.0 / right[unknown, None]
        shares *= scale[:, None]
        gradient = np.concatenate([features.T @ shares + kernel, shares.sum(axis=0, keepdims=True)])
        value = float(np.dot(scale, losses)) + 0.5 * float((both[:-1] ** 2).sum())
        return value, gradient.astype(np.float64).ravel()

    options = {"maxiter": max_iterations, "maxcor": 6}
    begin = np.zeros(shape) if start is None else np.concatenate([start[0], start[1][None]])
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
    both = found.x.reshape(shape)
    return both[:-1], both[-1]
