"""Which cells of a page are best, and between which ranks a row lies; the test is `dislab.report.best`'s."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dislab.report.best import apart, best_of
from dislab.report.html.rows import Cell, Row, Table

BEST, TIED, UNTESTED = "best", "tied", "untested"  # marks of a cell


def differ(first: Cell, second: Cell) -> bool:
    """Return whether two cells of at least two seeds are apart."""
    return bool(apart(first.mean, first.std, first.n, second.mean, second.std, second.n))


def marks(table: Table, score: str) -> dict[int, str]:
    """Return the marks of a score's cells: id of a row -> BEST, TIED or UNTESTED.

    Nothing is marked if the direction of the score is not known, or if only one row has it.
    """
    values = {id(row): pd.Series(cell.values) for row, cell in table.cells(score)}
    return best_of(pd.DataFrame(values).T, table.direction(score))


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
