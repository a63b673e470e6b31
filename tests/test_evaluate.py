"""Scores of arrays and encoders, with metrics made for the test."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import NAMES, SIZES, make_tiny_dataset

from dislab import registry
from dislab.data.space import FactorSpace
from dislab.errors import DislabError, RunFailed
from dislab.runs.evaluate import evaluate
from dislab.scoring import encoding, protocols
from dislab.scoring.request import asked
from dislab.scoring.score import Scores, compute, score
from dislab.scoring.table import CodeTable

GRID = np.array(list(itertools.product(*(range(size) for size in SIZES))))


@pytest.fixture
def metrics(monkeypatch) -> registry.Registry:
    """The registry of metrics, which holds nothing but what the test registers."""
    list(registry.METRICS)
    monkeypatch.setattr(registry.METRICS, "_entries", {})
    return registry.METRICS


def make_table(num_rows: int = 40, **given) -> CodeTable:
    rng = np.random.default_rng(0)
    factors = np.stack([np.arange(num_rows) % 4, np.arange(num_rows) % 5], axis=1)
    return CodeTable(rng.normal(size=(num_rows, 3)), factors, **given)


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
    causes = {name: cause.partition(f" ({__file__}, line ")[0] for name, cause in scores.failed.items()}
    assert all(f" ({__file__}, line " in cause for cause in scores.failed.values())
    assert causes == {
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
    registry.load_plugin(plugin)
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
    scores = compute(asked(None), make_table(), 0, named.append)
    assert calls == [scores["one"]]
    assert named == ["one"]


def test_a_group_names_all_its_scores_and_slow_ones_only_when_named(metrics):
    def boosted(table, rng, *, num_train=10):
        return {"boosted_depth": num_train, "boosted_width": 2.0}

    register("plain")
    registry.register_metric("boosted_depth", slow=True)(boosted)
    registry.register_metric("boosted_width", slow=True, group="trees")(boosted)
    table = make_table()
    assert score(table) == {"plain": 0.5}
    assert score(table, ["trees"]) == {"boosted_depth": 10.0, "boosted_width": 2.0}
    with pytest.raises(DislabError, match="unknown metric 'boosted': did you mean 'boosted_"):
        score(table, ["boosted"])  # the function's name says nothing
    assert score(table, ["trees", "boosted_depth", "plain"]) == {
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
    register("first", lambda table, rng: rng.random())
    register("second", lambda table, rng: rng.random())
    table = make_table()
    both = score(table, seed=3)
    assert both["first"] != both["second"]
    assert score(table, ["second"], 3) == {"second": both["second"]}
    assert score(table, ["second", "first"], 3) == both
    assert score(table, seed=4)["first"] != both["first"]


def test_a_metric_keeps_its_random_stream_when_its_function_is_moved_or_renamed(metrics, monkeypatch):
    def before(table, rng):
        return {"one": rng.random(), "two": 0.0}

    def after(table, rng):
        return before(table, rng)

    after.__module__ = "another.file"
    table = make_table()
    scores = []
    for function, names in ((before, ("one", "two")), (after, ("two", "one"))):
        monkeypatch.setattr(metrics, "_entries", {})
        for name in names:
            register(name, function)
        scores.append(score(table, seed=3))
    assert scores[0] == scores[1] == {"one": np.random.default_rng([3, 2053932785]).random(), "two": 0.0}


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


def test_listing_the_metrics_imports_nothing_that_is_slow_to_import():
    code = (
        "import sys; from dislab.registry import METRICS; assert len(list(METRICS)) > 30\n"
        "print([name for name in ('torch', 'scipy', 'sklearn', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_codes_of_another_framework():
    codes = torch.arange(40.0).reshape(20, 2).requires_grad_()
    scores = evaluate(codes=codes, factors=torch.arange(20) % 3, metrics="mig")
    assert scores == evaluate(codes=codes.detach().numpy(), factors=np.arange(20) % 3, metrics="mig")


def test_scores_are_a_dictionary():
    scores = Scores({"a": 1.0}, left_out={"b": "why"})
    assert scores == {"a": 1.0}
    assert (scores.details, scores.left_out, scores.failed) == ({}, {"b": "why"}, {})
    assert math.isclose(scores.to_frame()["value"].sum(), 1.0)
