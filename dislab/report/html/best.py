"""Which rows are best, and between which ranks a row lies.

Two rows of at least two seeds each are told apart by Welch's test: they differ if the 95 % interval of the
difference of their means, with the degrees of freedom of Welch and Satterthwaite, does not contain 0. A row
of one seed is never tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from dislab.report.html.rows import Cell, Row, Table

BEST, TIED, UNTESTED = "best", "tied", "untested"  # marks of a cell


def differ(first: Cell, second: Cell) -> bool:
    """Return whether Welch's test tells two cells apart at 5 %; both need at least two seeds."""
    parts = np.array([first.std**2 / first.n, second.std**2 / second.n])
    distance, error = abs(first.mean - second.mean), float(np.sqrt(parts.sum()))
    if error == 0:
        return distance > 0
    freedom = parts.sum() ** 2 / (parts**2 / (first.n - 1, second.n - 1)).sum()
    return bool(distance > stdtrit(freedom, 0.975) * error)


def marks(table: Table, score: str) -> dict[int, str]:
    """Return the marks of a score's cells: id of a row -> BEST, TIED or UNTESTED.

    BEST is the best mean, TIED every row that the test cannot tell from it, and UNTESTED the best mean if no
    test is possible: it, or each of the others, has one seed. Nothing is marked if the direction of the score
    is not known, or if only one row has it.
    """
    cells, better = table.cells(score), table.direction(score)
    if len(cells) < 2 or not better:
        return {}
    sign = 1 if better == "up" else -1
    best, top = max(cells, key=lambda pair: sign * pair[1].mean)
    others = [(row, cell) for row, cell in cells if row is not best and cell.n > 1]
    if top.n == 1 or not others:
        return {id(best): UNTESTED}
    return {id(best): BEST} | {id(row): TIED for row, cell in others if not differ(top, cell)}


@dataclass(frozen=True)
class Rank:
    """The place of a row among the ranked rows of its table that have a score: from `first` to `last`."""

    first: int
    last: int
    of: int
    note: str  # "untested", "tied" or ""

    def __str__(self) -> str:
        place = f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"
        return f"{place} of {self.of}"


def rank(table: Table, score: str, row: Row) -> Rank | None:
    """Return the rank of a row; None if there is nothing to rank by.

    If every row has at least two seeds, `first` - 1 rows are better and `of` - `last` are worse by the test.
    Otherwise the rank is that of the mean, and untested.
    """
    cells, better = table.cells(score), table.direction(score)
    mine = row.cells.get(score)
    if mine is None or row.is_reference or not better:
        return None
    sign = 1 if better == "up" else -1
    others = [cell for other, cell in cells if other is not row]
    ahead = [cell for cell in others if sign * cell.mean > sign * mine.mean]
    if not others:
        return Rank(1, 1, 1, "")
    if mine.n == 1 or any(cell.n == 1 for cell in others):
        place = 1 + len(ahead)
        return Rank(place, place, len(cells), UNTESTED)
    apart = [cell for cell in others if differ(mine, cell)]
    first = 1 + len([cell for cell in apart if sign * cell.mean > sign * mine.mean])
    last = len(cells) - len([cell for cell in apart if sign * cell.mean < sign * mine.mean])
    return Rank(first, last, len(cells), "tied" if first < last else "")
