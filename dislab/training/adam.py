"""Adam as training takes it: one kernel, part of a CUDA graph, in small parts on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# torch's kernel gives every 65,536 elements of a tensor one block of threads. The networks here have half a
# million parameters, so that a GPU was idle but for some twenty blocks. Where tensors are split, and how.
SPLIT_ON = "cuda"
PART = 8192  # elements


class Adam(torch.optim.Adam):
    """torch's fused Adam, with its published betas unless the options have others.

    Attributes
    ----------
    whole : the parameters. On a GPU torch has parts of them, which share their memory.
    """

    def __init__(
        self, parameters: Sequence[Tensor], learning_rate: float, options: Mapping[str, object] | None = None
    ):
        self.whole = list(parameters)
        pieces = all(map(_is_one_piece, self.whole))
        split = pieces and self.whole[0].device.type == SPLIT_ON
        self.parts = [_parts(one.detach()) if split else [one] for one in self.whole]
        # A tensor, so that a CUDA graph reads the rate of every step.
        rate = torch.tensor(learning_rate, device=self.whole[0].device)
        parts = [part for of_one in self.parts for part in of_one]
        super().__init__(parts, lr=rate, fused=pieces, capturable=rate.is_cuda, **(options or {}))

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for parameter in self.whole:
            parameter.grad = None

    def step(self, closure=None) -> None:
        for parameter, parts in zip(self.whole, self.parts, strict=True):
            if parts[0] is not parameter:
                gradients = [None] * len(parts) if parameter.grad is None else _parts(parameter.grad)
                for part, gradient in zip(parts, gradients, strict=True):
                    part.grad = gradient
        super().step(closure)


def _is_one_piece(parameter: Tensor) -> bool:
    """Return whether a parameter fills its memory, as fused Adam and parts need. So do its gradients then."""
    return parameter.is_contiguous() or parameter.is_contiguous(memory_format=torch.channels_last)


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return a tensor's memory in parts of PART elements."""
    return list(tensor.as_strided((tensor.numel(),), (1,)).split(PART))
