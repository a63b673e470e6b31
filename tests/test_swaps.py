"""Swapped images: the judge, which codes are swapped, and the scores of what the judge reads."""

import os

import numpy as np
import pytest
import torch
from conftest import NAMES, SIZES, make_tiny_dataset, one_line
from test_draws import assert_uniform
from torch import nn

import dislab
from dislab.data.dataset import Dataset, unit_images
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.scoring import swaps as module
from dislab.scoring.encoding import encode
from dislab.scoring.score import score
from dislab.scoring.swaps import swaps
from dislab.scoring.table import CodeTable
from dislab.scoring.table_file import table_file, table_in

CPU = torch.device("cpu")
SWAP = ["swap_accuracy", "swap_leak", "swap_judge"]


def make_copies() -> Dataset:
    """The tiny dataset eight times over: a judge of half of the rows has seen almost every image."""
    tiny = make_tiny_dataset()
    space = FactorSpace(NAMES, SIZES, np.tile(tiny.space.factors(np.arange(60)), (8, 1)))
    return Dataset("copies", "own", space, tiny.image_shape, lambda rows: tiny.images(rows % 60), ["shape"])


@pytest.fixture(scope="module")
def copies():
    """One for all tests, so that its judges are trained once."""
    return make_copies()


class Painter(nn.Module):
    """Codes are the three factors, in the order of `blocks`; the decoder paints the image of such codes."""

    def __init__(self, dataset: Dataset, contents: list[str], paint=None):
        super().__init__()
        self.dataset = dataset
        self.order = [NAMES.index(name) for name in contents + [n for n in NAMES if n not in contents]]
        names = ["content"] if len(contents) == 1 else [f"content_{g + 1}" for g in range(len(contents))]
        self.blocks = {name: slice(g, g + 1) for g, name in enumerate(names)}
        self.blocks["style"] = slice(len(contents), 3)
        self.images = unit_images(dataset.images(np.arange(60)))
        self.paint = paint

    def encode(self, images):
        rows = (images.flatten(1)[:, None] - self.images.flatten(1)).abs().sum(2).argmin(1)
        return torch.from_numpy(self.dataset.space.factors(rows.numpy())[:, self.order]).float()

    def encode_groups(self, images, groupings):
        codes = self.encode(images)
        assert len(groupings) == len(self.blocks) - 1
        for groups, block in zip(groupings, [*self.blocks.values()][:-1], strict=True):
            one_hot = nn.functional.one_hot(groups.index, groups.number).float()
            means = one_hot.T @ codes[:, block] / one_hot.sum(0)[:, None]
            codes[:, block] = means[groups.index]
        return codes, torch.zeros_like(codes)

    def mean_image(self, codes):
        if self.paint is not None:
            return self.paint(codes)
        factors = np.empty((len(codes), 3), np.int64)
        factors[:, self.order] = codes.round().numpy()
        return self.images[np.ravel_multi_index(factors.T, SIZES)]


def judged(model: Painter, group_by: list[list[str]]) -> tuple[CodeTable, dict]:
    rows = np.arange(480)
    table = encode(model.encode, model.dataset, rows, blocks=model.blocks, group_by=group_by)
    table.swaps = swaps(model, model.dataset, table, rows, group_by, CPU)
    scores = score(table, SWAP)
    assert not scores.failed and not scores.left_out
    return table, scores


def test_a_content_that_is_the_class_and_a_style_that_is_not(copies):
    table, scores = judged(Painter(copies, ["shape"]), [["shape"]])
    assert scores["swap_judge"] == 1
    assert (scores["swap_accuracy"], scores["swap_leak"]) == (1, 0)
    assert (scores["swap_accuracy_k1"], scores["swap_leak_k1"]) == (1, 0)
    assert scores["swap_accuracy_joined"] == 10
    assert not any(name.endswith("_per_grouping") for name in scores.details)
    assert (table.swaps[table.swaps[:, 1] > 0, 3] != table.swaps[table.swaps[:, 1] > 0, 4]).all()


def test_a_style_that_is_the_class(copies):
    _, scores = judged(Painter(copies, ["size"]), [["shape"]])
    assert scores["swap_judge"] == 1
    assert (scores["swap_accuracy"], scores["swap_leak"]) == (0, 1)
    assert (scores["swap_accuracy_k1"], scores["swap_leak_k1"]) == (0, 1)


