"""Training batches: images, noise and groups, drawn by index on the device."""

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
    """The input of a model's loss."""

    images: Tensor  # float32 [B, C, H, W] in [0, 1]
    noise: Tensor  # float32 [B, D], standard Normal, for the codes
    dataset_size: int  # number of images N that batches are drawn from
    groupings: tuple[Groups, ...]  # by each grouping; an image of an "iid" batch is a group of its own


class Batches:
    """An endless stream of batches from the training rows of a dataset.

    With the supervision "iid", images are drawn uniformly. With "groups", groups are drawn uniformly from the
    values of the grouping factors, and `group_size` different images uniformly from each group. The last
    group of a batch takes the rest of batch_size. With several groupings every image belongs to one group of
    each. The groups of each grouping are drawn uniformly and shuffled against those of the others, and an
    image is drawn uniformly from those that lie in all of its groups.

    `generator` is all that changes from batch to batch. DislabError is raised if a factor is unknown, all
    groups are too small, or a combination of groups has no images.

    Attributes
    ----------
    order : int64 [N], the rows that are drawn; without those of groups that are smaller than `group_size`.
    remark : a line that says how many groups and images are too few to be drawn, or "".
    """

    def __init__(self, dataset, model, batch_size: int, group_by: list[list[str]], seed: int, device):
        self.dataset, self.latents, self.device = dataset, model.latents, device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.size = 1 if model.supervision == "iid" else min(model.group_size, batch_size)
        rows, self.remark = dataset.train_rows(), ""
        if model.supervision == "iid":
            # All rows are one class from which each group draws one image: one way of drawing serves both.
            order, self.numbers = rows, [1]
            begin, count = np.zeros(1, np.int64), np.array([len(rows)])
        else:
            order, begin, count, self.numbers = _cells(dataset, rows, group_by)
            if len(group_by) == 1:
                # In some photo collections most people have one image only.
                enough = count >= self.size
                if not enough.any():
                    size = f"group_size={model.group_size}"
                    size += "" if self.size == model.group_size else f", a batch of {batch_size} at most,"
                    raise DislabError(
                        f"{size} is too large for --group-by {','.join(group_by[0])}: "
                        f"no group has more than {count.max()} training images"
                    )
                order, count = order[np.repeat(enough, count)], count[enough]
                begin = np.cumsum(count) - count
                if not enough.all():
                    self.remark = (
                        f"trains on {len(count):,} of {len(enough):,} groups, {len(order):,} of "
                        f"{len(rows):,} images: the others have fewer than group_size={self.size} images "
                        "(a smaller group_size uses them)"
                    )
        self.order, self.begin, self.count = (torch.from_numpy(a).to(device) for a in (order, begin, count))
        index = torch.arange(batch_size, device=device) // self.size
        self.slots = Groups(index, torch.arange(0, batch_size, self.size, device=device))
        self.sizes = torch.bincount(index)

    def draw(self) -> Batch:
        """Return the next batch."""
        rows, groupings, noise = self.draw_indices()
        images = unit_images(self.dataset.images(rows).to(self.device))
        return Batch(images, noise, len(self.order), groupings)

    def draw_indices(self) -> tuple[Tensor, tuple[Groups, ...], Tensor]:
        """Return all that is random in the next batch: rows int64 [B], their groups, and noise [B, D]."""
        rows, groupings = self.rows() if len(self.numbers) == 1 else self.rows_of_several()
        noise = torch.randn((len(rows), self.latents), generator=self.generator, device=self.device)
        return rows, groupings, noise

    def rows(self) -> tuple[Tensor, tuple[Groups]]:
        """Return the rows int64 [B] of the next batch and their groups, by a single grouping."""
        chosen = self._integers(torch.full_like(self.slots.first, len(self.count)))
        begin, count = self.begin[chosen], self.count[chosen]
        ranks: list[Tensor] = []
        # Floyd's algorithm draws different members of every group at once: a rank drawn before is replaced by
        # the highest one allowed in this round, which no earlier round could have drawn.
        for member in range(self.size):
            # Draws beyond the size of the last group are cut off below. The clamp keeps them valid ranks.
            highest = torch.minimum(count - self.sizes + member, count - 1)
            rank = self._integers(highest + 1)
            if ranks:
                drawn_before = (torch.stack(ranks) == rank).any(0)
                rank = torch.where(drawn_before, highest, rank)
            ranks.append(rank)
        members = self.order[begin[:, None] + torch.stack(ranks, dim=1)]
        return members.flatten()[: len(self.slots.index)], (Groups(*(part.clone() for part in self.slots)),)

    def rows_of_several(self) -> tuple[Tensor, tuple[Groups, ...]]:
        """Return the rows int64 [B] of the next batch and their groups, by several groupings."""
        groupings, cell = [], torch.zeros_like(self.slots.index)
        for number in self.numbers:
            slot = torch.arange(len(cell), device=self.device)
            if groupings:
                # The first grouping keeps its images together, the others are scattered over it. Sorting
                # random numbers never waits for the device, which torch.randperm may do.
                slot = torch.argsort(self._uniform(cell.shape))
            chosen = self._integers(torch.full_like(self.slots.first, number))
            index = self.slots.index[slot]
            groupings.append(Groups(index, torch.argsort(slot)[self.slots.first]))
            cell = cell * number + chosen[index]
        return self.order[self.begin[cell] + self._integers(self.count[cell])], tuple(groupings)

    def _integers(self, bound: Tensor) -> Tensor:
        """Return uniform integers in 0 .. bound - 1, one for each entry of bound."""
        return (self._uniform(bound.shape) * bound).long()

    def _uniform(self, shape: torch.Size) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=torch.float64)


def draw_together(streams: Sequence[Batches]) -> Batch:
    """Return the next batch of each of M streams over the same dataset as one, with M as a leading dimension.

    Groups that are the same in all streams are as in one batch.
    """
    rows, groupings, noise = zip(*(stream.draw_indices() for stream in streams), strict=True)
    first = streams[0]
    images = unit_images(first.dataset.images(torch.cat(rows)).to(first.device))
    together = (first.slots,)
    if len(first.numbers) > 1:
        by_grouping = zip(*groupings, strict=True)
        together = tuple(Groups(*map(torch.stack, zip(*same, strict=True))) for same in by_grouping)
    return Batch(images.unflatten(0, (len(streams), -1)), torch.stack(noise), len(first.order), together)


def _cells(
    dataset, rows: np.ndarray, group_by: list[list[str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Return the rows sorted by their combination of groups, the position at which each combination begins,
    its number of rows, and the number of groups of each grouping."""
    labels = [np.unique(dataset.space.labels(names, rows), return_inverse=True) for names in group_by]
    numbers = [len(values) for values, _ in labels]
    cell = np.ravel_multi_index([index for _, index in labels], numbers)
    count = np.bincount(cell, minlength=math.prod(numbers))
    if (count == 0).any():
        names = " with ".join(",".join(names) for names in group_by)
        raise DislabError(
            f"several groupings need images of every combination of their groups: "
            f"{(count == 0).sum():,} of {len(count):,} are missing for {names}"
        )
    return rows[np.argsort(cell, kind="stable")], np.cumsum(count) - count, count, numbers
