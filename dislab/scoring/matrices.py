"""Matrices of abstract visual reasoning (van Steenkiste et al. 2019): panels with a rule, and six answers.

In a matrix of r relations, r factors are active: each is constant along every row, with a value drawn anew
for each row. The other factors follow no rule: in the first two rows none of them is constant in both, or
has three different values in both; in the third row they are free. The last panel is missing, and one of six
answers is it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dislab.errors import DislabError
from dislab.scoring.table import CodeTable

NUM_CONTEXT, NUM_ANSWERS = 8, 6
MOST_RELATIONS = 3
RELATIONS = {f"{way}{number}": (way, (number,)) for way in ("easy", "hard") for number in (1, 2, 3)}
RELATIONS["mixed"] = ("easy", (1, 2, 3))  # each number equally often
LEAST_VALUES = 3  # of a factor: a row may then have three different values
LEAST_ROWS = 4  # of a table that is no full grid, for each combination of values of three factors
MOST_VALUES = 10  # of a factor; those of larger factors are joined
# Numbers of values that the published code keeps of the factors of Shapes3D, by the sizes of the factors.
PUBLISHED_VALUES = {(10, 10, 10, 8, 4, 15): (10, 10, 10, 4, 4, 4)}
MOST_TRIES = 1_000  # for a part of a matrix


def allows_matrices(table: CodeTable) -> bool:
    """Return whether three factors or more vary, all that vary have enough values, and there are enough rows.

    The published code needs as many values as a row has panels.
    """
    columns, sizes = _in_play(table)
    values = [np.count_nonzero(np.bincount(table.factors[:, k])) for k in columns]
    if len(columns) < MOST_RELATIONS or min(values) < LEAST_VALUES:
        return False
    return table.full_grid or len(table) >= LEAST_ROWS * np.prod(np.sort(sizes)[-MOST_RELATIONS:])


def _in_play(table: CodeTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors that vary, int64 [K], and how many values of each are told apart in matrices."""
    columns = np.flatnonzero(np.ptp(table.factors, axis=0))
    sizes = np.array(table.sizes)
    most = PUBLISHED_VALUES.get(tuple(table.sizes), MOST_VALUES)
    return columns, np.minimum(sizes, most)[columns]


class Matrices(NamedTuple):
    """N matrices. Their panels are positions in `Panels`."""

    context: np.ndarray  # int64 [N, 8], row by row without the last panel
    answers: np.ndarray  # int64 [N, 6]
    label: np.ndarray  # int64 [N], which answer is right
    active: np.ndarray  # bool [N, K], the factors that are constant along every row


