"""The annealed beta-VAE: the KL is held at a capacity that rises with the steps."""

from __future__ import annotations

from torch import Tensor

from dislab.models.vae import VAE
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("annealedvae", title="Annealed VAE", reference="Burgess et al. 2018, arXiv:1804.03599, eq. 8")
class AnnealedVAE(VAE):
    """AnnealedVAE: reconstruction + gamma * |KL - C(t)|.

    Parameters
    ----------
    gamma : weight of the distance between the KL and its capacity C.
    capacity : C after `capacity_steps` steps, nats per image.
    capacity_steps : number of steps over which C rises linearly from 0.
    others : see `VAE`.

    The defaults suit the 2,000 steps of the protocol "quick". Burgess et al. and Locatello et al. 2019 have
    gamma 1000 and 100,000 steps, for the 300,000 of the protocol "paper".
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        gamma: float = 10.0,
        capacity: float = 25.0,
        capacity_steps: int = 700,
        **others,
    ):
        super().__init__(image_shape, **others)
        self.gamma, self.capacity, self.capacity_steps = gamma, capacity, capacity_steps

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, nats per image. The mean KL of the batch is compared with C."""
        terms = super().loss(batch, step)
        capacity = capacity_at(step, self.capacity, self.capacity_steps)
        distance = (terms["kl"] - capacity).abs()
        return {**terms, "loss": terms["reconstruction"] + self.gamma * distance, "capacity": capacity}


def capacity_at(step: Tensor, highest: float, steps: int) -> Tensor:
    """Return C(t) = min(highest, highest * t / steps), nats, after t = `step` steps."""
    return highest * (step / max(1, steps)).clamp(max=1)
