"""The executor: worker processes, kills and interruptions, two processes on one folder, the time left."""

import itertools
import json
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bars import SMALL, runs_of
from forked import Forked

import dislab
from dislab.cli import main
from dislab.registry import DATASETS, METRICS, MODELS, Registry
from dislab.runs import display, execute, machine, perform
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.runs.resolve import resolve
from dislab.studies.file import read_study
from dislab.studies.study import plan
from dislab.training.protocol import PROTOCOLS

DEFAULT_JOBS = machine.default_jobs
pytestmark = pytest.mark.usefixtures("plugin")
SEEDS = "run --model mlvae --dataset bars --steps 60 --batch-size 16 --set network=mlp --metrics mig,sap"
SEEDS = [*SEEDS.split(), "--group-by", "size", "--hold-out", "shape=0", "--precision", "fp32"]


@pytest.fixture
def one_thread(monkeypatch):
    """One thread for torch, here and in workers."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_seeds_side_by_side_are_those_one_by_one(small, one_thread, monkeypatch, capsys):
    """Several go at a time where the user does not say, and there are several."""
    monkeypatch.setattr(machine, "default_jobs", lambda device: 2)
    monkeypatch.setattr(machine, "room_for_runs", lambda memory="": 8)
    assert main([*SEEDS, "--seeds", "0-2", "--out", "one", "--jobs", "1"]) == 0
    capsys.readouterr()
    assert main([*SEEDS, "--seeds", "1", "--out", "several"]) == 0
    assert "at a time" not in capsys.readouterr().err
    assert main([*SEEDS, "--seeds", "0-2", "--out", "several"]) == 0
    out, err = capsys.readouterr()
    assert err.count(" done") == 2 and not re.search("^training", err, re.M)
    assert "1 of 3 run(s) finished before" in err and "2 run(s) to do, 2 at a time, 1 thread(s) each" in err
    name = r"mlvae on bars, without shape=0, network=mlp, seed \d"
    assert re.search(rf"run 2 of 3 done, about 0:\d\d:\d\d left: {name}\nrun", err)
    assert re.search(rf"run 3 of 3 done: {name}\nruns 3/3 .* ETA 0:00:00", err)
    assert "seeds 0, 1, 2" in " ".join(out.split()) and out.count("run: several") == 1
    for run in runs_of("one"):
        other = dislab.load(Path("several") / run.path.relative_to("one"))
        assert dict(run.scores) == dict(other.scores) and np.array_equal(run.codes.mean, other.codes.mean)
        assert run.history.equals(other.history) and run.config == other.config
        assert run.record["environment"]["threads"] == other.record["environment"]["threads"] == 1
    assert len(runs_of("several")) == 3


def test_runs_that_fail_side_by_side_leave_the_others(small, plugin):
    study = SMALL.replace('["vae", "betavae"]', '["is_killed", "diverges", "vae", "oracle", "ends"]')
    Path("small.toml").write_text(study.replace("\nset =", "\n#"))
    [oracle] = [one for one in plan(read_study("small.toml"), Machine()).values() if one.model == "oracle"]
    path = Path("results/small") / oracle.folder
    path.parent.mkdir(parents=True)
    path.write_text("no folder")
    process = Forked("bench", "small.toml", "--jobs", "2", "--plugin", str(plugin), log="said.txt")
    assert process.wait(120) == 1
    err = Path("said.txt").read_text()
    end = err.splitlines()[-5:]
    assert (
        "is_killed on bars, network=conv, seed 0: its process ended by the signal SIGKILL (mostly for want"
        in end[0]
    )
    assert "diverges on bars, network=conv, seed 0: training failed: the loss term 'loss' is nan" in end[1]
    assert "oracle on bars, seed 0: cannot make the run's folder" in end[2]
    assert "ends on bars, network=conv, seed 0: model 'ends' failed: SystemExit: 3" in end[3]
    assert end[4].startswith("dislab: 4 failed") and "Traceback" not in err
    assert [run.config.model for run in runs_of("results")] == ["vae"]


LONG = [*SEEDS, "--steps", "300", "--seeds", "0,1"]  # long enough to be stopped in its middle
EAGER = "import dislab.training.loop as training\ntraining.SECONDS_BETWEEN_CHECKPOINTS = 0\n"


@pytest.fixture(scope="module")
def straight(plugin, tmp_path_factory):
    """The runs of LONG that nobody interrupted, by seed."""
    folder = tmp_path_factory.mktemp("straight")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*LONG, "--out", str(folder)]) == 0
    torch.set_num_threads(threads)
    return runs_of(folder)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_workers_end_and_their_runs_resume(how, small, plugin, one_thread, straight):
    """The parent of two workers is stopped by Ctrl-C or kill -9 while both train."""
    Path("eager.py").write_text(EAGER)
    plugins = ["--plugin", str(plugin), "--plugin", "eager.py"]
    process = Forked(*LONG, "--out", "broken_off", "--jobs", "2", *plugins)
    for _ in range(6000):
        training = list(Path("broken_off").rglob("checkpoint.safetensors"))
        if len(training) == 2 or process.poll() is not None:
            break
        time.sleep(0.02)
    children = process.children()
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
    assert main([*LONG, "--out", "broken_off"]) == 0
    for run, other in zip(runs_of("broken_off"), straight, strict=True):
        assert dict(run.scores) == dict(other.scores) and run.history.equals(other.history)


# Two processes on one folder


def test_two_processes_do_no_run_twice(small, plugin, one_thread):
    study = SMALL.replace("\nset =", "\nseeds = [0, 1]\nset =").replace("steps = 30", "steps = 150")
    Path("small.toml").write_text(study)
    arguments = ["bench", "small.toml", "--plugin", str(plugin), "--jobs", "1"]
    both = [Forked(*arguments, log=f"{name}.txt") for name in ("one", "other")]
    assert [process.wait(120) for process in both] == [0, 0], Path("one.txt").read_text()
    lines = Path("results/small/records.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["digest"] for line in lines}) == 4, "each was written once"
    assert len(pd.read_csv("results/small/scores_by_model.csv")) == 2
    assert not list(Path("results").rglob("*.claim-*"))
    done = [Path(f"{name}.txt").read_text().count(" done") for name in ("one", "other")]
    assert done == [4, 4], "each process knows of all runs"


def test_the_run_of_a_killed_process_is_taken_over_while_another_waits(small, plugin, one_thread, straight):
    """Two processes are given one run; the one that does it is killed, and the other ends it."""
    Path("eager.py").write_text(EAGER)
    arguments = [*LONG, "--seeds", "0", "--plugin", str(plugin), "--plugin", "eager.py"]
    first = Forked(*arguments, log="first.txt")
    for _ in range(3000):
        if list(Path("results").rglob("checkpoint.safetensors")):
            break
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # so that it cannot end while the other starts
    second = Forked(*arguments, log="second.txt")
    for _ in range(3000):
        if "waiting for another process" in Path("second.txt").read_text():
            break
        time.sleep(0.02)
    else:
        pytest.fail("the second process did not wait")
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    assert second.wait(120) == 0
    assert len(runs_of("results")) == 1 and not list(Path("results").rglob("*.claim-*"))
    [run], other = runs_of("results"), straight[0]
    assert dict(run.scores) == dict(other.scores) and run.history.equals(other.history)


# What the machine allows, and what is refused


def test_how_many_runs_go_at_a_time(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert machine.chosen_threads() is None and DEFAULT_JOBS("cpu") == 8 and DEFAULT_JOBS("cuda:0") == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,1")
    assert machine.chosen_threads() == 4 and DEFAULT_JOBS("cpu") == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert machine.chosen_threads() is None
    assert machine.room_for_runs("MemTotal") >= machine.room_for_runs() >= 1
    monkeypatch.setattr(machine, "default_jobs", lambda device: 8)
    monkeypatch.setattr(machine, "room_for_runs", lambda memory="free": {"free": 2, "MemTotal": 4}[memory])
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert Machine(jobs=None).share(8) == (2, 2)  # threads as if all the memory were free
    assert Machine(jobs=None).share(2) == (2, 4)
    assert Machine(jobs=4).share(4) == (4, 2) and Machine(jobs=1).share(4) is None
    assert Machine(jobs=None).share(1) is None and Machine(jobs=None).share(0) is None
    with pytest.raises(dislab.DislabError, match="jobs is 0: it must be 1 or more"):
        Machine.here("cpu", jobs=0)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_is_refused_late_is_one_line_and_nothing_is_trained(jobs, small, capsys):
    late = ["--set", "group_size=50", "--hold-out", "shape=0-2"]
    assert main([*SEEDS, *late, "--seeds", "0,1", "--jobs", jobs]) == 2
    err = capsys.readouterr().err
    assert "is too large for --group-by size" in err.splitlines()[-1] and err.count("too large") == 1
    assert not Path("results").exists()


def test_side_by_side_needs_what_other_processes_know(small, monkeypatch):
    here, bars = Machine(), dislab.load_dataset("bars")

    def two(*arguments, **settings) -> list:
        config = resolve(*arguments, here, **settings)
        return list(execute.execute([config, config.with_seed(1)], replace(here, jobs=2)))

    with pytest.raises(dislab.DislabError, match="other processes cannot read a Dataset object"):
        two("vae", bars)
    assert list(execute.execute([], Machine(jobs=None))) == []
    for registry, name in ((METRICS, "mig"), (MODELS, "vae"), (DATASETS, "bars")):
        message = f"{registry.kind} '{name}' is registered by the running program"
        with monkeypatch.context() as patch, pytest.raises(dislab.DislabError, match=message):
            patch.setattr(registry[name].make, "__module__", "__main__")
            two("vae", "bars", metrics=["mig"])
    assert not Path("results").exists()


def test_more_runs_are_no_more_look_ups(small, monkeypatch):
    """What other processes know is found out by reading the files of all packages: once for each name."""
    first = resolve("vae", "bars", Machine(), network="mlp", metrics=["mig", "sap"])
    known, looked_up = Registry.is_known_elsewhere, []
    monkeypatch.setattr(Registry, "is_known_elsewhere", lambda *a: (looked_up.append(a), known(*a))[1])
    outcome = execute.Outcome
    monkeypatch.setattr(
        execute, "in_workers", lambda tasks, *_: (outcome(d) for task in tasks for d in task["digests"])
    )
    for number in (2, 50):
        looked_up.clear()
        configs = [first.with_seed(seed) for seed in range(number)]
        assert len(list(execute.execute(configs, Machine(jobs=2)))) == number
        names = [(registry.kind, name) for registry, name in looked_up]
        assert sorted(names) == [
            ("dataset", "bars"),
            ("metric", "mig"),
            ("metric", "sap"),
            ("model", "vae"),
            ("network", "mlp"),
        ]


def test_two_tables_that_ask_for_different_scores_of_a_run_make_it_once(small, monkeypatch):
    first = resolve("oracle", "bars", Machine(), metrics=["mig"])
    again = replace(first, metrics=("sap",))
    [outcome] = execute.execute([first, again], Machine())
    assert outcome.failure == "" and set(outcome.record["scores"]) == {"mig", "sap"}
    assert len(Results("results").runs()) == 1
    performed = []
    monkeypatch.setattr(perform, "perform", lambda *task: performed.append(task))
    assert [o.record for o in execute.execute([first], Machine())] == [outcome.record] and not performed


def test_runs_on_a_gpu_are_trained_together_where_they_differ_in_numbers_only(small):
    base = resolve("betavae", "bars", Machine(), network="mlp")
    sizes = [base, base.with_seed(1), replace(base, hyperparameters=base.hyperparameters | {"beta": 8.0})]
    other = replace(base, hyperparameters=base.hyperparameters | {"latents": 4})
    bf16, oracle = replace(base, precision="bf16"), resolve("oracle", "bars", Machine())

    def together(configs, device) -> list[int]:
        return [len(task["configs"]) for task in execute.tasks_of(configs, Machine(device))]

    assert together([*sizes, other, oracle, oracle.with_seed(1)], "cuda") == [3, 1, 1, 1]
    assert together([base.with_seed(seed) for seed in range(20)], "cuda:1") == [16, 4]
    assert together([bf16, bf16.with_seed(1)], "cuda") == [2] and together(sizes, "cpu") == [1, 1, 1]


# The time left


def took(seconds: float) -> dict:
    """What matters of the record of a run that took so many seconds."""
    return {"timings": {"train_seconds": seconds - 2, "encode_seconds": 1.5, "score_seconds": 0.5}}


def test_the_time_left_by_the_speed_of_training(monkeypatch):
    """One of two runs goes on from its checkpoint at step 1,000; a third one waits."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    base = replace(resolve("vae", "bars", Machine(), network="mlp"), protocol=PROTOCOLS["quick"])
    configs = [base, base.with_seed(1), base.with_seed(2)]
    one, other, waiting = (config.digest for config in configs)
    oracle = {"config": resolve("oracle", "bars", Machine()).to_json()} | took(3.0)
    for records in ([], [oracle]):
        estimate = display.Estimate(configs, map(display.duration_of, records), jobs=2)
        assert estimate.fraction() == 0
        now[0] = 100
        estimate.hear([one], "encoding", 5, 10)
        estimate.hear([one], "training", 1000, 2000)
        estimate.hear([other], "training", 0, 2000)
        assert (estimate.left() is None) == (not records), "its own speed is not known yet"
        now[0] = 110
        estimate.hear([one], "training", 1100, 2000)  # 10 steps/s: 90 s to go, 200 s a run
        estimate.hear([other], "training", 200, 2000)  # 20 steps/s: 90 s to go, 100 s a run
        # The third takes as long as the mean of the others; two go at a time.
        assert estimate.left() == pytest.approx((90 + 90 + 150) / 2)
        assert estimate.fraction() == pytest.approx(0.9 * (1100 + 200) / 2000)
    estimate.end(other, took(100.0))
    assert estimate.left() == pytest.approx((90 + 150) / 2)
    estimate.hear([waiting], "training", 0, 2000)
    assert estimate.left() == pytest.approx(100), "no run is divided among two processes"
    estimate.end(one, None)
    estimate.end(waiting, None)
    assert estimate.left() == 0


