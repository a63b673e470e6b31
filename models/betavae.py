"""The beta-VAE: a VAE whose KL term is weighted by beta."""

from __future__ import annotations

import math

from torch import Tensor

from dislab.models.vae import VAE
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("betavae", title="beta-VAE", reference="Higgins et al. 2017, ICLR, eq. 4")
class BetaVAE(VAE):
    """beta-VAE with an optional linear warm-up of beta.

    Parameters
    ----------
    beta : weight of the KL term; 1 is the VAE.
    warmup_steps : number of steps over which beta rises linearly to its value; 0 uses it from the start.
    others : see `VAE`.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], *, beta: float = 4.0, warmup_steps: int = 0, **others
    ):
        super().__init__(image_shape, **others)
        self.beta = beta
        self.warmup_steps = warmup_steps

    def report(self, image_shape: tuple[int, int, int]) -> dict[str, float]:
        """Return beta * (latent size) / (input size), Higgins et al. 2017, section 4.2."""
        return {"normalised_beta": self.beta * self.latents / math.prod(image_shape)}

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return reconstruction + beta(step) * KL and its terms, nats per image."""
        terms = super().loss(batch, step)
        warm = ((step + 1) / max(1, self.warmup_steps)).clamp(max=1)
        return {**terms, "loss": terms["reconstruction"] + self.beta * warm * terms["kl"]}
