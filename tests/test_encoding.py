"""Rows are encoded when a metric asks for them, and are what encoding all of them gives."""

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE

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
