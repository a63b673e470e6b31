"""The one training loop, with checkpoints from which a killed run goes on to the same result."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dislab.batches import Batches
from dislab.errors import DislabError, RunFailed
from dislab.progress import Bar
from dislab.protocols import Protocol

LOG_EVERY = 25  # steps between two readings of the loss terms
SECONDS_BETWEEN_CHECKPOINTS = 30


@dataclass
class History:
    """Loss terms over the steps: one row per reading, step first, and the seconds spent training."""

    terms: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0

    def write_csv(self, path: Path) -> None:
        lines = [",".join(["step", *self.terms])]
        lines += [",".join([str(int(row[0])), *(f"{value:.6g}" for value in row[1:])]) for row in self.rows]
        write_atomically(path, ("\n".join(lines) + "\n").encode())


def train(
    model: torch.nn.Module,
    batches: Batches,
    protocol: Protocol,
    checkpoint: Path,
    quiet: bool = True,
) -> History:
    """Train a model in place with Adam; resumes from `checkpoint` where that file exists.

    Seeds decide everything: the random state is that of `batches.generator`, which the checkpoint holds, so a
    run that was interrupted gives the same parameters as one that was not.

    Raises
    ------
    RunFailed : a loss term is NaN or infinite.
    """
    device = batches.device
    if device.type == "cuda":  # sums by atomic additions would differ from run to run
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=protocol.learning_rate, fused=True)
    history = History()
    done = load_checkpoint(checkpoint, model, optimiser, batches.generator, history)
    step = torch.tensor(float(done), device=device)
    model.train()
    before, began = history.seconds, time.monotonic()
    saved, first = began, done
    with (
        Bar("training", protocol.steps, start=done, quiet=quiet) as bar,
        _interrupt_between_steps() as interrupted,
    ):
        while done < protocol.steps and not interrupted:
            terms = model.loss(batches.draw(), step)
            optimiser.zero_grad(set_to_none=True)
            terms["loss"].backward()
            optimiser.step()
            step += 1
            done += 1
            if done % LOG_EVERY == 0 or done == protocol.steps:
                _log(history, terms, done)
                now = time.monotonic()
                history.seconds = before + now - began
                speed = (done - first) * protocol.batch_size / (now - began)
                bar.update(done, f"{_summary(history)}  {speed:,.0f} images/s")
                if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    save_checkpoint(checkpoint, model, optimiser, batches.generator, history, done)
                    saved = now
    history.seconds = before + time.monotonic() - began
    save_checkpoint(checkpoint, model, optimiser, batches.generator, history, done)
    if interrupted:
        raise KeyboardInterrupt
    model.eval()
    return history


def fit(model: torch.nn.Module, dataset, generator: torch.Generator) -> History:
    """Fit a model that takes no gradient steps (batch = "none") to the dataset's training rows, in place."""
    began = time.monotonic()
    with torch.inference_mode():
        model.fit(dataset, dataset.train_rows(), generator)
    model.eval()
    return History(seconds=time.monotonic() - began)


@contextmanager
def _interrupt_between_steps():
    """Hold back Ctrl-C until a step is whole: yields a list that is no longer empty once it was pressed."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _summary(history: History) -> str:
    """The first loss terms of the last reading, for the progress bar."""
    return "  ".join(
        f"{name} {value:.1f}"
        for name, value in list(zip(history.terms, history.rows[-1][1:], strict=True))[:4]
    )


def _log(history: History, terms: Mapping[str, Tensor], done: int) -> None:
    values = torch.stack([value.detach().double() for value in terms.values()]).tolist()
    # The total is named last: it is the term that makes it NaN that tells something.
    for name, value in sorted(zip(terms, values, strict=True), key=lambda pair: pair[0] == "loss"):
        if not math.isfinite(value):
            raise RunFailed(f"training failed: the loss term '{name}' is {value}, noticed at step {done}")
    history.terms = list(terms)
    history.rows.append([done, *values])


def save_checkpoint(
    path: Path, model, optimiser, generator: torch.Generator, history: History, done: int
) -> None:
    """Write parameters, optimiser, random state and history to one file, in place of the last one."""
    from safetensors.torch import save

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    tensors["generator"] = generator.get_state()
    if history.rows:
        tensors["history"] = torch.tensor(history.rows, dtype=torch.float64)
    about = {
        "step": str(done),
        "device": generator.device.type,
        "terms": json.dumps(history.terms),
        "seconds": repr(history.seconds),
    }
    write_atomically(path, save({name: value.cpu().contiguous() for name, value in tensors.items()}, about))


def load_checkpoint(path: Path, model, optimiser, generator: torch.Generator, history: History) -> int:
    """Restore what `save_checkpoint` wrote and return the number of steps done; 0 without a checkpoint."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DislabError(f"'{path}' is damaged, delete it to train anew: {error}") from None
    if about["device"] != generator.device.type:
        raise DislabError(
            f"the run was begun on {about['device']}: go on there (--device), or delete '{path}'"
        )
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    history.terms = json.loads(about["terms"])
    history.rows = tensors["history"].tolist() if "history" in tensors else []
    history.seconds = float(about["seconds"])
    return int(about["step"])


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, so that it is whole whenever the program ends."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunFailed(f"cannot write '{path}': {error.strerror}") from error
    finally:
        with suppress(OSError):  # it was moved, or could not be made
            temporary.unlink()
