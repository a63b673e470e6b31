"""Pairs of images that differ in some factors: what is drawn, by enumeration and by chi-square."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SIZES, make_tiny_dataset
from scipy.stats import chisquare

import dislab
from dislab.errors import DislabError
from dislab.runs.machine import Machine
from dislab.runs.resolve import resolve
from dislab.training.batches import Batches
from dislab.training.pairs import Redraws

CPU = torch.device("cpu")
SPACE = dislab.FactorSpace(("shape", "size", "position"), SIZES, categorical=["shape"])
DRAWS = 20_000


def draw(space, changed, resample, groups=DRAWS, size=2) -> tuple[np.ndarray, np.ndarray]:
    """Factor values [groups, size, K] and which were redrawn [groups, K]."""
    redraws = Redraws(space, groups, size, changed, resample, CPU)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(sum(redraws.parts), generator=generator, dtype=torch.float64)
    rows, redrawn = redraws.rows(*uniform.split(redraws.parts))
    return space.factors(rows).reshape(groups, size, -1), redrawn.numpy()


def model(**attributes):
    """What `Batches` asks of a model of pairs."""
    usual = {"supervision": "pairs", "latents": 3, "group_size": 2, "changed": 1, "resample": "any"}
    return SimpleNamespace(**usual | attributes)


def assert_drawn_from(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """The counts are draws of these probabilities; what cannot happen did not."""
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    assert (
        possible.sum() == 1
        or chisquare(counts[possible], probabilities[possible] * counts.sum()).pvalue > 1e-4
    )


def expected_differences(sizes, changed, resample) -> np.ndarray:
    """P(n factors differ), n = 0 .. K, going through all sets of redrawn factors."""
    total = np.zeros(len(sizes) + 1)
    counts = range(1, len(sizes)) if changed == "random" else [changed]
    for count in counts:
        sets = list(itertools.combinations(sizes, count))
        for chosen in sets:
            stays = [1 / size if resample == "any" else 0.0 for size in chosen]
            for differ in itertools.product([False, True], repeat=count):
                pairs = zip(differ, stays, strict=True)
                chance = math.prod(1 - stay if differs else stay for differs, stay in pairs)
                total[sum(differ)] += chance / len(sets) / len(counts)
    return total


@pytest.mark.parametrize("changed", [1, 2, "random"])
@pytest.mark.parametrize("resample", ["any", "other"])
def test_as_many_factors_differ_as_by_enumeration(changed, resample):
    values, redrawn = draw(SPACE, changed, resample)
    differ = values[:, 0] != values[:, 1]
    assert not (differ & ~redrawn).any()
    assert_drawn_from(np.bincount(differ.sum(1), minlength=4), expected_differences(SIZES, changed, resample))
    if resample == "other":
        assert (differ == redrawn).all()


def test_first_images_sets_of_factors_and_new_values_are_uniform():
    values, redrawn = draw(SPACE, 1, "any")
    first = np.ravel_multi_index(tuple(values[:, 0].T), SIZES)
    assert_drawn_from(np.bincount(first, minlength=60), np.full(60, 1 / 60))
    assert_drawn_from(redrawn.sum(0), np.full(3, 1 / 3))
    for column, size in enumerate(SIZES):
        before, after = values[redrawn[:, column]][:, :, column].T
        both = np.bincount(before * size + after, minlength=size**2)
        assert_drawn_from(both, np.full(size**2, 1 / size**2))


def test_laplace_transitions_are_those_of_the_formula():
    space = dislab.FactorSpace(("kind", "size", "position"), (3, 4, 6), categorical=["kind"])
    values, redrawn = draw(space, 1, "laplace", groups=60_000)
    assert (values[:, 0, 0] == values[:, 1, 0]).all() and ((values[:, 0] != values[:, 1]) == redrawn).all()
    assert redrawn.any(1).all()
    tables = []
    for size in (4, 6):
        table = np.exp(-np.abs(np.subtract.outer(range(size), range(size))) / math.log(size))
        tables.append(table / table.sum(1, keepdims=True))
    for start in itertools.product(range(4), range(6)):
        # Both factors move on their own; if neither does, one of them gets another value.
        chance = np.outer(tables[0][start[0]], tables[1][start[1]])
        nothing, chance[start] = chance[start], 0
        for column, size in enumerate((4, 6)):
            for value in set(range(size)) - {start[column]}:
                moved = list(start)
                moved[column] = value
                chance[tuple(moved)] += nothing / 2 / (size - 1)
        after = values[(values[:, 0, 1:] == start).all(1)][:, 1, 1:]
        assert_drawn_from(np.bincount(after[:, 0] * 6 + after[:, 1], minlength=24), chance.ravel())


def test_a_factor_with_one_value_is_never_chosen():
    space = dislab.FactorSpace(("a", "b", "c"), (1, 3, 4))
    for resample in ("any", "other"):
        _, redrawn = draw(space, "random", resample, groups=500)
        assert not redrawn[:, 0].any() and (redrawn.sum(1) == 1).all()


def test_a_batch_of_pairs():
    dataset = make_tiny_dataset()
    batch = Batches(dataset, model(), 6, [], 0, CPU).draw()
    assert batch.groupings[0].index.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.changed.shape == (3, 3) and batch.changed.dtype == torch.bool
    assert batch.changed.sum(1).tolist() == [1, 1, 1]
    assert batch.noise.shape == (6, 3) and batch.dataset_size == 60
    assert Batches(dataset, model(noise=7), 6, [], 0, CPU).draw().noise.shape == (6, 7)


def test_a_batch_in_which_one_factor_varies():
    dataset = make_tiny_dataset()
    batches = Batches(dataset, model(group_size=0), 8, [], 0, CPU)
    for _ in range(20):
        rows, (groups,), changed = batches.rows(batches.random()[0])
        values = dataset.space.factors(rows)
        assert groups.number == 1 and changed.shape == (1, 3) and changed.sum() == 1
        assert (np.ptp(values, axis=0)[~changed[0].numpy()] == 0).all()


def test_models_trained_at_once_get_the_pairs_that_they_get_alone():
    batches = [Batches(make_tiny_dataset(), model(changed="random"), 6, [], seed, CPU) for seed in range(3)]
    uniform = [one.random()[0] for one in batches]
    together, _, changed = batches[0].rows(torch.stack(uniform))
    for index, one in enumerate(batches):
        rows, _, own = one.rows(uniform[index])
        assert torch.equal(together[index], rows) and torch.equal(changed[index], own)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"changed": 3}, "changed=3: 1 to 2 of the 3 factors can differ in a pair"),
        ({"binds_factors": True, "latents": 2}, "latents=2: the model has a latent for each factor"),
    ],
)
def test_what_a_dataset_cannot_give_is_one_line(attributes, message):
    with pytest.raises(DislabError, match=message):
        Batches(make_tiny_dataset(), model(**attributes), 6, [], 0, CPU)


def test_pairs_need_a_full_grid_and_an_even_batch():
    with pytest.raises(DislabError, match="the 45 training images"):
        Batches(dislab.hold_out(make_tiny_dataset(), "shape=0"), model(), 6, [], 0, CPU)
    with pytest.raises(DislabError, match="--batch-size 7: a batch of pairs has an even number"):
        Batches(make_tiny_dataset(), model(), 7, [], 0, CPU)
    one = dislab.FactorSpace(("a",), (5,))
    with pytest.raises(DislabError, match="two factors or more"):
        Redraws(one, 2, 2, 1, "any", CPU)
    with pytest.raises(DislabError, match="needs a factor that is not categorical"):
        Redraws(dislab.FactorSpace(("a", "b"), (5, 2), categorical=["a", "b"]), 2, 2, 1, "laplace", CPU)


def test_every_run_of_a_sweep_is_checked_before_it_is_trained(tiny_dataset):
    """What was checked for one value is not taken for checked for another."""
    for given, message in (({"changed": 3}, "changed=3"), ({"latents": 2}, "latents=2")):
        resolve("gvae", tiny_dataset, Machine(), network="mlp", metrics=["mig"])
        with pytest.raises(DislabError, match=message):
            resolve("gvae", tiny_dataset, Machine(), network="mlp", metrics=["mig"], **given)
