"""Arrays of bytes, and structures, in MATLAB files of version 5 to 7 (MathWorks, MAT-File Format, 2023).

Damaged structures, cells and objects made the reader of a library end the whole program by a signal. Here
they are read in Python, from slices of the file's bytes: damage is an error, whatever it is. Objects,
functions and sparse arrays are not read.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice

import numpy as np

from dislab.data.official import listed, unreadable
from dislab.errors import DislabError

MOST_BYTES = 50_000_000  # of an array or a file; the official ones have up to 5 million
HEADER = 128  # bytes
ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # by the version and the mark at the end of the header
MATRIX, COMPRESSED = 14, 15  # kinds of elements
# How numbers are stored. MATLAB stores whole numbers as bytes if they fit, also those of other classes.
STORED = {1: "int8", 2: "uint8", 3: "int16", 4: "uint16", 5: "int32", 6: "uint32", 7: "float32", 9: "float64"}
STORED |= {12: "int64", 13: "uint64"}
CELL, STRUCTURE, TEXT, NUMBERS = 1, 2, 4, range(6, 16)  # classes of arrays
ENCODINGS = {4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}  # of texts, by how they are stored
CLASSES = {1: "a cell", 2: "a structure", 3: "an object", 4: "a text", 5: "sparse"}


def read_bytes_array(data: bytes, name: str, shape: tuple[int, ...], file: str) -> np.ndarray:
    """Return the uint8 array of a name and a shape in the bytes of a MATLAB file.

    Raises
    ------
    DislabError : not a whole file, or it has no such array. `file` is its name in the message.
    """
    names = []
    try:
        for content, order in _matrices(data):
            parts = _elements(content, order)
            (_, flags), (_, sizes), (_, word) = islice(parts, 3)
            names.append(bytes(word).decode("ascii", "replace"))
            if names[-1] != name:
                continue
            kind, pixels = next(parts)
            stored = STORED.get(kind, f"of kind {kind}")
            what = CLASSES.get(flags[0 if order == "<" else 3], stored)
            found = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
            if (what, found) != ("uint8", shape):
                raise DislabError(f"'{file}': '{name}' is {what} {list(found)}, expected uint8 {list(shape)}")
            if len(pixels) != math.prod(shape):
                raise ValueError(f"array '{name}' has {len(pixels)} bytes, expected {math.prod(shape)}")
            return np.frombuffer(pixels, np.uint8).reshape(shape, order="F")
    except (ValueError, TypeError, IndexError, struct.error, zlib.error, StopIteration) as error:
        raise unreadable(file, error, "is not a whole MATLAB file") from None
    raise DislabError(f"'{file}' has no array '{name}' (it has {listed(names)}): it is not the official file")


def read_structure(data: bytes, name: str, file: str) -> list[dict[str, object]]:
    """Return the structure of a name in the bytes of a MATLAB file, a list of its elements.

    An element maps the names of fields to values: a list of elements for a structure, a list of values for a
    cell, a str for a text, an array in MATLAB's shape for numbers, None for what is not read. Elements are in
    MATLAB's order, the first index fastest.

    Raises
    ------
    DislabError : not a whole file, or it has no such structure. `file` is its name in the message.
    """
    names = []
    try:
        for content, order in _matrices(data):
            parts = _elements(content, order)
            (_, flags), _, (_, word) = islice(parts, 3)
            names.append(bytes(word).decode("ascii", "replace"))
            if names[-1] == name and flags[0 if order == "<" else 3] == STRUCTURE:
                return _value(content, order)
    except (
        ValueError, TypeError, IndexError, KeyError, struct.error, zlib.error, StopIteration, RecursionError
    ) as error:  # fmt: skip
        raise unreadable(file, error, "is not a whole MATLAB file") from None
    raise DislabError(f"'{file}' has no structure '{name}' (it has {listed(names)})")


def _value(content: memoryview, order: str):
    """Return the value of a variable, of a field or of a cell, see `read_structure`."""
    if not content:
        return np.zeros((0, 0))
    parts = _elements(content, order)
    (_, flags), (_, sizes), _ = islice(parts, 3)
    kind = flags[0 if order == "<" else 3]
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    count = math.prod(shape)
    if kind in (CELL, STRUCTURE) and count > len(content):
        raise ValueError(f"{CLASSES[kind]} of {count} elements is cut off")
    if kind == CELL:
        return [_value(next(parts)[1], order) for _ in range(count)]
    if kind == STRUCTURE:
        (_, length), (_, names) = islice(parts, 2)
        (length,) = struct.unpack(f"{order}i", length)
        starts = range(0, len(names), length)
        fields = [bytes(names[start : start + length]).split(b"\0")[0].decode("ascii") for start in starts]
        return [{field: _value(next(parts)[1], order) for field in fields} for _ in range(count)]
    if kind == TEXT:
        stored, letters = next(parts)
        encoding = ENCODINGS.get(stored, "latin-1")
        ending = {"<": "-le", ">": "-be"}[order] if encoding in ("utf-16", "utf-32") else ""
        return bytes(letters).decode(encoding + ending)
    if kind in NUMBERS:
        stored, numbers = next(parts)
        values = np.frombuffer(numbers, np.dtype(STORED[stored]).newbyteorder(order))
        return values.reshape(shape, order="F")
    return None


def _matrices(data: bytes) -> Iterator[tuple[memoryview, str]]:
    """Yield the content of each variable, and the order of its bytes."""
    order = ORDERS.get(data[HEADER - 4 : HEADER])
    if order is None:
        raise ValueError("its header is not that of a MATLAB file of version 5 to 7")
    for kind, content in _elements(memoryview(data)[HEADER:], order):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(content, MOST_BYTES)
            if not unpacker.eof:
                raise ValueError("a compressed array is cut off, or too large")
            ((kind, content),) = _elements(memoryview(unpacked), order)
        if kind == MATRIX:
            yield content, order


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield kind and content of the elements that follow one another."""
    while data:
        kind, size = struct.unpack_from(f"{order}II", data)
        first = 8
        if kind >> 16:  # up to four bytes, in place of their number
            kind, size, first = kind & 0xFFFF, kind >> 16, 4
        if first + size > len(data) or (first == 4 and size > 4):
            raise ValueError(f"an element of {size} bytes is cut off")
        yield kind, data[first : first + size]
        # Elements begin at multiples of 8 bytes, but what follows compressed ones.
        data = data[8 if first == 4 else 8 + (size if kind == COMPRESSED else -(-size // 8) * 8) :]
