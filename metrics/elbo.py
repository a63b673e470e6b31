"""Evidence lower bound: how well does a model fit the images, whatever its codes are?"""

from __future__ import annotations

import numpy as np

from dislab.errors import DislabError
from dislab.registry import register_metric
from dislab.scoring.aggregate_posterior import kl_per_dimension
from dislab.scoring.table import CodeTable


@register_metric(
    "elbo",
    title="Evidence lower bound, nats per image",
    reference="Kingma & Welling 2014, eq. 3",
    needs=("reconstruction", "variances"),
)
def elbo(table: CodeTable, rng: np.random.Generator) -> dict:
    """Return ELBO = E ln p(x|z) - KL(q(z|x) || p(z)), mean over images; both terms have weight 1 (beta = 1).

    Parameters
    ----------
    table : -ln p(x|z) of R rows in `reconstruction` [R], codes [N, D] and log-variances [N, D]; the KL is the
        mean over all N rows, in closed form.

    Returns
    -------
    elbo : nats per image; it compares models of the same images and the same likelihood only.
    elbo_reconstruction, elbo_kl : the two terms, elbo = -(elbo_reconstruction + elbo_kl).
    elbo_standard_error : of the mean over the R rows.
    """
    errors = np.asarray(table.reconstruction, dtype=np.float64).ravel()
    if not len(errors) or not np.isfinite(errors).all():
        bad = np.count_nonzero(~np.isfinite(errors))
        raise DislabError(f"it needs finite reconstruction errors: {bad} of {len(errors)} are not")
    reconstruction, divergence = errors.mean(), kl_per_dimension(table).sum()
    return {
        "elbo": -(reconstruction + divergence),
        "elbo_reconstruction": reconstruction,
        "elbo_kl": divergence,
        "elbo_standard_error": errors.std() / np.sqrt(len(errors)),
    }
