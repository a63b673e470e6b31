"""Layers of few channels by matrix products with patches, as on a GPU, against torch's own layers."""

import copy

import pytest
import torch
from convolutions import LAYERS, LAYOUTS, assert_same, double, halve, in_bfloat16, network_of
from torch import nn

from dislab.networks import fused
from dislab.networks.fused import fuse


@pytest.fixture
def patches(monkeypatch) -> list[bool]:
    """Compute here as on a GPU. Whether each layer that is computed by patches is transposed."""
    transposed, apply = [], fused._ByPatches.apply

    def recorded(*arguments):
        transposed.append(arguments[-1])
        return apply(*arguments)

    monkeypatch.setattr(fused._ByPatches, "apply", recorded)
    monkeypatch.setattr(fused, "_supports_input", lambda images: False)
    monkeypatch.setattr(fused, "PATCHES_ON", "cpu")
    return transposed


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_patches_give_the_values_and_gradients_of_torch(kind, inputs, channels, rectify, layout, patches):
    network = network_of(kind, inputs, channels, rectify).to(memory_format=layout)
    images = torch.randn(3, inputs, 8, 4, dtype=torch.float64).contiguous(memory_format=layout)
    assert_same(network, images)
    few = inputs if kind is nn.Conv2d else channels
    assert patches == ([kind is nn.ConvTranspose2d] * 3 if few <= 8 else [])
    in_bfloat16(network.float(), images.float())


def test_what_follows_patches_may_write_in_place(patches):
    network = nn.Sequential(halve(3), nn.ReLU(inplace=True), double(4, 3), nn.ReLU(inplace=True)).double()
    assert_same(network, torch.randn(2, 3, 8, 8, dtype=torch.float64))
    assert len(patches) == 6


def test_patches_have_derivatives_of_functions(patches):
    """torch.func.grad of the parameters, as a model's own loss may take it."""
    network = fuse(nn.Sequential(halve(3), nn.ReLU(), double(4, 3)))
    images, parameters = torch.randn(2, 3, 8, 8), dict(network.named_parameters())

    def loss(values):
        return torch.func.functional_call(network, values, (images,)).square().sum()

    found = torch.func.grad(loss)({name: value.detach() for name, value in parameters.items()})
    expected = torch.autograd.grad(loss(parameters), list(parameters.values()))
    for value, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(value, other)
    assert patches


def test_patches_have_second_derivatives(patches):
    torch.manual_seed(0)
    network = nn.Sequential(halve(3), nn.ReLU(), halve(), nn.ReLU(), double(4, 3))
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    found = []
    for one in (network, fuse(copy.deepcopy(network))):
        (slope,) = torch.autograd.grad(one(images).square().sum(), images, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), one.parameters()))
    assert patches
    for value, other in zip(*found, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())
