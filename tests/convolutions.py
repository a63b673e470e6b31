"""Convolutions that `fuse` replaces, and the check that they compute what torch does."""

import copy

import torch
from torch import nn

from dislab.networks.fused import fuse

# Few output channels of a transposed convolution are computed in another way than many.
LAYERS = [
    *((nn.Conv2d, 3, 2), (nn.Conv2d, 2, 5)),
    *((nn.ConvTranspose2d, 2, 1), (nn.ConvTranspose2d, 4, 3)),
    *((nn.ConvTranspose2d, 3, 6), (nn.ConvTranspose2d, 2, 16)),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def halve(inputs=4, channels=4, **changes) -> nn.Conv2d:
    return nn.Conv2d(inputs, channels, **({"kernel_size": 4, "stride": 2, "padding": 1} | changes))


def double(inputs=4, channels=4, **changes) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, channels, **({"kernel_size": 4, "stride": 2, "padding": 1} | changes))


def mix(inputs=4) -> nn.Conv2d:
    """A convolution that is not replaced, whose output a ReLU may overwrite."""
    return nn.Conv2d(inputs, inputs, 1)


def network_of(kind: type, inputs: int, channels: int, rectify: bool) -> nn.Sequential:
    torch.manual_seed(inputs + channels)
    before = [mix(inputs), nn.ReLU()] if rectify else []
    network = nn.Sequential(*before, kind(inputs, channels, 4, 2, 1)).double()
    for layer in network[::2]:
        nn.init.normal_(layer.bias)
    return network


def values_and_gradients(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of the images and the parameters."""
    images = images.clone().requires_grad_()
    output = network(images)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [output, *torch.autograd.grad(output, [images, *learned], weights)]


def assert_same(network: nn.Module, images: torch.Tensor) -> None:
    """A network computes the same fused, and leaves its input alone."""
    replaced, before = fuse(copy.deepcopy(network)), images.clone()
    expected = values_and_gradients(network, images)
    for value, other in zip(values_and_gradients(replaced, images), expected, strict=True):
        torch.testing.assert_close(value, other)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(replaced(images), expected[0])
    assert torch.equal(images, before)


def in_bfloat16(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The output and gradients of a float32 network, fused, under autocast; they are those of torch."""
    found, expected = (_under_autocast(one, images) for one in (fuse(copy.deepcopy(network)), network))
    for value, other in zip(found, expected, strict=True):
        assert value.dtype == other.dtype
        torch.testing.assert_close(value, other, rtol=0.05, atol=0.02 * other.abs().max().item())
    return found


def _under_autocast(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        return values_and_gradients(network, images)
