"""Official files that are not the published ones: verified once, named, and never in the same row."""

import os
import re

import numpy as np
import pytest
import torch
from published import md5

import dislab
from dislab.cli import main
from dislab.data import official
from dislab.data.official import OfficialDataset, OfficialFile
from dislab.errors import DislabError, DislabWarning
from dislab.runs.images import forget_images

ROWS, SIDE = 40, 16
CONTENT = np.random.default_rng(0).bytes(ROWS * SIDE * SIDE)
OTHER = bytes(len(CONTENT))


@pytest.fixture
def file(tmp_path, monkeypatch, cache, isolated, no_pictures):
    """The official file of the dataset `pixels`, with the published content."""
    path = tmp_path / "data" / "pixels.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    monkeypatch.setenv("DISLAB_DATA", str(path.parent))
    files = OfficialFile("pixels.bin", "", md5(CONTENT), len(CONTENT), unpacked=("pixels/part_*",))
    published = OfficialDataset("pixels", (files,), "", "")

    @dislab.register_dataset("pixels", official=published)
    def pixels(source, data_dir, device):
        (path,) = official.official_paths(published, source, data_dir)
        parts = sorted(path.glob("part_*")) if path.is_dir() else [path]
        images = np.frombuffer(b"".join(part.read_bytes() for part in parts), np.uint8)
        images = torch.from_numpy(images.reshape(ROWS, 1, SIDE, SIDE).copy())
        space = dislab.FactorSpace(("a", "b"), (8, 5))
        return dislab.Dataset(
            "pixels", "official", space, (1, SIDE, SIDE), images.__getitem__, ["a"], file=path
        )

    return path


def train(tmp_path):
    forget_images()  # each command is a process of its own
    settings = {"steps": 1, "batch_size": 8, "metrics": ["kl"], "device": "cpu", "out": tmp_path / "results"}
    return dislab.run("vae", "pixels", **settings)


def test_other_files_are_another_row_and_are_said(file, tmp_path):
    with pytest.warns(DislabWarning) as remarks:
        train(tmp_path)
        file.write_bytes(OTHER)
        train(tmp_path)
        file.write_bytes(OTHER[:-1] + b"\1")
        train(tmp_path)
    ours = [str(remark.message) for remark in remarks if "published" in str(remark.message)]
    assert len(ours) == 2
    assert f"pixels: '{file}' is not the published file" in ours[0]
    assert md5(CONTENT)[4:] in ours[0] and md5(OTHER)[4:] in ours[0]
    table = dislab.leaderboard(tmp_path / "results")
    sources = sorted(set(table["source"]))
    assert sources[0] == "official"
    assert len(sources) == 3
    for source in sources[1:]:
        assert re.fullmatch(r"official \(not the published file\) [0-9a-f]{8}", source)
    folders = sorted(path.name for path in (tmp_path / "results").glob("pixels*"))
    assert folders == ["pixels-official", *(f"pixels-official-{source[-8:]}" for source in sources[1:])]


def test_a_run_goes_on_with_the_files_that_it_was_begun_with(file, tmp_path):
    file.write_bytes(OTHER)
    run = train(tmp_path)
    assert train(tmp_path).path == run.path, "it is finished"
    arguments = ["run", "--config", str(run.path / "run.json"), "--out", str(tmp_path / "again")]
    forget_images()
    assert main([*arguments, "--device", "cpu"]) == 0
    again = dislab.runs_in(tmp_path / "again")[0]
    assert again.config == run.config
    file.write_bytes(CONTENT)
    forget_images()
    with pytest.raises(
        DislabError, match=r"\(official \(not the published file\) \w+\), but the images here "
    ):
        dislab.runs.resolve.check(run.config, dislab.runs.machine.Machine.here("cpu"))


def test_a_file_is_read_in_full_once_until_it_changes(file, tmp_path, monkeypatch, capsys):
    read, full = [], official._digest
    monkeypatch.setattr(official, "_digest", lambda paths, kind: read.append(paths) or full(paths, kind))
    for _ in range(3):
        assert dislab.load_dataset("pixels").unpublished == ""
    assert len(read) == 1
    status = file.stat()
    file.write_bytes(OTHER)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = {dislab.load_dataset("pixels").unpublished for _ in range(3)}
    assert len(read) == 2
    assert len(found) == 1 and found != {""}
    assert main(["data", "verify", "pixels"]) == 1
    assert len(read) == 3, "verify reads in full"
    assert "wrong: expected md5" in capsys.readouterr().out
    # What is remembered is not believed if it was damaged, or if another hash was published since.
    for note in (tmp_path / "cache" / "checked").iterdir():
        note.write_bytes(note.read_bytes().replace(b'"wrong: ', b'"right: '))
    dislab.load_dataset("pixels")
    assert len(read) == 4


def test_a_cache_folder_that_cannot_be_written_costs_time_alone(file, tmp_path, monkeypatch):
    monkeypatch.setenv("DISLAB_CACHE", str(file))
    assert dislab.load_dataset("pixels").unpublished == ""
    file.write_bytes(OTHER)
    assert len(dislab.load_dataset("pixels").unpublished) == 8


def test_unpacked_files_are_told_apart_by_their_content(file, tmp_path):
    file.unlink()
    folder = file.parent / "pixels"
    folder.mkdir()
    half = len(CONTENT) // 2
    (folder / "part_1").write_bytes(CONTENT[:half])
    (folder / "part_2").write_bytes(CONTENT[half:])
    with pytest.warns(DislabWarning, match="there is no published hash"):
        first = dislab.load_dataset("pixels").unpublished
    (folder / "notes").write_text("not a part")
    assert len(first) == 8
    assert dislab.load_dataset("pixels").unpublished == first
    (folder / "part_2").write_bytes(OTHER[half:])
    assert dislab.load_dataset("pixels").unpublished not in ("", first)


def test_a_zip_with_a_flag_of_encryption_is_not_whole(tmp_path):
    """A single flipped bit says that a member is encrypted."""
    path = tmp_path / "images.npz"
    np.savez(path, images=np.zeros(4, np.uint8))
    assert official._is_whole_zip(path)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    assert not official._is_whole_zip(path)