def test_the_time_left_of_models_that_are_trained_at_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    base = resolve("vae", "bars", Machine(), network="mlp")
    configs = [base.with_seed(seed) for seed in range(24)]
    estimate = display.Estimate(configs, [], jobs=1)
    stack = [config.digest for config in configs[:16]]
    estimate.hear(stack, "training 16 models", 0, 2000)
    now[0] = 10
    estimate.hear(stack, "training 16 models", 1000, 2000)
    # 10 s to go for all sixteen, and 20 / 16 s for each of the eight that wait.
    assert estimate.left() == pytest.approx(10 + 8 * 20 / 16)
    assert estimate.fraction() == pytest.approx(0.9 * 16 / 2)


def test_runs_that_have_not_ended_are_not_counted(monkeypatch, capsys):
    monkeypatch.setattr("dislab.progress.SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr("dislab.progress._has_terminal", lambda: False)
    base = resolve("vae", "bars", Machine(), network="mlp")
    configs = [base, base.with_seed(1)]
    durations = [(display.kind_of(base.to_json()), 10.0)]
    with display.Display(configs, configs, durations, Machine(quiet=False), (2, 1)) as shown:
        for config in configs:
            shown.hear([config.digest], "training", 0, 2000, "")
            shown.hear([config.digest], "training", 1900, 2000, "")
    lines = re.findall("runs ./2  training .*", capsys.readouterr().err)
    assert len(lines) == 4 and lines[-1].startswith("runs 0/2  training 95%: vae")


def test_the_time_left_is_that_of_the_runs_most_alike():
    vae, mlvae, oracle = (True, "vae", "bars", 9), (True, "mlvae", "bars", 9), (False, "oracle", "bars", 0)
    durations = display.Durations()
    assert durations.mean(vae) is None
    for kind, seconds in ((vae, 10.0), (vae, 20.0), (oracle, 2.0)):
        durations.add(kind, seconds)
    assert durations.mean(vae) == 15 and durations.mean(oracle) == 2
    assert durations.mean(mlvae) == 15, "a model that is trained, too"
    durations.add(mlvae, 30.0)
    assert durations.mean((True, "mlvae", "more", 9)) == 30 and durations.mean((True, "new", "bars", 9)) == 20


@pytest.mark.parametrize("seed", range(4))
def test_the_time_left_equals_that_of_every_run_alone(seed, monkeypatch):
    """Each run that waits takes the mean of the runs that share the most of its kind."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    rng = np.random.default_rng(seed)
    kinds = [(True, f"m{m}", f"d{d}", s) for m in range(3) for d in range(3) for s in (10, 20)]
    base = resolve("vae", "bars", Machine(), network="mlp")

    def config(kind: tuple, seed: int):
        protocol = replace(base.protocol, steps=kind[3])
        return replace(base, model=kind[1], dataset=kind[2], protocol=protocol, seed=seed)

    chosen = [kinds[i] for i in rng.integers(0, len(kinds), 60)]
    configs = [config(kind, number) for number, kind in enumerate(chosen)]
    known = [(kinds[i], float(rng.integers(5, 50))) for i in rng.integers(0, 9, 5)]
    estimate = display.Estimate(configs, known, jobs=3)
    for one, kind in zip(configs[:30], chosen[:30], strict=True):
        estimate.hear([one.digest], "training", 0, 10)
        seconds = float(rng.integers(5, 50))
        record = {"timings": {"train_seconds": seconds, "encode_seconds": 0, "score_seconds": 0}}
        estimate.end(one.digest, record if seconds > 7 else None)
        if seconds > 7:
            known.append((kind, seconds))
    going = configs[30].digest
    estimate.hear([going], "training", 0, 10)
    now[0] = 8.0
    estimate.hear([going], "training", 4, 10)  # 0.05 of the training a second
    known.append((chosen[30], 20.0))

    def alone(kind: tuple) -> float:
        shared = [
            sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], zip(kind, other, strict=True)))
            for other, _ in known
        ]
        return np.mean([took for (_, took), parts in zip(known, shared, strict=True) if parts == max(shared)])

    expected = (12.0 + sum(map(alone, chosen[31:]))) / 3
    assert estimate.left() == pytest.approx(expected)
    means = []
    mean = display.Durations.mean
    monkeypatch.setattr(display.Durations, "mean", lambda *a: (means.append(a), mean(*a))[1])
    estimate.left()
    assert len(means) <= len(kinds) + 1, "kinds are looked at, not runs"
