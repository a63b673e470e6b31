"""Cars3D: its official files read exactly and refused clearly; the drawn cars against a plain ray caster."""

import hashlib
import io
import math
import random
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

import dislab
from dislab.data.space import FactorSpace
from dislab.datasets import cars3d
from dislab.errors import DislabError
from dislab.rendering import cars3d as renderer

# sha256 of all images of cars 4 and 7. A change of the drawing changes it, a change of machine must not.
SUBSET_DIGEST = "819b293674354c480c45442d56dc48251db8628f4fdcdbac29acc993a05f97cd"
NAMES = ["car_001_mesh.mat", "car_002_mesh.mat", "car_010_mesh.mat", "car_199_mesh.mat"]  # with gaps
ELEVATIONS, AZIMUTHS = 2, 3


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and a Cars3D of four cars in six views."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DISLAB_CACHE", str(folder))
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    space = FactorSpace(cars3d.SPACE.names, (ELEVATIONS, AZIMUTHS, len(NAMES)), circle=cars3d.SPACE.circle)
    monkeypatch.setattr(cars3d, "SPACE", space)
    return folder


def official_images(car: int) -> np.ndarray:
    rng = np.random.default_rng(car)
    return rng.integers(0, 256, (128, 128, 3, AZIMUTHS, ELEVATIONS), dtype=np.uint8)


