"""The device that images, models and codes are computed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dislab.errors import DislabError

if TYPE_CHECKING:
    import torch


def choose_device(name: str | torch.device | None) -> torch.device:
    """Return the named device; without a name CUDA if there is a GPU, else the CPU."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0]
        raise DislabError(
            f"device '{name}' cannot be used here (use cpu, or cuda with a GPU): {cause}"
        ) from None
    return device
