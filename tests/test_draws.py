"""Every draw is uniform over what it draws from: chi-square tests of training batches and of scores."""

import itertools

import numpy as np
import pytest
import torch
from conftest import SIZES, make_tiny_dataset
from scipy.stats import chisquare, kstest
from small_models import Grouped, Ungrouped

from dislab.data.groups import draw_groups
from dislab.metrics.betavae_score import draw_points
from dislab.metrics.factorvae_score import count_votes
from dislab.models.mlvae import MLVAE
from dislab.scoring.class_readout import draw_images
from dislab.scoring.encoding import choose_rows
from dislab.scoring.table import CodeTable
from dislab.training.batches import Batches

CPU = torch.device("cpu")
FACTORS = np.indices(SIZES).reshape(3, -1).T  # of the tiny dataset
UNEVEN = np.random.default_rng(0).integers(0, [3, 2], (40, 2))  # rows that are no grid, some of them twice


def assert_uniform(values: np.ndarray, number: int, within: np.ndarray | None = None) -> None:
    """The values are uniform draws of 0 .. number - 1; `within` divides them into parts that are, each."""
    within = np.zeros_like(values) if within is None else within
    for part in np.unique(within):
        counts = np.bincount(values[within == part], minlength=number)
        assert len(counts) == number
        # The seeds are fixed, so this does not fail by chance; a true bias gives far smaller p-values.
        assert number == 1 or chisquare(counts).pvalue > 1e-4


def number_of_set(members: np.ndarray, size: int) -> np.ndarray:
    """The number of each row's set [N, k] of whole numbers below `size`, among all sets of k."""
    sets = {chosen: i for i, chosen in enumerate(itertools.combinations(range(size), members.shape[1]))}
    return np.array([sets[tuple(chosen)] for chosen in np.sort(members, axis=1).tolist()])


def draw_indices(batches: Batches):
    """The rows, the groups and the noise of the next batch."""
    uniform, noise = batches.random()
    return *batches.rows(uniform)[:2], noise


def draw_rows(batches: Batches, times: int) -> np.ndarray:
    return torch.stack([draw_indices(batches)[0] for _ in range(times)]).numpy()


# Batches


def test_single_images_are_uniform_at_every_position_and_independent():
    rows = draw_rows(Batches(make_tiny_dataset(), Ungrouped(), 4, [], 0, CPU), 3000)
    for position in range(4):
        assert_uniform(rows[:, position], 60)
    for one, other in itertools.combinations(range(4), 2):
        assert_uniform(rows[:, one] % 12 * 12 + rows[:, other] % 12, 144)


@pytest.mark.parametrize(("group_size", "batch_size"), [(2, 6), (3, 8), (4, 11), (5, 7)])
def test_groups_and_sets_of_members_are_uniform_in_every_slot(group_size, batch_size):
    """By shape and size there are twelve groups of five; the last group of a batch is smaller."""
    batches = Batches(make_tiny_dataset(), Grouped(group_size), batch_size, [["shape", "size"]], 1, CPU)
    rows = draw_rows(batches, 2500)
    groups, slots = rows // 5, batches.slots.index.numpy()
    first = batches.slots.first.numpy()
    for slot in range(slots.max() + 1):
        members = rows[:, slots == slot]
        assert (groups[:, slots == slot] == groups[:, [first[slot]]]).all()
        assert_uniform(groups[:, first[slot]], 12)
        sets = number_of_set(members % 5, 5)
        assert_uniform(sets, len(list(itertools.combinations(range(5), members.shape[1]))))
        assert_uniform(sets, sets.max() + 1, within=groups[:, first[slot]])
    for one, other in itertools.pairwise(first):
        assert_uniform(groups[:, one] * 12 + groups[:, other], 144)


