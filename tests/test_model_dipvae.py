"""DIP-VAE I and II: the covariances against numpy and against points, the penalties against closed forms."""

import math

import numpy as np
import pytest
import torch
from small_models import STEP, assert_same_loss, fix_posterior, make_batch, make_model, random_normals

from dislab.models.dipvae import DIPVAE1, DIPVAE2, covariance_of_means, squared_distances_from_identity
from dislab.models.vae import VAE


def test_the_covariance_of_means_is_that_of_numpy_divided_by_the_batch():
    mean, _ = random_normals(7, 4)
    np.testing.assert_allclose(covariance_of_means(mean), np.cov(mean.T, ddof=0), rtol=1e-12)


def test_the_covariance_of_ii_is_that_of_points_drawn_from_q():
    mean, logvar = random_normals(7, 3)
    # These points around each mean have exactly its covariance.
    steps = math.sqrt(3) * torch.cat([torch.eye(3), -torch.eye(3)]).double()
    points = (mean[:, None] + torch.exp(logvar / 2)[:, None] * steps).flatten(0, 1)
    covariance = make_model(DIPVAE2, latents=3).covariance(mean, logvar)
    np.testing.assert_allclose(covariance, np.cov(points.T, ddof=0), rtol=1e-10, atol=1e-12)
    # Adding one number to the whole matrix, as a published code does, is something else.
    wrong = covariance_of_means(mean) + logvar.exp().diag().mean()
    assert (covariance - wrong).abs().max() > 0.1


def test_every_covariance_counts_in_both_triangles():
    covariance = torch.tensor([[1.5, 0.3, -0.2], [0.3, 0.0, 0.1], [-0.2, 0.1, 1.0]])
    off_diagonal, diagonal = squared_distances_from_identity(covariance)
    assert off_diagonal.item() == pytest.approx(2 * (0.3**2 + 0.2**2 + 0.1**2))
    assert diagonal.item() == pytest.approx(0.5**2 + 1)


@pytest.mark.parametrize(("kind", "variance"), [(DIPVAE1, 1.0), (DIPVAE2, 0.75)])
def test_codes_with_the_covariance_one_have_no_penalty(kind, variance):
    mean = math.sqrt(3 * variance) * torch.cat([torch.eye(3), -torch.eye(3)]).double()
    logvar = torch.full_like(mean, math.log(0.25))
    vae, model = make_model(VAE, latents=3), make_model(kind, latents=3)
    for one in (vae, model):
        fix_posterior(one, mean, logvar)
    batch = make_batch([1] * 6, latents=3)
    torch.testing.assert_close(model.loss(batch, STEP)["loss"], vae.loss(batch, STEP)["loss"])


@pytest.mark.parametrize("kind", [DIPVAE1, DIPVAE2])
def test_the_loss_is_the_negative_elbo_plus_the_weighted_penalties(kind):
    vae = make_model(VAE, latents=3)
    model = make_model(kind, latents=3, lambda_od=3.0, lambda_d_factor=2.0)
    batch = make_batch([1] * 8, latents=3)
    mean, logvar = vae.encode(batch.images)
    penalty = 0.0
    for j in range(3):
        for k in range(3):
            entry = ((mean[:, j] - mean[:, j].mean()) * (mean[:, k] - mean[:, k].mean())).mean()
            if j == k and kind is DIPVAE2:
                entry = entry + logvar[:, j].exp().mean()
            penalty = penalty + (6 * (entry - 1) ** 2 if j == k else 3 * entry**2)
    terms = model.loss(batch, STEP)
    assert_same_loss(terms["loss"], vae.loss(batch, STEP)["loss"] + penalty, model, vae)
    torch.testing.assert_close(3 * terms["off_diagonal"] + 6 * terms["diagonal"], penalty)


def test_only_ii_penalises_the_variances():
    mean, logvar = (part.requires_grad_() for part in random_normals(6, 3))
    for kind in (DIPVAE1, DIPVAE2):
        distances = squared_distances_from_identity(make_model(kind, latents=3).covariance(mean, logvar))
        (gradient,) = torch.autograd.grad(sum(distances), logvar, allow_unused=True)
        assert (gradient is None) == (kind is DIPVAE1)


def test_the_defaults_are_the_factors_of_the_study():
    assert (make_model(DIPVAE1).lambda_d_factor, make_model(DIPVAE2).lambda_d_factor) == (10, 1)
    assert make_model(DIPVAE2, lambda_od=5.0).lambda_od == 5
