"""Leaderboards for reading: on a terminal, as markdown, as LaTeX; a table for each setting."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from dislab.report import names
from dislab.report.best import REFERENCES, TEST, best_of
from dislab.report.board import PARTS, Board, ranked
from dislab.report.frame import KEY, SETTING, direction, in_order, names_of_rows
from dislab.report.names import ARROWS, counted, label_of
from dislab.runs.config import EXTERNAL

SHORTEST = 12  # characters of a column that is cut to make a table fit
MISSING = "–"


@dataclass(frozen=True)
class Section:
    """The rows of a leaderboard that may be compared, in their order.

    Attributes
    ----------
    said : what all of them share, as texts.
    rows : of the leaderboard's frame.
    labels : how each is called.
    shared_n : the number of seeds, if all rows have the same.
    scores : those shown that any of them has.
    best : score -> row -> why it is among the best, see `best_of`.
    """

    said: list[str]
    rows: pd.DataFrame
    labels: list[str]
    shared_n: int | None
    scores: list[str]
    best: dict[str, dict[str, str]]


def sections_of(board: Board, scores: Sequence[str]) -> list[Section]:
    """Return the tables of a leaderboard: one for each setting, with the codes of other programs beside.

    Such codes (source "external") stand in every table of their dataset, groups and hold-out: what they were
    trained on is not known here. The models that are no more than a floor or a ceiling come last.
    """
    frame = board.frame
    is_external = frame["source"] == EXTERNAL
    alike = ["dataset", "hold_out", "group_by"]
    of_dataset = dict(iter(frame[is_external].groupby(alike, sort=False)))
    parts = []
    for key, rows in frame[~is_external].groupby(SETTING, sort=False):
        setting = dict(zip(SETTING, key, strict=True))
        others = of_dataset.get(tuple(setting[name] for name in alike))
        parts.append(rows if others is None else pd.concat([rows, others], ignore_index=True))
    seen = set(frame[~is_external][alike].itertuples(index=False, name=None))
    parts += [rows for key, rows in of_dataset.items() if key not in seen]
    labels = names_of_rows(board.configs.values())
    return [_section(board, rows, labels, scores) for rows in parts]


def _section(board: Board, rows: pd.DataFrame, labels: dict[str, str], scores: Sequence[str]) -> Section:
    by = rows["ranked_by"].iloc[0]
    better = direction(by, board.directions) if by in board.values else ""
    is_last = rows["model"].isin(REFERENCES)
    rows = ranked(rows, by, better, is_last.rename("last").to_frame())
    first = rows[rows["source"] != EXTERNAL].iloc[0] if (rows["source"] != EXTERNAL).any() else rows.iloc[0]
    said = [f"{first['dataset']} ({first['source']})", f"protocol {first['protocol']}"]
    said += [f"trained without, and scored on: {first['hold_out']}"] if first["hold_out"] else []
    said += [f"grouped by {first['group_by']}"] if first["group_by"] else []
    scored = rows["scored_rows"].unique()
    said += [f"{scored[0]:,} images scored"] if len(scored) == 1 else []
    seeds = rows["n"].unique()
    shared_n = int(seeds[0]) if len(seeds) == 1 else None
    spread = "" if shared_n == 1 else "mean ± std over "
    said += [spread + ("n seeds" if shared_n is None else counted(shared_n, "seed"))]
    ranks = better and rows[f"{by}_mean"].notna().any() and len(rows) > 1
    said += [f"best first by {label_of(by)}"] if ranks else []
    texts = [
        labels[row] + (" (external)" if source == EXTERNAL else "")
        for row, source in zip(rows["row"], rows["source"], strict=True)
    ]
    shown = [score for score in scores if rows[f"{score}_n"].any()]
    compared = rows["row"][~rows["model"].isin(REFERENCES)]
    values = board.values[board.values.index.get_level_values("row").isin(compared)]
    best = {score: best_of(values[score].unstack("seed"), board.directions.get(score, "")) for score in shown}
    return Section(said, rows, texts, shared_n, shown, best)


# Numbers -------------------------------------------------------------------------------------------


def decimals_of(mean: float, std: float = math.nan) -> int:
    """Return how many decimals a number is shown with: none for hundreds, and for counts."""
    is_count = abs(mean) > 1 and mean == round(mean) and not std > 0
    return 0 if abs(mean) >= 100 or is_count else 3


def number(value: float, decimals: int | None = None) -> str:
    """Return the text of a number: 0.124, 30,000, -4,250; "" for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:,.{decimals_of(value) if decimals is None else decimals}f}"


