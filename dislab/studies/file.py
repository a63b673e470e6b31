"""The file of a study: its keys, and the runs that it names."""

from __future__ import annotations

import importlib.resources
import itertools
import math
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dislab.errors import DislabError
from dislab.files import read_text
from dislab.registry import unknown_name

MOST_BYTES = 2**18  # of a study file
MOST_DOTS = 1000  # in a line of it: Python's reader takes minutes for a key of many parts
MOST_RUNS = 100_000  # of a study


def _is_text(value) -> bool:
    return isinstance(value, str) and value != ""


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value, is_item: Callable) -> bool:
    return isinstance(value, list) and value != [] and all(map(is_item, value))


def _is_name_or_names(value) -> bool:
    return _is_text(value) or _is_list(value, _is_text)


def _is_seeds(value) -> bool:
    return _is_list(value, lambda seed: _is_whole(seed) and 0 <= seed < 2**63)


def _is_groupings(value) -> bool:
    return _is_name_or_names(value) or _is_list(value, lambda names: _is_list(names, _is_text))


def _is_settings(value) -> bool:
    def is_value(item) -> bool:
        return isinstance(item, (str, int, float))

    return isinstance(value, dict) and all(is_value(v) or _is_list(v, is_value) for v in value.values())


# The keys of a study file: what a value must be, and the words for it.
TEXT, NAMES = (_is_text, "a text"), (lambda value: _is_list(value, _is_text), "a list of names")
NAME_OR_NAMES = (_is_name_or_names, "a name or a list of names")
TRAINING = {  # in the study, or in one of its tables
    "protocol": TEXT,
    "steps": (_is_whole, "a whole number"),
    "batch_size": (_is_whole, "a whole number"),
    "precision": TEXT,
    "seeds": (_is_seeds, "a list of whole numbers, 0 or more, such as [0, 1, 2]"),
    "metrics": NAMES,
    "metric_protocol": TEXT,
}
STUDY_KEYS = TRAINING | {
    "title": TEXT,
    "rank_by": TEXT,
    "figures": (lambda value: value == [] or _is_list(value, _is_text), "a list of names"),
    "runs": (lambda value: _is_list(value, lambda table: isinstance(table, dict)), "tables [[runs]]"),
}
TABLE_KEYS = TRAINING | {
    "model": NAME_OR_NAMES,
    "dataset": NAME_OR_NAMES,
    "group_by": (
        _is_groupings,
        'a factor, a list of factors, or a list of such lists, such as [["a"], ["b"]]',
    ),
    "hold_out": (_is_name_or_names, "a text or a list of texts"),
    "source": TEXT,
    "factors": TEXT,
    "optional": (lambda value: isinstance(value, bool), "true or false"),
    "set": (_is_settings, "hyper-parameters, such as { beta = [1, 4], latents = 10 }"),
}


@dataclass(frozen=True)
class Draft:
    """Runs of a study that differ in their seed only, as its file has them: nothing is looked up yet.

    Attributes
    ----------
    where : their table in the study file, for messages.
    settings : arguments of `dislab.runs.resolve.resolve`, with the hyper-parameters.
    seeds : a run for each.
    optional : whether they are left out where official files are missing.
    """

    where: str
    settings: Mapping[str, object]
    seeds: tuple[int, ...]
    optional: bool


