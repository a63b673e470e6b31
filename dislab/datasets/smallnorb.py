"""SmallNORB: 48,600 grey photographs of 50 toys from all sides; the official binary files, plain or gzip."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dislab.data.cache import cached_array, file_stamp
from dislab.data.dataset import Dataset, look_up
from dislab.data.official import OfficialDataset, OfficialFile, official_paths, unreadable
from dislab.data.space import Circle, FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

# Ten toys of each category: an instance number means nothing without its category. An azimuth step is 20
# degrees. Two instance numbers of the ten that are kept for a test are toys that were not trained on.
SPACE = FactorSpace(
    ("category", "instance", "elevation", "azimuth", "lighting"),
    (5, 10, 9, 18, 6),
    circle=Circle("azimuth", steps=18, instance="instance"),
    categorical=["category", "instance", "lighting"],
)
OFFICIAL_SIDE, SIDE = 96, 64
CHUNK = 500  # stereo pairs read at a time: 9 MB
MAGIC = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}  # the first number of a file, by what its array holds
MOST_BYTES = 450_000_000  # more than the largest file has, unpacked


def opened(path: Path):
    """Open a file, plain or gzip, to read what it holds."""
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_compressed else path.open("rb")


def _content(path: Path) -> bytes:
    with opened(path) as stream:
        return stream.read(MOST_BYTES)


def _file(name: str, size: int, sha256: str, content_md5: str) -> OfficialFile:
    return OfficialFile(
        f"{name}.mat.gz",
        f"https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/{name}.mat.gz",
        f"sha256:{sha256}",
        size,
        exact_size=True,
        content_md5=content_md5,
        content=_content,
        also=(f"{name}.mat",),
    )


TRAIN, TEST = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"
OFFICIAL = OfficialDataset(
    "smallnorb",
    (
        _file(
            f"{TRAIN}-dat",
            131_896_188,
            "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
            "8138a0902307b32dfa0025a36dfa45ec",
        ),
        _file(
            f"{TRAIN}-cat",
            348,
            "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa",
            "fd5120d3f770ad57ebe620eb61a0b633",
        ),
        _file(
            f"{TRAIN}-info",
            71_052,
            "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
            "19faee774120001fc7e17980d6960451",
        ),
        _file(
            f"{TEST}-dat",
            130_799_817,
            "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
            "e9920b7f7b2869a8f1a12e945b2c166c",
        ),
        _file(
            f"{TEST}-cat",
            347,
            "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff",
            "fd5120d3f770ad57ebe620eb61a0b633",
        ),
        _file(
            f"{TEST}-info",
            10_428,
            "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
            "7c5b871cc69dcadec1bf6a18141f5edc",
        ),
    ),
    page="https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/",
    licence="for research only",
)


@register_dataset(
    "smallnorb",
    title="SmallNORB",
    reference="LeCun, Huang & Bottou 2004, Learning Methods for Generic Object Recognition, CVPR",
    official=OFFICIAL,
)
def smallnorb(source: str, data_dir, device) -> Dataset:
    """Category and instance of a toy, elevation and azimuth of the camera, lighting; 64 x 64, one channel."""
    paths = official_paths(OFFICIAL, source, data_dir)
    draw = look_up(read_official(paths)[:, None], device)
    return Dataset(
        "smallnorb", "official", SPACE, (1, SIDE, SIDE), draw, ["category", "instance"], file=paths[0]
    )


def read_official(paths: Sequence[Path]) -> np.ndarray:
    """Return the images uint8 [48600, 64, 64] of the six files, in the order of OFFICIAL, sorted by factors.

    Of each stereo pair the first image is taken, as by disentanglement_lib, and the training and the test
    file are joined. They are decoded once into the cache (199 MB) and mapped from there.

    Raises
    ------
    DislabError : a file is cut off or damaged, does not hold the official array, or the two parts together
        are not all combinations of factor values.
    """
    stamps = "-".join(file_stamp(path) for path in paths[::3])

    def make(array: np.ndarray) -> None:
        pairs = len(SPACE) // 2
        rows = np.concatenate([rows_of(*paths[part + 1 : part + 3], pairs) for part in (0, 3)])
        if len(np.unique(rows)) != len(SPACE):
            raise DislabError(
                f"'{paths[2]}' and '{paths[5]}' name only {len(np.unique(rows)):,} of the {len(SPACE):,} "
                "combinations of factor values: they are not the official files"
            )
        for part, path in enumerate(paths[::3]):
            for start, stereo in read_blocks(path, "uint8", (2, OFFICIAL_SIDE, OFFICIAL_SIDE), pairs):
                first = part * pairs + start
                array[rows[first : first + len(stereo)]] = shrink(stereo[:, 0])

    return cached_array(f"smallnorb-official-lanczos-{stamps}", (len(SPACE), SIDE, SIDE), make)


def rows_of(categories: Path, infos: Path, pairs: int | None = None) -> np.ndarray:
    """Return the rows int64 [N] of the images that a file of categories and one of the others describe.

    Raises
    ------
    DislabError : as for `read_blocks`, or a value is not one of its factor's.
    """
    factors = np.concatenate(
        [read_all(categories, "int32", (), pairs)[:, None], read_all(infos, "int32", (4,), pairs)], axis=1
    )
    factors[:, 3] = np.where(factors[:, 3] % 2, -1, factors[:, 3] // 2)  # steps of 10 degrees: 0, 2, ..., 34
    for column, (name, size) in enumerate(zip(SPACE.names, SPACE.sizes, strict=True)):
        if not ((factors[:, column] >= 0) & (factors[:, column] < size)).all():
            path = infos if column else categories
            raise DislabError(f"'{path}' holds a value that no {name} has: it is not the official file")
    return SPACE.rows(factors)


def read_all(path: Path, dtype: str, row_shape: tuple[int, ...], count: int | None = None) -> np.ndarray:
    """Return the whole array of a file; the arguments and errors are those of `read_blocks`."""
    return np.concatenate([block for _, block in read_blocks(path, dtype, row_shape, count)])


def read_blocks(
    path: Path, dtype: str, row_shape: tuple[int, ...], count: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of each block of up to CHUNK rows of a file's array, and the block.

    A file has a magic number, the number of dimensions, at least three sizes, and the array, row-major; all
    numbers are little-endian (the format of https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/).

    Parameters
    ----------
    dtype, row_shape, count : of the array, [count, *row_shape]; any number of rows if count is None.

    Raises
    ------
    DislabError : the file is cut off or damaged, is not in this format, or holds another array.
    """
    try:
        with opened(path) as stream:
            magic, dimensions = struct.unpack("<2i", stream.read(8))
            if magic not in MAGIC.values() or not 1 <= dimensions <= 4:
                raise ValueError("it does not begin as one")
            number = max(3, dimensions)
            shape = struct.unpack(f"<{number}i", stream.read(4 * number))[:dimensions]
            expected = (shape[0] if count is None else count, *row_shape)
            if magic != MAGIC[dtype] or shape != expected:
                kind = next(kind for kind, known in MAGIC.items() if known == magic)
                raise DislabError(
                    f"'{path}' holds an array {kind} {list(shape)}, expected {dtype} {list(expected)}"
                )
            numbers = int(np.prod(row_shape, dtype=int))
            for start in range(0, shape[0], CHUNK):
                rows = min(CHUNK, shape[0] - start)
                data = stream.read(rows * numbers * np.dtype(dtype).itemsize)
                block = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))
                if len(block) != rows * numbers:
                    raise EOFError(f"it is cut off after row {start + len(block) // max(1, numbers)}")
                yield start, block.reshape(rows, *row_shape)
            if stream.read(1):  # reading to the end checks the sum of a gzip file
                raise ValueError("it goes on after its array")
    except DislabError:
        raise
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise unreadable(path, error, "is not a whole file of SmallNORB") from None


def shrink(images: np.ndarray) -> np.ndarray:
    """Return images uint8 [B, 64, 64] of [B, 96, 96], by Pillow's Lanczos filter.

    So does disentanglement_lib.
    """
    from PIL import Image

    size = (SIDE, SIDE)
    return np.stack([Image.fromarray(image).resize(size, Image.Resampling.LANCZOS) for image in images])
