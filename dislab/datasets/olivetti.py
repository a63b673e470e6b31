"""The Olivetti faces from their official .mat file: 400 photographs with one factor, the person."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dislab.data.dataset import Dataset, look_up
from dislab.data.matlab import MOST_BYTES, read_bytes_array
from dislab.data.official import OfficialDataset, OfficialFile, official_paths, unreadable
from dislab.data.space import FactorSpace
from dislab.registry import register_dataset

NUM_PEOPLE, IMAGES_OF_A_PERSON, SIDE = 40, 10, 64
# A model of groups is asked about groups that it never saw: no person is both trained on and scored.
NUM_TRAINING_PEOPLE = 30


def _faces(path: Path) -> np.ndarray:
    """Return the pixels uint8 [4096, 400] of a file; see `read_official`."""
    shape = (SIDE * SIDE, NUM_PEOPLE * IMAGES_OF_A_PERSON)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES)
    except OSError as error:
        raise unreadable(path, error, "") from None
    return read_bytes_array(data, "faces", shape, str(path))


def _content(path: Path) -> bytes:
    return _faces(path).tobytes(order="F")


OFFICIAL = OfficialDataset(
    "olivetti",
    (
        OfficialFile(
            "olivettifaces.mat",
            "https://ndownloader.figshare.com/files/5976027",
            "sha256:b612fb967f2dc77c9c62d3e1266e0c73d5fca46a4b8906c18e454d41af987794",
            1_400_000,
            # Of another copy, saved by MATLAB in 2013: its pixels are those that scikit-learn shows.
            content_md5="c789a708157faad538517a418579ad21",
            content=_content,
        ),
    ),
    page="https://scikit-learn.org/stable/datasets/real_world.html",
    licence="not stated",
)


@register_dataset(
    "olivetti",
    title="Olivetti faces",
    reference="Samaria & Harter 1994, Parameterisation of a Stochastic Model for Human Face Identification",
    official=OFFICIAL,
)
def olivetti(source: str, data_dir, device) -> Dataset:
    """Ten faces each of 40 people, 64 x 64, one channel. Persons 0-29 train the model, 30-39 are scored."""
    (path,) = official_paths(OFFICIAL, source, data_dir)
    draw = look_up(read_official(path)[:, None], device)
    person = np.repeat(np.arange(NUM_PEOPLE), IMAGES_OF_A_PERSON)[:, None]
    space = FactorSpace(("person",), (NUM_PEOPLE,), person)
    held_out = np.flatnonzero(person[:, 0] >= NUM_TRAINING_PEOPLE)
    return Dataset("olivetti", "official", space, (1, SIDE, SIDE), draw, ["person"], held_out, file=path)


def read_official(path: Path) -> np.ndarray:
    """Return the images uint8 [400, 64, 64], upright, the ten of a person one after another.

    The file keeps an image as one column of `faces`, and in it the pixels column by column.

    Raises
    ------
    DislabError : not a whole MATLAB file, or its array `faces` is missing or another than the official one.
    """
    faces = _faces(path)
    count = faces.shape[1]
    return np.ascontiguousarray(faces.T.reshape(count, SIDE, SIDE).transpose(0, 2, 1))
