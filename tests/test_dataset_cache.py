"""The cache of drawn and decoded images, and arrays streamed from a .npz file."""

import errno
import os
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from published import everything

from dislab import processes
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


@pytest.mark.parametrize("folder", ["file", "file/deeper", 300 * "long"])
def test_cache_folder_that_cannot_be_written(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / folder))
    array = cached_array("numbers", (2, 2), lambda array: array.fill(3))
    assert (array == 3).all()
    (line,) = capsys.readouterr().err.splitlines()
    begin = f"cannot write 0.0 GB of images to the cache folder '{tmp_path / folder}"
    assert line.startswith(begin[:300]) and line.endswith("made in memory, for this command alone")


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


def test_what_killed_processes_left_is_removed_by_the_next_look_into_the_cache(cache):
    cached_array("numbers", (2, 2), lambda array: array.fill(3))
    ended = subprocess.run(
        [sys.executable, "-c", "from dislab import processes; print(processes.tag())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    for tag in (ended, processes.tag()):
        (cache / f"numbers.npy.0.{tag}.part").write_text("half")
    cached_array("numbers", (2, 2), lambda array: pytest.fail("it is there"))
    left = sorted(path.name for path in cache.iterdir())
    assert left == ["numbers.npy", f"numbers.npy.0.{processes.tag()}.part"]


def test_a_cache_file_whose_bytes_changed_is_made_again(cache, capsys):
    def make(array):
        array[:] = np.arange(array.size).reshape(array.shape)

    path = cache / "numbers.npy"
    expected = cached_array("numbers", (4, 50), make).copy()
    whole = path.read_bytes()
    assert np.array_equal(np.load(path), expected), "other programs can read it"
    damaged = {
        "pixels": whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
        "zeros": whole[:228] + bytes(100) + whole[328:],
        "header": whole.replace(b"(4, 50)", b"(50, 4)"),
        "digest": whole[:-1] + bytes([whole[-1] ^ 1]),
        "longer": whole + b" ",
        "shorter": whole[:-1],
        "empty": b"",
    }
    for kind, content in damaged.items():
        path.write_bytes(content)
        assert np.array_equal(cached_array("numbers", (4, 50), make), expected), kind
        assert capsys.readouterr().err == (
            f"the cache file '{path}' is damaged: its images are made again\n"
        ), kind
        assert path.read_bytes() == whole, kind
    path.write_bytes(whole[:-32])  # as earlier versions wrote it
    assert np.array_equal(cached_array("numbers", (4, 50), make), expected)
    assert (capsys.readouterr().err, path.read_bytes()) == ("", whole)
    assert everything(cache) == ["numbers.npy"]


def test_a_large_cache_file_is_read_in_full_once(cache, monkeypatch):
    monkeypatch.setattr(module, "ALWAYS_CHECKED", 3)
    read, full = [], module._digest
    monkeypatch.setattr(module, "_digest", lambda file, size: read.append(size) or full(file, size))
    path = cache / "numbers.npy"
    cached_array("numbers", (2, 2), lambda array: array.fill(3))
    for _ in range(2):
        assert (cached_array("numbers", (2, 2), lambda array: pytest.fail("it is there")) == 3).all()
    assert len(read) == 1, "while it was written"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-33] = 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (cached_array("numbers", (2, 2), lambda array: array.fill(3)) == 3).all()
    shutil.rmtree(cache / "checked")
    for _ in range(2):
        assert (cached_array("numbers", (2, 2), lambda array: pytest.fail("it is there")) == 3).all()
    assert len(read) == 5


def test_of_two_one_makes_the_images(cache):
    made = []

    def make(array):
        made.append(1)
        time.sleep(0.2)
        array.fill(3)

    with ThreadPoolExecutor(2) as pool:
        arrays = list(pool.map(lambda _: cached_array("numbers", (2, 2), make), range(2)))
    assert len(made) == 1
    assert all((array == 3).all() for array in arrays)
    assert everything(cache) == ["numbers.npy"]


SMALL_DISK = """
import os, sys
from pathlib import Path
from dislab.cli import main
from dislab.data import cache
from dislab.errors import DislabError

cache.MOST_IN_MEMORY = 10**6
folder, megabytes, fill = Path(os.environ["DISLAB_CACHE"]), int(sys.argv[1]), sys.argv[2] == "fill"

def make(array):
    if fill:  # another program takes all space that is left
        with (folder / "other").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
    array.fill(3)

try:
    array = cache.cached_array("numbers", (megabytes, 10**6), make)
    print(array.min(), array.max())
except DislabError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(("megabytes", "fill"), [(20, "alone"), (5, "alone"), (5, "fill")])
def test_on_a_disk_that_fills_up_no_signal_ends_the_program(tmp_path, megabytes, fill):
    (tmp_path / "disk").mkdir()
    (tmp_path / "code.py").write_text(SMALL_DISK)
    mount = f"mount -t tmpfs -o size=10m none '{tmp_path}/disk'"
    inside = ["unshare", "-rm", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("no file system of a small size can be mounted here")
    command = f"{mount} && '{sys.executable}' '{tmp_path}/code.py' {megabytes} {fill} && ls '{tmp_path}/disk'"
    environment = os.environ | {"DISLAB_CACHE": str(tmp_path / "disk")}
    result = subprocess.run([*inside, command], capture_output=True, text=True, env=environment)
    if megabytes > 10:
        assert result.returncode == 1
        assert result.stderr == (
            f"cannot write 0.0 GB of images to the cache folder '{tmp_path}/disk': No space left on device "
            "(another folder: $DISLAB_CACHE)\n"
        )
    else:
        there = ["numbers.npy", "other"] if fill == "fill" else ["numbers.npy"]
        assert (result.returncode, result.stdout.split(), result.stderr) == (0, ["3", "3", *there], "")


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
