"""Diagonal Normals and image likelihoods, against closed forms, integrals and torch.distributions."""

import itertools
import math
from functools import partial

import pytest
import torch
from small_models import random_normals
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from dislab.errors import DislabError
from dislab.networks.distributions import (
    LIKELIHOODS,
    LOWEST_PIXEL_LOGVAR,
    average_of_normals,
    bernoulli,
    has_images,
    kl_to_standard_normal,
    likelihood_of,
    mean_image,
    negative_log_likelihood,
    normal_log_density,
    observed,
    pixel_channels,
    product_of_normals,
    rows_of,
    sample_normal,
    sum_by_group,
)

# Normals and likelihoods


def test_kl_to_standard_normal_equals_torch_distributions():
    mean, logvar = random_normals(7, 3)
    expected = kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, logvar), expected)


@pytest.mark.parametrize(("mean", "logvar"), [(0.0, 0.0), (1.3, -2.0), (-0.4, 1.1)])
def test_kl_to_standard_normal_equals_its_integral(mean, logvar):
    z = torch.linspace(-20, 20, 200_001, dtype=torch.float64)
    deviation = math.exp(logvar / 2)
    density = torch.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    ratio = -math.log(deviation) - 0.5 * ((z - mean) / deviation) ** 2 + 0.5 * z**2
    found = kl_to_standard_normal(torch.tensor(mean), torch.tensor(logvar)).item()
    assert found == pytest.approx(torch.trapezoid(density * ratio, z).item(), abs=1e-6)


def test_normal_log_density_equals_torch_distributions_and_broadcasts():
    mean, logvar = random_normals(5, 3)
    z, _ = random_normals(4, 3, seed=1)
    expected = Normal(mean[None], torch.exp(logvar / 2)[None]).log_prob(z[:, None])
    found = normal_log_density(z[:, None], mean[None], logvar[None])
    assert found.shape == (4, 5, 3)
    torch.testing.assert_close(found, expected)


def test_sample_normal_has_the_mean_and_the_deviation():
    mean, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[math.log(4.0), math.log(0.25)]])
    noise = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-2.0, 2.0]])
    expected = torch.tensor([[1.0, -2.0], [3.0, -1.5], [-3.0, -1.0]])
    torch.testing.assert_close(sample_normal(mean, logvar, noise), expected)


