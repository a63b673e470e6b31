"""The picture of a dataset: which images it shows, and where."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imread

from dislab.data.dataset import Dataset
from dislab.data.space import FactorSpace
from dislab.report import dataset_picture as show


def grey(space: FactorSpace, side: int = 64) -> Dataset:
    """A dataset in which a constant image says its own row."""

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return rows.to(torch.uint8)[:, None, None, None].expand(-1, 1, side, side)

    return Dataset("grey", "own", space, (1, side, side), draw, [space.names[0]])


def sheet_rows(dataset: Dataset, path: Path) -> list[list[int]]:
    """The grey levels of the tiles in the written picture, row by row, read at the positions that follow
    from its layout; a tile is a square of 128 pixels with one level that is not the paper's."""
    show.factor_picture(dataset).savefig(path, format="png")
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    assert (pixels == pixels[..., :1]).all()
    found, y = [], show.TITLE_HEIGHT
    while y + 128 <= pixels.shape[0]:
        squares = [
            pixels[y : y + 128, x : x + 128, 0] for x in range(show.MARGIN, pixels.shape[1] - 127, 134)
        ]
        assert all((square == square[0, 0]).all() for square in squares), (
            "tiles lie where they should, unblurred"
        )
        found.append([int(square[0, 0]) for square in squares if square[0, 0] != 255])
        y += 134 + (show.LABEL_HEIGHT if dataset.space.is_grid else 0)
    return found


def test_picture_moves_each_factor_alone(tmp_path):
    space = FactorSpace(("a", "b", "c"), (2, 3, 25))
    first, second, third = sheet_rows(grey(space), tmp_path / "grid.png")
    # Held: 1/3 of 0..1 is 0, half of 0..2 is 1, two thirds of 0..24 are 16; the row is (3 a + b) 25 + c.
    assert first == [(3 * a + 1) * 25 + 16 for a in range(2)]
    assert second == [b * 25 + 16 for b in range(3)]
    assert len(third) == 12
    assert [row - 25 for row in third] == [0, 2, 4, 7, 9, 11, 13, 15, 17, 20, 22, 24]


def test_picture_without_a_grid_shows_images_of_each_value(tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (200, 1))
    values[:2] = 7  # a value with two images; 3 to 6 have none
    found = sheet_rows(grey(FactorSpace(("digit",), (8,), values)), tmp_path / "values.png")
    assert len(found) == 4
    for value, rows in zip((0, 1, 2, 7), found, strict=True):
        assert (values[rows, 0] == value).all()
        assert len(set(rows)) == len(rows) == min(show.MOST_IMAGES, (values == value).sum())


def test_picture_enlarges_small_and_coloured_images():
    space = FactorSpace(("hue",), (4,))

    def draw(rows: torch.Tensor) -> torch.Tensor:
        images = torch.zeros(len(rows), 3, 20, 20, dtype=torch.uint8)
        images[torch.arange(len(rows)), rows % 3] = 200
        return images

    figure = show.factor_picture(Dataset("hues", "own", space, (3, 20, 20), draw, ["hue"]))
    (picture,) = figure.images
    tile = picture.get_array()[show.TITLE_HEIGHT :, show.MARGIN :][:120, :120]
    assert (tile == [200, 0, 0]).all(), "six times as large"
    texts = [text.get_text() for text in figure.texts]
    assert "hue\n4 values" in texts
    assert {"0", "1", "2", "3"} <= set(texts)
