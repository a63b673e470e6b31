"""The command line end to end on a tiny plug-in dataset: runs, plug-ins, bad input, kill and resume."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

import dislab
from dislab.cli import main, parse_seeds
from dislab.registry import METRICS, MODELS
from dislab.report import leaderboard

README = Path(__file__).parent.parent / "README.md"

# A plug-in with a dataset that trains in seconds: 4 x 3 x 5 factor values, 16 x 16 pixels.
TINY = '''
import numpy as np
import torch
import dislab

@dislab.register_dataset("tiny")
def tiny(source, data_dir, device):
    """A bright bar."""
    space = dislab.FactorSpace(("shape", "size", "position"), (4, 3, 5))
    images = torch.zeros(len(space), 1, 16, 16, dtype=torch.uint8)
    for row, (shape, size, position) in enumerate(space.factors(np.arange(len(space)))):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 255
    return dislab.Dataset("tiny", "rendered", space, (1, 16, 16), lambda rows: images[rows], ["shape"])
'''
FAULTY = '''
import torch
import dislab
from dislab.models.vae import VAE

@dislab.register_model("broken")
class Broken(VAE):
    """A model whose loss turns NaN."""
    def loss(self, batch, step):
        terms = super().loss(batch, step)
        return {**terms, "loss": terms["loss"] * torch.where(step > 23, torch.nan, 1.0)}

@dislab.register_model("raises")
class Raises(VAE):
    """A model whose loss has a mistake."""
    def loss(self, batch, step):
        return super().loss(batch, step) + batch.pictures

@dislab.register_metric("fails")
def fails(table, rng):
    """A metric that raises."""
    raise ValueError("no codes today")
'''
FAST = ["--dataset", "tiny", "--steps", "30", "--batch-size", "16", "--set", "network=mlp"]


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch, tiny_file):
    """Arguments that make the tiny dataset known; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    return ["--plugin", str(tiny_file)]


def read_leaderboard(path="results/leaderboard.csv"):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_run_writes_everything(tiny, capsys):
    assert main(["run", "--model", "mlvae", *FAST, *tiny, "--seeds", "0,1,2"]) == 0
    out, err = capsys.readouterr()
    assert "mlvae on tiny (rendered)" in out and "seeds 0, 1, 2" in out
    assert "using the rendered images" in err
    assert re.search(r"training 30/30 .*loss .* images/s +ETA", err)
    folders = sorted(Path("results").rglob("seed*"))
    assert [folder.name for folder in folders] == ["seed0", "seed1", "seed2"]
    expected = {"run.json", "model.safetensors", "codes.safetensors", "history.csv"}
    expected |= {"reconstructions.png", "traversals.png", "evidence.csv"}
    expected |= {"swap.png", "interpolation.png", "generation.png", "evidence.png"}
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == expected
        assert (folder / "swap.png").read_bytes()[:4] == b"\x89PNG"
    runs = [dislab.load(folder) for folder in folders]
    [row] = read_leaderboard()
    key = [row[name] for name in leaderboard.KEY]
    assert key[:6] == ["tiny", "rendered", "quick+steps=30+batch_size=16", "", "shape", "mlvae"]
    assert "content=8 style=2" in key[6] and row["seeds"] == "0 1 2" and row["n"] == "3"
    # Mean, standard deviation and Student's interval, computed here from the run.json files.
    values = np.array([json.loads((f / "run.json").read_text())["scores"]["mig"] for f in folders])
    assert float(row["mig_mean"]) == pytest.approx(values.mean(), rel=1e-4)
    assert float(row["mig_std"]) == pytest.approx(values.std(ddof=1), rel=1e-4)
    half = t.interval(0.95, 2, scale=values.std(ddof=1) / 3**0.5)[1]
    assert float(row["mig_ci95"]) == pytest.approx(half, rel=1e-4)
    assert float(row["train_seconds"]) > 0 and float(row["images_per_second"]) > 0
    # What is read back is what was computed: the stored model encodes to the stored codes.
    run = runs[0]
    assert isinstance(run.scores, dict) and run.scores.to_frame().shape[0] == len(run.scores)
    images = torch.zeros(60, 1, 16, 16)
    for row, (shape, size, position) in enumerate(run.codes.factors):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 1
    with torch.inference_mode():
        assert np.allclose(run.model.encode(images)[0].numpy(), run.codes.mean, atol=1e-6)
    assert list(run.history.columns)[:2] == ["step", "loss"]


