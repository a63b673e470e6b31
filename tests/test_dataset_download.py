"""`dislab data fetch`: downloads from a server on the loopback address, whole and right or not at all."""

import functools
import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from loopback import BODY, Server
from published import digits, error_line, everything, md5, publish, said_by

from dislab.data import download
from dislab.data.official import MegabyteBar, OfficialFile


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of the test's own; no proxy stands between it and the loopback address."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("DISLAB_DATA", str(folder))
    monkeypatch.setenv("no_proxy", "*")
    return folder


@pytest.fixture
def dislab_data(capsys):
    return functools.partial(said_by, capsys)


@pytest.fixture
def numbers(server, data, monkeypatch):
    """A dataset `numbers` with one file on the server; gives the path where the file belongs."""
    publish(monkeypatch, OfficialFile("numbers.bin", server.address, md5(BODY), len(BODY), exact_size=True))
    return data / "numbers" / "numbers.bin"


def test_fetch_whole_file_once(server, numbers, data, dislab_data):
    said = dislab_data("fetch", "numbers")
    assert (said.code, numbers.read_bytes()) == (0, BODY)
    assert said.out == f"{numbers}: ok, {md5(BODY).replace(':', ' ')}\n"
    (line,) = said.err.splitlines()
    assert line.startswith("fetching numbers.bin (MB) 3/3 "), "the bar alone, no log of a library"
    assert everything(data) == ["numbers", "numbers/numbers.bin"]
    again = dislab_data("fetch", "numbers", "--force")
    assert again.code == 0
    assert "already there, ok" in again.out
    assert server.asked == 1, "the second command asks nobody"


def test_fetch_checks_sha256_and_finds_files_beside_the_sub_folder(server, data, dislab_data, monkeypatch):
    digest = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    publish(monkeypatch, OfficialFile("numbers.bin", server.address, digest, len(BODY)))
    (data / "numbers.bin").write_bytes(BODY)
    said = dislab_data("fetch", "numbers")
    assert (said.code, said.out.startswith(f"{data / 'numbers.bin'}: already there")) == (0, True)
    (data / "numbers.bin").unlink()
    assert dislab_data("fetch", "numbers").code == 0
    assert everything(data) == ["numbers", "numbers/numbers.bin"]


@pytest.mark.parametrize("behaviour", ["well", "no length", "no range", "wrong range"])
def test_a_cut_download_is_resumed(behaviour, server, numbers, data, dislab_data):
    server.behaviour = "cut"
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    line = error_line(said)
    assert f"the connection to {server.address} was cut after 2 MB of 4 MB; run the same command" in line
    assert everything(data) == ["numbers", "numbers/numbers.bin.partial"]
    received = (numbers.parent / "numbers.bin.partial").read_bytes()
    assert len(received) > 2_000_000 and BODY.startswith(received)
    server.behaviour = behaviour
    assert dislab_data("fetch", "numbers").code == 0
    assert numbers.read_bytes() == BODY
    assert everything(data) == ["numbers", "numbers/numbers.bin"]
    assert server.ranges[:2] == [None, f"bytes={len(received)}-"]
    if behaviour in ("well", "no length"):
        assert server.given == server.cut_after + len(BODY) - len(received), "the rest alone"


def test_parts_that_do_not_fit_are_fetched_from_the_beginning(server, numbers, data, dislab_data):
    partial = numbers.parent / "numbers.bin.partial"
    for received in (b"another file", BODY[:-1] + b"!", BODY + b"!", BODY[::-1]):
        numbers.unlink(missing_ok=True)
        partial.parent.mkdir(exist_ok=True)
        partial.write_bytes(received)
        assert dislab_data("fetch", "numbers").code == 0
        assert everything(data) == ["numbers", "numbers/numbers.bin"]
        assert numbers.read_bytes() == BODY
    numbers.unlink()
    partial.write_bytes(BODY)
    asked = server.asked
    assert dislab_data("fetch", "numbers").code == 0
    assert (server.asked, numbers.read_bytes()) == (asked, BODY)


@pytest.mark.parametrize("kind", ["announced", "endless", "roughly known", "in a part"])
def test_a_server_gives_no_more_than_the_known_size(kind, server, numbers, data, dislab_data, monkeypatch):
    if kind == "announced":
        server.body = BODY + b"!"
    else:
        server.behaviour = "endless"
    if kind == "roughly known":
        publish(monkeypatch, OfficialFile("numbers.bin", server.address, md5(BODY), len(BODY)))
    if kind == "in a part":
        numbers.parent.mkdir()
        (numbers.parent / "numbers.bin.partial").write_bytes(BODY[:10])
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert f"{server.address} gives more than the 4 MB of numbers.bin: it was not kept" in error_line(said)
    assert everything(data) == (["numbers"] if kind == "in a part" else [])
    assert server.given < 20_000_000  # the operating system holds some of it on the way


