"""Hold-out: a dataset that trains on a part of its factor combinations and is scored on the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from dislab.data.dataset import Dataset
from dislab.data.space import FactorSpace
from dislab.errors import DislabError

NUMBER = re.compile(r"[+-]?(\d{1,9}\.?\d{0,18}|\.\d{1,18})", re.ASCII)
VALUES = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
SPACES = re.compile(r"\s*([=&~:,])\s*")  # only around the signs: a factor's name may contain spaces
FORMS = "write factor=0,2,5-7 (several joined by &), a part such as 0.2, or factor~factor:0.25"


def hold_out(dataset: Dataset, texts: str | Sequence[str], seed: int = 0) -> Dataset:
    """Return the dataset with a part of its factor combinations held out: kept from training, scored alone.

    This replaces the rows that the dataset holds out by itself, such as MNIST's last 20,000 images.

    Parameters
    ----------
    dataset : any dataset; all images of one combination of factor values stay together.
    texts : what is held out, each in one of three forms; of several texts, what any of them holds out.

        - "object_shape=3&object_hue=0,2,5-7": the rows that fulfil all the conditions.
        - "0.2": a random fifth of all combinations of factor values that the dataset has, rounded to a whole
          number of them. A larger part holds out what a smaller one does, and more.
        - "floor_hue~wall_hue:0.25": all but a band. The combinations in which the two values, each scaled to
          [0, 1] by the factor's highest value, differ by at most 0.25 are trained on. In this training data
          the two factors are correlated, as in Träuble et al. 2021 (On Disentangled Representations Learned
          from Correlated Data), who weigh combinations by a Gaussian of that difference.
    seed : decides the random parts: they are the same for every seed of a run, and on every machine.
    """
    if not isinstance(seed, int) or seed < 0:
        raise DislabError(f"the hold-out's seed is {seed!r}: it must be a whole number, 0 or more")
    texts = normalised(texts)
    if not texts:
        raise DislabError(f"nothing is said to be held out: {FORMS}")
    space = dataset.space
    factors = space.factors(np.arange(len(space)))
    held = np.zeros(len(space), bool)
    words = []
    for text in texts:
        if "=" in text:
            new = _conditions(text, space, factors)
        elif "~" in text:
            new = _outside_band(text, space, factors)
        else:
            new = _random_part(text, space, factors, seed)
            # The seed is a part of what was held out, and is named where it is not the usual one.
            text += f" seed {seed}" if seed else ""
        if not new.any():
            raise DislabError(f"hold-out '{text}' holds out no image of {dataset.name}")
        held |= new
        words.append(text)
    if held.all():
        raise DislabError(
            f"hold-out '{'; '.join(words)}' leaves no image of {dataset.name} to train on: hold out less"
        )
    return dataset.with_held_out(np.flatnonzero(held), "; ".join(words))


def normalised(texts: str | Sequence[str]) -> list[str]:
    """Return the hold-out's texts sorted, each once, without spaces around the signs."""
    texts = [str(texts)] if isinstance(texts, str | float) else texts
    return sorted({SPACES.sub(r"\1", text.strip()) for text in texts})


def _conditions(text: str, space: FactorSpace, factors: np.ndarray) -> np.ndarray:
    """Return whether each row fulfils "factor=values&factor=values", bool [N]."""
    fulfilled = np.ones(len(factors), bool)
    for condition in text.split("&"):
        name, sign, values = condition.partition("=")
        if not sign:
            raise _not_understood(text)
        (column,) = space.columns([name])
        fulfilled &= _wanted(text, values, name, space.sizes[column])[factors[:, column]]
    return fulfilled


def _wanted(text: str, values: str, name: str, size: int) -> np.ndarray:
    """Return whether "0,2,5-7" names each of a factor's values, bool [size]."""
    wanted = np.zeros(size, bool)
    for part in values.split(","):
        match = VALUES.fullmatch(part)
        if not match:
            raise _not_understood(text)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise DislabError(f"hold-out '{text}': the range {part} runs backwards")
        if last >= size:
            raise DislabError(
                f"hold-out '{text}': {name} has no value {last}, its values are 0 to {size - 1}"
            )
        wanted[first : last + 1] = True
    return wanted


def _outside_band(text: str, space: FactorSpace, factors: np.ndarray) -> np.ndarray:
    """Return whether a row's values in "factor~factor:most", scaled to [0, 1], differ by more, bool [N]."""
    names, _, most = text.partition(":")
    if names.count("~") != 1 or not NUMBER.fullmatch(most):
        raise _not_understood(text)
    bound = Fraction(most)
    if not 0 <= bound < 1:
        raise DislabError(f"hold-out '{text}': the difference {most} must be at least 0 and below 1")
    columns = space.columns(names.split("~"))
    for column in columns:
        if space.sizes[column] < 2:
            raise DislabError(f"hold-out '{text}': {space.names[column]} has a single value")
    # In whole numbers, |a / A - b / B| > bound is |a B - b A| > bound A B: in floating point, values just
    # on the edge (0.8 - 0.6 against 0.2) would fall on either side of it.
    top_a, top_b = (space.sizes[column] - 1 for column in columns)
    a, b = (factors[:, column] for column in columns)
    return np.abs(a * top_b - b * top_a) > int(bound * top_a * top_b)


def _random_part(text: str, space: FactorSpace, factors: np.ndarray, seed: int) -> np.ndarray:
    """Return whether each row belongs to the random part of all combinations of factor values, bool [N]."""
    if not NUMBER.fullmatch(text):
        raise _not_understood(text)
    part = Fraction(text)
    if not 0 < part < 1:
        raise DislabError(f"hold-out '{text}': a part of the factor combinations lies between 0 and 1")
    combination = np.arange(len(space))
    if not space.is_grid:
        # The shape of the inverse depends on numpy's version.
        combination = np.unique(factors, axis=0, return_inverse=True)[1].reshape(-1)
    count = combination.max() + 1
    # The bits of a bit generator are the same in every version of numpy; its permutations need not be.
    order = np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
    return np.isin(combination, order[: round(part * int(count))])


def _not_understood(text: str) -> DislabError:
    return DislabError(f"hold-out '{text}' is not understood: {FORMS}")
