"""Images that differ in some factors only: in pairs, or in a whole batch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dislab.data.space import FactorSpace
from dislab.errors import DislabError

RATE = 1.0  # of the Laplace transitions, Klindt et al. 2021


class Redraws:
    """Rows of a full grid of factors by random numbers, in G groups of `size` images.

    The first image of a group has uniform factor values. The others keep them, but for the factors that are
    redrawn, which are the same for all images of the group (Locatello et al. 2020, section 5).

    Parameters
    ----------
    space : of the dataset.
    groups, size : number of groups, and of images in each.
    changed : number of factors that are redrawn; "random" is uniform on 1 .. K - 1 for each group.
    resample : "any" value may be drawn again, or always an "other" one. "laplace" instead draws every factor
        but the categorical ones near its old value, by a Laplace distribution of scale ln(size) on its grid,
        and if nothing changed, one of them uniformly from its other values (Klindt et al. 2021).

    Raises
    ------
    DislabError : too many factors are to be redrawn.

    Attributes
    ----------
    parts : how many random numbers `rows` needs, int [4].
    """

    def __init__(self, space: FactorSpace, groups: int, size: int, changed: int | str, resample: str, device):
        self.groups, self.size, self.changed, self.resample = groups, size, changed, resample
        num_factors = len(space.sizes)
        vary = [column for column, size in enumerate(space.sizes) if size > 1]
        if len(vary) < 2:
            raise DislabError("pairs need a dataset in which two factors or more vary")
        if resample == "laplace":
            vary = [column for column in vary if space.names[column] not in space.categorical]
            if not vary:
                raise DislabError("resample=laplace needs a factor that is not categorical")
            self.transitions = torch.from_numpy(_transitions(space, vary)).to(device)
        elif changed != "random" and not 1 <= changed < len(vary):
            raise DislabError(
                f"changed={changed}: 1 to {len(vary) - 1} of the {len(vary)} factors can differ in a pair"
            )
        self.vary = torch.tensor(vary, device=device)
        self.sizes = torch.tensor(space.sizes, device=device)
        self.strides = torch.tensor(
            [math.prod(space.sizes[column + 1 :]) for column in range(num_factors)], device=device
        )
        redrawn = groups * (size - 1) * num_factors
        self.parts = [groups * num_factors, groups, groups * num_factors, redrawn]

    def rows(self, first: Tensor, number: Tensor, order: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows int64 [..., groups * size], and which factors were redrawn, bool [..., groups, K].

        The arguments are uniform in [0, 1) and have the sizes of `parts` at their ends.
        """
        num_factors = len(self.sizes)
        values = (first.unflatten(-1, (self.groups, num_factors)) * self.sizes).long()
        order = order.unflatten(-1, (self.groups, num_factors))
        others = others.unflatten(-1, (self.groups, self.size - 1, num_factors))
        before = values[..., None, :]
        if self.resample == "laplace":
            later, changed = self._moved(values, number, order, others)
        else:
            changed = self._chosen(number, order)
            if self.resample == "any":
                later = (others * self.sizes).long()
            else:
                later = _another(before, others, self.sizes)
        later = torch.where(changed[..., None, :], later, before)
        images = torch.cat([before, later], dim=-2)
        return (images * self.strides).sum(-1).flatten(-2), changed

    def _chosen(self, number: Tensor, order: Tensor) -> Tensor:
        """Return a random set of factors for each group, bool [..., groups, K]."""
        most = len(self.vary) - 1
        count = 1 + (number * most).long() if self.changed == "random" else self.changed
        rank = order[..., self.vary].argsort(-1).argsort(-1)
        chosen = rank < (count[..., None] if self.changed == "random" else count)
        return torch.zeros_like(order, dtype=torch.bool).index_copy(-1, self.vary, chosen)

    def _moved(self, values: Tensor, number: Tensor, order: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return new values [..., groups, size - 1, K] by the Laplace transitions, and which differ."""
        columns = torch.arange(len(self.sizes), device=values.device)
        below = self.transitions[columns, values]  # [..., groups, K, values]
        later = (others[..., None] >= below[..., None, :, :]).sum(-1)
        changed = (later != values[..., None, :]).any(-2)
        # Nothing changed: one factor gets another value, by numbers that are not used yet.
        forced = columns == self.vary[(number * len(self.vary)).long()][..., None]
        forced &= ~changed.any(-1, keepdim=True)
        another = _another(values, order, self.sizes)[..., None, :]
        return torch.where(forced[..., None, :], another, later), changed | forced


def _another(values: Tensor, uniform: Tensor, sizes: Tensor) -> Tensor:
    """Return values that differ from the given ones, uniformly chosen by numbers in [0, 1)."""
    return (values + 1 + (uniform * (sizes - 1)).long()) % sizes


def _transitions(space: FactorSpace, vary: list[int]) -> np.ndarray:
    """Return the probability of a next value up to each value, by factor and value, float64 [K, S, S - 1].

    S is the largest size; a factor that does not vary keeps its value.
    """
    most = max(space.sizes)
    below = np.ones((len(space.sizes), most, most - 1))
    for column, size in enumerate(space.sizes):
        grid = np.arange(size)
        if column in vary:
            distance = np.abs(grid[:, None] - grid)
            weights = np.exp(-distance * RATE / math.log(size))
        else:
            weights = np.eye(size)
        cumulative = np.cumsum(weights / weights.sum(1, keepdims=True), axis=1)
        below[column, :size, : size - 1] = cumulative[:, : size - 1]
    return below
