"""Cars3D: 17,568 RGB images of 183 cars from all sides; the official .mat files or archive, or drawn."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np

from dislab.data.cache import cached_array, file_stamp
from dislab.data.dataset import Dataset, look_up
from dislab.data.matlab import MOST_BYTES, read_bytes_array
from dislab.data.official import OfficialDataset, OfficialFile, listed, official_paths, unreadable
from dislab.data.space import Circle, FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

# Factors in the order of disentanglement_lib, the last fastest.
SPACE = FactorSpace(
    ("elevation", "azimuth", "object_type"),
    (4, 24, 183),
    circle=Circle("azimuth", steps=24, instance="object_type"),
    categorical=["object_type"],
)
CAR_FILES = "car_*_mesh.mat"  # one car each; the numbers 001 to 199 have gaps
OFFICIAL_SIDE, SIDE = 128, 64

OFFICIAL = OfficialDataset(
    "cars3d",
    (
        OfficialFile(
            "nips2015-analogy-data.tar.gz",
            # There is no https there: the hash alone says that the file is the published one.
            "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz",
            "md5:4e866a7919c1beedf53964e6f7a23686",
            280_000_000,
            unpacked=(CAR_FILES, f"cars/{CAR_FILES}", f"data/cars/{CAR_FILES}"),
        ),
    ),
    page="http://www.scottreed.info",
    licence="not stated",
    is_drawn=True,
)


@register_dataset(
    "cars3d",
    title="Cars3D",
    reference="Reed et al. 2015, Deep Visual Analogy-Making, NeurIPS; CAD models of Fidler et al. 2012",
    official=OFFICIAL,
)
def cars3d(source: str, data_dir, device) -> Dataset:
    """Elevation, azimuth and type of a car before white; 64 x 64 RGB."""
    from dislab.rendering import cars3d as renderer

    paths = official_paths(OFFICIAL, source, data_dir)
    draw = look_up(read_official(paths[0]) if paths else _rendered(renderer), device, channels_last=True)
    shape, group_by = (3, SIDE, SIDE), ["object_type"]
    if paths:
        return Dataset("cars3d", "official", SPACE, shape, draw, group_by, file=paths[0])
    return Dataset("cars3d", "rendered", SPACE, shape, draw, group_by, renderer=renderer.VERSION)


def _rendered(renderer) -> np.ndarray:
    """Return the drawn images uint8 [17568, 64, 64, 3] of the cache."""

    def make(array: np.ndarray) -> None:
        grid = array.reshape(*SPACE.sizes, SIDE, SIDE, 3)
        for car in range(grid.shape[2]):
            grid[:, :, car] = renderer.draw_car(car)

    return cached_array(f"cars3d-rendered-v{renderer.VERSION}", (len(SPACE), SIDE, SIDE, 3), make)


def read_official(path: Path) -> np.ndarray:
    """Return the images uint8 [17568, 64, 64, 3] of the archive, or of the folder of .mat files.

    They are decoded once into the cache (216 MB) and mapped from there.

    The cars are numbered by sorted file name. disentanglement_lib took the folder's own order, which differs
    between machines: its object_type is the same set of cars in another order.

    The files hold 128 x 128 pixels, and a pixel here is the rounded mean of 2 x 2 of them: whole-number
    arithmetic. disentanglement_lib called an image library's thumbnail function, whose filter depends on the
    library's version, and other readers of these files chose other filters.

    Raises
    ------
    DislabError : not the official number of files, or one is damaged or does not hold the official array; the
        archive is cut off or not an archive.
    """

    def make(array: np.ndarray) -> None:
        grid = array.reshape(*SPACE.sizes, SIDE, SIDE, 3)
        # The archive's files come in any order; the sorted names say which car each is.
        names = sorted(name for name, _ in _car_files(path, read=False))
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DislabError(f"'{path}' holds {listed(twice)} more than once: only one can be meant")
        if len(names) != SPACE.sizes[2]:
            raise DislabError(
                f"'{path}' holds {len(names)} files {CAR_FILES}: the official data has {SPACE.sizes[2]}"
            )
        cars = {name: car for car, name in enumerate(names)}
        for name, data in _car_files(path):
            grid[:, :, cars[name]] = halve(read_car(data, f"{path}/{name}"))

    # The name says what was read and how, so that new files or another filter are not taken for these.
    return cached_array(
        f"cars3d-official-mean-{file_stamp(path, CAR_FILES)}", (len(SPACE), SIDE, SIDE, 3), make
    )


def _car_files(path: Path, read: bool = True) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each .mat file of a folder or an archive; the bytes are empty without `read`.

    The archive is read as a stream, and nothing is unpacked to disk.
    """
    if path.is_dir():
        for file in path.glob(CAR_FILES):
            try:
                if not file.is_file():  # to open a pipe would wait for ever
                    raise DislabError(f"'{file}' is not a file")
                with file.open("rb") as opened:
                    yield file.name, opened.read(MOST_BYTES) if read else b""
            except OSError as error:
                raise DislabError(f"cannot read '{file}': {error.strerror or error}") from None
        return
    try:
        # As a stream ("|"): gzip can only be read forwards. tarfile's own gzip stream would take the end
        # of a file that is cut off for the end of the archive; gzip.open says so.
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isreg() and fnmatchcase(name, CAR_FILES):
                    if member.size > MOST_BYTES:
                        raise EOFError(f"{name!a} of {member.size} bytes cannot be a car")
                    yield name, archive.extractfile(member).read() if read else b""
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise unreadable(path, error, "is not a whole .tar.gz archive") from None


def read_car(data: bytes, name: str) -> np.ndarray:
    """Return the images uint8 [4, 24, 128, 128, 3] (elevation, azimuth) in the bytes of a car's .mat file.

    Raises
    ------
    DislabError : not a whole MATLAB file, or its array `im` is missing or another than the official one.
    """
    shape = (OFFICIAL_SIDE, OFFICIAL_SIDE, 3, SPACE.sizes[1], SPACE.sizes[0])
    return read_bytes_array(data, "im", shape, name).transpose(4, 3, 0, 1, 2)


def halve(images: np.ndarray) -> np.ndarray:
    """Return the means uint8 [..., H / 2, W / 2, 3] of 2 x 2 pixels of [..., H, W, 3], a half rounded up."""
    wide = images.astype(np.uint16)
    rows = wide[..., 0::2, :, :] + wide[..., 1::2, :, :]
    return ((rows[..., 0::2, :] + rows[..., 1::2, :] + 2) // 4).astype(np.uint8)
