"""Runs on a real Ray of two local nodes: the same numbers as on one machine, also if a node is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bars import runs_of

import dislab
from dislab.cli import main
from dislab.training import loop

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'dislab[ray]'")
pytestmark = pytest.mark.usefixtures("plugin", "small")
RUNS = "run --model mlvae --dataset bars --steps 400 --batch-size 16 --set network=mlp --metrics mig,sap"
RUNS = [*RUNS.split(), "--group-by", "size", "--precision", "fp32"]
EAGER = "import dislab.training.loop\ndislab.training.loop.SECONDS_BETWEEN_CHECKPOINTS = 0\n"


@pytest.fixture(scope="module")
def cluster(plugin):
    """Two nodes of one CPU each, and a head that does no runs; the drivers of these tests find it."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # Ray's is 15, and other tests run beside these
        folders = [str(Path(dislab.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        here = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        here.nodes = [here.add_node(num_cpus=1) for _ in range(2)]
        patch.setenv("RAY_ADDRESS", here.address)
        yield here
        here.shutdown()


@pytest.fixture(scope="module")
def alone(plugin, tmp_path_factory):
    """The same runs in this process, with one thread."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*RUNS, "--seeds", "0-3", "--out", str(folder), "--jobs", "1"]) == 0
    torch.set_num_threads(threads)
    return {run.config.seed: run for run in runs_of(folder)}


@pytest.fixture
def plugins(plugin, monkeypatch) -> list[str]:
    """Options: the dataset, runs without pictures, and a checkpoint at every look at the loss."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)  # as eager.py does, but for this test alone
    Path("eager.py").write_text(EAGER)
    return ["--plugin", str(plugin), "--plugin", "eager.py"]


def has_checkpoints(folder: str, number: int) -> bool:
    """Wait until so many runs train; return False if they do not begin."""
    for _ in range(12_000):
        if len(list(Path(folder).rglob("checkpoint.safetensors"))) >= number:
            return True
        time.sleep(0.05)
    return False


def check_same(folder: str, alone: dict, seeds) -> None:
    runs = runs_of(folder)
    assert [run.config.seed for run in runs] == list(seeds)
    for run in runs:
        other = alone[run.config.seed]
        assert dict(run.scores) == dict(other.scores) and run.history.equals(other.history)
        assert np.array_equal(run.codes.mean, other.codes.mean) and run.config == other.config
        assert run.record["environment"]["threads"] == other.record["environment"]["threads"] == 1
    assert len(Path(folder, "records.jsonl").read_text().splitlines()) == len(runs)
    assert not list(Path(folder).rglob("*.claim-*")) and not list(Path(folder).rglob("checkpoint*"))


def test_a_lost_node_changes_no_digit(cluster, alone, plugins, capsys):
    """Both nodes train when one of them is killed; its run goes on from its checkpoint on the other."""
    lost = []

    def lose_a_node() -> None:
        if has_checkpoints("shared", 2):
            lost.append(len(list(Path("shared").rglob("run.json"))))
            cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    assert main([*RUNS, "--seeds", "0-3", "--out", "shared", "--on", "ray", *plugins]) == 0
    thread.join()
    err = capsys.readouterr().err
    assert lost and lost[0] < 4, "it was lost before the end"
    assert "4 run(s) to do, 2 at a time, 1 thread(s) each" in err and "run 4 of 4 done" in err
    check_same("shared", alone, range(4))


def test_nodes_that_do_not_share_the_folder_send_their_runs(cluster, alone, plugins, capsys):
    collected = [*RUNS, "--seeds", "0", "--out", "own", "--on", "ray", "--collect", *plugins]
    assert main(collected) == 0
    check_same("own", alone, [0])
    capsys.readouterr()
    assert main([*collected, "--metrics", "mig,irs"]) == 0
    assert {"mig", "irs"} <= dislab.runs_in("own")[0].scores.keys(), "of codes that are here"
    study = "[[runs]]\nmodel = 'diverges'\ndataset = 'bars'\nsteps = 30\n"
    Path("fails.toml").write_text(study)
    assert main(["bench", "fails.toml", "--on", "ray", "--collect", *plugins]) == 1
    assert "diverges on bars, network=conv, seed 0: training failed: the loss" in capsys.readouterr().err


def test_ctrl_c_leaves_checkpoints(cluster, alone, plugins):
    command = [sys.executable, "-m", "dislab", *RUNS, "--seeds", "0,1", "--out", "stopped", "--on", "ray"]
    with Path("err.txt").open("w") as err:
        process = subprocess.Popen(
            [*command, *plugins],
            stdout=subprocess.DEVNULL,
            stderr=err,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    assert has_checkpoints("stopped", 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    said = Path("err.txt").read_text()
    assert said.splitlines()[-1] == "dislab: interrupted; run the same command to resume"
    assert "Traceback" not in said and list(Path("stopped").rglob("checkpoint.safetensors"))
    assert main([*RUNS, "--seeds", "0,1", "--out", "stopped", "--jobs", "1"]) == 0
    check_same("stopped", alone, [0, 1])


@pytest.mark.parametrize("on", ["ray", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_listens_is_one_line(on, plugins, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main([*RUNS, "--out", "none", "--on", on, *plugins]) == 2
    address = "127.0.0.1:1" if on == "ray" else on
    says = f"dislab: no connection to Ray ({address}): ConnectionRefusedError: "
    assert capsys.readouterr().err.splitlines()[-1].startswith(says)
