"""The models' losses and the formulas below them, against closed forms, integrals and slow loops."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from dislab.data.groups import Groups
from dislab.errors import DislabError
from dislab.models.betatcvae import BetaTCVAE, decompose_kl, log_importance_weights
from dislab.models.betavae import BetaVAE
from dislab.models.mlvae import MLVAE
from dislab.models.mlvae_svi import MLVAESVI
from dislab.models.vae import VAE
from dislab.networks.architectures import choose_network
from dislab.networks.distributions import (
    LOWEST_PIXEL_LOGVAR,
    kl_to_standard_normal,
    mean_image,
    negative_log_likelihood,
    normal_log_density,
    pixel_channels,
    product_of_normals,
    sample_normal,
)
from dislab.training.batches import Batch

IMAGE_SHAPE = (1, 8, 8)
STEP = torch.tensor(0.0)


def random_normals(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log-variances in float64, so that only formulas can differ."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    logvar = 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64) - 0.5
    return mean, logvar


def make_model(kind: type, seed: int = 0, **hyperparameters):
    """A small model in float64 with initial parameters large enough for all loss terms to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(IMAGE_SHAPE, network="mlp", **hyperparameters).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    return model


def make_batch(sizes: list[int], latents: int, seed: int = 0) -> Batch:
    """Groups of the given sizes, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    return Batch(
        images=torch.rand(count, *IMAGE_SHAPE, generator=generator, dtype=torch.float64),
        noise=torch.randn(count, latents, generator=generator, dtype=torch.float64),
        dataset_size=1000,
        groupings=(make_groups(sizes),),
    )


def make_groups(sizes: list[int]) -> Groups:
    """Groups of the given sizes, one after the other."""
    return Groups(
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        torch.tensor([0, *itertools.accumulate(sizes)][:-1]),
    )


def gradients(loss: torch.Tensor, model) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)


def assert_same_loss(loss, other_loss, model, other_model=None) -> None:
    """The same value, and the same gradient of every parameter."""
    torch.testing.assert_close(loss, other_loss, rtol=1e-10, atol=1e-10)
    theirs = gradients(other_loss, other_model or model)
    for mine, other in zip(gradients(loss, model), theirs, strict=True):
        assert mine.abs().max() > 1e-6
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def fix_posterior(model, mean: torch.Tensor, logvar: torch.Tensor) -> None:
    """Make the encoder give these parameters whatever the images."""
    model.encode = lambda images: (mean, logvar)


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


def test_mean_image_is_the_mean_of_the_likelihood():
    decoded, _ = random_normals(2, 2, 3, 3)
    torch.testing.assert_close(mean_image(decoded, "bernoulli"), Bernoulli(logits=decoded).mean)
    assert mean_image(decoded, "gaussian").shape == (2, 1, 3, 3)
    torch.testing.assert_close(mean_image(decoded, "gaussian"), decoded[:, :1].clamp(0, 1))
    assert pixel_channels("bernoulli", 3) == 3
    assert pixel_channels("gaussian", 3) == 6


# The product of Normals


def test_product_of_normals_equals_the_normalised_product_of_densities():
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


def test_product_of_one_normal_is_itself():
    mean, logvar = random_normals(4, 3)
    found = product_of_normals(mean, logvar, torch.arange(4), 4)
    torch.testing.assert_close(found, (mean, logvar))


def test_gradients_of_the_product_flow_to_every_member():
    group = torch.tensor([2, 0, 1, 2, 1, 2])
    mean, logvar = (tensor.requires_grad_() for tensor in random_normals(6, 2))
    assert torch.autograd.gradcheck(lambda m, v: product_of_normals(m, v, group, 3), (mean, logvar))
    product_mean, product_logvar = product_of_normals(mean, logvar, group, 3)
    to_mean, to_logvar = torch.autograd.grad(product_mean.sum(), (mean, logvar), retain_graph=True)
    assert (to_mean > 0).all()
    shared = group != 0  # the mean of a group of one does not depend on its variance
    assert (to_logvar[shared].abs() > 1e-6).all()
    assert (torch.autograd.grad(product_logvar.sum(), logvar)[0] > 0).all()


# VAE


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_vae_loss_is_reconstruction_plus_kl(likelihood):
    model = make_model(VAE, latents=3, likelihood=likelihood)
    batch = make_batch([1] * 5, latents=3)
    terms = model.loss(batch, STEP)
    reconstruction = kl = 0.0
    for image, noise in zip(batch.images, batch.noise, strict=True):
        mean, logvar = model.encode(image[None])
        posterior = Normal(mean[0], torch.exp(logvar[0] / 2))
        decoded = model.decode((posterior.mean + posterior.stddev * noise)[None])[0]
        reconstruction = reconstruction - slow_log_likelihood(decoded, image, likelihood) / 5
        kl = kl + kl_divergence(posterior, Normal(0.0, 1.0)).sum() / 5
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["kl"], kl)
    assert_same_loss(terms["loss"], reconstruction + kl, model)


def linear_gaussian_vae(loadings: torch.Tensor, pixel_deviation: float) -> VAE:
    """x = W z + pixel noise, as a VAE whose likelihood is exactly that."""
    model = make_model(VAE, latents=loadings.shape[1], likelihood="gaussian")
    excess = torch.tensor(2 * math.log(pixel_deviation) - LOWEST_PIXEL_LOGVAR, dtype=torch.float64)
    raw = LOWEST_PIXEL_LOGVAR + torch.log(torch.expm1(excess))  # what the floor maps to the wanted variance

    def decode(codes: torch.Tensor) -> torch.Tensor:
        mean = (codes @ loadings.T).view(-1, *IMAGE_SHAPE)
        return torch.cat([mean, raw.expand_as(mean)], dim=1)

    model.decode = decode
    return model


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_vae_loss_is_the_log_evidence_plus_the_gap_of_the_posterior(shift):
    # -ELBO = -ln p(x) + KL(q(z|x) || p(z|x)). Orthogonal loadings make the true posterior diagonal.
    generator = torch.Generator().manual_seed(0)
    loadings = torch.linalg.qr(torch.randn(64, 2, generator=generator, dtype=torch.float64))[0]
    loadings = loadings * torch.tensor([3.0, 0.5], dtype=torch.float64)
    pixel_variance = 0.2**2
    x = torch.rand(64, generator=generator, dtype=torch.float64)
    covariance = loadings @ loadings.T + pixel_variance * torch.eye(64, dtype=torch.float64)
    zero = torch.zeros(64, dtype=torch.float64)
    evidence = torch.distributions.MultivariateNormal(zero, covariance).log_prob(x)

    precision = 1 + loadings.square().sum(0) / pixel_variance
    true_mean, true_logvar = (x @ loadings) / pixel_variance / precision, -precision.log()
    mean, logvar = true_mean + shift, true_logvar - shift
    gap = kl_divergence(
        Normal(mean, torch.exp(logvar / 2)), Normal(true_mean, torch.exp(true_logvar / 2))
    ).sum()
    assert (gap > 1) == (shift > 0)

    # The integrand is quadratic in the noise, for which these four points give the exact expectation.
    points = math.sqrt(2) * torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    model = linear_gaussian_vae(loadings, math.sqrt(pixel_variance))
    fix_posterior(model, mean.expand(4, 2), logvar.expand(4, 2))
    batch = make_batch([1] * 4, latents=2)
    batch.images, batch.noise = x.view(1, *IMAGE_SHAPE).expand(4, -1, -1, -1), points
    loss = model.loss(batch, STEP)["loss"]
    torch.testing.assert_close(loss, -evidence + gap, rtol=1e-9, atol=0)


# beta-VAE


def beta_weight(model, step: float) -> float:
    """The weight of the KL term at a step, from the loss and its parts."""
    terms = model.loss(make_batch([1] * 4, latents=3), torch.tensor(step))
    return ((terms["loss"] - terms["reconstruction"]) / terms["kl"]).item()


def test_beta_rises_linearly_over_the_warm_up():
    model = make_model(BetaVAE, latents=3, beta=6.0, warmup_steps=100)
    # The first step already has a hundredth of it, the hundredth step (number 99) has all.
    weights = {0.0: 0.06, 24.0: 1.5, 49.0: 3.0, 98.0: 5.94, 99.0: 6.0, 100.0: 6.0, 5000.0: 6.0}
    for step, weight in weights.items():
        assert beta_weight(model, step) == pytest.approx(weight, rel=1e-5)


def test_beta_is_whole_from_the_first_step_without_warm_up():
    model = make_model(BetaVAE, latents=3, beta=6.0, warmup_steps=0)
    assert beta_weight(model, 0.0) == pytest.approx(6.0)
    assert beta_weight(model, 1000.0) == pytest.approx(6.0)


def test_beta_of_one_is_the_vae():
    vae, model = make_model(VAE, latents=3), make_model(BetaVAE, latents=3, beta=1.0)
    batch = make_batch([1] * 6, latents=3)
    assert_same_loss(model.loss(batch, STEP)["loss"], vae.loss(batch, STEP)["loss"], model, vae)


def test_normalised_beta_is_beta_times_latents_over_pixels():
    model = BetaVAE((3, 64, 64), beta=8.0, latents=12, network="mlp")
    assert model.report((3, 64, 64)) == {"normalised_beta": pytest.approx(8.0 * 12 / (3 * 64 * 64))}


# Multi-level VAE

UNEVEN = [3, 1, 4, 2]


def slow_log_likelihood(decoded: torch.Tensor, image: torch.Tensor, likelihood: str) -> torch.Tensor:
    """ln p(x|z) of one image, pixel by pixel formula."""
    if likelihood == "bernoulli":
        share = torch.sigmoid(decoded)
        return (image * torch.log(share) + (1 - image) * torch.log(1 - share)).sum()
    mean, raw = decoded[: len(image)], decoded[len(image) :]
    floor = 2 * math.log(1 / 255)
    logvar = floor + torch.log(1 + torch.exp(raw - floor))
    return Normal(mean, torch.exp(logvar / 2)).log_prob(image).sum()


def slow_average_group_elbo(model: MLVAE, batch: Batch) -> torch.Tensor:
    """Bouchacourt et al. 2017, eq. 3 to 5, one group and one image at a time."""
    prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    elbos = []
    for g in range(batch.groupings[0].number):
        members = [i for i in range(len(batch.images)) if batch.groupings[0].index[i] == g]
        posteriors = {}
        for i in members:
            mean, logvar = model.encode(batch.images[i : i + 1])
            posteriors[i] = mean[0], torch.exp(logvar[0])
        content_mean, content_variance = (part[: model.content] for part in posteriors[members[0]])
        for i in members[1:]:  # multiply the next Normal onto the product so far
            mean, variance = (part[: model.content] for part in posteriors[i])
            content_mean = (content_mean * variance + mean * content_variance) / (variance + content_variance)
            content_variance = variance * content_variance / (variance + content_variance)
        content_posterior = Normal(content_mean, content_variance.sqrt())
        first = int(batch.groupings[0].first[g])
        content = content_mean + content_variance.sqrt() * batch.noise[first, : model.content]
        elbo = -kl_divergence(content_posterior, prior).sum()
        for i in members:
            mean, variance = (part[model.content :] for part in posteriors[i])
            style = mean + variance.sqrt() * batch.noise[i, model.content :]
            decoded = model.decode(torch.cat([content, style])[None])[0]
            elbo = elbo + slow_log_likelihood(decoded, batch.images[i], model.likelihood)
            elbo = elbo - kl_divergence(Normal(mean, variance.sqrt()), prior).sum()
        elbos.append(elbo)
    return sum(elbos) / len(elbos)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("sizes", [UNEVEN, [4, 4], [5]])
def test_mlvae_loss_is_the_negative_average_group_elbo(sizes, likelihood):
    model = make_model(MLVAE, content=3, style=2, likelihood=likelihood)
    batch = make_batch(sizes, latents=5)
    assert_same_loss(model.loss(batch, STEP)["loss"], -slow_average_group_elbo(model, batch), model)


def test_mlvae_has_one_content_kl_per_group_and_one_style_kl_per_image():
    model = make_model(MLVAE, content=2, style=3)
    mean, logvar = random_normals(10, 5)
    fix_posterior(model, mean, logvar)
    batch = make_batch(UNEVEN, latents=5)
    terms = model.loss(batch, STEP)
    prior = Normal(0.0, 1.0)
    style = kl_divergence(Normal(mean[:, 2:], torch.exp(logvar[:, 2:] / 2)), prior).sum(1)
    product = product_of_normals(mean[:, :2], logvar[:, :2], batch.groupings[0].index, 4)
    content = kl_divergence(Normal(product[0], torch.exp(product[1] / 2)), prior).sum(1)
    assert style.shape == (10,)
    assert content.shape == (4,)
    torch.testing.assert_close(terms["kl_style"], style.mean())
    torch.testing.assert_close(terms["kl_content"], content.mean())
    total = 10 * terms["reconstruction"] + style.sum() + content.sum()
    torch.testing.assert_close(terms["loss"], total / 4)


def test_mlvae_with_groups_of_one_is_the_vae():
    vae, model = make_model(VAE, latents=5), make_model(MLVAE, content=3, style=2)
    batch = make_batch([1] * 7, latents=5)
    assert_same_loss(model.loss(batch, STEP)["loss"], vae.loss(batch, STEP)["loss"], model, vae)


def test_mlvae_with_two_groupings_has_a_content_code_for_each():
    """By hand: the product of Normals of each grouping's groups, one KL for each group of each grouping."""
    model = make_model(MLVAE, content=2, style=1, groupings=2)
    assert model.blocks == {"content_1": slice(0, 2), "content_2": slice(2, 4), "style": slice(4, 5)}
    first, second = make_groups([3, 3]), Groups(torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([0, 1]))
    batch = make_batch([3, 3], latents=5)
    batch.groupings = (first, second)
    prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    mean, logvar = model.encode(batch.images)
    codes = mean + torch.exp(logvar / 2) * batch.noise
    divergence = kl_divergence(Normal(mean[:, 4:], torch.exp(logvar[:, 4:] / 2)), prior).sum()
    for groups, block in ((first, slice(0, 2)), (second, slice(2, 4))):
        for g in range(2):
            members = torch.nonzero(groups.index == g)[:, 0]
            precision = torch.exp(-logvar[members, block])
            product_mean = (precision * mean[members, block]).sum(0) / precision.sum(0)
            deviation = precision.sum(0).rsqrt()
            divergence = divergence + kl_divergence(Normal(product_mean, deviation), prior).sum()
            codes[members, block] = product_mean + deviation * batch.noise[groups.first[g], block]
    likelihood = sum(
        slow_log_likelihood(model.decode(codes[i : i + 1])[0], batch.images[i], model.likelihood)
        for i in range(6)
    )
    assert_same_loss(model.loss(batch, STEP)["loss"], (divergence - likelihood) / 2, model)


