"""The quantised latent autoencoder: every code dimension takes one of a few learned values."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dislab.networks.distributions import mean_image, negative_log_likelihood, pixel_channels
from dislab.networks.named import make_networks
from dislab.registry import register_model
from dislab.training.batches import Batch

LARGEST_GRADIENT = 1.0  # of any single number, as in the authors' code


@register_model("qlae", title="Quantised latent autoencoder", reference="Hsu et al. 2023, arXiv:2305.18378")
class QLAE(nn.Module):
    """QLAE: reconstruction per pixel + quantise * |sg(x) - q|^2 + commit * |x - sg(q)|^2.

    x is the encoder's output, q the nearest learned value of every dimension, and sg stops the gradient. The
    squares are means over the dimensions. The decoder and the metrics get q.

    Parameters
    ----------
    values : number of values V of every dimension.
    quantise, commit : weights of the two terms. The reconstruction is a mean over pixels, not their sum.
    weight_decay : of all parameters, in multiples of the learning rate (Loshchilov & Hutter 2019).
    latents, network, likelihood : see `VAE`.
    """

    supervision = "iid"
    lowest: ClassVar = {"values": 2}  # a code of one value says nothing

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        latents: int = 10,
        values: int = 10,
        quantise: float = 0.01,
        commit: float = 0.01,
        weight_decay: float = 0.1,
        network: str = "auto",
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
    ):
        super().__init__()
        self.latents, self.likelihood = latents, likelihood
        self.quantise, self.commit = quantise, commit
        self.adam = {"weight_decay": weight_decay, "decoupled_weight_decay": True}
        channels = pixel_channels(likelihood, image_shape[0])
        self.encoder, self.decoder = make_networks(
            network, image_shape, outputs=latents, latents=latents, channels=channels
        )
        self.values = nn.Parameter(torch.linspace(-0.5, 0.5, values).repeat(latents, 1))  # [D, V]
        for parameter in self.parameters():
            parameter.register_hook(lambda gradient: gradient.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT))

    def encode(self, images: Tensor) -> Tensor:
        """Return quantised codes [B, D] of images [B, C, H, W] in [0, 1]."""
        return quantised(nearest_value(self.encoder(images), self.values), self.values)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the parameters of p(x|z): logits [B, C, H, W], or mean and log-variance [B, 2C, H, W]."""
        return self.decoder(codes)

    def mean_image(self, codes: Tensor) -> Tensor:
        """Return E[x|z], [B, C, H, W] in [0, 1], for codes [B, D]."""
        return mean_image(self.decode(codes), self.likelihood)

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss and its terms; the reconstruction is in nats per image."""
        outputs = self.encoder(batch.images)
        codes = quantised(nearest_value(outputs, self.values), self.values)
        decoded = self.decode(straight_through(outputs, codes))
        reconstruction = negative_log_likelihood(decoded, batch.images, self.likelihood).mean()
        quantisation, commitment = squared_errors(outputs, codes)
        per_pixel = reconstruction / math.prod(batch.images.shape[1:])
        return {
            "loss": per_pixel + self.quantise * quantisation + self.commit * commitment,
            "reconstruction": reconstruction,
            "quantisation": quantisation,
            "commitment": commitment,
        }


def nearest_value(outputs: Tensor, values: Tensor) -> Tensor:
    """Return the index int64 [B, D] of the nearest of each dimension's values [D, V]; the lower in a tie."""
    return (outputs[:, :, None] - values).abs().argmin(2)


def quantised(index: Tensor, values: Tensor) -> Tensor:
    """Return the values [B, D] at an index int64 [B, D] of each dimension's values [D, V]."""
    chosen = index[:, :, None] == torch.arange(values.shape[1], device=values.device)
    return torch.where(chosen, values, 0).sum(2)


def straight_through(outputs: Tensor, codes: Tensor) -> Tensor:
    """Return the codes [B, D], whose gradient goes to the outputs [B, D] as if nothing were rounded."""
    return outputs + (codes - outputs).detach()


def squared_errors(outputs: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of the codes [B, D], and that of the outputs [B, D].

    They have the same value. The first has the gradient of the values alone, the second of the encoder alone.
    """
    return (outputs.detach() - codes).square().mean(), (outputs - codes.detach()).square().mean()
