"""CelebA: 202,599 photographs of 10,177 people with 40 attributes, from the official files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dislab.data.cache import cached_array, file_stamp
from dislab.data.dataset import Dataset, look_up
from dislab.data.image_files import decode, opened
from dislab.data.official import OfficialDataset, OfficialFile, official_paths, unreadable
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

NUM_IMAGES, NUM_PEOPLE, NUM_ATTRIBUTES = 202_599, 10_177, 40
OFFICIAL_SIZE, SIDE = (178, 218), 64  # width and height
LEAST = 4  # images of a person that is scored: half of them train a readout, and half test it


def _drive(name: str, drive_id: str, md5: str, size: int, **options) -> OfficialFile:
    # The page of the data set links to these addresses; torchvision reads them too.
    url = f"https://drive.usercontent.google.com/download?id={drive_id}&export=download&confirm=t"
    return OfficialFile(name, url, f"md5:{md5}", size, **options)


OFFICIAL = OfficialDataset(
    "celeba",
    (
        _drive(
            "img_align_celeba.zip",
            "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
            "00d2c5bc6d35e252742224ab0c1e8fcb",
            1_443_490_838,
            exact_size=True,
            unpacked=("img_align_celeba/*.jpg",),
        ),
        _drive(
            "list_attr_celeba.txt",
            "0B7EVK8r0v71pblRyaVFSWGxPY0U",
            "75e246fa4810816ffd6ee81facbd244c",
            26_700_000,
        ),
        _drive(
            "identity_CelebA.txt",
            "1_ee_0u7vcNLOfNLegJRHmolfH5ICW-XS",
            "32bd1bd63d3c78cd57e08160ec5ed1e2",
            3_400_000,
        ),
        _drive(
            "list_eval_partition.txt",
            "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
            "d32c9cbf5e040fd4025c592c306e6668",
            2_800_000,
        ),
    ),
    page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    licence="non-commercial research",
)


@register_dataset(
    "celeba",
    title="CelebA",
    reference="Liu et al. 2015, Deep Learning Face Attributes in the Wild, ICCV",
    official=OFFICIAL,
)
def celeba(source: str, data_dir, device) -> Dataset:
    """Faces of celebrities with 40 attributes, grouped by person; 64 x 64 RGB. The official training images
    train the model, and people of the validation and the test images are scored."""
    paths = official_paths(OFFICIAL, source, data_dir)
    names, attributes = read_attributes(paths[1])
    person = read_numbers(paths[2], 1, NUM_PEOPLE) - 1
    partition = read_numbers(paths[3], 0, 2)
    sizes = (2,) * len(names) + (NUM_PEOPLE,)
    values = np.concatenate([attributes, person[:, None]], axis=1)
    space = FactorSpace((*names, "identity"), sizes, values, categorical=["identity"])
    held_out = scored_rows(person, partition)
    if not 0 < len(held_out) < NUM_IMAGES:
        raise DislabError(
            f"'{paths[3]}' leaves no images to train on or to score: it is not the official file"
        )
    stored = look_up(read_official(paths[0]), "cpu", channels_last=True)  # 2.5 GB stay in the file
    return Dataset(
        "celeba",
        "official",
        space,
        (3, SIDE, SIDE),
        lambda rows: stored(rows).to(device),
        ["identity"],
        held_out,
        file=paths[0],
    )


def scored_rows(person: np.ndarray, partition: np.ndarray) -> np.ndarray:
    """Return the rows of validation and test images of people who have at least LEAST of them.

    A readout of the person needs several images of everyone. Official partitions part people, not images.
    """
    rows = np.flatnonzero(partition > 0)
    count = np.bincount(person[rows], minlength=NUM_PEOPLE)
    return rows[count[person[rows]] >= LEAST]


def read_official(path: Path) -> np.ndarray:
    """Return the images uint8 [202599, 64, 64, 3] of the archive, or of the folder that it unpacks to.

    They are decoded once into the cache (2.5 GB) and mapped from there. The square in the middle, 178 x 178
    pixels, becomes 64 x 64 by Pillow's bilinear filter, as images of a user's folder do.

    Raises
    ------
    DislabError : not all images are there, or one is damaged or has another size.
    """

    def make(array: np.ndarray) -> None:
        with opened(path) as files:
            names = [f"{row + 1:06d}.jpg" for row in range(NUM_IMAGES)]
            decode(path, files, names, OFFICIAL_SIZE, shrink, array)

    stamp = file_stamp(path, "*.jpg")
    return cached_array(f"celeba-official-middle-{stamp}", (NUM_IMAGES, SIDE, SIDE, 3), make)


def shrink(image):
    """Return the square in the middle of an image of 178 x 218 pixels as 64 x 64."""
    from PIL import Image

    width, height = OFFICIAL_SIZE
    top = (height - width) // 2
    return image.crop((0, top, width, top + width)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def read_attributes(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the names of the attributes, and whether each image has them, int16 [202599, 40].

    Raises
    ------
    DislabError : as for `read_numbers`.
    """
    table = _table(path, skiprows=1)
    if table.shape[1] != NUM_ATTRIBUTES or not np.isin(table.values, (-1, 1)).all():
        raise DislabError(
            f"'{path}' does not hold {NUM_ATTRIBUTES} attributes of -1 or 1: it is not the official file"
        )
    return [str(name) for name in table.columns], (table.values == 1).astype(np.int16)


def read_numbers(path: Path, least: int, most: int) -> np.ndarray:
    """Return the number int16 [202599] that a file has for each image.

    Raises
    ------
    DislabError : the file does not list all images in their order, or a number is out of range.
    """
    table = _table(path, header=None)
    values = table.values
    if values.shape[1] != 1 or values.dtype.kind != "i" or values.min() < least or values.max() > most:
        raise DislabError(
            f"'{path}' does not hold a number of {least} to {most} for each image: "
            "it is not the official file"
        )
    return values[:, 0].astype(np.int16)


def _table(path: Path, **options):
    """Return the table of a text file whose first column names the images."""
    import pandas as pd

    try:
        table = pd.read_csv(path, sep=r"\s+", **options)
        if options.get("header", 0) is None:
            table = table.set_index(0)
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(path, error, "is not a whole table") from None
    if list(table.index) != [f"{row + 1:06d}.jpg" for row in range(NUM_IMAGES)]:
        raise DislabError(
            f"'{path}' does not list the images 000001.jpg to {NUM_IMAGES:06d}.jpg in order: "
            "it is not the official file"
        )
    return table
