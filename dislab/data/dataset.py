"""What every dataset is: a factor space and images by row; and how one of the registry is opened.

torch is imported where it is used, so that `dislab data` reads the registry of datasets without it.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dislab.data.devices import choose_device
from dislab.data.official import different_copies, unpublished
from dislab.data.space import FactorSpace
from dislab.errors import FAILURES, DislabError, DislabWarning, defined_in, in_words
from dislab.notebook import html_table
from dislab.registry import DATASETS

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from torch import Tensor

SOURCES = ("auto", "official", "rendered")
MOST_CHARACTERS = 100  # of a name; a file's name may have 255 bytes, with all that is added


class Dataset:
    """Images by row, with known factors of variation.

    Parameters
    ----------
    name : the registered name, with the variant if there is one (mpi3d_toy). It becomes part of file names.
    source : the origin of the images: "official" or "rendered"; "own-" and a digest for a user's data.
    space : FactorSpace of the N rows.
    image_shape : (C, H, W).
    draw : function from rows, int64 tensor [B], to images, uint8 tensor [B, C, H, W], on one device.
    group_by : names of the factors whose combined value is a group, unless the user chooses others.
    held_out : rows kept from training and scored instead of all rows; None trains on and scores all rows.
    file : the official file that was read, if any.
    test : those held-out rows that a readout of the codes is tested on, if the dataset itself parts them from
        rows for the readout's training (MNIST's test images); None leaves that to the metric.
    renderer : VERSION of the module of dislab.rendering that draws the images, or draws on official ones;
        None if nothing draws them.

    Attributes
    ----------
    split : a text that says what a user held out, "" for the dataset's own rows. Scores of different splits
        are not comparable, so the split is part of a run's identity.
    unpublished : 8 hex digits that identify the content of official files that are not known to be the
        published ones; else "".
    """

    def __init__(
        self,
        name: str,
        source: str,
        space: FactorSpace,
        image_shape: tuple[int, int, int],
        draw: Callable[[Tensor], Tensor],
        group_by: str | Sequence[str],
        held_out: np.ndarray | None = None,
        file: Path | None = None,
        test: np.ndarray | None = None,
        *,
        renderer: int | None = None,
    ):
        check_name(name)
        is_short = isinstance(source, str) and source.isprintable() and len(source) <= MOST_CHARACTERS
        if not is_short or Path(source).name != source:
            raise DislabError(
                f"the source of {name} is {in_short(source)}: it becomes part of tables and of a file's name"
            )
        if not isinstance(space, FactorSpace):
            raise DislabError(f"the space of {name} is {space!r}: it must be a dislab.FactorSpace")
        if draw is not None and not callable(draw):  # None: only the factors are used
            raise DislabError(f"draw of {name} is {draw!r}: it must be a function of rows")
        shape = tuple(image_shape) if isinstance(image_shape, Sequence) else ()
        if len(shape) != 3 or not all(isinstance(size, int | np.integer) and size > 0 for size in shape):
            raise DislabError(f"the image shape of {name} is {image_shape!r}: it must be (C, H, W)")
        self.name, self.source, self.space = name, source, space
        self.image_shape = tuple(int(size) for size in shape)
        self.group_by = [group_by] if isinstance(group_by, str) else list(group_by)
        if not self.group_by:
            raise DislabError(f"group_by of {name} is empty: name at least one factor")
        space.columns(self.group_by)
        if held_out is not None:
            held_out = np.unique(held_out)
            is_part = held_out.dtype.kind in "iu" and 0 < len(held_out) < len(space)
            if not is_part or held_out[0] < 0 or held_out[-1] >= len(space):
                raise DislabError(f"held_out of {name} must be some, not all, of its {len(space):,} rows")
        self.file, self.renderer, self.split, self.unpublished = file, renderer, "", ""
        self._draw, self._held_out, self._test = draw, held_out, test

    def __len__(self) -> int:
        return len(self.space)

    def __repr__(self) -> str:
        return f"Dataset({self.name}, {self.source}, {len(self)} images {self.image_shape}, {self.space})"

    def _repr_html_(self) -> str:
        size, groups = " x ".join(map(str, self.image_shape)), ", ".join(self.group_by)
        caption = f"{self.name} ({self.source}): {len(self):,} images, {size}, grouped by {groups}"
        factors = zip(self.space.names, self.space.sizes, strict=True)
        return html_table(caption, ("factor", "values"), factors)

    def images(self, index: Tensor | ArrayLike) -> Tensor:
        """Return images uint8 [B, C, H, W] in 0..255 of the rows [B], a tensor, an array or a list."""
        import torch

        rows = torch.as_tensor(index, dtype=torch.int64).clone()  # `draw` may be a user's, and write to it
        try:
            images = self._draw(rows)
        except DislabError:
            raise
        except FAILURES as error:
            reason = in_words(error, self._draw)
            raise DislabError(f"dataset '{self.name}' failed to draw images: {reason}") from error
        expected = len(rows), *self.image_shape
        if not isinstance(images, torch.Tensor) or (images.dtype, images.shape) != (torch.uint8, expected):
            kind = str(getattr(images, "dtype", type(images).__name__)).removeprefix("torch.")
            raise DislabError(
                f"dataset '{self.name}' must draw {len(rows)} rows as uint8 {[*expected]}, not as {kind} "
                f"{[*getattr(images, 'shape', [])]}{defined_in(self._draw)}"
            )
        return images

    def with_held_out(self, rows: np.ndarray, split: str) -> Dataset:
        """Return the same images with other rows held out, int64, sorted, each once; `split` names them."""
        other = copy.copy(self)
        other._held_out, other._test, other.split = rows, None, split
        return other

    def for_validation(self) -> Dataset:
        """Return the same images, of which those train that here neither train a model nor test a readout.

        Raises
        ------
        DislabError : the dataset does not say which images are tested.
        """
        rows = self.evaluation_rows()
        if self._test is None:
            raise DislabError(f"{self.name} has no images that are neither trained on nor tested")
        others = np.setdiff1d(np.arange(len(self)), rows[~self.is_test(rows)])
        return self.with_held_out(others, "validation")

    def train_rows(self) -> np.ndarray:
        """Return the rows int64 that a model may be trained on."""
        trained = np.ones(len(self), bool)
        if self._held_out is not None:
            trained[self._held_out] = False
        return np.flatnonzero(trained)

    def evaluation_rows(self) -> np.ndarray:
        """Return the rows int64 that are encoded and scored: the held-out ones, or all."""
        return np.arange(len(self)) if self._held_out is None else self._held_out

    def is_test(self, rows: np.ndarray) -> np.ndarray | None:
        """Return whether readouts are tested on each row, bool, or None if the dataset does not say."""
        return None if self._test is None else np.isin(rows, self._test)


def check_name(name) -> None:
    """Raise DislabError if a dataset cannot have this name, which becomes part of the names of files."""
    is_right = isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= MOST_CHARACTERS
    if not is_right or name in (".", "..") or {"/", "\\"} & set(name):
        raise DislabError(
            f"the dataset's name is {in_short(name)}: it becomes part of a file's name, so it must be a text "
            f"of 1 to {MOST_CHARACTERS} characters that can be printed, without / and \\"
        )


def in_short(value) -> str:
    """Return a value as Python writes it, cut off after some 60 characters, in one line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def open_registered(name: str, source: str, data_dir: str | Path | None, device: str) -> Dataset:
    """Open a dataset of the registry; the arguments are those of `dislab.load_dataset`."""
    entry = DATASETS[name]
    make = entry.make
    if source not in SOURCES:
        raise DislabError(f"unknown source '{source}': choose {', '.join(SOURCES)}")
    options = {"source": source, "data_dir": data_dir, "device": choose_device(device)}
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        message = (
            f"dataset '{name}' must be called with (source, data_dir, device): {error}{defined_in(make)}"
        )
        raise DislabError(message) from None
    try:
        dataset = make(**options)
    except FAILURES as error:
        text = in_words(error, make)
        if not isinstance(error, DislabError):
            raise DislabError(f"dataset '{name}' cannot be opened: {text}") from error
        if DATASETS.is_built_in(name):
            raise
        raise type(error)(text + defined_in(make)) from error
    if not isinstance(dataset, Dataset):
        kind = type(dataset).__name__
        raise DislabError(f"dataset '{name}' must return a dislab.Dataset, not {kind}{defined_in(make)}")
    dataset.images([0])
    if dataset.source in ("official", "rendered") and entry.official is not None:
        dataset.unpublished, words = unpublished(entry.official, data_dir, dataset.source)
        if words:
            warnings.warn(f"{dataset.name}: {words}", DislabWarning, stacklevel=3)
        for line in different_copies(entry.official, data_dir):
            warnings.warn(f"{dataset.name}: {line}", DislabWarning, stacklevel=3)
    return dataset


