"""A drawn twin of Cars3D: 183 cars of our own design, seen from 24 azimuths and 4 elevations, ray cast.

The official data set (Reed et al. 2015; car models of Fidler et al. 2012) shows CAD models of cars before a
white background, the camera on a ring around the car at four heights. The cars here are not those models:
each is put together from some forty convex pieces (body, cabin, panes, wheels, lamps, ...) whose measures, in
metres and chosen by eye, follow from its number. Thirteen body styles times fifteen paints give every car its
own pair of both, and a hash of its number varies its proportions and trim.

A convex piece is an intersection of half-spaces, and for rays from one point the reciprocal of a plane's
depth is an affine function of the image coordinates. So a ray enters a piece at the smallest of its front
planes' functions, leaves it at the largest of its back planes', and no ray needs a division.

The same bytes come out on every machine, for the reasons that `geometry` gives; rays are cast in float32.
"""

import hashlib
import itertools
import math
from functools import cache
from typing import NamedTuple

import numpy as np

from dislab.rendering.geometry import TINY, away_from_zero, cosine_sine, dot

VERSION = 1  # of the drawing: a change of any image needs a new one
NUM_ELEVATIONS, NUM_AZIMUTHS, NUM_CARS = 4, 24, 183
IMAGE_SIZE = 64
SUPERSAMPLE = 2  # rays per pixel and axis
SAMPLES = IMAGE_SIZE * SUPERSAMPLE

# Camera: it looks at a point above the car's middle. The distance is about three car lengths: perspective is
# visible but mild, as in the official images.
ELEVATIONS = (3.0, 13.0, 23.0, 33.0)  # degrees; the official ones go from about level to looking down
CAMERA_DISTANCE = 13.0  # metres
FOCAL_LENGTH = 146.0  # pixels, for a car of USUAL_LENGTH: the longest leaves a pixel of margin
# The official models are scaled to similar sizes. Half way there (square root): a small car stays smaller
# than a pickup, and both fill the image.
USUAL_LENGTH = 4.4
BACKGROUND = (255, 255, 255)

# Light, in the frame that turns with the camera: right, towards the camera, up. A lamp at the upper left, and
# the sky above. Together they stay below 1, so that a white car stands out from the white background.
LAMP = (-0.48, 0.56, 0.675)
AMBIENT, DIFFUSE, SKY = 0.44, 0.50, 0.12
# Highlight: cosine to the eighth power of the angle to the direction half way between lamp and camera.
HALF_WAY = (-0.27, 0.88, 0.39)

SKIN = 0.13  # metres; what is painted on a side reaches this deep, and a pickup's bed has walls as thick
INSIDE = 1e-7  # metres; a corner of a piece may miss its planes by rounding


class Paint(NamedTuple):
    """Colour 0..255, and the white that a surface adds where it mirrors the lamp or the sky."""

    red: float
    green: float
    blue: float
    gloss: float = 0.0


PAINTS = (
    Paint(240, 240, 236, 0.1),  # white
    Paint(200, 30, 34, 0.35),  # red
    Paint(30, 74, 184, 0.35),  # blue
    Paint(246, 204, 30, 0.25),  # yellow
    Paint(34, 35, 39, 0.35),  # black
    Paint(178, 183, 188, 0.3),  # silver
    Paint(22, 108, 58, 0.35),  # green
    Paint(238, 122, 24, 0.3),  # orange
    Paint(118, 178, 222, 0.3),  # sky blue
    Paint(112, 20, 38, 0.35),  # maroon
    Paint(206, 188, 150, 0.25),  # beige
    Paint(24, 34, 84, 0.35),  # navy
    Paint(158, 200, 52, 0.25),  # lime
    Paint(98, 103, 110, 0.35),  # grey
    Paint(24, 146, 146, 0.3),  # teal
)
GLASS = Paint(52, 72, 96, 0.55)
TYRE, ARCH, PLASTIC = Paint(34, 34, 36), Paint(16, 16, 18), Paint(58, 60, 64)
CHROME, RIM, DARK_RIM = Paint(196, 200, 204, 0.3), Paint(190, 194, 200, 0.2), Paint(84, 88, 94, 0.2)
LAMP_WHITE, LAMP_RED, LAMP_AMBER = Paint(252, 250, 226, 0.4), Paint(206, 14, 22, 0.25), Paint(244, 150, 30)
PLATE, SEAT_RED, SEAT_TAN = Paint(244, 244, 240), Paint(130, 34, 34), Paint(178, 134, 88)
SIGN, BEACON_BLUE = Paint(255, 236, 140), Paint(36, 70, 235, 0.3)


class Style(NamedTuple):
    """Measures of a body style in metres; x points to the front, z up.

    The hood rises from `hood` to `belt` at the cowl, the foot of the windscreen; the deck lies at `deck`.
    Runs and overhangs are horizontal.
    """

    name: str
    length: float
    width: float
    height: float
    clearance: float
    wheel_radius: float
    hood: float
    belt: float
    deck: float
    hood_length: float
    windscreen_run: float
    deck_length: float
    rear_run: float
    front_overhang: float  # front axle behind the nose
    rear_overhang: float
    tumblehome: float  # how far the cabin's sides lean inwards per metre of height


