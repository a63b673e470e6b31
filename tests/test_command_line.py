"""The command line end to end on a tiny dataset: runs, leaderboards, scores added later, kill and resume."""

import csv
import json
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
from forked import Forked
from matplotlib.figure import Figure
from scipy.stats import t

import dislab
from dislab.cli import main
from dislab.cli.options import parse_seeds
from dislab.registry import METRICS
from dislab.report.frame import KEY
from dislab.scoring import pictures
from dislab.scoring.request import asked, request
from dislab.scoring.score import score

FAST = ["--dataset", "bars", "--steps", "30", "--batch-size", "16", "--set", "network=mlp"]
MIG = ["--metrics", "mig"]
EAGER = "from dislab.training import loop\nloop.SECONDS_BETWEEN_CHECKPOINTS = 0\n"


def read_leaderboard(path="results/leaderboard.csv") -> list[dict]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def run_in(folder, seed: int = 0) -> dislab.Run:
    [path] = Path(folder).rglob(f"seed{seed}")
    return dislab.load(path)


def test_a_run_writes_everything(bars, capsys):
    assert main(["run", "--model", "mlvae", *FAST, *MIG, *bars]) == 0
    out, err = capsys.readouterr()
    assert "mlvae on bars (rendered)" in out and "seeds 0" in out
    assert "using the rendered images" in err
    assert re.search(r"training 30/30 .*loss .* images/s +ETA", err)
    run = run_in("results")
    expected = {"run.json", "model.safetensors", "codes.safetensors", "history.csv"}
    expected |= {"reconstructions.png", "traversals.png", "traversals.gif"}
    expected |= {"swap.png", "interpolation.png", "generation.png", "evidence.png"}
    assert {path.name for path in run.path.iterdir()} == expected
    assert (run.path / "swap.png").read_bytes()[:4] == b"\x89PNG"
    # What is read back is what was computed: the stored model encodes to the stored codes.
    assert isinstance(run.scores, dict) and run.scores.to_frame().shape[0] == len(run.scores)
    images = torch.zeros(60, 1, 16, 16)
    for row, (shape, size, position) in enumerate(run.codes.factors):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 1
    with torch.inference_mode():
        assert np.allclose(run.model.encode(images)[0].numpy(), run.codes.mean, atol=1e-6)
    assert list(run.history.columns)[:2] == ["step", "loss"]
    # The record has all of this without the folder's other files.
    assert run.record == json.loads(Path("results/records.jsonl").read_text())
    assert {line["k"] for line in run.record["evidence"]} == {1, 2, 3, 5, 10}
    assert run.record["losses"]["kl_style"] == pytest.approx(run.history["kl_style"].iloc[-1], rel=1e-4)
    assert run.record["blocks"] == {"content": [0, 8], "style": [8, 10]}


def test_a_row_has_the_spread_over_its_seeds(bars, no_pictures, capsys):
    for seeds in ("0", "0-2"):
        assert main(["run", "--model", "mlvae", *FAST, *MIG, *bars, "--seeds", seeds]) == 0
        out, err = capsys.readouterr()
    assert "seeds 0, 1, 2" in out and "training" not in err
    assert "1 of 3 run(s) finished before" in err
    assert re.search(r"run 2 of 3 done, about 0:\d\d:\d\d left: mlvae on bars, network=mlp, seed 1\n", err)
    assert re.search(r"run 3 of 3 done: .*seed 2\nruns 3/3 .*ETA 0:00:00\n", err)
    folders = sorted(Path("results").rglob("seed*"))
    assert [folder.name for folder in folders] == ["seed0", "seed1", "seed2"]
    [row] = read_leaderboard()
    key = [row[name] for name in KEY]
    assert key[:6] == ["bars", "rendered", "quick+steps=30+batch_size=16", "", "shape", "mlvae"]
    assert "content=8 style=2" in key[6] and row["seeds"] == "0 1 2" and row["n"] == "3"
    # Mean, standard deviation and Student's interval, computed here from the run.json files.
    values = np.array([json.loads((f / "run.json").read_text())["scores"]["mig"] for f in folders])
    assert float(row["mig_mean"]) == pytest.approx(values.mean(), rel=1e-4)
    assert float(row["mig_std"]) == pytest.approx(values.std(ddof=1), rel=1e-4)
    half = t.interval(0.95, 2, scale=values.std(ddof=1) / 3**0.5)[1]
    [whole] = dislab.leaderboard("results").to_dict("records")
    assert whole["mig_ci95"] == pytest.approx(half, rel=1e-4)
    assert float(row["train_seconds"]) > 0 and float(row["images_per_second"]) > 0
    assert row["row"] == run_in("results").config.row


