"""The aggregate posterior q(z) = 1/N Σ_n q(z|n) of a code table: its densities and entropies, in nats.

Each code dimension has a mixture of N Normals on a line. Its density is computed from all rows at once, on a
grid, by a fast Fourier transform: no row and no z is sampled. Only the joint density of all dimensions is
summed row by row, at given z.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np

from dislab.errors import DislabError, DislabWarning
from dislab.scoring.table import CodeTable

REACH = 8.0  # standard deviations by which a grid goes beyond the outermost means; 1e-15 is left out
STEPS = 4  # grid points per standard deviation of the narrowest row
FINEST = 8_192  # standard deviations are at least 1 / FINEST of what their dimension spans: grids stay short
RATIO = 1.2  # of the variances of neighbouring levels, among which a row is shared
HIGHEST_LOGVAR = 100.0
ROWS, SAMPLES = 2048, 64  # of one block of pairs (z, row): 1 MB in float64, so that it stays in the cache


class Posterior(NamedTuple):
    """q(z|n) of every row."""

    mean: np.ndarray  # float64 [N, D]
    variance: np.ndarray
    widened: float  # the share of the N D Normals whose standard deviation was raised


def posterior(table: CodeTable) -> Posterior:
    """Return the Normals of a code table that has log-variances; none may be above 100.

    Standard deviations below 1 / FINEST of what a dimension spans, with REACH standard deviations beyond the
    outermost means, are raised to that, with a warning: the density of an almost deterministic code cannot be
    resolved by a grid or a sum.
    """
    if table.logvar.max() > HIGHEST_LOGVAR:
        row, dimension = np.argwhere(table.logvar > HIGHEST_LOGVAR)[0]
        raise DislabError(
            f"the log-variance of dimension {dimension} is {table.logvar[row, dimension]:g} in row {row}: "
            f"above {HIGHEST_LOGVAR:g} its Normal has a density of almost 0"
        )
    mean = table.mean.astype(np.float64)
    deviation = np.exp(0.5 * table.logvar.astype(np.float64))
    span = (mean + REACH * deviation).max(axis=0) - (mean - REACH * deviation).min(axis=0)
    # If even that is less than the grid's points can be apart (logvar is -1000, or means are 1e30), the limit
    # is the resolution of float64.
    lowest = np.maximum(span / FINEST, 2 * STEPS * np.spacing(np.abs(mean).max(axis=0) + 1e-30))
    narrow = deviation < lowest
    if narrow.any():
        warnings.warn(
            f"{np.count_nonzero(narrow):,} of the {narrow.size:,} Normals q(z_d|x) are narrower "
            f"than 1/{FINEST:,} of what their dimension spans: they are widened to that, where entropies end",
            DislabWarning,
            stacklevel=3,
        )
    return Posterior(mean, np.maximum(deviation, lowest) ** 2, float(narrow.mean()))


def kl_per_dimension(table: CodeTable) -> np.ndarray:
    """Return KL(q(z_d|n) || Normal(0, 1)), mean over rows, float64 [D] (Kingma & Welling 2014, appendix B).

    DislabError is raised for a log-variance above 700: the result would be infinite.
    """
    logvar = table.logvar.astype(np.float64)
    if logvar.max() > 700:
        dimension = int(logvar.max(axis=0).argmax())
        raise DislabError(f"the log-variance of dimension {dimension} goes up to {logvar.max():g}")
    return 0.5 * (np.square(table.mean, dtype=np.float64) + np.exp(logvar) - logvar - 1).mean(axis=0)


def mixture_density(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points [G] of an even grid and the density there [G] of 1/N Σ_n Normal(mean_n, variance_n).

    A row is shared between the two nearest grid points and among three levels of variance, in parts that keep
    its mean and its variance exact. Its third moment is not exact, which changes the entropy of a few rows by
    less than 1e-4 nats, and that of many rows by less. Each level is then smoothed by its own Normal: a
    product with exp(-variance ω² / 2) in Fourier space.
    """
    from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

    least, most = variance.min(), variance.max()
    step = math.sqrt(least) / STEPS
    first = mean.min() - REACH * math.sqrt(most)
    reach = mean.max() + REACH * math.sqrt(most) - first
    length = next_fast_len(math.ceil(reach / step) + 2, real=True)

    position = (mean - first) / step
    cell = position.astype(np.int64)
    right = position - cell
    # Two masses 1 - right and right, a step apart, have the variance right (1 - right) step² of their own.
    smoothing = variance - right * (1 - right) * step**2
    lowest = least * (1 - 0.25 / STEPS**2) / RATIO
    num_levels = 4 + int(math.log(most / lowest) / math.log(RATIO))
    levels = lowest * RATIO ** np.arange(num_levels)
    level = np.rint(np.log(smoothing / lowest) / math.log(RATIO)).astype(np.int64).clip(1, num_levels - 2)
    index = level * length + cell
    mass = np.zeros(num_levels * length)
    # Lagrange's formula for a variance in units of its level: Σ part level^p = variance^p for p = 0, 1, 2.
    below, ratio, above = 1 / RATIO, smoothing / levels[level], RATIO
    shares = (
        (ratio - 1) * (ratio - above) / ((below - 1) * (below - above)),
        (ratio - below) * (ratio - above) / ((1 - below) * (1 - above)),
        (ratio - below) * (ratio - 1) / ((above - below) * (above - 1)),
    )
    for offset, share in zip((-1, 0, 1), shares, strict=True):
        for neighbour, part in ((0, 1 - right), (1, right)):
            mass += np.bincount(index + (offset * length + neighbour), share * part, minlength=len(mass))

    mass = mass.reshape(num_levels, length)
    taken = mass.any(axis=1)
    frequency = 2 * math.pi * rfftfreq(length, step)
    smoothed = rfft(mass[taken], axis=1) * np.exp(-0.5 * levels[taken, None] * frequency**2)
    density = irfft(smoothed.sum(axis=0), length) / (len(mean) * step)
    return first + step * np.arange(length), density.clip(min=0)


