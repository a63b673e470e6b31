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
from dislab.training.pairs import Redraws


@dataclass
class Batch:
    """The input of a model's loss."""

    images: Tensor  # float32 [B, C, H, W] in [0, 1]
    noise: Tensor  # float32 [B, model.noise], standard Normal; by default a column for each code dimension
    dataset_size: int  # number of images N that batches are drawn from
    groupings: tuple[Groups, ...]  # by each grouping; an image of an "iid" batch is a group of its own
    changed: Tensor | None = None  # bool [pairs, K], with "pairs": the factors that were redrawn in each pair


class Batches:
    """An endless stream of batches from the training rows of a dataset.

    With the supervision "iid", images are drawn uniformly. With "groups", groups are drawn uniformly from the
    values of the grouping factors, and `group_size` different images uniformly from each group. The last
    group of a batch takes the rest of batch_size. With a `group_size` of 0, images are drawn uniformly as for
    "iid", and every value of the grouping factors is a group, whether or not the batch has images of it: its
    shapes never change. With several groupings every image belongs to one group of each. The groups of each
    grouping are drawn uniformly and shuffled against those of the others, and an image is drawn uniformly
    from those that lie in all of its groups. With "pairs", the images 2i and 2i + 1 differ in some factors
    only; if the model's group_size is 0, so do all images of a batch, see `Redraws`.

    `generator` is all that changes from batch to batch. DislabError is raised if a factor is unknown, all
    groups are too small, a combination of groups has no images, or the dataset has no pairs.

    Attributes
    ----------
    order : int64 [N], the rows that are drawn; without those of groups that are smaller than `group_size`.
    noise : number of columns of the noise.
    remark : a line that says how many groups and images are too few to be drawn, or "".
    """

    def __init__(self, dataset, model, batch_size: int, group_by: list[list[str]], seed: int, device):
        self.dataset, self.device = dataset, device
        self.noise = getattr(model, "noise", None) or model.latents
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.redraws, self.remark = None, ""
        self.class_of = self.classes = None  # of each dataset row, int64 [N]; all of them, int64 [classes]
        by_class = model.supervision == "groups" and model.group_size == 0
        if model.supervision == "pairs":
            self.size = model.group_size or batch_size
            self.order = torch.from_numpy(_whole_grid(dataset, model, batch_size)).to(device)
        else:
            is_uniform = model.supervision == "iid" or by_class
            self.size = 1 if is_uniform else min(model.group_size, batch_size)
            self._sort(model, batch_size, group_by, is_uniform)
        if by_class:
            self._classify(group_by)
        index = torch.arange(batch_size, device=device) // self.size
        self.slots = Groups(index, torch.arange(0, batch_size, self.size, device=device))
        groups = self.slots.number
        least, number = getattr(model, "least_groups", None) or 1, len(self.classes) if by_class else groups
        if number < least:
            raise DislabError(
                f"the model compares {least} groups or more, but group_size={model.group_size} makes "
                f"{number} in a batch of {batch_size}"
            )
        if model.supervision == "pairs":
            self.redraws = Redraws(dataset.space, groups, self.size, model.changed, model.resample, device)
            self.parts = self.redraws.parts
            return
        several = len(self.numbers) - 1
        # How many random numbers are used for what by `_of_one_grouping` or `_of_several`.
        self.parts = [groups, *[batch_size, groups] * several, batch_size if several else self.size * groups]
        # The images that a group lacks in a round of `_of_one_grouping`, int64 [size, G].
        rounds = torch.arange(self.size, device=device)[:, None]
        self.missing = (torch.bincount(index) - rounds).clamp(min=1)

    def _classify(self, group_by: list[list[str]]) -> None:
        """Find the class of every row that is trained on."""
        if len(group_by) > 1:
            raise DislabError(f"group_size=0 takes one grouping, but --group-by names {len(group_by)}")
        rows, class_of = self.dataset.train_rows(), np.zeros(len(self.dataset), np.int64)
        labels = self.dataset.space.labels(group_by[0], rows)
        values, class_of[rows] = np.unique(labels, return_inverse=True)
        self.class_of = torch.from_numpy(class_of).to(self.device)
        self.classes = torch.arange(len(values), device=self.device)

    def _sort(self, model, batch_size: int, group_by: list[list[str]], is_uniform: bool) -> None:
        """Sort the training rows by their groups, which is what rows are drawn from."""
        rows = self.dataset.train_rows()
        if is_uniform:
            # All rows are one class from which each group draws one image: one way of drawing serves both.
            order, self.numbers = rows, [1]
            begin, count = np.zeros(1, np.int64), np.array([len(rows)])
        else:
            order, begin, count, self.numbers = _cells(self.dataset, rows, group_by)
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
        arrays = (torch.from_numpy(array).to(self.device) for array in (order, begin, count))
        self.order, self.begin, self.count = arrays

    def draw(self) -> Batch:
        """Return the next batch."""
        return self._batch(*self.random())

    def random(self) -> tuple[Tensor, Tensor]:
        """Return all that is random in the next batch: numbers float64 [R] for `rows`, uniform in [0, 1), and
        the noise [B, noise]."""
        uniform = torch.rand(
            sum(self.parts), generator=self.generator, device=self.device, dtype=torch.float64
        )
        shape = len(self.slots.index), self.noise
        return uniform, torch.randn(shape, generator=self.generator, device=self.device)

    def rows(self, uniform: Tensor) -> tuple[Tensor, tuple[Groups, ...], Tensor | None]:
        """Return the rows int64 [..., B] of a batch, their groups, and what changed in pairs, by its numbers
        [..., R]."""
        # Sizes stand at the end: in front may stand several models, whose batches get the same arithmetic.
        parts = uniform.split(self.parts, dim=-1)
        if self.redraws is not None:
            rows, changed = self.redraws.rows(*parts)
            return rows, (self._together(rows.shape),), changed
        return *(self._of_one_grouping(*parts) if len(self.numbers) == 1 else self._of_several(*parts)), None

    def _of_one_grouping(self, *parts: Tensor) -> tuple[Tensor, tuple[Groups]]:
        chosen = _integers(parts[0], len(self.count))  # [..., G]
        begin, count = self.begin[chosen][..., None, :], self.count[chosen][..., None, :]
        # Floyd's algorithm draws different members of every group at once: a rank drawn before is replaced by
        # the highest one allowed in this round, which no earlier round could have drawn. `missing` is 1 or
        # more: draws beyond the size of the last group are cut off below, but are valid ranks.
        highest = count - self.missing
        ranks = _integers(parts[1].unflatten(-1, self.missing.shape), highest + 1)  # [..., size, G]
        for member in range(1, self.size):
            rank = ranks[..., member, :]
            drawn_before = (ranks[..., :member, :] == rank[..., None, :]).any(-2)
            ranks[..., member, :] = torch.where(drawn_before, highest[..., member, :], rank)
        members = self.order[(begin + ranks).transpose(-1, -2)].flatten(-2)[..., : len(self.slots.index)]
        if self.class_of is None:
            return members, (self._together(members.shape),)
        index = self.class_of[members]
        is_of = index[..., None, :] == self.classes[:, None]  # [..., classes, B]
        return members, (Groups(index, is_of.int().argmax(-1)),)  # its first image; 0 if it has none

    def _of_several(self, first: Tensor, *parts: Tensor) -> tuple[Tensor, tuple[Groups, ...]]:
        *others, last = parts
        cell = _integers(first, self.numbers[0])[..., self.slots.index]
        # The first grouping keeps its images together, the others are scattered over it.
        groupings = [self._together(cell.shape)]
        for number, scattered, of_groups in zip(self.numbers[1:], others[::2], others[1::2], strict=True):
            # Sorting random numbers never waits for the device, which torch.randperm may do.
            slot = scattered.argsort()
            groups = Groups(self.slots.index[slot], slot.argsort()[..., self.slots.first])
            groupings.append(groups)
            cell = cell * number + _integers(of_groups, number).gather(-1, groups.index)
        return self.order[self.begin[cell] + _integers(last, self.count[cell])], tuple(groupings)

    def _together(self, shape: torch.Size) -> Groups:
        """Return the groups of images of the shape [..., B] if each group's images lie together."""
        # A copy: what a user's loss writes to it must not reach the next batch.
        return Groups(*(part.expand(*shape[:-1], -1).clone() for part in self.slots))

    def _batch(self, uniform: Tensor, noise: Tensor) -> Batch:
        rows, groupings, changed = self.rows(uniform)
        images = unit_images(self.dataset.images(rows.flatten()).to(self.device))
        return Batch(images.unflatten(0, rows.shape), noise, len(self.order), groupings, changed)


