"""Official files of datasets, and folders of images, that are damaged."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from dislab.benchmarks.robustness import bars
from dislab.benchmarks.robustness.cases.arrays import header, npz, patched, zipped
from dislab.benchmarks.robustness.cases.case import DAMAGES, DONE, FAILED, REFUSED, Case, damage, words

MNIST = {
    "train-images-idx3-ubyte.gz": (60_000, 28, 28),
    "train-labels-idx1-ubyte.gz": (60_000,),
    "t10k-images-idx3-ubyte.gz": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (10_000,),
}
DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
SPRITES = (737_280, 64, 64)
ROBOTS = (1_036_800, 64, 64, 3)
SHAPES = (480_000, 64, 64, 3)
MATLAB_HEADER = 128  # bytes
CARS = "nips2015-analogy-data.tar.gz"


@cache
def mnist_file(name: str) -> bytes:
    """Return an official file of MNIST from $DISLAB_DATA, or one of noise in the same format."""
    path = Path(os.environ.get("DISLAB_DATA", "")) / "mnist" / name
    if path.is_file():
        return path.read_bytes()
    shape = MNIST[name]
    pixels = np.random.default_rng(0).integers(0, 10, shape, np.uint8).tobytes()
    return gzip.compress(struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + pixels, 1)


@cache
def olivetti_file() -> bytes:
    path = Path(os.environ.get("DISLAB_DATA", "")) / "olivetti" / "olivettifaces.mat"
    if path.is_file():
        return path.read_bytes()
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {"faces": np.random.default_rng(0).integers(0, 255, (4096, 400), np.uint8)})
    return buffer.getvalue()


def shown(name: str, source: str = "official") -> list[str]:
    return ["data", "show", name, "--source", source, "--data-dir", "files"]


def official(draw: random.Random, number: int) -> Case:
    """An official file that is damaged, or whose format holds something else."""
    kinds = (mnist, mnist, olivetti, archive, shapes3d, cars)
    return kinds[number % len(kinds)](draw, number // len(kinds))


def mnist(draw: random.Random, number: int) -> Case:
    wrong = draw.choice([*MNIST, "train-labels-idx1-ubyte.gz"])
    how = draw.choice(DAMAGES)
    command = draw.choice((shown("mnist"), ["data", "verify", "mnist", "--data-dir", "files"]))
    inside = draw.random() < 0.4  # what is compressed is damaged, not the compressed file
    whole = mnist_file(wrong)
    content = how(gzip.decompress(whole) if inside else whole, draw)
    is_same = decoded(content, lambda data: data if inside else gzip.decompress(data)) == gzip.decompress(
        whole
    )

    def prepare(folder: Path) -> None:
        files = folder / "files" / "mnist"
        files.mkdir(parents=True)
        for name in MNIST:
            is_plain = name == wrong and inside
            path = files / (name.removesuffix(".gz") if is_plain else name)
            path.write_bytes(content if name == wrong else mnist_file(name))

    expect = ((DONE,) if is_same else (FAILED,)) if "verify" in command else (DONE, REFUSED)
    about = f"{wrong}: {words(how)}{', plain' * inside}"
    return Case(command, expect, prepare, about, check=None if is_same else says_so, writes=True)


def decoded(content: bytes, decode: Callable[[bytes], bytes]) -> bytes | None:
    """Return what a file's bytes hold, None where they are damaged."""
    try:
        return decode(content)
    except Exception:  # every format has errors of its own
        return None


def says_so(folder: Path, code: int, printed: str, messages: str) -> str:
    """An image set that is not the published one is not called official without a word."""
    if code == DONE and "not the published" not in printed + messages + str([*folder.iterdir()]):
        return "damaged files were used as official ones, and nothing says so"
    return ""


def olivetti(draw: random.Random, number: int) -> Case:
    how = DAMAGES[number % len(DAMAGES)]
    content = how(olivetti_file(), draw)

    def prepare(folder: Path) -> None:
        path = folder / "files" / "olivettifaces.mat"
        path.parent.mkdir()
        path.write_bytes(content)

    is_same = olivetti_file()[MATLAB_HEADER:] in content  # all but the header's text, which nobody reads
    return Case(
        shown("olivetti"),
        (DONE, REFUSED),
        prepare,
        f"olivetti: {words(how)}",
        check=None if is_same else says_so,
        writes=True,
    )


