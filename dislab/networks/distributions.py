"""Diagonal Normals and image likelihoods: the few formulas that all models share, in nats."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)
# A pixel is known to 1/255 at best, so no likelihood needs a standard deviation below that.
LOWEST_PIXEL_LOGVAR = 2 * math.log(1 / 255)


def sample_normal(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z = mean + sigma * noise, all [B, D] (reparameterisation; Kingma & Welling 2014, section 2.4)."""
    return mean + torch.exp(0.5 * logvar) * noise


def kl_to_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) per dimension, [B, D] (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1)


def normal_log_density(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """ln N(z; mean, exp(logvar)), elementwise with broadcasting."""
    return -0.5 * (LOG_TWO_PI + logvar + (z - mean).square() * torch.exp(-logvar))


def product_of_normals(mean: Tensor, logvar: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """The normalised product of each group's Normals (Bouchacourt et al. 2017, eq. 6 and 7).

    Precisions add, and the mean is the precision-weighted mean of the members' means. Groups may have any
    sizes.

    Parameters
    ----------
    mean, logvar : [B, D], one Normal per image.
    group : int64 [B], the group that each image belongs to, 0 .. num_groups - 1, each with at least one
        image.

    Returns
    -------
    mean, logvar : [num_groups, D].
    """
    precision = torch.exp(-logvar)
    nothing = mean.new_zeros(num_groups, mean.shape[1])
    total = nothing.index_add(0, group, precision)
    weighted = nothing.index_add(0, group, precision * mean)
    return weighted / total, -torch.log(total)


def pixel_channels(likelihood: str, channels: int) -> int:
    """How many channels a decoder gives for images of `channels` channels."""
    return channels if likelihood == "bernoulli" else 2 * channels


def negative_log_likelihood(decoded: Tensor, images: Tensor, likelihood: str) -> Tensor:
    """-ln p(x|z) per image, [B].

    "bernoulli" takes `decoded` [B, C, H, W] as logits (pixels in [0, 1] are their targets); "gaussian"
    takes it [B, 2C, H, W] as mean and log-variance of every pixel value.
    """
    if likelihood == "bernoulli":
        nll = bernoulli(decoded, images)
    else:
        nll = -normal_log_density(images, *_pixel_normal(decoded))
    return nll.sum((1, 2, 3))  # (flatten would copy images whose channels are last in memory)


def bernoulli(logits: Tensor, pixels: Tensor) -> Tensor:
    """F.binary_cross_entropy_with_logits of every pixel, as ln(1 + exp(logit)) - pixel * logit.

    In float32 that is exact to a millionth of a logit of 10, and takes two thirds of the time.
    """
    return torch.addcmul(F.softplus(logits), pixels, logits, value=-1)


def mean_image(decoded: Tensor, likelihood: str) -> Tensor:
    """E[x|z], [B, C, H, W], in [0, 1]."""
    if likelihood == "bernoulli":
        return torch.sigmoid(decoded)
    return _pixel_normal(decoded)[0].clamp(0, 1)


def _pixel_normal(decoded: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar = decoded.chunk(2, dim=1)
    return mean, LOWEST_PIXEL_LOGVAR + F.softplus(logvar - LOWEST_PIXEL_LOGVAR)
