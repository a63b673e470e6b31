"""Training batches, drawn on the device by index: images, their noise and their groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dislab.data.dataset import unit_images
from dislab.data.groups import Groups
from dislab.errors import DislabError


@dataclass
class Batch:
    """What a loss sees.

    Attributes
    ----------
    images : float32 [B, C, H, W] in [0, 1].
    noise : float32 [B, D], standard Normal, for the codes.
    dataset_size : number of training images N.
    groupings : the groups of the images, by each grouping; for "iid" batches by one with a group per image.
    """

    images: Tensor
    noise: Tensor
    dataset_size: int
    groupings: tuple[Groups, ...]


class Batches:
    """An endless stream of batches from the training rows of a dataset.

    "iid" batches draw images uniformly. "groups" draws groups uniformly from the values of the grouping
    factors, and in each group `group_size` different images uniformly; the last group of a batch takes what
    is left of batch_size. With several groupings every image belongs to a group of each: the groups of all
    groupings are drawn alike and shuffled against each other, and an image is drawn uniformly from those that
    lie in all of its groups.
    The whole state is that of `generator`.

    Parameters
    ----------
    group_by : the groupings, each a list of factor names whose combined value is a group.
    """

    def __init__(
        self,
        dataset,
        model,
        batch_size: int,
        group_by: list[list[str]],
        seed: int,
        device: torch.device,
    ):
        self.dataset = dataset
        self.latents = model.latents
        self.device = device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.size = 1 if model.batch == "iid" else min(model.group_size, batch_size)
        rows = dataset.train_rows()
        if model.batch == "iid":
            # Every image is a group of its own, so one way of drawing serves both.
            order, self.values = rows, [1]
            begin, count = np.zeros(1, np.int64), np.array([len(rows)])
        else:
            order, begin, count, self.values = _cells(dataset, rows, group_by)
            if len(group_by) == 1:
                enough = (
                    count >= self.size
                )  # of the many people of some photo collections, most have one image
                if not enough.any():
                    raise DislabError(
                        f"group_size={self.size} is too large for --group-by {','.join(group_by[0])}: "
                        f"no group has more than {count.max()} training images"
                    )
                begin, count = begin[enough], count[enough]
        self.order, self.begin, self.count = (torch.from_numpy(a).to(device) for a in (order, begin, count))
        index = torch.arange(batch_size, device=device) // self.size
        self.slots = Groups(index, torch.arange(0, batch_size, self.size, device=device))
        self.sizes = torch.bincount(index)

    def draw(self) -> Batch:
        rows, groupings, noise = self._draw_indices()
        images = unit_images(self.dataset.images(rows).to(self.device))
        return Batch(images, noise, len(self.order), groupings)

    def _draw_indices(self) -> tuple[Tensor, tuple[Groups, ...], Tensor]:
        """Rows int64 [B], their groups, and noise [B, D]: all that is random of a batch."""
        rows, groupings = self.rows() if len(self.values) == 1 else self.rows_of_several()
        noise = torch.randn((len(rows), self.latents), generator=self.generator, device=self.device)
        return rows, groupings, noise

    def rows(self) -> tuple[Tensor, tuple[Groups]]:
        """Dataset rows int64 [B] of the next batch, and their groups, by a single grouping."""
        chosen = self._integers(torch.full_like(self.slots.first, len(self.count)))
        begin, count = self.begin[chosen], self.count[chosen]
        ranks: list[Tensor] = []
        # Floyd's algorithm draws different members of every group at once: a rank drawn before is replaced by
        # the highest one allowed in this round, which no earlier round could have drawn.
        for member in range(self.size):
            # (Draws beyond the size of the last group are cut off below; the clamp keeps them valid ranks.)
            highest = torch.minimum(count - self.sizes + member, count - 1)
            rank = self._integers(highest + 1)
            if ranks:
                seen = (torch.stack(ranks) == rank).any(0)
                rank = torch.where(seen, highest, rank)
            ranks.append(rank)
        members = self.order[begin[:, None] + torch.stack(ranks, dim=1)]
        return members.flatten()[: len(self.slots.index)], (self.slots,)

    def rows_of_several(self) -> tuple[Tensor, tuple[Groups, ...]]:
        """The same by several groupings."""
        groupings, cell = [], torch.zeros_like(self.slots.index)
        for number in self.values:
            place = torch.arange(len(cell), device=self.device)
            if groupings:  # the first grouping keeps its images together, the others are scattered over it
                place = torch.argsort(self._uniform(cell.shape))  # (torch.randperm can synchronise)
            chosen = self._integers(torch.full_like(self.slots.first, number))
            index = self.slots.index[place]
            groupings.append(Groups(index, torch.argsort(place)[self.slots.first]))
            cell = cell * number + chosen[index]
        return self.order[self.begin[cell] + self._integers(self.count[cell])], tuple(groupings)

    def _integers(self, bound: Tensor) -> Tensor:
        """Uniform integers in 0 .. bound - 1, one per entry of bound."""
        return (self._uniform(bound.shape) * bound).long()

    def _uniform(self, shape: torch.Size) -> Tensor:
        """Uniform float64 numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=torch.float64)


def draw_together(members: Sequence[Batches]) -> Batch:
    """The next batch of each of M streams over the same dataset, in one.

    Images are [M, B, C, H, W] and noise is [M, B, D]. Groups are [M, B] and [M, number] where the members'
    differ, else as in one batch.
    """
    rows, groupings, noise = zip(*(member._draw_indices() for member in members), strict=True)
    first = members[0]
    images = unit_images(first.dataset.images(torch.cat(rows)).to(first.device))
    if len(first.values) == 1:
        shared = (first.slots,)
    else:
        shared = tuple(
            Groups(*map(torch.stack, zip(*same, strict=True))) for same in zip(*groupings, strict=True)
        )
    return Batch(images.unflatten(0, (len(members), -1)), torch.stack(noise), len(first.order), shared)


def _cells(dataset, rows: np.ndarray, group_by: list[list[str]]):
    """The training rows sorted by the groups that they lie in.

    Returns
    -------
    order : int64 [N], the rows.
    begin, count : int64, where each combination of groups begins in `order`, and its number of rows.
    values : the number of groups of each grouping.
    """
    found = [np.unique(dataset.space.labels(names, rows), return_inverse=True) for names in group_by]
    values = [len(labels) for labels, _ in found]
    cell = np.ravel_multi_index([index for _, index in found], values)
    count = np.bincount(cell, minlength=math.prod(values))
    if (count == 0).any():
        names = " with ".join(",".join(names) for names in group_by)
        raise DislabError(
            f"several groupings need images of every combination of their groups: "
            f"{(count == 0).sum():,} of {len(count):,} are missing for {names}"
        )
    return rows[np.argsort(cell, kind="stable")], np.cumsum(count) - count, count, values