def test_same_seed_same_digits_and_nothing_twice(tiny, capsys):
    names = ["--model", "betatcvae", *FAST, *tiny]
    assert main(["run", *names, "--out", "a"]) == main(["run", *names, "--out", "b"]) == 0
    first, second = (dislab.load(next(Path(name).rglob("seed0"))) for name in ("a", "b"))
    assert dict(first.scores) == dict(second.scores)
    assert np.array_equal(first.codes.mean, second.codes.mean)
    assert main(["run", *names, "--seeds", "1", "--out", "b"]) == 0
    third = dislab.load(next(Path("b").rglob("seed1")))
    assert dict(third.scores) != dict(first.scores)
    capsys.readouterr()
    before = (first.path / "model.safetensors").stat().st_mtime_ns
    assert main(["run", *names, "--out", "a"]) == 0
    assert "finished before" in capsys.readouterr().err
    assert (first.path / "model.safetensors").stat().st_mtime_ns == before


def test_key_of_a_row(tiny):
    """Whatever changes the training makes a row of its own; the seed does not."""
    base = ["run", "--model", "betavae", *FAST, *tiny, "--metrics", "mig"]
    changes = [
        [],
        ["--set", "beta=8"],
        ["--group-by", "shape,size"],
        ["--steps", "20"],
        ["--batch-size", "8"],
    ]
    for change in changes:
        assert main([*base, *change]) == 0
    rows = read_leaderboard()
    assert len(rows) == len(changes)
    assert len({tuple(row[name] for name in leaderboard.KEY) for row in rows}) == len(changes)
    assert any("beta=8.0" in row["hyperparameters"] for row in rows)
    [grouped] = [row for row in rows if row["group_by"] == "shape+size"]
    assert "normalised_beta" in grouped["report"]
    blocks = [row["protocol"] for row in rows]
    assert blocks == sorted(blocks)
    same = [float(row["mig_mean"]) for row in rows if row["protocol"] == "quick+steps=30+batch_size=16"]
    assert same == sorted(same, reverse=True), "best first"


def test_hold_out_is_part_of_the_row(tiny, capsys):
    names = ["--metrics", "mig", "--hold-out", "shape=3&size=0-1", "--hold-out", "position=4"]
    assert main(["run", "--model", "vae", *FAST, *tiny, *names]) == 0
    assert "scored on: position=4; shape=3&size=0-1" in capsys.readouterr().out
    run = dislab.load(next(Path("results").rglob("seed0")))
    shape, size, position = run.codes.factors.T
    assert (((shape == 3) & (size < 2)) | (position == 4)).all()
    held_out = 2 * 5 + 4 * 3 - 2
    assert len(run.codes) == held_out and run.record["train_rows"] == 60 - held_out
    assert main(["run", "--model", "vae", *FAST, *tiny, "--metrics", "mig"]) == 0
    assert [row["hold_out"] for row in read_leaderboard()] == ["", "position=4; shape=3&size=0-1"]


def test_a_value_beside_a_score_has_the_direction_of_its_metric():
    directions = {
        "content_entropy_k10": "down",
        "mig_sampled_rows": "up",
        "style_entropy": "up",
        "mine": "up",
    }
    assert {name: leaderboard.direction(name) for name in directions} == directions
    assert leaderboard.home("mig_sampled_rows").name == "mig_sampled"
    assert leaderboard.home("betavae_score_train@softtpr2024").name == "betavae_score"


