"""Pictures of what a model learned: reconstructions, latent traversals and the content/style swap grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dislab.codes import CodeTable
from dislab.datasets.base import Dataset
from dislab.training import write_atomically

NUM_COLUMNS = 9
MOST_CLASSES = 10  # rows of the swap grid
TRAVERSAL = (-2.0, 2.0)  # in standard deviations of the prior, as in Higgins et al. 2017
TILE_INCHES = 0.75


def draw_pictures(path: Path, model, dataset: Dataset, table: CodeTable, rows: np.ndarray) -> list[Path]:
    """Write reconstructions.png, traversals.png and, for a model with content and style, swap.png
    (swap_1.png, swap_2.png, … where there are several groupings).

    Parameters
    ----------
    path : folder to write to.
    model : it needs `mean_image(codes)`; without a decoder there is nothing to draw and the list is empty.
    table, rows : the code table and the dataset rows that it was made from.

    Returns
    -------
    The files written.
    """
    if not hasattr(model, "mean_image"):
        return []
    device = next(iter(model.state_dict().values())).device
    chosen = np.random.default_rng(0).choice(len(table), NUM_COLUMNS, replace=len(table) < NUM_COLUMNS)
    figures = {
        "reconstructions.png": reconstructions(model, dataset, table, rows, chosen, device),
        "traversals.png": traversals(model, dataset, table, device),
    }
    contents = (
        [name for name in table.blocks if name.startswith("content")] if "style" in table.blocks else []
    )
    for grouping, block in enumerate(contents):
        name = block.replace("content", "swap") + ".png"
        figures[name] = swap_grid(model, dataset, table, rows, chosen, device, block, grouping)
    for name, figure in figures.items():
        save_figure(figure, path / name)
    return [path / name for name in figures]


def reconstructions(model, dataset: Dataset, table: CodeTable, rows, chosen, device):
    """A figure: images above their reconstructions from the posterior mean."""
    decoded = _decode(model, table.mean[chosen], device)
    originals = _originals(dataset, rows[chosen])
    return _figure(
        torch.stack([originals, decoded]),
        f"{dataset.name} ({dataset.source}): reconstructions",
        ["image", "reconstruction"],
    )


def traversals(model, dataset: Dataset, table: CodeTable, device):
    """A figure: one row per code dimension, moved from -2 to 2 while the others stay at one image's code.

    Within each block the dimensions come in the order of the information that they carry (mean KL to the
    prior).
    """
    start = table.mean[np.random.default_rng(1).integers(len(table))]
    values = np.linspace(*TRAVERSAL, NUM_COLUMNS)
    mean = table.mean.astype(np.float64)
    # A deterministic encoder has no variances: what is left of the KL is the mean's own share.
    logvar = np.zeros_like(mean) if table.logvar is None else table.logvar.astype(np.float64)
    kl = 0.5 * (mean**2 + np.exp(logvar) - logvar - 1).mean(0)
    blocks = table.blocks or {"code": slice(0, table.mean.shape[1])}
    tiles, names = [], []
    for name, block in blocks.items():
        dimensions = np.arange(block.start, block.stop)
        for dimension in dimensions[np.argsort(-kl[dimensions], kind="stable")]:
            codes = np.tile(start, (NUM_COLUMNS, 1))
            codes[:, dimension] = values
            tiles.append(_decode(model, codes, device))
            names.append(f"{name} {dimension - block.start}\n{kl[dimension]:.1f} nats")
    title = f"{dataset.name} ({dataset.source}): each code dimension from -2 to 2, with its mean KL"
    return _figure(torch.stack(tiles), title, names)


def swap_grid(model, dataset: Dataset, table: CodeTable, rows, chosen, device, block: str, grouping: int):
    """A figure: the content of each row's image with the style of each column's (Bouchacourt et al. 2017,
    figure 4), and with its other content codes where there are several groupings.

    The first column shows the images that give the content, one of each class; the first row those that give
    the style. Every code comes from a single image (no grouping).
    """
    content = table.blocks[block]
    labels = table.labels[:, grouping]
    rng = np.random.default_rng(2)
    givers = [rng.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)[:MOST_CLASSES]]
    tiles = [
        torch.cat([torch.ones_like(_originals(dataset, rows[chosen[:1]])), _originals(dataset, rows[chosen])])
    ]
    for giver in givers:
        codes = table.mean[chosen].copy()
        codes[:, content] = table.mean[giver, content]
        tiles.append(torch.cat([_originals(dataset, rows[[giver]]), _decode(model, codes, device)]))
    title = f"{dataset.name} ({dataset.source}): {block} of the first column, all else of the first row"
    return _figure(torch.stack(tiles), title, [""] * len(tiles))


def _decode(model, codes: np.ndarray, device) -> Tensor:
    with torch.inference_mode():
        return model.mean_image(torch.from_numpy(np.asarray(codes, np.float32)).to(device)).cpu()


def _originals(dataset: Dataset, rows) -> Tensor:
    return dataset.images(rows).cpu().float() / 255


def _figure(tiles: Tensor, title: str, names: list[str]):
    """Tiles [rows, columns, C, H, W] in [0, 1], with a name beside each row."""
    from matplotlib.figure import Figure

    num_rows, num_columns, channels, height, width = tiles.shape
    gap = 2
    sheet = torch.ones(channels, num_rows * (height + gap), num_columns * (width + gap))
    for row in range(num_rows):
        for column in range(num_columns):
            top, left = row * (height + gap), column * (width + gap)
            sheet[:, top : top + height, left : left + width] = tiles[row, column]
    margin = 1.1 if any(names) else 0.1
    figure = Figure(figsize=(num_columns * TILE_INCHES + margin, num_rows * TILE_INCHES + 0.35), dpi=130)
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (margin / total_width, 0, 1 - margin / total_width, num_rows * TILE_INCHES / total_height)
    )
    picture = sheet[0] if channels == 1 else sheet.permute(1, 2, 0)
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for row, name in enumerate(names):
        axes.text(-4, row * (height + gap) + height / 2, name, ha="right", va="center", fontsize=7)
    figure.text(0.02, 1 - 0.2 / total_height, title, fontsize=8, va="center")
    return figure


def save_figure(figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
