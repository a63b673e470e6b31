"""A drawn twin of MPI3D toy: the whole grid of 1,036,800 images of a robot arm that holds an object.

The official data set (Gondal et al. 2019, https://github.com/rr-learning/disentanglement_dataset) shows a
small robot on a dark floor, within a coloured ring. Its factors, the last fastest, are object colour 6,
object shape 6 (cone, cube, cylinder, hexagonal prism, pyramid, sphere), object size 2, camera height 3 (top,
centre, bottom), background colour 3, horizontal axis 40 and vertical axis 40. The vertical axis turns the
robot on its foot, the horizontal one swings the arm from one side over the top to the other.

The two colours only paint what the other five factors draw. So `draw_poses` draws the 4,800 poses of the
robot (camera, horizontal axis, vertical axis) and for each the twelve objects, as small crops: 156 MB.
`Painter` puts a crop into its pose and paints both.

All numbers below were fitted by least squares to the 108 different panels of the two animations that the
authors show. They are measurements of a look, not the authors' scene file. Against those panels, each drawn
from its own factor values, the twin has 34.2 dB PSNR on average, 31.0 dB at worst. It leaves out the small
bolts and openings of the robot's post, and the way in which flat sides get darker towards an edge.

The same bytes come out on every machine, for the reasons that `geometry` gives; all numbers are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dislab.rendering.geometry import NEVER, TINY, Vector, away_from_zero, beyond, cosine_sine, dot

VERSION = 1  # of the drawing: a change of any image needs a new one
NUM_SHAPES, NUM_SIZES, NUM_CAMERAS, NUM_BACKGROUNDS, NUM_STEPS = 6, 2, 3, 3, 40
CONE, CUBE, CYLINDER, HEXAGONAL, PYRAMID, SPHERE = range(NUM_SHAPES)
NUM_POSES = NUM_CAMERAS * NUM_STEPS * NUM_STEPS
NUM_OBJECTS = NUM_SHAPES * NUM_SIZES
IMAGE_SIZE = 64
PIXELS = IMAGE_SIZE * IMAGE_SIZE
SUPERSAMPLE = 4  # rays per pixel and axis
CROP = 26  # pixels to a side; the nearest, largest object spans 24
MARGIN = IMAGE_SIZE - CROP
WIDTH = CROP + 2 * MARGIN

# A pose is a row of bytes: two layers of the robot without an object, then three layers of each crop.
BACKGROUND, GREY, OBJECT = range(3)  # share of background that is seen, grey light, light from the object
POSE_BYTES = 2 * PIXELS + NUM_OBJECTS * 3 * CROP * CROP
UNIT = 128  # the byte that stands for 1.0 in the layers BACKGROUND and OBJECT

# Red, green, blue of the object in the brightest light, and of the ring in a light of 1.
OBJECT_COLOURS = (
    (255, 255, 255),  # white
    (50, 189, 50),  # green
    (254, 12, 14),  # red
    (50, 129, 251),  # blue
    (98, 61, 47),  # brown
    (146, 145, 62),  # olive
)
RING_COLOURS = (  # each part of the ring is followed by the next
    (96.1, 72.1, 137.2),  # purple
    (68.1, 94.1, 90.1),  # sea green
    (104.4, 74.3, 82.9),  # salmon
    (97.9, 91.1, 115.4),  # no background of its own
)
FLOOR_GREY = 52.0  # in every official frame

# Lengths are in units of which the cameras' distances are about four. x runs to the right, y away from the
# cameras, z up; the robot's foot is the origin.
FOCAL_LENGTH = 110.19  # pixels
# Position x, y, z and yaw and downward pitch in radians: top, centre, bottom.
CAMERAS = (
    (0.0817, -2.5329, 3.4333, -0.0050, 0.8649),
    (-0.0252, -2.9481, 2.7995, -0.0094, 0.6574),
    (0.0889, -3.2712, 2.0369, -0.0008, 0.4030),
)

# The ring on the floor, under a lamp that lights it unevenly. It has parts of several colours, and the
# background colour says which of them lies before the camera; the next part begins at the far left.
RING_X, RING_Y = 0.0127, -0.0583
RING_INNER, RING_OUTER = 1.5763, 1.9434
RING_PART_END = 2.535  # radians, counter-clockwise from x
RING_AMBIENT, RING_LAMP = 0.1688, 0.8922
LAMP_X, LAMP_Y, LAMP_Z = 0.0211, 0.3628, 2.4258

# Two distant lights, as direction times strength. Light on a surface = the sum of both where it faces them.
LIGHTS = ((0.1744, -0.6434, 0.6623), (-0.4888, 0.3823, 0.3358))
OBJECT_AMBIENT = -0.0731  # what faces away from both is black for a while before it faces away

# The two joints: angle = per step * (step - middle).
TURN_AT_MIDDLE, TURN_PER_STEP, TURN_MIDDLE = 1.2616, -0.07843, 19.5  # vertical axis: the arm's azimuth
SWING_PER_STEP, SWING_MIDDLE = 0.08198, 19.32  # horizontal axis: the arm's angle from upright
JOINT_HEIGHT, JOINT_ASIDE = 0.6065, 0.1087

# Parts of the robot. A box is (low, high) per axis; its brightness is ambient + strength * light, in grey.
FOOT_RADIUS, FOOT_HOLE, FOOT_HEIGHT = 0.1585, 0.0941, 0.004
FOOT_GREY, HOLE_GREY, PLATE_GREY, PLATE_EDGE = 161.5, 114.0, 170.7, -0.0115  # a plate fills half the hole
POST = ((-0.0646, 0.0646), (-0.0506, 0.0436), (0.0, 0.69))
POST_AMBIENT, POST_STRENGTH = 80.3, 5.24
POST_SLOPE, POST_MIDDLE = 29.9, 0.35  # the post is brighter towards its top: grey per unit of height
HEAD = ((-0.0672, 0.0672), (-0.0429, 0.0653), (0.6227, 0.697))
HEAD_AMBIENT, HEAD_STRENGTH = 64.1, 109.9
FIN = ((-0.0235, 0.0664), (-0.0853, -0.0386), (0.0, 0.1865))
FIN_AMBIENT, FIN_STRENGTH = 83.4, 66.3
BRACKET = ((-0.0477, 0.0477), (0.0019, 0.1027), (-0.0477, 0.1728))  # swings with the arm
BRACKET_AMBIENT, BRACKET_STRENGTH = 97.6, 49.0
ROD_RADIUS, ROD_LENGTH = 0.02396, 0.5664
ROD_AMBIENT, ROD_STRENGTH = 8.3, 153.1

# Objects at full size, standing on the rod's end: radius (of the sides' inscribed circle) and height.
OBJECTS = (
    (0.1607, 0.3291),
    (0.1691, 0.3166),
    (0.1513, 0.3390),
    (0.1591, 0.3220),
    (0.1608, 0.3287),
    (0.1629, 0.3258),
)
SMALL = 0.6825  # the smaller size
CROP_CENTRE = 0.155  # beyond the rod's end: the middle of a large object
SQUARE_SIDES = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
SIN_60 = 0.866025404
HEXAGON_SIDES = ((1.0, 0.0), (0.5, SIN_60), (-0.5, SIN_60), (-1.0, 0.0), (-0.5, -SIN_60), (0.5, -SIN_60))


class Frame(NamedTuple):
    """A part's own coordinates: their origin and the directions of the axes."""

    origin: Vector
    x: Vector
    y: Vector
    z: Vector


