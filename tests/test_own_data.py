"""A user's own arrays as datasets."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NAMES, SIZES, make_tiny_dataset, one_line
from own_images import noise

import dislab
from dislab.data import own
from dislab.errors import DislabError

GRID = list(itertools.product(*(range(size) for size in SIZES)))  # of the tiny dataset, last factor fastest
GRID_FACTORS = [(a, b) for a in range(3) for b in range(2)]


@pytest.mark.parametrize("kind", ["N H W", "N 1 H W", "N 3 H W", "N H W 3", "N H W 1", "tensor", "strided"])
def test_layouts_of_arrays(kind):
    pixels = noise(6, 3 if "3" in kind else 1, 10, 8)
    given = {
        "N H W": pixels[:, 0],
        "N H W 3": pixels.transpose(0, 2, 3, 1),
        "N H W 1": pixels.transpose(0, 2, 3, 1),
        "tensor": torch.from_numpy(pixels),
        "strided": np.repeat(pixels, 2, axis=0)[::2],
    }.get(kind, pixels)
    dataset = dislab.from_arrays(given, np.arange(6))
    assert dataset.image_shape == pixels.shape[1:]
    assert all(type(side) is int for side in dataset.image_shape)
    images = dataset.images([5, 0, 0])
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), pixels[[5, 0, 0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_level(dtype, monkeypatch):
    monkeypatch.setattr(own, "CHUNK", 4)  # several pieces
    levels = np.arange(256).reshape(8, 4, 8)
    # (float16 is too coarse for a shift of less than half a level to keep every level.)
    shift = 0 if dtype is np.float16 else np.where(levels < 128, 0.4, -0.4)
    dataset = dislab.from_arrays(((levels + shift) / 255).astype(dtype), np.arange(8))
    assert np.array_equal(dataset.images(np.arange(8))[:, 0].numpy(), levels)


def test_a_memory_map_is_not_copied(tmp_path):
    np.save(tmp_path / "images.npy", noise(6, 1, 4, 4))
    images = np.load(tmp_path / "images.npy", mmap_mode="r+")
    dataset = dislab.from_arrays(images, np.arange(6))
    images[2, 0, 1, 1] ^= 255
    assert dataset.images([2])[0, 0, 1, 1] == images[2, 0, 1, 1]


def test_images_and_factors_of_other_types():
    """Tensors of low precision, object arrays and columns of pandas are the numbers in them."""
    images = (torch.arange(6 * 64).reshape(6, 8, 8) % 256).to(torch.bfloat16) / 256
    expected = (images.double() * 255).round().to(torch.uint8)
    frame = pd.DataFrame(GRID_FACTORS).astype("Int64")
    for factors in (np.array(GRID_FACTORS, object), torch.tensor(GRID_FACTORS).bfloat16(), frame):
        dataset = dislab.from_arrays(images.requires_grad_(), factors)
        assert torch.equal(dataset.images(np.arange(6))[:, 0], expected)
        assert dataset.space.is_grid
        assert dataset.source == dislab.from_arrays(expected, GRID_FACTORS).source
    with pytest.raises(DislabError, match="factors must be numbers, but hold <NA>"):
        dislab.from_arrays(expected, frame.mask(frame == 2))


def test_rows_in_grid_order_are_a_grid():
    images = noise(6, 8, 8)
    dataset = dislab.from_arrays(images, GRID_FACTORS, ["a", "b"])
    assert dataset.space.is_grid
    assert (dataset.space.names, dataset.space.sizes) == (("a", "b"), (3, 2))
    assert dataset.space.factors(np.arange(6)).tolist() == [list(row) for row in GRID_FACTORS]
    assert dataset.group_by == ["a"]
    for wrong in (
        GRID_FACTORS[::-1],  # all combinations in another order
        [*GRID_FACTORS[:5], (2, 0)],  # as many rows, one twice
        [(b, a) for a in range(2) for b in range(3)],  # the first factor fastest
    ):
        other = dislab.from_arrays(images, wrong)
        assert not other.space.is_grid
        assert other.space.factors(np.arange(6)).tolist() == [list(row) for row in wrong]
    assert not dislab.from_arrays(images[:5], GRID_FACTORS[:5]).space.is_grid
    # Sizes whose product is beyond every whole number of numpy's.
    assert not dislab.from_arrays(images, np.full((6, 5), 9_999_999)).space.is_grid


def test_the_source_tells_data_apart():
    images = noise(6, 8, 8)

    def source(images, *arguments, **options) -> str:
        return dislab.from_arrays(images, *arguments, **options).source

    first = source(images, GRID_FACTORS)
    assert first.startswith("own-")
    assert first == source(images[:, None].copy(), np.array(GRID_FACTORS, np.int32))
    changed = images.copy()
    changed[5, 7, 7] ^= 1
    others = {
        source(changed, GRID_FACTORS),
        source(images, GRID_FACTORS[::-1]),
        source(images, GRID_FACTORS, ["a", "b"]),
        source(images.reshape(6, 4, 16), GRID_FACTORS),
    }
    assert len(others | {first}) == 5


def test_held_out_rows_of_arrays():
    images = noise(6, 8, 8)
    for held_out in ([4, 1, 1], np.array([False, True, False, False, True, False]), torch.tensor([1, 4])):
        dataset = dislab.from_arrays(images, GRID_FACTORS, held_out=held_out)
        assert dataset.evaluation_rows().tolist() == [1, 4]
        assert dataset.train_rows().tolist() == [0, 2, 3, 5]
    splits = {dislab.from_arrays(images, GRID_FACTORS, held_out=rows).split for rows in ([1, 4], [1, 5])}
    assert len(splits) == 2
    whole = dislab.from_arrays(images, GRID_FACTORS)
    assert whole.evaluation_rows().tolist() == whole.train_rows().tolist() == list(range(6))
    assert whole.split == ""


BAD_FLOATS = np.zeros((6, 8, 8), np.float32)
BAD_FLOATS[4, 2, 2] = 1.5


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((noise(6, 8), GRID_FACTORS), {}, "images must be [N, H, W], [N, C, H, W] or [N, H, W, C]"),
        ((noise(0, 8, 8), []), {}, "not uint8 [0, 8, 8]"),
        ((noise(6, 4, 8, 8), GRID_FACTORS), {}, "neither could be"),
        ((noise(6, 3, 8, 3), GRID_FACTORS), {}, "both could be"),
        (([noise(8, 8), noise(4, 4)], [0, 1]), {}, "cannot be read as one array"),
        ((noise(6, 8, 8).astype(int), GRID_FACTORS), {}, "not int64"),
        ((noise(6, 8, 8) > 9, GRID_FACTORS), {}, "not bool"),
        ((noise(6, 8, 8) % 2, GRID_FACTORS), {}, "multiply them by 255"),
        ((BAD_FLOATS, GRID_FACTORS), {}, "image 4 has 1.5"),
        ((np.where(BAD_FLOATS > 1, np.nan, 0), GRID_FACTORS), {}, "image 4 has nan"),
        ((-BAD_FLOATS, GRID_FACTORS), {}, "image 4 has -1.5"),
        ((noise(6, 8, 8), GRID_FACTORS[:5]), {}, "there are 6 images, but factors of 5"),
        ((noise(6, 8, 8), np.full((6, 2), 0.5)), {}, "but 0.5 is in row 0, column 0: number a factor's"),
        ((noise(6, 8, 8), list("abcabc")), {}, "values by np.unique(factors, return_inverse=True)[1]"),
        ((np.ma.masked_less(noise(6, 8, 8), 9), GRID_FACTORS), {}, "images must be numbers, but some are"),
        ((noise(6, 8, 8), np.ma.masked_less(GRID_FACTORS, 1)), {}, "factors must be numbers, but some are"),
        ((noise(6, 8, 8), np.zeros((6, 0), int)), {}, "not int64 [6, 0]"),
        ((noise(6, 8, 8), [0, 1, 2, -3, 4, 5]), {}, "-3 is in row 3, column 0"),
        ((noise(6, 8, 8), [0, 1, 2, 3, 4, 10**12]), {}, "is in row 5"),
        ((noise(6, 8, 8), GRID_FACTORS, ["a"]), {}, "2 different factor names are needed, not a"),
        ((noise(6, 8, 8), GRID_FACTORS, ["a", "a"]), {}, "2 different factor names are needed, not a, a"),
        ((noise(6, 8, 8), GRID_FACTORS, ["shape", "hue"]), {"group_by": "shap"}, "did you mean 'shape'"),
        ((noise(6, 8, 8), GRID_FACTORS), {"name": "a/b"}, "the dataset's name is 'a/b'"),
        ((noise(6, 8, 8), GRID_FACTORS), {"name": ""}, "the dataset's name is ''"),
        ((noise(6, 8, 8), GRID_FACTORS), {"held_out": []}, "held_out is 0 of 6 rows"),
        ((noise(6, 8, 8), GRID_FACTORS), {"held_out": range(6)}, "held_out is 6 of 6 rows"),
        ((noise(6, 8, 8), GRID_FACTORS), {"held_out": [2, 6]}, "held_out goes from 2 to 6"),
        ((noise(6, 8, 8), GRID_FACTORS), {"held_out": [-1]}, "held_out goes from -1"),
        ((noise(6, 8, 8), GRID_FACTORS), {"held_out": 0.5}, "held_out must be rows int [M] or bool [6]"),
        ((noise(6, 8, 8), GRID_FACTORS), {"held_out": [True, False]}, "held_out must be rows"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(arguments, options, says):
    with pytest.raises(DislabError) as error:
        dislab.from_arrays(*arguments, **options)
    assert says in one_line(error)


def test_own_arrays_are_trained_on_and_scored(tmp_path):
    """A full grid gives a code table of a full grid; other data under the same name is another run."""
    tiny = make_tiny_dataset()
    images = tiny.images(np.arange(60)).numpy()
    dataset = dislab.from_arrays(images, GRID, NAMES, name="tiny")
    options = {"out": tmp_path, "device": "cpu", "metrics": ["mig"]}
    run = dislab.run("pca", dataset, **options)
    assert "mig" in run.scores
    assert len(run.codes) == 60
    assert run.codes.full_grid
    assert dislab.run("pca", dislab.from_arrays(images, GRID, NAMES, name="tiny"), **options).path == run.path
    other = dislab.run("pca", dislab.from_arrays(255 - images, GRID, NAMES, name="tiny"), **options)
    assert other.path != run.path
    encoder = lambda batch: batch.flatten(1)[:, ::8]  # noqa: E731
    direct = dislab.evaluate(encoder, dataset=dataset, metrics=["mig"], seed=1)
    beside = dislab.evaluate(encoder, dataset=tiny, metrics=["mig"], seed=1)
    assert direct == beside


def test_texts_that_no_table_can_show_are_refused():
    tiny = make_tiny_dataset()
    for source in ("a\nb", "s" * 300, "\udcff", None):
        with pytest.raises(DislabError, match="the source of tiny is"):
            dislab.Dataset("tiny", source, tiny.space, tiny.image_shape, tiny.images, ["shape"])
    for name in ("a\nb", "f" * 300, "\udcff"):
        with pytest.raises(DislabError, match="a factor's name is"):
            dislab.from_arrays(noise(6, 8, 8), np.arange(6), [name])