def test_mlvae_with_a_content_draw_per_image():
    """Every image has its own noise around the group's product; the KL stays that of the group."""
    model = make_model(MLVAE, content=3, style=2, content_draw="image")
    batch = make_batch(UNEVEN, latents=5)
    groups = batch.groupings[0]
    mean, logvar = random_normals(10, 3)
    content, kl = model.content_of(groups, mean, logvar, batch.noise[:, :3])
    group_mean, group_logvar = product_of_normals(mean, logvar, groups.index, 4)
    for i in range(10):
        g = int(groups.index[i])
        expected = group_mean[g] + torch.exp(group_logvar[g] / 2) * batch.noise[i, :3]
        torch.testing.assert_close(content[i], expected)
    prior = Normal(0.0, 1.0)
    expected = kl_divergence(Normal(group_mean, torch.exp(group_logvar / 2)), prior).sum(1)
    torch.testing.assert_close(kl, expected)


@pytest.mark.parametrize("content_draw", ["group", "image"])
def test_mlvae_with_a_mixture_of_the_members(content_draw):
    """The KL of a draw against torch's own mixture, one group at a time."""
    model = make_model(MLVAE, content=3, style=2, posterior="mixture", content_draw=content_draw)
    batch = make_batch(UNEVEN, latents=5)
    groups = batch.groupings[0]
    mean, logvar = random_normals(10, 3)
    content, kl = model.content_of(groups, mean, logvar, batch.noise[:, :3])
    own = mean + torch.exp(logvar / 2) * batch.noise[:, :3]
    for g in range(4):
        members = torch.nonzero(groups.index == g)[:, 0]
        drawn = own[groups.first[g]][None] if content_draw == "group" else own[members]
        torch.testing.assert_close(content[members], drawn.expand(len(members), 3))
        mixture = MixtureSameFamily(
            Categorical(torch.ones(len(members), dtype=torch.float64)),
            Independent(Normal(mean[members], torch.exp(logvar[members] / 2)), 1),
        )
        prior = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0).log_prob(drawn).sum(1)
        torch.testing.assert_close(kl[g], (mixture.log_prob(drawn) - prior).mean())


