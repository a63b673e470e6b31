"""Falcor3D and Isaac3D, 233,280 renderings of a living room and 737,280 of a kitchen; official files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from dislab.data.cache import cached_array, file_stamp
from dislab.data.dataset import Dataset, look_up
from dislab.data.image_files import decode, opened
from dislab.data.official import OfficialDataset, OfficialFile, official_paths, unreadable
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

REFERENCE = "Nie et al. 2020, Semi-Supervised StyleGAN for Disentanglement Learning, ICML"
OFFICIAL_SIDE, SIDE = 128, 64
LABELS = ("labels.npy", "train-rec.labels")  # in Isaac3D and in Falcor3D; both are .npy files

# The number of a file is the row, the last factor fastest. For Isaac3D this is the order of the authors'
# program; their README names the factors in another, which its own multipliers contradict.
FALCOR_SPACE = FactorSpace(
    (
        "lighting_intensity",
        "lighting_x_dir",
        "lighting_y_dir",
        "lighting_z_dir",
        "camera_x_pos",
        "camera_y_pos",
        "camera_z_pos",
    ),
    (5, 6, 6, 6, 6, 6, 6),
)
ISAAC_SPACE = FactorSpace(
    (
        "object_shape",
        "robot_x_move",
        "robot_y_move",
        "camera_height",
        "object_scale",
        "lighting_intensity",
        "lighting_y_dir",
        "object_color",
        "wall_color",
    ),
    (3, 8, 5, 4, 4, 4, 6, 4, 4),
    categorical=["object_shape", "object_color", "wall_color"],
)


def _published(name: str, folder: str, drive_id: str, size: int) -> OfficialDataset:
    file = OfficialFile(
        f"{folder}.zip",
        f"https://drive.google.com/file/d/{drive_id}/view",
        digest="",
        size=size,
        by_hand=True,
        unpacked=(f"{folder}/images/*.png", f"{name}/images/*.png"),
    )
    page = "https://github.com/NVlabs/High-res-disentanglement-datasets"
    return OfficialDataset(name, (file,), page, "CC-BY-4.0")


FALCOR = _published("falcor3d", "Falcor3D_down128", "1XAQfFK1x6cpN1eiovbP0hVfLTm5SsSoJ", 3_700_000_000)
ISAAC = _published("isaac3d", "Isaac3D_down128", "1OmQ1G2wnm6eTsSFGTKFZZAh5D3nQTW1B", 13_000_000_000)


@register_dataset(
    "falcor3d", title="Falcor3D (renderings of a living room)", reference=REFERENCE, official=FALCOR
)
def falcor3d(source: str, data_dir, device) -> Dataset:
    """Intensity and direction of the light, position of the camera; 64 x 64 RGB."""
    return _open(FALCOR, source, data_dir, device, FALCOR_SPACE, ["lighting_intensity"])


@register_dataset(
    "isaac3d", title="Isaac3D (renderings of a robot in a kitchen)", reference=REFERENCE, official=ISAAC
)
def isaac3d(source: str, data_dir, device) -> Dataset:
    """Shape, scale and colour of an object, robot arm, camera height, light, wall colour; 64 x 64 RGB."""
    return _open(ISAAC, source, data_dir, device, ISAAC_SPACE, ["object_shape"])


def _open(
    official: OfficialDataset, source: str, data_dir, device, space: FactorSpace, group_by: list[str]
) -> Dataset:
    (path,) = official_paths(official, source, data_dir)
    # Up to 9 GB stay in the file: only batches go to the device, 0.8 MB each.
    stored = look_up(read_official(path, official.name, space), "cpu", channels_last=True)
    return Dataset(
        official.name,
        "official",
        space,
        (3, SIDE, SIDE),
        lambda rows: stored(rows).to(device),
        group_by,
        file=path,
    )


def read_official(path: Path, name: str, space: FactorSpace) -> np.ndarray:
    """Return the images uint8 [N, 64, 64, 3] of an archive, or of the folder of images that it unpacks to.

    They are decoded once into the cache (2.9 and 9.1 GB) and mapped from there. 128 x 128 pixels become
    64 x 64 by Pillow's bicubic filter, which weighs all pixels that become one: so did Hsu et al. 2023
    (QLAE), whose scores are the published ones, with TensorFlow's filter of the same weights.

    Raises
    ------
    DislabError : not all images are there, one is damaged or has another size, or the labels beside them are
        not those of the factor space.
    """

    def make(array: np.ndarray) -> None:
        with opened(path) as files:
            _check_labels(path, files, space)
            decode(
                path,
                files,
                [f"{row:06d}.png" for row in range(len(space))],
                (OFFICIAL_SIDE, OFFICIAL_SIDE),
                shrink,
                array,
            )

    stamp = file_stamp(path, "*.png")
    return cached_array(f"{name}-official-bicubic-{stamp}", (len(space), SIDE, SIDE, 3), make)


def shrink(image):
    """Return an image of 128 x 128 pixels as one of 64 x 64."""
    from PIL import Image

    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _check_labels(path: Path, files: dict, space: FactorSpace) -> None:
    """Raise if the labels that come with the images are there and contradict the factor space.

    Each factor must be a column of the labels, in any order of the columns and of its values, which are real
    numbers.
    """
    if path.is_dir():
        with opened(path.parent) as beside:
            files = beside
    found = next((name for name in LABELS if name in files), None)
    if found is None:
        return
    try:
        labels = np.load(io.BytesIO(files[found]()), allow_pickle=False)
    except Exception as error:  # damaged bytes raise many kinds of errors
        raise unreadable(f"{path} with {found}", error, "is not whole") from None
    columns = []
    if labels.shape == (len(space), len(space.sizes)) and labels.dtype.kind in "fiu":
        columns = [np.unique(column.round(4), return_inverse=True)[1] for column in labels.T]
    for factor, name in zip(space.factors(np.arange(len(space))).T, space.names, strict=True):
        if not any(_is_relabelled(column, factor) for column in columns):
            raise DislabError(
                f"{found} of '{path}' does not give {name} the values that the numbers of the images mean: "
                "it is not the official file"
            )


def _is_relabelled(values: np.ndarray, factor: np.ndarray) -> bool:
    """Return whether two arrays int [N] part the rows in the same way."""
    pairs = len(np.unique(values * (int(factor.max()) + 1) + factor))
    return pairs == len(np.unique(values)) == len(np.unique(factor))
