"""The best rows of a table, and those that a paired test over common seeds does not separate from them."""

from __future__ import annotations

import numpy as np
import pandas as pd

# What is said wherever the best are marked.
TEST = (
    "bold: the best mean, and each mean from which it differs by less than the 95% interval of a paired "
    "t-test over common seeds; a best of one seed is untested"
)
REFERENCES = ("oracle", "untrained")  # models that are a table's ceiling and floor, and are not ranked


def best_of(values: pd.DataFrame, direction: str) -> dict[str, str]:
    """Return the best rows for one score, each with why: "best", "tied" or "untested".

    The best row has the best mean over its seeds. Another row is "tied" if the 95 % interval of the mean of
    the differences, seed by seed, contains 0 (Student's t; no correction for several comparisons); this needs
    two common seeds. The best row is "untested" if no other row has two seeds in common with it.

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
    from scipy.special import stdtrit

    values = values.dropna(how="all")
    if direction not in ("up", "down") or len(values) < 2:
        return {}
    mean = values.mean(axis=1)
    best = mean.idxmax() if direction == "up" else mean.idxmin()
    differences = values - values.loc[best]
    number = differences.count(axis=1)
    is_tested = (number >= 2) & (values.index != best)
    quantile = stdtrit(np.maximum(number - 1, 1), 0.975)
    half = quantile * differences.std(axis=1) / np.sqrt(number)
    is_tied = is_tested & (differences.mean(axis=1).abs() <= half)
    is_equal = ~is_tested & (mean == mean[best])  # of other seeds, or of one
    why = "best" if is_tested.any() else "untested"
    return (
        {best: why}
        | dict.fromkeys(values.index[is_tied], "tied")
        | {row: "untested" for row in values.index[is_equal] if row != best}
    )
