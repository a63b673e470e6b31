"""MPI3D: official files mapped from the file itself, unpacked once, or refused clearly."""

import io
import os
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import dislab
from dislab.data import cache as cache_module
from dislab.data import official
from dislab.data.npz import map_array
from dislab.data.space import FactorSpace
from dislab.datasets import mpi3d
from dislab.errors import DislabError, RunFailed

OFFICIAL_SIZES = (6, 6, 2, 3, 3, 40, 40)


@pytest.fixture
def space(monkeypatch) -> FactorSpace:
    """The factors of MPI3D with fewer values: 192 images."""
    space = FactorSpace(mpi3d.SPACE.names, (2, 2, 2, 2, 2, 2, 3))
    monkeypatch.setattr(mpi3d, "SPACE", space)
    monkeypatch.setattr(mpi3d, "CHUNK", 50)
    return space


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def assert_reads(dataset, images: np.ndarray) -> None:
    rows = np.random.default_rng(1).integers(0, len(images), 30)
    read = dataset.images(rows)
    assert read.shape == (30, 3, 64, 64)
    assert read.dtype == torch.uint8
    assert np.array_equal(read.permute(0, 2, 3, 1).numpy(), images[rows])


def test_the_factor_space_is_the_official_one():
    assert mpi3d.SPACE.sizes == OFFICIAL_SIZES
    assert len(mpi3d.SPACE) == 1_036_800
    assert mpi3d.SPACE.rows([[0, 0, 0, 0, 0, 1, 2]])[0] == 42  # the last factor is the fastest


@pytest.mark.parametrize("name", ["mpi3d_toy", "mpi3d_realistic", "mpi3d_real"])
@pytest.mark.parametrize("folder", [".", "sub"])
def test_a_stored_array_is_mapped_from_the_file(name, folder, tmp_path, cache, space):
    images = random_images(len(space))
    parent = tmp_path / (name if folder == "sub" else ".")
    parent.mkdir(exist_ok=True)
    np.savez(parent / f"{name}.npz", images=images)
    dataset = dislab.load_dataset(name, data_dir=tmp_path)
    assert (dataset.name, dataset.source, dataset.file) == (name, "official", parent / f"{name}.npz")
    assert dataset.group_by == ["object_color"]
    assert_reads(dataset, images)
    assert not list(cache.glob("*.npy")), "nothing is copied"
    assert isinstance(mpi3d.read_official(parent / f"{name}.npz", len(space)), np.memmap)


def test_real_complex_is_a_dataset_of_its_own(tmp_path, cache, monkeypatch):
    assert (mpi3d.COMPLEX_SPACE.sizes, len(mpi3d.COMPLEX_SPACE)) == ((4, 4, 2, 3, 3, 40, 40), 460_800)
    space = FactorSpace(mpi3d.SPACE.names, (4, 1, 2, 1, 3, 2, 2))
    monkeypatch.setattr(mpi3d, "COMPLEX_SPACE", space)
    images = random_images(len(space))
    np.savez(tmp_path / "mpi3d_real.npz", images=images)
    with pytest.raises(
        DislabError, match=r"get it at https://drive.*put it at '.*complicated_shapes_ordered"
    ):
        dislab.load_dataset("mpi3d_real_complex", data_dir=tmp_path)
    (tmp_path / "mpi3d_real.npz").rename(tmp_path / "real3d_complicated_shapes_ordered.npz")
    with pytest.warns(dislab.DislabWarning, match="there is no published hash"):
        dataset = dislab.load_dataset("mpi3d_real_complex", data_dir=tmp_path)
    assert (dataset.name, dataset.source, dataset.space) == ("mpi3d_real_complex", "official", space)
    assert_reads(dataset, images)


def test_a_member_after_others_and_of_another_header_version_is_found(tmp_path, cache):
    array = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("first.npy", os.urandom(1000))
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, array, version=(2, 0))
        archive.writestr("last.npy", b"more")
    found = map_array(tmp_path / "a.npz", "images", (5, 4, 3))
    assert np.array_equal(found, array)
    assert not found.flags.writeable


def write_sparse_official(path: Path, pixels: dict[int, int]) -> None:
    """A stored .npz of full official size, a hole but for the given images of one value each."""
    shape = (1_036_800, 64, 64, 3)
    image_bytes = 64 * 64 * 3
    header = str({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.ljust(117) + b"\n"
    size = len(header) + shape[0] * image_bytes
    sizes = struct.pack("<HHQQ", 1, 16, size, size)  # the ZIP64 field
    name = b"images.npy"
    common = struct.pack("<HHHHHIIIHH", 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    with path.open("wb") as file:
        file.write(b"PK\x03\x04" + common + name + sizes + header)
        start = file.tell()
        for row, value in pixels.items():
            file.seek(start + row * image_bytes)
            file.write(bytes([value]) * image_bytes)
        directory = start + shape[0] * image_bytes
        file.seek(directory)
        entry = b"PK\x01\x02" + struct.pack("<H", 45) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0)
        entry += name + sizes
        file.write(entry)
        file.write(b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, len(entry), directory))
        file.write(b"PK\x06\x07" + struct.pack("<IQI", 0, directory + len(entry), 1))
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), 2**32 - 1, 0))