def archive(draw: random.Random, number: int) -> Case:
    """A .npz file in the format of dSprites or MPI3D."""
    name, file, key, shape = draw.choice(
        (("dsprites", DSPRITES, "imgs", SPRITES), ("mpi3d_real", "mpi3d_real.npz", "images", ROBOTS))
    )
    small = npz(**{key: np.zeros((2, *shape[1:]), np.uint8)})
    short = zipped([(f"{key}.npy", header(shape, "|u1") + b"\0" * 5000)])
    contents = {
        "two images": small,
        "a header of all images, and few": short,
        "encrypted": patched(short, 6, 8, 1),
        "method 99": patched(short, 8, 10, 99),
        "method 8 of stored bytes": patched(short, 8, 10, 8),
        "another array": npz(other=np.zeros(3)),
        "objects": npz(**{key: np.array([None, {}], object)}),
        "floats": zipped([(f"{key}.npy", header(shape, "<f4"))]),
        "a header of 373 GB": zipped([(f"{key}.npy", header((10**10, 10), "|u1"))]),
        "a header of a negative shape": zipped([(f"{key}.npy", header((-1, 64, 64), "|u1"))]),
        "a header of version 9": zipped([(f"{key}.npy", b"\x93NUMPY\x09\x00\x00\x00")]),
        "no array": zipped([(f"{key}.npy", b"array")]),
        "a member twice": zipped([(f"{key}.npy", header(shape, "|u1"))] * 2),
        "no member": zipped([]),
        "nothing": b"",
        "text": b"no archive",
    }
    about = [*contents][number] if number < len(contents) else draw.choice([*contents, "flip", "cut"])
    content = contents.get(about) or short
    if about in ("flip", "cut") or number >= len(contents):
        how = draw.choice(DAMAGES)
        content, about = how(content, draw), f"{about}, {words(how)}"
    command = draw.choice(
        (shown(name), shown(name), ["run", "--dataset", name, "--data-dir", "files", "--steps", "2"])
    )
    source = ["--source", "official"] if command[0] == "run" else []

    def prepare(folder: Path) -> None:
        (folder / "files").mkdir()
        (folder / "files" / file).write_bytes(content)

    return Case([*command, *source], (REFUSED,), prepare, f"{name}: {about}")


def shapes3d(draw: random.Random, number: int) -> Case:
    """A file in the format of Shapes3D, HDF5."""
    makers = (
        "group",
        "type",
        "loop",
        "outside",
        "small",
        "floats",
        "empty",
        "none",
        "scalar",
        "text",
        "hard loop",
    )
    about = makers[number % len(makers)] if number < len(makers) else draw.choice(makers)

    def prepare(folder: Path) -> None:
        import h5py

        path = folder / "files" / "3dshapes.h5"
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            if about == "group":
                file.create_group("images")
            elif about == "type":
                file["images"] = np.dtype("u1")
            elif about == "loop":
                file["images"] = h5py.SoftLink("/images")
            elif about == "hard loop":
                file["images"] = file["/"]
            elif about == "outside":
                file["images"] = h5py.ExternalLink("/etc/hostname", "/x")
            elif about == "small":
                file["images"] = np.zeros((2, 64, 64, 3), np.uint8)
            elif about == "floats":
                file.create_dataset("images", SHAPES, "f4", chunks=(1, 64, 64, 3))
            elif about == "empty":
                file["images"] = h5py.Empty("u1")
            elif about == "scalar":
                file["images"] = 3
            elif about == "text":
                file["images"] = "images"
        if number >= len(makers):
            damage(path, draw.choice(DAMAGES), draw)

    return Case(shown("shapes3d"), (REFUSED,), prepare, f"shapes3d: images is {about}")


