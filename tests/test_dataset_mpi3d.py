"""MPI3D: official files mapped in place or refused clearly, and the drawn twin of its toy variant."""

import hashlib
import io
import os
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import dislab
from dislab.data import dataset as base
from dislab.data.space import FactorSpace
from dislab.datasets import mpi3d
from dislab.errors import DislabError, RunFailed
from dislab.rendering import mpi3d as renderer

OFFICIAL_SIZES = (6, 6, 2, 3, 3, 40, 40)
# sha256 of the pose (camera 1, horizontal axis 12, vertical axis 30) with its twelve objects. A change of the
# drawing changes it, a change of machine must not.
POSE_DIGEST = "95bfc3ecb1347e62d382fa77e0c05ccb5f921d69a20b7e2a4e979a7174730714"
BACKGROUND_DIGEST = "7292cb3002d726ba375faa8878da4fda5ef7c92c3547188f0fb3173e6cc86ac9"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no official files but those that the test writes."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DISLAB_CACHE", str(folder))
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    return folder


@pytest.fixture
def space(monkeypatch) -> FactorSpace:
    """The factors of MPI3D with fewer values: 192 images."""
    space = FactorSpace(mpi3d.SPACE.names, (2, 2, 2, 2, 2, 2, 3))
    monkeypatch.setattr(mpi3d, "SPACE", space)
    monkeypatch.setattr(mpi3d, "CHUNK", 50)
    return space


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def assert_reads(dataset, images: np.ndarray) -> None:
    rows = np.random.default_rng(1).integers(0, len(images), 30)
    read = dataset.images(rows)
    assert read.shape == (30, 3, 64, 64)
    assert read.dtype == torch.uint8
    assert np.array_equal(read.permute(0, 2, 3, 1).numpy(), images[rows])


# Official files


def test_the_factor_space_is_the_official_one():
    assert mpi3d.SPACE.sizes == OFFICIAL_SIZES
    assert len(mpi3d.SPACE) == 1_036_800
    assert mpi3d.SPACE.rows([[0, 0, 0, 0, 0, 1, 2]])[0] == 42  # the last factor is the fastest


@pytest.mark.parametrize("name", ["mpi3d_toy", "mpi3d_realistic", "mpi3d_real"])
@pytest.mark.parametrize("folder", [".", "sub"])
def test_a_stored_array_is_mapped_from_the_file(name, folder, tmp_path, cache, space):
    images = random_images(len(space))
    place = tmp_path / (name if folder == "sub" else ".")
    place.mkdir(exist_ok=True)
    np.savez(place / f"{name}.npz", images=images)
    dataset = dislab.load_dataset(name, data_dir=tmp_path)
    assert (dataset.name, dataset.source, dataset.file) == (name, "official", place / f"{name}.npz")
    assert dataset.group_by == ["object_color"]
    assert_reads(dataset, images)
    assert not cache.exists(), "nothing is copied"
    assert isinstance(mpi3d.read_official(place / f"{name}.npz"), np.memmap)


def test_a_member_after_others_and_of_another_header_version_is_found(tmp_path, cache):
    array = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("first.npy", os.urandom(1000))
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, array, version=(2, 0))
        archive.writestr("last.npy", b"more")
    found = mpi3d.map_npz_member(tmp_path / "a.npz", "images", (5, 4, 3))
    assert np.array_equal(found, array)
    assert not found.flags.writeable


def write_sparse_official(path: Path, pixels: dict[int, int]) -> None:
    """A stored .npz of full official size, a hole but for the given images of one value each."""
    shape = (1_036_800, 64, 64, 3)
    image_bytes = 64 * 64 * 3
    header = str({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.ljust(117) + b"\n"
    size = len(header) + shape[0] * image_bytes
    sizes = struct.pack("<HHQQ", 1, 16, size, size)  # the ZIP64 field
    name = b"images.npy"
    common = struct.pack("<HHHHHIIIHH", 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    with path.open("wb") as file:
        file.write(b"PK\x03\x04" + common + name + sizes + header)
        start = file.tell()
        for row, value in pixels.items():
            file.seek(start + row * image_bytes)
            file.write(bytes([value]) * image_bytes)
        directory = start + shape[0] * image_bytes
        file.seek(directory)
        entry = b"PK\x01\x02" + struct.pack("<H", 45) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0)
        entry += name + sizes
        file.write(entry)
        file.write(b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, len(entry), directory))
        file.write(b"PK\x06\x07" + struct.pack("<IQI", 0, directory + len(entry), 1))
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), 2**32 - 1, 0))


