"""The cache folder: drawn or decoded images, kept between runs."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from dislab.errors import RunFailed

MOST_IN_MEMORY = 2 * 10**9  # bytes of images


def cache_folder() -> Path:
    """Return the folder of drawn or decoded images: $DISLAB_CACHE, else the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("DISLAB_CACHE") or user_cache_path("dislab", appauthor=False))


def file_stamp(path: Path) -> str:
    """Return a file's size and time of change, for the name of what is decoded from it."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def cached_array(file_name: str, shape: tuple[int, ...], make: Callable[[np.ndarray], None]) -> np.ndarray:
    """Return a uint8 array of the cache folder as a memory map; `make(array)` fills it the first time.

    The array is written to a temporary file that is renamed at the end, so a cache file is always whole. If
    the cache folder cannot be written, an array of up to MOST_IN_MEMORY bytes is made in memory.
    """
    path = cache_folder() / f"{file_name}.npy"
    num_bytes = math.prod(shape)
    if path.is_file():
        # A file that is not a whole array of this shape is made again below.
        with suppress(ValueError, OSError, EOFError):
            array = np.load(path, mmap_mode="r")
            if array.shape == shape and array.dtype == np.uint8:
                return array
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(path.parent.glob("*.part"), 86_400)  # unfinished files of killed processes
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{file_name}.", suffix=".part")
        # The space is taken now: if the disk filled up while a memory map is written, the process would die.
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
        Path(temporary).replace(path)
        name, is_drawn, _ = path.name.rpartition("-rendered-")
        if is_drawn:  # by other versions of the renderer, which another process may use now
            _remove(set(path.parent.glob(f"{name}-rendered-*.npy")) - {path}, 3600)
    except OSError as error:
        raise RunFailed(f"cannot write the cache file '{path}': {error.strerror or error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _remove(paths: Iterable[Path], seconds: float) -> None:
    """Delete the files that nobody wrote to for so many seconds."""
    for path in paths:
        with suppress(OSError):  # another process deleted it
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()
