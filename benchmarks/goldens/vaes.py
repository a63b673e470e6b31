"""Goldens of VAEs that are trained on single images."""

from __future__ import annotations

import math

import torch

from dislab.benchmarks.goldens import Given, golden
from dislab.models.betatcvae import decompose_kl, log_importance_weights
from dislab.networks.distributions import normal_log_density


@golden("betatcvae", not_followed=("mss_published_code", "weights_published_code"))
def betatcvae(given: Given) -> dict[str, object]:
    """The three terms of the KL at one draw per image, by each weighting of the minibatch."""
    z, mean, logvar = given["z"], given["mean"], given["logvar"]
    batch = len(z)
    # At a draw, the KL and its three terms hold exactly: ln q(z|x) - ln p(z) instead of its mean.
    nothing = torch.zeros_like(z)
    own = normal_log_density(z, mean, logvar) - normal_log_density(z, nothing, nothing)
    kl = own.sum(1).mean()

    def terms(log_weights: torch.Tensor) -> torch.Tensor:
        information, correlation = decompose_kl(z, mean, logvar, log_weights)
        return torch.stack([information, correlation, kl - information - correlation])

    weighted, stratified = (
        log_importance_weights(batch, given["N"], estimator, dtype=z.dtype)
        for estimator in ("weighted", "stratified")
    )
    equal = torch.full((batch, batch), -math.log(batch), dtype=z.dtype)
    without_constants = terms(torch.zeros_like(equal))[1]
    mss = terms(stratified)
    return {
        "mws": terms(weighted),
        "mss": mss,
        "mss_published_code": mss,
        "full": terms(equal),
        "weights_mss": stratified.exp(),
        "weights_published_code": stratified.exp(),
        "tc_disentanglement_lib": without_constants,
        "constant": terms(weighted)[1] - without_constants,
        "kl_sampled": kl,
    }
