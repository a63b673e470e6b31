"""Bad input, runs and metrics that fail, and damaged files: one clear line, and the right exit code."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import dislab
from dislab.cli import main
from dislab.registry import METRICS
from dislab.runs.finished import FORMAT

FAST = ["--dataset", "bars", "--steps", "30", "--batch-size", "16", "--set", "network=mlp"]
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

PROTOCOL = {"name": "quick+steps=5", "steps": 5, "learning_rate": 1e-3, "batch_size": 32, "rows": 30_000}
BAD = [
    (["run", "--model", "mlvea"], "did you mean 'mlvae'"),
    (["run", "--dataset", "shapes3"], "did you mean 'shapes3d'"),
    (["run", "--metrics", "mgi"], "did you mean 'mig'"),
    (["run", "--model", "betavae", "--set", "bta=8"], "did you mean 'beta'"),
    (["run", "--model", "betavae", "--set", "beta=high"], "must be a number"),
    (["run", "--model", "betavae", "--set", "beta=nan"], "must be a number"),
    (["run", "--model", "vae", "--set", "latents=2.5"], "must be a whole number"),
    (["run", "--model", "vae", "--set", "latents=0"], "must be 1 or more"),
    (["run", "--model", "vae", "--set", "likelihood=poisson"], "choose bernoulli, binarised, gaussian"),
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
    (["run", "--dataset", "bars", "--group-by", "shap"], "did you mean 'shape'"),
    (["run", "--dataset", "bars", "--group-by", "shape,size,position"], "group_size=8 is too large"),
    (["run", "--dataset", "bars", "--out", "bad.py"], "cannot write to the output folder"),
    (["run", "--plugin", "missing.py"], "'missing.py' does not exist"),
    (["run", "--plugin", "bad.py"], "bad.py, line 2 does not import: ZeroDivisionError"),
    (["run", "--plugin", "syntax.py"], "syntax.py, line 1 does not import: SyntaxError"),
    (["run", "--dataset", "bars", "--set", "groupings=2"], "set by --group-by"),
    (["run", "--sedes", "1"], "o such option"),
    (["run", "--config", "missing.json"], "the configuration 'missing.json' cannot be read: No such file"),
    (["run", "--config", "text.npz"], "'text.npz' is not a configuration of this version"),
    (["run", "--config", "half.json"], "'half.json' is not a configuration of this version"),
    (["run", "--config", "half.json", "--steps", "5"], "--steps is set by --config: leave one of them out"),
    (["run", "--config", "half.json", "--set", "beta=1"], "--set is set by --config"),
    (["run", "--config", "half.json", "--seeds", "0"], "--seeds is set by --config"),
    (["rnu"], "No such command"),
    (["evaluate", "nowhere"], "neither a folder of runs nor a .npz file"),
    (["evaluate", "."], "no finished run"),
    (["evaluate", ".", "--seed", "3"], "--seed is for a .npz file"),
    (["evaluate", "text.npz"], "is not a whole .npz file"),
    (["evaluate", "empty.npz"], "needs the arrays codes"),
    (["leaderboard", "nowhere"], "does not exist"),
    (["leaderboard", ".", "--format", "xml"], "unknown format 'xml'"),
    (["list", "modles"], "modles"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(arguments, says, bars, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.py").write_text("import math\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "text.npz").write_text("not arrays")
    (tmp_path / "half.json").write_text('{"format": 5, "config": {"model": "vae"}}')
    np.savez(tmp_path / "empty.npz", other=np.zeros(3))
    files = set(tmp_path.rglob("*"))
    code = main([*arguments, *bars] if arguments[0] in ("run", "list") else arguments)
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
def test_unwritable_folder(bars, capsys):
    target = "/proc/dislab" if Path("/proc").is_dir() else "/dislab"
    assert main(["run", "--dataset", "bars", "--out", target, *bars]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dataset": "shapes3d"}, "dataset is for an encoder"),
        ({"max_rows": 10}, "max_rows is for an encoder"),
        ({"source": "rendered"}, "source is for an encoder"),
        ({"encoder": print, "shuffle": False}, "shuffle is for codes"),
        ({"encoder": print, "circle": dislab.Circle("factor_0", 4)}, "circle is for codes"),
        ({"encoder": print, "logvar": np.zeros((8, 2))}, "logvar is for codes"),
    ],
)
def test_evaluate_refuses_what_it_would_not_use(arguments, says):
    arrays = {"codes": np.zeros((8, 2)), "factors": np.arange(8)}
    needed = {"dataset": "shapes3d"} if "encoder" in arguments else arrays
    with pytest.raises(dislab.DislabError, match=says):
        dislab.evaluate(**(arguments | needed))


def test_a_failed_run_and_a_failed_metric_have_exit_code_1(bars, no_pictures, capsys):
    Path("faulty.py").write_text(FAULTY)
    bars = [*bars, "--plugin", "faulty.py"]
    assert main(["run", "--model", "broken", *FAST, *bars]) == 1
    err = capsys.readouterr().err
    assert "the loss term 'loss' is nan, noticed at step 25" in err and "Traceback" not in err
    assert main(["run", "--model", "raises", *FAST, *bars, "--seeds", "0,1"]) == 1
    err = capsys.readouterr().err
    line = FAULTY.splitlines().index("        return super().loss(batch, step) + batch.pictures") + 1
    assert "model 'raises' failed: AttributeError" in err and "faulty.py" in err and "Traceback" not in err
    assert f"line {line})" in err
    assert err.startswith("failed: raises on bars, network=mlp, seed 0: model 'raises' failed")
    assert not list(Path("results").rglob("run.json"))
    assert main(["run", "--model", "vae", *FAST, *bars, "--metrics", "mig,fails", "--seeds", "0,1"]) == 1
    assert "metric 'fails' failed" in capsys.readouterr().err
    runs = dislab.runs_in("results")
    assert [set(run.scores) for run in runs] == [{"mig"}, {"mig"}], "what was computed is kept"
    assert main(["evaluate", "results", *bars, "--metrics", "fails"]) == 1
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


def test_a_finished_run_is_read_again_whatever_its_metrics_refuse(bars, capsys, monkeypatch):
    Path("picky.py").write_text(PICKY)
    monkeypatch.setattr(METRICS, "default", lambda: METRICS.choose(["mig", "picky", "curved"]))
    again = ["run", "--model", "oracle", "--dataset", "bars", *bars, "--plugin", "picky.py"]
    for _ in range(2):
        assert main(again) == 0
        assert "picky is left out: picky needs other codes" in capsys.readouterr().out
    [run] = dislab.runs_in("results")
    assert run.scores.details["curved_over_k"] == [1.0, 2] and run.scores.protocols["mig"] == "locatello2019"
    (run.path / "codes.safetensors").unlink()
    assert main([*again, "--metrics", "mig"]) == 0, "no codes are read where no score is missing"
    assert main(["evaluate", str(run.path), *again[5:], "--metrics", "picky"]) == 1


def test_half_a_run_is_never_a_result(bars, no_pictures, capsys):
    assert main(["run", "--model", "vae", *FAST, *bars, "--metrics", "mig"]) == 0
    [run] = dislab.runs_in("results")
    half = run.path.with_name("seed1")
    shutil.copytree(run.path, half)
    text = (run.path / "run.json").read_text()
    (half / "run.json").write_text(text[: len(text) // 2])
    records = Path("results/records.jsonl")
    whole = records.read_text()
    records.write_text("no record\n" + whole + whole[: len(whole) // 2])  # the last line is not all written
    assert main(["leaderboard", "--format", "csv"]) == 1
    out, err = capsys.readouterr()
    [row] = list(csv.DictReader(out.splitlines()[-2:]))
    assert row["seeds"] == "0"
    assert re.search(r"failed: line 1 of '.*results/records.jsonl' is damaged and left out\n", err)
    assert re.search(r"failed: the last line of '.*' is damaged and left out: the record of bars-rend", err)
    with pytest.raises(dislab.DislabError, match=r"seed1/run\.json' is damaged"):
        dislab.load(half)
    # The next run begins a line of its own.
    assert main(["run", "--model", "vae", *FAST, *bars, "--metrics", "mig", "--seeds", "2"]) == 1
    assert [run.config.seed for run in dislab.runs_in("results")] == [0, 2]


def test_a_run_of_another_format_is_one_line(bars, no_pictures, capsys):
    assert main(["run", "--model", "vae", *FAST, *bars, "--metrics", "mig"]) == 0
    [run] = dislab.runs_in("results")
    for path in (run.path / "run.json", Path("results/records.jsonl")):
        content = json.loads(path.read_text())
        del content["check"]  # which was not there then
        path.write_text(json.dumps(content | {"format": FORMAT - 1}) + "\n")
    capsys.readouterr()
    commands = [
        ["leaderboard"],
        ["evaluate", "results"],
        ["evaluate", str(run.path)],
        ["run", "--model", "vae", *FAST, *bars],
    ]
    for command in commands:
        assert main(command) == 2
        *_, line = capsys.readouterr().err.splitlines()
        assert (
            line.startswith("dislab: '") and f"is of format {FORMAT - 1}, which an earlier or later" in line
        )
        assert f"this one reads format {FORMAT}; run it again in another folder (--out)" in line


WRONG_CONFIGS = [
    ({"model": "mlvea"}, "did you mean 'mlvae'"),
    ({"hyperparameters": {"bta": 8}}, "unknown hyper-parameter of betavae 'bta': did you mean 'beta'"),
    ({"hyperparameters": [8]}, "is not a configuration of this version"),
    ({"dataset": "barz"}, "did you mean 'bars'"),
    ({"source": "official"}, "made with bars (official), but the images here are bars (rendered)"),
    ({"source": "rendered-v9"}, "made with bars (rendered-v9), but the images here are bars (rendered)"),
    ({"source": "own-1234", "own_images": "memory"}, "the images of 'bars' were a Dataset object"),
    ({"source": "own-1234", "own_images": "./nowhere/"}, "'nowhere' does not exist"),
    ({"protocol": {"name": "quick"}}, "is not a configuration of this version"),
    ({"protocol": PROTOCOL | {"steps": "ten"}}, "steps is 'ten': it must be 0"),
    (
        {"protocol": PROTOCOL | {"name": "quick+steps=6"}},
        "the values of protocol quick+steps=6 are not those",
    ),
    ({"protocol": PROTOCOL | {"learning_rate": 5.0}}, "are not those of its name"),
    ({"protocol": PROTOCOL | {"name": "../../x"}}, "unknown protocol '../../x'"),
    ({"protocol": PROTOCOL | {"name": 3}}, "the protocol's name is 3"),
    ({"group_by": []}, "is not a configuration of this version"),
    ({"group_by": "shape"}, "is not a configuration of this version"),
    ({"metrics": "mig"}, "is not a configuration of this version"),
    ({"precision": 7}, "is not a configuration of this version"),
    ({"group_by": [["shap"]]}, "did you mean 'shape'"),
    ({"hold_out": ["shap=1"]}, "did you mean 'shape'"),
    ({"precision": "fp33"}, "did you mean 'fp32'"),
    ({"metrics": ["mgi"]}, "did you mean 'mig'"),
    ({"seed": -1}, "seed is -1: it must be a whole number, 0 or more"),
    ({"sead": 1}, "is not a configuration of this version"),
]


@pytest.mark.parametrize(("changes", "says"), WRONG_CONFIGS, ids=[str(wrong) for wrong, _ in WRONG_CONFIGS])
def test_a_wrong_configuration_is_one_line_and_nothing_is_written(changes, says, bars, capsys):
    config = {"model": "betavae", "hyperparameters": {"network": "mlp"}, "dataset": "bars"}
    config |= {"source": "rendered", "protocol": PROTOCOL, "group_by": [["shape"]]}
    config |= {"hold_out": [], "metrics": ["mig"]} | changes
    Path("config.json").write_text(json.dumps(config))
    assert main(["run", "--config", "config.json", *bars]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dislab: ")]
    assert len(lines) == 1 and says in lines[0]
    assert not Path("results").exists()
