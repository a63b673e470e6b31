"""The axes of a figure: those of a new matplotlib figure, or a caller's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dislab.errors import DislabError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Panels = Axes | Sequence[Axes] | np.ndarray | None  # what a figure takes as `ax`


def axes_for(ax: Panels, number: int, columns: int, size: tuple[float, float], **options) -> np.ndarray:
    """Return the axes of a figure's panels, [number].

    Parameters
    ----------
    ax : the caller's own, one for each panel; None makes a new figure.
    columns : panels beside one another in a new figure.
    size : of a new figure, width and height in inches.
    options : of a new figure, for `Figure.subplots`.

    Raises
    ------
    DislabError : `ax` has not as many axes as there are panels.
    """
    from matplotlib.figure import Figure

    if ax is None:
        rows = -(-number // columns)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, **options).flatten()
        for empty in panels[number:]:
            empty.set_axis_off()
        return panels[:number]
    given = np.ravel(ax)
    if len(given) != number:
        raise DislabError(f"ax has {len(given)} axes: the figure needs {number}, one for each panel")
    return given


def add_legend(ax: Panels, panels: np.ndarray, handles: Sequence, names: Sequence[str], **where) -> None:
    """Add the legend: above or beside the panels of a new figure, or else in the caller's last axes."""
    if ax is None:
        panels[0].figure.legend(handles, names, fontsize=8, **where)
    else:
        panels[-1].legend(handles, names, fontsize=8)


def not_empty(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the table of a figure; raise DislabError if it is empty: no run has `what`."""
    if table.empty:
        raise DislabError(f"the figure has nothing to show: no run has {what}")
    return table