STYLES = (
    Style("sedan", 4.6, 1.78, 1.45, 0.19, 0.33, 0.76, 0.93, 0.96, 1.15, 0.80, 0.72, 0.62, 0.88, 0.98, 0.30),
    Style("suv", 4.6, 1.90, 1.78, 0.27, 0.39, 0.98, 1.12, 1.10, 1.10, 0.62, 0.08, 0.30, 0.85, 0.92, 0.20),
    Style("coupe", 4.4, 1.88, 1.24, 0.14, 0.35, 0.64, 0.82, 0.90, 1.45, 0.85, 0.35, 1.05, 0.92, 0.90, 0.38),
    Style("taxi", 4.7, 1.80, 1.50, 0.20, 0.33, 0.80, 0.96, 0.97, 1.20, 0.65, 0.90, 0.45, 0.88, 1.05, 0.26),
    Style("pickup", 5.2, 1.90, 1.80, 0.32, 0.40, 1.00, 1.12, 1.08, 1.20, 0.60, 1.75, 0.12, 0.90, 1.15, 0.20),
    Style(
        "hatchback", 3.9, 1.72, 1.47, 0.18, 0.32, 0.78, 0.94, 0.94, 0.95, 0.72, 0.10, 0.48, 0.76, 0.66, 0.28
    ),
    Style("van", 5.0, 1.95, 2.15, 0.21, 0.36, 0.96, 1.16, 1.10, 0.62, 0.70, 0.03, 0.08, 0.85, 1.00, 0.08),
    Style(
        "convertible", 4.2, 1.78, 1.30, 0.15, 0.33, 0.70, 0.86, 0.88, 1.35, 0.55, 1.15, 0.3, 0.82, 0.85, 0.30
    ),
    Style("wagon", 4.7, 1.78, 1.49, 0.19, 0.33, 0.78, 0.94, 0.95, 1.15, 0.78, 0.08, 0.42, 0.88, 1.02, 0.28),
    Style(
        "offroader", 4.0, 1.82, 1.88, 0.34, 0.41, 1.06, 1.14, 1.12, 1.10, 0.20, 0.04, 0.06, 0.62, 0.72, 0.10
    ),
    Style("city", 3.3, 1.58, 1.52, 0.18, 0.30, 0.78, 0.94, 0.92, 0.66, 0.62, 0.06, 0.28, 0.58, 0.50, 0.20),
    Style("police", 4.8, 1.84, 1.47, 0.19, 0.35, 0.78, 0.95, 0.97, 1.25, 0.75, 0.80, 0.60, 0.92, 1.05, 0.28),
    Style("minivan", 4.6, 1.86, 1.74, 0.18, 0.34, 0.86, 1.02, 1.02, 0.70, 1.00, 0.06, 0.26, 0.88, 0.88, 0.18),
)

Plane = tuple[float, float, float, float]  # the half-space n . p <= d as (nx, ny, nz, d), with |n| = 1


class Piece(NamedTuple):
    """A convex polyhedron of one paint.

    planes: float64 [P, 4], every one of them carrying a face. corners: float64 [V, 3]. outer: bool [P], the
    faces that can be seen at all (a shell's other faces lie inside the body that it covers).
    """

    planes: np.ndarray
    corners: np.ndarray
    outer: np.ndarray
    paint: Paint


def half_space(x: float, y: float, z: float, through: tuple[float, float, float]) -> Plane:
    """Return the half-space behind the plane with normal (x, y, z) through a point."""
    length = math.sqrt(x * x + y * y + z * z)
    x, y, z = x / length, y / length, z / length
    return x, y, z, x * through[0] + y * through[1] + z * through[2]


def below(axis: int, most: float) -> Plane:
    """Return the half-space in which a coordinate is at most `most`."""
    return float(axis == 0), float(axis == 1), float(axis == 2), most


def above(axis: int, least: float) -> Plane:
    """Return the half-space in which a coordinate is at least `least`."""
    return -float(axis == 0), -float(axis == 1), -float(axis == 2), -least


def box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> list[Plane]:
    """Return the six half-spaces of a box from its (low, high) along each axis."""
    bounds = enumerate((x, y, z))
    return [plane for axis, (low, high) in bounds for plane in (above(axis, low), below(axis, high))]


def shifted(plane: Plane, outwards: float) -> Plane:
    """Return the half-space, larger by a distance."""
    return (*plane[:3], plane[3] + outwards)


def turned_over(plane: Plane) -> Plane:
    """Return the other side of a plane."""
    return -plane[0], -plane[1], -plane[2], -plane[3]


def mirrored(planes: list[Plane]) -> list[Plane]:
    """Return the same half-spaces on the other side of the car."""
    return [(x, -y, z, d) for x, y, z, d in planes]


def both_sides(planes: list[Plane]) -> list[Plane]:
    return planes + mirrored(planes)


def profile(points: list[tuple[float, float]]) -> list[Plane]:
    """Return half-spaces that cut the convex hull of the points (x, z) out of a beam across the car."""
    points = sorted(set(points))
    hull: list[tuple[float, float]] = []
    for chain in (points, points[::-1]):
        start = len(hull)
        for point in chain:
            while len(hull) >= start + 2 and _turn(hull[-2], hull[-1], point) <= TINY:
                hull.pop()
            hull.append(point)
        hull.pop()
    # Counter-clockwise in (x, z): the outward normal of an edge (dx, dz) is (dz, -dx).
    edges = zip(hull, hull[1:] + hull[:1], strict=True)
    return [half_space(b[1] - a[1], 0.0, a[0] - b[0], (a[0], 0.0, a[1])) for a, b in edges]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def disc(x: float, z: float, radius: float, corners: int) -> list[Plane]:
    """Return half-spaces of a round bar across the car, a regular polygon around a circle of that radius."""
    directions = [circle_point((2 * corner + 1) / (2 * corners)) for corner in range(corners)]
    return [(c, 0.0, s, c * x + s * z + radius) for c, s in directions]


def circle_point(turns: float) -> tuple[float, float]:
    """Return cosine and sine of an angle in turns."""
    return cosine_sine(2 * math.pi * turns)


@cache
def triples(count: int) -> np.ndarray:
    """Return all choices of three of `count` planes, int [3, T]."""
    return np.array(list(itertools.combinations(range(count), 3)), dtype=np.intp).T