def test_a_decoder_that_ignores_its_codes_is_at_chance(copies):
    rng = np.random.default_rng(0)
    images = unit_images(copies.images(np.arange(60)))
    model = Painter(copies, ["shape"], paint=lambda codes: images[rng.integers(60, size=len(codes))])
    _, scores = judged(model, [["shape"]])
    for name in ("swap_accuracy", "swap_leak", "swap_accuracy_k1", "swap_leak_k1"):
        assert scores[name] == pytest.approx(0.25, abs=0.04)


def test_several_images_are_joined_by_the_model_and_one_is_not(copies):
    class KnowsTogether(Painter):
        """A single image's content is of another shape; that of a group is right."""

        def encode_groups(self, images, groupings):
            assert (groupings[0].index.bincount() == 10).all()
            return super().encode_groups(images, groupings)

    model, rows = KnowsTogether(copies, ["shape"]), np.arange(480)
    table = encode(model.encode, copies, rows, blocks=model.blocks, group_by=[["shape"]])
    table.mean[:, 0] = (table.mean[:, 0] + 1) % 4
    table.swaps = swaps(model, copies, table, rows, [["shape"]], CPU)
    scores = score(table, SWAP)
    assert scores["swap_accuracy"] == 1 and scores["swap_accuracy_k1"] == 0
    assert scores["swap_leak_k1"] == pytest.approx(1 / 3, abs=0.04), "the class after one of the three others"


def test_with_two_groupings_the_style_is_all_but_the_content_in_question(copies):
    model = Painter(copies, ["shape", "position"])
    table, scores = judged(model, [["shape"], ["position"]])
    assert {*table.swaps[:, 0]} == {0, 1}
    assert scores.details["swap_accuracy_per_grouping"] == [1, 1] and scores["swap_accuracy"] == 1
    assert scores.details["swap_leak_per_grouping"] == [0, 0] and scores["swap_leak"] == 0
    _, mixed = judged(model, [["shape"], ["size"]])  # the second content is the position, and no size
    assert mixed.details["swap_accuracy_per_grouping"] == [1, 0] and mixed["swap_accuracy"] == 0.5
    assert mixed.details["swap_leak_per_grouping"] == [0, 1]


def test_shares_of_what_was_read():
    lines = [  # grouping, joined, read, content, style
        *[[0, 10, 1, 1, 2]] * 7,
        *[[0, 10, 2, 1, 2]] * 2,
        [0, 10, 0, 1, 2],
        *[[0, 1, 2, 1, 2]] * 3,
        [0, 1, 1, 1, 2],
        *[[0, 0, 1, 1, 1]] * 4,
        [0, 0, 0, 1, 1],
    ]
    codes = np.arange(20)[:, None] % 5
    table = CodeTable(codes, codes, labels=codes, swaps=lines)
    scores = score(table, SWAP)
    assert scores == pytest.approx(
        {
            "swap_accuracy": 0.7,
            "swap_leak": 0.2,
            "swap_judge": 0.8,
            "swap_accuracy_k1": 0.25,
            "swap_leak_k1": 0.75,
            "swap_accuracy_joined": 10,
        }
    )
    again = table_in(table_file(table, np.arange(20)))
    assert np.array_equal(again.swaps, lines) and score(again, SWAP) == scores


def labelled(*sizes: int, held_out=None, test=None) -> Dataset:
    person = np.repeat(np.arange(len(sizes)), sizes)
    space = FactorSpace(("person",), (len(sizes),), person[:, None])
    return Dataset("people", "own", space, (1, 4, 4), None, ["person"], held_out=held_out, test=test)


def test_the_judge_is_trained_on_rows_that_are_not_tested():
    rng = np.random.default_rng(0)
    # Of persons 0 and 1 some rows are held out, of person 0 too few; person 2 is held out as a whole, and
    # person 3 is not scored.
    dataset = labelled(9, 9, 8, 5, held_out=np.array([0, 1, 9, 10, 11, 12, *range(18, 26)]))
    rows = dataset.evaluation_rows()
    tested, others = module._divided(dataset, rows, ("person",), rng)
    assert [len(part) for part in tested] == [2, 4] and [len(part) for part in others] == [7, 4]
    of_tests = [rows[part] for part in tested]
    for person, parts in enumerate(zip(of_tests, others, strict=True), start=1):
        assert (dataset.space.labels(("person",))[np.concatenate(parts)] == person).all()
        assert not np.intersect1d(*parts).size
    marked = labelled(6, 6, 6, test=np.array([0, 1, 6, 7, 8, *range(12, 18)]))  # all of person 2 are tested
    tested, others = module._divided(marked, np.arange(18), ("person",), rng)
    assert [[*part] for part in tested] == [[0, 1], [6, 7, 8]]
    assert [[*part] for part in others] == [[2, 3, 4, 5], [9, 10, 11]]
    alone = labelled(6, 1)
    assert len(module._divided(alone, np.arange(7), ("person",), rng)[0]) == 1


