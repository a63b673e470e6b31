"""Codes that another program made: their scores become records, and rows of every table."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny_dataset, one_line

import dislab
from dislab.cli import main
from dislab.cli.tables import print_scores
from dislab.errors import DislabError, DislabWarning, RunFailed
from dislab.report.board import board_of
from dislab.report.leaderboard import FORMATS, render

RNG = np.random.default_rng(0)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_tiny_dataset()


def codes_of(dataset, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    factors = dataset.space.factors(np.arange(len(dataset)))
    return factors + noise * np.random.default_rng(seed).standard_normal(factors.shape)


def test_an_encoder_gets_a_record_like_that_of_a_run(dataset):
    def encoder(images):
        return images.flatten(1).mean(dim=1, keepdim=True).repeat(1, 2)

    scores = dislab.evaluate(encoder, dataset=dataset, metrics=["mig"], name="mine", out="r")
    [run] = dislab.runs_in("r")
    assert dict(run.scores) == dict(scores) and run.config.source == "external" and run.config.model == "mine"
    assert run.record["scored_rows"] == 60 and run.record["images"] == "own"
    assert run.record["train_rows"] is None, "who made the codes knows what they were learned from"
    assert dislab.load(run.path).record == run.record
    np.testing.assert_array_equal(run.codes.factors, dataset.space.factors(np.arange(60)))
    run.add_scores(["sap"])
    assert "sap" in dislab.runs_in("r")[0].scores, "more scores without the encoder"


def test_it_stands_in_every_table_beside_trained_models(dataset, no_pictures):
    dislab.run("oracle", dataset, metrics=["mig"], out="r")
    dislab.run("pca", dataset, metrics=["mig"], out="r")
    dislab.evaluate(codes=codes_of(dataset), dataset=dataset, metrics=["mig"], name="mine", out="r")
    board = board_of("r")
    assert "external" in set(board.frame["source"]) and len(board.frame) == 3
    for style in FORMATS:
        text = render(board, style)
        assert "mine" in text and ("pca" in text or "PCA" in text)
    table = render(board, "table")
    assert table.count("\n\n") <= 1 and table.index("mine (external)") < table.index("pca"), "ranked by MIG"


def test_codes_without_factors_are_in_the_order_of_the_dataset(dataset):
    codes, factors = codes_of(dataset), dataset.space.factors(np.arange(60))
    alone = dislab.evaluate(codes=codes, dataset=dataset, metrics=["mig", "content_accuracy"])
    both = dislab.evaluate(codes=codes, factors=factors, dataset=dataset, metrics=["mig", "content_accuracy"])
    assert dict(alone) == dict(both)
    order = np.random.default_rng(0).permutation(60)[:40]
    dislab.evaluate(
        codes=codes[order], factors=factors[order], dataset=dataset, metrics=["mig"], name="a", out="r"
    )
    [run] = dislab.runs_in("r")
    assert (
        run.record["scored_rows"] == 40 and not run.codes.full_grid and run.codes.names == dataset.space.names
    )
    with pytest.raises(DislabError, match="there are 40 codes and 60 images of tiny"):
        dislab.evaluate(codes=codes[order], dataset=dataset)


def test_seeds_of_one_name_are_a_row(dataset):
    for seed in (0, 1):
        codes = codes_of(dataset, seed=seed)
        dislab.evaluate(codes=codes, dataset=dataset, metrics=["mig"], seed=seed, name="mine", out="r")
    [row] = dislab.leaderboard("r").to_dict("records")
    assert row["seeds"] == "0 1" and row["n"] == 2 and row["model"] == "mine"
    assert np.isnan(row["train_seconds"]) and np.isnan(row["learning_rate"])


@pytest.mark.filterwarnings("error::dislab.errors.DislabWarning")
def test_the_same_codes_gain_scores_and_others_replace_them(dataset):
    arguments = {"dataset": dataset, "name": "mine", "out": "r"}
    dislab.evaluate(codes=codes_of(dataset), metrics=["mig"], **arguments)
    dislab.evaluate(codes=codes_of(dataset), metrics=["modularity"], **arguments)
    [run] = dislab.runs_in("r")
    assert {"mig", "modularity"} <= set(run.scores)
    with pytest.warns(DislabWarning, match="'mine' on tiny had other codes with seed 0: they are replaced"):
        dislab.evaluate(codes=codes_of(dataset, seed=1), metrics=["mig"], **arguments)
    [run] = dislab.runs_in("r")
    assert "modularity" not in run.scores and "mig" in run.scores


def test_scores_of_other_settings_have_names_of_their_own(dataset):
    codes = codes_of(dataset)
    plain = dislab.evaluate(codes=codes, dataset=dataset, metrics=["sap"], num_train=30, name="a", out="r")
    [run] = dislab.runs_in("r")
    assert run.scores["sap@num_train=30"] == plain["sap"] and set(run.record["metrics"]) == {
        "sap@num_train=30"
    }
    assert dislab.leaderboard("r").attrs["directions"] == {"sap@num_train=30": "up"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "mlvae"}, "is a model of dislab"),
        ({"name": "a/b"}, "write letters, digits"),
        ({"name": 5}, "write letters, digits"),
        ({"dataset": None}, "'mine' needs a dataset"),
        ({"name": None}, "out is for a record, which needs a name"),
        ({"factors": np.zeros((60, 2), int)}, "3 factor names for 2 columns"),
        ({"factors": np.full((60, 3), 9)}, "factor shape of tiny has the values 0 to 3, not 9"),
        ({"factor_names": ["a"]}, "factor_names is known, because a dataset is given"),
    ],
)
def test_wrong_arguments_are_one_line_and_leave_nothing(dataset, change, message):
    arguments = {
        "factors": dataset.space.factors(np.arange(60)),
        "dataset": dataset,
        "name": "mine",
        "out": "r",
    }
    with pytest.raises(DislabError) as error:
        dislab.evaluate(codes=codes_of(dataset), **arguments | change)
    assert message in one_line(error) and not Path("r").exists()


def test_there_is_no_model_to_load_or_to_train(dataset, capsys):
    dislab.evaluate(codes=codes_of(dataset), dataset=dataset, metrics=["mig"], name="mine", out="r")
    [run] = dislab.runs_in("r")
    for name in ("model", "history"):
        with pytest.raises(RunFailed, match="the codes of mine are another program's"):
            getattr(run, name)
    assert main(["run", "--config", str(run.path / "run.json")]) == 2
    assert "nothing to train" in capsys.readouterr().err
    shutil.rmtree(run.path)
    assert len(dislab.leaderboard("r")) == 1, "tables need the records alone"


def test_scores_of_codes_are_printed_as_those_of_a_run(dataset, capsys, monkeypatch):
    """Without a name the codes are no run: the same lines stand below no heading."""
    codes = {"codes": codes_of(dataset), "factors": dataset.space.factors(np.arange(60))}
    np.savez("codes.npz", **codes)
    quick = ["mig", "sap@scale=unit", "modularity", "irs", "jemmig", "dcimig", "mig_sup", "mcc"]
    scores = dislab.evaluate(**codes, dataset=dataset, metrics=[*quick, "elbo"], name="mine", out="r")
    monkeypatch.setattr("dislab.runs.evaluate.evaluate", lambda **arguments: scores)
    for names, everything, options in (
        (None, False, []),
        (None, True, ["--all"]),
        (["sap", "elbo"], False, ["--metrics", "sap,elbo"]),
    ):
        print_scores(dislab.runs_in("r"), names, everything)
        of_run = capsys.readouterr().out
        assert main(["evaluate", "codes.npz", *options]) == 0
        of_codes = capsys.readouterr().out
        assert of_run.endswith(of_codes) and "elbo is left out: it needs" in of_codes
        assert ("and 6 other scores: --all" in of_codes) == (not options)
        assert re.search(rf"^{'sap' if everything else 'SAP'}@scale=unit +↑", of_codes, re.M)
        assert ("mig " in of_codes.lower()) == (names is None)


def test_the_command_line_records_a_file_of_codes(bars, capsys):
    factors = np.stack(np.unravel_index(np.arange(60), (4, 3, 5)), axis=1)
    np.savez("codes.npz", codes=factors + 0.1 * RNG.standard_normal((60, 3)), factors=factors)
    evaluate = ["evaluate", "codes.npz", "--dataset", "bars", "--metrics", "mig", *bars]
    assert main([*evaluate, "--name", "mine", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    [run] = dislab.runs_in("results")
    assert json.loads(out)["scores"]["mig"] == run.scores["mig"] and "results/leaderboard.csv" in err
    assert "mine" in Path("results/leaderboard.csv").read_text()
    assert ",mine,0,mig," in Path("results/scores.csv").read_text()
    assert main(["run", "--model", "oracle", "--dataset", "bars", "--metrics", "mig", *bars]) == 0
    capsys.readouterr()
    assert main(["leaderboard"]) == 0
    assert "mine (external)" in capsys.readouterr().out
    assert main(["evaluate", "results", "--metrics", "sap", "--format", "json"]) == 0
    assert all("sap" in of_run["scores"] for of_run in json.loads(capsys.readouterr().out))
    for wrong, message in (
        (["evaluate", "codes.npz", "--name", "mine"], "needs a dataset"),
        (["evaluate", "results", "--name", "mine"], "--name is for a .npz file"),
        ([*evaluate, "--format", "xml"], "unknown format 'xml'"),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err
