"""What an encoder may return, and the line that says what to return instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.distributions import Distribution, Independent, Normal

from dislab.data.arrays import as_array
from dislab.errors import DislabError
from dislab.scoring.table import EncoderFailed

# The names of the mean and of the log-variance in the outputs of other libraries.
MEANS, LOGVARS = ("embedding", "mean", "mu"), ("log_covariance", "logvar", "log_var")
CALL = "encoder(images)"
MOST_DESCRIBED = 6  # parts of an output that a message lists


def mean_and_logvar(returned, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return mean [B, D] and log-variance [B, D] or None of what an encoder returned for `count` images.

    An encoder may return an array or a tensor, a pair (mean, logvar), a `torch.distributions.Normal` or
    `Independent` of one, or an object or a mapping with one of MEANS and at most one of LOGVARS. Anything
    else raises EncoderFailed. The arrays are float32, or of the encoder's own type if float32 cannot hold
    all numbers of that.
    """
    parts = _parts(returned)
    if parts is not None:
        try:
            mean = as_array("codes", parts[0])
            logvar = None if parts[1] is None else as_array("logvar", parts[1])
        except DislabError as error:
            raise EncoderFailed(f"the encoder's output: {error}") from None
        arrays = [mean] if logvar is None else [mean, logvar]
        numbers = all(array.dtype.kind in "fiub" and array.shape == mean.shape for array in arrays)
        if numbers and mean.ndim == 2 and len(mean) == count and mean.size:
            mean, *logvars = (
                array.astype(np.float32, copy=False) if np.can_cast(array.dtype, np.float32) else array
                for array in arrays
            )
            return mean, logvars[0] if logvars else None
    remedy = _remedy_by_type(returned, count) if parts is None else _remedy_by_shape(mean, logvar, parts[2])
    raise EncoderFailed(
        f"the encoder returned {describe(returned)} for {count} images: it must return codes [{count}, D], "
        f"or a pair (mean, logvar) of such arrays"
        + (f", for example by lambda images: {remedy}" if remedy else "")
    )


def _is_array(value) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "toarray")  # dense, or a sparse one of scipy


def _is_sequence(value) -> bool:
    return isinstance(value, tuple | list) and not hasattr(value, "_fields")  # fields have names of their own


def _parts(returned) -> tuple | None:
    """Return the mean, the log-variance or None, and Python for the mean; None for an unknown output."""
    if _is_array(returned):
        return returned, None, CALL
    if _is_sequence(returned):
        arrays = len(returned) == 2 and _is_array(returned[0])
        accepted = arrays and (returned[1] is None or _is_array(returned[1]))
        return (*returned, f"{CALL}[0]") if accepted else None
    if isinstance(returned, Distribution):
        while isinstance(returned, Independent):
            returned = returned.base_dist
        normal = isinstance(returned, Normal)
        return (returned.mean, 2 * returned.stddev.log(), f"{CALL}.mean") if normal else None
    named = returned if isinstance(returned, Mapping) else None
    if named is None:
        named = {name: getattr(returned, name, None) for name in (*MEANS, *LOGVARS)}
    # An attribute that is no array is a method, such as a distribution's `mean`, or is left empty.
    means, logvars = ([name for name in known if _is_array(named.get(name))] for known in (MEANS, LOGVARS))
    if len(means) != 1 or len(logvars) > 1:
        return None
    mean = f'{CALL}["{means[0]}"]' if named is returned else f"{CALL}.{means[0]}"
    return named[means[0]], named[logvars[0]] if logvars else None, mean


def _remedy_by_shape(mean: np.ndarray, logvar: np.ndarray | None, expression: str) -> str | None:
    """Return Python that makes codes of arrays of wrong shapes; None if nothing is known to."""
    if mean.ndim == 1:
        return f"{expression}[:, None]"
    if mean.ndim > 2 and logvar is not None and expression == f"{CALL}[0]":
        return f"[part.reshape(len(images), -1) for part in {CALL}]"
    if mean.ndim > 2:
        return f"{expression}.reshape(len(images), -1)"
    return None if logvar is None else expression


def _remedy_by_type(returned, count: int) -> str | None:
    """Return Python that makes codes of an output of unknown form; None if nothing is known to."""
    if isinstance(returned, Iterator):
        return f"np.stack([*{CALL}])"
    if _is_sequence(returned):
        if len(returned) == count and getattr(returned[0], "ndim", 1) < 2:  # a code per image
            return f"np.stack([*{CALL}])"
        inner = [i for i, part in enumerate(returned) if not _is_array(part) and _parts(part) is not None]
        if len(returned) == 3 and not inner:
            return f"{CALL}[1:] if it returns (z, mean, logvar)"
        return f"{CALL}[{inner[0] if inner else 0}]" if returned else None
    if isinstance(returned, Distribution):
        return f"{CALL}.mean"
    if isinstance(returned, Mapping):
        return f'{CALL}["NAME"] with the name of the codes' if returned else None
    return f"{CALL}.NAME with the name of the codes" if _public(returned) else None


def _public(value) -> dict:
    """Return the public attributes of an object by their names."""
    named = value._asdict() if hasattr(value, "_asdict") else getattr(value, "__dict__", {})
    return {name: part for name, part in named.items() if name[0] != "_"}


def check_shapes(method: Callable, returned: object, *shapes: Sequence[int]) -> None:
    """Raise DislabError if a model's method did not return tensors of floats of these shapes."""
    parts = returned if isinstance(returned, tuple) else (returned,)
    are_tensors = all(isinstance(part, torch.Tensor) and part.is_floating_point() for part in parts)
    if not are_tensors or [[*part.shape] for part in parts] != [[*shape] for shape in shapes]:
        wanted = " and ".join(f"float {[*shape]}" for shape in shapes)
        name = getattr(method, "__qualname__", "a method")
        raise DislabError(f"{name} must return {wanted}, not {' and '.join(map(describe, parts))}")


def describe(value, nested: bool = False) -> str:
    """Return the type of an output, and the types and shapes of its parts."""
    if _is_array(value):
        kind = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
        return f"{kind} {list(value.shape)}"
    if value is None:
        return "None"
    name = type(value).__name__
    if nested:
        return name
    if _is_sequence(value):
        texts = [describe(part, nested=True) for part in value]
    else:
        named = value if isinstance(value, Mapping) else _public(value)
        texts = [f"{key} {describe(part, nested=True)}" for key, part in named.items()]
    more = ", …" if len(texts) > MOST_DESCRIBED else ""
    return f"{name} ({', '.join(texts[:MOST_DESCRIBED])}{more})" if texts else name