class Panels:
    """The rows of a code table that may be panels; `allows_matrices` says of which tables.

    A factor of n values is shown with m <= n of them: v = 0 .. m - 1 is shown as floor(v n / m). Of a full
    grid only rows with such values are panels, as in the published code. Of other tables all rows are, and
    a row stands for the next lower value that is shown. Factors that do not vary are left out.

    Attributes
    ----------
    rows : int64 [P], rows of the table.
    values : int64 [P, K], of their K factors that vary, 0 .. m - 1.
    sizes : int64 [K], numbers of values m.
    exact : whether all panels of a value look alike in that factor.
    """

    def __init__(self, table: CodeTable):
        columns, self.sizes = _in_play(table)
        values, is_shown = [], np.ones(len(table), bool)
        for k, number in zip(columns, self.sizes, strict=True):
            shown = np.arange(number) * table.sizes[k] // number
            values.append(np.searchsorted(shown, table.factors[:, k], side="right") - 1)
            is_shown &= shown[values[-1]] == table.factors[:, k]
        self.exact = table.full_grid or bool(is_shown.all())
        self.rows = np.flatnonzero(is_shown) if table.full_grid else np.arange(len(table))
        self.values = np.stack(values, axis=1)[self.rows]
        self._sorted: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def sharing(self, rng: np.random.Generator, values: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Return for each of B panels one drawn from those with its values of its active factors.

        Parameters
        ----------
        values : int64 [B, K].
        active : bool [B, K].

        Returns
        -------
        int64 [B], -1 where there is none.
        """
        drawn = np.full(len(values), -1)
        pattern = active @ (1 << np.arange(active.shape[1]))
        for number in np.unique(pattern):
            columns = np.flatnonzero(number >> np.arange(active.shape[1]) & 1)
            if number not in self._sorted:
                key = self._key(self.values, columns)
                counts = np.bincount(key, minlength=np.prod(self.sizes[columns]))
                self._sorted[number] = np.argsort(key, kind="stable"), np.cumsum(counts) - counts, counts
            order, first, counts = self._sorted[number]
            those = np.flatnonzero(pattern == number)
            key = self._key(values[those], columns)
            those, key = those[counts[key] > 0], key[counts[key] > 0]
            drawn[those] = order[first[key] + (rng.random(len(key)) * counts[key]).astype(np.int64)]
        return drawn

    def _key(self, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.ravel_multi_index(values[:, columns].T, self.sizes[columns])


def draw_matrices(panels: Panels, kind: str, number: int, rng: np.random.Generator) -> Matrices:
    """Return matrices of a kind, a key of RELATIONS.

    The wrong answers of an easy matrix are last panels of other matrices with as many relations: any panel,
    if it does not continue the rule. Those of a hard one differ from the right answer in one active factor,
    and in the others at random. The six answers differ from one another. The published code means to see to
    that, but its check does nothing; and where it is asked for hard matrices it makes easy ones.

    Raises
    ------
    DislabError : the table has no rows for such a matrix.
    """
    way, numbers = RELATIONS[kind]
    relations = rng.choice(numbers, number)
    active = rng.random((number, len(panels.sizes))).argsort(axis=1) < relations[:, None]
    grid = np.empty((number, 3, 3), np.int64)
    grid[:, 2] = _rows(panels, active, rng)
    todo = np.arange(number)
    for _ in range(MOST_TRIES):
        for row in range(2):
            grid[todo, row] = _rows(panels, active[todo], rng)
        todo = todo[~follows_rule(panels.values[grid[todo]], active[todo])]
        if not len(todo):
            break
    else:
        raise _impossible(kind)
    label = rng.integers(NUM_ANSWERS, size=number)
    right = grid[:, 2, 2]
    answers = np.empty((number, NUM_ANSWERS), np.int64)
    answers[:, 0] = right
    for place in range(1, NUM_ANSWERS):
        answers[:, place] = _wrong_answers(panels, way, answers[:, :place], active, rng)
    # The right answer changes places with the one at its position.
    every = np.arange(number)
    answers[every, 0] = answers[every, label]
    answers[every, label] = right
    return Matrices(grid.reshape(number, 9)[:, :NUM_CONTEXT], answers, label, active)


def follows_rule(values: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Return whether solved matrices follow their rule, bool [B].

    Parameters
    ----------
    values : int [B, 3, 3, K], of their panels' factors.
    active : bool [B, K], the factors that the rule says are constant along every row.
    """
    constant = (values == values[:, :, :1]).all(axis=2)  # [B, 3, K], in every row
    one, two, three = np.moveaxis(values, 2, 0)
    distinct = (one != two) & (one != three) & (two != three)
    free = ~constant[:, :2].all(axis=1) & ~distinct[:, :2].all(axis=1)
    return np.where(active, constant.all(axis=1), free).all(axis=1)


def answers_only(values: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Return the accuracies of two rules that see the answers alone: take what has most, or fewest in common.

    An answer has in common with the others as many values as it shares with them, factor by factor. Where
    several answers tie, each is taken equally often.

    Parameters
    ----------
    values : int [N, 6, K], of the answers' factors.
    label : int [N], the right answers.
    """
    shared = (values[:, :, None] == values[:, None]).sum(axis=(2, 3))
    return _largest(shared, label), _largest(-shared, label)


def last_row_only(panels: Panels, matrices: Matrices) -> float:
    """Return the accuracy of a rule that sees the answers and the two panels of the last row.

    It takes the answer that continues the row: that agrees with both panels in most factors. A factor of n
    values weighs ln n, because many values are rarely the same by chance.
    """
    row = panels.values[matrices.context[:, 6:]]
    agree = (panels.values[matrices.answers][:, :, None] == row[:, None]).all(axis=2)
    return _largest((agree * np.log(panels.sizes)).sum(axis=2).round(9), matrices.label)


def _largest(points: np.ndarray, label: np.ndarray) -> float:
    """Return how often the right answer has most points, of points [N, 6]; ties count in part."""
    best = points == points.max(axis=1, keepdims=True)
    return float((best[np.arange(len(label)), label] / best.sum(axis=1)).mean())


def reordered(context: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return contexts [B, 8] with their panels in another order in which the same rule holds.

    The first two rows may change places, and so may the panels within each row.
    """
    rows = rng.permuted(context[:, :6].reshape(-1, 2, 3), axis=2)
    turned = rng.random(len(rows)) < 0.5
    rows[turned] = rows[turned, ::-1]
    return np.hstack([rows.reshape(-1, 6), rng.permuted(context[:, 6:], axis=1)])


def _rows(panels: Panels, active: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return B rows of three panels that share the values of the active factors, int64 [B, 3]."""
    first = rng.integers(len(panels), size=len(active))
    return np.stack([first, *(panels.sharing(rng, panels.values[first], active) for _ in range(2))], axis=1)


def _wrong_answers(
    panels: Panels, way: str, before: np.ndarray, active: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return one wrong answer for each matrix, int64 [N]; before is int64 [N, A], the right answer first."""
    drawn = np.empty(len(before), np.int64)
    todo = np.arange(len(before))
    for _ in range(MOST_TRIES):
        right, rule = panels.values[before[todo, 0]], active[todo]
        if way == "hard":
            changed = right.copy()
            which = np.where(rule, rng.random(rule.shape), -1).argmax(axis=1)
            changed[np.arange(len(todo)), which] = rng.integers(panels.sizes[which])
            drawn[todo] = panels.sharing(rng, changed, rule)
        else:
            drawn[todo] = rng.integers(len(panels), size=len(todo))
        values = panels.values[drawn[todo]]
        follows = ((values == right) | ~rule).all(axis=1)
        repeats = (values[:, None] == panels.values[before[todo]]).all(axis=2).any(axis=1)
        todo = todo[follows | repeats | (drawn[todo] < 0)]
        if not len(todo):
            return drawn
    raise _impossible(way)


def _impossible(kind: str) -> DislabError:
    return DislabError(f"no {kind} matrix was found in {MOST_TRIES:,} tries: the table has too few rows")
