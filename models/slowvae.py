"""The SlowVAE: between two images most factors stay and few move, as under a Laplace prior of transitions.

    p(z_0) = N(0, 1),  p(z_1|z_0) = prod_d rate/2 exp(-rate |z_1d - z_0d|)
    loss of one direction = sum_i -E ln p(x_i|z_i) + beta KL(q(z_0|x_0) || p(z_0))
                            + gamma E_z_0 KL(q(z_1|x_1) || p(z_1|z_0))       (Klindt et al. 2021, eq. 5 to 7)

The mean of q(z_0|x_0) stands for its draw in the last term. The loss is the mean of both directions.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dislab.errors import DislabError
from dislab.models.gvae import Changed, of_pairs
from dislab.models.vae import VAE
from dislab.networks.distributions import (
    LOG_TWO_PI,
    kl_to_standard_normal,
    negative_log_likelihood,
    sample_normal,
)
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("slowvae", title="SlowVAE", reference="Klindt et al. 2021, arXiv:2007.10930")
class SlowVAE(VAE):
    """SlowVAE with the Laplace prior in both directions of a pair.

    Parameters
    ----------
    beta : weight of the KL to the Normal prior; a pair has it once, so an image has half of it.
    gamma : weight of the KL to the Laplace prior.
    rate : of the Laplace prior, 1 / its scale.
    published_code : weigh the cross entropy with the Laplace prior twice, as the authors' code does. It adds
        the cross entropies of both directions, but the entropies only once.
    resample : how the second image differs: by "laplace" transitions of all factors that are not categorical;
        or `changed` factors are redrawn to "any" value, or always to an "other" one.
    changed : number of factors that are redrawn, "random" or a number; see `GVAE`. Not used with "laplace".
    others : see `VAE`.
    """

    supervision = "pairs"
    group_size = 2

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        beta: float = 1.0,
        gamma: float = 10.0,
        rate: float = 6.0,
        published_code: bool = False,
        resample: Literal["laplace", "any", "other"] = "laplace",
        changed: Changed = "random",
        **others,
    ):
        super().__init__(image_shape, **others)
        if rate <= 0:
            raise DislabError(f"slowvae: rate is {rate}: it must be above 0")
        self.beta, self.gamma, self.rate, self.published_code = beta, gamma, rate, published_code
        self.resample, self.changed = resample, changed

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss, nats per pair, and its terms."""
        mean, logvar = self.encode(batch.images)
        codes = sample_normal(mean, logvar, batch.noise)
        nll = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood)
        return self.objective(nll, mean, logvar)

    def objective(self, nll: Tensor, mean: Tensor, logvar: Tensor) -> dict[str, Tensor]:
        """Return the loss, nats per pair, and its terms.

        `nll` is -ln p(x|z), [2 * pairs]; `mean` and `logvar` are [2 * pairs, D]. `reconstruction` and `kl`
        are in nats per image, `kl_laplace` in nats per direction.
        """
        reconstruction = nll.mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        other = of_pairs(mean).flip(1).flatten(0, 1)  # the mean of the other image of the pair
        cross_entropy = laplace_cross_entropy(mean, logvar, other, self.rate).sum(1).mean()
        entropy = normal_entropy(logvar).sum(1).mean()
        kl_laplace = (2 if self.published_code else 1) * cross_entropy - entropy
        loss = 2 * reconstruction + self.beta * kl + self.gamma * kl_laplace
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl, "kl_laplace": kl_laplace}


def laplace_cross_entropy(mean: Tensor, logvar: Tensor, centre: Tensor, rate: float) -> Tensor:
    """Return E[-ln Laplace(z; centre, 1 / rate)] with z ~ N(mean, exp(logvar)), elementwise.

    E|z - centre| is the mean of a folded Normal.
    """
    deviation, distance = torch.exp(0.5 * logvar), mean - centre
    ratio = distance / deviation
    folded = deviation * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio.square())
    folded = folded + distance * torch.erf(ratio / math.sqrt(2))
    return rate * folded - math.log(rate / 2)


def normal_entropy(logvar: Tensor) -> Tensor:
    """Return the entropy of N(., exp(logvar)) in nats, elementwise."""
    return 0.5 * (LOG_TWO_PI + 1 + logvar)
