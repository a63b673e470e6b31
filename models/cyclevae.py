"""The cycle-consistent VAE: content is what two images of a class can exchange, style is what is left.

    forward    x1' = dec(u1, s2), x2' = dec(u2, s1)      x1, x2 of one class; style u drawn from q(u|x),
                                                         content s deterministic
    reverse    u is drawn from the prior, s_a and s_b are contents of two random images, and the encoder must
               find the same style in dec(u, s_a) and dec(u, s_b), whatever their classes are

The reverse cycle trains the encoder alone: the images that it encodes are made without a gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dislab.data.groups import Groups
from dislab.networks.distributions import kl_to_standard_normal, product_of_normals, sample_normal
from dislab.networks.named import make_networks
from dislab.registry import register_model
from dislab.training.batches import Batch

# The content has no variance. A standard deviation of 1/1,000 stands for that where one is asked for.
CONTENT_LOGVAR = 2 * math.log(1e-3)


@register_model("cyclevae", title="Cycle-consistent VAE", reference="Jha et al. 2018, arXiv:1804.10469")
class CycleVAE(nn.Module):
    """Cycle-consistent VAE, trained on pairs of images of one group.

    Parameters
    ----------
    image_shape : (C, H, W).
    content : number of dimensions of the "specified" code, which a class shares.
    style : number of dimensions of the "unspecified" code, one per image.
    reconstruction_weight : of the mean squared error of a pixel.
    kl_weight : of the KL of the style divided by the number of pixels.
    reverse_weight : of the mean absolute difference, over dimensions, of the styles in the reverse cycle. The
        authors have 10, and an Adam for each cycle, which undoes the weight. In a sum 10 leaves no style; at
        0.3 both cycles' gradients of the encoder were about equally long on MNIST.
    network : see `VAE`.
    """

    supervision = "groups"
    group_size = 2
    likelihood = "bernoulli"  # what `decode` returns are logits

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        content: int = 16,
        style: int = 16,
        reconstruction_weight: float = 2.0,
        kl_weight: float = 3.0,
        reverse_weight: float = 0.3,
        network: str = "auto",
    ):
        super().__init__()
        self.content, self.style, self.latents = content, style, content + style
        self.noise = 2 * style  # of the posterior and of the prior
        self.reconstruction_weight, self.kl_weight = reconstruction_weight, kl_weight
        self.reverse_weight = reverse_weight
        self.blocks = {"content": slice(0, content), "style": slice(content, self.latents)}
        sizes = {"outputs": content + 2 * style, "latents": self.latents, "channels": image_shape[0]}
        self.encoder, self.decoder = make_networks(network, image_shape, **sizes)

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the content [B, content], and mean and log-variance [B, style] of q(u|x)."""
        return self.encoder(images).split([self.content, self.style, self.style], dim=1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return content and style mean, and log-variances, both [B, D]; the content's are CONTENT_LOGVAR."""
        content, mean, logvar = self.parts(images)
        none = torch.full_like(content, CONTENT_LOGVAR)
        return torch.cat([content, mean], dim=1), torch.cat([none, logvar], dim=1)

    def encode_groups(self, images: Tensor, groupings: tuple[Groups, ...]) -> tuple[Tensor, Tensor]:
        """Return the same with the mean of the contents of each image's group. The paper joins none."""
        mean, logvar = self.encode(images)
        content, (groups,) = self.blocks["content"], groupings
        joined, _ = product_of_normals(mean[:, content], logvar[:, content], groups.index, groups.number)
        return torch.cat([joined[groups.index], mean[:, self.blocks["style"]]], dim=1), logvar

    def decode(self, codes: Tensor) -> Tensor:
        """Return the logits [B, C, H, W] of the images of codes [B, D]."""
        return self.decoder(codes)

    def mean_image(self, codes: Tensor) -> Tensor:
        """Return the images [B, C, H, W] in [0, 1] of codes [B, D]."""
        return self.decode(codes).sigmoid()

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss of a pair, the sum of both cycles, and its terms.

        `reconstruction` is the squared error of an image, summed over pixels, `kl` is in nats per image, and
        `reverse` is the absolute difference of two styles, summed over dimensions.
        """
        images, (noise, prior) = batch.images, batch.noise.split(self.style, dim=1)
        content, mean, logvar = self.parts(images)
        # Images 2i and 2i + 1 are a pair. The last image of an odd number is a group of its own.
        partner = (torch.arange(len(images), device=images.device) ^ 1).clamp(max=len(images) - 1)
        exchanged = torch.cat([content[partner], sample_normal(mean, logvar, noise)], dim=1)
        reconstruction, kl = forward_cycle(images, self.mean_image(exchanged), mean, logvar)
        half = len(images) // 2
        with torch.no_grad():  # images i and i + half are of groups that were drawn independently
            imagined = torch.cat([content[: 2 * half], prior[:half].repeat(2, 1)], dim=1)
            imagined = self.mean_image(imagined)
        reverse = reverse_cycle(*self.parts(imagined)[1].chunk(2))
        terms = {"reconstruction": reconstruction.mean(), "kl": kl.mean(), "reverse": reverse}
        forward = self.reconstruction_weight * terms["reconstruction"] + self.kl_weight * terms["kl"]
        loss = 2 * forward / images[0].numel() + self.reverse_weight * reverse / self.style
        return {"loss": loss, **terms}


def forward_cycle(images: Tensor, decoded: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared error of images [B, …], summed over pixels, and the KL of their styles, both [B]."""
    return (decoded - images).square().flatten(1).sum(1), kl_to_standard_normal(mean, logvar).sum(1)


def reverse_cycle(style: Tensor, other_style: Tensor) -> Tensor:
    """Return the mean over pairs of the L1 distance between their styles [B, style]."""
    return (style - other_style).abs().sum(1).mean()
