"""The README's code runs as it stands there, and plug-ins join: as files, and as installed packages."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dislab
from dislab.cli import main

README = Path(__file__).parent.parent / "README.md"
FAST = ["--dataset", "bars", "--steps", "30", "--batch-size", "16"]


def readme_code(mark: str) -> str:
    """The Python block of the README that contains a text."""
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if mark in block
    ]
    return code


def test_readme_metric_is_a_plugin_for_existing_runs(bars, no_pictures, capsys):
    code = readme_code("@dislab.register_metric")
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
    # The README's metric, by hand: dimensions whose codes vary by more than it says.
    assert run.scores[name] == float((run.codes.mean.std(axis=0) > 0.1).sum())


def test_readme_model_is_a_plugin_that_trains(bars, no_pictures, capsys):
    code = readme_code("@dislab.register_model")
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


def test_readme_scores_own_arrays():
    namespace = {}
    exec(readme_code("codes=codes"), namespace)
    assert namespace["scores"]["mig"] > 0.5


def test_readme_trains_on_own_data(tmp_path, monkeypatch, no_pictures, capsys):
    monkeypatch.chdir(tmp_path)
    code = readme_code("dislab.from_arrays")
    assert len(code.strip().splitlines()) <= 15
    namespace = {}
    assert "steps=100" in code
    exec(code.replace("steps=100", "steps=5"), namespace)
    run = namespace["run"]
    assert len(run.codes) == 64 and run.record["train_rows"] == 256 and run.config.hold_out == ("0.2",)
    assert set(run.scores) >= {"mig", "sap"} and str(dict(run.scores)) in capsys.readouterr().out


def test_installed_plugin_joins_through_an_entry_point(tmp_path):
    """An installed package that names an entry point of the group dislab.metrics."""
    (tmp_path / "extra_metric.py").write_text(readme_code("@dislab.register_metric"))
    about = tmp_path / "extra-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dislab.metrics]\nextra = extra_metric\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "dislab", "list", "metrics"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "active_dimensions" in listed and "factorvae_score" in listed
