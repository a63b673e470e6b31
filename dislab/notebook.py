"""What a notebook shows of dislab's objects: small HTML tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(caption: str, head: Sequence[str], lines: Iterable[Sequence[object]], below: str = "") -> str:
    """Return a table as HTML; all texts are escaped.

    Parameters
    ----------
    caption : a line above the table.
    lines : a cell for each column, which becomes a text.
    below : a line under the table, none if empty.
    """
    heads = "".join(f"<th>{escape(one)}</th>" for one in head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>" for line in lines
    )
    foot = f"<p>{escape(below)}</p>" if below else ""
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>{foot}"
    )
