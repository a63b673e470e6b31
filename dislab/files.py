"""Files that are complete whenever the program ends."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

from dislab.errors import RunFailed


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file and rename it, so that the file is complete whenever the program ends."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunFailed(f"cannot write '{path}': {error.strerror}") from error
    finally:
        with suppress(OSError):  # it was moved, or could not be made
            temporary.unlink()


def save_figure(figure, path: Path) -> None:
    """Write a figure as PNG, completely or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