def test_the_order_of_images_does_not_matter():
    model = make_model(MLVAE, content=3, style=2)
    batch = make_batch(UNEVEN, latents=5)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    place = torch.argsort(order)  # where each image went
    mixed = Batch(
        batch.images[order],
        batch.noise[order],
        batch.dataset_size,
        (Groups(batch.groupings[0].index[order], place[batch.groupings[0].first]),),
    )
    assert (mixed.groupings[0].index.diff() < 0).any()
    assert_same_loss(model.loss(mixed, STEP)["loss"], model.loss(batch, STEP)["loss"], model)


def test_all_images_of_a_group_share_one_content_draw():
    model = make_model(MLVAE, content=3, style=2)
    batch = make_batch(UNEVEN, latents=5)
    seen = []
    decode = model.decode
    model.decode = lambda codes: seen.append(codes) or decode(codes)
    model.loss(batch, STEP)
    content, style = seen[0].detach().split([3, 2], dim=1)
    assert len(torch.unique(content, dim=0)) == 4
    assert len(torch.unique(style, dim=0)) == 10
    mean, logvar = model.encode(batch.images)
    for g in range(4):
        members = batch.groupings[0].index == g
        group_mean, group_logvar = product_of_normals(
            mean[members, :3], logvar[members, :3], torch.zeros(UNEVEN[g], dtype=torch.int64), 1
        )
        expected = group_mean + torch.exp(group_logvar / 2) * batch.noise[batch.groupings[0].first[g], :3]
        torch.testing.assert_close(content[members], expected.detach().expand(UNEVEN[g], 3))


