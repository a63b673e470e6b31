"""Many runs: shares of a study, what it would do, several devices, and what a cluster refuses."""

import io
import json
import re
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from bars import SMALL, runs_of

import dislab
from dislab.cli import main
from dislab.cli.options import parse_shard
from dislab.data import devices
from dislab.runs import execute, machine
from dislab.runs.machine import Machine
from dislab.runs.resolve import resolve
from dislab.studies.file import find_study, read_study
from dislab.studies.study import check_names, plan, share_of
from dislab.training.protocol import choose_protocol

pytestmark = pytest.mark.usefixtures("plugin")
CHEAP = SMALL.replace('["vae", "betavae"]', '["oracle", "pca"]').replace("\nset =", "\nseeds = [0, 1, 2]\n#")


# Shares


@pytest.mark.parametrize("of", [1, 2, 3, 5, 6, 7, 100])
def test_shares_are_all_runs_and_none_twice(of, small):
    Path("cheap.toml").write_text(CHEAP)
    whole = plan(read_study("cheap.toml"), Machine())
    shares = [share_of(whole, (number, of)) for number in range(1, of + 1)]
    assert sorted(digest for share in shares for digest in share) == sorted(whole)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert shares == [share_of(plan(read_study("cheap.toml"), Machine()), (k, of)) for k in range(1, of + 1)]
    if of == 3:
        assert [{c.model for c in share.values()} for share in shares] == [{"oracle", "pca"}] * 3


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "/4", "-1/4", "1/0", "a/b", "1/4/2", "", "1.0/2"])
def test_a_share_that_is_none_is_one_line(text, small, capsys):
    assert main(["bench", "small.toml", f"--shard={text}"]) == 2
    assert f"--shard is '{text}': write a share" in capsys.readouterr().err and not Path("results").exists()


def test_shares_of_a_study_end_in_the_tables_of_all(small, capsys):
    Path("cheap.toml").write_text(CHEAP)
    assert parse_shard("2/2") == (2, 2)
    assert main(["bench", "cheap.toml", "--out", "whole"]) == 0
    capsys.readouterr()
    assert main(["bench", "cheap.toml", "--shard", "7/7", "--out", "shares"]) == 0, "it has no run"
    for number in (1, 2):
        assert main(["bench", "cheap.toml", "--shard", f"{number}/2", "--out", "shares"]) == 0
        assert "cheap: 3 of 6 runs" in capsys.readouterr().err
        assert len(runs_of("shares")) == 3 * number
    assert len(Path("shares/records.jsonl").read_text().splitlines()) == 6
    for name in ("scores.csv", "scores_by_model.csv"):
        one, other = (pd.read_csv(Path(folder, name)) for folder in ("whole", "shares"))
        assert one.equals(other) and len(one)


# A share of a study's seeds and steps


def test_a_study_at_scale_has_a_share_of_seeds_and_steps():
    studies = [read_study(find_study("locatello2019"), None, scale) for scale in (0.01, 1)]
    assert [study.number for study in studies] == [252, 12_600]
    assert {draft.seeds for draft in studies[0].drafts} == {(0,)}
    for (_, one), (_, whole) in zip(*(check_names(study, Machine()) for study in studies), strict=True):
        assert one.protocol == choose_protocol("paper", steps=3000)
        changes = {"capacity_steps": 1000} if one.entry.name == "annealedvae" else {}
        assert one.hyperparameters == whole.hyperparameters | changes
        assert (one.entry, one.dataset, one.metrics) == (whole.entry, whole.dataset, whole.metrics)


