"""Plug-in estimates of entropy and mutual information between binned codes and factors, in nats."""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError

CELLS = 200_000  # of the contingency tables and of the codes that are counted together: 1.6 MB per array


def histogram_bins(codes: np.ndarray, num_bins: int = 20) -> np.ndarray:
    """Return the bin 0 .. num_bins - 1 of every code, int64 [N, D].

    Bins are equally wide, from each dimension's minimum to its maximum. A bin holds its left edge; the last
    one holds the maximum too. A constant dimension falls into one bin.
    Edges are computed in the dtype of the codes, as `numpy.histogram` and with it disentanglement_lib does.
    DislabError is raised if num_bins is below 2.
    """
    if num_bins < 2:
        raise DislabError(f"num_bins is {num_bins}: it must be 2 or more")
    bins = np.zeros(codes.shape, dtype=np.int64, order="F")
    for d, column in enumerate(codes.T):
        low, high = column.min(), column.max()
        if low < high:
            if max(-low, high) > 1e38:  # in float32 high - low would overflow; a quarter is exact
                column, low, high = column / 4, low / 4, high / 4
            edges = np.linspace(low, high, num_bins + 1, dtype=np.result_type(column, 0.0))
            bins[:, d] = np.searchsorted(edges[1:-1], column, side="right")
    return bins


def entropy(values: np.ndarray) -> np.ndarray:
    """Return -Σ_a p_a ln p_a with p = counts / N of every column of int [N, K], float64 [K] in nats."""
    shares = [np.unique(column, return_counts=True)[1] / len(column) for column in values.T]
    return np.array([-(share * np.log(share)).sum() for share in shares])


def mutual_information(bins: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mutual information of every column of bins [N, D] and of values [N, K], float64 [D, K].

    I = Σ_ab p_ab ln(p_ab / (p_a p_b)) in nats, from the contingency table of counts / N. Its bias of about
    (bins - 1)(values - 1) / 2N is not corrected. Rounding below zero is clipped, as in scikit-learn's
    `mutual_info_score`. Bins are not negative, as `histogram_bins` gives them.
    """
    num_points, num_dims = bins.shape
    num_bins = int(bins.max()) + 1
    information = np.empty((num_dims, values.shape[1]))
    for k, column in enumerate(values.T):
        distinct, value = np.unique(column, return_inverse=True)
        cells = num_bins * len(distinct)  # of one dimension
        for some in np.array_split(np.arange(num_dims), -(-num_dims * max(cells, num_points) // CELLS)):
            # Every dimension has its own part of one contingency table.
            keys = bins.T[some] * len(distinct) + value
            keys += cells * np.arange(len(some))[:, None]
            counts = np.bincount(keys.ravel(), minlength=cells * len(some))
            joint = counts.reshape(len(some), num_bins, len(distinct)) / num_points
            product = joint.sum(axis=2, keepdims=True) * joint.sum(axis=1, keepdims=True)
            ratio = np.divide(joint, product, out=np.ones_like(joint), where=joint > 0)
            information[some, k] = (joint * np.log(ratio)).sum(axis=(1, 2))
    return information.clip(min=0)


def information_of_pairs(bins: np.ndarray) -> np.ndarray:
    """Return the mutual information of every two columns of bins [N, D], [D (D - 1) / 2] in nats."""
    pairs = [mutual_information(bins[:, :d], bins[:, d : d + 1]) for d in range(1, bins.shape[1])]
    return np.concatenate([*pairs, np.empty((0, 1))])[:, 0]


def gaps(values: np.ndarray) -> np.ndarray:
    """Return the largest less the second largest value of every column, [K], of values >= 0 [D, K].

    With a single row the second largest is 0.
    """
    ranked = np.sort(np.vstack([np.zeros_like(values[:1]), values]), axis=0)
    return ranked[-1] - ranked[-2]
