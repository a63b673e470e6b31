"""A user's own arrays of images and factors as a dataset."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dislab.data.arrays import as_array, as_factors
from dislab.data.dataset import Dataset, look_up
from dislab.data.devices import choose_device
from dislab.data.space import FactorSpace
from dislab.errors import DislabError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CHANNELS = (1, 3)
CHUNK = 4096  # images converted or hashed at a time, so that arrays larger than memory can be given


def from_arrays(
    images: ArrayLike,
    factors: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    name: str = "own",
    group_by: str | Sequence[str] | None = None,
    held_out: ArrayLike | None = None,
    device: str = "cpu",
) -> Dataset:
    """Make a dataset of images and their factor values, for `dislab.run` and `dislab.evaluate`.

    Parameters
    ----------
    images : [N, H, W] (one channel), [N, C, H, W] or [N, H, W, C] with C of 1 or 3: uint8 in 0..255, or
        float in [0, 1], which is rounded to the nearest of these. uint8 with the channels first is used
        without a copy, so a memory map serves as well.
    factors : int [N, K] (or [N]), values 0, 1, 2, … of each factor. If the rows are all combinations of
        values, each once, the last factor fastest, the dataset is a full grid and all metrics apply.
    names : K factor names; by default factor_0, factor_1, ….
    name : the dataset's name in tables. Its source there is "own-" and a digest of images and factors.
    group_by : factors whose combined value is a group; by default the first factor.
    held_out : rows int [M], or bool [N], kept from training and scored instead of all rows;
        `dislab.hold_out` chooses them by factor values.
    device : the device that stores the images.

    Examples
    --------
    >>> import dislab, numpy as np
    >>> images = np.zeros((6, 16, 16), np.uint8)
    >>> images[:, :, :8] = 40 * np.arange(6)[:, None, None]
    >>> dislab.from_arrays(images, factors=[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]).space.is_grid
    True
    """
    images = _checked_images(images)
    values = _checked_factors(factors, len(images))
    sizes = [int(column.max()) + 1 for column in values.T]
    names = [f"factor_{k}" for k in range(len(sizes))] if names is None else [str(name) for name in names]
    if len(names) != len(sizes) or len(set(names)) != len(names):
        raise DislabError(f"{len(sizes)} different factor names are needed, not {', '.join(names) or 'none'}")
    space = FactorSpace(names, sizes, None if _is_grid(values, sizes) else values)
    source = f"own-{_digest(images, values, names)}"
    draw = look_up(images, choose_device(device))
    dataset = Dataset(
        name, source, space, images.shape[1:], draw, names[:1] if group_by is None else group_by
    )
    if held_out is None:
        return dataset
    rows = _checked_rows(held_out, len(images))
    digest = hashlib.sha256(rows.tobytes()).hexdigest()[:8]
    return dataset.with_held_out(rows, f"{len(rows)} rows {digest}")


def _checked_images(images) -> np.ndarray:
    """Return the images as uint8 [N, C, H, W], the same array if it is one."""
    images = as_array("images", images)
    kind = f"{images.dtype} {list(images.shape)}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DislabError(f"images must be [N, H, W], [N, C, H, W] or [N, H, W, C], not {kind}")
    if images.ndim == 3:
        images = images[:, None]
    else:
        first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
        if first == last:
            raise DislabError(
                f"images of four dimensions have 1 or 3 channels, in the second or in the last: in {kind} "
                f"{'both' if first else 'neither'} could be"
            )
        images = images if first else images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8:
        if images.max() <= 1:
            raise DislabError(
                "uint8 images must be 0 to 255, and these have no value above 1: multiply them by 255"
            )
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        raise DislabError(f"images must be uint8 in 0..255 or float in [0, 1], not {images.dtype}")
    pixels = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), CHUNK):
        block = images[start : start + CHUNK].astype(np.float64)
        right = (block >= 0) & (block <= 1)  # false for NaN
        if not right.all():
            wrong = np.unravel_index(np.argmin(right), right.shape)
            raise DislabError(
                f"{images.dtype} images must lie in [0, 1]: image {start + wrong[0]} has {block[wrong]:g}"
            )
        pixels[start : start + CHUNK] = np.rint(block * 255)
    return pixels


def _checked_factors(factors, count: int) -> np.ndarray:
    """Return the factors as int64 [N, K]."""
    factors = as_factors(factors)
    if len(factors) != count:
        raise DislabError(f"there are {count} images, but factors of {len(factors)}")
    return factors


def _checked_rows(held_out, count: int) -> np.ndarray:
    """Return the held-out rows as sorted int64 [M]."""
    rows = as_array("held_out", held_out)
    if rows.dtype == bool and rows.shape == (count,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.dtype.kind not in "iu" and len(rows)):
        raise DislabError(
            f"held_out must be rows int [M] or bool [{count}], not {rows.dtype} {list(rows.shape)}"
        )
    rows = np.unique(rows).astype(np.int64)
    if not 0 < len(rows) < count:
        raise DislabError(f"held_out is {len(rows)} of {count} rows: some must be trained on and some scored")
    if rows[0] < 0 or rows[-1] >= count:
        raise DislabError(f"held_out goes from {rows[0]} to {rows[-1]}, but rows from 0 to {count - 1}")
    return rows


def _is_grid(values: np.ndarray, sizes: Sequence[int]) -> bool:
    """Return whether the rows are all combinations of values, in order, the last factor fastest."""
    if math.prod(sizes) != len(values):  # Python's whole numbers: it may be larger than any of numpy's
        return False
    return np.array_equal(values.T, np.unravel_index(np.arange(len(values)), sizes))


def _digest(images: np.ndarray, values: np.ndarray, names: Sequence[str]) -> str:
    """Return a short digest of the data, the same on every machine."""
    digest = hashlib.sha256(repr((images.shape, values.shape, list(names))).encode())
    digest.update(np.ascontiguousarray(values, "<i8"))
    for start in range(0, len(images), CHUNK):
        digest.update(np.ascontiguousarray(images[start : start + CHUNK]))
    return digest.hexdigest()[:8]
