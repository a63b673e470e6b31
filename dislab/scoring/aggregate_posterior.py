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
from dislab.scoring.table import CodeTable, rows_by_value

REACH = 8.0  # standard deviations by which a grid goes beyond the outermost means; 1e-15 is left out
STEPS = 4  # grid points per standard deviation of the narrowest row
FINEST = 8_192  # standard deviations are at least 1 / FINEST of what their dimension spans: grids stay short
RATIO = 1.2  # of the variances of neighbouring levels, among which a row is shared
HIGHEST_LOGVAR = 100.0
CHUNK = 20_000  # rows that are worked on together, so that they stay in the cache
MOST_ABOVE = 10.0  # nats by which a term may exceed its reference
MOST_PER_ROW = 2  # frequencies per row, of the grids of all groups, up to which groups share one grid
ROWS, SAMPLES = 1024, 256  # of one block of pairs (z, row): 2 MB in float64


class Posterior(NamedTuple):
    """q(z|n) of every row. Means and variances are made float64 for the rows or the dimension in use only."""

    table: CodeTable
    lowest: np.ndarray  # float64 [D], smaller standard deviations are raised to it
    widened: float  # the share of the N D Normals whose standard deviation was raised

    def normals(self, rows=slice(None), dimensions=slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance, float64, of some rows and some dimensions (anything that indexes)."""
        deviation = _deviation(self.table.logvar[rows, dimensions])
        mean = self.table.mean[rows, dimensions].astype(np.float64)
        return mean, np.maximum(deviation, self.lowest[dimensions], out=deviation) ** 2


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
    num_rows, num_dims = table.logvar.shape
    blocks = [slice(start, start + CHUNK) for start in range(0, num_rows, CHUNK)]
    low, high, largest = np.full((3, num_dims), -np.inf) * [[-1], [1], [1]]
    for rows in blocks:
        mean, reach = table.mean[rows].astype(np.float64), REACH * _deviation(table.logvar[rows])
        low, high = np.minimum(low, (mean - reach).min(axis=0)), np.maximum(high, (mean + reach).max(axis=0))
        largest = np.maximum(largest, np.abs(mean).max(axis=0))
    # If even that is less than the grid's points can be apart (logvar is -1000, or means are 1e30), the limit
    # is the resolution of float64.
    lowest = np.maximum((high - low) / FINEST, 2 * STEPS * np.spacing(largest + 1e-30))
    num_narrow = sum(np.count_nonzero(_deviation(table.logvar[rows]) < lowest) for rows in blocks)
    if num_narrow:
        warnings.warn(
            f"{num_narrow:,} of the {num_rows * num_dims:,} Normals q(z_d|x) are narrower "
            f"than 1/{FINEST:,} of what their dimension spans: they are widened to that, where entropies end",
            DislabWarning,
            stacklevel=3,
        )
    return Posterior(table, lowest, num_narrow / (num_rows * num_dims))


def _deviation(logvar: np.ndarray) -> np.ndarray:
    """Return standard deviations, float64, of log-variances."""
    import torch

    deviation = 0.5 * logvar.astype(np.float64)
    torch.from_numpy(deviation).exp_()  # in a third of the time of numpy's
    return deviation


def kl_per_dimension(table: CodeTable) -> np.ndarray:
    """Return KL(q(z_d|n) || Normal(0, 1)), mean over rows, float64 [D] (Kingma & Welling 2014, appendix B).

    DislabError is raised for a log-variance above 700: the result would be infinite.
    """
    most = table.logvar.max(axis=0)
    if most.max() > 700:
        dimension = int(most.argmax())
        raise DislabError(f"the log-variance of dimension {dimension} goes up to {most[dimension]:g}")
    total = 0.0
    for start in range(0, len(table), CHUNK):
        rows = slice(start, start + CHUNK)
        logvar = table.logvar[rows].astype(np.float64)
        total += (np.square(table.mean[rows], dtype=np.float64) + np.exp(logvar) - logvar - 1).sum(axis=0)
    return 0.5 * total / len(table)


class Mixture:
    """N Normals on a line, as masses on an even grid: the density of all, and entropies of groups of rows.

    A row is shared between the two nearest grid points and among three levels of variance, in parts that keep
    its mean and its variance exact. Its third moment is not exact, which changes the entropy of a few rows by
    less than 1e-4 nats, and that of many rows by less. Each level is then smoothed by its own Normal: a
    product with exp(-variance ω² / 2) in Fourier space.

    Parameters
    ----------
    mean, variance : float64 [N].

    Attributes
    ----------
    points : [G], the grid.
    """

    def __init__(self, mean: np.ndarray, variance: np.ndarray):
        import torch
        from scipy.fft import next_fast_len, rfftfreq

        self._mean, self._variance = mean, variance
        least, most = variance.min(), variance.max()
        step = math.sqrt(least) / STEPS
        first = mean.min() - REACH * math.sqrt(most)
        reach = mean.max() + REACH * math.sqrt(most) - first
        length = next_fast_len(math.ceil(reach / step) + 2, real=True)
        self.points, self._step = first + step * np.arange(length), step
        lowest = least * (1 - 0.25 / STEPS**2) / RATIO
        num_levels = 4 + int(math.log(most / lowest) / math.log(RATIO))
        levels = lowest * RATIO ** np.arange(num_levels)
        self._smoothing = np.exp(-0.5 * levels[:, None] * (2 * math.pi * rfftfreq(length, step)) ** 2)

        inverses, below, above = 1 / levels, 1 / RATIO - 1, RATIO - 1
        self._index = np.empty(len(mean), np.int64)  # of a row's lower level and left point, in [levels, G]
        self._parts = np.empty((2, 3, len(mean)))  # of a row, by points and levels
        for start in range(0, len(mean), CHUNK):
            some = slice(start, start + CHUNK)
            position = (mean[some] - first) / step
            cell = position.astype(np.int64)
            right = position - cell
            # Two masses 1 - right and right, a step apart, have a variance of right (1 - right) step².
            smoothing = variance[some] - right * (1 - right) * step**2
            # Either of two levels does where they are close, so float32 is enough.
            level = (smoothing * (1 / lowest)).astype(np.float32)
            torch.from_numpy(level).log_()  # in half the time of numpy's
            level = np.rint(level * np.float32(1 / math.log(RATIO))).astype(np.int64)  # 1 .. num_levels - 3
            # Lagrange's formula, in units of the level: Σ share level^p = variance^p for p = 0, 1, 2.
            excess = smoothing * inverses[level] - 1
            left_shares, shares = self._parts[:, :, some]
            for share, one, other in ((left_shares[0], below, above), (left_shares[2], above, below)):
                np.subtract(excess, other, out=share)
                share *= excess
                share *= 1 / (one * (one - other))
            np.subtract(1, left_shares[0], out=left_shares[1])
            left_shares[1] -= left_shares[2]
            np.multiply(left_shares, right, out=shares)
            left_shares -= shares
            np.add((level - 1) * length, cell, out=self._index[some])

    def density(self) -> np.ndarray:
        """Return 1/N Σ_n Normal(mean_n, variance_n) of all rows at the points of the grid, [G]."""
        return self._densities(np.zeros(len(self._index), np.int64))[0]

    def entropies(self, group: np.ndarray) -> np.ndarray:
        """Return the entropy of the mixture of each group's rows, in nats, float64 [groups].

        `group` is int [N], the number of each row's group: 0, 1, … without a gap.
        """
        if (int(group.max()) + 1) * self._smoothing.size > MOST_PER_ROW * len(group):
            # If groups have few rows, grids of their own are shorter and take less memory.
            mixtures = (Mixture(self._mean[rows], self._variance[rows]) for rows in rows_by_value(group))
            return np.array([entropy_of_density(one.points, one.density()) for one in mixtures])
        return entropy_of_density(self.points, self._densities(group))

    def _densities(self, group: np.ndarray) -> np.ndarray:
        """Return the density of the rows of each group on the grid of all rows, [groups, G]."""
        from scipy.fft import irfft, rfft

        counts = np.bincount(group)
        levels, length = len(self._smoothing), len(self.points)
        index = group * (levels * length) + self._index
        mass = np.zeros(len(counts) * levels * length)
        for point, parts in enumerate(self._parts):
            for level, part in enumerate(parts):
                of_part = mass[level * length + point :]
                of_part += np.bincount(index, part, minlength=len(of_part))
        mass = mass.reshape(len(counts), levels, length)
        taken = mass.any(axis=(0, 2))
        smoothed = np.einsum("nlf,lf->nf", rfft(mass[:, taken]), self._smoothing[taken])
        return irfft(smoothed, length).clip(min=0) / (counts[:, None] * self._step)


def entropy_of_density(points: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Return the differential entropy -∫ q ln q in nats, [...], of densities [..., G] at the points [G]."""
    from scipy.special import entr

    return entr(density).sum(axis=-1) * (points[1] - points[0])


def log_density_at(z: np.ndarray, points: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Return ln q at every z, float64 [S], by interpolation of a density [G] at the points of a `Mixture`."""
    from scipy.interpolate import CubicSpline

    # Rounding in the tails is cut off by a floor; no z that was drawn from q lies there.
    return CubicSpline(points, np.log(density.clip(min=1e-16 * density.max())))(z)


def joint_log_density(z: np.ndarray, normals: Posterior) -> np.ndarray:
    """Return ln q(z) = ln 1/N Σ_n Π_d Normal(z_d; mean_nd, variance_nd), float64 [S], over all N rows.

    The squares are multiplied out, so that all pairs (z, row) are one product of matrices: a row of
    (z², z, 1) by a column of (-1/2v, m/v, -Σ_d (m²/v + ln 2πv)/2). The middle of every dimension is
    subtracted first, and float64 used, so that at most the square of FINEST cancels. A fourth part of the
    product subtracts from every term of a z a reference, which is kept near the largest of them, so that
    float32 is enough for what is summed.
    """
    import torch

    means = normals.table.mean
    middle = 0.5 * (means.min(axis=0).astype(np.float64) + means.max(axis=0))
    z = z - middle
    samples = torch.from_numpy(np.hstack([z**2, z, np.ones((len(z), 1)), np.zeros((len(z), 1))]))
    reference = samples[:, -1:]  # minus it
    total = torch.zeros_like(reference)  # of exp(term - reference)
    exact, rounded = (torch.empty(SAMPLES, ROWS, dtype=kind) for kind in (torch.float64, torch.float32))

    def terms_of(some: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the terms of some z and rows, float32; memory that is allocated anew would take longer."""
        block = slice(len(some)), slice(columns.shape[1])
        torch.mm(some, columns, out=exact[block])
        return rounded[block].copy_(exact[block])

    for start in range(0, len(means), ROWS):
        mean, variance = normals.normals(slice(start, start + ROWS))
        mean -= middle
        precision = 1 / variance
        constant = -0.5 * (mean**2 * precision + np.log(2 * math.pi * variance)).sum(axis=1, keepdims=True)
        parts = -0.5 * precision, mean * precision, constant, np.ones_like(constant)
        columns = torch.from_numpy(np.hstack(parts)).T
        for some, sums in zip(samples.split(SAMPLES), total.split(SAMPLES), strict=True):
            terms = terms_of(some, columns)
            rise = terms.amax(dim=1, keepdim=True)
            if start == 0 or rise.max() > MOST_ABOVE:
                rise = rise if start == 0 else rise.clamp_(min=0)
                some[:, -1:] -= rise
                sums *= (-rise).clamp_(max=0).exp_()
                terms = terms_of(some, columns)
            # Below e^-80 exp was measured to be 20 times as slow.
            sums += terms.clamp_(min=-80).exp_().sum(dim=1, keepdim=True)
    return (total.log() - reference).squeeze(1).numpy() - math.log(len(means))
