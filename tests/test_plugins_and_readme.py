"""The code of README and docs/ runs as it stands, and plug-ins join: as files, as installed packages."""

import csv
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dislab
from dislab.cli import main
from dislab.runs.machine import Machine
from dislab.studies.file import read_study
from dislab.studies.study import check_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
FAST = ["--dataset", "bars", "--steps", "30", "--batch-size", "16"]


def code_of_docs(mark: str, language: str = "python") -> str:
    """The block of code, of the README and the pages in docs/ together, that contains a text."""
    [code] = [
        block
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)
        if mark in block
    ]
    return code


def test_documented_metric_is_a_plugin_for_existing_runs(bars, no_pictures, capsys):
    code = code_of_docs("def active_dimensions")
    assert len(code.strip().splitlines()) <= 15
    Path("my_metric.py").write_text(code)
    name = re.search(r'register_metric\(\s*"(\w+)"', code).group(1)
    assert main(["run", "--model", "vae", *FAST, *bars, "--set", "network=mlp", "--metrics", "mig"]) == 0
    [run] = dislab.runs_in("results")
    trained = (run.path / "model.safetensors").stat().st_mtime_ns
    assert main(["evaluate", "results/", "--metrics", name, "--plugin", "my_metric.py"]) == 0
    run = dislab.load(run.path)
    assert name in run.scores and "mig" in run.scores
    assert (run.path / "model.safetensors").stat().st_mtime_ns == trained
    with Path("results/leaderboard.csv").open() as file:
        [row] = csv.DictReader(file)
    assert float(row[f"{name}_mean"]) == pytest.approx(run.scores[name], rel=1e-4)
    assert name in capsys.readouterr().out
    # The documented metric, by hand: dimensions whose codes vary by more than it says.
    assert run.scores[name] == float((run.codes.mean.std(axis=0) > 0.1).sum())


def test_documented_model_is_a_plugin_that_trains(bars, no_pictures, capsys):
    code = code_of_docs("class Whitened")
    assert len(code.strip().splitlines()) <= 25
    Path("my_model.py").write_text(code)
    name = re.search(r'register_model\(\s*"(\w+)"', code).group(1)
    mine = ["--model", name, "--plugin", "my_model.py", *bars]
    assert main(["run", *mine, *FAST, "--steps", "300", "--metrics", "mig"]) == 0
    assert f"{name} on bars (rendered)" in capsys.readouterr().out
    [run] = dislab.runs_in("results")
    assert run.config.model == name and len(run.codes) == 60 and 0 <= run.scores["mig"] <= 1
    loss = run.history["loss"]
    assert loss.notna().all() and loss[-3:].mean() < 0.5 * loss[0], "it learns"
    assert main(["list", "models", "--plugin", "my_model.py"]) == 0
    assert f"\n{name}: " in capsys.readouterr().out


def test_documented_scores_own_arrays():
    namespace = {}
    exec(code_of_docs("codes=codes, factors=factors"), namespace)
    assert namespace["scores"]["mig"] > 0.5


def test_documented_trains_on_own_data(tmp_path, monkeypatch, no_pictures, capsys):
    monkeypatch.chdir(tmp_path)
    code = code_of_docs('name="squares"')
    assert len(code.strip().splitlines()) <= 15
    namespace = {}
    assert "steps=100" in code
    exec(code.replace("steps=100", "steps=5"), namespace)
    run = namespace["run"]
    assert len(run.codes) == 64 and run.record["train_rows"] == 256 and run.config.hold_out == ("0.2",)
    assert set(run.scores) >= {"mig", "sap"} and str(dict(run.scores)) in capsys.readouterr().out


def test_installed_plugin_joins_through_an_entry_point(tmp_path):
    """An installed package that names an entry point of the group dislab.metrics."""
    (tmp_path / "extra_metric.py").write_text(code_of_docs("def active_dimensions"))
    about = tmp_path / "extra-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dislab.metrics]\nextra = extra_metric\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "dislab", "list", "metrics"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "active_dimensions" in listed and "factorvae_score" in listed


def test_tutorial_of_an_own_encoder(cache, no_pictures, monkeypatch, tmp_path, capsys):
    """The tutorial's blocks, on 48 images whose mean colours are their factors."""
    monkeypatch.chdir(tmp_path)
    values = list(itertools.product(["ball", "cube", "tube"], ["blue", "red"], [0.5, 1.0, 1.5, 2.0], [1, 2]))
    Path("images").mkdir()
    lines = ["file,shape,colour,size"]
    for number, (shape, colour, size, _) in enumerate(values):
        pixels = np.empty((8, 8, 3), np.uint8)
        pixels[:] = 100 * "bct".index(shape[0]), 200 * (colour == "red"), 100 * size
        Image.fromarray(pixels).save(f"images/{number}.png")
        lines.append(f"{number}.png,{shape},{colour},{size}")
    Path("factors.csv").write_text("\n".join(lines))
    namespace = {}
    for mark in ('factors="factors.csv")', "def encoder", '"pca", "untrained"'):
        exec(code_of_docs(mark).replace("steps=2000", "steps=5"), namespace)
    dataset, scores = namespace["dataset"], namespace["scores"]
    assert dataset.space.sizes == (3, 2, 4) and len(dataset) == 48
    assert scores["mig"] > 0.9, "each mean colour is one factor"
    models = set(dislab.leaderboard("results")["model"])
    assert models == {"mine", "betavae", "pca", "untrained"}


def test_tutorial_of_a_metric(isolated, capsys):
    namespace = {}
    exec(code_of_docs("def nearest_value"), namespace)
    exec(code_of_docs("perfect = dislab.evaluate"), namespace)
    perfect, noise = namespace["perfect"], namespace["chance"]
    assert perfect["nearest_value"] == 1 and perfect.details["nearest_value_per_factor"] == [1, 1, 1]
    # 5,000 test rows of 3 factors with 4 values: the mean of chance has a standard deviation of 0.0035.
    assert abs(noise["nearest_value"] - 0.25) < 0.02


def test_tutorial_of_a_comparison_is_a_study(tmp_path):
    (tmp_path / "paper.toml").write_text(code_of_docs("[[runs]]", "toml"))
    study = read_study(tmp_path / "paper.toml")
    assert study.number == 3 * 5 + 2 * 5 + 3 * 2
    check_names(study, Machine())


def test_links_of_the_documentation_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
