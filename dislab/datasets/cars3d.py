"""Cars3D: 17,568 RGB images of 183 cars from all sides; the official .mat files or archive, or drawn."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from dislab.data.dataset import (
    Dataset,
    cached_array,
    data_folder,
    official_file,
    source_digest,
    stored_tensor,
)
from dislab.data.space import Circle, FactorSpace
from dislab.errors import DislabError
from dislab.registry import register_dataset

# Factors in the order of disentanglement_lib, the last fastest.
SPACE = FactorSpace(
    ("elevation", "azimuth", "object_type"),
    (4, 24, 183),
    circle=Circle("azimuth", steps=24, instance="object_type"),
)
ARCHIVES = ("nips2015-analogy-data.tar.gz",)
FOLDERS = (".", "cars", "data/cars")  # of the .mat files, within the data folder or its sub-folder cars3d
CAR_FILES = "car_*_mesh.mat"  # one car each; the numbers 001 to 199 have gaps
OFFICIAL_SIDE, SIDE = 128, 64


@register_dataset(
    "cars3d",
    title="Cars3D",
    reference="Reed et al. 2015, Deep Visual Analogy-Making, NeurIPS; CAD models of Fidler et al. 2012",
)
def cars3d(source: str, data_dir, device: torch.device) -> Dataset:
    """Elevation, azimuth and type of a car before white; 64 x 64 RGB."""
    path = None
    if source != "rendered":
        path = find_folder(data_dir) or official_file("cars3d", ARCHIVES, source, data_dir)
    images = stored_tensor(_rendered() if path is None else read_official(path), device)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return images[rows.to(images.device)].permute(0, 3, 1, 2)

    source = "rendered" if path is None else "official"
    return Dataset("cars3d", source, SPACE, (3, SIDE, SIDE), draw, ["object_type"], file=path)


def _rendered() -> np.ndarray:
    """Images uint8 [17568, 64, 64, 3] of the drawn cars, from the cache."""
    from dislab.rendering import cars3d as renderer

    def make(array: np.ndarray) -> None:
        grid = array.reshape(*SPACE.sizes, SIDE, SIDE, 3)
        for car in range(grid.shape[2]):
            grid[:, :, car] = renderer.draw_car(car)

    return cached_array(f"cars3d-rendered-{source_digest(renderer)}", (len(SPACE), SIDE, SIDE, 3), make)


def find_folder(data_dir=None) -> Path | None:
    """The first folder that holds any of the official .mat files, or None."""
    data = data_folder(data_dir)
    for parent in (data / "cars3d", data):
        for name in FOLDERS:
            if any(path.is_file() for path in (parent / name).glob(CAR_FILES)):
                return parent / name
    return None


def read_official(path: Path) -> np.ndarray:
    """Images uint8 [17568, 64, 64, 3] of the folder of .mat files, or of the archive as downloaded, decoded
    once into the cache (216 MB) and mapped from there.

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
    source = _FolderOfCars(path) if path.is_dir() else _ArchiveOfCars(path)

    def make(array: np.ndarray) -> None:
        grid = array.reshape(*SPACE.sizes, SIDE, SIDE, 3)
        # A file of the archive may come at any place in it; the sorted names say which car it is.
        names = sorted(source.names())
        if len(names) != SPACE.sizes[2]:
            raise DislabError(
                f"'{path}' holds {len(names)} files {CAR_FILES}: the official data has {SPACE.sizes[2]}"
            )
        places = {name: place for place, name in enumerate(names)}
        for name, data in source.files():
            grid[:, :, places[name]] = halve(read_car(data, f"{path}/{name}"))

    # The name says what was read and how, so that new files or another filter are not taken for these.
    return cached_array(f"cars3d-official-mean-{source.digest()}", (len(SPACE), SIDE, SIDE, 3), make)


class _FolderOfCars:
    """The .mat files of a folder, by name."""

    def __init__(self, path: Path):
        self.paths = {file.name: file for file in path.glob(CAR_FILES) if file.is_file()}

    def names(self) -> list[str]:
        return list(self.paths)

    def files(self) -> Iterator[tuple[str, bytes]]:
        for name, path in self.paths.items():
            try:
                yield name, path.read_bytes()
            except OSError as error:
                raise DislabError(f"cannot read '{path}': {error.strerror or error}") from None

    def digest(self) -> str:
        stamps = [(name, path.stat()) for name, path in sorted(self.paths.items())]
        text = repr([(name, status.st_size, status.st_mtime_ns) for name, status in stamps])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class _ArchiveOfCars:
    """The .mat files in the archive, by name: read as streams, nothing is unpacked to disk."""

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        return [name for name, _ in self._members(read=False)]

    def files(self) -> Iterator[tuple[str, bytes]]:
        return self._members(read=True)

    def digest(self) -> str:
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _members(self, read: bool) -> Iterator[tuple[str, bytes]]:
        try:
            # As a stream ("|"): gzip can only be read forwards. tarfile's own gzip stream would take the end
            # of a file that is cut off for the end of the archive; gzip.open says so.
            with gzip.open(self.path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    if member.isreg() and fnmatchcase(name, CAR_FILES):
                        yield name, archive.extractfile(member).read() if read else b""
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise DislabError(f"'{self.path}' is not a whole .tar.gz archive: {error}") from None


def read_car(data: bytes, name: str) -> np.ndarray:
    """Images uint8 [4, 24, 128, 128, 3] of one car (elevation, azimuth) from the bytes of its .mat file.

    Raises
    ------
    DislabError : not a whole MATLAB file, or its array `im` is missing or another than the official one.
    """
    from scipy.io import loadmat

    try:
        arrays = loadmat(io.BytesIO(data), variable_names=["im"])
    except Exception as error:  # damaged bytes raise whatever the decoder met first
        reason = " ".join(str(error).split())
        raise DislabError(f"'{name}' is not a whole MATLAB file: {reason}") from None
    if "im" not in arrays:
        raise DislabError(f"'{name}' has no array 'im': it is not an official file")
    images = arrays["im"]
    shape = (OFFICIAL_SIDE, OFFICIAL_SIDE, 3, SPACE.sizes[1], SPACE.sizes[0])
    if images.shape != shape or images.dtype != np.uint8:
        raise DislabError(
            f"'{name}': 'im' is {images.dtype} {list(images.shape)}, expected uint8 {list(shape)}"
        )
    return images.transpose(4, 3, 0, 1, 2)


def halve(images: np.ndarray) -> np.ndarray:
    """Images uint8 [..., H / 2, W / 2, 3]: the mean of 2 x 2 pixels of [..., H, W, 3], a half rounded up."""
    wide = images.astype(np.uint16)
    rows = wide[..., 0::2, :, :] + wide[..., 1::2, :, :]
    return ((rows[..., 0::2, :] + rows[..., 1::2, :] + 2) // 4).astype(np.uint8)
