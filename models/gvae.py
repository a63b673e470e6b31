"""The GVAE of pairs: what two images share is encoded by the average of their posteriors.

    x_0, x_1                   two images of which a few factors were redrawn
    q(z_d|x_i)                 their posteriors, one Normal for each dimension d
    q~(z_d|x_i) = average of q(z_d|x_0) and q(z_d|x_1) if the pair shares d, else q(z_d|x_i)
    loss = 1/2 sum_i [-E_q~ ln p(x_i|z) + beta KL(q~(z|x_i) || p(z))]      (Locatello et al. 2020)

The models `mlvae_pairs`, `adagvae` and `adamlvae` have another average, another shared set, or both.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dislab.data.groups import Groups
from dislab.models.vae import VAE
from dislab.networks.distributions import kl_to_standard_normal, negative_log_likelihood, sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch

Changed = Literal["random", 1, 2, 3, 4, 5, 6, 7, 8]  # no dataset has more than nine factors


@register_model(
    "gvae", title="GVAE of pairs, shared set known", reference="Hosoya 2019; Locatello et al. 2020"
)
class GVAE(VAE):
    """GVAE of pairs: means and variances of what a pair shares are averaged, and what it shares is known.

    Dimension j belongs to factor j. All dimensions are averaged but those of the factors that were redrawn.

    Parameters
    ----------
    beta : weight of the KL term. The KL of a shared dimension counts for both images.
    changed : number of factors that are redrawn in the second image; "random" is uniform on 1 .. K - 1 for
        each pair (Locatello et al. 2020).
    resample : whether a redrawn factor may get "any" value (Locatello et al. 2020), or always an "other" one.
    others : see `VAE`.
    """

    supervision = "pairs"
    group_size = 2
    binds_factors = True  # each factor has a dimension

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        beta: float = 1.0,
        changed: Changed = "random",
        resample: Literal["any", "other"] = "any",
        **others,
    ):
        super().__init__(image_shape, **others)
        self.beta, self.changed, self.resample = beta, changed, resample

    def shared_set(self, mean: Tensor, logvar: Tensor, changed: Tensor) -> Tensor:
        """Return which dimensions a pair shares, bool [pairs, D].

        `mean` and `logvar` are [pairs, 2, D]; `changed` bool [pairs, K] says which factors were redrawn.
        """
        return ~redrawn_dimensions(changed, self.latents)

    def average(self, mean: Tensor, logvar: Tensor, pairs: Groups) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance [pairs, D] of the average of each pair's Normals [2 * pairs, D]."""
        return of_pairs(mean).mean(1), of_pairs(logvar).logsumexp(1) - math.log(2)

    def joined(self, mean: Tensor, logvar: Tensor, shared: Tensor, pairs: Groups) -> tuple[Tensor, ...]:
        """Return mean and log-variance of q~, [2 * pairs, D]: the average where the pair shares a dimension.

        `mean` and `logvar` are [2 * pairs, D], `shared` bool [pairs, D].
        """
        average = self.average(mean, logvar, pairs)
        return tuple(
            torch.where(shared[:, None], averaged[:, None], of_pairs(own)).flatten(0, 1)
            for averaged, own in zip(average, (mean, logvar), strict=True)
        )

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, nats per image. `shared` is the number of shared dimensions."""
        mean, logvar = self.encode(batch.images)
        shared = self.shared_set(of_pairs(mean), of_pairs(logvar), batch.changed)
        mean, logvar = self.joined(mean, logvar, shared, batch.groupings[0])
        codes = sample_normal(mean, logvar, batch.noise)
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        return {
            "loss": reconstruction + self.beta * kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "shared": shared.sum(1, dtype=mean.dtype).mean(),
        }


def of_pairs(values: Tensor) -> Tensor:
    """Return values [2 * pairs, D] as [pairs, 2, D]; images 2i and 2i + 1 are a pair."""
    return values.unflatten(0, (-1, 2))


def redrawn_dimensions(changed: Tensor, latents: int) -> Tensor:
    """Return which dimensions belong to a redrawn factor, bool [pairs, D], D >= K. Dimension j belongs to
    factor j; `changed` is bool [pairs, K]."""
    pairs, factors = changed.shape
    return torch.cat([changed, changed.new_zeros(pairs, latents - factors)], dim=1)
