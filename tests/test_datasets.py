"""Datasets: official files read exactly and refused clearly, rendered grids, the contract of a plug-in."""

import errno
import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import one_line

import dislab
from dislab.data.official import is_complete, unreadable
from dislab.data.space import FactorSpace
from dislab.datasets import cars3d, dsprites, mnist, mpi3d, olivetti, shapes3d, smallnorb
from dislab.errors import DislabError
from dislab.registry import DATASETS


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
        assert (dataset.source, dataset.renderer) == ("official", None)
        rows = [0, 5, len(space) - 1]
        assert np.array_equal(dataset.images(rows).permute(0, 2, 3, 1).numpy(), images[rows])


def test_dsprites_official_file_is_read_exactly(tmp_path, cache, monkeypatch):
    space = small_dsprites(monkeypatch)
    monkeypatch.setattr(dsprites, "CHUNK", 100)
    images = np.random.default_rng(0).integers(0, 2, (len(space), 64, 64), dtype=np.uint8)
    np.savez_compressed(tmp_path / dsprites.OFFICIAL.files[0].name.removesuffix(".npz"), imgs=images)
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
    mean = dataset.images(np.arange(60_000)).sum(dtype=torch.int64).item() / (60_000 * 28 * 28 * 255)
    assert abs(mean - 0.1307) < 1e-4  # the known one


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

    sprites = dsprites.OFFICIAL.files[0].name
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
    if name == "mnist":  # the other three files are there
        for other in mnist.OFFICIAL.files[1:]:
            (tmp_path / other.name).touch()
    with pytest.raises(DislabError) as error:
        dislab.load_dataset(name, data_dir=tmp_path)
    assert says in str(error.value)
    assert str(tmp_path / file) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*")), "a wrong file leaves nothing in the cache"


