"""`dislab data`: downloads from a server on the loopback address, hashes, what is listed, the picture."""

import contextlib
import gzip
import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from dislab.cli import main
from dislab.data import dataset as base
from dislab.data import official as files
from dislab.data.dataset import Dataset
from dislab.data.official import OfficialDataset, OfficialFile
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import DATASETS
from dislab.report import dataset_picture as show

BODY = np.random.default_rng(0).bytes(3_500_000)  # more than one chunk, and several megabytes of progress


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


class Server:
    """Serves `body` on the loopback address, as `behaviour` says, and counts the whole files asked for."""

    def __init__(self):
        self.body, self.behaviour, self.cut_after, self.asked = BODY, "well", 2_200_000, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                assert "Range" not in self.headers
                if outer.behaviour == "elsewhere" and self.path != "/elsewhere":
                    self.send_response(302)
                    self.send_header("Location", "/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                outer.asked += 1
                if outer.behaviour in ("404", "202"):
                    self.send_response(int(outer.behaviour))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                if outer.behaviour != "no length":
                    self.send_header("Content-Length", str(len(outer.body)))
                if outer.behaviour == "x-gzip":
                    self.send_header("Content-Encoding", "x-gzip")
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(outer.body[: outer.cut_after if outer.behaviour == "cut" else None])

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/numbers.bin"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


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
def numbers(server, data, monkeypatch):
    """A dataset `numbers` with one file on the server; gives the place where the file belongs."""
    publish(monkeypatch, OfficialFile("numbers.bin", server.address, md5(BODY), len(BODY)))
    return data / "numbers" / "numbers.bin"


def publish(monkeypatch, *published: OfficialFile, name: str = "numbers") -> None:
    dataset = OfficialDataset(name, published, "example.org", "CC0")
    monkeypatch.setattr(files, "OFFICIAL", {name: dataset})


Said = namedtuple("Said", "code out err")


@pytest.fixture
def dislab_data(capsys):
    """Run `dislab data …` in this process."""

    def command(*arguments) -> Said:
        capsys.readouterr()
        code = main(["data", *map(str, arguments)])
        return Said(code, *capsys.readouterr())

    return command


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def error_line(said: Said) -> str:
    """The only line that begins with dislab:, the last one."""
    lines = said.err.splitlines()
    assert [line for line in lines if line.startswith("dislab:")] == lines[-1:]
    return lines[-1]


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
    publish(monkeypatch, OfficialFile("numbers.bin", server.address, digest, 0))
    (data / "numbers.bin").write_bytes(BODY)
    said = dislab_data("fetch", "numbers")
    assert (said.code, said.out.startswith(f"{data / 'numbers.bin'}: already there")) == (0, True)
    (data / "numbers.bin").unlink()
    assert dislab_data("fetch", "numbers").code == 0
    assert everything(data) == ["numbers", "numbers/numbers.bin"]


@pytest.mark.parametrize("length", ["well", "no length"])
def test_cut_connection_leaves_nothing_and_starts_anew(length, server, numbers, data, dislab_data):
    server.behaviour = "cut"
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    line = error_line(said)
    assert f"the connection to {server.address} was cut after 2 MB of 4 MB; nothing was kept" in line
    assert everything(data) == []
    server.behaviour = length
    assert dislab_data("fetch", "numbers").code == 0
    assert server.asked == 2
    assert numbers.read_bytes() == BODY
    assert everything(data) == ["numbers", "numbers/numbers.bin"]


def test_silent_server(numbers, data, dislab_data, monkeypatch):
    monkeypatch.setattr(files, "SECONDS_OF_SILENCE", 0.2)
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


def test_wrong_bytes_are_not_kept(server, numbers, data, dislab_data):
    server.body = b"<html>log in to the network</html>"
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    line = error_line(said)
    for part in (server.address, md5(BODY), md5(server.body).removeprefix("md5:"), "not kept"):
        assert part in line
    assert everything(data) == []


def test_connection_cut_without_announced_length(server, numbers, data, dislab_data):
    server.behaviour = "no length"
    server.body = BODY[:2_000_000]
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert f"expected {md5(BODY)} but got {md5(server.body)[4:]}; it was not kept" in error_line(said)
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


def test_ctrl_c_leaves_nothing_and_starts_anew(server, numbers, data, dislab_data, monkeypatch):
    seen = []

    class Interrupting(files.Bar):
        def update(self, done, note=""):
            seen.extend(everything(data))
            if done == 2:
                raise KeyboardInterrupt
            super().update(done, note)

    with monkeypatch.context() as patch:
        patch.setattr(files, "Bar", Interrupting)
        said = dislab_data("fetch", "numbers")
    assert said.code == 130
    assert any(name.startswith("numbers/numbers.bin.part-") for name in seen), "it was under way"
    assert "numbers/numbers.bin" not in seen
    assert everything(data) == []
    assert dislab_data("fetch", "numbers").code == 0
    assert numbers.read_bytes() == BODY


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


def test_two_fetches_at_a_time(server, numbers, data, dislab_data, monkeypatch):
    told = []

    class Nesting(files.Bar):
        def update(self, done, note=""):
            if done == 1 and not told:
                told.append("began")
                files.fetch("numbers", tell=told.append)
            super().update(done, note)

    monkeypatch.setattr(files, "Bar", Nesting)
    assert dislab_data("fetch", "numbers").code == 0
    assert told == ["began", f"{numbers}: ok, {md5(BODY).replace(':', ' ')}"]
    assert server.asked == 2
    assert everything(data) == ["numbers", "numbers/numbers.bin"]
    assert numbers.read_bytes() == BODY


def test_fetch_where_it_cannot_write(server, numbers, data, dislab_data, monkeypatch):
    numbers.parent.write_text("a file in the way")
    said = dislab_data("fetch", "numbers")
    assert (said.code, server.asked) == (1, 0)
    assert f"cannot write '{numbers}': " in error_line(said)
    numbers.parent.unlink()
    usage = namedtuple("Usage", "total used free")(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    said = dislab_data("fetch", "numbers")
    assert said.code == 1
    assert "4 MB needed, 1 MB free" in error_line(said)
    assert everything(data) == []


def test_disk_that_fills_up(server, numbers, data):
    """In a process of its own whose files may have a megabyte: then a write fails, as on a full disk."""
    code = (
        "import resource, sys\n"
        "from dislab.datasets import files\n"
        "from dislab.cli import main\n"
        "file = files.OfficialFile('numbers.bin', *sys.argv[1:], 10)\n"
        "files.OFFICIAL = {'numbers': files.OfficialDataset('numbers', (file,), '', '')}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "sys.exit(main(['data', 'fetch', 'numbers']))"
    )
    command = [sys.executable, "-c", code, server.address, md5(BODY)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, f"dislab: cannot write '{numbers}': File too large\n")
    assert everything(data) == []


def test_names_and_folders(data, dislab_data):
    assert "did you mean 'shapes3d'" in error_line(dislab_data("fetch", "shape3d"))
    for command in (["fetch", "shapes3d"], ["verify"], ["list"]):
        said = dislab_data(*command, "--data-dir", data / "nowhere")
        assert said.code == 2
        assert "does not exist" in error_line(said)
    said = dislab_data("verify", "mpi3d")
    assert "mpi3d means mpi3d_toy" in said.err
    assert said.out == "mpi3d_toy: mpi3d_toy.npz: not present\n"


def digits(server) -> OfficialFile:
    """A compressed file like MNIST's, whose content counts."""
    return OfficialFile(
        "digits.gz",
        server.address,
        md5(gzip.compress(b"0123", mtime=0)),
        24,
        content_md5=hashlib.md5(b"0123").hexdigest(),
        content=files.gunzipped,
        also=("digits",),
    )


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("digits.gz", gzip.compress(b"0123", mtime=0), 0, "ok, md5 "),
        ("digits.gz", gzip.compress(b"0123", 1, mtime=7), 0, "ok, the published content"),
        ("digits", b"0123", 0, "ok, the published content"),
        ("digits.gz", gzip.compress(b"0124"), 1, "wrong: expected md5 "),
        ("digits", b"0124", 1, "wrong: expected md5 "),
        ("digits.gz", gzip.compress(b"0123")[:-6], 1, "wrong: expected md5 "),
        (None, None, 0, "not present"),
    ],
)
def test_verify_looks_at_the_content(name, content, code, says, server, data, dislab_data, monkeypatch):
    publish(monkeypatch, digits(server))
    if name:
        (data / name).write_bytes(content)
    said = dislab_data("verify", "numbers")
    assert said.code == code
    assert says in said.out
    assert said.out.count("\n") == 1
    if code:
        assert error_line(said) == "dislab: 1 file is wrong"
        assert f"found {hashlib.md5(content).hexdigest()}" in said.out


