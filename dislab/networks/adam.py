"""Adam by torch's fused kernel, which can be part of a CUDA graph.

torch.optim.Adam takes the same steps by the same kernel. But the first use of torch.optim imports torch's
compiler, for 1.6 seconds and 77 MB, and on a GPU most of the blocks of threads stay idle, see PART.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

import torch
from torch import Tensor

# The kernel gives every 65,536 numbers of a tensor one block of threads. The networks here have half a
# million parameters: a GPU was idle but for some twenty blocks. Where tensors are split, and how.
SPLIT_ON = "cuda"
PART = 8192  # numbers
OPTIONS = ("betas", "eps", "weight_decay", "decoupled_weight_decay")


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) for parameters on one device.

    Parameters
    ----------
    parameters : changed in place. The kernel knows no gaps in memory: a parameter with gaps is laid out anew.
    learning_rate : becomes `rate`, a tensor on the device, so that a CUDA graph reads the rate of every step.
    betas, eps, weight_decay, decoupled_weight_decay : as in torch.optim.Adam.
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
        self.parameters = list(parameters)
        for one in self.parameters:
            if not (one.is_contiguous() or one.is_contiguous(memory_format=torch.channels_last)):
                one.data = one.data.contiguous()
        device = self.parameters[0].device
        self.rate = torch.tensor(learning_rate, device=device)
        self._kernel = torch._fused_adamw_ if decoupled_weight_decay else torch._fused_adam_
        self._settings = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay}
        self._parts = [part for one in self.parameters for part in _parts(one.detach())]
        self._first, self._second = ([torch.zeros_like(part) for part in self._parts] for _ in range(2))
        self._steps = [torch.zeros((), device=device) for _ in self._parts]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for one in self.parameters:
            one.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have gradients, which autograd lays out in memory as their parameters."""
        gradients: list[Tensor | None] = []
        for one in self.parameters:
            gradients += [None] * len(_parts(one)) if one.grad is None else _parts(one.grad)
        every = zip(self._parts, gradients, self._first, self._second, self._steps, strict=True)
        moved = [of_part for of_part in every if of_part[1] is not None]
        for _, some in groupby(moved, lambda of_part: of_part[0].dtype):  # the kernel takes one type
            parts, slopes, first, second, steps = map(list, zip(*some, strict=True))
            torch._foreach_add_(steps, 1)
            options = {"lr": self.rate, "amsgrad": False, "maximize": False, **self._settings}
            self._kernel(parts, slopes, first, second, [], steps, **options)

    def state(self) -> dict[str, Tensor]:
        """Return the moments, and the number of steps, of every part, by "INDEX.NAME"."""
        kinds = {"exp_avg": self._first, "exp_avg_sq": self._second, "step": self._steps}
        return {f"{index}.{name}": one for name, of in kinds.items() for index, one in enumerate(of)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned. ValueError is raised if it is of other parts."""
        own = self.state()
        for name, tensor in state.items():
            if name not in own or own[name].shape != tensor.shape:
                raise ValueError(f"'{name}' is of another size")
            own[name].copy_(tensor)


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return a tensor in the parts that the kernel gets."""
    if tensor.device.type != SPLIT_ON:
        return [tensor]
    return list(tensor.as_strided((tensor.numel(),), (1,)).split(PART))
