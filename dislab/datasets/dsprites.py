"""dSprites: 737,280 binary images of a sprite; the official .npz file, or drawn. Kept bit-packed (377 MB)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dislab.data.cache import cached_array, file_stamp
from dislab.data.dataset import Dataset, stored_tensor
from dislab.data.npz import read_blocks
from dislab.data.official import OfficialDataset, OfficialFile, official_paths
from dislab.data.space import Circle, FactorSpace
from dislab.registry import register_dataset

# The official colour factor has the single value white; it is left out, as in every published score.
SPACE = FactorSpace(
    ("shape", "scale", "orientation", "position_x", "position_y"),
    (3, 6, 40, 32, 32),
    # Orientations 0 and 39 are the same angle, and only the heart has no symmetry.
    circle=Circle("orientation", steps=39, only=("shape", 2)),
    categorical=["shape"],
)
PACKED = 64 * 64 // 8  # bytes of an image
CHUNK = 8192  # images read and packed at a time: 34 MB

OFFICIAL = OfficialDataset(
    "dsprites",
    (
        OfficialFile(
            "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
            "https://github.com/google-deepmind/dsprites-dataset/raw/master/"
            "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
            "md5:7da33b31b13a06f4b04a70402ce90c2e",
            26_000_000,
        ),
    ),
    page="https://github.com/google-deepmind/dsprites-dataset",
    licence="Apache-2.0",
    is_drawn=True,
)


@register_dataset(
    "dsprites", title="dSprites", reference="github.com/google-deepmind/dsprites-dataset", official=OFFICIAL
)
def dsprites(source: str, data_dir, device) -> Dataset:
    """Shape, scale, orientation and position of a white sprite; 64 x 64, one channel."""
    from dislab.rendering import dsprites as renderer

    paths = official_paths(OFFICIAL, source, data_dir)
    draw = sprites(paths, device)
    if paths:
        return Dataset("dsprites", "official", SPACE, (1, 64, 64), draw, ["shape"], file=paths[0])
    return Dataset("dsprites", "rendered", SPACE, (1, 64, 64), draw, ["shape"], renderer=renderer.VERSION)


def sprites(paths: Sequence[Path], device) -> Callable:
    """Return the function that draws rows of SPACE, by the official file if there is its path, else drawn."""
    import torch

    from dislab.rendering import dsprites as renderer

    bits = stored_tensor(read_official(paths[0]) if paths else _rendered(renderer), device)
    # Every byte's eight pixels: unpacking is one look-up.
    pixels = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * np.uint8(255))
    pixels = pixels.to(device)

    def draw(rows):
        return pixels[bits[rows.to(device)].int()].reshape(-1, 1, 64, 64)

    return draw


def _rendered(renderer) -> np.ndarray:
    """Return the bit-packed drawn images uint8 [737280, 512] of the cache."""

    def make(array: np.ndarray) -> None:
        for start in range(0, len(array), CHUNK):
            array[start : start + CHUNK] = renderer.draw_rows(start, min(start + CHUNK, len(array)))

    return cached_array(f"dsprites-rendered-v{renderer.VERSION}", (len(SPACE), PACKED), make)


def read_official(path: Path) -> np.ndarray:
    """Return the bit-packed images uint8 [737280, 512] of the official file, packed once into the cache.

    Raises
    ------
    DislabError : the file is not a .npz, is cut off, or does not hold the official array.
    """

    def make(array: np.ndarray) -> None:
        for start, images in read_blocks(path, "imgs", (len(SPACE), 64, 64), CHUNK):
            array[start : start + len(images)] = np.packbits(images.reshape(len(images), -1), axis=1)

    return cached_array(f"dsprites-official-{file_stamp(path)}", (len(SPACE), PACKED), make)