def test_same_seed_same_digits_and_nothing_twice(bars, no_pictures, capsys):
    drawn = "mig,factorvae_score,betavae_score,content_accuracy,elbo"  # all but mig have random draws
    names = ["--model", "betatcvae", *FAST, *bars, "--metrics", drawn]
    assert main(["run", *names, "--out", "a"]) == main(["run", *names, "--out", "b"]) == 0
    first, second = run_in("a"), run_in("b")
    assert dict(first.scores) == dict(second.scores) and {*drawn.split(",")} <= {*first.scores}
    assert np.array_equal(first.codes.mean, second.codes.mean)
    assert main(["run", *names, "--seeds", "1", "--out", "b"]) == 0
    third = run_in("b", seed=1)
    assert dict(third.scores) != dict(first.scores)
    capsys.readouterr()
    before = (first.path / "model.safetensors").stat().st_mtime_ns
    assert main(["run", *names, "--out", "a"]) == 0
    assert "finished before" in capsys.readouterr().err
    assert (first.path / "model.safetensors").stat().st_mtime_ns == before
    shutil.rmtree(first.path)
    assert main(["run", *names, "--out", "a"]) == 0, "the records alone say what is finished"
    assert "finished before" in capsys.readouterr().err and not first.path.exists()
    assert main(["run", *names, "--metrics", "default,dci", "--out", "a"]) == 1
    assert "is gone: its codes cannot be scored again" in capsys.readouterr().err


def test_key_of_a_row(bars, no_pictures):
    """Whatever changes the training makes a row of its own; the seed does not."""
    base = ["run", "--model", "betavae", *FAST, *bars, *MIG]
    changes = [
        [],
        ["--set", "beta=8"],
        ["--group-by", "shape,size"],
        ["--steps", "20"],
        ["--batch-size", "8"],
        ["--precision", "bf16"],
    ]
    for change in changes:
        assert main([*base, *change]) == 0
    assert main([*base, "--seeds", "1"]) == 0
    rows = read_leaderboard()
    assert len(rows) == len(changes)
    assert len({tuple(row[name] for name in KEY) for row in rows}) == len({row["row"] for row in rows})
    assert len({row["row"] for row in rows}) == len(changes)
    assert any("beta=8.0" in row["hyperparameters"] for row in rows)
    [grouped] = [row for row in rows if row["group_by"] == "shape+size"]
    assert set(dislab.leaderboard("results")["report"].str.contains("normalised_beta")) == {True}
    assert grouped["n"] == "1"
    blocks = [row["protocol"] for row in rows]
    assert blocks == sorted(blocks)
    same = [float(row["mig_mean"]) for row in rows if row["protocol"] == "quick+steps=30+batch_size=16"]
    assert same == sorted(same, reverse=True), "best first"
    assert sorted(row["n"] for row in rows) == ["1"] * (len(changes) - 1) + ["2"]


