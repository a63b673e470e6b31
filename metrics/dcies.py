"""DCI-ES: how much capacity does a readout need (explicitness), and how large is the code (size)?"""

from __future__ import annotations

import warnings

import numpy as np

from dislab.errors import DislabWarning
from dislab.registry import register_metric
from dislab.scoring.readouts import Standardiser, factor_targets, relative_losses
from dislab.scoring.table import CodeTable, spread

REFERENCE = "Eastwood et al. 2023 (DCI-ES)"
# Numbers of random Fourier features that the probes have in addition to the code.
FEATURES = (0, 16, 32, 64, 128, 256, 512, 1024)
FREQUENCY = 0.5  # standard deviation of their frequencies, per standardised dimension


@register_metric(
    "dcies_explicitness",
    title="DCI-ES explicitness: is the best readout a linear one? (random Fourier probes)",
    reference=REFERENCE,
    low=-1.0,
    high=1.0,
    needs=("factor",),
)
@register_metric(
    "dcies_size",
    title="DCI-ES size: factors per code dimension, K / D",
    group="dcies",
    reference=REFERENCE,
    low=0.0,
    needs=("factor",),
)
def dcies(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_test: int = 5_000
) -> dict:
    """Return explicitness E = mean_k (1 - A_k / Z_k) from losses of ever larger probes, and size S = K / D.

    A_k is the area between the loss-capacity curve of factor k and its lowest loss, and Z_k half the
    rectangle under the loss of a constant answer: Z = (κ_last - κ_first) / 2 for the loss 1 - R² on test
    rows, of which a constant answer has 1. As in the authors' code the curve takes the lowest loss up to each
    capacity, and the capacity κ is the logarithm of the number of trained weights. E is 1 where the linear
    probe is as good as any, 0 where the loss falls evenly from 1 to 0, and below 0 where only the largest
    probes succeed.

    The family of probes is a linear one and random Fourier features, one of the paper's three families: a
    ridge regression on the standardised code together with M features cos(wᵀz + b), w ~ Normal(0, 1/4), for M
    = 0 (linear), 16, 32, ..., 1024; each probe has the features of those before it. All factors are regressed
    on their value (a circular one on sine and cosine), while the paper classifies colours and shapes.

    E compares a code with itself only: a code that knows nothing has a flat curve, and E = 1. Read it with
    the loss that is reached, in `dcies_explicitness_informativeness`.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out, of K too.
    num_train, num_test : rows that the probes are fitted to and tested on.

    Returns
    -------
    dcies_explicitness : in [-1, 1].
    dcies_explicitness_informativeness : mean over factors of 1 - their lowest loss.
    dcies_explicitness_per_factor : list, None for a factor with a single value.
    dcies_explicitness_losses : list of the mean loss of every probe, before the lowest up to it is taken.
    dcies_explicitness_capacities : list of the number of weights per target.
    dcies_size : K / D.

    Raises
    ------
    DislabError : no factor varies.
    """
    sample = table.draw(rng, num_train, num_test, distinct=True)
    fitted, wanted = factor_targets(table, sample)
    probes, losses = probe_losses(sample.codes, fitted, sample.test_codes, wanted, rng)
    explicit, lowest = explicitness(np.log(probes), losses)
    informativeness = 1 - lowest.mean()
    if informativeness < 0.05:
        warnings.warn(
            f"dcies_explicitness says nothing here: no probe reads the factors (R² {informativeness:.2f} at "
            "best), and a code that knows nothing has 1",
            DislabWarning,
            stacklevel=2,
        )
    return {
        "dcies_explicitness": explicit.mean(),
        "dcies_explicitness_informativeness": informativeness,
        "dcies_explicitness_per_factor": spread(explicit, list(wanted), len(table.names)),
        "dcies_explicitness_losses": losses.mean(axis=1),
        "dcies_explicitness_capacities": probes,
        "dcies_size": len(wanted) / table.mean.shape[1],
    }


def probe_losses(train_codes, fitted, test_codes, wanted, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return weights per target int64 [P] and test losses 1 - R² float64 [P, K] of the probes in FEATURES."""
    import torch
    from scipy.linalg import cholesky, solve_triangular

    standardise = Standardiser(train_codes)
    size = train_codes.shape[1]
    frequencies = FREQUENCY * rng.standard_normal((size, FEATURES[-1]))
    phases = rng.uniform(0, 2 * np.pi, FEATURES[-1])

    def features(codes: np.ndarray) -> np.ndarray:
        inputs = standardise(codes)
        waves = inputs @ frequencies + phases
        torch.from_numpy(waves).cos_()  # in a fifth of the time of numpy's
        return np.hstack([inputs, waves])

    inputs, targets = features(train_codes), np.hstack([*fitted.values()])
    centre, middle = inputs.mean(axis=0), targets.mean(axis=0)
    inputs -= centre
    # The ridge regressions solve (XᵀX + I) W = XᵀY. For the first columns of X take the first part of L, with
    # LLᵀ = XᵀX + I, and of L⁻¹ XᵀY.
    factor = cholesky(inputs.T @ inputs + np.eye(inputs.shape[1]), lower=True)
    moment = solve_triangular(factor, inputs.T @ (targets - middle), lower=True)
    inputs = features(test_codes) - centre
    losses = []
    for used in size + np.array(FEATURES):
        weights = solve_triangular(factor[:used, :used], moment[:used], lower=True, trans="T")
        losses.append([*relative_losses(inputs[:, :used] @ weights + middle, wanted).values()])
    return size + np.array(FEATURES), np.array(losses)


def explicitness(capacities: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return explicitness [K] and lowest loss [K] of curves: losses [P, K] over capacities [P].

    The loss of a constant answer is 1, and no probe needs to do worse.
    """
    curve = np.minimum.accumulate(np.minimum(losses, 1.0), axis=0)
    heights = 0.5 * (curve[1:] + curve[:-1]) - curve[-1]
    return 1 - np.diff(capacities) @ heights / (0.5 * (capacities[-1] - capacities[0])), curve[-1]
