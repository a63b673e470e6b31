"""Leaderboards for reading: on a terminal, as markdown, CSV, LaTeX and JSON, from records made up here."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from terminal import in_terminal

import dislab
from dislab.cli import main
from dislab.report.board import tabulated
from dislab.report.leaderboard import FORMATS, render, render_all, tidy_csv
from dislab.report.names import HEADLINES, MOST_HEADLINES, headlines
from dislab.runs.config import FORMAT, RunConfig
from dislab.runs.finished import Run, as_json

CONFIG = {
    "model": "vae",
    "hyperparameters": {"beta": 1},
    "dataset": "bars",
    "source": "rendered-v1",
    "protocol": {"name": "quick", "steps": 9, "learning_rate": 1e-3, "batch_size": 32, "rows": None},
    "group_by": [["shape"]],
    "hold_out": [],
    "seed": 0,
    "metrics": ["default"],
}


def a_run(scores: dict, directions=None, blocks=(), scored_rows: int = 60, **config) -> Run:
    """A finished run of a bare record."""
    configuration = RunConfig.from_json(CONFIG | config)
    directions = dict.fromkeys(scores, "up") if directions is None else directions
    record = {
        "format": FORMAT,
        "digest": configuration.digest,
        "folder": configuration.folder.as_posix(),
        "config": configuration.to_json(),
        "scores": scores,
        "metrics": {name: {"direction": better, "digest": "a"} for name, better in directions.items()},
        "blocks": {name: [0, 1] for name in blocks},
        "scored_rows": scored_rows,
        "report": {},
        "timings": {"train_seconds": 1.5, "train_images_per_second": 9.0},
        "environment": {"device": "cpu"},
        "left_out": {},
        "details": {},
        "files": {},
    }
    return Run(configuration.folder, record)


def a_board(*runs: Run, rank_by: str = "mig"):
    return tabulated(iter(runs), rank_by)


@pytest.fixture
def wide():
    """Three models with every headline score and twenty others, three seeds each."""
    rng = np.random.default_rng(0)
    others = [f"score_{number}" for number in range(20)]
    names = [*HEADLINES, *others, "elbo", "kl", "irs"]
    return a_board(
        *(
            a_run(
                dict(zip(names, rng.random(len(names)), strict=True)),
                model=model,
                seed=seed,
                blocks=["style"],
            )
            for model in ("vae", "betavae", "mlvae_of_a_very_long_name")
            for seed in range(3)
        )
    )


def write_records(folder: Path, *runs: Run) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").write_bytes(b"".join(as_json(run.record) for run in runs))


# On a terminal


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_no_line_is_wider_than_the_terminal(wide, width):
    text = render(wide, "table", width=width)
    assert max(map(len, text.splitlines())) <= width
    heads = {40: 1, 80: 4, 120: 7, 300: 8}[width]
    assert text.count("±") == 3 * heads + 1, "three models, and the line above"
    assert "other scores: --all" in text and ("too wide" in text) == (heads < 8)
    every = render_all(wide, "table", width)
    assert max(map(len, every.splitlines())) <= width
    assert all(name in every for name in wide.directions) or width == 40


def test_shows_headline_scores_and_what_is_constant_above(wide):
    head, columns, *rows = render(wide, "table", width=300).splitlines()[:5]
    assert head == (
        "bars (rendered-v1), protocol quick, grouped by shape, 60 images scored, mean ± std over 3 seeds, "
        "best first by MIG"
    )
    assert re.split(r"  +", columns) == ["model", *(f"{label} ↑" for label, _ in HEADLINES.values())]
    means = [float(re.split(r"  +", row)[3].split(" ± ")[0]) for row in rows]
    assert means == sorted(means, reverse=True)


def test_a_table_in_a_real_terminal(tmp_path):
    """As wide as the terminal says, which is no environment variable there."""
    write_records(tmp_path / "results", a_run({"mig": 0.5}), a_run({"mig": 0.25, "sap": 1.0}, seed=1))
    for columns in (60, 100):
        command = [sys.executable, "-m", "dislab", "leaderboard", str(tmp_path / "results")]
        lines = in_terminal(command, columns, with_errors=False)
        assert max(map(len, lines)) <= columns
        assert any(line.startswith("vae") and "0.375 ± 0.177" in line for line in lines)


def test_settings_never_share_a_table():
    other = {"dataset": "mpi3d_real"}
    board = a_board(
        *(
            a_run({"mig": 0.1}, **change)
            for change in ({}, other, {"source": "official"}, {"hold_out": ["0.2"]})
        )
    )
    text = render(board, "table")
    assert text.count("model  MIG") == 4
    assert "trained without, and scored on: 0.2" in text


def test_external_codes_stand_in_every_table_of_their_dataset():
    mine = a_run({"mig": 0.2}, model="mine", source="external", scored_rows=10)
    other = a_run({"mig": 0.3}, model="yours", source="external", dataset="shapes3d", hyperparameters={})
    runs = [
        a_run({"mig": mig}, model=model, hyperparameters={}) for model, mig in (("vae", 0.1), ("pca", 0.3))
    ]
    first, second = render(a_board(*runs, mine, other), "table").strip().split("\n\n")
    assert [line.split("  ")[0] for line in first.splitlines()[1:]] == [
        *("model", "pca", "mine (external)", "vae")
    ], "best first"
    assert second.startswith("shapes3d (external)") and "images scored" not in first.splitlines()[0]


def test_a_score_that_does_not_apply_is_neither_shown_nor_ranked():
    runs = [
        a_run({"style_accuracy": 0.9, "mig": 0.1}, {"style_accuracy": "down", "mig": "up"}),
        a_run(
            {"style_accuracy": 0.95, "mig": 0.1},
            {"style_accuracy": "down", "mig": "up"},
            model="mlvae",
            blocks=["content", "style"],
        ),
    ]
    board = a_board(*runs, rank_by="style_accuracy")
    assert board.frame["model"].tolist() == ["mlvae", "vae"], "the row that has the score is first"
    assert (
        np.isnan(board.frame["style_accuracy_mean"].iloc[1]) and board.frame["style_accuracy_n"].iloc[1] == 0
    )
    assert "0.900" not in render(board, "table") and "0.9," not in tidy_csv(board)


def test_reference_points_come_last_and_are_never_the_best():
    runs = [a_run({"mig": mig}, model=model) for model, mig in (("oracle", 1.0), ("vae", 0.2), ("pca", 0.1))]
    lines = render(a_board(*runs), "markdown").splitlines()
    assert [line.split()[1] for line in lines[4:7]] == ["vae", "pca", "oracle"]
    assert "| **0.200** |" in lines[4] and "**" not in lines[6]
    tex = render(a_board(*runs), "latex")
    assert tex.index("PCA") < tex.index("\\midrule\noracle")


def test_the_best_are_bold_with_those_that_the_test_does_not_separate():
    values = {"a": [0.50, 0.60, 0.70], "b": [0.49, 0.61, 0.69], "c": [0.10, 0.20, 0.30]}
    runs = [a_run({"m": v}, model=model, seed=s) for model, vs in values.items() for s, v in enumerate(vs)]
    bold = re.findall(r"\| (\w) \| \*\*", render(a_board(*runs, rank_by="m"), "markdown"))
    assert bold == ["a", "b"]
    down = [
        a_run(run.record["scores"], {"m": "down"}, model=run.config.model, seed=run.config.seed)
        for run in runs
    ]
    assert re.findall(r"\| (\w) \| \*\*", render(a_board(*down, rank_by="m"), "markdown")) == ["c"]


def test_nothing_is_claimed_of_an_unknown_direction():
    runs = [
        a_run({"m": value}, {"m": ""}, model=name) for name, value in (("x", 3.5), ("b", 0.5), ("a", 1.5))
    ]
    board = a_board(*runs, rank_by="m")
    assert board.frame["model"].tolist() == ["a", "b", "x"], "by name"
    for style in FORMATS:
        text = render(board, style)
        assert not re.search("[↑↓]|arrow|[*][*]|textbf|best first|untested", text), style


def test_the_direction_of_a_plugin_is_read_from_its_record():
    """No metric `m` is registered here."""
    runs = [a_run({"m": value}, {"m": "down"}, model=name) for name, value in (("b", 0.9), ("a", 1.5))]
    text = render(a_board(*runs, rank_by="m"), "table")
    assert "m ↓" in text and [line.split()[0] for line in text.splitlines()[2:4]] == ["b", "a"]


@pytest.mark.parametrize(
    ("mean", "text"),
    [
        (30000.0, "30,000"),
        (-4249.8077, "-4,250"),
        (0.0, "0.000"),
        (1.0, "1.000"),
        (10.0, "10"),
        (9.5, "9.500"),
    ],
)
def test_counts_have_no_decimals(mean, text):
    assert f"  {text}\n" in render(a_board(a_run({"m": mean}), rank_by="m"), "table")


def test_headlines():
    assert headlines(["b", "mig", "a"]) == ["mig", "b", "a"], "few scores are all shown"
    many = [
        "elbo",
        "kl",
        "irs",
        "explicitness",
        "active_units",
        "total_correlation",
        "style_entropy",
        "mig_sampled",
    ]
    assert headlines([*many, "sap", "of_a_plugin", "mig@scale=unit"]) == [
        "mig@scale=unit",
        "sap",
        "of_a_plugin",
    ]
    assert headlines([*many, "sap"], first="irs") == ["irs", "sap"]
    fast = "dci_fast_disentanglement"
    assert headlines([*many, "sap", fast]) == [fast, "sap"], "it stands in for dci_disentanglement"
    assert headlines([*many, "sap", fast, "dci_disentanglement"]) == ["dci_disentanglement", "sap"]
    assert len(headlines([f"p{number}" for number in range(30)])) == MOST_HEADLINES
    assert len(headlines([*many, "index_code_mi"])) == MOST_HEADLINES, "no headline score among them"


# Files


def test_csv_has_at_most_40_columns_and_with_all_every_score(wide):
    short, every = (pd.read_csv(io.StringIO(text)) for text in (render(wide, "csv"), render_all(wide, "csv")))
    assert len(short.columns) <= 40 and len(short) == len(every) == 3
    assert {"mig_mean", "mig_std", "mig_n", "seeds", "n", "row"} <= set(short)
    assert {f"score_19_{part}" for part in ("mean", "std", "n", "ci95")} <= set(every)
    assert short["mig_mean"].tolist() == every["mig_mean"].tolist()


def test_tidy_csv_has_a_line_for_each_run_and_score():
    runs = [
        a_run({"mig": 0.1, "sap@scale=unit": 0.2, "mig_beside": 0.3}, {"mig": "up", "sap@scale=unit": "up"}),
        a_run({"mig": 1 / 3}, {"mig": "up"}, seed=1, hold_out=["shape=0,1"]),
    ]
    lines = sorted(csv.DictReader(io.StringIO(tidy_csv(a_board(*runs)))), key=lambda line: line["seed"])
    assert [(line["seed"], line["score"], float(line["value"])) for line in lines] == [
        ("0", "mig", 0.1),
        ("0", "mig_beside", 0.3),
        ("0", "sap@scale=unit", 0.2),
        ("1", "mig", 1 / 3),
    ]
    assert [line["metric_protocol"] for line in lines] == ["locatello2019"] * 2 + [
        "scale=unit",
        "locatello2019",
    ]
    assert [line["direction"] for line in lines] == ["up", "", "up", "up"]
    assert [line["hold_out"] for line in lines] == [""] * 3 + ["shape=0,1"]
    assert [line["row"] for line in lines] == [runs[0].row] * 3 + [runs[1].row]


def test_json_has_the_scores_with_direction_and_rank(wide):
    rows = json.loads(render(wide, "json"))
    assert [row["model"] for row in rows] == wide.frame["model"].tolist()
    scores = rows[0]["scores"]["mig"]
    assert scores["direction"] == "up" and scores["n"] == 3 and scores["best"] == "best"
    one = json.loads(render(a_board(a_run({"mig": 0.5})), "json"))[0]["scores"]["mig"]
    assert one == {"mean": 0.5, "std": None, "n": 1, "ci95": None, "direction": "up", "best": ""}


# LaTeX


@pytest.fixture
def tex(wide) -> str:
    strange = a_run({"mig": 0.1}, model="a_b", hyperparameters={"file": "50%_&#{x}^~\\$"}, dataset="shapes3d")
    return render(wide, "latex") + render(a_board(strange), "latex")


def test_latex_is_booktabs_with_display_names(tex):
    assert r"$\beta$-VAE" in tex and "MIG $\\uparrow$" in tex and "Shapes3D" in tex and "betavae" not in tex
    for table in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", tex, re.S):
        columns = len(re.search(r"\{(l r*|lr*)\}", table)[1])
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}
        rules = re.findall(r"\\(\w+rule)", table)
        assert rules[0] == "toprule" and rules[1] == "midrule" and rules[-1] == "bottomrule"
    assert not re.search(r"[±↑↓β²–]", "".join(line for line in tex.splitlines() if line[:1] != "%"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed here")
def test_latex_compiles(tex, tmp_path):
    begin = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{begin}{tex}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


# The command


def test_options_of_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    runs = [
        a_run({"mig": 0.1 * s, "sap": 0.2, "mig_beside": 30000.0}, {"mig": "up", "sap": "up"}, seed=s)
        for s in (1, 2)
    ]
    write_records(Path("results"), *runs)

    def said(*options: str) -> str:
        assert main(["leaderboard", *options]) == 0
        return capsys.readouterr().out

    assert "SAP ↑" in said() and "SAP" not in said("--scores", "mig")
    assert "30,000" in said("--scores", "mig_beside,sap") and "mig_beside" in said("--all")
    assert re.search(r"vae +0.150 +0.071  2 +-0.485 to 0.785\n", said("--all")), "by Student's t, df 1"
    assert len(said("--format", "csv", "--all").splitlines()[0].split(",")) > len(
        said("--format", "csv").splitlines()[0].split(",")
    )
    for wrong, words in (
        (["--scores", "mgi"], "unknown score 'mgi': did you mean 'mig'?"),
        (["--scores", "mig", "--all"], "leave out --scores"),
    ):
        assert main(["leaderboard", *wrong]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("style", ["table", "markdown", "latex"])
def test_published_numbers_stand_below_and_of_the_same_dataset_only(tmp_path, capsys, monkeypatch, style):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write_records(Path("results"), a_run({"mig": 0.1, "sap": 0.2}, dataset="shapes3d"))
    assert main(["leaderboard", "--published", "--format", style]) == 0
    ours, theirs = capsys.readouterr().out.split("published for")
    assert "not ranked" in theirs and "soft" in theirs and "0.354 " in theirs and "0.354 " not in ours
    assert "not ranked" not in ours and "2412.04671" in theirs
    if style == "table":
        assert max(map(len, theirs.splitlines())) <= 100
    write_records(Path("results"), a_run({"mig": 0.1}, dataset="mpi3d_toy"))
    assert main(["leaderboard", "--published", "--format", style]) == 0
    assert "no published numbers for mpi3d_toy" in capsys.readouterr().out


def test_published_numbers_without_a_results_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "--published", "--scores", "mig", "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    expected = dislab.published(score="mig")
    assert len(table) == len(expected) and set(table["dataset"]) == set(expected["dataset"])
    assert main(["leaderboard", "--published"]) == 0
    out = capsys.readouterr().out
    assert all(f"published for {name}," in out for name in ("shapes3d", "mpi3d_real", "dsprites"))
    places = [
        out.index(f"published for {name},") for name in ("cars3d", "dsprites", "mpi3d_real", "shapes3d")
    ]
    assert all(first < second for first, second in pairwise(places))
