"""dSprites: 737,280 binary images of a sprite; the official .npz file, or drawn. Kept bit-packed (377 MB)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dislab.data.dataset import (
    Dataset,
    cached_array,
    official_file,
    open_npz_member,
    source_digest,
    stored_tensor,
)
from dislab.data.space import Circle, FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

# The official colour factor has the single value white; it is left out, as in every published score.
SPACE = FactorSpace(
    ("shape", "scale", "orientation", "position_x", "position_y"),
    (3, 6, 40, 32, 32),
    # Orientations 0 and 39 are the same angle, and only the heart has no symmetry.
    circle=Circle("orientation", steps=39, only=("shape", 2)),
)
OFFICIAL_FILES = ("dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",)
PIXELS = 64 * 64
CHUNK = 8192  # images read and packed at a time: 34 MB


@register_dataset("dsprites", title="dSprites", reference="github.com/google-deepmind/dsprites-dataset")
def dsprites(source: str, data_dir, device: torch.device) -> Dataset:
    """Shape, scale, orientation and position of a white sprite; 64 x 64, one channel."""
    path = official_file("dsprites", OFFICIAL_FILES, source, data_dir)
    if path is None:
        from dislab.rendering import dsprites as renderer

        name = f"dsprites-rendered-{source_digest(renderer)}"

        def make(array: np.ndarray) -> None:
            for start in range(0, len(array), CHUNK):
                array[start : start + CHUNK] = renderer.draw_rows(start, min(start + CHUNK, len(array)))

        packed = cached_array(name, (len(SPACE), PIXELS // 8), make)
    else:
        packed = read_official(path)
    bits = stored_tensor(packed, device)
    # Every byte's eight pixels: unpacking is one look-up.
    pixels = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * np.uint8(255))
    pixels = pixels.to(device)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return pixels[bits[rows.to(device)].int()].reshape(-1, 1, 64, 64)

    source = "rendered" if path is None else "official"
    return Dataset("dsprites", source, SPACE, (1, 64, 64), draw, ["shape"], file=path)


def read_official(path: Path) -> np.ndarray:
    """Bit-packed images uint8 [737280, 512] of the official file, packed once into the cache.

    Raises
    ------
    DislabError : the file is not a .npz, is cut off, or does not hold the official array.
    """
    status = path.stat()

    def make(array: np.ndarray) -> None:
        with open_npz_member(path, "imgs", (len(SPACE), 64, 64)) as stream:
            for start in range(0, len(array), CHUNK):
                count = min(CHUNK, len(array) - start)
                try:
                    block = np.frombuffer(stream.read(count * PIXELS), np.uint8).reshape(count, PIXELS)
                except Exception as error:  # zlib and zipfile raise errors of their own for damaged bytes
                    raise DislabError(
                        f"'{path}' is cut off or damaged after image {start}: {error}"
                    ) from None
                array[start : start + count] = np.packbits(block, axis=1)

    return cached_array(
        f"dsprites-official-{status.st_size}-{status.st_mtime_ns}", (len(SPACE), PIXELS // 8), make
    )
