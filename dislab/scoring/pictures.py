"""Pictures of what a model learned: reconstructions and latent traversals.

Of a model with content and style also figures 4 to 6 of the ML-VAE paper (Bouchacourt et al. 2017): swapping,
interpolation, generation and accumulated evidence.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dislab import __version__
from dislab.data.dataset import Dataset, unit_images
from dislab.data.groups import draw_groups, join_by_one
from dislab.files import save_figure, write_atomically
from dislab.scoring.panels import Panel, draw
from dislab.scoring.table import CodeTable

NUM_COLUMNS = 9
QUANTILES = np.linspace(0.02, 0.98, NUM_COLUMNS)  # of the aggregate posterior, in the columns of a traversal
DRAWS = 10_000  # of the aggregate posterior
MILLISECONDS = 150  # of a frame of the animation
ANIMATED = 10  # tiles in a row of the animation
TEST_IMAGE, RECONSTRUCTION = "limegreen", "royalblue"  # colours of the boxes, as in the paper
COLOURS = "green: images, blue: reconstructed"
MOST_CLASSES = 8  # of the swap grid
JOINED = 10  # most images of a group
NUM_IDENTITIES = 5  # groups in the pictures of generation
NUM_EVIDENCE = 3  # groups in the picture of accumulated evidence


class Scene:
    """A trained model, and the code table of rows of its dataset; `about` is said in titles."""

    def __init__(self, model, dataset: Dataset, table: CodeTable, rows: np.ndarray, about: str = ""):
        self.model, self.dataset, self.table, self.rows = model, dataset, table, rows
        self.device = next(iter(model.state_dict().values())).device
        self.about = about or f"{dataset.name} ({dataset.source})"

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


def draw_pictures(
    path: Path,
    model,
    dataset: Dataset,
    table: CodeTable,
    rows: np.ndarray,
    about: str = "",
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write the pictures of a trained model to the folder `path`, and return their paths.

    These are reconstructions.png, traversals.png, the same as an animation, traversals.gif, and for a model
    with content and style swap.png, interpolation.png, generation.png and evidence.png. With several
    groupings there is one of these for each: swap_1.png, swap_2.png, and so on. Nothing is drawn for a model
    without `mean_image`, or without a format.

    Parameters
    ----------
    about : a line for their titles: model, dataset, protocol and seed.
    formats : of all but the animation, some of `dislab.files.FORMATS`.
    """
    if model.mean_image is None or not formats:
        return []
    scene = Scene(model, dataset, table, rows, about)
    drawn = {"reconstructions": reconstructions(scene), "traversals": traversals(scene)}
    if model.encode_groups is not None:
        contents = [name for name in table.blocks if name != "style"]
        for grouping, block in enumerate(contents):
            for picture in (swap, interpolation, generation, evidence):
                drawn[picture.__name__ + block.removeprefix("content")] = picture(scene, block, grouping)
    paths = []
    for name, axes in drawn.items():
        for kind in formats:
            paths.append(path / f"{name}.{kind}")
            save_figure(np.ravel(axes)[0].figure, paths[-1])
    paths.append(path / "traversals.gif")
    write_atomically(paths[-1], animation(scene))
    return paths


def reconstructions(scene: Scene, ax=None):
    """Draw images above their reconstructions from the posterior mean; return the axes."""
    few = len(scene.table) < NUM_COLUMNS
    chosen = np.random.default_rng(0).choice(len(scene.table), NUM_COLUMNS, replace=few)
    tiles = torch.stack([scene.images(chosen), scene.decode(scene.table.mean[chosen])])
    return draw([Panel(tiles, names=["image", "reconstruction"])], f"Reconstructions\n{scene.about}", ax)


def traversals(scene: Scene, ax=None):
    """Draw a row per code dimension, which moves over quantiles of the aggregate posterior; return the axes.

    The other dimensions stay at the code of one image, which stands below with its reconstruction. In each
    row the value nearest to this code is replaced by the code itself, and its tile is boxed as the
    reconstruction is. Within each block the dimensions are sorted by the information that they carry, their
    mean KL to the prior.
    """
    start, order = _start(scene), _by_information(scene.table)
    values = _quantiles(scene.table)
    names, codes, boxed = [], [], []
    for row, (dimension, name, kl) in enumerate(order):
        code = scene.table.mean[start, dimension]
        nearest = int(np.abs(values[:, dimension] - code).argmin())
        line = np.tile(scene.table.mean[start], (NUM_COLUMNS, 1))
        line[:, dimension] = values[:, dimension]
        line[nearest, dimension] = code
        codes.append(line)
        boxed.append((row, nearest))
        names.append(f"{name}\n{kl:.1f} nats")
    decoded = scene.decode(np.stack(codes))
    last = torch.full_like(decoded[:1], torch.nan)
    last[0, 0], last[0, 1] = scene.images(np.array([start]))[0], decoded[boxed[0]]
    panel = Panel(
        torch.cat([decoded, last]),
        title="quantile of the dimension's aggregate posterior",
        names=[*names, "start image,\nreconstruction"],
        columns=[f"{100 * quantile:.0f} %" for quantile in QUANTILES],
        boxes={TEST_IMAGE: [(len(order), 0)], RECONSTRUCTION: [*boxed, (len(order), 1)]},
    )
    title = "Each code dimension alone, with its mean KL (green: image, blue: its reconstruction)"
    return draw([panel], f"{title}\n{scene.about}", ax)


