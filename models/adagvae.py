"""The Ada-GVAE: what two images share is estimated from the distances of their posteriors."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from dislab.models.gvae import GVAE
from dislab.registry import register_model


@register_model("adagvae", title="Ada-GVAE", reference="Locatello et al. 2020, arXiv:2002.02886")
class AdaGVAE(GVAE):
    """Ada-GVAE: a GVAE that averages the dimensions in which the posteriors of a pair are near each other.

    Parameters
    ----------
    distance : of the two posteriors of a dimension: the mean of the KL in both directions ("symmetric"), or
        the KL of the first image to the second ("one_sided", disentanglement_lib).
    others : see `GVAE` and `VAE`.
    """

    binds_factors = False
    lowest: ClassVar = {"latents": 2}  # a distance is near or far beside that of another dimension

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        distance: Literal["symmetric", "one_sided"] = "symmetric",
        **others,
    ):
        super().__init__(image_shape, **others)
        self.distance = distance

    def shared_set(self, mean: Tensor, logvar: Tensor, changed: Tensor) -> Tensor:
        """Return the dimensions of a pair whose distance is below the threshold, bool [pairs, D]."""
        distance = kl_of_pairs(mean, logvar)
        if self.distance == "symmetric":
            distance = (distance + kl_of_pairs(mean.flip(1), logvar.flip(1))) / 2
        return near_dimensions(distance)


def kl_of_pairs(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(q(z_d|x_0) || q(z_d|x_1)), [pairs, D], of means and log-variances [pairs, 2, D]."""
    ratio = logvar[:, 0] - logvar[:, 1]
    distance = (mean[:, 0] - mean[:, 1]).square() * torch.exp(-logvar[:, 1])
    return 0.5 * (torch.expm1(ratio) - ratio + distance)


def near_dimensions(distance: Tensor) -> Tensor:
    """Return which distances [pairs, D] are below the mean of their pair's least and largest.

    On the threshold a dimension is not shared. If all distances are equal, all dimensions are.
    """
    low, high = distance.amin(1, keepdim=True), distance.amax(1, keepdim=True)
    return (distance < (low + high) / 2) | (low == high)
