"""A drawn twin of Shapes3D: the whole grid of 480,000 images, ray cast from a few lines of geometry.

The official data set (Burgess and Kim, 2018, https://github.com/google-deepmind/3d-shapes) is one object in
a room, seen by a camera that swings around it. Its factors are floor hue 10, wall hue 10, object hue 10,
scale 8, shape 4 (cube, cylinder, sphere, capsule) and orientation 15. The three hues only colour what the
other three factors draw, so `draw_layers` draws the 480 geometries once, as how much of each material reaches
each pixel, and `compose` colours them.

All numbers below were fitted by least squares to the sample images that the authors show (53 frames and a
sheet of 25), with the camera's height as the unit of length. They are measurements of a look, not the
authors' own scene file. Against the 53 frames the best match of the grid
has 31 dB PSNR on average, 29.6 dB at worst.

The same bytes come out on every machine, for the reasons that `geometry` gives; all numbers are float64.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from dislab.rendering.geometry import NEVER, TINY, Vector, away_from_zero, beyond, cosine_sine, dot

VERSION = 1  # of the drawing: a change of any image needs a new one
NUM_SCALES, NUM_SHAPES, NUM_ORIENTATIONS = 8, 4, 15
NUM_GEOMETRIES = NUM_SCALES * NUM_SHAPES * NUM_ORIENTATIONS
CUBE, CYLINDER, SPHERE, CAPSULE = range(NUM_SHAPES)
IMAGE_SIZE = 64
SUPERSAMPLE = 4  # rays per pixel and axis: 16 levels of an edge are finer than the official anti-aliasing

# Layers: light from the floor, the wall and the object (to be coloured), and the sky and white light (fixed).
FLOOR, WALL, OBJECT, SKY, WHITE = range(5)
NUM_LAYERS = 5
UNIT = 128  # the byte that stands for 1.0; the brightest floor reaches 1.3, so 255 must mean about 2
SKY_COLOUR = (153, 226, 249)  # constant in every official frame
# Ten steps of HSV hue at full saturation and value; every channel is a multiple of 51.
HUE_COLOURS = (
    (255, 0, 0),
    (255, 153, 0),
    (204, 255, 0),
    (51, 255, 0),
    (0, 255, 102),
    (0, 255, 255),
    (0, 102, 255),
    (51, 0, 255),
    (204, 0, 255),
    (255, 0, 153),
)

# Camera: on a ring around the origin, one unit above the floor.
FOCAL_LENGTH = 71.2277  # pixels
CAMERA_DISTANCE = 3.403
CENTRE_COLUMN, CENTRE_ROW = 32.0, 32.1366  # pixels
CAMERA_PITCH = 0.006  # radians downwards
LARGEST_ANGLE = 30.0  # degrees to either side, as the data set states; the room's corners agree

# Room: x to the right, y away from the camera at orientation 0, z up.
ROOM_HALF_WIDTH, WALL_HEIGHT = 4.5397, 2.5626

# Object at scale 1; it stands on the origin.
CUBE_HALF_WIDTH = 0.463
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.493, 0.991
SPHERE_RADIUS = 0.5579
CAPSULE_RADIUS, CAPSULE_HEIGHT = 0.4282, 1.7067

# Light: a lamp fixed in the room throws the shadow; a headlight swings with the camera.
LAMP_X, LAMP_Y, LAMP_Z = -1.3273, 0.3907, 7.5768
SPOT_X, SPOT_Y = 0.4493, 0.0712  # the lamp's axis points from the floor along (SPOT_X, SPOT_Y, 1)
HEADLIGHT_RIGHT, HEADLIGHT_BACK, HEADLIGHT_UP = -0.0265, 0.9981, 0.0103
# Brightness of a surface = ambient + headlight * cosine + lamp * cosine * spot, with spot = the squared
# cosine of the angle off the lamp's axis.
FLOOR_AMBIENT, FLOOR_LAMP = 0.321, 1.099
WALL_AMBIENT, WALL_HEADLIGHT, WALL_LAMP = 0.3119, 0.6336, 0.4297
OBJECT_AMBIENT, OBJECT_HEADLIGHT, OBJECT_LAMP = 0.3815, 0.5704, 0.8565
# The object's gloss is flat: the official frames add the same white wherever the lamp strikes at all.
GLOSS, GLOSS_RAMP = 0.1267, 0.05

# Surface: floor and walls carry round bumps in a honeycomb, and the walls a dark smudge with a streak below
# it that repeats sideways. Both are faint; positions and depths were read off the samples and averaged.
BUMP_SPACING, FLOOR_BUMP, WALL_BUMP = 0.325, 0.02, 0.01
SMUDGE_SPACING, SMUDGE_START, SMUDGE_DEPTH = 2.56, 0.13, 0.055
SMUDGE_HALF_WIDTH, SMUDGE_TOP, SMUDGE_BOTTOM, STREAK_BOTTOM = 0.26, 1.76, 1.12, 0.82


def unit(a: Vector) -> Vector:
    """Return the vector at length 1."""
    length = np.sqrt(dot(a, a))
    return Vector(a.x / length, a.y / length, a.z / length)


def scale_factor(scale: int) -> float:
    """Return 0.75 to 1.25 in eight steps."""
    return 0.75 + 0.5 * scale / (NUM_SCALES - 1)


def turn(orientation: int) -> tuple[float, float]:
    """Return cosine and sine of the camera's angle on its ring."""
    return cosine_sine(math.radians(LARGEST_ANGLE) * (2 * orientation / (NUM_ORIENTATIONS - 1) - 1))


