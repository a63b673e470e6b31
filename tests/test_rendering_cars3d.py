"""The drawn cars: against a plain ray caster, their geometry, and their bytes."""

import hashlib
import math

import numpy as np
import pytest

from dislab.rendering import cars3d as renderer

# VERSION and sha256 of a sample of drawn images. The bytes are the same on every machine.
PINNED = (1, "4d9b94cd5ff23627b4d1d56fad8be7eb4b33a20ba5deb1eeebd91baf27f1cbdd")


@pytest.fixture(scope="module")
def drawn() -> dict[int, np.ndarray]:
    """A pickup and a convertible, the two styles that are not just a body with a cabin on it."""
    return {car: renderer.draw_car(car) for car in (4, 7)}


def cast(car: int, elevation: int, azimuth: int) -> np.ndarray:
    """One image [64, 64, 3] the plain way: each ray is cut with all half-spaces of all pieces, in metres."""
    style = renderer.design(car)[0]
    turn, rise = math.tau * azimuth / 24, math.radians(renderer.ELEVATIONS[elevation])
    back = np.array([math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), math.sin(rise)])
    right = np.array([-math.sin(turn), math.cos(turn), 0.0])
    up = np.cross(back, right)
    camera = np.array([0.0, 0.0, style.height / 2]) + renderer.CAMERA_DISTANCE * back
    position = (np.arange(128) + 0.5) / 2 - 32
    focal = renderer.FOCAL_LENGTH * math.sqrt(renderer.USUAL_LENGTH / style.length)
    rays = -back + (position[None, :, None] * right - position[:, None, None] * up) / focal
    nearest = np.full((128, 128), np.inf)
    colour = np.full((128, 128, 3), 255, np.uint8)
    for item in renderer.build(car):
        enter, leave, face = (
            np.full((128, 128), -np.inf),
            np.full((128, 128), np.inf),
            np.zeros((128, 128), int),
        )
        for number, plane in enumerate(item.planes):
            slope = rays @ plane[:3]
            reached = (plane[3] - camera @ plane[:3]) / slope
            later = (slope < 0) & (reached > enter)
            enter[later], face[later] = reached[later], number
            leave = np.where(slope > 0, np.minimum(leave, reached), leave)
        seen = (enter < leave) & (enter < nearest)
        nearest[seen] = enter[seen]
        shades = renderer.shades(item.planes, [item.paint] * len(item.planes))[azimuth]
        colour[seen] = shades[face[seen]]
    return np.floor(colour.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3)) + 0.5)


# Both halves of the circle, as one is drawn from the other's geometry.
@pytest.mark.parametrize(
    ("elevation", "azimuth"), [(0, 0), (1, 2), (2, 7), (3, 10), (0, 12), (1, 15), (3, 22)]
)
def test_drawing_equals_a_plain_ray_caster(elevation, azimuth, drawn):
    for car, images in drawn.items():
        differs = (cast(car, elevation, azimuth) != images[elevation, azimuth]).any(axis=2)
        # A ray along an edge may fall on either side of it.
        assert differs.sum() <= 8


