"""The factor space, the code table, and the scoring of arrays and encoders with metrics made for the test."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import NAMES, SIZES, make_tiny_dataset
from scipy.stats import chisquare

import dislab
from dislab import registry
from dislab.data.space import FactorSpace
from dislab.errors import DislabError, RunFailed
from dislab.scoring import encoding, protocols
from dislab.scoring import evaluate as evaluation
from dislab.scoring.evaluate import Scores, evaluate, score
from dislab.scoring.table import CodeTable

GRID = np.array(list(itertools.product(*(range(size) for size in SIZES))))


@pytest.fixture
def metrics(monkeypatch) -> registry.Registry:
    """A registry of metrics that holds nothing but what the test registers."""
    empty = registry.Registry("metric", "dislab.metrics")
    empty._loaded = True
    monkeypatch.setattr(registry, "METRICS", empty)
    monkeypatch.setattr(evaluation, "METRICS", empty)
    return empty


def make_table(num_rows: int = 40, **given) -> CodeTable:
    rng = np.random.default_rng(0)
    factors = np.stack([np.arange(num_rows) % 4, np.arange(num_rows) % 5], axis=1)
    return CodeTable(rng.normal(size=(num_rows, 3)), factors, **given)


def assert_uniform(values: np.ndarray, among) -> None:
    found, counts = np.unique(values, return_counts=True)
    assert set(found) == set(among)
    # The seeds are fixed, so this does not fail by chance; a true bias gives far smaller p-values.
    assert len(counts) == 1 or chisquare(counts).pvalue > 1e-3


# FactorSpace


def test_rows_are_in_the_order_of_the_product():
    space = FactorSpace(NAMES, SIZES)
    assert len(space) == len(GRID) == 60
    assert space.is_grid
    assert (space.factors(np.arange(60)) == GRID).all()
    assert space.factors(np.arange(60)).dtype == np.int64
    assert (space.rows(GRID) == np.arange(60)).all()
    assert space.rows(GRID).dtype == np.int64
    mixed = np.random.default_rng(0).permutation(60)
    assert (space.rows(space.factors(mixed)) == mixed).all()
    assert repr(space) == "FactorSpace(shape 4, size 3, position 5)"


def test_labels_number_the_values_of_the_named_factors():
    space = FactorSpace(NAMES, SIZES)
    assert (space.labels(["size"]) == GRID[:, 1]).all()
    assert (space.labels(["shape", "position"]) == 5 * GRID[:, 0] + GRID[:, 2]).all()
    assert (space.labels(["position", "shape"]) == 4 * GRID[:, 2] + GRID[:, 0]).all()
    assert (space.labels(list(NAMES)) == np.arange(60)).all()
    both = space.labels_of([["size"], ["shape", "position"]])
    assert (both == np.stack([GRID[:, 1], 5 * GRID[:, 0] + GRID[:, 2]], axis=1)).all()
    assert (space.labels(["size"], np.array([59, 0, 7])) == GRID[[59, 0, 7], 1]).all()
    assert space.columns(["position", "shape"]) == [2, 0]


def test_a_space_of_listed_values():
    values = np.array([[3, 0], [1, 1], [3, 0]], dtype=np.uint8)
    space = FactorSpace(("digit", "hand"), (10, 2), values)
    assert len(space) == 3
    assert not space.is_grid
    assert (space.factors([2, 1]) == values[[2, 1]]).all()
    assert space.factors([0]).dtype == np.int64
    assert space.labels(["digit", "hand"]).tolist() == [6, 3, 6]
    with pytest.raises(ValueError, match="only a full grid"):
        space.rows(values)


def test_wrong_factor_spaces_are_errors():
    with pytest.raises(ValueError, match="2 factor names but 3 sizes"):
        FactorSpace(("a", "b"), (1, 2, 3))
    for values in (np.zeros((5, 3), int), np.zeros(5, int)):
        with pytest.raises(ValueError, match=r"values must be \[N, 2\]"):
            FactorSpace(("a", "b"), (2, 2), values)
    space = FactorSpace(NAMES, SIZES)
    with pytest.raises(DislabError, match="unknown factor 'positon': did you mean 'position'"):
        space.labels(["shape", "positon"])
    with pytest.raises(DislabError, match="known are shape, size, position"):
        space.columns(["zzz"])
    for row in ([4, 0, 0], [0, -1, 0]):
        with pytest.raises(ValueError, match="invalid"):
            space.rows([row])
    with pytest.raises((ValueError, IndexError)):
        space.factors([60])


# CodeTable.split


def test_listed_rows_are_split_without_replacement():
    table = make_table(40)
    train, test = table.split(np.random.default_rng(0), 20, 12)
    assert (len(train), len(test)) == (20, 12)
    assert len(set(train) | set(test)) == 32
    firsts = [table.split(np.random.default_rng(seed), 20, 12)[0] for seed in range(300)]
    assert_uniform(np.concatenate(firsts), range(40))
    assert not np.array_equal(firsts[0], firsts[1])
    assert (firsts[0] == train).all()


@pytest.mark.parametrize(
    ("num_train", "num_test", "expected"),
    [(100, 50, (26, 14)), (10_000, 5_000, (26, 14)), (40, 1, (39, 1)), (100, 0, (40, 0)), (1, 1000, (1, 39))],
)
def test_too_few_listed_rows_are_all_used_in_proportion(num_train, num_test, expected):
    train, test = make_table(40).split(np.random.default_rng(0), num_train, num_test)
    assert (len(train), len(test)) == expected
    assert sorted([*train, *test]) == list(range(40))


def test_a_full_grid_is_drawn_from_with_replacement():
    table = make_table(40, full_grid=True)
    train, test = table.split(np.random.default_rng(0), 3000, 2000)
    assert (len(train), len(test)) == (3000, 2000)
    assert_uniform(train, range(40))
    assert_uniform(test, range(40))
    assert not np.array_equal(train[:2000], test)
    small, none = table.split(np.random.default_rng(0), 30)
    assert len(set(small)) < 30
    assert len(none) == 0


@pytest.mark.parametrize("full_grid", [False, True])
def test_an_ordered_table_gives_its_first_rows(full_grid):
    table = make_table(40, ordered=True, full_grid=full_grid)
    train, test = table.split(np.random.default_rng(0), 20, 12)
    assert train.tolist() == list(range(20))
    assert test.tolist() == list(range(20, 32))
    train, test = table.split(np.random.default_rng(0), 60, 20)
    assert train.tolist() == list(range(30))
    assert test.tolist() == list(range(30, 40))


# CodeTable.sharing


def test_sharing_draws_uniformly_from_the_rows_with_the_same_value():
    # Values are unevenly frequent and unsorted, and value 2 never occurs.
    factor = np.array([3, 0, 1, 3, 3, 1, 3, 0, 3, 4, 3, 1])
    table = CodeTable(np.zeros((12, 1)), np.stack([np.zeros(12, int), factor], axis=1), sizes=(1, 6))
    rng = np.random.default_rng(0)
    for value in (0, 1, 3, 4):
        members = np.flatnonzero(factor == value)
        for row in members[:2]:
            assert_uniform(table.sharing(rng, 1, np.full(1500, row)), members)
    assert_uniform(table.sharing(rng, 0, np.full(3000, 5)), range(12))


def test_sharing_takes_rows_of_any_shape():
    table = CodeTable(np.zeros((60, 1)), GRID, names=NAMES, sizes=SIZES)
    rng = np.random.default_rng(0)
    rows = rng.integers(60, size=(50, 4, 2))
    for factor in range(3):
        shared = table.sharing(rng, factor, rows)
        assert shared.shape == rows.shape
        assert (GRID[shared, factor] == GRID[rows, factor]).all()
        assert (shared != rows).any()


# What a CodeTable takes


def test_a_code_table_converts_and_names_its_arrays():
    table = CodeTable(np.arange(6).reshape(3, 2), [[0.0, 2.0], [1.0, 0.0], [1.0, 1.0]], labels=[0, 1, 1])
    assert table.mean.dtype == np.float32
    assert table.factors.dtype == table.labels.dtype == np.int64
    assert table.factors.tolist() == [[0, 2], [1, 0], [1, 1]]
    assert table.names == ("factor_0", "factor_1")
    assert table.sizes == (2, 3)
    assert len(table) == 3
    assert table.logvar is None
    assert repr(table) == "CodeTable(3 rows, 2 dimensions, factors factor_0, factor_1)"
    one = CodeTable(np.zeros((3, 1)), np.array([0, 1, 5], dtype=np.uint8))
    assert one.factors.shape == (3, 1)
    assert one.sizes == (6,)
    assert CodeTable(torch.zeros(3, 2), torch.tensor([[0], [1], [2]])).sizes == (3,)


def with_value(value: float) -> np.ndarray:
    codes = np.zeros((5, 3))
    codes[4, 1] = value
    return codes


FACTORS = np.zeros((5, 2), int)


@pytest.mark.parametrize(
    ("codes", "factors", "given", "message"),
    [
        (np.zeros(5), FACTORS, {}, "codes must be an array of numbers [N, D], not float64 [5]"),
        (np.zeros((5, 3, 1)), FACTORS, {}, "not float64 [5, 3, 1]"),
        (np.zeros((5, 0)), FACTORS, {}, "not float64 [5, 0]"),
        (np.zeros((0, 3)), FACTORS[:0], {}, "not float64 [0, 3]"),
        (np.full((5, 3), "a"), FACTORS, {}, "codes must be an array of numbers"),
        (np.zeros((5, 3), complex), FACTORS, {}, "codes must be an array of numbers"),
        (with_value(np.nan), FACTORS, {}, "codes must be finite: dimension 1 is nan in row 4"),
        (with_value(-np.inf), FACTORS, {}, "codes must be finite: dimension 1 is -inf in row 4"),
        (np.zeros((4, 3)), FACTORS, {}, "codes have 4 rows but factors have 5"),
        (np.zeros((5, 3)), FACTORS, {"logvar": np.zeros((5, 2))}, "logvar is [5, 2] but codes are [5, 3]"),
        (np.zeros((5, 3)), FACTORS, {"logvar": with_value(np.inf)}, "logvar must be finite"),
        (np.zeros((5, 3)), FACTORS, {"names": ("a",)}, "1 factor names for 2 columns of factors"),
        (np.zeros((5, 3)), FACTORS + 0.5, {}, "factors must be whole numbers 0, 1, 2, …"),
        (np.zeros((5, 3)), FACTORS + np.nan, {}, "factors must be whole numbers"),
        (np.zeros((5, 3)), np.full((5, 2), "a"), {}, "factors must be whole numbers"),
        (np.zeros((5, 3)), FACTORS - [0, 1], {}, "factors must not be negative: column 1 is"),
        (np.zeros((5, 3)), np.zeros((5, 2, 1), int), {}, "factors must be an integer array [N, K]"),
        (np.zeros((5, 3)), np.zeros((5, 0), int), {}, "factors must be an integer array [N, K]"),
    ],
)
def test_wrong_arrays_are_one_clear_line(codes, factors, given, message):
    with pytest.raises(DislabError) as error:
        CodeTable(codes, factors, **given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# score and evaluate


def register(name: str, function=lambda table, rng: 0.5, **metadata) -> None:
    registry.register_metric(name, **metadata)(function)


def test_metrics_that_do_not_apply_are_left_out_with_the_reason(metrics):
    needs = {"grid": "grid", "pair": "two factors", "spread": "variances", "classes": "groups"}
    for name, need in needs.items():
        register(name, needs=(need,))
    register("always")
    bare = CodeTable(np.zeros((8, 2)), np.stack([np.arange(8), np.zeros(8, int)], axis=1))
    scores = score(bare)
    assert scores == {"always": 0.5}
    assert scores.left_out == {
        "grid": "it needs the full grid of factors",
        "pair": "it needs at least two factors that vary",
        "spread": "it needs the log-variances of q(z|x)",
        "classes": "it needs at least two groups (see group_by) of at least 4 rows each",
    }
    assert scores.failed == {}

    codes = np.zeros((60, 2))
    whole = CodeTable(codes, GRID, logvar=codes, labels=GRID[:, 0], full_grid=True)
    scores = score(whole)
    assert set(scores) == {*needs, "always"}
    assert scores.left_out == {}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([3] * 8, "it needs at least two groups (see group_by) of at least 4 rows each"),
        ([0, 0, 0, 0, 0, 5, 5, 5], "it needs at least two groups (see group_by) of at least 4 rows each"),
        ([0, 0, 0, 0, 5, 5, 5, 5], None),
    ],
)
def test_groups_must_be_two_of_four_rows(metrics, labels, reason):
    register("classes", needs=("groups",))
    scores = score(CodeTable(np.zeros((8, 2)), np.arange(8), labels=labels))
    assert scores.left_out.get("classes") == reason
    assert ("classes" in scores) == (reason is None)


def test_a_metric_that_fails_does_not_stop_the_others(metrics):
    def broken(table, rng):
        raise ZeroDivisionError("no points")

    def refusing(table, rng):
        raise DislabError("it takes at least two dimensions")

    register("a_broken", broken)
    register("b_refusing", refusing)
    register("c_text", lambda table, rng: "high")
    register("d_nameless", lambda table, rng: {"other": 1.0})
    register("e_whole", lambda table, rng: 0.25)
    scores = score(make_table())
    assert scores == {"e_whole": 0.25}
    assert scores.failed == {
        "a_broken": "ZeroDivisionError: no points",
        "c_text": "returned c_text = 'high', which is not a finite number",
        "d_nameless": "returned 'other' but no 'd_nameless'",
    }
    assert scores.left_out == {"b_refusing": "it takes at least two dimensions"}
    assert score(make_table(), ["b_refusing"]).failed == {"b_refusing": "it takes at least two dimensions"}
    with pytest.raises(RunFailed, match="metric 'a_broken' failed: ZeroDivisionError: no points"):
        evaluate(codes=np.zeros((8, 2)), factors=np.arange(8), metrics=["a_broken"])


def test_an_unknown_metric_offers_the_nearest(metrics):
    register("completeness")
    table = make_table()
    with pytest.raises(DislabError, match="unknown metric 'completness': did you mean 'completeness'"):
        score(table, ["completness"])
    with pytest.raises(DislabError, match="unknown metric 'zzz': known are completeness"):
        evaluate(codes=table.mean, factors=table.factors, metrics=["zzz"])


def test_a_plug_in_metric_that_returns_a_mapping(metrics, tmp_path):
    plugin = tmp_path / "curves.py"
    plugin.write_text(
        "import numpy as np, dislab\n\n"
        "@dislab.register_metric('curve', title='A curve', direction='down')\n"
        "@dislab.register_metric('area')\n"
        "def curve(table, rng, *, num_train=7):\n"
        "    return {'curve': np.float32(0.5), 'curve_over_k': np.arange(3), 'curve_train': num_train,\n"
        "            'area': 2, 'unrelated': 1.0}\n"
    )
    dislab.load_plugin(plugin)
    table = make_table()
    scores = score(table)
    assert scores == {"area": 2.0, "curve": 0.5, "curve_train": 7.0}
    assert {type(value) for value in scores.values()} == {float}
    assert scores.details == {"curve_over_k": [0, 1, 2]}
    assert (metrics["curve"].title, metrics["curve"].direction) == ("A curve", "down")
    assert score(table, ["area"]) == {"area": 2.0}
    found = evaluate(codes=table.mean, factors=table.factors, num_train=11, num_test=3)
    assert found["curve_train"] == 11
    frame = scores.to_frame()
    assert frame.columns.tolist() == ["score", "value"]
    assert dict(zip(frame["score"], frame["value"], strict=True)) == dict(scores)


def test_a_function_under_several_names_is_called_once(metrics):
    calls, named = [], []

    def both(table, rng):
        calls.append(rng.random())
        return {"one": calls[-1], "two": 2.0}

    register("one", both)
    register("two", both)
    scores = score(make_table(), progress=named.append)
    assert calls == [scores["one"]]
    assert named == ["one"]


def test_a_function_names_all_its_scores_and_slow_ones_only_when_named(metrics):
    def boosted(table, rng, *, num_train=10):
        return {"boosted_depth": num_train, "boosted_width": 2.0}

    register("plain")
    for name in ("boosted_depth", "boosted_width"):
        registry.register_metric(name, slow=True)(boosted)
    table = make_table()
    assert score(table) == {"plain": 0.5}
    assert score(table, ["boosted"]) == {"boosted_depth": 10.0, "boosted_width": 2.0}
    assert score(table, ["boosted", "boosted_depth", "plain"]) == {
        "boosted_depth": 10.0,
        "boosted_width": 2.0,
        "plain": 0.5,
    }


def test_a_metric_protocol_changes_the_settings_of_its_functions_only(metrics, monkeypatch):
    def boosted(table, rng, *, num_train=10, num_test=5):
        return {"boosted": num_train, "boosted_test": num_test}

    register("boosted", boosted)
    register("plain", lambda table, rng, num_train=10: num_train)
    monkeypatch.setitem(protocols.METRIC_PROTOCOLS, "short", {"boosted": {"num_train": 3}})
    table = make_table()
    scores = score(table, metric_protocol="short")
    assert scores == {"boosted": 3.0, "boosted_test": 5.0, "plain": 10.0}
    assert scores.protocols == {"boosted": "short", "boosted_test": "short", "plain": "locatello2019"}
    assert score(table, metric_protocol="short", num_train=7)["boosted"] == 7
    assert set(score(table).protocols.values()) == {"locatello2019"}
    with pytest.raises(DislabError, match="unknown metric protocol 'shrt': did you mean 'short'"):
        evaluate(codes=table.mean, factors=table.factors, metric_protocol="shrt")


def test_every_metric_has_its_own_random_stream(metrics):
    def first(table, rng):
        return rng.random()

    def second(table, rng):
        return rng.random()

    register("first", first)
    register("second", second)
    table = make_table()
    both = score(table, seed=3)
    assert both["first"] != both["second"]
    assert score(table, ["second"], 3) == {"second": both["second"]}
    assert score(table, ["second", "first"], 3) == both
    assert score(table, seed=4)["first"] != both["first"]


@pytest.fixture
def tables(metrics) -> list[CodeTable]:
    """All tables that the one metric, "seen", is given."""
    given = []

    def seen(table, rng):
        given.append(table)
        return float(table.mean.sum() + rng.random())

    register("seen", seen)
    return given


WEIGHTS = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))


def encoder(images: torch.Tensor) -> torch.Tensor:
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    return images.flatten(1) @ WEIGHTS


def direct_codes(rows=slice(None)) -> np.ndarray:
    images = make_tiny_dataset().images(np.arange(60)).numpy()[rows]
    return images.reshape(len(images), -1).astype(np.float32) / 255 @ WEIGHTS.numpy()


@pytest.mark.parametrize("batch", [7, 512])
def test_an_encoder_gives_the_same_as_its_codes(tiny_dataset, tables, monkeypatch, batch):
    monkeypatch.setattr(encoding, "BATCH", batch)
    scores = evaluate(encoder, dataset=tiny_dataset, group_by="size")
    direct = evaluate(codes=direct_codes(), factors=GRID, factor_names=NAMES, group_by="size")
    assert scores["seen"] == pytest.approx(direct["seen"], rel=1e-5)
    encoded, given = tables
    np.testing.assert_allclose(encoded.mean, given.mean, rtol=1e-5, atol=1e-5)
    assert (encoded.factors == given.factors).all()
    assert (encoded.labels == given.labels).all()
    assert (encoded.labels == GRID[:, 1:2]).all()
    assert (encoded.names, encoded.sizes) == (given.names, given.sizes) == (NAMES, SIZES)
    assert encoded.full_grid
    assert not given.full_grid


def test_an_encoder_of_normals_gives_their_variances(tiny_dataset, tables, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 7)
    blocks = {"content": slice(0, 1), "style": slice(1, 4)}
    evaluate(lambda images: (encoder(images), -encoder(images)), dataset=tiny_dataset, blocks=blocks)
    np.testing.assert_allclose(tables[0].mean, direct_codes(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tables[0].logvar, -direct_codes(), rtol=1e-5, atol=1e-5)
    assert tables[0].blocks == blocks
    assert (tables[0].labels == GRID[:, :1]).all()  # the dataset's own grouping
    evaluate(encoder, dataset=tiny_dataset)
    assert tables[1].logvar is None


def test_a_random_part_of_the_rows_is_no_grid(tiny_dataset, tables):
    for seed in (0, 0, 1):
        evaluate(encoder, dataset=tiny_dataset, max_rows=20, seed=seed)
    first, again, other = tables
    rows = FactorSpace(NAMES, SIZES).rows(first.factors)
    assert len(set(rows)) == 20
    assert not first.full_grid
    np.testing.assert_allclose(first.mean, direct_codes(rows), rtol=1e-5, atol=1e-5)
    assert (again.factors == first.factors).all()
    assert (other.factors != first.factors).any()


def test_held_out_rows_are_those_that_are_scored(tables):
    held_out = np.array([3, 20, 21, 59])
    evaluate(encoder, dataset=make_tiny_dataset(held_out))
    assert (tables[0].factors == GRID[held_out]).all()
    assert not tables[0].full_grid


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: images,
        lambda images: images.flatten(1)[:, 0],
        lambda images: images.flatten(1)[1:],
        lambda images: (images.flatten(1), images.mean()),
        lambda images: (images.flatten(1), images.flatten(1)[1:]),
    ],
)
def test_an_encoder_that_returns_another_shape_is_an_error(tiny_dataset, tables, wrong):
    with pytest.raises(DislabError, match=r"the encoder returned .* it must return codes \[60, D\]"):
        evaluate(wrong, dataset=tiny_dataset)
    assert tables == []


def test_arrays_are_taken_in_order_or_shuffled(tables):
    codes = np.random.default_rng(0).normal(size=(40, 2))
    evaluate(codes=codes, factors=np.arange(40) % 3, shuffle=False)
    evaluate(codes=codes, factors=np.arange(40) % 3)
    ordered, shuffled = tables
    assert ordered.split(np.random.default_rng(0), 5, 5)[0].tolist() == [0, 1, 2, 3, 4]
    assert shuffled.split(np.random.default_rng(0), 5, 5)[0].tolist() != [0, 1, 2, 3, 4]
    assert (ordered.labels[:, 0] == np.arange(40) % 3).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "evaluate needs codes"),
        ({"codes": np.zeros((4, 1))}, "evaluate needs codes"),
        ({"encoder": encoder}, "give an encoder with dataset=NAME"),
        ({"encoder": encoder, "dataset": make_tiny_dataset(), "codes": np.zeros((60, 1))}, "not both"),
        ({"encoder": encoder, "dataset": make_tiny_dataset(), "group_by": ["sise"]}, "did you mean 'size'"),
        ({"codes": np.zeros((4, 1)), "factors": [0.0, 0.5, 1.0, 2.0]}, "factors must be whole numbers"),
        ({"codes": np.zeros((4, 1)), "factors": [0, 1, 2]}, "codes have 4 rows but factors have 3"),
        ({"codes": np.zeros((4, 1)), "factors": np.arange(4), "group_by": "x"}, "unknown factor 'x'"),
    ],
)
def test_wrong_calls_of_evaluate_are_one_clear_line(tables, given, message):
    with pytest.raises(DislabError) as error:
        evaluate(**given)
    assert message in str(error.value)
    assert tables == []


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        ({"content": (0, 2)}, "must be a slice"),
        ({"content": slice(0, 9)}, "the codes have dimensions 0 to 1"),
        ({"content": slice(1, 1)}, "the codes have dimensions 0 to 1"),
        ({"styles": slice(0, 1)}, "did you mean 'style'"),
    ],
)
def test_wrong_blocks_are_one_clear_line(blocks, says):
    with pytest.raises(DislabError, match=says):
        evaluate(codes=np.zeros((8, 2)), factors=np.arange(8) % 2, blocks=blocks)


def test_codes_of_another_framework():
    codes = torch.arange(40.0).reshape(20, 2).requires_grad_()
    scores = evaluate(codes=codes, factors=torch.arange(20) % 3, metrics="mig")
    assert scores == evaluate(codes=codes.detach().numpy(), factors=np.arange(20) % 3, metrics="mig")


def test_scores_are_a_dictionary():
    scores = Scores({"a": 1.0}, left_out={"b": "why"})
    assert scores == {"a": 1.0}
    assert (scores.details, scores.left_out, scores.failed) == ({}, {"b": "why"}, {})
    assert math.isclose(scores.to_frame()["value"].sum(), 1.0)
