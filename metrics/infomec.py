"""InfoMEC: modularity, compactness and explicitness from normalised mutual information (Hsu et al. 2023)."""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.information import entropy
from dislab.scoring.logistic import log_losses, logistic_regression
from dislab.scoring.readouts import Standardiser
from dislab.scoring.table import CodeTable, by_value, spread

REFERENCE = "Hsu et al. 2023 (Disentanglement via latent quantization); continuous codes"


@register_metric(
    "infomodularity",
    title="InfoM: does each code dimension know one factor only?",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    needs=("two factors",),
)
@register_metric(
    "infocompactness",
    title="InfoC: is each factor known to one code dimension only?",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    needs=("factor",),
)
@register_metric(
    "infoexplicitness",
    title="InfoE: how much of each factor does a linear classifier read (on its own training rows)?",
    group="infomec",
    reference=REFERENCE,
    high=1.0,
    needs=("factor",),
)
def infomec(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_neighbors: int = 10
) -> dict:
    """Return three scores in units of normalised mutual information, NMI_dk = I(z_d; f_k) / H(f_k).

    I is estimated from nearest neighbours (`nearest_neighbor_information`). Active dimensions are those whose
    range is more than a twentieth of the largest one, A in number, and only they count:

    infomodularity = ( mean_d( max_k NMI_dk / Σ_k NMI_dk ) - 1/K ) / (1 - 1/K),
    infocompactness = ( mean_k( max_d NMI_dk / Σ_d NMI_dk ) - 1/A ) / (1 - 1/A),
    infoexplicitness = mean_k (1 - H_k / ln n_k), with the log-loss H_k of an unpenalised, class-balanced
    multinomial logistic regression from all dimensions to the n_k values of factor k. As in the authors' own
    code it is scored on the rows that it was fitted to, with at most 100 iterations of L-BFGS.

    A dimension that knows no factor (estimates are clipped at 0) counts as 0, and so does a factor that no
    dimension knows; the authors' code divides 0 by 0 there. With a single active dimension or a single factor
    there is nothing to compare: the ratio is 1 if anything is known. Two properties of the definition: noise
    of a large range is active, and what it seems to know is about one factor by chance (pure noise has an
    infomodularity of 0.4 to 0.7); and a dimension of small units beside one of large units is not active.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single value are left out.
    num_train : number of different rows that are used (there is no test set).
    num_neighbors : neighbours of the estimator of mutual information.

    Returns
    -------
    infomodularity, infocompactness : in [0, 1].
    infoexplicitness : at most 1; about 0 for a code that knows nothing.
    infomodularity_active_dimensions : A.
    infomodularity_per_dimension : list, None for a dimension that is not active.
    infocompactness_per_factor, infoexplicitness_per_factor : lists, None for a factor with a single value.

    Raises
    ------
    DislabError : no factor varies.
    """
    sample = table.draw(rng, num_train, distinct=True)
    active = active_dimensions(sample.codes)
    codes = Standardiser(sample.codes)(sample.codes)
    apart = codes + 1e-10 * rng.standard_normal(codes.shape)  # no ties, as Kraskov et al. 2004 advise
    information = np.empty((len(active), len(sample.columns)))
    for row, d in enumerate(active):
        order = np.argsort(apart[:, d])
        for k, values in enumerate(sample.factors.T):
            information[row, k] = nearest_neighbor_information(apart[order, d], values[order], num_neighbors)
    information /= entropy(sample.factors)
    modularity, compactness = largest_share(information), largest_share(information.T)
    explicitness = [1 - log_loss_of_classifier(codes, values) for values in sample.factors.T]
    return {
        "infomodularity": modularity.mean() if len(active) else 0.0,
        "infomodularity_active_dimensions": len(active),
        "infomodularity_per_dimension": spread(modularity, active, codes.shape[1]),
        "infocompactness": compactness.mean(),
        "infocompactness_per_factor": sample.per_factor(compactness),
        "infoexplicitness": np.mean(explicitness),
        "infoexplicitness_per_factor": sample.per_factor(explicitness),
    }