def test_a_file_of_full_size_opens_at_once(tmp_path, cache):
    path = tmp_path / "mpi3d_real.npz"
    write_sparse_official(path, {0: 3, 700_000: 5, 1_036_799: 7})
    assert path.stat().st_size > 12_740_000_000
    if path.stat().st_blocks * 512 > 1e9:
        pytest.skip("the file system keeps no holes")
    started = time.perf_counter()
    dataset = dislab.load_dataset("mpi3d_real", data_dir=tmp_path)
    images = dataset.images([1_036_799, 700_000, 0, 1])
    assert time.perf_counter() - started < 2, "the whole file was read"
    assert [image.unique().tolist() for image in images] == [[7], [5], [3], [0]]


def test_a_compressed_array_is_unpacked_once(tmp_path, cache, space, capsys):
    images = random_images(len(space))
    np.savez_compressed(tmp_path / "mpi3d_toy", images=images)
    assert_reads(dislab.load_dataset("mpi3d_toy", data_dir=tmp_path), images)
    said = capsys.readouterr().err
    assert "is compressed: its images are unpacked once into the cache folder" in said
    assert f"'{cache}', 0.0 GB" in said
    made = list(cache.glob("mpi3d_toy-official-*.npy"))
    assert len(made) == 1
    assert_reads(dislab.load_dataset("mpi3d_toy", data_dir=tmp_path), images)
    assert capsys.readouterr().err == ""
    assert list(cache.iterdir()) == made


def test_a_compressed_array_that_does_not_fit_names_the_cache_folder(tmp_path, cache, space, monkeypatch):
    def full(handle, offset, length):
        raise OSError(28, "No space left on device")

    np.savez_compressed(tmp_path / "mpi3d_toy", images=np.zeros((len(space), 64, 64, 3), np.uint8))
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(base, "MOST_IN_MEMORY", 3)
    with pytest.raises(RunFailed, match=r"cannot write .* GB .*\$DISLAB_CACHE"):
        dislab.load_dataset("mpi3d_toy", data_dir=tmp_path)
    assert not list(cache.iterdir())


def wrong_files():
    """(what is wrong, function that writes it, what the message must say)."""

    def images(**arrays):
        return lambda path: np.savez(path, **arrays)

    def text(path):
        path.write_text("not a dataset")

    def cut(path):
        np.savez(path, images=random_images(192))
        path.write_bytes(path.read_bytes()[:-1000])

    def half(path):
        np.savez(path, images=random_images(192))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    def damaged(path):
        np.savez_compressed(path, images=random_images(192))
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
        path.write_bytes(data)

    def nonsense(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", b"nonsense")

    def too_short(path):
        # A member whose header promises more images than follow.
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.zeros((192, 64, 64, 3), np.uint8))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", stream.getvalue()[:-10])

    def locked(path):
        np.savez(path, images=random_images(192))
        data = bytearray(path.read_bytes())
        directory = data.rfind(b"PK\x01\x02")
        data[6] |= 1  # the flag "encrypted" of the local header and of the directory
        data[directory + 8] |= 1
        path.write_bytes(data)

    zeros = np.zeros((192, 64, 64, 3), np.uint8)
    return [
        ("no zip", text, "is not a whole .npz file"),
        ("cut", cut, "is not a whole .npz file"),
        ("half", half, "is not a whole .npz file"),
        ("damaged", damaged, "cut off or damaged"),
        ("nonsense", nonsense, "is not a whole .npz file"),
        ("too short", too_short, "has 2359286 bytes, expected 2359296"),
        ("locked", locked, "cannot be read"),
        ("another key", images(pictures=np.zeros(3)), "no array 'images' (it has pictures)"),
        ("flat", images(images=zeros[:7]), "is uint8 [7, 64, 64, 3], expected uint8 [192, 64, 64, 3]"),
        ("floats", images(images=zeros.astype(np.float32)), "is float32 [192, 64, 64, 3], expected uint8"),
        ("column-major", images(images=np.asfortranarray(zeros)), "expected uint8"),
    ]


