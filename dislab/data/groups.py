"""Groups of images that share a factor value: those of a batch, and those whose images are joined."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Groups(NamedTuple):
    """The groups of a batch by one grouping."""

    index: Tensor  # int64 [B], the group of each image, 0 .. number - 1
    # int64 [number], one image of each group; its first if the group's images lie together. It is no random
    # member: `Batches` draws random sets of images, and some images of a small class never come first. It
    # means nothing for a group without images, see `Batches`.
    first: Tensor

    @property
    def number(self) -> int:
        return len(self.first)


def draw_groups(rng: np.random.Generator, classes: np.ndarray, most: int, size: int) -> np.ndarray:
    """Draw positions int64 [groups, k] of different images: a class in each row, k images of it.

    Of more classes than `most` some are drawn; k is `size`, or what the smallest class drawn has.
    """
    chosen = np.unique(classes)
    if len(chosen) > most:
        chosen = np.sort(rng.choice(chosen, most, replace=False))
    members = [rng.permutation(np.flatnonzero(classes == value)) for value in chosen]
    size = min(size, *map(len, members))
    return np.stack([positions[:size] for positions in members])


def join_by_one(groups: int, size: int, grouping: int, number: int, device) -> tuple[Groups, ...]:
    """Return the groups of `groups` x `size` images in this order by one of `number` groupings.

    By all other groupings every image is a group of its own.
    """
    images = torch.arange(groups * size, device=device)
    groupings = [Groups(images, images)] * number
    groupings[grouping] = Groups(images // size, images[::size])
    return tuple(groupings)
