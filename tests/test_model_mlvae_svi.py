"""The ML-VAE without an encoder: its inference against exact posteriors."""

import math

import numpy as np
import pytest
import torch
from small_models import (
    IMAGE_SHAPE,
    STEP,
    UNEVEN,
    assert_same_loss,
    gradients,
    linear_gaussian_vae,
    make_batch,
    make_groups,
    make_model,
    slow_log_likelihood,
)
from torch.distributions import Normal, kl_divergence

from dislab.models.mlvae_svi import MLVAESVI
from dislab.training.batches import Batch

pytestmark = pytest.mark.usefixtures("way_of_sums")

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

    columns = 2 * groups.index[:, None] + torch.arange(2)
    style = 2 * len(sizes) + torch.arange(5)[:, None]
    columns = torch.cat([columns, style], dim=1)
    expected_mean, expected_logvar = posterior[columns], variance[columns].log()

    model = make_svi(likelihood="gaussian", inference_rate=0.1)
    model.decode = linear_gaussian_vae(loadings, math.sqrt(pixel_variance)).decode
    images = x.view(5, *IMAGE_SHAPE)
    # Draws of ±1 whose products over 16 steps cancel, as the gradient's noise then does: Hadamard's matrix,
    # a column for each of the unknowns of a group.
    hadamard = [(1, 2, 3 + image) for image in range(5)]
    signs = [[[(-1) ** (step & c).bit_count() for c in own] for own in hadamard] for step in range(16)]
    noise = torch.tensor(signs, dtype=torch.float64).repeat(13, 1, 1)
    [(mean, logvar)], (style_mean, style_logvar) = model.infer(images, (groups,), noise)
    found = torch.cat([mean[groups.index], style_mean], dim=1)
    torch.testing.assert_close(found, expected_mean, rtol=0, atol=0.03)
    found = torch.cat([logvar[groups.index], style_logvar], dim=1)
    torch.testing.assert_close(found, expected_logvar, rtol=0, atol=0.06)

    model.inference_steps, model.inference_rate = 400, 0.03
    mean, _ = model.encode_groups(images, (groups,)) if grouped else model.encode(images)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=0.06)