READERS = {
    "shapes3d": shapes3d.read_official,
    "dsprites": dsprites.read_official,
    "mpi3d": lambda path: mpi3d.read_official(path, 5),
    "mnist": lambda path: mnist.read_idx(path, (5, 28, 28)),
    "olivetti": olivetti.read_official,
    "smallnorb": lambda path: smallnorb.read_all(path, "uint8", (5,)),
    "cars3d": lambda path: list(cars3d._car_files(path / "archive.tar.gz")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_cannot_be_opened_is_not_called_damaged(name, tmp_path, cache, monkeypatch):
    """A folder in place of the file is an error of the system's that root gets too, permissions are not."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(
        DislabError, match=r"cannot be read: (Is a directory|No such file or directory)$"
    ) as error:
        READERS[name](path)
    assert f"'{path}" in one_line(error)


@pytest.mark.parametrize("mode", ["a", "w"])
def test_a_locked_hdf5_file_is_not_called_damaged(mode, tmp_path, cache, monkeypatch):
    """Another process has the file open to write."""
    small_shapes3d(monkeypatch)
    path = tmp_path / "3dshapes.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((96, 64, 64, 3), np.uint8)
    program = f"import h5py; file = h5py.File({str(path)!r}, {mode!r}); print('open', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as other:
        try:
            assert other.stdout.readline() == b"open\n"
            with pytest.raises(DislabError) as error:
                dislab.load_dataset("shapes3d", data_dir=tmp_path)
        finally:
            other.kill()
    assert one_line(error) == (
        f"'{path}' is locked, another program has it open to write: close that program, or set "
        "HDF5_USE_FILE_LOCKING=FALSE in the environment if nothing writes to the file"
    )


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            PermissionError(errno.EACCES, "Unable to open file (errno = 13)"),
            "cannot be read: Permission denied",
        ),
        (OSError(errno.EIO, "Can't read data"), "cannot be read: Input/output error"),
        (OSError(errno.ENOLCK, "(unable to lock file, errno = 37)"), "is locked"),
        (OSError("Unable to open file (truncated file: eof = 1000)"), "is not whole: Unable to open file"),
        (OSError(errno.EINVAL, "Invalid argument"), "is not whole"),
        (EOFError("Compressed file\nended"), "is not whole: Compressed file ended"),
    ],
)
def test_the_systems_reason_comes_before_damage(error, says):
    assert f"'file' {says}" in str(unreadable(Path("file"), error, "is not whole"))


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


def test_rendered_shapes3d_is_the_grid(cache, monkeypatch):
    """Noise stands for the layers, which take three seconds to draw."""
    from dislab.rendering import shapes3d as renderer

    layers = np.random.default_rng(1).integers(0, 100, (480, renderer.NUM_LAYERS, 64, 64), dtype=np.uint8)
    monkeypatch.setattr(renderer, "draw_layers", lambda: layers)
    dataset = dislab.load_dataset("shapes3d", source="rendered")
    assert (len(dataset), dataset.image_shape) == (480_000, (3, 64, 64))
    assert (dataset.source, dataset.renderer) == ("rendered", renderer.VERSION)
    assert [path.name for path in cache.iterdir()] == [f"shapes3d-rendered-v{renderer.VERSION}.npy"]
    rows = np.random.default_rng(0).integers(0, len(dataset), 20)
    images = dataset.images(rows)
    assert images.shape == (20, 3, 64, 64)
    assert images.dtype == torch.uint8
    for row, image in zip(rows, images.numpy(), strict=True):
        *hues, scale, shape, orientation = np.unravel_index(row, (10, 10, 10, 8, 4, 15))
        colours = [*(renderer.HUE_COLOURS[hue] for hue in hues), renderer.SKY_COLOUR, (255, 255, 255)]
        light = layers[(scale * 4 + shape) * 15 + orientation].astype(np.int64)
        total = np.tensordot(np.transpose(colours), light, axes=1)  # [3, 64, 64]
        np.testing.assert_array_equal(image, np.minimum((total + 64) // 128, 255))


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


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_clear_line(device):
    with pytest.raises(DislabError, match=f"device '{device}' cannot be used here") as error:
        dislab.load_dataset("shapes3d", device=device)
    assert "\n" not in str(error.value)


def test_is_complete(tmp_path):
    assert is_complete("shapes3d", "auto", tmp_path) and is_complete("mpi3d", "rendered", tmp_path)
    assert is_complete("a folder/", "auto", tmp_path), "what has no official files lacks none"
    for name, source in (("shapes3d", "official"), ("mpi3d", "official"), ("mnist", "auto")):
        assert not is_complete(name, source, tmp_path)
    (tmp_path / "mpi3d_toy.npz").touch()
    assert is_complete("mpi3d", "official", tmp_path) and is_complete("mpi3d_toy", "official", tmp_path)
    for number, file in enumerate(mnist.OFFICIAL.files):
        assert is_complete("mnist", "official", tmp_path) == (number == 4)
        (tmp_path / file.name).touch()
    assert is_complete("mnist", "official", tmp_path)


# The contract of a plug-in


def three_images(name="three", shape=(1, 4, 4), draw=None, group_by=("hue",), **options) -> dislab.Dataset:
    space = FactorSpace(("hue",), (3,))
    if draw is None:
        draw = lambda rows: torch.zeros(len(rows), *shape, dtype=torch.uint8)  # noqa: E731
    return dislab.Dataset(name, "own", space, shape, draw, group_by, **options)


@pytest.fixture
def opened(monkeypatch):
    """A function that registers a callable as the dataset `mine` and opens it."""
    list(DATASETS)  # reads the registry, so that what follows is undone without it
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))

    def register_and_open(make):
        DATASETS._entries.pop("mine", None)
        dislab.register_dataset("mine")(make)
        return dislab.load_dataset("mine")

    return register_and_open


def test_a_dataset_that_keeps_the_contract(opened):
    dataset = opened(lambda source, data_dir, device: three_images(group_by="hue", renderer=4))
    assert (dataset.group_by, dataset.image_shape, dataset.renderer) == (["hue"], (1, 4, 4), 4)
    assert opened(lambda **options: three_images()).renderer is None


@pytest.mark.parametrize(
    ("name", "says"),
    [(name, f"the dataset's name is {name!r}") for name in ("", "..", "a/b", "/a", "a\0", 3)],
)
def test_names_that_are_no_file_names(name, says):
    with pytest.raises(DislabError) as error:
        three_images(name)
    assert says in str(error.value)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4.0), (1, 0, 4), 4, "144"])
def test_shapes_that_are_not_three_sizes(shape):
    with pytest.raises(DislabError, match=r"the image shape of three is .*: it must be \(C, H, W\)"):
        three_images(shape=shape, draw=lambda rows: None)


def test_groups_are_by_known_factors():
    with pytest.raises(DislabError, match="unknown factor 'hu': did you mean 'hue'"):
        three_images(group_by=["hu"])
    with pytest.raises(DislabError, match="group_by of three is empty"):
        three_images(group_by=[])


def drawn(images):
    """A dataset's function whose images are these, whatever the row."""
    return lambda source, data_dir, device: three_images(draw=lambda rows: images)


def raising(source, data_dir, device):
    return FactorSpace(("a", "b"), (3,))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda source, device: None, "'mine' must be called with (source, data_dir, device): got an unexp"),
        (lambda source, data_dir, device, size: None, "missing a required argument: 'size'"),
        (lambda source, data_dir, device: None, "'mine' must return a dislab.Dataset, not NoneType"),
        (lambda source, data_dir, device: three_images("a/b"), "the dataset's name is 'a/b'"),
        (raising, f"1 sizes ({__file__}, line {raising.__code__.co_firstlineno + 1})"),
        (drawn(torch.zeros(1, 1, 4, 4)), "as uint8 [1, 1, 4, 4], not as float32 [1, 1, 4, 4]"),
        (drawn(torch.zeros(1, 4, 4, 1, dtype=torch.uint8)), "not as uint8 [1, 4, 4, 1]"),
        (drawn(torch.zeros(1, 4, 4, dtype=torch.uint8)), "not as uint8 [1, 4, 4]"),
        (drawn(np.zeros((1, 4, 4), np.uint8)), "not as uint8 [1, 4, 4]"),
        (drawn(None), "not as NoneType []"),
        (lambda source, data_dir, device: three_images(draw=lambda rows: rows / "a"), "TypeError"),
    ],
)
def test_what_breaks_the_contract_is_one_line(make, says, opened):
    with pytest.raises(DislabError) as error:
        opened(make)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
