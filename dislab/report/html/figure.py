"""A figure of a page: drawn for a wide and for a narrow page, with the table behind it as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dislab.report.html.chart import HALF, NARROW, WIDE, Panel, Scale, mark, svg


@dataclass(frozen=True)
class Figure:
    """A figure; `width` is "whole" or "half" of the page."""

    name: str
    title: str
    subtitle: str
    caption: str
    wide: Markup
    narrow: Markup
    csv: str
    legend: Sequence[tuple[Markup, str]] = ()
    width: str = "whole"


def figure(
    name: str,
    title: str,
    subtitle: str,
    caption: str,
    draw: Callable[[int], tuple[list[str], float]],
    lines: Iterable[Sequence],
    legend: Sequence[tuple[str, str, str]] = (),
    width: str = "whole",
) -> Figure:
    """Return a figure.

    Parameters
    ----------
    draw : function of the width in pixels that returns SVG and its height.
    lines : of the CSV, the first of which names the columns.
    legend : shape, class and words of each entry.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    label = f"{title}. {subtitle}"
    drawn = []
    for pixels, shown in ((WIDE if width == "whole" else HALF, "wide"), (NARROW, "narrow")):
        parts, height = draw(pixels)
        drawn.append(svg(parts, pixels, height, label, shown))
    keys = [(Markup(mark(shape, 0, 0, f"mark {look}")), words) for shape, look, words in legend]
    return Figure(name, title, subtitle, caption, drawn[0], drawn[1], text.getvalue(), keys, width)


def panels_of(
    width: int, number: int, columns: int, height: float, left: float, gap: float = 26, head: float = 24
) -> tuple[list[tuple[float, float, float, float]], float]:
    """Return the rectangles (left, top, right, bottom) of small multiples, and the height of all.

    Parameters
    ----------
    height : of a panel.
    left : room for the values of its vertical axis.
    gap : between two panels.
    head : room above a panel for its title.
    """
    each = (width - columns * left - (columns - 1) * gap) / columns
    boxes = []
    for index in range(number):
        line, column = divmod(index, columns)
        x = left + column * (each + left + gap)
        y = head + line * (height + head + 44)
        boxes.append((x, y, x + each, y + height))
    lines = -(-number // columns)
    return boxes, lines * (height + head + 44)


def panel(box: tuple[float, float, float, float], xs, ys, log: bool = False, log_y: bool = False) -> Panel:
    """Return a panel in a rectangle, with the ends of its axes."""
    left, top, right, bottom = box
    return Panel(Scale(*xs, left, right, log), Scale(*ys, bottom, top, log_y))