def cell(mean: float, std: float, n: int, seeds: int) -> str:
    """Return the text of a score of n of a row's seeds: "0.123 ± 0.045 (n=2)"."""
    if math.isnan(mean):
        return ""
    decimals = decimals_of(mean, std)
    spread = "" if math.isnan(std) else f" ± {number(std, decimals)}"
    return number(mean, decimals) + spread + ("" if n == seeds else f" (n={n})")


def cells(section: Section, score: str) -> list[str]:
    """Return the texts of a score's column."""
    columns = (section.rows[f"{score}_{part}"] for part in ("mean", "std", "n"))
    return [cell(*numbers) for numbers in zip(*columns, section.rows["n"], strict=True)]


def heads(section: Section, board: Board) -> list[str]:
    """Return what the columns of the scores are called: "MIG ↑"."""
    return [
        f"{label_of(score)} {ARROWS[board.directions.get(score, '')]}".rstrip() for score in section.scores
    ]


# Text ----------------------------------------------------------------------------------------------


def text_of(board: Board, scores: Sequence[str], width: int) -> str:
    """Return the tables as plain text in which no line is wider than `width` characters.

    Scores that do not fit are left out, and named below the tables, as are those that are not shown.
    """
    texts, cut = [], []
    for section in sections_of(board, scores):
        columns = _columns(section, board, "model", section.labels, "{}")
        columns = [[text or MISSING for text in column] for column in columns]
        fixed = 1 + (section.shared_n is None)
        lines, number_shown = fitted(columns, width, fixed)
        cut += [score for score in section.scores[number_shown - fixed :] if score not in cut]
        texts.append("\n".join([*wrapped(", ".join(section.said), width), *lines]))
    below = []
    if cut:
        below.append(f"too wide for {width} columns: {', '.join(map(label_of, cut))} (--scores NAME,NAME)")
    others = len(board.directions) - len(scores)
    if others > 0:
        below.append(f"{counted(others, 'other score')}: --all, or --scores NAME,NAME")
    texts += ["\n".join(line for text in below for line in wrapped(text, width))] if below else []
    return "\n\n".join(texts) + "\n"


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most `width` characters; a longer word is not broken."""
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def fitted(columns: list[list[str]], width: int, fixed: int) -> tuple[list[str], int]:
    """Return columns of text as lines of at most `width` characters, and how many columns they show.

    The first column is cut, down to 12 characters, before a score is left out; the first `fixed` columns and
    one more stay. The first is aligned left, the others right.
    """
    columns = [*columns[:1], *map(aligned, columns[1:])]
    widths = [max(map(len, column)) for column in columns]
    shown = len(columns)
    least = min(widths[0], SHORTEST)
    while shown > fixed + 1 and least + sum(2 + one for one in widths[1:shown]) > width:
        shown -= 1
    widths[0] = max(least, min(widths[0], width - sum(2 + one for one in widths[1:shown])))
    lines = []
    for first, *others in zip(*columns[:shown], strict=True):
        first = first if len(first) <= widths[0] else first[: widths[0] - 1] + "…"
        texts = [one.rjust(size) for one, size in zip(others, widths[1:shown], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *texts]).rstrip())
    return lines, shown


def aligned(column: list[str]) -> list[str]:
    """Return the texts below a column's head with the numbers before and behind "±" below each other."""
    head, *texts = column
    parts = [text.partition(" ± ") for text in texts]
    before = max((len(mean) for mean, _, _ in parts), default=0)
    behind = max((len(sign + rest) for _, sign, rest in parts), default=0)
    return [head, *(mean.rjust(before) + (sign + rest).ljust(behind) for mean, sign, rest in parts)]


def every_score(board: Board, width: int) -> str:
    """Return a line for each score and row, as plain text: mean, std, n and the 95% interval.

    These are all scores that any row has, also the values that metrics give beside their own.
    """
    texts = []
    for section in sections_of(board, in_order(board.values)):
        columns = [["score and model"], ["mean"], ["std"], ["n"], ["95% interval"]]
        for score in section.scores:
            better = ARROWS[board.directions.get(score, "")]
            for column, text in zip(columns, [f"{score} {better}".rstrip(), "", "", "", ""], strict=True):
                column.append(text)
            parts = (section.rows[f"{score}_{part}"] for part in ("mean", "std", "n", "ci95"))
            for label, mean, std, n, half in zip(section.labels, *parts, strict=True):
                if n:
                    decimals = decimals_of(mean, std)
                    interval = "" if math.isnan(half) else _interval(mean, half, decimals)
                    line = [f"  {label}", number(mean, decimals), number(std, decimals), str(n), interval]
                    for column, text in zip(columns, line, strict=True):
                        column.append(text)
        kept = [column for column in columns if any(column[1:])]
        lines, _ = fitted(kept, width, fixed=1)
        texts.append("\n".join([*wrapped(", ".join(section.said), width), *lines]))
    return "\n\n".join(texts) + "\n"


