"""The tables of `dislab report`: which rows are best, how they rank, and what is published beside them."""

import numpy as np
import pytest
from made_records import TEMPLATES, made, written
from scipy import stats

from dislab.registry import MODELS
from dislab.report.html import best, figures
from dislab.report.html.beside import difference, published_of
from dislab.report.html.model import MORE, _elsewhere, _tasks
from dislab.report.html.rows import cell_of, tables_of


def table_of(tmp_path, *records):
    [table] = tables_of(written(tmp_path / "results", *records))
    return table


def of_seeds(model: str, score: str, values, **changes) -> list[dict]:
    return [made(model, seed, {score: value}, **changes) for seed, value in enumerate(values)]


# Best and rank --------------------------------------------------------------------------------------


def test_rows_are_told_apart_by_welchs_test():
    rng = np.random.default_rng(0)
    told = []
    for _ in range(300):
        samples = [
            rng.normal(rng.normal(scale=0.8), rng.uniform(0.1, 2), rng.integers(2, 7)) for _ in range(2)
        ]
        expected = stats.ttest_ind(*samples, equal_var=False).pvalue < 0.05
        told.append(expected)
        assert best.differ(*map(cell_of, samples)) == expected
    assert 30 < sum(told) < 270
    assert best.differ(cell_of([1, 1]), cell_of([2, 2])) and not best.differ(cell_of([1, 1]), cell_of([1, 1]))


def test_the_interval_is_students_and_stays_in_the_range_of_the_score():
    values = [0.1, 0.4, 0.2]
    cell = cell_of(values, 0.0, 1.0)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert low < 0 and (cell.low, cell.std) == (0, pytest.approx(np.std(values, ddof=1)))
    assert cell.high == pytest.approx(high)
    assert np.isnan(cell_of([0.3]).low) and np.isnan(cell_of([0.3]).std)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"vae": [0.9], "betavae": [0.5]}, {"vae": best.UNTESTED}),
        ({"vae": [0.9], "betavae": [0.5, 0.6]}, {"vae": best.UNTESTED}),
        ({"vae": [0.9, 0.91], "betavae": [0.5]}, {"vae": best.UNTESTED}),
        ({"vae": [0.9, 0.91], "betavae": [0.5, 0.51]}, {"vae": best.BEST}),
        ({"vae": [0.9, 0.91], "betavae": [0.89, 0.93]}, {"vae": best.TIED, "betavae": best.BEST}),
        (
            {"vae": [0.9, 0.91], "betavae": [0.88, 0.92], "pca": [0.7]},
            {"vae": best.BEST, "betavae": best.TIED},
        ),
        ({"vae": [0.9]}, {}),
        ({"vae": [0.1], "oracle": [1.0]}, {}),
        ({"vae": [0.1], "betavae": [0.2], "oracle": [1.0]}, {"betavae": best.UNTESTED}),
    ],
)
def test_marks_of_the_best(tmp_path, values, expected):
    table = table_of(tmp_path, *(one for model, v in values.items() for one in of_seeds(model, "mig", v)))
    marked = best.marks(table, "mig")
    assert {row.model: marked[id(row)] for row in table.rows if id(row) in marked} == expected


@pytest.mark.parametrize(("direction", "expected"), [("down", ["vae"]), ("up", ["betavae"]), ("", [])])
def test_a_plug_ins_score_is_ranked_by_the_direction_in_the_records(tmp_path, direction, expected):
    pairs = (("vae", 0.1), ("betavae", 0.2))
    records = [made(model, 0, {"mine": value}, {"mine": direction}) for model, value in pairs]
    table = table_of(tmp_path, *records)
    marked = best.marks(table, "mine")
    assert [row.model for row in table.rows if id(row) in marked] == expected
    assert [best.rank(table, "mine", row) is not None for row in table.rows] == [bool(direction)] * 2


def test_ranks_are_ranges_where_rows_cannot_be_told_apart(tmp_path):
    rng = np.random.default_rng(1)
    models = ("vae", "betavae", "betatcvae", "mlvae", "pca")
    values = {model: rng.normal(0.1 * place, 0.06, 3) for place, model in enumerate(models)}
    table = table_of(
        tmp_path, *(r for model, v in values.items() for r in of_seeds(model, "mig", v.tolist()))
    )

    def is_better(one: str, other: str) -> bool:
        test = stats.ttest_ind(values[one], values[other], equal_var=False)
        return test.pvalue < 0.05 and test.statistic > 0

    places = {}
    for row in table.ranked:
        place = best.rank(table, "mig", row)
        better = sum(is_better(other, row.model) for other in models)
        worse = sum(is_better(row.model, other) for other in models)
        assert (place.first, place.last, place.of) == (1 + better, 5 - worse, 5)
        places[row.model] = str(place)
    assert any("–" in place for place in places.values()) and len(set(places.values())) > 1
    alone = table_of(
        tmp_path / "two", *of_seeds("vae", "mig", [0.3]), *of_seeds("betavae", "mig", [0.2, 0.1])
    )
    assert [(str(p), p.note) for p in (best.rank(alone, "mig", row) for row in alone.ranked)] == [
        ("1 of 2", "untested"),
        ("2 of 2", "untested"),
    ]


