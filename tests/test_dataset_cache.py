"""The cache of drawn and decoded images, and arrays streamed from a .npz file."""

import errno
import os
import time
import zipfile

import numpy as np
import pytest

from dislab.data import cache as module
from dislab.data.cache import cached_array
from dislab.data.npz import read_blocks
from dislab.errors import DislabError, RunFailed


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DISLAB_CACHE", str(folder))
    return folder


def test_cache_is_whole_or_not_there(cache):
    calls = []

    def make(array):
        calls.append(1)
        array[:] = 7

    def fail(array):
        array[:1] = 7
        raise DislabError("the source broke off")

    with pytest.raises(DislabError):
        cached_array("numbers", (4, 5), fail)
    assert not list(cache.iterdir())
    for _ in range(2):
        assert (cached_array("numbers", (4, 5), make) == 7).all()
    assert len(calls) == 1
    whole = (cache / "numbers.npy").read_bytes()
    (cache / "numbers.npy").write_bytes(whole[:-3])  # as a full disk or another program may leave it
    assert (cached_array("numbers", (4, 5), make) == 7).all()
    assert len(calls) == 2


def test_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "file"))
    array = cached_array("numbers", (2, 2), lambda array: array.fill(3))
    assert (array == 3).all()


def test_what_is_too_large_for_memory_names_the_cache_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 3)
    with pytest.raises(RunFailed, match=r"cannot write .* GB .* to the cache folder .*\$DISLAB_CACHE"):
        cached_array("numbers", (2, 2), lambda array: array.fill(3))


def test_a_full_disk_is_found_before_anything_is_drawn(cache, monkeypatch):
    def full(handle, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 3)
    with pytest.raises(RunFailed, match="No space left on device"):
        cached_array("numbers", (2, 2), lambda array: pytest.fail("drawn in vain"))
    assert not list(cache.iterdir())


def test_unfinished_files_of_killed_processes_are_removed_after_a_day(cache):
    cache.mkdir()
    for name, age in (("old.part", 90_000), ("new.part", 60)):
        (cache / name).write_text("half")
        os.utime(cache / name, (time.time() - age, time.time() - age))
    cached_array("numbers", (2, 2), lambda array: array.fill(3))
    assert sorted(path.name for path in cache.iterdir()) == ["new.part", "numbers.npy"]


def test_drawn_images_of_other_versions_are_removed_after_an_hour(cache):
    cache.mkdir()
    for name, age in (
        ("a-rendered-1", 4000),
        ("a-rendered-2", 60),
        ("b-rendered-1", 4000),
        ("a-official-1", 4000),
    ):
        (cache / f"{name}.npy").write_text("images")
        os.utime(cache / f"{name}.npy", (time.time() - age, time.time() - age))
    cached_array("a-rendered-3", (2, 2), lambda array: array.fill(3))
    left = sorted(path.stem for path in cache.iterdir())
    assert left == ["a-official-1", "a-rendered-2", "a-rendered-3", "b-rendered-1"]


def test_an_npz_array_is_streamed_in_blocks(tmp_path):
    array = np.arange(84, dtype=np.uint8).reshape(7, 3, 4)
    np.savez(tmp_path / "a.npz", imgs=array)
    blocks = list(read_blocks(tmp_path / "a.npz", "imgs", (7, 3, 4), 3))
    assert [(start, len(block)) for start, block in blocks] == [(0, 3), (3, 3), (6, 1)]
    assert np.array_equal(np.concatenate([block for _, block in blocks]), array)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("imgs.npy", b"nonsense")
    with pytest.raises(DislabError, match="not a whole"):
        list(read_blocks(tmp_path / "b.npz", "imgs", (7, 3, 4), 3))
