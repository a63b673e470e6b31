"""The arithmetic of a run: fp32, tf32 (on CUDA), or bf16 in the networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import torch
from torch import nn

from dislab.errors import DislabError
from dislab.registry import unknown_name

PRECISIONS = ("fp32", "tf32", "bf16")
USUAL = "usual"  # stands for the usual precision of the device in the configuration of a run


def usual_precision(device: str) -> str:
    """Return the default precision on a device: tf32 on CUDA, fp32 elsewhere."""
    return "tf32" if device.startswith("cuda") else "fp32"


def choose_precision(precision: str | None, device: str) -> str:
    """Return "usual" if the precision is None, "usual" or the device's usual one, else its checked name."""
    if precision in (None, USUAL, usual_precision(device)):
        return USUAL
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision == "tf32":
        raise DislabError(f"--precision tf32 needs a CUDA device: on {device} choose fp32 or bf16")
    return precision


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Set torch's global settings for work in a precision that gives the same numbers every time.

    All settings are restored afterwards, but for the environment's CUBLAS_WORKSPACE_CONFIG, which torch reads
    once.
    """
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    on_gpu = device.type == "cuda"
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if on_gpu:  # sums by atomic additions would differ; to set this, torch imports its compiler for a second
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # one more kernel for every tensor
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(matmul)
        if on_gpu:
            torch.use_deterministic_algorithms(deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = fill


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
