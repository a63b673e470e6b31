"""Goldens of VAEs that are trained on single images."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from dislab.benchmarks.goldens import Given, golden
from dislab.models.annealedvae import AnnealedVAE
from dislab.models.betatcvae import decompose_kl, log_importance_weights
from dislab.models.dipvae import DIPVAE1, DIPVAE2
from dislab.models.factorvae import FactorVAE, discriminator, discriminator_loss, log_ratio, permute
from dislab.models.hfs import all_pairs, support_distances
from dislab.models.infovae import InfoVAE, mmd
from dislab.models.qlae import nearest_value, quantised, squared_errors, straight_through
from dislab.models.vae import VAE
from dislab.networks.distributions import kl_to_standard_normal, normal_log_density
from dislab.training.batches import Batch

IMAGE_SHAPE = (1, 2, 2)  # of models whose encoder is replaced


def model_at(kind: type[VAE], mean: Tensor, logvar: Tensor, **hyperparameters) -> VAE:
    """Return a model in float64 that encodes all images as this mean and log-variance [B, D]."""
    model = kind(IMAGE_SHAPE, latents=mean.shape[1], network="mlp", **hyperparameters).double()
    model.encode = lambda images: (mean, logvar)
    return model


def batch_at(mean: Tensor, logvar: Tensor, z: Tensor, *others: Tensor) -> Batch:
    """Return a batch of black images whose noise gives the draw z, with further noise [B, D] in columns."""
    noise = (z - mean) * torch.exp(-logvar / 2)
    images = torch.zeros(len(z), *IMAGE_SHAPE, dtype=z.dtype)
    return Batch(images, torch.cat([noise, *others], dim=1), dataset_size=len(z), groupings=())


def terms_at(model: VAE, batch: Batch, step: int = 0) -> dict[str, Tensor]:
    """Return the terms of a model's loss, which is without the reconstruction."""
    terms = model.loss(batch, torch.tensor(step, dtype=torch.float64))
    return {name: value.detach() for name, value in terms.items()} | {
        "loss": (terms["loss"] - terms["reconstruction"]).detach()
    }


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


@golden("annealedvae", not_followed=("loss_per_image",))
def annealedvae(given: Given) -> dict[str, object]:
    """The loss at several steps."""
    mean, logvar = given["mean"], given["logvar"]
    settings = {"gamma": given["gamma"], "capacity": given["c_max"], "capacity_steps": given["threshold"]}
    model = model_at(AnnealedVAE, mean, logvar, **settings)
    batch = batch_at(mean, logvar, mean)
    terms = [terms_at(model, batch, step) for step in given["steps"].tolist()]
    loss = torch.stack([one["loss"] for one in terms]) + given["nll"].mean()
    return {
        "capacity": torch.stack([one["capacity"] for one in terms]),
        "kl": kl_to_standard_normal(mean, logvar).sum(1),
        "loss": loss,
        "loss_per_image": loss,
    }


@golden("dipvae", not_followed=("disent_wrong_ii",))
def dipvae(given: Given) -> dict[str, object]:
    """The penalties of DIP-VAE-I and II, and their gradients."""
    mean, logvar = (given[name].requires_grad_() for name in ("mean", "logvar"))
    ours: dict[str, object] = {}
    for which, kind, covariance in (("i", DIPVAE1, "cov_mean"), ("ii", DIPVAE2, "cov_z")):
        weight, factor = given["lambda_od"], given[f"lambda_d_{which}"] / given["lambda_od"]
        model = model_at(kind, mean, logvar, lambda_od=weight, lambda_d_factor=factor)
        terms = model.loss(batch_at(mean, logvar, mean), torch.zeros(()))
        penalty = terms["loss"] - terms["reconstruction"] - terms["kl"]
        gradients = torch.autograd.grad(penalty, [mean, logvar], allow_unused=True)
        ours |= {
            covariance: model.covariance(mean, logvar).detach(),
            f"reg_{which}": penalty.detach(),
            f"reg_{which}_off": weight * terms["off_diagonal"].detach(),
            f"reg_{which}_diag": weight * factor * terms["diagonal"].detach(),
            f"grad_{which}_mean": gradients[0],
        }
    return ours | {"grad_ii_logvar": gradients[1], "disent_wrong_ii": ours["reg_ii"]}


