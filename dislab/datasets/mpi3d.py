"""MPI3D: 1,036,800 RGB images of a robot arm; the official .npz files, read in place, or (toy) drawn."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import torch

from dislab.data.dataset import (
    Dataset,
    cached_array,
    factors_on_device,
    official_file,
    open_npz_member,
    source_digest,
    stored_tensor,
)
from dislab.data.official import cache_folder, data_folder
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.progress import Bar, say
from dislab.registry import register_dataset

SPACE = FactorSpace(
    (
        "object_color",
        "object_shape",
        "object_size",
        "camera_height",
        "background_color",
        "horizontal_axis",
        "vertical_axis",
    ),
    (6, 6, 2, 3, 3, 40, 40),
)
KEY = "images"
SIDE = 64
CHUNK = 4000  # images unpacked at a time: 49 MB
# A zip file's local header before a member's name: signature, 22 bytes that the directory repeats, and the
# lengths of the name and of the extra field.
LOCAL_HEADER = struct.Struct("<4s22xHH")
REFERENCE = "Gondal et al. 2019, On the Transfer of Inductive Bias from Simulation to the Real World, NeurIPS"
# Of the factors that say what is seen, not where or from where, the object's colour changes an image most:
# drawn images by 165 (mean squared difference of a pixel's channel), and by 77 for the size, 63 for the shape
# and 49 for the background's colour. In panels of the official toy animations the colour's share is 93 to
# 267, the background's 56 to 78.
GROUP_BY = ["object_color"]


@register_dataset("mpi3d_toy", title="MPI3D toy (simple rendering)", reference=REFERENCE)
def mpi3d_toy(source: str, data_dir, device: torch.device) -> Dataset:
    """Colour, shape and size of an object at the end of a robot arm, camera height, background colour and
    the arm's two axes; 64 x 64 RGB."""
    path = official_file("mpi3d_toy", ["mpi3d_toy.npz"], source, data_dir)
    return _rendered(device) if path is None else _official("mpi3d_toy", path, device)


@register_dataset("mpi3d_realistic", title="MPI3D realistic (realistic rendering)", reference=REFERENCE)
def mpi3d_realistic(source: str, data_dir, device: torch.device) -> Dataset:
    """The factors of mpi3d_toy in a realistic rendering; official file only."""
    return _official_only("mpi3d_realistic", source, data_dir, device)


@register_dataset("mpi3d_real", title="MPI3D real (photographs)", reference=REFERENCE)
def mpi3d_real(source: str, data_dir, device: torch.device) -> Dataset:
    """The factors of mpi3d_toy in photographs of the robot; official file only."""
    return _official_only("mpi3d_real", source, data_dir, device)


@register_dataset("mpi3d", title="MPI3D: another name of mpi3d_toy", reference=REFERENCE)
def mpi3d(source: str, data_dir, device: torch.device) -> Dataset:
    """mpi3d_toy; results are recorded under that name."""
    say("mpi3d means mpi3d_toy")
    return mpi3d_toy(source, data_dir, device)


def _official_only(name: str, source: str, data_dir, device: torch.device) -> Dataset:
    if source == "rendered":
        raise DislabError(f"{name} has no rendered images: use its official file, or draw mpi3d_toy")
    path = official_file(name, [f"{name}.npz"], source, data_dir)
    if path is None:
        place = data_folder(data_dir) / name / f"{name}.npz"
        raise DislabError(
            f"the official file of {name} is not there, and only mpi3d_toy can be drawn: "
            f"`dislab data fetch {name}`, or put it at '{place}'"
        )
    return _official(name, path, device)


def _official(name: str, path: Path, device: torch.device) -> Dataset:
    # 12.7 GB stay in the file: the operating system keeps in memory what it has room for. Only batches go to
    # the device, 0.8 MB each.
    images = stored_tensor(read_official(path), torch.device("cpu"))

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return images[rows.cpu()].to(device).permute(0, 3, 1, 2)

    return Dataset(name, "official", SPACE, (3, SIDE, SIDE), draw, GROUP_BY, file=path)


