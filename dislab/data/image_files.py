"""Datasets of many image files, in a folder or in a .zip archive, decoded in parallel into one array."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from dislab.data.official import unreadable
from dislab.errors import DislabError
from dislab.progress import Bar

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 100_000_000  # of a file that is read whole; the labels of Isaac3D have 53 million
CHUNK = 4096  # images between two updates of the progress bar


@contextmanager
def opened(path: Path) -> Iterator[dict[str, Callable[[], bytes]]]:
    """Open a folder or an archive; yield functions that read its files, by name without folders.

    Hidden files are left out. Of an archive all folders are searched, of a folder only itself.

    Raises
    ------
    DislabError : the archive is cut off or not an archive, or the folder cannot be read.
    """
    if path.is_dir():
        try:
            files = {entry.name: partial(_read, Path(entry.path)) for entry in os.scandir(path)}
        except OSError as error:
            raise unreadable(path, error, "") from None
        yield {name: read for name, read in files.items() if not name.startswith(".")}
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # damaged bytes raise many kinds of errors
        raise unreadable(path, error, "is not a whole .zip archive") from None
    with archive:
        members = {PurePosixPath(member.filename).name: member for member in archive.infolist()}
        yield {
            name: partial(_extract, archive, member)
            for name, member in members.items()
            if not name.startswith(".")
        }


def _read(path: Path) -> bytes:
    if not path.is_file():  # to open a pipe would wait for ever
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MOST_BYTES:
        raise ValueError(f"it has {member.file_size:,} bytes")
    return archive.read(member)


def decode(
    path: Path,
    files: dict[str, Callable[[], bytes]],
    names: Sequence[str],
    size: tuple[int, int],
    shrink: Callable[[Image], Image],
    array: np.ndarray,
) -> None:
    """Fill an array uint8 [N, H, W, 3] with the images of these names.

    Parameters
    ----------
    path, files : a folder or an archive, and its files as `opened` yields them.
    size : width and height that every image must have.
    shrink : what is made of an RGB image before it is stored.

    Raises
    ------
    DislabError : an image is missing, damaged or of another size.
    """
    missing = [name for name in names if name not in files]
    if missing:
        raise DislabError(
            f"'{path}' lacks {len(missing):,} of its {len(names):,} images, such as {missing[0]}: "
            "it is not whole"
        )

    def one(row: int) -> None:
        array[row] = _decoded(path, names[row], files[names[row]], size, shrink)

    # Pillow decodes and shrinks without holding Python's lock.
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        Bar(f"decoding {path.name}, once", len(names)) as bar,
    ):
        for start in range(0, len(names), CHUNK):
            rows = range(start, min(start + CHUNK, len(names)))
            for _ in pool.map(one, rows):
                pass
            bar.update(rows.stop, "images")


def _decoded(path: Path, name: str, read: Callable[[], bytes], size: tuple[int, int], shrink) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read())) as image:
            if image.size != size:
                raise DislabError(
                    f"{name} in '{path}' is {image.width} x {image.height} pixels, "
                    f"expected {size[0]} x {size[1]}"
                )
            return np.asarray(shrink(image.convert("RGB")))
    except DislabError:
        raise
    except Exception as error:  # every format's decoder has its own errors for damaged bytes
        raise unreadable(f"{path}/{name}", error, "is not a whole image") from None