def test_reconstruction_alone_trains_the_content_posterior_of_every_image():
    # A reproduction in the wild detaches the product of Normals, so that only the KL trains the content.
    model = make_model(MLVAE, content=3, style=2)
    batch = make_batch(UNEVEN, latents=5)
    mean, logvar = (tensor.detach().requires_grad_() for tensor in model.encode(batch.images))
    fix_posterior(model, mean, logvar)
    reconstruction = model.loss(batch, STEP)["reconstruction"]
    to_mean, to_logvar = torch.autograd.grad(reconstruction, (mean, logvar))
    assert (to_mean[:, :3].abs() > 1e-8).all()
    assert (to_logvar[:, :3].abs() > 1e-8).all()

    # and by the right amount: central differences in the content of one member of the group of four
    for tensor, found in ((mean, to_mean), (logvar, to_logvar)):
        values = []
        for change in (1e-5, -1e-5):
            moved = tensor.detach().clone()
            moved[5, 1] += change
            fix_posterior(model, *((moved, logvar) if tensor is mean else (mean, moved)))
            values.append(model.loss(batch, STEP)["reconstruction"].item())
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(found[5, 1].item(), rel=1e-4)


def test_blocks_name_the_content_and_style_dimensions():
    model = make_model(MLVAE, content=3, style=2)
    assert model.latents == 5
    codes = torch.arange(10.0).view(2, 5)
    content, style = codes.split([model.content, model.style], dim=1)
    assert torch.equal(content, codes[:, model.blocks["content"]])
    assert torch.equal(style, codes[:, model.blocks["style"]])
    assert content.shape == (2, 3)
    assert style.shape == (2, 2)