def test_hold_out_is_part_of_the_row(bars, no_pictures, capsys):
    names = [*MIG, "--hold-out", "shape=3&size=0-1", "--hold-out", "position=4"]
    assert main(["run", "--model", "vae", *FAST, *bars, *names]) == 0
    assert "scored on: position=4; shape=3&size=0-1" in capsys.readouterr().out
    run = run_in("results")
    shape, size, position = run.codes.factors.T
    assert (((shape == 3) & (size < 2)) | (position == 4)).all()
    held_out = 2 * 5 + 4 * 3 - 2
    assert len(run.codes) == held_out and run.record["train_rows"] == 60 - held_out
    assert run.config.hold_out == ("position=4", "shape=3&size=0-1")
    assert main(["run", "--model", "vae", *FAST, *bars, *MIG]) == 0
    assert [row["hold_out"] for row in read_leaderboard()] == ["", "position=4; shape=3&size=0-1"]


def test_several_groupings_have_a_content_code_each(bars, monkeypatch):
    monkeypatch.setattr(pictures, "draw", lambda panels, title, ax=None: Figure().subplots())
    monkeypatch.setattr(pictures, "animation", lambda scene: b"GIF")
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: path.touch())
    groupings = ["--group-by", "shape", "--group-by", "position"]
    names = ["--metrics", "content_accuracy,style_accuracy", "--set", "group_size=4"]
    assert main(["run", "--model", "mlvae", *FAST, *bars, *groupings, *names]) == 0
    run = run_in("results")
    assert set(run.codes.blocks) == {"content_1", "content_2", "style"}
    assert run.config.group_by == (("shape",), ("position",)) and run.codes.labels.shape == (60, 2)
    per_grouping = run.scores.details["content_accuracy_per_grouping"]
    assert run.scores["content_accuracy"] == pytest.approx(np.mean(per_grouping))
    assert run.scores["content_accuracy_chance"] == pytest.approx((1 / 4 + 1 / 5) / 2)
    assert {path.name for path in run.path.glob("swap*.png")} == {"swap_1.png", "swap_2.png"}
    assert read_leaderboard()[0]["group_by"] == "shape & position"


