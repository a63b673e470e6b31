"""Compare numbers of dislab with reference numbers: one line for each, printed as a table, written as CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = (">11", ">11", ">10", ">10", "<12", "")  # of the columns after the case and the quantity


@dataclass(frozen=True)
class Line:
    """A quantity of a case: a row of the table.

    Attributes
    ----------
    quantity : such as the name of a score.
    reference, ours : NaN if there is no number; `note` then says why.
    tolerance : of the difference.
    result : "ok", "differs", "not compared", "no value" if the reference has none to compare with, or
        "not followed" if the reference is known to be wrong.
    """

    case: str
    quantity: str
    reference: float
    ours: float
    tolerance: float
    result: str
    note: str = ""

    @property
    def difference(self) -> float:
        return self.ours - self.reference

    @property
    def failed(self) -> bool:
        return self.result in ("differs", "not compared")

    def cells(self) -> list[str]:
        """Return the line's cells of the printed table."""
        numbers = f"{self.reference:.6f}", f"{self.ours:.6f}", f"{self.difference:+.1e}"
        known = ("-" if "nan" in number else number for number in numbers)
        return [self.case, self.quantity, *known, f"{self.tolerance:.1e}", self.result, self.note]


def header(widths: tuple[int, int], quantity: str) -> str:
    """Return the first row of the table; `widths` are of the longest case and the longest quantity."""
    return row(widths, "case", quantity, "reference", "ours", "difference", "tolerance", "", "")


def row(widths: tuple[int, int], *cells: str) -> str:
    """Return a row of the table."""
    formats = (f"<{widths[0] + 1}", f"<{widths[1] + 1}", *FORMATS)
    return " ".join(format(cell, form) for cell, form in zip(cells, formats, strict=True)).rstrip()


def write_csv(lines: Sequence[Line], path: str, quantity: str) -> None:
    """Write the lines as CSV; the column of the quantities is called `quantity`."""
    import pandas as pd

    rows = [dataclasses.asdict(line) | {"difference": line.difference} for line in lines]
    columns = ["case", quantity, "reference", "ours", "difference", "tolerance", "result", "note"]
    pd.DataFrame(rows).rename(columns={"quantity": quantity})[columns].to_csv(path, index=False)