def read_official(path: Path) -> np.ndarray:
    """Images uint8 [1036800, 64, 64, 3] of an official file, mapped from the file itself.

    The published files hold their array uncompressed. A compressed copy (numpy.savez_compressed) cannot be
    read at random, so it is unpacked once into the cache, which takes 12.7 GB there, and mapped from there.

    Raises
    ------
    DislabError : the file is not a .npz, is cut off, or does not hold the official array.
    RunFailed : no room in the cache folder for a compressed file's images.
    """
    shape = (len(SPACE), SIDE, SIDE, 3)
    mapped = map_npz_member(path, KEY, shape)
    if mapped is not None:
        return mapped
    status = path.stat()

    def make(array: np.ndarray) -> None:
        say(
            f"'{path}' is compressed: its images are unpacked once into the cache folder "
            f"'{cache_folder()}', {array.nbytes / 1e9:.1f} GB"
        )
        with open_npz_member(path, KEY, shape) as stream, Bar("unpacking", len(array)) as bar:
            for start in range(0, len(array), CHUNK):
                block = array[start : start + CHUNK]
                try:
                    block[:] = np.frombuffer(stream.read(block.nbytes), np.uint8).reshape(block.shape)
                except Exception as error:  # zlib and zipfile raise errors of their own for damaged bytes
                    raise DislabError(
                        f"'{path}' is cut off or damaged after image {start}: {error}"
                    ) from None
                bar.update(start + len(block), "images")

    # Several variants can share a cache: the name, the size and the time of the file tell them apart.
    return cached_array(f"{path.stem}-official-{status.st_size}-{status.st_mtime_ns}", shape, make)


def map_npz_member(path: Path, key: str, shape: tuple[int, ...], dtype=np.uint8) -> np.ndarray | None:
    """An array of a .npz file as a read-only memory map of the file; None where it is compressed.

    Only headers are read: it takes milliseconds whatever the file's size. The bytes of the array are not
    checked against their checksum (`dislab data verify` does that).

    Raises
    ------
    DislabError : not a whole .npz file, no such key, or another shape or type than the official one.
    """
    try:
        open_npz_member(path, key, shape, dtype).close()
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{key}.npy")
    except (NotImplementedError, RuntimeError) as error:  # a rare compression, or a password
        raise DislabError(f"'{path}' cannot be read: {error}") from None
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("rb") as file:
        file.seek(member.header_offset)
        # The lengths in this header, not the directory's: the extra fields may differ.
        _, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        start = member.header_offset + LOCAL_HEADER.size + name_length + extra_length
        file.seek(start)
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            np.lib.format.read_array_header_1_0(file)
        else:
            np.lib.format.read_array_header_2_0(file)
        first = file.tell()
    if first + num_bytes != start + member.file_size:
        raise DislabError(
            f"'{path}': array '{key}' has {member.file_size - (first - start)} bytes, expected {num_bytes}"
        )
    if first + num_bytes > path.stat().st_size:
        raise DislabError(f"'{path}' is cut off: array '{key}' ends beyond the end of the file")
    return np.memmap(path, dtype, mode="r", offset=first, shape=shape)


def _rendered(device: torch.device) -> Dataset:
    from dislab.rendering import mpi3d as renderer

    def make(array: np.ndarray) -> None:
        with Bar("drawing mpi3d_toy, once", len(array)) as bar:
            renderer.draw_poses(array, lambda done: bar.update(done, "poses"))

    shape = (renderer.NUM_POSES, renderer.POSE_BYTES)
    poses = stored_tensor(cached_array(f"mpi3d_toy-rendered-{source_digest(renderer)}", shape, make), device)
    painter = renderer.Painter(poses)
    factors = factors_on_device(SPACE, device)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return painter.paint(factors(rows))

    return Dataset("mpi3d_toy", "rendered", SPACE, (3, SIDE, SIDE), draw, GROUP_BY)
