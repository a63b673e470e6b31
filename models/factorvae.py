"""The FactorVAE: a discriminator estimates the total correlation of the codes, which the loss penalises."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dislab.models.vae import VAE
from dislab.networks.architectures import dense_layers, initialised
from dislab.networks.distributions import kl_to_standard_normal, negative_log_likelihood, sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("factorvae", title="FactorVAE", reference="Kim & Mnih 2018, arXiv:1802.05983, algorithm 2")
class FactorVAE(VAE):
    """FactorVAE: negative ELBO + gamma * the total correlation of q(z).

    Parameters
    ----------
    gamma : weight of the total correlation. The default is the smallest of Locatello et al. 2019, who train
        on seven datasets; Kim & Mnih's best for Shapes3D is 7, with 6 dimensions, and for dSprites 35.
    batches : the permuted codes, which the discriminator learns to tell apart, are those of a second batch
        (2, the paper's algorithm) or of the batch of the step (1, as in disentanglement_lib).
    others : see `VAE`.
    """

    adversary_adam: ClassVar = {"lr": 1e-4, "betas": (0.5, 0.9)}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        gamma: float = 10.0,
        batches: Literal[1, 2] = 2,
        **others,
    ):
        super().__init__(image_shape, **others)
        self.gamma, self.batches = gamma, batches
        self.adversary = discriminator(self.latents, *[1000] * 6, 2)

    @property
    def noise(self) -> int:
        """Return the columns of the batch's noise: for the codes, then for a permutation of each of them."""
        return 2 * self.latents

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss of encoder and decoder and its terms, nats per image."""
        mean, logvar = self.encode(batch.images)
        codes = sample_normal(mean, logvar, batch.noise[:, : self.latents])
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        total_correlation = log_ratio(self.adversary(codes)).mean()
        return {
            "loss": reconstruction + kl + self.gamma * total_correlation,
            "reconstruction": reconstruction,
            "kl": kl,
            "total_correlation": total_correlation,
        }

    def adversary_loss(self, batch: Batch, other: Batch, step: Tensor) -> Tensor:
        """Return the loss of the discriminator: codes of `batch` against permuted codes of `other`."""
        other = batch if self.batches == 1 else other
        # The encoder gets no gradient: it would learn to help the discriminator.
        with torch.no_grad():
            codes, others = (
                sample_normal(*self.encode(one.images), one.noise[:, : self.latents])
                for one in (batch, other)
            )
        permuted = permute(others, other.noise[:, self.latents :].argsort(0))
        return discriminator_loss(self.adversary(codes), self.adversary(permuted))


def discriminator(*sizes: int) -> nn.Sequential:
    """Return dense layers of these sizes with leaky ReLUs between them; the paper has six hidden layers."""
    return initialised(dense_layers(*sizes, activation=partial(nn.LeakyReLU, 0.2)))


def permute(codes: Tensor, order: Tensor) -> Tensor:
    """Return codes [B, D] with every dimension in an order of its own, int64 [B, D] (algorithm 1)."""
    return codes.gather(0, order)


def log_ratio(logits: Tensor) -> Tensor:
    """Return ln D(z) / (1 - D(z)) [B], an estimate of ln q(z) / prod_d q(z_d), of logits [B, 2] (eq. 3).

    The first logit stands for "from q(z)", the second for "permuted".
    """
    return logits[:, 0] - logits[:, 1]


def discriminator_loss(logits: Tensor, permuted: Tensor) -> Tensor:
    """Return the mean cross entropy, nats, at the logits [B, 2] of codes and of permuted codes."""
    right = logits.log_softmax(1)[:, 0].mean() + permuted.log_softmax(1)[:, 1].mean()
    return -right / 2
