"""The oracle: the factors themselves as codes. It shows the ceiling of every score in a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dislab.registry import register_model


@register_model("oracle", title="The factors themselves (no training): a table's ceiling")
class Oracle(nn.Module):
    """Codes [B, K]: factor k's value divided by its largest one, so that every code lies in [0, 1].

    The factors are looked up by row. The oracle sees no image, and it cannot draw one.
    """

    supervision = "none"

    def __init__(self, image_shape: tuple[int, int, int]):
        super().__init__()

    def fit(self, dataset, rows, generator: torch.Generator) -> None:
        """Do nothing: the factors are known."""

    def encode_rows(self, dataset, rows) -> Tensor:
        """Return codes float32 [B, K] of the dataset's rows int64 [B]."""
        highest = torch.tensor(dataset.space.sizes).clamp(min=2) - 1
        return torch.from_numpy(dataset.space.factors(rows)) / highest