@pytest.mark.parametrize(
    ("scale", "seeds", "steps", "capacity_steps"),
    [(1.0, [7, 5, 6], 30, 700), (0.5, [7, 5], 15, 350), (0.07, [7], 2, 49), (1e-9, [7], 1, 1)],
)
def test_shares_of_seeds_and_steps_are_rounded_and_at_least_one(scale, seeds, steps, capacity_steps, small):
    text = SMALL.replace('["vae", "betavae"]', '["annealedvae", "betavae", "oracle"]')
    Path("short.toml").write_text(text.replace("\nset =", "\nseeds = [7, 5, 6]\n#"))
    configs = plan(read_study("short.toml", None, scale), Machine()).values()
    for model, number in (("annealedvae", steps), ("betavae", steps), ("oracle", 0)):
        mine = [config for config in configs if config.model == model]
        assert [config.seed for config in mine] == seeds and {c.protocol.steps for c in mine} == {number}
        assert {c.protocol_name for c in mine} == {f"quick+steps={steps}+batch_size=16"}
    found = [(c.hyperparameters["capacity_steps"], 0) for c in configs if c.model == "annealedvae"]
    found += [(capacity_steps, c.hyperparameters["warmup_steps"]) for c in configs if c.model == "betavae"]
    assert set(found) == {(capacity_steps, 0)}, "also a default is scaled, and 0 stays 0"


def test_a_study_at_scale_says_so_in_every_row(small, capsys):
    arguments = ["bench", "small.toml", "--scale", "0.1", "--seeds", "0-3"]
    assert main([*arguments, "--dry-run"]) == 0
    assert numbers(capsys.readouterr().out)["runs"] == "8", "seeds that a user names are all run"
    assert main([*arguments, "--shard", "1/8"]) == 0
    table = pd.read_csv("results/small/leaderboard.csv")
    assert list(table["protocol"]) == ["quick+steps=3+batch_size=16"] and len(runs_of("results")) == 1
    heading = Path("results/small/study.toml").read_text().splitlines()[0]
    assert heading.endswith(": dislab bench small.toml --seeds 0,1,2,3 --scale 0.1")


@pytest.mark.parametrize("text", ["0", "-0.5", "1.5", "nan", "inf", "1%", "", "1/100"])
def test_a_scale_that_is_none_is_one_line(text, small, capsys):
    assert main(["bench", "small.toml", f"--scale={text}"]) == 2
    assert f"--scale is '{text}': write a number above 0, and 1 at most" in capsys.readouterr().err
    assert not Path("results").exists()


# What a study would do


def numbers(out: str) -> dict[str, str]:
    """The lines of the table by their first word."""
    return {re.split(r"  +", line)[0]: " ".join(re.split(r"  +", line)[1:]) for line in out.splitlines()[1:]}


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(small, capsys):
    Path("cheap.toml").write_text(CHEAP)
    assert main(["bench", "cheap.toml", "--dry-run"]) == 0
    table = numbers(capsys.readouterr().out)
    assert table["runs"] == "6" and table["done"] == "0" and table["to do"] == "6"
    assert table["hours"].startswith("? without 6 runs") and table["GB"].startswith("? without 6 runs")
    assert not Path("results").exists()
    assert main(["bench", "cheap.toml", "--seeds", "0,1"]) == 0
    oracles = runs_of("results", model="oracle")
    for run in runs_of("results", model="pca"):  # now no run tells of pca
        shutil.rmtree(run.path)
    lines = [
        line for line in Path("results/cheap/records.jsonl").read_text().splitlines() if "oracle" in line
    ]
    Path("results/cheap/records.jsonl").write_text("\n".join(lines) + "\n")
    for number, run in enumerate(oracles):  # as if they had taken one hour and three
        record = run.record | {"timings": run.record["timings"] | {"train_seconds": 3600 * (1 + 2 * number)}}
        record["timings"] |= {"encode_seconds": 0, "score_seconds": 0}
        dislab.runs_in("results/cheap")[number]._results.write(record)
    before = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["bench", "cheap.toml", "--seeds", "0-9", "--dry-run"]) == 0
    table = numbers(capsys.readouterr().out)
    assert (table["runs"], table["done"], table["to do"]) == ("20", "2", "18")
    assert table["hours"].startswith("16.0 without 10 runs of whose model"), "8 oracles of two hours each"
    sizes = [
        sum(path.stat().st_size for path in run.path.iterdir() if path.name != "run.json") for run in oracles
    ]
    assert float(table["GB"].split()[0]) == pytest.approx(8 * np.mean(sizes) / 1e9, abs=0.1)
    assert {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()} == before
    assert main(["bench", "cheap.toml", "--seeds", "0-9", "--shard", "1/2", "--dry-run"]) == 0
    table = numbers(capsys.readouterr().out)
    assert table["runs"] == "10 share 1 of 2 of 20 runs" and table["to do"] == "9"