def cars(draw: random.Random, number: int) -> Case:
    """An archive in the format of Cars3D."""
    names = ("data/cars/car_001_mesh.mat", "../../car_001_mesh.mat", "/car_001_mesh.mat", "car_\n_mesh.mat")
    name = names[number % len(names)]
    kind = draw.choice(("bytes", "a link", "a device", "nothing", "cut"))

    def prepare(folder: Path) -> None:
        path = folder / "files" / CARS
        path.parent.mkdir()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            entry = tarfile.TarInfo(name)
            if kind == "bytes":
                entry.size = 5000
            elif kind == "a link":
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            elif kind == "a device":
                entry.type = tarfile.CHRTYPE
            file.addfile(entry, io.BytesIO(b"\1" * 5000))
        content = buffer.getvalue()
        path.write_bytes(content[: len(content) // 2] if kind == "cut" else content)
        if number >= len(names):
            damage(path, draw.choice(DAMAGES), draw)

    return Case(shown("cars3d"), (REFUSED,), prepare, f"cars3d: {name!a} is {kind}")


# Folders of images ---------------------------------------------------------------------------------


def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes | None = None) -> bytes:
    """Return a PNG file; its header may lie."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    pixels = data if data is not None else (b"\0" + bytes(range(width % 256)) * 3)[: 1 + 3 * width] * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def folders(draw: random.Random, number: int) -> Case:
    """A folder of images as a dataset, with something wrong in it."""
    wholes = {f"{group}/{index}.png": png(16, 16) for group in "abc" for index in range(4)}
    odd = {
        "a giant": {"a/9.png": png(60_000, 60_000, data=b"\0" * 100)},
        "a giant of 2^31": {"a/9.png": png(2**31 - 1, 2**31 - 1, data=b"\0" * 100)},
        "no width": {"a/9.png": png(0, 16)},
        "16 bits": {"a/9.png": png(4, 4, 16, data=(b"\0" + b"\1\2" * 12) * 4)},
        "an unknown colour": {"a/9.png": png(4, 4, colour=5)},
        "text named .png": {"a/9.png": b"text"},
        "text named .jpg": {"a/9.jpg": b"text"},
        "nothing named .gif": {"a/9.gif": b""},
        "a text with a line end in its name": {"a/x\ny.png": b"text"},
        "an escape in a name": {"a/\x1b[31m.png": b"text"},
        "an image too deep": {"a/deep/9.png": png(16, 16)},
        "an image above": {"9.png": png(16, 16)},
        "a group without images": {"d/9.txt": b"text"},
        "GIF of one byte": {"a/9.gif": b"GIF89a" + b"\xff" * 20},
        "TIFF that loops": {"a/9.tif": b"II*\0\x08\0\0\0\x01\0\0\1\4\0\1\0\0\0\0\0\0\0\x08\0\0\0"},
        "PPM of 10^9 pixels": {"a/9.ppm": b"P6 100000 100000 255 "},
        "BMP that lies": {"a/9.bmp": b"BM" + b"\xff" * 60},
        "WEBP that lies": {"a/9.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 60},
    }
    links = {"a link to nothing": "not_there", "a link to itself": "9.png", "a link to a device": "/dev/zero"}
    abouts = [*odd, *links, "a pipe", "one group", "no group"]
    about = (
        abouts[number]
        if number < len(abouts)
        else draw.choice(("a damaged PNG", "a damaged JPEG", "a damaged GIF"))
    )
    how = draw.choice(DAMAGES)

    def prepare(folder: Path) -> None:
        files = {} if about == "no group" else wholes | odd.get(about, {})
        files = {name: it for name, it in files.items() if about != "one group" or name.startswith("a/")}
        for name, content in files.items():
            path = folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / "files").mkdir(exist_ok=True)
        if about in links:
            (folder / "files" / "a" / "9.png").symlink_to(links[about])
        if about == "a pipe":
            os.mkfifo(folder / "files" / "a" / "9.png")
        if about.startswith("a damaged"):
            from PIL import Image

            path = folder / "files" / "a" / f"9.{about[10:].lower().strip()}"
            image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8))
            image.save(path)
            damage(path, how, draw)

    right = about.startswith("a damaged") or about in (
        "a pipe",
        "a link to a device",
        "an escape in a name",
        "16 bits",
    )
    arguments = ["run", "--model", "pca", "--dataset", "./files", "--metrics", "default", *bars.TRAINING]
    return Case(
        arguments, (DONE, REFUSED, FAILED) if right else (REFUSED,), prepare, f"images: {about}; {words(how)}"
    )
