"""The table of speed: its ways, their processes, what is measured of them, and what its columns are."""

import contextlib
import dataclasses
import json
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dislab
from dislab.benchmarks import speed as columns
from dislab.benchmarks.speed import __main__ as table
from dislab.benchmarks.speed import command, cost, datasets, peers, processes, ways
from dislab.benchmarks.speed import metrics as speed
from dislab.benchmarks.speed.processes import WayEnded, WayProcess, WayProcesses
from dislab.networks import distributions
from dislab.networks.fused import Fused


def test_speed_of_metrics_on_a_small_table(tmp_path, capsys):
    out = tmp_path / "speed.csv"
    arguments = ["--rows", "500", "--metrics", "mig,modularity", "--points", "1", "--out", str(out)]
    assert speed.main(arguments) == 0
    table = pd.read_csv(out).set_index("metric")
    assert list(table.index) == ["mig", "modularity"]
    assert (table["rows"] == 500).all() and (table["seconds"] > 0).all()
    assert table.loc["mig", "images_anew_seconds"] > 0
    assert np.isnan(table.loc["modularity", "images_anew_seconds"])
    assert "scaled" in capsys.readouterr().out
    assert speed.main(["--rows", "0"]) == 2 and "--rows is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "option", "least"),
    [(speed, "threads", 1), (speed, "points", 0), (datasets, "repeats", 1)],
)
def test_a_number_that_is_too_small_is_one_line(script, option, least, capsys):
    assert script.main([f"--{option}", str(least - 1)]) == 2
    assert capsys.readouterr().err == f"error: --{option} is {least - 1}: it must be at least {least}\n"