class Window(NamedTuple):
    """A rectangle of pixels: first row, end row, first column, end column."""

    top: int
    bottom: int
    left: int
    right: int

    def samples(self) -> tuple[slice, slice]:
        """Return the rectangle's slices in an array with SUPERSAMPLE samples per pixel and axis."""
        return (
            slice(self.top * SUPERSAMPLE, self.bottom * SUPERSAMPLE),
            slice(self.left * SUPERSAMPLE, self.right * SUPERSAMPLE),
        )


def along(normal: Vector, direction: Vector) -> np.ndarray:
    """Return the inner product with a vector of numbers; those that are zero cost nothing."""
    total = None
    for factor, part in zip(normal, direction, strict=True):
        if factor:
            total = factor * part if total is None else total + factor * part
    return total


def minus(a: Vector, b: Vector) -> Vector:
    return Vector(a.x - b.x, a.y - b.y, a.z - b.z)


def within(frame: Frame, a: Vector) -> Vector:
    """Return a direction in the frame's coordinates."""
    return Vector(dot(a, frame.x), dot(a, frame.y), dot(a, frame.z))


# Cameras


def camera_position(camera: int) -> Vector:
    return Vector(*CAMERAS[camera][:3])


def camera_rays(camera: int) -> Vector:
    """Return directions [64 * SUPERSAMPLE, 64 * SUPERSAMPLE] through every sample, of depth 1 each."""
    yaw_cosine, yaw_sine = cosine_sine(CAMERAS[camera][3])
    down_cosine, down_sine = cosine_sine(CAMERAS[camera][4])
    samples = (np.arange(IMAGE_SIZE * SUPERSAMPLE) + 0.5) / SUPERSAMPLE
    right = ((samples - IMAGE_SIZE / 2) / FOCAL_LENGTH)[None, :]
    up = ((IMAGE_SIZE / 2 - samples) / FOCAL_LENGTH)[:, None]
    ahead = down_cosine + up * down_sine
    rise = up * down_cosine - down_sine
    return Vector(
        right * yaw_cosine + ahead * yaw_sine, ahead * yaw_cosine - right * yaw_sine, rise + 0 * right
    )


