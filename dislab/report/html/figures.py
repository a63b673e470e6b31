"""The figures page: whether scores agree, sweeps, reconstruction, training and cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from scipy.special import stdtrit
from scipy.stats import rankdata

from dislab.report.frame import in_order
from dislab.report.html.chart import NARROW, SHAPES, Panel, Scale, around, series_class, width_of
from dislab.report.html.figure import Figure, figure, panel
from dislab.report.html.leaderboard import key_of, name_in
from dislab.report.html.rows import Row, Table, score_range
from dislab.report.html.scores import DRAW, HEADLINE
from dislab.report.html.strips import strips
from dislab.report.html.training import cost, training
from dislab.report.html.trajectories import lengths
from dislab.report.html.words import model_name, score_name
from dislab.report.names import counted

MOST_SCORES, FEWEST_SCORES, FEWEST_ROWS = 12, 4, 8  # of the heat map
MOST_LINES = 4  # of a sweep
FEWEST_VALUES = 3  # of a hyper-parameter that is swept
RECONSTRUCTION = "elbo_reconstruction"


def figures_page(tables: Sequence[Table]) -> dict:
    """Return what the template of the figures shows."""
    shown = [*agreement(tables), *sweeps(tables), *reconstructions(tables), *lengths(tables), *strips(tables)]
    shown += [*training(tables), *cost(tables)]
    return {
        "page": "figures.html",
        "title": "Figures",
        "lead": f"{counted(len(shown), 'figure')} of the runs in this report. Each has its table behind it.",
        "figures": shown,
    }


# Do the scores agree? ------------------------------------------------------------------------------


def agreement(tables: Sequence[Table]) -> list[Figure]:
    """Draw Spearman's correlation of scores over rows, with ranks taken within each setting."""
    parts, scores = _ranked(tables)
    number = sum(len(part) for part in parts)
    if len(scores) < FEWEST_SCORES or number < FEWEST_ROWS:
        return []
    ranks = np.concatenate(parts)
    moving = ranks.std(0) > 0
    scores, ranks = [s for s, moves in zip(scores, moving, strict=True) if moves], ranks[:, moving]
    if len(scores) < FEWEST_SCORES:
        return []
    matrix = np.corrcoef(ranks.T)
    distance = squareform(np.clip(1 - matrix, 0, 2), checks=False)
    order = leaves_list(optimal_leaf_ordering(linkage(distance, "average"), distance))
    scores, matrix = [scores[i] for i in order], matrix[np.ix_(order, order)]
    pairs = [(matrix[i, j], i, j) for i in range(len(scores)) for j in range(i)]
    (high, *a), (low, *b) = max(pairs), min(pairs)
    freedom = number - len(parts) - 1
    t = stdtrit(freedom, 0.975)
    bound = t / np.sqrt(freedom + t**2)
    names = [score_name(score) for score in scores]

    def draw(width: int) -> tuple[list[str], float]:
        narrow = width == NARROW
        room = min(max(width_of(name, 11.5) for name in names) + 10, 0.34 * width)
        side = min((width - room - 6) / len(scores), 44)
        drawn = Panel(Scale(0, 1, 0, 1), Scale(0, 1, 0, 1))
        for i, name in enumerate(names):
            y = i * side
            drawn.text(room - 6, y + side / 2 + 4, name, "tick", "end")
            for j in range(i + 1):
                value = matrix[i, j]
                look = "none" if i == j else "plus" if value >= 0 else "minus"
                strength = 1 if i == j else round(0.05 + 0.6 * abs(value), 2)
                drawn.parts.append(
                    f'<rect class="cell {look}" x="{room + j * side + 1:.1f}" y="{y + 1:.1f}" '
                    f'width="{side - 2:.1f}" height="{side - 2:.1f}" rx="2" opacity="{strength}"/>'
                )
                if i != j:
                    text = f"{value:.1f}" if narrow else f"{value:.2f}"
                    text = text.replace("0.", ".").replace("-", "−")
                    drawn.text(room + (j + 0.5) * side, y + side / 2 + 4, text, "minor strong", "middle")
            x = room + (i + 0.5) * side
            drawn.text(x + 4, len(names) * side + 12, name, "tick", "end", turn=-52)
        return drawn.parts, len(names) * side + 0.8 * room + 20

    lines = [
        ["score", *scores],
        *([s, *(f"{v:.4f}" for v in r)] for s, r in zip(scores, matrix, strict=True)),
    ]
    return [
        figure(
            "agreement",
            "Do the scores agree?",
            f"Spearman rank correlation of {len(scores)} scores, ranks within each setting; highest "
            f"{names[a[0]]} and {names[a[1]]} ({high:.2f}), lowest {names[b[0]]} and {names[b[1]]} "
            f"({low:.2f})".replace("-0", "−0"),
            f"{counted(number, 'row')} without the oracle, in {counted(len(parts), 'setting')}. Ordered by "
            f"similarity. A value between −{bound:.2f} and {bound:.2f} is not distinguishable from 0 at 5 %.",
            draw,
            lines,
            width="half",
        )
    ]


