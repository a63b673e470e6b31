"""What a case of malformed input is, and the values that the families share."""

from __future__ import annotations

import os
import random
import shutil
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dislab.benchmarks.robustness import bars

REFUSED, FAILED, DONE = 2, 1, 0
ANY = (DONE, FAILED, REFUSED)
QUICK = ["run", "--model", "vae", "--steps", "2", *bars.SMALL]
HUGE = "9" * 400
# Whole numbers, or nearly so, as text. Those that some options rightly take are the first.
NUMBERS = (
    "0",
    "-0",
    "+5",
    " 5 ",
    "1_0",
    "\u0663",
    "3",
    "-1",
    "-5",
    str(2**63),
    str(2**64),
    str(-(2**63)),
    HUGE,
)
NUMBERS += (
    f"-{HUGE}",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e400",
    "1e3",
    "0.5",
    "\u00bd",
    "\u00b2",
    "0x10",
    "5\n",
    "--",
)
NUMBERS += ("1,5", "five", "", " ", "None", "True", "[]", "1" * 5000)
PATHS = ("a" * 256, "a" * 5000, "/".join(["b" * 200] * 30), "x\ny", "x\x1b[31my", "nul\0l", "loop", "loop/x")
PATHS += (
    "fifo",
    "folder",
    "nowhere/deep/er",
    ".",
    "file.txt",
    "file.txt/x",
    "dangling",
    "/dev/null",
    "/dev/zero",
)
PATHS += (
    "/dev/full",
    "/proc/self/mem",
    "~nobody/x",
    "\udcff\udcfe",
    "\u202egnp.exe",
    "\u00e9\u0301",
    "-",
    "",
    " ",
)
PATHS += ("*", "con:", "x\r\ny", "\u2028", "\u0085", "a/../../b", "folder/", "//", "./", "x" * 255, "x" * 250)
NAMES = (
    "mgi",
    "MIG",
    "mig,",
    ",",
    ",,mig",
    "mig sap",
    "mig\nsap",
    "mig@",
    "mig@scale",
    "mig@scale=",
    "mig@scale=x",
)
NAMES += (
    "mig@scale=unit@scale=unit",
    "mig@num_train=-1",
    "mig@num_train=nan",
    "@",
    "default,default",
    "default@x=1",
)
NAMES += (
    "vea",
    "VAE",
    "va\u0435",
    "__class__",
    "../../evil",
    "/evil",
    "bar",
    "barz",
    "bars/",
    "quik",
    "qick",
    "papper",
)
NAMES += (
    "\x1b[2J",
    "a\0b",
    "x" * 100_000,
    "",
    " ",
    "\u202e",
    "\udcff",
    "cuda:99",
    "tpu",
    "meta",
    "privateuseone",
)
NAMES += (
    "cpu:7",
    "cpu ",
    "xla",
    "mps",
    "fp16",
    "web",
    "table,csv",
    "xml",
    "mlvae_svi,vae",
    "sap@scale=unit,mgi",
)
SETTINGS = (
    "beta",
    "=",
    "=1",
    "latents=",
    "latents=ten",
    "latents=-1",
    "latents=0",
    "latents=1e9",
    "latents=nan",
)
SETTINGS += (
    f"latents={HUGE}",
    f"latents={2**63}",
    "latents=2.5",
    "latnets=5",
    "network=mlq",
    "network=",
    "network=mlp@",
)
SETTINGS += (
    "network=conv@x=1",
    "network=mlp@hidden=-1",
    "likelihood=poisson",
    "likelihood=\n",
    "steps=5",
    "seed=1",
)
SETTINGS += (
    "groupings=2",
    "group_size=17",
    "__class__=1",
    "self=1",
    "image_shape=3",
    "a=b=c",
    "\n=1",
    "latents=\u0663",
)
HOLD_OUTS = (
    "shape=9",
    "shape=",
    "=0",
    "shape",
    "shap=0",
    "shape=0-9",
    "shape=2-0",
    "shape=-1",
    "shape=0-3",
    "0",
    "1",
)
HOLD_OUTS += (
    "1.5",
    "nan",
    "-0.2",
    "1e-9",
    "0.99999",
    "shape~size",
    "shape~shape:0.2",
    "shape~size:0",
    "shape~size:nan",
)
HOLD_OUTS += (
    "shape~size:9",
    "&",
    "shape=0&shape=1",
    "shape=0&",
    f"shape={HUGE}",
    f"shape=0-{HUGE}",
    "shape=\u0663",
    "",
)
SEEDS = (
    "0-9999,10000-19999",
    f"0-{2**63}",
    str(2**63),
    HUGE,
    f"0-{HUGE}",
    "5-3",
    "0-",
    "-5",
    "1,,2",
    "a-b",
    "0-1-2",
    "",
)
SEEDS += (
    "0 - 1",
    "\u0663",
    "\u00b2",
    "1.0",
    "nan",
    "0x1",
    ",",
    "-",
    "--",
    "1e3",
    "0\n",
    "0-100000",
    "1;2",
    " ",
    "0,-1",
)
TEXTS = (*NAMES, *NUMBERS, *PATHS, *SETTINGS, *HOLD_OUTS)


