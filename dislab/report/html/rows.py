"""Finished runs as the rows of a page's tables: mean, spread and interval of every score.

Rows are compared within one setting only: dataset, source, protocol, hold-out and grouping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dislab.registry import METRICS, MODELS
from dislab.report.best import REFERENCES
from dislab.report.frame import SETTING, applies, direction, directions, half_width, has_block
from dislab.report.html.words import entry_of, short
from dislab.runs.config import EXTERNAL, RunConfig
from dislab.runs.finished import Run
from dislab.scoring.protocols import metric_of

FIRST_SCORES = ("mig", "content_accuracy")  # the first that a table has orders its rows
SUPERVISION = {
    "none": "no labels",
    "iid": "no labels",
    "groups": "groups",
    "pairs": "pairs",
}  # as models name it -> as pages say it
MEANT_BY = {
    "no labels": "sees images only",
    "groups": "knows which training images share the class",
    "pairs": "knows pairs of images that share some factors",
    "few labels": "knows the factors of a few training images",
    "true factors": "reads the factors themselves",
    EXTERNAL: "codes of another program: what they were learned from is not known here",
}
WITHOUT_TRAINING = {"oracle": "the factors themselves", "untrained": "random weights"}
# Hyper-parameters that a row always says, and how. The others are said where they differ from the default.
SAID = {"labels": "{} labelled images", "latents": "{} latents", "beta": "β = {}"}
COMPONENTS = "{} components of the pixels"  # the latents of PCA
NOT_SAID = ("network", "likelihood", "groupings")  # unless the rows of one table differ in them


@dataclass(frozen=True)
class Cell:
    """A score of a row: over its seeds, the mean, the standard deviation (ddof 1) and the 95 % interval.

    The interval is Student's t's, clipped to the range of the score. It and the deviation are NaN for one
    seed.
    """

    values: tuple[float, ...]
    mean: float
    std: float
    low: float
    high: float

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def is_count(self) -> bool:
        """Whether every seed has a whole number, such as a number of code dimensions."""
        return all(value == round(value) for value in self.values)


def cell_of(values: Sequence[float], low: float | None = None, high: float | None = None) -> Cell:
    """Return the cell of one value per seed; `low` and `high` are the range of the score."""
    numbers = np.asarray(values, float)
    mean, n = float(numbers.mean()), len(numbers)
    if n == 1:
        return Cell(tuple(values), mean, np.nan, np.nan, np.nan)
    std = float(numbers.std(ddof=1))
    half = float(half_width(std, n))
    bottom, top = (-np.inf if low is None else low), (np.inf if high is None else high)
    return Cell(tuple(values), mean, std, max(mean - half, bottom), min(mean + half, top))


@dataclass
class Row:
    """The runs that differ in the seed only."""

    runs: list[Run]
    cells: dict[str, Cell] = field(default_factory=dict)
    words: str = ""  # the hyper-parameters that a reader needs to tell rows apart

    @property
    def first(self) -> Run:
        return self.runs[0]

    @cached_property
    def config(self) -> RunConfig:
        return self.first.config

    @property
    def model(self) -> str:
        return self.first.record["config"]["model"]

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def seeds(self) -> list[int]:
        return [run.record["config"]["seed"] for run in self.runs]

    @property
    def is_reference(self) -> bool:
        return self.model in REFERENCES

    @property
    def is_external(self) -> bool:
        """Whether another program made the codes, of which nothing but the codes is known."""
        return self.first.record["config"]["source"] == EXTERNAL

    @property
    def supervision(self) -> str:
        """What the model knows of its training images; "" if it is not registered here."""
        if self.is_external:
            return EXTERNAL
        if self.model == "oracle":
            return "true factors"
        make = getattr(entry_of(MODELS, self.model), "make", None)
        if getattr(make, "look_at", None) is not None:  # it sees the factors before it trains
            return "few labels" if "labels" in self.config.hyperparameters else ""
        return SUPERVISION.get(getattr(make, "supervision", ""), "")

    def has_block(self, name: str) -> bool:
        """Return whether the code has a block of this name, also one of several: content_1."""
        return has_block(self.first.record["blocks"], name)

    def applies(self, score: str) -> bool:
        """Return whether a score says of this model what its name says; other scores are not shown."""
        return applies(score, self.first.record["blocks"])

    def is_of_whole_code(self, score: str) -> bool:
        """Return whether a score of the content is read from the whole code, for lack of a content block."""
        return score.startswith("content_") and not self.has_block("content")


@dataclass
class Table:
    """The rows of one setting; `ranked` stands best first by the score `sorted_by`."""

    setting: tuple[str, ...]
    ranked: list[Row]
    references: list[Row]
    directions: Mapping[str, str]
    sorted_by: str = ""

    @property
    def rows(self) -> list[Row]:
        return self.ranked + self.references

    @property
    def dataset(self) -> str:
        return self.setting[0]

    @property
    def source(self) -> str:
        return self.setting[1]

    @property
    def steps(self) -> int:
        return max(row.config.protocol.steps for row in self.rows)

    @property
    def is_external(self) -> bool:
        """Whether all rows are codes of other programs."""
        return self.source == EXTERNAL

    @property
    def n(self) -> int:
        """The number of seeds that most rows have."""
        numbers = [row.n for row in self.rows]
        return max(sorted(set(numbers)), key=numbers.count)

    def direction(self, score: str) -> str:
        """Return "up" or "down" for what is better, "" if it is not known or neither is."""
        return direction(score, self.directions)

    def cells(self, score: str) -> list[tuple[Row, Cell]]:
        """Return the ranked rows that have a score, with it."""
        return [(row, row.cells[score]) for row in self.ranked if score in row.cells]

    def reference(self, model: str, score: str) -> float | None:
        """Return the score of the oracle or of the untrained model in this setting."""
        means = [
            row.cells[score].mean for row in self.references if row.model == model and score in row.cells
        ]
        return means[0] if means else None

    def chance(self, score: str) -> float | None:
        """Return the accuracy of a guess, which is recorded beside an accuracy of the class."""
        plain, at, settings = score.partition("@")
        for row in self.rows:
            for name in (plain, plain.removesuffix("_sampled").removesuffix("_k10")):
                value = row.first.record["scores"].get(f"{name}_chance{at}{settings}")
                if value is not None:
                    return value
        return None


def score_range(score: str, metrics: Iterable[str]) -> tuple[float | None, float | None]:
    """Return the lowest and the highest value that a score, or a value beside one, can have.

    Values beside a score share its range if they are accuracies, as content_accuracy_k10 is.
    """
    metric = metric_of(score, metrics)
    entry = None if metric is None else entry_of(METRICS, metric.partition("@")[0])
    if entry is None or not (metric == score or "accuracy" in score):
        return None, None
    return entry.low, entry.high


def tables_of(runs: Iterable[Run]) -> list[Table]:
    """Return the tables of finished runs: datasets with most rows first, then longest training first.

    Codes of other programs stand in every table of their dataset, hold-out and grouping: how they were made
    is not known here.
    """
    of_rows: dict[str, list[Run]] = {}
    for run in runs:
        of_rows.setdefault(run.row, []).append(run)
    by_setting: dict[tuple[str, ...], list[Row]] = {}
    for same in of_rows.values():
        row = Row(sorted(same, key=lambda run: run.record["config"]["seed"]))
        key = row.config.key
        row.cells = _cells(row)
        by_setting.setdefault(tuple(key[name] for name in SETTING), []).append(row)
    for setting in [setting for setting in by_setting if setting[1] == EXTERNAL]:
        alike = [one for one in by_setting if _images(one) == _images(setting) and one[1] != EXTERNAL]
        for one in alike:
            by_setting[one] += by_setting[setting]
        if alike:
            del by_setting[setting]
    tables = [_table(setting, rows) for setting, rows in by_setting.items()]
    numbers: dict[str, int] = {}
    for table in tables:
        numbers[table.dataset] = numbers.get(table.dataset, 0) + len(table.rows)
    return sorted(tables, key=lambda t: (-numbers[t.dataset], t.dataset, -t.steps, t.setting))


def _images(setting: tuple[str, ...]) -> tuple[str, ...]:
    """Return the part of a setting that codes of another program have: dataset, hold-out and grouping."""
    return setting[0], *setting[3:]


def _cells(row: Row) -> dict[str, Cell]:
    values: dict[str, list[float]] = {}
    metrics = {name for run in row.runs for name in run.record["metrics"]}
    for run in row.runs:
        for name, value in run.record["scores"].items():
            if np.isfinite(value) and row.applies(name):
                values.setdefault(name, []).append(float(value))
    return {name: cell_of(numbers, *score_range(name, metrics)) for name, numbers in values.items()}


def _table(setting: tuple[str, ...], rows: list[Row]) -> Table:
    known = directions(run.record["metrics"] for row in rows for run in row.runs)
    for row, words in zip(rows, words_of(rows), strict=True):
        row.words = words
    ranked = [row for row in rows if not row.is_reference]
    references = [row for model in REFERENCES for row in rows if row.model == model]
    table = Table(setting, ranked, references, known)
    present = [score for score in (*FIRST_SCORES, *known) if table.cells(score)]
    if present:
        table.sorted_by = present[0]
        sign = 1 if table.direction(present[0]) == "down" else -1

        def place(row: Row) -> tuple:
            cell = row.cells.get(present[0])
            return (cell is None, sign * cell.mean if cell else 0, row.model, row.words)

        ranked.sort(key=place)
    return table


def words_of(rows: Sequence[Row]) -> list[str]:
    """Return what tables say of each row's hyper-parameters: those that matter, and those that differ."""
    differing: dict[str, set[str]] = {}
    for row in rows:
        of_model = [other.config.hyperparameters for other in rows if other.model == row.model]
        differing[row.model] = {
            name
            for name, value in row.config.hyperparameters.items()
            if any(other.get(name) != value for other in of_model)
        }
    return [_words(row, differing[row.model]) for row in rows]


def _words(row: Row, differing: set[str]) -> str:
    values, words = dict(row.config.hyperparameters), []
    words += [WITHOUT_TRAINING[row.model]] if row.model in WITHOUT_TRAINING else []
    words += ["codes of another program"] if row.is_external else []
    if "content" in values and "style" in values:
        words.append(f"content {short(values.pop('content'))} + style {short(values.pop('style'))}")
    if row.supervision == "groups" and "group_size" in values:
        words.append(f"groups of {short(values.pop('group_size'))}")
    changed = row.config.changed  # all, if the model is a plug-in's that is not loaded
    for name in sorted(values, key=lambda name: name not in SAID):
        if name in SAID:
            if values[name] is not None:
                said = COMPONENTS if (row.model, name) == ("pca", "latents") else SAID[name]
                words.append(said.format(short(values[name])))
        elif name in changed and (name in differing or name not in NOT_SAID):
            words.append(f"{name.replace('_', ' ')} = {short(values[name])}")
    return ", ".join(words)
