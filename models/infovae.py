"""The InfoVAE with maximum mean discrepancy: the codes as a whole are pulled towards the prior."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dislab.errors import DislabError
from dislab.models.vae import VAE
from dislab.networks.distributions import kl_to_standard_normal, negative_log_likelihood, sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # Tolstikhin et al. 2018, published code of the WAE-MMD


@register_model("infovae", title="InfoVAE (MMD)", reference="Zhao et al. 2017, arXiv:1706.02262, eq. 6")
class InfoVAE(VAE):
    """InfoVAE: reconstruction + (1 - alpha) * KL + (alpha + lambda_prior - 1) * MMD(q(z), p(z)).

    Parameters
    ----------
    alpha : weight of the mutual information of images and codes that the objective adds to the ELBO, 1 at
        most.
    lambda_prior : the paper's lambda, weight of the divergence of q(z) from the prior, 1 - alpha or more.
    kernel : of the maximum mean discrepancy: "rbf" (Normal) or "imq" (inverse multiquadric), see `mmd`.
    others : see `VAE`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        alpha: float = 0.0,
        lambda_prior: float = 10.0,
        kernel: Literal["rbf", "imq"] = "rbf",
        **others,
    ):
        super().__init__(image_shape, **others)
        if alpha > 1 or alpha + lambda_prior < 1:
            raise DislabError(
                f"infovae: alpha={alpha} with lambda_prior={lambda_prior} rewards a distance from the prior: "
                "alpha must be 1 or less, and alpha + lambda_prior 1 or more"
            )
        self.alpha, self.lambda_prior, self.kernel = alpha, lambda_prior, kernel

    @property
    def noise(self) -> int:
        """Return the columns of the batch's noise: for the codes, then for a draw of the prior."""
        return 2 * self.latents

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, nats per image."""
        mean, logvar = self.encode(batch.images)
        noise, prior = batch.noise.chunk(2, dim=1)
        codes = sample_normal(mean, logvar, noise)
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        discrepancy = mmd(codes, prior, self.kernel)
        weight = self.alpha + self.lambda_prior - 1
        return {
            "loss": reconstruction + (1 - self.alpha) * kl + weight * discrepancy,
            "reconstruction": reconstruction,
            "kl": kl,
            "mmd": discrepancy,
        }


def mmd(codes: Tensor, prior: Tensor, kernel: str, biased: bool = False) -> Tensor:
    """Return the squared maximum mean discrepancy of codes and a draw of the prior, both [B, D].

    E k(z, z') + E k(p, p') - 2 E k(z, p), with d the distance of two points:

    - "rbf": k = exp(-d^2 / (2 D)).
    - "imq": k = sum_s 2 D s / (2 D s + d^2) over the scales s of IMQ_SCALES.

    The unbiased estimate leaves out the pairs of a point with itself, and may be negative. The biased one
    counts them.
    """
    batch, dimensions = codes.shape

    def mean_kernel(one: Tensor, other: Tensor) -> Tensor:
        squares = (one[:, None] - other).square().sum(2)
        if kernel == "rbf":
            values = torch.exp(-squares / (2 * dimensions))
        else:
            widths = [2 * dimensions * scale for scale in IMQ_SCALES]
            values = torch.stack([width / (width + squares) for width in widths]).sum(0)
        if one is not other or biased:
            return values.mean()
        return (values.sum() - values.diagonal().sum()) / (batch * (batch - 1))

    return mean_kernel(codes, codes) + mean_kernel(prior, prior) - 2 * mean_kernel(codes, prior)