def active_dimensions(codes: np.ndarray) -> np.ndarray:
    """Return the dimensions of codes [N, D] whose range is more than 1/20 of the largest one, int64 [A]."""
    ranges = np.ptp(codes.astype(np.float64), axis=0)
    return np.flatnonzero(ranges > ranges.max() / 20)


def largest_share(information: np.ndarray) -> np.ndarray:
    """Return the largest entry of every row [B, n] over its sum, rescaled from [1/n, 1] to [0, 1]."""
    total, (rows, n) = information.sum(axis=1), information.shape
    largest = information.max(axis=1, initial=0.0)
    share = np.divide(largest, total, out=np.full(rows, 1 / max(n, 1)), where=total > 0)
    return (share - 1 / n) / (1 - 1 / n) if n > 1 else (total > 0).astype(float)


def nearest_neighbor_information(values: np.ndarray, classes: np.ndarray, num_neighbors: int) -> float:
    """Return the mutual information of a continuous and a discrete variable, in nats (Ross 2014).

    I = ψ(N) + mean ψ(k_i) - mean ψ(N_i) - mean ψ(m_i): N_i points are of point i's class, k_i is
    `num_neighbors` or N_i - 1 if that is less, and m_i points of any class lie nearer to it than its k_i-th
    neighbour in its own class, itself included. Points that are alone in their class are left out; an
    estimate below 0 is clipped. The result is that of scikit-learn's `mutual_info_classif` for one feature.
    No tree is needed: in one dimension, the k nearest of a class are a window of its sorted values.

    Parameters
    ----------
    values : float [N], in ascending order and without ties.
    classes : int [N].
    num_neighbors : k.
    """
    from scipy.special import digamma

    _, classes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    joined = counts[classes] > 1
    values, classes = values[joined], classes[joined]
    if not len(values):
        return 0.0
    by_class = by_value(classes)  # and by the value of the code within each
    values_all, values, classes = values, values[by_class], classes[by_class]
    of_class = counts[classes]
    last = np.searchsorted(classes, classes, side="right") - 1
    first = last - of_class + 1
    neighbors = np.minimum(num_neighbors, of_class - 1)
    radius = np.full(len(values), np.inf)
    here = np.arange(len(values))
    for below in range(num_neighbors + 1):  # a window of k + 1 values with so many of them below the point
        low, high = here - below, here - below + neighbors
        inside = (low >= first) & (high <= last) & (below <= neighbors)
        low, high = low.clip(0, len(values) - 1), high.clip(0, len(values) - 1)
        reach = np.maximum(values - values[low], values[high] - values)
        radius = np.where(inside, np.minimum(radius, reach), radius)
    nearer = _count_within(values_all, values, np.nextafter(radius, 0))
    information = digamma(len(values)) + np.mean(digamma(neighbors) - digamma(of_class) - digamma(nearer))
    return max(0.0, information)


def _count_within(values: np.ndarray, centres: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return how many of the ascending values lie at most `radius` from each centre."""
    low = np.searchsorted(values, centres - radius, side="left")
    high = np.searchsorted(values, centres + radius, side="right")
    # centre ± radius is rounded, and the radius ends at a value: compare the distances themselves with it.
    padded = np.concatenate([[-np.inf], values, [np.inf]])  # values[i] is padded[i + 1]
    low += (centres - padded[low + 1] > radius).astype(int) - (centres - padded[low] <= radius)
    high += (padded[high + 1] - centres <= radius).astype(int) - (padded[high] - centres > radius)
    return high - low


def log_loss_of_classifier(codes: np.ndarray, classes: np.ndarray) -> float:
    """Return the log-loss of infoexplicitness's classifier on its training rows, in units of ln n.

    The classifier is scikit-learn's `LogisticRegression(C=np.inf, class_weight="balanced")`. On constant
    input it gives all n classes the same probability: ln n is what the authors fit as H0.

    Parameters
    ----------
    codes : float64 [N, D], standardised.
    classes : int [N].
    """
    values, classes = np.unique(classes, return_inverse=True)
    weights = logistic_regression(codes, classes, penalty=0.0, balanced=True)
    most = -np.log(np.finfo(np.float64).eps)  # as scikit-learn's log_loss clips
    return log_losses(codes, classes, weights).clip(max=most).mean() / np.log(len(values))
