"""Encoder and decoder networks by name, in torch's own layers; `dislab.networks.fused` makes them fast.

A network is a function of (image_shape, outputs, latents, channels). It returns an encoder, which maps images
[B, C, H, W] to [B, outputs], and a decoder, which maps codes [B, latents] to [B, channels, H, W].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise

from torch import nn

from dislab.errors import DislabError
from dislab.registry import register_network

Networks = tuple[nn.Module, nn.Module]


@register_network(
    "conv",
    title="Four convolutions, the last two with 2 x 2 kernels; the decoder's are 4 x 4",
    reference="Locatello et al. 2019, as disentanglement_lib builds it",
)
def conv(image_shape, outputs: int, latents: int, channels: int) -> Networks:
    """Return the networks of disentanglement_lib.

    TensorFlow's "same" padding of a stride of 2 is 1 on every side for a kernel of 4, and none for 2.
    """
    return convolutional("conv", image_shape, outputs, latents, channels, kernels=(4, 4, 2, 2))


@register_network(
    "conv4x4",
    title="Four convolutions with 4 x 4 kernels, and their mirror image",
    reference="Higgins et al. 2017 (beta-VAE), for CelebA and chairs",
)
def conv4x4(image_shape, outputs: int, latents: int, channels: int) -> Networks:
    """Return the networks of the beta-VAE paper."""
    return convolutional("conv4x4", image_shape, outputs, latents, channels)


@register_network(
    "burgess",
    title="Four convolutions of 32 channels, two layers of 256 units, and their mirror image",
    reference="Burgess et al. 2018, arXiv:1804.03599",
)
def burgess(image_shape, outputs: int, latents: int, channels: int) -> Networks:
    """Return the networks of the annealed beta-VAE."""
    return convolutional(
        "burgess", image_shape, outputs, latents, channels, (32, 32, 32, 32), dense=(256, 256)
    )


def convolutional(
    name: str,
    image_shape: tuple[int, int, int],
    outputs: int,
    latents: int,
    channels: int,
    widths: tuple[int, ...] = (32, 32, 64, 64),
    kernels: tuple[int, ...] = (4, 4, 4, 4),
    dense: tuple[int, ...] = (256,),
) -> Networks:
    """Return convolutions that halve the image, dense layers, and a decoder that mirrors them.

    Parameters
    ----------
    widths, kernels : of the encoder's convolutions, from the image on; the decoder's kernels are 4 x 4.
    dense : units of the encoder's dense layers, from the image on.
    """
    parts = 2 ** len(widths)
    if any(side % parts for side in image_shape[1:]):
        raise DislabError(
            f"network={name} needs image sides divisible by {parts}, not {image_shape[1:]}: use network=mlp"
        )
    rows, columns = (side // parts for side in image_shape[1:])
    encoder: list[nn.Module] = []
    for before, width, kernel in zip((image_shape[0], *widths), widths, kernels, strict=False):
        encoder += [nn.Conv2d(before, width, kernel, stride=2, padding=(kernel - 2) // 2), nn.ReLU()]
    sizes = (widths[-1] * rows * columns, *dense)
    encoder += [nn.Flatten(), *dense_layers(*sizes, outputs, activation=nn.ReLU)]
    encoder = initialised(encoder)
    decoder = [*dense_layers(latents, *reversed(sizes), activation=nn.ReLU), nn.ReLU()]
    decoder.append(nn.Unflatten(1, (widths[-1], rows, columns)))
    for before, width in zip(reversed(widths), (*reversed(widths[:-1]), channels), strict=True):
        decoder += [nn.ConvTranspose2d(before, width, 4, stride=2, padding=1), nn.ReLU()]
    return encoder, initialised(decoder[:-1])


@register_network(
    "fc1200",
    title="Two layers of 1,200 ReLU, and three of 1,200 tanh units in the decoder",
    reference="Higgins et al. 2017 (beta-VAE), for dSprites",
)
def fc1200(image_shape, outputs: int, latents: int, channels: int) -> Networks:
    """Return the fully connected networks of the beta-VAE paper."""
    activations = nn.ReLU, nn.Tanh
    return fully_connected(image_shape, outputs, latents, channels, [1200] * 2, [1200] * 3, activations)


@register_network(
    "mlp", title="One layer of 500 tanh units each", reference="Bouchacourt et al. 2017, for MNIST"
)
def mlp(image_shape, outputs: int, latents: int, channels: int) -> Networks:
    """Return the networks of the ML-VAE paper for MNIST."""
    return fully_connected(image_shape, outputs, latents, channels, [500], [500], (nn.Tanh, nn.Tanh))


def fully_connected(
    image_shape: tuple[int, int, int],
    outputs: int,
    latents: int,
    channels: int,
    encoder_units: list[int],
    decoder_units: list[int],
    activations: tuple[type[nn.Module], type[nn.Module]],
) -> Networks:
    """Return an encoder and a decoder of dense layers, with these units and activations between them."""
    pixels = math.prod(image_shape[1:])
    sizes = image_shape[0] * pixels, *encoder_units, outputs
    encoder = initialised([nn.Flatten(), *dense_layers(*sizes, activation=activations[0])])
    layers = dense_layers(latents, *decoder_units, channels * pixels, activation=activations[1])
    return encoder, initialised([*layers, nn.Unflatten(1, (channels, *image_shape[1:]))])


def dense_layers(*sizes: int, activation: type[nn.Module]) -> list[nn.Module]:
    """Return dense layers of these sizes with an activation between them, and none after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return layers[:-1]


def initialised(layers: list[nn.Module]) -> nn.Sequential:
    """Return the layers with weights and biases by the initialisation that `initialisation` sets.

    torch's own defaults give weights a third of Glorot's variance: through eight layers the signal fades, and
    the first thousand steps are lost.
    """
    for layer, after in pairwise([*layers, None]):
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.zeros_(layer.bias)
            if _initialisation.get() == "lecun":
                bound = layer.weight[0].numel() ** -0.5  # 1 / sqrt(number of inputs), as torch counts them
                nn.init.uniform_(layer.weight, -math.sqrt(3) * bound, math.sqrt(3) * bound)
                nn.init.uniform_(layer.bias, -bound, bound)
            elif _initialisation.get() == "orthogonal" and isinstance(after, nn.ReLU):
                nn.init.orthogonal_(layer.weight, gain=math.sqrt(2))
            else:
                nn.init.xavier_uniform_(layer.weight)
    return nn.Sequential(*layers)


# How the weights of dislab's own networks start:
# - glorot: Glorot uniform, as in the reference's TensorFlow layers.
# - orthogonal: the layers before a ReLU have orthogonal weights that keep the variance (Saxe et al. 2014, He
#   et al. 2015), the others Glorot's. An ML-VAE then leaves the mean image after some 60 steps, not 600.
#   Biases are 0, as with glorot.
# - lecun: weights are uniform with a variance of 1 / inputs (LeCun et al. 1998, Efficient BackProp, section
#   4.6), biases uniform within 1 / sqrt(inputs) of 0, as in torch's own layers. It stands for the LeCun
#   initialisation with random biases that the ML-VAE's first author uses; how she draws the biases is not
#   known here. torch's default is another: its weights lie within 1 / sqrt(inputs), a third of that variance.
_initialisation = ContextVar("initialisation", default="glorot")


@contextmanager
def initialisation(name: str) -> Iterator[None]:
    """Let the networks that are made within have an initialisation, one of those above."""
    token = _initialisation.set(name)
    try:
        yield
    finally:
        _initialisation.reset(token)
