"""Batches: uniform draws by index, groups with one factor value, several groupings."""

import numpy as np
import pytest
import torch
from conftest import make_tiny_dataset
from scipy.stats import chisquare
from small_models import Grouped, Ungrouped

from dislab.errors import DislabError
from dislab.training.batches import Batches

CPU = torch.device("cpu")


def draw_rows(batches: Batches, times: int) -> np.ndarray:
    """Rows [times, B] of so many batches."""
    return torch.stack([batches.rows(batches.random()[0])[0] for _ in range(times)]).numpy()


def assert_uniform(rows: np.ndarray, among) -> None:
    """The rows are uniform draws from `among`, and nothing else."""
    values, counts = np.unique(rows, return_counts=True)
    assert set(values) == set(among)
    # The seeds are fixed, so this does not fail by chance; a true bias gives far smaller p-values.
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("group_by", [["shape"], ["position", "shape"]])
def test_groups_share_their_label_and_have_different_members(tiny_dataset, group_by):
    batches = Batches(tiny_dataset, Grouped(3), 9, [group_by], 0, CPU)
    columns = tiny_dataset.space.columns(group_by)
    for rows in draw_rows(batches, 50):
        for group in rows.reshape(3, 3):
            assert len(set(group)) == 3
            assert len(np.unique(tiny_dataset.space.factors(group)[:, columns], axis=0)) == 1
    assert batches.slots.index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert batches.slots.first.tolist() == [0, 3, 6]


def test_rows_are_uniform_at_every_position_of_a_batch(tiny_dataset):
    for model in (Ungrouped(), Grouped(4)):
        rows = draw_rows(Batches(tiny_dataset, model, 12, [["shape"]], 1, CPU), 2000)
        assert_uniform(rows, range(60))
    # In a group of an "iid" batch there is one image, and images come back.
    batches = Batches(tiny_dataset, Ungrouped(), 12, [["shape"]], 1, CPU)
    assert batches.slots.index.tolist() == batches.slots.first.tolist() == list(range(12))
    assert any(len(set(rows)) < 12 for rows in draw_rows(batches, 50))