def test_several_groupings_have_a_content_code_each(tiny, capsys):
    groupings = ["--group-by", "shape", "--group-by", "position"]
    names = ["--metrics", "content_accuracy,style_accuracy", "--set", "group_size=4"]
    assert main(["run", "--model", "mlvae", *FAST, *tiny, *groupings, *names]) == 0
    run = dislab.load(next(Path("results").rglob("seed0")))
    assert set(run.codes.blocks) == {"content_1", "content_2", "style"}
    assert run.config["group_by"] == [["shape"], ["position"]] and run.codes.labels.shape == (60, 2)
    per_grouping = run.scores.details["content_accuracy_per_grouping"]
    assert run.scores["content_accuracy"] == pytest.approx(np.mean(per_grouping))
    assert run.scores["content_accuracy_chance"] == pytest.approx((1 / 4 + 1 / 5) / 2)
    assert {path.name for path in run.path.glob("swap*.png")} == {"swap_1.png", "swap_2.png"}
    assert read_leaderboard()[0]["group_by"] == "shape & position"


def test_leaderboard_formats(tiny, capsys):
    assert main(["run", "--model", "vae", *FAST, *tiny, "--seeds", "0-1", "--metrics", "mig"]) == 0
    assert main(["run", "--model", "mlvae", *FAST, *tiny]) == 0
    capsys.readouterr()
    printed = {}
    for style in ("table", "csv", "markdown", "latex"):
        assert main(["leaderboard", "--format", style]) == 0
        printed[style] = capsys.readouterr().out
    assert printed["csv"] == Path("results/leaderboard.csv").read_text()
    lines = printed["markdown"].strip().splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert "±" in printed["markdown"] and r"$\pm$" in printed["latex"] and r"\_" in printed["latex"]
    assert main(["leaderboard", "--rank-by", "content_accuracy"]) == 0
    frame = dislab.leaderboard.leaderboard("results", "content_accuracy")
    assert isinstance(frame, pd.DataFrame) and frame["model"].iloc[0] == "mlvae"


def readme_code(mark: str) -> str:
    """The Python block of the README that contains a text."""
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if mark in block
    ]
    return code


def test_readme_metric_is_a_plugin_for_existing_runs(tiny, capsys, tmp_path):
    code = readme_code("@dislab.register_metric")
    assert len(code.strip().splitlines()) <= 15
    (tmp_path / "my_metric.py").write_text(code)
    name = re.search(r'register_metric\(\s*"(\w+)"', code).group(1)
    assert main(["run", "--model", "vae", *FAST, *tiny, "--metrics", "mig"]) == 0
    folder = next(Path("results").rglob("seed0"))
    trained = (folder / "model.safetensors").stat().st_mtime_ns
    assert main(["evaluate", "results/", "--metrics", name, "--plugin", "my_metric.py"]) == 0
    run = dislab.load(folder)
    assert name in run.scores and "mig" in run.scores
    assert (folder / "model.safetensors").stat().st_mtime_ns == trained
    assert float(read_leaderboard()[0][f"{name}_mean"]) == pytest.approx(run.scores[name], rel=1e-4)
    assert name in capsys.readouterr().out
    # The README's metric, by hand: dimensions whose codes vary by more than it says.
    assert run.scores[name] == float((run.codes.mean.std(axis=0) > 0.1).sum())


