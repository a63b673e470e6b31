"""VAE and beta-VAE: their losses against closed forms and slow loops; the networks' shapes."""

import math

import pytest
import torch
from small_models import (
    IMAGE_SHAPE,
    STEP,
    assert_same_loss,
    fix_posterior,
    linear_gaussian_vae,
    make_batch,
    make_model,
    slow_log_likelihood,
)
from torch.distributions import Normal, kl_divergence

from dislab.errors import DislabError
from dislab.models.betatcvae import BetaTCVAE
from dislab.models.betavae import BetaVAE
from dislab.models.gvae_groups import GVAEGroups
from dislab.models.mlvae import MLVAE
from dislab.models.mlvae_svi import MLVAESVI
from dislab.models.vae import VAE
from dislab.networks.distributions import pixel_channels

# VAE


PIXELS = [  # every likelihood
    *({"likelihood": likelihood} for likelihood in ("bernoulli", "binarised", "gaussian")),
    *({"likelihood": "gaussian", "pixel_logvar": rule} for rule in ("tanh", "tanh5", "fixed")),
]


@pytest.mark.parametrize("pixels", PIXELS)
def test_vae_loss_is_reconstruction_plus_kl(pixels):
    model = make_model(VAE, latents=3, **pixels)
    batch = make_batch([1] * 5, latents=3)
    terms = model.loss(batch, STEP)
    reconstruction = kl = 0.0
    for image, noise in zip(batch.images, batch.noise, strict=True):
        mean, logvar = model.encode(image[None])
        posterior = Normal(mean[0], torch.exp(logvar[0] / 2))
        decoded = model.decode((posterior.mean + posterior.stddev * noise)[None])[0]
        reconstruction = reconstruction - slow_log_likelihood(decoded, image, model.likelihood) / 5
        kl = kl + kl_divergence(posterior, Normal(0.0, 1.0)).sum() / 5
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["kl"], kl)
    assert_same_loss(terms["loss"], reconstruction + kl, model)


def test_a_model_of_binary_images_encodes_binary_images():
    model, other = (make_model(VAE, latents=3, likelihood=name) for name in ("binarised", "bernoulli"))
    batch = make_batch([1] * 5, latents=3)
    binary = make_batch([1] * 5, latents=3)
    binary.images = (binary.images >= 0.5).double()
    assert_same_loss(model.loss(batch, STEP)["loss"], other.loss(binary, STEP)["loss"], model, other)


@pytest.mark.parametrize("kind", [VAE, BetaVAE, BetaTCVAE, MLVAE, MLVAESVI, GVAEGroups])
def test_only_gaussian_pixels_have_a_log_variance(kind):
    assert kind(IMAGE_SHAPE, likelihood="gaussian", pixel_logvar="tanh").likelihood == "gaussian tanh"
    with pytest.raises(DislabError, match="pixel_logvar=tanh needs likelihood=gaussian, not bernoulli"):
        kind(IMAGE_SHAPE, pixel_logvar="tanh")


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


# Networks


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize(
    ("network", "image_shape"), [("auto", (3, 64, 64)), ("conv", (1, 16, 32)), ("auto", (1, 28, 28))]
)
def test_networks_give_codes_and_images_of_the_right_shape(network, image_shape, pixels):
    model = VAE(image_shape, latents=4, network=network, **pixels)
    images = torch.rand(2, *image_shape)
    mean, logvar = model.encode(images)
    assert mean.shape == logvar.shape == (2, 4)
    assert model.decode(mean).shape == (2, pixel_channels(model.likelihood, image_shape[0]), *image_shape[1:])
    drawn = model.mean_image(mean)
    assert drawn.shape == images.shape
    assert 0 <= drawn.min() <= drawn.max() <= 1
