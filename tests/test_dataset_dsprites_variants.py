"""The variants of dSprites: what is drawn on official and on drawn sprites, the same each time."""

import hashlib

import numpy as np
import pytest
import torch
from conftest import one_line
from PIL import Image

import dislab
from dislab.data.official import is_complete
from dislab.data.space import FactorSpace
from dislab.datasets import dsprites, dsprites_variants
from dislab.errors import DislabError
from dislab.rendering import dsprites_variants as renderer
from dislab.runs.images import source_of

# VERSION and sha256 of drawn images of all variants. The bytes are the same on every machine.
PINNED = (1, "ef175ffeef2a672713bf1a96fa8f39d1a7d06f7ccaebbe2c38c1e99b12d1b2e6")
ROWS = np.array([0, 1, 17, 18, 19, 20, 21, 22, 30, 47])
NAMES = ["color_dsprites", "noisy_dsprites", "scream_dsprites", "abstract_dsprites"]


@pytest.fixture
def sprites(tmp_path, cache, monkeypatch) -> np.ndarray:
    """Official files of 48 sprites in the data folder, with a picture; the sprites as bool [48, 64, 64]."""
    space = FactorSpace(dsprites.SPACE.names, (3, 2, 2, 2, 2))
    monkeypatch.setattr(dsprites, "SPACE", space)
    images = np.random.default_rng(0).integers(0, 2, (48, 64, 64), dtype=np.uint8)
    (tmp_path / "dsprites").mkdir()
    np.savez_compressed(tmp_path / "dsprites" / dsprites.OFFICIAL.files[0].name, imgs=images)
    pixels = np.random.default_rng(1).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scream.jpg", "png")  # it is not damaged as by JPEG
    return images.astype(bool)


def opened(name: str, tmp_path, **options) -> dislab.Dataset:
    with pytest.warns(dislab.DislabWarning, match="published"):
        return dislab.load_dataset(name, data_dir=tmp_path, **options)


def words(row: int, number: int) -> list[int]:
    """The pseudo-random numbers of a row, in whole numbers of any size."""
    found = []
    for k in range(number):
        x = (row * number + k + 0x9E3779B9) % 2**32
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        found.append(x ^ (x >> 16))
    return found


def channels(word: int) -> np.ndarray:
    return np.array([word >> 8 * k & 255 for k in range(3)])


