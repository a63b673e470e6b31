"""Images of a user's own, for the tests of arrays and of folders."""

import numpy as np


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
