"""Tables on standard output."""

from __future__ import annotations

import shutil
import sys
import textwrap

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
    from dislab.registry import METRICS
    from dislab.report.board import tabulated
    from dislab.report.leaderboard import render, shown_in
    from dislab.report.names import headlines
    from dislab.scoring.request import DEFAULT

    of_rows: dict[str, list] = {}
    for run in runs:
        of_rows.setdefault(run.config.row, []).append(run)
    wanted = None
    if names is not None and not any(name.partition("@")[0] == DEFAULT for name in names):
        wanted = {entry.name for entry in METRICS.choose(name.partition("@")[0] for name in names)}
    board = tabulated(runs)
    scores = list(board.directions)
    if wanted is not None:
        scores = [score for score in scores if score.partition("@")[0] in wanted]
    elif not everything:
        scores = shown_in(board) if len(of_rows) > 1 else headlines(scores)
    print()
    if everything:
        for same in of_rows.values():
            _print_every_score(same, scores)
    elif len(of_rows) > 1:
        print(render(board, "table", scores, width_of_output()), end="")
    else:
        _print_result(runs, board, scores)
    _print_remarks(runs, wanted, everything)
    for line in board.frame.attrs["remarks"] if everything else []:
        print(line)


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


def _print_result(same: list, board, scores: list[str]) -> None:
    """Print scores of one configuration, each with its direction and meaning."""
    from dislab.report.names import ARROWS, label_of, meaning_of
    from dislab.report.tables import cell

    _print_heading(same)
    row = board.frame.iloc[0]
    lines = [("score", "", "value", "meaning")]
    for score in scores:
        mean, std, n = (row[f"{score}_{part}"] for part in ("mean", "std", "n"))
        if n:
            arrow = ARROWS[board.directions[score]]
            lines.append((label_of(score), arrow, cell(mean, std, n, len(same)), meaning_of(score)))
    print()
    print_table(lines)
    others = len(board.directions) - len(scores)
    if others:
        print(f"and {others} other score{'s' if others > 1 else ''}: --all")


def _print_every_score(same: list, scores: list[str]) -> None:
    """Print the scores of one configuration, each with its spread and what its metric gives beside it."""
    from dislab.report.board import tabulated
    from dislab.report.names import ARROWS
    from dislab.report.tables import decimals_of, number, wrapped
    from dislab.scoring.protocols import metric_of

    board = tabulated(same)
    _print_heading(same)
    if same[0].config.hyperparameters:
        print("\n".join(wrapped(same[0].config.key["hyperparameters"], width_of_output())))
    row = board.frame.iloc[0]
    lines = [("score", "", "mean", "std", "95% interval", "n")]
    for score in scores:
        if score not in board.values:
            continue
        beside = [
            name for name in board.values if name != score and metric_of(name, board.directions) == score
        ]
        for name in (score, *beside):
            mean, std, n, half = (row[f"{name}_{part}"] for part in ("mean", "std", "n", "ci95"))
            decimals = decimals_of(mean, std)
            interval = ""
            if half == half:
                interval = f"{number(mean - half, decimals)} to {number(mean + half, decimals)}"
            arrow = ARROWS[board.directions[score]] if name == score else ""
            of_some = "" if n == len(same) else str(n)
            title = name if name == score else f"  {name.removeprefix(score.partition('@')[0] + '_')}"
            lines.append((title, arrow, number(mean, decimals), number(std, decimals), interval, of_some))
    print()
    print_table(lines)
    print()


def _print_remarks(runs: list, wanted: set[str] | None, everything: bool) -> None:
    """Print which scores are left out, and what metrics remark; if nobody asked for it, in a few lines."""
    lines = []
    for run in {run.config.row: run for run in runs}.values():
        causes = [(name, f"{name} is left out: {cause}") for name, cause in run.scores.left_out.items()]
        for name, line in [*causes, *run.scores.notes()]:
            if (wanted is None or name.partition("@")[0] in wanted) and line not in lines:
                lines.append(line)
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
