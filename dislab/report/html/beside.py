"""Published values beside ours: which belong to a score, and what differs in the protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from dislab.report.html.rows import Row, Table
from dislab.report.html.words import number
from dislab.report.names import counted
from dislab.report.published import published

STUDY = "training steps"  # tables of a score over the length of training
JOINED = "with evidence accumulation"  # values that join test images by their true class
FACTOR = 2  # the most by which training lengths differ that are close
SOURCES = {  # how a title begins -> what pages call the source
    "CFASL": "Jung et al. 2024",
    "Diffusion Model with Cross": "Yang et al. 2024",
    "Factorized Diffusion": "Wu & Zheng 2024",
    "Independence Constrained": "TC-GAN 2024",
    "Soft Tensor Product": "Sun et al. 2024",
    "YannDubs": "GitHub, YannDubs",
    "ananyahjha93": "GitHub, ananyahjha93",
    "Leaderboard page": "wizwand.com 2026",
}
CLOSE, TRAINING, NOT = "close", "differs in training", "not comparable"
BOTH = "differs in images and training"


@dataclass(frozen=True)
class Published:
    """A published value, and others of the same method, dataset and score."""

    value: float
    std: float
    source: str
    table: str
    link: str
    n: int | None
    steps: int | None
    supervision: str
    note: str
    others: tuple[str, ...] = ()


def published_of(method: str, dataset: str, score: str) -> Published | None:
    """Return the published value of a score: that of the longest training, with the others in words.

    A score with settings has the value published with these, or else that of its plain name. Only the same
    dataset counts: mpi3d_real is no other word for mpi3d_toy.
    """
    names = score, score.partition("@")[0]
    values = next(filter(None, (_values().get((method, dataset, name)) for name in names)), None)
    if values is None:
        return None
    first, *others = sorted(values, key=lambda one: (STUDY in one.table, -(one.steps or 0), -(one.n or 0)))
    return replace(first, others=tuple(_in_words(other) for other in others))


@cache
def _values() -> dict[tuple[str, str, str], list[Published]]:
    """Return all published values by method, dataset and score; content_accuracy_k10 joins test images."""
    values: dict[tuple[str, str, str], list[Published]] = {}
    for line in published().itertuples():
        score = line.metric
        if JOINED in line.table:
            if score != "content_accuracy":  # the style of an image is joined with nothing
                continue
            score = "content_accuracy_k10"
        year = "" if pd.isna(line.source_year) else str(line.source_year)
        one = Published(
            value=float(line.value),
            std=float(line.std),
            source=source_name(line.source_title, year),
            table=line.table,
            link=line.link if line.link.startswith("https://") else "",
            n=None if pd.isna(line.n) else int(line.n),
            steps=None if pd.isna(line.steps) else int(line.steps),
            supervision=line.supervision,
            note=line.protocol_note,
        )
        values.setdefault((line.method, line.dataset, score), []).append(one)
    return values


def source_name(title: str, year: str) -> str:
    """Return a short name of a source: authors and year, or the repository."""
    short = next((name for begin, name in SOURCES.items() if title.startswith(begin)), "")
    return short or f"{title.split(' (')[0].split(':')[0][:40]} {year}".strip()


def _in_words(one: Published) -> str:
    spread = "" if one.std != one.std else f" ± {number(one.std)}"
    return f"{number(one.value)}{spread}, {one.source}, {one.table}"


def difference(table: Table, row: Row, there: Published) -> tuple[str, list[str]]:
    """Return a label for how far a published value can be compared with a row, and what differs.

    "close": the same images and supervision, training lengths within a factor of two, and no note on the
    protocol. "not comparable": the source does not say how long it trained. Anything else differs in
    training, or in images and training.
    """
    if row.is_external:
        return NOT, ["How these codes were learned is not known here."]
    sentences, steps = [], row.config.protocol.steps
    drawn = table.source != "official"
    if there.steps is not None:
        if not 1 / FACTOR <= steps / there.steps <= FACTOR:
            sentences.append(f"{counted(steps, 'step')} here, {there.steps:,} there.")
    else:
        sentences.append(f"{counted(steps, 'step')} here, not said there.")
    if there.supervision != row.supervision:
        sentences.append(
            f"{(row.supervision or 'unknown supervision').capitalize()} here, "
            f"{there.supervision or 'not said'} there."
        )
    if drawn:
        sentences.append(
            "Drawn images here." if table.source.startswith("rendered") else "Other images here."
        )
    if there.note:
        sentences += [f"{part[0].upper()}{part[1:].rstrip('.')}." for part in there.note.split("; ") if part]
    if there.steps is None:
        label = NOT
    elif drawn:
        label = BOTH
    else:
        label = TRAINING if sentences else CLOSE
    return label, sentences