def test_mlvae_betas_weigh_the_two_divergences_and_nothing_else():
    batch = make_batch(UNEVEN, latents=5)
    plain = make_model(MLVAE, content=3, style=2)
    terms = plain.loss(batch, STEP)
    style, content = 10 * terms["kl_style"], 4 * terms["kl_content"]
    for weights, extra in (
        ({"beta_style": 5.0}, 4 * style),
        ({"beta_content": 0.25}, -0.75 * content),
        ({"beta_style": 0.0, "beta_content": 3.0}, 2 * content - style),
    ):
        model = make_model(MLVAE, content=3, style=2, **weights)
        found = model.loss(batch, STEP)
        assert_same_loss(found["loss"], terms["loss"] + extra / 4, model, plain)
        for name in ("reconstruction", "kl_style", "kl_content"):
            torch.testing.assert_close(found[name], terms[name], rtol=0, atol=0)


SCATTERED = (  # a group of three, of one, of four and of two, mixed; and other groups of the same images
    Groups(torch.tensor([2, 0, 2, 1, 3, 0, 2, 3, 0, 2]), torch.tensor([1, 3, 0, 4])),
    Groups(torch.tensor([0, 0, 1, 2, 1, 1, 0, 1, 1, 1]), torch.tensor([0, 2, 3])),
)


@pytest.mark.parametrize("posterior", ["product", "mixture"])
@pytest.mark.parametrize("groupings", [1, 2])
def test_encode_groups_joins_the_content_of_the_members(groupings, posterior):
    """The product's and the mixture's moments by sums over a grid, one group and dimension at a time."""
    model = make_model(MLVAE, content=2, style=1, groupings=groupings, posterior=posterior)
    latents = 2 * groupings + 1
    mean, logvar = random_normals(10, latents)
    untouched = mean.clone(), logvar.clone()
    fix_posterior(model, mean, logvar)
    found = model.encode_groups(torch.zeros(10, *IMAGE_SHAPE), SCATTERED[:groupings])
    torch.testing.assert_close((mean, logvar), untouched, rtol=0, atol=0)
    for part, own in zip(found, (mean, logvar), strict=True):
        assert part.shape == (10, latents)
        torch.testing.assert_close(part[:, -1], own[:, -1], rtol=0, atol=0)  # the style

    grid = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    for number, groups in enumerate(SCATTERED[:groupings]):
        for g, d in itertools.product(range(groups.number), range(2 * number, 2 * number + 2)):
            members = [i for i in range(10) if groups.index[i] == g]
            densities = [
                Normal(mean[i, d], torch.exp(logvar[i, d] / 2)).log_prob(grid).exp() for i in members
            ]
            joined = torch.stack(densities)
            density = joined.prod(0) if posterior == "product" else joined.mean(0)
            density /= density.sum()
            expected = (density * grid).sum()
            variance = (density * (grid - expected) ** 2).sum()
            for i in members:
                torch.testing.assert_close(found[0][i, d], expected, rtol=1e-7, atol=1e-8)
                torch.testing.assert_close(found[1][i, d].exp(), variance, rtol=1e-6, atol=0)
            if len(members) == 1:
                torch.testing.assert_close(found[0][members, d], mean[members, d])
                torch.testing.assert_close(found[1][members, d], logvar[members, d])


# Multi-level VAE without an encoder


def make_svi(**hyperparameters) -> MLVAESVI:
    return make_model(MLVAESVI, **{"content": 2, "style": 1, "inference_steps": 3} | hyperparameters)


