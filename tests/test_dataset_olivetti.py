"""The Olivetti faces: the official file read upright and in order, or refused clearly."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_line
from scipy.io import savemat

import dislab
from dislab.errors import DislabError


def write_faces(path: Path, images: np.ndarray, **options) -> None:
    """Images [400, 64, 64] in the official form: a column each, and in it the pixels column by column."""
    columns = [image.flatten(order="F") for image in images]
    savemat(path, {"faces": np.stack(columns, axis=1)}, **options)


@pytest.mark.parametrize("name", ["olivettifaces.mat", "olivetti/olivettifaces.mat"])
def test_olivetti_is_read_upright_and_in_order(name, tmp_path, cache):
    images = np.random.default_rng(0).integers(0, 256, (400, 64, 64), dtype=np.uint8)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_faces(tmp_path / name, images, do_compression=True)
    dataset = dislab.load_dataset("olivetti", data_dir=tmp_path)
    assert (dataset.source, dataset.image_shape, len(dataset)) == ("official", (1, 64, 64), 400)
    assert (dataset.file, dataset.group_by) == (tmp_path / name, ["person"])
    assert np.array_equal(dataset.images(np.arange(400))[:, 0].numpy(), images)
    assert dataset.space.factors([0, 9, 10, 299, 300, 399])[:, 0].tolist() == [0, 0, 1, 29, 30, 39]


def test_olivetti_scores_people_that_no_model_was_trained_on(tmp_path, cache):
    write_faces(tmp_path / "olivettifaces.mat", np.zeros((400, 64, 64), np.uint8))
    dataset = dislab.load_dataset("olivetti", data_dir=tmp_path)
    people = [
        set(dataset.space.factors(rows)[:, 0]) for rows in (dataset.train_rows(), dataset.evaluation_rows())
    ]
    assert people == [set(range(30)), set(range(30, 40))]
    assert len(dataset.train_rows()) + len(dataset.evaluation_rows()) == 400


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b""), "not a whole MATLAB file"),
        (lambda path: path.write_text("faces"), "not a whole MATLAB file"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)), "not a whole MATLAB file"),
        (
            lambda path: savemat(path, {"face": np.zeros(3), "ids": np.zeros(3)}),
            "no array 'faces' (it has face, ids)",
        ),
        (lambda path: savemat(path, {"faces": np.zeros((4096, 40), np.uint8)}), "expected uint8 [4096, 400]"),
        (lambda path: savemat(path, {"faces": np.zeros((4096, 400))}), "'faces' is float64 [4096, 400]"),
        (lambda path: savemat(path, {"faces": {"a": 1}}), "expected uint8"),
    ],
)
def test_wrong_olivetti_files_are_refused_in_one_line(write, says, tmp_path, cache):
    write(tmp_path / "olivettifaces.mat")
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("olivetti", data_dir=tmp_path)
    assert says in one_line(error)
    assert str(tmp_path / "olivettifaces.mat") in one_line(error)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_olivetti_cut_off(compressed, share, tmp_path, cache):
    images = np.random.default_rng(0).integers(0, 256, (400, 64, 64), dtype=np.uint8)
    path = tmp_path / "olivettifaces.mat"
    write_faces(path, images, do_compression=compressed)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DislabError, match="not a whole MATLAB file"):
        dislab.load_dataset("olivetti", data_dir=tmp_path)


def test_olivetti_without_a_file(tmp_path, cache):
    for source in ("auto", "official"):
        with pytest.raises(DislabError, match=r"olivettifaces\.mat"):
            dislab.load_dataset("olivetti", source=source, data_dir=tmp_path)
    with pytest.raises(DislabError, match="no rendered images"):
        dislab.load_dataset("olivetti", source="rendered")


@pytest.mark.skipif("DISLAB_DATA" not in os.environ, reason="DISLAB_DATA is not set: no real Olivetti file")
def test_real_olivetti_faces_are_upright_and_sorted_by_person():
    try:
        dataset = dislab.load_dataset("olivetti")
    except DislabError:
        pytest.skip("no olivettifaces.mat in $DISLAB_DATA")
    images = dataset.images(np.arange(400))[:, 0].double()
    # Faces are alike left and right, not top and bottom: only upright images resemble their mirror images.
    mean = images.mean(0)
    mean -= mean.mean()
    sideways, upside_down = ((mean * mean.flip(axis)).sum() / (mean * mean).sum() for axis in (1, 0))
    assert sideways > 0.9
    assert upside_down < 0.7
    # And not on their heads: foreheads are lit, chins lie in shadow.
    assert mean[:8].mean() > mean[-8:].mean() + 20
    # An image's nearest other image is of the same person nearly always.
    distance = torch.cdist(images.flatten(1), images.flatten(1)).fill_diagonal_(float("inf"))
    people = torch.from_numpy(dataset.space.factors(np.arange(400))[:, 0])
    assert (people[distance.argmin(1)] == people).double().mean() > 0.9