# Published values -----------------------------------------------------------------------------------


def test_published_values_belong_to_one_dataset_and_one_score():
    there = published_of("mlvae", "shapes3d", "factorvae_score")
    assert (there.value, there.std, there.n, there.steps) == (0.835, 0.111, 5, 200_000)
    assert len(there.others) == 5 and there.link.startswith("https://arxiv.org/")
    assert published_of("mlvae", "mpi3d_real", "factorvae_score").value == 0.39
    assert published_of("mlvae", "mpi3d_toy", "factorvae_score") is None
    # Images that are joined by their true class are another task.
    assert published_of("mlvae", "mnist", "content_accuracy").value == 0.3855
    assert published_of("mlvae", "mnist", "content_accuracy_k10").value == 0.9971


def test_a_published_value_stands_beside_the_score_of_the_same_settings(tmp_path):
    """Soft TPR's 0.193 is of 500 matrices and its own protocol; its R² of early codes is of any settings."""
    ours = {
        "wren_accuracy": 0.5,
        "wren_accuracy@softtpr2024+num_train=500": 0.3,
        "fov_regression_r2@softtpr2024": 0.9,
        "fov_regression_r2_100": 0.7,
    }
    table = table_of(tmp_path, made("mlvae", scores=ours, directions=dict.fromkeys(ours, "up")))
    entries = [(table, table.rows[0])]
    [more] = [group for group in _tasks("mlvae", entries) if group["title"] == MORE]
    shown = {line["score"]: (line["mean"], line["value"]) for line in more["lines"]}
    assert shown == {
        "WReN acc.": ("0.500", ""),
        "WReN acc. (softtpr2024+num_train=500)": ("0.300", "0.193"),
        "FoV R² (Soft TPR) (softtpr2024)": ("0.900", "0.551"),
    }
    lines = _elsewhere("mlvae", entries)
    elsewhere = {line["score"] for line in lines if line["dataset"] == "Shapes3D"}
    assert {"WReN acc. (softtpr2024)", "WReN acc. (softtpr2024+num_train=100)"} <= elsewhere
    assert not elsewhere & {*shown} and "FoV R² (Soft TPR)" not in elsewhere
    assert published_of("gvae", "mpi3d_real", "fov_regression_r2_100@softtpr2024").value == 0.181


def test_what_differs_from_a_published_value(tmp_path):
    table = table_of(tmp_path, made("mlvae"))
    there = published_of("mlvae", "shapes3d", "mig")
    label, sentences = difference(table, table.rows[0], there)
    assert label == "differs in images and training"
    assert {"2,000 steps here, 200,000 there.", "Groups here, pairs there.", "Drawn images here."} <= {
        *sentences
    }
    official = table_of(tmp_path / "official", made("mlvae", source="official"))
    assert difference(official, official.rows[0], there)[0] == "differs in training"
    protocol = TEMPLATES["mlvae"]["config"]["protocol"] | {"steps": 150_000}
    long = table_of(tmp_path / "long", made("mlvae", source="official", protocol=protocol))
    same = there.__class__(0.5, 0.1, "a", "b", "", 5, 200_000, "groups", "")
    assert difference(long, long.rows[0], same) == ("close", [])
    unsaid = there.__class__(0.5, 0.1, "a", "b", "", 5, None, "groups", "")
    assert difference(long, long.rows[0], unsaid)[0] == "not comparable"


# What a row says, and how scores agree --------------------------------------------------------------


def test_a_model_that_sees_factors_is_not_called_without_labels(tmp_path):
    changes = {"labels": 100, "beta": 4.0}
    expected = {"vae": "no labels", "mlvae": "groups", "gvae": "pairs", "s2_betavae": "few labels"}
    table = table_of(tmp_path, *(made(model, 0, {"mig": 0.1}, hyperparameters=changes) for model in expected))
    assert {row.model: row.supervision for row in table.rows} == expected
    [row] = [row for row in table.rows if row.model == "s2_betavae"]
    assert "100 labelled images" in row.words
    sees_factors = [e.name for e in MODELS if e.name != "oracle" and hasattr(e.make, "look_at")]
    assert "s2_betavae" in sees_factors
    for name in sees_factors:
        assert table_of(tmp_path / name, made(name, 0, {"mig": 0.1})).rows[0].supervision != "no labels"


def test_agreement_is_spearmans_correlation(tmp_path):
    rng = np.random.default_rng(2)
    names = ("mig", "sap", "modularity", "irs", "explicitness", "infoexplicitness")
    values = rng.uniform(size=(12, len(names)))
    records = [
        made("betavae", 0, dict(zip(names, row.tolist(), strict=True)), hyperparameters={"beta": 1.0 + place})
        for place, row in enumerate(values)
    ]
    [shown] = figures.agreement([table_of(tmp_path, *records)])
    head, *lines = [line.split(",") for line in shown.csv.splitlines()]
    order = [names.index(name) for name in head[1:]]
    expected = stats.spearmanr(values[:, order]).statistic
    assert np.allclose([[float(cell) for cell in line[1:]] for line in lines], expected, atol=1e-4)
    assert figures.agreement([]) == []
