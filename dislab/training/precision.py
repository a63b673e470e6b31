"""The arithmetic of a run: fp32, tf32 (on CUDA), or bf16 in the networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import torch
from torch import nn

from dislab.errors import DislabWarning

# A warning of torch that is left out, by its first words: dislab chooses what it warns of.
MEANT = "Synchronization debug mode is a prototype"


@contextmanager
def arithmetic(device: torch.device, precision: str, *, strict: bool = True) -> Iterator[None]:
    """Set torch's global settings for work in a precision that gives the same numbers every time.

    All settings are restored afterwards. On CUDA, an operation that cannot give the same numbers every time
    raises RuntimeError if `strict`; else a `DislabWarning` names it.
    """
    with float32_products("tf32" if precision == "tf32" else "ieee"):
        if device.type != "cuda":
            yield
            return
        before = torch.are_deterministic_algorithms_enabled()
        warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
        fill = torch.utils.deterministic.fill_uninitialized_memory
        # Sums by atomic additions would differ. To set this, torch imports its compiler for a second.
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        torch.utils.deterministic.fill_uninitialized_memory = False  # one more kernel for every tensor
        try:
            with _short_warnings():
                yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill


@contextmanager
def float32_products(on_gpu: str) -> Iterator[None]:
    """Compute products of float32 as "ieee" on the CPU, and as `on_gpu`, "ieee" or "tf32", on CUDA.

    torch has two ways to set this: by set_float32_matmul_precision and allow_tf32, and since 2.9 by the
    attribute `fp32_precision` of every operation. The first way raises an error once a user has taken the
    second. Otherwise it is taken too, because models and torch itself may read its settings.
    """
    operations = _operations(on_gpu)
    before = [one.fp32_precision for one, _ in operations]
    try:
        first_way = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        first_way = None
    if first_way:
        torch.set_float32_matmul_precision("high" if on_gpu == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = on_gpu == "tf32"
    for one, wanted in operations:
        one.fp32_precision = wanted
    try:
        yield
    finally:
        if first_way:
            torch.set_float32_matmul_precision(first_way[0])
            torch.backends.cudnn.allow_tf32 = first_way[1]
        for (one, _), value in zip(operations, before, strict=True):
            one.fp32_precision = "none"  # the setting of its backend, or of all backends
            if one.fp32_precision != value:
                one.fp32_precision = value


def _operations(on_gpu: str) -> list[tuple[object, str]]:
    """Return torch's operations with an attribute `fp32_precision`, and the value wanted for each."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):  # before torch 2.9
        return []
    of_gpu = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    of_cpu = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    return [(one, on_gpu) for one in of_gpu] + [(one, "ieee") for one in of_cpu]


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Turn torch's long warnings of operations that are not deterministic into short ones, one for each.

    Leave out the warning that begins as MEANT.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MEANT)
        show, operations = warnings.showwarning, set()

        def shorten(message, *others) -> None:
            operation, is_one, _ = str(message).partition(" does not have a deterministic implementation")
            if not is_one:
                show(message, *others)
            elif operation not in operations:
                operations.add(operation)
                text = f"{operation} is not deterministic on this device: a run of the same seed may differ"
                warnings.warn(text, DislabWarning, stacklevel=2)

        warnings.showwarning = shorten
        yield


def compute_in_bfloat16(model: nn.Module) -> None:
    """Let a model's networks, its child modules, compute under autocast and return float32.

    What a model computes between them (densities, KL, likelihoods and their sums) stays float32, and so do
    the parameters.
    """
    for network in _networks(model):
        network.forward = _in_bfloat16(network.forward)


def _networks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the child modules that are called as functions."""
    for child in model.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):  # containers are never called themselves
            yield from _networks(child)
        else:
            yield child


def _in_bfloat16(forward: Callable) -> Callable:
    @wraps(forward)
    def cast(inputs: torch.Tensor, *others):
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs = forward(inputs, *others)
        return tuple(map(_float, outputs)) if isinstance(outputs, tuple) else _float(outputs)

    return cast


def _float(output):
    return output.float() if isinstance(output, torch.Tensor) and output.is_floating_point() else output
