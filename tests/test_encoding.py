"""Rows are encoded when a metric asks for them, and are what encoding all of them gives."""

import functools

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE
from torch import nn

import dislab
from dislab.data.dataset import Dataset
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.models.vae import VAE
from dislab.scoring import encoding
from dislab.scoring.encoding import encode
from dislab.scoring.score import score
from dislab.scoring.table import CodesOnDemand

N = 12 * 10 * 9
METRICS = ["factorvae_score", "modularity", "active_units", "mig"]


@pytest.fixture(scope="module")
def grid() -> Dataset:
    """A grid of more than one batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N, *IMAGE_SHAPE), generator=generator, dtype=torch.uint8)
    space = FactorSpace(("a", "b", "c"), (12, 10, 9))
    return Dataset("grid", "own", space, IMAGE_SHAPE, lambda rows: images[rows], ["a"])


class Counting:
    """An encoder that counts the images that it is given."""

    def __init__(self):
        torch.manual_seed(0)
        self.model, self.images = VAE(IMAGE_SHAPE, latents=4, network="conv"), 0

    def __call__(self, images):
        self.images += len(images)
        return self.model.encode(images)


def test_rows_on_demand_are_those_of_the_whole_table(grid):
    rows, encoder = np.arange(N), Counting()
    whole = encode(Counting(), grid, rows)
    table = encode(encoder, grid, rows, on_demand=True)
    assert encoder.images == encoding.BATCH
    rng = np.random.default_rng(0)
    for asked in (rng.integers(N, size=7), rng.integers(N, size=(3, 50)), np.array([N - 1])):
        assert np.array_equal(table.mean[asked], whole.mean[asked])
        assert np.array_equal(table.logvar[asked], whole.logvar[asked])
    assert encoder.images < N / 2
    before = encoder.images
    assert np.array_equal(table.mean[np.array([N - 1])], whole.mean[N - 1 :])
    assert encoder.images == before, "no row is encoded twice for nothing"
    assert np.array_equal(table.mean, whole.mean)
    assert np.array_equal(table.logvar, whole.logvar)
    assert encoder.images < N + encoding.BATCH


def test_scores_of_rows_on_demand_are_those_of_the_whole_table(grid):
    encoder = Counting()
    whole = encode(Counting(), grid, np.arange(N))
    for metric in METRICS:
        scores = dislab.evaluate(encoder, dataset=grid, metrics=[metric])
        assert scores == score(whole, [metric])


def test_few_rows_are_encoded_for_a_metric_that_needs_few(grid):
    encoder = Counting()
    dislab.evaluate(encoder, dataset=grid, metrics=["modularity"], num_train=100, num_test=50)
    assert encoder.images < N / 2


def test_codes_on_demand_do_what_arrays_do():
    values, filled = np.arange(12, dtype=np.float32).reshape(4, 3), []
    codes = CodesOnDemand(values, lambda rows: filled.extend(rows.tolist()))
    assert (codes.shape, codes.ndim, codes.dtype, len(codes)) == ((4, 3), 2, np.float32, 4)
    assert filled == []
    for key, rows in (
        (2, [2]),
        ([1, 0], [1, 0]),
        (np.array([[0], [3]]), [0, 3]),
        (np.array([True, False, False, True]), [0, 3]),
        (slice(1, 3), [1, 2]),
        (([1], 2), [1]),
        ((slice(None), 1), [0, 1, 2, 3]),
        (..., [0, 1, 2, 3]),
    ):
        filled.clear()
        assert np.array_equal(codes[key], values[key])
        assert filled == rows
    assert codes.mean() == values.mean()
    assert np.array_equal(codes.T, values.T)
    assert np.array_equal(codes + 1, values + 1)
    assert np.array_equal(np.abs(-codes), values)
    assert np.array_equal(np.var(codes, axis=0), values.var(axis=0))
    assert np.asarray(codes, dtype=np.float64).dtype == np.float64
    assert np.array(codes, copy=True) is not values


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda codes: codes[:3], "the encoder returned"),
        (lambda codes: codes[:, :2], "changed its form"),
        (lambda codes: codes * float("nan"), "codes must be finite: dimension 0 is nan in row"),
    ],
)
def test_an_encoder_that_fails_late_is_one_clear_line(grid, output, message):
    calls = []

    def encoder(images):
        calls.append(len(images))
        codes = images.flatten(1)[:, :4]
        return codes if len(calls) == 1 else output(codes)

    with pytest.raises(DislabError, match=message):
        dislab.evaluate(encoder, dataset=grid, metrics=["active_units"])


def test_an_encoder_that_changes_its_precision_fails(grid):
    calls = []

    def encoder(images):
        calls.append(len(images))
        codes = images.flatten(1)[:, :4]
        return codes if len(calls) == 1 else codes.double()

    with pytest.raises(DislabError, match="changed its form at row"):
        dislab.evaluate(encoder, dataset=grid, metrics=["active_units"])


# Modules in training mode


class Dropping(nn.Module):
    """An encoder with dropout and batch normalisation, some of it frozen by its owner."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        frozen = nn.BatchNorm1d(16).eval()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(256, 16), frozen, nn.Dropout(), nn.BatchNorm1d(16)
        )
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        if self.training:
            self.calls += 1
        return self.layers(images)

    def encode(self, images):
        return self(images)

    @torch.no_grad()
    def encode_without_gradient(self, images):
        return self(images)


def apply(network, images):
    return network(images)


FORMS = {
    "module": lambda model: model,
    "method": lambda model: model.encode,
    "decorated method": lambda model: model.encode_without_gradient,
    "wrapped method": lambda model: torch.no_grad()(model.encode),
    "partial of the module": lambda model: functools.partial(model),
    "partial of a method": lambda model: functools.partial(model.encode),
    "partial with the module": lambda model: functools.partial(apply, model),
    "partial with a keyword": lambda model: functools.partial(lambda x, network: network(x), network=model),
    "partial of a partial": lambda model: functools.partial(functools.partial(apply, model.encode)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("on_demand", [False, True])
def test_a_module_is_scored_in_evaluation_mode_and_left_as_it_was(grid, form, on_demand):
    model = Dropping()
    with torch.no_grad():  # statistics of this data, other than those that the module begins with
        for rows in np.split(np.arange(N), 10):
            model(grid.images(rows) / 255)
    rows = np.random.default_rng(0).permutation(N)
    expected = model.eval()(grid.images(rows) / 255).detach()
    model.train()
    model.layers[2].eval()
    encoder = FORMS[form](model)
    modes = [module.training for module in model.modules()]
    assert modes == [True, True, True, True, False, True, True]
    buffers = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):
        table = encode(encoder, grid, rows, on_demand=on_demand)
        asked = table.mean[np.arange(0, N, 7)]  # rows are encoded here, if on demand
        np.testing.assert_allclose(asked, expected[::7], rtol=1e-4, atol=1e-4)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, buffers[name]), name


def test_a_module_that_fails_is_left_as_it_was(grid):
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 3))
    with pytest.raises(DislabError, match="the encoder failed"):
        dislab.evaluate(model, dataset=grid, metrics=["mig"])
    assert all(module.training for module in model.modules())


# Codes that float32 cannot hold


def factors_of(grid, images):
    """The factors float64 [B, 3] of images, by their pixels."""
    whole = grid.images(np.arange(N)).flatten(1)[:, :40].numpy()
    row_of = {row.tobytes(): row_number for row_number, row in enumerate(whole)}
    pixels = (images * 255).round().to(torch.uint8).flatten(1)[:, :40].numpy()
    return grid.space.factors([row_of[row.tobytes()] for row in pixels]).astype(np.float64)


@pytest.mark.parametrize("metrics", [None, ["mig"], ["modularity"]])
def test_an_encoder_of_float64_codes_far_from_0(grid, metrics):
    """The codes are the factors: they have the scores of factors, or are refused."""
    near = dislab.evaluate(lambda images: factors_of(grid, images), dataset=grid, metrics=["mig"])
    whole = grid.space.factors(np.arange(N))
    assert near["mig"] == score(dislab.CodeTable(whole, whole, full_grid=True), ["mig"])["mig"]
    # Whole numbers that float32 holds are kept, however far they are.
    far = dislab.evaluate(lambda images: factors_of(grid, images) + 1e6, dataset=grid, metrics=["mig"])
    assert far == near
    with pytest.raises(
        DislabError, match=r"too coarse here: dimension 0 .* pass codes - codes.mean\(axis=0\)"
    ):
        dislab.evaluate(lambda images: factors_of(grid, images) + 1e8, dataset=grid, metrics=metrics)


def test_a_batch_of_float64_codes_may_be_all_but_constant(grid):
    """In the first rows the first factor is constant: only all known rows say what varies."""

    def encoder(images):
        factors = factors_of(grid, images)
        return 1 / 3 + factors[:, :1] + 1e-9 * factors[:, 2:]

    few = dislab.evaluate(encoder, dataset=grid, metrics=["active_units"])
    assert few["active_units"] == 1


def test_a_log_variance_that_float32_cannot_hold(grid):
    encoder = lambda images: (images.flatten(1)[:, :2], images.flatten(1)[:, :2].double() + 1e8)  # noqa: E731
    with pytest.raises(DislabError, match="logvar must be log-variances, but dimension 0 goes from 1000000"):
        dislab.evaluate(encoder, dataset=grid, metrics=["kl"])
