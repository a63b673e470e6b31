"""The multi-level VAE: one content code per group of images, one style code per image.

    x_i, i in group G          observations that share something (a digit, an identity, a shape)
    q(c_G|x_G) = 1/Z prod_i q(c|x_i)      content, one per group: a product of Normals    (eq. 6, 7)
    q(s_i|x_i)                            style, one per image
    ELBO(G) = sum_i E ln p(x_i|c_G, s_i) - sum_i KL(q(s_i|x_i) || p(s)) - KL(q(c_G|x_G) || p(c))    (eq. 4)

The objective is the mean of ELBO(G) over the groups of the minibatch (eq. 5).
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
    content : number of content dimensions, shared by the images of a group.
    style : number of style dimensions, one code per image. A small style is what keeps the class out of it:
        on MNIST ten dimensions carry the digit nearly as well as the content does, four about half as well;
        on Shapes3D, grouped by object hue, three carry it in some runs and two no better than chance.
    group_size : images per group in a training batch; the last group of a batch takes what is left.
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
        network: Literal["auto", "conv", "mlp"] = "auto",
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
    ):
        super().__init__(image_shape, latents=content + style, network=network, likelihood=likelihood)
        self.content, self.style = content, style
        self.group_size = group_size

    @property
    def blocks(self) -> dict[str, slice]:
        return {"content": slice(0, self.content), "style": slice(self.content, self.latents)}

    def split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The content and style parts, [B, content] and [B, style], of codes or parameters [B, D]."""
        return codes[:, : self.content], codes[:, self.content :]

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """The negative average group ELBO (eq. 5), nats per group, and its terms.

        `reconstruction` and `kl_style` are nats per image, `kl_content` is nats per group.
        """
        mean, logvar = self.encode(batch.images)
        content_mean, style_mean = self.split(mean)
        content_logvar, style_logvar = self.split(logvar)
        group_mean, group_logvar = product_of_normals(
            content_mean, content_logvar, batch.group, batch.num_groups
        )

        content_noise, style_noise = self.split(batch.noise)
        # One draw of the content per group: the noise of the group's first image serves the whole group.
        content = sample_normal(group_mean, group_logvar, content_noise[batch.first])[batch.group]
        style = sample_normal(style_mean, style_logvar, style_noise)
        decoded = self.decode(torch.cat([content, style], dim=1))

        reconstruction = negative_log_likelihood(decoded, batch.images, self.likelihood)
        kl_style = kl_to_standard_normal(style_mean, style_logvar).sum(1)
        kl_content = kl_to_standard_normal(group_mean, group_logvar).sum(1)
        loss = (reconstruction.sum() + kl_style.sum() + kl_content.sum()) / batch.num_groups
        return {
            "loss": loss,
            "reconstruction": reconstruction.mean(),
            "kl_style": kl_style.mean(),
            "kl_content": kl_content.mean(),
        }
