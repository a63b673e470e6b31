"""A results folder: its records are found, read, joined and written whole, by one process or by several."""

import json
import os
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_records import lines
from scipy.stats import t

import dislab
from dislab import processes
from dislab.cli import main
from dislab.report.leaderboard import tabulate, write_leaderboard
from dislab.runs.execute import execute
from dislab.runs.finished import FORMAT, Run, as_json, record_in
from dislab.runs.machine import Machine
from dislab.runs.record import Results


def test_a_finished_run_is_a_line_and_the_same_run_json(results, configs):
    assert [line["digest"] for line in lines()] == [config.digest for config in configs]
    for line, config in zip(lines(), configs, strict=True):
        path = Path("results") / config.folder
        assert json.loads((path / "run.json").read_text()) == line and line["format"] == FORMAT
        run = dislab.load(path)
        assert run.record == line and run.config == config and dict(run.scores) == line["scores"]
        assert results.find(config.digest).path == path
    assert [run.config.seed for run in dislab.runs_in("results")] == [0, 1]


def test_tables_need_the_records_alone(results):
    before = dislab.leaderboard("results")
    for path in list(Path("results").iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
    assert dislab.leaderboard("results").equals(before)
    [run, _] = dislab.runs_in("results")
    assert run.scores["mig"] == lines()[0]["scores"]["mig"]
    for read in (lambda: run.codes, lambda: run.model, lambda: run.history):
        with pytest.raises(dislab.RunFailed, match="cannot be read: No such file"):
            read()
    with pytest.raises(dislab.RunFailed, match="is gone: its codes cannot be scored again"):
        run.add_scores(["sap"])


def test_records_of_several_machines_join_by_concatenation(results, configs):
    """Of two records of one run the last counts; what a study needs is skipped by what they hold."""
    Path("other").mkdir()
    other = lines()
    other[0]["scores"]["mig"] = 0.25
    third = json.loads(json.dumps(other[0]))
    third["config"]["seed"], third["digest"] = 7, f"{configs[0].row}-7"
    with Path("results/records.jsonl").open("ab") as file:
        file.writelines(map(as_json, [*other, third]))
    runs = dislab.runs_in("results")
    assert sorted(run.config.seed for run in runs) == [0, 1, 7]
    assert results.find(configs[0].digest).scores["mig"] == 0.25, (
        "an object that read before reads what is new"
    )
    [row] = dislab.leaderboard("results").to_dict("records")
    assert (row["seeds"], row["n"], row["row"]) == ("0 1 7", 3, configs[0].row)
    wanted = [configs[0].with_seed(7)]
    [outcome] = execute(wanted, Machine())
    assert outcome.record["scores"] == third["scores"] and not (Path("results") / wanted[0].folder).exists()


def test_scores_are_added_to_the_record(results, configs):
    run = results.find(configs[0].digest)
    trained = (run.path / "model.safetensors").stat().st_mtime_ns
    new = run.add_scores(["sap"])
    assert set(new) == {"sap"} and set(run.scores) == {"mig", "sap"}
    assert (
        set(dislab.load(run.path).scores)
        == {"mig", "sap"}
        == set(Results("results").find(configs[0].digest).scores)
    )
    assert len(lines()) == 3 and (run.path / "model.safetensors").stat().st_mtime_ns == trained
    assert run.add_scores(["sap"]) == {} and len(lines()) == 3, "nothing is computed or written twice"
    single = shutil.copytree(run.path, "alone")
    alone = dislab.load(single)
    alone.add_scores(["modularity"])
    assert "modularity" in dislab.load(single).scores and len(lines()) == 3, "a copy is no part of the folder"


def test_scores_that_several_processes_add_at_once_are_all_kept(results):
    names = ["sap", "modularity", "explicitness", "irs"]
    code = (
        "import dislab, sys\nfor name in sys.argv[1:]:\n"
        "    for run in dislab.runs_in('results'): run.add_scores([name])\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, *pair]) for pair in (names[:2], names[2:])]
    assert [process.wait(120) for process in processes] == [0, 0]
    for run in dislab.runs_in("results"):
        assert set(run.scores) >= {"mig", *names}
        assert set(dislab.load(run.path).scores) == set(run.scores)
    assert not list(Path("results").rglob("*.claim-*"))


def test_a_full_disk_leaves_no_half_line_and_no_claim(results, configs, monkeypatch):
    text = Path("results/records.jsonl").read_text()
    record = results.find(configs[0].digest).record

    class Full:
        """A file on a disk that is full after ten bytes."""

        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115, PTH123

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            self.file.write(content[:10])
            self.file.flush()
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(dislab.RunFailed, match="No space left"):
        patch.setattr(Path, "open", lambda path, mode="r", **options: Full(path, mode))
        results.write(record)
    assert Path("results/records.jsonl").read_text() == text
    assert not list(Path("results").rglob("*.claim-*"))


def test_what_a_killed_process_left_is_tidied(results, configs):
    path = Path("results") / configs[0].folder
    dead = processes.tag().rsplit("-", 1)[0] + "-1"
    for left in ("checkpoint.safetensors", f"run.json.0.{dead}.part"):
        (path / left).write_text("half")
    owner = processes.this_process() | {"started": "1"}
    claim = results.claim(configs[0].digest).path
    claim.with_name(f"{claim.name}.claim-1").write_text(json.dumps(owner))
    list(execute(configs, Machine()))
    assert {file.name for file in path.iterdir()} == {
        "run.json",
        "codes.safetensors",
        "history.csv",
        "model.safetensors",
    }
    assert not list(claim.parent.iterdir())


def test_a_claim_lists_no_folder_of_runs(results, configs, monkeypatch):
    """Its cost would grow with the runs in that folder."""
    listed, listdir, scandir = set(), os.listdir, os.scandir
    monkeypatch.setattr(os, "listdir", lambda path: listed.add(Path(path).name) or listdir(path))
    monkeypatch.setattr(os, "scandir", lambda path: listed.add(Path(path).name) or scandir(path))
    claim = results.claim(configs[0].digest)
    assert claim.take() and not results.claim(configs[0].digest).take()
    claim.release()
    assert listed == {"claims"}


def test_a_run_whose_process_died_before_run_json_is_finished(results, configs):
    path = Path("results") / configs[0].folder
    (path / "run.json").unlink()
    with pytest.raises(dislab.DislabError, match="not a finished run"):
        dislab.load(path)
    [outcome] = execute(configs[:1], Machine())
    assert outcome.record == lines()[0] == dislab.load(path).record


def test_runs_of_another_format_are_named_in_one_line(results, configs, capsys):
    path = Path("results") / configs[0].folder / "run.json"
    old = {name: part for name, part in (lines()[0] | {"format": 4}).items() if name != "check"}
    path.write_text(json.dumps(old))
    with pytest.raises(dislab.DislabError, match=r"run.json' is of format 4, .*this one reads format 9"):
        dislab.load(path.parent)
    records = Path("results/records.jsonl")
    del old["metrics"]
    for text in (json.dumps(old), json.dumps(old, separators=(",", ":"))):
        records.write_text(text + "\n")
        assert main(["leaderboard"]) == 2
        assert "is of format 4" in capsys.readouterr().err
    records.unlink()
    assert main(["leaderboard"]) == 2
    assert "is of format 4" in capsys.readouterr().err


def test_run_folders_without_records_are_read_one_by_one(results, configs):
    """As after a copy of run folders; a results folder within another keeps its runs to itself."""
    before = dislab.leaderboard("results")
    shutil.copytree("results", "results/inner")
    Path("results/records.jsonl").unlink()
    half = Path("results") / configs[0].with_seed(5).folder
    shutil.copytree(Path("results") / configs[0].folder, half)
    (half / "run.json").write_text("{")
    foreign = half.with_name("foreign")
    foreign.mkdir()
    (foreign / "run.json").write_text(json.dumps({"format": FORMAT}))
    assert dislab.leaderboard("results").equals(before)
    [outcome] = execute([configs[0].with_seed(2)], Machine())
    assert outcome.failure == "" and sorted(line["config"]["seed"] for line in lines()) == [0, 1, 2]
    assert all((Path("results") / line["folder"] / "run.json").is_file() for line in lines())


def test_a_part_of_a_results_folder_has_its_runs(results, configs, capsys):
    part = (Path("results") / configs[0].folder).parent
    assert [run.config.seed for run in dislab.runs_in(part)] == [0, 1]
    assert [run.config.seed for run in dislab.runs_in(part / "seed1")] == [1]
    assert Results.around(part).folder == Path("results")
    Path("leaderboard.csv").write_text("mine")
    assert main(["evaluate", str(part), "--metrics", "sap"]) == 0
    assert (
        Path("leaderboard.csv").read_text() == "mine"
        and "sap_mean" in Path("results/leaderboard.csv").read_text()
    )
    assert not (part / "leaderboard.csv").exists()


def test_many_records_are_read_once(tmp_path, results):
    """What a look-up costs does not grow with what was read before."""
    [record, _] = lines()
    folder = tmp_path / "many"
    folder.mkdir()
    with (folder / "records.jsonl").open("wb") as file:
        for seed in range(1_000):
            record["config"]["seed"], record["digest"] = seed, f"{Run('x', record).config.row}-{seed}"
            file.write(as_json(record))
            record["config"] = dict(record["config"])
    many = Results(folder)
    assert len(list(many.lines.records())) == 1_000
    read = many.lines._read
    config = many.find(replace(Run("x", record).config, seed=5).digest).config
    assert config.seed == 5 and many.lines._read == read
    assert read[1] == (folder / "records.jsonl").stat().st_size
    [row] = dislab.leaderboard(folder).to_dict("records")
    assert row["n"] == 1_000 and np.isclose(row["mig_mean"], record["scores"]["mig"])


def test_records_are_parsed_once_and_not_kept(results, configs, monkeypatch):
    parsed, alive, most = [], weakref.WeakSet(), 0

    class Record(dict):
        pass

    def counted(line, path):
        nonlocal most
        alive.add(record := Record(record_in(line, path)))
        parsed.append(record["digest"])
        most = max(most, len(alive))
        return record

    monkeypatch.setattr(Record, "__hash__", object.__hash__, raising=False)
    monkeypatch.setattr("dislab.runs.lines.record_in", counted)
    for work in (
        lambda: dislab.leaderboard("results"),
        lambda: write_leaderboard(Results("results")),
        lambda: [outcome.digest for outcome in execute(configs, Machine())],
    ):
        parsed.clear()
        work()
        assert parsed == [config.digest for config in configs]
    dislab.leaderboard("results")
    assert most <= 2, "while the next one is read, the last one may be there"


def test_a_table_has_the_moments_of_every_score(results, configs):
    """Of seeds that are scored differently, against scipy's interval."""
    rng = np.random.default_rng(0)
    record = results.find(configs[0].digest).record
    values = {seed: {"mig": rng.random(), **({"sap": rng.random()} if seed % 3 else {})} for seed in range(7)}
    values[6]["irs"] = 0.5
    metric = record["metrics"]["mig"]
    runs = [
        Run(
            "x",
            record
            | {
                "scores": scores,
                "digest": f"row-{seed}",
                "folder": f"{seed}",
                "metrics": dict.fromkeys(scores, metric),
                "config": record["config"] | {"seed": seed},
            },
        )
        for seed, scores in values.items()
    ]
    [row] = tabulate(iter(runs)).to_dict("records")
    for name in ("mig", "sap"):
        of_score = np.array([scores[name] for scores in values.values() if name in scores])
        mean, std, n = of_score.mean(), of_score.std(ddof=1), len(of_score)
        low, high = t.interval(0.95, n - 1, mean, std / n**0.5)
        found = [row[f"{name}_{part}"] for part in ("mean", "std", "n", "ci95")]
        np.testing.assert_allclose(found, [mean, std, n, (high - low) / 2], rtol=1e-12)
    assert (row["irs_mean"], row["irs_n"]) == (0.5, 1) and np.isnan([row["irs_std"], row["irs_ci95"]]).all()
    assert row["seeds"] == "0 1 2 3 4 5 6" and row["n"] == 7


def test_the_committed_table_is_made_from_the_committed_records(capsys):
    folder = Path(__file__).parent.parent / "results" / "reference" / "models"
    for run in dislab.runs_in(folder):
        assert run.config.digest == run.record["digest"] and str(run.config.folder) == run.record["folder"]
    assert main(["leaderboard", str(folder), "--format", "csv"]) == 0
    assert capsys.readouterr().out == (folder / "leaderboard.csv").read_text()
