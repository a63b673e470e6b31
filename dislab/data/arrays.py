"""A user's arrays, from any framework, as numpy arrays; factors as whole numbers."""

from __future__ import annotations

import numbers
import sys
import textwrap

import numpy as np

from dislab.data.space import MOST_VALUES
from dislab.errors import DislabError


def as_array(what: str, values) -> np.ndarray:
    """Return values as a numpy array, without a copy if they are one; raise DislabError if they cannot be.

    Tensors may lie on any device, be sparse, require a gradient, or be of a precision that numpy lacks. An
    array of Python objects, such as pandas makes of columns that may lack values, gets the type of the
    numbers in it. A value that is masked or missing is an error.
    """
    parts = values if isinstance(values, list | tuple) else [values]
    if any(np.ma.is_masked(part) for part in parts):
        raise DislabError(f"{what} must be numbers, but some are masked: leave their rows out")
    try:
        torch = sys.modules.get("torch")  # not imported for this: there is no tensor without it
        if torch is not None and isinstance(values, torch.Tensor):
            if values.dtype.is_floating_point and values.dtype.itemsize < 4:
                values = values.float()
            values = values.to_dense().numpy(force=True)
        array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
        if array.dtype == object:
            array = np.asarray(array.tolist())
    except Exception as error:  # such as rows of different lengths; every framework has its own errors
        reason = " ".join(f"{error}".split())
        raise DislabError(f"{what} cannot be read as one array: {reason}") from None
    if array.dtype == object:
        other = next((value for value in array.flat if not isinstance(value, numbers.Real)), array.flat[0])
        raise DislabError(f"{what} must be numbers, but hold {textwrap.shorten(repr(other), 60)}")
    return array


def as_quantities(values) -> np.ndarray:
    """Return factors [N, K] or [N] as int64 [N, K] if all are 0, 1, 2, …, and as float64 [N, K] if not.

    DislabError is raised if they are no finite numbers.
    """
    try:
        return as_factors(values)
    except DislabError:
        array = as_array("factors", values)
        factors = array[:, None] if array.ndim == 1 else array
        if factors.ndim != 2 or 0 in factors.shape or factors.dtype.kind not in "fi":
            raise
        if not np.isfinite(factors).all():
            raise
        return factors.astype(np.float64)


def as_factors(values, remedies: str = "") -> np.ndarray:
    """Return factors [N, K] or [N] as int64 [N, K]; raise DislabError if they are not 0, 1, 2, ….

    `remedies` is added to the error of a number that is not whole.
    """
    array = as_array("factors", values)
    factors = array[:, None] if array.ndim == 1 else array
    if factors.ndim != 2 or 0 in factors.shape:
        raise DislabError(f"factors must be whole numbers [N, K], not {array.dtype} {list(array.shape)}")
    factors = factors.astype(np.float32) if factors.dtype == np.float16 else factors
    right = np.zeros(factors.shape, bool)
    if factors.dtype.kind in "fiub":
        right = (factors >= 0) & (factors <= MOST_VALUES)  # false for NaN
    if factors.dtype.kind == "f":
        right &= factors == np.floor(factors)
    if not right.all():
        row, column = np.unravel_index(np.argmin(right), right.shape)
        wrong = factors[row, column].item()
        remedy = f"np.unique(factors{'[:, k]' if array.ndim == 2 else ''}, return_inverse=True)[1]"
        raise DislabError(
            f"factors must be whole numbers 0, 1, 2, … per factor, but {wrong!r} is in row {row}, "
            f"column {column}"
            + (f": number a factor's values by {remedy}{remedies}" if wrong == wrong else "")
        )
    return factors.astype(np.int64)
