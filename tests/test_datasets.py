"""Datasets: official files read exactly and refused clearly, rendered grids, the cache."""

import errno
import gzip
import os
import struct
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import dislab
from dislab.data import dataset as base
from dislab.data.space import FactorSpace
from dislab.datasets import dsprites, mnist, shapes3d
from dislab.errors import DislabError, RunFailed


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DISLAB_CACHE", str(folder))
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    return folder


def write_idx(path: Path, array: np.ndarray, compress: bool = True) -> None:
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data, 1) if compress else data)


def small_shapes3d(monkeypatch) -> FactorSpace:
    space = FactorSpace(shapes3d.SPACE.names, (2, 2, 2, 2, 2, 3))
    monkeypatch.setattr(shapes3d, "SPACE", space)
    return space


def small_dsprites(monkeypatch) -> FactorSpace:
    space = FactorSpace(dsprites.SPACE.names, (3, 2, 5, 4, 4))
    monkeypatch.setattr(dsprites, "SPACE", space)
    return space


def test_shapes3d_official_file_is_read_exactly(tmp_path, cache, monkeypatch):
    space = small_shapes3d(monkeypatch)
    images = np.random.default_rng(0).integers(0, 256, (len(space), 64, 64, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=images, compression="gzip")
    for _ in range(2):  # the second time from the cache
        dataset = dislab.load_dataset("shapes3d", data_dir=tmp_path)
        assert dataset.source == "official"
        rows = [0, 5, len(space) - 1]
        assert np.array_equal(dataset.images(rows).permute(0, 2, 3, 1).numpy(), images[rows])


def test_dsprites_official_file_is_read_exactly(tmp_path, cache, monkeypatch):
    space = small_dsprites(monkeypatch)
    monkeypatch.setattr(dsprites, "CHUNK", 100)
    images = np.random.default_rng(0).integers(0, 2, (len(space), 64, 64), dtype=np.uint8)
    np.savez_compressed(tmp_path / dsprites.OFFICIAL_FILES[0].removesuffix(".npz"), imgs=images)
    for _ in range(2):
        dataset = dislab.load_dataset("dsprites", data_dir=tmp_path)
        assert dataset.source == "official"
        everything = dataset.images(np.arange(len(space)))
        assert everything.dtype == torch.uint8
        assert np.array_equal(everything[:, 0].numpy(), images * 255)


def test_mnist_official_files_are_read_exactly(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(mnist, "NUM_TRAINING_FILE", 30)
    monkeypatch.setattr(mnist, "NUM_TEST_FILE", 10)
    monkeypatch.setattr(mnist, "NUM_TRAIN", 20)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    digits = rng.integers(0, 10, 40, dtype=np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images[:30])
    write_idx(tmp_path / "train-labels-idx1-ubyte", digits[:30], compress=False)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images[30:])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", digits[30:])
    dataset = dislab.load_dataset("mnist", data_dir=tmp_path)
    assert np.array_equal(dataset.images(np.arange(40))[:, 0].numpy(), images)
    assert np.array_equal(dataset.space.factors(np.arange(40))[:, 0], digits)
    assert list(dataset.train_rows()) == list(range(20))
    assert list(dataset.evaluation_rows()) == list(range(20, 40))


@pytest.mark.skipif("DISLAB_DATA" not in os.environ, reason="DISLAB_DATA is not set: no real MNIST files")
def test_real_mnist():
    dataset = dislab.load_dataset("mnist")
    assert len(dataset) == 70_000
    digits = dataset.space.factors(np.arange(70_000))[:, 0]
    # The published counts of the digits in the training and the test file.
    assert list(np.bincount(digits[:60_000])) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert list(np.bincount(digits[60_000:])) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (
        abs(dataset.images(np.arange(60_000)).float().mean().item() / 255 - 0.1307) < 1e-4
    )  # the known mean


def wrong_files():
    """(dataset, file name, function that writes a wrong file, what the message must say)."""

    def text(path):
        path.write_text("not a dataset")

    def shapes_without_images(path):
        with h5py.File(path, "w") as file:
            file["labels"] = np.zeros(3)

    def shapes_of_another_size(path):
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros((7, 64, 64, 3), np.uint8)

    def cut(path):
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros((96, 64, 64, 3), np.uint8)
        path.write_bytes(path.read_bytes()[:5000])

    def sprites_without_images(path):
        np.savez(path, latents=np.zeros(3))

    def sprites_of_another_size(path):
        np.savez(path, imgs=np.zeros((7, 64, 64), np.uint8))

    def damaged_sprites(path):
        # A directory that promises the array, and bytes that do not hold it.
        images = np.random.default_rng(0).integers(0, 2, (480, 64, 64), dtype=np.uint8)
        np.savez_compressed(path, imgs=images)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
        path.write_bytes(data)

    def cut_sprites(path):
        np.savez_compressed(path, imgs=np.zeros((480, 64, 64), np.uint8))
        path.write_bytes(path.read_bytes()[:-30])

    sprites = dsprites.OFFICIAL_FILES[0]
    return [
        ("shapes3d", "3dshapes.h5", text, "not a whole HDF5 file"),
        ("shapes3d", "3dshapes.h5", cut, "not a whole HDF5 file"),
        ("shapes3d", "3dshapes.h5", shapes_without_images, "no array 'images' (it has labels)"),
        ("shapes3d", "3dshapes.h5", shapes_of_another_size, "expected uint8 (96, 64, 64, 3)"),
        ("dsprites", sprites, text, "not a whole .npz file"),
        ("dsprites", sprites, cut_sprites, "not a whole .npz file"),
        ("dsprites", sprites, damaged_sprites, "cut off or damaged"),
        ("dsprites", sprites, sprites_without_images, "no array 'imgs' (it has latents)"),
        ("dsprites", sprites, sprites_of_another_size, "expected uint8 [480, 64, 64]"),
        ("mnist", "train-images-idx3-ubyte.gz", text, "not an idx file"),
        (
            "mnist",
            "train-images-idx3-ubyte",
            lambda path: path.write_bytes(b"\x1f\x8b123"),
            "cut off or damaged",
        ),
        (
            "mnist",
            "train-images-idx3-ubyte.gz",
            lambda path: write_idx(path, np.zeros((5, 28, 28), np.uint8)),
            "expected [60000, 28, 28]",
        ),
    ]


@pytest.mark.parametrize(("name", "file", "write", "says"), wrong_files())
def test_wrong_files_are_refused_in_one_line(name, file, write, says, tmp_path, cache, monkeypatch):
    small_shapes3d(monkeypatch)
    small_dsprites(monkeypatch)
    write(tmp_path / file)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset(name, data_dir=tmp_path)
    assert says in str(error.value)
    assert str(tmp_path / file) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*")), "a wrong file leaves nothing in the cache"


def test_missing_files_and_names(tmp_path, cache):
    with pytest.raises(DislabError, match=r"put it at .*3dshapes\.h5"):
        dislab.load_dataset("shapes3d", source="official", data_dir=tmp_path)
    with pytest.raises(DislabError, match=r"put it at .*train-images"):
        dislab.load_dataset("mnist", data_dir=tmp_path)
    with pytest.raises(DislabError, match="no rendered images"):
        dislab.load_dataset("mnist", source="rendered")
    with pytest.raises(DislabError, match="did you mean 'shapes3d'"):
        dislab.load_dataset("shape3d")
    with pytest.raises(DislabError, match="unknown source 'offical'"):
        dislab.load_dataset("shapes3d", source="offical")
    with pytest.raises(DislabError, match="does not exist"):
        dislab.load_dataset("shapes3d", data_dir=tmp_path / "nowhere")


def test_rendered_shapes3d_is_the_grid(monkeypatch):
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    dataset = dislab.load_dataset("shapes3d", source="rendered")
    assert (len(dataset), dataset.image_shape) == (480_000, (3, 64, 64))
    from dislab.rendering import shapes3d as renderer

    rows = np.random.default_rng(0).integers(0, len(dataset), 20)
    images = dataset.images(rows)
    assert images.shape == (20, 3, 64, 64)
    assert images.dtype == torch.uint8
    # Independently of the dataset's index arithmetic: the factors from the space, the layers drawn afresh.
    factors = torch.from_numpy(np.stack(np.unravel_index(rows, (10, 10, 10, 8, 4, 15)), axis=1))
    layers = torch.from_numpy(renderer.draw_layers())
    assert torch.equal(images, renderer.compose(layers, factors, renderer.palette()))


def test_rendered_dsprites_is_the_grid(cache, monkeypatch):
    """The whole grid takes 10 s to draw and 377 MB to keep: here only the first rows of it are drawn."""
    from dislab.rendering import dsprites as renderer

    space = FactorSpace(dsprites.SPACE.names, (1, 1, 2, 32, 32))
    monkeypatch.setattr(dsprites, "SPACE", space)
    dataset = dislab.load_dataset("dsprites", source="rendered")
    images = dataset.images(np.arange(len(space)))
    assert images.shape == (len(space), 1, 64, 64)
    expected = np.unpackbits(renderer.draw_rows(0, len(space)), axis=1) * 255
    assert np.array_equal(images.flatten(1).numpy(), expected)


def test_cache_is_whole_or_not_there(cache):
    calls = []

    def make(array):
        calls.append(1)
        array[:] = 7

    def fail(array):
        array[:1] = 7
        raise DislabError("the source broke off")

    with pytest.raises(DislabError):
        base.cached_array("numbers", (4, 5), fail)
    assert not list(cache.iterdir())
    for _ in range(2):
        assert (base.cached_array("numbers", (4, 5), make) == 7).all()
    assert len(calls) == 1
    whole = (cache / "numbers.npy").read_bytes()
    (cache / "numbers.npy").write_bytes(whole[:-3])  # as a full disk or another program may leave it
    assert (base.cached_array("numbers", (4, 5), make) == 7).all()
    assert len(calls) == 2


def test_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "file"))
    array = base.cached_array("numbers", (2, 2), lambda array: array.fill(3))
    assert (array == 3).all()


