"""SmallNORB: small files in the official format read exactly, or refused clearly."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from PIL import Image

import dislab
from dislab.data.official import check
from dislab.data.space import FactorSpace
from dislab.datasets import smallnorb
from dislab.errors import DislabError

SIZES = (2, 4, 1, 3, 2)
NAMES = [file.name.removesuffix(".gz") for file in smallnorb.OFFICIAL.files]


@pytest.fixture
def space(monkeypatch) -> FactorSpace:
    """48 images: two categories of four toys."""
    space = FactorSpace(smallnorb.SPACE.names, SIZES, circle=smallnorb.SPACE.circle)
    monkeypatch.setattr(smallnorb, "SPACE", space)
    monkeypatch.setattr(smallnorb, "CHUNK", 7)
    return space


def matrix(array: np.ndarray) -> bytes:
    """An array in the authors' format."""
    magic = {np.dtype(np.uint8): 0x1E3D4C55, np.dtype(np.int32): 0x1E3D4C54}[array.dtype]
    sizes = [*array.shape, 1, 1, 1][: max(3, array.ndim)]
    return struct.pack(f"<{2 + len(sizes)}i", magic, array.ndim, *sizes) + array.tobytes()


def official_files(space: FactorSpace) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """The six files by name, and the factors and first images of their 48 pairs, training pairs first."""
    rng = np.random.default_rng(0)
    factors = space.factors(rng.permutation(len(space)))
    factors = factors[np.argsort(factors[:, 1] % 2 == 0, kind="stable")]  # toys 1 and 3 train
    stereo = rng.integers(0, 256, (len(space), 2, 96, 96), dtype=np.uint8)
    infos = (factors[:, 1:] * [1, 1, 2, 1]).astype(np.int32)
    arrays = []
    for part in (slice(0, 24), slice(24, None)):
        arrays += [stereo[part], factors[part, 0].astype(np.int32), infos[part]]
    return dict(zip(NAMES, map(matrix, arrays), strict=True)), factors, stereo[:, 0]


@pytest.mark.parametrize("compressed", [True, False])
def test_smallnorb_is_read_exactly_and_sorted_by_factors(compressed, tmp_path, cache, space):
    files, factors, first = official_files(space)
    (tmp_path / "smallnorb").mkdir()
    for name, data in files.items():
        path = tmp_path / "smallnorb" / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(data, 1) if compressed else data)
    with pytest.warns(dislab.DislabWarning, match="is not the published file"):
        dataset = dislab.load_dataset("smallnorb", data_dir=tmp_path)
    assert (dataset.source, dataset.image_shape, len(dataset)) == ("official", (1, 64, 64), 48)
    assert dataset.group_by == ["category", "instance"]
    images = dataset.images(space.rows(factors))[:, 0].numpy()
    for image, full in zip(images, first, strict=True):
        assert np.array_equal(image, np.asarray(Image.fromarray(full).resize((64, 64), Image.LANCZOS)))


def test_the_factor_space_is_the_official_one():
    space = smallnorb.SPACE
    assert space.names == ("category", "instance", "elevation", "azimuth", "lighting")
    assert (space.sizes, len(space)) == ((5, 10, 9, 18, 6), 48_600)
    assert (space.circle.factor, space.circle.steps) == ("azimuth", 18)


def test_the_published_categories_are_the_file_with_the_published_md5(tmp_path):
    """Both files of categories hold 0, 1, 2, 3, 4, 0, ...: the one official file that can be written here."""
    path = tmp_path / f"{smallnorb.TRAIN}-cat.mat"
    path.write_bytes(matrix((np.arange(24_300) % 5).astype(np.int32)))
    for file in smallnorb.OFFICIAL.files[1::3]:
        assert check(path, file).text == "ok, the published content, compressed or saved anew"


def damage(name: str, change):
    def write(files: dict[str, bytes]) -> None:
        files[name] = change(files[name])

    return write


def first_number(value: int):
    """Change the first number after the header of the training infos, which has four sizes' room."""
    return damage(NAMES[2], lambda data: data[:20] + struct.pack("<i", value) + data[24:])


@pytest.mark.parametrize(
    ("write", "name", "says"),
    [
        (damage(NAMES[0], lambda data: b""), NAMES[0], "is not a whole file of SmallNORB"),
        (damage(NAMES[0], lambda data: b"not a dataset"), NAMES[0], "it does not begin as one"),
        (damage(NAMES[3], lambda data: data[:-1]), NAMES[3], "it is cut off after row 23"),
        (damage(NAMES[3], lambda data: data + b"1"), NAMES[3], "it goes on after its array"),
        (
            damage(NAMES[3], lambda data: gzip.compress(data, 1)[:-9]),
            NAMES[3],
            "is not a whole file of SmallNORB",
        ),
        (
            damage(NAMES[0], lambda data: matrix(np.zeros((24, 96, 96), np.uint8))),
            NAMES[0],
            "holds an array uint8 [24, 96, 96], expected uint8 [24, 2, 96, 96]",
        ),
        (
            damage(NAMES[1], lambda data: matrix(np.zeros(24, np.uint8))),
            NAMES[1],
            "holds an array uint8 [24], expected int32 [24]",
        ),
        (first_number(4), NAMES[2], "holds a value that no instance has"),
        (first_number(-1), NAMES[2], "holds a value that no instance has"),
        (damage(NAMES[1], lambda data: data[:-4] + b"\x09\0\0\0"), NAMES[1], "a value that no category has"),
        (
            damage(NAMES[2], lambda data: data[:28] + b"\x01\0\0\0" + data[32:]),
            NAMES[2],
            "that no azimuth has",
        ),
        (damage(NAMES[2], lambda data: data[:-16] + data[20:36]), NAMES[2], "of the 48 combinations"),
    ],
)
def test_wrong_files_are_refused_in_one_line(write, name, says, tmp_path, cache, space):
    files, _, _ = official_files(space)
    write(files)
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("smallnorb", data_dir=tmp_path)
    assert says in one_line(error)
    assert str(tmp_path / name) in one_line(error)
    assert not list(cache.glob("*.npy")), "a wrong file leaves nothing in the cache"


def test_a_missing_file_is_named(tmp_path: Path, cache):
    with pytest.raises(DislabError, match=r"put it at .*-training-dat\.mat\.gz"):
        dislab.load_dataset("smallnorb", data_dir=tmp_path)
