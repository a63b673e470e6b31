"""The FactorVAE: its discriminator, the permutations, and who gets which gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import STEP, assert_same_loss, make_batch, make_model

from dislab.models.factorvae import FactorVAE, discriminator, discriminator_loss, log_ratio, permute
from dislab.models.vae import VAE

RHO = 0.8
CORRELATION = -0.5 * math.log(1 - RHO**2)  # total correlation of a Normal, nats
SCALE = torch.tensor([[1, 0], [RHO, math.sqrt(1 - RHO**2)]])  # Cholesky factor of its covariance


@pytest.fixture
def model() -> FactorVAE:
    """A model whose discriminator is small."""
    one = make_model(FactorVAE, latents=3, gamma=4.0)
    torch.manual_seed(1)
    one.adversary = discriminator(3, 8, 8, 2).double()
    return one


def test_the_discriminator_is_that_of_the_paper():
    network = FactorVAE((1, 8, 8), network="mlp").adversary
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_018_002
    slopes = [layer.negative_slope for layer in network if isinstance(layer, torch.nn.LeakyReLU)]
    assert slopes == [0.2] * 6


def test_the_loss_is_the_negative_elbo_plus_the_weighted_total_correlation(model):
    vae = make_model(VAE, latents=3)
    batch = make_batch([1] * 6, latents=model.noise)
    terms = model.loss(batch, STEP)
    mean, logvar = model.encode(batch.images)
    batch.noise = batch.noise[:, :3]
    logits = model.adversary(mean + torch.exp(logvar / 2) * batch.noise)
    correlation = torch.log(logits.softmax(1)[:, 0] / logits.softmax(1)[:, 1]).mean()
    torch.testing.assert_close(terms["total_correlation"], correlation)
    expected = terms["reconstruction"] + terms["kl"] + 4 * correlation
    torch.testing.assert_close(expected, vae.loss(batch, STEP)["loss"] + 4 * correlation)
    # The encoder gets the gradient of the total correlation, through the discriminator.
    assert_same_loss(terms["loss"], expected, model)


def test_no_gradient_of_the_discriminator_reaches_the_encoder(model):
    batch, other = (make_batch([1] * 6, latents=model.noise, seed=seed) for seed in (0, 1))
    model.adversary_loss(batch, other, STEP).backward()
    with_gradient = {name for name, one in model.named_parameters() if one.grad is not None}
    assert with_gradient == {f"adversary.{name}" for name, _ in model.adversary.named_parameters()}


@pytest.mark.parametrize("batches", [1, 2])
def test_the_discriminator_tells_codes_from_permuted_codes_of_a_batch(model, batches):
    model.batches = batches
    batch, other = (make_batch([1] * 6, latents=model.noise, seed=seed) for seed in (0, 1))
    loss = model.adversary_loss(batch, other, STEP)
    source = batch if batches == 1 else other

    def codes_of(one) -> torch.Tensor:
        mean, logvar = model.encode(one.images)
        return mean + torch.exp(logvar / 2) * one.noise[:, :3]

    codes, permuted = codes_of(batch), codes_of(source).clone()
    for d in range(3):
        permuted[:, d] = permuted[source.noise[:, 3 + d].argsort(), d]
    expected = F.cross_entropy(model.adversary(codes), torch.zeros(6, dtype=torch.long))
    expected = expected + F.cross_entropy(model.adversary(permuted), torch.ones(6, dtype=torch.long))
    torch.testing.assert_close(loss, expected / 2)


def test_a_permutation_keeps_every_column_and_destroys_the_rows():
    codes = torch.arange(100.0)[:, None].expand(100, 3)
    permuted = permute(codes, torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).argsort(0))
    assert torch.equal(permuted.sort(0).values, codes)
    for a, b in ((0, 1), (0, 2), (1, 2)):  # each column has an order of its own
        assert (permuted[:, a] == permuted[:, b]).sum() < 10


def test_the_optimal_discriminator_gives_the_total_correlation_of_a_normal():
    # The optimal logit is quadratic: these points give its exact mean.
    points = math.sqrt(2) * torch.cat([torch.eye(2), -torch.eye(2)]).double() @ SCALE.double().T
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), scale_tril=SCALE.double())
    independent = torch.distributions.Normal(0.0, 1.0)
    logits = torch.stack([normal.log_prob(points), independent.log_prob(points).sum(1)], dim=1)
    assert log_ratio(logits).mean().item() == pytest.approx(CORRELATION, rel=1e-6)


def test_a_trained_discriminator_finds_the_total_correlation_of_a_normal():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = discriminator(2, 32, 32, 2)
    optimiser = torch.optim.Adam(network.parameters(), betas=(0.5, 0.9))

    def draw(number: int) -> torch.Tensor:
        return torch.randn(number, 2, generator=generator) @ SCALE.T

    for step in range(300):
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 300)
        order = torch.randn(512, 2, generator=generator).argsort(0)
        loss = discriminator_loss(network(draw(512)), network(permute(draw(512), order)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    estimate = log_ratio(network(draw(50_000))).mean().item()
    assert estimate == pytest.approx(CORRELATION, rel=0.1)


def test_a_discriminator_that_is_certainly_wrong_still_learns():
    # Probabilities clipped to 1e-6, as in published code, have a loss of 14 and no gradient there.
    logits, permuted = (torch.tensor([[0.0, 50.0]], requires_grad=True), torch.tensor([[50.0, 0.0]]))
    loss = discriminator_loss(logits, permuted)
    assert loss.item() == pytest.approx(50)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.5]]))


def test_gamma_0_is_the_vae(model):
    vae = make_model(VAE, latents=3)
    model.gamma = 0.0
    batch = make_batch([1] * 6, latents=model.noise)
    loss = model.loss(batch, STEP)["loss"]
    batch.noise = batch.noise[:, :3]
    mine = torch.autograd.grad(loss, [*model.encoder.parameters(), *model.decoder.parameters()])
    theirs = torch.autograd.grad(vae.loss(batch, STEP)["loss"], list(vae.parameters()))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)
