"""Tables on standard output."""

from __future__ import annotations

import sys

DIRECTIONS = {"up": "higher is better", "down": "lower is better", "": ""}


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


def print_scores(runs: list, names: list[str] | None = None) -> None:
    """Print the scores of finished runs, a table for each configuration.

    Parameters
    ----------
    runs : `dislab.Run`s.
    names : of metrics; the others are not shown. None shows all.
    """
    from dislab.registry import METRICS
    from dislab.report.frame import direction
    from dislab.report.leaderboard import scores_in, tabulate
    from dislab.scoring.request import DEFAULT

    wanted = None
    if names is not None and DEFAULT not in names:
        wanted = {entry.name for entry in METRICS.choose(names)}
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
        for name in scores_in(frame):
            if wanted is not None and name.partition("@")[0] not in wanted:
                continue
            mean, std, half = (float(frame[f"{name}_{part}"].iloc[0]) for part in ("mean", "std", "ci95"))
            spread = ("", "") if std != std else (f"{std:.4f}", f"{mean - half:.4f} to {mean + half:.4f}")
            lines.append((name, f"{mean:.4f}", *spread, DIRECTIONS[direction(name)], _related(frame, name)))
        print_table(lines)
        for name, cause in first.scores.left_out.items():
            if wanted is None or name in wanted:
                print(f"{name} is left out: {cause}")


def _related(frame, score: str) -> str:
    """Return the means of what a metric gives beside its score, in one line: "chance 0.100, k10 0.998"."""
    from dislab.report.frame import metric_of

    name, _, protocol = score.partition("@")
    metric, related = metric_of(name), {}
    for column in frame.columns[frame.columns.str.endswith("_mean")]:
        other, _, other_protocol = column.removesuffix("_mean").partition("@")
        is_related = other.startswith(f"{name}_") and metric_of(other) is metric
        if is_related and other_protocol == protocol:
            related[other.removeprefix(f"{name}_")] = float(frame[column].iloc[0])
    return ", ".join(f"{other} {value:.3f}" for other, value in related.items())
