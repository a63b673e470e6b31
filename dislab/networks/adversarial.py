"""Networks of generative adversarial models: a generator, and a discriminator that also reads the codes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dislab.errors import DislabError

DEVIATION = 0.02  # of all weights at the start (Radford et al. 2016)


class Recogniser(nn.Module):
    """A discriminator and a recognition network Q with a body in common.

    Parameters
    ----------
    body : maps images [B, C, H, W] to features.
    verdict : maps features to the logit [B, 1] of "real".
    codes : maps features to the parameters [B, …] of Q.
    """

    def __init__(self, body: nn.Module, verdict: nn.Module, codes: nn.Module):
        super().__init__()
        self.body, self.verdict, self.codes = body, verdict, codes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [B] of "real", and the parameters [B, outputs] of Q."""
        features = self.body(images)
        return self.verdict(features)[:, 0], self.codes(features)


def infogan_networks(
    image_shape: tuple[int, int, int], inputs: int, outputs: int
) -> tuple[nn.Module, Recogniser]:
    """Return a generator of logits [B, C, H, W] from [B, inputs], and a recogniser of [B, outputs].

    Images whose sides are divisible by 16 get the networks of InfoGAN-CR (Lin et al. 2020), the others those
    of InfoGAN for MNIST. DislabError is raised if the sides are not divisible by 4.
    """
    channels, *sides = image_shape
    if all(side % 16 == 0 for side in sides):
        networks = _infogan_cr(channels, *sides, inputs, outputs)
    elif all(side % 4 == 0 for side in sides):
        networks = _infogan_mnist(channels, *sides, inputs, outputs)
    else:
        raise DislabError(f"infogan needs image sides divisible by 4, not {tuple(sides)}")
    for network in networks:
        network.apply(_start)
    return networks


def _infogan_mnist(
    channels: int, height: int, width: int, inputs: int, outputs: int
) -> tuple[nn.Module, Recogniser]:
    """Chen et al. 2016, appendix C.1, with batch normalisation but in the first layer and the last ones."""
    rows, columns = height // 4, width // 4
    generator = nn.Sequential(
        *(nn.Linear(inputs, 1024), nn.BatchNorm1d(1024), nn.ReLU()),
        *(nn.Linear(1024, 128 * rows * columns), nn.BatchNorm1d(128 * rows * columns), nn.ReLU()),
        nn.Unflatten(1, (128, rows, columns)),
        *(nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        nn.ConvTranspose2d(64, channels, 4, stride=2, padding=1),
    )
    body = nn.Sequential(
        *(nn.Conv2d(channels, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.01)),
        *(nn.Conv2d(64, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128), nn.LeakyReLU(0.01)),
        nn.Flatten(),
        *(nn.Linear(128 * rows * columns, 1024), nn.BatchNorm1d(1024), nn.LeakyReLU(0.01)),
    )
    codes = nn.Sequential(
        *(nn.Linear(1024, 128), nn.BatchNorm1d(128), nn.LeakyReLU(0.01), nn.Linear(128, outputs))
    )
    return generator, Recogniser(body, nn.Linear(1024, 1), codes)


def _infogan_cr(
    channels: int, height: int, width: int, inputs: int, outputs: int
) -> tuple[nn.Module, Recogniser]:
    """Lin et al. 2020 (InfoGAN-CR) for dSprites: batch normalisation after the generator's activations,
    spectral normalisation in the discriminator and its body, not in the layers of Q alone."""
    rows, columns = height // 16, width // 16
    layers: list[nn.Module] = [
        *(nn.Linear(inputs, 128), nn.ReLU(), nn.BatchNorm1d(128)),
        *(nn.Linear(128, 64 * rows * columns), nn.ReLU(), nn.BatchNorm1d(64 * rows * columns)),
        nn.Unflatten(1, (64, rows, columns)),
    ]
    for before, after in ((64, 64), (64, 32), (32, 32)):
        convolution = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
        layers += [convolution, nn.LeakyReLU(0.2), nn.BatchNorm2d(after)]
    generator = nn.Sequential(*layers, nn.ConvTranspose2d(32, channels, 4, stride=2, padding=1))
    layers = []
    for before, after in ((channels, 32), (32, 32), (32, 64), (64, 64)):
        layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
    features = spectral_norm(nn.Linear(64 * rows * columns, 128))
    body = nn.Sequential(*layers, nn.Flatten(), features, nn.LeakyReLU(0.2))
    codes = nn.Sequential(nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, outputs))
    return generator, Recogniser(body, spectral_norm(nn.Linear(128, 1)), codes)


def _start(layer: nn.Module) -> None:
    """Draw the weights of a layer from N(0, 0.02^2), those of batch normalisation around 1."""
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(layer.weight, 1, DEVIATION)
    elif isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        weight = (
            layer.parametrizations.weight.original if hasattr(layer, "parametrizations") else layer.weight
        )
        nn.init.normal_(weight, 0, DEVIATION)
        nn.init.zeros_(layer.bias)
