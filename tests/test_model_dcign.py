"""DC-IGN: what is clamped, the gradient that reaches the encoder, and what it learns."""

import pytest
import torch
from small_models import (
    IMAGE_SHAPE,
    STEP,
    assert_same_loss,
    fix_posterior,
    make_batch,
    make_model,
    random_normals,
    slow_log_likelihood,
)
from torch import nn
from torch.distributions import Normal, kl_divergence

from dislab.models.dcign import DCIGN, active_dimensions, clamp


def make_group(changed: list[bool], size: int = 6, latents: int = 5):
    """A batch that is one group."""
    batch = make_batch([size], latents)
    batch.changed = torch.tensor([changed])
    return batch


@pytest.mark.parametrize(
    ("changed", "active"),
    [
        ([True, False, False], [True, False, False, False, False]),
        ([False, True, False], [False, True, False, False, False]),
        ([False, False, True], [False, False, True, True, True]),
        ([False, False, False, False, True], [False, False, False, False, True]),
    ],
)
def test_each_factor_has_a_dimension_and_the_last_one_the_rest(changed, active):
    assert active_dimensions(torch.tensor([changed]), 5).tolist() == [active]


@pytest.mark.parametrize("strength", [0.0, 0.01, 2.0])
def test_inactive_codes_are_the_mean_and_get_the_pull_in_place_of_their_gradient(strength):
    codes, gradient = (values.requires_grad_() for values in random_normals(6, 5))
    active = torch.tensor([[False, True, False, False, True]])
    clamped, invariance = clamp(codes, active)
    for d, is_active in enumerate(active[0]):
        expected = codes[:, d] if is_active else codes[:, d].mean().expand(6)
        torch.testing.assert_close(clamped[:, d], expected)
    # The gradient that arrives at the decoder's input, of a loss that is a mean over the images.
    loss = (gradient.detach() * clamped).sum() / 6 + strength * invariance
    found = torch.autograd.grad(loss, codes)[0] * 6
    torch.testing.assert_close(found, torch.where(active, gradient, strength * (codes - codes.mean(0))))


@pytest.mark.parametrize("changed", [[True, False, False], [False, False, True]])
def test_without_strength_no_gradient_of_the_likelihood_reaches_inactive_dimensions(changed):
    model = make_model(DCIGN, latents=5, strength=0.0)
    mean, logvar = (values.requires_grad_() for values in random_normals(6, 5))
    fix_posterior(model, mean, logvar)
    reconstruction = model.loss(make_group(changed), STEP)["reconstruction"]
    active = active_dimensions(torch.tensor([changed]), 5)[0]
    for gradient in torch.autograd.grad(reconstruction, [mean, logvar]):
        assert (gradient[:, ~active] == 0).all()
        assert (gradient[:, active] != 0).all()


def test_loss_equals_slow_loops():
    model = make_model(DCIGN, latents=5, strength=0.3)
    batch = make_group([False, True, False])
    mean, logvar = model.encode(batch.images)
    codes = mean + torch.exp(logvar / 2) * batch.noise
    total = 0.0
    for image in range(6):
        decoded = codes.mean(0).detach()
        decoded = torch.cat([decoded[:1], codes[image, 1:2], decoded[2:]])
        total -= slow_log_likelihood(model.decode(decoded[None])[0], batch.images[image], "bernoulli")
        for d in range(5):
            # The KL is that of every image's own posterior, and of every dimension.
            posterior = Normal(mean[image, d], torch.exp(logvar[image, d] / 2))
            total += kl_divergence(posterior, Normal(0.0, 1.0))
            if d != 1:
                total += 0.3 * (codes[image, d] - codes[:, d].mean()).square() / 2
    assert_same_loss(model.loss(batch, STEP)["loss"], total / 6, model)


def test_dimensions_learn_their_own_factor():
    # Factor 0 is the grey level of the left half, factor 1 that of the right half, 8 levels each.
    level = torch.arange(8) / 7
    left, right = torch.meshgrid(level, level, indexing="ij")
    images = (
        torch.stack([left, right], dim=2).view(64, 1, 1, 2).repeat_interleave(4, 3).expand(-1, *IMAGE_SHAPE)
    )
    torch.manual_seed(1)
    model = DCIGN(IMAGE_SHAPE, latents=2, network="mlp")
    model.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    model.decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, IMAGE_SHAPE))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(300):
        factor, fixed, values = step % 2, torch.randint(8, (1,)), torch.randint(8, (16,))
        batch = make_group([factor == 0, factor == 1], size=16, latents=2)
        batch.images = images[values * 8 + fixed if factor == 0 else fixed * 8 + values]
        batch.noise = torch.randn(16, 2)
        optimiser.zero_grad()
        model.loss(batch, STEP)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        mean = model.encode(images)[0].view(8, 8, 2)
    for factor in range(2):
        by_its_own = mean[..., factor].mean(1 - factor).var()
        by_the_other = mean[..., factor].mean(factor).var()
        assert by_its_own > 5 * by_the_other
