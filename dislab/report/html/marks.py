"""The small axes inside tables: a score between the worst and the best that it can be, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dislab.report.html.rows import Cell
from dislab.report.html.words import number

EDGE = 4  # pixels left of the lowest value and right of the highest


def said(cell: Cell) -> str:
    """Return a cell in words: "0.668, 95 % interval 0.665 to 0.671, n = 3"."""
    if cell.n == 1:
        return f"{number(cell.mean)}, one seed: no interval"
    interval = f"{number(cell.low)} to {number(cell.high)}"
    return f"{number(cell.mean)}, 95 % interval {interval}, n = {cell.n}"


@dataclass(frozen=True)
class Axis:
    """A horizontal axis of so many pixels between two values."""

    low: float
    high: float
    width: int
    height: int = 14

    def x(self, value: float) -> float:
        """Return the pixel of a value; what lies outside of the axis is drawn at its end."""
        share = (value - self.low) / (self.high - self.low)
        return round(EDGE + min(max(share, 0), 1) * (self.width - 2 * EDGE), 1)

    def line(self, first: float, last: float, name: str) -> str:
        y = self.height / 2
        return f'<path class="{name}" d="M{self.x(first)} {y:g}H{self.x(last)}"/>'

    def tick(self, value: float, name: str) -> str:
        y = self.height / 2 - 5
        return f'<path class="{name}" d="M{self.x(value)} {y:g}v10"/>'

    def band(self, low: float, high: float, name: str) -> str:
        left, right = self.x(low), self.x(high)
        y, width = self.height / 2 - 3.5, max(right - left, 1)
        return f'<rect class="{name}" x="{left}" y="{y:g}" width="{width:.1f}" height="7" rx="1.5"/>'

    def dot(self, value: float, name: str) -> str:
        return f'<circle class="{name}" cx="{self.x(value)}" cy="{self.height / 2:g}" r="3"/>'

    def diamond(self, value: float, name: str) -> str:
        x, y = self.x(value), self.height / 2 - 4.2
        return f'<path class="{name}" d="M{x} {y:g}l4.2 4.2l-4.2 4.2l-4.2 -4.2z"/>'

    def svg(self, parts: Sequence[str], label: str) -> Markup:
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        start = Markup('<svg class="bar" {} role="img" aria-label="{}">').format(Markup(size), label)
        return start + Markup("".join(parts)) + Markup("</svg>")


def bar(
    cell: Cell,
    axis: Axis,
    floor: float | None = None,
    ceiling: float | None = None,
    chance: float | None = None,
    mark: str = "",
) -> Markup:
    """Return the bar of a cell.

    Parameters
    ----------
    floor, ceiling : the same score of the untrained model and of the oracle, if there are such rows.
    chance : the accuracy of a guess, for accuracies of the class.
    mark : the name of a mark of `dislab.report.html.best`, "reference", or "".
    """
    parts = [axis.line(axis.low, axis.high, "base")]
    if floor is not None and ceiling is not None:
        parts.append(axis.line(floor, ceiling, "between"))
    parts += [axis.tick(value, "tick") for value in (floor, ceiling) if value is not None]
    if chance is not None:
        parts.append(axis.tick(chance, "chance"))
    if cell.n > 1:
        parts.append(axis.band(cell.low, cell.high, f"band {mark}".strip()))
    parts.append(axis.dot(cell.mean, f"dot {mark}{'' if cell.n > 1 else ' one'}"))
    return axis.svg(parts, said(cell))


def here_and_published(cell: Cell | None, values: Sequence[tuple[float, float]], axis: Axis) -> Markup:
    """Return the axis of a score here, as a dot, and of published means and deviations, as diamonds."""
    parts, words = [axis.line(axis.low, axis.high, "base")], []
    parts += [axis.tick(value, "tick") for value in (axis.low, axis.high)]
    for mean, std in values:
        if std == std:
            parts.append(axis.line(mean - std, mean + std, "deviation"))
    if cell is not None:
        words.append(f"here {said(cell)}")
        parts += [axis.band(cell.low, cell.high, "band here")] if cell.n > 1 else []
        parts.append(axis.dot(cell.mean, f"dot here{'' if cell.n > 1 else ' one'}"))
    for mean, _ in values:
        words.append(f"published {number(mean)}")
        parts.append(axis.diamond(mean, "published"))
    return axis.svg(parts, "; ".join(words))
