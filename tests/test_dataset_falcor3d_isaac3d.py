"""Falcor3D and Isaac3D: small archives and folders in the official layout read exactly, or refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from PIL import Image

import dislab
from dislab.data.space import FactorSpace
from dislab.datasets import falcor3d_isaac3d as module
from dislab.errors import DislabError

SIZES = (2, 1, 2, 1, 1, 1, 1, 3, 1)  # of Isaac3D here: 12 images
FOLDER = "Isaac3D_down128"


@pytest.fixture
def space(monkeypatch) -> FactorSpace:
    space = FactorSpace(module.ISAAC_SPACE.names, SIZES)
    monkeypatch.setattr(module, "ISAAC_SPACE", space)
    return space


def png(row: int, side: int = 128) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(row).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(
        file, "png", compress_level=0
    )
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def official_files(space: FactorSpace) -> dict[str, bytes]:
    labels = space.factors(np.arange(len(space))) / np.maximum(1, np.array(space.sizes) - 1)
    files = {f"images/{row:06d}.png": png(row) for row in range(len(space))}
    return files | {"labels.npy": npy(labels)}


def write_zip(folder: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / f"{FOLDER}.zip", "w") as archive:
        for name, data in reversed(files.items()):
            archive.writestr(f"{FOLDER}/{name}", data)
            archive.writestr(f"__MACOSX/{FOLDER}/images/._{Path(name).name}", b"of another system")
    return folder / f"{FOLDER}.zip"


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "images").mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / "images"


def opened(folder: Path) -> dislab.Dataset:
    with pytest.warns(dislab.DislabWarning, match="there is no published hash"):
        return dislab.load_dataset("isaac3d", data_dir=folder)


@pytest.mark.parametrize("layout", [None, FOLDER, f"isaac3d/{FOLDER}", "isaac3d"])
def test_images_are_read_exactly(layout, tmp_path, cache, space):
    files = official_files(space)
    path = write_folder(tmp_path / layout, files) if layout else write_zip(tmp_path, files)
    for _ in range(2):  # the second time from the cache
        dataset = opened(tmp_path)
        assert (dataset.source, dataset.file, dataset.space) == ("official", path, space)
        images = dataset.images(np.arange(len(space))).permute(0, 2, 3, 1).numpy()
        for row, image in enumerate(images):
            full = Image.open(io.BytesIO(png(row)))
            assert np.array_equal(image, np.asarray(full.resize((64, 64), Image.BICUBIC)))


def test_the_filter_weighs_all_pixels():
    """Against the weights of a bicubic filter (a = -1/2) of twice the width, as TensorFlow has it."""

    def weight(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0

    matrix = np.array([[weight((j + 0.5 - 2 * (i + 0.5)) / 2) for j in range(128)] for i in range(64)])
    matrix /= matrix.sum(axis=1, keepdims=True)
    # Grey values in the middle, because Pillow cuts overshoots off between the two directions.
    full = np.random.default_rng(0).integers(60, 190, (128, 128), dtype=np.uint8)
    found = np.asarray(module.shrink(Image.fromarray(full)), dtype=float)
    assert np.abs(found - matrix @ full @ matrix.T).max() < 1.2  # both directions are rounded


def test_the_factor_spaces_are_the_official_ones():
    assert (len(module.FALCOR_SPACE), len(module.ISAAC_SPACE)) == (233_280, 737_280)
    # The multipliers of the README of Falcor3D, and of the authors' program for Isaac3D.
    steps = module.FALCOR_SPACE.rows(np.eye(7, dtype=int))
    assert steps.tolist() == [46656, 7776, 1296, 216, 36, 6, 1]
    steps = module.ISAAC_SPACE.rows(np.eye(9, dtype=int))
    assert steps.tolist() == [245760, 30720, 6144, 1536, 384, 96, 16, 4, 1]


def test_falcor3d_has_its_own_files(tmp_path, cache, monkeypatch):
    space = FactorSpace(module.FALCOR_SPACE.names, (1, 2, 1, 1, 1, 1, 1))
    monkeypatch.setattr(module, "FALCOR_SPACE", space)
    with pytest.raises(DislabError, match=r"get it at https://drive.*put it at '.*Falcor3D_down128\.zip"):
        dislab.load_dataset("falcor3d", data_dir=tmp_path)
    files = official_files(space)
    files["train-rec.labels"] = files.pop("labels.npy")
    write_folder(tmp_path / "Falcor3D_down128", files)
    with pytest.warns(dislab.DislabWarning):
        assert len(dislab.load_dataset("falcor3d", data_dir=tmp_path)) == 2


def test_labels_may_be_missing_or_have_columns_in_another_order(tmp_path, cache, space):
    files = official_files(space)
    labels = np.load(io.BytesIO(files["labels.npy"]))
    files["labels.npy"] = npy((1 - labels[:, ::-1]).astype(np.float32))
    write_zip(tmp_path, files)
    opened(tmp_path)
    del files["labels.npy"]
    write_zip(tmp_path, files)
    opened(tmp_path)


def change(name: str, data: bytes | None):
    def write(files: dict[str, bytes]) -> None:
        if data is None:
            del files[name]
        else:
            files[name] = data

    return write


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (change("images/000007.png", None), "lacks 1 of its 12 images, such as 000007.png"),
        (change("images/000007.png", png(7)[:9000]), "000007.png' is not a whole image"),
        (change("images/000007.png", b"no image"), "000007.png' is not a whole image"),
        (change("images/000007.png", png(7, 64)), "is 64 x 64 pixels, expected 128 x 128"),
        (change("labels.npy", b"no labels"), "labels.npy' is not whole"),
        (change("labels.npy", npy(np.zeros((12, 9)))), "does not give object_shape the values"),
        (change("labels.npy", npy(np.zeros((11, 9)))), "does not give object_shape the values"),
        (change("labels.npy", npy(np.array([{}]))), "labels.npy' is not whole"),
    ],
)
@pytest.mark.parametrize("layout", [write_zip, lambda folder, files: write_folder(folder / FOLDER, files)])
def test_wrong_files_are_refused_in_one_line(layout, write, says, tmp_path, cache, space):
    files = official_files(space)
    write(files)
    path = layout(tmp_path, files)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("isaac3d", data_dir=tmp_path)
    assert says in one_line(error)
    assert str(path) in one_line(error)
    assert not list(cache.glob("*.npy")), "wrong files leave nothing in the cache"


def test_an_archive_that_is_cut_off_is_refused(tmp_path, cache, space):
    path = write_zip(tmp_path, official_files(space))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DislabError, match=r"is not a whole \.zip archive"):
        dislab.load_dataset("isaac3d", data_dir=tmp_path)
