"""Shapes3D: 480,000 RGB images of an object in a room; the official HDF5 file, or drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dislab.data.dataset import (
    Dataset,
    cached_array,
    factors_on_device,
    official_file,
    source_digest,
    stored_tensor,
)
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

SPACE = FactorSpace(
    ("floor_hue", "wall_hue", "object_hue", "scale", "object_shape", "orientation"), (10, 10, 10, 8, 4, 15)
)
OFFICIAL_FILES = ("3dshapes.h5",)
CHUNK = 4000  # images decoded at a time: 49 MB


@register_dataset("shapes3d", title="Shapes3D", reference="github.com/google-deepmind/3d-shapes")
def shapes3d(source: str, data_dir, device: torch.device) -> Dataset:
    """Floor, wall and object hue, scale, shape and orientation; 64 x 64 RGB."""
    path = official_file("shapes3d", OFFICIAL_FILES, source, data_dir)
    if path is None:
        return _rendered(device)
    images = stored_tensor(read_official(path), device)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return images[rows.to(images.device)].permute(0, 3, 1, 2)

    return Dataset("shapes3d", "official", SPACE, (3, 64, 64), draw, ["object_hue"], file=path)


def _rendered(device: torch.device) -> Dataset:
    from dislab.rendering import shapes3d as renderer

    def make(array: np.ndarray) -> None:
        array[:] = renderer.draw_layers()

    shape = (480, renderer.NUM_LAYERS, 64, 64)
    layers = stored_tensor(cached_array(f"shapes3d-rendered-{source_digest(renderer)}", shape, make), device)
    colours = renderer.palette(device)
    factors = factors_on_device(SPACE, device)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return renderer.compose(layers, factors(rows), colours)

    return Dataset("shapes3d", "rendered", SPACE, (3, 64, 64), draw, ["object_hue"])


def read_official(path: Path) -> np.ndarray:
    """Images uint8 [480000, 64, 64, 3] of 3dshapes.h5, decoded once into the cache (5.9 GB) and mapped from
    there.

    Raises
    ------
    DislabError : the file is not HDF5, is cut off, or does not hold the official arrays.
    """
    import h5py

    shape = (len(SPACE), 64, 64, 3)
    try:
        with h5py.File(path, "r") as file:
            if "images" not in file:
                raise DislabError(
                    f"'{path}' has no array 'images' (it has {', '.join(file)}): not the official file"
                )
            images = file["images"]
            if images.shape != shape or images.dtype != np.uint8:
                raise DislabError(
                    f"'{path}': 'images' is {images.dtype} {images.shape}, expected uint8 {shape}"
                )

            def make(array: np.ndarray) -> None:
                for start in range(0, len(array), CHUNK):
                    try:
                        array[start : start + CHUNK] = images[start : start + CHUNK]
                    except OSError as error:
                        raise DislabError(f"'{path}' is damaged after image {start}: {error}") from None

            status = path.stat()
            return cached_array(f"shapes3d-official-{status.st_size}-{status.st_mtime_ns}", shape, make)
    except OSError as error:
        raise DislabError(f"'{path}' is not a whole HDF5 file: {error}") from None
