"""Loggers and callbacks: they see each reading of the loss terms once, and change nothing of a run."""

from importlib.util import find_spec

import pytest
from conftest import one_line

import dislab
from dislab.runs.machine import Machine
from dislab.training import loggers

SETTINGS = {"steps": 60, "batch_size": 16, "network": "mlp", "metrics": ["mig"]}


def test_a_callback_is_called_with_what_the_history_has(tiny_dataset, tmp_path, no_pictures):
    calls = []
    watched = dislab.run(
        "vae",
        tiny_dataset,
        out=tmp_path / "a",
        callbacks=[lambda step, values: calls.append((step, values))],
        **SETTINGS,
    )
    assert [step for step, _ in calls] == [25, 50, 60]
    for (_, values), (_, line) in zip(calls, watched.history.iterrows(), strict=True):
        assert values == pytest.approx(dict(line.drop("step")), rel=1e-5)
    alone = dislab.run("vae", tiny_dataset, out=tmp_path / "b", **SETTINGS)
    assert alone.scores == watched.scores and alone.record["digest"] == watched.record["digest"]


def test_an_unknown_logger_or_a_missing_package_is_one_line_before_training(monkeypatch):
    with pytest.raises(dislab.DislabError, match="tensorboard") as error:
        Machine.here("cpu", log=["tensorbord"])
    assert "tensorbord" in one_line(error)
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(dislab.DislabError) as error:
        Machine.here("cpu", log=["wandb"])
    assert one_line(error) == "the logger wandb needs the package wandb: pip install 'dislab[wandb]'"


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="the package tensorboard is not installed")
def test_a_log_of_tensorboard_goes_on_after_a_kill(tmp_path):
    """Step 50 was logged before the kill, and again after it: it is there once, with the later value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps, value in (((25, 50), 1.0), ((50, 75), 2.0)):
        with loggers.opened(["tensorboard"], tmp_path, "a run", {"digest": "d"}) as (log,):
            for step in steps:
                log(step, {"loss": value})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(25, 1.0), (50, 2.0), (75, 2.0)]


@pytest.mark.skipif(find_spec("wandb") is None, reason="the package wandb is not installed")
def test_wandb_logs_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert loggers.check_loggers(["wandb", "wandb"]) == ("wandb",)
    with loggers.opened(["wandb"], tmp_path, "a run", {"digest": "d1"}) as (log,):
        log(25, {"loss": 1.0})
    assert list(tmp_path.glob("wandb/offline-run-*-d1/*.wandb"))


@pytest.mark.skipif(find_spec("wandb") is None, reason="the package wandb is not installed")
def test_wandb_without_a_key_is_one_line_before_training(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(dislab.DislabError, match="WANDB_MODE=offline") as error:
        Machine.here("cpu", log=["wandb"])
    one_line(error)
