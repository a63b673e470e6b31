"""The drawn Shapes3D twin: its grid, its colouring, its bytes, and its likeness to the official frames."""

import colorsys
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dislab.rendering import shapes3d

FACTOR_SIZES = (10, 10, 10, 8, 4, 15)
# VERSION and sha256 of a sample of drawn images. The bytes are the same on every machine.
PINNED = (1, "13fd6a08d738ce7d85c7ffb6e24921737f23cc90b44f704011ea83c82017868b")


@pytest.fixture(scope="module")
def layers() -> np.ndarray:
    return shapes3d.draw_layers()


def drawn(layers: np.ndarray, factors: torch.Tensor) -> torch.Tensor:
    """The images uint8 [B, 3, 64, 64] of factor values int64 [B, 6]."""
    rows = torch.from_numpy(np.ravel_multi_index(factors.T.numpy(), FACTOR_SIZES))
    return shapes3d.compose(torch.from_numpy(layers), rows, shapes3d.palette())


def random_factors(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in FACTOR_SIZES], dim=1)


def test_layers_have_the_promised_shape_and_size(layers):
    assert layers.shape == (480, shapes3d.NUM_LAYERS, 64, 64)
    assert layers.dtype == np.uint8
    assert layers.nbytes < 50e6
    assert layers.max() < 255, "a light was cut off at the top of its byte"


def test_every_geometry_is_different(layers):
    assert len({geometry.tobytes() for geometry in layers}) == 480


def test_every_step_of_every_factor_changes_the_image(layers):
    base = torch.tensor([3, 6, 8, 4, 2, 5])
    for factor, size in enumerate(FACTOR_SIZES):
        factors = base.repeat(size, 1)
        factors[:, factor] = torch.arange(size)
        images = drawn(layers, factors).numpy().astype(int)
        changed = (np.abs(np.diff(images, axis=0)).max(axis=1) > 8).sum(axis=(1, 2))  # pixels per step
        assert (changed >= 20).all(), (factor, changed)


def test_larger_scales_cover_more_pixels(layers):
    pixels = (layers[:, shapes3d.OBJECT] > 0).sum(axis=(1, 2)).reshape(8, 4, 15)
    assert (np.diff(pixels, axis=0) > 0).all()


def test_object_stays_clear_of_the_border(layers):
    object_light = layers[:, shapes3d.OBJECT]
    assert object_light[:, :, :8].max() == object_light[:, :, -8:].max() == 0
    assert object_light[:, :4].max() == object_light[:, -4:].max() == 0


@pytest.mark.parametrize("hue", range(10))
def test_materials_show_their_hue(layers, hue):
    factors = torch.tensor([[hue, (hue + 3) % 10, (hue + 6) % 10, 7, 0, 7]])
    image = drawn(layers, factors)[0].numpy()
    # a floor pixel at the right, a wall pixel at the right, and the middle of the cube's front
    for (row, column), shown in zip(((60, 60), (28, 60), (46, 32)), factors[0, :3].tolist(), strict=True):
        found, saturation, value = colorsys.rgb_to_hsv(*(image[:, row, column] / 255))
        assert min(abs(found - shown / 10), 1 - abs(found - shown / 10)) < 0.01
        assert saturation == 1.0
        assert value > 0.4
    assert tuple(image[:, 2, 30]) == shapes3d.SKY_COLOUR


def test_shadow_is_darker_than_the_lit_floor(layers):
    floor = layers[shapes3d.geometry_index(7, shapes3d.SPHERE, 7), shapes3d.FLOOR].astype(int)
    assert floor[54, 34] < 0.5 * floor[54, 10]


@pytest.mark.parametrize("light", ["drawn", "any"])
def test_compose_equals_integer_arithmetic(light, layers):
    if light == "any":  # sums far above what a byte holds are cut off
        layers = np.random.default_rng(0).integers(0, 256, layers.shape, np.uint8)
    factors = random_factors(480)
    images = drawn(layers, factors)
    assert images.shape == (480, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last), "`unit_images` need not copy them"
    hues = np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(hue / 10, 1, 1)] for hue in range(10)])
    for image, (floor, wall, thing, scale, shape, orientation) in zip(images, factors.tolist(), strict=True):
        colours = [hues[floor], hues[wall], hues[thing], np.array([153, 226, 249]), np.array([255, 255, 255])]
        light = layers[(scale * 4 + shape) * 15 + orientation].astype(np.int64)
        total = sum(light[layer] * colours[layer][:, None, None] for layer in range(5))
        np.testing.assert_array_equal(image.numpy(), np.minimum((total + 64) >> 7, 255))


