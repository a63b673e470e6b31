"""MNIST's files under the names that people have them, and several copies of an official file."""

import functools
import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from published import md5, said_by

import dislab
from dislab.data import official
from dislab.datasets import mnist
from dislab.errors import DislabWarning
from dislab.registry import DATASETS

LAYOUTS = {
    "as published": "{name}",
    "in a folder of the dataset's name": "mnist/{name}",
    "Kaggle's dots": "{dots}",
    "Kaggle's folders": "{name}/{name}",
    "Kaggle's folders with dots": "mnist/{dots}/{dots}",
    "Kaggle's folders, a dot in the file": "{name}/{dots}",
    "torchvision's": "MNIST/raw/{name}",
    "torchvision's within the dataset's folder": "mnist/MNIST/raw/{name}",
    "torchvision's, from its root": "raw/{name}",
}


@pytest.fixture
def small(monkeypatch) -> dict[str, bytes]:
    """MNIST of 30 and 10 images: the content of its files by their published names; they are published."""
    rng = np.random.default_rng(0)
    contents, files = {}, []
    shapes = [(30, 28, 28), (30,), (10, 28, 28), (10,)]
    for file, shape in zip(mnist.OFFICIAL.files, shapes, strict=True):
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        content = header + rng.integers(0, 10, shape, np.uint8).tobytes()
        contents[file.name.removesuffix(".gz")] = content
        published = gzip.compress(content, mtime=0)
        inner = hashlib.md5(content).hexdigest()
        files.append(replace(file, digest=md5(published), size=len(published), content_md5=inner))
    for name, value in {"NUM_TRAINING_FILE": 30, "NUM_TEST_FILE": 10, "NUM_TRAIN": 20}.items():
        monkeypatch.setattr(mnist, name, value)
    monkeypatch.setattr(mnist, "OFFICIAL", replace(mnist.OFFICIAL, files=tuple(files)))
    monkeypatch.setitem(DATASETS._entries, "mnist", replace(DATASETS["mnist"], official=mnist.OFFICIAL))
    return contents


def write(folder: Path, layout: str, contents: dict[str, bytes], compressed: bool) -> None:
    for name, content in contents.items():
        dots = name.replace("-idx", ".idx")
        path = folder / LAYOUTS[layout].format(name=name, dots=dots)
        path = path.with_name(f"{path.name}.gz") if compressed else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, 1) if compressed else content)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_mnist(layout, compressed, small, tmp_path, cache, capsys, monkeypatch, recwarn):
    folder = tmp_path / "data"
    write(folder, layout, small, compressed)
    if compressed:  # both ways of naming the folder
        monkeypatch.setenv("DISLAB_DATA", str(folder))
        dataset, said = dislab.load_dataset("mnist"), said_by(capsys, "verify", "mnist")
    else:
        dataset = dislab.load_dataset("mnist", data_dir=folder)
        said = said_by(capsys, "verify", "mnist", "--data-dir", folder)
    images = b"".join(content[16:] for name, content in small.items() if "images" in name)
    assert dataset.images(np.arange(40)).numpy().tobytes() == images
    assert (dataset.unpublished, len(recwarn)) == ("", 0)
    assert said.code == 0 and said.out.count("ok, the published content") == 4, said.out


def test_which_of_several_copies_is_read_is_said(small, tmp_path, cache, capsys, recwarn):
    write(tmp_path, "torchvision's", small, False)
    write(tmp_path, "in a folder of the dataset's name", small, True)
    load = functools.partial(dislab.load_dataset, "mnist", data_dir=tmp_path)
    assert load().file == tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    assert not len(recwarn), "the same content twice"
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\3")
    read = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    line = f"mnist: '{read}' is read, not '{labels}', whose content differs: delete one"
    with pytest.warns(DislabWarning) as remarks:
        dataset = load()
    assert [str(remark.message) for remark in remarks] == [line]
    assert dataset.unpublished == ""
    said = said_by(capsys, "verify", "mnist", "--data-dir", tmp_path)
    assert said.code == 0, "what is read is right"
    assert f"{labels}: wrong: expected md5" in said.out
    assert f"(a copy that is not read: '{read}' is)" in said.out
    read.unlink()
    with pytest.warns(DislabWarning, match=f"'{labels}' is not the published file"):
        assert len(load().unpublished) == 8
    assert said_by(capsys, "verify", "mnist", "--data-dir", tmp_path).code == 1


@pytest.mark.skipif("DISLAB_DATA" not in os.environ, reason="DISLAB_DATA is not set: no real MNIST files")
def test_the_real_files_in_torchvisions_layout(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in mnist.OFFICIAL.files:
        (raw / file.name).symlink_to(official.locate(mnist.OFFICIAL, file).absolute())
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "cache"))
    assert official.is_complete("mnist", "official", tmp_path)
    assert official.unpublished(mnist.OFFICIAL, tmp_path) == ("", "")
