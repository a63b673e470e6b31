"""The code table: codes and factors of the rows of a dataset. It is all that a metric ever sees."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dislab.data.arrays import as_array, as_factors, as_quantities
from dislab.data.space import Circle
from dislab.errors import DislabError, DislabWarning
from dislab.registry import unknown_name

# Most that float32 may change a code by, as a part of its dimension's range. Rounding by a hundredth of that
# was measured to change DCI by 0.003, as another seed does; by a tenth of it 0.016. Other scores changed by
# less than 1e-4.
MOST_ROUNDED = 1e-3


class EncoderFailed(DislabError):
    """An encoder raised an error, or did not return codes."""


class NotFinite(EncoderFailed):
    """An encoder returned NaN or an infinite number."""


class CodesOnDemand(np.lib.mixins.NDArrayOperatorsMixin):
    """An array float32 [N, D] whose rows are computed when they are first read.

    Indexing computes the rows that it names. Every other operation of an array computes all rows. What is
    returned is a copy, which is read-only where an array would return a view.
    `fill` is called with positions int64 [R] before these rows are read, and writes numbers to `values` that
    `as_float32` accepts. It need not compute again the rows that it has computed before.
    """

    def __init__(self, values: np.ndarray, fill: Callable[[np.ndarray], None]):
        self._values, self._fill = values, fill
        self.shape, self.ndim, self.dtype = values.shape, values.ndim, np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key) -> np.ndarray:
        rows = key[0] if isinstance(key, tuple) else key
        self._fill(np.ravel(np.arange(len(self))[... if rows is None else rows]))
        values = self._values[key]
        if not np.may_share_memory(values, self._values):
            return values.astype(np.float32, copy=False)
        values = values.astype(np.float32)
        values.flags.writeable = False
        return values

    def __setitem__(self, key, value):
        raise ValueError("assignment destination is read-only")  # in numpy's words

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if any(one is self for one in options.get("out", ())):
            raise ValueError("output array is read-only")
        arrays = (one[:] if isinstance(one, CodesOnDemand) else one for one in inputs)
        return getattr(ufunc, method)(*arrays, **options)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self[:], dtype, copy=copy)

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self[:], name)


class Sample(NamedTuple):
    """Training and test rows that were drawn from a code table for a metric."""

    codes: np.ndarray  # float32 [N, D]
    factors: np.ndarray  # int64 [N, V] or float64, the V factors that vary in the training rows
    test_codes: np.ndarray  # float32 [M, D]
    test_factors: np.ndarray  # the same [M, V]
    columns: np.ndarray  # int64 [V], which of the table's K factors these are
    num_factors: int  # K

    def per_factor(self, values) -> np.ndarray:
        """Return values [..., V] for all factors, object [..., K], with None for those that do not vary."""
        return spread(values, self.columns, self.num_factors)


def spread(values, positions: np.ndarray, length: int) -> np.ndarray:
    """Return an object array [..., length] with the values [..., n] at their positions and None elsewhere.

    `positions` are int [n], or bool [length] with n times True.
    """
    whole = np.full((*np.shape(values)[:-1], length), None)
    whole[..., positions] = values
    return whole


def varies(codes: np.ndarray) -> np.ndarray:
    """Return which columns of float32 codes [N, D] vary by more than their last digits, bool [D]."""
    low, high = codes.min(axis=0).astype(np.float64), codes.max(axis=0).astype(np.float64)
    return high - low > 4 * np.finfo(np.float32).eps * np.maximum(np.abs(low), np.abs(high))


def by_value(values: np.ndarray) -> np.ndarray:
    """Return the rows in the order of their values, int [N] and not negative; ties stay in their order."""
    # Numbers of 16 bits are sorted in a tenth of the time.
    return np.argsort(values.astype(np.uint16) if values.max() < 2**16 else values, kind="stable")


def rows_by_value(values: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each value that occurs, ascending, of values int [N] that are not negative."""
    counts = np.bincount(values)
    return np.split(by_value(values), np.cumsum(counts[counts > 0])[:-1])


