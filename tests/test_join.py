"""`dislab merge`: results folders become one; what is double, what differs, and that nothing is lost."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_records import lines, made, written

import dislab
from dislab.cli import main
from dislab.runs import join as joining
from dislab.runs.execute import execute
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.runs.resolve import resolve


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def values(folder: str) -> dict[tuple, float]:
    return {(run.config.model, run.config.seed): run.scores["mig"] for run in dislab.runs_in(folder)}


def test_records_of_three_folders_are_one_table(capsys):
    written(Path("A"), *(made("vae", seed, {"mig": 0.1 * seed}) for seed in (0, 1)))
    written(Path("B"), made("vae", 1, {"mig": 0.1}), made("vae", 2, {"mig": 0.7}))
    written(Path("C"), made("vae", 0, {"mig": 0.3}), made("mlvae", 0, {"mig": 0.5}))
    before = [Path(name, "records.jsonl").read_bytes() for name in "ABC"]
    assert main(["merge", "A", "B", "C", "--out", "R"]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()[1:4]] == [
        ["A", "2", "2", "0", "0", "0"],
        ["B", "2", "1", "1", "0", "0"],
        ["C", "2", "1", "0", "0", "1"],
    ]
    assert "4 runs in 'R'" in out
    [line] = err.splitlines()
    assert "vae on shapes3d" in line and "seed 0 differs: mig 0 and 0.3; that of 'A' is kept, not 'C'" in line
    assert values("R") == {("vae", 0): 0, ("vae", 1): 0.1, ("vae", 2): 0.7, ("mlvae", 0): 0.5}
    table = pd.read_csv("R/leaderboard.csv").set_index("model")
    assert table.loc["vae", "n"] == 3 and table.loc["vae", "mig_mean"] == pytest.approx(0.8 / 3, rel=1e-5)
    assert len(pd.read_csv("R/scores.csv")) == 4
    assert [Path(name, "records.jsonl").read_bytes() for name in "ABC"] == before
    assert main(["merge", "A", "B", "C", "R", "--out", "R"]) == 0
    assert len(lines("R")) == 4, "a second time nothing is added"


def test_nothing_that_was_there_is_lost(capsys):
    """What lies in the folder already comes before all."""
    [there] = written(Path("R"), made("vae", 0, {"mig": 0.9}))
    Path("R/notes.txt").write_text("mine")
    written(Path("A"), made("vae", 0, {"mig": 0.2}), made("vae", 1, {"mig": 0.4}))
    assert main(["merge", "A", "--out", "R"]) == 0
    assert "mig 0.9 and 0.2; that of 'R' is kept, not 'A'" in capsys.readouterr().err
    assert values("R") == {("vae", 0): 0.9, ("vae", 1): 0.4} and lines("R")[0] == there.record
    assert Path("R/notes.txt").read_text() == "mine"


def test_scores_that_only_another_folder_has_are_added():
    written(Path("A"), made("vae", 0, {"mig": 0.2, "sap": float("nan")}))
    written(Path("B"), made("vae", 0, {"mig": 0.2, "sap": float("nan"), "irs": 0.3}))
    assert main(["merge", "A", "B", "--out", "R"]) == 0
    [run] = dislab.runs_in("R")
    assert run.scores["mig"] == 0.2 and run.scores["irs"] == 0.3 and np.isnan(run.scores["sap"])
    assert run.record["metrics"]["irs"] and len(lines("R")) == 2, "NaN equals NaN here"


def test_scores_of_other_codes_are_not_added(capsys):
    """Two trainings of one seed: no score is common, but the codes are not the same."""
    one, other = made("vae", 0, {"mig": 0.2}), made("vae", 0, {"irs": 0.3})
    written(Path("A"), one | {"files": {"codes.safetensors": "0" * 32}})
    written(Path("B"), other | {"files": {"codes.safetensors": "1" * 32}})
    assert main(["merge", "A", "B", "--out", "R"]) == 0
    assert "differs: codes; that of 'A' is kept, not 'B'" in capsys.readouterr().err
    [run] = dislab.runs_in("R")
    assert dict(run.scores) == {"mig": 0.2}


@pytest.mark.parametrize("links", [True, False])
def test_the_files_of_runs_come_along(links, tiny_dataset, no_pictures, monkeypatch):
    first = resolve("oracle", tiny_dataset, Machine(), metrics=["mig"])
    for name, seed in (("A", 0), ("B", 1)):
        list(execute([first.with_seed(seed)], replace(Machine(), out=name)))
    broken_off = Path("R") / first.folder  # a training in R that was killed
    broken_off.mkdir(parents=True)
    (broken_off / "model.safetensors").write_text("half")
    (broken_off / "checkpoint.safetensors").write_text("half")
    if not links:
        monkeypatch.setattr(joining.os, "link", lambda *paths: (_ for _ in ()).throw(OSError(1, "no links")))
    assert main(["merge", "A", "B", "--out", "R"]) == 0
    for name, run in zip("AB", dislab.runs_in("R"), strict=True):
        other = dislab.load(Path(name) / run.config.folder)
        assert np.array_equal(run.codes.mean, other.codes.mean) and run.model is not None
        assert dislab.load(run.path).record == run.record, "and run.json"
        run.add_scores(["sap"])
        assert "sap" not in dislab.load(other.path).scores, "the other folder stays as it is"
        assert (Path(name) / run.config.folder / "run.json").exists()
    assert not list(Path("R").rglob("*.claim-*")) and not list(Path("R").rglob("*.part"))
    [outcome] = execute([first], replace(Machine(), out="R"))
    assert outcome.record["scores"].keys() == {"mig", "sap"}, "nothing is trained again"
    for path in Path("R").iterdir():
        shutil.rmtree(path) if path.is_dir() else None
    assert main(["merge", "A", "--out", "R"]) == 0
    assert Results("R").find(first.digest).codes is not None, "folders that are gone come back"


def test_what_is_refused_writes_nothing(capsys):
    written(Path("A"), made("vae", 0, {"mig": 0.2}))
    Path("empty").mkdir()
    written(Path("old"), made("vae", 0, {"mig": 0.2}))
    text = Path("old/records.jsonl").read_text()
    Path("old/records.jsonl").write_text(
        text.replace('"format": 9', '"format": 1').replace('"check": "', '"x": "')
    )
    for name, words in (
        ("missing", "results folder 'missing' does not exist"),
        ("empty", "there is no finished run in 'empty'"),
        ("old", "is of format 1"),
    ):
        assert main(["merge", "A", name, "--out", "R"]) == 2
        assert words in capsys.readouterr().err and not Path("R").exists()
    Path("file").write_text("mine")
    assert main(["merge", "A", "--out", "file"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_damaged_record_is_named_and_the_others_are_joined(capsys):
    written(Path("A"), *(made("vae", seed, {"mig": 0.2}) for seed in (0, 1)))
    path = Path("A/records.jsonl")
    path.write_text(path.read_text().replace('"mig": 0.2', '"mig": 0.9', 1))
    assert main(["merge", "A", "--out", "R"]) == 1
    assert "line 1 of 'A/records.jsonl' is damaged and left out" in capsys.readouterr().err
    assert values("R") == {("vae", 1): 0.2}


def test_a_file_outside_of_a_runs_folder_is_not_written():
    record = made("vae", 0, {"mig": 0.2}) | {"files": {"../../../../../stolen": "0" * 32, "/etc/x": "1"}}
    [run] = written(Path("A"), record)
    run.path.mkdir(parents=True)
    (run.path / "../../../../../stolen").resolve().write_text("secret")
    assert main(["merge", "A", "--out", "deep/er/R"]) == 0
    assert not list(Path("deep").rglob("stolen"))