@dataclass(frozen=True)
class Study:
    """A study as its file has it.

    Attributes
    ----------
    name : the name of its file, without .toml.
    title : one line.
    path, text : its file and that file's content.
    drafts : its runs, in their order.
    seeds : those that replace the file's, or ().
    scale : the share of the file's seeds and training steps that is run.
    rank_by : the score that orders its tables, "" where the file does not say.
    figures : names of FIGURES, or "pictures"; None where the file does not say.
    """

    name: str
    title: str
    path: Path
    text: str
    drafts: tuple[Draft, ...]
    seeds: tuple[int, ...]
    scale: float
    rank_by: str
    figures: tuple[str, ...] | None

    @property
    def number(self) -> int:
        """How many runs the file names."""
        return sum(len(draft.seeds) for draft in self.drafts)


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with dislab: name -> file."""
    with importlib.resources.as_file(importlib.resources.files("dislab.benchmarks")) as folder:
        return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_study(text: str) -> Path:
    """Return the file that a text means: the name of a shipped study, or the path of a user's own (.toml).

    Raises
    ------
    DislabError : there is neither; the nearest is offered.
    """
    shipped = shipped_studies()
    path = Path(text)
    if text in shipped:
        return shipped[text]
    if os.path.lexists(path):  # `read_study` says it if that is no file
        return path
    beside = []
    with suppress(OSError):
        beside = [str(other) for other in sorted(path.parent.glob("*.toml"))]
    raise unknown_name("study", text, [*shipped, *beside])


def read_study(path: str | Path, seeds: Sequence[int] | None = None, scale: float = 1.0) -> Study:
    """Read a study file; what it names is not looked up yet, see `plan`.

    Parameters
    ----------
    path : the file.
    seeds : in place of the file's.
    scale : the share of the file's seeds and training steps that is run, above 0 and at most 1.

    Raises
    ------
    DislabError : the file cannot be read, is not TOML, or has keys or values that a study has not.
    """
    path = Path(path)
    text = read_text("the study", path, MOST_BYTES)
    try:
        if max((line.count(".") for line in text.splitlines()), default=0) > MOST_DOTS:
            raise RecursionError
        content = tomllib.loads(text)
    except RecursionError:
        raise DislabError(f"the study '{path}' is not TOML: it is nested too deep") from None
    except ValueError as error:  # also of a number with thousands of digits
        raise DislabError(f"the study '{path}' is not TOML: {error}") from None
    with within(str(path)):
        _check_keys(content, STUDY_KEYS, required=["runs"])
        drafts, runs = [], 0
        for number, table in enumerate(content["runs"], start=1):
            with within(f"[[runs]] table {number}"):
                _check_keys(table, TABLE_KEYS, required=["model", "dataset"])
                runs += _number(content, table, seeds, scale)
                if runs > MOST_RUNS:
                    raise DislabError(f"the study has {runs:,} runs up to here: at most {MOST_RUNS:,}")
                drafts += _expand(f"{path}: [[runs]] table {number}", content, table, seeds, scale)
        figures = content.get("figures")
        return Study(
            name=path.stem,
            title=content.get("title", path.stem),
            path=path,
            text=text,
            drafts=tuple(drafts),
            seeds=tuple(seeds or ()),
            scale=scale,
            rank_by=content.get("rank_by", ""),
            figures=None if figures is None else tuple(figures),
        )


def _check_keys(table: Mapping, keys: Mapping[str, tuple], required: list[str]) -> None:
    for key, value in table.items():
        if key not in keys:
            if key in STUDY_KEYS:  # TOML takes it for the table's
                raise DislabError(f"{key} is of the whole study: write it above the first [[runs]]")
            raise unknown_name("key", key, keys)
        is_right, words = keys[key]
        if not is_right(value):
            raise DislabError(f"{key} is {value!r}: it must be {words}")
    for key in required:
        if key not in table:
            raise DislabError(f"'{key}' is missing: it must be {keys[key][1]}")
    for key in table.get("set", {}):
        if key in TABLE_KEYS or key == "seed":
            raise DislabError(f"{key} is no hyper-parameter: write it beside set, not in it")


def _expand(
    where: str, study: Mapping, table: Mapping, seeds: Sequence[int] | None, scale: float
) -> list[Draft]:
    """Return the runs of a table: datasets x models x hyper-parameter values, the last fastest."""
    chosen = {key: table.get(key, study.get(key)) for key in TRAINING if key != "seeds"}
    chosen |= {key: table.get(key) for key in ("group_by", "hold_out", "source", "factors")}
    seeds = _seeds(study, table, seeds, scale)
    chosen = {key: value for key, value in chosen.items() if value is not None}
    swept = {name: _listed(value) for name, value in table.get("set", {}).items()}
    combinations = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    return [
        Draft(
            where,
            chosen | values | {"model": model, "dataset": dataset},
            seeds,
            table.get("optional", False),
        )
        for dataset, model, values in itertools.product(
            _listed(table["dataset"]), _listed(table["model"]), combinations
        )
    ]


def _seeds(study: Mapping, table: Mapping, seeds: Sequence[int] | None, scale: float) -> tuple[int, ...]:
    """Return the seeds of a table: the user's, or the first of the file's."""
    if seeds:
        return tuple(dict.fromkeys(seeds))
    listed = tuple(dict.fromkeys(table.get("seeds", study.get("seeds")) or [0]))
    return listed[: scaled(len(listed), scale)]


def scaled(number: int, scale: float) -> int:
    """Return a share of a number, rounded to the nearest whole number, but at least 1; 0 stays 0."""
    return max(1, round(number * scale)) if number > 0 else number


def _number(study: Mapping, table: Mapping, seeds: Sequence[int] | None, scale: float) -> int:
    """Return how many runs a table names."""
    lists = [table["dataset"], table["model"], *table.get("set", {}).values()]
    return math.prod(map(len, map(_listed, lists))) * len(_seeds(study, table, seeds, scale))


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


@contextmanager
def within(where: str):
    """Say in an error where in the study its cause is."""
    try:
        yield
    except DislabError as error:
        raise type(error)(f"{where}: {error}") from None
