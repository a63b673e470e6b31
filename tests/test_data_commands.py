"""`dislab data list`, `verify` and `show`: what is there, whether it is right, and the picture."""

import functools
import gzip
import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from matplotlib.image import imread
from published import digits, error_line, md5, publish, said_by

from dislab.data import official as files
from dislab.data.official import OfficialFile
from dislab.datasets import mnist
from dislab.errors import DislabError
from dislab.registry import DATASETS

URL = "http://127.0.0.1/nobody-asks"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of the test's own."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("DISLAB_DATA", str(folder))
    return folder


@pytest.fixture
def dislab_data(capsys):
    return functools.partial(said_by, capsys)


def test_names_and_folders(data, dislab_data):
    assert "did you mean 'shapes3d'" in error_line(dislab_data("fetch", "shape3d"))
    for command in (["fetch", "shapes3d"], ["verify"], ["list"]):
        said = dislab_data(*command, "--data-dir", data / "nowhere")
        assert said.code == 2
        assert "does not exist" in error_line(said)
    said = dislab_data("verify", "mpi3d")
    assert "mpi3d means mpi3d_toy" in said.err
    assert said.out == "mpi3d_toy: mpi3d_toy.npz: not present\n"


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("digits.gz", gzip.compress(b"0123", mtime=0), 0, "ok, md5 "),
        ("digits.gz", gzip.compress(b"0123", 1, mtime=7), 0, "ok, the published content"),
        ("digits", b"0123", 0, "ok, the published content"),
        ("digits.gz", gzip.compress(b"0124", mtime=0), 1, "wrong: expected md5 "),
        ("digits", b"0124", 1, "wrong: expected md5 "),
        ("digits.gz", gzip.compress(b"0123", mtime=0)[:-6], 1, "wrong: expected md5 "),
        (None, None, 0, "not present"),
    ],
)
def test_verify_looks_at_the_content(name, content, code, says, data, dislab_data, monkeypatch):
    publish(monkeypatch, digits(URL))
    if name:
        (data / name).write_bytes(content)
    said = dislab_data("verify", "numbers")
    assert said.code == code
    assert says in said.out
    assert said.out.count("\n") == 1
    if code:
        assert error_line(said) == "dislab: 1 file is wrong"
        assert f"found {hashlib.md5(content).hexdigest()}" in said.out


def test_verify_reports_all_files(data, dislab_data, monkeypatch):
    one = OfficialFile("one", URL, md5(b"1"), 1)
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


def test_a_file_without_a_published_hash_is_got_by_hand(data, dislab_data, monkeypatch):
    page = "https://example.org/page"
    publish(monkeypatch, OfficialFile("one", page, "", 0, by_hand=True))
    target = data / "numbers" / "one"
    said = dislab_data("fetch", "numbers")
    assert said.code == 2
    expected = f"dislab: one cannot be fetched: get it at {page} and put it at '{target}'"
    assert error_line(said) == expected and not target.parent.exists()
    (data / "one").write_bytes(b"1")
    digest = hashlib.sha256(b"1").hexdigest()
    text = f"there is no published hash to hold it against, sha256 {digest}"
    for command in ("verify", "fetch"):
        said = dislab_data(command, "numbers")
        assert (said.code, text in said.out) == (0, True)
    (dataset,) = files.published().values()
    first, words = files.unpublished(dataset)
    assert words == f"'{data / 'one'}' is not known to be the published file ({text})"
    (data / "one").write_bytes(b"2")
    assert files.unpublished(dataset)[0] not in (first, "")


def test_list_says_what_is_there(data, dislab_data):
    def row(name):
        said = dislab_data("list")
        assert (said.code, said.err) == (0, "")
        assert f"data folder: {data} " in said.out
        return next(line for line in said.out.splitlines() if line.startswith(f"{name} "))

    assert "not present" in row("shapes3d")
    assert "embedded drawing" in row("shapes3d")
    assert "nothing: fetch it" in row("mnist")
    drawn = {name: row(name).endswith("yes") for name in files.published() if name.startswith("mpi3d")}
    assert drawn == {
        "mpi3d_toy": True,
        "mpi3d_realistic": False,
        "mpi3d_real": False,
        "mpi3d_real_complex": False,
    }
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
    # The sprites of scream_dsprites can be drawn, the picture behind them cannot.
    assert "not present" in row("scream_dsprites") and "nothing: fetch it" in row("scream_dsprites")
    (data / "scream.jpg").write_bytes(b"")
    assert "1 of 2 present" in row("scream_dsprites") and "embedded drawing" in row("scream_dsprites")
    said = dislab_data("list").out
    assert f"shapes3d: {data / '3dshapes.h5'}\n" in said
    assert f"cars3d: {data / 'cars3d' / 'data' / 'cars'}\n" in said
    assert "no published hash" not in said
    assert "there is no published hash" in dislab_data("verify", "cars3d").out


def test_published_digests_have_the_right_form():
    assert {entry.name for entry in DATASETS if entry.make.__module__.startswith("dislab.datasets.")} == {
        *files.published(),
        "mpi3d",
        "abstract_dsprites",
        "color_dsprites",
        "noisy_dsprites",
    }
    for name, dataset in files.published().items():
        assert name == dataset.name
        assert dataset.licence and dataset.page.startswith("http")
        for file in dataset.files:
            algorithm, _, digest = file.digest.partition(":")
            # Without a hash nothing could tell a download from the page of an error.
            assert len(digest) == {"md5": 32, "sha256": 64, "": 0}[algorithm]
            assert digest or file.by_hand
            assert set(digest + file.content_md5) <= set("0123456789abcdef")
            assert len(file.content_md5) in ((32,) if file.content else (0,))
            assert file.url.startswith("https://") or name == "cars3d"


def test_folders_of_official_files(tmp_path, monkeypatch):
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    assert files.data_folder() == tmp_path / "cache" / "data"
    monkeypatch.setenv("DISLAB_DATA", str(tmp_path / "set"))
    with pytest.raises(DislabError, match=r"set' \(\$DISLAB_DATA\) does not exist"):
        files.data_folder()
    (tmp_path / "set").mkdir()
    assert files.data_folder() == tmp_path / "set"
    with pytest.raises(DislabError, match="does not exist"):
        files.data_folder(tmp_path / "nowhere")
    # The plain file before the compressed one, and the sub-folder before the data folder itself.
    (tmp_path / "given" / "mnist").mkdir(parents=True)
    file = mnist.OFFICIAL.files[0]
    assert files.locate(mnist.OFFICIAL, file, tmp_path / "given") is None
    for path in (file.name, f"mnist/{file.name}", file.also[0], f"mnist/{file.also[0]}"):
        (tmp_path / "given" / path).touch()
        assert files.locate(mnist.OFFICIAL, file, tmp_path / "given") == tmp_path / "given" / path


def test_what_looks_at_files_needs_no_torch():
    code = (
        "import sys\n"
        "from dislab.cli import main\n"
        "code = main(['data', 'list']) or main(['data', 'verify', 'dsprites'])\n"
        "heavy = {'torch', 'matplotlib', 'pooch', 'requests', 'scipy', 'h5py', 'pandas'} & set(sys.modules)\n"
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
    assert said.out.count(": ok, ") == len(files.published()[name].files)


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
