"""CelebA: small files in the official form read exactly, or refused clearly."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from PIL import Image

import dislab
from dislab.datasets import celeba
from dislab.errors import DislabError

COUNT = 20
# Persons 1 and 2 train; 3 has images in both other partitions, 4 four in the test, 5 only two.
PEOPLE = np.array([3, 1, 2, 1, 3, 3, 4, 4, 5, 2, 4, 1, 4, 5, 3, 2, 2, 1, 1, 3])
PARTITION = np.array([1, 0, 0, 0, 1, 2, 2, 2, 2, 0, 2, 0, 2, 2, 2, 0, 0, 0, 0, 2])
ATTRIBUTES = np.random.default_rng(0).integers(0, 2, (COUNT, 40))
NAMES = ["5_o_Clock_Shadow", "Male", *(f"Attribute_{k}" for k in range(38))]


@pytest.fixture
def cache(cache, monkeypatch):
    monkeypatch.setattr(celeba, "NUM_IMAGES", COUNT)
    monkeypatch.setattr(celeba, "NUM_PEOPLE", 5)
    return cache


def jpeg(row: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(row).integers(0, 256, (11, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((178, 218)).save(file, "jpeg")
    return file.getvalue()


def table(values: np.ndarray, head: str = "") -> bytes:
    # As in the official files: several spaces before a number, lines that end with two characters.
    lines = [f"{row + 1:06d}.jpg " + " ".join(f"{v:2d}" for v in line) for row, line in enumerate(values)]
    return (head + "".join(f"{line}\r\n" for line in lines)).encode()


def official_files() -> dict[str, bytes]:
    return {
        "list_attr_celeba.txt": table(2 * ATTRIBUTES - 1, f"{COUNT}\r\n{' '.join(NAMES)} \r\n"),
        "identity_CelebA.txt": table(PEOPLE[:, None]),
        "list_eval_partition.txt": table(PARTITION[:, None]),
    } | {f"img_align_celeba/{row + 1:06d}.jpg": jpeg(row) for row in range(COUNT)}


def write(folder: Path, files: dict[str, bytes], zipped: bool = True) -> None:
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if not (zipped and name.endswith(".jpg")):
            (folder / name).write_bytes(data)
    if zipped:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for name, data in files.items():
                if name.endswith(".jpg"):
                    archive.writestr(name, data)


@pytest.mark.parametrize("zipped", [True, False])
def test_images_and_factors_are_read_exactly(zipped, tmp_path, cache):
    write(tmp_path / "celeba", official_files(), zipped)
    with pytest.warns(dislab.DislabWarning, match="published file"):
        dataset = dislab.load_dataset("celeba", data_dir=tmp_path)
    assert (dataset.source, dataset.image_shape, len(dataset)) == ("official", (3, 64, 64), COUNT)
    assert dataset.group_by == ["identity"] and not dataset.space.is_grid
    assert dataset.space.names == (*NAMES, "identity")
    factors = dataset.space.factors(np.arange(COUNT))
    assert np.array_equal(factors, np.c_[ATTRIBUTES, PEOPLE - 1])
    images = dataset.images(np.arange(COUNT)).permute(0, 2, 3, 1).numpy()
    for row, image in enumerate(images):
        full = Image.open(io.BytesIO(jpeg(row))).crop((0, 20, 178, 198))
        assert np.array_equal(image, np.asarray(full.resize((64, 64), Image.BILINEAR)))


def test_people_with_enough_images_are_scored_and_not_trained_on(tmp_path, cache):
    write(tmp_path, official_files())
    with pytest.warns(dislab.DislabWarning):
        dataset = dislab.load_dataset("celeba", data_dir=tmp_path)
    assert set(PEOPLE[dataset.evaluation_rows()]) == {3, 4}
    assert set(PEOPLE[dataset.train_rows()]) == {1, 2, 5}
    assert set(np.unique(PEOPLE[dataset.evaluation_rows()], return_counts=True)[1]) <= {4, 5, 6}


def replaced(name: str, old: bytes, new: bytes):
    def change(files: dict[str, bytes]) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        (replaced("list_attr_celeba.txt", b" -1", b" 2"), "list_attr", "40 attributes of -1 or 1"),
        (replaced("list_attr_celeba.txt", b" Male", b""), "list_attr", "is not"),
        (replaced("list_attr_celeba.txt", b"000004", b"000005"), "list_attr", "000001.jpg to 000020.jpg in"),
        (replaced("identity_CelebA.txt", b"jpg  5", b"jpg  6"), "identity", "a number of 1 to 5 for each"),
        (replaced("identity_CelebA.txt", b"jpg  5", b"jpg x"), "identity", "a number of 1 to 5 for each"),
        (replaced("identity_CelebA.txt", b"jpg  5", b"jpg 5 5 5"), "identity", "is not a whole table"),
        (lambda files: files.update({"identity_CelebA.txt": b""}), "identity", "is not a whole table"),
        (lambda files: files.update({"identity_CelebA.txt": b"\xff\xfe\0"}), "identity", "is not"),
        (replaced("list_eval_partition.txt", b"000020.jpg  2", b""), "list_eval", "000020.jpg in order"),
        (
            lambda files: files.update({"list_eval_partition.txt": table(0 * PARTITION[:, None])}),
            "list_eval",
            "leaves no images to train on or to score",
        ),
        (lambda files: files.pop("img_align_celeba/000003.jpg"), "img_align", "lacks 1 of its 20 images"),
    ],
)
def test_wrong_files_are_refused_in_one_line(change, name, says, tmp_path, cache):
    files = official_files()
    change(files)
    write(tmp_path, files)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("celeba", data_dir=tmp_path)
    assert says in one_line(error)
    assert f"{tmp_path}/{name}" in one_line(error)


def test_a_missing_file_is_named(tmp_path, cache):
    files = official_files()
    del files["identity_CelebA.txt"]
    write(tmp_path, files)
    with pytest.raises(
        DislabError, match=r"file identity_CelebA\.txt of celeba is not there.*data fetch celeba"
    ):
        dislab.load_dataset("celeba", data_dir=tmp_path)
