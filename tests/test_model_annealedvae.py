"""The annealed VAE: its capacity, and which way it pulls the KL."""

import pytest
import torch
from small_models import STEP, assert_same_loss, fix_posterior, make_batch, make_model, random_normals

from dislab.models.annealedvae import AnnealedVAE, capacity_at
from dislab.networks.distributions import kl_to_standard_normal


def test_the_capacity_rises_linearly_and_stays():
    capacities = {0: 0, 1: 0.05, 50: 2.5, 99: 4.95, 100: 5, 101: 5, 10**6: 5}  # the first step has none
    for step, capacity in capacities.items():
        assert capacity_at(torch.tensor(float(step)), 5.0, 100).item() == pytest.approx(capacity)


def test_the_mean_kl_of_the_batch_is_compared_with_the_capacity():
    model = make_model(AnnealedVAE, latents=3, gamma=7.0, capacity=4.0, capacity_steps=10)
    mean, logvar = random_normals(6, 3)
    kl = kl_to_standard_normal(mean, logvar).sum(1)
    assert kl.min() < 2 < kl.max()  # on both sides of the capacity, where |KL_i - C| has a larger mean
    fix_posterior(model, mean, logvar)
    terms = model.loss(make_batch([1] * 6, latents=3), torch.tensor(5.0))
    assert terms["capacity"] == 2
    expected = 7 * abs(kl.mean() - 2)
    torch.testing.assert_close(terms["loss"] - terms["reconstruction"], expected)
    assert (7 * (kl - 2).abs().mean() - expected) > 0.1


@pytest.mark.parametrize(("capacity", "direction"), [(1e3, 1), (0.0, -1)])
def test_the_kl_rises_below_the_capacity_and_falls_above_it(capacity, direction):
    model = make_model(AnnealedVAE, latents=3, gamma=10.0, capacity=capacity, capacity_steps=1)
    batch = make_batch([1] * 6, latents=3)
    before = model.loss(batch, STEP + 1)
    # The decoder gets the gradient of the reconstruction only.
    parameters = list(model.encoder.parameters())
    gradients = torch.autograd.grad(before["loss"] - before["reconstruction"], parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-6 * gradient
    change = model.loss(batch, STEP + 1)["kl"] - before["kl"]
    assert direction * change > 1e-7


def test_a_kl_at_its_capacity_gets_no_gradient():
    model = make_model(AnnealedVAE, latents=3)
    posterior = [torch.zeros(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    fix_posterior(model, *posterior)
    terms = model.loss(make_batch([1] * 4, latents=3), STEP)  # KL = C = 0
    gradients = torch.autograd.grad(terms["loss"] - terms["reconstruction"], posterior)
    assert all((gradient == 0).all() for gradient in gradients)


def test_without_capacity_it_is_a_beta_vae():
    model = make_model(AnnealedVAE, latents=3, gamma=4.0, capacity=0.0)
    terms = model.loss(make_batch([1] * 6, latents=3), STEP + 99)
    assert_same_loss(terms["loss"], terms["reconstruction"] + 4 * terms["kl"], model)
