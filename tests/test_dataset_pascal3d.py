"""PASCAL3D+: tiny files in the official form, which parts train and test, and damaged files."""

from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from PIL import Image
from scipy.io import savemat

import dislab
from dislab.data.matlab import read_structure
from dislab.datasets.pascal3d import cut_out
from dislab.errors import DislabError


def structures(*elements: dict) -> np.ndarray:
    """An array [1, N] of structures, as MATLAB has them."""
    array = np.zeros((1, len(elements)), dtype=[(name, object) for name in elements[0]])
    for number, element in enumerate(elements):
        array[0, number] = tuple(element.values())
    return array


def car(azimuth=30.4, elevation=10.0, theta=-5.0, distance=7.0, **changes) -> dict:
    view = {
        "azimuth_coarse": 300.0, "elevation_coarse": -20.0, "azimuth": azimuth, "elevation": elevation,
        "distance": distance, "theta": theta, "px": 30.0, "py": 20.0,
    }  # fmt: skip
    anchors = {"left_front_wheel": {"location": [[1.0, 2.0]], "status": 1.0}}
    given = {
        "class": "car", "bbox": [[11.0, 6.0, 40.0, 25.0]], "truncated": 0.0, "occluded": False,
        "difficult": 0.0, "cad_index": 3.0, "viewpoint": view, "anchors": anchors,
    }  # fmt: skip
    return given | changes


def write(root: Path, subset: str, name: str, *objects: dict, **options) -> None:
    """An annotation, and a photograph of 60 x 40 pixels whose values grow from left to right."""
    record = {"filename": f"{name}.jpg", "imgsize": [[60.0, 40.0, 3.0]], "objects": structures(*objects)}
    for folder in ("Annotations", "Images"):
        (root / folder / f"car_{subset}").mkdir(parents=True, exist_ok=True)
    savemat(root / "Annotations" / f"car_{subset}" / f"{name}.mat", {"record": record}, **options)
    pixels = np.broadcast_to(4 * np.arange(60, dtype=np.uint8)[:, None], (40, 60, 3))
    suffix = {"imagenet": ".JPEG", "pascal": ".png"}[subset]  # without loss, so that pixels can be compared
    Image.fromarray(np.ascontiguousarray(pixels)).save(root / "Images" / f"car_{subset}" / f"{name}{suffix}")


@pytest.fixture
def release(tmp_path, cache) -> Path:
    """A folder as the archive unpacks to it."""
    root = tmp_path / "PASCAL3D+_release1.1"
    write(root, "imagenet", "n1", car(), car(azimuth=359.6, theta=4.4), do_compression=True)
    write(root, "imagenet", "n2", car(azimuth=90.0, cad_index=10.0, difficult=1.0), car(occluded=True))
    write(root, "imagenet", "n3", car(azimuth=120.0))
    write(root, "pascal", "2008_1", car(distance=0.0), {**car(), "class": "bus"}, car(viewpoint=[]))
    write(root, "pascal", "2008_2", car(azimuth=200.0), car(truncated=1.0))
    return root