def test_a_dry_run_tells_scores_from_trainings(small, capsys):
    Path("cheap.toml").write_text(CHEAP)
    assert main(["bench", "cheap.toml"]) == 0
    shutil.rmtree(runs_of("results", model="pca")[0].path)
    Path("cheap.toml").write_text(CHEAP.replace('["mig"]', '["mig", "sap"]'))
    capsys.readouterr()
    assert main(["bench", "cheap.toml", "--dry-run"]) == 0
    table = numbers(capsys.readouterr().out)
    assert table["done"] == "0" and table["to do"] == "0"
    assert table["to score"].startswith("5 they lack scores") and table["skipped"].startswith("1 they lack")
    assert "sap" not in Path("results/cheap/records.jsonl").read_text()


# Several devices


@pytest.fixture
def gpus(monkeypatch):
    """A machine whose GPUs are names: nothing is computed on them."""
    monkeypatch.setattr(devices, "choose_device", lambda name: name or "cuda:0")


def test_a_worker_for_each_device(gpus, monkeypatch):
    """The workers are stand-ins that note what they are given."""
    two = Machine.here("cuda:0, cuda:1", jobs=None)
    assert two.device == "cuda:0" and two.devices == ("cuda:0", "cuda:1") and two.of_runs == "cuda:0"
    assert two.share(10)[0] == 2 and two.share(1) is None
    assert replace(two, jobs=4).share(10)[0] == 4 and Machine.here("cuda:1").devices == ()
    workers = []

    class Worker:
        """Begins a task, and has done it once every worker has one; the second one dies of its first."""

        def __init__(self, threads, replies, device):
            self.device, self.replies, self.task, self.tasks = device, replies, None, []
            self.process = self
            self.stdin = io.StringIO()
            workers.append(self)

        def begin(self, task):
            self.task = execute._moved(task, self.device)
            self.tasks.append(self.task)
            if workers.index(self) == 1:
                self.replies.put((self, None))
            else:
                digest = task["digests"][0]
                self.replies.put((self, {"outcome": {"digest": digest}}))
                self.replies.put((self, {}))

        def poll(self):
            return None

        def wait(self, *seconds):
            return 1

        def kill(self):
            self.stdin.close()

    monkeypatch.setattr(execute, "_Worker", Worker)
    tasks = [{"digests": [str(n)], "machine": {"device": "cuda:0", "out": "x"}} for n in range(7)]
    outcomes = list(execute.in_workers(tasks, print, 2, 1, two.devices))
    assert sorted(outcome.digest for outcome in outcomes) == [str(n) for n in range(7)]
    assert [outcome.failure for outcome in outcomes].count("") == 6
    assert [worker.device for worker in workers] == ["cuda:0", "cuda:1", "cuda:1"], "in the dead one's place"
    for worker in workers:
        assert worker.tasks and all(
            task["machine"] == {"device": worker.device, "out": "x"} for task in worker.tasks
        )


