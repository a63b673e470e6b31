"""Ways to take a training step: of one model, or of several models side by side (CUDA streams); and either of
them captured as a CUDA graph.

Each has the method `step()`, which takes one step of every member and returns the terms of the loss without
waiting for the device, and the attributes `members` and `number`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dislab.networks.adam import Adam
from dislab.progress import say
from dislab.training.batches import Batch, batch_of, draw_together
from dislab.training.checkpoint import Member
from dislab.training.model import check_adversary_loss, check_terms
from dislab.training.protocol import Protocol

EAGER_STEPS = 3  # before a CUDA graph is captured: by then everything that is allocated once exists


class SingleSteps:
    """The training steps of one model."""

    def __init__(self, member: Member, protocol: Protocol):
        self.members, self.protocol = [member], protocol
        self.model, self.optimiser, self.adversary = member.model, member.optimiser, member.adversary
        self.against = 0 if self.adversary is None else member.model.adversary_steps or 1
        self.batches = member.batches
        # The number of the step that the loss gets lies on the device, where nothing waits for it.
        self.number = torch.tensor(float(member.done), device=member.batches.device)
        self.terms: list[str] | None = None  # names of the terms of the last step

    def step(self) -> dict[str, Tensor]:
        """Take one training step. Return the terms of the loss, still on the device."""
        return self.take(self.draw())

    def draw(self) -> list[Batch]:
        """Return the batches of the next step: the model's, and one for each step of its adversary."""
        return [self.batches.draw() for _ in range(1 + self.against)]

    def take(self, batches: Sequence[Batch], update: bool = True) -> dict[str, Tensor]:
        """Take a step with these batches, or only compute its gradients. Return the terms of the loss."""
        with self._training(self.optimiser):
            terms = self.model.loss(batches[0], self.number.clone())  # `step /= 2` would change the number
            check_terms(self.model, terms, self.terms)
            self.terms = list(terms)
            self._descend(self.optimiser, terms["loss"], update)
        for other in batches[1:]:
            with self._training(self.adversary):
                loss = self.model.adversary_loss(batches[0], other, self.number.clone())
                check_adversary_loss(self.model, loss)
                self._descend(self.adversary, loss, update)
            terms = {**terms, "adversary_loss": loss}
        if update:
            self.number += 1
        return terms

    def _descend(self, optimiser: Adam, loss: Tensor, update: bool) -> None:
        """Compute the gradients of a loss, and change the parameters of an optimiser by them."""
        optimiser.zero_grad()
        loss.backward()
        if update:
            if optimiser is self.optimiser and self.protocol.warmup is not None:
                optimiser.rate.copy_(self.protocol.rate(self.number))
            optimiser.step()

    @contextmanager
    def _training(self, optimiser: Adam) -> Iterator[None]:
        """Let only the parameters of this optimiser have gradients, if the model has an adversary."""
        both = {self.optimiser, self.adversary} if self.against else set()
        frozen = [one for other in both - {optimiser} for one in other.parameters]
        frozen = [one for one in frozen if one.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)


class ParallelSteps:
    """The training steps of M models, each on a CUDA stream of its own; elsewhere one after the other.

    Every member has the kernels that it has alone, and so gets the same numbers to the last bit. As a CUDA
    graph the streams are branches, of which the device works on as many at a time as it has room for.
    """

    def __init__(self, members: Sequence[Member], protocol: Protocol):
        self.members = list(members)
        self.steps = [SingleSteps(member, protocol) for member in members]
        self.number = self.steps[0].number
        self.streams = [torch.cuda.Stream(self.number.device) for _ in members if self.number.is_cuda]

    step = SingleSteps.step

    def draw(self) -> list[Batch]:
        """Return the batches of every member's next step, each as one batch."""
        streams = [member.batches for member in self.members]
        return [draw_together(streams) for _ in range(1 + self.steps[0].against)]

    def take(self, batches: Sequence[Batch], update: bool = True) -> dict[str, Tensor]:
        """Take a step with these batches, or only compute its gradients. Return the terms [M]."""
        terms = self._each(
            lambda index: self.steps[index].take([batch_of(batch, index) for batch in batches], update)
        )
        return {name: torch.stack([one[name].detach().reshape(()) for one in terms]) for name in terms[0]}

    def _each(self, work: Callable[[int], object]) -> list:
        """Return the work of every member, done on its stream."""
        results = []
        with _forked(self.streams):
            for index, stream in enumerate(self.streams or [None] * len(self.members)):
                with torch.cuda.stream(stream):
                    results.append(work(index))
        return results