def test_verify_reports_all_files(server, data, dislab_data, monkeypatch):
    one = OfficialFile("one", server.address, md5(b"1"), 1)
    two, three = replace(one, name="two", digest=md5(b"2")), replace(one, name="three", digest=md5(b"3"))
    publish(monkeypatch, one, two, three)
    (data / "one").write_bytes(b"1")
    (data / "three").write_bytes(b"4")
    said = dislab_data("verify")
    assert said.code == 1
    first, second, third = said.out.splitlines()
    assert first == f"numbers: {data / 'one'}: ok, {md5(b'1').replace(':', ' ')}"
    assert second == "numbers: two: not present"
    expected, found = (md5(text).removeprefix("md5:") for text in (b"3", b"4"))
    assert third == f"numbers: {data / 'three'}: wrong: expected md5 {expected}, found {found}"


def test_force_replaces_the_plain_file_that_would_be_read_first(server, data, dislab_data, monkeypatch):
    publish(monkeypatch, digits(server))
    (data / "digits").write_bytes(b"0124")
    assert dislab_data("fetch", "numbers").code == 2
    server.body = gzip.compress(b"0125", mtime=0)
    said = dislab_data("fetch", "numbers", "--force")
    assert said.code == 1
    assert f"gave is wrong: expected {digits(server).digest.replace(':', ' ')}, found" in error_line(said)
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


