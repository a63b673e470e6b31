"""What the tests of `dislab data` share: a registry of one published dataset, and the command."""

import gzip
import hashlib
from collections import namedtuple
from pathlib import Path

from dislab.cli import main
from dislab.data import official
from dislab.data.official import OfficialDataset, OfficialFile
from dislab.datasets.mnist import gunzipped
from dislab.registry import Entry

Said = namedtuple("Said", "code out err")


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def publish(monkeypatch, *files: OfficialFile) -> None:
    """Let the dataset `numbers` with these files be the only one."""
    dataset = OfficialDataset("numbers", files, "example.org", "CC0")
    monkeypatch.setattr(official, "DATASETS", [Entry("numbers", None, official=dataset)])


def digits(url: str) -> OfficialFile:
    """A compressed file like MNIST's, whose content counts."""
    return OfficialFile(
        "digits.gz",
        url,
        md5(gzip.compress(b"0123", mtime=0)),
        24,
        content_md5=hashlib.md5(b"0123").hexdigest(),
        content=gunzipped,
        also=("digits",),
    )


def said_by(capsys, *arguments) -> Said:
    """Run `dislab data …` in this process."""
    capsys.readouterr()
    code = main(["data", *map(str, arguments)])
    return Said(code, *capsys.readouterr())


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def error_line(said: Said) -> str:
    """The only line that begins with dislab:, the last one."""
    lines = said.err.splitlines()
    assert [line for line in lines if line.startswith("dislab:")] == lines[-1:]
    return lines[-1]
