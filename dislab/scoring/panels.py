"""Grids of images as matplotlib figures: what the pictures of models are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dislab.files import DPI

TILE_INCHES = 0.6
GAP = 2  # pixels between tiles


@dataclass
class Panel:
    """A grid of images, with text above it, above its columns and beside its rows."""

    tiles: Tensor  # float [rows, columns, C, H, W] in [0, 1]; a tile of NaN is left white
    title: str = ""
    names: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    boxes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # colour -> (row, column) of tiles

    def sheet(self) -> np.ndarray:
        """Return the tiles as one picture, float32 [height, width] of grey or [height, width, 4] with alpha.

        Alpha is 1. matplotlib would add it in float64, and take a fifth longer for the picture.
        """
        rows, columns, channels, height, width = self.tiles.shape
        planes = 1 if channels == 1 else 4
        sheet = torch.ones(planes, rows * (height + GAP), columns * (width + GAP))
        for row, column in np.ndindex(rows, columns):
            y, x = row * (height + GAP), column * (width + GAP)
            sheet[:channels, y : y + height, x : x + width] = self.tiles[row, column].nan_to_num(1.0)
        return (sheet[0] if channels == 1 else sheet.permute(1, 2, 0)).numpy()

    def draw(self, axes):
        """Draw the tiles, their boxes and their names on matplotlib axes; return the axes."""
        from matplotlib.patches import Rectangle

        height, width = self.tiles.shape[-2:]
        step_y, step_x = height + GAP, width + GAP  # pixels
        axes.imshow(self.sheet(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        for colour, boxed in self.boxes.items():
            look = {"fill": False, "edgecolor": colour, "linewidth": 1.5}
            for row, column in boxed:
                corner = column * step_x - 1, row * step_y - 1
                axes.add_artist(Rectangle(corner, width + 1, height + 1, **look))
        for row, name in enumerate(self.names):
            axes.text(-4 * step_x / 66, row * step_y + height / 2, name, ha="right", va="center", fontsize=7)
        for column, name in enumerate(self.columns):
            look = {"ha": "center", "va": "bottom", "fontsize": 7}
            axes.text(column * step_x + width / 2, -2 * step_y / 66, name, **look)
        pad = 14 if self.columns else 3
        axes.set_title(self.title, loc="left", fontsize=8, pad=pad)
        return axes


def draw(panels: list[Panel], title: str, ax=None):
    """Draw panels beside one another below a title of two lines; return the axes.

    Parameters
    ----------
    ax : the matplotlib axes to draw on, without the title: one, or a list for several panels. By default
        there is a new figure, in which a tile has TILE_INCHES.

    Returns
    -------
    One axes, or an array of one for each panel; the figure is their attribute `figure`.
    """
    if ax is None:
        ax = _axes_for(panels, title)
    drawn = [panel.draw(axes) for panel, axes in zip(panels, np.ravel(ax), strict=True)]
    return drawn[0] if len(drawn) == 1 else np.array(drawn)


def _axes_for(panels: list[Panel], title: str) -> list:
    """Return axes for panels beside one another, in a new figure with a title."""
    from matplotlib.figure import Figure

    margin, top, between = 1.1 if any(panel.names for panel in panels) else 0.1, 0.4, 0.3
    above = 0.25 if any(panel.title for panel in panels) else 0.0
    above += 0.15 if any(panel.columns for panel in panels) else 0.0
    widths = [panel.tiles.shape[1] * TILE_INCHES for panel in panels]
    tallest = max(panel.tiles.shape[0] for panel in panels) * TILE_INCHES
    size = (margin + sum(widths) + between * (len(panels) - 1) + 0.05, tallest + top + above)
    figure = Figure(figsize=size, dpi=DPI)
    left, axes = margin, []
    for panel, width in zip(panels, widths, strict=True):
        height = panel.tiles.shape[0] * TILE_INCHES
        box = (left / size[0], (tallest - height) / size[1], width / size[0], height / size[1])
        axes.append(figure.add_axes(box))
        left += width + between
    figure.text(0.1 / size[0], (tallest + above + 0.5 * top) / size[1], title, fontsize=8, va="center")
    return axes
