"""The multi-level VAE: one content code per group of images, one style code per image.

    x_i, i in group G          observations that share something (a digit, an identity, a shape)
    q(c_G|x_G) = 1/Z prod_i q(c|x_i)      content, one per group: a product of Normals    (eq. 6, 7)
    q(s_i|x_i)                            style, one per image
    ELBO(G) = sum_i E ln p(x_i|c_G, s_i) - sum_i KL(q(s_i|x_i) || p(s)) - KL(q(c_G|x_G) || p(c))    (eq. 4)

The objective is the mean of ELBO(G) over the groups of the minibatch (eq. 5). With several groupings at once
(by shape and by hue) an image has a content code for each, shared with another group of images.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dislab.batches import Batch, Groups
from dislab.distributions import (
    kl_to_standard_normal,
    negative_log_likelihood,
    normal_log_density,
    product_of_normals,
    sample_normal,
)
from dislab.models.vae import VAE
from dislab.registry import register_model


@register_model(
    "mlvae", title="Multi-level VAE", reference="Bouchacourt, Tomioka & Nowozin 2017, arXiv:1705.08841"
)
class MLVAE(VAE):
    """Multi-level VAE.

    Parameters
    ----------
    content : number of content dimensions of a grouping, shared by the images of a group.
    style : number of style dimensions, one code per image. A small style is what keeps the class out of it:
        on MNIST ten dimensions carry the digit nearly as well as the content does, four about half as well;
        on Shapes3D, grouped by object hue, three carry it in some runs and two no better than chance.
    group_size : images per group in a training batch; the last group of a batch takes what is left. Groups
        that have fewer images are not trained on.
    groupings : number of groupings, each with a content code of its own; a run sets it by its groupings.
    posterior : what joins the evidence of the members: the "product" of their Normals (eq. 6), or "mixture",
        the alternative that section 3 names; the KL of a mixture has no closed form and is that of its draw.
    content_draw : one draw of the content for the whole "group", or one for every "image" of it.
    network, likelihood : see `VAE`.
    """

    batch = "groups"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        content: int = 8,
        style: int = 2,
        group_size: int = 8,
        groupings: int = 1,
        posterior: Literal["product", "mixture"] = "product",
        content_draw: Literal["group", "image"] = "group",
        network: Literal["auto", "conv", "mlp"] = "auto",
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
    ):
        latents = groupings * content + style
        super().__init__(image_shape, latents=latents, network=network, likelihood=likelihood)
        self.content, self.style, self.groupings = content, style, groupings
        self.group_size = group_size
        self.posterior, self.content_draw = posterior, content_draw

    @property
    def blocks(self) -> dict[str, slice]:
        """content and style, or content_1, content_2, … and style where there are several groupings."""
        names = ["content"] if self.groupings == 1 else [f"content_{g + 1}" for g in range(self.groupings)]
        blocks = {name: slice(g * self.content, (g + 1) * self.content) for g, name in enumerate(names)}
        return blocks | {"style": slice(self.groupings * self.content, self.latents)}

    def content_of(
        self, groups: Groups, mean: Tensor, logvar: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The content drawn for each image [B, content], and KL(q(c_G|x_G) || p(c)) of each group [number].

        mean, logvar and noise are [B, content], of single images.
        """
        # A draw for the group takes the noise of one of its images, and serves all of them.
        drawn = groups.first if self.content_draw == "group" else torch.arange(len(mean), device=mean.device)
        group = groups.index[drawn]
        if self.posterior == "product":
            group_mean, group_logvar = product_of_normals(mean, logvar, groups.index, groups.number)
            content = sample_normal(group_mean[group], group_logvar[group], noise[drawn])
            kl = kl_to_standard_normal(group_mean, group_logvar).sum(1)
        else:
            # Images come in random order, so that a group's own first image is a member drawn at random.
            content = sample_normal(mean[drawn], logvar[drawn], noise[drawn])
            member = group[:, None] == groups.index
            densities = normal_log_density(content[:, None], mean, logvar).sum(2)
            mixture = torch.where(member, densities, -torch.inf).logsumexp(1) - member.sum(1).log()
            prior = normal_log_density(content, torch.zeros_like(content), torch.zeros_like(content)).sum(1)
            sums = mean.new_zeros(groups.number).index_add(0, group, mixture - prior)
            kl = sums / torch.bincount(group, minlength=groups.number)
        return (content[groups.index] if self.content_draw == "group" else content), kl

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """The negative average group ELBO (eq. 5), nats per group, and its terms.

        `reconstruction` and `kl_style` are nats per image, `kl_content` is nats per group (summed over
        groupings).
        """
        mean, logvar = self.encode(batch.images)
        *contents, style = self.blocks.values()
        codes, kl_content = [], []
        for groups, block in zip(batch.groupings, contents, strict=True):
            content, kl = self.content_of(groups, mean[:, block], logvar[:, block], batch.noise[:, block])
            codes.append(content)
            kl_content.append(kl)
        codes.append(sample_normal(mean[:, style], logvar[:, style], batch.noise[:, style]))
        decoded = self.decode(torch.cat(codes, dim=1))

        reconstruction = negative_log_likelihood(decoded, batch.images, self.likelihood)
        kl_style = kl_to_standard_normal(mean[:, style], logvar[:, style]).sum(1)
        kl_content = torch.stack(kl_content).sum(0)  # all groupings have equally many groups
        loss = (reconstruction.sum() + kl_style.sum() + kl_content.sum()) / len(kl_content)
        return {
            "loss": loss,
            "reconstruction": reconstruction.mean(),
            "kl_style": kl_style.mean(),
            "kl_content": kl_content.mean(),
        }