def test_floating_point_operations_are_those_of_the_layers():
    """A VAE of 500 tanh units on 28 x 28: a product of [B, n] and [n, m] takes 2 B n m of them."""
    work = ways.Work("vae", "shapes3d", {"network": "mlp", "latents": 10}, batch_size=4)
    step, image = table.flop(work, None)
    pixels = 3 * 64 * 64
    encoder = 2 * (pixels * 500 + 500 * 20)
    decoder = 2 * (10 * 500 + 500 * pixels)
    assert image == encoder
    # Backwards every product is taken twice, but for the first one, whose input needs no gradient.
    assert step == 4 * (3 * (encoder + decoder) - 2 * pixels * 500)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "vea"], "unknown model 'vea': did you mean 'vae'?"),
        (["--models", "vae,pca"], "pca takes no training steps whose speed could be measured"),
        (["--datasets", "shapes3d,sprites"], "unknown dataset 'sprites': did you mean 'dsprites'?"),
        (["--threads", "0"], "--threads is 0: it must be at least 1"),
        (["--repeats", "-1"], "--repeats is -1: it must be at least 1"),
    ],
)
def test_wrong_options_of_the_speed_table_are_one_line(arguments, message, capsys, tmp_path):
    assert table.main([*arguments, "--device", "cpu", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {message}"]
    assert not (tmp_path / "out").exists()


def test_both_ways_begin_with_the_same_model_and_learn(monkeypatch):
    monkeypatch.setattr(distributions, "bernoulli", distributions.bernoulli)  # the usual way replaces it
    work = ways.Work("mlvae", "shapes3d", {"network": "mlp", "group_size": 4}, batch_size=8)
    usual = ways.Usual(dataclasses.replace(work, rows=64), "fp32", torch.device("cpu"), None)
    ours = ways.OfDislab(work, "fp32", torch.device("cpu"), None)
    for mine, theirs in zip(ours.model.parameters(), usual.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for way in (usual, ours):
        losses = [way.step().item() for _ in range(30)]
        assert losses[-1] < losses[0]
        way.encode(np.arange(16))


def test_the_usual_way_runs_the_plain_networks_and_dislab_the_fused_ones(monkeypatch):
    monkeypatch.setattr(distributions, "bernoulli", distributions.bernoulli)  # the usual way replaces it
    work = ways.Work("vae", "shapes3d", batch_size=4, rows=64)
    usual, ours = (
        kind(work, "bf16", torch.device("cpu"), None).model for kind in (ways.Usual, ways.OfDislab)
    )
    assert [type(network) for network in usual.children()] == [torch.nn.Sequential] * 2
    assert [type(network) for network in ours.children()] == [Fused] * 2
    assert ours.decoder(torch.zeros(1, 10)).dtype == torch.float32


def test_a_ratio_is_of_readings_that_follow_on_each_other():
    slow_then_fast = {"usual": [4.0, 4.0, 1.0], "ours": [2.0, 2.0, 0.5]}
    assert table.rates(slow_then_fast) == {"usual": 0.2, "ours": 0.5, "ours / usual": 2.0}
    assert table.rates({"usual": [1.0, 9.0, 1.0], "ours": [1.0, 3.0, 2.0]})["ours / usual"] == 1.0


def test_models_side_by_side_are_trained_at_the_same_time(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    work = ways.Work("vae", "shapes3d", {"network": "mlp"}, batch_size=8, rows=64)
    with contextlib.closing(WayProcesses(2, "ours", ways.OfDislab, "fp32", "cpu", None, threads=2)) as both:
        both.ask("begin", work)
        readings, (one, same) = both.ask("steps", 3), both.ask("losses", 4, 2)
        assert all(0 < cpu <= 1.5 * seconds for seconds, cpu in readings) and one == same and len(one) == 2
        assert min(both.ask("memory")) > 50
        with pytest.raises(dislab.DislabError, match="unknown model 'vea'"):
            both.ask("begin", dataclasses.replace(work, model="vea"))


def test_the_usual_way_draws_groups_of_one_class():
    labels = np.repeat([3, 5, 9], 10)
    batches = iter(ways.Sampler(labels, batch_size=10, size=4, seed=0))
    for _ in range(20):
        drawn = next(batches)
        assert len(drawn) == 10
        for begin in (0, 4, 8):
            group = drawn[begin : begin + 4]
            assert len(set(labels[group])) == 1 and len(set(group)) == len(group)


@pytest.mark.parametrize("kind", [ways.Usual, ways.OfDislab])
def test_more_images_are_encoded_than_a_dataset_has(monkeypatch, kind):
    monkeypatch.setattr(distributions, "bernoulli", distributions.bernoulli)  # the usual way replaces it
    work = ways.Work("vae", "shapes3d", {"network": "mlp"}, batch_size=4, rows=8)
    way = kind(work, "fp32", torch.device("cpu"), None)
    way.encode(np.arange(479_998, 480_002))  # Shapes3D has 480,000


class Idle(ways.Usual):
    """A way that takes its steps at once."""

    def __init__(self, *_):
        pass

    def step(self) -> torch.Tensor:
        return torch.zeros(())


def test_a_process_that_ends_is_named_with_what_it_did_last():
    with contextlib.closing(WayProcess("dislab bf16", Idle, "fp32", "cpu", None, 1)) as process:
        process.start("begin", ways.Work("vae", "shapes3d", {"network": "mlp"}, batch_size=8))
        process.answer()
        process.ask("steps", 1)
        process.process.kill()
        process.process.join()
        message = "'dislab bf16' ended; the last it did was 'steps' of vae on shapes3d: exit code -9"
        for _ in range(2):
            with pytest.raises(WayEnded, match=message):
                process.ask("begin", ways.Work("vae", "mnist"))


class Broken(ways.Usual):
    """A way that fails as a GPU does."""

    def __init__(self, *_):
        raise RuntimeError("CUDA error: device-side assert triggered\nand a second line")


def test_an_unexpected_error_ends_a_process_in_one_line(capfd):
    with contextlib.closing(WayProcess("broken", Broken, "fp32", "cpu", None, 1)) as process:
        with pytest.raises(WayEnded) as error:
            process.ask("begin", ways.Work("vae", "mnist"))
        assert "'broken' ended; the last it did was 'begin' of vae on mnist" in str(error.value)
        assert "device-side assert triggered and a second line" in str(error.value)
        with pytest.raises(WayEnded, match="exit code 0"):
            process.ask("peak")
    assert "Traceback" not in capfd.readouterr().err


class Answers:
    """Stands for the connection of `_serve`: sends it tasks, then ends, and keeps the results."""

    def __init__(self, *tasks: tuple):
        self.tasks, self.results = list(tasks), []

    def recv(self) -> tuple:
        if not self.tasks:
            raise EOFError
        return self.tasks.pop(0)

    def send(self, result) -> None:
        self.results.append(result)


@pytest.mark.parametrize(("is_exact", "allows_tf32"), [(False, True), (True, False)])
def test_only_dislab_changes_the_arithmetic_of_torch(is_exact, allows_tf32):
    class Settings:
        def __init__(self, *_):
            seen.append(torch.backends.cudnn.allow_tf32)

    seen, Settings.is_exact = [], is_exact
    connection = Answers(("begin", (None,)))
    processes._serve(connection, Settings, "fp32", "cpu", None, torch.get_num_threads())
    assert seen == [allows_tf32]
    assert not ways.Usual.is_exact and ways.OfDislab.is_exact


def test_the_usual_way_on_a_gpu_is_compared_with_the_peak_of_its_convolutions():
    assert [precision for _, precision in ways.ways_on("cuda").values()] == ["tf32", "tf32", "bf16"]


@pytest.mark.parametrize("pays", [True, False])
def test_bf16_is_left_out_on_a_cpu_that_has_no_instructions_for_it(monkeypatch, pays):
    seconds = iter([[0.2, 0.1], [0.15 if pays else 0.25, 0.3]])
    monkeypatch.setattr(ways.timeit, "repeat", lambda *_, **__: next(seconds))
    assert list(ways.ways_on("cpu")) == ["usual", "dislab fp32", "dislab bf16"][: 2 + pays]


def test_a_peak_is_of_many_products_between_two_waits(monkeypatch):
    monkeypatch.setattr(processes, "PRODUCTS", {"cpu": (16, 20)})
    clock = iter(range(100))
    monkeypatch.setattr(processes.time, "perf_counter", lambda: float(next(clock)))
    connection = Answers(("peak", ()))
    processes._serve(connection, ways.Usual, "bf16", "cpu", None, torch.get_num_threads())
    assert connection.results == [pytest.approx(20 * 2 * 16**3)]  # in one second


def test_ways_take_turns():
    calls = []
    works = {name: lambda name=name: calls.append(name) or len(calls) for name in ("a", "b")}
    assert processes.in_turn(works, 3) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert calls == ["a", "b"] * 3


class Clockwork:
    """Stands for a way's process: a step takes 10 ms (8 of CPU) and 4e9 FLOP, and an image 1 ms."""

    step, flop = 0.01, 4e9

    def ask(self, task: str, argument=None):
        if task == "steps":
            return self.step * argument, 0.8 * self.step * argument
        return 1e-3 * argument if task == "encoding" else self.flop


class Together(Clockwork):
    """Stands for `WayProcesses`: the last of the models takes 20 ms for a step."""

    begun: ClassVar = []

    def __init__(self, number: int, name: str, *_):
        self.number, self.name = number, name

    def ask(self, task: str, argument) -> list:
        if task == "begin":
            self.begun.append((self.name, self.number, argument.members))
        return [(0.01 * argument, 0), (0.02 * argument, 0)] if task == "steps" else []

    def close(self) -> None:
        pass


def test_a_gpu_trains_models_side_by_side(monkeypatch):
    monkeypatch.setattr(table, "WayProcesses", Together)
    options = type("Options", (), {"threads": 4, "repeats": 2, "data_dir": None})
    ask = {"usual": Clockwork()}
    work = ways.Work("vae", "shapes3d")
    (line,) = table.measure_several(work, ask, ways.ways_on("cuda"), "cuda", options)
    assert line["what"] == "training 10 models, side by side"
    assert line["dislab tf32"] == line["dislab bf16"] == 500  # ten models in 20 ms
    assert line["dislab tf32 / usual"] == 5
    assert Together.begun == [("dislab tf32", 1, 10), ("dislab bf16", 1, 10)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_column_of_the_costs_is_explained(monkeypatch, device):
    class Memory(Together):
        def ask(self, task: str, argument=None):
            if task == "begin" and argument.dataset == "mnist":
                raise dislab.DislabError("its files are not here")
            if task == "memory":
                return {0: 100.0, 1: [100.0], 2: [100.0, 200.0]}[self.number]
            return super().ask(task, argument)

    monkeypatch.setattr(cost, "WayProcesses", Memory)
    monkeypatch.setattr(cost, "WayProcess", lambda name, *others: Memory(0, name, *others))
    monkeypatch.setattr(Together, "begun", [])
    options = type("Options", (), {"threads": 2, "data_dir": None, "datasets": "shapes3d,mnist"})
    lines = cost.measure_cost(device, options)
    for column in lines.columns:
        assert f"- {column}:" in columns.__doc__
    assert list(lines[lines["against"] == "dataset"]["value"]) == ["shapes3d"]
    assert (lines["ms_per_step"].dropna() == 20).all()  # the last of the models takes 20 ms
    several = lines[lines["against"] == "models side by side"]
    assert list(several["value"]) == ([1, 2] if device == "cpu" else [1, 4, 16, 32])
    assert list(several["peak_mb"])[1] == (300 if device == "cpu" else 100)
    cost.plot_cost(lines, "a machine")


@pytest.mark.parametrize("threads", [1, 2])
def test_every_column_of_the_table_is_explained(threads):
    ask = {"usual": Clockwork(), "dislab fp32": Clockwork()}
    options = type("Options", (), {"threads": threads, "repeats": 2, "data_dir": None})
    work = ways.Work("vae", "shapes3d", {"network": "mlp"})
    training, encoding = table.measure_training(work, ask, dict.fromkeys(ask, 1e12), "cpu", options)
    assert training["usual"] == 100 and encoding["dislab fp32"] == 1000
    assert training["dislab fp32 / usual"] == 1
    assert training.get("usual, CPU ms") == (8.0 if threads == 1 else None)
    for column in {**training, **encoding}:
        explained = column.replace("dislab fp32", "WAY").replace("usual, ", "WAY, ")
        assert f"- {'WAY' if explained == 'usual' else explained}:" in columns.__doc__, column


def test_the_phases_of_a_command(tmp_path, monkeypatch, capsys):
    for name in command.PHASES:
        monkeypatch.setattr(command.perform, name, getattr(command.perform, name))  # restored afterwards
    rng = np.random.default_rng(0)
    for group in ("cat", "dog"):
        (tmp_path / group).mkdir()
        for index in range(16):
            pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / group / f"{index}.png")
    options = ["--dataset", str(tmp_path), "--model", "mlvae", "--set", "network=mlp", "--steps", "2"]
    assert command.main([*options, "--metrics", "content_accuracy", "--device", "cpu"]) == 0
    seconds = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(seconds) == {"imports", "rest", *command.PHASES.values()}
    assert min(seconds.values()) >= 0 and seconds["training"] > 0 and seconds["pictures"] > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_every_column_of_the_peers_is_explained(threads, capsys):
    processes = {
        "usual": Clockwork(),
        "dislab fp32": Clockwork(),
        "disent 0": Clockwork(),
        "pythae 0": Clockwork(),
    }
    processes["disent 0"].step, processes["disent 0"].flop = 0.03, 6e9
    processes["pythae 0"].ask = lambda _, work: peers.name_of(peers.Pythae, work)
    kinds = {"usual": ways.Usual, "dislab fp32": ways.OfDislab, "disent 0": peers.Disent}
    options = type("Options", (), {"threads": threads, "repeats": 2})
    kinds = {name: (kind, "fp32") for name, kind in kinds.items()}
    lines = peers._lines_of("mlvae", processes, kinds, "cpu", options)
    assert [line["class"] for line in lines] == ["MLVAE", "MLVAE", "AdaVae"]
    disent = lines[-1]
    assert disent["time / dislab fp32"] == 3 and disent["time per FLOP / dislab fp32"] == 2
    assert disent["GFLOP per step"] == 6 and disent["steps/s"] == 33.33
    assert disent.get("CPU ms per step") == (24 if threads == 1 else None)
    for column in disent:
        assert f"- {column.replace('dislab fp32', 'OURS')}:" in columns.__doc__
    assert "pythae 0, mlvae: left out: it has no such model" in capsys.readouterr().err


def test_peers_that_are_not_installed_are_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peers, "PEERS", {"no_such_library": None})
    assert table.main(["--peers", "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: none of no_such_library is installed: pip install no_such_library\n"
    )
    with pytest.raises(dislab.DislabError, match="no_such_library cannot be imported: ModuleNotFoundError"):
        peers.of_library("no_such_library")


@pytest.mark.parametrize(
    ("library", "model"), [("pythae", "vae"), ("pythae", "betatcvae"), ("disent", "vae"), ("disent", "mlvae")]
)
def test_a_peer_learns(library, model):
    pytest.importorskip(library)
    work = ways.Work(model, "shapes3d", {"network": peers.NETWORK}, batch_size=8, rows=64)
    way = peers.PEERS[library](work, "fp32", torch.device("cpu"), None)
    losses = [way.step().item() for _ in range(30)]
    assert losses[-1] < losses[0]
    with pytest.raises(dislab.DislabError, match="it has no such model"):
        peers.name_of(way, dataclasses.replace(work, model="mlvae_svi"))