def test_leaderboard_formats(bars, no_pictures, capsys):
    assert main(["run", "--model", "vae", *FAST, *bars, "--seeds", "0-1", *MIG]) == 0
    assert main(["run", "--model", "mlvae", *FAST, *bars, "--metrics", "mig,content_accuracy"]) == 0
    capsys.readouterr()
    printed = {}
    for style in ("table", "csv", "markdown", "latex", "json"):
        assert main(["leaderboard", "--format", style]) == 0
        printed[style] = capsys.readouterr().out
    assert printed["csv"] == Path("results/leaderboard.csv").read_text()
    lines = [line for line in printed["markdown"].splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert "±" in printed["markdown"] and r"$\pm$" in printed["latex"]
    assert [row["model"] for row in json.loads(printed["json"])] == ["vae", "mlvae"]
    assert r"\toprule" in printed["latex"] and "mlvae" in printed["table"]
    assert main(["leaderboard", "--rank-by", "content_accuracy"]) == 0
    frame = dislab.leaderboard("results", "content_accuracy")
    assert isinstance(frame, pd.DataFrame) and frame["model"].iloc[0] == "mlvae"
    assert [run.config.model for run in dislab.runs_in("results")] == ["mlvae", "vae", "vae"]


# Scores that are added later


def test_default_stands_for_the_default_scores(monkeypatch):
    monkeypatch.setattr(METRICS, "default", lambda: METRICS.choose(["mig", "sap"]))
    wanted = asked(request(["default", "dci", "sap"]))
    named = {name: one.is_named for name, one in wanted.items()}
    dci = dict.fromkeys(("dci_completeness", "dci_disentanglement", "dci_informativeness"), True)
    assert named == {"mig": False, "sap": True} | dci


def test_a_score_of_another_metric_protocol_has_a_name_of_its_own(bars, no_pictures, capsys):
    assert main(["run", "--model", "vae", *FAST, *bars, "--metrics", "betavae_score"]) == 0
    folder = run_in("results").path
    names = ["--metrics", "betavae_score,mig", "--metric-protocol", "softtpr2024"]
    assert main(["evaluate", str(folder), *names]) == 0
    run = dislab.load(folder)
    assert {"betavae_score", "betavae_score@softtpr2024", "mig"} <= set(run.scores)
    assert "mig@softtpr2024" not in run.scores, "that protocol leaves mig as it is"
    assert run.scores.protocols["betavae_score_train@softtpr2024"] == "softtpr2024"
    assert run.scores.protocols["mig"] == "locatello2019"
    expected = score(run.codes, ["betavae_score"], num_train=5000, num_test=5000, penalised=False)
    assert run.scores["betavae_score@softtpr2024"] == expected["betavae_score"]
    [row] = read_leaderboard()
    assert float(row["betavae_score@softtpr2024_mean"]) == pytest.approx(expected["betavae_score"], rel=1e-4)
    assert main(["evaluate", str(folder), *names]) == 0
    assert "scoring" not in capsys.readouterr().err.rpartition(str(folder))[2], "nothing is scored twice"
    assert main(["leaderboard"]) == 0
    out = capsys.readouterr().out
    assert "BetaVAE@softtpr2024" in out and "train" not in out


def test_evaluate_takes_a_results_folder_a_part_of_it_or_a_run(bars):
    for dataset in ("bars", "shapes"):
        Path("shapes.py").write_text(Path("bars.py").read_text().split("@dislab.register_model")[0])
        text = Path("shapes.py").read_text().replace('"bars"', '"shapes"').replace("def bars", "def shapes")
        Path("shapes.py").write_text(text)
        run = ["run", "--model", "oracle", "--dataset", dataset, "--plugin", "shapes.py"]
        assert main([*run, *bars, *MIG, "--seeds", "0,1"]) == 0
    part = next(Path("results").glob("bars*"))
    one = next(part.rglob("seed1"))
    targets = {"sap": one, "modularity": part, "active_units": Path("results"), "irs": part.parent.absolute()}
    for name, target in targets.items():
        assert main(["evaluate", str(target), "--metrics", name]) == 0
    numbers = {row["dataset"]: [row[f"{name}_n"] for name in targets] for row in read_leaderboard()}
    assert numbers == {"bars": ["1", "2", "2", "2"], "shapes": ["0", "0", "2", "2"]}
    assert [path.parent.name for path in Path().rglob("leaderboard.csv")] == ["results"]
    assert len(dislab.runs_in(part)) == 2 and len(dislab.runs_in("results")) == 4


def test_evaluate_a_file_of_arrays(tmp_path, capsys):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, (3000, 2))
    np.savez(tmp_path / "codes.npz", codes=factors + 0.01 * rng.standard_normal((3000, 2)), factors=factors)
    evaluate = ["evaluate", str(tmp_path / "codes.npz")]
    assert main([*evaluate, "--metrics", "mig,factorvae_score"]) == 0
    out = capsys.readouterr().out
    expected = dislab.evaluate(**np.load(tmp_path / "codes.npz"), metrics=["mig", "factorvae_score"])
    for name, label in (("mig", "MIG"), ("factorvae_score", "FactorVAE")):
        assert re.search(rf"^{label} +↑ +{expected[name]:.3f} +\w", out, re.M)
    assert len(out.splitlines()) == 4 and "--all" not in out


# A run that is repeated from its record


def test_a_record_repeats_its_run(bars, no_pictures, capsys):
    names = ["--hold-out", "shape=0", "--group-by", "size", "--set", "beta=2", "--metrics", "mig,sap"]
    assert main(["run", "--model", "betavae", *FAST, *bars, *names, "--seeds", "3"]) == 0
    run = run_in("results", seed=3)
    record = run.path / "run.json"
    assert main(["run", "--config", str(record), *bars, "--out", "again"]) == 0
    again = run_in("again", seed=3)
    assert dict(again.scores) == dict(run.scores) and again.config == run.config
    assert again.record["digest"] == run.record["digest"]
    assert again.history.equals(run.history)
    capsys.readouterr()
    assert main(["run", "--config", str(record), *bars]) == 0
    assert "finished before" in capsys.readouterr().err, "in its own folder it is finished"


