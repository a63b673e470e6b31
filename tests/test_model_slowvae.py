"""SlowVAE: its terms against integrals, its loss against slow loops."""

import math

import pytest
import torch
from small_models import STEP, assert_same_loss, make_model, make_pairs, random_normals, slow_log_likelihood
from torch.distributions import Laplace, Normal, kl_divergence

from dislab.models.betavae import BetaVAE
from dislab.models.slowvae import SlowVAE, laplace_cross_entropy, normal_entropy

PAIRS = [[True, False], [False, True], [True, True]]


def integrals(mean: torch.Tensor, logvar: torch.Tensor, centre: torch.Tensor, rate: float) -> tuple:
    """E[-ln Laplace(z)] and E[-ln q(z)] of z ~ q, a Normal, on a fine grid."""
    deviation = torch.exp(logvar / 2)
    z = mean + deviation * torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    log_density = Normal(mean, deviation).log_prob(z)
    cell = z[1] - z[0]
    cross = (log_density.exp() * -Laplace(centre, 1 / rate).log_prob(z)).sum() * cell
    return cross, (log_density.exp() * -log_density).sum() * cell


def test_cross_entropy_and_entropy_are_the_integrals():
    mean, logvar = random_normals(12)
    centre = mean + torch.linspace(-2, 2, 12, dtype=torch.float64) ** 3
    found = laplace_cross_entropy(mean, logvar, centre, 6.0), normal_entropy(logvar)
    for index in range(12):
        expected = integrals(mean[index], logvar[index], centre[index], 6.0)
        torch.testing.assert_close(found[0][index], expected[0], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(found[1][index], expected[1], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("rate", [1.0, 6.0, 40.0])
def test_at_the_centre_the_divergence_is_least_at_a_known_deviation(rate):
    logvar = torch.linspace(-12, 4, 160_001, dtype=torch.float64)
    zero = torch.zeros_like(logvar)
    divergence = laplace_cross_entropy(zero, logvar, zero, rate) - normal_entropy(logvar)
    assert divergence.min().item() == pytest.approx(0.5 + math.log(2 / math.pi), abs=1e-8)
    best = math.exp(logvar[divergence.argmin()] / 2)
    assert best == pytest.approx(math.sqrt(math.pi / 2) / rate, rel=1e-4)


@pytest.mark.parametrize("published", [False, True])
def test_loss_equals_slow_loops_in_both_directions(published):
    model = make_model(SlowVAE, latents=2, beta=3.0, gamma=0.7, rate=2.0, published_code=published)
    batch = make_pairs(PAIRS, latents=2)
    mean, logvar = model.encode(batch.images)
    codes = mean + torch.exp(logvar / 2) * batch.noise
    total = 0.0
    for pair in range(3):
        for first, second in ((2 * pair, 2 * pair + 1), (2 * pair + 1, 2 * pair)):
            direction = 0.0
            for image in (first, second):
                decoded = model.decode(codes[image : image + 1])[0]
                direction -= slow_log_likelihood(decoded, batch.images[image], "bernoulli")
            for d in range(2):
                posterior = Normal(mean[first, d], torch.exp(logvar[first, d] / 2))
                direction += 3.0 * kl_divergence(posterior, Normal(0.0, 1.0))
                cross, entropy = integrals(mean[second, d], logvar[second, d], mean[first, d], 2.0)
                direction += 0.7 * ((2 if published else 1) * cross - entropy)
            total += direction / 2 / 3
    found = model.loss(batch, STEP)["loss"]
    torch.testing.assert_close(found, total, rtol=1e-6, atol=1e-6)
    ours, theirs = (
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in (found, total)
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_without_gamma_it_is_twice_the_beta_vae_with_half_of_beta():
    model, beta_vae = (
        make_model(SlowVAE, latents=2, beta=3.0, gamma=0.0),
        make_model(BetaVAE, latents=2, beta=1.5),
    )
    batch = make_pairs(PAIRS, latents=2)
    assert_same_loss(model.loss(batch, STEP)["loss"], 2 * beta_vae.loss(batch, STEP)["loss"], model, beta_vae)


def test_gamma_weighs_its_own_term_and_the_order_of_a_pair_does_not_matter():
    model = make_model(SlowVAE, latents=2, gamma=1.0)
    batch = make_pairs(PAIRS, latents=2)
    before = model.loss(batch, STEP)
    batch.images, batch.noise = (
        values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1) for values in (batch.images, batch.noise)
    )
    torch.testing.assert_close(model.loss(batch, STEP), before)
    model.gamma = 3.5
    assert_same_loss(
        model.loss(batch, STEP)["loss"] - before["loss"], 2.5 * before["kl_laplace"], model.encoder
    )
