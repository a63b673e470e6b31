"""UDR, the unsupervised disentanglement ranking: do models of other seeds learn the same dimensions?

Duan et al. 2020, "Unsupervised Model Selection for Variational Disentangled Representation Learning"
(arXiv:1905.12614), eq. 2 and 3, and udr.py of disentanglement_lib. It needs no factors: a model is trusted if
the dimensions of other models of the same configuration match its own one to one.
"""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import numpy as np

from dislab.errors import DislabError

INFORMATIVE = 0.01  # nats: mean KL of a dimension to the prior, above which it says something of the image
LASSO_ALPHA = 0.1
Correlation = Literal["lasso", "spearman"]


def udr(
    codes: np.ndarray,
    kl: np.ndarray,
    correlation: Correlation = "lasso",
    normaliser: Literal["reference", "paper"] = "reference",
) -> np.ndarray:
    """Return the UDR of each of M models, in [0, 1]: the median over its comparisons with the other models.

    Parameters
    ----------
    codes : posterior means [M, n, D] of M >= 2 models on the same n images.
    kl : mean KL of each dimension to the prior [M, D], in nats. Dimensions of at most 0.01 are left out.
    correlation : strength of the relation between a dimension of one model and one of another: the size of a
        "lasso" coefficient (alpha 0.1; dimensions of one model predict one of the other), or of "spearman"'s
        rank correlation.
    normaliser : "reference" averages the two sides of a comparison, as disentanglement_lib does; "paper"
        divides the sum of both by the number of informative dimensions of both (eq. 2). They are equal if
        both models have as many.

    Returns
    -------
    The scores [M]. A model without informative dimensions has 0, where disentanglement_lib raises an error.

    Raises
    ------
    DislabError : there are fewer than two models, or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from dislab.scoring.udr import udr
    >>> codes = np.random.default_rng(0).normal(size=(1, 500, 4)).repeat(3, axis=0)  # three equal models
    >>> udr(codes, np.ones((3, 4)), "spearman").min() > 0.9
    True
    """
    codes, kl = np.asarray(codes, dtype=np.float64), np.asarray(kl, dtype=np.float64)
    if codes.ndim != 3 or len(codes) < 2 or kl.shape != (codes.shape[0], codes.shape[2]):
        raise DislabError(
            "UDR compares two models or more: codes [M, n, D] and KL [M, D], "
            f"not {codes.shape} and {kl.shape}"
        )
    pairwise = pairs(relations(codes, kl, correlation), kl, normaliser)
    np.fill_diagonal(pairwise, np.nan)
    return np.nanmedian(pairwise, axis=0)


def relations(codes: np.ndarray, kl: np.ndarray, correlation: Correlation = "lasso") -> np.ndarray:
    """Return how strongly dimensions of model i relate to those of model j, [M, M, D, D].

    Codes are standardised, and dimensions that are not informative are set to zero. A model is not compared
    with itself: there the relations are 0. See `udr`.
    """
    spread = codes.std(axis=1, keepdims=True)
    shown = (codes - codes.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    shown = shown * (kl > INFORMATIVE)[:, None, :]
    if correlation == "spearman":
        related = _rank_correlations(shown)
    else:
        related = np.array([[_lasso(one, other) for other in shown] for one in shown])
    related[np.diag_indices(len(codes))] = 0
    return related


def _rank_correlations(codes: np.ndarray) -> np.ndarray:
    """Return |Spearman's correlation| of all dimensions, NaN for constant ones."""
    from scipy.stats import rankdata

    ranks = rankdata(codes, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=1))
    products = np.einsum("ind,jne->ijde", ranks, ranks, optimize=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(products / (norms[:, None, :, None] * norms[None, :, None, :]))


def _lasso(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the |coefficients| [D, D] of the Lasso that predicts `other` from `one`."""
    from sklearn.linear_model import Lasso

    return np.abs(np.atleast_2d(Lasso(alpha=LASSO_ALPHA).fit(one, other).coef_).T)


def pairs(relations: np.ndarray, kl: np.ndarray, normaliser: str = "reference") -> np.ndarray:
    """Return the UDR of each pair of models [M, M]; entry (i, j) predicts model j from model i. See `udr`.

    Parameters
    ----------
    relations : [M, M, D, D], see the function of this name.
    kl, normaliser : see `udr`.
    """
    used = kl > INFORMATIVE
    scores = np.zeros(relations.shape[:2])
    for i, j in permutations(range(len(kl)), 2):
        related = relations[i, j][np.ix_(used[i], used[j])]
        if related.size:
            columns, rows = _one_to_one(related, axis=0), _one_to_one(related, axis=1)
            if normaliser == "paper":
                scores[i, j] = (columns.sum() + rows.sum()) / sum(related.shape)
            else:
                scores[i, j] = (columns.mean() + rows.mean()) / 2
    return scores


def _one_to_one(related: np.ndarray, axis: int) -> np.ndarray:
    """Return max² / sum along an axis: the strongest relation, times its share of all; 0 where all are 0."""
    sums = related.sum(axis=axis)
    return related.max(axis=axis) ** 2 / np.where(sums > 0, sums, 1)
