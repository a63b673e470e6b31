"""GVAE, ML-VAE, Ada-GVAE and Ada-ML-VAE of pairs, against slow loops and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from conftest import one_line
from small_models import (
    STEP,
    assert_same_loss,
    make_model,
    make_pairs,
    random_normals,
    slow_log_likelihood,
)
from torch.distributions import Normal, kl_divergence

import dislab
from dislab.errors import DislabError
from dislab.models.adagvae import AdaGVAE, near_dimensions
from dislab.models.adamlvae import AdaMLVAE
from dislab.models.betavae import BetaVAE
from dislab.models.gvae import GVAE, of_pairs
from dislab.models.mlvae_pairs import MLVAEPairs

CHANGED = [[True, False, False], [False, True, True], [False, False, True], [True, True, False]]
CASES = [
    (GVAE, {}),
    (MLVAEPairs, {}),
    (MLVAEPairs, {"variance": "harmonic"}),
    (AdaGVAE, {}),
    (AdaGVAE, {"distance": "one_sided"}),
    (AdaMLVAE, {}),
    (AdaMLVAE, {"variance": "harmonic", "distance": "one_sided"}),
]


def slow_average(kind: type, options: dict, first: Normal, second: Normal) -> Normal:
    """The joined posterior of one dimension."""
    v0, v1 = first.variance, second.variance
    if not issubclass(kind, MLVAEPairs):
        return Normal((first.mean + second.mean) / 2, ((v0 + v1) / 2).sqrt())
    product = v0 * v1 / (v0 + v1)
    mean = (v1 * first.mean + v0 * second.mean) / (v0 + v1)
    return Normal(mean, (product * (2 if options.get("variance") == "harmonic" else 1)).sqrt())


def slow_shared(kind: type, options: dict, first: list[Normal], second: list[Normal], changed) -> list[bool]:
    """Whether a pair shares each dimension."""
    if not issubclass(kind, AdaGVAE):
        return [d >= len(changed) or not changed[d] for d in range(len(first))]
    distances = []
    for a, b in zip(first, second, strict=True):
        distance = kl_divergence(a, b)
        if options.get("distance") != "one_sided":
            distance = (distance + kl_divergence(b, a)) / 2
        distances.append(distance.item())
    return [distance < (min(distances) + max(distances)) / 2 for distance in distances]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_loss_equals_slow_loops_over_pairs_images_and_dimensions(kind, options):
    model = make_model(kind, latents=5, beta=3.0, **options)
    batch = make_pairs(CHANGED, latents=5)
    total = reconstruction = kl = shared = 0.0
    for pair, changed in enumerate(CHANGED):
        posteriors = []
        for image in (2 * pair, 2 * pair + 1):
            mean, logvar = model.encode(batch.images[image : image + 1])
            posteriors.append([Normal(m, torch.exp(v / 2)) for m, v in zip(mean[0], logvar[0], strict=True)])
        is_shared = slow_shared(kind, options, *posteriors, changed)
        shared += sum(is_shared)
        for image, own in zip((2 * pair, 2 * pair + 1), posteriors, strict=True):
            joined = [
                slow_average(kind, options, *both) if both_share else mine
                for both_share, mine, *both in zip(is_shared, own, *posteriors, strict=True)
            ]
            draws = zip(joined, batch.noise[image], strict=True)
            codes = torch.stack([normal.mean + normal.stddev * noise for normal, noise in draws])
            decoded = model.decode(codes[None])[0]
            reconstruction -= slow_log_likelihood(decoded, batch.images[image], "bernoulli")
            kl += sum(kl_divergence(normal, Normal(0.0, 1.0)) for normal in joined)
        total = (reconstruction + 3.0 * kl) / (2 * (pair + 1))
    terms = model.loss(batch, STEP)
    torch.testing.assert_close(terms["reconstruction"], reconstruction / 8)
    torch.testing.assert_close(terms["kl"], kl / 8)
    assert terms["shared"].item() == shared / 4
    assert 0 < shared < 20
    assert_same_loss(terms["loss"], total, model)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_joined_posteriors_have_the_gradient_of_finite_differences_by_both_encodings(kind, options):
    model = make_model(kind, latents=5, **options)
    mean, logvar = (values.requires_grad_() for values in random_normals(8, 5))
    batch = make_pairs(CHANGED, latents=5)
    shared = model.shared_set(of_pairs(mean), of_pairs(logvar), batch.changed)

    def joined(mean, logvar):
        return model.joined(mean, logvar, shared, batch.groupings[0])

    assert torch.autograd.gradcheck(joined, (mean, logvar))
    of_first_images = torch.autograd.grad(joined(mean, logvar)[0][0::2][shared].sum(), mean)[0]
    assert of_first_images[1::2][shared].abs().min() > 0, "the other image has a part in the average"


@pytest.mark.parametrize(
    ("kind", "options", "factor"),
    [(GVAE, {}, 1), (MLVAEPairs, {"variance": "harmonic"}, 1), (MLVAEPairs, {}, 0.5)],
)
def test_the_average_of_two_equal_posteriors(kind, options, factor):
    model = make_model(kind, latents=5, **options)
    mean, logvar = (values.repeat_interleave(2, 0) for values in random_normals(4, 5))
    pairs = make_pairs(CHANGED, latents=5).groupings[0]
    found = model.average(mean, logvar, pairs)
    torch.testing.assert_close(found[0], mean[0::2])
    torch.testing.assert_close(found[1].exp(), factor * logvar[0::2].exp())


def test_only_the_symmetric_distance_does_not_depend_on_the_order_of_a_pair():
    mean, logvar = (of_pairs(values) for values in random_normals(400, 5))
    for distance in ("symmetric", "one_sided"):
        model = make_model(AdaGVAE, latents=5, distance=distance)
        shared = model.shared_set(mean, logvar, None)
        swapped = model.shared_set(mean.flip(1), logvar.flip(1), None)
        assert torch.equal(shared, swapped) == (distance == "symmetric")


def test_the_shared_set_of_a_linear_decoder_lacks_exactly_the_changed_coordinate():
    # The true posterior of x = W z + noise, with orthogonal loadings of different lengths.
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3.0, 1.0, 2.0, 0.5], dtype=torch.float64)
    loadings = torch.linalg.qr(torch.randn(64, 4, generator=generator, dtype=torch.float64))[0] * lengths
    precision = 1 + lengths.square() / 0.1**2
    model = make_model(AdaGVAE, latents=4)
    for changed in range(4):
        codes = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        codes[1, torch.arange(4) != changed] = codes[0, torch.arange(4) != changed]
        images = codes @ loadings.T + 0.1 * torch.randn(2, 64, generator=generator, dtype=torch.float64)
        mean = images @ loadings / 0.1**2 / precision
        shared = model.shared_set(mean[None], -precision.log().expand(1, 2, 4), None)
        assert shared.tolist() == [[d != changed for d in range(4)]]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_without_shared_dimensions_it_is_the_beta_vae_of_both_images(kind, options):
    model, beta_vae = make_model(kind, latents=5, beta=4.0, **options), make_model(BetaVAE, latents=5)
    model.shared_set = lambda mean, logvar, changed: torch.zeros(len(mean), 5, dtype=torch.bool)
    batch = make_pairs(CHANGED, latents=5)
    mine, theirs = (one.loss(batch, STEP)["loss"] for one in (model, beta_vae))
    assert_same_loss(mine, theirs, model, beta_vae)


def test_a_distance_on_the_threshold_is_not_shared_and_equal_distances_all_are():
    distance = torch.tensor([[0.0, 1.0, 2.0, 0.5], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[True, False, False, True], [True] * 4, [True] * 4]
    assert near_dimensions(distance).tolist() == expected


def test_identical_images_share_all_dimensions():
    model = make_model(AdaGVAE, latents=5)
    batch = make_pairs(CHANGED, latents=5)
    batch.images = batch.images[0::2].repeat_interleave(2, 0)
    assert model.loss(batch, STEP)["shared"] == 5


@pytest.mark.parametrize("kind", [GVAE, MLVAEPairs])
def test_what_was_not_redrawn_is_joined_and_what_was_redrawn_is_not(kind):
    model = make_model(kind, latents=5)
    mean, logvar = random_normals(8, 5)
    batch = make_pairs(CHANGED, latents=5)
    shared = model.shared_set(of_pairs(mean), of_pairs(logvar), batch.changed)
    joined, _ = model.joined(mean, logvar, shared, batch.groupings[0])
    for pair, dimension in itertools.product(range(4), range(5)):
        is_joined = joined[2 * pair, dimension] == joined[2 * pair + 1, dimension]
        assert is_joined == (dimension >= 3 or not CHANGED[pair][dimension])


@pytest.mark.parametrize("model", ["gvae", "mlvae_pairs", "adagvae", "adamlvae", "slowvae", "dcign"])
def test_a_run_of_thirty_steps(model, tmp_path, tiny_dataset, no_pictures):
    settings = {"latents": 3, "network": "mlp", "steps": 30, "batch_size": 8, "metrics": ["mig"]}
    run = dislab.run(model, tiny_dataset, out=tmp_path, device="cpu", **settings)
    assert 0 <= run.scores["mig"] <= 1
    losses = [float(line.split(",")[1]) for line in (run.path / "history.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("model", ["gvae", "adagvae", "slowvae", "dcign"])
def test_images_without_a_grid_of_factors_are_refused_in_one_line(model, tmp_path):
    people = np.arange(12)[:, None] // 4
    faces = dislab.from_arrays(np.full((12, 8, 8), 255, np.uint8), people, names=["person"], name="faces")
    with pytest.raises(DislabError, match="it needs an image of every combination of factor values") as error:
        dislab.run(model, faces, out=tmp_path, steps=3, batch_size=4, device="cpu")
    one_line(error)
    assert not [*tmp_path.rglob("history.csv")]


@pytest.mark.parametrize("model", ["gvae", "mlvae_pairs", "dcign"])
def test_more_factors_than_latents_is_one_line_before_training(model, tmp_path, tiny_dataset):
    with pytest.raises(DislabError, match=r"latents=2: the model has a latent for each factor") as error:
        dislab.run(model, tiny_dataset, out=tmp_path, latents=2, steps=3, batch_size=4, device="cpu")
    one_line(error)


@pytest.mark.parametrize("model", ["adagvae", "adamlvae", "slowvae"])
def test_an_estimated_shared_set_needs_no_dimension_for_each_factor(
    model, tmp_path, tiny_dataset, no_pictures
):
    settings = {"latents": 2, "network": "mlp", "steps": 2, "batch_size": 4, "metrics": ["mig"]}
    assert dislab.run(model, tiny_dataset, out=tmp_path, device="cpu", **settings).scores["mig"] >= 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"changed": 9}, "gvae: changed is 9: choose random, 1, 2"),
        ({"changed": 3}, "changed=3: 1 to 2 of the 3"),
    ],
)
def test_more_redrawn_factors_than_there_are_is_one_line(values, message, tmp_path, tiny_dataset):
    with pytest.raises(DislabError, match=message) as error:
        dislab.run("gvae", tiny_dataset, out=tmp_path, steps=3, batch_size=4, device="cpu", **values)
    one_line(error)
