"""The training loop. A training that was killed resumes from its checkpoint to the same result."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import nn

from dislab.progress import Bar
from dislab.signals import held_back
from dislab.training.checkpoint import History, Member
from dislab.training.protocol import Protocol
from dislab.training.steps import CapturedSteps, ParallelSteps, SingleSteps

LOG_EVERY = 25  # steps between two readings of the loss terms
SECONDS_BETWEEN_CHECKPOINTS = 30
FREED_MEMORY_KEPT = 512 << 20  # bytes

Steps = SingleSteps | ParallelSteps | CapturedSteps


def train_members(members: Sequence[Member], protocol: Protocol, quiet: bool = True) -> None:
    """Train several models of one architecture at once and in place, each from its checkpoint.

    Every member gets the same numbers as if it were trained alone. The checkpoint holds the random state, so
    a training that was interrupted gives the same parameters as one that was not; on CUDA both need
    `precision.arithmetic`, which makes sums repeatable. A member whose loss is no longer finite gets a
    `failure`; the others go on. Members that are behind the others, because their process was killed between
    two checkpoints, catch up first.
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
        _train(steps_of(together, protocol, quiet), until, protocol, quiet)
    for member in members:
        if member.validation is not None:
            member.validation.restore(member.model)
        member.model.eval()


def steps_of(members: Sequence[Member], protocol: Protocol, quiet: bool) -> Steps:
    """Return what takes the steps of the members, on CUDA as a graph.

    Several models are trained side by side, which takes every model, in every precision, and gives it the
    numbers that it gets alone. In the same kernels (vmap) ten were measured at 1.6 times the time on an H100:
    all convolutions become grouped ones, for which cuDNN is slow.
    """
    steps = SingleSteps(members[0], protocol) if len(members) == 1 else ParallelSteps(members, protocol)
    return CapturedSteps(steps, quiet) if steps.number.is_cuda else steps


def show_dataset(model: nn.Module, dataset, seed: int) -> None:
    """Let a model that is trained by steps look at the dataset, if it asks for that.

    It has random numbers of its own, so that the batches and the initial parameters stay as they are.
    """
    if model.look_at is not None:
        model.look_at(dataset, dataset.train_rows(), torch.Generator().manual_seed(seed))


def fit(model: nn.Module, dataset, generator: torch.Generator) -> History:
    """Fit a model with the supervision "none" to the dataset's training rows, in place."""
    began = time.monotonic()
    with torch.inference_mode():
        model.fit(dataset, dataset.train_rows(), generator)
    model.eval()
    return History(seconds=time.monotonic() - began)


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors, if its C library is glibc.

    Every step frees the tensors that the next one asks for again. By default their pages go back to the
    system in between and come back zeroed, which was measured at 15 % of a training step on the CPU.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)  # the largest that all versions take
        libc.mallopt(trim_threshold, FREED_MEMORY_KEPT)


def _train(steps: Steps, until: int, protocol: Protocol, quiet: bool) -> None:
    """Take steps until `until` of them are done, log the loss terms and save checkpoints."""
    members, done = steps.members, steps.members[0].done
    for member in members:
        member.at_once = len(members)
    first, began = done, time.monotonic()
    saved, before = began, [member.history.seconds for member in members]
    title = "training" if len(members) == 1 else f"training {len(members)} models"

    def save() -> None:
        for member, seconds in zip(members, before, strict=True):
            if member.failure is None:
                member.done = done
                member.history.seconds = seconds + time.monotonic() - began
                member.save()

    # A signal waits until the step is whole and saved. If it does not end the program, training goes on.
    with Bar(title, protocol.steps, start=done, quiet=quiet) as bar, held_back() as signals:
        while done < until and not signals:
            terms = steps.step()
            done += 1
            if protocol.validate and (done % protocol.validate == 0 or done == protocol.steps):
                for member in members:
                    if member.validation is not None and member.failure is None:
                        member.validation.look(member.model, done)
            if done % LOG_EVERY == 0 or done == protocol.steps:
                # One value or [M] of each term, copied from the device at once.
                rows = torch.stack(
                    [value.detach().double().reshape(-1) for value in terms.values()]
                ).T.tolist()
                for member, row in zip(members, rows, strict=True):
                    if member.failure is None:
                        member.log(done, list(terms), row)
                going = [member for member in members if member.failure is None]
                if not going:
                    return
                now = time.monotonic()
                speed = (done - first) * protocol.batch_size * len(members) / (now - began)
                history = going[0].history
                last = list(zip(history.terms, history.rows[-1][1:], strict=True))[:4]
                note = "  ".join(f"{name} {value:.4g}" for name, value in last)
                bar.update(done, f"{note}  {speed:,.0f} images/s")
                if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    save()
                    saved = now
        save()