def test_groups_and_the_givers_of_their_content_are_uniform():
    rng = np.random.default_rng(0)
    pools = [np.arange(12), np.arange(12, 20), np.arange(20, 31)]
    groups, classes = module._draw_groups(rng, pools)
    assert groups.shape == (41 * 3, 8) and [*np.bincount(classes)] == [41] * 3
    assert all(np.isin(groups[classes == number], pool).all() for number, pool in enumerate(pools))
    assert all(len({*group}) == 8 for group in groups)
    givers, members = module._of_other_classes(rng, groups.shape, classes)
    own = classes.repeat(8)
    assert (classes[givers] != own).all()
    assert_uniform((classes[givers] - own) % 3 - 1, 2, within=own)
    assert_uniform(givers % 41, 41)
    assert_uniform(members, 8)
    groups, classes = module._draw_groups(rng, [np.arange(2)] * 5_000)
    assert groups.shape == (500, 2) and len({*classes}) == 500, "of many classes some are drawn"


def test_the_judge_is_always_the_same_and_changes_nothing_else(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 20)
    state = torch.get_rng_state()
    rows = [np.arange(15 * shape, 15 * shape + 9) for shape in range(4)]
    dataset = make_tiny_dataset()
    first, other = module._judge(dataset, rows, CPU), module._judge(make_tiny_dataset(), rows, CPU)
    assert module._judge(dataset, rows, CPU) is first and other is not first
    for one, same in zip(first.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)
    assert module._judge(dataset, rows[:3], CPU) is not first
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 70), (1, 28, 28), (3, 64, 64), (2, 33, 100)])
def test_a_judge_reads_images_of_any_size(shape):
    assert module.Judge(shape, 7)(torch.rand(5, *shape)).shape == (5, 7)


@pytest.mark.skipif("DISLAB_DATA" not in os.environ, reason="DISLAB_DATA is not set: no real MNIST files")
def test_a_third_of_its_training_lets_the_judge_read_mnist(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 400)
    dataset = dislab.load_dataset("mnist")
    rows = dataset.evaluation_rows()
    tested, others = module._divided(dataset, rows, ("digit",), np.random.default_rng(0))
    assert sum(map(len, tested)) == 10_000 and sum(map(len, others)) == 60_000
    judge = module._judge(dataset, others, CPU)
    some = rows[np.concatenate(tested)[::10]]
    read = module._read(judge, lambda part: unit_images(dataset.images(part)), some)
    assert (read == dataset.space.labels(("digit",), some)).mean() > 0.94


def test_a_run_swaps_if_a_score_asks_for_it(tmp_path, no_pictures, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 20)
    setting = {"steps": 3, "batch_size": 8, "network": "mlp", "device": "cpu"}
    dataset = make_tiny_dataset()
    run = dislab.run("mlvae", dataset, out=tmp_path, metrics=["mig", "swap_scores"], **setting)
    assert {*SWAP} < {*run.scores}
    codes = dislab.load(run.path).codes
    assert codes.swaps.dtype == np.int64 and codes.swaps.shape[1] == 5
    assert np.array_equal(codes.swaps, swaps(run.model, dataset, codes, np.arange(60), [["shape"]], CPU))
    assert dict(score(codes, SWAP)).items() <= run.scores.items()
    other = dislab.run("mlvae", dataset, out=tmp_path / "other", metrics=["mig"], **setting)
    assert other.codes.swaps is None
    left_out = dislab.load(other.path).add_scores(["swap_leak"]).left_out
    assert left_out == {
        "swap_leak": "it needs swapped images: a run decodes them with a model of content and style"
    }
    with pytest.raises(DislabError) as error:
        dislab.run("vae", dataset, out=tmp_path / "vae", metrics=["swap_leak"], **setting)
    assert "swap_leak cannot be computed for tiny: it needs swapped images" in one_line(error)
    factors = np.indices(SIZES).reshape(3, -1).T
    own = dislab.evaluate(codes=factors.astype(float), factors=factors, metrics=["swap_accuracy"])
    assert "swap_accuracy" in own.left_out
