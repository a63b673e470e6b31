"""Arrays in .npz files: read whole, streamed in blocks, or mapped from the file if not compressed."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dislab.data.official import listed, unreadable
from dislab.errors import DislabError

# A zip file's local header before a member's name: signature, 22 bytes that the directory repeats, and the
# lengths of the name and of the extra field.
LOCAL_HEADER = struct.Struct("<4s22xHH")
MOST_DEFLATED = 1032  # bytes that one byte of the usual compression can become
WHOLE = "is not a whole .npz file"


def read_arrays(path: Path, needed: Sequence[str], also: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return the needed arrays of a .npz file by name, and of the others those that are there.

    Raises
    ------
    DislabError : the file cannot be read, an array is missing or damaged, does not fit into memory, or holds
        Python objects.
    """
    with _opened(path) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if not set(needed) <= set(there):
            raise DislabError(f"'{path}' needs the arrays {' and '.join(needed)}; it has {listed(there)}")
        return {key: _read(archive, path, key) for key in (*needed, *also) if key in there}


def read_blocks(path: Path, key: str, shape: tuple[int, ...], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of each block of up to `size` images, and the block, uint8 [B, *shape[1:]]."""
    with _opened(path) as archive, _member(archive, path, key, shape) as stream:
        for start in range(0, shape[0], size):
            block_shape = (min(size, shape[0] - start), *shape[1:])
            try:
                data = stream.read(int(np.prod(block_shape)))
                block = np.frombuffer(data, np.uint8).reshape(block_shape)
            except Exception as error:  # zlib and zipfile raise errors of their own for damaged bytes
                raise unreadable(path, error, f"is cut off or damaged after image {start}") from None
            yield start, block


def map_array(path: Path, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a uint8 array of a .npz file as a read-only memory map of the file, or None if it is compressed.

    Only headers are read, which takes milliseconds for any size. The bytes of the array are not held against
    their checksum; `dislab data verify` does that.
    """
    with _opened(path) as archive, _member(archive, path, key, shape) as stream:
        header_size, member = stream.tell(), archive.getinfo(f"{key}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        # The lengths in this header, not the directory's: the extra fields may differ.
        _, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    first = member.header_offset + LOCAL_HEADER.size + name_length + extra_length + header_size
    if first + math.prod(shape) > path.stat().st_size:
        raise DislabError(f"'{path}' is cut off: array '{key}' ends beyond the end of the file")
    return np.memmap(path, np.uint8, mode="r", offset=first, shape=shape)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .npz file, in which no name may be there twice: programs differ in which one they read."""
    try:
        if path.is_fifo():  # to open it would wait for ever
            raise ValueError("it is a pipe")
        archive = zipfile.ZipFile(path)
    except Exception as error:  # damaged bytes raise many kinds of errors
        raise unreadable(path, error, WHOLE) from None
    with archive:
        names = Counter(name.removesuffix(".npy") for name in archive.namelist())
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise DislabError(f"'{path}' has more than one array {listed(twice)}: only one can be meant")
        yield archive


@contextmanager
def _member(archive: zipfile.ZipFile, path: Path, key: str, shape: tuple[int, ...] = ()) -> Iterator:
    """Open an array of an official file, uint8 of this shape; yield the stream at its first byte."""
    if f"{key}.npy" not in archive.namelist():
        names = listed([name.removesuffix(".npy") for name in archive.namelist()])
        raise DislabError(f"'{path}' has no array '{key}' (it has {names}): it is not the official file")
    stream, file_shape, fortran, dtype = _header(archive, path, key)
    with stream:
        if file_shape != shape or dtype != np.uint8 or fortran:
            order = " in column-major order" if fortran else ""
            raise DislabError(
                f"'{path}': array '{key}' is {dtype} {list(file_shape)}{order}, expected uint8 {list(shape)}"
            )
        yield stream


def _header(archive: zipfile.ZipFile, path: Path, key: str) -> tuple:
    """Return a stream at the first byte of an array, its shape, whether it is column-major, and its type.

    What a header claims is held against the number of bytes that are there.
    """
    member = archive.getinfo(f"{key}.npy")
    is_stored = member.compress_type == zipfile.ZIP_STORED
    if not is_stored and member.compress_type != zipfile.ZIP_DEFLATED:
        method = f"its compression, method {member.compress_type}, is none that numpy writes"
        raise DislabError(f"'{path}' cannot be read: {method}")
    if member.flag_bits & 1:
        raise DislabError(f"'{path}' cannot be read: it is encrypted")
    try:
        stream = archive.open(member)
        with warnings.catch_warnings():  # of numpy, on headers of Python 2
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version[0]}.{version[1]} of its header is unknown")
            one = version == (1, 0)
            read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
    except Exception as error:  # damaged bytes raise many kinds of errors
        raise unreadable(path, error, WHOLE) from None
    if dtype.hasobject:
        raise DislabError(f"'{path}': array '{key}' holds Python objects, which are not read: store numbers")
    claimed, there = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if min(shape, default=0) < 0 or claimed != there:
        raise DislabError(
            f"'{path}': array '{key}' is {dtype} {list(shape)}, but has {there} bytes, expected {claimed}"
        )
    most = member.compress_size * (1 if is_stored else MOST_DEFLATED)
    if claimed > most or member.compress_size > path.stat().st_size:
        raise DislabError(f"'{path}' {WHOLE}: array '{key}' of {claimed} bytes cannot be in it")
    return stream, shape, fortran, dtype


def _read(archive: zipfile.ZipFile, path: Path, key: str) -> np.ndarray:
    """Return an array of any shape and type of numbers."""
    stream, shape, fortran, dtype = _header(archive, path, key)
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        if num_bytes > memory:
            raise MemoryError
        array = np.empty(math.prod(shape), dtype)
        with stream:
            left = memoryview(array.view(np.uint8)) if num_bytes else b""
            while left and (read := stream.readinto(left[: 2**20])):
                left = left[read:]
            if left or stream.read(1):  # to reach the end is to check the CRC
                raise EOFError(f"{len(left)} bytes of array '{key}' are missing")
        return array.reshape(shape, order="F" if fortran else "C")
    except MemoryError:
        raise DislabError(
            f"'{path}': array '{key}' has {num_bytes / 1e9:.1f} GB, more than fit into memory"
        ) from None
    except Exception as error:
        raise unreadable(path, error, WHOLE) from None
