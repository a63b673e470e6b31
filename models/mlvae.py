"""The multi-level VAE: one content code per group of images, one style code per image.

    x_i, i in group G          observations that share something (a digit, an identity, a shape)
    q(c_G|x_G) = 1/Z prod_i q(c|x_i)      content, one per group: a product of Normals    (eq. 6, 7)
    q(s_i|x_i)                            style, one per image
    ELBO(G) = sum_i E ln p(x_i|c_G, s_i) - sum_i KL(q(s_i|x_i) || p(s)) - KL(q(c_G|x_G) || p(c))    (eq. 4)

The objective is the mean of ELBO(G) over the groups of the minibatch (eq. 5); a group that has no image in it
counts for nothing. With several groupings, such as by shape and by hue, an image has a content code for each,
shared with another group of images. docs/mlvae.md explains the model with the paper's figures.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from dislab.data.groups import Groups
from dislab.models.vae import VAE, Likelihood, PixelLogvar
from dislab.networks.distributions import (
    average_of_normals,
    draws_of_mixture,
    has_images,
    kl_to_standard_normal,
    moments_of_mixture,
    negative_log_likelihood,
    product_of_normals,
    rows_of,
    sample_normal,
)
from dislab.registry import register_model
from dislab.training.batches import Batch

Posterior = Literal["product", "mixture", "average"]
# Mean and log-variance of each group's posterior: of a mixture its moments, which are not all of it.
JOINS = {"product": product_of_normals, "mixture": moments_of_mixture, "average": average_of_normals}


@register_model(
    "mlvae", title="Multi-level VAE", reference="Bouchacourt, Tomioka & Nowozin 2017, arXiv:1705.08841"
)
class MLVAE(VAE):
    """Multi-level VAE.

    Parameters
    ----------
    content : number of content dimensions of a grouping, shared by the images of a group. Dimensions that the
        class does not need lower `content_accuracy`: on Shapes3D, grouped by object hue, three are enough.
    style : number of style dimensions, one code per image. Only a small style keeps the class out of it. On
        MNIST ten dimensions carry the digit nearly as well as the content does, four about half as well. On
        Shapes3D, grouped by object hue, three carry it in some runs and two no better than chance.
    group_size : images per group in a training batch; the last group of a batch takes the rest. Groups with
        fewer images are not trained on. 0 draws the images of a batch uniformly, whatever their group, and
        groups those of one class, as the authors did on MNIST.
    beta_content, beta_style : weights of the KL of the content and of the style; eq. 4 has 1 for both. If a
        group of the data is larger than group_size, the batches count the KL of its content more often than
        its ELBO does: beta_content = group_size / (its size) makes up for that.
    groupings : number of groupings, each with a content code of its own; a run sets it by its groupings.
    posterior : how the posteriors of the members are joined: as the "product" of their Normals (eq. 6); as
        their "mixture", the alternative in section 3, whose KL has no closed form and is estimated from its
        draw; or as the "average" of their means and variances (Hosoya 2019, arXiv:1809.02383).
    content_draw : one draw of the content for the whole "group", or one for every "image" of it.
    network, likelihood, pixel_logvar : see `VAE`.
    """

    supervision = "groups"
    lowest: ClassVar = {"group_size": 0}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        content: int = 8,
        style: int = 2,
        group_size: int = 8,
        beta_content: float = 1.0,
        beta_style: float = 1.0,
        groupings: int = 1,
        posterior: Posterior = "product",
        content_draw: Literal["group", "image"] = "group",
        network: str = "auto",
        likelihood: Likelihood = "bernoulli",
        pixel_logvar: PixelLogvar = "floor",
    ):
        latents = groupings * content + style
        pixels = {"likelihood": likelihood, "pixel_logvar": pixel_logvar}
        super().__init__(image_shape, latents=latents, network=network, **pixels)
        self.content, self.style, self.groupings, self.group_size = content, style, groupings, group_size
        self.beta_content, self.beta_style = beta_content, beta_style
        self.posterior, self.content_draw = posterior, content_draw

    @property
    def blocks(self) -> dict[str, slice]:
        """Return the slices of content and style, or of content_1, content_2, … and style."""
        names = ["content"] if self.groupings == 1 else [f"content_{g + 1}" for g in range(self.groupings)]
        blocks = {name: slice(g * self.content, (g + 1) * self.content) for g, name in enumerate(names)}
        return blocks | {"style": slice(self.groupings * self.content, self.latents)}

    def encode_groups(self, images: Tensor, groupings: tuple[Groups, ...]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance [B, D], with the content that of all images of each image's group.

        For a mixture, these are its mean and its log-variance. This is the only place where test images are
        joined. Callers must state which labels they used.
        """
        mean, logvar = self.encode(images)
        grouped_mean, grouped_logvar = mean.clone(), logvar.clone()
        for groups, block in zip(groupings, list(self.blocks.values())[:-1], strict=True):
            group = JOINS[self.posterior](mean[:, block], logvar[:, block], groups.index, groups.number)
            grouped_mean[:, block], grouped_logvar[:, block] = (values[groups.index] for values in group)
        return grouped_mean, grouped_logvar

    def content_of(
        self, groups: Groups, mean: Tensor, logvar: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the content drawn for each image [B, content], and KL(q(c_G|x_G) || p(c)) [number].

        Parameters
        ----------
        groups : the groups of the images, of which there are `number`.
        mean, logvar, noise : [B, content], of single images.
        """
        for_each = self.content_draw == "image"  # else one draw for a group serves all of its images
        if self.posterior == "mixture":
            content, kl = draws_of_mixture(mean, logvar, noise, groups.index, groups.number, for_each)
        else:
            normal = JOINS[self.posterior](mean, logvar, groups.index, groups.number)
            kl = kl_to_standard_normal(*normal).sum(1)
            if for_each:
                normal = (rows_of(part, groups.index) for part in normal)
            content = sample_normal(*normal, noise if for_each else noise[groups.first])
        return (content if for_each else rows_of(content, groups.index)), kl

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the negative average group ELBO (eq. 5), nats per group, and its terms.

        `reconstruction` and `kl_style` are in nats per image, `kl_content` is in nats per group, summed over
        the groupings.
        """
        mean, logvar = self.encode(batch.images)
        *blocks, style = self.blocks.values()
        contents = [
            self.content_of(groups, mean[:, block], logvar[:, block], batch.noise[:, block])
            for groups, block in zip(batch.groupings, blocks, strict=True)
        ]
        normal = mean[:, style], logvar[:, style]
        drawn = sample_normal(*normal, batch.noise[:, style]), kl_to_standard_normal(*normal).sum(1)
        return self.group_elbo(batch.images, batch.groupings, contents, drawn)

    def group_elbo(
        self, images: Tensor, groupings: tuple[Groups, ...], contents: list, style: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss and its terms.

        Parameters
        ----------
        images : [B, C, H, W].
        groupings : their groups by each grouping, equally many.
        contents : what `content_of` returns, for each grouping.
        style : drawn for each image, [B, style], and KL(q(s_i|x_i) || p(s)) [B].
        """
        drawn, kl_style = style
        decoded = self.decode(torch.cat([*(content for content, _ in contents), drawn], dim=1))
        reconstruction = negative_log_likelihood(decoded, images, self.likelihood)
        kl_content = torch.stack([kl for _, kl in contents]).sum()
        number = has_images(groupings[0].index, groupings[0].number).sum()
        weighted = self.beta_style * kl_style.sum() + self.beta_content * kl_content
        return {
            "loss": (reconstruction.sum() + weighted) / number,
            "reconstruction": reconstruction.mean(),
            "kl_style": kl_style.mean(),
            "kl_content": kl_content / number,
        }
