"""Charts as SVG: scales, axes, lines, bands and marks. Colours and type come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDE, NARROW = 1214, 344  # pixels of a figure over the whole page, and on a telephone
HALF = 574  # of a figure in one of two columns
COLOURS = 5  # classes s1 to s5; the shape of the mark tells series apart beyond these
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "wedge")
LINE = 14  # pixels between two labels


@dataclass(frozen=True)
class Scale:
    """A mapping of values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (self._at(number) for number in (self.low, self.high, value))
        share = 0.5 if high == low else (value - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def _at(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    def ticks(self, most: int = 5) -> list[float]:
        """Return at most about so many round values on the axis."""
        if self.low == self.high:
            return [self.low]
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1, 2, 5), (1, 3), (1,)):
                values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
                values = [
                    value for value in values if self.low <= value * 1.001 and value <= self.high * 1.001
                ]
                if len(values) <= most:
                    break
            return values if len(values) > 1 else [self.low, self.high]
        size = 10 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(size * k for k in (1, 2, 2.5, 5, 10) if (self.high - self.low) / (size * k) <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [(first + i) * step for i in range(int((self.high - self.low) / step + 1e-9) + 1)
                if (first + i) * step <= self.high * (1 + 1e-9) + 1e-12]  # fmt: skip


def around(values: Iterable[float], log: bool = False) -> tuple[float, float]:
    """Return the ends of an axis that holds all values with some space; values must not be empty."""
    values = list(values)
    low, high = min(values), max(values)
    if log:
        return low / 1.25, high * 1.25
    space = 0.06 * (high - low) or 0.06 * (abs(high) or 1)
    return low - space, high + space


def label_of(value: float) -> str:
    """Return a tick's text: 1000 is "1k"."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M".replace("-", "−")
    if abs(value) >= 1000:
        return f"{value / 1000:g}k".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def width_of(text: str, size: float = 12) -> float:
    """Return about how many pixels a text takes."""
    return 0.56 * size * len(text)


def series_class(number: int) -> str:
    return f"s{number % COLOURS + 1}"


def mark(shape: str, x: float, y: float, name: str, size: float = 4) -> str:
    """Return a mark of a shape at a pixel."""
    x, y, r, d = round(x, 1), round(y, 1), size, round(1.3 * size, 2)
    if shape == "circle":
        return f'<circle class="{name}" cx="{x}" cy="{y}" r="{r}"/>'
    paths = {
        "square": f"M{x - r} {y - r}h{2 * r}v{2 * r}h{-2 * r}z",
        "triangle": f"M{x} {y - 1.2 * r:g}l{1.2 * r:g} {2.1 * r:g}h{-2.4 * r:g}z",
        "diamond": f"M{x} {y - d:g}l{d} {d}l{-d} {d}l{-d} {-d}z",
        "cross": f"M{x - r} {y - r}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}",
        "wedge": f"M{x} {y + 1.2 * r:g}l{1.2 * r:g} {-2.1 * r:g}h{-2.4 * r:g}z",
    }
    return f'<path class="{name}" d="{paths[shape]}"/>'


@dataclass
class Panel:
    """A rectangle of a chart with its scales; it collects SVG."""

    x: Scale
    y: Scale
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, words: str, name: str = "", anchor: str = "start", turn: int = 0
    ) -> None:
        turned = f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
        classes = f' class="{name}"' if name else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{classes}{turned}>{escape(words)}</text>'
        )

    def rule(self, x1: float, y1: float, x2: float, y2: float, name: str) -> None:
        self.parts.append(f'<path class="{name}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>')

    def y_axis(self, ticks: Sequence[float] | None = None, most: int = 5) -> None:
        """Draw horizontal rules with their values on the left."""
        for value in self.y.ticks(most) if ticks is None else ticks:
            y = self.y(value)
            self.rule(self.x.start, y, self.x.end, y, "grid")
            self.text(self.x.start - 8, y + 4, label_of(value), "tick", "end")

    def x_axis(self, title: str = "", ticks: Sequence[float] | None = None, most: int = 5) -> None:
        """Draw the values of the horizontal axis below it, and its title at the right."""
        for value in self.x.ticks(most) if ticks is None else ticks:
            self.text(self.x(value), self.y.start + 18, label_of(value), "tick", "middle")
        if title:
            self.text(self.x.end, self.y.start + 36, title, "axis", "end")

    def x_rules(self, ticks: Sequence[float] | None = None, most: int = 5, above: bool = False) -> None:
        """Draw vertical rules, with their values below, or above."""
        for value in self.x.ticks(most) if ticks is None else ticks:
            x = self.x(value)
            self.rule(x, self.y.start, x, self.y.end, "grid")
            y = min(self.y.start, self.y.end) - 7 if above else max(self.y.start, self.y.end) + 16
            self.text(x, y, label_of(value), "tick", "middle")

    def line(self, xs: Sequence[float], ys: Sequence[float], name: str) -> None:
        points = "L".join(f"{self.x(x):g} {self.y(y):g}" for x, y in zip(xs, ys, strict=True))
        self.parts.append(f'<path class="line {name}" d="M{points}"/>')

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], name: str) -> None:
        """Shade what lies between two lines; at a single x, a bar of 9 pixels."""
        if len(xs) == 1:
            x, top = self.x(xs[0]) - 4.5, self.y(high[0])
            tall = max(self.y(low[0]) - top, 1)
            self.parts.append(
                f'<rect class="area {name}" x="{x:g}" y="{top:g}" width="9" height="{tall:g}"/>'
            )
            return
        there = [f"{self.x(x):g} {self.y(y):g}" for x, y in zip(xs, high, strict=True)]
        back = [f"{self.x(x):g} {self.y(y):g}" for x, y in zip(xs, low, strict=True)]
        self.parts.append(f'<path class="area {name}" d="M{"L".join(there + back[::-1])}z"/>')

    def mark(self, shape: str, x: float, y: float, name: str, size: float = 4) -> None:
        self.parts.append(mark(shape, self.x(x), self.y(y), name, size))

    def labels(self, ends: Sequence[tuple[float, str, str, str]], x: float) -> None:
        """Write labels beside the ends of lines, each with its mark; none covers another.

        Parameters
        ----------
        ends : of each line its last value, text, shape and class.
        """
        ordered = sorted(ends, key=lambda end: self.y(end[0]))
        places: list[float] = []
        for value, *_ in ordered:
            places.append(max(self.y(value), places[-1] + LINE if places else -math.inf))
        lowest = max(self.y.start, self.y.end) + 8
        for i in range(len(places) - 1, -1, -1):  # pushed up from below where they run out of room
            places[i] = min(places[i], lowest - LINE * (len(places) - 1 - i))
        for (_, words, shape, name), y in zip(ordered, places, strict=True):
            self.parts.append(mark(shape, x + 5, y, f"mark {name}"))
            self.text(x + 14, y + 4, words, "label")


def svg(parts: Iterable[str], width: float, height: float, label: str, name: str) -> Markup:
    """Return a chart; `name` is the class that shows it on wide or on narrow pages."""
    head = Markup(
        '<svg class="chart {}" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}" role="img" aria-label="{}">'
    )
    start = head.format(name, width, height, width, height, label)
    return start + Markup("".join(parts)) + Markup("</svg>")