def project(camera: int, point: Vector) -> tuple[float, float, float]:
    """Return row and column of a point in the image, in pixels, and the pixels per unit of length there."""
    yaw_cosine, yaw_sine = cosine_sine(CAMERAS[camera][3])
    down_cosine, down_sine = cosine_sine(CAMERAS[camera][4])
    to_point = minus(point, camera_position(camera))
    right = to_point.x * yaw_cosine - to_point.y * yaw_sine
    ahead = to_point.x * yaw_sine + to_point.y * yaw_cosine
    scale = FOCAL_LENGTH / (ahead * down_cosine - to_point.z * down_sine)
    up = ahead * down_sine + to_point.z * down_cosine
    return IMAGE_SIZE / 2 - up * scale, IMAGE_SIZE / 2 + right * scale, scale


def window_around(camera: int, points: list[Vector], radius: float) -> Window:
    """Return the pixels that can show anything within a radius of the points or the lines between them."""
    projected = [project(camera, point) for point in points]

    def clamp(pixel: float) -> int:
        return int(min(max(math.floor(pixel), 0), IMAGE_SIZE))

    return Window(
        clamp(min(row - radius * scale for row, _, scale in projected)),
        clamp(max(row + radius * scale for row, _, scale in projected) + 1),
        clamp(min(column - radius * scale for _, column, scale in projected)),
        clamp(max(column + radius * scale for _, column, scale in projected) + 1),
    )


# The robot's joints


def robot_frames(horizontal: int, vertical: int) -> tuple[Frame, Frame, Frame]:
    """Return the coordinates of the turning robot, of the swinging bracket, and of the rod from its joint on.

    The bracket's and the rod's z runs along the arm, their y sideways.
    """
    turn_cosine, turn_sine = cosine_sine(TURN_AT_MIDDLE + TURN_PER_STEP * (vertical - TURN_MIDDLE))
    swing_cosine, swing_sine = cosine_sine(SWING_PER_STEP * (horizontal - SWING_MIDDLE))
    ahead = Vector(turn_cosine, turn_sine, 0.0)
    aside = Vector(-turn_sine, turn_cosine, 0.0)
    along = Vector(swing_sine * turn_cosine, swing_sine * turn_sine, swing_cosine)
    across = Vector(swing_cosine * turn_cosine, swing_cosine * turn_sine, -swing_sine)
    middle = Vector(0.0, 0.0, JOINT_HEIGHT)
    return (
        Frame(Vector(0.0, 0.0, 0.0), ahead, aside, Vector(0.0, 0.0, 1.0)),
        Frame(middle, across, aside, along),
        Frame(beyond(middle, JOINT_ASIDE, aside), across, aside, along),
    )


def object_frame(rod: Frame) -> Frame:
    """Return the coordinates of the object, which stands on the rod's end."""
    return rod._replace(origin=beyond(rod.origin, ROD_LENGTH, rod.z))