def camera_rays(orientation: int) -> tuple[Vector, Vector]:
    """Return the camera's position, and unit directions [64 * SUPERSAMPLE, 64 * SUPERSAMPLE] per sample."""
    cosine, sine = turn(orientation)
    down_cosine, down_sine = cosine_sine(CAMERA_PITCH)
    samples = (np.arange(IMAGE_SIZE * SUPERSAMPLE) + 0.5) / SUPERSAMPLE
    right = ((samples - CENTRE_COLUMN) / FOCAL_LENGTH)[None, :]
    up = ((CENTRE_ROW - samples) / FOCAL_LENGTH)[:, None]
    ahead = down_cosine + up * down_sine
    rise = up * down_cosine - down_sine
    direction = Vector(right * cosine - ahead * sine, right * sine + ahead * cosine, rise + 0 * right)
    return Vector(CAMERA_DISTANCE * sine, -CAMERA_DISTANCE * cosine, 1.0), unit(direction)


def hit_sphere(origin: Vector, direction: Vector, height: float, radius: float) -> np.ndarray:
    """Return the first t at which rays of unit direction meet the sphere around (0, 0, height)."""
    from_centre = Vector(origin.x, origin.y, origin.z - height)
    half = dot(from_centre, direction)
    inside_root = half * half - dot(from_centre, from_centre) + radius * radius
    t = -half - np.sqrt(np.maximum(inside_root, 0.0))
    return np.where((inside_root > 0) & (t > TINY), t, NEVER)


def hit_tube(origin: Vector, direction: Vector, radius: float, bottom: float, top: float) -> np.ndarray:
    """Return the first t at which rays meet the mantle of the upright cylinder around the z axis."""
    square = np.maximum(direction.x * direction.x + direction.y * direction.y, TINY * TINY)
    half = origin.x * direction.x + origin.y * direction.y
    inside_root = half * half - square * (origin.x * origin.x + origin.y * origin.y - radius * radius)
    t = (-half - np.sqrt(np.maximum(inside_root, 0.0))) / square
    z = origin.z + t * direction.z
    return np.where((inside_root > 0) & (t > TINY) & (z >= bottom) & (z <= top), t, NEVER)


def hit_disc(origin: Vector, direction: Vector, radius: float, height: float) -> np.ndarray:
    """Return the first t at which rays meet the level disc around (0, 0, height)."""
    t = (height - origin.z) / away_from_zero(direction.z)
    at = beyond(origin, t, direction)
    return np.where((t > TINY) & (at.x * at.x + at.y * at.y <= radius * radius), t, NEVER)


def hit_box(origin: Vector, direction: Vector, half_width: float, height: float) -> np.ndarray:
    """Return the first t at which rays meet the upright box that stands on the floor around the z axis."""
    enter, leave = -NEVER, NEVER
    bounds = ((-half_width, half_width), (-half_width, half_width), (0.0, height))
    for start, step, (low, high) in zip(origin, direction, bounds, strict=True):
        step = away_from_zero(step)
        one, other = (low - start) / step, (high - start) / step
        enter = np.maximum(enter, np.minimum(one, other))
        leave = np.minimum(leave, np.maximum(one, other))
    return np.where((enter < leave) & (enter > TINY), enter, NEVER)