def test_color_is_one_color_for_each_sprite(sprites, tmp_path):
    dataset = opened("color_dsprites", tmp_path)
    assert (dataset.source, dataset.image_shape, dataset.space) == ("official", (3, 64, 64), dsprites.SPACE)
    for row, image in zip(ROWS, dataset.images(ROWS).permute(0, 2, 3, 1).numpy(), strict=True):
        assert (image[~sprites[row]] == 0).all()
        assert (image[sprites[row]] == 128 + channels(*words(int(row), 1)) // 2).all()


def test_noise_is_behind_the_sprite(sprites, tmp_path):
    images = opened("noisy_dsprites", tmp_path).images(ROWS).permute(0, 2, 3, 1).numpy()
    assert (images[sprites[ROWS]] == 255).all()
    [noise] = renderer.noisy(torch.zeros(1, 1, 64, 64, dtype=torch.uint8), torch.tensor([17])).numpy()
    assert np.array_equal(noise.reshape(-1).view("<u4")[:9], words(17, 3072)[:9])
    assert np.array_equal(images[2][~sprites[17]], noise.transpose(1, 2, 0)[~sprites[17]])


def test_noise_is_uniform_and_unrelated_between_rows_and_pixels():
    rows = torch.tensor([0, 1, 2, 300_000, 737_278, 737_279])
    noise = renderer.noisy(torch.zeros(6, 1, 64, 64, dtype=torch.uint8), rows).flatten(1).numpy()
    counts = np.bincount(noise.ravel(), minlength=256)
    assert ((counts - noise.size / 256) ** 2 / (noise.size / 256)).sum() < 340  # chi-square, p = 0.0003
    centred = (noise - noise.mean()) / noise.std()
    between = centred @ centred.T / centred.shape[1]
    beside = [(centred[:, step:] * centred[:, :-step]).mean() for step in (1, 2, 3, 4, 64, 4096)]
    limit = 4 / np.sqrt(centred.shape[1])
    assert np.abs(between - np.diag(np.diag(between))).max() < limit
    assert np.abs(beside).max() < limit


def test_scream_is_the_negative_of_a_piece_of_the_picture(sprites, tmp_path):
    dataset = opened("scream_dsprites", tmp_path)
    picture = np.asarray(Image.open(tmp_path / "scream.jpg")).astype(int)
    for row, image in zip(ROWS, dataset.images(ROWS).permute(0, 2, 3, 1).numpy(), strict=True):
        top, left, tint = words(int(row), 3)
        top, left = top * (90 - 64) >> 32, left * (80 - 64) >> 32
        mean = (picture[top : top + 64, left : left + 64] + channels(tint) + 1) // 2
        assert np.array_equal(image, np.where(sprites[row][..., None], 255 - mean, mean))


def test_abstract_has_six_factors_and_an_orientation_of_its_own(cache, monkeypatch):
    space = dsprites_variants.ABSTRACT
    assert space.sizes == (5, 6, 3, 6, 32, 32) and len(space) == 552_960
    asked = []

    def sprites(paths, device):
        def draw(rows):
            asked.append(dsprites.SPACE.factors(rows))
            return (rows % 2).to(torch.uint8)[:, None, None, None].expand(-1, 1, 64, 64) * 255

        return draw

    monkeypatch.setattr(dsprites, "sprites", sprites)
    dataset = dislab.load_dataset("abstract_dsprites", source="rendered")
    rows = np.random.default_rng(0).integers(0, len(space), 1000)
    images = dataset.images(rows)
    factors, drawn = space.factors(rows), asked[-1]
    assert np.array_equal(factors[:, 2:], drawn[:, [0, 1, 3, 4]])
    assert drawn[:3, 2].tolist() == [words(int(row), 1)[0] * 40 >> 32 for row in rows[:3]]
    assert np.bincount(drawn[:, 2], minlength=40).min() > 8  # 25 on average
    # The values of disentanglement_lib.
    colours = np.array(
        [
            [0.9096231780824386, 0.5883403686424795, 0.3657680693481871],
            [0.6350181801577739, 0.6927729880940552, 0.3626904230371999],
            [0.3764832455369271, 0.7283900430001952, 0.5963114605342514],
            [0.39548987063404156, 0.7073922557810771, 0.7874577552076919],
            [0.6963644829189117, 0.6220697032672371, 0.899716387820763],
            [0.90815966835861, 0.5511103319168646, 0.7494337214212151],
        ]
    )
    lit = drawn[:, 4] % 2 == 1  # the row of a sprite is odd where its last factor is
    pixels = images[:, :, 5, 7].numpy() / 255
    assert np.abs(pixels[lit] - colours[factors[lit, 1]]).max() <= 0.5 / 255 + 1e-9
    assert np.abs(pixels[~lit] - factors[~lit, :1] / 4).max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize("name", NAMES[:3])
def test_an_image_is_the_same_whatever_is_drawn_with_it(name, sprites, tmp_path):
    dataset = opened(name, tmp_path)
    together = dataset.images(np.r_[ROWS, ROWS[::-1]])
    assert torch.equal(together[: len(ROWS)], together[len(ROWS) :].flip(0))
    assert all(
        torch.equal(dataset.images([row])[0], image) for row, image in zip(ROWS, together, strict=False)
    )


def test_drawn_images_are_those_of_the_version(tmp_path, cache, monkeypatch):
    from dislab.rendering import dsprites as sprite_renderer

    rows = torch.arange(0, sprite_renderer.IMAGES, 20_011)
    packed = np.concatenate([sprite_renderer.draw_rows(row, row + 1) for row in rows.tolist()])
    sprites = torch.from_numpy(np.unpackbits(packed, axis=1).reshape(-1, 1, 64, 64) * np.uint8(255))
    picture = torch.arange(3 * 70 * 80).remainder(251).to(torch.uint8).view(3, 70, 80)
    greys, colours = renderer.palette()
    digest = hashlib.sha256()
    for images in (
        renderer.color(sprites, rows),
        renderer.noisy(sprites, rows),
        renderer.scream(sprites, rows, picture),
        renderer.abstract(sprites, greys[rows % 5], colours[rows % 6]),
        renderer.orientations(rows),
    ):
        digest.update(images.contiguous().numpy().tobytes())
    assert (renderer.VERSION, digest.hexdigest()) == PINNED, "bump VERSION if the change is meant"


def test_sources_and_missing_files(sprites, tmp_path):
    dataset = opened("color_dsprites", tmp_path)
    assert source_of(dataset).startswith("official-v1 (not the published file) ")  # tiny sprites
    (tmp_path / "dsprites" / dsprites.OFFICIAL.files[0].name).unlink()
    assert source_of(dislab.load_dataset("noisy_dsprites", data_dir=tmp_path)) == "rendered-v1"
    assert is_complete("scream_dsprites", "auto", tmp_path)
    drawn = source_of(opened("scream_dsprites", tmp_path))
    assert drawn.startswith("rendered-v1 (not the published file) ")
    with pytest.raises(DislabError, match="npz of dsprites is not there: `dislab data fetch dsprites`"):
        dislab.load_dataset("color_dsprites", source="official", data_dir=tmp_path)
    # Another picture makes other images.
    Image.new("RGB", (100, 100)).save(tmp_path / "scream.jpg")
    other = source_of(opened("scream_dsprites", tmp_path))
    assert other != drawn
    (tmp_path / "scream.jpg").unlink()
    for source in dislab.data.dataset.SOURCES:
        assert not is_complete("scream_dsprites", source, tmp_path)
        with pytest.raises(DislabError) as error:
            dislab.load_dataset("scream_dsprites", source=source, data_dir=tmp_path)
        assert f"put it at '{tmp_path / 'scream_dsprites' / 'scream.jpg'}'" in one_line(error)
        assert "get it at https://commons.wikimedia.org" in one_line(error)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_text("no image"), "is not a whole image"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "is not a whole image"),
        (lambda path: Image.new("RGB", (64, 200)).save(path), "is shrunk to 64 x 200 pixels"),
        (lambda path: Image.new("RGB", (1000, 100)).save(path), "is shrunk to 350 x 35 pixels"),
    ],
)
def test_a_picture_that_cannot_be_used_is_one_clear_line(write, says, sprites, tmp_path):
    write(tmp_path / "scream.jpg")
    with pytest.raises(DislabError) as error:
        dislab.load_dataset("scream_dsprites", data_dir=tmp_path)
    assert says in one_line(error) and str(tmp_path / "scream.jpg") in one_line(error)


def test_the_picture_is_shrunk_in_proportion(tmp_path):
    Image.new("RGB", (600, 548), "red").save(tmp_path / "scream.jpg")
    assert dsprites_variants.read_picture(tmp_path / "scream.jpg").shape == (3, 274, 300)
