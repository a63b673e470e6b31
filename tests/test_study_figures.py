"""The figures of models with content and style, against the runs of a tiny study; and the shipped studies."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import one_line
from matplotlib.figure import Figure
from PIL import Image

import dislab
from dislab.cli import main
from dislab.errors import DislabError
from dislab.files import check_own
from dislab.registry import isolated
from dislab.report import curves
from dislab.report.figures import FIGURES
from dislab.report.frame import KEY
from dislab.runs.machine import Machine
from dislab.scoring import pictures
from dislab.studies.file import read_study, shipped_studies
from dislab.studies.study import plan
from dislab.training.checkpoint import History

STUDY = """
title = "Content and style"
steps = 60
batch_size = 16
seeds = [1, 0]
metrics = ["mig"]
rank_by = "mig"
figures = ["evidence_over_k", "cost", "style_leak", "pictures"]

[[runs]]
model = "mlvae"
dataset = "blocks"
metrics = ["content_accuracy", "style_accuracy", "mig"]
set = { network = "mlp", content = 2, style = [1, 2], group_size = 4 }

[[runs]]
model = "mlvae"
dataset = "blocks"
seeds = [3]
group_by = [["shape"], ["size"]]
set = { network = "mlp", content = 2, group_size = 4 }

[[runs]]
model = ["vae", "oracle"]
dataset = "blocks"
seeds = [0]
"""


def blocks(source, data_dir, device):
    """A bright block."""
    space = dislab.FactorSpace(("shape", "size", "position"), (4, 3, 5))
    images = torch.zeros(len(space), 1, 8, 8, dtype=torch.uint8)
    for row, (shape, size, position) in enumerate(space.factors(np.arange(len(space)))):
        images[row, 0, 2 * shape : 2 * shape + size, position : position + 2] = 255
    return dislab.Dataset("blocks", "rendered", space, (1, 8, 8), lambda rows: images[rows], ["shape"])


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The results folder of the study; each picture of a run is a file that holds its own path."""
    folder = tmp_path_factory.mktemp("figures")
    (folder / "tiny.toml").write_text(STUDY)
    with isolated(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(pictures, "draw", lambda panels, title, ax=None: Figure().subplots())
        patch.setattr(pictures, "animation", lambda scene: b"GIF")
        patch.setattr(pictures, "save_figure", lambda figure, path: path.write_text(str(path)))
        dislab.register_dataset("blocks")(blocks)
        assert main(["bench", "tiny.toml", "--device", "cpu", "--pictures", "svg"]) == 0
    return folder / "results" / "tiny"


@pytest.fixture(scope="module")
def rows(study) -> dict[str, list[dislab.Run]]:
    """The runs of every row of the leaderboard, by seed."""
    rows = {}
    for run in sorted(dislab.runs_in(study), key=lambda run: run.config.seed):
        rows.setdefault(run.config.row, []).append(run)
    return rows


def grouped(rows, groupings: int = 1) -> dict[str, list[dislab.Run]]:
    """Those of the ML-VAE with so many groupings."""
    return {
        row: runs
        for row, runs in rows.items()
        if runs[0].config.model == "mlvae" and len(runs[0].config.group_by) == groupings
    }


def read(study: Path, name: str) -> pd.DataFrame:
    """A figure's table; its pictures, PNG and SVG, must be ones."""
    with Image.open(study / f"{name}.png") as image:
        assert image.format == "PNG" and min(image.size) > 100
        image.load()
    assert "<svg " in (study / f"{name}.svg").read_text()
    check_own(study / f"{name}.svg", study / f"{name}.csv")
    return pd.read_csv(study / f"{name}.csv", keep_default_na=False, na_values={"std": [""]})


def lines_of(table: pd.DataFrame, row: str, **wanted) -> pd.DataFrame:
    chosen = table[table["row"] == row]
    for name, value in wanted.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def assert_line(table: pd.DataFrame, runs: list[dislab.Run], values: list[float], **wanted) -> None:
    """The one line of these runs' row has their key, and the mean, std and number of these values."""
    config = runs[0].config
    [line] = lines_of(table, config.row, **wanted).to_dict("records")
    assert {name: str(line[name]) for name in KEY} == config.key
    assert line["n"] == len(values) == len(runs)
    assert line["mean"] == pytest.approx(np.mean(values), rel=1e-9)
    if len(values) == 1:
        assert np.isnan(line["std"])
    else:
        assert line["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-12)


def test_the_study_ran_what_the_tests_look_at(rows):
    numbers = {row: [run.config.seed for run in runs] for row, runs in rows.items()}
    assert sorted(numbers.values()) == [[0], [0], [0, 1], [0, 1], [3]]
    assert len(grouped(rows)) == 2 and len(grouped(rows, 2)) == 1


def test_evidence_over_k_is_the_mean_of_the_runs(study, rows):
    table = read(study, "evidence_over_k")
    assert set(table["model"]) == {"mlvae"}
    number = 0
    for runs in (grouped(rows) | grouped(rows, 2)).values():
        tables = [pd.DataFrame(run.record["evidence"]) for run in runs]
        groupings = range(1, len(runs[0].config.group_by) + 1)
        assert set(tables[0]["grouping"]) == set(groupings)
        assert set(tables[0]["k"]) == {1, 2, 3, 5, 10}
        for _, line in tables[0].iterrows():
            for quantity in ("content_variance", "log_likelihood", "reconstruction"):
                where = {"grouping": line["grouping"], "k": line["k"]}
                values = [
                    one[(one["grouping"] == line["grouping"]) & (one["k"] == line["k"])][quantity].item()
                    for one in tables
                ]
                assert_line(table, runs, values, quantity=quantity, **where)
                number += 1
    assert len(table) == number == 3 * 5 * (1 + 1 + 2)


def test_cost_is_the_mean_of_the_measured_times(study, rows):
    table = read(study, "cost")
    for row, runs in rows.items():
        if runs[0].config.model == "oracle":
            assert lines_of(table, row).empty, "it takes no steps"
            continue
        records = [json.loads((run.path / "run.json").read_text()) for run in runs]
        seconds = [record["timings"]["train_seconds"] for record in records]
        assert_line(table, runs, seconds, quantity="train_seconds")
        milliseconds = [record["timings"]["encode_seconds"] * 1000 / 60 for record in records]
        assert_line(table, runs, milliseconds, quantity="encode_milliseconds_per_image")
    assert len(table) == 2 * 4


def test_style_leak_has_the_scores_and_the_last_of_the_style_divergence(study, rows):
    table = read(study, "style_leak")
    for runs in grouped(rows).values():
        for score in ("style_accuracy", "style_accuracy_sampled", "content_accuracy"):
            assert_line(table, runs, [run.scores[score] for run in runs], quantity=score)
        # 60 steps are read at 25, 50 and 60: a tenth of three readings is the last.
        last = [run.record["losses"]["kl_style"] for run in runs]
        assert_line(table, runs, last, quantity="kl_style")
        written = [pd.read_csv(run.path / "history.csv")["kl_style"].tolist()[-1] for run in runs]
        assert last == pytest.approx(written, rel=1e-4)
    assert len(table) == 4 * len(grouped(rows)), "no other run has style_accuracy"


def test_the_losses_of_a_record_are_of_the_last_tenth():
    readings = [100.0] * 36 + [1.0, 2.0, 3.0, 6.0]
    history = History(["loss", "kl_style"], [[step, -1.0, kl] for step, kl in enumerate(readings)])
    assert history.last_tenth() == {"loss": -1.0, "kl_style": 3.0}
    assert History(["loss"], [[25, 4.0], [50, 2.0]]).last_tenth() == {"loss": 2.0}
    assert History().last_tenth() == {}


def test_pictures_are_those_of_the_first_seed(study, rows):
    table = pd.read_csv(study / "pictures.csv", keep_default_na=False)
    files = {path.name: path.read_bytes() for path in (study / "pictures").iterdir()}
    assert set(table["picture"]) == files.keys() and len(table) == len(files), "no two have one name"
    for row, runs in rows.items():
        mine = lines_of(table, row)
        first = runs[0]
        assert set(mine["seed"]) <= {first.config.seed}
        expected = {path.name: path.read_bytes() for path in first.path.glob("*.[psg][nvi][gf]")}
        assert sorted(files[name] for name in mine["picture"]) == sorted(expected.values())
        for name in mine["picture"]:
            [original] = [other for other in expected if name.endswith(f"-{other}")]
            assert files[name] == expected[original]
            assert first.config.model in name and "blocks" in name
    names = " ".join(files)
    assert (
        "swap.png" in names
        and "swap.svg" in names
        and "traversals.gif" in names
        and "evidence_2.png" in names
        and "mlvae-style=1-" in names
    )


def test_figures_of_runs_without_what_they_show_are_empty(rows):
    [oracle] = [runs for runs in rows.values() if runs[0].config.model == "oracle"]
    for name, runs in [("evidence_over_k", oracle), ("cost", oracle), ("style_leak", oracle)] + [
        (name, []) for name in FIGURES
    ]:
        assert FIGURES[name].table(runs).empty
        with pytest.raises(DislabError) as error:
            FIGURES[name].draw(runs)
        assert "nothing to show: no run has" in one_line(error)


OF_THESE_RUNS = ("accuracy_over_k", "evidence_over_k", "cost", "style_leak", "scores_by_model")


@pytest.mark.parametrize("name", OF_THESE_RUNS)
def test_a_figure_is_drawn_on_axes_of_ones_own(rows, name):
    runs = [run for of_row in rows.values() for run in of_row]
    own = FIGURES[name].draw(runs)
    axes = Figure().subplots(len(own))
    drawn = FIGURES[name].draw(runs, ax=axes)
    assert [*drawn] == [*axes]
    for one, other in zip(own, drawn, strict=True):
        lines = [line.get_xydata() for line in one.lines]
        assert len(lines) == len(other.lines)
        assert all(np.array_equal(a, b.get_xydata()) for a, b in zip(lines, other.lines, strict=True))
    assert any(axes.lines for axes in own)
    assert own[0].figure.legends or own[0].get_legend() or name == "cost"
    assert not drawn[0].figure.legends, "a legend stays in the caller's axes"
    with pytest.raises(DislabError) as error:
        FIGURES[name].draw(runs, ax=axes[0])
    assert f"ax has 1 axes: the figure needs {len(own)}" in one_line(error)


def test_the_leak_figure_needs_the_style_score():
    assert FIGURES["style_leak"].needs == ("style_accuracy",)
    assert FIGURES["evidence_over_k"].needs == FIGURES["cost"].needs == ()
    assert set(curves.EVIDENCE) < {"content_variance", "log_likelihood", "reconstruction", "elbo"}


@pytest.mark.skipif("DISLAB_DATA" not in os.environ, reason="DISLAB_DATA is not set: no real MNIST files")
@pytest.mark.parametrize("name", ["mlvae-paper", "mlvae-style-leak"])
def test_the_shipped_studies_of_the_ml_vae_are_right(name):
    study = read_study(shipped_studies()[name])
    planned = plan(study, Machine())
    for dataset in ("mnist", "olivetti"):
        asked = sum(len(draft.seeds) for draft in study.drafts if draft.settings["dataset"] == dataset)
        kept = sum(config.dataset == dataset for config in planned.values())
        assert kept == asked or (dataset == "olivetti" and kept == 0), "none is done twice or left out"
    assert len(planned) > 5
    assert set(study.figures) <= {*FIGURES, "pictures"}