def test_list_says_what_is_there(data, dislab_data):
    def row(name):
        said = dislab_data("list")
        assert (said.code, said.err) == (0, "")
        assert f"data folder: {data} " in said.out
        return next(line for line in said.out.splitlines() if line.startswith(f"{name} "))

    assert "not present" in row("shapes3d")
    assert "embedded drawing" in row("shapes3d")
    assert "nothing: fetch it" in row("mnist")
    drawn = {name: row(name).endswith("yes") for name in files.OFFICIAL if name.startswith("mpi3d")}
    assert drawn == {"mpi3d_toy": True, "mpi3d_realistic": False, "mpi3d_real": False}
    assert "268 MB" in row("shapes3d")
    assert "Apache-2.0" in row("shapes3d")
    assert "shapes3d: https://github.com/google-deepmind/3d-shapes\n" in dislab_data("list").out
    (data / "3dshapes.h5").write_bytes(b"the beginning")
    assert "wrong size" in row("shapes3d")
    with (data / "3dshapes.h5").open("wb") as file:
        file.truncate(267_573_662)  # sparse: it takes no space
    assert "present" in row("shapes3d").replace("not present", "")
    assert "official files" in row("shapes3d")
    (data / "mnist").mkdir()
    (data / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"")
    assert "1 of 4 present" in row("mnist")
    assert "nothing: fetch it" in row("mnist")
    (data / "cars3d" / "data" / "cars").mkdir(parents=True)
    (data / "cars3d" / "data" / "cars" / "car_001_mesh.mat").write_bytes(b"")
    assert "unpacked" in row("cars3d")
    said = dislab_data("list").out
    assert f"shapes3d: {data / '3dshapes.h5'}\n" in said
    assert f"cars3d: {data / 'cars3d' / 'data' / 'cars'}\n" in said
    assert "no published hash" not in said
    assert "there is no published hash" in dislab_data("verify", "cars3d").out


