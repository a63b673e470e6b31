"""Multinomial logistic regression by L-BFGS, as in scikit-learn."""

from __future__ import annotations

import numpy as np

CELLS = 60_000  # rows times classes that are worked on together: half a MB in float64
LEAST_ROWS = 64  # and at least so many rows: with 10,000 classes, six at a time take twice as long


def logistic_regression(
    inputs: np.ndarray, classes: np.ndarray, *, penalty: float = 1.0, balanced: bool = False
) -> np.ndarray:
    """Return weights float64 [D + 1, C]: logits are inputs @ weights[:-1] + weights[-1].

    They are those of scikit-learn's LogisticRegression: at most 100 iterations of L-BFGS from zeros, which
    are often too few to converge, on Σ_i s_i (-ln p_i(class i)) + penalty / 2 ‖weights[:-1]‖². Of two classes
    only the second has weights. Scikit-learn takes about twice as long, and 2 GB for thousands of
    classes.

    Parameters
    ----------
    inputs : float [N, D]; sums over rows and classes are float64, all else is in the type of the inputs.
    classes : int [N], 0 .. C - 1.
    balanced : s_i is N / (C N_c) in a class of N_c rows, instead of 1.
    """
    import torch
    from scipy.optimize import minimize

    counts = np.bincount(classes)
    num_rows, num_classes = len(inputs), len(counts)
    shares = (1 / (num_classes * counts) if balanced else np.full(num_classes, 1 / num_rows))[classes]
    shares = shares.astype(inputs.dtype)
    columns = np.vstack([inputs.T, np.ones(num_rows, inputs.dtype)])  # sums over classes are faster like that
    penalties = np.append(np.full(inputs.shape[1], penalty / num_rows), 0)[:, None]
    weights = np.zeros((len(columns), num_classes))
    fitted = weights[:, 1:] if num_classes == 2 else weights
    size = max(LEAST_ROWS, CELLS // num_classes)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        fitted[:] = flat.reshape(fitted.shape)
        rounded = weights.T.astype(inputs.dtype)
        loss, gradient = 0.5 * (penalties * weights**2).sum(), penalties * weights
        for start in range(0, num_rows, size):
            rows = slice(start, start + size)
            logits = rounded @ columns[:, rows]
            logits -= logits.max(axis=0)
            own = classes[rows] * logits.shape[1] + np.arange(logits.shape[1])
            own_logits = logits.take(own)
            torch.from_numpy(logits).exp_()  # in half the time of numpy's
            total = logits.sum(axis=0)
            loss += (shares[rows] * (np.log(total) - own_logits)).sum(dtype=np.float64)
            logits /= total
            logits.ravel()[own] -= 1
            logits *= shares[rows]
            gradient += columns[:, rows] @ logits.T
        return loss, gradient[:, -fitted.shape[1] :].ravel()

    options = {"maxiter": 100, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(np.float64).eps}
    best = minimize(loss_and_gradient, np.zeros(fitted.size), jac=True, method="L-BFGS-B", options=options)
    fitted[:] = best.x.reshape(fitted.shape)
    return weights


def class_logits(inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the logits [B, C] of the classes, of inputs [B, D], by weights of `logistic_regression`."""
    return inputs @ weights[:-1] + weights[-1]


def log_losses(inputs: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return -ln p(class) of every row [N], of inputs [N, D], by weights of `logistic_regression`."""
    from scipy.special import logsumexp

    losses = np.empty(len(inputs))
    size = max(LEAST_ROWS, CELLS // weights.shape[1])
    for start in range(0, len(inputs), size):
        rows = slice(start, start + size)
        logits = class_logits(inputs[rows], weights)
        losses[rows] = logsumexp(logits, axis=1) - logits[np.arange(len(logits)), classes[rows]]
    return losses
