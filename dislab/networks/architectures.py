"""Encoder and decoder networks: those of Locatello et al. 2019, and the ML-VAE paper's for MNIST.

All layers are torch's own. `dislab.networks.fused` makes them fast on the CPU.
"""

from __future__ import annotations

import math

from torch import nn

from dislab.errors import DislabError


def choose_network(network: str, image_shape: tuple[int, int, int]) -> str:
    """Return "conv" or "mlp". "auto" is "conv" if both sides are divisible by 16, else "mlp"."""
    divisible = all(side % 16 == 0 for side in image_shape[1:])
    if network == "conv" and not divisible:
        raise DislabError(
            f"network=conv needs image sides divisible by 16, not {image_shape[1:]}: use network=mlp"
        )
    return network if network != "auto" else "conv" if divisible else "mlp"


def make_encoder(network: str, image_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
    """Return a network that maps images [B, C, H, W] to [B, outputs].

    "conv" is the encoder of Locatello et al. 2019 (arXiv:1811.12359, table 1), "mlp" has one hidden layer of
    500 tanh units (Bouchacourt et al. 2017, arXiv:1705.08841, for MNIST).
    """
    channels, height, width = image_shape
    if network == "mlp":
        layers = [nn.Flatten(), nn.Linear(math.prod(image_shape), 500), nn.Tanh(), nn.Linear(500, outputs)]
    else:
        layers = [
            nn.Conv2d(channels, 32, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (height // 16) * (width // 16), 256),
            nn.ReLU(),
            nn.Linear(256, outputs),
        ]
    return nn.Sequential(*layers).apply(initialise)


def make_decoder(
    network: str, image_shape: tuple[int, int, int], latents: int, channels: int
) -> nn.Sequential:
    """Return a network that maps codes [B, latents] to [B, channels, H, W].

    Its layers mirror those of `make_encoder`.
    """
    _, height, width = image_shape
    if network == "mlp":
        layers = [
            nn.Linear(latents, 500),
            nn.Tanh(),
            nn.Linear(500, channels * height * width),
            nn.Unflatten(1, (channels, height, width)),
        ]
    else:
        rows, columns = height // 16, width // 16
        layers = [
            nn.Linear(latents, 256),
            nn.ReLU(),
            nn.Linear(256, 64 * rows * columns),
            nn.ReLU(),
            nn.Unflatten(1, (64, rows, columns)),
            nn.ConvTranspose2d(64, 64, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 32, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, channels, kernel_size=4, stride=2, padding=1),
        ]
    return nn.Sequential(*layers).apply(initialise)


def initialise(layer: nn.Module) -> None:
    """Set Glorot uniform weights and zero biases, as in the reference's TensorFlow layers.

    torch's own defaults give weights a third of that variance: through eight layers the signal fades, and the
    first thousand steps are lost.
    """
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