def unit_images(pixels: Tensor) -> Tensor:
    """Return images float32 [B, C, H, W] in [0, 1] of uint8 pixels, channels last in memory."""
    import torch

    # With the channels last a training step of the convolutional network was measured 1.4 times as fast on
    # the CPU. Bytes are moved first, then widened: a quarter of the memory to move.
    return pixels.contiguous(memory_format=torch.channels_last).float().div_(255)


def stored_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Return the array as a tensor on the device; on the CPU it shares the array's memory or memory map."""
    import torch

    with warnings.catch_warnings():  # a read-only map is what is wanted: nothing here writes to images
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def look_up(array: np.ndarray, device: torch.device, channels_last: bool = False) -> Callable:
    """Return a `draw` for `Dataset` that looks up stored images, uint8 [N, C, H, W] or [N, H, W, C]."""
    images = stored_tensor(array, device)

    def draw(rows: Tensor) -> Tensor:
        batch = images[rows.to(images.device)]
        return batch.permute(0, 3, 1, 2) if channels_last else batch

    return draw


def factors_on_device(space: FactorSpace, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function from rows int64 [B] of a full grid to factor values int64 [B, K], on the device.

    It computes what `FactorSpace.factors` does on the host, and waits for nothing.
    """
    import torch

    sizes = torch.tensor(space.sizes, device=device)
    steps = torch.tensor([math.prod(space.sizes[k + 1 :]) for k in range(len(space.sizes))], device=device)
    return lambda rows: rows.to(device)[:, None] // steps % sizes
