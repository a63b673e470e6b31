"""Are the code dimensions correlated with each other? Scores that need no factors."""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.information import histogram_bins, mutual_information
from dislab.scoring.table import CodeTable

REFERENCE = "Locatello et al. 2019 (the scores that need no factors)"


@register_metric(
    "gaussian_total_correlation",
    title="Total correlation of a Normal fitted to the codes, nats",
    reference=REFERENCE,
    low=0.0,
    direction="down",
)
@register_metric(
    "gaussian_wasserstein_correlation",
    title="Squared Wasserstein distance of a fitted Normal from its independent one",
    reference=REFERENCE,
    low=0.0,
    direction="down",
)
@register_metric(
    "gaussian_wasserstein_correlation_norm",
    title="Wasserstein correlation as a share of the codes' total variance",
    reference=REFERENCE,
    low=0.0,
    high=2.0,
    direction="down",
)
@register_metric(
    "mutual_info_score",
    title="Mean mutual information of two code dimensions (20 histogram bins), nats",
    group="gaussian_correlation",
    reference=REFERENCE,
    low=0.0,
    direction="down",
)
def gaussian_correlation(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_bins: int = 20
) -> dict:
    """Return how far the code dimensions are from independent, with C their covariance (divisor N - 1).

    - gaussian_total_correlation = ( Σ_d ln C_dd - ln det C ) / 2, that is -Σ_i ln λ_i / 2 with the
      eigenvalues λ of the correlation matrix. It is infinite if a dimension is a linear function of others.
      Codes are float32, so that no eigenvalue is known below float32's resolution 1.2e-7: smaller ones are
      raised to that, and every such dimension adds up to 8.0 nats.
    - gaussian_wasserstein_correlation W = 2 tr C - 2 tr (B^1/2 C B^1/2)^1/2 with B the diagonal of C, and
      gaussian_wasserstein_correlation_norm = W / tr C.
    - mutual_info_score = mean over the D² - D ordered pairs of the mutual information of binned codes.

    Dimensions that are constant in the rows used are independent of all others: they are left out of C, and
    their pairs count with 0. With a single dimension, or all constant, every score is 0. The reference gives
    NaN, infinity or a complex number there.

    Parameters
    ----------
    table : codes [N, D].
    num_train : number of rows that are used.
    num_bins : bins per code dimension of mutual_info_score.

    Returns
    -------
    The four scores, all >= 0 and finite, and:
    gaussian_total_correlation_constant_dimensions : how many dimensions were left out.
    gaussian_total_correlation_dependent_dimensions : how many eigenvalues were at the limit.
    """
    rows, _ = table.split(rng, num_train)
    codes = table.mean[rows]
    live = ~constant_dimensions(codes)
    resolution = np.finfo(np.float32).eps
    spectrum, wasserstein, trace = np.ones(0), 0.0, 1.0
    if live.any():
        covariance = np.atleast_2d(np.cov(codes[:, live].astype(np.float64), rowvar=False))
        deviation = np.sqrt(np.diagonal(covariance))
        product = np.outer(deviation, deviation)
        spectrum, trace = np.linalg.eigvalsh(covariance / product), np.trace(covariance)
        roots = np.sqrt(np.linalg.eigvalsh(covariance * product).clip(min=0))
        wasserstein = max(0.0, 2 * trace - 2 * roots.sum())
    bins, num_dims = histogram_bins(codes, num_bins), codes.shape[1]
    information = mutual_information(bins, bins)
    np.fill_diagonal(information, 0)
    return {
        "gaussian_total_correlation": max(0.0, -0.5 * np.log(spectrum.clip(min=resolution)).sum()),
        "gaussian_total_correlation_constant_dimensions": np.count_nonzero(~live),
        "gaussian_total_correlation_dependent_dimensions": np.count_nonzero(spectrum <= resolution),
        "gaussian_wasserstein_correlation": wasserstein,
        "gaussian_wasserstein_correlation_norm": wasserstein / trace,
        "mutual_info_score": information.sum() / max(1, num_dims**2 - num_dims),
    }


def constant_dimensions(codes: np.ndarray) -> np.ndarray:
    """Return which dimensions of float32 codes [N, D] vary by no more than their last digit, bool [D]."""
    return np.ptp(codes, axis=0) <= 4 * np.finfo(np.float32).eps * np.abs(codes).max(axis=0)
