"""Diagonal Normals and image likelihoods, in nats: the formulas that models share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)
# A pixel is known to 1/255 at best, so no likelihood needs a standard deviation below that.
LOWEST_PIXEL_LOGVAR = 2 * math.log(1 / 255)
MOST_PAIRS = 2**20  # of an index and a row that are compared: some 0.1 ms on a GPU


def sample_normal(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """Return z = mean + sigma * noise, all [B, D] (Kingma & Welling 2014, section 2.4)."""
    return mean + torch.exp(0.5 * logvar) * noise


def kl_to_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mean, exp(logvar)) || N(0, 1)), [B, D] (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1)


def normal_log_density(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return ln N(z; mean, exp(logvar)), elementwise with broadcasting."""
    return -0.5 * (LOG_TWO_PI + logvar + (z - mean).square() * torch.exp(-logvar))


def product_of_normals(mean: Tensor, logvar: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Return the normalised product of each group's Normals (Bouchacourt et al. 2017, eq. 6 and 7).

    Precisions add, and the mean is the precision-weighted mean of the members' means. `mean` and `logvar` are
    [B, D] and become [num_groups, D]; `group` int64 [B] is the group of each image. No group is empty.
    """
    precision = torch.exp(-logvar)
    total = sum_by_group(precision, group, num_groups)
    weighted = sum_by_group(precision * mean, group, num_groups)
    return weighted / total, -torch.log(total)


def sum_by_group(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Return the sums [num_groups, D] of each group's values [B, D]; `group` is int64 [B]."""
    if _would_sort(values, num_groups * len(group)):
        member = torch.arange(num_groups, device=group.device)[:, None] == group
        return torch.where(member[:, :, None], values, 0).sum(1)
    return values.new_zeros(num_groups, values.shape[1]).index_add(0, group, values)


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """Return values[index], [B, D], of values [N, D] and the index int64 [B]."""
    if _would_sort(values, len(values) * len(index)):
        chosen = torch.arange(len(values), device=index.device)[:, None] == index
        return torch.where(chosen[:, :, None], values[:, None], 0).sum(0)
    return values[index]


def _would_sort(values: Tensor, pairs: int) -> bool:
    """Return whether torch would sort an index for a sum by it, here or in the backward pass.

    On CUDA it does so to give the same numbers every time. For a batch of the usual size that takes more
    kernels than to compare every pair of an index and a row.
    """
    return values.is_cuda and pairs <= MOST_PAIRS


def pixel_channels(likelihood: str, channels: int) -> int:
    """Return the number of channels that a decoder of images [B, channels, H, W] has to return."""
    return channels if likelihood == "bernoulli" else 2 * channels


def negative_log_likelihood(decoded: Tensor, images: Tensor, likelihood: str) -> Tensor:
    """Return -ln p(x|z) of images [B, C, H, W] in [0, 1], one value per image, [B].

    If the likelihood is "bernoulli", `decoded` holds logits, [B, C, H, W]. If it is "gaussian", `decoded`
    holds the mean and the log-variance of every pixel value, [B, 2C, H, W].
    """
    if likelihood == "bernoulli":
        nll = bernoulli(decoded, images)
    else:
        nll = -normal_log_density(images, *_pixel_normal(decoded))
    return nll.sum((1, 2, 3))  # flatten would copy images whose channels are last in memory


def bernoulli(logits: Tensor, pixels: Tensor) -> Tensor:
    """Return F.binary_cross_entropy_with_logits of every pixel, as ln(1 + exp(logit)) - pixel * logit.

    In float32 this form is off by a millionth at a logit of 10, and takes half the time.
    """
    return _Bernoulli.apply(logits, pixels)


class _Bernoulli(torch.autograd.Function):
    """The cross entropy of `bernoulli`, whose gradient by the logits is sigmoid(logit) - pixel."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, pixels: Tensor) -> Tensor:
        return torch.addcmul(F.softplus(logits), pixels, logits, value=-1)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, pixels = ctx.saved_tensors
        of_pixels = -logits * gradient if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():  # a second derivative is asked for
            return (logits.sigmoid() - pixels) * gradient, of_pixels
        return logits.sigmoid().sub_(pixels).mul_(gradient), of_pixels


def mean_image(decoded: Tensor, likelihood: str) -> Tensor:
    """Return E[x|z], [B, C, H, W] in [0, 1]. `decoded` is as in `negative_log_likelihood`."""
    if likelihood == "bernoulli":
        return torch.sigmoid(decoded)
    return _pixel_normal(decoded)[0].clamp(0, 1)


def _pixel_normal(decoded: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar = decoded.chunk(2, dim=1)
    return mean, LOWEST_PIXEL_LOGVAR + F.softplus(logvar - LOWEST_PIXEL_LOGVAR)
