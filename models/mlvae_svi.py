"""The ML-VAE without its encoder: content and style of every group and image are inferred by gradient steps.

This is the non-amortised alternative in section 3 of the ML-VAE paper, stochastic variational inference: the
variational parameters of a minibatch are optimised first, and the decoder then takes one step (Hoffman et al.
2013, algorithm 1). At test time, too, the code of an image is inferred by steps of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dislab.data.groups import Groups
from dislab.models.mlvae import MLVAE
from dislab.models.vae import Likelihood, PixelLogvar
from dislab.networks.distributions import kl_to_standard_normal, rows_of, sample_normal
from dislab.registry import register_model
from dislab.training.batches import Batch

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8  # Kingma & Ba 2015, algorithm 1


@register_model(
    "mlvae_svi",
    title="Multi-level VAE without an encoder (stochastic variational inference)",
    reference="Bouchacourt et al. 2017, section 3; Hoffman et al. 2013, arXiv:1206.7051",
)
class MLVAESVI(MLVAE):
    """Multi-level VAE with free variational parameters: a Normal per group and a Normal per image.

    Parameters
    ----------
    inference_steps : gradient steps (Adam) on the variational parameters of a batch, which start at the
        prior, in training.
    test_steps : the same at test time, where nothing is amortised: inference may need far more of them than a
        training that sees each image many times. 0 is `inference_steps`.
    inference_rate : their learning rate.
    content, style, group_size, groupings, network, likelihood, pixel_logvar : see `MLVAE`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        content: int = 8,
        style: int = 2,
        group_size: int = 8,
        groupings: int = 1,
        inference_steps: int = 10,
        test_steps: int = 0,
        inference_rate: float = 0.3,
        network: str = "auto",
        likelihood: Likelihood = "bernoulli",
        pixel_logvar: PixelLogvar = "floor",
    ):
        super().__init__(
            image_shape,
            content=content,
            style=style,
            group_size=group_size,
            groupings=groupings,
            network=network,
            likelihood=likelihood,
            pixel_logvar=pixel_logvar,
        )
        del self.encoder
        self.inference_steps, self.inference_rate = inference_steps, inference_rate
        self.test_steps = test_steps

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance [B, D], each image as a group of its own."""
        alone = torch.arange(len(images), device=images.device)
        return self.encode_groups(images, (Groups(alone, alone),) * self.groupings)

    def encode_groups(self, images: Tensor, groupings: tuple[Groups, ...]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance [B, D], with the content that of each image's group."""
        generator = torch.Generator(images.device).manual_seed(0)
        # All images get the same noise, so that a code does not depend on the position in the batch.
        shape = (self.test_steps or self.inference_steps, 1, self.latents)
        noise = torch.randn(shape, generator=generator, device=images.device).expand(-1, len(images), -1)
        contents, style = self.infer(images, groupings, noise)
        expanded = [
            (mean[groups.index], logvar[groups.index])
            for groups, (mean, logvar) in zip(groupings, contents, strict=True)
        ]
        means, logvars = zip(*expanded, style, strict=True)
        return torch.cat(means, dim=1), torch.cat(logvars, dim=1)

    def infer(
        self, images: Tensor, groupings: tuple[Groups, ...], noise: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
        """Optimise the variational parameters of a batch; no gradient flows to the decoder.

        Parameters
        ----------
        images : [B, C, H, W].
        noise : [steps, B, D], standard Normal.

        Returns
        -------
        Mean and log-variance [number, content] of the groups of each grouping, and mean and log-variance
        [B, style] of the images.
        """
        with torch.inference_mode(False), torch.enable_grad():
            # A tensor made in inference mode cannot take part in a gradient, but its copy can.
            images, noise = images.clone(), noise.clone()
            groupings = tuple(Groups(groups.index.clone(), groups.first.clone()) for groups in groupings)
            sizes = [(2, groups.number, self.content) for groups in groupings]
            sizes.append((2, len(images), self.style))
            lengths = [math.prod(size) for size in sizes]
            # All means and log-variances; at first the prior, 0 and 0.
            free = images.new_zeros(sum(lengths)).requires_grad_()

            def normals() -> list[tuple[Tensor, Tensor]]:
                parts = zip(free.split(lengths), sizes, strict=True)
                return [part.view(size).unbind() for part, size in parts]

            # Compute Adam as torch does. In some settings its own class cannot be part of a CUDA graph.
            gradient_mean, gradient_square = torch.zeros_like(free), torch.zeros_like(free)
            for number, step_noise in enumerate(noise, 1):
                loss = self._elbo_of(images, groupings, normals(), step_noise)["loss"]
                (gradient,) = torch.autograd.grad(loss, free)
                with torch.no_grad():
                    gradient_mean.lerp_(gradient, 1 - ADAM_BETAS[0])
                    gradient_square.mul_(ADAM_BETAS[1])
                    gradient_square.addcmul_(gradient, gradient, value=1 - ADAM_BETAS[1])
                    deviation = gradient_square.sqrt() / (1 - ADAM_BETAS[1] ** number) ** 0.5
                    rate = self.inference_rate / (1 - ADAM_BETAS[0] ** number)
                    free.addcdiv_(gradient_mean, deviation.add_(ADAM_EPSILON), value=-rate)
            *contents, style = [(mean.detach(), logvar.detach()) for mean, logvar in normals()]
        return contents, style

    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]:
        """Return the negative average group ELBO and its terms, see `MLVAE.loss`."""
        # Each inference step uses the noise of the batch, shifted by some images, so that all randomness
        # comes from the batch.
        noise = torch.stack([batch.noise.roll(shift, 0) for shift in range(1, self.inference_steps + 1)])
        contents, style = self.infer(batch.images, batch.groupings, noise)
        return self._elbo_of(batch.images, batch.groupings, [*contents, style], batch.noise)

    def _elbo_of(self, images, groupings, normals, noise) -> dict[str, Tensor]:
        """Return the loss and its terms at these variational parameters."""
        *contents, normal = normals
        *blocks, block = self.blocks.values()
        style = sample_normal(*normal, noise[:, block]), kl_to_standard_normal(*normal).sum(1)
        drawn = []
        for groups, block, (mean, logvar) in zip(groupings, blocks, contents, strict=True):
            content = sample_normal(mean, logvar, noise[groups.first, block])
            drawn.append((rows_of(content, groups.index), kl_to_standard_normal(mean, logvar).sum(1)))
        return self.group_elbo(images, groupings, drawn, style)
