"""What takes training steps: one model's, those of a stack of models at once, and either as a CUDA graph.

Whatever it is, `step()` takes one step of every member and returns the terms of the loss without waiting for
the device; the training loop needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dislab.data.groups import Groups
from dislab.progress import say
from dislab.training.batches import Batch, draw_together
from dislab.training.checkpoint import adam

if TYPE_CHECKING:
    from dislab.training.loop import Member

EAGER_STEPS = 3  # before a CUDA graph is made of a step: by then everything that is made once is there


class SingleSteps:
    """The training steps of one model, one by one."""

    def __init__(self, member: Member):
        self.members = [member]
        self.model, self.batches, self.optimiser = member.model, member.batches, member.optimiser
        # Number of the step, as the loss gets it: on the device, where nothing waits for it.
        self.number = torch.tensor(float(member.done), device=member.batches.device)

    def step(self) -> dict[str, Tensor]:
        """One training step; returns the terms of the loss, still on the device."""
        terms = self.differentiate(self.draw())
        self.update()
        return terms

    def draw(self) -> Batch:
        return self.batches.draw()

    def differentiate(self, batch: Batch) -> dict[str, Tensor]:
        """Put the gradients where the optimiser finds them; returns the terms of the loss."""
        terms = self.model.loss(batch, self.number)
        self.optimiser.zero_grad(set_to_none=True)
        terms["loss"].backward()
        return terms

    def update(self) -> None:
        self.optimiser.step()
        self.number += 1


class StackedSteps:
    """The training steps of M models at once: every kernel does the work of all of them.

    Each parameter of all members is one tensor with a leading dimension M, over which the loss is mapped.
    Adam works element by element, so one optimiser does for all. What the members' own models and optimisers
    hold are views into these tensors: a member can be saved, or looked at, as if it were alone.

    Raises
    ------
    CannotStack : the members' losses cannot be mapped, or are not the same as one by one.
    """

    def __init__(self, members: Sequence[Member], learning_rate: float):
        self.members = list(members)
        self.number = torch.tensor(float(members[0].done), device=members[0].batches.device)
        self.numbers = _differing_numbers(members)
        self.loss = _Loss(members[0].model)
        self.parameters: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, twins in _twins(members):
                stacked = torch.stack([twin.detach() for twin in twins])
                self.parameters[f"model.{name}"] = stacked.requires_grad_(twins[0].requires_grad)
        self._check()
        self.optimiser = adam([one for one in self.parameters.values() if one.requires_grad], learning_rate)
        for name, twins in _twins(members):
            self._adopt(self.parameters[f"model.{name}"], twins)

    step = SingleSteps.step
    update = SingleSteps.update

    def draw(self) -> Batch:
        return draw_together([member.batches for member in self.members])

    def differentiate(self, batch: Batch) -> dict[str, Tensor]:
        """Terms [M] of the losses, and their gradients as in `SingleSteps`."""
        terms = self._terms(batch)
        self.optimiser.zero_grad(set_to_none=True)
        terms["loss"].sum().backward()  # a parameter's gradient is that of its own member's loss
        return terms

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        def of_one(parameters, values, images, noise, groupings) -> dict[str, Tensor]:
            one = Batch(images, noise, batch.dataset_size, groupings)
            with _replaced(self.numbers, values):
                return torch.func.functional_call(self.loss, parameters, (one, self.number))

        shared = batch.groupings[0].index.ndim == 1
        values = [values for _, _, values in self.numbers]
        mapped = torch.func.vmap(of_one, in_dims=(0, 0 if values else None, 0, 0, None if shared else 0))
        return mapped(self.parameters, values, batch.images, batch.noise, batch.groupings)

    def _check(self) -> None:
        """Whether the stack gives the losses of its members; no random number is used up."""
        generators = [member.batches.generator for member in self.members]
        states = [generator.get_state() for generator in generators]
        try:
            batch = self.draw()
            with torch.no_grad():
                together = self._terms(batch)["loss"]
                alone = torch.stack(
                    [
                        member.model.loss(_batch_of(batch, index), self.number)["loss"]
                        for index, member in enumerate(self.members)
                    ]
                )
            torch.testing.assert_close(together, alone, rtol=0.01, atol=0.01, equal_nan=True)
        except Exception as error:
            raise CannotStack(_first_line(error)) from error
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

    def _adopt(self, stacked: Tensor, twins: Sequence[Tensor]) -> None:
        """Make the members' parameters, and what Adam knows of them, views into the stack's."""
        for twin, view in zip(twins, stacked.detach().unbind(), strict=True):
            twin.data = view
        if not stacked.requires_grad:
            return
        states = [member.optimiser.state[twin] for member, twin in zip(self.members, twins, strict=True)]
        step = torch.tensor(float(self.members[0].done), device=stacked.device)
        self.optimiser.state[stacked] = {"step": step}
        for state in states:
            state["step"] = step
        for name in ("exp_avg", "exp_avg_sq"):
            moment = torch.stack([state.get(name, torch.zeros_like(stacked[0])) for state in states])
            self.optimiser.state[stacked][name] = moment
            for state, view in zip(states, moment.unbind(), strict=True):
                state[name] = view


class CapturedSteps:
    """The steps of one model or of a stack as one CUDA graph, made after a few ordinary steps.

    The host then launches one graph per step instead of some hundred kernels. The generators are registered
    with the graph, so the random numbers are those of the ordinary steps. Images that do not lie on the
    device are drawn outside of the graph.
    """

    def __init__(self, steps: SingleSteps | StackedSteps, quiet: bool):
        self.steps, self.members, self.number, self.quiet = steps, steps.members, steps.number, quiet
        self.generators = [member.batches.generator for member in self.members]
        self.stream = torch.cuda.Stream(self.generators[0].device)
        self.taken = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: Batch | None = None  # where the graph reads its batch, if it is drawn outside
        self.terms: dict[str, Tensor] = {}

    def step(self) -> dict[str, Tensor]:
        """See `SingleSteps.step`."""
        if self.taken == EAGER_STEPS:
            self._capture()
        self.taken += 1
        if self.graph is None:
            with self._beside():
                return self.steps.step()
        if self.batch is not None:
            for place, tensor in zip(_tensors(self.batch), _tensors(self.steps.draw()), strict=True):
                place.copy_(tensor)
        self.graph.replay()
        return self.terms

    @contextmanager
    def _beside(self):
        """Work on the stream of the graph, after what the device does already and before what follows."""
        usual = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            usual.wait_stream(self.stream)

    def _capture(self) -> None:
        """Make the graph, which takes no step itself; where that cannot be, say so and go on without."""
        drawn_inside = self._failure(self.steps.draw) is None
        states = [generator.get_state() for generator in self.generators]
        batch = None if drawn_inside else self.steps.draw()
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)
        failure = self._failure(lambda: self.steps.differentiate(batch or self.steps.draw()))
        self.steps.optimiser.zero_grad(set_to_none=True)
        if failure is None:
            graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                graph.register_generator_state(generator)
            usual = torch.cuda.current_stream(self.stream.device)
            try:
                with torch.cuda.device(self.stream.device), torch.cuda.graph(graph, stream=self.stream):
                    terms = self.steps.differentiate(batch or self.steps.draw())
                    self.steps.update()
                self.graph, self.batch, self.terms = graph, batch, terms
                return
            except Exception as error:  # a model's own code may raise anything here
                failure = error
                torch.cuda.set_stream(usual)  # torch leaves the graph's, where the capture's end fails
                for member, state in zip(self.members, states, strict=True):  # free of the failed graph
                    member.batches.generator = torch.Generator(self.number.device)
                    member.batches.generator.set_state(state)
        say(f"steps are taken kernel by kernel, not as a CUDA graph: {_first_line(failure)}", self.quiet)

    def _failure(self, work) -> Exception | None:
        """What is raised where the host must not wait for the device, as in a graph; no random number is used
        up."""
        states = [generator.get_state() for generator in self.generators]
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with self._beside():
                work()
        except Exception as error:
            return error
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            for generator, state in zip(self.generators, states, strict=True):
                generator.set_state(state)
        return None


class CannotStack(Exception):
    """Why several models cannot be trained at once."""


class _Loss(nn.Module):
    """A model's loss as a module's forward, which is what functional_call calls."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, number: Tensor) -> dict[str, Tensor]:
        return self.model.loss(batch, number)


