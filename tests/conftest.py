"""What several test files share: a dataset of 60 small images whose pixels follow from three factors."""

import dislab  # noqa: F401, I001  (before torch: it says how torch's threads wait)

import numpy as np
import pytest
import torch

from dislab.runs import workers
from dislab.data.dataset import Dataset
from dislab.data.space import FactorSpace

NAMES, SIZES, IMAGE_SHAPE = ("shape", "size", "position"), (4, 3, 5), (1, 16, 16)


def make_tiny_dataset(held_out: np.ndarray | None = None) -> Dataset:
    """The full grid of three factors; an image is a bright bar whose row, height and column they decide."""
    space = FactorSpace(NAMES, SIZES)
    images = torch.zeros(len(space), *IMAGE_SHAPE, dtype=torch.uint8)
    for row, (shape, size, position) in enumerate(space.factors(np.arange(len(space)))):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 255 - 20 * shape

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return images[rows]

    return Dataset("tiny", "own", space, IMAGE_SHAPE, draw, ["shape"], held_out=held_out)


@pytest.fixture(scope="session", autouse=True)
def one_at_a_time():
    """Runs are done in this process, which knows what the tests register, unless a test says --jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "usual_jobs", lambda device: 1)
        yield


@pytest.fixture
def tiny_dataset() -> Dataset:
    return make_tiny_dataset()
