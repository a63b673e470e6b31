"""Pictures of what a model learned: reconstructions and latent traversals.

Of a model with content and style also figures 4 to 6 of the ML-VAE paper (Bouchacourt et al. 2017): swapping,
interpolation, generation and accumulated evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dislab.data.dataset import Dataset, unit_images
from dislab.data.groups import draw_groups, join_by_one
from dislab.files import save_figure
from dislab.scoring.table import CodeTable

NUM_COLUMNS = 9
TRAVERSAL = (-2.0, 2.0)  # in standard deviations of the prior, as in Higgins et al. 2017
TILE_INCHES = 0.6
GAP = 2  # pixels between tiles
TEST_IMAGE, RECONSTRUCTION = "limegreen", "royalblue"  # colours of the boxes, as in the paper
COLOURS = "green: images, blue: reconstructed"
MOST_CLASSES = 8  # of the swap grid
JOINED = 10  # most images of a group
NUM_IDENTITIES = 5  # groups in the pictures of generation
NUM_EVIDENCE = 3  # groups in the picture of accumulated evidence


@dataclass
class Panel:
    """A grid of images, with text above it and beside its rows."""

    tiles: Tensor  # float [rows, columns, C, H, W] in [0, 1]; a tile of NaN is left white
    title: str = ""
    names: list[str] = field(default_factory=list)
    boxes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # colour -> (row, column) of tiles


class Scene:
    """A trained model, and the code table of rows of its dataset."""

    def __init__(self, model, dataset: Dataset, table: CodeTable, rows: np.ndarray):
        self.model, self.dataset, self.table, self.rows = model, dataset, table, rows
        self.device = next(iter(model.state_dict().values())).device
        self.name = f"{dataset.name} ({dataset.source})"

    def images(self, positions: np.ndarray) -> Tensor:
        """Return the images [..., C, H, W] in [0, 1] at positions int64 [...] of the table."""
        images = unit_images(self.dataset.images(self.rows[positions.flatten()])).cpu()
        return images.unflatten(0, positions.shape)

    def decode(self, codes: np.ndarray) -> Tensor:
        """Return E[x|z] [..., C, H, W] in [0, 1] of codes [..., D]."""
        flat = torch.from_numpy(np.asarray(codes, np.float32)).flatten(0, -2).to(self.device)
        with torch.inference_mode():
            return self.model.mean_image(flat).cpu().unflatten(0, codes.shape[:-1])

    def codes(self, groups: np.ndarray, grouping: int, joined: bool) -> np.ndarray:
        """Return the codes [groups, k, D] of the images at positions int64 [groups, k].

        Each image has its own code; with `joined`, the images of a group share the content of this grouping.
        """
        if not joined:
            return self.table.mean[groups]
        by_one = join_by_one(*groups.shape, grouping, self.table.labels.shape[1], self.device)
        with torch.inference_mode():
            images = self.images(groups).flatten(0, 1).to(self.device)
            mean, _ = self.model.encode_groups(images, by_one)
        return mean.cpu().numpy().reshape(*groups.shape, -1)


def draw_pictures(path: Path, model, dataset: Dataset, table: CodeTable, rows: np.ndarray) -> list[Path]:
    """Write the pictures of a trained model to the folder `path`, and return their paths.

    These are reconstructions.png and traversals.png, and for a model with content and style swap.png,
    interpolation.png, generation.png and evidence.png. With several groupings there is one of these for each:
    swap_1.png, swap_2.png, and so on. Nothing is drawn for a model without `mean_image`.
    """
    if model.mean_image is None:
        return []
    scene = Scene(model, dataset, table, rows)
    figures = {"reconstructions": reconstructions(scene), "traversals": traversals(scene)}
    if model.encode_groups is not None:
        contents = [name for name in table.blocks if name != "style"]
        for grouping, block in enumerate(contents):
            for picture in (swap, interpolation, generation, evidence):
                figures[picture.__name__ + block.removeprefix("content")] = picture(scene, block, grouping)
    for name, figure in figures.items():
        save_figure(figure, path / f"{name}.png")
    return [path / f"{name}.png" for name in figures]


def reconstructions(scene: Scene):
    """Draw images above their reconstructions from the posterior mean; return the figure."""
    few = len(scene.table) < NUM_COLUMNS
    chosen = np.random.default_rng(0).choice(len(scene.table), NUM_COLUMNS, replace=few)
    tiles = torch.stack([scene.images(chosen), scene.decode(scene.table.mean[chosen])])
    return draw([Panel(tiles, names=["image", "reconstruction"])], f"{scene.name}: reconstructions")


def traversals(scene: Scene):
    """Draw a row per code dimension, which moves from -2 to 2; return the figure.

    The other dimensions stay at the code of one image. Within each block the dimensions are sorted by the
    information that they carry, their mean KL to the prior.
    """
    table = scene.table
    start = table.mean[np.random.default_rng(1).integers(len(table))]
    values = np.linspace(*TRAVERSAL, NUM_COLUMNS)
    mean = table.mean.astype(np.float64)
    # A deterministic encoder has no variances: only the term of the mean is left of the KL.
    logvar = np.zeros_like(mean) if table.logvar is None else table.logvar.astype(np.float64)
    kl = 0.5 * (mean**2 + np.exp(logvar) - logvar - 1).mean(0)
    blocks = table.blocks or {"code": slice(0, table.mean.shape[1])}
    order, names = [], []
    for name, block in blocks.items():
        dimensions = np.arange(block.start, block.stop)
        for dimension in dimensions[np.argsort(-kl[dimensions], kind="stable")]:
            order.append(dimension)
            names.append(f"{name} {dimension - block.start}\n{kl[dimension]:.1f} nats")
    codes = np.tile(start, (len(order), NUM_COLUMNS, 1))
    codes[np.arange(len(order)), :, order] = values
    title = f"{scene.name}: each code dimension from -2 to 2, with its mean KL"
    return draw([Panel(scene.decode(codes), names=names)], title)


def swap(scene: Scene, block: str, grouping: int):
    """Draw the content of each column's image with the style of each row's image; return the figure.

    This is figure 4 of Bouchacourt et al. 2017. The first row and column are test images, each column of
    another class, the second ones their reconstructions. With several groupings, style is all but this
    content.
    """
    classes = scene.table.labels[:, grouping]
    rng = np.random.default_rng(2)
    # Of every class two halves of a group: the columns' images and, others, the rows'.
    groups = draw_groups(rng, classes, MOST_CLASSES, 2 * JOINED)
    half = max(1, groups.shape[1] // 2)
    givers = [groups[:, :half], groups[:, -half:]]  # the same image where a class has only one
    panels = []
    for joined in (False, True):
        contents, styles = (scene.codes(group, grouping, joined)[:, 0] for group in givers)
        number = len(contents)
        codes = np.tile(styles[:, None], (1, number, 1))
        dims = scene.table.blocks[block]
        codes[:, :, dims] = contents[:, dims]
        tiles = torch.full((number + 2, number + 2, *scene.dataset.image_shape), np.nan)
        tiles[0, 2:], tiles[1, 2:] = scene.images(givers[0][:, 0]), scene.decode(contents)
        tiles[2:, 0], tiles[2:, 1] = scene.images(givers[1][:, 0]), scene.decode(styles)
        tiles[2:, 2:] = scene.decode(codes)
        boxes = {}
        for line, colour in enumerate((TEST_IMAGE, RECONSTRUCTION)):
            row = [(line, image) for image in range(2, number + 2)]
            boxes[colour] = row + [(image, line) for line, image in row]
        panels.append(Panel(tiles, _strategy(joined, half), boxes=boxes))
    title = f"{scene.name}: {block} of each column's image, style of each row's"
    return draw(panels, f"{title} ({COLOURS})")


def interpolation(scene: Scene, block: str, grouping: int):
    """Draw what lies between two test images; return the figure (figure 5 of Bouchacourt et al. 2017).

    The content changes from left to right and the style from top to bottom.
    """
    groups = draw_groups(np.random.default_rng(3), scene.table.labels[:, grouping], 2, JOINED)
    dims = scene.table.blocks[block]
    shares = np.linspace(0, 1, NUM_COLUMNS, dtype=np.float32)[:, None]
    panels = []
    for joined in (False, True):
        first, last = scene.codes(groups, grouping, joined)[[0, -1], 0]
        line = first + shares * (last - first)
        codes = np.tile(line[:, None], (1, NUM_COLUMNS, 1))
        codes[:, :, dims] = line[:, dims]
        decoded = scene.decode(codes)
        edge = torch.full_like(decoded[:, :1], np.nan)
        tiles = torch.cat([edge, decoded, edge], dim=1)
        tiles[0, 0], tiles[-1, -1] = scene.images(groups[[0, -1], 0])
        boxes = {
            TEST_IMAGE: [(0, 0), (NUM_COLUMNS - 1, NUM_COLUMNS + 1)],
            RECONSTRUCTION: [(0, 1), (NUM_COLUMNS - 1, NUM_COLUMNS)],
        }
        panels.append(Panel(tiles, _strategy(joined, groups.shape[1]), boxes=boxes))
    title = f"{scene.name}: {block} from left to right, style from top to bottom"
    return draw(panels, f"{title} ({COLOURS})")


def generation(scene: Scene, block: str, grouping: int):
    """Draw the content of a group's images in each row, with styles drawn from the prior; return the figure.

    This is figure 6a of Bouchacourt et al. 2017.
    """
    groups = draw_groups(np.random.default_rng(4), scene.table.labels[:, grouping], NUM_IDENTITIES, JOINED)
    style = scene.table.blocks["style"]
    number = NUM_COLUMNS - 1
    draws = np.random.default_rng(5).normal(size=(len(groups), number, style.stop - style.start))
    panels = []
    for joined in (False, True):
        codes = np.repeat(scene.codes(groups, grouping, joined)[:, :1], number, axis=1)
        codes[:, :, style] = draws
        shown = scene.images(groups[:, : 5 if joined else 1])
        edge = torch.full_like(shown[:, :1], np.nan)
        tiles = torch.cat([shown, edge, scene.decode(codes)], dim=1)
        boxes = {TEST_IMAGE: list(np.ndindex(*shown.shape[:2]))}
        panels.append(Panel(tiles, _strategy(joined, groups.shape[1]), boxes=boxes))
    return draw(panels, f"{scene.name}: {block} of the images on the left, styles drawn from the prior")


def evidence(scene: Scene, block: str, grouping: int):
    """Draw images above their reconstructions from their own content, and from that of their whole group.

    This is figure 6b of Bouchacourt et al. 2017.
    """
    groups = draw_groups(np.random.default_rng(6), scene.table.labels[:, grouping], NUM_EVIDENCE, JOINED)
    decoded = [scene.decode(scene.codes(groups, grouping, joined)) for joined in (False, True)]
    tiles = torch.stack([scene.images(groups), *decoded], dim=1).flatten(0, 1)
    names = ["image", f"own {block}", f"{block} of {groups.shape[1]}"] * len(groups)
    boxes = {
        colour: [(row, column) for row in range(line, len(tiles), 3) for column in range(tiles.shape[1])]
        for line, colour in enumerate((TEST_IMAGE, RECONSTRUCTION))
    }
    title = f"{scene.name}: images of a group, reconstructed by their own content and by that of the group"
    return draw([Panel(tiles, names=names, boxes=boxes)], title)


def _strategy(joined: bool, number: int) -> str:
    if not joined:
        return "no grouping: every code from one image"
    return f"grouped by the true class: the content from {number} images"


def draw(panels: list[Panel], title: str):
    """Return a figure of panels beside one another, below a title."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    margin, top, between = 1.1 if any(panel.names for panel in panels) else 0.1, 0.3, 0.3
    above = 0.25 if any(panel.title for panel in panels) else 0.0
    widths = [panel.tiles.shape[1] * TILE_INCHES for panel in panels]
    tallest = max(panel.tiles.shape[0] for panel in panels) * TILE_INCHES
    size = (margin + sum(widths) + between * (len(panels) - 1) + 0.05, tallest + top + above)
    figure = Figure(figsize=size, dpi=130)
    left = margin
    for panel, width in zip(panels, widths, strict=True):
        num_rows, num_columns, channels, tile_height, tile_width = panel.tiles.shape
        step_y, step_x = tile_height + GAP, tile_width + GAP  # pixels
        height = num_rows * TILE_INCHES
        bottom = tallest - height
        axes = figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]))
        sheet = torch.ones(channels, num_rows * step_y, num_columns * step_x)
        for row, column in np.ndindex(num_rows, num_columns):
            y, x = row * step_y, column * step_x
            sheet[:, y : y + tile_height, x : x + tile_width] = panel.tiles[row, column].nan_to_num(1.0)
        picture = sheet[0] if channels == 1 else sheet.permute(1, 2, 0)
        axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        for colour, boxed in panel.boxes.items():
            look = {"fill": False, "edgecolor": colour, "linewidth": 1.5}
            for row, column in boxed:
                corner = column * step_x - 1, row * step_y - 1
                axes.add_artist(Rectangle(corner, tile_width + 1, tile_height + 1, **look))
        for row, name in enumerate(panel.names):
            axes.text(-4, row * step_y + tile_height / 2, name, ha="right", va="center", fontsize=7)
        figure.text(left / size[0], (tallest + 0.5 * above) / size[1], panel.title, fontsize=8, va="center")
        left += width + between
    figure.text(0.1 / size[0], (tallest + above + 0.5 * top) / size[1], title, fontsize=8, va="center")
    return figure
