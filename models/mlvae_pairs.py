"""The ML-VAE of pairs: what two images share has the product of their posteriors."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from dislab.data.groups import Groups
from dislab.models.gvae import GVAE
from dislab.networks.distributions import product_of_normals
from dislab.registry import register_model


@register_model(
    "mlvae_pairs",
    title="ML-VAE of pairs, shared set known",
    reference="Bouchacourt, Tomioka & Nowozin 2017; Locatello et al. 2020",
)
class MLVAEPairs(GVAE):
    """ML-VAE of pairs: what a pair shares has the product of both posteriors, and what it shares is known.

    Parameters
    ----------
    variance : of the joined posterior: that of the "product" of the two Normals, or twice that, the
        "harmonic" mean of the two variances, which disentanglement_lib takes.
    others : see `GVAE` and `VAE`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        variance: Literal["product", "harmonic"] = "product",
        **others,
    ):
        super().__init__(image_shape, **others)
        self.variance = variance

    def average(self, mean: Tensor, logvar: Tensor, pairs: Groups) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance [pairs, D] of the product of each pair's Normals [2 * pairs, D]."""
        mean, logvar = product_of_normals(mean, logvar, pairs.index, pairs.number)
        return mean, logvar + math.log(2) if self.variance == "harmonic" else logvar