def animation(scene: Scene) -> bytes:
    """Return a GIF in which each tile is one code dimension that moves over its quantiles, and back.

    The dimensions are those of `traversals` in the same order, the other dimensions at the same code.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    start, values = scene.table.mean[_start(scene)], _quantiles(scene.table)
    lines: list[list[int]] = []
    names = []
    for block, dimensions in _blocks(scene.table).items():
        of_block = [dimension for dimension, *_ in _by_information(scene.table) if dimension in dimensions]
        for begin in range(0, len(of_block), ANIMATED):
            lines.append(of_block[begin : begin + ANIMATED])
            names.append(f"{block}\n{begin + 1} to {begin + len(lines[-1])}")
    frames = []
    for value in values:
        codes = np.tile(start, (len(lines), max(map(len, lines)), 1))
        for row, line in enumerate(lines):
            codes[row, np.arange(len(line)), line] = value[line]
        tiles = scene.decode(codes).clone()
        for row, line in enumerate(lines):
            tiles[row, len(line) :] = torch.nan
        frames.append(Panel(tiles, names=names))
    title = "One code dimension per tile, sorted by KL, from its 2 % to its 98 % quantile"
    axes = draw(frames[:1], f"{title}\n{scene.about}")
    canvas = FigureCanvasAgg(axes.figure)
    axes.figure.set_dpi(110)  # a tile of 64 pixels and its gap are 66 pixels
    sheets = []
    for frame in frames:
        axes.images[0].set_data(frame.sheet())
        canvas.draw()
        sheets.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    # One palette for all frames, so that what does not move does not flicker. The octree was measured to
    # miss colours by less than half as much as the median cut does in a file of this size, in a seventh of
    # the time.
    palette = Image.fromarray(np.concatenate(sheets)).quantize(256, method=Image.Quantize.FASTOCTREE)
    plain = Image.Dither.NONE
    pictures = [Image.fromarray(sheet).quantize(palette=palette, dither=plain) for sheet in sheets]
    pictures += pictures[-2:0:-1]
    buffer = io.BytesIO()
    options = {
        "append_images": pictures[1:],
        "duration": MILLISECONDS,
        "loop": 0,
        "comment": f"dislab {__version__}",
    }
    pictures[0].save(buffer, format="GIF", save_all=True, **options)
    return buffer.getvalue()


def _start(scene: Scene) -> int:
    """Return the row of the table from which traversals start."""
    return int(np.random.default_rng(1).integers(len(scene.table)))


def _blocks(table: CodeTable) -> dict[str, range]:
    """Return the dimensions of each block of a code, which is "code" where there are none."""
    blocks = table.blocks or {"code": slice(0, table.mean.shape[1])}
    return {name: range(block.start, block.stop) for name, block in blocks.items()}


def _by_information(table: CodeTable) -> list[tuple[int, str, float]]:
    """Return each dimension, its name and its mean KL to the prior in nats, the highest of a block first."""
    mean = table.mean.astype(np.float64)
    # A deterministic encoder has no variances: only the term of the mean is left of the KL.
    logvar = np.zeros_like(mean) if table.logvar is None else table.logvar.astype(np.float64)
    kl = 0.5 * (mean**2 + np.exp(logvar) - logvar - 1).mean(0)
    return [
        (dimension, f"{name} {dimension - block.start}", float(kl[dimension]))
        for name, block in _blocks(table).items()
        for dimension in sorted(block, key=lambda dimension: -kl[dimension])
    ]


def _quantiles(table: CodeTable) -> np.ndarray:
    """Return the QUANTILES of each dimension's aggregate posterior, float32 [quantiles, D].

    They are those of a draw of q(z|x) for each of DRAWS rows, or of the codes where there are no variances.
    """
    rng = np.random.default_rng(7)
    rows = rng.choice(len(table), min(DRAWS, len(table)), replace=False)
    draws = table.mean[rows].astype(np.float64)
    if table.logvar is not None:
        draws += np.exp(0.5 * table.logvar[rows].astype(np.float64)) * rng.normal(size=draws.shape)
    return np.quantile(draws, QUANTILES, axis=0).astype(np.float32)


def swap(scene: Scene, block: str, grouping: int, ax=None):
    """Draw the content of each column's image with the style of each row's image; return the axes.

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
    title = f"{block.capitalize()} of each column's image, style of each row's ({COLOURS})"
    return draw(panels, f"{title}\n{scene.about}", ax)


def interpolation(scene: Scene, block: str, grouping: int, ax=None):
    """Draw what lies between two test images; return the axes (figure 5 of Bouchacourt et al. 2017).

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
    title = f"{block.capitalize()} from left to right, style from top to bottom ({COLOURS})"
    return draw(panels, f"{title}\n{scene.about}", ax)


def generation(scene: Scene, block: str, grouping: int, ax=None):
    """Draw the content of a group's images in each row, with styles drawn from the prior; return the axes.

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
    title = f"{block.capitalize()} of the images on the left, styles drawn from the prior"
    return draw(panels, f"{title}\n{scene.about}", ax)


def evidence(scene: Scene, block: str, grouping: int, ax=None):
    """Draw images above what their own content, and that of their whole group, make of them; return the axes.

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
    title = "Images of a group, reconstructed by their own content and by that of the group"
    return draw([Panel(tiles, names=names, boxes=boxes)], f"{title}\n{scene.about}", ax)


def _strategy(joined: bool, number: int) -> str:
    if not joined:
        return "no grouping: every code from one image"
    return f"grouped by the true class: the content from {number} images"