@pytest.mark.parametrize(("write", "says"), [pytest.param(*case[1:], id=case[0]) for case in wrong_files()])
def test_wrong_files_are_refused_in_one_line(write, says, tmp_path, cache, space):
    path = tmp_path / "mpi3d_realistic.npz"
    write(path)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("mpi3d_realistic", data_dir=tmp_path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*")), "a wrong file leaves nothing in the cache"


def test_mpi3d_means_mpi3d_toy(tmp_path, cache, space, capsys):
    np.savez(tmp_path / "mpi3d_toy.npz", images=random_images(len(space)))
    dataset = dislab.load_dataset("mpi3d", data_dir=tmp_path)
    assert dataset.name == "mpi3d_toy"
    assert capsys.readouterr().err == "mpi3d means mpi3d_toy\n"


def test_missing_files(tmp_path, cache):
    for name in ("mpi3d_toy", "mpi3d_realistic"):
        with pytest.raises(DislabError, match=rf"`dislab data fetch {name}`, or put it at .*{name}\.npz"):
            dislab.load_dataset(name, source="official", data_dir=tmp_path)
    for name in ("mpi3d_realistic", "mpi3d_real"):
        with pytest.raises(DislabError, match=f"{name} has no rendered images: .* draw mpi3d_toy"):
            dislab.load_dataset(name, source="rendered")
        with pytest.raises(DislabError, match=rf"only mpi3d_toy can be drawn: .*{name}\.npz"):
            dislab.load_dataset(name, data_dir=tmp_path)
    assert not cache.exists()


# The drawn twin


@pytest.fixture(scope="module")
def painted():
    """A function from factors [B, 7] to images float64 [B, 64, 64, 3]: it draws only the poses it needs."""
    # The untouched rows of so large an array take no memory.
    poses = np.zeros((renderer.NUM_POSES, renderer.POSE_BYTES), np.uint8)
    painter = renderer.Painter(torch.from_numpy(poses))
    scenes, drawn = {}, set()

    def paint(factors) -> np.ndarray:
        factors = np.asarray(factors)
        for camera, horizontal, vertical in {tuple(row) for row in factors[:, [3, 5, 6]].tolist()} - drawn:
            if (camera, vertical) not in scenes:
                scene = renderer.Scene.empty(camera)
                renderer.add_standing_parts(scene, renderer.robot_frames(0, vertical)[0])
                scenes[camera, vertical] = scene
            row = poses[renderer.pose_index(camera, horizontal, vertical)]
            renderer.draw_pose(row, scenes[camera, vertical], horizontal, vertical)
            drawn.add((camera, horizontal, vertical))
        images = painter.paint(torch.from_numpy(factors))
        assert images.dtype == torch.uint8
        return images.permute(0, 2, 3, 1).numpy().astype(np.float64)

    paint.poses = poses
    return paint


def test_the_drawn_dataset_is_the_grid(cache, monkeypatch):
    """All poses take a minute: here the robot has two steps per axis."""
    monkeypatch.setattr(renderer, "NUM_STEPS", 2)
    monkeypatch.setattr(renderer, "NUM_POSES", 12)
    space = FactorSpace(mpi3d.SPACE.names, (6, 6, 2, 3, 3, 2, 2))
    monkeypatch.setattr(mpi3d, "SPACE", space)
    dataset = dislab.load_dataset("mpi3d_toy", source="rendered")
    assert (dataset.name, dataset.source, len(dataset)) == ("mpi3d_toy", "rendered", 2592)
    made = list(cache.glob("mpi3d_toy-rendered-*.npy"))
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
    painted([(0, 0, 0, c, 0, h, v) for c, h, v in poses])
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
    painted([(0, 0, 0, 1, 0, 10, 30)])
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


def test_same_bytes_on_every_machine(painted):
    painted([(0, 0, 0, 1, 0, 12, 30)])
    pose = painted.poses[renderer.pose_index(1, 12, 30)]
    assert hashlib.sha256(pose.tobytes()).hexdigest() == POSE_DIGEST
    assert hashlib.sha256(renderer.draw_backgrounds().tobytes()).hexdigest() == BACKGROUND_DIGEST


def walked_values(start: int, size: int, frames: int = 20) -> list[int]:
    """The values of a factor in an animation: up to its last, down to its first, up to where it began."""
    values = []
    for frame in range(frames):
        place = int(np.ceil(start + 2 * size * frame / frames))  # on a loop of 2 * size places
        place %= 2 * size
        values.append(place if place < size else 2 * size - 1 - place)
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
