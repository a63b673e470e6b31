"""Runs whose models are trained at once: ordinary runs, with the numbers of runs trained alone."""

import math

import numpy as np
import pytest
import torch
from conftest import make_tiny_dataset
from torch import nn

import dislab
from dislab.models.vae import VAE
from dislab.registry import register_dataset, register_model
from dislab.runs import execute, perform
from dislab.runs.images import forget_images
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.runs.resolve import resolve
from dislab.studies.file import read_study
from dislab.studies.study import run_study

TRAINING = {"protocol": "quick", "steps": 30, "batch_size": 8, "metrics": ["mig"]}
SETTING = TRAINING | {"network": "mlp"}


@pytest.fixture(autouse=True)
def registered(isolated, no_pictures):
    """Registries and images are as before after each test."""
    yield
    forget_images()


@pytest.fixture
def two_at_once(monkeypatch):
    """Models are trained at once as on a GPU, two at a time."""
    most_at_once = perform.most_at_once
    monkeypatch.setattr(execute, "most_at_once", lambda configs, _: min(2, most_at_once(configs, "cuda")))


def run_several(variants: list[dict], model: str, dataset, out, **settings) -> list[dislab.Run | str]:
    """The finished run of each variant, or the line that says why it failed."""
    machine = Machine.here("cpu", out=out)
    configs = [resolve(model, dataset, machine, **settings, **variant) for variant in variants]
    outcomes = {outcome.digest: outcome for outcome in execute.execute(configs, machine)}
    results = Results(out)
    return [outcomes[config.digest].failure or results.find(config.digest) for config in configs]


def variants(seeds: list[int]) -> list[dict]:
    return [{"seed": seed, "network": "mlp"} for seed in seeds]


def at_once(runs: list[dislab.Run]) -> list[int]:
    return [run.record["timings"]["trained_at_once"] for run in runs]


def files_of(run: dislab.Run) -> set[str]:
    return {path.name for path in run.path.iterdir()}


def test_seeds_at_once_are_ordinary_runs(tmp_path, tiny_dataset, two_at_once):
    alone = dislab.run("vae", tiny_dataset, seed=2, out=tmp_path / "alone", **SETTING)
    runs = run_several(variants([2, 0, 5]), "vae", tiny_dataset, tmp_path / "several", **TRAINING)
    assert [run.config.seed for run in runs] == [2, 0, 5]
    assert at_once(runs) == [2, 2, 1]
    assert runs[0].config == alone.config
    assert all(files_of(run) == files_of(alone) for run in runs)
    assert runs[0].path.relative_to(tmp_path / "several") == alone.path.relative_to(tmp_path / "alone")
    np.testing.assert_array_equal(runs[0].codes.mean, alone.codes.mean)
    np.testing.assert_array_equal(runs[0].history, alone.history)
    assert not np.allclose(runs[1].codes.mean, alone.codes.mean, atol=0.02)


def test_finished_seeds_are_not_trained_again(tmp_path, tiny_dataset, two_at_once, monkeypatch):
    (before,) = run_several(variants([1]), "vae", tiny_dataset, tmp_path, **TRAINING)
    trained, train_members = [], perform.train_members

    def noted(members, *others):
        trained.append(len(members))
        train_members(members, *others)

    monkeypatch.setattr(perform, "train_members", noted)
    runs = run_several(variants([0, 1, 2]), "vae", tiny_dataset, tmp_path, **TRAINING)
    assert trained == [2]
    assert [run.config.seed for run in runs] == [0, 1, 2]
    assert runs[1].record == before.record


def test_a_seed_that_fails_does_not_stop_the_others(tmp_path, tiny_dataset, two_at_once):
    @register_model("fails_with_seed_1")
    class FailsWithSeed1(VAE):
        def __init__(self, image_shape):
            super().__init__(image_shape, network="mlp", latents=3)
            if torch.initial_seed() == 1:
                nn.init.constant_(self.encoder[-1].bias, math.inf)

    seeds = [{"seed": seed} for seed in range(3)]
    first, failed, last = run_several(seeds, "fails_with_seed_1", tiny_dataset, tmp_path, **TRAINING)
    assert "noticed at step 25" in failed
    assert first.scores and last.scores
    with pytest.raises(dislab.RunFailed, match="noticed at step 25"):
        dislab.run("fails_with_seed_1", tiny_dataset, seed=1, out=tmp_path, **TRAINING)


@pytest.mark.parametrize(
    ("model", "settings"), [("mlvae_svi", {"inference_steps": 2}), ("vae", {"precision": "bf16"})]
)
def test_every_model_and_precision_is_trained_side_by_side(
    tmp_path, tiny_dataset, two_at_once, model, settings
):
    alone = dislab.run(model, tiny_dataset, out=tmp_path / "alone", **settings, **SETTING)
    runs = run_several(variants([0, 1]), model, tiny_dataset, tmp_path / "both", **settings, **TRAINING)
    assert at_once(runs) == [2, 2]
    np.testing.assert_array_equal(runs[0].codes.mean, alone.codes.mean)


def test_a_sweep_of_a_weight_is_trained_at_once(tmp_path, tiny_dataset, two_at_once):
    sweep = [{"seed": 0, "beta": beta, "network": "mlp"} for beta in (1.0, 8.0)]
    runs = run_several(sweep, "betavae", tiny_dataset, tmp_path / "several", **TRAINING)
    assert at_once(runs) == [2, 2]
    for run, beta in zip(runs, (1.0, 8.0), strict=True):
        alone = dislab.run("betavae", tiny_dataset, beta=beta, out=tmp_path / "alone", **SETTING)
        assert run.config == alone.config
        np.testing.assert_array_equal(run.codes.mean, alone.codes.mean)
    assert not np.allclose(runs[0].codes.mean, runs[1].codes.mean, atol=0.02)


STUDY = """
steps = 30
batch_size = 8
metrics = ["mig"]
figures = []
[[runs]]
model = "betavae"
dataset = "small_bars"
seeds = [0, 1]
set = { latents = 4, beta = [1, 8], network = "mlp" }
[[runs]]
model = "betavae"
dataset = "small_bars"
set = { latents = 5, beta = [1, 8], network = "mlp" }
[[runs]]
model = "vae"
dataset = "small_bars"
set = { latents = 5, network = "mlp" }
"""


def test_a_study_trains_seeds_and_weights_at_once(tmp_path, monkeypatch):
    @register_dataset("small_bars")
    def small_bars(source, data_dir, device):
        dataset = make_tiny_dataset()
        dataset.name = "small_bars"
        return dataset

    most_at_once = perform.most_at_once
    monkeypatch.setattr(execute, "most_at_once", lambda configs, _: most_at_once(configs, "cuda"))
    (tmp_path / "sweep.toml").write_text(STUDY)
    outcome = run_study(read_study(tmp_path / "sweep.toml"), Machine(out=str(tmp_path / "out")))
    assert not outcome.failures
    assert at_once(outcome.runs) == [4, 4, 4, 4, 2, 2, 1]
