"""Are the code dimensions correlated with each other? Scores that need no factors."""

from __future__ import annotations

import warnings

import numpy as np

from dislab.errors import DislabWarning
from dislab.registry import register_metric
from dislab.scoring.information import histogram_bins, information_of_pairs
from dislab.scoring.table import CodeTable, varies

REFERENCE = "Locatello et al. 2019 (the scores that need no factors)"
# Eigenvalues of so many times their rounding variance, and less, count as dependent dimensions: rounding then
# hides 0.14 nats, -ln(1 - 1/4) / 2, and more.
AT_LIMIT = 4


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
      Codes are float32: rounding alone gives a direction the variance `rounding_variance`. Smaller
      eigenvalues are raised to that, some 17 nats for a dependent dimension of mean 0, and a warning says
      that the score is a lower bound.
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
    live = varies(codes)
    num_live, num_dims = np.count_nonzero(live), len(live)
    spectrum, limit, wasserstein, trace = np.ones(0), np.zeros(0), 0.0, 1.0
    if num_live:
        centred = codes[:, live].astype(np.float64)
        centred -= centred.mean(axis=0)
        deviation = centred.std(axis=0, ddof=1)
        # The standardised codes are Q R: R has the singular values of the codes, and is small.
        root = np.linalg.qr(centred / deviation, mode="r") / np.sqrt(len(codes) - 1)
        _, singular, directions = np.linalg.svd(root)
        spectrum = np.pad(singular**2, (0, num_live - len(singular)))
        limit = directions**2 @ (rounding_variance(codes[:, live]) / deviation**2)
        trace = (deviation**2).sum()
        # The eigenvalues of B^1/2 C B^1/2 are squares of the singular values of the codes times B^1/2.
        roots = np.linalg.svd(root * deviation**2, compute_uv=False)
        wasserstein = max(0.0, 2 * trace - 2 * roots.sum())
    correlation = max(0.0, -0.5 * np.log(np.maximum(spectrum, limit)).sum())
    at_limit = np.count_nonzero(spectrum < AT_LIMIT * limit)
    remarks = []
    if num_live < num_dims:
        remarks.append(f"{num_dims - num_live} of {num_dims} code dimensions are constant: they are left out")
    if num_live >= max(2, len(codes)):
        remarks.append(
            f"gaussian_total_correlation is infinite for {num_live} dimensions in {len(codes)} rows: it "
            "needs more rows than dimensions"
        )
    elif at_limit:
        remarks.append(
            f"gaussian_total_correlation is at least {correlation:.1f} nats: the codes' float32 precision "
            f"ends there, as {at_limit} of {num_dims} dimensions follow from the others up to rounding"
        )
    for remark in remarks:
        warnings.warn(remark, DislabWarning, stacklevel=2)
    return {
        "gaussian_total_correlation": correlation,
        "gaussian_total_correlation_constant_dimensions": num_dims - num_live,
        "gaussian_total_correlation_dependent_dimensions": at_limit,
        "gaussian_wasserstein_correlation": wasserstein,
        "gaussian_wasserstein_correlation_norm": wasserstein / trace,
        "mutual_info_score": 2
        * information_of_pairs(histogram_bins(codes, num_bins)).sum()
        / max(1, num_dims**2 - num_dims),
    }


def rounding_variance(codes: np.ndarray) -> np.ndarray:
    """Return the mean variance of the rounding errors of float32 codes [N, D], float64 [D].

    A rounding error is uniform between -ulp/2 and ulp/2, with ulp the distance of neighbouring numbers: its
    variance is ulp² / 12.
    """
    # Above 2e38 the distance is the same, but numpy overflows at the largest number.
    distance = np.spacing(np.abs(codes).clip(max=2e38)).astype(np.float64)
    return (distance**2).mean(axis=0) / 12
