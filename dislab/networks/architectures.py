"""Encoder and decoder networks: those of Locatello et al. 2019, and the ML-VAE paper's for MNIST."""

from __future__ import annotations

import math

from torch import nn

from dislab.errors import DislabError
from dislab.networks.fused import Double, Halve


def choose_network(network: str, image_shape: tuple[int, int, int]) -> str:
    """ "auto" is "conv" where the image can be halved four times (64 x 64), else "mlp" (MNIST's 28 x 28)."""
    halves = all(side % 16 == 0 for side in image_shape[1:])
    if network == "conv" and not halves:
        raise DislabError(
            f"network=conv needs image sides divisible by 16, not {image_shape[1:]}: use network=mlp"
        )
    return network if network != "auto" else "conv" if halves else "mlp"


def make_encoder(network: str, image_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """Images [B, C, H, W] -> [B, outputs]."""
    channels, height, width = image_shape
    if network == "mlp":  # one hidden layer of 500 tanh units
        return nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(image_shape), 500), nn.Tanh(), nn.Linear(500, outputs)
        ).apply(initialise)
    return nn.Sequential(
        Halve(channels, 32, rectify=False),
        Halve(32, 32, rectify=True),
        Halve(32, 64, rectify=True),
        Halve(64, 64, rectify=True),
        *(nn.ReLU(inplace=True), nn.Flatten()),
        *(nn.Linear(64 * (height // 16) * (width // 16), 256), nn.ReLU(inplace=True)),
        nn.Linear(256, outputs),
    ).apply(initialise)


def make_decoder(
    network: str, image_shape: tuple[int, int, int], latents: int, channels: int
) -> nn.Sequential:
    """Codes [B, latents] -> [B, channels, H, W]."""
    _, height, width = image_shape
    if network == "mlp":
        return nn.Sequential(
            *(nn.Linear(latents, 500), nn.Tanh()),
            nn.Linear(500, channels * height * width),
            nn.Unflatten(1, (channels, height, width)),
        ).apply(initialise)
    rows, columns = height // 16, width // 16
    return nn.Sequential(
        *(nn.Linear(latents, 256), nn.ReLU(inplace=True)),
        *(nn.Linear(256, 64 * rows * columns), nn.ReLU(inplace=True)),
        nn.Unflatten(1, (64, rows, columns)),
        Double(64, 64, rectify=False),
        Double(64, 32, rectify=True),
        Double(32, 32, rectify=True),
        Double(32, channels, rectify=True),
    ).apply(initialise)


def initialise(layer: nn.Module) -> None:
    """Glorot uniform weights and zero biases, as in the reference's TensorFlow layers.

    torch's own defaults give weights a third of that variance: through eight layers the signal fades, and the
    first thousand steps are lost.
    """
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
