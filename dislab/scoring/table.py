"""The code table: what a model says of every row of a dataset, and all that a metric ever sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dislab.data.space import Circle
from dislab.errors import DislabError
from dislab.registry import unknown_name

MOST_VALUES = 10_000_000  # of one factor: beyond that a column holds identifiers or measurements, not values


class EncoderFailed(DislabError):
    """An encoder raised, or returned what are no codes."""


class CodesOnDemand(np.lib.mixins.NDArrayOperatorsMixin):
    """Numbers float32 [N, D] of which a row is computed when it is first asked for, and kept.

    Indexing computes the rows that are named; whatever else an array can do computes all of them.

    Parameters
    ----------
    values : float32 [N, D], where `fill` puts the rows; finite ones.
    fill : called with positions int64 [R]; rows that it was called with before it need not compute again.
    """

    def __init__(self, values: np.ndarray, fill: Callable[[np.ndarray], None]):
        self._values, self._fill = values, fill
        self.shape, self.ndim, self.dtype = values.shape, values.ndim, values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key) -> np.ndarray:
        rows = key[0] if isinstance(key, tuple) else key
        self._fill(np.ravel(np.arange(len(self))[... if rows is None else rows]))
        return self._values[key]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        values = self[:]
        return values.astype(dtype, copy=bool(copy)) if dtype is not None or copy else values

    def __array_ufunc__(self, function, method, *inputs, **options):
        inputs = (np.asarray(one) if isinstance(one, CodesOnDemand) else one for one in inputs)
        return getattr(function, method)(*inputs, **options)

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self[:], name)


class CodeTable:
    """Codes and factors of N rows, on the host.

    Attributes
    ----------
    mean : float32 [N, D], mean of q(z|x) per row; a deterministic encoder's output. An array, or
        `CodesOnDemand` where only some rows may be asked for.
    logvar : float32 [N, D], log-variance of q(z|x), or None where the encoder gives none.
    factors : int64 [N, K], ground-truth factor values per row.
    names, sizes : K factor names and numbers of values.
    blocks : named slices of the code dimensions, such as {"content": slice(0, 10), "style": slice(10, 20)};
        or empty.
    labels : int64 [N, G], the class of each row's group (the value of the grouping factors) by each of G
        groupings, or None. A single one may be given as [N].
    full_grid : whether the rows are every combination of factor values, each once.
    circle : the circular factor, or None.
    tested : bool [N], the rows that a readout of the class is tested on, where the dataset parts them from
        those for its training; or None.
    reconstruction : float32 [R], -ln p(x|z) in nats per image of R rows drawn from the table, or None.
    ordered : whether `split` takes the rows in the given order instead of drawing them.
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
        ordered: bool = False,
    ):
        self.mean = _codes("codes", mean)
        self.factors = _factors(factors)
        if len(self.mean) != len(self.factors):
            raise DislabError(f"codes have {len(self.mean)} rows but factors have {len(self.factors)}")
        self.logvar = None if logvar is None else _codes("logvar", logvar)
        if self.logvar is not None and self.logvar.shape != self.mean.shape:
            raise DislabError(f"logvar is {list(self.logvar.shape)} but codes are {list(self.mean.shape)}")
        num_factors = self.factors.shape[1]
        self.names = tuple((f"factor_{k}" for k in range(num_factors)) if names is None else names)
        if len(self.names) != num_factors:
            raise DislabError(f"{len(self.names)} factor names for {num_factors} columns of factors")
        self.sizes = tuple(sizes or (int(column.max()) + 1 for column in self.factors.T))
        self.blocks = _blocks(blocks or {}, self.mean.shape[1])
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        if self.labels is not None:
            if self.labels.ndim == 1:
                self.labels = self.labels[:, None]
            if self.labels.ndim != 2 or len(self.labels) != len(self.mean):
                raise DislabError(f"labels are {list(self.labels.shape)} for {len(self.mean)} rows")
        self.full_grid = full_grid
        self.circle = circle
        self.tested = None if tested is None else np.asarray(tested, bool)
        self.reconstruction = None if reconstruction is None else np.asarray(reconstruction, np.float32)
        self.ordered = ordered
        self._sorted: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return (
            f"CodeTable({len(self)} rows, {self.mean.shape[1]} dimensions, factors {', '.join(self.names)})"
        )

    def split(
        self, rng: np.random.Generator, num_train: int, num_test: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows for training and for testing a readout: int64 [num_train], [num_test].

        A full grid is drawn from as the reference library does: independently, with replacement. Listed
        rows are drawn without replacement, so that the two sets are disjoint; where there are fewer than
        num_train + num_test, all are used in that proportion. An `ordered` table gives its first rows, then
        the next ones.
        """
        if self.full_grid and not self.ordered:
            return rng.integers(len(self), size=num_train), rng.integers(len(self), size=num_test)
        wanted = num_train + num_test
        if len(self) < wanted:
            num_train = max(1, len(self) * num_train // wanted)
            num_test = len(self) - num_train if num_test else 0
        rows = np.arange(len(self)) if self.ordered else rng.permutation(len(self))
        return rows[:num_train], rows[num_train : num_train + num_test]

    def sharing(self, rng: np.random.Generator, factor: int, rows: np.ndarray) -> np.ndarray:
        """For each of the rows (any shape) a row drawn uniformly from those that share its factor value."""
        order, first, count = self._sort(factor)
        value = self.factors[rows, factor]
        return order[first[value] + (rng.random(value.shape) * count[value]).astype(np.int64)]

    def _sort(self, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows sorted by a factor's value, and where each value's rows begin and how many they are."""
        if factor not in self._sorted:
            values = self.factors[:, factor]
            count = np.bincount(values, minlength=self.sizes[factor])
            order = np.argsort(values, kind="stable")
            self._sorted[factor] = order, np.concatenate([[0], np.cumsum(count)[:-1]]), count
        return self._sorted[factor]


def _blocks(blocks: Mapping[str, slice], num_dims: int) -> dict[str, slice]:
    for name, block in blocks.items():
        if not isinstance(block, slice) or block.step not in (None, 1):
            raise DislabError(
                f"block '{name}' is {block!r}: it must be a slice, such as slice(0, {num_dims})"
            )
        if not 0 <= (block.start or 0) < (num_dims if block.stop is None else block.stop) <= num_dims:
            raise DislabError(f"block '{name}' is {block}: the codes have dimensions 0 to {num_dims - 1}")
        kind, _, number = name.partition("_")
        if kind not in ("content", "style") or (number and not number.isdecimal()):
            raise unknown_name("block", name, ["content", "style", "content_1", "content_2"])
    return dict(blocks)


def _plain(array):
    """What other frameworks' tensors are as arrays; torch's may need its gradient taken off first."""
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


def _codes(what: str, array) -> np.ndarray | CodesOnDemand:
    if isinstance(array, CodesOnDemand):
        return array
    array = _plain(array)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        raise DislabError(f"{what} must be an array of numbers [N, D], not {array.dtype} {list(array.shape)}")
    array = np.ascontiguousarray(array, dtype=np.float32)
    check_finite(what, array, np.arange(len(array)))
    return array


def check_finite(what: str, array: np.ndarray, rows: np.ndarray) -> None:
    """Refuse numbers [B, D], which are those of the rows [B], if one is NaN or infinite."""
    if not np.isfinite(array).all():
        row, dimension = np.argwhere(~np.isfinite(array))[0]
        raise DislabError(
            f"{what} must be finite: dimension {dimension} is {array[row, dimension]} in row {rows[row]}"
        )


def _factors(array) -> np.ndarray:
    array = _plain(array)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise DislabError(f"factors must be an integer array [N, K], not {list(array.shape)}")
    if array.dtype.kind not in "iub":
        whole = array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.floor(array)).all()
        if not whole:
            raise DislabError(
                f"factors must be whole numbers 0, 1, 2, … per factor, not {array.dtype} values"
            )
    array = array.astype(np.int64)
    if array.min() < 0:
        raise DislabError(f"factors must not be negative: column {int(np.argwhere(array < 0)[0][1])} is")
    if array.max() > MOST_VALUES:
        column = int(np.argwhere(array > MOST_VALUES)[0][1])
        raise DislabError(
            f"factors must be 0, 1, 2, … per factor: column {column} goes up to {array[:, column].max()}"
        )
    return array