def piece(paint: Paint, planes: list[Plane], num_outer: int | None = None) -> Piece | None:
    """Return the polyhedron within all half-spaces, or None if nothing is left.

    num_outer: only the faces of so many half-spaces, the first ones, may be seen; None for all.
    """
    array, outer = _needed(np.array(planes), len(planes) if num_outer is None else num_outer)
    x, y, z, d = array.T
    one, two, three = triples(len(array))
    # Cramer's rule: the corner of three planes is (d1 n2 x n3 + d2 n3 x n1 + d3 n1 x n2) / (n1 . n2 x n3).
    pairs = ((one, two, three), (two, three, one), (three, one, two))
    crossed = [
        (y[b] * z[c] - z[b] * y[c], z[b] * x[c] - x[b] * z[c], x[b] * y[c] - y[b] * x[c]) for _, b, c in pairs
    ]
    volume = x[one] * crossed[0][0] + y[one] * crossed[0][1] + z[one] * crossed[0][2]
    solid = np.abs(volume) > TINY
    divisor = np.where(solid, volume, 1.0)
    corner = np.stack(
        [
            (d[one] * crossed[0][axis] + d[two] * crossed[1][axis] + d[three] * crossed[2][axis]) / divisor
            for axis in range(3)
        ]
    )
    height = x[:, None] * corner[0] + y[:, None] * corner[1] + z[:, None] * corner[2] - d[:, None]
    kept = solid & (height <= INSIDE).all(axis=0)
    if not kept.any():
        return None
    corners, height = corner[:, kept].T, height[:, kept]
    faces = (height >= -INSIDE).sum(axis=1) >= 3  # a plane without a face only costs time
    return Piece(array[faces], corners, outer[faces], paint)


