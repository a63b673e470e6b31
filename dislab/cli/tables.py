"""Tables on standard output."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping

from dislab.errors import RunFailed
from dislab.progress import say

MOST_REMARKS = 3  # that are shown if nobody asks for them


def width_of_output() -> int:
    """Return the columns of the terminal (or $COLUMNS); 120 if the output is no terminal."""
    return shutil.get_terminal_size((120, 24)).columns


def print_table(lines: list[tuple[str, ...]]) -> None:
    """Print columns of text below their heads, without those that are empty.

    On a terminal that is too narrow the widest column is cut, down to half of the terminal's width.
    """
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    if sys.stdout.isatty() and widths:
        width = width_of_output()
        widest = widths.index(max(widths))
        too_much = sum(widths) + 2 * (len(widths) - 1) - width
        if too_much > 0:
            widths[widest] = max(widths[widest] - too_much, min(widths[widest], width // 2))
    for cells in zip(*columns, strict=True):
        texts = [
            (cell if len(cell) <= width else cell[: width - 1] + "…").ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        ]
        print("  ".join(texts).rstrip())


def end(failures: list[str], said: int = 0) -> None:
    """Raise RunFailed if anything failed: with its line, or with the number of them after a line for each.

    Parameters
    ----------
    said : how many of them, the first ones, have been said already.
    """
    if len(failures) == 1:
        raise RunFailed(failures[0])
    for line in failures[said:]:
        say(f"failed: {line}")
    if failures:
        raise RunFailed(f"{len(failures)} failed, all else is done")


def print_scores(runs: list, names: list[str] | None = None, everything: bool = False) -> None:
    """Print the scores of finished runs: of one configuration each with its meaning, of several as tables.

    Parameters
    ----------
    runs : `dislab.Run`s.
    names : of metrics; the others are not shown. None shows the headline scores.
    everything : show every score of every configuration, with what stands beside it.
    """
    from dislab.report.board import tabulated
    from dislab.report.leaderboard import render, shown_in
    from dislab.report.tables import wrapped

    of_rows: dict[str, list] = {}
    for run in runs:
        of_rows.setdefault(run.config.row, []).append(run)
    wanted, board = _metrics_of(names), tabulated(runs)
    scores = _chosen(board.directions, wanted, everything)
    print()
    if everything:
        for same in of_rows.values():
            own = tabulated(same)
            _print_heading(same)
            if same[0].config.hyperparameters:
                print("\n".join(wrapped(same[0].config.key["hyperparameters"], width_of_output())))
            _print_every_score(own.frame.iloc[0], own.values, own.directions, scores, len(same))
    elif len(of_rows) > 1:
        scores = shown_in(board) if wanted is None else scores
        print(render(board, "table", scores, width_of_output()), end="")
    else:
        _print_heading(runs)
        _print_result(board.frame.iloc[0], board.directions, scores, len(runs))
    remarks = []
    for run in {run.config.row: run for run in runs}.values():
        remarks += [*_causes(run.scores.left_out), *run.scores.notes()]
    _print_remarks(remarks, wanted, everything)
    for line in board.frame.attrs["remarks"] if everything else []:
        print(line)


def print_scores_of_codes(
    record: Mapping[str, Mapping], names: list[str] | None = None, everything: bool = False
) -> None:
    """Print the scores of codes as those of one run. The notes of metrics have been warnings.

    Parameters
    ----------
    record : what `dislab.runs.external.as_recorded` returns.
    names, everything : as for `print_scores`.
    """
    from dislab.report.board import PARTS, applicable
    from dislab.report.frame import directions, in_order

    wanted = _metrics_of(names)
    values = dict(applicable(record)) if wanted is None else record["scores"]
    values = {name: values[name] for name in in_order(values)}
    row = {
        f"{name}_{part}": number
        for name, value in values.items()
        for part, number in zip(PARTS, (value, math.nan, 1, math.nan), strict=True)
    }
    known = {name: better for name, better in directions([record["metrics"]]).items() if name in values}
    scores = _chosen(known, wanted, everything)
    if everything:
        _print_every_score(row, values, known, scores, 1)
    else:
        _print_result(row, known, scores, 1)
    _print_remarks(_causes(record["left_out"]), wanted, everything)


def _metrics_of(names: list[str] | None) -> set[str] | None:
    """Return the metrics that names stand for; None if the default ones are among them."""
    from dislab.registry import METRICS
    from dislab.scoring.request import DEFAULT

    if names is None or any(name.partition("@")[0] == DEFAULT for name in names):
        return None
    return {entry.name for entry in METRICS.choose(name.partition("@")[0] for name in names)}


def _chosen(scores: Collection[str], wanted: set[str] | None, everything: bool) -> list[str]:
    """Return the scores to show: those of the wanted metrics, everything, or the headline scores."""
    from dislab.report.names import headlines

    if wanted is not None:
        return [score for score in scores if score.partition("@")[0] in wanted]
    return list(scores) if everything else headlines(scores)


def _print_heading(same: list) -> None:
    """Print what the runs of one configuration share."""
    from dislab.report.tables import number, wrapped

    key, record = same[0].config.key, same[0].record
    seeds = ", ".join(str(run.config.seed) for run in same)
    said = [
        f"{key['model']} on {key['dataset']} ({key['source']})",
        f"protocol {key['protocol']}",
        f"grouped by {key['group_by']}",
        f"seeds {seeds}" if len(seeds) < 30 else f"{len(same)} seeds",
        f"{record['scored_rows']:,} images scored",
        *(f"{name} = {number(value)}" for name, value in record["report"].items()),
    ]
    print("\n".join(wrapped(", ".join(said), width_of_output())))
    if key["hold_out"]:
        print(f"trained without, and scored on: {key['hold_out']}")


def _print_result(row: Mapping[str, float], known: Mapping[str, str], scores: list[str], seeds: int) -> None:
    """Print scores of one configuration, each with its direction and meaning.

    Parameters
    ----------
    row : of a leaderboard, with the parts of each score.
    known : the directions of all its scores.
    seeds : how many it has.
    """
    from dislab.report.names import ARROWS, label_of, meaning_of
    from dislab.report.tables import cell

    lines = [("score", "", "value", "meaning")]
    for score in scores:
        mean, std, n = (row[f"{score}_{part}"] for part in ("mean", "std", "n"))
        if n:
            lines.append(
                (label_of(score), ARROWS[known[score]], cell(mean, std, n, seeds), meaning_of(score))
            )
    print()
    print_table(lines)
    others = len(known) - len(scores)
    if others:
        print(f"and {others} other score{'s' if others > 1 else ''}: --all")


def _print_every_score(
    row: Mapping[str, float],
    values: Collection[str],
    known: Mapping[str, str],
    scores: list[str],
    seeds: int,
) -> None:
    """Print scores of one configuration, each with its spread and what its metric gives beside it.

    Parameters
    ----------
    values : the names of all values of the row, those beside scores among them.
    row, known, seeds : as for `_print_result`.
    """
    from dislab.report.names import ARROWS
    from dislab.report.tables import decimals_of, number
    from dislab.scoring.protocols import metric_of

    lines = [("score", "", "mean", "std", "95% interval", "n")]
    for score in scores:
        if score not in values:
            continue
        beside = [name for name in values if name != score and metric_of(name, known) == score]
        for name in (score, *beside):
            mean, std, n, half = (row[f"{name}_{part}"] for part in ("mean", "std", "n", "ci95"))
            decimals = decimals_of(mean, std)
            interval = ""
            if half == half:
                interval = f"{number(mean - half, decimals)} to {number(mean + half, decimals)}"
            arrow = ARROWS[known[score]] if name == score else ""
            of_some = "" if n == seeds else str(n)
            title = name if name == score else f"  {name.removeprefix(score.partition('@')[0] + '_')}"
            lines.append((title, arrow, number(mean, decimals), number(std, decimals), interval, of_some))
    print()
    print_table(lines)
    print()


def _causes(left_out: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the names of metrics that are left out, each with a line that says why."""
    return [(name, f"{name} is left out: {cause}") for name, cause in left_out.items()]


