"""The beta-TCVAE: the decomposition of the KL against integrals and slow loops."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import STEP, assert_same_loss, make_batch, make_model, random_normals
from torch.distributions import Normal, kl_divergence

from dislab.models.betatcvae import BetaTCVAE, decompose_kl, log_importance_weights
from dislab.models.vae import VAE
from dislab.networks.distributions import kl_to_standard_normal, normal_log_density, sample_normal

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
    for own, position in itertools.product(range(6), range(3)):
        batches = [batch for batch in itertools.permutations(range(6), 3) if batch[position] == own]
        estimates = [weights[position] @ density[list(batch)] for batch in batches]
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