def test_a_whole_part_of_a_roughly_known_size(server, data, dislab_data, monkeypatch):
    """It was killed after the last byte and before the hash was checked."""
    publish(monkeypatch, OfficialFile("numbers.bin", server.address, md5(BODY), len(BODY) - 9))
    (data / "numbers").mkdir()
    (data / "numbers" / "numbers.bin.partial").write_bytes(BODY)
    assert dislab_data("fetch", "numbers").code == 0
    assert server.given == 0
    assert everything(data) == ["numbers", "numbers/numbers.bin"]


def test_folders_of_killed_downloads_of_earlier_versions_are_removed(server, numbers, data, dislab_data):
    for name, age in (("old", 4000), ("new", 0)):
        folder = numbers.parent / f"numbers.bin.part-{name}"
        folder.mkdir(parents=True)
        (folder / "numbers.bin").write_bytes(b"half")
        for path in (folder / "numbers.bin", folder):
            os.utime(path, (time.time() - age, time.time() - age))
    assert dislab_data("fetch", "numbers").code == 0
    left = ["numbers", "numbers/numbers.bin", "numbers/numbers.bin.part-new"]
    assert everything(data) == [*left, "numbers/numbers.bin.part-new/numbers.bin"]


def test_silent_server(numbers, data, dislab_data, monkeypatch):
    monkeypatch.setattr(download, "SECONDS_OF_SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/numbers.bin"
        publish(monkeypatch, OfficialFile("numbers.bin", address, md5(BODY), len(BODY)))
        said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert f"cannot reach {address} (timed out)" in error_line(said)
    assert everything(data) == []


def test_redirected_file_is_readable_like_any_other(server, numbers, data, dislab_data):
    server.behaviour = "elsewhere"
    assert dislab_data("fetch", "numbers").code == 0
    (data / "other").touch()
    assert numbers.stat().st_mode == (data / "other").stat().st_mode
    assert numbers.read_bytes() == BODY


def test_compressed_file_is_kept_as_published(server, data, dislab_data, monkeypatch):
    """Some servers declare the compression of a .gz file as one of their own doing."""
    server.behaviour, server.body = "x-gzip", gzip.compress(BODY, 1)
    publish(monkeypatch, OfficialFile("numbers.gz", server.address, md5(server.body), len(server.body)))
    assert dislab_data("fetch", "numbers").code == 0
    assert (data / "numbers" / "numbers.gz").read_bytes() == server.body


def test_wrong_bytes_are_not_kept(server, numbers, data, dislab_data, monkeypatch):
    publish(monkeypatch, OfficialFile("numbers.bin", server.address, md5(BODY), len(BODY)))
    server.body = b"<html>log in to the network</html>"
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    line = error_line(said)
    for part in (server.address, md5(BODY)[4:], md5(server.body).removeprefix("md5:"), "not kept"):
        assert part in line
    assert everything(data) == []


def test_connection_cut_without_announced_length(server, numbers, data, dislab_data, monkeypatch):
    server.behaviour = "no length"
    server.body = BODY[:2_000_000]
    assert "was cut after 2 MB of 4 MB; run the same command" in error_line(dislab_data("fetch", "numbers"))
    assert everything(data) == ["numbers", "numbers/numbers.bin.partial"]
    shutil.rmtree(numbers.parent)
    publish(monkeypatch, OfficialFile("numbers.bin", server.address, md5(BODY), len(BODY)))
    server.body = BODY[:2_000_000]
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert (
        f"expected {md5(BODY).replace(':', ' ')}, found {md5(server.body)[4:]}; it was not kept"
        in error_line(said)
    )
    assert everything(data) == []


@pytest.mark.parametrize(("status", "words"), [("404", "404 Not Found"), ("202", "202 Accepted")])
def test_server_that_has_no_file(status, words, server, numbers, data, dislab_data):
    server.behaviour = status
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert f"{server.address} answered {words}: fetch it elsewhere and put it at '{numbers}'" in error_line(
        said
    )
    assert everything(data) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_server_at_all(host, data, dislab_data, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://{host}:{port}/numbers.bin"
    publish(monkeypatch, OfficialFile("numbers.bin", address, md5(BODY), len(BODY)))
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert f"cannot reach {address} (" in error_line(said)
    assert f"put it at '{data / 'numbers' / 'numbers.bin'}'" in error_line(said)
    assert everything(data) == []


def test_ctrl_c_keeps_what_was_received(server, numbers, data, dislab_data, monkeypatch):
    seen = []

    class Interrupting(MegabyteBar):
        def update(self, done):
            seen.extend(everything(data))
            if done >= 2_000_000:
                raise KeyboardInterrupt
            super().update(done)

    with monkeypatch.context() as patch:
        patch.setattr(download, "MegabyteBar", Interrupting)
        said = dislab_data("fetch", "numbers")
    assert said.code == 130
    assert "run the same command to resume" in error_line(said)
    assert "numbers/numbers.bin" not in seen
    assert everything(data) == ["numbers", "numbers/numbers.bin.partial"]
    assert dislab_data("fetch", "numbers").code == 0
    assert numbers.read_bytes() == BODY
    assert server.ranges[1] not in (None, "bytes=0-")
    assert everything(data) == ["numbers", "numbers/numbers.bin"]


def test_wrong_file_is_replaced_only_by_force(server, numbers, data, dislab_data):
    numbers.parent.mkdir()
    numbers.write_bytes(b"mine")
    said = dislab_data("fetch", "numbers")
    assert said.code == 2
    line = error_line(said)
    for part in (f"'{numbers}'", md5(BODY).replace(":", " "), md5(b"mine").removeprefix("md5:"), "--force"):
        assert part in line
    assert (numbers.read_bytes(), server.asked) == (b"mine", 0)
    # While the new file is not whole, the old one stays.
    server.behaviour = "404"
    assert dislab_data("fetch", "numbers", "--force").code == 1
    assert everything(data) == ["numbers", "numbers/numbers.bin"]
    assert numbers.read_bytes() == b"mine"
    server.behaviour = "well"
    assert dislab_data("fetch", "numbers", "--force").code == 0
    assert numbers.read_bytes() == BODY


def test_of_two_fetches_one_downloads(server, numbers, data, capsys, monkeypatch):
    class Slow(MegabyteBar):
        def update(self, done):
            time.sleep(0.05)
            super().update(done)

    monkeypatch.setattr(download, "MegabyteBar", Slow)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(download.fetch, ["numbers", "numbers"]))
    assert capsys.readouterr().out == 2 * f"{numbers}: ok, {md5(BODY).replace(':', ' ')}\n"
    assert server.asked == 1
    assert everything(data) == ["numbers", "numbers/numbers.bin"]
    assert numbers.read_bytes() == BODY


def test_fetch_where_it_cannot_write(server, numbers, data, dislab_data, monkeypatch):
    numbers.parent.write_text("a file in the way")
    said = dislab_data("fetch", "numbers")
    assert (said.code, server.asked) == (1, 0)
    assert f"cannot write '{numbers}': " in error_line(said)
    numbers.parent.unlink()
    usage = namedtuple("Usage", "total used free")(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert "4 MB needed, 1 MB free" in error_line(said)
    assert everything(data) == []


def test_disk_that_fills_up(server, numbers, data):
    """In a process of its own whose files may have a megabyte: then a write fails, as on a full disk."""
    code = (
        "import resource, sys\n"
        "import dislab\n"
        "from dislab.cli import main\n"
        "from dislab.data.official import OfficialDataset, OfficialFile\n"
        "files = (OfficialFile('numbers.bin', *sys.argv[1:], 3_500_000),)\n"
        "dislab.register_dataset('numbers', official=OfficialDataset('numbers', files, '', ''))(print)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "sys.exit(main(['data', 'fetch', 'numbers']))"
    )
    command = [sys.executable, "-c", code, server.address, md5(BODY)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, f"dislab: cannot write '{numbers}': File too large\n")
    assert everything(data) == ["numbers", "numbers/numbers.bin.partial"]


def test_force_replaces_the_plain_file_that_would_be_read_first(server, data, dislab_data, monkeypatch):
    publish(monkeypatch, digits(server.address))
    (data / "digits").write_bytes(b"0124")
    assert dislab_data("fetch", "numbers").code == 2
    server.body = gzip.compress(b"0125", mtime=0)
    said = dislab_data("fetch", "numbers", "--force")
    assert said.code == 1
    expected = digits(server.address).digest.replace(":", " ")
    assert f"gave is wrong: expected {expected}, found" in error_line(said)
    assert everything(data) == ["digits"]
    server.body = gzip.compress(b"0123", 1, mtime=7)  # compressed anew: the content counts
    said = dislab_data("fetch", "numbers", "--force")
    assert said.code == 0
    assert "ok, the published content" in said.out
    assert everything(data) == ["digits.gz"]
    assert gzip.decompress((data / "digits.gz").read_bytes()) == b"0123"


def test_file_of_an_unknown_new_host(server, data, dislab_data, monkeypatch, tmp_path):
    """The hash is that of the old host's file: another file is kept where its own checksum holds."""
    np.savez(tmp_path / "new.npz", images=np.arange(3000, dtype=np.uint8))
    new = (tmp_path / "new.npz").read_bytes()
    published = OfficialFile("new.npz", server.address, md5(b"old"), len(new), True, earlier_host=True)
    publish(monkeypatch, published)
    damaged = bytearray(new)
    damaged[len(new) // 2] ^= 1
    longer = new + bytes(9)
    for wrong in (bytes(damaged), new[:-100], longer, b"<html>"):
        server.body = wrong
        said = dislab_data("fetch", "numbers")
        assert said.code == 1
        assert "not kept" in error_line(said)
        assert everything(data) == []
    server.body = new
    for command in (["fetch", "numbers"], ["verify"]):
        said = dislab_data(*command)
        assert said.code == 0
        for part in ("CRC-32", "not the file of the earlier host", md5(b"old")[4:], md5(new)[4:]):
            assert part in said.out
    (data / "numbers" / "new.npz").write_bytes(b"old")
    assert "ok, md5 " in dislab_data("verify").out
    # A zip whose bytes are not its own: the length is right, the checksum is not.
    (data / "numbers" / "new.npz").write_bytes(damaged)
    assert dislab_data("verify").code == 1
    assert zipfile.is_zipfile(data / "numbers" / "new.npz")
