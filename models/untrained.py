"""The untrained encoder: random weights. It shows the floor of every score in a table."""

from __future__ import annotations

import torch

from dislab.models.vae import VAE
from dislab.registry import register_model


@register_model("untrained", title="A VAE with random weights (no training): a table's floor")
class Untrained(VAE):
    """A `VAE` before its first step."""

    supervision = "none"

    def fit(self, dataset, rows, generator: torch.Generator) -> None:
        """Do nothing: the weights stay random."""
