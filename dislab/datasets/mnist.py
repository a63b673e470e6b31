"""MNIST from its official idx files: 70,000 handwritten digits with one factor, the digit."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from dislab.data.dataset import Dataset, look_up
from dislab.data.official import OfficialDataset, OfficialFile, official_paths, unreadable
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

NUM_TRAINING_FILE = 60_000
NUM_TRAIN = 50_000  # to train the model; as in the ML-VAE paper the next 10,000 validate, and the last test
NUM_TEST_FILE = 10_000


MOST_BYTES = 50_000_000  # more than the largest of the files has


def gunzipped(path: Path) -> bytes:
    """Return what a file holds, gzip or plain, but no more than MOST_BYTES of it."""
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        return (gzip.open(file) if is_compressed else file).read(MOST_BYTES)


def _names(name: str) -> tuple[str, ...]:
    """Return the names of a file as people have it: unpacked or not, from Kaggle, or from torchvision.

    In Kaggle's copies the dot stands for a dash, or a file lies in a folder of its own name. Torchvision has
    `MNIST/raw/`, and the data folder may be either of these folders.
    """
    spellings = (name, ".idx".join(name.rsplit("-idx", 1)))
    return tuple(
        f"{folder}{within}{spelling}{suffix}"
        for folder in ("", "MNIST/raw/", "raw/")
        for within in ("", *(f"{spelling}/" for spelling in spellings))
        for spelling in spellings
        for suffix in ("", ".gz")
    )


def _file(name: str, size: int, md5: str, content_md5: str) -> OfficialFile:
    return OfficialFile(
        f"{name}.gz",
        # The mirror that torchvision reads too; the original page no longer gives the files out.
        f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz",
        f"md5:{md5}",
        size,
        content_md5=content_md5,
        content=gunzipped,
        also=_names(name),
    )


OFFICIAL = OfficialDataset(
    "mnist",
    (
        _file(
            "train-images-idx3-ubyte",
            9_912_422,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "6bbc9ace898e44ae57da46a324031adb",
        ),
        _file(
            "train-labels-idx1-ubyte",
            28_881,
            "d53e105ee54ea40749a09fcbcd1e9432",
            "a25bea736e30d166cdddb491f175f624",
        ),
        _file(
            "t10k-images-idx3-ubyte",
            1_648_877,
            "9fb629c4189551a2d022fa330f9573f3",
            "2646ac647ad5339dbf082846283269ea",
        ),
        _file(
            "t10k-labels-idx1-ubyte",
            4_542,
            "ec29112dd5afa0611ce80d1b7f02629c",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    page="https://ossci-datasets.s3.amazonaws.com/mnist/",
    licence="CC-BY-SA-3.0",
)


@register_dataset("mnist", title="MNIST", reference="LeCun et al. 1998, Proc. IEEE 86(11)", official=OFFICIAL)
def mnist(source: str, data_dir, device) -> Dataset:
    """Handwritten digits, 28 x 28, one channel. Rows 0-49,999 train the model, the others are scored: a
    readout of the codes is trained on rows 50,000-59,999 and tested on the official test images."""
    paths = official_paths(OFFICIAL, source, data_dir)
    shapes = [(count, *sides) for count in (NUM_TRAINING_FILE, NUM_TEST_FILE) for sides in ((28, 28), ())]
    arrays = [read_idx(path, shape) for path, shape in zip(paths, shapes, strict=True)]
    digits = np.concatenate(arrays[1::2])
    if digits.max() > 9:
        raise DislabError(f"'{paths[1]}' holds the label {digits.max()}: MNIST's are 0 to 9")
    draw = look_up(np.concatenate(arrays[0::2])[:, None], device)
    space = FactorSpace(("digit",), (10,), digits[:, None])
    held_out = np.arange(NUM_TRAIN, len(space))
    test = np.arange(NUM_TRAINING_FILE, len(space))
    return Dataset(
        "mnist", "official", space, (1, 28, 28), draw, ["digit"], held_out, file=paths[0], test=test
    )


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the uint8 array of an idx file, plain or gzip, which must have the given shape.

    Raises
    ------
    DislabError : the file is cut off, is not idx, or holds another shape.
    """
    try:
        data = gunzipped(path)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error, "is cut off or damaged") from None
    header = 4 + 4 * len(shape)
    if len(data) < header or data[:4] != bytes([0, 0, 8, len(shape)]):
        raise DislabError(f"'{path}' is not an idx file of {len(shape)} dimensions of bytes")
    file_shape = struct.unpack(f">{len(shape)}I", data[4:header])
    if file_shape != shape:
        raise DislabError(f"'{path}' holds an array {list(file_shape)}, expected {list(shape)}")
    if len(data) - header != np.prod(shape):
        raise DislabError(
            f"'{path}' is not whole: {len(data) - header} bytes of pixels, expected {np.prod(shape)}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