def test_svi_trains_the_decoder_alone():
    model = make_svi()
    assert not any("encoder" in name for name, _ in model.named_parameters())
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"decoder"}
    batch = make_batch(UNEVEN, latents=3)
    terms = model.loss(batch, STEP)
    assert all(torch.isfinite(term) for term in terms.values())
    total = 10 * (terms["reconstruction"] + terms["kl_style"]) + 4 * terms["kl_content"]
    torch.testing.assert_close(terms["loss"], total / 4)
    assert terms["kl_style"] > 0 and terms["kl_content"] > 0
    for gradient in gradients(terms["loss"], model):
        assert gradient.abs().max() > 1e-6
    assert all(parameter.grad is None for parameter in model.parameters())
    terms["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_svi_takes_its_decoder_step_at_the_parameters_that_it_inferred():
    """The decoder's gradient is that of the ELBO at fixed variational parameters, one group at a time."""
    model = make_svi()
    batch = make_batch(UNEVEN, latents=3)
    groups = batch.groupings[0]
    noise = torch.stack([batch.noise.roll(shift, 0) for shift in (1, 2, 3)])
    [(content_mean, content_logvar)], (style_mean, style_logvar) = model.infer(
        batch.images, batch.groupings, noise
    )
    prior = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    elbo = -kl_divergence(Normal(content_mean, torch.exp(content_logvar / 2)), prior).sum()
    elbo = elbo - kl_divergence(Normal(style_mean, torch.exp(style_logvar / 2)), prior).sum()
    for i in range(10):
        g = groups.index[i]
        content = content_mean[g] + torch.exp(content_logvar[g] / 2) * batch.noise[groups.first[g], :2]
        style = style_mean[i] + torch.exp(style_logvar[i] / 2) * batch.noise[i, 2:]
        decoded = model.decode(torch.cat([content, style])[None])[0]
        elbo = elbo + slow_log_likelihood(decoded, batch.images[i], model.likelihood)
    assert_same_loss(model.loss(batch, STEP)["loss"], -elbo / 4, model)


def test_svi_codes_are_the_same_in_inference_mode_and_leave_the_decoder_alone():
    model = make_svi()
    batch = make_batch(UNEVEN, latents=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    codes = model.encode(batch.images)
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(batch.images.clone()), codes, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(batch.images), codes, rtol=0, atol=0)
    assert all(part.shape == (10, 3) and not part.requires_grad for part in codes)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_svi_codes_of_an_image_do_not_depend_on_the_others():
    model = make_svi(inference_steps=10)
    images = make_batch(UNEVEN, latents=3).images
    together = model.encode(images)
    assert together[0].std(0).min() > 0.05, "images differ"
    order = [7, 3, 0]
    for part, other in zip(together, model.encode(images[order]), strict=True):
        torch.testing.assert_close(part[order], other, rtol=0, atol=1e-3)


def test_svi_more_inference_lowers_the_loss():
    """Of a decoder trained on squares whose row (of a group) and column (of an image) vary."""
    images = torch.zeros(12, *IMAGE_SHAPE, dtype=torch.float64)
    for i in range(12):
        images[i, 0, 2 * (i // 3) : 2 * (i // 3) + 2, 2 * (i % 3) : 2 * (i % 3) + 3] = 1
    groups = (make_groups([3] * 4),)
    model = make_svi(inference_rate=0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(2)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        optimiser.zero_grad()
        noise = torch.randn(12, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        model.loss(Batch(images, noise, 12, groups), STEP)["loss"].backward()
        optimiser.step()

    def loss(inference_steps: int) -> float:
        model.inference_steps = inference_steps
        mean, logvar = model.encode_groups(images, groups)
        draws = []
        for seed in range(20):
            noise = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            content = mean[groups[0].first, :2], logvar[groups[0].first, :2]
            style = mean[:, 2:], logvar[:, 2:]
            draws.append(model._elbo_of(images, groups, [content, style], noise)["loss"].item())
        return np.mean(draws)

    losses = [loss(steps) for steps in (1, 10, 60)]
    assert losses[0] > losses[1] + 1 and losses[1] > losses[2] + 1


@pytest.mark.parametrize("grouped", [False, True])
def test_svi_of_a_linear_decoder_finds_the_posterior_of_factor_analysis(grouped):
    """x = A (c, s) + noise: the mean of the exact posterior, and 1 / its precision's diagonal, which is the
    variance of the best factorised Normal."""
    generator = torch.Generator().manual_seed(0)
    loadings = 0.3 * torch.randn(64, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64) @ loadings.T
    x = x + 0.8 * torch.randn(5, 64, generator=generator, dtype=torch.float64)
    sizes = [3, 2] if grouped else [1] * 5
    groups = make_groups(sizes)
    pixel_variance = 0.8**2
    # The unknowns are the contents of all groups (two each), then the styles of all images.
    number = 2 * len(sizes) + 5
    design = torch.zeros(5, 64, number, dtype=torch.float64)
    for i in range(5):
        g = int(groups.index[i])
        design[i, :, 2 * g : 2 * g + 2] = loadings[:, :2]
        design[i, :, 2 * len(sizes) + i] = loadings[:, 2]
    design = design.reshape(-1, number)
    precision = torch.eye(number, dtype=torch.float64) + design.T @ design / pixel_variance
    posterior = torch.linalg.solve(precision, design.T @ x.flatten() / pixel_variance)
    variance = 1 / precision.diagonal()
    assert posterior.abs().max() > 0.5
    assert (precision - precision.diagonal().diag()).abs().max() > 0.5, "not the product of single posteriors"

    place = 2 * groups.index[:, None] + torch.arange(2)
    style = 2 * len(sizes) + torch.arange(5)[:, None]
    place = torch.cat([place, style], dim=1)
    expected_mean, expected_logvar = posterior[place], variance[place].log()

    model = make_svi(likelihood="gaussian", inference_rate=0.1)
    model.decode = linear_gaussian_vae(loadings, math.sqrt(pixel_variance)).decode
    images = x.view(5, *IMAGE_SHAPE)
    # Draws of ±1 whose products over 16 steps cancel, as the gradient's noise then does: Hadamard's matrix,
    # a column for each of the unknowns of a group.
    columns = [(1, 2, 3 + image) for image in range(5)]
    signs = [[[(-1) ** (step & c).bit_count() for c in own] for own in columns] for step in range(16)]
    noise = torch.tensor(signs, dtype=torch.float64).repeat(25, 1, 1)
    [(mean, logvar)], (style_mean, style_logvar) = model.infer(images, (groups,), noise)
    found = torch.cat([mean[groups.index], style_mean], dim=1)
    torch.testing.assert_close(found, expected_mean, rtol=0, atol=0.03)
    found = torch.cat([logvar[groups.index], style_logvar], dim=1)
    torch.testing.assert_close(found, expected_logvar, rtol=0, atol=0.06)

    model.inference_steps, model.inference_rate = 400, 0.03
    mean, _ = model.encode_groups(images, (groups,)) if grouped else model.encode(images)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=0.06)


# beta-TCVAE


def toy_posteriors() -> tuple[torch.Tensor, torch.Tensor]:
    """q(z|x_n) of a dataset of six images with two code dimensions that hang together."""
    mean = torch.tensor([[-1.5, -1.2], [-1.0, -1.1], [0.0, 0.4], [0.3, -0.2], [1.2, 1.4], [1.6, 0.9]])
    deviation = torch.tensor([[0.3, 0.5], [0.6, 0.4], [0.5, 0.5], [0.8, 0.3], [0.4, 0.7], [0.5, 0.4]])
    return mean.double(), 2 * deviation.double().log()


def integrals(mean: torch.Tensor, logvar: torch.Tensor) -> tuple[float, float, float]:
    """Mutual information, total correlation and dimension-wise KL of a uniform mixture, on a 2-D grid."""
    z = torch.linspace(-6, 6, 601, dtype=torch.float64)
    cell = (z[1] - z[0]).item()
    densities = torch.exp(
        Normal(mean[:, :, None], torch.exp(logvar / 2)[:, :, None]).log_prob(z)
    )  # [6, 2, Z]
    conditional = densities[:, 0, :, None] * densities[:, 1, None, :]  # [6, Z, Z]
    joint = conditional.mean(0)
    marginal = densities.mean(0)  # [2, Z]
    product = marginal[0][:, None] * marginal[1][None]
    prior = torch.exp(Normal(0.0, 1.0).log_prob(z))

    def divergence(p: torch.Tensor, q: torch.Tensor, volume: float) -> float:
        return (torch.where(p > 1e-250, p * torch.log(p / q), 0.0).sum() * volume).item()

    information = sum(divergence(p, joint, cell**2) for p in conditional) / len(mean)
    dimensionwise = sum(divergence(p, prior, cell) for p in marginal)
    return information, divergence(joint, product, cell**2), dimensionwise


def test_the_three_integrals_sum_to_the_closed_form_kl():
    mean, logvar = toy_posteriors()
    kl = kl_to_standard_normal(mean, logvar).sum(1).mean().item()
    assert sum(integrals(mean, logvar)) == pytest.approx(kl, abs=1e-6)


def test_decompose_kl_with_exact_weights_equals_the_integrals():
    mean, logvar = toy_posteriors()
    information, correlation, dimensionwise = integrals(mean, logvar)
    # The minibatch is the whole dataset, with many samples per image: every pair of samples from a
    # low-discrepancy sequence, and weight 1/N for each image however often it is repeated.
    repeats, rounds = 128, 16
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(repeats * rounds).double()
    noise = Normal(0.0, 1.0).icdf(uniform.clamp(1e-9, 1 - 1e-9)).view(rounds, repeats, 2)
    many_mean, many_logvar = (tensor.repeat_interleave(repeats, dim=0) for tensor in (mean, logvar))
    weights = torch.full((6 * repeats, 6 * repeats), -math.log(6 * repeats), dtype=torch.float64)
    found = []
    for draw in noise:
        codes = sample_normal(many_mean, many_logvar, draw.repeat(6, 1))
        found.append(torch.stack(decompose_kl(codes, many_mean, many_logvar, weights)))
    found_information, found_correlation = torch.stack(found).mean(0).tolist()
    assert correlation > 0.2
    assert found_information == pytest.approx(information, abs=4e-3)
    assert found_correlation == pytest.approx(correlation, abs=4e-3)
    kl = kl_to_standard_normal(mean, logvar).sum(1).mean().item()
    assert kl - found_information - found_correlation == pytest.approx(dimensionwise, abs=4e-3)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_decompose_kl_equals_slow_loops(estimator):
    mean, logvar = random_normals(5, 3)
    codes, _ = random_normals(5, 3, seed=1)
    log_weights = log_importance_weights(5, 40, estimator).double()
    information = correlation = 0.0
    for i in range(5):
        own, joint, marginals = 1.0, 0.0, [0.0, 0.0, 0.0]
        for j in range(5):
            densities = [
                math.exp(Normal(mean[j, d], torch.exp(logvar[j, d] / 2)).log_prob(codes[i, d]))
                for d in range(3)
            ]
            weight = math.exp(log_weights[i, j])
            joint += weight * math.prod(densities)
            marginals = [m + weight * p for m, p in zip(marginals, densities, strict=True)]
            own = math.prod(densities) if i == j else own
        information += math.log(own / joint) / 5
        correlation += math.log(joint / math.prod(marginals)) / 5
    found = decompose_kl(codes, mean, logvar, log_weights)
    assert found[0].item() == pytest.approx(information, rel=1e-6)
    assert found[1].item() == pytest.approx(correlation, rel=1e-6)


@pytest.mark.parametrize(("batch_size", "dataset_size"), [(2, 9), (3, 10), (5, 5), (64, 1000)])
def test_stratified_weights_follow_appendix_c2_and_sum_to_one(batch_size, dataset_size):
    weights = log_importance_weights(batch_size, dataset_size, "stratified").double().exp().numpy()
    n, m = dataset_size, batch_size - 1
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.diag(weights), 1 / n, rtol=1e-5)
    others = np.sort(weights[~np.eye(batch_size, dtype=bool)].reshape(batch_size, m), axis=1)
    expected = np.sort([(n - m) / (n * m)] + [1 / m] * (m - 1))
    np.testing.assert_allclose(others, np.tile(expected, (batch_size, 1)), rtol=1e-5)


def test_weighted_weights_are_one_over_dataset_and_batch():
    weights = log_importance_weights(7, 100, "weighted").exp()
    torch.testing.assert_close(weights, torch.full((7, 7), 1 / 700))


def test_stratified_estimate_of_the_aggregated_posterior_has_no_bias():
    # All minibatches of three of six images, without replacement: their mean is the exact q(z).
    mean, logvar = toy_posteriors()
    weights = log_importance_weights(3, 6, "stratified").double().exp()
    z = torch.tensor([0.4, 0.7], dtype=torch.float64)
    density = normal_log_density(z, mean, logvar).sum(1).exp()
    for own, place in itertools.product(range(6), range(3)):
        batches = [batch for batch in itertools.permutations(range(6), 3) if batch[place] == own]
        estimates = [weights[place] @ density[list(batch)] for batch in batches]
        assert torch.stack(estimates).std() > 1e-4
        torch.testing.assert_close(torch.stack(estimates).mean(), density.mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_betatcvae_with_all_weights_one_is_the_vae(estimator):
    vae = make_model(VAE, latents=3)
    model = make_model(BetaTCVAE, latents=3, alpha=1.0, beta=1.0, gamma=1.0, estimator=estimator)
    batch = make_batch([1] * 8, latents=3)
    assert_same_loss(model.loss(batch, STEP)["loss"], vae.loss(batch, STEP)["loss"], model, vae)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
@pytest.mark.parametrize(
    ("weight", "term"),
    [("alpha", "mutual_information"), ("beta", "total_correlation"), ("gamma", "dimensionwise_kl")],
)
def test_each_weight_changes_exactly_its_own_term(weight, term, estimator):
    model = make_model(BetaTCVAE, latents=3, estimator=estimator)
    batch = make_batch([1] * 8, latents=3)
    before = model.loss(batch, STEP)
    setattr(model, weight, getattr(model, weight) + 2.5)
    after = model.loss(batch, STEP)
    for name in before.keys() - {"loss"}:
        torch.testing.assert_close(after[name], before[name])
    assert before[term].abs() > 1e-3
    # The three terms do not depend on the decoder.
    assert_same_loss(after["loss"] - before["loss"], 2.5 * before[term], model.encoder)


def test_betatcvae_terms_are_those_of_its_own_batch():
    model = make_model(BetaTCVAE, latents=3, alpha=0.5, beta=4.0, gamma=2.0, estimator="stratified")
    batch = make_batch([1] * 8, latents=3)
    terms = model.loss(batch, STEP)
    mean, logvar = model.encode(batch.images)
    codes = sample_normal(mean, logvar, batch.noise)
    weights = log_importance_weights(8, 1000, "stratified").double()
    information, correlation = decompose_kl(codes, mean, logvar, weights)
    kl = kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0)).sum(1).mean()
    reconstruction = (
        F.binary_cross_entropy_with_logits(model.decode(codes), batch.images, reduction="sum") / 8
    )
    expected = reconstruction + 0.5 * information + 4 * correlation + 2 * (kl - information - correlation)
    torch.testing.assert_close(terms["mutual_information"], information)
    torch.testing.assert_close(terms["total_correlation"], correlation)
    torch.testing.assert_close(terms["loss"], expected)


# Networks


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(
    ("network", "image_shape"), [("auto", (3, 64, 64)), ("conv", (1, 16, 32)), ("auto", (1, 28, 28))]
)
def test_networks_give_codes_and_images_of_the_right_shape(network, image_shape, likelihood):
    model = VAE(image_shape, latents=4, network=network, likelihood=likelihood)
    images = torch.rand(2, *image_shape)
    mean, logvar = model.encode(images)
    assert mean.shape == logvar.shape == (2, 4)
    assert model.decode(mean).shape == (2, pixel_channels(likelihood, image_shape[0]), *image_shape[1:])
    drawn = model.mean_image(mean)
    assert drawn.shape == images.shape
    assert 0 <= drawn.min() <= drawn.max() <= 1


def test_auto_network_is_conv_only_where_the_image_can_be_halved_four_times():
    assert choose_network("auto", (3, 64, 64)) == "conv"
    assert choose_network("auto", (1, 28, 28)) == "mlp"
    assert choose_network("mlp", (3, 64, 64)) == "mlp"
    with pytest.raises(DislabError, match="network=mlp"):
        choose_network("conv", (1, 28, 28))
