"""MNIST from its official idx files: 70,000 handwritten digits with one factor, the digit."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from dislab.data.dataset import Dataset, data_folder, find_file, stored_tensor
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

NUM_TRAINING_FILE = 60_000
NUM_TRAIN = 50_000  # to train the model; as in the ML-VAE paper the next 10,000 validate, and the last test
NUM_TEST_FILE = 10_000


@register_dataset("mnist", title="MNIST", reference="LeCun et al. 1998, Proc. IEEE 86(11)")
def mnist(source: str, data_dir, device: torch.device) -> Dataset:
    """Handwritten digits, 28 x 28, one channel. Rows 0-49,999 train the model, the others are scored: a
    readout of the codes is trained on rows 50,000-59,999 and tested on the official test images."""
    if source == "rendered":
        raise DislabError("mnist has no rendered images: use --source official with the four idx files")
    paths, arrays = [], []
    for part, count in (("train", NUM_TRAINING_FILE), ("t10k", NUM_TEST_FILE)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            name = f"{part}-{kind}-ubyte"
            path = find_file("mnist", [name, f"{name}.gz"], data_dir)
            if path is None:
                place = data_folder(data_dir) / "mnist" / f"{name}.gz"
                raise DislabError(f"the official MNIST file is not there: put it at '{place}'")
            paths.append(path)
            arrays.append(read_idx(path, shape))
    digits = np.concatenate([arrays[1], arrays[3]])
    if digits.max() > 9:
        raise DislabError(f"'{paths[1]}' holds the label {digits.max()}: MNIST's are 0 to 9")
    images = stored_tensor(np.concatenate([arrays[0], arrays[2]])[:, None], device)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return images[rows.to(device)]

    space = FactorSpace(("digit",), (10,), digits[:, None])
    held_out = np.arange(NUM_TRAIN, len(space))
    test = np.arange(NUM_TRAINING_FILE, len(space))
    return Dataset("mnist", "official", space, (1, 28, 28), draw, ["digit"], held_out, paths[0], test)


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A uint8 array of the given shape from an idx file, plain or gzip.

    Raises
    ------
    DislabError : the file is cut off, is not idx, or holds another shape.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DislabError(f"'{path}' is cut off or damaged: {error}") from None
    header = 4 + 4 * len(shape)
    if len(data) < header or data[:4] != bytes([0, 0, 8, len(shape)]):
        raise DislabError(f"'{path}' is not an idx file of {len(shape)} dimensions of bytes")
    found = struct.unpack(f">{len(shape)}I", data[4:header])
    if found != shape:
        raise DislabError(f"'{path}' holds an array {list(found)}, expected {list(shape)}")
    if len(data) - header != np.prod(shape):
        raise DislabError(
            f"'{path}' is cut off: {len(data) - header} bytes of pixels, expected {np.prod(shape)}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