def mat_file(**arrays) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays, do_compression=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The four official files, by name."""
    mask = np.zeros((128, 128), np.uint8)
    return {name: mat_file(im=official_images(car), mask=mask) for car, name in enumerate(NAMES)}


def write_folder(folder, files) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = list(files)
    random.Random(3).shuffle(names)  # the order in which a folder lists its files may be that of their making
    for name in names:
        (folder / name).write_bytes(files[name])
    (folder / "list.txt").write_text("\n".join(names))


def write_archive(path, files) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in [*sorted(files, reverse=True), "../escaped.txt", "/tmp/dislab-escaped.txt"]:
            data = files.get(name, b"out of the archive")
            member = tarfile.TarInfo(f"data/cars/{name}" if name in files else name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("data/cars/car_300_mesh.mat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def assert_official(dataset) -> None:
    assert (dataset.source, dataset.image_shape, dataset.group_by) == (
        "official",
        (3, 64, 64),
        ["object_type"],
    )
    found = dataset.images(np.arange(len(dataset))).permute(0, 2, 3, 1).numpy()
    for row, (elevation, azimuth, car) in enumerate(np.ndindex(ELEVATIONS, AZIMUTHS, len(NAMES))):
        image = official_images(car)[:, :, :, azimuth, elevation].astype(float)
        mean = image.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        np.testing.assert_array_equal(found[row], np.floor(mean + 0.5))


@pytest.mark.parametrize("place", [".", "cars", "data/cars", "cars3d", "cars3d/cars", "cars3d/data/cars"])
def test_official_folder_is_read_exactly(place, files, tmp_path, cache):
    write_folder(tmp_path / place, files)
    for _ in range(2):  # the second time from the cache
        assert_official(dislab.load_dataset("cars3d", data_dir=tmp_path))


@pytest.mark.parametrize("place", [".", "cars3d"])
def test_official_archive_is_read_exactly(place, files, tmp_path, cache):
    (tmp_path / place).mkdir(exist_ok=True)
    write_archive(tmp_path / place / "nips2015-analogy-data.tar.gz", files)
    before = set(tmp_path.parent.rglob("*"))
    for _ in range(2):
        assert_official(dislab.load_dataset("cars3d", source="official", data_dir=tmp_path))
    # Nothing but the cache file was written, inside the data folder or beside it.
    new = {path for path in tmp_path.parent.rglob("*") if path not in before}
    assert new == {cache, *cache.glob("cars3d-official-*.npy")}
    assert len(new) == 2


def test_another_file_is_not_served_from_the_cache(files, tmp_path, cache):
    write_folder(tmp_path, files)
    dislab.load_dataset("cars3d", data_dir=tmp_path)
    (tmp_path / NAMES[2]).write_bytes(mat_file(im=np.full_like(official_images(2), 9)))
    dataset = dislab.load_dataset("cars3d", data_dir=tmp_path)
    assert (dataset.images([2]) == 9).all()


def test_halves_are_rounded_up():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = (1, 255, 254), (1, 255, 0)
    assert cars3d.halve(image).tolist() == [[[1, 128, 64]]]
    assert cars3d.halve(np.full((4, 6, 3), 255, np.uint8)).tolist() == [[[255] * 3] * 3] * 2


def wrong_folders():
    im = official_images(1)
    return {
        "too few": (None, "holds 3 files car_*_mesh.mat: the official data has 4"),
        "no array": (mat_file(mask=im), "has no array 'im'"),
        "other shape": (
            mat_file(im=im[:64]),
            "'im' is uint8 [64, 128, 3, 3, 2], expected uint8 [128, 128, 3, 3, 2]",
        ),
        "other type": (mat_file(im=im / 255), "'im' is float64 [128"),
        "cut off": (mat_file(im=im)[:-4000], "is not a whole MATLAB file"),
        "cut off early": (mat_file(im=im)[:100], "is not a whole MATLAB file"),
        "empty": (b"", "is not a whole MATLAB file"),
        "text": (
            b"not a dataset, but long enough to fill the header of a MATLAB file" * 9,
            "is not a whole MATLAB",
        ),
        "hdf5": (
            mat_file(im=im)[:124] + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 50,
            "is not a whole MATLAB file",
        ),
    }


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("case", wrong_folders())
def test_wrong_files_are_refused_in_one_line(case, archived, files, tmp_path, cache):
    data, says = wrong_folders()[case]
    files = files | {NAMES[1]: data}
    if data is None:
        del files[NAMES[1]]
    if archived:
        write_archive(tmp_path / "nips2015-analogy-data.tar.gz", files)
    else:
        write_folder(tmp_path, files)
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("cars3d", data_dir=tmp_path)
    message = str(error.value)
    assert says in message
    assert str(tmp_path) in message
    assert data is None or NAMES[1] in message
    assert "\n" not in message
    assert not list(cache.glob("*")), "a wrong file leaves nothing in the cache"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_archive_that_is_cut_off(kept, files, tmp_path, cache):
    path = tmp_path / "nips2015-analogy-data.tar.gz"
    write_archive(path, files)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("cars3d", data_dir=tmp_path)
    assert f"'{path}' is not a whole .tar.gz archive" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("data", [b"<html>404</html>" * 100, b"PK\x03\x04", b"\x1f\x8b\x08" + b"\xff" * 500])
def test_file_that_is_no_archive(data, tmp_path, cache):
    (tmp_path / "nips2015-analogy-data.tar.gz").write_bytes(data)
    with pytest.raises(DislabError, match=r"is not a whole \.tar\.gz archive") as error:
        dislab.load_dataset("cars3d", source="official", data_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path, cache):
    with pytest.raises(DislabError, match=r"put it at .*cars3d/nips2015-analogy-data\.tar\.gz"):
        dislab.load_dataset("cars3d", source="official", data_dir=tmp_path)


def test_the_grid():
    space = cars3d.SPACE
    assert (space.names, space.sizes) == (("elevation", "azimuth", "object_type"), (4, 24, 183))
    assert len(space) == 17_568
    assert (space.circle.factor, space.circle.steps, space.circle.instance) == ("azimuth", 24, "object_type")


def test_rendered_images_by_row(cache, monkeypatch):
    space = FactorSpace(cars3d.SPACE.names, (4, 24, 2))  # the first two cars
    monkeypatch.setattr(cars3d, "SPACE", space)
    dataset = dislab.load_dataset("cars3d")
    assert dataset.source == "rendered"
    found = dataset.images(np.arange(len(space))).permute(0, 2, 3, 1).numpy()
    for car in range(2):
        np.testing.assert_array_equal(found[car::2], renderer.draw_car(car).reshape(-1, 64, 64, 3))


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
    place = (np.arange(128) + 0.5) / 2 - 32
    focal = renderer.FOCAL_LENGTH * math.sqrt(renderer.USUAL_LENGTH / style.length)
    rays = -back + (place[None, :, None] * right - place[:, None, None] * up) / focal
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


def test_cars_are_their_own_mirror_image():
    """Or else the second half of the circle would show another car."""
    for car in range(0, 183, 5):  # all thirteen styles
        pieces = renderer.build(car)
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


def test_cars_stand_on_the_ground_within_the_image():
    for car in range(0, 183, 5):
        style = renderer.design(car)[0]
        corners = np.concatenate([item.corners for item in renderer.build(car)])
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


def test_same_bytes_on_every_machine(drawn):
    digest = hashlib.sha256(b"".join(drawn[car].tobytes() for car in (4, 7))).hexdigest()
    assert digest == SUBSET_DIGEST
