"""Vectors and angles of the ray-cast twins.

A drawing must have the same bytes on every machine. IEEE 754 fixes + - * / sqrt, comparisons and floor to the
last bit; sums are added in a written-out order; sines and cosines, whose last bit depends on the library, are
rounded.
"""

import math
from typing import NamedTuple

import numpy as np

NEVER = np.inf  # the ray parameter of a miss
TINY = 1e-9


class Vector(NamedTuple):
    """Three coordinates, each a number or an array of one common shape."""

    x: np.ndarray | float
    y: np.ndarray | float
    z: np.ndarray | float


def dot(a, b) -> np.ndarray | float:
    """Return the inner product of two triples of coordinates, its terms added in a fixed order."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def beyond(a: Vector, length: np.ndarray | float, direction: Vector) -> Vector:
    """Return the point that lies `length` times the direction beyond a."""
    return Vector(a.x + length * direction.x, a.y + length * direction.y, a.z + length * direction.z)


def cosine_sine(angle: float) -> tuple[float, float]:
    """Return cosine and sine of an angle, rounded to nine decimals."""
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def away_from_zero(a: np.ndarray) -> np.ndarray:
    """Return the array with zeros moved aside, so that a ray along a face divides to a huge number."""
    return np.where(np.abs(a) < TINY, TINY, a)
