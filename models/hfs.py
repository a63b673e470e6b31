"""Hausdorff factorised support: every combination of the values that two codes take must occur."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dislab.models.vae import VAE
from dislab.networks.distributions import kl_to_standard_normal, negative_log_likelihood, sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model(
    "hfs", title="Hausdorff factorised support", reference="Roth et al. 2023, arXiv:2210.07347, eq. 5"
)
class HFS(VAE):
    """HFS: reconstruction + beta * KL + gamma * the distance of q(z)'s support from a product of supports.

    Parameters
    ----------
    beta : weight of the KL; 0 leaves the shape of q(z) to the support alone.
    gamma : weight of the distance, which is summed over pairs of code dimensions.
    pairs : how many pairs of dimensions, drawn at random, a step looks at; all if there are no more.
    others : see `VAE`.
    """

    lowest: ClassVar = {"latents": 2}  # which are compared in pairs

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        beta: float = 1.0,
        gamma: float = 100.0,
        pairs: int = 25,
        **others,
    ):
        super().__init__(image_shape, **others)
        self.beta, self.gamma, self.pairs = beta, gamma, pairs

    @property
    def noise(self) -> int:
        """Return the columns of the batch's noise: for the codes, then one for each pair of dimensions."""
        return self.latents + self.latents * (self.latents - 1) // 2

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, nats per image."""
        mean, logvar = self.encode(batch.images)
        codes = sample_normal(mean, logvar, batch.noise[:, : self.latents])
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        # The first of a random order of all pairs.
        order = batch.noise[0, self.latents :].argsort()[: self.pairs]
        support = support_distances(mean, all_pairs(mean)[order]).sum()
        return {
            "loss": reconstruction + self.beta * kl + self.gamma * support,
            "reconstruction": reconstruction,
            "kl": kl,
            "support": support,
        }


def all_pairs(codes: Tensor) -> Tensor:
    """Return the pairs of dimensions of codes [B, D], int64 [D (D - 1) / 2, 2]."""
    return torch.triu_indices(codes.shape[1], codes.shape[1], 1, device=codes.device).T


def support_distances(codes: Tensor, pairs: Tensor) -> Tensor:
    """Return the squared Hausdorff distance [P] of the product of two supports from the pairs of values seen.

    For dimensions (a, b): max_{i,j} min_k (z_ia - z_ka)^2 + (z_jb - z_kb)^2. The gradient goes through all
    three images of the maximum: if it is kept from z_k, training diverges, says the authors' code.

    Parameters
    ----------
    codes : [B, D].
    pairs : int64 [P, 2].
    """
    batch = len(codes)
    with torch.no_grad():
        squares = (codes[:, None] - codes).square().permute(2, 0, 1)  # [D, i, k]
        # Pair by pair, because all B^3 sums of one pair stay in the processor's cache.
        first, second = (squares[column].unbind() for column in pairs.T)
        nearest = [(one[:, None] + other).min(2) for one, other in zip(first, second, strict=True)]
        distances, members = (torch.stack(part).flatten(1) for part in zip(*nearest, strict=True))
        farthest = distances.argmax(1)
        i, j = farthest // batch, farthest % batch
        k = members.gather(1, farthest[:, None])[:, 0]
    a, b = pairs.T
    return (codes[i, a] - codes[k, a]).square() + (codes[j, b] - codes[k, b]).square()
