"""Studies end to end on a tiny plug-in dataset: what is run, skipped and resumed, its tables and figures."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import dislab
from dislab import progress
from dislab import studies as bench
from dislab.cli import main
from dislab.data import official as files
from dislab.registry import DATASETS, METRICS, MODELS
from dislab.report import figures as study_figures
from dislab.report import leaderboard
from dislab.runs import run as runs
from dislab.runs import workers

USUAL_JOBS = workers.usual_jobs
# Its names are in no other plug-in of the tests: a name is registered once in a process.
PLUGIN = '''
import os
import signal
import numpy as np
import torch
import dislab
from dislab.models.vae import VAE

@dislab.register_dataset("bars")
def bars(source, data_dir, device):
    """A bright bar."""
    space = dislab.FactorSpace(("shape", "size", "position"), (4, 3, 5))
    images = torch.zeros(len(space), 1, 16, 16, dtype=torch.uint8)
    for row, (shape, size, position) in enumerate(space.factors(np.arange(len(space)))):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 255
    return dislab.Dataset("bars", "rendered", space, (1, 16, 16), lambda rows: images[rows], ["shape"])

@dislab.register_model("diverges")
class Diverges(VAE):
    """A model whose loss turns NaN."""
    def loss(self, batch, step):
        return {"loss": super().loss(batch, step)["loss"] * torch.nan}

@dislab.register_model("is_killed")
class IsKilled(VAE):
    """A model whose process the kernel kills."""
    def loss(self, batch, step):
        os.kill(os.getpid(), signal.SIGKILL)

@dislab.register_metric("always_fails", slow=True)
def always_fails(table, rng):
    """A metric that raises."""
    raise ValueError("no codes today")
'''
WHOLE = """
title = "A whole study"
steps = 30
batch_size = 16
seeds = [0, 1]
metrics = ["mig"]
rank_by = "content_accuracy"

[[runs]]
model = "mlvae"
dataset = "bars"
metrics = ["mig", "content_scores", "style_scores"]
set = { network = "mlp" }

[[runs]]
model = "vae"
dataset = "bars"
[runs.set]
network = "mlp"
latents = [4, 6]

[[runs]]
model = ["oracle", "vae"]
dataset = "bars"
seeds = [0]
metrics = ["mig", "content_accuracy"]