@dataclass
class Case:
    """A command with malformed input, and what is expected of it.

    Attributes
    ----------
    arguments : of dislab.
    expect : the exit codes that are right.
    prepare : writes what is malformed into the working folder, which has bars.py and study.toml.
    about : what is malformed, in words.
    writes : whether the command may write outside the results folder, because it was told to.
    needs_runs : whether the working folder has `results` with finished runs.
    check : called after the command with the working folder, the exit code, what was printed, and the
        messages; returns what is wrong, or "".
    environment : variables to add.
    """

    arguments: Sequence[str]
    expect: Sequence[int] = (REFUSED,)
    prepare: Callable[[Path], None] = lambda folder: None
    about: str = ""
    writes: bool = False
    needs_runs: bool = False
    check: Callable[[Path, int, str, str], str] | None = None
    environment: dict[str, str] | None = None


def furnish_paths(folder: Path) -> None:
    """Make what PATHS names: a loop, a pipe, a folder, a file, a link to nothing."""
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "file.txt").write_text("text\n")
    (folder / "dangling").symlink_to("not_there")


def random_text(draw: random.Random) -> str:
    """Return a short text of odd characters, or a near miss of another."""
    if draw.random() < 0.5:
        text = list(draw.choice(TEXTS)[:60])
        for _ in range(draw.randint(1, 3)):
            place = draw.randint(0, len(text))
            text[place : place + draw.randint(0, 1)] = [
                draw.choice(string.printable + "\u00e9\u0663\u202e\ud800")
            ]
        return "".join(text)
    return "".join(
        draw.choice(string.printable + "\u00e9\u2028\U0001f600") for _ in range(draw.randint(0, 20))
    )


# Damages of a file's bytes ---------------------------------------------------------------------------


def flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 8, 100))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(max(1, len(content)))]


def zero(content: bytes, draw: random.Random) -> bytes:
    begin = draw.randrange(max(1, len(content)))
    length = min(len(content) - begin, draw.choice((1, 16, 4096, len(content))))
    return content[:begin] + b"\0" * length + content[begin + length :]


def insert(content: bytes, draw: random.Random) -> bytes:
    begin = draw.randrange(len(content) + 1)
    return content[:begin] + draw.randbytes(draw.choice((1, 7, 512))) + content[begin:]


def double(content: bytes, draw: random.Random) -> bytes:
    return content + content


def nothing(content: bytes, draw: random.Random) -> bytes:
    return b""


def noise(content: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((1, 100, 5000)))


DAMAGES = (flip, cut, zero, insert, double, nothing, noise)
REPLACEMENTS = ("a folder", "a loop", "a link to nothing", "nothing there")


def damage(path: Path, how, draw: random.Random) -> None:
    """Damage a file: `how` is one of DAMAGES or of REPLACEMENTS."""
    if callable(how):
        content = how(path.read_bytes(), draw)
        path.unlink()  # it may be a hard link
        path.write_bytes(content)
        return
    path.unlink()
    if how == "a folder":
        path.mkdir()
        (path / "file.txt").write_text("text\n")
    elif how == "a loop":
        path.symlink_to(path.name)
    elif how == "a link to nothing":
        path.symlink_to("not_there")


def words(how) -> str:
    return how.__name__ if callable(how) else how


def copy_linked(source: Path, target: Path) -> None:
    """Copy a folder by hard links: nothing but `damage` may change its files."""
    shutil.copytree(source, target, copy_function=os.link)
