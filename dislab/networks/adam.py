"""Adam by torch's fused kernel, which can be part of a CUDA graph.

torch.optim.Adam takes the same steps by the same kernel. But the first use of torch.optim imports torch's
compiler, which takes 1.6 seconds and 77 MB, and it leaves most of a GPU idle, see PART.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

import torch
from torch import Tensor

# The kernel gives every 65,536 numbers of a tensor one block of threads. With the 0.7 million parameters of
# the network `conv` only some twenty blocks had work. So tensors on a GPU are split into parts of PART
# numbers, but into MOST_PARTS parts at most.
SPLIT_ON = "cuda"
PART, MOST_PARTS = 8192, 64
OPTIONS = ("betas", "eps", "weight_decay", "decoupled_weight_decay")


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) for parameters on one device.

    Parameters
    ----------
    parameters : changed in place. If the memory of a parameter has gaps, it is copied to memory without gaps,
        because the kernel does not skip them.
    learning_rate : becomes `rate`, a tensor on the device, so that a CUDA graph reads the rate of every step.
    betas, eps, weight_decay, decoupled_weight_decay : as in torch.optim.Adam.

    Raises
    ------
    ValueError : an option is out of its range.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
    ):
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam's betas are {betas}: each must be 0 or more and below 1")
        for name, value in (("rate", learning_rate), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"Adam's {name} is {value}: it must be 0 or more")
        self.parameters = list(parameters)
        for one in self.parameters:
            if torch.empty_like(one).stride() != one.stride():  # torch keeps the strides if there are no gaps
                one.data = one.data.contiguous()
        device = self.parameters[0].device
        self.rate = torch.tensor(learning_rate, device=device)
        self._kernel = torch._fused_adamw_ if decoupled_weight_decay else torch._fused_adam_
        self._settings = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay}
        self._settings |= {"amsgrad": False, "maximize": False}
        parts = [part for one in self.parameters for part in _parts(one.detach())]
        self._first = [torch.zeros_like(part) for part in parts]
        self._second = [torch.zeros_like(part) for part in parts]
        self._steps = [torch.zeros((), device=device) for _ in parts]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for one in self.parameters:
            one.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have gradients.

        A gradient must lie in memory in the order of its parameter, as autograd makes it.
        """
        parts: list[Tensor] = []
        gradients: list[Tensor | None] = []
        for one in self.parameters:
            own = _parts(one.detach())  # anew at each step: a model may have given a parameter other memory
            parts += own
            if one.grad is not None and one.grad.layout is not torch.strided:
                raise ValueError("Adam takes no sparse gradients")
            gradients += [None] * len(own) if one.grad is None else _parts(one.grad)
        every = zip(parts, gradients, self._first, self._second, self._steps, strict=True)
        moving = [of_part for of_part in every if of_part[1] is not None]
        for _, same_type in groupby(moving, key=lambda of_part: of_part[0].dtype):  # the kernel takes one
            *lists, steps = map(list, zip(*same_type, strict=True))
            torch._foreach_add_(steps, 1)
            self._kernel(*lists, [], steps, lr=self.rate, **self._settings)

    def state(self) -> dict[str, Tensor]:
        """Return the moments, and the number of steps, of every part, by "INDEX.NAME"."""
        kinds = {"exp_avg": self._first, "exp_avg_sq": self._second, "step": self._steps}
        return {
            f"{index}.{name}": one for name, tensors in kinds.items() for index, one in enumerate(tensors)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned. A part that it lacks, because it had no gradients, stays at 0.

        Raises
        ------
        ValueError : it is of other parts.
        """
        own = self.state()
        for name, tensor in state.items():
            if name not in own or own[name].shape != tensor.shape:
                raise ValueError(f"'{name}' is of other parts")
            own[name].copy_(tensor)


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return a tensor in the parts that the kernel gets."""
    if tensor.device.type != SPLIT_ON:
        return [tensor]
    number = tensor.numel()
    return list(tensor.as_strided((number,), (1,)).split(max(PART, -(-number // MOST_PARTS))))
