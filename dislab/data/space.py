"""The factor space of a dataset: which row of the grid belongs to which factor values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dislab.errors import DislabError
from dislab.registry import unknown_name

MOST_CHARACTERS = 200  # of a factor's name
MOST_ROWS = 2**48  # of a full grid
MOST_VALUES = 10_000_000  # of a factor: a column with larger numbers holds identifiers or measurements


@dataclass(frozen=True)
class Circle:
    """A factor whose values go round a circle, such as an azimuth.

    Attributes
    ----------
    factor : its name; value v is the angle 2 pi v / steps.
    steps : values in a full turn: one less than the factor's size if the last value repeats the first.
    instance : the factor that says which object is seen, None for the combination of all other factors.
    only : (factor, value): the angle has a meaning only in rows with that value. Example: the heart of
        dSprites, the only one of its shapes that has no symmetry.
    """

    factor: str
    steps: int
    instance: str | None = None
    only: tuple[str, int] | None = None


class FactorSpace:
    """Names and sizes of K factors of variation, and the rows that they index.

    Factor k takes the values 0 .. sizes[k] - 1. A full grid has one row per combination of factor values, in
    mixed-radix order with the last factor fastest. That is the official order of dSprites, Shapes3D and
    MPI3D, and no labels are stored. A dataset without a grid, such as MNIST, gives its `values` int [N, K].
    `circle` is the circular factor, or None. The values of the factors named by `categorical` have no order.
    """

    def __init__(
        self,
        names: Sequence[str],
        sizes: Sequence[int],
        values: np.ndarray | None = None,
        circle: Circle | None = None,
        categorical: Sequence[str] = (),
    ):
        self.names = tuple(names)
        for name in self.names:
            if not isinstance(name, str) or not name.isprintable() or len(name) > MOST_CHARACTERS:
                short = ascii(name)[:60]
                raise DislabError(f"a factor's name is {short}: it must be a text that tables can show")
        self.sizes = tuple(int(size) for size in sizes)
        if len(self.names) != len(self.sizes):
            raise ValueError(f"{len(self.names)} factor names but {len(self.sizes)} sizes")
        if values is not None and (values.ndim != 2 or values.shape[1] != len(self.names)):
            raise ValueError(f"values must be [N, {len(self.names)}], not {list(values.shape)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"factor names must be different texts, not {', '.join(map(repr, self.names))}")
        if not self.sizes or min(self.sizes) < 1 or (values is None and math.prod(self.sizes) > MOST_ROWS):
            raise ValueError(f"sizes must be whole numbers of 1 or more, and not {list(self.sizes)}")
        if values is not None and not (
            len(values) and np.min(values) >= 0 and (np.max(values, axis=0) < self.sizes).all()
        ):
            raise ValueError("values must be 0, 1, 2, … and below the size of their factor")
        if circle is not None:
            if not isinstance(circle, Circle) or circle.steps < 1:
                raise ValueError(f"circle must be a dislab.Circle with steps of 1 or more, not {circle!r}")
            self.columns(
                [name for name in (circle.factor, circle.instance, *(circle.only or ())[:1]) if name]
            )
        self.columns(categorical)
        self._values = values
        self.circle, self.categorical = circle, tuple(categorical)

    def __len__(self) -> int:
        return int(np.prod(self.sizes)) if self._values is None else len(self._values)

    def __repr__(self) -> str:
        factors = (f"{name} {size}" for name, size in zip(self.names, self.sizes, strict=True))
        return f"FactorSpace({', '.join(factors)})"

    @property
    def is_grid(self) -> bool:
        """Return whether the rows are all combinations of factor values, each once."""
        return self._values is None

    def factors(self, rows) -> np.ndarray:
        """Return the factor values int64 [B, K] of the rows [B]."""
        rows = np.asarray(rows)
        if self._values is not None:
            return self._values[rows].astype(np.int64)
        return np.stack(np.unravel_index(rows, self.sizes), axis=-1).astype(np.int64, copy=False)

    def rows(self, factors) -> np.ndarray:
        """Return the rows int64 [B] of the factor values [B, K]; raise ValueError if this is no full grid."""
        if not self.is_grid:
            raise ValueError("only a full grid has exactly one row for each combination of factor values")
        return np.ravel_multi_index(tuple(np.asarray(factors).T), self.sizes).astype(np.int64)

    def columns(self, names: Sequence[str]) -> list[int]:
        """Return the columns of the named factors; raise DislabError if a name is unknown."""
        for name in names:
            if name not in self.names:
                raise unknown_name("factor", name, self.names)
        return [self.names.index(name) for name in names]

    def labels(self, names: Sequence[str], rows=None) -> np.ndarray:
        """Return a class label int64 [B] per row: the mixed-radix number of the named factors' values."""
        columns = self.columns(names)
        factors = self.factors(np.arange(len(self)) if rows is None else rows)
        return np.ravel_multi_index(tuple(factors[:, columns].T), [self.sizes[c] for c in columns])

    def labels_of(self, groupings: Sequence[Sequence[str]], rows=None) -> np.ndarray:
        """Return the class labels int64 [B, G] of the rows by each of G groupings, lists of factor names."""
        return np.stack([self.labels(names, rows) for names in groupings], axis=1)


def parse_groupings(group_by, default: Sequence[str]) -> list[list[str]]:
    """Return groupings, each a list of factor names whose combined value is a group.

    "a,b" or ["a", "b"] is one grouping by both factors, [["a"], ["b"]] is two, and None is the default.
    """
    if not group_by:
        return [list(default)]
    if isinstance(group_by, str):
        return [[name.strip() for name in group_by.split(",") if name.strip()]]
    group_by = list(group_by)
    if all(isinstance(names, str) for names in group_by):
        return [group_by]
    return [[names] if isinstance(names, str) else list(names) for names in group_by]