[[runs]]
model = "vae"
dataset = "mnist"
optional = true
"""
SMALL = """
steps = 30
batch_size = 16
metrics = ["mig"]
figures = ["scores_by_model"]
[[runs]]
model = ["vae", "betavae"]
dataset = "bars"
set = { network = "mlp" }
"""
SEEDS = "run --model mlvae --dataset bars --steps 60 --batch-size 16 --set network=mlp --metrics mig,sap"
SEEDS = [*SEEDS.split(), "--group-by", "size", "--hold-out", "shape=0", "--precision", "fp32"]


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    """The plug-in's file; what it registers is forgotten after these tests."""
    path = tmp_path_factory.mktemp("plugin") / "bars.py"
    path.write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        for registry in (MODELS, DATASETS, METRICS):
            patch.setattr(registry, "_entries", {entry.name: entry for entry in registry})
        (path.parent / "data").mkdir()  # with no official file in it
        patch.setenv("DISLAB_DATA", str(path.parent / "data"))
        patch.setattr("dislab.registry.plugin_files", [])
        dislab.load_plugin(path)
        yield path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the whole study, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "whole.toml").write_text(WHOLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stream = (folder / "err.txt").open("w")
        patch.setattr("sys.stderr", stream)
        assert main(["bench", "whole.toml"]) == 0
        stream.close()
    return folder / "results" / "whole", (folder / "err.txt").read_text()


@pytest.fixture
def one_thread(monkeypatch):
    """One thread for torch, here and in workers."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small study in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)


def runs_of(folder, **wanted) -> list:
    """The runs whose configuration has the wanted values, by seed."""
    found = [dislab.load(path.parent) for path in Path(folder).rglob("run.json")]
    return sorted(
        (
            run
            for run in found
            if all(
                (run.config | run.config["hyperparameters"])[name] == value for name, value in wanted.items()
            )
        ),
        key=lambda run: run.config["seed"],
    )


def test_a_whole_study_runs_its_product(whole):
    folder, err = whole
    names = [
        (r.config["model"], r.config["hyperparameters"].get("latents"), r.config["seed"])
        for r in runs_of(folder)
    ]
    expected = [("mlvae", None, 0), ("mlvae", None, 1), ("oracle", None, 0), ("vae", 10, 0)]
    expected += [("vae", latents, seed) for latents in (4, 6) for seed in (0, 1)]
    assert sorted(names, key=str) == sorted(expected, key=str)
    assert "A whole study: 8 runs, 0 of them finished before" in err
    assert re.search(r"run 2 of 8, about \d+:\d\d:\d\d left: mlvae on bars, network=mlp, seed 1", err)
    assert "run 8 of 8" in err and "training 30/30" in err
    assert "table 4: 2 run(s) left out, the official files of mnist are not there" in err
    assert "figure" not in err, "both figures are drawn"
    table = pd.read_csv(folder / "leaderboard.csv")
    assert len(table) == 5 and set(table["ranked_by"]) == {"content_accuracy"}
    lines = (folder / "leaderboard.md").read_text().splitlines()
    assert lines[0] == "# A whole study" and len([line for line in lines if line.startswith("| bars")]) == 5
    assert bench.read_study(folder / "study.toml").title == "A whole study"
    assert WHOLE in (folder / "study.toml").read_text()


def test_what_is_planned_is_what_runs_record(whole):
    folder, _ = whole
    study = bench.check_study(bench.read_study(folder / "study.toml"))
    assert {planned.identity for planned in study.planned} == {
        bench.identity_of(run.config) for run in runs_of(folder)
    }


def test_accuracy_over_k_has_the_numbers_of_the_runs(whole):
    folder, _ = whole
    assert (folder / "accuracy_over_k.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(folder / "accuracy_over_k.csv")
    records = [json.loads((run.path / "run.json").read_text()) for run in runs_of(folder, model="mlvae")]
    for quantity in ("accuracy", "entropy"):
        mine = table[(table["model"] == "mlvae") & (table["quantity"] == quantity)]
        curves = np.array([record["details"][f"content_{quantity}_curve"] for record in records])
        content = mine[mine["block"] == "content"]
        assert content["k"].tolist() == curves[0, :, 0].tolist()
        assert np.allclose(content["mean"], curves[:, :, 1].mean(0), rtol=1e-12)
        assert np.allclose(content["std"], curves[:, :, 1].std(0, ddof=1), rtol=1e-9, atol=1e-15)
        assert (content["n"] == 2).all()
        [style] = mine[mine["block"] == "style"].to_dict("records")
        assert style["k"] == 1
        assert style["mean"] == pytest.approx(np.mean([r["scores"][f"style_{quantity}"] for r in records]))
        [level] = mine[mine["block"] == "uninformed"]["mean"]
        assert level == {"accuracy": 1 / 4, "entropy": 2.0}[quantity]
    others = table[table["model"] != "mlvae"]
    assert set(others["block"]) == {"whole code", "uninformed"} and set(others["quantity"]) == {"accuracy"}


def test_scores_by_model_has_the_numbers_of_the_runs(whole):
    folder, _ = whole
    assert (folder / "scores_by_model.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(folder / "scores_by_model.csv")
    assert set(table["score"]) == {
        "mig",
        "content_accuracy",
        "content_entropy",
        "style_accuracy",
        "style_entropy",
    }
    for latents in (4, 6):
        values = [run.scores["mig"] for run in runs_of(folder, model="vae", latents=latents)]
        mine = table[(table["score"] == "mig") & table["hyperparameters"].str.contains(f"latents={latents} ")]
        assert mine["mean"].item() == pytest.approx(np.mean(values), rel=1e-12)
        assert mine["std"].item() == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    alone = table[(table["score"] == "mig") & (table["model"] == "oracle")]
    assert alone["n"].item() == 1 and np.isnan(alone["std"].item())


def test_rows_are_named_by_what_varies_but_for_what_most_have(whole):
    rows = study_figures.rows_of(runs_of(whole[0]))
    names = sorted(study_figures.names_of_rows(rows).values())
    assert names[:2] == ["mlvae", "oracle"]
    assert names[2:] == ["vae latents=10 network=auto", "vae latents=4", "vae latents=6"]


def test_nothing_is_done_twice_and_what_is_added_is(small, capsys):
    assert main(["bench", "small.toml"]) == 0
    trained = {path: path.stat().st_mtime_ns for path in Path("results").rglob("model.safetensors")}
    assert len(trained) == 2
    capsys.readouterr()
    assert main(["bench", "small.toml", "--seeds", "0,1"]) == 0
    out, err = capsys.readouterr()
    assert "4 runs, 2 of them finished before" in err and err.count("nothing is trained") == 2
    assert "run 1 of 4, about" in err, "the finished runs tell how long the others take"
    after = {path: path.stat().st_mtime_ns for path in Path("results").rglob("model.safetensors")}
    assert len(after) == 4 and trained.items() <= after.items()
    assert re.search(r"vae +0 1 +0\.\d{4} +0\.\d{4}", out)
    assert "--seeds 0,1" in Path("results/small/study.toml").read_text().splitlines()[0]
    Path("small.toml").write_text(SMALL.replace('"betavae"', '"pca"').replace("\nset =", "\n#"))
    assert main(["bench", "small.toml"]) == 0
    err = capsys.readouterr().err
    assert "4 run(s) in 'results/small' are not of this study" in err
    assert set(pd.read_csv("results/small/scores_by_model.csv")["model"]) == {"vae", "pca"}


def test_the_others_go_on_past_what_fails(small, capsys):
    study = SMALL.replace('["vae", "betavae"]', '["diverges", "vae"]').replace(
        '["mig"]', '["mig", "always_fails"]'
    )
    Path("small.toml").write_text(study)
    assert main(["bench", "small.toml"]) == 1
    err = capsys.readouterr().err
    end = err.splitlines()[-3:]
    assert "diverges on bars, network=mlp, seed 0: training failed: the loss term 'loss' is nan" in end[0]
    assert "vae on bars" in end[1] and "always_fails" in end[1] and "the other scores are kept" in end[1]
    assert end[2].startswith("dislab: 2 failed") and "Traceback" not in err
    [run] = runs_of("results")
    assert set(run.scores) == {"mig"}, "what was computed is kept"
    assert pd.read_csv("results/small/scores_by_model.csv")["mean"].tolist() == [run.scores["mig"]]


def test_a_study_of_which_all_fails(small, capsys):
    Path("small.toml").write_text(SMALL.replace('["vae", "betavae"]', '"diverges"'))
    assert main(["bench", "small.toml"]) == 1
    assert "figure scores_by_model is left out" in capsys.readouterr().err
    assert Path("results/small/leaderboard.md").is_file()


BAD = [
    ("[[runs]]\nmodel = 'vae'", "'dataset' is missing"),
    ("title = 'none'", "'runs' is missing"),
    ("[[runs]\n", "is not TOML"),
    ("[[runs]]\nmodle = 'vae'\ndataset = 'bars'", "table 1: unknown key 'modle': did you mean 'model'"),
    ("figurs = []\n{}", "unknown key 'figurs': did you mean 'figures'"),
    ("{}\nfigures = []", "figures is of the whole study: write it above the first [[runs]]"),
    ("{}\nsteps = 'many'", "table 1: steps is 'many': it must be a whole number"),
    ("{}\nsteps = -1", "must be 0"),
    ("{}\nseeds = [0, -1]", "it must be a list of whole numbers"),
    ("{}\noptional = 1", "it must be true or false"),
    (
        "{}\n[[runs]]\nmodel = ['vae', 'mlvea']\ndataset = 'bars'",
        "table 2: unknown model 'mlvea': did you mean",
    ),
    ("[[runs]]\nmodel = 'vae'\ndataset = ['bars', 'shapes3']", "table 1: unknown dataset 'shapes3': did"),
    ("{}\nprotocol = 'qick'", "did you mean 'quick'"),
    ("{}\nmetrics = ['mgi']", "did you mean 'mig'"),
    ("{}\nmetric_protocol = 'softtpr'", "did you mean 'softtpr2024'"),
    ("{}\n[runs.set]\nlatnts = [4, 6]", "unknown hyper-parameter of vae 'latnts': did you mean 'latents'"),
    ("{}\n[runs.set]\nlatents = [4, 'six']", "vae: latents is 'six': it must be a whole number"),
    ("{}\n[runs.set]\nlatents = []", "set is {'latents': []}"),
    ("{}\ngroup_by = 'shap'", "did you mean 'shape'"),
    ("{}\ngroup_by = [['shape'], 1]", "group_by is"),
    ("{}\nhold_out = 'size=7'", "size has no value 7"),
    (
        "[[runs]]\nmodel = 'mlvae'\ndataset = 'bars'\ngroup_by = ['shape', 'size', 'position']",
        "group_size=8 is too large",
    ),
    ("[[runs]]\nmodel = 'vae'\ndataset = 'mnist'", "mnist"),
    ("[[runs]]\nmodel = 'vae'\ndataset = 'mnist'\noptional = true", "nothing to run"),
    ("rank_by = 'sapp'\n{}", "unknown score to rank by 'sapp': did you mean 'sap'"),
    ("rank_by = 'sap'\nmetrics = ['mig']\n{}", "unknown score to rank by 'sap'"),
    ("figures = ['scores_by_modle']\n{}", "did you mean 'scores_by_model'"),
    ("figures = ['accuracy_over_k']\nmetrics = ['mig']\n{}", "needs one of the metrics content_accuracy"),
]


@pytest.mark.parametrize(("text", "says"), BAD, ids=[says for _, says in BAD])
def test_a_wrong_study_is_one_line_and_nothing_is_trained(text, says, small, capsys):
    first = "[[runs]]\nmodel = 'vae'\ndataset = 'bars'"
    Path("wrong.toml").write_text(text.replace("{}", first))
    assert main(["bench", "wrong.toml"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dislab: ")]
    assert len(lines) == 1 and says in lines[0] and "wrong" in lines[0]
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["qick"], "unknown study 'qick': did you mean 'quick'"),
        (["smal.toml"], "unknown study 'smal.toml': did you mean 'small.toml'"),
        ([], "name a study"),
        (["small.toml", "--seeds", "x"], "--seeds is 'x'"),
        (["small.toml", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["small.toml", "--device", "tpu9"], "device 'tpu9' cannot be used"),
        (["small.toml", "--out", "small.toml"], "cannot write to the output folder"),
        (["small.toml", "--data-dir", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, says, small, capsys):
    if "--data-dir" in arguments:
        Path("small.toml").write_text(SMALL.replace('"bars"', '["bars", "mnist"]'))
    assert main(["bench", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert says in lines[-1] and lines[-1].startswith("dislab: ")
    assert not Path("results").exists()


def test_a_study_killed_in_the_middle_ends_the_same(small, plugin, capsys):
    """Stopped by kill -9 while its second run trains, then taken up by the same command."""
    study = SMALL.replace("steps = 30", "steps = 200")
    Path("small.toml").write_text(study)
    start = (
        "import sys, dislab.training as training; training.SECONDS_BETWEEN_CHECKPOINTS = 0;"
        "from dislab.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["bench", "small.toml", "--out", "broken_off", "--plugin", str(plugin), "--jobs", "1"]
    command = [sys.executable, "-c", start, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(2400):
        second = list(Path("broken_off").rglob("betavae*/seed0/checkpoint.safetensors"))
        if second or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert len(runs_of("broken_off")) == 1 and not Path("broken_off/scores_by_model.csv").exists()
    assert main(arguments) == 0
    assert "2 runs, 1 of them finished before" in capsys.readouterr().err
    assert main(["bench", "small.toml", "--out", "straight"]) == 0
    name = "scores_by_model.csv"
    assert Path("broken_off", name).read_text() == Path("straight", name).read_text()
    first, second = (
        [pd.read_csv(path / "history.csv") for path in sorted(run.path for run in runs_of(folder))]
        for folder in ("broken_off", "straight")
    )
    assert all(one.equals(other) for one, other in zip(first, second, strict=True))


def test_several_runs_at_a_time_give_the_scores_of_one_at_a_time(small, one_thread, capsys):
    assert main(["bench", "small.toml", "--out", "one", "--seeds", "0,1"]) == 0
    assert main(["bench", "small.toml", "--out", "several"]) == 0
    capsys.readouterr()
    assert main(["bench", "small.toml", "--out", "several", "--seeds", "0,1", "--jobs", "2"]) == 0
    err = capsys.readouterr().err
    assert "4 runs, 2 of them finished before" in err
    assert "2 run(s) to do, 2 at a time, 1 thread(s) each" in err
    assert re.search(r"run 3 of 4 done, about 0:\d\d:\d\d left: (beta)?vae on bars, network=mlp, seed 1", err)
    assert re.search(r"run 4 of 4 done: (beta)?vae on bars, network=mlp, seed 1", err)
    assert len(runs_of("several")) == 4 and len(runs_of("several", seed=1)) == 2
    for run in runs_of("several"):
        [other] = runs_of("one", model=run.config["model"], seed=run.config["seed"])
        assert dict(run.scores) == dict(other.scores) and np.array_equal(run.codes.mean, other.codes.mean)
        assert run.record["environment"]["threads"] == other.record["environment"]["threads"] == 1


def test_a_worker_that_fails_or_is_killed_leaves_the_others(small, one_thread, capsys):
    study = SMALL.replace('["vae", "betavae"]', '["is_killed", "diverges", "vae"]')
    Path("small.toml").write_text(study)
    assert main(["bench", "small.toml", "--jobs", "2"]) == 1
    err = capsys.readouterr().err
    end = err.splitlines()[-3:]
    assert "is_killed on bars, network=mlp, seed 0: its process ended by the signal SIGKILL (mostly" in end[0]
    assert "diverges on bars, network=mlp, seed 0: training failed: the loss term 'loss' is nan" in end[1]
    assert end[2].startswith("dislab: 2 failed") and "Traceback" not in err
    assert [run.config["model"] for run in runs_of("results")] == ["vae"]


@pytest.mark.parametrize(
    "arguments", [["bench", "small.toml"], [*SEEDS, "--steps", "600", "--seeds", "0,1"]], ids=["bench", "run"]
)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_workers_end_and_their_runs_resume(how, arguments, small, plugin, one_thread, tmp_path):
    """The parent of two workers is stopped by Ctrl-C or kill -9 while both train."""
    Path("small.toml").write_text(SMALL.replace("steps = 30", "steps = 600"))
    eager = "import dislab.training.loop as training\ntraining.SECONDS_BETWEEN_CHECKPOINTS = 0\n"
    Path("eager.py").write_text(eager)
    command = [sys.executable, "-m", "dislab", *arguments, "--out", "broken_off", "--jobs", "2"]
    command += ["--plugin", str(plugin), "--plugin", "eager.py"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    for _ in range(6000):
        training = list(Path("broken_off").rglob("checkpoint.safetensors"))
        if len(training) == 2 or process.poll() is not None:
            break
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(how)
    assert process.wait(60) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert len(children) == 2
    for _ in range(600):
        left = [child for child in children if Path(f"/proc/{child}/exe").exists()]
        if not left:
            break
        time.sleep(0.1)
    assert not left, "no worker trains on"
    assert not list(Path("broken_off").rglob("run.json"))
    assert len(list(Path("broken_off").rglob("checkpoint.safetensors"))) == 2
    for folder in ("broken_off", "straight"):
        assert main([*arguments, "--out", folder]) == 0
    for run in runs_of("broken_off"):
        [other] = runs_of("straight", model=run.config["model"], seed=run.config["seed"])
        assert dict(run.scores) == dict(other.scores) and run.history.equals(other.history)


def test_how_many_runs_go_at_a_time(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert workers.given_threads() is None and USUAL_JOBS("cpu") == 8 and USUAL_JOBS("cuda:0") == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,1")
    assert workers.given_threads() == 4 and USUAL_JOBS("cpu") == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert workers.given_threads() is None
    assert workers.room_for_runs("MemTotal") >= workers.room_for_runs() >= 1
    monkeypatch.setattr(workers, "usual_jobs", lambda device: 8)
    monkeypatch.setattr(workers, "room_for_runs", lambda memory="free": {"free": 2, "MemTotal": 4}[memory])
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert workers.shared(None, 8, "cpu") == (2, 2)  # threads as if all the memory were free
    assert workers.shared(None, 2, "cpu") == (2, 4)
    assert workers.shared(4, 4, "cpu") == (4, 2) and workers.shared(1, 4, "cpu") is None
    assert workers.shared(None, 1, "cpu") is None and workers.shared(None, 0, "cpu") is None


def test_the_seeds_of_a_run_side_by_side_are_those_one_by_one(small, one_thread, capsys):
    assert main([*SEEDS, "--seeds", "0-2", "--out", "one", "--jobs", "1"]) == 0
    assert main([*SEEDS, "--seeds", "1", "--out", "several", "--jobs", "2"]) == 0
    capsys.readouterr()
    assert main([*SEEDS, "--seeds", "0-2", "--out", "several", "--jobs", "2"]) == 0
    out, err = capsys.readouterr()
    assert "2 run(s) to do, 2 at a time, 1 thread(s) each" in err and "finished before" in err
    assert "/seed2: encoding and scoring" in err and "training 120/120  2 of 2 runs done  ETA 0:00" in err
    assert "seeds 0, 1, 2" in out and out.count("run: several") == 3
    for run in runs_of("one"):
        other = dislab.load(Path("several") / run.path.relative_to("one"))
        assert dict(run.scores) == dict(other.scores) and np.array_equal(run.codes.mean, other.codes.mean)
        assert run.history.equals(other.history) and run.config == other.config
    assert len(runs_of("several")) == 3


def test_seeds_go_side_by_side_where_the_user_does_not_say(small, plugin, monkeypatch, capsys):
    monkeypatch.setattr(workers, "usual_jobs", lambda device: 2)
    monkeypatch.setattr(workers, "room_for_runs", lambda memory="": 8)
    assert main([*SEEDS, "--seeds", "0,1"]) == 0
    assert "2 run(s) to do, 2 at a time" in capsys.readouterr().err
    assert main([*SEEDS, "--seeds", "2"]) == 0
    assert "at a time" not in capsys.readouterr().err
    pca = ["run", "--model", "pca", "--dataset", "bars", "--metrics", "mig", "--seeds", "0,1"]
    assert main(pca) == 0
    err = capsys.readouterr().err
    assert err.count(": done") == 2 and "training" not in err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_is_refused_late_is_one_line_and_nothing_is_trained(jobs, small, capsys):
    late = ["--set", "group_size=50", "--hold-out", "shape=0-2"]
    assert main([*SEEDS, *late, "--seeds", "0,1", "--jobs", jobs]) == 2
    err = capsys.readouterr().err
    assert "is too large for --group-by size" in err.splitlines()[-1] and err.count("too large") == 1
    assert not list(Path("results").rglob("checkpoint.safetensors"))


def test_the_time_left_of_runs_side_by_side(monkeypatch, capsys):
    """One of two goes on from its checkpoint at step 1,000, the other fails after 30 steps, of 2,000 each."""
    now, lefts = [0.0], []

    def updates(tasks, jobs, threads, hear):
        for task, done, seconds in ((0, 1025, 100), (1, 5, 101), (0, 1035, 102), (1, 30, 105)):
            now[0] = seconds
            hear(workers.Progress(task, "encoding", done, 2000))
            hear(workers.Progress(task, "training", done, 2000))
        yield workers.Answer(1, None, "it broke")
        now[0] = 110
        hear(workers.Progress(0, "training", 2000, 2000))
        yield workers.Answer(0, Path("m/seed0"))

    monkeypatch.setattr(workers, "run_tasks", updates)
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(runs, "Run", lambda path: path)
    monkeypatch.setattr(runs.Bar, "update", lambda bar, done, note, left: lefts.append((done, note, left)))
    tasks = {Path("m/seed0"): {}, Path("m/seed1"): {}}
    outcomes = runs._in_workers(tasks, 2, 1, 2000, True)
    assert outcomes[Path("m/seed0")] == Path("m/seed0")
    assert str(outcomes[Path("m/seed1")]) == "m/seed1: it broke"
    left = (4000 - 1035 - 5) * 2 / 10, (4000 - 1035 - 30) * 5 / 35, (2000 - 1035) * 5 / 35
    assert [left for _, _, left in lefts] == pytest.approx([*left, 0, 0])
    assert [done for done, _, _ in lefts] == [1040, 1065, 3035, 4000, 4000]
    assert lefts[-1][1] == "2 of 2 runs done"


def test_a_quiet_bar_is_heard_for_as_long_as_asked(capsys):
    heard = []
    with progress.heard_by(lambda *update: heard.append(update)), progress.Bar("work", 3, quiet=True) as bar:
        bar.update(2)
    bar.update(3)
    assert heard == [("work", 2, 3)] and capsys.readouterr().err == ""


def test_seeds_that_fail_side_by_side_leave_the_others(small, one_thread, capsys):
    assert main([*SEEDS, "--seeds", "0", "--out", "results"]) == 0
    damaged = runs_of("results")[0].path.parent / "seed1"
    damaged.write_text("no folder")
    assert main([*SEEDS, "--seeds", "0-2", "--out", "results", "--jobs", "2"]) == 1
    err = capsys.readouterr().err
    assert re.match(r"dislab: mlvae,.*/seed1: cannot make the run's folder", err.splitlines()[-1])
    assert [run.config["seed"] for run in runs_of("results")] == [0, 2] and "Traceback" not in err
    assert main(["run", "--model", "is_killed", "--dataset", "bars", "--seeds", "0,1", "--jobs", "2"]) == 1
    for line, seed in zip(sorted(capsys.readouterr().err.splitlines()[-2:]), (0, 1), strict=True):
        assert re.match(rf"dislab: is_killed-\w+/seed{seed}: its process ended by the signal SIGKILL", line)


def test_side_by_side_needs_what_other_processes_know(small, one_thread, monkeypatch):
    two, bars = [{"seed": 0}, {"seed": 1}], dislab.load_dataset("bars")
    with pytest.raises(dislab.DislabError, match="other processes cannot read a Dataset object"):
        runs.run_several(two, "vae", bars, jobs=2)
    with pytest.raises(dislab.DislabError, match="jobs is 0: it must be 1 or more"):
        runs.run_several(two, "vae", bars, jobs=0)
    assert runs.run_several([], "vae", "bars", jobs=None) == []
    with monkeypatch.context() as patch:
        patch.setattr(METRICS["mig"].make, "__module__", "__main__")
        with pytest.raises(dislab.DislabError, match="metric 'mig' is registered by the running program"):
            runs.run_several(two, "vae", "bars", metrics=["mig"], jobs=2)
    monkeypatch.setattr(MODELS["vae"].make, "__module__", "__main__")
    with pytest.raises(dislab.DislabError, match="model 'vae' is registered by the running program"):
        runs.run_several(two, "vae", "bars", jobs=2)


def test_a_run_planned_for_different_scores_is_in_one_process_at_a_time(monkeypatch):
    first = bench.Planned("", "vae", "bars", "auto", 0, {"metrics": ["mig"]}, {}, False, "same")
    again = bench.Planned("", "vae", "bars", "auto", 0, {"metrics": ["sap"]}, {}, False, "same")
    other = bench.Planned("", "vae", "bars", "auto", 1, {"metrics": ["mig"]}, {}, False, "other")
    done = {}
    monkeypatch.setattr(workers, "check_known_elsewhere", lambda model, dataset, metrics: None)
    monkeypatch.setattr(bench, "_finished", lambda folder: {})
    monkeypatch.setattr(bench, "_run_in_workers", lambda missing, *others: done.update(there=missing) or [])
    monkeypatch.setattr(bench, "_run_here", lambda planned, *others: done.update(here=planned) or [])
    common = {"device": "cpu", "data_dir": None, "out": None}
    assert bench._run_missing([first, again, other], {}, common, (2, 1), True) == []
    assert done == {"there": [first, other], "here": [again]}


def test_what_only_this_program_knows_is_not_for_workers(small, monkeypatch):
    monkeypatch.setattr(MODELS["vae"].make, "__module__", "__main__")
    with pytest.raises(dislab.DislabError, match="model 'vae' is registered by the running program"):
        bench.run_study("small.toml", jobs=2)


def test_the_time_left_is_that_of_the_runs_most_alike():
    vae, mlvae, oracle = (True, "vae", "bars"), (True, "mlvae", "bars"), (False, "oracle", "bars")
    assert bench.expected_seconds(vae, [(vae, 10.0), (vae, 20.0), (oracle, 1.0)]) == 15.0
    assert bench.expected_seconds(mlvae, [(vae, 10.0), (oracle, 1.0)]) == 10.0
    assert bench.expected_seconds((True, "vae", "more"), [(vae, 10.0), (mlvae, 30.0)]) == 10.0
    assert bench.expected_seconds(oracle, [(vae, 10.0), (mlvae, 30.0)]) == 20.0
    assert bench.seconds_of_several([10.0, 4.0, 3.0, -1.0, 5.0], 2) == 12.0


def test_the_shipped_studies_are_right(capsys):
    studies = {name: bench.read_study(path) for name, path in bench.shipped_studies().items()}
    assert "quick" in studies
    for study in studies.values():
        bench._check_report(study)
        for planned in study.planned:
            assert planned.dataset in files.OFFICIAL
            if planned.dataset in {entry.name for entry in DATASETS}:
                bench._look_up_names(planned, "cpu")
    models = {planned.model for planned in studies["quick"].planned}
    assert models >= {"vae", "betavae", "betatcvae", "mlvae", "pca", "untrained", "oracle"}
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    assert f"quick: {studies['quick'].title}" in out and "28 runs" in out


def test_figures_tell_settings_apart_by_what_varies():
    key = ("bars", "rendered", "quick", "", "shape")
    assert set(study_figures.names_of_settings([key]).values()) == {"bars (rendered)"}
    names = study_figures.names_of_settings([key, (*key[:3], "0.2", "shape"), (*key[:4], "size")])
    assert names[key] == "bars (rendered), nothing held out, grouped by shape"
    assert len(set(names.values())) == 3
    assert len(study_figures.SETTING) == len(key) and leaderboard.KEY[4] == "group_by"
