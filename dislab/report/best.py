"""The best rows of a table, and those that Welch's test does not tell from them.

Two rows of at least two seeds each are apart if the 95 % interval of the difference of their means, with the
degrees of freedom of Welch and Satterthwaite, does not contain 0. A row of one seed is never tested.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

# What is said wherever the best are marked.
TEST = (
    "bold: the best mean, and each mean whose difference from it has a 95% interval that contains 0 (Welch's "
    "test over seeds); a best of one seed is untested"
)
REFERENCES = ("oracle", "untrained")  # models that are a table's ceiling and floor, and are not ranked


def best_of(values: pd.DataFrame, direction: str) -> dict[str, str]:
    """Return the best rows for one score, each with why: "best", "tied" or "untested".

    The best row has the best mean over its seeds. Another row is "tied" if it is not apart from the best, see
    `apart`; both need two seeds. The best row is "untested" if it, or each of the others, has one seed. There
    is no correction for several comparisons.

    Parameters
    ----------
    values : rows by seeds, NaN where a row lacks a seed; of rows that may be compared.
    direction : "up" or "down" is better; otherwise no row is the best.

    Examples
    --------
    >>> values = pd.DataFrame({0: [0.5, 0.4, 0.1], 1: [0.6, 0.7, 0.2]}, index=["a", "b", "c"])
    >>> best_of(values, "up")
    {'a': 'best', 'b': 'tied'}
    """
    values = values.dropna(how="all")
    if direction not in ("up", "down") or len(values) < 2:
        return {}
    mean, std, n = values.mean(axis=1), values.std(axis=1), values.count(axis=1)
    best = mean.idxmax() if direction == "up" else mean.idxmin()
    is_tested = (n > 1) & (n[best] > 1) & (values.index != best)
    is_tied = is_tested & ~apart(mean, std, n, mean[best], std[best], n[best])
    is_equal = ~is_tested & (mean == mean[best])  # of one seed
    why = "best" if is_tested.any() else "untested"
    return (
        {best: why}
        | dict.fromkeys(values.index[is_tied], "tied")
        | {row: "untested" for row in values.index[is_equal] if row != best}
    )


def apart(mean, std, n, other_mean, other_std, other_n):
    """Return whether Welch's test tells rows apart at 5 %, for numbers or arrays of them.

    Parameters
    ----------
    mean, std, n : of the seeds of a row; the standard deviation has ddof 1. With n = 1 the result is False.
    other_mean, other_std, other_n : of the row, or rows, it is compared with.
    """
    from scipy.special import stdtrit

    first, second = np.square(std) / n, np.square(other_std) / other_n
    error = np.sqrt(first + second)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (first + second) ** 2 / (first**2 / (n - 1) + second**2 / (other_n - 1))
        half = np.where(error == 0, 0, stdtrit(freedom, 0.975) * error)
        return np.abs(mean - other_mean) > half
