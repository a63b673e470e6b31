"""The device that images, models and codes are computed on."""

from __future__ import annotations

import warnings
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old names of devices, which are refused below
            device = torch.device(name)
        if device.type == "cpu" and device.index:
            raise RuntimeError("there is one cpu")
        torch.ones(1, device=device).item()  # the device "meta" computes nothing
    except Exception as error:  # some devices want a package that is not installed
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise DislabError(
            f"device '{name}' cannot be used here (use cpu, or cuda with a GPU): {cause}"
        ) from None
    return torch.device("cpu") if device.type == "cpu" else device