def _twins(members: Sequence[Member]) -> Iterator[tuple[str, list[Tensor]]]:
    """Each parameter and buffer of the models: its name, and the members' tensors."""
    tensors = [[*member.model.named_parameters(), *member.model.named_buffers()] for member in members]
    for same in zip(*tensors, strict=True):
        yield same[0][0], [tensor for _, tensor in same]


def _differing_numbers(members: Sequence[Member]) -> list[tuple[nn.Module, str, Tensor]]:
    """The float attributes in which the models differ: the first model's module, the name, the values [M]."""
    found = []
    usual = vars(nn.Module())
    for same in zip(*(member.model.modules() for member in members), strict=True):
        for name in vars(same[0]).keys() - usual.keys():
            values = [vars(module).get(name) for module in same]
            if callable(values[0]) or all(_is_same(value, values[0]) for value in values):
                continue
            if not all(isinstance(value, float) for value in values):
                raise CannotStack(f"they differ in {name}: {', '.join(map(str, values))}")
            found.append((same[0], name, torch.tensor(values, device=members[0].batches.device)))
    return found


def _is_same(value, other) -> bool:
    """Whether two attributes are equal, also if they are tensors or hold some."""
    try:
        torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True)
    except AssertionError:
        return False
    except (TypeError, ValueError):  # no numbers
        return value is other or bool(value == other)
    return True


@contextmanager
def _replaced(numbers: Sequence[tuple[nn.Module, str, Tensor]], values: Sequence[Tensor]):
    """The modules with other values of these attributes, for a while."""
    before = [getattr(module, name) for module, name, _ in numbers]
    try:
        for (module, name, _), value in zip(numbers, values, strict=True):
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(numbers, before, strict=True):
            setattr(module, name, value)


def _batch_of(batch: Batch, index: int) -> Batch:
    """One member's batch of those that `draw_together` gives."""
    groupings = tuple(
        groups if groups.index.ndim == 1 else Groups(*(tensor[index] for tensor in groups))
        for groups in batch.groupings
    )
    return Batch(batch.images[index], batch.noise[index], batch.dataset_size, groupings)


def _tensors(batch: Batch) -> list[Tensor]:
    return [batch.images, batch.noise, *(tensor for groups in batch.groupings for tensor in groups)]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