def hit_object(origin: Vector, direction: Vector, shape: int, size: float) -> np.ndarray:
    """Return the first t at which rays meet the object, NEVER for a miss; the object's foot is the origin."""
    if shape == CUBE:
        return hit_box(origin, direction, CUBE_HALF_WIDTH * size, 2 * CUBE_HALF_WIDTH * size)
    if shape == SPHERE:
        return hit_sphere(origin, direction, SPHERE_RADIUS * size, SPHERE_RADIUS * size)
    if shape == CYLINDER:
        radius, height = CYLINDER_RADIUS * size, CYLINDER_HEIGHT * size
        mantle = hit_tube(origin, direction, radius, 0.0, height)
        bottom, top = hit_disc(origin, direction, radius, 0.0), hit_disc(origin, direction, radius, height)
        return np.minimum(mantle, np.minimum(bottom, top))
    radius, height = CAPSULE_RADIUS * size, CAPSULE_HEIGHT * size
    mantle = hit_tube(origin, direction, radius, radius, height - radius)
    bottom = hit_sphere(origin, direction, radius, radius)
    top = hit_sphere(origin, direction, height - radius, radius)
    return np.minimum(mantle, np.minimum(bottom, top))


def normal_of_object(at: Vector, shape: int, size: float) -> Vector:
    """Return outward unit normals at points of the object's surface."""
    if shape == CUBE:
        half_width = CUBE_HALF_WIDTH * size
        x, y, z = at.x / half_width, at.y / half_width, at.z / half_width - 1.0
        largest = np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z))
        on_x = np.abs(x) == largest
        on_y = (np.abs(y) == largest) & ~on_x
        on_z = ~on_x & ~on_y
        return Vector(np.sign(x) * on_x, np.sign(y) * on_y, np.sign(z) * on_z)
    if shape == CYLINDER:
        radius, height = CYLINDER_RADIUS * size, CYLINDER_HEIGHT * size
        on_top, on_bottom = at.z > height - TINY, at.z < TINY
        on_mantle = ~(on_top | on_bottom)
        level = np.where(on_top, 1.0, np.where(on_bottom, -1.0, 0.0))
        return unit(Vector(at.x / radius * on_mantle, at.y / radius * on_mantle, level))
    if shape == SPHERE:
        return unit(Vector(at.x, at.y, at.z - SPHERE_RADIUS * size))
    radius, height = CAPSULE_RADIUS * size, CAPSULE_HEIGHT * size
    nearest = np.minimum(np.maximum(at.z, radius), height - radius)
    return unit(Vector(at.x, at.y, at.z - nearest))


def lamp_light(at: Vector, normal: Vector) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine between the normal and the way to the lamp (negative: turned away), and the spot."""
    to_lamp = unit(Vector(LAMP_X - at.x, LAMP_Y - at.y, LAMP_Z - at.z))
    along_axis = dot(to_lamp, unit(Vector(SPOT_X, SPOT_Y, 1.0)))
    return dot(normal, to_lamp), along_axis * along_axis


def headlight(orientation: int) -> Vector:
    """Return the direction towards the headlight, which swings with the camera."""
    cosine, sine = turn(orientation)
    right, back = HEADLIGHT_RIGHT, HEADLIGHT_BACK
    return Vector(right * cosine + back * sine, right * sine - back * cosine, HEADLIGHT_UP)


def bumps(across: np.ndarray, along: np.ndarray, depth: float) -> np.ndarray:
    """Return the brightness of a honeycomb of round bumps: 1 + depth on their tops, 1 - depth between."""
    column, row = across / BUMP_SPACING, along / (BUMP_SPACING * 1.732)  # rows lie sqrt(3) apart
    nearest = NEVER
    for shift in (0.0, 0.5):
        aside = column + shift - np.floor(column + shift) - 0.5
        ahead = (row + shift - np.floor(row + shift) - 0.5) * 1.732
        nearest = np.minimum(nearest, aside * aside + ahead * ahead)
    # The corner between three bumps lies at a squared distance of 1/3.
    return 1.0 + depth * (1.0 - 6.0 * nearest)


def smudges(across: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the brightness factor of the dark smudges on a wall."""
    number = (across - SMUDGE_START) / SMUDGE_SPACING + 0.5
    aside = (number - np.floor(number) - 0.5) * SMUDGE_SPACING
    smudge = (np.abs(aside) < SMUDGE_HALF_WIDTH) & (height < SMUDGE_TOP) & (height > SMUDGE_BOTTOM)
    slanted = aside - 0.1 - 1.2 * (SMUDGE_BOTTOM - height)  # the streak runs down to the right
    streak = (np.abs(slanted) < 0.2) & (height <= SMUDGE_BOTTOM) & (height > STREAK_BOTTOM)
    return np.where(smudge | streak, 1.0 - SMUDGE_DEPTH, 1.0)