def _interval(mean: float, half: float, decimals: int) -> str:
    return f"{number(mean - half, decimals)} to {number(mean + half, decimals)}"


# Markdown and LaTeX --------------------------------------------------------------------------------


def markdown(board: Board, scores: Sequence[str]) -> str:
    """Return the tables as markdown, each below a line on what its rows share."""
    texts = []
    for section in sections_of(board, scores):
        columns = _columns(section, board, "model", section.labels, "**{}**")
        texts.append(", ".join(section.said) + "\n\n" + pipes(columns))
    return "\n\n".join([*texts, *_notes(texts, "**")]) + "\n"


def _notes(texts: Iterable[str], mark: str) -> list[str]:
    return [f"{TEST[0].upper()}{TEST[1:]}."] if any(mark in text for text in texts) else []


def pipes(columns: Sequence[Sequence[str]]) -> str:
    """Return columns of text, each below its head, as a markdown table."""
    head, *lines = zip(*columns, strict=True)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(one.replace("|", "\\|") for one in line) + " |" for line in lines)


def latex(board: Board, scores: Sequence[str]) -> str:
    """Return the tables as LaTeX, for the package booktabs."""
    texts = []
    for section in sections_of(board, scores):
        models = list(section.rows["model"])
        labels = [
            tex(names.MODELS.get(model, model) + label.removeprefix(model))
            for label, model in zip(section.labels, models, strict=True)
        ]
        columns = _columns(section, board, "Model", labels, r"\textbf{{{}}}", tex)
        dataset, *others = section.said
        name = section.rows["dataset"].iloc[0]
        said = ", ".join([dataset.replace(name, names.DATASETS.get(name, name), 1), *others])
        texts.append(f"% {said}\n" + booktabs(columns, sum(model in REFERENCES for model in models)))
    return "\n\n".join([*(f"% {note}" for note in _notes(texts, r"\textbf")), *texts]) + "\n"


def booktabs(columns: Sequence[Sequence[str]], last: int = 0) -> str:
    """Return columns of LaTeX, each below its head, as a table; with a rule before the `last` lines."""
    head, *lines = (" & ".join(line) + r" \\" for line in zip(*columns, strict=True))
    if 0 < last < len(lines):
        lines.insert(len(lines) - last, r"\midrule")
    begin = r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}"
    ends = r"\bottomrule", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *lines, *ends])


def _columns(
    section: Section, board: Board, first: str, labels: Iterable[str], mark: str, escape=str
) -> list[list[str]]:
    """Return the columns of a table, each below its head; the best cells have the mark around them."""
    columns = [[first, *labels]]
    if section.shared_n is None:
        columns.append(["n", *map(str, section.rows["n"])])
    for head, score in zip(heads(section, board), section.scores, strict=True):
        texts = zip(section.rows["row"], map(escape, cells(section, score)), strict=True)
        best = section.best[score]
        columns.append([escape(head), *(mark.format(text) if row in best else text for row, text in texts)])
    return columns


TEX = {
    **{one: rf"\{one}" for one in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "β": r"$\beta$",
    "²": r"$^2$",
    "–": "--",
}


def tex(text: str) -> str:
    """Return a text as LaTeX shows it."""
    return "".join(TEX.get(one, one) for one in text)


# JSON ----------------------------------------------------------------------------------------------


def as_json(board: Board, scores: Sequence[str]) -> str:
    """Return a leaderboard as JSON: a list of rows, each with its key, seeds and scores.

    A score has mean, std, n, ci95 (null for one seed), direction ("up", "down" or ""), and best: "best",
    "tied", "untested" or "", see `dislab.report.best`.
    """
    rows = []
    for section in sections_of(board, scores):
        for _, row in section.rows.iterrows():
            about = {name: row[name] for name in (*KEY, "row", "steps", "scored_rows", "seeds", "n")}
            of_scores = {}
            for score in section.scores:
                if row[f"{score}_n"]:
                    of_scores[score] = {part: row[f"{score}_{part}"] for part in PARTS}
                    of_scores[score]["direction"] = board.directions.get(score, "")
                    of_scores[score]["best"] = section.best[score].get(row["row"], "")
            rows.append(about | {"scores": of_scores})
    return json.dumps(_plain(rows), indent=1) + "\n"


def _plain(value):
    """Return a value as JSON can hold it: numbers as Python's own, NaN as null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value
