"""Hausdorff factorised support: the distance against slow loops and finite differences."""

import itertools

import pytest
import torch
from small_models import STEP, assert_same_loss, make_batch, make_model, random_normals

from dislab.models.hfs import HFS, all_pairs, support_distances
from dislab.models.vae import VAE


def slow_distance(codes: torch.Tensor, a: int, b: int) -> float:
    z = codes.tolist()
    return max(
        min((one[a] - seen[a]) ** 2 + (other[b] - seen[b]) ** 2 for seen in z)
        for one, other in itertools.product(z, z)
    )


def test_the_distances_equal_slow_loops():
    codes, _ = random_normals(9, 4)
    pairs = all_pairs(codes)
    assert pairs.tolist() == [list(pair) for pair in itertools.combinations(range(4), 2)]
    expected = torch.tensor([slow_distance(codes, a, b) for a, b in pairs.tolist()]).double()
    torch.testing.assert_close(support_distances(codes, pairs), expected)
    torch.testing.assert_close(support_distances(codes, pairs[[4, 1]]), expected[[4, 1]])


def test_the_gradient_goes_through_all_three_images():
    # Finite differences also move the nearest pair that was seen: without its part they would differ.
    codes, _ = random_normals(7, 3)
    assert torch.autograd.gradcheck(
        lambda z: support_distances(z, all_pairs(z)).sum(), codes.requires_grad_()
    )


def test_a_full_grid_has_the_distance_zero_and_a_diagonal_has_not():
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 4)] * 2)
    pairs = all_pairs(grid)
    assert support_distances(grid, pairs).item() == 0
    stretched = grid.pow(3) * torch.tensor([1.0, 20.0])  # independent, whatever the shape
    assert support_distances(stretched, pairs).item() == 0
    corner = torch.linspace(-1, 1, 5)[:, None].expand(-1, 2)
    assert support_distances(corner, pairs).item() == 2  # the nearest to (-1, 1) is (0, 0)


def test_gamma_0_is_a_beta_vae():
    vae, model = make_model(VAE, latents=3), make_model(HFS, latents=3, gamma=0.0)
    batch = make_batch([1] * 6, latents=model.noise)
    loss = model.loss(batch, STEP)["loss"]
    batch.noise = batch.noise[:, :3]
    assert_same_loss(loss, vae.loss(batch, STEP)["loss"], model, vae)


def test_the_loss_weighs_the_kl_and_the_distances_of_the_means():
    model = make_model(HFS, latents=3, beta=2.0, gamma=5.0)  # three pairs: all are used
    batch = make_batch([1] * 6, latents=model.noise)
    terms = model.loss(batch, STEP)
    mean, _ = model.encode(batch.images)
    support = sum(slow_distance(mean, *pair) for pair in ((0, 1), (0, 2), (1, 2)))
    assert terms["support"].item() == pytest.approx(support)
    expected = terms["reconstruction"] + 2 * terms["kl"] + 5 * support_distances(mean, all_pairs(mean)).sum()
    assert_same_loss(terms["loss"], expected, model)
    batch.noise[:, :3] += 1
    assert model.loss(batch, STEP)["support"] == terms["support"]


def test_every_step_draws_other_pairs_by_the_noise_of_its_batch():
    model = make_model(HFS, latents=4, pairs=2)
    batches = [make_batch([1] * 5, latents=model.noise, seed=seed) for seed in range(40)]
    for batch in batches:
        batch.images = batches[0].images
    mean, _ = model.encode(batches[0].images)
    distances = support_distances(mean, all_pairs(mean)).tolist()
    sums = [model.loss(batch, STEP)["support"].item() for batch in batches]
    of_two = {round(sum(two), 9) for two in itertools.combinations(distances, 2)}  # never one pair twice
    assert {round(one, 9) for one in sums} == of_two and len(of_two) == 15
    assert model.loss(batches[0], STEP)["support"].item() == sums[0]
