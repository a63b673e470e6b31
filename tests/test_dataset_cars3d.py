"""Cars3D: its official files read exactly and refused clearly; the drawn cars by row."""

import io
import random
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

import dislab
from dislab.data.space import FactorSpace
from dislab.datasets import cars3d
from dislab.errors import DislabError
from dislab.rendering import cars3d as renderer

NAMES = ["car_001_mesh.mat", "car_002_mesh.mat", "car_010_mesh.mat", "car_199_mesh.mat"]  # with gaps
ELEVATIONS, AZIMUTHS = 2, 3


@pytest.fixture
def cache(cache, monkeypatch):
    """A cache folder of the test's own, and a Cars3D of four cars in six views."""
    space = FactorSpace(cars3d.SPACE.names, (ELEVATIONS, AZIMUTHS, len(NAMES)), circle=cars3d.SPACE.circle)
    monkeypatch.setattr(cars3d, "SPACE", space)
    return cache


def official_images(car: int) -> np.ndarray:
    rng = np.random.default_rng(car)
    return rng.integers(0, 256, (128, 128, 3, AZIMUTHS, ELEVATIONS), dtype=np.uint8)


def mat_file(**arrays) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays, do_compression=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The four official files, by name."""
    mask = np.zeros((128, 128), np.uint8)
    return {name: mat_file(im=official_images(car), mask=mask) for car, name in enumerate(NAMES)}


def write_folder(folder, files) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = list(files)
    random.Random(3).shuffle(names)  # the order in which a folder lists its files may be that of their making
    for name in names:
        (folder / name).write_bytes(files[name])
    (folder / "list.txt").write_text("\n".join(names))


def write_archive(path, files) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in [*sorted(files, reverse=True), "../escaped.txt", "/tmp/dislab-escaped.txt"]:
            data = files.get(name, b"out of the archive")
            member = tarfile.TarInfo(f"data/cars/{name}" if name in files else name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("data/cars/car_300_mesh.mat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def assert_official(dataset) -> None:
    assert (dataset.source, dataset.image_shape, dataset.group_by) == (
        "official",
        (3, 64, 64),
        ["object_type"],
    )
    found = dataset.images(np.arange(len(dataset))).permute(0, 2, 3, 1).numpy()
    for row, (elevation, azimuth, car) in enumerate(np.ndindex(ELEVATIONS, AZIMUTHS, len(NAMES))):
        image = official_images(car)[:, :, :, azimuth, elevation].astype(float)
        mean = image.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        np.testing.assert_array_equal(found[row], np.floor(mean + 0.5))


@pytest.mark.parametrize("folder", [".", "cars", "data/cars", "cars3d", "cars3d/cars", "cars3d/data/cars"])
def test_official_folder_is_read_exactly(folder, files, tmp_path, cache):
    write_folder(tmp_path / folder, files)
    for _ in range(2):  # the second time from the cache
        assert_official(dislab.load_dataset("cars3d", data_dir=tmp_path))


@pytest.mark.parametrize("folder", [".", "cars3d"])
def test_official_archive_is_read_exactly(folder, files, tmp_path, cache):
    (tmp_path / folder).mkdir(exist_ok=True)
    write_archive(tmp_path / folder / "nips2015-analogy-data.tar.gz", files)
    before = set(tmp_path.parent.rglob("*"))
    for _ in range(2):
        assert_official(dislab.load_dataset("cars3d", source="official", data_dir=tmp_path))
    # Nothing was written outside the cache folder.
    new = {path for path in tmp_path.parent.rglob("*") if path not in before}
    assert new == {cache, *cache.rglob("*")}
    assert len(list(cache.iterdir())) == 2  # the images, and what is known of the archive


def test_another_file_is_not_served_from_the_cache(files, tmp_path, cache):
    write_folder(tmp_path, files)
    dislab.load_dataset("cars3d", data_dir=tmp_path)
    (tmp_path / NAMES[2]).write_bytes(mat_file(im=np.full_like(official_images(2), 9)))
    dataset = dislab.load_dataset("cars3d", data_dir=tmp_path)
    assert (dataset.images([2]) == 9).all()


def test_halves_are_rounded_up():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = (1, 255, 254), (1, 255, 0)
    assert cars3d.halve(image).tolist() == [[[1, 128, 64]]]
    assert cars3d.halve(np.full((4, 6, 3), 255, np.uint8)).tolist() == [[[255] * 3] * 3] * 2


def wrong_folders():
    im = official_images(1)
    return {
        "too few": (None, "holds 3 files car_*_mesh.mat: the official data has 4"),
        "no array": (mat_file(mask=im), "has no array 'im'"),
        "other shape": (
            mat_file(im=im[:64]),
            "'im' is uint8 [64, 128, 3, 3, 2], expected uint8 [128, 128, 3, 3, 2]",
        ),
        "other type": (mat_file(im=im / 255), "'im' is float64 [128"),
        "cut off": (mat_file(im=im)[:-4000], "is not a whole MATLAB file"),
        "cut off early": (mat_file(im=im)[:100], "is not a whole MATLAB file"),
        "empty": (b"", "is not a whole MATLAB file"),
        "text": (
            b"not a dataset, but long enough to fill the header of a MATLAB file" * 9,
            "is not a whole MATLAB",
        ),
        "hdf5": (
            mat_file(im=im)[:124] + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 50,
            "is not a whole MATLAB file",
        ),
    }


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("case", wrong_folders())
def test_wrong_files_are_refused_in_one_line(case, archived, files, tmp_path, cache):
    data, says = wrong_folders()[case]
    files = files | {NAMES[1]: data}
    if data is None:
        del files[NAMES[1]]
    if archived:
        write_archive(tmp_path / "nips2015-analogy-data.tar.gz", files)
    else:
        write_folder(tmp_path, files)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("cars3d", data_dir=tmp_path)
    message = str(error.value)
    assert says in message
    assert str(tmp_path) in message
    assert data is None or NAMES[1] in message
    assert "\n" not in message
    assert not list(cache.glob("*")), "a wrong file leaves nothing in the cache"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_archive_that_is_cut_off(kept, files, tmp_path, cache):
    path = tmp_path / "nips2015-analogy-data.tar.gz"
    write_archive(path, files)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("cars3d", data_dir=tmp_path)
    assert f"'{path}' is not a whole .tar.gz archive" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("data", [b"<html>404</html>" * 100, b"PK\x03\x04", b"\x1f\x8b\x08" + b"\xff" * 500])
def test_file_that_is_no_archive(data, tmp_path, cache):
    (tmp_path / "nips2015-analogy-data.tar.gz").write_bytes(data)
    with pytest.raises(DislabError, match=r"is not a whole \.tar\.gz archive") as error:
        dislab.load_dataset("cars3d", source="official", data_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path, cache):
    with pytest.raises(DislabError, match=r"put it at .*cars3d/nips2015-analogy-data\.tar\.gz"):
        dislab.load_dataset("cars3d", source="official", data_dir=tmp_path)


def test_the_grid():
    space = cars3d.SPACE
    assert (space.names, space.sizes) == (("elevation", "azimuth", "object_type"), (4, 24, 183))
    assert len(space) == 17_568
    assert (space.circle.factor, space.circle.steps, space.circle.instance) == ("azimuth", 24, "object_type")


def test_rendered_images_by_row(cache, monkeypatch):
    space = FactorSpace(cars3d.SPACE.names, (4, 24, 2))  # the first two cars
    monkeypatch.setattr(cars3d, "SPACE", space)
    dataset = dislab.load_dataset("cars3d")
    assert (dataset.source, dataset.renderer) == ("rendered", renderer.VERSION)
    found = dataset.images(np.arange(len(space))).permute(0, 2, 3, 1).numpy()
    for car in range(2):
        np.testing.assert_array_equal(found[car::2], renderer.draw_car(car).reshape(-1, 64, 64, 3))