def no_factor_varies(rows: str) -> DislabError:
    """Return the error of a metric for which every factor is constant in the rows that it uses."""
    return DislabError(f"it needs a factor that varies, but all are constant in the {rows}")


class CodeTable:
    """Codes and factors of N rows, in the host's memory.

    Attributes
    ----------
    mean : float32 [N, D], the mean of q(z|x) of every row, or the output of a deterministic encoder. An
        array, or `CodesOnDemand` if a metric may need some of the rows only.
    logvar : float32 [N, D], the log-variance of q(z|x), or None if the encoder gives none.
    factors : int64 [N, K], the ground-truth factor values of every row. With `real_factors` they may be
        real numbers: they are then float64.
    names, sizes : names of the K factors and their numbers of values; there are no sizes of real factors.
    blocks : named slices of the code dimensions, such as {"content": slice(0, 10), "style": slice(10, 20)},
        or an empty dict.
    labels : int64 [N, G], the class of each row (the value of the grouping factors) in each of G groupings,
        or None. A single grouping may be passed as [N].
    full_grid : whether the rows are all combinations of factor values, each once.
    circle : the circular factor, or None.
    tested : bool [N], the rows that a readout of the class is tested on, if the dataset separates them from
        the rows for training; else None.
    reconstruction : float32 [R], -ln p(x|z) in nats per image of R rows drawn from the table, or None.
    swaps : int64 [S, 5], what a judge read from images decoded from swapped codes, see
        `dislab.scoring.swaps.swaps`, or None.
    ordered : whether `split` takes the rows in their order instead of drawing them.
    """

    def __init__(
        self,
        mean: np.ndarray,
        factors: np.ndarray,
        *,
        logvar: np.ndarray | None = None,
        names: tuple[str, ...] | None = None,
        sizes: tuple[int, ...] | None = None,
        blocks: Mapping[str, slice] | None = None,
        labels: np.ndarray | None = None,
        full_grid: bool = False,
        circle: Circle | None = None,
        tested: np.ndarray | None = None,
        reconstruction: np.ndarray | None = None,
        swaps: np.ndarray | None = None,
        ordered: bool = False,
        real_factors: bool = False,
    ):
        self.mean = _codes("codes", mean)
        self.factors = as_quantities(factors) if real_factors else as_factors(factors)
        if len(self.mean) != len(self.factors):
            raise DislabError(f"codes have {len(self.mean)} rows but factors have {len(self.factors)}")
        self.logvar = None if logvar is None else _codes("logvar", logvar)
        if self.logvar is not None and self.logvar.shape != self.mean.shape:
            raise DislabError(f"logvar is {list(self.logvar.shape)} but codes are {list(self.mean.shape)}")
        num_factors = self.factors.shape[1]
        self.names = tuple((f"factor_{k}" for k in range(num_factors)) if names is None else names)
        if len(self.names) != num_factors:
            raise DislabError(f"{len(self.names)} factor names for {num_factors} columns of factors")
        columns = self.factors.T if self.factors.dtype.kind == "i" else ()
        self.sizes = tuple(sizes or (int(column.max()) + 1 for column in columns))
        self.blocks = _blocks(blocks or {}, self.mean.shape[1])
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        if self.labels is not None:
            if self.labels.ndim == 1:
                self.labels = self.labels[:, None]
            if self.labels.ndim != 2 or len(self.labels) != len(self.mean):
                raise DislabError(f"labels are {list(self.labels.shape)} for {len(self.mean)} rows")
        self.full_grid, self.circle, self.ordered = full_grid, circle, ordered
        self.tested = None if tested is None else np.asarray(tested, bool)
        self.reconstruction = None if reconstruction is None else np.asarray(reconstruction, np.float32)
        self.swaps = None if swaps is None else np.asarray(swaps, np.int64)
        self._sorted: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return (
            f"CodeTable({len(self)} rows, {self.mean.shape[1]} dimensions, factors {', '.join(self.names)})"
        )

    def to_read(self) -> CodeTable:
        """Return a copy for a metric. Its arrays are its own and read-only: no metric changes this table."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            own = copy.copy(value)
            if isinstance(own, np.ndarray):
                # The memory is its own, too: torch.from_numpy writes to read-only arrays.
                own.flags.writeable = False
            setattr(other, name, own)
        other._sorted = {}
        return other

    @cached_property
    def num_varying(self) -> int:
        """Return how many factors vary in the rows."""
        return int(np.count_nonzero(np.ptp(self.factors, axis=0)))

    @property
    def viewpoint(self) -> np.ndarray | None:
        """Return azimuth, elevation and theta of the rows in degrees, float64 [N, 3], or None.

        These are factors of whole degrees: the circular factor azimuth of 360 steps, an elevation of 181
        values from -90 on, and theta, the rotation in the plane of the image, of 360; without it theta is 0.
        """
        sizes = dict(zip(self.names, self.sizes, strict=True))
        in_degrees = sizes.get("elevation") == 181 and sizes.get("theta", 360) == 360
        if (
            self.circle is None
            or (self.circle.factor, self.circle.steps) != ("azimuth", 360)
            or not in_degrees
        ):
            return None
        values = dict(zip(self.names, self.factors.T.astype(np.float64), strict=True))
        theta = values.get("theta", np.zeros(len(self)))
        return np.column_stack([values["azimuth"], values["elevation"] - 90, theta])

    def split(
        self, rng: np.random.Generator, num_train: int, num_test: int = 0, *, distinct: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows for training and for testing a readout, int64 [num_train] and [num_test].

        Rows of a full grid are drawn independently, with replacement, as in the reference library. Listed
        rows are drawn without replacement, so that the two sets are disjoint; if there are fewer than
        num_train + num_test, all are used in that proportion. An `ordered` table gives its first rows for
        training and the next ones for testing. With `distinct`, rows of a full grid are drawn without
        replacement too: a row drawn twice is its own nearest neighbour, and one in both sets measures memory.
        """
        if self.full_grid and not self.ordered and not distinct:
            return rng.integers(len(self), size=num_train), rng.integers(len(self), size=num_test)
        wanted = num_train + num_test
        if len(self) < wanted:
            num_train = max(1, len(self) * num_train // wanted)
            num_test = len(self) - num_train if num_test else 0
        rows = np.arange(len(self)) if self.ordered else rng.permutation(len(self))
        return rows[:num_train], rows[num_train : num_train + num_test]

    def draw(
        self, rng: np.random.Generator, num_train: int, num_test: int | None = None, *, distinct: bool = False
    ) -> Sample:
        """Return codes and varying factors of rows for training and for testing, drawn by `split`.

        `num_test` is None for a metric that has no test rows. DislabError is raised if no factor varies in
        the training rows, or test rows are wanted and there are none.
        """
        train, test = self.split(rng, num_train, num_test or 0, distinct=distinct)
        columns = np.flatnonzero(np.ptp(self.factors[train], axis=0))
        if not len(columns):
            raise no_factor_varies(f"{len(train)} rows used")
        if num_test is not None and not len(test):
            raise DislabError(f"it needs rows to test on, but all {len(train)} rows are used for training")
        factors, test_factors = (self.factors[rows][:, columns] for rows in (train, test))
        codes, test_codes = self.mean[train], self.mean[test]
        return Sample(codes, factors, test_codes, test_factors, columns, self.factors.shape[1])

    def sharing(self, rng: np.random.Generator, factor: int, rows: np.ndarray) -> np.ndarray:
        """Return for each of the rows (any shape) one drawn uniformly from those with its factor value."""
        if factor not in self._sorted:
            values = self.factors[:, factor]
            count = np.bincount(values, minlength=self.sizes[factor])
            # The rows sorted by the factor's value, and the first position and the count of each value.
            self._sorted[factor] = by_value(values), np.cumsum(count) - count, count
        order, first, count = self._sorted[factor]
        value = self.factors[rows, factor]
        return order[first[value] + (rng.random(value.shape) * count[value]).astype(np.int64)]


def _blocks(blocks: Mapping[str, slice], num_dims: int) -> dict[str, slice]:
    for name, block in blocks.items():
        ends = (block.start, block.stop) if isinstance(block, slice) else ("",)
        if not all(isinstance(end, int | None) for end in ends) or block.step not in (None, 1):
            raise DislabError(
                f"block '{name}' is {block!r}: it must be a slice, such as slice(0, {num_dims})"
            )
        if not 0 <= (block.start or 0) < (num_dims if block.stop is None else block.stop) <= num_dims:
            raise DislabError(f"block '{name}' is {block}: the codes have dimensions 0 to {num_dims - 1}")
        kind, _, number = str(name).partition("_")
        if kind not in ("content", "style") or (number and not number.isdecimal()):
            raise unknown_name("block", str(name), ["content", "style", "content_1", "content_2"])
    return dict(blocks)


def _codes(what: str, array) -> np.ndarray | CodesOnDemand:
    if isinstance(array, CodesOnDemand):
        return array
    array = as_array(what, array)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        raise DislabError(f"{what} must be an array of numbers [N, D], not {array.dtype} {list(array.shape)}")
    check_finite(what, array, np.arange(len(array)))
    return as_float32(what, array)


def check_finite(what: str, array: np.ndarray, rows: np.ndarray, error: type = DislabError) -> None:
    """Raise if one of the numbers [B, D], which belong to the rows [B], is NaN or infinite."""
    if not np.isfinite(array).all():
        row, dimension = np.argwhere(~np.isfinite(array))[0]
        raise error(
            f"{what} must be finite: dimension {dimension} is {array[row, dimension]} in row {rows[row]}"
        )


def as_float32(what: str, array: np.ndarray, error: type = DislabError, quiet: bool = False) -> np.ndarray:
    """Return finite numbers [N, D] as float32; raise if that rounds away what tells the rows apart.

    Codes may be rounded by MOST_ROUNDED of their dimension's range, and log-variances by as many nats; from a
    hundredth of that on, a DislabWarning says so, unless it is `quiet`.
    """
    if np.can_cast(array.dtype, np.float32):
        return np.ascontiguousarray(array, np.float32)
    low, high = array.min(axis=0), array.max(axis=0)
    with np.errstate(over="ignore"):
        rounded, span = np.array(array, np.float32, order="C"), high - low
    largest = np.abs(rounded).max(axis=0)
    # A whole number above 2**53 is compared as a float64, which may not hold it either.
    exact = (rounded == array).all(axis=0) & (largest <= 2**53)
    scale = np.ones(len(exact))
    if what != "logvar":
        # A constant that was computed with rounding varies in its last digits, which hold nothing to keep.
        last_digits = 1e4 * np.finfo(array.dtype).eps if array.dtype.kind == "f" else 0
        scale = np.where(span <= last_digits * largest, np.inf, span)
    error_of_rounding = np.where(exact, 0, np.spacing(largest).astype(np.float64) / 2)
    lost = (error_of_rounding > MOST_ROUNDED * scale) | np.isinf(largest)
    noted = lost | (error_of_rounding > MOST_ROUNDED / 100 * scale)
    if noted.any():
        dimension = int(np.argmax(lost if lost.any() else noted))
        values = f"dimension {dimension} goes from {low[dimension]:.10g} to {high[dimension]:.10g}"
        if what == "logvar" and lost.any():
            raise error(f"logvar must be log-variances, but {values}")
        remedy = "codes - codes.mean(axis=0)"
        if not 1e-30 < span[dimension] < 1e30:
            remedy = f"({remedy}) / codes.std(axis=0)"
        text = f"codes are scored as float32, which is too coarse here: {values}; pass {remedy}"
        if lost.any():
            raise error(text)
        if what != "logvar" and not quiet:
            warnings.warn(text.replace("too coarse", "coarse"), DislabWarning, stacklevel=2)
    return rounded
