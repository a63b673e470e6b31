"""What every dataset is: a factor space, and images by row; where its official files and its cache lie."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dislab.data.devices import choose_device
from dislab.data.official import cache_folder, data_folder, find_file
from dislab.data.space import FactorSpace
from dislab.errors import DislabError, RunFailed
from dislab.registry import DATASETS

SOURCES = ("auto", "official", "rendered")
MOST_IN_MEMORY = 2 * 10**9  # bytes of images


class Dataset:
    """Images by row, with known factors of variation.

    Parameters
    ----------
    name : the registered name, with the variant where there is one (mpi3d_toy).
    source : where the images come from: "official" or "rendered" (or "own-" and a digest, for a user's).
    space : FactorSpace of the N rows.
    image_shape : (C, H, W).
    draw : function from rows, int64 tensor [B], to images, uint8 tensor [B, C, H, W] in 0..255, on one
        device.
    group_by : names of the factors whose combined value is a group, where the user does not choose.
    held_out : rows kept from training and scored instead of all rows; None trains on and scores all rows.
    file : the official file that was read, if any.
    test : those of the held-out rows that a readout of the codes is tested on, where the dataset itself parts
        them from rows for its training (MNIST's test images); None leaves that to the metric.

    Attributes
    ----------
    split : what a user held out, in words; "" for the dataset's own rows. Scores of other splits are other
        scores: it belongs to what identifies a run.
    """

    def __init__(
        self,
        name: str,
        source: str,
        space: FactorSpace,
        image_shape: tuple[int, int, int],
        draw: Callable[[Tensor], Tensor],
        group_by: Sequence[str],
        held_out: np.ndarray | None = None,
        file: Path | None = None,
        test: np.ndarray | None = None,
    ):
        self.name, self.source, self.space, self.image_shape = name, source, space, image_shape
        self.group_by = list(group_by)
        self.file = file
        self.split = ""
        self._draw = draw
        self._held_out = held_out
        self._test = test

    def __len__(self) -> int:
        return len(self.space)

    def __repr__(self) -> str:
        return f"Dataset({self.name}, {self.source}, {len(self)} images {self.image_shape}, {self.space})"

    def images(self, index) -> Tensor:
        """Images uint8 [B, C, H, W] in 0..255 of the rows [B] (a tensor, an array or a list)."""
        return self._draw(torch.as_tensor(index, dtype=torch.int64))

    def with_held_out(self, rows: np.ndarray, split: str) -> Dataset:
        """The same images with other rows held out, int64, sorted, each once; `split` says which."""
        other = copy.copy(self)
        other._held_out, other._test, other.split = rows, None, split
        return other

    def train_rows(self) -> np.ndarray:
        """Rows int64 that a model may be trained on."""
        trained = np.ones(len(self), bool)
        if self._held_out is not None:
            trained[self._held_out] = False
        return np.flatnonzero(trained)

    def evaluation_rows(self) -> np.ndarray:
        """Rows int64 that are encoded and scored: the held-out ones, or all."""
        return np.arange(len(self)) if self._held_out is None else self._held_out

    def is_test(self, rows: np.ndarray) -> np.ndarray | None:
        """Whether each row is one that readouts are tested on, bool; None where the dataset does not say."""
        return None if self._test is None else np.isin(rows, self._test)


def unit_images(pixels: Tensor) -> Tensor:
    """Images float32 [B, C, H, W] in [0, 1] of uint8 pixels, channels last in memory.

    With the channels last a training step of the convolutional network was measured 1.4 times as fast on the
    CPU.
    """
    # (Bytes are moved first, then widened: a quarter of the memory to move.)
    return pixels.contiguous(memory_format=torch.channels_last).float().div_(255)


def load_dataset(name: str, *, source: str = "auto", data_dir=None, device: str = "cpu") -> Dataset:
    """Open a dataset of the registry.

    Parameters
    ----------
    name : a registered name, see `dislab list datasets`.
    source : "official" reads the published file; "rendered" draws the same factor grid; "auto" is official
        where the file is present, else rendered.
    data_dir : where official files lie; else $DISLAB_DATA, else the user's cache folder.
    device : where the images are stored and drawn.

    Raises
    ------
    DislabError : the name or the source is unknown, the device cannot be used, or the official file is
        missing or not what it should be.
    """
    entry = DATASETS[name]
    if source not in SOURCES:
        raise DislabError(f"unknown source '{source}': choose {', '.join(SOURCES)}")
    return entry.make(source=source, data_dir=data_dir, device=choose_device(device))


def official_file(name: str, file_names: Sequence[str], source: str, data_dir=None) -> Path | None:
    """The official file where `source` asks for it or allows it, None to use the rendered images."""
    if source == "rendered":
        return None
    path = find_file(name, file_names, data_dir)
    if path is None and source == "official":
        place = data_folder(data_dir) / name / file_names[0]
        raise DislabError(
            f"the official file of {name} is not there: `dislab data fetch {name}`, or put it at '{place}'"
        )
    return path


def cached_array(file_name: str, shape: tuple[int, ...], make: Callable[[np.ndarray], None]) -> np.ndarray:
    """A uint8 array from the cache folder, read through a memory map; made once by `make(array)`, which fills
    it.

    It is written beside its place and then moved there, so a cache file is always whole. Where the cache
    folder cannot be written an array of up to MOST_IN_MEMORY bytes is made in memory.

    Raises
    ------
    RunFailed : the array cannot be written, or is too large for memory.
    """
    path = cache_folder() / f"{file_name}.npy"
    num_bytes = math.prod(shape)
    if path.is_file():
        try:
            array = np.load(path, mmap_mode="r")
            if array.shape == shape and array.dtype == np.uint8:
                return array
        except (ValueError, OSError, EOFError):
            pass  # not a whole array: made anew below
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{file_name}.", suffix=".part")
        # The space is taken now: a full disk found while filling a memory map would kill the process.
        os.posix_fallocate(handle, 0, num_bytes + 1024)
        os.fchmod(handle, 0o644)  # others may read a shared cache folder
        os.close(handle)
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if num_bytes > MOST_IN_MEMORY:
            raise RunFailed(
                f"cannot write {num_bytes / 1e9:.1f} GB of images to the cache folder '{path.parent}': "
                f"{error.strerror} (another folder: $DISLAB_CACHE)"
            ) from None
        array = np.empty(shape, np.uint8)
        make(array)
        return array
    try:
        make(array)
        array.flush()
        del array
        Path(temporary).replace(path)
        _remove_outdated(path)
    except OSError as error:
        raise RunFailed(f"cannot write the cache file '{path}': {error.strerror or error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _remove_abandoned(folder: Path) -> None:
    """Delete what killed processes left half written: unfinished files that nobody wrote to for a day."""
    for path in folder.glob("*.part"):
        with suppress(OSError):  # another process deleted it
            if time.time() - path.stat().st_mtime > 86_400:
                path.unlink()


def _remove_outdated(path: Path) -> None:
    """Delete the images of a dataset that other versions of its renderer drew (NAME-rendered-DIGEST.npy), but
    not those of the last hour: that version may be in use, too."""
    name, is_drawn, _ = path.name.rpartition("-rendered-")
    for other in path.parent.glob(f"{name}-rendered-*.npy") if is_drawn else ():
        with suppress(OSError):
            if other != path and time.time() - other.stat().st_mtime > 3600:
                other.unlink()


def source_digest(module) -> str:
    """A short digest of a module's source, so that the cache keeps no images of another version."""
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()[:12]


def factors_on_device(space: FactorSpace, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from rows int64 [B] of a full grid to their factor values int64 [B, K], both on the device.

    As `FactorSpace.factors` on the host; what it needs is on the device already, so that nothing waits.
    """
    sizes = torch.tensor(space.sizes, device=device)
    strides = [math.prod(space.sizes[k + 1 :]) for k in range(len(space.sizes))]
    steps = torch.tensor(strides, device=device)
    return lambda rows: rows.to(device)[:, None] // steps % sizes


def stored_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """The array as a tensor on the device; on the CPU it shares the array's memory (or its memory map)."""
    with warnings.catch_warnings():  # a read-only map is what is wanted: nothing here writes to images
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def open_npz_member(path: Path, key: str, shape: tuple[int, ...], dtype=np.uint8):
    """An open stream over the raw bytes of an array in a .npz file, so that it need not fit in memory.

    Raises
    ------
    DislabError : not a .npz file, no such key, or another shape or type than the official one.
    """
    try:
        archive = zipfile.ZipFile(path)
        stream = archive.open(f"{key}.npy")
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        found_shape, fortran, found_dtype = read_header(stream)
    except KeyError:
        keys = ", ".join(sorted(name.removesuffix(".npy") for name in archive.namelist()))
        raise DislabError(
            f"'{path}' has no array '{key}' (it has {keys}): it is not the official file"
        ) from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise DislabError(f"'{path}' is not a whole .npz file: {error}") from None
    if found_shape != shape or found_dtype != dtype or fortran:
        raise DislabError(
            f"'{path}': array '{key}' is {found_dtype} {list(found_shape)}, "
            f"expected {np.dtype(dtype)} {list(shape)}"
        )
    return stream
