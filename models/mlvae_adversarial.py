"""The ML-VAE with a critic that keeps the group out of the style.

    r(x, s)                   pairs of an image x_i and the style s_j of ANOTHER member of its group, i != j
    T(x, s)                   the critic
    I = max_T E_r T - ln E_rbar e^T       the Donsker-Varadhan bound of what s_j tells of x_i; the pairs of
                                          rbar are of different groups

Two images of a group share nothing but the group, so the bound is at most the information of the group in the
style. An image and its own style are not a pair: what the style says of its own image must stay. The encoder
minimises ELBO loss + lambda I through the drawn styles alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dislab.data.groups import Groups
from dislab.errors import DislabError
from dislab.models.mlvae import MLVAE
from dislab.networks.architectures import dense_layers, initialised
from dislab.networks.distributions import sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch

RATE = 0.1  # by which lambda follows the relative excess of the bound
UNITS, FEATURES = 256, 64  # of the critic


@register_model(
    "mlvae_adversarial",
    title="Multi-level VAE whose style a critic keeps free of the group",
    reference="Németh 2020, arXiv:2001.04761",
)
class AdversarialMLVAE(MLVAE):
    """Multi-level VAE that pays for what its style tells of other images of the group.

    Parameters
    ----------
    target : the bound in nats that is tolerated. After each step lambda += 0.1 (bound / target - 1), and
        lambda >= 0.
    critic_steps : steps of the critic after each step of the model, each with a new batch.
    others : see `MLVAE`; group_size must be 2 or more.
    """

    least_groups = 2

    def __init__(
        self, image_shape: tuple[int, int, int], *, target: float = 0.2, critic_steps: int = 3, **others
    ):
        super().__init__(image_shape, **others)
        if self.group_size == 1:
            raise DislabError("mlvae_adversarial compares images of a group: group_size must be 2 or more")
        if target <= 0:
            raise DislabError(f"mlvae_adversarial: target is {target}: it must be above 0")
        self.target = target
        self.adversary_steps, self.adversary_adam = critic_steps, {"lr": 1e-3}
        self.adversary = Critic(image_shape, self.style, self.groupings)
        self.register_buffer("leak_weight", torch.zeros(()))  # lambda

    def group_elbo(self, images, groupings, contents, style) -> dict[str, Tensor]:
        """Return the loss and its terms, see `MLVAE.group_elbo`, and the drawn "style" [B, style]."""
        return super().group_elbo(images, groupings, contents, style) | {"style": style[0]}

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss of `MLVAE.loss` + lambda * the bound, and its terms; `leak` is the bound in nats.

        With several groupings it is the sum of a bound for each.
        """
        terms = super().loss(batch, step)
        leak = self.leak(batch, terms.pop("style"))
        weight = self.leak_weight.clone()  # `adversary_loss` changes it in place
        return {**terms, "loss": terms["loss"] + weight * leak, "leak": leak, "leak_weight": weight}

    def adversary_loss(self, batch: Batch, other: Batch, step: Tensor) -> Tensor:
        """Return the negative bound for a new batch, which the critic minimises, and adapt lambda to it."""
        with torch.no_grad():
            mean, logvar = (part[:, self.blocks["style"]] for part in self.encode(other.images))
            style = sample_normal(mean, logvar, other.noise[:, self.blocks["style"]])
        leak = self.leak(other, style)
        with torch.no_grad():
            change = RATE / self.adversary_steps * (leak / self.target - 1)
            self.leak_weight.add_(change).clamp_(min=0)
        return -leak

    def leak(self, batch: Batch, style: Tensor) -> Tensor:
        """Return the bound, in nats, for the images of a batch and the drawn styles [B, style]."""
        values = self.adversary(batch.images, style)
        bounds = zip(values, batch.groupings, strict=True)
        pairs = [(one, *pairs_of(groups, self.group_size == 0)) for one, groups in bounds]
        return torch.stack([donsker_varadhan(*one) for one in pairs]).sum()


class Critic(nn.Module):
    """T(x, s) = f(x) . g(s) for all pairs of images and styles; f and g have one hidden layer of 256 ReLU.

    The product form serves all pairs of a batch at the price of one pass of each network.
    """

    def __init__(self, image_shape: tuple[int, int, int], style: int, groupings: int):
        super().__init__()
        pixels, outputs = torch.Size(image_shape).numel(), groupings * FEATURES
        self.of_image = initialised([nn.Flatten(), *dense_layers(pixels, UNITS, outputs, activation=nn.ReLU)])
        self.of_style = initialised(dense_layers(style, UNITS, outputs, activation=nn.ReLU))

    def forward(self, images: Tensor, style: Tensor) -> Tensor:
        """Return T [groupings, B, B], a row for each image and a column for each style."""
        features = self.of_image(images), self.of_style(style)
        of_image, of_style = (part.unflatten(1, (-1, FEATURES)).transpose(0, 1) for part in features)
        return of_image @ of_style.transpose(1, 2) / FEATURES**0.5


def pairs_of(groups: Groups, classes: bool = False) -> tuple[Tensor, Tensor]:
    """Return the pairs (image i, style j) of r and those of rbar, both bool [B, B].

    r has the pairs of one group, i != j. rbar has independent images: those of different groups, of which two
    may be of one class. If the groups are the classes of images drawn at random (`classes`), these are all
    pairs, i != j. With pairs of different classes alone the bound would have no upper limit.
    """
    together = groups.index[:, None] == groups.index
    others = ~torch.eye(len(groups.index), dtype=torch.bool, device=together.device)
    return together & others, others if classes else ~together


def donsker_varadhan(values: Tensor, joint: Tensor, marginal: Tensor) -> Tensor:
    """Return E_r T - ln E_rbar e^T, in nats (Donsker & Varadhan 1983; Belghazi et al. 2018, eq. 10).

    Parameters
    ----------
    values : T of pairs, of any shape.
    joint, marginal : bool of the same shape: which pairs are of r, and which of rbar.
    """
    of_joint = torch.where(joint, values, 0).sum() / joint.sum()
    of_marginal = (
        torch.where(marginal, values, -torch.inf).flatten().logsumexp(0)
        - marginal.sum(dtype=values.dtype).log()
    )
    return of_joint - of_marginal
