"""Principal component analysis of the pixels: a linear encoder without training steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dislab.data.dataset import unit_images
from dislab.registry import register_model
from dislab.training.precision import float32_products

MOST_IMAGES = 5_000  # for the components: more images change the first ten by less than the seeds do


@register_model("pca", title="Principal components of the pixels (no training)", reference="Pearson 1901")
class PCA(nn.Module):
    """The first principal components of the training images, each scaled to variance 1.

    Parameters
    ----------
    image_shape : (C, H, W).
    latents : number of components D.
    """

    supervision = "none"

    def __init__(self, image_shape: tuple[int, int, int], *, latents: int = 10):
        super().__init__()
        self.latents = latents
        self.image_shape = image_shape
        pixels = math.prod(image_shape)
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(latents, pixels))  # orthonormal rows
        self.register_buffer("deviation", torch.ones(latents))  # standard deviation along each component

    def fit(self, dataset, rows, generator: torch.Generator) -> None:
        """Find the components from up to MOST_IMAGES of the dataset's rows int64 [N]."""
        from sklearn.decomposition import PCA as PrincipalComponents

        chosen = torch.randperm(len(rows), generator=generator, device=generator.device)[:MOST_IMAGES]
        images = unit_images(dataset.images(torch.as_tensor(rows)[chosen.cpu()])).flatten(1).cpu().numpy()
        number = min(self.latents, *images.shape)
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        components = PrincipalComponents(number, random_state=seed).fit(images)
        self.mean.copy_(torch.from_numpy(components.mean_))
        self.components[:number] = torch.from_numpy(components.components_)
        self.deviation[:number] = torch.from_numpy(components.explained_variance_).sqrt().clamp(min=1e-6)

    def encode(self, images: Tensor) -> Tensor:
        """Return codes float32 [B, D] of images [B, C, H, W] in [0, 1]."""
        # TF32 would round to three digits what is then a sum of thousands of terms.
        with float32_products("ieee"):
            return (images.flatten(1) - self.mean) @ self.components.T / self.deviation

    def mean_image(self, codes: Tensor) -> Tensor:
        """Return images [B, C, H, W] in [0, 1] of codes [B, D]."""
        flat = self.mean + (codes * self.deviation) @ self.components
        return flat.clamp(0, 1).reshape(-1, *self.image_shape)