def crop_window(camera: int, horizontal: int, vertical: int) -> Window:
    """Return the CROP x CROP pixels of a pose that hold its object of any shape and size."""
    frame = object_frame(robot_frames(horizontal, vertical)[2])
    row, column, _ = project(camera, beyond(frame.origin, CROP_CENTRE, frame.z))
    top, left = (
        min(max(math.floor(centre + 0.5) - CROP // 2, 0), IMAGE_SIZE - CROP) for centre in (row, column)
    )
    return Window(top, top + CROP, left, left + CROP)


# Light


def light_on(normal: Vector, frame: Frame) -> np.ndarray | float:
    """Return the light on surfaces whose unit normals are given in the frame's coordinates."""
    first, second = (within(frame, Vector(*light)) for light in LIGHTS)
    return np.maximum(dot(normal, first), 0.0) + np.maximum(dot(normal, second), 0.0)


# Solids, in their own coordinates: the first ray parameter at which each is met (NEVER for a miss), and the
# light on it there (meaningless for a miss).

Met = tuple[np.ndarray, np.ndarray]
Plane = tuple[Vector, float]  # a unit normal and the distance from the origin; the solid lies below it


def box_planes(box: tuple[tuple[float, float], ...]) -> list[Plane]:
    (x_low, x_high), (y_low, y_high), (z_low, z_high) = box
    return [
        (Vector(1.0, 0.0, 0.0), x_high),
        (Vector(-1.0, 0.0, 0.0), -x_low),
        (Vector(0.0, 1.0, 0.0), y_high),
        (Vector(0.0, -1.0, 0.0), -y_low),
        (Vector(0.0, 0.0, 1.0), z_high),
        (Vector(0.0, 0.0, -1.0), -z_low),
    ]


def prism_planes(sides: tuple[tuple[float, float], ...], radius: float, height: float) -> list[Plane]:
    """Return the planes of a prism that stands on the origin; `sides` are the normals of its sides."""
    mantle = [(Vector(x, y, 0.0), radius) for x, y in sides]
    return [*mantle, (Vector(0.0, 0.0, 1.0), height), (Vector(0.0, 0.0, -1.0), 0.0)]


def pyramid_planes(radius: float, height: float) -> list[Plane]:
    slant = math.sqrt(radius * radius + height * height)
    level, rise = height / slant, radius / slant
    mantle = [(Vector(x * level, y * level, rise), radius * level) for x, y in SQUARE_SIDES]
    return [*mantle, (Vector(0.0, 0.0, -1.0), 0.0)]


def meet_planes(origin: Vector, direction: Vector, planes: list[Plane], frame: Frame) -> Met:
    """Meet the convex solid below all planes.

    A ray along a plane meets it at infinity: below the plane it never leaves, above it has left for ever.
    """
    enter = np.full(direction.x.shape, -NEVER)
    leave = np.full(direction.x.shape, NEVER)
    light = np.zeros(direction.x.shape)
    for normal, distance in planes:
        speed = along(normal, direction)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (distance - dot(normal, origin)) / speed
        inwards = speed < 0
        later = inwards & (t > enter)
        enter = np.where(later, t, enter)
        light = np.where(later, light_on(normal, frame), light)
        leave = np.where(inwards, leave, np.minimum(leave, t))
    return np.where((enter < leave) & (enter > TINY), enter, NEVER), light


def meet_sphere(origin: Vector, direction: Vector, radius: float, frame: Frame) -> Met:
    """Meet the sphere that stands on the origin."""
    from_centre = Vector(origin.x, origin.y, origin.z - radius)
    square, half = dot(direction, direction), dot(from_centre, direction)
    inside_root = half * half - square * (dot(from_centre, from_centre) - radius * radius)
    t = (-half - np.sqrt(np.maximum(inside_root, 0.0))) / square
    normal = Vector(
        (from_centre.x + t * direction.x) / radius,
        (from_centre.y + t * direction.y) / radius,
        (from_centre.z + t * direction.z) / radius,
    )
    return np.where((inside_root > 0) & (t > TINY), t, NEVER), light_on(normal, frame)


def meet_round(
    origin: Vector, direction: Vector, radius: float, top_radius: float, height: float, frame: Frame
) -> Met:
    """Meet the solid between two discs around the z axis: a cylinder, or a cone if the upper radius is 0."""
    narrowing = (top_radius - radius) / height
    # The mantle's radius at the height of a ray's point is own + t * step.
    own = radius + narrowing * origin.z
    step = narrowing * direction.z
    square = away_from_zero(direction.x * direction.x + direction.y * direction.y - step * step)
    half = origin.x * direction.x + origin.y * direction.y - own * step
    inside_root = half * half - square * (origin.x * origin.x + origin.y * origin.y - own * own)
    root = np.sqrt(np.maximum(inside_root, 0.0))
    first = np.full(direction.x.shape, NEVER)
    for t in ((-half - root) / square, (-half + root) / square):
        z = origin.z + t * direction.z
        met = (inside_root > 0) & (z >= 0.0) & (z <= height) & (t > TINY) & (t < first)
        first = np.where(met, t, first)
    reached = np.where(first < NEVER, first, 0.0)
    x, y = origin.x + reached * direction.x, origin.y + reached * direction.y
    slant = math.sqrt(1.0 + narrowing * narrowing)
    length = slant * np.maximum(np.sqrt(x * x + y * y), TINY)
    light = light_on(Vector(x / length, y / length, -narrowing / slant), frame)
    for z, disc_radius, upwards in ((0.0, radius, -1.0), (height, top_radius, 1.0)):
        t = (z - origin.z) / away_from_zero(direction.z)
        x, y = origin.x + t * direction.x, origin.y + t * direction.y
        met = (x * x + y * y <= disc_radius * disc_radius) & (t > TINY) & (t < first)
        first = np.where(met, t, first)
        light = np.where(met, light_on(Vector(0.0, 0.0, upwards), frame), light)
    return first, light


def meet_object(origin: Vector, direction: Vector, shape: int, size: int, frame: Frame) -> Met:
    """Meet an object of the data set."""
    radius, height = (length * (1.0 if size else SMALL) for length in OBJECTS[shape])
    if shape == CONE:
        return meet_round(origin, direction, radius, 0.0, height, frame)
    if shape == CYLINDER:
        return meet_round(origin, direction, radius, radius, height, frame)
    if shape == SPHERE:
        return meet_sphere(origin, direction, radius, frame)
    if shape == PYRAMID:
        return meet_planes(origin, direction, pyramid_planes(radius, height), frame)
    sides = SQUARE_SIDES if shape == CUBE else HEXAGON_SIDES
    return meet_planes(origin, direction, prism_planes(sides, radius, height), frame)


def object_reach(shape: int, size: int) -> tuple[float, float]:
    """Return half an object's height, and the radius of the sphere around its middle that holds all of it."""
    radius, height = OBJECTS[shape]
    corner = radius * 1.4143 if shape in (CUBE, PYRAMID) else radius * 1.1548  # of a square, of a hexagon
    scale = 1.0 if size else SMALL
    return scale * height / 2, scale * math.sqrt(corner * corner + height * height / 4)


# Pictures


class Scene:
    """What the samples of one camera show so far: how deep, and how grey (0 where nothing but background)."""

    def __init__(self, camera: int, rays: Vector, depth: np.ndarray, grey: np.ndarray):
        self.camera, self.rays, self.depth, self.grey = camera, rays, depth, grey

    @classmethod
    def empty(cls, camera: int) -> Scene:
        rays = camera_rays(camera)
        return cls(camera, rays, np.full(rays.x.shape, NEVER), np.zeros(rays.x.shape))

    def copy(self) -> Scene:
        return Scene(self.camera, self.rays, self.depth.copy(), self.grey.copy())

    def local_rays(self, window: Window, frame: Frame) -> tuple[Vector, Vector]:
        """Return origin and directions of the window's rays in the frame's coordinates."""
        samples = window.samples()
        origin = minus(camera_position(self.camera), frame.origin)
        return within(frame, origin), within(frame, Vector(*(part[samples] for part in self.rays)))

    def add(self, window: Window, t: np.ndarray, grey: np.ndarray) -> None:
        """Draw what is nearer than what was drawn before."""
        samples = window.samples()
        nearer = t < self.depth[samples]
        self.depth[samples] = np.where(nearer, t, self.depth[samples])
        self.grey[samples] = np.where(nearer, grey, self.grey[samples])

    def add_box(self, window: Window, box, frame: Frame, ambient: float, strength: float, slope: float = 0.0):
        origin, direction = self.local_rays(window, frame)
        t, light = meet_planes(origin, direction, box_planes(box), frame)
        grey = ambient + strength * light
        if slope:
            height = origin.z + np.where(t < NEVER, t, 0.0) * direction.z
            grey = grey + slope * (height - POST_MIDDLE)
        self.add(window, t, grey)


def add_standing_parts(scene: Scene, robot: Frame) -> None:
    """Draw the parts that the horizontal axis does not move: foot, post, fin and head."""
    ground, top = Vector(0.0, 0.0, 0.0), Vector(0.0, 0.0, HEAD[2][1])
    window = window_around(scene.camera, [ground], FOOT_RADIUS * 1.1)
    origin, direction = scene.local_rays(window, robot)
    t = (FOOT_HEIGHT - origin.z) / direction.z
    x, y = origin.x + t * direction.x, origin.y + t * direction.y
    square = x * x + y * y
    hole = np.where(y < PLATE_EDGE, PLATE_GREY, HOLE_GREY)
    grey = np.where(square > FOOT_HOLE * FOOT_HOLE, FOOT_GREY, hole)
    scene.add(window, np.where(square < FOOT_RADIUS * FOOT_RADIUS, t, NEVER), grey)
    window = window_around(scene.camera, [ground, top], 0.12)  # the longest way from the axis to a corner
    scene.add_box(window, POST, robot, POST_AMBIENT, POST_STRENGTH, POST_SLOPE)
    scene.add_box(window, HEAD, robot, HEAD_AMBIENT, HEAD_STRENGTH)
    scene.add_box(window, FIN, robot, FIN_AMBIENT, FIN_STRENGTH)


def add_arm(scene: Scene, bracket: Frame, rod: Frame) -> None:
    """Draw the parts that swing: bracket and rod."""
    window = window_around(scene.camera, [bracket.origin], 0.21)  # to the bracket's furthest corner
    scene.add_box(window, BRACKET, bracket, BRACKET_AMBIENT, BRACKET_STRENGTH)
    end = beyond(rod.origin, ROD_LENGTH, rod.z)
    window = window_around(scene.camera, [rod.origin, end], ROD_RADIUS * 1.2)
    origin, direction = scene.local_rays(window, rod)
    t, light = meet_round(origin, direction, ROD_RADIUS, ROD_RADIUS, ROD_LENGTH, rod)
    scene.add(window, t, ROD_AMBIENT + ROD_STRENGTH * light)


def pooled(samples: np.ndarray) -> np.ndarray:
    """Return the sum of every pixel's samples, added in a fixed order."""
    rows = samples[0::SUPERSAMPLE] + 0.0
    for row in range(1, SUPERSAMPLE):
        rows += samples[row::SUPERSAMPLE]
    total = rows[:, 0::SUPERSAMPLE] + 0.0
    for column in range(1, SUPERSAMPLE):
        total += rows[:, column::SUPERSAMPLE]
    return total


def as_bytes(light: np.ndarray, unit: float) -> np.ndarray:
    """Return sums of a pixel's samples as rounded bytes, in units of 1 / unit of their mean."""
    return np.floor(light * (unit / SUPERSAMPLE**2) + 0.5).astype(np.uint8)


def draw_object(layers: np.ndarray, scene: Scene, crop: Window, frame: Frame, shape: int, size: int) -> None:
    """Draw one object over its pose.

    layers: uint8 [3, CROP, CROP], filled with the crop of the pose without its object (BACKGROUND and GREY)
    and 0 (OBJECT).
    """
    middle, radius = object_reach(shape, size)
    around = window_around(scene.camera, [beyond(frame.origin, middle, frame.z)], radius)
    window = Window(
        max(around.top, crop.top),
        min(around.bottom, crop.bottom),
        max(around.left, crop.left),
        min(around.right, crop.right),
    )
    if window.top >= window.bottom or window.left >= window.right:
        return
    origin, direction = scene.local_rays(window, frame)
    t, light = meet_object(origin, direction, shape, size, frame)
    depth, grey = scene.depth[window.samples()], scene.grey[window.samples()]
    seen = t < depth
    shade = np.minimum(np.maximum(OBJECT_AMBIENT + light, 0.0), 1.0)
    part = layers[
        :,
        window.top - crop.top : window.bottom - crop.top,
        window.left - crop.left : window.right - crop.left,
    ]
    part[BACKGROUND] = as_bytes(pooled(~seen & (depth == NEVER)), UNIT)
    part[GREY] = as_bytes(pooled(np.where(seen, 0.0, grey)), 1)
    part[OBJECT] = as_bytes(pooled(np.where(seen, shade, 0.0)), UNIT)


def draw_pose(pose: np.ndarray, standing: Scene, horizontal: int, vertical: int) -> None:
    """Draw one pose and its twelve objects.

    pose: uint8 [POSE_BYTES]. standing: the scene with the parts that the horizontal axis does not move.
    """
    _, bracket, rod = robot_frames(horizontal, vertical)
    scene = standing.copy()
    add_arm(scene, bracket, rod)
    robot, crops = split_pose(pose)
    robot[BACKGROUND] = as_bytes(pooled(scene.depth == NEVER), UNIT).ravel()
    robot[GREY] = as_bytes(pooled(scene.grey), 1).ravel()
    crop = crop_window(standing.camera, horizontal, vertical)
    empty = robot.reshape(2, IMAGE_SIZE, IMAGE_SIZE)[:, crop.top : crop.bottom, crop.left : crop.right]
    frame = object_frame(rod)
    for shape in range(NUM_SHAPES):
        for size in range(NUM_SIZES):
            layers = crops[shape * NUM_SIZES + size].reshape(3, CROP, CROP)
            layers[:OBJECT], layers[OBJECT] = empty, 0
            draw_object(layers, scene, crop, frame, shape, size)


def split_pose(pose):
    """Return views of poses [..., POSE_BYTES], arrays or tensors: the robot's layers [..., 2, PIXELS] and the
    crops [..., NUM_OBJECTS, 3, CROP * CROP]."""
    robot, crops = pose[..., : 2 * PIXELS], pose[..., 2 * PIXELS :]
    rows = pose.shape[:-1]
    return robot.reshape(*rows, 2, PIXELS), crops.reshape(*rows, NUM_OBJECTS, 3, CROP * CROP)


def pose_index(camera, horizontal, vertical):
    """Return the index of a pose among the rows, for numbers, arrays or tensors alike."""
    return (camera * NUM_STEPS + horizontal) * NUM_STEPS + vertical


def draw_poses(poses: np.ndarray, report: Callable[[int], None] = lambda done: None) -> None:
    """Draw all poses into uint8 [NUM_POSES, POSE_BYTES], in about a minute.

    report: called with the number of poses drawn so far.
    """
    done = 0
    for camera in range(NUM_CAMERAS):
        empty = Scene.empty(camera)
        for vertical in range(NUM_STEPS):
            standing = empty.copy()
            add_standing_parts(standing, robot_frames(0, vertical)[0])
            for horizontal in range(NUM_STEPS):
                draw_pose(poses[pose_index(camera, horizontal, vertical)], standing, horizontal, vertical)
                done += 1
            report(done)


def draw_backgrounds() -> np.ndarray:
    """Draw floor and ring: uint8 [NUM_CAMERAS, NUM_BACKGROUNDS, 3, PIXELS]."""
    backgrounds = np.empty((NUM_CAMERAS, NUM_BACKGROUNDS, 3, PIXELS), np.uint8)
    # The next part of the ring lies beyond a line through the ring's middle, on the left.
    cosine, sine = cosine_sine(RING_PART_END)
    for camera in range(NUM_CAMERAS):
        origin, direction = camera_position(camera), camera_rays(camera)
        # A camera that looked above the horizon would meet the floor behind itself; none of the three does.
        t = -origin.z / direction.z
        x, y = origin.x + t * direction.x, origin.y + t * direction.y
        from_x, from_y = x - RING_X, y - RING_Y
        square = from_x * from_x + from_y * from_y
        on_ring = (square > RING_INNER * RING_INNER) & (square < RING_OUTER * RING_OUTER)
        next_part = (from_x < 0) & (from_x * sine < from_y * cosine)
        to_lamp = Vector(LAMP_X - x, LAMP_Y - y, LAMP_Z)
        light = RING_AMBIENT + RING_LAMP * LAMP_Z / np.sqrt(dot(to_lamp, to_lamp))
        for colour in range(NUM_BACKGROUNDS):
            for channel in range(3):
                own, following = RING_COLOURS[colour][channel], RING_COLOURS[colour + 1][channel]
                shown = np.where(on_ring, light * np.where(next_part, following, own), FLOOR_GREY)
                backgrounds[camera, colour, channel] = as_bytes(pooled(shown), 1).ravel()
    return backgrounds


def _shifts(crops: Tensor, value: int) -> Tensor:
    """Return all runs of IMAGE_SIZE bytes, as a view, in crops uint8 [B, CROP, CROP] with empty pixels around
    them: MARGIN columns on either side, and a row below, of this value."""
    return F.pad(crops, (MARGIN, MARGIN, 0, 1), value=value).flatten().unfold(0, IMAGE_SIZE, 1)


class Painter:
    """Puts objects into poses and paints them.

    poses : uint8 [NUM_POSES, POSE_BYTES] from `draw_poses`, on any device.
    """

    def __init__(self, poses: Tensor):
        device = poses.device
        self.poses = poses
        backgrounds = torch.from_numpy(draw_backgrounds()).to(device, torch.int16)
        self.backgrounds = backgrounds.view(NUM_CAMERAS * NUM_BACKGROUNDS, 3 * PIXELS)
        self.colours = torch.tensor(OBJECT_COLOURS, dtype=torch.int16, device=device)
        windows = [
            crop_window(camera, horizontal, vertical)
            for camera in range(NUM_CAMERAS)
            for horizontal in range(NUM_STEPS)
            for vertical in range(NUM_STEPS)
        ]
        # A row of the image is IMAGE_SIZE bytes of a crop with MARGIN empty columns on either side and an
        # empty row below. Where they begin decides the column in which the crop appears.
        rows = np.arange(IMAGE_SIZE) - np.array([[window.top] for window in windows])
        begin = rows * WIDTH + MARGIN - np.array([[window.left] for window in windows])
        begin = np.where((rows >= 0) & (rows < CROP), begin, CROP * WIDTH)
        self.begin = torch.from_numpy(begin).to(device)  # int64 [NUM_POSES, IMAGE_SIZE]
        crop = torch.zeros(1, CROP, CROP, dtype=torch.uint8, device=device)
        self.outside = _shifts(crop, value=1)

    def paint(self, factors: Tensor) -> Tensor:
        """Return images uint8 [B, 3, 64, 64] of factors int64 [B, 7] in the data set's order and on the
        poses' device.

        Whole-number arithmetic: the bytes do not depend on the device. No sum exceeds 128 * 255 + 64 by the
        layers' rounding, because only a pixel that shows nothing but a bright object comes near it; int16
        holds it.
        """
        colour, shape, size, camera, background, horizontal, vertical = factors.unbind(1)
        pose = pose_index(camera, horizontal, vertical)
        # index_select copies whole rows, which was measured four times as fast as indexing by brackets.
        robot, crops = split_pose(self.poses.index_select(0, pose))
        number = torch.arange(len(factors), device=factors.device)
        crop = crops[number, shape * NUM_SIZES + size].view(-1, CROP, CROP)
        # Every row of the image looks up its bytes. If the crop were written into the image instead, a GPU in
        # deterministic mode would sort all pixels first, and wait for the host.
        begin = self.begin[pose]
        layer = 3 * number[:, None, None] + torch.arange(3, device=factors.device)[:, None]
        index = (begin[:, None] + layer * (CROP + 1) * WIDTH).flatten()
        layers = _shifts(crop, value=0).index_select(0, index).view(-1, 3, PIXELS)
        robot *= self.outside.index_select(0, begin.flatten()).view(-1, 1, PIXELS)
        layers[:, :OBJECT] += robot
        layers = layers.to(torch.int16)
        images = self.backgrounds.index_select(0, camera * NUM_BACKGROUNDS + background).view(-1, 3, PIXELS)
        images *= layers[:, BACKGROUND, None]
        images.addcmul_(layers[:, OBJECT, None], self.colours[colour][:, :, None])
        images += layers[:, GREY, None] * UNIT + UNIT // 2
        # Divided by UNIT: torch shifts many numbers at once, but divides one.
        images >>= UNIT.bit_length() - 1
        return images.to(torch.uint8).view(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
