"""The drawn twin of MPI3D toy: its grid, its geometry, its bytes, and its likeness to the official frames."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

import dislab
from dislab.data.space import FactorSpace
from dislab.datasets import mpi3d
from dislab.rendering import mpi3d as renderer

OFFICIAL_SIZES = (6, 6, 2, 3, 3, 40, 40)
# VERSION and sha256 of a sample of drawn images. The bytes are the same on every machine.
PINNED = (1, "b2310df378fc512e831d15b51e1a7d027ebf957c7866291ebc3061a9f1edc668")


@pytest.fixture(scope="module")
def painted():
    """A function from factors [B, 7] to images float64 [B, 64, 64, 3]: it draws only what it needs."""
    # The untouched rows of so large an array take no memory.
    poses = np.zeros((renderer.NUM_POSES, renderer.POSE_BYTES), np.uint8)
    painter = renderer.Painter(torch.from_numpy(poses))
    scenes, drawn = {}, defaultdict(set)  # the objects of each pose
    draw_object = renderer.draw_object

    def paint(factors) -> np.ndarray:
        factors = np.asarray(factors)
        wanted = defaultdict(set)
        for row in factors.tolist():
            wanted[row[3], row[5], row[6]].add((row[1], row[2]))
        for (camera, horizontal, vertical), objects in wanted.items():
            if objects <= drawn[camera, horizontal, vertical]:
                continue
            drawn[camera, horizontal, vertical] |= objects
            if (camera, vertical) not in scenes:
                scene = renderer.Scene.empty(camera)
                renderer.add_standing_parts(scene, renderer.robot_frames(0, vertical)[0])
                scenes[camera, vertical] = scene
            row = poses[renderer.pose_index(camera, horizontal, vertical)]
            with pytest.MonkeyPatch.context() as patch:
                chosen = drawn[camera, horizontal, vertical]
                patch.setattr(
                    renderer,
                    "draw_object",
                    lambda *given, chosen=chosen: given[-2:] in chosen and draw_object(*given),
                )
                renderer.draw_pose(row, scenes[camera, vertical], horizontal, vertical)
        images = painter.paint(torch.from_numpy(factors))
        assert images.dtype == torch.uint8
        return images.permute(0, 2, 3, 1).numpy().astype(np.float64)

    paint.poses = poses
    return paint


def test_the_drawn_dataset_is_the_grid(tmp_path, monkeypatch):
    """All poses take a minute: here the robot has two steps per axis."""
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(renderer, "NUM_STEPS", 2)
    monkeypatch.setattr(renderer, "NUM_POSES", 12)
    space = FactorSpace(mpi3d.SPACE.names, (6, 6, 2, 3, 3, 2, 2))
    monkeypatch.setattr(mpi3d, "SPACE", space)
    dataset = dislab.load_dataset("mpi3d_toy", source="rendered")
    assert (dataset.name, dataset.source, len(dataset)) == ("mpi3d_toy", "rendered", 2592)
    assert dataset.renderer == renderer.VERSION
    made = list(tmp_path.glob("mpi3d_toy-rendered-*.npy"))
    assert len(made) == 1
    rows = np.random.default_rng(0).integers(0, len(space), 60)
    images = dataset.images(rows).numpy()
    assert images.shape == (60, 3, 64, 64)
    # Independently of the painter: whole-number arithmetic of unlimited width, on the bytes as documented.
    robots, crops = renderer.split_pose(np.load(made[0]))
    backgrounds = renderer.draw_backgrounds().astype(np.int64).reshape(3, 3, 3, 64, 64)
    for row, image in zip(rows, images, strict=True):
        colour, shape, size, camera, background, horizontal, vertical = np.unravel_index(row, space.sizes)
        pose = (camera * 2 + horizontal) * 2 + vertical
        window = renderer.crop_window(camera, horizontal, vertical)
        layers = np.zeros((3, 64, 64), np.int64)
        layers[:2] = robots[pose].reshape(2, 64, 64)
        crop = crops[pose, shape * 2 + size].reshape(3, renderer.CROP, renderer.CROP)
        layers[:, window.top : window.bottom, window.left : window.right] = crop
        paint = np.array(renderer.OBJECT_COLOURS[colour])[:, None, None]
        total = layers[0] * backgrounds[camera, background] + layers[1] * 128 + layers[2] * paint + 64
        assert total.max() < 2**15
        np.testing.assert_array_equal(image, total // 128)


def test_a_crop_lies_in_its_window_and_nowhere_else():
    """Of random bytes, at the windows nearest to every border of the image and at some others."""
    rng = np.random.default_rng(0)
    poses = np.zeros((renderer.NUM_POSES, renderer.POSE_BYTES), np.uint8)
    painter = renderer.Painter(torch.from_numpy(poses))
    grid = list(np.ndindex(3, 40, 40))
    windows = [renderer.crop_window(*pose) for pose in grid]
    ends = [select(range(4800), key=lambda i: windows[i][side]) for side in (0, 2) for select in (min, max)]
    assert len(set(ends)) == 4 and windows[ends[0]].top == 0
    for index in [*ends, *rng.choice(4800, 50)]:
        poses[index] = rng.integers(0, 40, renderer.POSE_BYTES)  # no sum needs more than 15 bits
        (camera, horizontal, vertical), window = grid[index], windows[index]
        shape, size, colour, background = rng.integers((6, 2, 6, 3))
        factors = torch.tensor([[colour, shape, size, camera, background, horizontal, vertical]])
        image = painter.paint(factors.repeat(2, 1))[1].numpy()
        robot, crops = renderer.split_pose(poses[index].astype(int))
        layers = np.zeros((3, 64, 64), int)
        layers[:2] = robot.reshape(2, 64, 64)
        crop = crops[shape * 2 + size].reshape(3, renderer.CROP, renderer.CROP)
        layers[:, window.top : window.bottom, window.left : window.right] = crop
        behind = painter.backgrounds[camera * 3 + background].view(3, 64, 64).numpy().astype(int)
        paint = np.array(renderer.OBJECT_COLOURS[colour])[:, None, None]
        total = layers[0] * behind + layers[1] * 128 + layers[2] * paint + 64
        np.testing.assert_array_equal(image, total // 128)


def test_every_step_of_every_factor_changes_the_image(painted):
    for base_factors in ((2, 3, 1, 1, 0, 30, 12), (4, 5, 0, 2, 2, 7, 33)):
        for factor, size in enumerate(OFFICIAL_SIZES):
            factors = np.tile(base_factors, (size, 1))
            factors[:, factor] = np.arange(size)
            images = painted(factors)
            changed = (np.abs(np.diff(images, axis=0)).max(axis=3) > 8).sum(axis=(1, 2))  # pixels per step
            assert (changed >= 8).all(), (factor, changed)
            assert len({image.tobytes() for image in images}) == size


def test_the_whole_pose_is_in_the_crop(painted):
    """No object reaches its crop's border, but where that is the image's border; none is hidden."""
    poses = [(c, h, v) for c in range(3) for h in (0, 8, 20, 39) for v in (0, 13, 26, 39)]
    painted([(0, *each, c, 0, h, v) for c, h, v in poses for each in np.ndindex(6, 2)])
    _, crops = renderer.split_pose(painted.poses)
    for camera, horizontal, vertical in poses:
        window = renderer.crop_window(camera, horizontal, vertical)
        pose = renderer.pose_index(camera, horizontal, vertical)
        light = crops[pose].reshape(12, 3, renderer.CROP, renderer.CROP)[:, renderer.OBJECT]
        assert ((light > 0).sum(axis=(1, 2)) >= 12).all()
        assert window.top == 0 or not light[:, 0].any()
        assert window.left == 0 or not light[:, :, 0].any()
        assert window.bottom == 64 or not light[:, -1].any()
        assert window.right == 64 or not light[:, :, -1].any()


def test_the_object_shows_its_colour_at_the_end_of_the_arm(painted):
    for shape in range(6):
        for camera, horizontal, vertical in ((0, 12, 30), (1, 5, 35), (2, 28, 5)):
            frame = renderer.object_frame(renderer.robot_frames(horizontal, vertical)[2])
            middle = renderer.beyond(frame.origin, renderer.object_reach(shape, 1)[0], frame.z)
            row, column, _ = renderer.project(camera, middle)
            factors = [(colour, shape, 1, camera, 0, horizontal, vertical) for colour in range(6)]
            pixels = painted(factors)[:, int(row), int(column)]
            for pixel, colour in zip(pixels, renderer.OBJECT_COLOURS, strict=True):
                shade = pixel.max() / max(colour)
                assert 0.1 < shade <= 1
                np.testing.assert_allclose(pixel, np.array(colour) * shade, atol=1.1)


def test_larger_objects_cover_more_pixels(painted):
    painted([(0, *each, 1, 0, 10, 30) for each in np.ndindex(6, 2)])
    _, crops = renderer.split_pose(painted.poses[renderer.pose_index(1, 10, 30)])
    pixels = (crops.reshape(6, 2, 3, -1)[:, :, renderer.OBJECT] > 0).sum(axis=2)
    assert (pixels[:, 1] > 1.4 * pixels[:, 0]).all()


@pytest.mark.parametrize("background", range(3))
def test_the_ring_shows_the_background_colour(background):
    image = renderer.draw_backgrounds()[1, background].reshape(3, 64, 64).astype(float)
    assert (image[:, 0, 0] == 52).all()  # the floor
    assert (image[:, 60, 30] == 52).all()
    ring = image[:, 20, 32]
    assert np.abs(ring - 52).max() > 20
    colour = np.array(renderer.RING_COLOURS[background])
    np.testing.assert_allclose(ring / ring.max(), colour / colour.max(), atol=0.01)


def inside(shape: int, radius: float, height: float, x, y, z) -> np.ndarray:
    """Whether points lie in an object, by its definition."""
    if shape == renderer.SPHERE:
        return x * x + y * y + (z - radius) ** 2 <= radius**2
    level = (z >= 0) & (z <= height)
    if shape == renderer.CYLINDER:
        return level & (x * x + y * y <= radius**2)
    if shape == renderer.CONE:
        return level & (np.hypot(x, y) <= radius * (1 - z / height))
    square = np.maximum(np.abs(x), np.abs(y))
    if shape == renderer.PYRAMID:
        return level & (square <= radius * (1 - z / height))
    if shape == renderer.CUBE:
        return level & (square <= radius)
    angle = np.arctan2(y, x)
    to_side = angle - np.round(angle / (np.pi / 3)) * np.pi / 3  # from the nearest side's normal
    return level & (np.hypot(x, y) * np.cos(to_side) <= radius)


@pytest.mark.parametrize("shape", range(6))
@pytest.mark.parametrize("size", range(2))
def test_rays_meet_objects_where_a_walk_along_them_does(shape, size):
    rng = np.random.default_rng(shape)
    radius, height = (length * (1 if size else renderer.SMALL) for length in renderer.OBJECTS[shape])
    origin = rng.normal(size=3)
    origin *= 2 / np.linalg.norm(origin)
    targets = rng.uniform(-1.5 * radius, 1.5 * radius, (200, 3)) + np.array([0, 0, height / 2])
    steps = targets - origin
    frame = renderer.Frame(
        renderer.Vector(0.0, 0.0, 0.0),
        renderer.Vector(1.0, 0.0, 0.0),
        renderer.Vector(0.0, 1.0, 0.0),
        renderer.Vector(0.0, 0.0, 1.0),
    )
    met, light = renderer.meet_object(
        renderer.Vector(*origin.tolist()), renderer.Vector(*steps.T), shape, size, frame
    )
    t = np.linspace(0.5, 1.5, 4001)
    points = origin[:, None, None] + steps.T[:, :, None] * t
    lit = inside(shape, radius, height, *points)
    walked = np.where(lit.any(axis=1), t[lit.argmax(axis=1)], np.inf)
    both = np.isfinite(met) & np.isfinite(walked)
    assert both.sum() > 40
    # A walk may step over a corner that a ray just grazes.
    assert (np.isfinite(met) != np.isfinite(walked)).sum() <= 2
    np.testing.assert_allclose(met[both], walked[both], atol=3e-4)
    assert (light[both] >= 0).all()
    assert light[both].std() > 0.01


def test_light_falls_on_the_side_that_faces_it():
    level = renderer.Frame(*(renderer.Vector(*row) for row in np.vstack([np.zeros(3), np.eye(3)]).tolist()))
    for light in renderer.LIGHTS:
        towards = np.array(light) / np.linalg.norm(light)
        other = sum(max(np.dot(towards, one), 0) for one in renderer.LIGHTS)
        assert renderer.light_on(renderer.Vector(*towards.tolist()), level) == pytest.approx(other)
    assert renderer.light_on(renderer.Vector(0.0, 0.0, -1.0), level) == 0


def test_a_version_is_one_drawing(painted):
    poses = [(camera, axis, (7 * axis + camera) % 40) for camera in range(3) for axis in range(0, 40, 5)]
    objects = [(shape, size) for shape in range(6) for size in range(2)]
    factors = [
        ((shape + axis) % 6, shape, size, camera, (shape + size) % 3, axis, vertical)
        for camera, axis, vertical in poses
        for shape, size in objects
    ]
    digest = hashlib.sha256(painted(factors).astype(np.uint8).tobytes()).hexdigest()
    assert (renderer.VERSION, digest) == PINNED, "bump VERSION if the change of the drawing is meant"


def walked_values(start: int, size: int, frames: int = 20) -> list[int]:
    """The values of a factor in an animation: up to its last, down to its first, up to where it began."""
    values = []
    for frame in range(frames):
        step = int(np.ceil(start + 2 * size * frame / frames)) % (2 * size)  # of the way up and down
        values.append(step if step < size else 2 * size - 1 - step)
    return values


def official_panels() -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Factors and pixels [64, 64, 3] of the 280 panels: per animation, 7 panels (one factor each) x 20."""
    if "DISLAB_DATA" not in os.environ:
        pytest.skip("DISLAB_DATA is not set, so the official frames cannot be found")
    folder = Path(os.environ["DISLAB_DATA"]).parent / "reference"
    # The factors at which the two animations begin: the colours, sizes and so on are seen, the axes' values
    # follow from where the arm turns round.
    starts = {"mpi3d_toy1.gif": (3, 4, 1, 1, 1, 22, 21), "mpi3d_toy2.gif": (2, 2, 0, 0, 0, 39, 27)}
    if not all((folder / name).is_file() for name in starts):
        pytest.skip(f"no official frames in {folder}")
    pillow = pytest.importorskip("PIL.Image", reason="Pillow reads the official frames")
    panels = []
    for name, start in starts.items():
        with pillow.open(folder / name) as animation:
            for frame in range(animation.n_frames):
                animation.seek(frame)
                sheet = np.asarray(animation.convert("RGB"), dtype=np.float64)
                for factor, size in enumerate(OFFICIAL_SIZES):
                    factors = list(start)
                    factors[factor] = walked_values(start[factor], size)[frame]
                    top, left = 6 + 74 * (factor // 4), 10 + 74 * (factor % 4)
                    panels.append((tuple(factors), sheet[top : top + 64, left : left + 64]))
    return panels


def test_likeness_to_the_official_frames(painted):
    panels = official_panels()
    images = painted([factors for factors, _ in panels])
    official = np.stack([panel for _, panel in panels])
    ratios = 10 * np.log10(255**2 / np.square(images - official).mean(axis=(1, 2, 3)))
    assert ratios.mean() > 34
    assert ratios.min() > 30.5
    # The empty scene already has 24 dB. The right factors must be found again: of a frame's two neighbours in
    # the sweep of an axis, none is as like it as the image of its own value, but for a few.
    nearest = []
    for axis in (5, 6):
        for factors, panel in panels[axis::7]:
            values = [max(factors[axis] - 3, 0), factors[axis], min(factors[axis] + 3, 39)]
            guesses = [(*factors[:axis], value, *factors[axis + 1 :]) for value in dict.fromkeys(values)]
            errors = np.square(painted(guesses) - panel).mean(axis=(1, 2, 3))
            nearest.append(guesses[errors.argmin()] == factors)
    assert np.mean(nearest) > 0.95
