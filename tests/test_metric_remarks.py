"""Remarks of the metrics on their scores, and what they say to settings that are wrong."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
from every_metric import (
    ENTRIES,
    SMALL,
    USUAL,
    every_metric,
    names_of,
    scores_of,
    short_training,  # noqa: F401 (a fixture)
)
from metric_tables import full_table, grid, standardised

from dislab.errors import DislabError
from dislab.metrics import dci as dci_module
from dislab.metrics.gaussian_correlation import rounding_variance
from dislab.scoring.scale import has_usual_scale
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable

METRICS_PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


def remarks_of(name: str, codes, factors, **settings):
    """The scores of codes in their order, and what the metric remarked."""
    scores = score(CodeTable(codes, factors, ordered=True), [name], **settings)
    assert not scores.failed
    notes = [note for about in scores.metrics.values() for note in about.get("notes", [])]
    return scores, list(dict.fromkeys(notes))


# Total correlation up to the precision of float32 --------------------------------------------------


@pytest.mark.parametrize(("noise", "offset"), [(1e-2, 0), (1e-4, 0), (1e-5, 0), (1e-6, 0), (1e-4, 100)])
def test_total_correlation_follows_its_true_value(noise, offset):
    first, second = np.random.default_rng(0).standard_normal((2, 10_000))
    codes = np.column_stack([first, first + noise * second]) + offset
    scores, remarks = remarks_of("gaussian_correlation", codes, np.arange(10_000) % 5)
    # ½ ln (Var z_1 Var z_2 / det C); det C is that of z_1 and z_2 - z_1, and loses no digit.
    (a, c), (_, b) = np.cov(first, noise * second)
    expected = 0.5 * math.log(a * (a + 2 * c + b) / (a * b - c**2))
    assert scores["gaussian_total_correlation"] == pytest.approx(expected, abs=0.02)
    assert not remarks and scores["gaussian_total_correlation_dependent_dimensions"] == 0


@pytest.mark.parametrize("offset", [0, 1000])
def test_total_correlation_says_where_the_precision_ends(offset):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 10_000))
    ends = []
    for noise in (1e-9, 0):
        codes = np.column_stack([first, first + noise * second, rng.standard_normal(10_000)]) + offset
        scores, remarks = remarks_of("gaussian_correlation", codes, np.arange(10_000) % 5)
        ends.append(scores["gaussian_total_correlation"])
        (remark,) = remarks
        assert f"at least {ends[-1]:.1f} nats: the codes' float32 precision ends there" in remark
        assert scores["gaussian_total_correlation_dependent_dimensions"] == 1
    # Neither the noise nor the copy is seen: two dimensions that differ by the rounding of one of them.
    rounding = rounding_variance((first + offset).astype(np.float32)[:, None])[0]
    assert ends == pytest.approx([-0.5 * math.log(2 * rounding / first.var())] * 2, abs=0.01)


def test_rounding_variance_is_what_rounding_does():
    codes = np.random.default_rng(0).standard_normal((100_000, 3)) * [1, 1e-30, 1e30] + [0, 0, 1e31]
    rounded = codes.astype(np.float32)
    np.testing.assert_allclose(rounding_variance(rounded), (rounded - codes).var(axis=0), rtol=0.02)
    assert np.isfinite(rounding_variance(np.full((2, 1), np.finfo(np.float32).max, np.float32)))


def test_gaussian_scores_of_constants_and_of_few_rows():
    normal = np.random.default_rng(0).standard_normal((50, 60))
    scores, remarks = remarks_of(
        "gaussian_correlation", np.hstack([normal[:, :2], normal[:, :1] * 0]), np.arange(50)
    )
    assert remarks == ["1 of 3 code dimensions are constant: they are left out"]
    scores, remarks = remarks_of("gaussian_correlation", normal, np.arange(50))
    assert math.isfinite(scores["gaussian_total_correlation"])
    assert [remark.partition(":")[0] for remark in remarks] == [
        "gaussian_total_correlation is infinite for 60 dimensions in 50 rows"
    ]


def test_information_remarks_on_its_bounds():
    rng = np.random.default_rng(0)
    codes, factors = rng.standard_normal((300, 2)), np.arange(300) % 5
    for logvar, words in ((-25, {"narrower", "bound"}), (-14, {"bound"}), (0, set())):
        table = CodeTable(codes, factors, logvar=np.full(codes.shape, logvar))
        text = str(score(table, ["index_code_mi"]).notes())
        assert {word for word in ("narrower", "bound") if word in text} == words


# Scale and offset ----------------------------------------------------------------------------------

# Rounding of codes far from 0, and of scikit-learn's trees, moves a score by more than 1% of 1 or of itself.
ROUNDING = {
    "pose_error": 0.15,
    "dci_completeness": 0.05,
    "dci_disentanglement": 0.05,
    "dci_informativeness": 0.05,
}


def documented() -> dict[str, list[str]]:
    """The table of docs/metrics.md: the names of scores -> what scale and offset do to them."""
    pattern = r"^\| (`.*`) \| (moves|same) \| (moves|same) \|"
    rows = re.findall(pattern, METRICS_PAGE.read_text(), re.MULTILINE)
    return {name: [*moves] for names, *moves in rows for name in re.findall(r"`(\w+)`", names)}


@every_metric
def test_scale_and_offset_move_a_score_where_the_documentation_says_so(function):
    factors, codes = USUAL.factors_and_codes()
    codes = standardised(codes)
    logvar = np.random.default_rng(0).uniform(-4, -2, size=codes.shape)
    usual, *others = (
        scores_of(function, full_table(scale * codes + offset, factors, logvar=logvar + 2 * math.log(scale)))
        for scale, offset in ((1, 0), (1e-4, 0), (1, 1000))
    )
    for name in names_of(function):
        tolerance = ROUNDING.get(name, 0.01) * max(1, abs(usual[name]))
        moves = ["moves" if abs(usual[name] - other[name]) > tolerance else "same" for other in others]
        assert moves == documented()[name], name


def test_every_score_is_in_the_table_of_scale_and_offset():
    assert documented().keys() == ENTRIES.keys()


def perfect_code(scale: float, offset: float = 0.0):
    factors = grid((4, 5, 6), copies=20)
    factors = factors[np.random.default_rng(0).permutation(len(factors))]
    return scale * (standardised(factors) + offset), factors


@pytest.mark.parametrize("name", ["factorvae_score", "betavae_score", "sap"])
def test_a_score_that_small_codes_lower_says_so_and_what_helps(name):
    unit, remarks = remarks_of(name, *perfect_code(1.0))
    assert not remarks
    small, remarks = remarks_of(name, *perfect_code(1e-4))
    assert small[name] < unit[name] - 0.1
    (remark,) = remarks
    assert remark.endswith("dislab.evaluate(…, scale='unit') standardises the codes first")
    if name == "factorvae_score":
        assert remark.startswith(
            "no dimension has a standard deviation of 0.05 or more, so that the score is 0"
        )
    else:
        assert f"{name} is {small[name]:.3f} and would be {unit[name]:.3f} for standardised codes" in remark


def test_sap_says_that_an_offset_lowers_it():
    unit, _ = remarks_of("sap", *perfect_code(1.0))
    far, (remark,) = remarks_of("sap", *perfect_code(1.0, 1000.0))
    assert f"sap is {far['sap']:.3f} and would be {unit['sap']:.3f}" in remark
    continuous, remarks = remarks_of("sap", *perfect_code(1e-7), continuous_factors=True)
    assert continuous["sap"] == 0 and "would be 0.99" in remarks[0] and "variance 1e-12" in remarks[0]


def test_pruned_dimensions_are_named_where_they_would_count():
    codes, factors = perfect_code(1.0)
    for scales, is_told in (([0.1, 0.1, 0.04], True), ([1, 1, 0.04], False)):
        scores, remarks = remarks_of("factorvae_score", codes * scales, factors)
        assert scores["factorvae_score_active_dimensions"] == 2
        assert bool(remarks) == is_told
    noise = 0.04 * np.random.default_rng(0).standard_normal((len(codes), 2))
    assert not remarks_of("factorvae_score", np.hstack([0.1 * codes, noise]), factors)[1]


def test_usual_scales():
    normal = np.random.default_rng(0).standard_normal((1000, 4))
    dead = normal * [1, 0.8, 0.03, 0] + [0, 1, 5, 1234.567]
    assert has_usual_scale(normal) and has_usual_scale(dead) and has_usual_scale(np.full((10, 2), 0.1))
    assert not has_usual_scale(normal * 0.1) and not has_usual_scale(normal + 10)


def test_dci_says_what_it_does_not_see_and_how_long_it_takes(monkeypatch, capsys):
    codes, factors = perfect_code(1.0)
    rows = {"num_train": 200, "num_test": 100, "num_rounds": 2}
    assert not remarks_of("dci", codes, factors, **rows)[1]
    small, remarks = remarks_of("dci", 1e-9 * codes, factors, **rows)
    assert small["dci_disentanglement"] == 0 and "differ by less than 1e-07" in remarks[0]
    assert not remarks_of("dci_fast", 1e-9 * codes, factors, **rows)[1]
    monkeypatch.setitem(dci_module.SECONDS, "dci", 3600 / (2 * 15 * 200 * 3))  # an hour for 15 trees a round
    remarks_of("dci", codes, factors, **rows)
    assert capsys.readouterr().err.startswith(
        "dci takes some 1.0 hours: 30 trees on 200 rows of 3 dimensions"
    )


# Settings ------------------------------------------------------------------------------------------

WRONG = {int: [0, -1, 2.5, "many", True], float: [-1.0, "much", math.nan], bool: ["no way", 5]}
MORE = [
    ("mig", {"num_bins": 1}, "num_bins is 1: it must be 2 or more"),
    ("irs", {"diff_quantile": 1.01}, "diff_quantile is 1.01: it must be above 0 and at most 1"),
    ("irs", {"diff_quantile": 0}, "diff_quantile is 0.0: it must be above 0 and at most 1"),
    ("factorvae_score", {"batch_size": 1}, "batch_size is 1, num_variance 10000: both must be 2 or more"),
    ("fov_regression", {"num_train": 0}, "num_train is 0: it must be a whole number, 1 or more"),
]


@every_metric
def test_a_wrong_setting_is_one_line_that_names_it(function):
    factors, codes = USUAL.factors_and_codes()
    table = full_table(codes, factors)
    for setting, parameter in inspect.signature(ENTRIES[names_of(function)[0]].make).parameters.items():
        for value in WRONG.get(type(parameter.default), []):
            with pytest.raises(DislabError, match=f": {setting} is {value!r}: it must be "):
                score(table, names_of(function), **(SMALL | {setting: value}))


@pytest.mark.parametrize(("name", "settings", "line"), MORE)
def test_what_is_right_is_said(name, settings, line):
    factors, codes = USUAL.factors_and_codes()
    assert score(full_table(codes, factors), [name], **settings).failed[name] == line


def test_the_documentation_lists_all_settings():
    rows = re.findall(r"^\| (`[^|]*`) \| (`\w+=[^|]*|none) \|$", METRICS_PAGE.read_text(), re.MULTILINE)
    listed = {
        name: re.findall(r"`(.+?)`", row) for names, row in rows for name in re.findall(r"`(\w+)`", names)
    }
    for name, entry in ENTRIES.items():
        parameters = inspect.signature(entry.make).parameters.values()
        settings = [f"{one.name}={one.default}" for one in parameters if one.kind is one.KEYWORD_ONLY]
        assert listed[name] == settings, name


def test_settings_change_what_they_name():
    codes, factors = perfect_code(1.0)
    table = CodeTable(
        codes + 0.5 * np.random.default_rng(0).standard_normal(codes.shape), factors, ordered=True
    )
    for name, settings in {
        "mig": {"num_bins": 5},
        "modularity": {"num_bins": 3},
        "jemmig": {"num_bins": 20},
        "dcimig": {"num_bins": 3},
        "mig_sup": {"num_bins": 3},
        "irs": {"num_bins": 2},
        "betavae_score": {"batch_size": 1},
        "factorvae_score": {"batch_size": 3},
        "infomodularity": {"num_neighbors": 50},
        "dci_fast_completeness": {"num_rounds": 3},
    }.items():
        changed, usual = (
            score(table, [name], num_train=400, num_test=200, **more)[name] for more in (settings, {})
        )
        assert changed != pytest.approx(usual, abs=1e-4), name
