"""The published numbers: what the file may say, and how it is asked."""

import pandas as pd
import pytest
from conftest import one_line

import dislab
from dislab.errors import DislabError
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL
from dislab.scoring.request import asked


def test_every_value_has_a_source():
    table = dislab.published()
    assert len(table) > 700 and table["value"].notna().all()
    for column in ("method", "dataset", "metric", "source_title", "table", "how_obtained"):
        assert (table[column] != "").all(), column
    assert set(table["supervision"]) <= {"", "no labels", "groups", "pairs"}
    assert not table.duplicated(["method", "dataset", "metric", "source_title", "table"]).any()
    assert table["link"].str.match(r"^$|https://\S+$").all()
    assert (table["std"].dropna() >= 0).all()


def test_scores_of_zero_to_one_are_not_in_percent():
    table = dislab.published()
    bounded = ["factorvae_score", "betavae_score", "mig", "sap", "dci_disentanglement", "content_accuracy"]
    values = table[table["metric"].isin(bounded)]["value"]
    assert len(values) > 600 and values.between(0, 1).all()


def test_steps_are_those_that_the_source_names():
    """A representation of 100 steps must not be called one of 200,000, which the same paper trains."""
    table = dislab.published()
    named = table["table"].str.extract(r"(\d+) training steps")[0].astype("Int64")
    early = table["metric"].isin(["fov_regression_r2", "wren_accuracy@softtpr2024"])
    named[early] = 100
    said = table["how_obtained"].str.contains("200k steps").map({True: 200_000, False: pd.NA})
    pd.testing.assert_series_equal(
        table["steps"], named.fillna(said.astype("Int64")), check_names=False, check_dtype=True
    )


def test_rows_of_one_dataset_and_score():
    """The values that Soft TPR prints for ML-VAE on Shapes3D."""
    table = dislab.published(dataset="shapes3d", score="mig")
    assert set(table["dataset"]) == {"shapes3d"} and set(table["metric"]) == {"mig"}
    [row] = table[(table["method"] == "mlvae") & (table["table"] == "Table 17")].itertuples()
    assert (row.n, row.steps, row.supervision) == (5, 200_000, "pairs")
    assert "beta is 16" in row.protocol_note


def test_variants_of_mpi3d_are_never_joined():
    real, toy = dislab.published(dataset="mpi3d_real"), dislab.published(dataset="mpi3d_toy")
    assert len(real) > 100 and set(real["dataset"]) == {"mpi3d_real"}
    assert toy.empty and list(toy) == list(real)


def test_ratio_is_not_called_an_r2():
    values = dislab.published(dataset="cars3d")
    [row] = values[values["value"] == 0.989].itertuples()
    assert row.metric == "fov_regression_r2_efficiency_10000" and "0.948" in row.protocol_note


def test_scores_have_the_names_that_records_have():
    """What the same file prints of Soft TPR's tasks: tables 2 to 5, and the page that has one of table 40."""
    table = dislab.published()
    counts = table["metric"].value_counts()
    assert not table["metric"].str.contains("samples|representation").any()
    assert counts["fov_regression_r2"] == 24 and counts["wren_accuracy@softtpr2024"] == 8
    assert counts["fov_regression_r2_100"] == counts["fov_regression_r2_250"] == 8
    assert counts["wren_accuracy@softtpr2024+num_train=500"] == 8
    wren = dislab.published(dataset="shapes3d", score="wren_accuracy")
    assert len(wren) == 17 and set(wren["steps"].dropna()) == {100, 200_000}
    for name in wren["metric"].unique():
        [recorded] = asked([name], DEFAULT_METRIC_PROTOCOL, {}, {})
        assert recorded == name, "a record would call it otherwise"


@pytest.mark.parametrize("name", [{"dataset": "shapes3"}, {"score": "migg"}])
def test_unknown_name_offers_the_nearest(name):
    with pytest.raises(DislabError) as error:
        dislab.published(**name)
    assert "did you mean" in one_line(error)


def test_callers_may_change_their_copy():
    mine = dislab.published()
    mine["value"] = 0.0
    assert (dislab.published()["value"] != 0).any()
