"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import errno
import itertools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from dislab.errors import DislabError

MOST_SEEDS = 10_000
SEEDS = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?", re.ASCII)  # a number or a range
SHARD = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
LONGEST_NAME = 255  # bytes of a file's name, in all usual file systems


def a_path(text: str | Path) -> Path:
    """Return the path of an option; raise DislabError if no file or folder can have it."""
    reason = "" if str(text) else "it is empty"
    try:
        Path(text).stat()
    except (FileNotFoundError, NotADirectoryError):  # the command says what it needs there
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(text).parts):
            reason = os.strerror(errno.ENAMETOOLONG)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason:
        raise DislabError(f"the path '{text}' cannot be used: {reason}")
    return Path(text)


Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[,NAME…]",
        help="Scores to compute; by default all that apply but slow ones, for which `default` stands. "
        "A score may have a setting of its own: sap@scale=unit.",
    ),
]
MetricProtocol = Annotated[
    str,
    typer.Option(
        metavar="locatello2019|softtpr2024|vansteenkiste2019",
        help="How scores are computed; recorded with every score.",
    ),
]
All = Annotated[bool, typer.Option("--all", help="Print every score, with its 95% interval.")]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        parser=a_path,
        metavar="FILE.py",
        help="A file that registers metrics, models or datasets; may be repeated.",
    ),
]
GroupBy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FACTOR[,FACTOR…]",
        help="Factors whose combined value is a group; by default the dataset's. "
        "Repeated, it makes several groupings, each with a content code of its own.",
    ),
]
HoldOut = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT",
        help="What is kept from training and scored alone: values (object_hue=0,5-7&scale=3), a random part "
        "of all factor combinations (0.2), or all but a correlated band (floor_hue~wall_hue:0.25). "
        "May be repeated.",
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        metavar="tensorboard|wandb",
        help="Show loss terms there while models train; may be repeated. Needs dislab[tensorboard] or "
        "dislab[wandb].",
    ),
]
Pictures = Annotated[
    str,
    typer.Option(
        metavar="png|svg|pdf|none",
        help="svg or pdf: write pictures and figures in this format, too. none: draw no pictures of runs.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        parser=a_path,
        metavar="FOLDER",
        help="Where official dataset files lie; else $DISLAB_DATA, else data in the cache folder.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="auto|official|rendered", help="Published images, or the same grid drawn by dislab."
    ),
]
Factors = Annotated[
    Path | None,
    typer.Option(
        parser=a_path,
        metavar="FILE.csv",
        help="The factors of a folder of images: a column with the images' file names, the others factors.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, …; by default the GPU where there is one. cuda:0,cuda:1 uses several."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Runs at a time, each in a process with its share of the CPU's cores; by default one for "
        "every core (or every OMP_NUM_THREADS cores) that the memory has room for, and on a GPU a single "
        "process.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        metavar="ray[://HOST:PORT]",
        help="Do the runs on a cluster, with OMP_NUM_THREADS threads each (or one); see docs/scale.md.",
    ),
]
PerGpu = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="With --on: N runs at a time on each GPU.")
]
Collect = Annotated[
    bool,
    typer.Option("--collect", help="With --on: nodes that do not share the results folder send their runs."),
]


def make_machine(device, jobs, data_dir, out, on, per_gpu, collect, log, pictures):
    """Return the `Machine` that options describe."""
    from dislab.runs.machine import Machine

    beside = {"data_dir": data_dir, "out": out, "quiet": False, "log": log or (), "pictures": pictures}
    if on is None:
        if per_gpu is not None or collect:
            raise DislabError(f"{'--collect' if collect else '--per-gpu'} is an option of --on ray")
        return Machine.here(device, jobs=jobs, **beside)
    if jobs is not None:
        raise DislabError(
            "--jobs is of this machine: with --on the cluster decides how many runs go at a time"
        )
    return Machine.cluster(on, device, per_gpu, collect, **beside)


def parse_shard(text: str) -> tuple[int, int]:
    """Return the two numbers of a text such as 3/100: which share of how many, from 1 on."""
    match = SHARD.fullmatch(text.strip())
    number, of = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise DislabError(f"--shard is '{text}': write a share and their number, from 1/100 to 100/100")
    return number, of


def parse_scale(text: str) -> float:
    """Return the share of a study's seeds and steps that a text names."""
    with suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise DislabError(f"--scale is '{text}': write a number above 0, and 1 at most, such as 0.01")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that "0,1,2", "0-9", or a mixture of both names."""
    ranges, number = [], 0
    for part in text.split(","):
        match = SEEDS.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise DislabError(
                f"--seeds is '{text}': write whole numbers such as 0,1,2 or a range such as 0-9"
            )
        ranges.append(range(first, last + 1))
        number += last + 1 - first
        if number > MOST_SEEDS or last >= 2**63:
            raise DislabError(f"--seeds is '{text}': at most {MOST_SEEDS} seeds below 2**63")
    return list(dict.fromkeys(itertools.chain(*ranges)))


def parse_settings(texts: list[str] | None) -> dict[str, str]:
    """Return the hyper-parameters that texts NAME=VALUE set."""
    settings = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise DislabError(f"--set is '{text}': write NAME=VALUE, such as --set beta=8")
        settings[name.strip()] = value.strip()
    return settings


def parse_names(text: str | None) -> list[str] | None:
    """Return the names of a text with commas; None where there is no text.

    Raises
    ------
    DislabError : there is no name in it.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise DislabError(f"'{text}' names nothing: write names with commas between them")
    return names or None


def parse_groupings(texts: list[str] | None) -> list[list[str]] | None:
    """Return the groupings, one for each text; None where there is none."""
    return [parse_names(text) for text in texts or []] or None


def load_plugins(paths: list[Path] | None) -> None:
    """Load plug-in files."""
    from dislab.registry import load_plugin

    for path in paths or []:
        load_plugin(path)