def test_shades_equal_the_formula():
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((30, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    paint = renderer.Paint(200, 90, 30, 0.3)
    table = renderer.shades(np.column_stack([normals, np.zeros(30)]), [paint] * 30)
    assert (table[:, -1] == 255).all()
    for azimuth in (0, 5, 18):
        turn = math.tau * azimuth / 24
        right = np.array([-math.sin(turn), math.cos(turn), 0])
        towards = np.array([math.cos(turn), math.sin(turn), 0])
        for normal, found in zip(normals, table[azimuth], strict=False):
            seen = np.array([normal @ right, normal @ towards, normal[2]])
            above = max(seen[2], 0)
            light = 0.44 + 0.5 * max(seen @ renderer.LAMP, 0) + 0.12 * above
            white = 255 * 0.3 * (0.55 * max(seen @ renderer.HALF_WAY, 0) ** 8 + 0.25 * above)
            expected = np.minimum(np.array([200, 90, 30]) * light + white, 255)
            np.testing.assert_allclose(found, expected, atol=0.51)


def test_pieces_are_their_half_spaces():
    paint = renderer.PAINTS[0]
    cube = renderer.box((0, 1), (0, 1), (0, 1))
    item = renderer.piece(paint, cube)
    assert {tuple(np.round(corner, 9)) for corner in item.corners} == set(np.ndindex(2, 2, 2))
    # A corner cut off makes three new corners; a plane that misses the cube is dropped.
    cut = renderer.half_space(1.0, 1.0, 1.0, (0.5, 1.0, 1.0))
    missed = renderer.half_space(1.0, 1.0, 1.0, (2.0, 2.0, 2.0))
    item = renderer.piece(paint, [*cube, cut, missed])
    assert len(item.planes) == 7
    corners = {tuple(np.round(corner, 9)) for corner in item.corners}
    assert corners == set(np.ndindex(2, 2, 2)) - {(1, 1, 1)} | {(0.5, 1, 1), (1, 0.5, 1), (1, 1, 0.5)}
    assert renderer.piece(paint, [*cube, renderer.below(0, -1.0)]) is None
    # The hull of a profile leaves the inner point out.
    triangle = renderer.profile([(0.0, 0.0), (4.0, 0.0), (0.0, 4.0), (1.0, 1.0)])
    assert len(triangle) == 3
    for x, z, within in ((1, 1, True), (2.1, 2.1, False), (-0.1, 1, False), (1, -0.1, False)):
        assert all(a * x + c * z <= d for a, _, c, d in triangle) == within


@pytest.fixture(scope="module")
def built() -> dict[int, list]:
    """The pieces of every fifth car: all thirteen styles."""
    return {car: renderer.build(car) for car in range(0, 183, 5)}


def test_cars_are_their_own_mirror_image(built):
    """Or else the second half of the circle would show another car."""
    for car, pieces in built.items():
        sides = []
        for sign in (1.0, -1.0):
            planes = [np.round(item.planes * (1, sign, 1, 1), 6) + 0.0 for item in pieces]
            sides.append(
                sorted(
                    (item.paint, sorted(map(tuple, each))) for item, each in zip(pieces, planes, strict=True)
                )
            )
        assert sides[0] == sides[1], car


def test_every_car_has_its_own_style_and_paint():
    designs = [renderer.design(car) for car in range(183)]
    assert len({(style.name, paint) for style, paint in designs}) == 183
    assert len({style[1:] for style, _ in designs}) == 183
    colours = np.array([paint[:3] for paint in renderer.PAINTS])
    apart = np.abs(colours[:, None] - colours[None]).max(axis=2)
    assert (apart[~np.eye(len(colours), dtype=bool)] > 25).all()
    with pytest.raises(ValueError, match="0 to 182"):
        renderer.draw_car(183)


def test_cars_stand_on_the_ground_within_the_image(built):
    for car, pieces in built.items():
        style = renderer.design(car)[0]
        corners = np.concatenate([item.corners for item in pieces])
        assert abs(corners[:, 2].min()) < 0.01
        # Seen from anywhere, a corner is at most this far off the middle, in pixels.
        radius = np.hypot(corners[:, 0], corners[:, 1])
        focal = renderer.FOCAL_LENGTH * math.sqrt(renderer.USUAL_LENGTH / style.length)
        for azimuth in range(24):
            c, s = math.cos(math.tau * azimuth / 24), math.sin(math.tau * azimuth / 24)
            level = math.cos(math.radians(renderer.ELEVATIONS[0]))
            depth = renderer.CAMERA_DISTANCE - (c * corners[:, 0] + s * corners[:, 1]) * level - 0.1
            across = focal * (c * corners[:, 1] - s * corners[:, 0]) / depth
            assert np.abs(across).max() < 31.5, (car, style.name)
        assert radius.max() < 3.2


def test_every_step_changes_the_image(drawn):
    for images in drawn.values():
        border = np.ones((64, 64), bool)
        border[1:-1, 1:-1] = False
        assert (images[:, :, border] == 255).all()
        values = images.astype(int)
        for axis in (0, 1):
            steps = values - np.roll(values, 1, axis)
            changed = (np.abs(steps).max(axis=-1) > 20).sum(axis=(-1, -2))
            assert changed.min() >= 100


def test_front_rear_wheels_and_windows_are_where_they_belong(drawn):
    images = drawn[4].astype(int)  # a red pickup; at azimuth 0 its front, at 6 its left side
    side = images[0, 6]
    dark = (side.max(axis=2) < 70) & (np.arange(64)[:, None] > 36)
    columns = np.flatnonzero(dark.sum(axis=0) >= 3)
    assert columns.min() < 18 and columns.max() > 46, "a wheel under either end"
    assert not dark[40:, 28:34].any(), "and none between them"
    bluish = (side[..., 2] > side[..., 0] + 20).sum()
    assert bluish > 60, "panes"
    front, rear = drawn[7].astype(int)[0, [0, 12]]  # a dark grey convertible
    reddish = [(image[..., 0] > image[..., 1] + 90).sum() for image in (front, rear)]
    assert reddish[0] == 0 and reddish[1] >= 10, "rear lamps"
    bright = [((image.min(axis=2) > 190) & (image.min(axis=2) < 250)).sum() for image in (front, rear)]
    assert bright[0] >= bright[1] + 10, "head lamps"
    # From higher up the level bed and roof are seen: the car covers more rows from the front.
    covered = [(images[elevation, 0].min(axis=2) < 250).any(axis=1).sum() for elevation in range(4)]
    assert covered == sorted(covered) and covered[3] > covered[0] + 5


def test_a_version_is_one_drawing(drawn):
    images = [*drawn.values(), renderer.draw_car(90), renderer.draw_car(182)]
    digest = hashlib.sha256(np.stack(images).tobytes()).hexdigest()
    assert (renderer.VERSION, digest) == PINNED, "bump VERSION if the change of the drawing is meant"