def test_a_score_of_another_metric_protocol_has_a_name_of_its_own(tiny, capsys):
    assert main(["run", "--model", "vae", *FAST, *tiny, "--metrics", "betavae_score"]) == 0
    folder = next(Path("results").rglob("seed0"))
    names = ["--metrics", "betavae_score,mig", "--metric-protocol", "softtpr2024"]
    assert main(["evaluate", str(folder), *names]) == 0
    run = dislab.load(folder)
    assert {"betavae_score", "betavae_score@softtpr2024", "mig"} <= set(run.scores)
    assert "mig@softtpr2024" not in run.scores, "that protocol leaves mig as it is"
    assert run.record["metric_protocols"]["betavae_score_train@softtpr2024"] == "softtpr2024"
    assert run.record["metric_protocols"]["mig"] == "locatello2019"
    expected = dislab.evaluation.score(
        run.codes, ["betavae_score"], num_train=5000, num_test=5000, penalised=False
    )
    assert run.scores["betavae_score@softtpr2024"] == expected["betavae_score"]
    [row] = read_leaderboard()
    assert float(row["betavae_score@softtpr2024_mean"]) == pytest.approx(expected["betavae_score"], rel=1e-4)
    assert main(["evaluate", str(folder), *names]) == 0
    assert "scoring" not in capsys.readouterr().err.rpartition(str(folder))[2], "nothing is scored twice"
    capsys.readouterr()
    assert main(["leaderboard"]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert "betavae_score@softtpr2024" in head and "betavae_score_train" not in head


def test_readme_scores_own_arrays():
    namespace = {}
    exec(readme_code("codes=codes"), namespace)
    assert namespace["scores"]["mig"] > 0.5


def test_readme_trains_on_own_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = readme_code("dislab.from_arrays")
    assert len(code.strip().splitlines()) <= 15
    namespace = {}
    exec(code, namespace)
    run = namespace["run"]
    assert len(run.codes) == 64 and run.record["train_rows"] == 256 and run.config["hold_out"] == "0.2"
    assert set(run.scores) >= {"mig", "sap"} and str(dict(run.scores)) in capsys.readouterr().out


def test_evaluate_a_file_of_arrays(tmp_path, capsys):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, (3000, 2))
    np.savez(tmp_path / "codes.npz", codes=factors + 0.01 * rng.standard_normal((3000, 2)), factors=factors)
    assert main(["evaluate", str(tmp_path / "codes.npz"), "--metrics", "mig,factorvae_score"]) == 0
    out = capsys.readouterr().out
    expected = dislab.evaluate(**np.load(tmp_path / "codes.npz"), metrics=["mig", "factorvae_score"])
    for name, value in expected.items():
        assert re.search(rf"{name} +{value:.4f}", out)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"dataset": "shapes3d"}, "dataset is for an encoder"),
        ({"max_rows": 10}, "max_rows is for an encoder"),
        ({"source": "rendered"}, "source is for an encoder"),
        ({"encoder": print, "shuffle": False}, "shuffle is for codes"),
        ({"encoder": print, "circle": dislab.Circle("factor_0", 4)}, "circle is for codes"),
        ({"encoder": print, "logvar": np.zeros((8, 2))}, "logvar is for codes"),
    ],
)
def test_evaluate_refuses_what_it_would_not_use(given, says):
    arrays = {"codes": np.zeros((8, 2)), "factors": np.arange(8)}
    with pytest.raises(dislab.DislabError, match=says):
        dislab.evaluate(**(given | ({"dataset": "shapes3d"} if "encoder" in given else arrays)))


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