def _needed(planes: np.ndarray, num_outer: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the planes that cut anything from the box of the axis-parallel ones, and whether each is one of
    the first `num_outer`. With fewer planes fewer corners need be tried."""
    normals, d = planes[:, :3], planes[:, 3]
    most = np.array([np.min(d[normals[:, axis] == 1.0], initial=np.inf) for axis in range(3)])
    least = np.array([np.max(-d[normals[:, axis] == -1.0], initial=-np.inf) for axis in range(3)])
    with np.errstate(invalid="ignore"):  # 0 * inf, replaced
        reach = np.where(normals == 0.0, 0.0, np.where(normals > 0.0, normals * most, normals * least))
    farthest = reach[:, 0] + reach[:, 1] + reach[:, 2]
    along_axis = np.abs(normals).max(axis=1) == 1.0
    tightest = along_axis & (farthest == d)
    cuts = np.where(along_axis, tightest, farthest > d)
    return planes[cuts], (np.arange(len(planes)) < num_outer)[cuts]


def shell(paint: Paint, base: list[Plane], thickness: float, region: list[Plane]) -> Piece | None:
    """Return a coat of paint on a convex body within a region.

    Where coats lie on one another the thicker one is seen: hence their different thicknesses in millimetres.
    """
    return piece(paint, [shifted(plane, thickness) for plane in base] + region, num_outer=len(base))


class Chance:
    """Numbers that follow from a car's number and a word: digits of a hash, so they never change."""

    def __init__(self, car: int):
        self.car = car

    def number(self, word: str) -> float:
        """Return a number in [0, 1) with 24 bits."""
        digest = hashlib.sha256(f"{self.car} {word}".encode()).digest()
        return int.from_bytes(digest[:3], "big") / 2**24

    def between(self, word: str, low: float, high: float) -> float:
        return low + (high - low) * self.number(word)

    def choice(self, word: str, options):
        return options[int(self.number(word) * len(options))]

    def happens(self, word: str, probability: float) -> bool:
        return self.number(word) < probability


def design(car: int) -> tuple[Style, Paint]:
    """Return the car's body style, with its own proportions, and its paint."""
    style = STYLES[car % len(STYLES)]
    # Cars of one style differ in `car // 13`, so in their paint; the second term keeps neighbours apart.
    paint = PAINTS[(car // len(STYLES) + 4 * (car % len(STYLES))) % len(PAINTS)]
    chance = Chance(car)
    longer, higher = chance.between("length", 0.93, 1.07), chance.between("height", 0.94, 1.06)
    waist = chance.between("waist", 0.95, 1.05)
    measures = style._asdict()
    for name in ("length", "hood_length", "deck_length", "front_overhang", "rear_overhang"):
        measures[name] *= longer
    measures["hood_length"] *= chance.between("hood length", 0.9, 1.12)
    measures["deck_length"] *= chance.between("deck length", 0.85, 1.2)
    measures["windscreen_run"] *= chance.between("windscreen", 0.85, 1.2)
    measures["rear_run"] *= chance.between("rear", 0.75, 1.3)
    measures["width"] *= chance.between("width", 0.96, 1.04)
    measures["height"] *= higher
    for name in ("hood", "belt", "deck"):
        measures[name] *= waist * higher
    measures["wheel_radius"] *= chance.between("wheel", 0.95, 1.1)
    return Style(**measures), paint


def build(car: int) -> list[Piece]:
    """Return the pieces of a car."""
    style, paint = design(car)
    chance = Chance(car)
    nose, tail, half = style.length / 2, -style.length / 2, style.width / 2
    low, hood, belt, deck = style.clearance, style.hood, style.belt, style.deck
    cowl = nose - style.hood_length
    rear = tail + style.deck_length  # foot of the rear window
    trim = chance.choice("trim", (paint, paint, PLASTIC, CHROME))
    pieces: list[Piece | None] = []

    # The body: a convex beam, its sides drawn in above and below, its corners rounded in the plan.
    boxy = style.name in ("offroader", "van", "pickup", "suv")
    round_off = 0.6 if boxy else 1.0
    body = profile(
        [
            (tail + 0.12, low),
            (nose - 0.22, low),
            (nose - 0.03, low + 0.14),
            (nose, low + 0.28),
            (nose - 0.03 * round_off, hood - 0.16),
            (nose - 0.08 * round_off, hood - 0.06),
            (nose - 0.20 * round_off, hood),
            (nose - 0.5 * style.hood_length, (hood + belt) / 2 + 0.025),
            (cowl, belt),
            (tail + 0.16 * round_off, deck),
            (tail + 0.05 * round_off, deck - 0.05),
            (tail, deck - 0.16),
            (tail, low + 0.3),
            (tail + 0.03, low + 0.14),
        ]
    )
    shoulder = low + 0.66 * (belt - low)
    body += both_sides(
        [
            below(1, half),
            half_space(0.0, 1.0, 0.22, (0.0, half, shoulder)),
            half_space(0.0, 1.0, 0.55, (0.0, half - 0.035, belt - 0.09)),
            half_space(0.0, 1.0, -0.35, (0.0, half, low + 0.16)),
            half_space(0.30, 1.0, 0.0, (nose - 0.62 * round_off, half, 0.0)),
            half_space(1.0, 0.85, 0.0, (nose - 0.13 * round_off, half - 0.16 * round_off, 0.0)),
            half_space(0.36, 1.0, 0.0, (nose, half - 0.34 * round_off, 0.0)),
            half_space(-0.22, 1.0, 0.0, (tail + 0.55 * round_off, half, 0.0)),
            half_space(-1.0, 0.85, 0.0, (tail + 0.10 * round_off, half - 0.12 * round_off, 0.0)),
        ]
    )
    if style.name == "pickup":
        floor = low + 0.5
        pieces += [
            piece(paint, [*body, above(0, rear)]),
            piece(PLASTIC, box((tail + 0.06, rear), (0.06 - half, half - 0.06), (low + 0.02, floor))),
            piece(paint, [*body, below(0, rear), above(1, half - SKIN)]),
            piece(paint, [*body, below(0, rear), below(1, SKIN - half)]),
            piece(paint, [*body, below(0, tail + 0.12)]),
        ]
    else:
        pieces.append(piece(paint, body))

    pieces += _cabin(style, paint, chance, body)
    pieces += _wheels(style, chance, body)

    # Front: lamps, grille, bumper, plate.
    lamp_top = hood - 0.12
    lamp_height = chance.between("lamp height", 0.12, 0.19)
    lamp_width = chance.between("lamp width", 0.28, 0.44)
    lamp = [above(0, nose - 0.45), below(2, lamp_top), above(2, lamp_top - lamp_height)]
    lamp += [above(1, half - 0.08 - lamp_width)]
    grille = chance.choice("grille", (ARCH, PLASTIC, CHROME))
    grille_half = half - 0.14 - lamp_width
    grille_depth = chance.between("grille", 0.10, 0.24)
    pieces += [
        shell(LAMP_WHITE, body, 0.012, lamp),
        shell(LAMP_WHITE, body, 0.012, mirrored(lamp)),
        shell(
            grille,
            body,
            0.008,
            box((nose - 0.3, nose + 1), (-grille_half, grille_half), (lamp_top - grille_depth, lamp_top)),
        ),
        shell(
            ARCH, body, 0.006, box((nose - 0.3, nose + 1), (0.3 - half, half - 0.3), (low + 0.02, low + 0.13))
        ),
        shell(trim, body, 0.035, [above(0, nose - 0.4), above(2, low + 0.14), below(2, low + 0.29)]),
        shell(trim, body, 0.035, [below(0, tail + 0.4), above(2, low + 0.12), below(2, low + 0.29)]),
        shell(PLATE, body, 0.045, box((nose - 0.2, nose + 1), (-0.24, 0.24), (low + 0.16, low + 0.27))),
        shell(PLATE, body, 0.045, box((tail - 1, tail + 0.3), (-0.24, 0.24), (low + 0.32, low + 0.43))),
    ]
    # Rear lamps: broad ones, or upright ones at the corners.
    upright = boxy or style.name in ("minivan", "wagon", "city") or chance.happens("upright lamps", 0.3)
    red_width, red_height = (0.16, 0.36) if upright else (chance.between("red width", 0.3, 0.5), 0.16)
    red = [below(0, tail + 0.28), below(2, deck - 0.09), above(2, deck - 0.09 - red_height)]
    if style.name == "pickup":
        red_width = SKIN - 0.05  # no wider than the bed's wall
    red += [above(1, half - 0.05 - red_width)]
    pieces += [shell(LAMP_RED, body, 0.012, red), shell(LAMP_RED, body, 0.012, mirrored(red))]

    # Sides: door joints, a moulding or a second colour.
    front_joint, back_joint = cowl - 0.12, min(cowl - 1.15, tail + style.rear_overhang + 0.55)
    for x in (front_joint, back_joint):
        joint = [above(0, x - 0.014), below(0, x + 0.014), above(2, low + 0.14), below(2, belt - 0.02)]
        shade = Paint(paint.red * 0.45, paint.green * 0.45, paint.blue * 0.45)
        pieces += [
            shell(shade, body, 0.003, [*joint, above(1, half - SKIN)]),
            shell(shade, body, 0.003, [*joint, below(1, SKIN - half)]),
        ]
    pieces += _livery(style, paint, trim, chance, body, front_joint, back_joint)

    mirror_x = cowl - 0.30 * style.windscreen_run
    mirror = box((mirror_x - 0.10, mirror_x + 0.06), (half - 0.12, half + 0.14), (belt - 0.01, belt + 0.13))
    mirror_paint = paint if chance.happens("painted mirrors", 0.6) else PLASTIC
    pieces += [piece(mirror_paint, mirror), piece(mirror_paint, mirrored(mirror))]
    return [item for item in pieces if item is not None]


def _cabin(style: Style, paint: Paint, chance: Chance, body: list[Plane]) -> list[Piece | None]:
    """Return roof, pillars and panes; for the convertible, windscreen and seats."""
    half, belt, deck, roof = style.width / 2, style.belt, style.deck, style.height
    tail = -style.length / 2
    cowl, rear = style.length / 2 - style.hood_length, tail + style.deck_length
    top_front, top_rear = cowl - style.windscreen_run, rear + style.rear_run
    foot = min(belt, deck) - 0.12
    lean = style.tumblehome
    side = half_space(0.0, 1.0, lean, (0.0, half - 0.06, belt))
    if style.name == "convertible":
        glass = profile(
            [(cowl, belt - 0.06), (top_front, roof), (top_front - 0.05, roof), (cowl - 0.07, belt - 0.06)]
        )
        glass += both_sides([side])
        seat = chance.choice("seats", (SEAT_RED, SEAT_TAN, PLASTIC, CHROME))
        pit = [
            above(2, belt - 0.2),
            below(0, cowl - 0.22),
            above(0, rear - 0.05),
            below(1, half - 0.17),
            above(1, 0.17 - half),
        ]
        rear_seat = [
            (rear, belt - 0.1),
            (rear + 0.1, belt + 0.10),
            (rear - 0.4, belt + 0.06),
            (rear - 0.55, belt - 0.1),
        ]
        pieces = [
            piece(GLASS, glass),
            shell(PLASTIC, glass, 0.012, [above(2, roof - 0.055)]),
            shell(ARCH, body, 0.004, pit),
            piece(seat, [*profile(rear_seat), below(1, half - 0.2), above(1, 0.2 - half)]),
        ]
        for x in (cowl - 1.12, cowl - 1.9):
            if x < rear + 0.25:
                continue
            for low, high in ((0.10, 0.58), (-0.58, -0.10)):
                back = [
                    (x + 0.1, belt - 0.1),
                    (x - 0.06, belt + 0.26),
                    (x - 0.16, belt + 0.26),
                    (x - 0.1, belt - 0.1),
                ]
                pieces.append(piece(seat, [*profile(back), above(1, low), below(1, high)]))
        return pieces

    windscreen = half_space(roof - belt, 0.0, style.windscreen_run, (cowl, 0.0, belt))
    back_pane = half_space(-(roof - deck), 0.0, style.rear_run, (rear, 0.0, deck))
    crown = 0.02 if style.name in ("van", "offroader", "pickup") else 0.045
    cabin = [windscreen, back_pane, above(2, foot)]
    middle = (top_front + top_rear) / 2
    cabin += [
        half_space(crown * 1.2, 0.0, max(top_front - middle, 0.2), (middle + 0.15, 0.0, roof)),
        half_space(-crown * 1.2, 0.0, max(middle - top_rear, 0.2), (middle - 0.15, 0.0, roof)),
        _between(windscreen, (top_front - 0.12, 0.0, roof - 0.01)),
        _between(back_pane, (top_rear + 0.12, 0.0, roof - 0.01)),
        below(2, roof),
    ]
    roof_half = half - 0.06 - lean * (roof - belt)
    cabin += both_sides(
        [
            side,
            half_space(0.0, 1.0, 0.9, (0.0, roof_half + 0.01, roof - 0.07)),
            half_space(0.0, 0.35, 1.0, (0.0, roof_half - 0.12, roof - 0.01)),
            half_space(0.5, 1.0, lean, (cowl - 0.10, half - 0.12, belt)),
            half_space(-0.4, 1.0, lean, (rear + 0.05, half - 0.13, belt)),
        ]
    )
    roof_paint = paint
    if style.name not in ("van", "police", "coupe"):
        roof_paint = chance.choice("roof", (paint, paint, paint, paint, PAINTS[4], PAINTS[0]))
    pieces = [piece(roof_paint, cabin)]

    pane_foot, pane_top = max(belt, deck - 0.04) + 0.02, roof - 0.10
    sides = [shifted(side, -0.09), shifted(mirrored([side])[0], -0.09)]
    if style.name == "van":  # no panes behind the driver's
        pane_foot = belt + 0.05
    pieces += [
        shell(
            GLASS,
            cabin,
            0.008,
            [turned_over(shifted(windscreen, -0.06)), *sides, above(2, belt - 0.02), below(2, roof - 0.09)],
        ),
        shell(
            GLASS,
            cabin,
            0.008,
            [turned_over(shifted(back_pane, -0.06)), *sides, above(2, deck + 0.05), below(2, roof - 0.11)],
        ),
    ]
    front_edge, rear_edge = shifted(windscreen, -0.13), shifted(back_pane, -0.15)
    pillar = min(cowl - 1.08, (top_front + top_rear) / 2 + 0.1)
    strips = [(pillar + 0.045, 9.0), (-9.0, pillar - 0.045)]
    if style.name in ("wagon", "suv", "minivan"):
        strips = [(pillar + 0.045, 9.0), (pillar - 0.95, pillar - 0.045), (-9.0, pillar - 1.04)]
    if style.name == "van" and chance.happens("panel van", 0.6):
        strips = strips[:1]
    for low, high in strips:
        pane = [front_edge, rear_edge, above(2, pane_foot), below(2, pane_top), above(0, low), below(0, high)]
        pieces += [
            shell(GLASS, cabin, 0.008, [*pane, above(1, half / 2)]),
            shell(GLASS, cabin, 0.008, [*pane, below(1, -half / 2)]),
        ]
    pieces += _roof_load(style, roof_paint, chance, top_front, top_rear, roof_half)
    return pieces


def _between(pane: Plane, through: tuple[float, float, float]) -> Plane:
    """Return the half-space that rounds off the edge between a pane and the roof."""
    return half_space(pane[0], 0.0, pane[2] + 1.0, through)


def _roof_load(
    style: Style, paint: Paint, chance: Chance, top_front: float, top_rear: float, roof_half: float
) -> list[Piece | None]:
    """Return what stands on the roof or hangs at the back."""
    roof, belt, tail = style.height, style.belt, -style.length / 2
    pieces: list[Piece | None] = []
    if style.name == "taxi":
        x = top_front - 0.35
        sign = profile(
            [
                (x + 0.13, roof - 0.03),
                (x + 0.08, roof + 0.17),
                (x - 0.08, roof + 0.17),
                (x - 0.13, roof - 0.03),
            ]
        )
        pieces.append(piece(SIGN, [*sign, below(1, 0.34), above(1, -0.34)]))
    elif style.name == "police":
        x = (top_front + top_rear) / 2 + 0.15
        for colour, low, high in (
            (BEACON_BLUE, 0.2, 0.62),
            (LAMP_RED, -0.2, 0.2),
            (BEACON_BLUE, -0.62, -0.2),
        ):
            pieces.append(piece(colour, box((x - 0.12, x + 0.12), (low, high), (roof - 0.04, roof + 0.13))))
    elif style.name in ("suv", "wagon", "offroader", "minivan") and chance.happens("rack", 0.6):
        for edge in (roof_half - 0.12, 0.06 - roof_half):
            pieces.append(
                piece(
                    PLASTIC,
                    box((top_rear + 0.15, top_front - 0.25), (edge, edge + 0.06), (roof - 0.06, roof + 0.07)),
                )
            )
    if style.name == "offroader":
        pieces += [
            piece(TYRE, _wheel_at_the_back(tail, belt - 0.05, 0.36, 0.20)),
            piece(RIM, _wheel_at_the_back(tail, belt - 0.05, 0.20, 0.22)),
        ]
    if style.name in ("coupe", "hatchback", "sedan") and chance.happens("spoiler", 0.45):
        x, z = tail + 0.14, style.deck
        if style.name == "hatchback":
            x, z = top_rear - 0.08, roof - 0.16
        wing = profile(
            [(x + 0.12, z + 0.1), (x - 0.14, z + 0.15), (x - 0.14, z + 0.19), (x + 0.12, z + 0.14)]
        )
        reach = roof_half - 0.02 if style.name == "hatchback" else style.width / 2 - 0.16
        pieces.append(piece(paint, [*wing, below(1, reach), above(1, -reach)]))
        for y in (reach - 0.2, 0.12 - reach):
            pieces.append(piece(PLASTIC, box((x - 0.1, x + 0.06), (y, y + 0.08), (z - 0.1, z + 0.14))))
    return pieces


def _wheel_at_the_back(tail: float, z: float, radius: float, depth: float) -> list[Plane]:
    """Return the half-spaces of a wheel that hangs behind the car."""
    directions = [circle_point((2 * corner + 1) / 24) for corner in range(12)]
    around = [(0.0, c, s, s * z + radius) for c, s in directions]
    return [*around, below(0, tail + 0.02), above(0, tail - depth)]


def _wheels(style: Style, chance: Chance, body: list[Plane]) -> list[Piece | None]:
    """Return arches, tyres, rims and hubs of the four wheels."""
    half, radius = style.width / 2, style.wheel_radius
    rim = chance.choice("rim", (RIM, RIM, CHROME, DARK_RIM))
    rim_radius = radius * chance.between("rim", 0.60, 0.74)
    hub = PLASTIC if chance.happens("hub", 0.7) else rim
    flare = chance.between("arch", 1.10, 1.2)
    pieces: list[Piece | None] = []
    for x in (style.length / 2 - style.front_overhang, style.rear_overhang - style.length / 2):
        rounds = (
            (TYRE, disc(x, radius, radius, 16), half + 0.015, None),
            (rim, disc(x, radius, rim_radius, 10), half + 0.03, 1),  # one face: from inside it is hidden
            (hub, disc(x, radius, 0.3 * rim_radius, 6), half + 0.04, 1),
        )
        arch = [*disc(x, radius, radius * flare, 12), above(1, half - SKIN)]
        for turn in (list, mirrored):
            pieces.append(shell(ARCH, body, 0.004, turn(arch)))
            for paint, around, outside, num_outer in rounds:
                planes = turn([below(1, outside), above(1, half - 0.24), *around])
                pieces.append(piece(paint, planes, num_outer))
    return pieces


def _livery(
    style: Style,
    paint: Paint,
    trim: Paint,
    chance: Chance,
    body: list[Plane],
    front_joint: float,
    back_joint: float,
) -> list[Piece | None]:
    """Return stripes and second colours on the body."""
    half, low, belt = style.width / 2, style.clearance, style.belt
    dark = paint.red + paint.green + paint.blue < 330
    left, right = above(1, half - SKIN), below(1, SKIN - half)
    if style.name == "police":
        door = [
            below(0, front_joint - 0.02),
            above(0, back_joint),
            above(2, low + 0.14),
            below(2, belt - 0.03),
        ]
        white = PAINTS[0] if dark or paint == PAINTS[5] else PAINTS[4]
        return [shell(white, body, 0.002, [*door, side]) for side in (left, right)]
    if style.name == "taxi":
        # Chequers along the doors.
        colour = PAINTS[0] if dark else PAINTS[4]
        pieces = []
        count = 7
        step = (front_joint - back_joint) / count
        for number in range(count):
            z = low + 0.42 * (belt - low) + (0.11 if number % 2 else 0.0)
            x = back_joint + number * step
            square = [above(0, x), below(0, x + step), above(2, z), below(2, z + 0.11)]
            pieces += [shell(colour, body, 0.006, [*square, side]) for side in (left, right)]
        return pieces
    kind = chance.choice("livery", ("plain", "plain", "moulding", "two-tone", "racing"))
    if kind == "moulding":
        z = low + 0.45 * (belt - low)
        strip = [below(2, z + 0.07), above(2, z), below(0, front_joint + 0.1), above(0, back_joint - 0.1)]
        colour = PLASTIC if not dark else CHROME
        return [shell(colour, body, 0.02, [*strip, side]) for side in (left, right)]
    if kind == "two-tone":
        colour = PAINTS[5] if dark else Paint(paint.red * 0.4, paint.green * 0.4, paint.blue * 0.4, 0.2)
        return [shell(colour, body, 0.002, [below(2, low + 0.36 * (belt - low))])]
    if kind == "racing" and style.name in ("coupe", "convertible", "hatchback", "city", "pickup"):
        colour = PAINTS[0] if dark or paint == PAINTS[1] else PAINTS[4]
        if paint == PAINTS[0]:
            colour = PAINTS[2]
        stripes = box((-9, 9), (-0.26, 0.26), (style.hood - 0.12, 9))
        if style.name == "pickup":
            stripes += [above(0, 0.0)]
        return [shell(colour, body, 0.005, stripes)]
    return []


class Views(NamedTuple):
    """Cameras of one car: position and axes, each [24, 4] per coordinate, and pixels per unit of tangent."""

    position: tuple[np.ndarray, ...]
    right: tuple[np.ndarray, ...]
    up: tuple[np.ndarray, ...]
    ahead: tuple[np.ndarray, ...]
    focal: float


def views(style: Style) -> Views:
    """Return the cameras around a car. Azimuth 0 sees it from the front, azimuth 6 from its left side."""
    turn = np.array([circle_point(azimuth / NUM_AZIMUTHS) for azimuth in range(NUM_AZIMUTHS)])
    tilt = np.array([circle_point(elevation / 360) for elevation in ELEVATIONS])
    cosine, sine = turn[:, :1], turn[:, 1:]
    level, rise = tilt[None, :, 0], tilt[None, :, 1]
    zero = np.zeros((NUM_AZIMUTHS, NUM_ELEVATIONS))
    ahead = (-cosine * level, -sine * level, zero - rise)
    position = tuple(-CAMERA_DISTANCE * axis for axis in ahead)
    middle = 0.5 * style.height
    return Views(
        (position[0], position[1], position[2] + middle),
        (zero - sine, zero + cosine, zero),
        (-cosine * rise, -sine * rise, zero + level),
        ahead,
        FOCAL_LENGTH * math.sqrt(USUAL_LENGTH / style.length),
    )


def shades(planes: np.ndarray, paints: list[Paint]) -> np.ndarray:
    """Return colours uint8 [24, P + 1, 3] of the faces at each azimuth; the last is the background."""
    turn = np.array([circle_point(azimuth / NUM_AZIMUTHS) for azimuth in range(NUM_AZIMUTHS)])
    cosine, sine = turn[:, :1], turn[:, 1:]
    x, y, z = planes[:, 0], planes[:, 1], planes[:, 2]
    # In the frame that turns with the camera.
    normal = (y * cosine - x * sine, x * cosine + y * sine, z + 0.0 * cosine)
    light = AMBIENT + DIFFUSE * np.maximum(dot(normal, LAMP), 0.0) + SKY * np.maximum(normal[2], 0.0)
    mirror = np.maximum(dot(normal, HALF_WAY), 0.0)
    mirror = mirror * mirror
    mirror = mirror * mirror
    mirror = mirror * mirror
    gloss = np.array([paint.gloss for paint in paints])
    white = 255.0 * gloss * (0.55 * mirror + 0.25 * np.maximum(normal[2], 0.0))
    colours = np.array([paint[:3] for paint in paints], dtype=np.float64)
    values = np.floor(colours * light[:, :, None] + white[:, :, None] + 0.5)
    table = np.empty((NUM_AZIMUTHS, len(planes) + 1, 3), np.uint8)
    table[:, :-1] = np.minimum(values, 255.0)
    table[:, -1] = BACKGROUND
    return table


def draw_car(car: int) -> np.ndarray:
    """Draw one car from everywhere.

    car: 0 .. 182. Returns uint8 [4, 24, 64, 64, 3]: elevation, azimuth, rows, columns, RGB.
    """
    if not 0 <= car < NUM_CARS:
        raise ValueError(f"car {car} is not one of 0 to {NUM_CARS - 1}")
    return draw_pieces(build(car), views(design(car)[0]))


def draw_pieces(pieces: list[Piece], cameras: Views) -> np.ndarray:
    """Draw images uint8 [4, 24, 64, 64, 3] of the pieces from the cameras."""
    planes = np.concatenate([item.planes for item in pieces])
    paints = [item.paint for item in pieces for _ in item.planes]
    tables = packed(shades(planes, paints)), packed(shades(planes * (1.0, -1.0, 1.0, 1.0), paints))
    outer = np.concatenate([item.outer for item in pieces])
    ends = np.cumsum([len(item.planes) for item in pieces])
    fronts, backs, facing, turned = affine_terms(planes, cameras)
    windows = _windows(pieces, cameras).tolist()
    column = ((np.arange(SAMPLES) + 0.5) / SUPERSAMPLE - IMAGE_SIZE / 2) / cameras.focal
    row = (IMAGE_SIZE / 2 - (np.arange(SAMPLES) + 0.5) / SUPERSAMPLE)[:, None] / cameras.focal
    images = np.empty((NUM_ELEVATIONS, NUM_AZIMUTHS, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    # Single precision from here on, twice as fast and just as fixed; it tells depths apart to a hundredth of
    # a millimetre.
    nearest = np.empty((NUM_ELEVATIONS, SAMPLES, SAMPLES), np.float32)  # reciprocal depth of what is seen
    face = np.empty((NUM_ELEVATIONS, SAMPLES, SAMPLES), np.int64)  # its plane
    # Room for the planes of one piece: fresh arrays of this size would cost more than what is put in them.
    room = np.empty(max(len(item.planes) for item in pieces) * NUM_ELEVATIONS * SAMPLES * SAMPLES, np.float32)
    # A car is its own mirror image, so from the other side its faces lie mirrored; only their shades differ.
    for azimuth in range(NUM_AZIMUTHS // 2 + 1):
        nearest[:] = 0.0
        face[:] = len(planes)
        for number, item in enumerate(pieces):
            first, end = ends[number] - len(item.planes), ends[number]
            seen = np.flatnonzero(facing[first:end, azimuth]) + first
            if not outer[seen].any():
                continue
            top, bottom, left, right = windows[number][azimuth]
            part = (slice(None), slice(top, bottom), slice(left, right))
            u, v = column[left:right], row[top:bottom]
            away = np.flatnonzero(turned[first:end, azimuth]) + first
            leave = np.maximum.reduce(reciprocal_depths(backs[away, azimuth], u, v, room), axis=0)
            np.maximum(leave, nearest[part], out=leave)
            values = reciprocal_depths(fronts[seen, azimuth], u, v, room)
            enter = np.minimum.reduce(values, axis=0)
            hit = enter > leave
            where = np.flatnonzero(hit)
            if len(where) == 0:
                continue
            nearest[part][hit] = enter.take(where)
            face[part][hit] = seen[values.reshape(len(seen), -1).take(where, axis=1).argmin(axis=0)]
        images[:, azimuth] = pixels(tables[0][azimuth].take(face))
        if 0 < azimuth < NUM_AZIMUTHS // 2:
            other = NUM_AZIMUTHS - azimuth
            images[:, other] = pixels(tables[1][other].take(face))[:, :, ::-1]
    return images


def packed(colours: np.ndarray) -> np.ndarray:
    """Return colours [..., 3] as one int64 each, the channels 16 bits apart: looked up and added at once."""
    wide = colours.astype(np.int64)
    return wide[..., 0] + (wide[..., 1] << 16) + (wide[..., 2] << 32)


def pixels(samples: np.ndarray) -> np.ndarray:
    """Return images uint8 [4, 64, 64, 3]: the rounded mean of 2 x 2 samples, packed colours [4, 128, 128]."""
    total = samples[:, 0::2] + samples[:, 1::2]
    total = total[:, :, 0::2] + total[:, :, 1::2]
    return np.stack([((total >> shift & 0xFFFF) + 2 >> 2).astype(np.uint8) for shift in (0, 16, 32)], axis=-1)


def reciprocal_depths(terms: np.ndarray, u: np.ndarray, v: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return float32 [P, 4, H, W], in the first bytes of `room`, of planes at samples.

    terms: [P, 3, 4, 1, 1] of the planes. u: [W], the samples' columns. v: [H, 1], their rows.
    """
    across, down, level = terms[:, 0], terms[:, 1], terms[:, 2]
    by_row, by_column = (down * v + level).astype(np.float32), (across * u).astype(np.float32)
    values = room[: len(terms) * NUM_ELEVATIONS * len(v) * len(u)]
    return np.add(by_row, by_column, out=values.reshape(len(terms), NUM_ELEVATIONS, len(v), len(u)))


def affine_terms(planes: np.ndarray, cameras: Views) -> tuple[np.ndarray, ...]:
    """Write each plane's 1 / depth as across * u + down * v + level, for its front and for its back.

    A ray position + depth * (ahead + u right + v up) meets n . p = d where
    1 / depth = n . (ahead + u right + v up) / (d - n . position).
    Returns two arrays [P, 24, 3, 4, 1, 1] of the terms (across, down, level) per elevation, in which a plane
    that faces the other way counts for nothing, and two of whether it faces so at any elevation, [P, 24].
    """
    normal = [planes[:, axis, None, None] for axis in range(3)]
    behind = planes[:, 3, None, None] - dot(normal, cameras.position)
    behind = away_from_zero(behind)  # a plane seen edge-on
    front = behind < 0
    axes = (cameras.right, cameras.up, cameras.ahead)
    terms = np.stack([dot(normal, axis) / behind for axis in axes], axis=2)
    sides = []
    for side, nothing in ((front, np.inf), (~front, -np.inf)):
        neutral = np.array([0.0, 0.0, nothing])[:, None]
        sides.append(np.where(side[:, :, None], terms, neutral)[..., None, None])
    return *sides, front.any(axis=2), ~front.all(axis=2)


def _windows(pieces: list[Piece], cameras: Views) -> np.ndarray:
    """Return the samples that may show a piece at any elevation: top, bottom, left, right [pieces, 24, 4]."""
    corners = np.concatenate([item.corners for item in pieces])
    starts = np.cumsum([0] + [len(item.corners) for item in pieces[:-1]])
    offset = [corners[:, axis, None, None] - cameras.position[axis] for axis in range(3)]
    scale = cameras.focal * SUPERSAMPLE / dot(offset, cameras.ahead)
    column = SAMPLES / 2 + scale * dot(offset, cameras.right)
    row = SAMPLES / 2 - scale * dot(offset, cameras.up)

    def bounds(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = np.floor(np.minimum.reduceat(position, starts).min(axis=2)) - 1
        high = np.ceil(np.maximum.reduceat(position, starts).max(axis=2)) + 1
        return np.clip(low, 0, SAMPLES), np.clip(high, 0, SAMPLES)

    return np.stack([*bounds(row), *bounds(column)], axis=-1).astype(np.int64)