@pytest.mark.parametrize(
    ("device", "jobs", "words"),
    [
        ("cuda:0,cuda:0", None, "name each device once"),
        ("cuda,cuda:0", None, "name each device once"),
        ("cuda:0, cuda", 4, "name each device once"),
        ("cuda:0,cpu", None, "name each device once, and GPUs only"),
        ("cuda:0,cuda:1", 1, "jobs is 1: the 2 devices 'cuda:0,cuda:1' need a process each"),
    ],
)
def test_devices_that_cannot_be_shared_are_refused(device, jobs, words, gpus):
    with pytest.raises(dislab.DislabError, match=words):
        Machine.here(device, jobs=jobs)


def test_a_device_that_is_not_there_is_one_line(small, capsys):
    assert main(["bench", "small.toml", "--device", "cpu,cuda:9"]) == 2
    assert "device 'cuda:9' cannot be used here" in capsys.readouterr().err


# Clusters: what needs no Ray. The rest is in test_ray.py.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--on", "slurm"], "--on is 'slurm': write ray, or ray://HOST:PORT"),
        (["--per-gpu", "4"], "--per-gpu is an option of --on ray"),
        (["--collect"], "--collect is an option of --on ray"),
        (["--on", "ray", "--collect", "--log", "tensorboard"], "which --collect does not send"),
        (["--on", "ray", "--jobs", "2"], "--jobs is of this machine"),
        (["--on", "ray", "--device", "cuda:1"], "device is 'cuda:1': with --on it is cpu, or cuda"),
        (["--on", "ray", "--device", "cpu", "--per-gpu", "2"], "device is 'cpu': with --on"),
        (["--on", "ray"], "--on needs Ray, which is not installed: pip install 'dislab[ray]'"),
    ],
)
def test_what_a_cluster_refuses_is_one_line(options, words, small, monkeypatch, capsys):
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    assert main(["bench", "small.toml", *options]) == 2
    assert words in capsys.readouterr().err and not Path("results").exists()


@pytest.mark.parametrize(
    ("on", "address", "asked"),
    [
        ("ray", "10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("ray", "[fe80::1]:6379", ("fe80::1", 6379)),
        ("ray://head:10001", "10.0.0.1:6379", ("head", 10001)),
        ("ray", "auto", None),
        ("ray", "", None),
    ],
)
def test_an_address_that_does_not_answer_is_one_line(on, address, asked, small, monkeypatch, capsys):
    """Ray itself, a stand-in here, would wait for minutes. Without an address it looks for a cluster."""

    def init(address, **settings):
        raise ConnectionError(f"nobody answers\nat {address}")

    def create_connection(asked, seconds):
        assert seconds <= 20
        raise TimeoutError(f"timed out: {asked}")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    monkeypatch.setattr(machine, "find_spec", lambda name: True)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(execute, "_check_known_elsewhere", lambda configs: None)
    assert main(["bench", "small.toml", "--on", on]) == 2
    address = on if on != "ray" else address or "ray"
    cause = f"TimeoutError: timed out: {asked}" if asked else "ConnectionError: nobody answers at "
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"dislab: no connection to Ray ({address}): {cause}")


def test_runs_of_a_clusters_gpus_are_the_runs_of_a_gpu(small, gpus, monkeypatch):
    """They are planned on the CPU of a driver that may have no GPU."""
    monkeypatch.setattr(machine, "find_spec", lambda name: True)
    far = Machine.cluster("ray", None, 4, False, data_dir=None, out="results", quiet=True)
    assert (far.device, far.of_runs, far.per_gpu) == ("cpu", "cuda", 4) and Path(far.out).is_absolute()
    for precision, name in (("fp32", "fp32"), ("tf32", "usual"), (None, "usual"), ("bf16", "bf16")):
        config = resolve("vae", "bars", far, network="mlp", precision=precision)
        assert config.precision == name
    [task] = execute.tasks_of([config, config.with_seed(1)], far)
    assert task["machine"]["device"] == "cuda" and task["machine"]["devices"] == ()
    assert len(task["digests"]) == 2, "models are trained at once"
    assert Machine(**json.loads(json.dumps(task["machine"]))).of_runs == "cuda"
