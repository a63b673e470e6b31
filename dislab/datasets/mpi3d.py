"""MPI3D: 1,036,800 RGB images of a robot arm; the official .npz files, mapped or unpacked, or (toy) drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dislab.data.cache import cache_folder, cached_array, file_stamp
from dislab.data.dataset import Dataset, factors_on_device, stored_tensor
from dislab.data.npz import map_array, read_blocks
from dislab.data.official import OfficialDataset, OfficialFile, official_paths
from dislab.data.space import FactorSpace
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
    categorical=["object_color", "object_shape", "background_color"],
)
KEY = "images"
SIDE = 64
CHUNK = 4000  # images unpacked at a time: 49 MB
REFERENCE = "Gondal et al. 2019, On the Transfer of Inductive Bias from Simulation to the Real World, NeurIPS"
# Of the factors that say what is seen, not where or from where, the object's colour changes an image most:
# drawn images by 165 (mean squared difference of a pixel's channel), and by 77 for the size, 63 for the shape
# and 49 for the background's colour. In panels of the official toy animations the colour's share is 93 to
# 267, the background's 56 to 78.
GROUP_BY = ["object_color"]


def _published(variant: str, md5: str, exact_size: bool = False) -> OfficialDataset:
    file = OfficialFile(
        f"mpi3d_{variant}.npz",
        f"https://huggingface.co/datasets/waleedgondal/mpi3d/resolve/main/mpi3d_{variant}.npz",
        f"md5:{md5}",
        12_740_198_762,
        exact_size,
        earlier_host=True,  # the Google bucket of 2019 to 2025; the files moved, their hashes were not given
    )
    page = "https://github.com/rr-learning/disentanglement_dataset"
    return OfficialDataset(f"mpi3d_{variant}", (file,), page, "CC-BY-4.0", is_drawn=variant == "toy")


# Everyday objects (cup, tennis ball, croissant, beer glass) in four other colours: a dataset of its own.
COMPLEX_SPACE = FactorSpace(SPACE.names, (4, 4, 2, 3, 3, 40, 40), categorical=SPACE.categorical)
COMPLEX = OfficialDataset(
    "mpi3d_real_complex",
    (
        OfficialFile(
            "real3d_complicated_shapes_ordered.npz",
            "https://drive.google.com/file/d/1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm/view",
            digest="",
            size=len(COMPLEX_SPACE)
            * SIDE
            * SIDE
            * 3,  # of its images, if they are stored as in the other files
            by_hand=True,
        ),
    ),
    page="https://github.com/rr-learning/disentanglement_dataset",
    licence="CC-BY-4.0",
)
TOY = _published("toy", "55889cb7c7dfc655d6e0277beee88868")
REALISTIC = _published("realistic", "59a6225b88b635365f70c91b3e52f70f", exact_size=True)
REAL = _published("real", "0f33f609918fb5c97996692f91129802")


@register_dataset("mpi3d_toy", title="MPI3D toy (simple rendering)", reference=REFERENCE, official=TOY)
def mpi3d_toy(source: str, data_dir, device) -> Dataset:
    """Colour, shape and size of an object at the end of a robot arm, camera height, background colour and
    the arm's two axes; 64 x 64 RGB."""
    return _open(TOY, source, data_dir, device, SPACE)


@register_dataset(
    "mpi3d_realistic",
    title="MPI3D realistic (realistic rendering)",
    reference=REFERENCE,
    official=REALISTIC,
)
def mpi3d_realistic(source: str, data_dir, device) -> Dataset:
    """The factors of mpi3d_toy in a realistic rendering; official file only."""
    return _open(REALISTIC, source, data_dir, device, SPACE)


@register_dataset("mpi3d_real", title="MPI3D real (photographs)", reference=REFERENCE, official=REAL)
def mpi3d_real(source: str, data_dir, device) -> Dataset:
    """The factors of mpi3d_toy in photographs of the robot; official file only."""
    return _open(REAL, source, data_dir, device, SPACE)


@register_dataset(
    "mpi3d_real_complex",
    title="MPI3D real complex (photographs of everyday objects)",
    reference=REFERENCE,
    official=COMPLEX,
)
def mpi3d_real_complex(source: str, data_dir, device) -> Dataset:
    """The factors of mpi3d_real with four other colours and four everyday objects; official file only."""
    return _open(COMPLEX, source, data_dir, device, COMPLEX_SPACE)


@register_dataset("mpi3d", title="another name of mpi3d_toy", official=TOY)
def mpi3d(source: str, data_dir, device) -> Dataset:
    """mpi3d_toy; results are recorded under that name."""
    say("mpi3d means mpi3d_toy")
    return mpi3d_toy(source, data_dir, device)


def _open(official: OfficialDataset, source: str, data_dir, device, space: FactorSpace) -> Dataset:
    paths = official_paths(official, source, data_dir)
    if not paths:
        return _rendered(device)
    images = read_official(paths[0], len(space))
    # 12.7 GB stay in the file: the operating system keeps in memory what it has room for. Only batches go to
    # the device, 0.8 MB each.
    images = stored_tensor(images, "cpu")

    def draw(rows):
        return images[rows.cpu()].to(device).permute(0, 3, 1, 2)

    return Dataset(official.name, "official", space, (3, SIDE, SIDE), draw, GROUP_BY, file=paths[0])


def read_official(path: Path, count: int) -> np.ndarray:
    """Return the images uint8 [count, 64, 64, 3] of an official file, mapped from the file itself.

    The published files hold their array uncompressed. A compressed copy (numpy.savez_compressed) cannot be
    read at random, so it is unpacked once into the cache, which takes 12.7 GB there, and mapped from there.

    Raises
    ------
    DislabError : the file is not a .npz, is cut off, or does not hold the official array.
    RunFailed : no room in the cache folder for a compressed file's images.
    """
    shape = (count, SIDE, SIDE, 3)
    mapped = map_array(path, KEY, shape)
    if mapped is not None:
        return mapped

    def make(array: np.ndarray) -> None:
        say(
            f"'{path}' is compressed: its images are unpacked once into the cache folder "
            f"'{cache_folder()}', {array.nbytes / 1e9:.1f} GB"
        )
        with Bar("unpacking", len(array)) as bar:
            for start, images in read_blocks(path, KEY, shape, CHUNK):
                array[start : start + len(images)] = images
                bar.update(start + len(images), "images")

    # Several variants can share a cache: the name, the size and the time of the file tell them apart.
    return cached_array(f"{path.stem}-official-{file_stamp(path)}", shape, make)


def _rendered(device) -> Dataset:
    from dislab.rendering import mpi3d as renderer

    def make(array: np.ndarray) -> None:
        with Bar("drawing mpi3d_toy, once", len(array)) as bar:
            renderer.draw_poses(array, lambda done: bar.update(done, "poses"))

    shape = (renderer.NUM_POSES, renderer.POSE_BYTES)
    poses = stored_tensor(cached_array(f"mpi3d_toy-rendered-v{renderer.VERSION}", shape, make), device)
    painter = renderer.Painter(poses)
    factors = factors_on_device(SPACE, device)

    def draw(rows):
        return painter.paint(factors(rows))

    return Dataset("mpi3d_toy", "rendered", SPACE, (3, SIDE, SIDE), draw, GROUP_BY, renderer=renderer.VERSION)
