"""Diagonal Normals and image likelihoods, in nats: the formulas that models share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dislab.errors import DislabError

LOG_TWO_PI = math.log(2 * math.pi)
# A pixel is known to 1/255 at best, so no likelihood needs a standard deviation below that.
LOWEST_PIXEL_LOGVAR = 2 * math.log(1 / 255)

# What a model may say of p(x|z):
# - "bernoulli": a pixel's value in [0, 1] is taken for the probability of 1 (the cross entropy).
# - "binarised": the Bernoulli of images whose pixels count as 1 from 0.5 on, and else as 0.
# - "gaussian", "gaussian tanh", "gaussian tanh5": a Normal with a mean and log-variance for every pixel. The
#   log-variance follows from the decoder's output as in PIXEL_LOGVARS.
# - "gaussian fixed": a Normal of variance 1; the decoder returns the means.
PIXEL_LOGVARS = {
    "gaussian": lambda output: LOWEST_PIXEL_LOGVAR + F.softplus(output - LOWEST_PIXEL_LOGVAR),
    "gaussian tanh": torch.tanh,
    "gaussian tanh5": lambda output: 5 * torch.tanh(output),
}
LIKELIHOODS = ("bernoulli", "binarised", *PIXEL_LOGVARS, "gaussian fixed")
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
    [B, D] and become [num_groups, D]; `group` int64 [B] is the group of each image. A group without images
    gets the prior N(0, 1).
    """
    precision = torch.exp(-logvar)
    total = sum_by_group(precision, group, num_groups)
    weighted = sum_by_group(precision * mean, group, num_groups)
    total = torch.where(has_images(group, num_groups)[:, None], total, 1)
    return weighted / total, -torch.log(total)


def average_of_normals(mean: Tensor, logvar: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Return the mean of each group's means, and ln of the mean of its variances (Hosoya 2019).

    The arguments, and what a group without images gets, are those of `product_of_normals`.
    """
    size = sum_by_group(torch.ones_like(mean[:, :1]), group, num_groups).clamp(min=1)
    variance = sum_by_group(logvar.exp(), group, num_groups) / size
    variance = torch.where(has_images(group, num_groups)[:, None], variance, 1)
    return sum_by_group(mean, group, num_groups) / size, variance.log()


def moments_of_mixture(mean: Tensor, logvar: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance [num_groups, D] of the equal mixture of each group's Normals.

    The arguments, and what a group without images gets, are those of `product_of_normals`.
    """
    size = sum_by_group(torch.ones_like(mean), group, num_groups).clamp(min=1)
    centre = sum_by_group(mean, group, num_groups) / size
    spread = (mean - rows_of(centre, group)).square()
    variance = sum_by_group(logvar.exp() + spread, group, num_groups) / size
    variance = torch.where(has_images(group, num_groups)[:, None], variance, 1)
    return centre, variance.log()


def draws_of_mixture(
    mean: Tensor, logvar: Tensor, noise: Tensor, group: Tensor, num_groups: int, for_each: bool
) -> tuple[Tensor, Tensor]:
    """Return draws of the equal mixtures of each group's Normals, and KL(mixture || N(0, 1)) [num_groups].

    There is a draw for each group, [num_groups, D], or `for_each` image one of its group, [B, D]. The KL has
    no closed form and is estimated from the draws; that of a group without images is 0. `mean`, `logvar` and
    the standard Normal `noise` are [B, D], `group` is int64 [B].
    """
    of_draw = group if for_each else torch.arange(num_groups, device=group.device)
    member = of_draw[:, None] == group
    present = member.any(1)
    member = member | ~present[:, None]  # of a group without images all are, to keep numbers finite
    if for_each:
        draws = sample_normal(mean, logvar, noise)
    else:
        # The component is a random member: the one with the largest noise, which is independent of the sum of
        # the group's noise.
        one = torch.where(member, noise[:, 0], -torch.inf).argmax(1)
        total = (member[:, :, None] * noise).sum(1) / member.sum(1, keepdim=True).sqrt()
        draws = sample_normal(rows_of(mean, one), rows_of(logvar, one), total)
    densities = normal_log_density(draws[:, None], mean, logvar).sum(2)
    mixture = torch.where(member, densities, -torch.inf).logsumexp(1) - member.sum(1).log()
    prior = normal_log_density(draws, torch.zeros_like(draws), torch.zeros_like(draws)).sum(1)
    kl = torch.where(present, mixture - prior, 0)
    if for_each:
        estimates = torch.stack([kl, torch.ones_like(kl)], dim=1)
        sums, number = sum_by_group(estimates, group, num_groups).unbind(1)
        kl = sums / number.clamp(min=1)
    return draws, kl


def has_images(group: Tensor, num_groups: int) -> Tensor:
    """Return whether each group has an image, bool [num_groups]; `group` is int64 [B]."""
    return (torch.arange(num_groups, device=group.device)[:, None] == group).any(1)


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


def likelihood_of(likelihood: str, pixel_logvar: str) -> str:
    """Return one of LIKELIHOODS, by a model's hyper-parameters of these names.

    Raises
    ------
    DislabError : the log-variance of a pixel is chosen, but the likelihood has none.
    """
    if pixel_logvar == "floor":
        return likelihood
    if likelihood != "gaussian":
        raise DislabError(f"pixel_logvar={pixel_logvar} needs likelihood=gaussian, not {likelihood}")
    return f"gaussian {pixel_logvar}"


def pixel_channels(likelihood: str, channels: int) -> int:
    """Return the number of channels that a decoder of images [B, channels, H, W] has to return."""
    return 2 * channels if likelihood in PIXEL_LOGVARS else channels


def observed(images: Tensor, likelihood: str) -> Tensor:
    """Return images [B, C, H, W] in [0, 1] as p(x|z) has them: as 0 and 1 if the likelihood is binarised."""
    return (images >= 0.5).to(images.dtype) if likelihood == "binarised" else images


def negative_log_likelihood(decoded: Tensor, images: Tensor, likelihood: str) -> Tensor:
    """Return -ln p(x|z) of images [B, C, H, W] in [0, 1], one value per image, [B].

    `likelihood` is one of LIKELIHOODS. `decoded` holds logits or means, [B, C, H, W], or the mean and what
    gives the log-variance of every pixel value, [B, 2C, H, W].
    """
    if likelihood.startswith("gaussian"):
        nll = -normal_log_density(images, *_pixel_normal(decoded, likelihood))
    else:
        nll = bernoulli(decoded, observed(images, likelihood))
    return nll.sum((1, 2, 3))  # flatten would copy images whose channels are last in memory


def bernoulli(logits: Tensor, pixels: Tensor) -> Tensor:
    """Return F.binary_cross_entropy_with_logits of every pixel, as ln(1 + exp(logit)) - pixel * logit.

    In float32 this form is off by a millionth at a logit of 10, and takes half the time.
    """
    return _Bernoulli.apply(logits, pixels)


class _Bernoulli(torch.autograd.Function):
    """The cross entropy of `bernoulli`, whose gradient by the logits is sigmoid(logit) - pixel."""

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
    if likelihood.startswith("gaussian"):
        return _pixel_normal(decoded, likelihood)[0].clamp(0, 1)
    return torch.sigmoid(decoded)


def _pixel_normal(decoded: Tensor, likelihood: str) -> tuple[Tensor, Tensor]:
    if likelihood == "gaussian fixed":
        return decoded, torch.zeros_like(decoded)
    mean, output = decoded.chunk(2, dim=1)
    return mean, PIXEL_LOGVARS[likelihood](output)