def write_lists(root: Path) -> None:
    for name, lines in (
        ("Image_sets/car_imagenet_val.txt", "n3\n"),
        ("PASCAL/VOCdevkit/VOC2012/ImageSets/Main/val.txt", "2008_2\n2008_9 -1\n"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(lines)


def test_objects_with_a_viewpoint_are_read_and_those_of_validation_images_held_out(release, tmp_path):
    write_lists(release)
    for _ in range(2):  # the second time from the cache
        with pytest.warns(dislab.DislabWarning, match="no published hash"):
            dataset = dislab.load_dataset("pascal3d_car", data_dir=tmp_path)
        assert (dataset.source, dataset.image_shape, dataset.group_by) == (
            "official",
            (3, 64, 64),
            ["cad_index"],
        )
        # In n2 one is difficult, in 2008_1 one is a bus and one has no viewpoint; the one of distance 0 has
        # coarse angles. In 2008_2 one is cut off, and is neither trained on nor tested.
        assert dataset.space.factors(np.arange(len(dataset))).tolist() == [
            [30, 100, 355, 2], [0, 100, 4, 2], [30, 100, 355, 2], [120, 100, 355, 2], [300, 70, 355, 2],
            [200, 100, 355, 2],
        ]  # fmt: skip
        assert dataset.train_rows().tolist() == [0, 1, 2, 4]
        rows = dataset.evaluation_rows()
        assert rows.tolist() == [3, 5] and dataset.is_test(rows).tolist() == [False, True]
    assert dataset.space.sizes == (360, 181, 360, 3)


def test_a_box_is_cut_out_and_stretched_to_a_square(release):
    path = release / "Images" / "car_pascal" / "2008_1.png"
    pixels = cut_out(path, (11.0, 6.0, 42.0, 21.0))[:, :, 0].astype(float)  # columns 10 to 41, rows 5 to 20
    assert (pixels == pixels[0]).all()
    inside = 4 * (10 + (np.arange(64) + 0.5) * 32 / 64 - 0.5)  # a pixel's centre lies in its middle
    assert np.abs(pixels[0] - inside)[1:-1].max() <= 1
    edge = cut_out(path, (-9.0, 1.0, 70.0, 40.0))[0, :, 0]
    assert (edge[0], edge[-1]) == (0, 4 * 59)


def test_without_lists_or_without_the_pictures_of_voc(release, tmp_path, capsys):
    for name in ("2008_1", "2008_2"):
        (release / "Annotations" / "car_pascal" / f"{name}.mat").unlink()
    with pytest.warns(dislab.DislabWarning):
        dataset = dislab.load_dataset("pascal3d_car", data_dir=tmp_path)
    assert len(dataset) == len(dataset.train_rows()) == len(dataset.evaluation_rows()) == 4
    assert "pascal3d_car: no object is held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda root: (root / "Images/car_imagenet/n3.JPEG").unlink(), "n3.mat' describes an image that "),
        (lambda root: (root / "Images/car_imagenet/n3.JPEG").write_bytes(b"no"), "n3.JPEG' cannot be read"),
        (lambda root: write(root, "imagenet", "n3", car(elevation=91.0)), "a box or an angle"),
        (lambda root: write(root, "imagenet", "n3", car(bbox=[[1.0, 2.0]])), "a box or an angle"),
        (
            lambda root: write(root, "imagenet", "n3", car(bbox=[[5.0, 9.0, 2.0, 20.0]])),
            "no pixels in the box",
        ),
        (lambda root: (root / "Annotations/car_imagenet/n3.mat").write_bytes(b""), "not a whole MATLAB file"),
        (
            lambda root: savemat(root / "Annotations/car_imagenet/n3.mat", {"records": {"a": 1}}),
            "n3.mat' has no structure 'record' (it has records)",
        ),
    ],
)
def test_wrong_files_are_refused_in_one_line(damage, says, release, tmp_path):
    damage(release)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("pascal3d_car", data_dir=tmp_path)
    assert says in one_line(error)


def test_without_files_and_packed(tmp_path, cache):
    with pytest.raises(DislabError, match=r"get it at https://cvgl\.stanford\.edu"):
        dislab.load_dataset("pascal3d_chair", data_dir=tmp_path)
    (tmp_path / "PASCAL3D+_release1.1.zip").write_bytes(b"")
    with pytest.raises(DislabError, match="is packed, and is not read: unpack it"):
        dislab.load_dataset("pascal3d_chair", data_dir=tmp_path)


# MATLAB's structures -------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False])
def test_structures_cells_texts_and_numbers_are_read(compressed, tmp_path):
    path = tmp_path / "any.mat"
    cell = np.empty((1, 2), dtype=object)
    cell[0] = ["Käfer", np.arange(6, dtype=np.int16).reshape(2, 3)]
    inside = {
        "text": "car",
        "none": [],
        "cell": cell,
        "whole": np.int64(-3),
        "real": 0.1,
        "deep": {"flag": True},
    }
    savemat(path, {"first": 1.0, "record": structures(inside, inside)}, do_compression=compressed)
    one, two = read_structure(path.read_bytes(), "record", "any.mat")
    assert one.keys() == two.keys() == inside.keys()
    assert one["text"] == "car" and one["none"].size == 0
    assert one["whole"] == -3 and one["real"] == 0.1 and one["deep"][0]["flag"] == 1
    text, numbers = one["cell"]
    assert text == "Käfer" and np.array_equal(numbers, cell[0, 1])


def test_no_damaged_byte_and_no_missing_end_does_more_than_raise(tmp_path):
    path = tmp_path / "any.mat"
    savemat(path, {"record": {"objects": structures(car(), car())}}, do_compression=False)
    data, random = path.read_bytes(), np.random.default_rng(0)
    for length in random.integers(0, len(data), 100):
        with pytest.raises(DislabError):
            read_structure(data[:length], "record", "any.mat")
    for _ in range(300):
        damaged = bytearray(data)
        for position in random.integers(128, len(data), 3):
            damaged[position] = random.integers(256)
        try:
            read_structure(bytes(damaged), "record", "any.mat")
        except DislabError as error:
            assert "any.mat" in str(error)
