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

from dislab.batches import Batch
from dislab.distributions import (
    kl_to_standard_normal,
    negative_log_likelihood,
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
        network: Literal["auto", "conv", "mlp"] = "auto",
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
    ):
        latents = groupings * content + style
        super().__init__(image_shape, latents=latents, network=network, likelihood=likelihood)
        self.content, self.style, self.groupings = content, style, groupings
        self.group_size = group_size

    @property
    def blocks(self) -> dict[str, slice]:
        """content and style, or content_1, content_2, … and style where there are several groupings."""
        names = ["content"] if self.groupings == 1 else [f"content_{g + 1}" for g in range(self.groupings)]
        blocks = {name: slice(g * self.content, (g + 1) * self.content) for g, name in enumerate(names)}
        return blocks | {"style": slice(self.groupings * self.content, self.latents)}

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """The negative average group ELBO (eq. 5), nats per group, and its terms.

        `reconstruction` and `kl_style` are nats per image, `kl_content` is nats per group (summed over
        groupings).
        """
        mean, logvar = self.encode(batch.images)
        *contents, style = self.blocks.values()
        codes, kl_content = [], []
        for groups, block in zip(batch.groupings, contents, strict=True):
            group_mean, group_logvar = product_of_normals(
                mean[:, block], logvar[:, block], groups.index, groups.number
            )
            # One draw of the content per group: the noise of the group's first image serves the whole group.
            content = sample_normal(group_mean, group_logvar, batch.noise[groups.first, block])
            codes.append(content[groups.index])
            kl_content.append(kl_to_standard_normal(group_mean, group_logvar).sum(1))
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