class CapturedSteps:
    """The steps of one model or of several as one CUDA graph, captured after a few ordinary steps.

    The generators are registered with the graph, so the random numbers are those of the ordinary steps.
    Images that do not lie on the device are drawn outside of the graph.
    """

    def __init__(self, steps: SingleSteps | ParallelSteps, quiet: bool):
        self.steps, self.members, self.number, self.quiet = steps, steps.members, steps.number, quiet
        self.stream = torch.cuda.Stream(self.number.device)
        self.taken = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        # The memory from which the graph reads the batches, if they are drawn outside of it.
        self.drawn: list[Batch] | None = None
        self.terms: dict[str, Tensor] = {}

    def step(self) -> dict[str, Tensor]:
        """Take one training step. Return the terms of the loss, still on the device."""
        if self.taken == EAGER_STEPS:
            self._capture()
        self.taken += 1
        if self.graph is None:
            with _forked([self.stream]), torch.cuda.stream(self.stream):
                return self.steps.step()
        if self.drawn is not None:
            for target, tensor in zip(_tensors(self.drawn), _tensors(self.steps.draw()), strict=True):
                target.copy_(tensor)
        self.graph.replay()
        return self.terms

    def _capture(self) -> None:
        """Capture the graph, which takes no step itself. If that fails, say so and go on without."""
        drawn_inside = self._failure(self.steps.draw) is None
        with _state_kept(self.members):
            drawn = None if drawn_inside else self.steps.draw()
        failure = self._failure(lambda: self.steps.take(drawn or self.steps.draw(), update=False))
        if failure is None:
            states = [member.batches.generator.get_state() for member in self.members]
            graph = torch.cuda.CUDAGraph()
            for member in self.members:
                graph.register_generator_state(member.batches.generator)
            usual = torch.cuda.current_stream(self.stream.device)
            try:
                with torch.cuda.device(self.stream.device), torch.cuda.graph(graph, stream=self.stream):
                    terms = self.steps.take(drawn or self.steps.draw())
                self.graph, self.drawn, self.terms = graph, drawn, terms
                return
            except Exception as error:  # a model's own code may raise anything here
                failure = error
                # If the end of the capture fails, torch stays on the stream of the graph.
                torch.cuda.set_stream(usual)
                # The old generators stay registered with the failed graph.
                for member, state in zip(self.members, states, strict=True):
                    member.batches.generator = torch.Generator(self.number.device)
                    member.batches.generator.set_state(state)
        say(f"CUDA graph capture failed; training without it (slower): {_first_line(failure)}", self.quiet)

    def _failure(self, work: Callable[[], object]) -> Exception | None:
        """Return what `work` raises if the host may not wait for the device. It leaves no trace."""
        try:
            with (
                _state_kept(self.members),
                _waiting_refused(),
                _forked([self.stream]),
                torch.cuda.stream(self.stream),
            ):
                work()
        except Exception as error:
            return error
        return None


@contextmanager
def _forked(streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
    """Let work on the streams begin after all earlier work, and later work after that on the streams."""
    usual = torch.cuda.current_stream(streams[0].device) if streams else None
    for stream in streams:
        stream.wait_stream(usual)
    try:
        yield
    finally:
        for stream in streams:
            usual.wait_stream(stream)


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Raise an error where the host waits for the device."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@contextmanager
def _state_kept(members: Sequence[Member]) -> Iterator[None]:
    """Restore the random state of the members' batches, and the buffers of their models, afterwards."""
    generators = [member.batches.generator for member in members]
    states = [generator.get_state() for generator in generators]
    buffers = [buffer for member in members for buffer in member.model.buffers()]
    values = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        with torch.no_grad():
            for buffer, value in zip(buffers, values, strict=True):
                buffer.copy_(value)


def _tensors(batches: Sequence[Batch]) -> list[Tensor]:
    """Return all tensors of the batches."""
    tensors = []
    for batch in batches:
        own = [batch.images, batch.noise, *(tensor for groups in batch.groupings for tensor in groups)]
        tensors += own if batch.changed is None else [*own, batch.changed]
    return tensors


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
