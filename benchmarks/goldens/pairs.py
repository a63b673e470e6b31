"""Goldens of models that are trained on pairs, or on batches in which one factor varies."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from dislab.benchmarks.goldens import Given, golden
from dislab.data.groups import Groups
from dislab.data.space import FactorSpace
from dislab.models.adagvae import AdaGVAE, kl_of_pairs
from dislab.models.adamlvae import AdaMLVAE
from dislab.models.dcign import clamp
from dislab.models.gvae import GVAE, of_pairs
from dislab.models.mlvae_pairs import MLVAEPairs
from dislab.models.slowvae import SlowVAE, laplace_cross_entropy, normal_entropy
from dislab.networks.distributions import kl_to_standard_normal, sample_normal
from dislab.training.pairs import Redraws

IMAGE_SHAPE = (1, 8, 8)  # of the models, which encode no image here


def interleaved(first: Tensor, second: Tensor) -> Tensor:
    """Return [2 * pairs, …] of the first and the second images' values, [pairs, …] each."""
    return torch.stack([first, second], dim=1).flatten(0, 1)


def settled(shared: Tensor, distance: Tensor, reference: Tensor, equal_as_given: bool = True) -> Tensor:
    """Return an estimated shared set, with the golden's values where dislab's need not be the same.

    On the threshold to rounding either is right. If all distances are equal, dislab shares all, and the
    golden may have nothing shared (`equal_as_given`).
    """
    low, high = distance.amin(1, keepdim=True), distance.amax(1, keepdim=True)
    on_the_threshold = (distance - (low + high) / 2).abs() < 1e-12 * high
    return torch.where(torch.where(low == high, equal_as_given, on_the_threshold), reference, shared)