class Room(NamedTuple):
    """What the empty room shows from one orientation, per sample."""

    camera: Vector
    direction: Vector
    distance: np.ndarray  # ray parameter of the first surface, NEVER for the sky
    is_floor: np.ndarray
    light: np.ndarray  # [NUM_LAYERS, rows, columns]
    floor_point: Vector  # meaningful where is_floor


def draw_room(orientation: int) -> Room:
    """Cast every sample's ray against the floor and the walls, and light what it meets."""
    camera, direction = camera_rays(orientation)
    head = headlight(orientation)
    to_floor = np.where(direction.z < -TINY, -camera.z / np.minimum(direction.z, -TINY), NEVER)
    to_back = np.where(
        direction.y > TINY, (ROOM_HALF_WIDTH - camera.y) / np.maximum(direction.y, TINY), NEVER
    )
    to_right = np.where(
        direction.x > TINY, (ROOM_HALF_WIDTH - camera.x) / np.maximum(direction.x, TINY), NEVER
    )
    to_left = np.where(
        direction.x < -TINY, (-ROOM_HALF_WIDTH - camera.x) / np.minimum(direction.x, -TINY), NEVER
    )
    to_wall = np.minimum(to_back, np.minimum(to_right, to_left))
    is_floor = to_floor < to_wall
    wall_point = beyond(camera, to_wall, direction)
    is_wall = ~is_floor & (wall_point.z <= WALL_HEIGHT)
    light = np.zeros((NUM_LAYERS, *to_wall.shape))

    floor_point = beyond(camera, np.where(is_floor, to_floor, 0.0), direction)
    cosine, spot = lamp_light(floor_point, Vector(0.0, 0.0, 1.0))
    shade = FLOOR_AMBIENT + FLOOR_LAMP * cosine * spot
    light[FLOOR] = np.where(is_floor, shade * bumps(floor_point.x, floor_point.y, FLOOR_BUMP), 0.0)

    on_back = to_back == to_wall
    on_right = (to_right == to_wall) & ~on_back
    normal = Vector(np.where(on_back, 0.0, np.where(on_right, -1.0, 1.0)), np.where(on_back, -1.0, 0.0), 0.0)
    cosine, spot = lamp_light(wall_point, normal)
    shade = WALL_AMBIENT + WALL_HEADLIGHT * np.maximum(dot(normal, head), 0.0)
    shade = shade + WALL_LAMP * np.maximum(cosine, 0.0) * spot
    across = np.where(on_back, wall_point.x, np.where(on_right, -wall_point.y, wall_point.y))
    pattern = bumps(across, wall_point.z, WALL_BUMP) * smudges(across, wall_point.z)
    light[WALL] = np.where(is_wall, shade * pattern, 0.0)
    light[SKY] = ~is_floor & ~is_wall
    distance = np.where(is_floor, to_floor, np.where(is_wall, to_wall, NEVER))
    return Room(camera, direction, distance, is_floor, light, floor_point)


def add_shadow(light: np.ndarray, room: Room, shape: int, size: float) -> None:
    """Take the lamp's light from the floor where the object stands in its way."""
    at = room.floor_point
    reach = 2.0 * size  # no shadow falls further from the object's foot than this
    near = room.is_floor & (at.x * at.x + at.y * at.y < reach * reach)
    at = Vector(at.x[near], at.y[near], 0.0)
    to_lamp = unit(Vector(LAMP_X - at.x, LAMP_Y - at.y, LAMP_Z - at.z))
    shaded = hit_object(at, to_lamp, shape, size) < NEVER
    light[FLOOR][near] = np.where(shaded, FLOOR_AMBIENT, light[FLOOR][near])


def add_object(light: np.ndarray, room: Room, shape: int, size: float, orientation: int) -> None:
    """Draw the object over the room."""
    # Only the middle columns can show the object: the widest, the cube turned by 30 degrees, reaches 0.2 to
    # the side per unit of distance and size.
    half_width = int(0.24 * size * FOCAL_LENGTH * SUPERSAMPLE)
    middle = int(CENTRE_COLUMN * SUPERSAMPLE)
    columns = slice(max(middle - half_width, 0), middle + half_width)
    direction = Vector(*(coordinate[:, columns] for coordinate in room.direction))
    t = hit_object(room.camera, direction, shape, size)
    seen = t < room.distance[:, columns]
    direction = Vector(*(coordinate[seen] for coordinate in direction))
    at = beyond(room.camera, t[seen], direction)
    normal = normal_of_object(at, shape, size)
    cosine, spot = lamp_light(at, normal)
    shade = OBJECT_AMBIENT + OBJECT_HEADLIGHT * np.maximum(dot(normal, headlight(orientation)), 0.0)
    shade = shade + OBJECT_LAMP * np.maximum(cosine, 0.0) * spot
    gloss = GLOSS * np.minimum(np.maximum(0.5 + cosine / (2 * GLOSS_RAMP), 0.0), 1.0)
    for layer, value in ((FLOOR, 0.0), (WALL, 0.0), (SKY, 0.0), (OBJECT, shade), (WHITE, gloss)):
        light[layer, :, columns][seen] = value