def test_a_record_repeats_a_run_of_a_folder_of_images(tmp_path, monkeypatch, no_pictures):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for person in ("ann", "bob", "cy"):
        Path("photos", person).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(f"photos/{person}/{number}.png")
    small = ["--steps", "5", "--batch-size", "8", "--set", "network=mlp", "--metrics", "active_units"]
    assert main(["run", "--model", "vae", "--dataset", "./photos/", *small]) == 0
    run = run_in("results")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["run", "--config", str(tmp_path / run.path / "run.json")]) == 0
    again = run_in("results")
    assert dict(again.scores) == dict(dislab.load(tmp_path / run.path).scores)
    assert again.config.source.startswith("own-") and again.history["loss"].notna().all()


# Kill and resume


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_same_result(how, bars, no_pictures, capsys):
    """Stopped by Ctrl-C or kill -9 at some point after its first checkpoint, then started again."""
    Path("eager.py").write_text(EAGER)
    slow = ["run", "--model", "mlvae", *FAST, *bars, "--steps", "200", *MIG]
    process = Forked(*slow, "--plugin", "eager.py", "--out", "broken_off", log="said.txt")
    for _ in range(3000):
        if list(Path("broken_off").rglob("checkpoint.safetensors")) or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(how)
    assert process.wait(60) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    err = Path("said.txt").read_text()
    if how == signal.SIGINT:
        assert err.endswith("\ndislab: interrupted; run the same command to resume\n")
        assert "Traceback" not in err and not list(Path("broken_off").rglob("*.claim-*"))
    assert not list(Path("broken_off").rglob("run.json"))
    assert len(list(Path("broken_off").rglob("checkpoint.safetensors"))) == 1
    for folder in ("broken_off", "straight"):
        assert main([*slow, "--out", folder]) == 0
    assert "finished before" not in capsys.readouterr().err
    first, second = run_in("broken_off"), run_in("straight")
    assert dict(first.scores) == dict(second.scores)
    assert np.array_equal(first.codes.mean, second.codes.mean)
    assert first.history.equals(second.history)
    left = [path.name for path in first.path.rglob("*") if "checkpoint" in path.name or ".part" in path.name]
    assert not left and not list(Path("broken_off").rglob("*.claim-*"))


# Help and lists


HEAVY = ("torch", "sklearn", "pandas", "scipy", "matplotlib")


def test_help_imports_nothing_heavy():
    commands = ("run", "evaluate", "leaderboard", "bench", "merge", "list", "data")
    code = f"import sys; from dislab.cli import main; [main([name, '--help']) for name in {commands}]; "
    code += f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "\n" and done.stdout.count("Usage:") == len(commands)


def test_tables_lists_and_refusals_do_not_import_torch():
    """torch takes longer to import than ten thousand records to read. Models and networks are made of it."""
    records = Path(__file__).parent
    commands = {
        ("list", "metrics"): 0,
        ("list", "datasets"): 0,
        ("list", "unknown"): 2,
        ("data", "list"): 0,
        ("leaderboard", str(records)): 0,
        ("leaderboard", str(records), "--format", "csv", "--rank-by", "sap"): 0,
        ("leaderboard", str(records), "--rank-by", "unknown"): 2,
        ("leaderboard", "--unknown"): 2,
        ("run", "--unknown"): 2,
        ("run", "--model", "vae", "--dataset", "shapes3d", "--steps", "many"): 2,
        ("bench", "--list"): 0,
        ("bench", "unknown"): 2,
        ("unknown",): 2,
    }
    code = "import sys; from dislab.cli import main\n"
    code += "for command, expected in COMMANDS.items():\n"
    code += "    code = main([*command])\n"
    code += "    assert code == expected, (command, code)\n"
    code += "    assert 'torch' not in sys.modules, command\n"
    code = code.replace("COMMANDS", repr(commands))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