@golden("pairs")
def pairs(given: Given) -> dict[str, object]:
    """Distances, shared sets, averages and the posteriors that they give."""
    mean = interleaved(given["mean0"], given["mean1"])
    logvar = interleaved(given["logvar0"], given["logvar1"])
    noise = interleaved(given["noise0"], given["noise1"])
    number, latents = given["mean0"].shape
    index = torch.arange(2 * number)
    groups = Groups(index // 2, index[0::2])
    changed = torch.arange(latents) == given["changed"][:, None]
    distances = {
        "one_sided": kl_of_pairs(of_pairs(mean), of_pairs(logvar)),
        "other_side": kl_of_pairs(of_pairs(mean).flip(1), of_pairs(logvar).flip(1)),
    }
    distances["symmetric"] = (distances["one_sided"] + distances["other_side"]) / 2
    ours: dict[str, object] = {f"delta_{name}": distance for name, distance in distances.items()}

    def set_of(kind: type[GVAE], **options) -> Tensor:
        model = kind(IMAGE_SHAPE, latents=latents, network="mlp", **options)
        return model.shared_set(of_pairs(mean), of_pairs(logvar), changed)

    ours["shared_known"] = set_of(GVAE)
    for distance in ("one_sided", "symmetric"):
        name = f"shared_{distance}"
        shared = set_of(AdaGVAE, distance=distance)
        ours[name] = settled(shared, distances[distance], given[name])
        if distance == "one_sided":
            bins = given["shared_tf_bins"]
            ours["shared_tf_bins"] = settled(shared, distances[distance], bins, equal_as_given=False)

    for name, kind, shared, options in [
        ("ada_gvae", AdaGVAE, "shared_symmetric", {}),
        ("ada_gvae_one_sided", AdaGVAE, "shared_one_sided", {}),
        ("ada_mlvae", AdaMLVAE, "shared_symmetric", {}),
        ("ada_mlvae_dlib", AdaMLVAE, "shared_one_sided", {"variance": "harmonic"}),
        ("gvae_labels", GVAE, "shared_known", {}),
        ("mlvae_labels", MLVAEPairs, "shared_known", {}),
        ("mlvae_labels_dlib", MLVAEPairs, "shared_known", {"variance": "harmonic"}),
    ]:
        model = kind(IMAGE_SHAPE, latents=latents, network="mlp", **options)
        joined = model.joined(mean, logvar, ours[shared], groups)
        for what, values in zip(("mean", "logvar"), joined, strict=True):
            ours[f"{name}_{what}0"], ours[f"{name}_{what}1"] = values[0::2], values[1::2]
        kl = kl_to_standard_normal(*joined).sum(1)
        ours |= {f"{name}_kl": of_pairs(kl).mean(1), f"{name}_kl_mean": kl.mean()}
        averaged_mean, averaged_logvar = model.average(mean, logvar, groups)
        if name == "ada_gvae":
            codes = sample_normal(*joined, noise)
            ours |= {"ada_gvae_z0": codes[0::2], "ada_gvae_z1": codes[1::2]}
            ours |= {"gvae_mean": averaged_mean, "gvae_logvar": averaged_logvar}
        elif name == "ada_mlvae":
            ours |= {"product_mean": averaged_mean, "product_logvar": averaged_logvar}
        elif name == "ada_mlvae_dlib":
            ours["harmonic_logvar"] = averaged_logvar
    return ours


@golden("slowvae")
def slowvae(given: Given) -> dict[str, object]:
    """The terms of both directions, and the loss of each pair and of all."""
    mean0, mean1, logvar0, logvar1 = (given[name] for name in ("mean0", "mean1", "logvar0", "logvar1"))
    nll, weights = given["nll"], {name: given[name] for name in ("rate", "beta", "gamma")}
    of_1 = laplace_cross_entropy(mean1, logvar1, mean0, given["rate"])
    of_0 = laplace_cross_entropy(mean0, logvar0, mean1, given["rate"])
    entropy0, entropy1 = normal_entropy(logvar0), normal_entropy(logvar1)
    kl_laplace = (of_1 - entropy1).sum(1)
    kl_normal = torch.stack([kl_to_standard_normal(mean0, logvar0), kl_to_standard_normal(mean1, logvar1)])
    kl_normal = kl_normal.sum(2)

    def loss(rows: slice, **options) -> Tensor:
        model = SlowVAE(IMAGE_SHAPE, latents=mean0.shape[1], network="mlp", **weights, **options)
        parts = [(nll[0], nll[1]), (mean0, mean1), (logvar0, logvar1)]
        return model.objective(*(interleaved(first[rows], second[rows]) for first, second in parts))["loss"]

    every = slice(None)
    return {
        "cross_entropy_1_given_0": of_1,
        "cross_entropy_0_given_1": of_0,
        "entropy0": entropy0,
        "entropy1": entropy1,
        "kl_laplace_1_given_0": kl_laplace,
        "kl_laplace_0_given_1": (of_0 - entropy0).sum(1),
        "kl_normal": kl_normal,
        "loss_forward": nll.sum(0) + given["beta"] * kl_normal[0] + given["gamma"] * kl_laplace,
        "loss_both": torch.stack([loss(slice(pair, pair + 1)) for pair in range(len(mean0))]),
        "loss_both_mean": loss(every),
        "loss_published_code": loss(every, published_code=True),
    }


@golden("dcign", not_followed=("clamped_first",))
def dcign(given: Given) -> dict[str, object]:
    """The codes that are decoded, and the gradient that reaches the encoder, without and with the pull."""
    codes = given["z"].requires_grad_()
    active = torch.zeros(1, codes.shape[1], dtype=torch.bool)
    active[:, given["active"]] = True
    clamped, invariance = clamp(codes, active)
    # The gradients of the golden are those of a sum over the images, `invariance` is a mean.
    losses = {
        name: (given["grad"] * clamped).sum() + strength * len(codes) * invariance
        for name, strength in (("grad_zero", 0), ("grad_invariance", given["strength"]))
    }
    return {
        "clamped_mean": clamped.detach(),
        "clamped_first": clamped.detach(),
        **{name: torch.autograd.grad(loss, codes, retain_graph=True)[0] for name, loss in losses.items()},
    }


@golden("pair_sampling", not_followed=("disentanglement_lib_minus1", "disentanglement_lib_k2"))
def pair_sampling(given: Given) -> dict[str, object]:
    """P(n factors differ) of pairs, n = 0 .. K, and the Laplace transitions of a factor."""
    sizes = given["sizes"].tolist()
    table = given["laplace_transition"]
    space = FactorSpace(("moves", "stays"), (len(table), 2), categorical=["stays"])
    below = Redraws(space, 1, 2, "random", "laplace", torch.device("cpu")).transitions[0]
    ends = below.new_zeros(len(table), 1), below, below.new_ones(len(table), 1)
    ours = {
        name: differing_factors(sizes, changed, resample)
        for name, changed, resample in [
            ("exact_k1", 1, "other"),
            ("exact_random", "random", "other"),
            ("keep_k1", 1, "any"),
            ("keep_random", "random", "any"),
        ]
    }
    return ours | {
        # disentanglement_lib redraws one factor or k, with equal chance.
        "disentanglement_lib_minus1": ours["keep_random"],
        "disentanglement_lib_k2": differing_factors(sizes, 2, "any"),
        "laplace_transition": torch.cat(ends, dim=1).diff(dim=1),
    }


def differing_factors(sizes: list[int], changed: int | str, resample: str) -> np.ndarray:
    """Return P(n factors differ), [K + 1], of the pairs that `Redraws` makes of random numbers.

    Which factors are redrawn depends on two of its arguments, and the new value of a redrawn factor on its
    own random number. Both are gone through, on grids of numbers that stand for equal chances.
    """
    number = len(sizes)
    space = FactorSpace([f"factor {column}" for column in range(number)], sizes)

    def pairs(changed: int | str, count: Tensor, order: Tensor, others: Tensor) -> tuple[np.ndarray, Tensor]:
        """Return which factors differ and which were redrawn, bool [pairs, K]."""
        redraws = Redraws(space, len(order), 2, changed, resample, torch.device("cpu"))
        rows, redrawn = redraws.rows(torch.zeros(order.numel()), count, order.flatten(), others.flatten())
        values = space.factors(rows.numpy()).reshape(-1, 2, number)
        return values[:, 0] != values[:, 1], redrawn

    # Every order of the factors, with every number of them.
    orders = torch.tensor(list(itertools.permutations(range(number))), dtype=torch.float64) / number
    counts = (torch.arange(number - 1, dtype=torch.float64) + 0.5) / (number - 1)
    every_order = orders.repeat_interleave(len(counts), 0)
    _, sets = pairs(changed, counts.repeat(len(orders)), every_order, torch.zeros_like(every_order))
    # Each factor alone, with every value.
    column = torch.repeat_interleave(torch.arange(number), torch.tensor(sizes))
    own_first = torch.ones(len(column), number, dtype=torch.float64)
    own_first[torch.arange(len(column)), column] = 0
    own_value = torch.cat([(torch.arange(size, dtype=torch.float64) + 0.5) / size for size in sizes])
    differ, _ = pairs(1, torch.zeros(len(column)), own_first, own_value[:, None].expand(-1, number))
    chance = [differ[column == own, own].mean() for own in range(number)]

    total = np.zeros(number + 1)
    for redrawn, times in zip(*np.unique(sets.numpy(), axis=0, return_counts=True), strict=True):
        of_set = np.ones(1)
        for own in np.flatnonzero(redrawn):
            of_set = np.convolve(of_set, [1 - chance[own], chance[own]])
        total[: len(of_set)] += of_set * times / len(sets)
    return total