def _print_remarks(remarks: list[tuple[str, str]], wanted: set[str] | None, everything: bool) -> None:
    """Print remarks, each with the name of its metric; if nobody asked for it, in a few lines."""
    lines = [line for name, line in remarks if wanted is None or name.partition("@")[0] in wanted]
    lines = list(dict.fromkeys(lines))
    if wanted is None and not everything and len(lines) > MOST_REMARKS:
        lines = [f"{len(lines)} remarks on scores, and why some are left out: --all"]
    elif wanted is None and not everything:
        lines = [textwrap.shorten(line, width_of_output(), placeholder=" …") for line in lines]
    print("\n".join(lines), end="\n" if lines else "")


def print_next(runs: list, table) -> None:
    """Print where finished runs lie, and what to look at next.

    Parameters
    ----------
    runs : of one results folder.
    table : the path of its leaderboard.csv.
    """
    from dislab.report.tables import wrapped

    print(f"\nrun: {runs[0].path}" + (f" and {len(runs) - 1} more beside it" if len(runs) > 1 else ""))
    print(f"leaderboard: {table}")
    said = [f"dislab report {table.parent}", f"dislab leaderboard {table.parent}"]
    pictures = sorted(name for name in runs[0].record["files"] if name.endswith((".png", ".gif")))
    said += [f"the pictures in a run's folder ({', '.join(pictures)})"] if pictures else []
    print("\n".join(wrapped(f"look next: {'; '.join(said)}", width_of_output())))
