"""Images in a .npz file: streamed in blocks, or mapped from the file where they are not compressed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dislab.data.official import unreadable
from dislab.errors import DislabError

# A zip file's local header before a member's name: signature, 22 bytes that the directory repeats, and the
# lengths of the name and of the extra field.
LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_blocks(path: Path, key: str, shape: tuple[int, ...], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of each block of up to `size` images, and the block, uint8 [B, *shape[1:]]."""
    with open_member(path, key, shape) as stream:
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
    try:
        with open_member(path, key, shape) as stream, zipfile.ZipFile(path) as archive:
            header_size = stream.tell()
            member = archive.getinfo(f"{key}.npy")
    except (NotImplementedError, RuntimeError) as error:  # a rare compression, or a password
        raise DislabError(f"'{path}' cannot be read: {error}") from None
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    num_bytes = int(np.prod(shape))
    if header_size + num_bytes != member.file_size:
        raise DislabError(
            f"'{path}': array '{key}' has {member.file_size - header_size} bytes, expected {num_bytes}"
        )
    with path.open("rb") as file:
        file.seek(member.header_offset)
        # The lengths in this header, not the directory's: the extra fields may differ.
        _, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    first = member.header_offset + LOCAL_HEADER.size + name_length + extra_length + header_size
    if first + num_bytes > path.stat().st_size:
        raise DislabError(f"'{path}' is cut off: array '{key}' ends beyond the end of the file")
    return np.memmap(path, np.uint8, mode="r", offset=first, shape=shape)


def open_member(path: Path, key: str, shape: tuple[int, ...]):
    """Return an open stream over the raw bytes of a uint8 array in a .npz file."""
    try:
        archive = zipfile.ZipFile(path)
        stream = archive.open(f"{key}.npy")
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        file_shape, fortran, dtype = header(stream)
    except KeyError:
        keys = ", ".join(sorted(name.removesuffix(".npy") for name in archive.namelist()))
        raise DislabError(
            f"'{path}' has no array '{key}' (it has {keys}): it is not the official file"
        ) from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise unreadable(path, error, "is not a whole .npz file") from None
    if file_shape != shape or dtype != np.uint8 or fortran:
        order = " in column-major order" if fortran else ""
        raise DislabError(
            f"'{path}': array '{key}' is {dtype} {list(file_shape)}{order}, expected uint8 {list(shape)}"
        )
    return stream
