"""OMES: is a factor in one dimension, which holds no other? From pairs of rows that differ in one factor."""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.table import CodeTable, no_factor_varies, spread

LEAST_PAIRS = 3  # two pairs correlate perfectly, whatever they are


@register_metric(
    "omes",
    title="OMES: overlap and multiple encoding of factors, from pairs that differ in one factor",
    reference="Dapueto et al. 2024 (Transferring disentangled representations), as in the authors' code",
    low=0.0,
    high=1.0,
    needs=("factor",),
)
def omes(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    alpha: float = 0.5,
    max_pairs: int = 100_000,
    prune_threshold: float = 0.05,
) -> dict:
    """Return the mean over factors of α OS_k + (1 - α) MES_k.

    S_dk, the association of dimension d and factor k, is 1 - |ρ| of z_d in two rows that differ in factor k
    only, over the pairs of `pairs`: 0 if z_d does not change with the factor. With w_d = S_dk / Σ_d S_dk

        OS_k  = Σ_d w_d S_dk (1 - mean over factors j of |[j = k] - S_dj|)         (overlap),
        MES_k = Σ_d w_d S_dk (1 - mean over dimensions c of |[c = d] - S_ck|)      (multiple encoding).

    Both are 1 if exactly one dimension changes with factor k, so that S_dk = 1, and with no other factor. Two
    different values of n in a pair correlate by -1/(n - 1), so that S_dk is at most 1 - 1/(n - 1) for a
    factor of n values in a dimension: a factor of two values always has 0.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out. All rows are used.
    alpha : the weight of OS against MES.
    max_pairs : pairs of rows per factor, at most.
    prune_threshold : dimensions with a smaller standard deviation take no part, in units of the codes.

    Returns
    -------
    omes : in [0, 1]; 0 if no dimension takes part.
    omes_overlap, omes_multiple_encoding : means of OS_k and MES_k.
    omes_active_dimensions : how many dimensions take part.
    omes_per_factor : of every factor, None for one with a single value.
    omes_association : S, [D, K]; None for a dimension that takes no part.

    Raises
    ------
    DislabError : no factor varies, or hardly any rows differ in a factor only.
    """
    columns = np.flatnonzero(np.ptp(table.factors, axis=0))
    if not len(columns):
        raise no_factor_varies(f"{len(table)} rows")
    num_dims, num_factors = table.mean.shape[1], table.factors.shape[1]
    active = np.flatnonzero(table.mean.std(axis=0, dtype=np.float64) >= prune_threshold)
    association = np.empty((len(active), len(columns)))
    for number, k in enumerate(columns):
        one, other = pairs(table.factors, k, rng, max_pairs)
        if len(one) < LEAST_PAIRS:
            raise DislabError(
                f"it needs pairs of rows that differ in one factor only, and {table.names[k]} has {len(one)}"
            )
        association[:, number] = 1 - np.abs(correlations(table.mean[one], table.mean[other])[active])
    overlap, multiple = overlap_and_multiple_encoding(association)
    per_factor = alpha * overlap + (1 - alpha) * multiple
    whole = np.full((num_dims, num_factors), None)
    whole[np.ix_(active, columns)] = association
    return {
        "omes": per_factor.mean(),
        "omes_overlap": overlap.mean(),
        "omes_multiple_encoding": multiple.mean(),
        "omes_active_dimensions": len(active),
        "omes_per_factor": spread(per_factor, columns, num_factors),
        "omes_association": whole,
    }


def pairs(
    factors: np.ndarray, k: int, rng: np.random.Generator, max_pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of rows that differ in factor k and agree in all others, two arrays int64 [P].

    Rows that agree in the other factors are shuffled and paired one after the other; no row is in two pairs.
    """
    key, bound = np.zeros(len(factors), np.int64), 1  # keys are below the bound
    for column in np.delete(factors, k, axis=1).T:
        size = int(column.max()) + 1
        if bound * size > 2**63:  # a sort of all rows, which few tables need
            key = np.unique(key, return_inverse=True)[1]
            bound = int(key.max()) + 1
        key = key * size + column
        bound *= size
    order = rng.permutation(len(key))
    order = order[np.argsort(key[order], kind="stable")]
    key = key[order]
    number = np.arange(len(key))
    is_first = np.append(True, key[1:] != key[:-1])
    rank = number - np.maximum.accumulate(np.where(is_first, number, 0))  # among the rows that agree
    first = np.flatnonzero((rank[:-1] % 2 == 0) & (key[:-1] == key[1:]))
    one, other = order[first], order[first + 1]
    differ = np.flatnonzero(factors[one, k] != factors[other, k])
    chosen = rng.permutation(differ)[:max_pairs]
    return one[chosen], other[chosen]


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return ρ of every column of two arrays float [P, D], float64 [D]; 1 for a column that is constant."""
    one, other = (values - values.mean(axis=0, dtype=np.float64) for values in (one, other))
    lengths = np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
    products = (one * other).sum(axis=0)
    return np.divide(products, lengths, out=np.ones_like(lengths), where=lengths > 0).clip(-1, 1)


def overlap_and_multiple_encoding(association: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return OS and MES of every factor, float64 [V], of the association S [D, V] with values in [0, 1].

    Σ_j |[j = k] - S_dj| is Σ_j S_dj + 1 - 2 S_dk. A factor that no dimension changes with has 0.
    """
    num_dims, num_factors = association.shape
    total = association.sum(axis=0)
    scores = []
    for axis, number in ((1, num_factors), (0, num_dims)):
        distance = (association.sum(axis=axis, keepdims=True) + 1 - 2 * association) / max(number, 1)
        weighted = (association**2 * (1 - distance)).sum(axis=0)
        scores.append(np.divide(weighted, total, out=np.zeros_like(total), where=total > 0))
    return scores[0], scores[1]