def draw_together(streams: Sequence[Batches]) -> Batch:
    """Return the next batch of each of M streams over the same dataset as one, with M as a leading dimension.

    Each stream draws its own random numbers; what is made of them is computed for all streams at once.
    """
    uniform, noise = map(torch.stack, zip(*(stream.random() for stream in streams), strict=True))
    return streams[0]._batch(uniform, noise)


def batch_of(batch: Batch, index: int) -> Batch:
    """Return the batch of one of the streams that `draw_together` joined."""
    groupings = tuple(Groups(*(part[index] for part in groups)) for groups in batch.groupings)
    changed = None if batch.changed is None else batch.changed[index]
    return Batch(batch.images[index], batch.noise[index], batch.dataset_size, groupings, changed)


def _integers(uniform: Tensor, bound: Tensor | int) -> Tensor:
    """Return uniform integers in 0 .. bound - 1, by numbers that are uniform in [0, 1)."""
    return (uniform * bound).long()


def _whole_grid(dataset, model, batch_size: int) -> np.ndarray:
    """Return the rows of a dataset that has pairs; raise DislabError if it has none for this model."""
    space, rows = dataset.space, dataset.train_rows()
    if not space.is_grid or len(rows) < len(space):
        raise DislabError(
            "the model learns from pairs that differ in some factors, so it needs an image of every "
            "combination of factor values: the "
            f"{len(rows):,} training images of {dataset.name} are no such grid"
        )
    if getattr(model, "binds_factors", False) and model.latents < len(space.sizes):
        raise DislabError(
            f"latents={model.latents}: the model has a latent for each factor, and {dataset.name} has "
            f"{len(space.sizes)} factors"
        )
    if batch_size % (model.group_size or 1):
        raise DislabError(f"--batch-size {batch_size}: a batch of pairs has an even number of images")
    return rows


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