def _ranked(tables: Sequence[Table]) -> tuple[list[np.ndarray], list[str]]:
    """Return, for each setting, the centred ranks [rows, scores] of its rows; and the scores."""
    used = [(table, [row for row in table.rows if row.model != "oracle"]) for table in tables]
    used = [(table, rows) for table, rows in used if len(rows) >= FEWEST_VALUES]

    def complete(table: Table, rows: Sequence[Row]) -> set[str]:
        return {
            s
            for s, better in table.directions.items()
            if better == "up" and all(s in row.cells for row in rows)
        }

    used = [(table, rows) for table, rows in used if len(complete(table, rows)) >= MOST_SCORES // 2]
    if not used:
        return [], []
    common = in_order(set.intersection(*(complete(table, rows) for table, rows in used)))
    first = [score for score in common if score in HEADLINE]
    bounded = [s for s in common if s not in first and score_range(s, common)[1] is not None]
    scores = (first + bounded)[:MOST_SCORES]
    parts = []
    for _, rows in used:
        values = np.array([[row.cells[score].mean for score in scores] for row in rows])
        ranks = np.array([rankdata(column) for column in values.T]).T
        parts.append(ranks - ranks.mean(0))
    return parts, scores


# Sweeps --------------------------------------------------------------------------------------------


def sweeps(tables: Sequence[Table]) -> list[Figure]:
    """Draw scores against each hyper-parameter of which rows differ in nothing else."""
    shown = []
    for table in tables:
        for model in dict.fromkeys(row.model for row in table.ranked):
            rows = [row for row in table.ranked if row.model == model]
            for name in rows[0].config.hyperparameters:
                swept = _swept(rows, name)
                if len(swept) >= FEWEST_VALUES:
                    shown += _sweep(table, model, name, swept)
    return shown


def _swept(rows: Sequence[Row], name: str) -> dict[float, Row]:
    """Return the rows that differ in one number only, by its value: of all such sets the largest."""
    sets: dict[str, dict[float, Row]] = {}
    for row in rows:
        others = dict(row.config.hyperparameters)
        value = others.pop(name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            sets.setdefault(str(sorted(others.items(), key=str)), {})[float(value)] = row
    return dict(sorted(max(sets.values(), key=len, default={}).items()))


def _sweep(table: Table, model: str, name: str, swept: dict[float, Row]) -> list[Figure]:
    common = set.intersection(*({*row.cells} for row in swept.values()))
    scores = [s for h in (*HEADLINE, DRAW) for s in sorted(common) if s.partition("@")[0] == h]
    scores = [s for s in scores if score_range(s, table.directions) == (0, 1)]
    if "style_accuracy" in scores:  # what a weight on the style is swept for
        scores = [s for s in scores if "accuracy" in s]
    scores = scores[:MOST_LINES]
    if not scores:
        return []
    values = list(swept)
    log = values[0] > 0 and values[-1] / values[0] >= 8

    def draw(width: int) -> tuple[list[str], float]:
        right = width - (120 if width != NARROW else 96)
        drawn = panel((34, 12, right, 330), around(values, log) if log else around(values), (0, 1), log)
        drawn.y_axis([0, 0.25, 0.5, 0.75, 1])
        drawn.x_axis(f"{name.replace('_', ' ')}{' (log scale)' if log else ''}", values)
        chance = next((c for s in scores if (c := table.chance(s)) is not None), None)
        if chance is not None:
            drawn.rule(34, drawn.y(chance), right, drawn.y(chance), "guess")
            drawn.text(36, drawn.y(chance) - 4, f"chance {chance:.2f}", "tick")
        ends = []
        for number, score in enumerate(scores):
            colour, shape = series_class(number), SHAPES[number]
            cells = [row.cells[score] for row in swept.values()]
            for value, cell in zip(values, cells, strict=True):
                if cell.n > 1:
                    drawn.band([value], [cell.low], [cell.high], colour)
            drawn.line(values, [cell.mean for cell in cells], colour)
            for value, cell in zip(values, cells, strict=True):
                drawn.mark(shape, value, cell.mean, f"mark {colour}{'' if cell.n > 1 else ' open'}")
            ends.append((cells[-1].mean, score_name(score), shape, colour))
        drawn.labels(ends, right + 10)
        return drawn.parts, 376

    lines = [["score", name, "mean", "ci95_low", "ci95_high", "n"]]
    for score in scores:
        for value, row in swept.items():
            cell = row.cells[score]
            lines.append([score, value, cell.mean, cell.low, cell.high, cell.n])
    return [
        figure(
            f"sweep-{model}-{name}-{key_of(table)}",
            f"Sweep: {name.replace('_', ' ')} of {model_name(model)}",
            f"{name_in(table)}; the rows differ in nothing else",
            "Filled: at least two seeds, with the 95 % interval; hollow: one seed. No band is drawn between "
            "points.",
            draw,
            lines,
            width="half",
        )
    ]


# Reconstruction against disentanglement -------------------------------------------------------------


def reconstructions(tables: Sequence[Table]) -> list[Figure]:
    """Draw a score of disentanglement against the reconstruction term of the ELBO, a point per row."""
    shown = []
    for table in tables:
        score = table.sorted_by
        rows = [row for row in table.ranked if score in row.cells and RECONSTRUCTION in row.cells]
        if len(rows) >= FEWEST_VALUES:
            shown.append(_reconstruction(table, score, rows))
    return shown


def _reconstruction(table: Table, score: str, rows: Sequence[Row]) -> Figure:
    points = [(row.cells[RECONSTRUCTION], row.cells[score], row) for row in rows]
    several = len({row.model for row in rows}) < len(rows)

    def draw(width: int) -> tuple[list[str], float]:
        ys = around([0, *(y.mean for _, y, _ in points)])
        xs = around([x.mean for x, *_ in points])
        box = (42, 12, width - 12, 300)
        drawn = panel(box, xs, (0, ys[1]))
        drawn.y_axis()
        drawn.x_axis("reconstruction error, nats per image (less is sharper)", most=4)
        used: list[tuple[float, float]] = []
        for number, (x, y, row) in enumerate(points):
            colour = series_class(number)
            if y.n > 1:
                at, low, high = drawn.x(x.mean), max(y.low, 0), min(y.high, ys[1])
                drawn.rule(at, drawn.y(low), at, drawn.y(high), f"spread {colour}")
            drawn.mark(SHAPES[number % 6], x.mean, y.mean, f"mark {colour}{'' if y.n > 1 else ' open'}", 4.5)
            words = f"{model_name(row.model)}{', ' + row.words if several else ''}"
            at, level = drawn.x(x.mean), drawn.y(y.mean) + 4
            while any(abs(level - other) < 13 and abs(at - place) < 110 for place, other in used):
                level += 13
            used.append((at, level))
            left = at + 10 + width_of(words) > width
            drawn.text(at - 9 if left else at + 9, level, words, "label", "end" if left else "start")
        return drawn.parts, 344

    lines = [["model", "hyperparameters", "reconstruction_nats", score, "n"]]
    lines += [[row.model, row.config.key["hyperparameters"], x.mean, y.mean, y.n] for x, y, row in points]
    return figure(
        f"reconstruction-{key_of(table)}",
        f"Reconstruction and {score_name(score)}",
        name_in(table),
        "A point per row: mean over its seeds. Hollow: one seed. Lines: 95 % interval of the score.",
        draw,
        lines,
        width="half",
    )
