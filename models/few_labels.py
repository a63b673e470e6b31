"""VAEs that know the factors of a few training images.

    loss = loss of the model without labels + w(t) R(m, y)       (Locatello et al. 2020b, section 4)

m are the posterior means of 64 labelled images, y the values of their factors. Dimension k belongs to
factor k.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dislab.data.dataset import unit_images
from dislab.errors import DislabError
from dislab.models.betatcvae import BetaTCVAE
from dislab.models.betavae import BetaVAE
from dislab.models.dipvae import DIPVAE1
from dislab.models.factorvae import FactorVAE
from dislab.models.vae import VAE
from dislab.registry import register_model
from dislab.training.batches import Batch

LABELLED = 64  # images of each step; most terms are sums over them, so their weight depends on it
MOST_VALUES = 256  # of a factor, with label_loss=embed
REFERENCE = "Locatello et al. 2020, arXiv:1905.01258"


class FewLabels(VAE):
    """What the models with few labels have in common.

    Parameters
    ----------
    labels : number of training images whose factors are known, drawn by the seed of the run.
    label_weight : weight of the label term; with 0 it is the model without labels.
    label_loss : the label term, see `label_term`.
    label_errors : how the known values differ from the true ones, see `with_errors`.
    label_steps : number of steps over which the weight rises linearly to its value; 0 uses it from the start.
    fine_tune : whether the weight is 0 for these steps and the one that follows, instead of rising.
    others : see the model without labels.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        labels: int = 100,
        label_weight: float = 1.0,
        label_loss: Literal["xent", "l2", "l2_scaled", "cov", "embed"] = "xent",
        label_errors: Literal["none", "binned", "noisy", "partial", "permuted"] = "none",
        label_steps: int = 0,
        fine_tune: bool = False,
        **others,
    ):
        super().__init__(image_shape, **others)
        self.labels, self.label_errors, self.label_loss = labels, label_errors, label_loss
        self.label_weight, self.label_steps, self.fine_tune = label_weight, label_steps, fine_tune
        if label_loss == "l2_scaled":
            self.scale = nn.Parameter(torch.ones(()))
        elif label_loss == "embed":
            self.embeddings = nn.Parameter(torch.randn(self.latents, MOST_VALUES))

    def look_at(self, dataset, rows, generator: torch.Generator) -> None:
        """Keep labelled images and the values of their factors; raise DislabError if they do not fit."""
        if self.labels > len(rows):
            raise DislabError(f"labels={self.labels}: {dataset.name} has {len(rows):,} training images")
        chosen = rows[torch.randperm(len(rows), generator=generator)[: self.labels].numpy()]
        values, sizes = torch.from_numpy(dataset.space.factors(chosen)), torch.tensor(dataset.space.sizes)
        values, sizes = with_errors(values, sizes, self.label_errors, generator)
        if len(sizes) > self.latents:
            raise DislabError(f"latents={self.latents}: each of {len(sizes)} labelled factors needs a latent")
        if self.label_loss == "embed" and sizes.max() > MOST_VALUES:
            raise DislabError(f"label_loss=embed: a factor has {sizes.max()} of at most {MOST_VALUES} values")
        images, device = unit_images(dataset.images(chosen)), next(self.parameters()).device
        # They are no part of the checkpoint: the seed chooses the same ones again.
        for name, tensor in {"images": images, "values": values, "sizes": sizes}.items():
            self.register_buffer(f"labelled_{name}", tensor.to(device), persistent=False)

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss of the model without labels plus the label term, and all terms."""
        terms = super().loss(batch, step)
        # The labelled images come in a fixed order, again and again.
        position = (step.long() * LABELLED + torch.arange(LABELLED, device=step.device)) % self.labels
        mean, _ = self.encode(self.labelled_images[position])
        term = self.label_term(mean, self.labelled_values[position], self.labelled_sizes)
        return {**terms, "loss": terms["loss"] + self.weight(step) * term, "label_term": term}

    def weight(self, step: Tensor) -> Tensor | float:
        """Return the weight of the label term at a step; the first step is 0."""
        if self.label_steps == 0:
            return self.label_weight
        share = step - self.label_steps if self.fine_tune else step / self.label_steps
        return self.label_weight * share.clamp(0, 1)

    def label_term(self, mean: Tensor, values: Tensor, sizes: Tensor) -> Tensor:
        """Return R of means [L, D] and factor values int64 [L, K] of so many each, int64 [K].

        With the share y = value / size: "xent", the cross entropy of y and sigmoid(m) in nats; "l2",
        (sigmoid(m) - y)^2; "l2_scaled", (b m - value)^2 with a learned b. These three are sums over images
        and factors. "cov": the squared covariances of every mean and every value but the factor's own.
        "embed": the cross entropy of the value and softmax_v(-(m - e_v)^2) with a learned e_v for each value
        v, a mean over images and a sum over factors.
        """
        own, values = mean[:, : len(sizes)], values.to(mean.dtype)
        shares = values / sizes
        if self.label_loss == "xent":
            return nn.functional.binary_cross_entropy_with_logits(own, shares, reduction="sum")
        if self.label_loss == "l2":
            return (own.sigmoid() - shares).square().sum()
        if self.label_loss == "l2_scaled":
            return (self.scale * own - values).square().sum()
        if self.label_loss == "cov":
            covariance = (mean - mean.mean(0)).T @ (values - values.mean(0)) / len(mean)
            return covariance.square().sum() - covariance.diagonal().square().sum()
        logits = -(own[..., None] - self.embeddings[: len(sizes)]).square()  # [L, K, values]
        every = torch.arange(logits.shape[-1], device=logits.device)
        log_share = torch.where(every < sizes[:, None], logits, -torch.inf).log_softmax(-1)
        return -torch.where(every == values[..., None], log_share, 0).sum() / len(mean)


def with_errors(values: Tensor, sizes: Tensor, errors: str, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return factor values int64 [L, K], and their numbers [K], as an imprecise labeller gives them.

    "binned": at most five values of each factor. "noisy": each value is replaced, with a probability of 10 %,
    by a uniform draw of the factor's values. "partial": of two factors only, drawn at random. "permuted": the
    values of each factor in a random order.
    """
    if errors == "binned":
        few = sizes.clamp(max=5)
        return values * few // sizes, few
    if errors == "noisy":
        replaced, drawn = torch.rand(2, *values.shape, generator=generator, dtype=torch.float64)
        return torch.where(replaced < 0.1, (drawn * sizes).long(), values), sizes
    if errors == "partial":
        kept = torch.randperm(len(sizes), generator=generator)[:2]
        return values[:, kept], sizes[kept]
    if errors == "permuted":
        orders = [torch.randperm(size, generator=generator) for size in sizes.tolist()]
        columns = zip(orders, values.unbind(1), strict=True)
        return torch.stack([order[column] for order, column in columns], dim=1), sizes
    return values, sizes


@register_model("s2_betavae", title="beta-VAE with few labels", reference=REFERENCE)
class S2BetaVAE(FewLabels, BetaVAE):
    """S2-beta-VAE: the `BetaVAE` with few labels."""


@register_model("s2_betatcvae", title="beta-TCVAE with few labels", reference=REFERENCE)
class S2BetaTCVAE(FewLabels, BetaTCVAE):
    """S2-TCVAE: the `BetaTCVAE` with few labels."""


@register_model("s2_factorvae", title="FactorVAE with few labels", reference=REFERENCE)
class S2FactorVAE(FewLabels, FactorVAE):
    """S2-FactorVAE: the `FactorVAE` with few labels."""


@register_model("s2_dipvae1", title="DIP-VAE-I with few labels", reference=REFERENCE)
class S2DIPVAE1(FewLabels, DIPVAE1):
    """S2-DIP-VAE-I: the `DIPVAE1` with few labels."""
