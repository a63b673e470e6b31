"""InfoGAN: a generative adversarial network whose generator must leave its codes readable in the images.

    x = G(z, c)                z ~ U(-1, 1): incompressible noise; c: a category and U(-1, 1) numbers
    discriminator              -E ln D(x) - E ln(1 - D(G(z, c)))    - lambda I
    generator                  -E ln D(G(z, c))                     - lambda I
    I = E ln q(c|G(z, c)) + H(c)  <=  I(c; G(z, c))                 (eq. 4 and 5)

The recognition network Q shares the discriminator's body. As in the authors' code its weights are the
discriminator's to train, which is why I stands in both losses.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dislab.errors import DislabError
from dislab.networks.adversarial import infogan_networks
from dislab.networks.distributions import normal_log_density
from dislab.registry import register_model
from dislab.training.batches import Batch


@register_model("infogan", title="InfoGAN", reference="Chen et al. 2016, arXiv:1606.03657")
class InfoGAN(nn.Module):
    """InfoGAN. The code of an image is E[c|x] by Q: the category's probabilities, then the numbers' means.

    Parameters
    ----------
    image_shape : (C, H, W); both sides are divisible by 4. See `infogan_networks`.
    categories : number of values of the category; 0 is no category.
    continuous : number of codes that are uniform in [-1, 1]; 0 is none.
    incompressible : number of noise inputs z.
    discrete_weight, continuous_weight : lambda of the category's and of the numbers' information.
    """

    supervision = "iid"
    lowest: ClassVar = {"categories": 0, "continuous": 0}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        categories: int = 10,
        continuous: int = 2,
        incompressible: int = 62,
        discrete_weight: float = 1.0,
        continuous_weight: float = 1.0,
    ):
        super().__init__()
        if categories + continuous == 0:
            raise DislabError("infogan needs a code: categories and continuous are both 0")
        self.categories, self.continuous, self.incompressible = categories, continuous, incompressible
        self.discrete_weight, self.continuous_weight = discrete_weight, continuous_weight
        self.latents = categories + continuous
        self.noise = incompressible + continuous + 1  # the last column is of the category
        self.adam, self.adversary_steps = {"betas": (0.5, 0.999)}, 1
        self.adversary_adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.generator, self.adversary = infogan_networks(
            image_shape, incompressible + self.latents, self.latents
        )
        # All pictures are made with one z, as in the paper's figures.
        pictured = 2 * torch.rand(incompressible, generator=torch.Generator().manual_seed(0)) - 1
        self.register_buffer("pictured", pictured)

    def encode(self, images: Tensor) -> Tensor:
        """Return E[c|x] [B, D] by Q for images [B, C, H, W] in [0, 1]."""
        logits, means = self.adversary(images)[1].split([self.categories, self.continuous], dim=1)
        return torch.cat([logits.softmax(1), means], dim=1)

    def mean_image(self, codes: Tensor) -> Tensor:
        """Return images [B, C, H, W] in [0, 1] of codes [B, D], all with the same z."""
        return self.generate(codes, self.pictured.expand(len(codes), -1))

    def generate(self, codes: Tensor, z: Tensor) -> Tensor:
        """Return images [B, C, H, W] in [0, 1] of codes [B, D] and noise [B, incompressible]."""
        return self.generator(torch.cat([z, codes], dim=1)).sigmoid()

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes [B, D], of which the category is one-hot, and z, by standard Normal noise."""
        uniform = torch.erf(noise / math.sqrt(2))  # in [-1, 1]
        z, continuous, position = uniform.split([self.incompressible, self.continuous, 1], dim=1)
        category = ((position + 1) / 2 * self.categories).long().clamp(max=self.categories - 1)
        one_hot = (category == torch.arange(self.categories, device=noise.device)).to(noise.dtype)
        return torch.cat([one_hot, continuous], dim=1), z

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the loss of the generator and its terms; the information is in nats per image."""
        codes, z = self.draw(batch.noise)
        verdict, parameters = self.judge(self.generate(codes, z), real=False)
        generator = generator_loss(verdict)
        discrete, continuous = self.information(codes, parameters)
        return {
            "loss": generator - self.discrete_weight * discrete - self.continuous_weight * continuous,
            "generator": generator,
            "information_discrete": discrete,
            "information_continuous": continuous,
        }

    def adversary_loss(self, batch: Batch, other: Batch, step: Tensor) -> Tensor:
        """Return the loss of the discriminator and of Q, for the images and the noise of a new batch."""
        codes, z = self.draw(other.noise)
        with torch.no_grad():
            generated = self.generate(codes, z)
        real, _ = self.judge(other.images, real=True)
        verdict, parameters = self.judge(generated, real=False)
        discrete, continuous = self.information(codes, parameters)
        loss = discriminator_loss(real, verdict)
        return loss - self.discrete_weight * discrete - self.continuous_weight * continuous

    def judge(self, images: Tensor, *, real: bool) -> tuple[Tensor, Tensor]:
        """Return the logits [B] of "real" and the parameters [B, D] of Q, for real or for generated images.

        Each kind is normalised by its own batch. Only real images, which are what is encoded later, count in
        the running means and variances.
        """
        for layer in self.adversary.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.momentum = 0.1 if real else 0.0
        return self.adversary(images)

    def information(self, codes: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounds of the information of the category and of the numbers, in nats per image."""
        one_hot, continuous = codes.split([self.categories, self.continuous], dim=1)
        logits, mean = parameters.split([self.categories, self.continuous], dim=1)
        # The authors' code, too, fixes the variance of Q to 1.
        return category_information(one_hot, logits), number_information(continuous, mean, mean.new_zeros(()))


def category_information(one_hot: Tensor, logits: Tensor) -> Tensor:
    """Return E ln q(c|x) + ln V, in nats, of categories one_hot [B, V]; it is at most ln V."""
    return (one_hot * logits.log_softmax(1)).sum(1).mean() + math.log(max(1, one_hot.shape[1]))


def number_information(numbers: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return E ln q(c|x) + C ln 2, in nats, of numbers [B, C] uniform in [-1, 1] and Normals q.

    The authors' code has the entropy of N(0, 1) in place of ln 2: another constant, the same gradients.
    """
    log_density = normal_log_density(numbers, mean, logvar).sum(1)
    return log_density.mean() + numbers.shape[1] * math.log(2)


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Return -E ln D(x) - E ln(1 - D(G)) by the logits of real and of generated images."""
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """Return -E ln D(G) by the logits of generated images."""
    return F.softplus(-generated).mean()