def test_uneven_groups_are_drawn_equally_often():
    held_out = np.array([0, 1, 2, 3, 4, 5, 16])
    batches = Batches(make_tiny_dataset(held_out), Grouped(4), 8, [["shape"]], 2, CPU)
    rows = draw_rows(batches, 1500)
    trained = np.setdiff1d(np.arange(60), held_out)
    assert_uniform(rows[:, 0] // 15, 4)
    for shape in range(4):
        of_shape = trained[trained // 15 == shape]
        drawn = rows[rows // 15 == shape]
        assert_uniform(np.searchsorted(of_shape, drawn), len(of_shape))


def test_several_groupings_are_uniform_and_cut_across_each_other():
    batches = Batches(make_tiny_dataset(), Grouped(3), 6, [["shape"], ["size"]], 3, CPU)
    rows, slots, firsts = [], [], []
    for _ in range(2500):
        drawn, groupings, _ = draw_indices(batches)
        rows.append(drawn)
        slots.append(groupings[1].index)
        firsts.append(groupings[1].first)
    rows, slots, firsts = (torch.stack(parts).numpy() for parts in (rows, slots, firsts))
    shape, size, position = FACTORS[rows].transpose(2, 0, 1)
    for k in range(6):  # every position of the batch
        assert_uniform(shape[:, k] * 15 + size[:, k] * 5 + position[:, k], 60)
        assert_uniform(slots[:, k], 2)
    assert_uniform(shape[:, 0] * 4 + shape[:, 3], 16)  # the two groups by shape
    by_size = np.take_along_axis(size, firsts, axis=1)  # the two groups by size
    assert_uniform(by_size[:, 0] * 3 + by_size[:, 1], 9)
    # Which three of the six images share the first group by size.
    assert_uniform(number_of_set(np.argsort(slots, axis=1, kind="stable")[:, :3], 6), 20)
    # Two images of the same two groups are drawn one by one.
    same = slots[:, 0] == slots[:, 1]
    assert_uniform(position[same, 0] * 5 + position[same, 1], 25)


@pytest.mark.parametrize("group_size", [4, 8, 15])
def test_the_component_of_a_mixture_is_any_member(group_size):
    """The mean of each image is 1000 times its row, so the draw says whose it is, and the noise around it."""
    batches = Batches(make_tiny_dataset(), Grouped(group_size), 100 * group_size + 2, [["shape"]], 4, CPU)
    batches.latents = 1
    model = MLVAE((1, 16, 16), content=1, style=1, posterior="mixture", network="mlp")
    components, noises = [], []
    for _ in range(24):
        rows, (groups,), noise = draw_indices(batches)
        mean, logvar = 1000.0 * rows[:, None].double(), torch.zeros(len(rows), 1, dtype=torch.float64)
        content = model.content_of(groups, mean, logvar, noise.double())[0][groups.first, 0]
        components.append((content / 1000).round().long().numpy())
        noises.append((content - 1000 * (content / 1000).round()).numpy())
    component, noise = np.concatenate(components), np.concatenate(noises)
    assert_uniform(component, 60)
    # The draw around the component's mean is a standard Normal, whichever the component is.
    assert kstest(noise, "norm").pvalue > 1e-4
    for part in range(5):
        assert kstest(noise[component % 5 == part], "norm").pvalue > 1e-4


# Scores


class Recording(CodeTable):
    """A code table that keeps what its `sharing` was asked for, and what it drew."""

    def __init__(self, factors: np.ndarray, **options):
        super().__init__(np.random.default_rng(1).standard_normal((len(factors), 2)), factors, **options)
        self.drawn = {k: [] for k in range(factors.shape[1])}

    def sharing(self, rng, factor, rows):
        others = super().sharing(rng, factor, rows)
        self.drawn[factor].append((rows, others))
        return others


def points_of(draw, factors: np.ndarray, **options) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each factor: the first row [points, pairs] of each pair, and the second."""
    table = Recording(factors, **options)
    draw(table, np.random.default_rng(2))
    return {k: tuple(map(np.concatenate, zip(*drawn, strict=True))) for k, drawn in table.drawn.items()}


def draw_pairs(table, rng):
    draw_points(table, rng, 12_000, 2)


def draw_votes(table, rng):
    count_votes(table, rng, 12_000, 3, np.ones(2), np.arange(2))


@pytest.mark.parametrize("draw", [draw_pairs, draw_votes])
@pytest.mark.parametrize(("factors", "options"), [(FACTORS, {"full_grid": True}), (UNEVEN, {})])
def test_pairs_of_a_score_are_uniform_and_share_one_factor(draw, factors, options):
    points = points_of(draw, factors, **options)
    counts = {k: len(first) for k, (first, _) in points.items()}
    assert max(counts.values()) - min(counts.values()) <= 1, "every factor is shared equally often"
    for k, (first, second) in points.items():
        values = factors[:, k]
        assert (values[first] == values[second]).all()
        assert_uniform(first[:, 0], len(factors))
        for value in range(values.max() + 1):
            rows, mine = np.flatnonzero(values == value), values[first] == value
            for pair in range(first.shape[1]):
                others = np.searchsorted(rows, second[mine[:, pair], pair])
                assert_uniform(others, len(rows))
                # The first row says no more of the second than its factor value does.
                assert_uniform(others, len(rows), within=first[mine[:, pair], pair] % 3)
            # Nor does one second row say more of another one.
            others = np.searchsorted(rows, second[mine.all(axis=1)])
            assert_uniform(others[:, 0], len(rows), within=others[:, 1] % 3)


@pytest.mark.parametrize(("full_grid", "distinct"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize(("num_train", "num_test"), [(3, 2), (90, 30)])
def test_rows_of_a_split_are_uniform(full_grid, distinct, num_train, num_test):
    """Also where there are fewer rows than are asked for."""
    table = CodeTable(np.zeros((60, 1)), FACTORS, full_grid=full_grid)
    rng = np.random.default_rng(3)
    times = 6000 if num_train == 3 else 1200
    splits = [table.split(rng, num_train, num_test, distinct=distinct) for _ in range(times)]
    train, test = (np.stack(parts) for parts in zip(*splits, strict=True))
    for rows in (train, test):
        for position in (0, -1):
            assert_uniform(rows[:, position], 60)
    if full_grid and not distinct:
        assert_uniform(train[:, 0] % 10 * 10 + test[:, 0] % 10, 100)
        assert_uniform(train[:, 0] % 10 * 10 + train[:, 1] % 10, 100)
    else:
        assert all(len({*one, *other}) == len(one) + len(other) for one, other in splits)
        assert_uniform((test[:, 0] - train[:, 0]) % 60 - 1, 59)


def test_classes_and_images_whose_evidence_is_joined_are_uniform():
    """Three of five classes, and two or three images of each: the smallest class decides."""
    classes = np.repeat(np.arange(5), [4, 6, 3, 5, 4])
    rng = np.random.default_rng(4)
    drawn = [draw_groups(rng, classes, 3, 3) for _ in range(6000)]
    chosen = np.stack([classes[members[:, 0]] for members in drawn])
    assert_uniform(number_of_set(chosen, 5), 10)
    for value in range(5):
        rows = np.flatnonzero(classes == value)
        members = np.concatenate([one[classes[one[:, 0]] == value] for one in drawn])
        assert_uniform(
            number_of_set(np.searchsorted(rows, members), len(rows)),
            len(list(itertools.combinations(rows, 3))),
        )
        for position in range(3):
            assert_uniform(np.searchsorted(rows, members[:, position]), len(rows))


@pytest.mark.parametrize(("num_images", "num_draws"), [(1, 5), (2, 3), (3, 5), (7, 4), (10, 3)])
def test_images_of_a_class_are_uniform_at_every_position(num_images, num_draws):
    rng = np.random.default_rng(5)
    pool = np.arange(100, 107)
    draws = np.stack([draw_images(rng, pool, num_images, num_draws) for _ in range(3000)]) - 100
    for draw, position in itertools.product(range(num_draws), range(num_images)):
        assert_uniform(draws[:, draw, position], 7)
    if 1 < num_images < 7:
        for draw in range(num_draws):
            sets = number_of_set(draws[:, draw], 7)
            assert_uniform(sets, len(list(itertools.combinations(range(7), num_images))))


def test_scored_rows_are_uniform():
    dataset = make_tiny_dataset()
    drawn = [choose_rows(dataset, 7, seed) for seed in range(1000)]
    assert_uniform(np.concatenate(drawn), 60)
    assert all(len(set(rows)) == 7 for rows in drawn)