def test_bernoulli_likelihood_equals_torch_distributions():
    logits, _ = random_normals(3, 2, 4, 5)
    images = (torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    expected = -Bernoulli(logits=logits).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(negative_log_likelihood(logits, images, "bernoulli"), expected)


@pytest.mark.parametrize("logit", [-1e4, -100.0, -20.5, -12.0, 12.0, 20.5, 100.0, 1e4])
def test_bernoulli_likelihood_of_sure_pixels_is_finite_and_right(logit):
    decoded, black = torch.full((1, 1, 1, 1), logit), torch.zeros(1, 1, 1, 1)
    expected = max(logit, 0) + math.log1p(math.exp(-abs(logit)))  # -ln(1 - sigmoid(logit))
    of_black = negative_log_likelihood(decoded, black, "bernoulli").item()
    assert of_black == pytest.approx(expected, rel=1e-6, abs=2e-9)
    of_white = negative_log_likelihood(decoded, black + 1, "bernoulli").item()
    assert of_white == pytest.approx(expected - logit, rel=1e-6, abs=1e-6)  # (a difference of two logits)


def test_bernoulli_likelihood_of_grey_pixels_is_the_cross_entropy():
    logits, _ = random_normals(3, 1, 4, 4)
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = torch.sigmoid(logits)
    expected = -(images * share.log() + (1 - images) * (1 - share).log()).sum((1, 2, 3))
    torch.testing.assert_close(negative_log_likelihood(logits, images, "bernoulli"), expected)


def test_derivatives_of_the_bernoulli_likelihood():
    """The first of all arguments, the second, and torch's own in float32."""
    logits, _ = random_normals(2, 3)
    pixels = torch.rand(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    arguments = logits.requires_grad_(), pixels.requires_grad_()
    assert torch.autograd.gradcheck(bernoulli, arguments)
    assert torch.autograd.gradgradcheck(bernoulli, arguments)
    (slope,) = torch.autograd.grad(bernoulli(*arguments).sum(), logits)
    torch.testing.assert_close(slope, torch.sigmoid(logits) - pixels)
    wide = torch.linspace(-30, 30, 1000, requires_grad=True)
    share = torch.linspace(0, 1, 1000)
    ours, theirs = (f(wide, share) for f in (bernoulli, partial(cross_entropy, reduction="none")))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad(terms.sum(), wide)[0] for terms in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_gaussian_likelihood_equals_torch_distributions():
    mean, _ = random_normals(3, 2, 4, 5)
    # Far above the floor the log-variance is used as it is.
    logvar = torch.linspace(20, 25, mean.numel(), dtype=torch.float64).view_as(mean)
    images = torch.rand(mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = -Normal(mean, torch.exp(logvar / 2)).log_prob(images).sum((1, 2, 3))
    decoded = torch.cat([mean, logvar], dim=1)
    torch.testing.assert_close(
        negative_log_likelihood(decoded, images, "gaussian"), expected, rtol=1e-9, atol=1e-9
    )


def test_gaussian_log_variance_has_a_smooth_floor():
    raw = torch.tensor([-1000.0, LOWEST_PIXEL_LOGVAR, 5.0], dtype=torch.float64, requires_grad=True)
    images = torch.zeros(3, 1, 1, 1, dtype=torch.float64)
    decoded = torch.cat([images, raw.view(3, 1, 1, 1)], dim=1)
    found = negative_log_likelihood(decoded, images, "gaussian")
    # At the mean, -ln p = (ln 2 pi + log-variance) / 2.
    logvar = 2 * found - math.log(2 * math.pi)
    floor = 2 * math.log(1 / 255)
    excess = math.log1p(math.exp(5 - floor))
    expected = torch.tensor([floor, floor + math.log(2), floor + excess], dtype=torch.float64)
    torch.testing.assert_close(logvar.detach(), expected)
    (slope,) = torch.autograd.grad(found.sum(), raw)
    assert slope[1].item() == pytest.approx(0.25)
    assert slope[2].item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(("likelihood", "largest"), [("gaussian tanh", 1), ("gaussian tanh5", 5)])
def test_a_bounded_log_variance(likelihood, largest):
    """Of pixels at their mean, for which -ln p = (ln 2 pi + log-variance) / 2, and elsewhere by torch."""
    raw = torch.tensor([-100.0, -0.5, 0.0, 0.3, 100.0], dtype=torch.float64).view(5, 1, 1, 1)
    images = torch.full_like(raw, 0.5)
    found = negative_log_likelihood(torch.cat([images, raw], dim=1), images, likelihood)
    shares = torch.tensor([-1, -math.tanh(0.5), 0, math.tanh(0.3), 1], dtype=torch.float64)
    torch.testing.assert_close(2 * found - math.log(2 * math.pi), largest * shares)
    mean, raw = random_normals(3, 2, 4, 5)
    images = torch.rand(mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = -Normal(mean, torch.exp(largest * torch.tanh(raw) / 2)).log_prob(images).sum((1, 2, 3))
    found = negative_log_likelihood(torch.cat([mean, raw], dim=1), images, likelihood)
    torch.testing.assert_close(found, expected)


def test_a_fixed_log_variance_is_half_the_squared_error():
    mean, _ = random_normals(3, 2, 4, 5)
    images = torch.rand(mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (images - mean).square().sum((1, 2, 3)) / 2 + 40 * math.log(2 * math.pi) / 2
    torch.testing.assert_close(negative_log_likelihood(mean, images, "gaussian fixed"), expected)


def test_binarised_pixels_are_0_below_a_half_and_1_from_there_on():
    images = torch.tensor([0.0, 0.2, 127 / 255, 0.5, 128 / 255, 1.0]).view(1, 1, 2, 3)
    expected = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).view(1, 1, 2, 3)
    assert torch.equal(observed(images, "binarised"), expected)
    assert observed(images, "bernoulli") is images
    logits = torch.linspace(-2, 3, 6).view(1, 1, 2, 3)
    likelihood = Bernoulli(logits=logits).log_prob(expected).sum()
    torch.testing.assert_close(negative_log_likelihood(logits, images, "binarised"), -likelihood[None])
    torch.testing.assert_close(mean_image(logits, "binarised"), torch.sigmoid(logits))


def test_a_likelihood_is_named_with_its_log_variance():
    rules = ("floor", "tanh", "tanh5", "fixed")
    names = [likelihood_of("gaussian", rule) for rule in rules]
    assert ("bernoulli", "binarised", *names) == LIKELIHOODS
    assert [pixel_channels(name, 3) for name in LIKELIHOODS] == [3, 3, 6, 6, 6, 3]
    assert likelihood_of("binarised", "floor") == "binarised"
    with pytest.raises(DislabError, match="pixel_logvar=tanh needs likelihood=gaussian, not bernoulli"):
        likelihood_of("bernoulli", "tanh")


def test_mean_image_is_the_mean_of_the_likelihood():
    decoded, _ = random_normals(2, 2, 3, 3)
    torch.testing.assert_close(mean_image(decoded, "bernoulli"), Bernoulli(logits=decoded).mean)
    assert mean_image(decoded, "gaussian").shape == (2, 1, 3, 3)
    for likelihood in ("gaussian", "gaussian tanh", "gaussian tanh5"):
        torch.testing.assert_close(mean_image(decoded, likelihood), decoded[:, :1].clamp(0, 1))
    torch.testing.assert_close(mean_image(decoded, "gaussian fixed"), decoded.clamp(0, 1))
    assert pixel_channels("bernoulli", 3) == 3
    assert pixel_channels("gaussian", 3) == 6


# The product of Normals


def test_product_of_normals_equals_the_normalised_product_of_densities(way_of_sums):
    sizes = torch.tensor([1, 2, 5])
    group = torch.repeat_interleave(torch.arange(3), sizes)
    group = group[torch.randperm(8, generator=torch.Generator().manual_seed(1))]
    assert not torch.equal(group, group.sort().values)
    mean, logvar = random_normals(8, 2)
    product_mean, product_logvar = product_of_normals(mean, logvar, group, 3)
    assert product_mean.shape == product_logvar.shape == (3, 2)

    grid = torch.linspace(-15, 15, 60_001, dtype=torch.float64)
    for g, d in itertools.product(range(3), range(2)):
        log_product = sum(
            Normal(mean[i, d], torch.exp(logvar[i, d] / 2)).log_prob(grid) for i in range(8) if group[i] == g
        )
        density = torch.exp(log_product - log_product.max())
        density /= torch.trapezoid(density, grid)
        expected_mean = torch.trapezoid(density * grid, grid)
        expected_variance = torch.trapezoid(density * (grid - expected_mean) ** 2, grid)
        torch.testing.assert_close(product_mean[g, d], expected_mean, rtol=0, atol=1e-8)
        torch.testing.assert_close(product_logvar[g, d].exp(), expected_variance, rtol=1e-7, atol=0)


def test_average_of_normals_is_that_of_means_and_of_variances(way_of_sums):
    mean, logvar = random_normals(6, 2)
    group = torch.tensor([2, 0, 2, 2, 0, 1])
    found_mean, found_logvar = average_of_normals(mean, logvar, group, 3)
    for g, members in enumerate(([1, 4], [5], [0, 2, 3])):
        expected = sum(mean[i] for i in members) / len(members)
        torch.testing.assert_close(found_mean[g], expected)
        variance = sum(logvar[i].exp() for i in members) / len(members)
        torch.testing.assert_close(found_logvar[g], variance.log())


@pytest.mark.parametrize("join", [product_of_normals, average_of_normals])
def test_a_group_without_images_has_the_prior_and_leaves_the_gradient_alone(join, way_of_sums):
    group, fewer = torch.tensor([4, 1, 4, 1, 4]), torch.tensor([1, 0, 1, 0, 1])
    assert has_images(group, 6).tolist() == [False, True, False, False, True, False]
    mean, logvar = (tensor.requires_grad_() for tensor in random_normals(5, 3))
    found, expected = join(mean, logvar, group, 6), join(mean, logvar, fewer, 2)
    for part, other in zip(found, expected, strict=True):
        torch.testing.assert_close(part[[1, 4]], other)
        assert torch.equal(part[[0, 2, 3, 5]], torch.zeros(4, 3, dtype=torch.float64))
    weights = torch.linspace(-1, 2, 36, dtype=torch.float64).view(2, 6, 3)
    of_all = sum((part * weight).sum() for part, weight in zip(found, weights, strict=True))
    of_few = sum((part * weight[[1, 4]]).sum() for part, weight in zip(expected, weights, strict=True))
    slopes = (torch.autograd.grad(total, (mean, logvar)) for total in (of_all, of_few))
    torch.testing.assert_close(*slopes)


def test_sums_and_rows_by_group(way_of_sums):
    values, other = random_normals(7, 3)
    group = torch.tensor([2, 0, 1, 2, 1, 2, 3])
    sums = sum_by_group(values, group, 4)
    rows = rows_of(sums, group)
    for g in range(4):
        expected = sum(values[i] for i in range(7) if group[i] == g)
        torch.testing.assert_close(sums[g], expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(rows, torch.stack([sums[g] for g in group.tolist()]))
    # A value that is not finite stays in its group, in the gradient too.
    values[0, 0] = torch.inf
    values.requires_grad_()
    sums = sum_by_group(values, group, 4)
    assert torch.isfinite(sums).sum() == 11
    (slope,) = torch.autograd.grad(rows_of(sums, group)[:, 1:].square().sum(), values)
    assert torch.isfinite(slope).all()
    assert torch.autograd.gradcheck(lambda v: sum_by_group(v, group, 4), other.requires_grad_())
    assert torch.autograd.gradcheck(lambda v: rows_of(v, group), other[:4].detach().requires_grad_())


def test_product_of_one_normal_is_itself():
    mean, logvar = random_normals(4, 3)
    found = product_of_normals(mean, logvar, torch.arange(4), 4)
    torch.testing.assert_close(found, (mean, logvar))


def test_gradients_of_the_product_flow_to_every_member(way_of_sums):
    group = torch.tensor([2, 0, 1, 2, 1, 2])
    mean, logvar = (tensor.requires_grad_() for tensor in random_normals(6, 2))
    assert torch.autograd.gradcheck(lambda m, v: product_of_normals(m, v, group, 3), (mean, logvar))
    product_mean, product_logvar = product_of_normals(mean, logvar, group, 3)
    to_mean, to_logvar = torch.autograd.grad(product_mean.sum(), (mean, logvar), retain_graph=True)
    assert (to_mean > 0).all()
    shared = group != 0  # the mean of a group of one does not depend on its variance
    assert (to_logvar[shared].abs() > 1e-6).all()
    assert (torch.autograd.grad(product_logvar.sum(), logvar)[0] > 0).all()
