"""The beta-TCVAE: the KL term is split in three, and the total correlation is weighted by beta."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dislab.models.vae import VAE
from dislab.networks.distributions import (
    kl_to_standard_normal,
    negative_log_likelihood,
    normal_log_density,
    sample_normal,
)
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("betatcvae", title="beta-TCVAE", reference="Chen et al. 2018, arXiv:1802.04942, eq. 4")
class BetaTCVAE(VAE):
    """beta-TCVAE: reconstruction + alpha * index-code MI + beta * total correlation + gamma * dimension-wise
    KL.

    Parameters
    ----------
    alpha, beta, gamma : weights of the three terms; all 1 is the VAE.
    estimator : of the aggregated posterior q(z) from a minibatch: "weighted" (minibatch weighted sampling,
        eq. 5) or "stratified" (minibatch stratified sampling, appendix C.2).
    others : see `VAE`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        estimator: Literal["weighted", "stratified"] = "weighted",
        **others,
    ):
        super().__init__(image_shape, **others)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.estimator = estimator

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the negative of eq. 4 and its terms, nats per image."""
        mean, logvar = self.encode(batch.images)
        codes = sample_normal(mean, logvar, batch.noise)
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        log_weights = log_importance_weights(
            len(codes), batch.dataset_size, self.estimator, codes.device, codes.dtype
        )
        mutual_information, total_correlation = decompose_kl(codes, mean, logvar, log_weights)
        # E KL(q(z|x) || p(z)) has a closed form and is the sum of the three terms. With the dimension-wise KL
        # as the remainder, their sum is exact whatever the minibatch estimates.
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        dimensionwise_kl = kl - mutual_information - total_correlation
        loss = (
            reconstruction
            + self.alpha * mutual_information
            + self.beta * total_correlation
            + self.gamma * dimensionwise_kl
        )
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": kl,
            "mutual_information": mutual_information,
            "total_correlation": total_correlation,
            "dimensionwise_kl": dimensionwise_kl,
        }


def decompose_kl(codes: Tensor, mean: Tensor, logvar: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index-code mutual information and the total correlation, nats per image, of a minibatch.

    Parameters
    ----------
    codes : [B, D], one sample z_i from q(z|x_i) per image.
    mean, logvar : [B, D].
    log_weights : [B, B], ln of the weight of image j in the estimate q(z_i) = sum_j weight_ij q(z_i|x_j).
    """
    # [B, B, D]: ln q(z_i,d | x_j)
    log_density = normal_log_density(codes[:, None], mean[None], logvar[None])
    log_conditional = normal_log_density(codes, mean, logvar).sum(1)
    log_joint = torch.logsumexp(log_density.sum(2) + log_weights, dim=1)
    log_marginals = torch.logsumexp(log_density + log_weights[:, :, None], dim=1).sum(1)
    return (log_conditional - log_joint).mean(), (log_joint - log_marginals).mean()


def log_importance_weights(
    batch_size: int, dataset_size: int, estimator: str, device=None, dtype=None
) -> Tensor:
    """Return ln of the weights [B, B] of image j in the estimate of q(z_i), Chen et al. 2018, appendix C.

    Weighted sampling gives every image 1 / (N B) (eq. S5). With M = B - 1, stratified sampling gives the
    image itself 1 / N, one other image (N - M) / (N M), which stands for all rows that were not drawn, and
    each remaining image 1 / M. These sum to 1 (eq. S7).
    """
    if estimator == "weighted" or batch_size < 2:
        weight = -math.log(dataset_size * batch_size)
        return torch.full((batch_size, batch_size), weight, device=device, dtype=dtype)
    others = batch_size - 1
    itself = torch.eye(batch_size, dtype=torch.bool, device=device)
    weights = torch.full((batch_size, batch_size), 1 / others, device=device, dtype=dtype)
    weights = weights.masked_fill(itself, 1 / dataset_size)
    rest = max(dataset_size - others, 1) / (dataset_size * others)
    return weights.masked_fill(itself.roll(1, dims=1), rest).log()
