"""The cache folder: drawn or decoded images, kept between runs, and what is known of checked files."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import xxhash

from dislab.claim import claimed
from dislab.errors import RunFailed
from dislab.files import UNSEALED, digest, is_sealed, sealed, sweep, temporary, write_atomically
from dislab.progress import say

MOST_IN_MEMORY = 2 * 10**9  # bytes of images
ALWAYS_CHECKED = 10**9  # bytes of a cache file that is read in full whenever it is opened; larger ones once
DIGEST_BYTES = 32  # at the end of a cache file, after the array: of all bytes before it


def cache_folder() -> Path:
    """Return the folder of drawn or decoded images: $DISLAB_CACHE, else the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("DISLAB_CACHE") or user_cache_path("dislab", appauthor=False))


def file_stamp(path: Path, pattern: str = "*") -> str:
    """Return a file's size and time of change, for the name of what is decoded from it.

    Of a folder it is a digest of these and the names of its files that match the pattern.
    """
    if path.is_dir():
        stamps = [(file.name, file_stamp(file)) for file in sorted(path.glob(pattern))]
        return hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def cached_array(file_name: str, shape: tuple[int, ...], make: Callable[[np.ndarray], None]) -> np.ndarray:
    """Return a uint8 array of the cache folder as a memory map; `make(array)` fills it the first time.

    The array is written to a temporary file that is renamed at the end, with the digest of its bytes. A file
    whose bytes have changed since is made again, with a line that says so. Of several processes one makes
    the array, and the others wait for it. If the cache folder cannot be written, an array of up to
    MOST_IN_MEMORY bytes is made in memory.

    Raises
    ------
    RunFailed : the array is larger than that and cannot be written.
    """
    path = cache_folder() / f"{file_name}.npy"
    num_bytes = math.prod(shape)
    sweep(path.parent)
    array = _read(path, shape)
    if array is not None:
        return array
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(claimed(path))
            array = _read(path, shape, quiet=True)  # another process may have made it meanwhile
            if array is not None:
                return array
            beside = stack.enter_context(temporary(path))
            array = _empty(beside, shape)
        except (OSError, RunFailed) as error:
            problem = (
                f"cannot write {num_bytes / 1e9:.1f} GB of images to the cache folder '{path.parent}': "
                f"{getattr(error, 'strerror', None) or error} (another folder: $DISLAB_CACHE)"
            )
            if num_bytes > MOST_IN_MEMORY:
                raise RunFailed(problem) from None
            say(f"{problem}; they are made in memory, for this command alone")
            array = np.empty(shape, np.uint8)
            make(array)
            return array
        make(array)
        try:
            array.flush()
            with beside.open("r+b") as file:
                found = _digest(file, len(_header(shape)) + num_bytes)
                file.write(found)
            beside.replace(path)
        except OSError as error:
            raise RunFailed(f"cannot write the cache file '{path}': {error.strerror or error}") from error
    _remove_other_versions(path)
    if num_bytes > ALWAYS_CHECKED:
        remember([path], {})
    return np.memmap(path, np.uint8, "r", len(_header(shape)), shape)


def _read(path: Path, shape: tuple[int, ...], quiet: bool = False) -> np.ndarray | None:
    """Return the array of a cache file as a read-only memory map, or None if it is not there or not whole."""
    header, num_bytes = _header(shape), math.prod(shape)
    try:
        if not path.is_file() or path.stat().st_size == len(header) + num_bytes:
            return None  # files of earlier versions had no digest
        if _is_whole(path, header, num_bytes):
            return np.memmap(path, np.uint8, "r", len(header), shape)
    except OSError:  # to write it will say why
        return None
    say(f"the cache file '{path}' is damaged: its images are made again", quiet)
    return None


def _is_whole(path: Path, header: bytes, num_bytes: int) -> bool:
    """Return whether a cache file holds an array of this header and the digest of its bytes."""
    size, is_large = len(header) + num_bytes, num_bytes > ALWAYS_CHECKED
    with path.open("rb") as file:
        if path.stat().st_size != size + DIGEST_BYTES or file.read(len(header)) != header:
            return False
        if is_large and recall([path]) is not None:
            return True
        file.seek(0)
        is_right = _digest(file, size) == file.read()
    if is_right and is_large:
        remember([path], {})
    return is_right


def _empty(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Make a .npy file of an array and of a digest; return the array as a map that can be written."""
    header = _header(shape)
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o644)  # others may read a shared cache folder
        # The space is taken now, and the file is never truncated: if the disk filled up while a memory map
        # is written, the process would die.
        size = len(header) + math.prod(shape) + DIGEST_BYTES
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # as on macOS
            for start in range(0, size, 2**20):
                file.write(bytes(min(2**20, size - start)))
            file.seek(0)
        file.write(header)
    return np.memmap(path, np.uint8, "r+", len(header), shape)


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the first bytes of the .npy file of a uint8 array."""
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def _digest(file, num_bytes: int) -> bytes:
    """Return the digest of the next bytes of an open file, DIGEST_BYTES hex digits."""
    hashed, block = xxhash.xxh3_128(), memoryview(bytearray(2**20))
    while num_bytes and (read := file.readinto(block[:num_bytes])):
        hashed.update(block[:read])
        num_bytes -= read
    return hashed.hexdigest().encode()


def _remove_other_versions(path: Path) -> None:
    """Delete what other versions of a renderer drew, unless it is new: another process may use it now."""
    name, is_drawn, _ = path.name.rpartition("-rendered-")
    for other in set(path.parent.glob(f"{name}-rendered-*.npy")) - {path} if is_drawn else ():
        with suppress(OSError):  # another process deleted it
            if time.time() - other.stat().st_mtime > 3600:
                other.unlink()


# What is known of files ----------------------------------------------------------------------------


def recall(paths: Sequence[Path]) -> dict | None:
    """Return what `remember` was told of files, or None if one of them has changed, by its size and times."""
    with suppress(OSError):
        content = _note_of(paths).read_bytes()
        if is_sealed(content):
            known = json.loads(content)
            if known["files"] == _stamps(paths):
                return known["facts"]
    return None


def remember(paths: Sequence[Path], facts: dict) -> None:
    """Keep facts on files in the cache folder until one of them changes; nothing if it cannot be written."""
    note = _note_of(paths)
    with suppress(OSError, RunFailed):
        known = {"check": UNSEALED.decode(), "files": _stamps(paths), "facts": facts}
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, sealed(json.dumps(known).encode()))


def _note_of(paths: Sequence[Path]) -> Path:
    names = b"\0".join(os.fsencode(path.absolute()) for path in paths)
    return cache_folder() / "checked" / f"{digest(names)}.json"


def _stamps(paths: Sequence[Path]) -> list[list[int]]:
    """Return what changes with the files."""
    # The time of a change of status too: that of a change of content can be set to any value.
    return [[s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in (path.stat() for path in paths)]