def test_what_is_too_large_for_memory_names_the_cache_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(base, "MOST_IN_MEMORY", 3)
    with pytest.raises(RunFailed, match=r"cannot write .* GB .* to the cache folder .*\$DISLAB_CACHE"):
        base.cached_array("numbers", (2, 2), lambda array: array.fill(3))


def test_a_full_disk_is_found_before_anything_is_drawn(cache, monkeypatch):
    def full(handle, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(base, "MOST_IN_MEMORY", 3)
    with pytest.raises(RunFailed, match="No space left on device"):
        base.cached_array("numbers", (2, 2), lambda array: pytest.fail("drawn in vain"))
    assert not list(cache.iterdir())


def test_unfinished_files_of_killed_processes_are_removed_after_a_day(cache):
    cache.mkdir()
    for name, age in (("old.part", 90_000), ("new.part", 60)):
        (cache / name).write_text("half")
        os.utime(cache / name, (time.time() - age, time.time() - age))
    base.cached_array("numbers", (2, 2), lambda array: array.fill(3))
    assert sorted(path.name for path in cache.iterdir()) == ["new.part", "numbers.npy"]


def test_drawn_images_of_other_versions_are_removed_after_an_hour(cache):
    cache.mkdir()
    for name, age in (
        ("a-rendered-1", 4000),
        ("a-rendered-2", 60),
        ("b-rendered-1", 4000),
        ("a-official-1", 4000),
    ):
        (cache / f"{name}.npy").write_text("images")
        os.utime(cache / f"{name}.npy", (time.time() - age, time.time() - age))
    base.cached_array("a-rendered-3", (2, 2), lambda array: array.fill(3))
    left = sorted(path.stem for path in cache.iterdir())
    assert left == ["a-official-1", "a-rendered-2", "a-rendered-3", "b-rendered-1"]


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_clear_line(device):
    with pytest.raises(DislabError, match=f"device '{device}' cannot be used here") as error:
        dislab.load_dataset("shapes3d", device=device)
    assert "\n" not in str(error.value)


def test_npz_member_is_streamed(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", imgs=array)
    with base.open_npz_member(tmp_path / "a.npz", "imgs", (2, 3, 4)) as stream:
        assert np.array_equal(np.frombuffer(stream.read(), np.uint8).reshape(2, 3, 4), array)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("imgs.npy", b"nonsense")
    with pytest.raises(DislabError, match="not a whole"):
        base.open_npz_member(tmp_path / "b.npz", "imgs", (2, 3, 4))