@pytest.mark.parametrize("group_size", [4, 8, 15])
def test_the_last_group_takes_what_is_left_and_is_uniform_too(tiny_dataset, group_size):
    left = 3
    batches = Batches(tiny_dataset, Grouped(group_size), 2 * group_size + left, [["shape"]], 3, CPU)
    assert batches.slots.index.tolist() == [0] * group_size + [1] * group_size + [2] * left
    assert batches.slots.first.tolist() == [0, group_size, 2 * group_size]
    last = draw_rows(batches, 700)[:, 2 * group_size :]
    assert last.shape == (700, left)
    assert all(len(set(group)) == left for group in last)
    assert (last // 15 == last[:, :1] // 15).all()
    assert_uniform(last, range(60))


def test_a_batch_smaller_than_a_group_is_one_group(tiny_dataset):
    batches = Batches(tiny_dataset, Grouped(8), 5, [["shape"]], 0, CPU)
    assert batches.slots.index.tolist() == [0] * 5
    assert batches.slots.first.tolist() == [0]
    assert len(set(draw_rows(batches, 1)[0])) == 5


def test_a_group_that_is_too_small_is_an_error(tiny_dataset):
    Batches(tiny_dataset, Grouped(5), 10, [["shape", "size"]], 0, CPU)
    with pytest.raises(
        DislabError, match=r"group_size=6 .*--group-by shape,size.* more than 5 training images"
    ):
        Batches(tiny_dataset, Grouped(6), 12, [["shape", "size"]], 0, CPU)
    with pytest.raises(DislabError, match="did you mean 'shape'"):
        Batches(tiny_dataset, Grouped(2), 12, [["shap"]], 0, CPU)


def test_groups_with_too_few_images_are_not_drawn():
    dataset = make_tiny_dataset(
        held_out=np.arange(12)
    )  # leaves three images of shape 0, fifteen of the others
    batches = Batches(dataset, Grouped(4), 12, [["shape"]], 0, CPU)
    assert set(np.unique(draw_rows(batches, 200) // 15)) == {1, 2, 3}
    assert batches.draw().dataset_size == len(batches.order) == 45
    assert batches.remark == (
        "trains on 3 of 4 groups, 45 of 48 images: the others have fewer than group_size=4 images "
        "(a smaller group_size uses them)"
    )
    assert Batches(dataset, Grouped(3), 12, [["shape"]], 0, CPU).remark == ""
    assert Batches(dataset, Ungrouped(), 12, [["shape"]], 0, CPU).remark == ""


@pytest.mark.parametrize("group_by", [["shape"], ["position", "shape"]])
def test_random_images_are_grouped_by_the_classes_that_are_there(group_by):
    """No image of the first shape is trained on, and a batch lacks others, too."""
    dataset = make_tiny_dataset(held_out=np.arange(15))
    batches = Batches(dataset, Grouped(0), 6, [group_by], 0, CPU)
    label = np.unique(dataset.space.labels(group_by, np.arange(15, 60)), return_inverse=True)[1]
    missing = 0
    for _ in range(200):
        rows, (groups,), _ = batches.rows(batches.random()[0])
        assert groups.number == (3 if group_by == ["shape"] else 15)
        assert groups.index.tolist() == label[rows.numpy() - 15].tolist()
        for g in range(groups.number):
            members = torch.nonzero(groups.index == g).flatten().tolist()
            missing += not members
            assert groups.first[g] == (members[0] if members else 0)
    assert missing > 20
    rows = draw_rows(batches, 2000)
    for position in (0, 5):
        assert_uniform(rows[:, position], range(15, 60))
    assert batches.draw().dataset_size == 45 and batches.remark == ""
    with pytest.raises(DislabError, match="group_size=0 takes one grouping, but --group-by names 2"):
        Batches(dataset, Grouped(0), 6, [["shape"], ["size"]], 0, CPU)


def test_only_training_rows_are_drawn():
    held_out = np.array([0, 1, 2, 3, 4, 5, 14, 16, 33, 58, 59])
    dataset = make_tiny_dataset(held_out)
    trained = np.setdiff1d(np.arange(60), held_out)
    batches = Batches(dataset, Ungrouped(), 10, [[]], 0, CPU)
    assert_uniform(draw_rows(batches, 2000), trained)
    assert batches.draw().dataset_size == 49

    batches = Batches(dataset, Grouped(4), 12, [["shape"]], 0, CPU)
    rows = draw_rows(batches, 2000)
    assert set(rows.flat) == set(trained)
    # Groups are uniform though the first has 8 images and the third has 14; so are images within each.
    assert_uniform(rows[:, ::4] // 15, range(4))
    for shape in range(4):
        assert_uniform(rows[rows // 15 == shape], trained[trained // 15 == shape])
    assert batches.draw().dataset_size == 49


def test_a_group_without_training_rows_is_not_drawn():
    dataset = make_tiny_dataset(np.arange(15, 30))
    rows = draw_rows(Batches(dataset, Grouped(4), 12, [["shape"]], 0, CPU), 200)
    assert set(np.unique(rows // 15)) == {0, 2, 3}


@pytest.mark.parametrize(("group_size", "batch_size"), [(1, 5), (3, 9), (4, 10), (15, 40)])
def test_the_numbers_decide_the_rows_by_floyds_algorithm(tiny_dataset, group_size, batch_size):
    """One number after the other and set by set, for a batch alone and for three together."""
    batches = [
        Batches(tiny_dataset, Grouped(group_size), batch_size, [["shape"]], seed, CPU) for seed in range(3)
    ]
    twins = [torch.Generator().manual_seed(seed) for seed in range(3)]
    for _ in range(20):
        uniform, noise = zip(*(one.random() for one in batches), strict=True)
        together, _, _ = batches[0].rows(torch.stack(uniform))
        for index, twin in enumerate(twins):
            numbers = iter(torch.rand(len(uniform[index]), generator=twin, dtype=torch.float64).tolist())
            sizes = [group_size] * (batch_size // group_size) + [batch_size % group_size]
            sizes = [size for size in sizes if size]
            groups = [int(next(numbers) * 4) for _ in sizes]
            members: list[list[int]] = [[] for _ in sizes]
            for member in range(group_size):
                for group, size, drawn in zip(groups, sizes, members, strict=True):
                    number = next(numbers)
                    if member < size:  # Floyd: one of the first 15 - size + member + 1 of the group's 15 rows
                        highest = 15 - size + member
                        row = 15 * group + int(number * (highest + 1))
                        drawn.append(15 * group + highest if row in drawn else row)
            expected = [row for drawn in members for row in drawn]
            assert together[index].tolist() == batches[index].rows(uniform[index])[0].tolist() == expected
            assert torch.equal(noise[index], torch.randn(batch_size, 3, generator=twin))


def test_several_groupings_are_drawn_alike(tiny_dataset):
    batches = Batches(tiny_dataset, Grouped(4), 12, [["shape"], ["size", "position"]], 0, CPU)
    values = [[], []]
    for _ in range(500):
        rows, groupings, _ = batches.rows(batches.random()[0])
        factors = tiny_dataset.space.factors(rows)
        labels = [factors[:, 0], 5 * factors[:, 1] + factors[:, 2]]
        for grouping, (groups, label) in enumerate(zip(groupings, labels, strict=True)):
            assert torch.bincount(groups.index).tolist() == [4, 4, 4]
            assert groups.index[groups.first].tolist() == [0, 1, 2]
            of_group = label[groups.first]
            assert (label == of_group[groups.index]).all(), "all images of a group share its value"
            values[grouping] += of_group.tolist()
        pairs = torch.stack([groups.index for groups in groupings])
        assert len(torch.unique(pairs, dim=1).T) > 3, "the groupings cut across each other"
    assert_uniform(np.array(values[0]), range(4))
    assert_uniform(np.array(values[1]), range(15))


def test_several_groupings_need_every_combination():
    dataset = make_tiny_dataset(held_out=np.arange(5))  # all images of shape 0 and size 0
    with pytest.raises(DislabError, match=r"1 of 12 are missing for shape with size"):
        Batches(dataset, Grouped(2), 12, [["shape"], ["size"]], 0, CPU)


def test_a_batch_holds_the_images_of_its_rows(tiny_dataset):
    batches, same = (Batches(tiny_dataset, Grouped(4), 10, [["shape"]], 5, CPU) for _ in range(2))
    batch, rows = batches.draw(), same.rows(same.random()[0])[0]
    assert batch.images.dtype == torch.float32
    torch.testing.assert_close(batch.images, tiny_dataset.images(rows).float() / 255)
    assert 0.5 < batch.images.max() <= 1
    assert batch.noise.shape == (10, 3)
    assert batch.groupings[0].number == 3
    noise = torch.cat([batches.draw().noise.flatten() for _ in range(300)])
    assert noise.mean().abs() < 0.05
    assert abs(noise.std() - 1) < 0.05


def test_the_seed_decides_the_batches(tiny_dataset):
    first, again, other = (
        Batches(tiny_dataset, Grouped(4), 10, [["shape"]], seed, CPU) for seed in (7, 7, 8)
    )
    for _ in range(3):
        one, two, three = first.draw(), again.draw(), other.draw()
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.noise, two.noise)
        assert not torch.equal(one.noise, three.noise)
