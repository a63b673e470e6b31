"""Tables on standard output."""

from __future__ import annotations

import shutil
import sys

from dislab.errors import RunFailed
from dislab.progress import say

DIRECTIONS = {"up": "higher is better", "down": "lower is better", "": ""}


def width_of_output() -> int:
    """Return the columns of the terminal (or $COLUMNS); 120 if the output is no terminal."""
    return shutil.get_terminal_size((120, 24)).columns


def print_table(lines: list[tuple[str, ...]]) -> None:
    """Print columns of text: on a terminal with rich, elsewhere plain and aligned."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for column, name in enumerate(lines[0]):
            table.add_column(name, no_wrap=column < 3)
        for line in lines[1:]:
            table.add_row(*line)
        Console().print(table)
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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


def print_scores(runs: list, names: list[str] | None = None) -> None:
    """Print the scores of finished runs, a table for each configuration.

    Parameters
    ----------
    runs : `dislab.Run`s.
    names : of metrics; the others are not shown. None shows all.
    """
    from dislab.registry import METRICS
    from dislab.report.leaderboard import tabulate
    from dislab.scoring.request import DEFAULT

    wanted = None
    if names is not None and not any(name.partition("@")[0] == DEFAULT for name in names):
        wanted = {entry.name for entry in METRICS.choose(name.partition("@")[0] for name in names)}
    of_rows: dict[str, list] = {}
    for run in runs:
        of_rows.setdefault(run.config.row, []).append(run)
    for same in of_rows.values():
        first = same[0]
        key = first.config.key
        seeds = ", ".join(str(run.config.seed) for run in same)
        print(
            f"\n{key['model']} on {key['dataset']} ({key['source']}), protocol {key['protocol']}, grouped by "
            f"{key['group_by']}, seeds {seeds}"
        )
        if key["hold_out"]:
            print(f"trained without, and scored on: {key['hold_out']}")
        print(key["hyperparameters"])
        for name, value in first.record["report"].items():
            print(f"{name} = {value:.4g}")
        frame = tabulate(same)
        lines = [("score", "mean", "std", "95% interval", "", "related values")]
        for name, better in frame.attrs["directions"].items():
            if wanted is not None and name.partition("@")[0] not in wanted:
                continue
            mean, std, half, n = (frame[f"{name}_{part}"].iloc[0] for part in ("mean", "std", "ci95", "n"))
            spread = ("", "") if std != std else (f"{std:.4f}", f"{mean - half:.4f} to {mean + half:.4f}")
            of_some = "" if n == len(same) else f" (n={n})"
            lines.append((name, f"{mean:.4f}{of_some}", *spread, DIRECTIONS[better], _related(frame, name)))
        print_table(lines)
        for name, cause in first.scores.left_out.items():
            if wanted is None or name.partition("@")[0] in wanted:
                print(f"{name} is left out: {cause}")
        for name, line in first.scores.notes():
            if wanted is None or name.partition("@")[0] in wanted:
                print(line)
        for line in frame.attrs["remarks"]:
            print(line)


def _related(frame, score: str) -> str:
    """Return the means of what a metric gives beside its score, in one line: "chance 0.100, k10 0.998"."""
    from dislab.scoring.protocols import metric_of

    names = (column.removesuffix("_mean") for column in frame.columns[frame.columns.str.endswith("_mean")])
    plain = score.partition("@")[0]
    return ", ".join(
        f"{name.partition('@')[0].removeprefix(f'{plain}_')} {frame[f'{name}_mean'].iloc[0]:.3f}"
        for name in names
        if name != score and metric_of(name, frame.attrs["directions"]) == score
    )