def test_a_version_is_one_drawing(layers):
    factors = torch.from_numpy(np.stack(np.unravel_index(np.arange(0, 480_000, 1601), FACTOR_SIZES), axis=1))
    images = drawn(layers, factors)
    digest = hashlib.sha256(images.contiguous().numpy()).hexdigest()
    assert (shapes3d.VERSION, digest) == PINNED, "bump VERSION if the change of the drawing is meant"


def official_frames() -> np.ndarray:
    """The 53 frames [53, 64, 64, 3]: their enlarged pixels, 3.5 wide, averaged without their blurred rims."""
    if "DISLAB_DATA" not in os.environ:
        pytest.skip("DISLAB_DATA is not set, so the official frames cannot be found")
    path = Path(os.environ["DISLAB_DATA"]).parent / "reference" / "3dshapes.gif"
    if not path.is_file():
        pytest.skip(f"no official frames at {path}")
    pillow = pytest.importorskip("PIL.Image", reason="Pillow reads the official frames")

    def average(length: int, start: float) -> np.ndarray:  # [64, length]
        low = start + 3.5 * np.arange(64)[:, None] + 0.6
        pixel = np.arange(length)[None, :]
        weight = np.clip(np.minimum(low + 2.3, pixel + 1) - np.maximum(low, pixel), 0, None)
        return weight / weight.sum(axis=1, keepdims=True)

    rows, columns = average(227, 0.9), average(226, 1.0)
    frames = []
    with pillow.open(path) as animation:
        for index in range(animation.n_frames):
            animation.seek(index)
            enlarged = np.asarray(animation.convert("RGB"), dtype=np.float64)
            frames.append(columns @ np.tensordot(rows, enlarged, 1))
    return np.stack(frames)


def nearest_hue(colour: np.ndarray) -> int:
    """The hue whose colour has the same direction as an observed one."""
    hues = np.array(shapes3d.HUE_COLOURS) / 255
    return int(np.abs(hues - colour / colour.max()).sum(axis=1).argmin())


def test_likeness_to_the_official_frames(layers):
    frames = official_frames()
    geometry = torch.cartesian_prod(torch.arange(8), torch.arange(4), torch.arange(15))
    # Without rounding, an image is the product of its light L [5, 4096] and its colours C [5, 3], and its
    # squared distance from a frame F [4096, 3] is C L L' C' - 2 C L F + F F.
    light = torch.from_numpy(layers).flatten(2).double() / shapes3d.UNIT
    products = light @ light.transpose(1, 2)
    shown = torch.from_numpy(frames).view(len(frames), 4096, 3)
    seen = (light.flatten(0, 1) @ shown.permute(1, 0, 2).flatten(1)).view(480, 5, len(frames), 3)
    colours_of = shapes3d.palette().double() * shapes3d.UNIT
    ratios, matches = [], []
    for number, frame in enumerate(frames):
        # The bottom left is always lit floor, the left edge at half height wall, the lower middle the object.
        floor, wall, thing = frame[59:62, 2:8], frame[22:34, 2:4], frame[47:51, 31:34]
        hues = [nearest_hue(np.median(part.reshape(-1, 3), axis=0)) for part in (floor, wall, thing)]
        colours = colours_of[np.ravel_multi_index(hues, FACTOR_SIZES[:3])]
        distance = ((products @ colours - 2 * seen[:, :, number]) * colours).sum((1, 2))
        factors = torch.cat([torch.tensor(hues), geometry[distance.argmin()]])
        image = drawn(layers, factors[None])[0]
        error = np.square(image.permute(1, 2, 0).numpy() - frame).mean()
        ratios.append(10 * np.log10(255**2 / error))
        matches.append(factors.tolist())
    assert np.mean(ratios) >= 30.5
    assert np.min(ratios) >= 29.0
    # The frames first walk through the orientations, then the shapes, then the scales.
    assert [match[5] for match in matches[:15]] == list(range(15))
    assert [match[4] for match in matches[14:18]] == list(range(4))
    assert [match[3] for match in matches[17:25]] == list(range(8))
