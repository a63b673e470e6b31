"""What a user sees of `dislab run` in a real terminal, and in a notebook."""

import math
import re
import sys

import pytest
from terminal import in_terminal

import dislab
from dislab.cli import main
from dislab.registry import METRICS

RUN = ["run", "--model", "mlvae", "--dataset", "bars", "--steps", "50", "--batch-size", "16"]
NETWORK = ["--set", "network=mlp"]


def rows_of(line: str, columns: int) -> int:
    """How many lines of a terminal a line takes."""
    return max(1, math.ceil(len(line) / columns))


@pytest.fixture
def few_defaults(monkeypatch):
    """Few default scores: all of them take seconds. The last four are left out of a run of the oracle."""
    chosen = "mig,sap,modularity,content_accuracy,elbo,mig_sampled,pose_error,median_angular_error_degrees"
    monkeypatch.setattr(METRICS, "default", lambda: METRICS.choose(chosen.split(",")))


def test_remarks_are_few_lines(bars, no_pictures, few_defaults, capsys):
    """What is left out is said, or counted if it is much."""
    oracle = ["run", "--model", "oracle", "--dataset", "bars", *bars]
    assert main([*oracle, "--metrics", "default"]) == 0
    out = capsys.readouterr().out
    number = int(re.search(r"^(\d+) remarks on scores, and why some are left out: --all$", out, re.M)[1])
    [run] = dislab.runs_in("results")
    assert number == len(run.scores.left_out) + len(run.scores.notes()) > 3
    assert main(["evaluate", "results", "--metrics", "elbo"]) == 0
    assert "elbo is left out: it needs" in capsys.readouterr().out


# One process, which trains and scores once: a run, its result at another width, all of it, another training.
IN_WIDTHS = """
import fcntl, struct, sys, termios
from dislab.cli import main
for columns, more in ((80, []), (120, []), (120, ["--all"]), (120, ["--metrics", "mig", "--out", "other"])):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    assert main([*sys.argv[1:], *more]) == 0
    print("end of a command")
"""


def test_a_run_in_a_terminal(bars):
    lines = in_terminal([sys.executable, "-c", IN_WIDTHS, *RUN, *NETWORK, *bars], 80)
    narrow, wide, every, trained = parts_between(lines, "end of a command")
    check_training(narrow, 80)
    check_training(trained, 120)
    check_result(narrow, 80)
    check_result(wide, 120)
    [run] = dislab.runs_in("results")
    text = "\n".join(every)
    assert len(run.record["metrics"]) == len(METRICS.default()), "no score is asked for by name"
    assert all(re.search(rf"^{name}  ", text, re.M) for name in run.record["metrics"] if name in run.scores)
    assert not re.search(r"\d{3,}\.000", text)


def parts_between(lines: list[str], mark: str) -> list[list[str]]:
    """Return the lines before each line that is the mark."""
    ends = [number for number, line in enumerate(lines) if line == mark]
    return [lines[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def check_training(lines: list[str], columns: int) -> None:
    updates = [line for line in lines if line.startswith("training")]
    assert updates and all(len(line) <= columns for line in updates)
    last = re.fullmatch(r"training ━+ 100% 50/50 ETA \d+:\d\d:\d\d (.*)", updates[-1])
    terms = re.split(r"  +", last[1])
    assert all(re.fullmatch(r"\w+ [-+.e\d]+|[\d,]+ images/s", term) for term in terms), "whole terms only"
    assert terms[0].startswith("loss ") and len(terms) >= 2 + (columns > 80)


def check_result(lines: list[str], columns: int) -> None:
    begin = next(number for number, line in enumerate(lines) if line.startswith("mlvae on bars (rendered)"))
    result = lines[begin:]
    assert sum(rows_of(line, columns) for line in result) <= 24
    table = result[result.index("") + 1 :]
    table = table[: next(number for number, line in enumerate(table) if line.startswith("and "))]
    assert re.split(r"  +", table[0]) == ["score", "value", "meaning"], "no empty column"
    assert all(len(line) <= columns for line in table)
    assert any(re.match(r"MIG +↑ +0\.\d{3} +each factor in one dimension only$", line) for line in table)
    text = "\n".join(result)
    assert "look next: dislab report results; dislab leaderboard results" in text and "swap.png" in text
    assert not re.search(r"\d{3,}\.000", text)


def test_all_shows_every_score(bars, no_pictures, few_defaults, capsys):
    assert main([*RUN, *NETWORK, *bars, "--seeds", "0,1"]) == 0
    short = capsys.readouterr().out
    assert main([*RUN, *NETWORK, *bars, "--seeds", "0,1", "--all"]) == 0
    every = capsys.readouterr().out
    [first, second] = dislab.runs_in("results")
    assert all(
        re.search(rf"^{name}  ", every, re.M) for name in first.record["metrics"] if name in first.scores
    )
    mean = (first.scores["elbo"] + second.scores["elbo"]) / 2
    assert f"{mean:,.3f}" in every or f"{mean:,.0f}" in every
    assert "elbo" not in short and "content=8 style=2" in every and not re.search(r"\d{3,}\.000", every)
    assert re.search(r"^mig +↑ +0\.\d+ +0\.\d+ +-?\d\.\d+ to \d\.\d+$", every, re.M)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dislab {dislab.__version__}\n"


@pytest.mark.parametrize(
    ("words", "position", "completed"),
    [("dislab le", 1, "leaderboard"), ("dislab run --data", 2, "--dataset")],
)
def test_a_shell_completes_commands_and_options(words, position, completed, monkeypatch, capsys):
    monkeypatch.setenv("_DISLAB_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(position))
    assert main([]) == 0
    assert completed in capsys.readouterr().out.split()


def test_a_notebook_shows_tables(tiny_dataset, tmp_path, no_pictures):
    run = dislab.run("oracle", tiny_dataset, metrics=["mig"], out=tmp_path)
    for shown, texts in (
        (run, ["oracle on tiny", f"<td>{run.scores['mig']:.4f}</td>", "<td>higher</td>"]),
        (run.scores, ["<td>mig</td>"]),
        (tiny_dataset, ["tiny (own): 60 images, 1 x 16 x 16", "<td>position</td><td>5</td>"]),
    ):
        html = shown._repr_html_()
        assert html.count("<table>") == 1 and all(text in html for text in texts)
    strange = dislab.Scores({"a<b": 1.0}, left_out={"c": "<i>"})._repr_html_()
    assert "a&lt;b" in strange and "&lt;i&gt;" in strange and "<i>" not in strange
