"""A picture of a dataset: what each factor of variation does to the image."""

from __future__ import annotations

import numpy as np

from dislab.data.dataset import Dataset

MOST_VALUES = 12  # images in a row
MOST_IMAGES = 10  # of each value, where there is no grid
TILE_PIXELS = 128  # an image is enlarged a whole number of times, up to this side
GAP, LABEL_HEIGHT, MARGIN, TITLE_HEIGHT = 6, 14, 130, 30  # pixels
DPI = 100
# The part of its range at which each factor is held, in turn. With one part for all, the floor, the wall and
# the object of Shapes3D would have one hue and hide one another.
HELD_AT = (1 / 3, 1 / 2, 2 / 3)


def factor_picture(dataset: Dataset):
    """Return a matplotlib figure with a row per factor and an image per factor value.

    The other factors stay at a value in the middle third of their range. Of more than MOST_VALUES values that
    many are shown, evenly spaced, with the first and the last. A dataset without a full grid cannot move one
    factor alone: then a row is one value of a factor, with images that have it, evenly spaced over the rows.
    """
    names, rows, labels = (_moved_factors if dataset.space.is_grid else _images_of_values)(dataset)
    if dataset.space.is_grid:
        about = "each factor alone, the others at a middle value"
    else:
        about = "images of each value"
    return _sheet(dataset, f"{dataset.name} ({dataset.source}): {about}", names, rows, labels)


def spread(count: int, most: int) -> np.ndarray:
    """Return at most `most` of the whole numbers 0 .. count - 1, evenly spaced, with both ends."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _moved_factors(dataset: Dataset):
    """Return, per factor, its name, the rows of its images, and the number of its value beneath each."""
    space = dataset.space
    held = [int((size - 1) * HELD_AT[k % len(HELD_AT)] + 0.5) for k, size in enumerate(space.sizes)]
    names, rows, labels = [], [], []
    for column, (name, size) in enumerate(zip(space.names, space.sizes, strict=True)):
        values = spread(size, MOST_VALUES)
        factors = np.tile(held, (len(values), 1))
        factors[:, column] = values
        names.append(f"{name}\n{size} values")
        rows.append(space.rows(factors))
        labels.append([str(value) for value in values])
    return names, rows, labels


def _images_of_values(dataset: Dataset):
    """Return the same for a dataset without a grid, per factor value, without numbers beneath."""
    space = dataset.space
    factors = space.factors(np.arange(len(space)))
    names, rows, labels = [], [], []
    for column, name in enumerate(space.names):
        values = np.unique(factors[:, column])
        for value in values[spread(len(values), MOST_VALUES)]:
            having = np.flatnonzero(factors[:, column] == value)
            names.append(f"{name} {value}\n{len(having)} images")
            rows.append(having[spread(len(having), MOST_IMAGES)])
            labels.append([])
    return names, rows, labels


def _sheet(dataset: Dataset, title: str, names: list[str], rows: list[np.ndarray], labels: list[list[str]]):
    """Return the figure: images at whole multiples of their pixels, so that none is blurred, and texts."""
    from matplotlib.figure import Figure
    from matplotlib.transforms import IdentityTransform

    _, height, width = dataset.image_shape
    zoom = max(1, TILE_PIXELS // max(height, width))
    step_x = width * zoom + GAP
    step_y = height * zoom + GAP + (LABEL_HEIGHT if any(labels) else 0)
    total_width = MARGIN + step_x * max(len(row) for row in rows)
    total_height = TITLE_HEIGHT + step_y * len(rows)
    pixels = np.full((total_height, total_width, 3), 255, np.uint8)
    # Rounded up: half a pixel less would be cut off.
    figure = Figure(figsize=((total_width + 0.5) / DPI, (total_height + 0.5) / DPI), dpi=DPI)

    def write(text: str, x: float, y: float, size: float, **alignment) -> None:
        from_corner = IdentityTransform()  # pixels from the lower left corner
        figure.text(x, total_height - y, text, fontsize=size, transform=from_corner, **alignment)

    write(title, GAP, TITLE_HEIGHT / 2, 10, va="center")
    for line, (name, row, numbers) in enumerate(zip(names, rows, labels, strict=True)):
        top = TITLE_HEIGHT + line * step_y
        images = dataset.images(row).permute(0, 2, 3, 1).cpu().numpy()
        for column, image in enumerate(images):
            left = MARGIN + column * step_x
            # One channel is repeated over the three of the sheet.
            enlarged = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
            pixels[top : top + height * zoom, left : left + width * zoom] = enlarged
        write(name, MARGIN - 2 * GAP, top + height * zoom / 2, 9, ha="right", va="center")
        for column, number in enumerate(numbers):
            middle = MARGIN + column * step_x + width * zoom / 2
            write(number, middle, top + height * zoom + 2, 7, ha="center", va="top")
    figure.figimage(pixels)
    return figure
