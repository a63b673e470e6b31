"""The one training loop, with checkpoints from which a killed run goes on to the same result."""

from __future__ import annotations

import ctypes
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from dislab.errors import RunFailed
from dislab.progress import Bar, say
from dislab.training.batches import Batches
from dislab.training.checkpoint import History, Member
from dislab.training.protocol import Protocol
from dislab.training.steps import CannotStack, CapturedSteps, SingleSteps, StackedSteps

TRAINING = "training"  # title of the progress bar of a single model
LOG_EVERY = 25  # steps between two readings of the loss terms
SECONDS_BETWEEN_CHECKPOINTS = 30
FREED_MEMORY_KEPT = 512 << 20  # bytes


def train(
    model: nn.Module, batches: Batches, protocol: Protocol, checkpoint: Path, quiet: bool = True
) -> History:
    """Train a model in place with Adam; resumes from `checkpoint` where that file exists.

    Seeds decide everything: the random state is that of `batches.generator`, which the checkpoint holds, so a
    run that was interrupted gives the same parameters as one that was not. (On CUDA within
    `dislab.precision.arithmetic`, which makes sums repeatable.)

    Raises
    ------
    RunFailed : a loss term is NaN or infinite.
    """
    member = Member(model, batches, checkpoint)
    train_stack([member], protocol, quiet)
    if member.failure:
        raise member.failure
    return member.history


def train_stack(members: Sequence[Member], protocol: Protocol, quiet: bool = True) -> None:
    """Train several models of one architecture in place, at once, each from its checkpoint where it has one.

    Every member has its own random state, history and checkpoint, and the same numbers as if it were trained
    alone, but for rounding. Members may differ in their seed and in attributes that are floats (a weight of
    the loss). A member whose loss is no longer finite is left behind with its `failure`, the others go on.
    Members that are behind the others (their process was killed between two checkpoints) catch up first.
    """
    keep_freed_memory()
    for member in members:
        member.resume(protocol.learning_rate)
    while True:
        going = [one for one in members if one.failure is None and one.done < protocol.steps]
        if not going:
            break
        done = min(one.done for one in going)
        until = min((one.done for one in going if one.done > done), default=protocol.steps)
        together = [one for one in going if one.done == done]
        for steps in steps_of(together, protocol.learning_rate, quiet):
            _train(steps, until, protocol, quiet)
    for member in members:
        member.model.eval()


def steps_of(
    members: Sequence[Member], learning_rate: float, quiet: bool
) -> Iterator[SingleSteps | StackedSteps | CapturedSteps]:
    """What takes the members' steps: all at once, or one after the other where they cannot be stacked."""
    try:
        stack = [StackedSteps(members, learning_rate)] if len(members) > 1 else None
    except CannotStack as error:
        say(f"the models are trained one after the other, not at once: {error}", quiet)
        stack = None
    for steps in stack or map(SingleSteps, members):
        yield CapturedSteps(steps, quiet) if steps.number.is_cuda else steps


def _train(steps: SingleSteps | StackedSteps | CapturedSteps, until: int, protocol: Protocol, quiet: bool):
    """The training loop: from where the members are to so many steps done."""
    members, done = steps.members, steps.members[0].done
    for member in members:
        member.at_once = len(members)
    first, began = done, time.monotonic()
    saved, before = began, [member.history.seconds for member in members]
    title = TRAINING if len(members) == 1 else f"training {len(members)} models"

    def save() -> None:
        for member, seconds in zip(members, before, strict=True):
            if member.failure is None:
                member.done = done
                member.history.seconds = seconds + time.monotonic() - began
                member.save()

    with (
        Bar(title, protocol.steps, start=done, quiet=quiet) as bar,
        _interrupt_between_steps() as interrupted,
    ):
        while done < until and not interrupted:
            terms = steps.step()
            done += 1
            if done % LOG_EVERY == 0 or done == protocol.steps:
                _log(members, terms, done)
                going = [member for member in members if member.failure is None]
                if not going:
                    return
                now = time.monotonic()
                speed = (done - first) * protocol.batch_size * len(members) / (now - began)
                bar.update(done, f"{_summary(going[0].history)}  {speed:,.0f} images/s")
                if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    save()
                    saved = now
    save()
    if interrupted:
        raise KeyboardInterrupt


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors, where its C library is glibc.

    Every step frees the tensors that the next one asks for again. By default their pages go back to the
    system in between and come back zeroed, which was measured at 15 % of a training step on the CPU.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)  # the largest that all versions take
        libc.mallopt(trim_threshold, FREED_MEMORY_KEPT)


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


def _log(members: Sequence[Member], terms: Mapping[str, Tensor], done: int) -> None:
    """Add the terms, one value or [M] each, to the members' histories; note where one is not finite."""
    values = torch.stack([value.detach().double().reshape(-1) for value in terms.values()]).T.tolist()
    for member, row in zip(members, values, strict=True):
        if member.failure is not None:
            continue
        # The total is named last: it is the term that makes it NaN that tells something.
        for name, value in sorted(zip(terms, row, strict=True), key=lambda pair: pair[0] == "loss"):
            if not math.isfinite(value):
                cause = f"training failed: the loss term '{name}' is {value}, noticed at step {done}"
                member.failure = RunFailed(cause)
                break
        else:
            member.history.terms = list(terms)
            member.history.rows.append([done, *row])
