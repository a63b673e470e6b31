"""Files that are written whole or not at all."""

import pytest
from matplotlib.figure import Figure

from dislab import files
from dislab.errors import DislabError, RunFailed
from dislab.files import write_atomically


def test_write_atomically_replaces_the_file(tmp_path):
    for content in (b"first", b"the second, which is longer", b""):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_reader_of_the_old_file_never_sees_a_mixture(tmp_path):
    write_atomically(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        write_atomically(tmp_path / "file", b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_half_one(tmp_path, monkeypatch, error):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor):
        assert path.read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 2
        raise error

    monkeypatch.setattr(files.os, "fsync", fail)
    expected = RunFailed if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as raised:
        write_atomically(path, b"new")
    if expected is RunFailed:
        assert str(raised.value) == f"cannot write '{path}': No space left on device"
    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(RunFailed, match="No such file or directory"):
        write_atomically(path, b"new")


def test_a_file_in_place_of_the_folder_is_one_clear_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFailed, match="Not a directory"):
        write_atomically(tmp_path / "taken" / "file", b"new")


@pytest.mark.parametrize("kind", files.FORMATS)
def test_pictures_are_known_as_dislabs_and_have_the_same_bytes_each_time(tmp_path, kind):
    def figure() -> Figure:
        drawn = Figure((1, 1))
        drawn.subplots().plot([0, 1])
        return drawn

    path = tmp_path / f"figure.{kind}"
    for _ in range(2):
        files.write_own(path, files.picture_of(figure(), kind))
    assert path.read_bytes() == files.picture_of(figure(), kind)
    figure().savefig(path)
    with pytest.raises(DislabError, match="dislab did not write it"):
        files.write_own(path, b"")