BAD = [
    (["run", "--model", "mlvea"], "did you mean 'mlvae'"),
    (["run", "--dataset", "shapes3"], "did you mean 'shapes3d'"),
    (["run", "--metrics", "mgi"], "did you mean 'mig'"),
    (["run", "--model", "betavae", "--set", "bta=8"], "did you mean 'beta'"),
    (["run", "--model", "betavae", "--set", "beta=high"], "must be a number"),
    (["run", "--model", "betavae", "--set", "beta=nan"], "must be a number"),
    (["run", "--model", "vae", "--set", "latents=2.5"], "must be a whole number"),
    (["run", "--model", "vae", "--set", "latents=0"], "must be 1 or more"),
    (["run", "--model", "vae", "--set", "likelihood=poisson"], "choose bernoulli, gaussian"),
    (["run", "--set", "beta"], "write NAME=VALUE"),
    (["run", "--set", "steps=100"], "an option of its own, --steps"),
    (["run", "--set", "seed=1"], "an option of its own, --seeds"),
    (["run", "--steps", "-5"], "must be 0"),
    (["run", "--steps", "many"], "Invalid value for '--steps'"),
    (["run", "--batch-size", "0"], "must be 2 or more"),
    (["run", "--seeds", "1,x"], "--seeds is '1,x'"),
    (["run", "--protocol", "qick"], "did you mean 'quick'"),
    (["run", "--metric-protocol", "softtpr"], "did you mean 'softtpr2024'"),
    (["run", "--source", "web"], "unknown source 'web'"),
    (["run", "--device", "tpu9"], "device 'tpu9' cannot be used"),
    (["run", "--data-dir", "nowhere", "--source", "official"], "'nowhere' does not exist"),
    (["run", "--dataset", "mnist"], "put it at"),
    (["run", "--dataset", "tiny", "--group-by", "shap"], "did you mean 'shape'"),
    (["run", "--dataset", "tiny", "--group-by", "shape,size,position"], "group_size=8 is too large"),
    (["run", "--dataset", "tiny", "--out", "bad.py"], "cannot write to the output folder"),
    (["run", "--plugin", "missing.py"], "'missing.py' does not exist"),
    (["run", "--plugin", "bad.py"], "bad.py, line 2 does not import: ZeroDivisionError"),
    (["run", "--plugin", "syntax.py"], "syntax.py, line 1 does not import: SyntaxError"),
    (["run", "--dataset", "tiny", "--set", "groupings=2"], "set by --group-by"),
    (["run", "--sedes", "1"], "o such option"),
    (["rnu"], "No such command"),
    (["evaluate", "nowhere"], "neither a folder of runs nor a .npz file"),
    (["evaluate", "."], "no finished run"),
    (["evaluate", ".", "--seed", "3"], "--seed is for a .npz file"),
    (["evaluate", "text.npz"], "cannot be read as .npz"),
    (["evaluate", "empty.npz"], "needs the arrays codes"),
    (["leaderboard", "nowhere"], "does not exist"),
    (["leaderboard", ".", "--format", "xml"], "unknown format 'xml'"),
    (["list", "modles"], "modles"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(arguments, says, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.py").write_text("import math\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "text.npz").write_text("not arrays")
    np.savez(tmp_path / "empty.npz", other=np.zeros(3))
    files = set(tmp_path.rglob("*"))
    code = main([*arguments, *tiny] if arguments[0] in ("run", "list") else arguments)
    captured = capsys.readouterr()
    assert code == 2
    lines = [line for line in captured.err.splitlines() if line.startswith("dislab: ")]
    assert len(lines) == 1 and says in lines[0], captured.err
    assert "Traceback" not in captured.err
    left = {path for path in set(tmp_path.rglob("*")) - files if path.is_file() and path.suffix != ".pyc"}
    assert not left, "nothing is written"


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs a folder that refuses files"
)
def test_unwritable_folder(tiny, capsys):
    target = "/proc/dislab" if Path("/proc").is_dir() else "/dislab"
    assert main(["run", "--dataset", "tiny", "--out", target, *tiny]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_a_failed_run_and_a_failed_metric_have_exit_code_1(tiny, capsys, tmp_path, monkeypatch):
    # What the faulty plug-in registers is forgotten after the test.
    for registry in (MODELS, METRICS):
        monkeypatch.setattr(registry, "_entries", {entry.name: entry for entry in registry})
    (tmp_path / "faulty.py").write_text(FAULTY)
    tiny = [*tiny, "--plugin", "faulty.py"]
    assert main(["run", "--model", "broken", *FAST, *tiny]) == 1
    err = capsys.readouterr().err
    assert "the loss term 'loss' is nan, noticed at step 25" in err and "Traceback" not in err
    assert main(["run", "--model", "raises", *FAST, *tiny]) == 1
    err = capsys.readouterr().err
    line = FAULTY.splitlines().index("        return super().loss(batch, step) + batch.pictures") + 1
    assert "model 'raises' failed: AttributeError" in err and "faulty.py" in err and "Traceback" not in err
    assert f"line {line})" in err
    assert not list(Path("results").rglob("run.json"))
    assert main(["run", "--model", "vae", *FAST, *tiny, "--metrics", "mig,fails", "--seeds", "0,1"]) == 1
    assert "metric 'fails' failed" in capsys.readouterr().err
    runs = [dislab.load(path.parent) for path in Path("results").rglob("run.json")]
    assert [set(run.scores) for run in runs] == [{"mig"}, {"mig"}], "what was computed is kept"
    assert main(["evaluate", "results", *tiny, "--metrics", "fails"]) == 1
    assert "no codes today" in capsys.readouterr().err


PICKY = """
import dislab
import numpy as np

@dislab.register_metric("picky")
def picky(table, rng):
    raise dislab.DislabError("picky needs other codes")

@dislab.register_metric("curved")
def curved(table, rng):
    return {"curved": np.float32(1), "curved_over_k": [np.float32(1), np.int64(2)]}
"""


def test_a_finished_run_is_read_again_whatever_its_metrics_refuse(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(METRICS, "_entries", {entry.name: entry for entry in METRICS})
    (tmp_path / "picky.py").write_text(PICKY)
    again = ["run", "--model", "oracle", "--dataset", "tiny", *tiny, "--plugin", "picky.py"]
    for _ in range(2):
        assert main(again) == 0
        assert "picky is left out: picky needs other codes" in capsys.readouterr().out
    run = dislab.load(next(Path("results").rglob("seed0")))
    assert run.scores.details["curved_over_k"] == [1.0, 2] and run.scores.protocols["mig"] == "locatello2019"
    (run.path / "codes.safetensors").unlink()
    assert main([*again, "--metrics", "mig"]) == 0, "no codes are read where no score is missing"
    assert main(["evaluate", str(run.path), *again[5:], "--metrics", "picky"]) == 1


def test_evaluating_a_part_of_a_results_folder_updates_its_leaderboard(tiny):
    assert main(["run", "--model", "oracle", "--dataset", "tiny", *tiny, "--metrics", "mig"]) == 0
    part = next(Path("results").glob("tiny*"))
    assert main(["evaluate", str(part), "--metrics", "sap"]) == 0
    assert not (part / "leaderboard.csv").exists() and "sap_mean" in read_leaderboard()[0]


def test_half_a_run_is_never_a_result(tiny, capsys):
    assert main(["run", "--model", "vae", *FAST, *tiny]) == 0
    whole = next(Path("results").rglob("seed0"))
    half = whole.with_name("seed1")
    shutil.copytree(whole, half)
    text = (whole / "run.json").read_text()
    (half / "run.json").write_text(text[: len(text) // 2])
    assert main(["leaderboard", "--format", "csv"]) == 0
    [row] = list(csv.DictReader(capsys.readouterr().out.splitlines()[-2:]))
    assert row["seeds"] == "0"
    with pytest.raises(dislab.DislabError, match="not a finished run"):
        dislab.load(half)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_same_result(how, tiny, tmp_path):
    """Stopped by Ctrl-C or kill -9 at some point after its first checkpoint, then started again."""
    start = (
        "import sys, dislab.training as training; training.SECONDS_BETWEEN_CHECKPOINTS = 0;"
        "from dislab.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    slow = ["run", "--model", "mlvae", *FAST, *tiny, "--steps", "200", "--metrics", "mig"]
    command = [sys.executable, "-c", start, *slow]
    process = subprocess.Popen(
        [*command, "--out", "broken_off"],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    for _ in range(1200):
        if list(Path("broken_off").rglob("checkpoint.safetensors")) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(how)
    assert process.wait(60) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not list(Path("broken_off").rglob("run.json"))
    resumed = subprocess.run([*command, "--out", "broken_off"], capture_output=True, text=True, check=True)
    assert "finished before" not in resumed.stderr
    subprocess.run([*command, "--out", "straight"], capture_output=True, check=True)
    first, second = (dislab.load(next(Path(name).rglob("seed0"))) for name in ("broken_off", "straight"))
    assert dict(first.scores) == dict(second.scores)
    assert np.array_equal(first.codes.mean, second.codes.mean)
    assert first.history.equals(second.history)
    assert not list(Path("broken_off").rglob("*.part")) or how == signal.SIGKILL


HEAVY = ("torch", "sklearn", "pandas", "scipy", "matplotlib")


def test_help_imports_nothing_heavy():
    for command in ("run", "evaluate", "leaderboard", "bench", "list", "data"):
        code = f"import sys; from dislab.cli import main; main(['{command}', '--help']); "
        code += f"sys.exit(any(name in sys.modules for name in {HEAVY}))"
        assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_a_dataset_of_two_names_is_listed_once(capsys):
    assert main(["list", "datasets"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("mpi3d:")] == ["mpi3d: another name of mpi3d_toy"]


def test_seeds():
    assert parse_seeds("0,1,2") == [0, 1, 2]
    assert parse_seeds("0-3,7") == [0, 1, 2, 3, 7]
    for wrong in ("", "-1", "3-1", "a", "1.5"):
        with pytest.raises(dislab.DislabError):
            parse_seeds(wrong)