def test_table_of_files_agrees_with_the_datasets():
    for entry in DATASETS:
        if not entry.make.__module__.startswith("dislab.datasets."):
            continue  # a plug-in of another test
        if entry.name == "mpi3d":
            continue  # another name of mpi3d_toy
        names = [file.name for file in files.OFFICIAL[entry.name].files]
        module = sys.modules[entry.make.__module__]
        if hasattr(module, "OFFICIAL_FILES") and isinstance(module.OFFICIAL_FILES, tuple):
            assert names == list(module.OFFICIAL_FILES)
    for name, dataset in files.OFFICIAL.items():
        assert name == dataset.name
        for file in dataset.files:
            algorithm, _, digest = file.digest.partition(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[algorithm]
            assert set(digest + file.content_md5) <= set("0123456789abcdef")
            assert len(file.content_md5) in ((32,) if file.content else (0,))
            assert file.url.startswith("https://") or name == "cars3d"


def test_folders_are_those_that_datasets_are_read_from(tmp_path, monkeypatch):
    (tmp_path / "given" / "one").mkdir(parents=True)
    for path in ("given/a", "given/one/a", "given/one/b", "given/c"):
        (tmp_path / path).write_text(path)
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    assert files.data_folder() == base.data_folder() == tmp_path / "cache" / "data"
    monkeypatch.setenv("DISLAB_DATA", str(tmp_path / "set"))
    with pytest.raises(DislabError, match=r"set' \(\$DISLAB_DATA\) does not exist"):
        files.data_folder()
    (tmp_path / "set").mkdir()
    assert files.data_folder() == base.data_folder() == tmp_path / "set"
    for names in (["a"], ["b", "a"], ["c", "a"], ["d"]):
        found = files.find_file("one", names, tmp_path / "given")
        assert found == base.find_file("one", names, tmp_path / "given")
        assert (found is None) == (names == ["d"])
    with pytest.raises(DislabError, match="does not exist"):
        files.data_folder(tmp_path / "nowhere")


def test_files_alone_need_no_torch():
    """(What the package that they lie in imports is its own matter.)"""
    code = (
        "import sys, types, importlib.util as u\n"
        "package = types.ModuleType('dislab.datasets'); package.__path__ = []\n"
        "sys.modules['dislab.datasets'] = package\n"
        f"spec = u.spec_from_file_location('dislab.datasets.files', {files.__file__!r})\n"
        "module = sys.modules[spec.name] = u.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "from dislab.cli import main\n"
        "code = main(['data', 'list']) or main(['data', 'verify', 'dsprites'])\n"
        "heavy = {'torch', 'matplotlib', 'pooch', 'requests'} & set(sys.modules)\n"
        "sys.exit(code or ', '.join(heavy) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif("DISLAB_DATA" not in os.environ, reason="DISLAB_DATA is not set: no real files")
@pytest.mark.parametrize("name", ["mnist", "olivetti"])
def test_real_files_are_right(name, dislab_data):
    said = dislab_data("verify", name)
    if "not present" in said.out:
        pytest.skip(f"the files of {name} are not in $DISLAB_DATA")
    assert said.code == 0
    assert said.out.count(": ok, ") == len(files.OFFICIAL[name].files)


def grey(space: FactorSpace, side: int = 64) -> Dataset:
    """A dataset in which a constant image says its own row."""

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return rows.to(torch.uint8)[:, None, None, None].expand(-1, 1, side, side)

    return Dataset("grey", "own", space, (1, side, side), draw, [space.names[0]])


def sheet_rows(dataset: Dataset, path: Path) -> list[list[int]]:
    """The grey levels of the tiles in the written picture, row by row, read at the places that follow from
    its layout; a tile is where a square of 128 pixels has one level that is not the paper's."""
    show.factor_picture(dataset).savefig(path, format="png")
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    assert (pixels == pixels[..., :1]).all()
    found, y = [], show.TITLE_HEIGHT
    while y + 128 <= pixels.shape[0]:
        squares = [
            pixels[y : y + 128, x : x + 128, 0] for x in range(show.MARGIN, pixels.shape[1] - 127, 134)
        ]
        assert all((square == square[0, 0]).all() for square in squares), (
            "tiles lie where they should, unblurred"
        )
        found.append([int(square[0, 0]) for square in squares if square[0, 0] != 255])
        y += 134 + (show.LABEL_HEIGHT if dataset.space.is_grid else 0)
    return found


def test_picture_moves_each_factor_alone(tmp_path):
    space = FactorSpace(("a", "b", "c"), (2, 3, 25))
    first, second, third = sheet_rows(grey(space), tmp_path / "grid.png")
    # Held: 1/3 of 0..1 is 0, half of 0..2 is 1, two thirds of 0..24 are 16; the row is (3 a + b) 25 + c.
    assert first == [(3 * a + 1) * 25 + 16 for a in range(2)]
    assert second == [b * 25 + 16 for b in range(3)]
    assert len(third) == 12
    assert [row - 25 for row in third] == [0, 2, 4, 7, 9, 11, 13, 15, 17, 20, 22, 24]


def test_picture_without_a_grid_shows_images_of_each_value(tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (200, 1))
    values[:2] = 7  # a value with two images; 3 to 6 have none
    found = sheet_rows(grey(FactorSpace(("digit",), (8,), values)), tmp_path / "values.png")
    assert len(found) == 4
    for value, rows in zip((0, 1, 2, 7), found, strict=True):
        assert (values[rows, 0] == value).all()
        assert len(set(rows)) == len(rows) == min(show.MOST_IMAGES, (values == value).sum())


def test_picture_enlarges_small_and_coloured_images():
    space = FactorSpace(("hue",), (4,))

    def draw(rows: torch.Tensor) -> torch.Tensor:
        images = torch.zeros(len(rows), 3, 20, 20, dtype=torch.uint8)
        images[torch.arange(len(rows)), rows % 3] = 200
        return images

    figure = show.factor_picture(Dataset("hues", "own", space, (3, 20, 20), draw, ["hue"]))
    (picture,) = figure.images
    tile = picture.get_array()[show.TITLE_HEIGHT :, show.MARGIN :][:120, :120]
    assert (tile == [200, 0, 0]).all(), "six times as large"
    texts = [text.get_text() for text in figure.texts]
    assert "hue\n4 values" in texts
    assert {"0", "1", "2", "3"} <= set(texts)


def test_show_command(tmp_path, data, dislab_data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "tones.py"
    plugin.write_text(
        "import dislab, torch\n"
        "@dislab.register_dataset('tones')\n"
        "def tones(source, data_dir, device):\n"
        "    space = dislab.FactorSpace(('tone', 'height'), (4, 3))\n"
        "    draw = lambda rows: rows.to(torch.uint8)[:, None, None, None].expand(-1, 1, 64, 64)\n"
        "    return dislab.Dataset('tones', 'rendered', space, (1, 64, 64), draw, ['tone'])\n"
    )
    said = dislab_data("show", "tones", "--plugin", plugin)
    assert (said.code, said.out) == (0, "tones-rendered.png\n")
    assert imread("tones-rendered.png").ndim == 3
    said = dislab_data("show", "tones", "--plugin", plugin, "--out", tmp_path / "a.png")
    assert said.out == f"{tmp_path / 'a.png'}\n"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "tones-rendered.png").read_bytes()
    for out, words in (("a.jpg", "a .png file"), ("nowhere/a.png", "'nowhere' does not exist")):
        said = dislab_data("show", "tones", "--out", out)
        assert said.code == 2
        assert words in error_line(said)
    assert "did you mean 'tones'" in error_line(dislab_data("show", "tone"))
    assert "put it at" in error_line(dislab_data("show", "mnist"))


@pytest.mark.parametrize("command", ["list", "fetch", "verify", "show"])
def test_help(command, dislab_data):
    said = dislab_data(command, "--help")
    assert (said.code, said.err) == (0, "")
    assert "--data-dir" in said.out
