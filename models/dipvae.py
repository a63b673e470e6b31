"""DIP-VAE I and II: the covariance of the codes is pulled towards the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from dislab.models.vae import VAE
from dislab.networks.distributions import kl_to_standard_normal, negative_log_likelihood, sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("dipvae1", title="DIP-VAE-I", reference="Kumar et al. 2018, arXiv:1711.00848, eq. 6")
class DIPVAE1(VAE):
    """DIP-VAE-I: negative ELBO + lambda_od * sum_{j != k} C_jk^2 + lambda_d * sum_j (C_jj - 1)^2.

    C is the covariance of the posterior means in the batch.

    Parameters
    ----------
    lambda_od : weight of the covariances; each counts twice, as C_jk and C_kj.
    lambda_d_factor : lambda_d = lambda_d_factor * lambda_od is the weight of the variances.
    others : see `VAE`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        lambda_od: float = 10.0,
        lambda_d_factor: float = 10.0,
        **others,
    ):
        super().__init__(image_shape, **others)
        self.lambda_od, self.lambda_d_factor = lambda_od, lambda_d_factor

    def covariance(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """Return C [D, D] of a batch's means and log-variances [B, D]."""
        return covariance_of_means(mean)

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms, nats per image."""
        mean, logvar = self.encode(batch.images)
        codes = sample_normal(mean, logvar, batch.noise)
        reconstruction = negative_log_likelihood(self.decode(codes), batch.images, self.likelihood).mean()
        kl = kl_to_standard_normal(mean, logvar).sum(1).mean()
        off_diagonal, diagonal = squared_distances_from_identity(self.covariance(mean, logvar))
        penalty = self.lambda_od * (off_diagonal + self.lambda_d_factor * diagonal)
        return {
            "loss": reconstruction + kl + penalty,
            "reconstruction": reconstruction,
            "kl": kl,
            "off_diagonal": off_diagonal,
            "diagonal": diagonal,
        }


@register_model("dipvae2", title="DIP-VAE-II", reference="Kumar et al. 2018, arXiv:1711.00848, eq. 7")
class DIPVAE2(DIPVAE1):
    """DIP-VAE-II: as `DIPVAE1`, with C the covariance of the codes drawn from q(z).

    Parameters
    ----------
    lambda_od, lambda_d_factor, others : see `DIPVAE1`.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, lambda_d_factor: float = 1.0, **others):
        super().__init__(image_shape, lambda_d_factor=lambda_d_factor, **others)

    def covariance(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """Return C [D, D]: by the law of total variance, Cov(means) + E diag(variances)."""
        return covariance_of_means(mean) + logvar.exp().mean(0).diag()


def covariance_of_means(mean: Tensor) -> Tensor:
    """Return the covariance [D, D] over a batch of means [B, D], divided by B."""
    centred = mean - mean.mean(0)
    return centred.T @ centred / len(mean)


def squared_distances_from_identity(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum_{j != k} C_jk^2 and sum_j (C_jj - 1)^2 of C [D, D]."""
    squares = (covariance - torch.eye(len(covariance), device=covariance.device)).square()
    diagonal = squares.diagonal().sum()
    return squares.sum() - diagonal, diagonal
