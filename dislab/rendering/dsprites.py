"""A rendered twin of dSprites: all 737,280 binary images drawn from a handful of geometric constants.

The grid is the official one, row-major, last factor fastest: shape 3 (square, ellipse, heart), scale 6,
orientation 40, x position 32, y position 32. The official colour factor has one value and no effect.
Images are bit-packed as by `np.packbits`: 64 x 64 pixels, rows first, most significant bit first, 512 bytes.

The constants were fitted to the 320 frames of the animation that comes with the official data set; the twin
repeats 318 of them bit for bit, and the other two but for two pixels each. To get the same bytes on every
machine, pixels are decided by element-wise float64 arithmetic and comparisons only; everything that comes out
of the mathematics library is rounded to nine decimals first.
"""

import math

import numpy as np

from dislab.rendering.geometry import cosine_sine

VERSION = 1  # of the drawing: a change of any image needs a new one
FACTOR_SIZES = (3, 6, 40, 32, 32)  # shape, scale, orientation, x position, y position
IMAGES = math.prod(FACTOR_SIZES)
IMAGE_SIDE = 64
IMAGE_BYTES = IMAGE_SIDE * IMAGE_SIDE // 8
POSITIONS = 32

# Outlines are in units of half the square's side; v points down, u to the right, and the sprite turns about
# the origin. At full scale the official square has a side of 0.3 of the image, 19.2 pixels, but a pixel
# centre 9.59985 pixels off the centre is still dark: hence a thousandth of a pixel less than 9.6.
HALF_SIDE = 9.599
# The ellipse is a circle stretched along u and squeezed along v by the same factor.
ELLIPSE_STRETCH = 1.33
# The heart is the well-known curve x = 16 sin(t)^3, y = 13 cos(t) - 5 cos(2t) - 2 cos(3t) - cos(4t), brought
# to the square's width and height (x runs over -16 ... 16, y over about -17 ... 12) and moved up a little.
HEART_HALF_WIDTH, HEART_HALF_HEIGHT, HEART_LIFT = 16.0, 14.5, 0.15
# The curves are drawn as polygons, as by the engine that drew the frames: with these numbers of corners 4
# pixels of the 320 frames differ, with the true curves 56.
ELLIPSE_CORNERS, HEART_CORNERS = 100, 150

# A pixel is tested against the outline's upper and lower edge at its |u|, read from a table of this many
# cells per unit. A cell is 0.0006 pixels wide, far finer than the 1/256 pixel that graphics cards resolve.
CELLS = 16384

Outline = tuple[list[tuple[float, float]], list[tuple[float, float]]]


def draw_rows(start: int, stop: int) -> np.ndarray:
    """Draw the images of rows `start` to `stop` of the grid.

    Returns: uint8 [stop - start, 512], bit-packed images.
    """
    if not 0 <= start <= stop <= IMAGES:
        raise ValueError(f"rows {start} to {stop} are not within the grid's 0 to {IMAGES}")
    first_column = start // POSITIONS
    end_column = -(-stop // POSITIONS)
    images = np.zeros((end_column - first_column, POSITIONS, IMAGE_SIDE, IMAGE_SIDE // 8), dtype=np.uint8)
    for column, target in zip(range(first_column, end_column), images, strict=True):
        _draw_column(column, target)
    skipped = start - first_column * POSITIONS
    return images.reshape(-1, IMAGE_BYTES)[skipped : skipped + stop - start]


def _draw_column(column: int, target: np.ndarray) -> None:
    """Draw the 32 images that differ in y position only into `target`, uint8 [32, 64, 8], all zero before."""
    shape, scale, orientation, x_position = np.unravel_index(column, FACTOR_SIZES[:-1])
    corners, upper_edge, lower_edge = PROFILES[shape]
    size = HALF_SIDE * (5 + int(scale)) / 10
    # Forty angles from 0 to 2 pi with both ends: the last is the first. On the screen the sprite turns
    # counter-clockwise.
    angle = 2 * math.pi * (int(orientation) % 39) / 39
    cosine, sine = cosine_sine(angle)

    # Only a window around the sprite is tested: whole bytes of pixels across, and for each of the 32 heights
    # the same number of pixel rows.
    centers = 16 + 32 * np.arange(POSITIONS) / 31
    across = size * (cosine * corners[:, 0] + sine * corners[:, 1])
    down = size * (cosine * corners[:, 1] - sine * corners[:, 0])
    center = centers[x_position]
    first_byte = math.floor(center + across.min()) // 8
    end_byte = math.floor(center + across.max()) // 8 + 1
    height = math.ceil(down.max() - down.min()) + 1
    pixel_rows = np.floor(centers + down.min()).astype(np.intp)[:, None] + np.arange(height)

    x = (np.arange(8 * first_byte, 8 * end_byte) + 0.5 - center) / size
    y = (pixel_rows + 0.5 - centers[:, None])[..., None] / size
    u = (CELLS * cosine) * x - (CELLS * sine) * y
    v = sine * x + cosine * y
    cell = np.minimum(np.abs(u, out=u), len(upper_edge) - 1).astype(np.intp)
    lit = (v > upper_edge[cell]) & (v < lower_edge[cell])
    target[np.arange(POSITIONS)[:, None], pixel_rows, first_byte:end_byte] = np.packbits(lit, axis=-1)


def _square() -> Outline:
    return [(0.0, -1.0), (1.0, -1.0)], [(0.0, 1.0), (1.0, 1.0)]


def _ellipse() -> Outline:
    angles = [2 * math.pi * corner / ELLIPSE_CORNERS for corner in range(ELLIPSE_CORNERS // 4 + 1)]
    quarter = [(ELLIPSE_STRETCH * math.sin(angle), math.cos(angle) / ELLIPSE_STRETCH) for angle in angles]
    return [(u, -v) for u, v in quarter], quarter


def _heart() -> Outline:
    half = []
    for corner in range(HEART_CORNERS // 2 + 1):
        angle = 2 * math.pi * corner / HEART_CORNERS
        x = 16 * math.sin(angle) ** 3
        y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
        half.append((x / HEART_HALF_WIDTH, -y / HEART_HALF_HEIGHT - HEART_LIFT))
    # The half is walked from the notch over the widest point down to the tip.
    widest = HEART_CORNERS // 4
    return half[: widest + 1], half[: -widest - 2 : -1]


def _profile(outline: Outline) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tabulate where the outline's upper and lower edge lie at each |u|; all shapes are mirror-symmetric.

    outline: the right half's upper and lower corners (u, v), each from the axis outwards.
    Returns: corners [C, 2] of both halves, upper edge and lower edge [cells + 1]; beyond the last corner,
    thus in the last cell, the upper edge lies below the lower one, and nothing is lit.
    """
    edges = []
    for chain in outline:
        u, v = np.round(np.array(chain), 9).T
        middle = (np.arange(math.ceil(u[-1] * CELLS)) + 0.5) / CELLS
        edges.append(np.round(np.interp(middle, u, v), 9))
    upper, lower = np.append(edges[0], np.inf), np.append(edges[1], -np.inf)
    right = np.round(np.array(outline[0] + outline[1]), 9)
    return np.concatenate([right, right * (-1, 1)]), upper, lower


PROFILES = tuple(_profile(outline) for outline in (_square(), _ellipse(), _heart()))
