"""Single-neuron classification and neuron knockout: is each factor in one dimension, and only there?"""

from __future__ import annotations

import numpy as np

from dislab.registry import register_metric
from dislab.scoring.class_readout import Classifier
from dislab.scoring.information import mutual_information
from dislab.scoring.table import CodeTable, Sample, spread

REFERENCE = "Mahon et al. 2023 (Correcting Flaws in Common Disentanglement Metrics)"
MOST_VALUES = 3_000  # of a factor, by default: counts of bins and values take 0.4 GB, those of 10,000 take 4


def takes_gigabytes(table: CodeTable) -> bool:
    """Return whether a factor has so many values that `snc` takes gigabytes of memory, or minutes."""
    columns = zip(table.sizes, table.factors.T, strict=True)
    return any(size > MOST_VALUES and len(np.unique(column)) > MOST_VALUES for size, column in columns)


@register_metric(
    "snc",
    title="SNC: accuracy of reading each factor from its own code dimension",
    reference=REFERENCE,
    low=0.0,
    high=1.0,
    slow=takes_gigabytes,
    needs=("factor",),
)
def snc(
    table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_test: int = 5_000
) -> dict:
    """Return the mean over factors of the accuracy on test rows of reading f_k from one dimension by bins.

    Every factor gets a dimension of its own (`own_dimensions`). Its codes are put into n_k bins of equally
    many training rows, and every bin stands for one value (`bin_values`). A factor that is left without a
    dimension is read as its most frequent value. Values that are not equally frequent do not fit such bins,
    so that a perfect code loses accuracy by that.

    The definition is that of the authors' code, as the paper's text was not at hand: whether the paper's
    tables subtract chance, 1/n_k, is not known. Here it is not subtracted. In that code a bin begins with the
    code of a rank; where codes are tied, as of an encoder without noise, that puts whole values into the bin
    of another. Here tied codes have their mean rank (`equal_bins`), and codes without ties the same bins.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single training value are left out.
    num_train, num_test : rows that bins and dimensions are chosen by, and rows that are read.

    Returns
    -------
    snc : in [0, 1]; chance is the mean of 1/n_k.
    snc_per_factor : accuracy of every factor, None for one that is left out.
    snc_dimensions : the dimension of every factor, 0 .. D - 1, None for one without.
    """
    sample = table.draw(rng, num_train, num_test)
    dimensions = own_dimensions(sample)
    accuracy = np.empty(len(dimensions))
    for k, d in enumerate(dimensions):
        train, test = (
            np.zeros(len(codes)) if d is None else codes[:, d] for codes in (sample.codes, sample.test_codes)
        )
        values, classes = np.unique(sample.factors[:, k], return_inverse=True)
        meaning = values[bin_values(equal_bins(train, train, len(values)), classes)]
        read = meaning[equal_bins(train, test, len(values))]
        accuracy[k] = (read == sample.test_factors[:, k]).mean()
    return {
        "snc": accuracy.mean(),
        "snc_per_factor": sample.per_factor(accuracy),
        "snc_dimensions": sample.per_factor(dimensions),
    }


@register_metric(
    "nk",
    title="NK: loss of accuracy for a factor if its own code dimension is knocked out",
    reference=REFERENCE,
    low=-1.0,
    high=1.0,
    slow=True,
    needs=("factor",),
)
def nk(table: CodeTable, rng: np.random.Generator, *, num_train: int = 10_000, num_test: int = 5_000) -> dict:
    """Return the mean over factors of A_k - A'_k, accuracies on test rows of networks that read f_k.

    A_k is that of a network that sees the whole code, A'_k of one that sees all but the dimension of factor
    k (`own_dimensions`). A code that has the factor in one dimension only loses all; one that has it
    elsewhere too loses nothing. A factor that is left without a dimension counts as 0.

    The network is that of the authors' code, one hidden layer of 256 ReLU; its training is that of
    `content_accuracy`, where a tenth of the rows is kept aside for early stopping.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; factors with a single training value are left out.
    num_train, num_test : rows that the networks are fitted to and tested on.

    Returns
    -------
    nk : at most 1 less chance; about 0 for a code that knows nothing, or everything twice.
    nk_accuracy : mean of A_k.
    nk_per_factor, nk_accuracy_per_factor : of every factor, None for one that is left out.
    """
    sample = table.draw(rng, num_train, num_test)
    whole, without = np.empty((2, len(sample.columns)))
    for k, d in enumerate(own_dimensions(sample)):
        seed = int(rng.integers(2**31))  # the same for both networks: a constant dimension is no loss
        whole[k] = without[k] = network_accuracy(sample, k, [], seed)
        if d is not None:
            without[k] = network_accuracy(sample, k, [d], seed)
    return {
        "nk": (whole - without).mean(),
        "nk_accuracy": whole.mean(),
        "nk_per_factor": sample.per_factor(whole - without),
        "nk_accuracy_per_factor": sample.per_factor(whole),
    }


def own_dimensions(sample: Sample) -> np.ndarray:
    """Return a code dimension for every factor, object [V]; None for those that are left without.

    No two factors get the same, and the sum of mutual informations of the factors and their dimensions is the
    largest that there is. The information on f_k is that of z_d in n_k bins of equally many rows.
    """
    from scipy.optimize import linear_sum_assignment

    information = np.empty((sample.codes.shape[1], len(sample.columns)))
    for k, values in enumerate(sample.factors.T):
        num_bins = len(np.unique(values))
        bins = [equal_bins(codes, codes, num_bins) for codes in sample.codes.T]
        information[:, k] = mutual_information(np.stack(bins, axis=1), values[:, None])[:, 0]
    factors, dimensions = linear_sum_assignment(information.T, maximize=True)
    return spread(dimensions, factors, len(sample.columns))


def equal_bins(train: np.ndarray, codes: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the bin 0 .. num_bins - 1 of every code [B]; bins hold equally many of the codes `train` [N].

    A bin holds the codes of N / num_bins ranks; codes that are tied have their mean rank.
    """
    ordered = np.sort(train)
    ranks = np.searchsorted(ordered, codes, side="left") + np.searchsorted(ordered, codes, side="right")
    return (ranks * num_bins // (2 * len(ordered))).clip(max=num_bins - 1)


def bin_values(bins: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the class that each bin stands for, int64 [n]: the one-to-one choice by which most rows agree.

    Parameters
    ----------
    bins, classes : int [N], 0 .. n - 1.
    """
    from scipy.optimize import linear_sum_assignment

    number = int(classes.max()) + 1
    counts = np.bincount(bins * number + classes, minlength=number**2).reshape(number, number)
    return linear_sum_assignment(counts, maximize=True)[1]


def network_accuracy(sample: Sample, k: int, removed: list[int], seed: int) -> float:
    """Return the accuracy on the test rows of a network that reads factor k from all but some dimensions."""
    codes, test_codes = sample.codes.copy(), sample.test_codes.copy()
    codes[:, removed] = test_codes[:, removed] = 0
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    aside, fit = np.split(order, [max(1, len(order) // 10)])
    values, classes = np.unique(sample.factors[fit, k], return_inverse=True)
    if len(values) == 1:
        return (sample.test_factors[:, k] == values[0]).mean()
    known = aside[np.isin(sample.factors[aside, k], values)]
    known = known if len(known) else fit
    kept_aside = codes[known], np.searchsorted(values, sample.factors[known, k])
    logits = Classifier((codes[fit], classes), kept_aside, rng).logits(test_codes)
    return (values[logits.argmax(axis=1)] == sample.test_factors[:, k]).mean()