@golden("factorvae", not_followed=("leak_grad_z", "extreme_loss_clipped"))
def factorvae(given: Given) -> dict[str, object]:
    """The losses of the encoder and of the discriminator, and who gets which gradient."""
    z, mean, logvar = given["z"].requires_grad_(), given["mean"], given["logvar"]
    weights = [
        given[f"W{layer}"] for layer in itertools.takewhile(lambda n: f"W{n}" in given, itertools.count())
    ]
    network = discriminator(weights[0].shape[1], *map(len, weights)).double()
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for number, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
            layer.weight.copy_(weight)
            layer.bias.copy_(given[f"b{number}"])
    permuted = permute(given["z2"], given["perm"])
    logits, logits_permuted = network(z), network(permuted)
    loss = discriminator_loss(logits, logits_permuted)
    estimate = log_ratio(logits).mean()
    first, last = torch.autograd.grad(loss, [layers[0].weight, layers[-1].weight], retain_graph=True)
    # The gradient by z of the model's own adversary_loss, if its encoder returned z.
    model = model_at(FactorVAE, z, torch.full_like(z, -torch.inf), gamma=given["gamma"])
    model.adversary = network
    batch = Batch(torch.zeros(len(z), *IMAGE_SHAPE), torch.zeros(len(z), 2 * z.shape[1]), len(z), ())
    (leak,) = torch.autograd.grad(model.adversary_loss(batch, batch, torch.zeros(())), [z], allow_unused=True)
    model.encode = lambda images: (mean, logvar)
    terms = terms_at(model, batch_at(mean, logvar, z.detach()))
    extreme = discriminator_loss(given["extreme_logits"], given["extreme_logits_permuted"])
    points, rho = given["gauss_z"], given["rho"]
    nothing = points.new_zeros(())
    normal = torch.distributions.MultivariateNormal(
        points.new_zeros(2), points.new_tensor([[1, rho], [rho, 1]])
    )

    def optimal(z: Tensor) -> Tensor:
        logits = [normal.log_prob(z), normal_log_density(z, nothing, nothing).sum(1)]
        return log_ratio(torch.stack(logits, dim=1))

    # The optimal logit is quadratic in z: the mean over these points is its mean over the Normal.
    directions = math.sqrt(2) * normal.scale_tril
    at_points = optimal(points)
    return {
        "permuted": permuted,
        "logits": logits.detach(),
        "logits_permuted": logits_permuted.detach(),
        "grad_tc_z": torch.autograd.grad(estimate, z)[0],
        "grad_dloss_W0": first,
        f"grad_dloss_W{len(layers) - 1}": last,
        "leak_grad_z": torch.zeros_like(z) if leak is None else leak,
        "tc_estimate": estimate.detach(),
        "discriminator_loss": loss.detach(),
        "kl": terms["kl"],
        "autoencoder_loss_minus_nll": terms["loss"],
        "extreme_loss_exact": extreme,
        "extreme_loss_clipped": extreme,
        "gauss_logit": at_points,
        "gauss_tc_exact": optimal(torch.cat([directions.T, -directions.T])).mean(),
        "gauss_tc_estimate": at_points.mean(),
    }


@golden("infovae")
def infovae(given: Given) -> dict[str, object]:
    """The discrepancy by each kernel, and the loss."""
    mean, logvar, z, prior = (given[name] for name in ("mean", "logvar", "z", "z_prior"))
    batch = batch_at(mean, logvar, z, prior)
    ours: dict[str, object] = {}
    for kernel in ("rbf", "imq"):
        settings = {"alpha": given["alpha"], "lambda_prior": given["lambda"], "kernel": kernel}
        terms = terms_at(model_at(InfoVAE, mean, logvar, **settings), batch)
        ours |= {
            "kl": terms["kl"],
            f"mmd_{kernel}_unbiased": terms["mmd"],
            f"mmd_{kernel}_biased": mmd(z, prior, kernel, biased=True),
            f"loss_minus_nll_{kernel}": terms["loss"],
        }
    return ours


@golden("hfs")
def hfs(given: Given) -> dict[str, object]:
    """The distance of the support from a product of supports."""
    z, pairs = given["z"].requires_grad_(), given["pairs"]
    distances = support_distances(z, pairs)
    (gradient,) = torch.autograd.grad(distances.sum(), z)
    grid = given["grid"]
    return {
        "distance": distances.detach(),
        "grad": gradient,
        "hfs": distances.sum().detach(),
        "hfs_grid": support_distances(grid, all_pairs(grid)).sum(),
    }


@golden("qlae")
def qlae(given: Given) -> dict[str, object]:
    """The quantised codes, the two terms, and who gets which gradient."""
    x, values = (given[name].requires_grad_() for name in ("x", "values"))
    index = nearest_value(x, values)
    codes = quantised(index, values)
    quantisation, commitment = squared_errors(x, codes)
    upstream = (given["upstream"] * straight_through(x, codes)).sum() / len(x)
    loss = upstream + given["lambda_quantise"] * quantisation + given["lambda_commit"] * commitment
    of_x, of_values = torch.autograd.grad(loss, [x, values])
    return {
        "index": index,
        "quantised": codes.detach(),
        "quantisation_loss": quantisation.detach(),
        "commitment_loss": commitment.detach(),
        "grad_x": of_x,
        "grad_values": of_values,
    }