def draw_geometry(room: Room, scale: int, shape: int, orientation: int) -> np.ndarray:
    """Return a geometry's layers float64 [NUM_LAYERS, 64, 64]: a pixel is the mean of its samples."""
    light = room.light.copy()
    size = scale_factor(scale)
    add_shadow(light, room, shape, size)
    add_object(light, room, shape, size, orientation)
    total = np.zeros((NUM_LAYERS, IMAGE_SIZE, IMAGE_SIZE))
    for row in range(SUPERSAMPLE):
        for column in range(SUPERSAMPLE):
            total += light[:, row::SUPERSAMPLE, column::SUPERSAMPLE]
    return total / (SUPERSAMPLE * SUPERSAMPLE)


def geometry_index(scale: int, shape: int, orientation: int) -> int:
    """Return the index of a geometry in the layers."""
    return (scale * NUM_SHAPES + shape) * NUM_ORIENTATIONS + orientation


def draw_layers() -> np.ndarray:
    """Draw all 480 geometries.

    Returns uint8 [480, NUM_LAYERS, 64, 64]: how much of each material's colour reaches each pixel, in units
    of 1 / UNIT, ordered by `geometry_index`.
    """
    layers = np.empty((NUM_GEOMETRIES, NUM_LAYERS, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for orientation in range(NUM_ORIENTATIONS):
        room = draw_room(orientation)
        for scale in range(NUM_SCALES):
            for shape in range(NUM_SHAPES):
                light = draw_geometry(room, scale, shape, orientation)
                index = geometry_index(scale, shape, orientation)
                layers[index] = np.minimum(np.floor(light * UNIT + 0.5), 255.0)
    return layers


def palette(device: torch.device | None = None) -> torch.Tensor:
    """Return the colours of the layers for each combination of hues, float32 [1000, NUM_LAYERS, 3].

    They are divided by UNIT, so that their products with the layers are bytes. The hues are those of floor,
    wall and object, the last one fastest.
    """
    hues = torch.tensor(HUE_COLOURS, dtype=torch.float32)
    hue = torch.arange(len(hues))
    coloured = hues[torch.cartesian_prod(hue, hue, hue)]  # [1000, 3, 3]
    fixed = torch.tensor([SKY_COLOUR, (255, 255, 255)], dtype=torch.float32).expand(len(coloured), 2, 3)
    return torch.cat([coloured, fixed], dim=1).to(device) / UNIT  # UNIT is a power of two: this is exact


def compose(layers: torch.Tensor, rows: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Colour geometries by their hues.

    layers: [480, NUM_LAYERS, 64, 64] uint8 from `draw_layers`, on any device. rows: int64 [B] of the data
    set, on the same device: its first three factors are the hues, the others the geometry. colours: those of
    `palette`. Returns [B, 3, 64, 64] uint8.

    Every product and sum is a whole multiple of 1 / UNIT with fewer than 24 bits, and every factor has 8, so
    float32 (and TF32, which keeps 11 bits of a factor) holds them exactly whatever the order of addition: the
    bytes do not depend on the device.
    """
    hues, geometry = rows // NUM_GEOMETRIES, rows % NUM_GEOMETRIES
    light = layers.index_select(0, geometry).flatten(2).to(torch.float32)  # [B, NUM_LAYERS, 4096]
    # The light's long rows on the right make this product, and int16 on the way to uint8 makes the cast,
    # three times as fast on the CPU as the other way.
    pixels = torch.bmm(colours[hues].transpose(1, 2), light)  # [B, 3, 4096]
    pixels = pixels.add_(0.5).clamp_(max=255.0).to(torch.int16).to(torch.uint8)  # a cast drops the fraction
    pixels = torch.stack(pixels.unbind(1), dim=-1)  # channels last in memory, as `unit_images` has them
    return pixels.view(-1, IMAGE_SIZE, IMAGE_SIZE, 3).permute(0, 3, 1, 2)
