"""CUDA graphs and streams on the CPU: a graph records torch's operations and does them again.

It keeps the rules that a GPU has: what is captured is not done, what is not an operation of torch is done
once only, the host may not wait for the device, and streams that a capture forks must be joined in it.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {  # operations in which the host waits for a GPU
    "_local_scalar_dense",  # .item(), float(tensor), if tensor
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
    "randperm",
    "equal",
    "lift_fresh",  # torch.tensor(a number), or an index that is a list: copied from the host
    # In deterministic mode these copy from the host and sort.
    "scatter",
    "scatter_",
    "scatter_add",
    "scatter_add_",
    "scatter_reduce",
    "scatter_reduce_",
}


class HostWaits(RuntimeError):
    """The host would wait for the device."""


class WaitingRefused(TorchDispatchMode):
    """Raises HostWaits where the host would wait for a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name.startswith(("index", "_index", "_unsafe_index")) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else [])
        )
        if name in WAITING or by_mask:
            raise HostWaits(f"the host waits for the device in {function}")
        return function(*args, **(kwargs or {}))


class Recording(TorchDispatchMode):
    """Does operations, and remembers them and what they overwrote."""

    def __init__(self, cuda: FakeCuda):
        super().__init__()
        self.cuda, self.calls, self.before, self.own = cuda, [], {}, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.cuda.current not in self.cuda.capturing:
            raise RuntimeError("operation on a stream that is not part of the capture")
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(value):
                    if tensor.untyped_storage()._cdata not in self.own:
                        self.before.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        outputs = function(*args, **kwargs)
        kinds = [returned.alias_info for returned in function._schema.returns]
        if not any(kind is not None and not kind.is_write for kind in kinds):  # no view
            made = [] if any(kind is not None for kind in kinds) else _tensors(outputs)
            self.calls.append((function, args, kwargs, made))
            for tensor in made:
                self.own[tensor.untyped_storage()._cdata] = tensor
        return outputs

    def undo(self) -> None:
        """Put back what was overwritten; what was computed is not a number until it is replayed."""
        with torch.no_grad():
            for tensor, value in reversed(self.before.values()):  # two of them may share their memory
                tensor.copy_(value)
            for tensor in self.own.values():
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)


class FakeGraph:
    def __init__(self):
        self.generators, self.recording = [], None

    def register_generator_state(self, generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, made in self.recording.calls:
                outputs = function(*args, **kwargs)
                for tensor, value in zip(made, _tensors(outputs) if made else [], strict=True):
                    tensor.copy_(value)


class FakeStream:
    def __init__(self, cuda: FakeCuda):
        self.cuda, self.device = cuda, torch.device("cpu")

    def wait_stream(self, other: FakeStream) -> None:
        if other in self.cuda.capturing:
            self.cuda.unjoined.discard(other)
            if self is not self.cuda.origin:
                self.cuda.capturing.add(self)
                self.cuda.unjoined.add(self)


class FakeCuda:
    """Takes the place of what `dislab.training.steps` uses of torch.cuda; see `install`."""

    def __init__(self):
        self.origin, self.capturing, self.unjoined, self.mode = None, set(), set(), None
        self.current = self.usual = FakeStream(self)

    def install(self, monkeypatch) -> None:
        replaced = {
            "Stream": lambda device: FakeStream(self),
            "current_stream": lambda device: self.current,
            "set_stream": lambda stream: setattr(self, "current", stream),
            "stream": self.stream,
            "device": lambda device: self.stream(None),
            "CUDAGraph": FakeGraph,
            "graph": self.graph,
            "get_sync_debug_mode": lambda: 0 if self.mode is None else 2,
            "set_sync_debug_mode": self.set_sync_debug_mode,
        }
        monkeypatch.setattr("dislab.training.steps.torch", SimpleNamespace(**vars(torch)))
        monkeypatch.setattr("dislab.training.steps.torch.cuda", SimpleNamespace(**replaced))

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream or self.current
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: FakeGraph, stream: FakeStream):
        states = [generator.get_state() for generator in graph.generators]
        self.origin, self.capturing, self.unjoined = stream, {stream}, set()
        graph.recording = Recording(self)
        try:
            with self.stream(stream), WaitingRefused(), graph.recording:
                yield
            if self.unjoined:
                raise RuntimeError("capture ended with a stream that was not joined")
        finally:
            self.capturing = set()
            graph.recording.undo()
            for generator, state in zip(graph.generators, states, strict=True):
                generator.set_state(state)

    def set_sync_debug_mode(self, mode) -> None:
        if mode == "error":
            self.mode = WaitingRefused()
            self.mode.__enter__()
        elif self.mode is not None:
            self.mode.__exit__(None, None, None)
            self.mode = None


def _tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []
