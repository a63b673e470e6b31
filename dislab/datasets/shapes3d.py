"""Shapes3D: 480,000 RGB images of an object in a room; the official HDF5 file, or drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dislab.data.cache import cached_array, file_stamp
from dislab.data.dataset import Dataset, look_up, stored_tensor
from dislab.data.official import OfficialDataset, OfficialFile, listed, official_paths, unreadable
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

SPACE = FactorSpace(
    ("floor_hue", "wall_hue", "object_hue", "scale", "object_shape", "orientation"),
    (10, 10, 10, 8, 4, 15),
    categorical=["object_shape"],
)
CHUNK = 4000  # images decoded at a time: 49 MB
OTHER = "it is not the official file"

OFFICIAL = OfficialDataset(
    "shapes3d",
    (
        OfficialFile(
            "3dshapes.h5",
            "https://storage.googleapis.com/3d-shapes/3dshapes.h5",
            "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
            267_573_662,
            exact_size=True,
        ),
    ),
    page="https://github.com/google-deepmind/3d-shapes",
    licence="Apache-2.0",
    is_drawn=True,
)


@register_dataset(
    "shapes3d", title="Shapes3D", reference="github.com/google-deepmind/3d-shapes", official=OFFICIAL
)
def shapes3d(source: str, data_dir, device) -> Dataset:
    """Floor, wall and object hue, scale, shape and orientation; 64 x 64 RGB."""
    paths = official_paths(OFFICIAL, source, data_dir)
    if not paths:
        return _rendered(device)
    draw = look_up(read_official(paths[0]), device, channels_last=True)
    return Dataset("shapes3d", "official", SPACE, (3, 64, 64), draw, ["object_hue"], file=paths[0])


def _rendered(device) -> Dataset:
    from dislab.rendering import shapes3d as renderer

    def make(array: np.ndarray) -> None:
        array[:] = renderer.draw_layers()

    shape = (480, renderer.NUM_LAYERS, 64, 64)
    layers = stored_tensor(cached_array(f"shapes3d-rendered-v{renderer.VERSION}", shape, make), device)
    colours = renderer.palette(device)

    def draw(rows):
        return renderer.compose(layers, rows.to(device), colours)

    return Dataset(
        "shapes3d", "rendered", SPACE, (3, 64, 64), draw, ["object_hue"], renderer=renderer.VERSION
    )


def read_official(path: Path) -> np.ndarray:
    """Return the images uint8 [480000, 64, 64, 3] of 3dshapes.h5.

    They are decoded once into the cache (5.9 GB) and mapped from there.

    Raises
    ------
    DislabError : the file is not HDF5, is cut off, or does not hold the official arrays.
    """
    import h5py

    shape = (len(SPACE), 64, 64, 3)
    try:
        with h5py.File(path, "r") as file:
            link = file.get("images", getlink=True)
            if link is None:
                raise DislabError(f"'{path}' has no array 'images' (it has {listed(file)}): {OTHER}")
            # A link, and an array whose values lie in another file, could lead anywhere.
            images = file["images"] if isinstance(link, h5py.HardLink) else link
            if not isinstance(images, h5py.Dataset) or images.is_virtual or images.external:
                raise DislabError(f"'{path}': 'images' is no array in this file: {OTHER}")
            if images.shape != shape or images.dtype != np.uint8:
                raise DislabError(
                    f"'{path}': 'images' is {images.dtype} {images.shape}, expected uint8 {shape}"
                )

            def make(array: np.ndarray) -> None:
                for start in range(0, len(array), CHUNK):
                    try:
                        array[start : start + CHUNK] = images[start : start + CHUNK]
                    except Exception as error:  # damaged bytes raise many kinds of errors
                        raise unreadable(path, error, f"is damaged after image {start}") from None

            return cached_array(f"shapes3d-official-{file_stamp(path)}", shape, make)
    except DislabError:
        raise
    except Exception as error:
        raise unreadable(path, error, "is not a whole HDF5 file") from None
