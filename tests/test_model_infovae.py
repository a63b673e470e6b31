"""The InfoVAE: the maximum mean discrepancy against slow loops and a closed form."""

import math

import pytest
import torch
from small_models import STEP, assert_same_loss, make_batch, make_model, random_normals

from dislab.models.infovae import IMQ_SCALES, InfoVAE, mmd
from dislab.models.vae import VAE


def slow_kernel(one: torch.Tensor, other: torch.Tensor, kernel: str) -> float:
    square = sum((a - b) ** 2 for a, b in zip(one.tolist(), other.tolist(), strict=True))
    twice = 2 * len(one)
    if kernel == "rbf":
        return math.exp(-square / twice)
    return sum(twice * scale / (twice * scale + square) for scale in IMQ_SCALES)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_discrepancy_equals_slow_loops(kernel, biased):
    codes, prior = random_normals(5, 3)
    expected = 0.0
    for one, other, sign in ((codes, codes, 1), (prior, prior, 1), (codes, prior, -2)):
        pairs = [
            slow_kernel(one[i], other[j], kernel)
            for i in range(5)
            for j in range(5)
            if biased or sign < 0 or i != j
        ]
        expected += sign * sum(pairs) / len(pairs)
    assert mmd(codes, prior, kernel, biased).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_biased_estimate_is_zero_for_the_same_points_and_never_negative(kernel):
    codes, prior = random_normals(6, 2)
    assert mmd(codes, codes.flip(0), kernel, biased=True).item() == pytest.approx(0, abs=1e-12)
    assert mmd(codes, codes.flip(0), kernel).item() < -1e-3
    assert mmd(codes, prior, kernel, biased=True) > 1e-3


def test_many_points_of_two_shifted_normals_have_the_discrepancy_of_the_normals():
    # The difference of two points is Normal: E exp(-x^2 / 2D), dimension by dimension.
    dimensions, shift = 2, 1.5
    spread = 1 + 2 / dimensions
    same = spread ** (-dimensions / 2)
    shifted = same * math.exp(-dimensions * shift**2 / (2 * dimensions * spread))
    # Every pair of points that fill the plane evenly.
    uniform = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=0).draw(512).double()
    points = torch.distributions.Normal(0.0, 1.0).icdf(uniform)
    estimate = mmd(points + shift, points, "rbf", biased=True).item()
    assert estimate == pytest.approx(2 * same - 2 * shifted, abs=0.002)


def test_alpha_0_and_lambda_1_are_the_vae():
    vae, model = make_model(VAE, latents=3), make_model(InfoVAE, latents=3, alpha=0.0, lambda_prior=1.0)
    batch = make_batch([1] * 6, latents=model.noise)
    loss = model.loss(batch, STEP)["loss"]
    batch.noise = batch.noise[:, :3]
    assert_same_loss(loss, vae.loss(batch, STEP)["loss"], model, vae)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_loss_weighs_the_kl_and_the_discrepancy_of_a_draw_of_the_prior(kernel):
    model = make_model(InfoVAE, latents=3, alpha=0.25, lambda_prior=8.0, kernel=kernel)
    batch = make_batch([1] * 6, latents=model.noise)
    terms = model.loss(batch, STEP)
    mean, logvar = model.encode(batch.images)
    codes = mean + torch.exp(logvar / 2) * batch.noise[:, :3]
    discrepancy = mmd(codes, batch.noise[:, 3:], kernel)
    torch.testing.assert_close(terms["mmd"], discrepancy)
    expected = terms["reconstruction"] + 0.75 * terms["kl"] + 7.25 * discrepancy
    assert_same_loss(terms["loss"], expected, model)
    batch.noise[:, 3:] += 2
    other = model.loss(batch, STEP)
    assert other["mmd"] > terms["mmd"] and other["reconstruction"] == terms["reconstruction"]
