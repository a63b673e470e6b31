"""Goldens of models with an adversary, and of those that keep the class out of the style."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dislab.benchmarks.goldens import Given, golden
from dislab.data.groups import Groups
from dislab.models.cyclevae import forward_cycle, reverse_cycle
from dislab.models.infogan import category_information, discriminator_loss, generator_loss, number_information
from dislab.models.mlvae_adversarial import donsker_varadhan, pairs_of


@golden("leak_fixes", not_followed=("nwj_bound",))
def leak_fixes(given: Given) -> dict[str, object]:
    """The bound of `mlvae_adversarial` and its pairs, and both cycles of `cyclevae`, with weights of 1."""
    joint, marginal = (given[name].requires_grad_() for name in ("t_joint", "t_marginal"))
    bound = bound_of(joint, marginal)
    gradients = torch.autograd.grad(bound, (joint, marginal))
    number = int(given["joint_pairs"].max()) + 1  # of images, in groups of equal size
    size = len(given["joint_pairs"]) // number + 1
    images = torch.arange(number)
    of_one_group, of_two = pairs_of(Groups(images // size, images[::size]))
    examples = given["marginal_pairs_example"]
    rho, correlated, shuffled = given["rho"], given["gauss"], given["gauss_shuffled"]

    def best(pairs: Tensor) -> Tensor:
        """The best critic of two Normals with this correlation."""
        x, s = pairs.unbind(1)
        return (2 * rho * x * s - rho**2 * (x**2 + s**2)) / (2 * (1 - rho**2))

    forward = torch.zeros((), dtype=torch.float64)
    for one, of_other in (("1", "2"), ("2", "1")):
        decoded, codes = given[f"jha_h{one}{of_other}"], (given[f"jha_mean{one}"], given[f"jha_logvar{one}"])
        forward = forward + sum(forward_cycle(given[f"jha_x{one}"], decoded, *codes))
    return {
        "dv_bound": bound.detach(),
        "nwj_bound": bound.detach(),  # another, lower bound
        "grad_t_joint": gradients[0],
        "grad_t_marginal": gradients[1],
        "joint_pairs": of_one_group.nonzero(),
        "marginal_pairs_example": examples[of_two[examples[:, 0], examples[:, 1]]],
        "gauss_mi_exact": -0.5 * math.log(1 - rho**2),
        "gauss_dv": bound_of(best(correlated), best(shuffled)),
        "jha_forward": forward,
        "jha_reverse": reverse_cycle(given["jha_z1"], given["jha_z2"]),
    }


def bound_of(joint: Tensor, marginal: Tensor) -> Tensor:
    """Return the Donsker-Varadhan bound by T of pairs of r and of rbar."""
    is_joint = torch.arange(len(joint) + len(marginal)) < len(joint)
    return donsker_varadhan(torch.cat([joint, marginal]), is_joint, ~is_joint)


@golden("infogan")
def infogan(given: Given) -> dict[str, object]:
    """Both losses; the authors' entropy of the numbers is that of N(0, 1), which adds a constant."""
    logits, numbers, mean = given["categorical_logits"], given["continuous"], given["q_mean"]
    one_hot = torch.nn.functional.one_hot(given["categorical"], logits.shape[1]).to(logits.dtype)
    zero = torch.zeros_like(mean)
    discrete = category_information(one_hot, logits)
    continuous = number_information(numbers, mean, zero)
    published = continuous - number_information(numbers, zero, zero)
    discriminator, generator = (
        discriminator_loss(given["d_real"], given["d_fake"]),
        generator_loss(given["d_fake"]),
    )
    weighted = given["lambda_discrete"] * discrete + given["lambda_continuous"] * published
    return {
        "mi_discrete": discrete,
        "mi_continuous_fixed_std": continuous,
        "mi_continuous_learned_std": number_information(numbers, mean, 2 * given["q_std"].log()),
        "mi_continuous_published_code": published,
        "d_loss": discriminator,
        "g_loss": generator,
        "d_loss_total": discriminator - weighted,
        "g_loss_total": generator - weighted,
        "mse_form": -continuous + numbers.shape[1] * (math.log(2) - 0.5 * math.log(2 * math.pi)),
    }