def mixture_entropy(mean: np.ndarray, variance: np.ndarray) -> float:
    """Return the differential entropy -∫ q ln q of 1/N Σ_n Normal(mean_n, variance_n) on a line, in nats."""
    from scipy.special import entr

    points, density = mixture_density(mean, variance)
    return entr(density).sum() * (points[1] - points[0])


def mixture_log_density(z: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return ln q at every z, float64 [S], for the mixture 1/N Σ_n Normal(mean_n, variance_n) on a line."""
    from scipy.interpolate import CubicSpline

    points, density = mixture_density(mean, variance)
    # Rounding in the tails is cut off by a floor; no z that was drawn from q lies there.
    return CubicSpline(points, np.log(density.clip(min=1e-16 * density.max())))(z)


def joint_log_density(z: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return ln q(z) = ln 1/N Σ_n Π_d Normal(z_d; mean_nd, variance_nd), float64 [S], over all N rows.

    The squares are multiplied out, so that all pairs (z, row) are one product of matrices: a row of
    (z², z, 1) by a column of (-1/2v, m/v, -Σ_d (m²/v + ln 2πv)/2). The middle of every dimension is
    subtracted first, and float64 used, so that at most the square of FINEST cancels.
    """
    import torch

    middle = 0.5 * (mean.min(axis=0) + mean.max(axis=0))
    z, mean = z - middle, mean - middle
    precision = 1 / variance
    constant = -0.5 * (mean**2 * precision + np.log(2 * math.pi * variance)).sum(axis=1, keepdims=True)
    columns = torch.from_numpy(np.vstack([-0.5 * precision.T, (mean * precision).T, constant.T]))
    points = torch.from_numpy(np.hstack([z**2, z, np.ones((len(z), 1))]))
    sums = []
    for some in points.split(SAMPLES):
        largest = torch.full((len(some), 1), -math.inf, dtype=some.dtype)
        total = torch.zeros_like(largest)  # of exp(term - largest), with the largest term so far
        for block in columns.split(ROWS, dim=1):
            terms = some @ block
            before, largest = largest, torch.maximum(largest, terms.amax(dim=1, keepdim=True))
            # Terms between e^-80 and 1 need no float64; below that exp was measured to be 20 times as slow.
            shares = terms.sub_(largest).float().clamp_(min=-80).exp_()
            total = total * (before - largest).exp() + shares.sum(dim=1, keepdim=True)
        sums.append((largest + total.log()).squeeze(1))
    return torch.cat(sums).numpy() - math.log(len(mean))
