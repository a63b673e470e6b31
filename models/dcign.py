"""DC-IGN: in a batch one factor varies, and only its code dimensions may tell the images apart.

    z_i ~ q(z|x_i)                    codes of a batch of images that differ in one factor
    decoded: z_i in the factor's dimensions, the mean of the batch's codes elsewhere
    gradient to the encoder: unchanged in the factor's dimensions, strength (z_i - mean) elsewhere

(Kulkarni et al. 2015, section 4). Dimension j belongs to factor j; the last factor has all that remain, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dislab.models.gvae import redrawn_dimensions
from dislab.models.vae import VAE
from dislab.networks.distributions import kl_to_standard_normal, negative_log_likelihood, sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("dcign", title="DC-IGN", reference="Kulkarni et al. 2015, arXiv:1503.03167")
class DCIGN(VAE):
    """Deep convolutional inverse graphics network: a VAE that is trained on batches with one varying factor.

    Parameters
    ----------
    strength : of the pull of the inactive dimensions to their mean over the batch.
    others : see `VAE`.
    """

    supervision = "pairs"
    group_size = 0  # the whole batch is one group
    changed = 1
    resample = "any"
    binds_factors = True  # each factor has a dimension

    def __init__(self, image_shape: tuple[int, int, int], *, strength: float = 0.01, **others):
        super().__init__(image_shape, **others)
        self.strength = strength

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, nats per image. The KL is that of the codes before clamping."""
        mean, logvar = self.encode(batch.images)
        active = active_dimensions(batch.changed, self.latents)
        codes, invariance = clamp(sample_normal(mean, logvar, batch.noise), active)
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        return {
            "loss": reconstruction + kl + self.strength * invariance,
            "reconstruction": reconstruction,
            "kl": kl,
            "invariance": invariance,
        }


def active_dimensions(changed: Tensor, latents: int) -> Tensor:
    """Return the dimensions of the factors that vary, bool [1, D], of changed bool [1, K].

    The dimensions that belong to no factor are the last one's, too.
    """
    rest = torch.arange(latents, device=changed.device) >= changed.shape[1]
    return redrawn_dimensions(changed, latents) | (rest & changed[:, -1:])


def clamp(codes: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes [B, D] that are decoded, and a term whose gradient pulls inactive codes to their mean.

    Inactive dimensions, where `active` bool [1, D] is false, have the mean over the batch, through which no
    gradient flows. The term is 1/2 sum (z - mean)^2, per image: its gradient is (z - mean) for each image.
    """
    mean = codes.mean(0, keepdim=True)
    spread = torch.where(active, 0, codes - mean)
    return torch.where(active, codes, mean.detach()), 0.5 * spread.square().sum(1).mean()
