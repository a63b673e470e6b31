"""The parts of the KL term of the ELBO: index-code information, total correlation, dimension-wise KL."""

from __future__ import annotations

import math
import warnings

import numpy as np

from dislab.errors import DislabWarning
from dislab.registry import register_metric
from dislab.scoring.aggregate_posterior import (
    Mixture,
    entropy_of_density,
    joint_log_density,
    kl_per_dimension,
    log_density_at,
    posterior,
)
from dislab.scoring.table import CodeTable

REFERENCE = "Chen et al. 2018, eq. 2; Hoffman & Johnson 2016"


@register_metric(
    "kl",
    title="Mean KL(q(z|x) || p(z)), nats per image",
    reference="Kingma & Welling 2014, appendix B",
    low=0.0,
    direction="",
    needs=("variances",),
)
def kl(table: CodeTable, rng: np.random.Generator) -> dict:
    """Return the mean over all rows of KL(q(z|n) || Normal(0, 1)), in closed form, in nats.

    Parameters
    ----------
    table : codes [N, D] and log-variances [N, D].

    Returns
    -------
    kl : summed over dimensions.
    kl_per_dimension : [D].
    """
    per_dimension = kl_per_dimension(table)
    return {"kl": per_dimension.sum(), "kl_per_dimension": per_dimension}


@register_metric(
    "index_code_mi",
    title="Index-code mutual information KL(q(z, n) || q(z) p(n)), nats per image",
    reference=REFERENCE,
    low=0.0,
    direction="",
    needs=("variances",),
)
@register_metric(
    "total_correlation",
    title="Total correlation KL(q(z) || Π_d q(z_d)), nats per image",
    reference=REFERENCE,
    low=0.0,
    direction="down",
    needs=("variances",),
)
@register_metric(
    "dimension_wise_kl",
    title="Dimension-wise KL Σ_d KL(q(z_d) || p(z_d)), nats per image",
    group="kl_decomposition",
    reference=REFERENCE,
    low=0.0,
    direction="",
    needs=("variances",),
)
def kl_decomposition(table: CodeTable, rng: np.random.Generator, *, num_samples: int = 2_000) -> dict:
    """Return the three terms of E_n KL(q(z|n) || p(z)) = I(z; n) + TC(z) + Σ_d KL(q(z_d) || p(z_d)).

    q(z) is taken over all rows. In entropies: I = H(z) - H(z|n), TC = Σ_d H(z_d) - H(z), and the last is
    -Σ_d H(z_d) - E ln p(z). H(z|n) and E ln p(z) have closed forms, and H(z_d) is integrated on a grid over
    all rows. Only H(z) = -E ln q(z) is estimated, from `num_samples` z, so that the three add up to the mean
    KL exactly.

    ln q(z) is the sum over all N rows with weight 1/N each, including the sampled row. A sum over M rows
    would bound the index-code information by ln M; weights that treat a few rows as the whole data set, or
    leave out z's own row, would make the total correlation negative. The estimate is regressed on ln q(z|n),
    Σ_d ln q(z_d) and ln p(z), whose expectations are known; the remaining Monte-Carlo error is in
    `_standard_error`. H(z) is clipped to its bounds: H(z|n) <= H(z) <= Σ_d H(z_d), H(z) <= H(z|n) + ln N.

    Standard deviations below 1 / 8,192 of what their dimension spans are raised to that; the sum is less than
    `kl` only then.

    Parameters
    ----------
    table : codes [N, D] and log-variances [N, D].
    num_samples : z drawn from q(z), each from its own row as far as there are so many.

    Returns
    -------
    index_code_mi, total_correlation, dimension_wise_kl : nats per image, all >= 0.
    index_code_mi_standard_error, total_correlation_standard_error : of these two (the same error, with
        opposite signs).
    index_code_mi_rows, index_code_mi_samples : N, in the inner sum, and the number of z.
    index_code_mi_widened : the share of the N D Normals whose standard deviation was raised.
    dimension_wise_kl_per_dimension : [D].
    """
    normals = posterior(table)
    num_rows, num_dims = table.mean.shape
    rows = rng.permutation(num_rows)[np.arange(num_samples) % num_rows]
    noise = rng.standard_normal((num_samples, num_dims))
    mean, variance = normals.normals(rows)
    z = mean + np.sqrt(variance) * noise
    own = -0.5 * (noise**2 + np.log(2 * math.pi * variance)).sum(axis=1)  # ln q(z|n)

    marginal_entropy, conditional, prior = np.empty((3, num_dims))  # H(z_d), H(z_d|n), E ln p(z_d)
    product = np.zeros(num_samples)  # Σ_d ln q(z_d)
    for d in range(num_dims):
        mean, variance = normals.normals(dimensions=d)
        conditional[d] = 0.5 * (1 + np.log(2 * math.pi * variance)).mean()
        prior[d] = -0.5 * (math.log(2 * math.pi) + (mean**2 + variance).mean())
        mixture = Mixture(mean, variance)
        on_grid = mixture.points, mixture.density()
        # H(z_d) >= H(z_d|n), but rounding on the grid can make the information of a few equal rows negative.
        marginal_entropy[d] = max(entropy_of_density(*on_grid), conditional[d])
        product += log_density_at(z[:, d], *on_grid)
    conditional_entropy = conditional.sum()

    controls = np.column_stack(
        [
            own + conditional_entropy,
            product + marginal_entropy.sum(),
            -0.5 * (math.log(2 * math.pi) + z**2).sum(axis=1) - prior.sum(),
        ]
    )
    estimate, error = regression_mean(joint_log_density(z, normals), controls)
    most = min(marginal_entropy.sum(), conditional_entropy + math.log(num_rows))
    joint_entropy = min(max(-estimate, conditional_entropy), most)

    if joint_entropy - conditional_entropy > math.log(num_rows) - 0.01:
        warnings.warn(
            f"index_code_mi has reached its bound, ln {num_rows} = {math.log(num_rows):.2f} nats for "
            f"{num_rows:,} rows: with more rows it would be larger, and total_correlation smaller",
            DislabWarning,
            stacklevel=2,
        )
    per_dimension = -marginal_entropy - prior
    return {
        "index_code_mi": joint_entropy - conditional_entropy,
        "index_code_mi_standard_error": error,
        "index_code_mi_rows": num_rows,
        "index_code_mi_samples": num_samples,
        "index_code_mi_widened": normals.widened,
        "total_correlation": marginal_entropy.sum() - joint_entropy,
        "total_correlation_standard_error": error,
        "dimension_wise_kl": per_dimension.sum(),
        "dimension_wise_kl_per_dimension": per_dimension,
    }


def regression_mean(values: np.ndarray, controls: np.ndarray) -> tuple[float, float]:
    """Return the mean of `values` [S], by control variates [S, C] of mean 0, and its standard error.

    It is the intercept of a least-squares fit (Owen 2013, Monte Carlo theory, section 8.9).
    """
    design = np.column_stack([np.ones(len(values)), controls])
    coefficients, _, _, _ = np.linalg.lstsq(design, values, rcond=None)
    residual = values - design @ coefficients
    freedom = max(1, len(values) - design.shape[1])
    return float(coefficients[0]), float(np.sqrt((residual**2).sum() / freedom / len(values)))
