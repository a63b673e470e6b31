"""The convolutions of the networks against torch's own: values, gradients, precisions, stacks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dislab.networks.architectures import make_decoder, make_encoder
from dislab.networks.fused import Double, Halve

# (few output channels are computed in another way than many)
LAYERS = [
    *((Halve, 3, 2), (Halve, 2, 5)),
    *((Double, 2, 1), (Double, 4, 3), (Double, 3, 6), (Double, 2, 16)),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def make_layer(kind: type, inputs: int, channels: int, rectify: bool) -> nn.Module:
    torch.manual_seed(inputs + channels)
    layer = kind(inputs, channels, rectify=rectify).double()
    nn.init.normal_(layer.bias)
    return layer


def as_torch(layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    function = F.conv2d if isinstance(layer, Halve) else F.conv_transpose2d
    images = images.relu() if layer.rectify else images
    return function(images, layer.weight, layer.bias, stride=2, padding=1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_values_and_gradients_are_those_of_torch(kind, inputs, channels, rectify, layout):
    layer = make_layer(kind, inputs, channels, rectify).to(memory_format=layout)
    images = torch.randn(3, inputs, 8, 4, dtype=torch.float64).contiguous(memory_format=layout)
    given = images.clone().requires_grad_()
    expected = as_torch(layer, given)
    weights = torch.randn_like(expected)
    of_torch = torch.autograd.grad(expected, [given, *layer.parameters()], weights)
    given = images.clone().requires_grad_()
    computed = layer(given.clone())  # (it may overwrite what it is given)
    torch.testing.assert_close(computed, expected)
    gradients = torch.autograd.grad(computed, [given, *layer.parameters()], weights)
    for gradient, other in zip(gradients, of_torch, strict=True):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_second_derivatives(kind, inputs, channels, rectify):
    layer = make_layer(kind, inputs, channels, rectify)
    images = torch.randn(1, inputs, 4, 4, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())

    def of(images, *values):
        named = dict(zip(("weight", "bias"), values, strict=True))
        return torch.func.functional_call(layer, named, (images.clone(),))

    assert torch.autograd.gradcheck(of, (images, *parameters))
    assert torch.autograd.gradgradcheck(of, (images, *parameters))


@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_a_stack_of_layers_is_each_layer_for_itself(kind, inputs, channels):
    layers = [make_layer(kind, inputs, channels, rectify=True) for _ in range(3)]
    for number, layer in enumerate(layers):
        nn.init.normal_(layer.weight, mean=number)
    images = torch.randn(3, 2, inputs, 4, 4, dtype=torch.float64)
    stacked = {
        name: torch.stack([getattr(layer, name).detach() for layer in layers]).requires_grad_()
        for name in ("weight", "bias")
    }

    def of_one(parameters, images):
        return torch.func.functional_call(layers[0], parameters, (images.clone(),))

    together = torch.vmap(of_one)(stacked, images)
    together.square().sum().backward()
    for index, layer in enumerate(layers):
        alone = layer(images[index].clone())
        alone.square().sum().backward()
        torch.testing.assert_close(together[index], alone)
        torch.testing.assert_close(stacked["weight"].grad[index], layer.weight.grad)
        torch.testing.assert_close(stacked["bias"].grad[index], layer.bias.grad)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_under_autocast_they_compute_in_bfloat16_and_keep_float32_parameters(kind, inputs, channels, rectify):
    layer = make_layer(kind, inputs, channels, rectify).float()
    images = torch.randn(2, inputs, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(images)
    assert rounded.dtype == torch.bfloat16
    exact = as_torch(layer, images)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.05)
    tensors = [images, layer.weight, layer.bias]
    gradients = torch.autograd.grad(rounded.float().square().sum(), tensors)
    expected = torch.autograd.grad(exact.square().sum(), tensors)
    for gradient, other in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, other, rtol=0.05, atol=0.02 * other.abs().max().item())


@pytest.mark.parametrize("channels", [3, 16])
def test_what_follows_may_write_in_place(channels):
    first, second = (
        make_layer(Double, 2, channels, rectify=False),
        make_layer(Double, channels, 2, rectify=True),
    )
    images = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    computed = second(first(images)).relu_()
    expected = as_torch(second, as_torch(first, images)).relu()
    torch.testing.assert_close(computed, expected)
    (gradient,) = torch.autograd.grad(computed.square().sum(), images)
    (other,) = torch.autograd.grad(expected.square().sum(), images)
    torch.testing.assert_close(gradient, other)


def test_networks_leave_the_images_that_they_are_given_alone():
    images = torch.randn(2, 3, 16, 16)
    codes = torch.randn(2, 4)
    before = images.clone(), codes.clone()
    make_encoder("conv", (3, 16, 16), 4)(images)
    make_decoder("conv", (3, 16, 16), 4, 3)(codes)
    assert torch.equal(images, before[0])
    assert torch.equal(codes, before[1])


def test_networks_are_those_of_locatello_2019():
    """Layer by layer with torch's functions: 4 convolutions and 2 dense layers, and the same mirrored."""
    torch.manual_seed(0)
    encoder, decoder = make_encoder("conv", (3, 64, 64), 20), make_decoder("conv", (3, 64, 64), 10, 3)
    assert [tuple(p.shape) for p in encoder.parameters() if p.ndim > 1] == [
        *((32, 3, 4, 4), (32, 32, 4, 4), (64, 32, 4, 4), (64, 64, 4, 4)),
        *((256, 1024), (20, 256)),
    ]
    images, codes = torch.rand(2, 3, 64, 64), torch.randn(2, 10)
    (*convolutions, dense, last) = zip(*[iter(encoder.parameters())] * 2, strict=True)
    hidden = images
    for weight, bias in convolutions:
        hidden = F.conv2d(hidden, weight, bias, 2, 1).relu()
    expected = F.linear(F.linear(hidden.flatten(1), *dense).relu(), *last)
    torch.testing.assert_close(encoder(images), expected)
    (first, dense, *convolutions) = zip(*[iter(decoder.parameters())] * 2, strict=True)
    hidden = F.linear(F.linear(codes, *first).relu(), *dense).relu().unflatten(1, (64, 4, 4))
    for number, (weight, bias) in enumerate(convolutions):
        hidden = F.conv_transpose2d(hidden.relu() if number else hidden, weight, bias, 2, 1)
    torch.testing.assert_close(decoder(codes), hidden)