def test_a_file_of_full_size_that_was_verified_opens_at_once(tmp_path, cache):
    path = tmp_path / "mpi3d_real.npz"
    write_sparse_official(path, {0: 3, 700_000: 5, 1_036_799: 7})
    assert path.stat().st_size > 12_740_000_000
    if path.stat().st_blocks * 512 > 1e9:
        pytest.skip("the file system keeps no holes")
    official.keep(path, mpi3d.REAL.files[0], official.Verdict(True, "as the published file"))
    started = time.perf_counter()
    dataset = dislab.load_dataset("mpi3d_real", data_dir=tmp_path)
    images = dataset.images([1_036_799, 700_000, 0, 1])
    assert time.perf_counter() - started < 2, "the whole file was read"
    assert [image.unique().tolist() for image in images] == [[7], [5], [3], [0]]


def test_a_compressed_array_is_unpacked_once(tmp_path, cache, space, capsys):
    images = random_images(len(space))
    np.savez_compressed(tmp_path / "mpi3d_toy", images=images)
    assert_reads(dislab.load_dataset("mpi3d_toy", data_dir=tmp_path), images)
    said = capsys.readouterr().err
    assert "is compressed: its images are unpacked once into the cache folder" in said
    assert f"'{cache}', 0.0 GB" in said
    made = list(cache.glob("mpi3d_toy-official-*.npy"))
    assert len(made) == 1
    assert_reads(dislab.load_dataset("mpi3d_toy", data_dir=tmp_path), images)
    assert capsys.readouterr().err == ""
    assert list(cache.glob("*.npy*")) == made


def test_a_compressed_array_that_does_not_fit_names_the_cache_folder(tmp_path, cache, space, monkeypatch):
    def full(handle, offset, length):
        raise OSError(28, "No space left on device")

    np.savez_compressed(tmp_path / "mpi3d_toy", images=np.zeros((len(space), 64, 64, 3), np.uint8))
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(cache_module, "MOST_IN_MEMORY", 3)
    with pytest.raises(RunFailed, match=r"cannot write .* GB .*\$DISLAB_CACHE"):
        dislab.load_dataset("mpi3d_toy", data_dir=tmp_path)
    assert not list(cache.iterdir())


def wrong_files():
    """(what is wrong, function that writes it, what the message must say)."""

    def images(**arrays):
        return lambda path: np.savez(path, **arrays)

    def text(path):
        path.write_text("not a dataset")

    def cut(path):
        np.savez(path, images=random_images(192))
        path.write_bytes(path.read_bytes()[:-1000])

    def half(path):
        np.savez(path, images=random_images(192))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    def damaged(path):
        np.savez_compressed(path, images=random_images(192))
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
        path.write_bytes(data)

    def nonsense(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", b"nonsense")

    def too_short(path):
        # A member whose header promises more images than follow.
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.zeros((192, 64, 64, 3), np.uint8))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", stream.getvalue()[:-10])

    def locked(path):
        np.savez(path, images=random_images(192))
        data = bytearray(path.read_bytes())
        directory = data.rfind(b"PK\x01\x02")
        data[6] |= 1  # the flag "encrypted" of the local header and of the directory
        data[directory + 8] |= 1
        path.write_bytes(data)

    zeros = np.zeros((192, 64, 64, 3), np.uint8)
    return [
        ("no zip", text, "is not a whole .npz file"),
        ("cut", cut, "is not a whole .npz file"),
        ("half", half, "is not a whole .npz file"),
        ("damaged", damaged, "cut off or damaged"),
        ("nonsense", nonsense, "is not a whole .npz file"),
        ("too short", too_short, "has 2359286 bytes, expected 2359296"),
        ("locked", locked, "cannot be read"),
        ("another key", images(pictures=np.zeros(3)), "no array 'images' (it has pictures)"),
        ("flat", images(images=zeros[:7]), "is uint8 [7, 64, 64, 3], expected uint8 [192, 64, 64, 3]"),
        ("floats", images(images=zeros.astype(np.float32)), "is float32 [192, 64, 64, 3], expected uint8"),
        ("column-major", images(images=np.asfortranarray(zeros)), "expected uint8"),
    ]


@pytest.mark.parametrize(("write", "says"), [pytest.param(*case[1:], id=case[0]) for case in wrong_files()])
def test_wrong_files_are_refused_in_one_line(write, says, tmp_path, cache, space):
    path = tmp_path / "mpi3d_realistic.npz"
    write(path)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("mpi3d_realistic", data_dir=tmp_path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*")), "a wrong file leaves nothing in the cache"


def test_mpi3d_means_mpi3d_toy(tmp_path, cache, space, capsys):
    np.savez(tmp_path / "mpi3d_toy.npz", images=random_images(len(space)))
    dataset = dislab.load_dataset("mpi3d", data_dir=tmp_path)
    assert dataset.name == "mpi3d_toy"
    assert capsys.readouterr().err == "mpi3d means mpi3d_toy\n"


def test_missing_files(tmp_path, cache):
    for name in ("mpi3d_toy", "mpi3d_realistic"):
        with pytest.raises(DislabError, match=rf"`dislab data fetch {name}`, or put it at .*{name}\.npz"):
            dislab.load_dataset(name, source="official", data_dir=tmp_path)
    for name in ("mpi3d_realistic", "mpi3d_real"):
        with pytest.raises(DislabError, match=f"{name} has no rendered images: .* draw one of .*mpi3d_toy"):
            dislab.load_dataset(name, source="rendered")
        with pytest.raises(DislabError, match=rf"only .*, mpi3d_toy, .* can be drawn: .*{name}\.npz"):
            dislab.load_dataset(name, data_dir=tmp_path)
    assert not cache.exists()
