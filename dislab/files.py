"""The files that dislab writes: complete whenever the program ends, and checked when they are read."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from dislab import __version__, processes
from dislab.errors import DislabError, RunFailed

SECONDS_UNTIL_ABANDONED = 86_400  # without a change, for a temporary file of another machine's process
TEMPORARY = re.compile(r".+\.([0-9a-f]{8}-\d+-\d+)\.part$")
DPI = 200  # of pictures
FORMATS = ("png", "svg", "pdf")  # of pictures
UNSEALED = b"0" * 32  # stands for a digest that is not known yet
SEAL = re.compile(rb'"check": ?"([0-9a-f]{32})"')
# How the tables and copies of studies that dislab writes begin.
OWN_BEGINNINGS = (
    b"dataset,source,protocol,hold_out,",
    b"row,dataset,source,protocol,hold_out,",
    *(b"data,score,", b"score,data,other,", b"which,chance,", b"data,chosen_by,"),  # of an analysis
    *(b"name,seed,mig,elbo,total_correlation", b"latents,beta,beta_norm,"),  # of figures of sweeps
    b"<!-- made by dislab",
    b"# As run by dislab",
)
# How pictures begin, and how those of dislab name it as their software.
OWN_PICTURES = {
    b"\x89PNG": b"Software\0dislab ",
    b"<?xml": b">dislab ",
    b"%PDF": b"(dislab ",
    b"GIF8": b"dislab ",
}

_numbers = itertools.count()  # of temporary files: threads may write to one path at once


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file or folder beside `path`; what is there afterwards is deleted.

    Its name tells which process works with it. Those that killed processes left in the folder are deleted.
    """
    sweep(path.parent)
    beside = path.with_name(f"{path.name[:40]}.{next(_numbers)}.{processes.tag()}.part")
    try:
        yield beside
    finally:
        _delete(beside)


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file and rename it, so that the file is complete whenever the program ends.

    Raises
    ------
    RunFailed : the file cannot be written.
    """
    try:
        with temporary(path) as beside:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
    except OSError as error:
        raise RunFailed(f"cannot write '{path}': {error.strerror}") from error


def sweep(folder: Path) -> None:
    """Delete the temporary files and folders in a folder whose process has ended, never those of a live one.

    This machine cannot tell whether a process of another one lives: its files must be a day old.
    """
    with suppress(OSError):
        for entry in os.scandir(folder):
            match = TEMPORARY.match(entry.name)
            if match is None:
                continue
            is_dead = processes.is_dead_tag(match[1])
            if is_dead is None:
                with suppress(OSError):
                    is_dead = time.time() - entry.stat().st_mtime > SECONDS_UNTIL_ABANDONED
            if is_dead:
                _delete(Path(entry.path))


def open_file(path: Path):
    """Open a file to read its bytes; raise OSError if it is a pipe or a device, which may have no end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return path.open("rb")


def _delete(path: Path) -> None:
    with suppress(OSError):  # it was moved, or another process deleted it
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def read_text(what: str, path: str | Path, most: int) -> str:
    """Return the content of a text file that a user names; `what` says what it holds.

    Raises
    ------
    DislabError : it is not there, is no file (but a folder, a pipe, a device), is not UTF-8, or has more
        than `most` bytes.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # to open a pipe waits for its writer
            raise DislabError(f"{what} '{path}' cannot be read: it is not a file")
        with Path(path).open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DislabError(f"{what} '{path}' cannot be read: it has more than {most:,} bytes")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DislabError(f"{what} '{path}' cannot be read: {reason}") from None


# Digests -------------------------------------------------------------------------------------------


def digest(content: bytes) -> str:
    """Return 32 hex digits that tell whether bytes have changed since they were written."""
    return xxhash.xxh3_128_hexdigest(content)


def sealed(content: bytes) -> bytes:
    """Return a JSON object, or a safetensors file, whose member "check" is its own digest.

    Parameters
    ----------
    content : with UNSEALED as the value of "check".
    """
    return content.replace(UNSEALED, digest(content).encode(), 1)


def is_sealed(content: bytes) -> bool:
    """Return whether the content is as `sealed` returned it."""
    match = SEAL.search(content)
    if match is None:
        return False
    hashed = xxhash.xxh3_128(content[: match.start(1)])
    hashed.update(UNSEALED)
    hashed.update(memoryview(content)[match.end(1) :])
    return hashed.hexdigest().encode() == match[1]


def about_of(content: bytes) -> dict[str, str]:
    """Return the texts in the header of a safetensors file, which its reader for bytes does not give."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


# Tables and pictures -------------------------------------------------------------------------------


def check_own(*paths: Path) -> None:
    """Raise DislabError if one of the files is there, and is none that dislab wrote."""
    for path in paths:
        if path.exists() and not path.is_file():
            raise not_own(path)
        try:
            with open_file(path) as file:
                head = file.read(400)
                marks = [mark for begins, mark in OWN_PICTURES.items() if head.startswith(begins)]
                is_picture = any(mark in head + file.read() for mark in marks)
        except OSError:  # there is none, or writing it will tell
            continue
        if head and not is_picture and not head.startswith(OWN_BEGINNINGS):
            raise not_own(path)


def not_own(path: Path) -> DislabError:
    """Return the error for a file that dislab would overwrite, and did not write."""
    return DislabError(
        f"'{path}' is there, and dislab did not write it: move it, or choose another folder (--out)"
    )


def write_own(path: Path, content: bytes) -> None:
    """Write a table or a picture in place of an earlier one that dislab wrote.

    Raises
    ------
    DislabError : the file is there, and dislab did not write it.
    RunFailed : it cannot be written.
    """
    with suppress(OSError), open_file(path) as file:
        if file.read() == content:  # also a GIF of an earlier version, which does not name dislab
            return
    check_own(path)
    write_atomically(path, content)


def picture_of(figure, kind: str = "png") -> bytes:
    """Return a figure as the content of a file, the same bytes each time; `kind` is one of FORMATS."""
    import matplotlib

    buffer, by = io.BytesIO(), f"dislab {__version__}"
    options = {
        # The usual compress_level, 6, was measured to take 2.3 times as long, for files smaller by 2 %.
        "png": {"metadata": {"Software": by}, "pil_kwargs": {"compress_level": 4}},
        "svg": {"metadata": {"Creator": by, "Date": None}},
        "pdf": {"metadata": {"Creator": by, "CreationDate": None}},
    }
    with matplotlib.rc_context({"svg.hashsalt": "dislab"}):  # its identifiers are random otherwise
        figure.savefig(buffer, format=kind, **options[kind])
    return buffer.getvalue()


def save_figure(figure, path: Path) -> None:
    """Write a figure in the format that the path ends with, completely or not at all."""
    write_atomically(path, picture_of(figure, path.suffix[1:]))
