"""Variants of dSprites on official or drawn sprites: in colour, in noise, before a picture, for reasoning.

The colours, the noise and the pieces of the picture follow from the image's row, see
`dislab.rendering.dsprites_variants`. They are no factors: nothing about them is scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from dislab.data.dataset import Dataset, factors_on_device
from dislab.data.official import OfficialDataset, OfficialFile, locate, official_paths, unreadable
from dislab.data.space import FactorSpace
from dislab.datasets import dsprites
from dislab.errors import DislabError
from dislab.registry import register_dataset

SHAPE = (3, 64, 64)
REFERENCE = "Locatello et al. 2019, Challenging Common Assumptions (disentanglement_lib), ICML"
SPRITES = dsprites.OFFICIAL.files[0]
PICTURE = OfficialFile(
    "scream.jpg",
    "https://commons.wikimedia.org/wiki/File:The_Scream.jpg",
    digest="",
    size=0,
    by_hand=True,
    always=True,
)
SCREAM = OfficialDataset(
    "scream_dsprites",
    (PICTURE, replace(SPRITES, also=(f"dsprites/{SPRITES.name}",))),
    page="https://github.com/google-research/disentanglement_lib",
    licence="Apache-2.0 (the sprites)",
    is_drawn=True,
)
PICTURE_SIZE = (350, 274)  # pixels, across and down, within which the picture is shrunk

# The orientation is no factor: each image has one of the 40, which follows from its row.
ABSTRACT = FactorSpace(
    ("background_color", "object_color", "shape", "scale", "position_x", "position_y"),
    (5, 6, 3, 6, 32, 32),
    categorical=["object_color", "shape"],
)


@register_dataset("color_dsprites", title="Color dSprites", reference=REFERENCE, official=dsprites.OFFICIAL)
def color_dsprites(source: str, data_dir, device) -> Dataset:
    """dSprites with each sprite in a colour of its own; 64 x 64 RGB."""
    from dislab.rendering import dsprites_variants as renderer

    return _variant("color_dsprites", dsprites.OFFICIAL, source, data_dir, device, renderer.color)


@register_dataset("noisy_dsprites", title="Noisy dSprites", reference=REFERENCE, official=dsprites.OFFICIAL)
def noisy_dsprites(source: str, data_dir, device) -> Dataset:
    """dSprites with white sprites before noise in colours; 64 x 64 RGB."""
    from dislab.rendering import dsprites_variants as renderer

    return _variant("noisy_dsprites", dsprites.OFFICIAL, source, data_dir, device, renderer.noisy)


@register_dataset("scream_dsprites", title="Scream dSprites", reference=REFERENCE, official=SCREAM)
def scream_dsprites(source: str, data_dir, device) -> Dataset:
    """dSprites with each sprite as the negative of a piece of Munch's The Scream; 64 x 64 RGB."""
    import torch

    from dislab.rendering import dsprites_variants as renderer

    official_paths(SCREAM, source, data_dir)
    picture = torch.from_numpy(read_picture(locate(SCREAM, PICTURE, data_dir))).to(device)

    def draw(sprites, rows):
        return renderer.scream(sprites, rows, picture)

    return _variant("scream_dsprites", SCREAM, source, data_dir, device, draw)


def _variant(
    name: str, official: OfficialDataset, source: str, data_dir, device, draw_on: Callable
) -> Dataset:
    """Return the dataset whose images are `draw_on` of sprites and rows."""
    from dislab.rendering import dsprites_variants as renderer

    paths = official_paths(official, source, data_dir)
    sprites = dsprites.sprites(paths[-1:], device)
    return Dataset(
        name,
        "official" if paths else "rendered",
        dsprites.SPACE,
        SHAPE,
        lambda rows: draw_on(sprites(rows), rows.to(device)),
        ["shape"],
        file=paths[-1] if paths else None,
        renderer=renderer.VERSION,
    )


@register_dataset(
    "abstract_dsprites",
    title="Abstract dSprites",
    reference="van Steenkiste et al. 2019, Are Disentangled Representations Helpful for Abstract Visual "
    "Reasoning?, NeurIPS",
    official=dsprites.OFFICIAL,
)
def abstract_dsprites(source: str, data_dir, device) -> Dataset:
    """Grey of the background, colour, shape, scale and position of a sprite; 64 x 64 RGB."""
    import torch

    from dislab.rendering import dsprites_variants as renderer

    paths = official_paths(dsprites.OFFICIAL, source, data_dir)
    sprites, factors = dsprites.sprites(paths, device), factors_on_device(ABSTRACT, device)
    sizes, (greys, colours) = dsprites.SPACE.sizes, renderer.palette(device)

    def draw(rows):
        background, colour, shape, scale, x, y = factors(rows).unbind(1)
        orientation = renderer.orientations(rows.to(device))
        sprite = torch.zeros_like(shape)
        for value, size in zip((shape, scale, orientation, x, y), sizes, strict=True):
            sprite = sprite * size + value
        return renderer.abstract(sprites(sprite), greys[background], colours[colour])

    return Dataset(
        "abstract_dsprites",
        "official" if paths else "rendered",
        ABSTRACT,
        SHAPE,
        draw,
        ["shape"],
        file=paths[0] if paths else None,
        renderer=renderer.VERSION,
    )


def read_picture(path: Path) -> np.ndarray:
    """Return the picture uint8 [3, H, W] of an image file, shrunk to lie within PICTURE_SIZE.

    Pillow shrinks it as it did for disentanglement_lib.

    Raises
    ------
    DislabError : the file is no image, or the picture is too small to take pieces of 64 x 64 from it.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail(PICTURE_SIZE)
    except Exception as error:  # every format's decoder has its own errors for damaged bytes
        raise unreadable(path, error, "is not a whole image") from None
    if min(image.size) <= SHAPE[1]:
        raise DislabError(
            f"'{path}' is shrunk to {image.width} x {image.height} pixels, and must be above 64 x 64"
        )
    return np.asarray(image).transpose(2, 0, 1).copy()
