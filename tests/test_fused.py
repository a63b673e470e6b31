"""Fused networks against the same layers run by torch: values, gradients, precisions, hooks, transforms."""

import copy

import pytest
import torch
import torch.nn.functional as F
from convolutions import (
    LAYERS,
    LAYOUTS,
    assert_same,
    double,
    halve,
    in_bfloat16,
    mix,
    network_of,
    values_and_gradients,
)
from torch import nn

from dislab.networks import fused
from dislab.networks.fused import Fused, fuse
from dislab.networks.named import make_networks
from dislab.training.precision import compute_in_bfloat16


@pytest.fixture
def calls(monkeypatch) -> list[bool]:
    """Whether each replaced convolution took over a ReLU, in the order of the calls."""
    replaced, convolve = [], fused._convolve

    def recorded(layer, images, rectify):
        replaced.append(rectify)
        return convolve(layer, images, rectify)

    monkeypatch.setattr(fused, "_convolve", recorded)
    return replaced


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_values_and_gradients_are_those_of_torch(kind, inputs, channels, rectify, layout, calls):
    network = network_of(kind, inputs, channels, rectify).to(memory_format=layout)
    images = torch.randn(3, inputs, 8, 4, dtype=torch.float64).contiguous(memory_format=layout)
    assert_same(network, images)
    assert calls == [rectify] * 3


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_second_derivatives(kind, inputs, channels, rectify):
    network = fuse(network_of(kind, inputs, channels, rectify))
    images = torch.randn(1, inputs, 2, 4, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*network.named_parameters(), strict=True)

    def run(images, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (images,))

    assert torch.autograd.gradcheck(run, (images, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (images, *parameters), fast_mode=True)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "inputs", "channels"), LAYERS)
def test_under_autocast_they_compute_in_bfloat16_and_keep_float32_parameters(kind, inputs, channels, rectify):
    network = network_of(kind, inputs, channels, rectify).float()
    images = torch.randn(2, inputs, 8, 8)
    output, *gradients = in_bfloat16(network, images)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    torch.testing.assert_close(output.float(), network(images), rtol=0.02, atol=0.05)


class Residual(nn.Module):
    """Adds what its layers compute to their input, which they must leave alone."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.before, self.layers = mix(), nn.Sequential(*layers)

    def forward(self, images):
        hidden = self.before(images)
        return hidden + self.layers(hidden)


class Scaled(nn.Conv2d):
    def forward(self, images):
        return 2 * super().forward(images)


class Reversed(nn.Sequential):
    def forward(self, images):
        for layer in reversed(self):
            images = layer(images)
        return images


class Leaky(nn.ReLU):
    def forward(self, images):
        return F.leaky_relu(images)


RELU = nn.ReLU()
# A network, and for each of its convolutions that is replaced whether it takes over a ReLU.
ODD = {
    "ReLU first": ([nn.ReLU(), halve()], [False]),
    "ReLU last": ([halve(), nn.ReLU()], [False]),
    "ReLU twice": ([mix(), nn.ReLU(), nn.ReLU(), halve()], [False]),
    "ReLU in place": ([mix(), nn.ReLU(inplace=True), halve()], [True]),
    "one ReLU for two": ([mix(), RELU, halve(), RELU, double()], [True, True]),
    "other ReLU": ([mix(), nn.LeakyReLU(), halve()], [False]),
    "own ReLU": ([mix(), Leaky(), halve()], [False]),
    "ReLU before something else": ([halve(), nn.ReLU(), nn.AvgPool2d(2), halve()], [False, False]),
    "after tanh": ([mix(), nn.Tanh(), nn.ReLU(), halve()], [False]),
    "after sigmoid": ([mix(), nn.Sigmoid(), nn.ReLU(), double()], [False]),
    "after a view": ([mix(), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2), nn.ReLU(), halve()], [False]),
    "after nothing": ([mix(), nn.Identity(), nn.ReLU(), halve()], [False]),
    "after batch norm": ([mix(), nn.BatchNorm2d(4), nn.ReLU(), halve()], [False]),
    "nested": (
        [nn.Sequential(mix(), nn.ReLU(), halve()), nn.ReLU(), nn.Sequential(nn.ReLU(), double())],
        [True, False],
    ),
    "nested, the last layer inside": ([nn.Sequential(halve()), nn.ReLU(), double()], [False, False]),
    "residual": ([Residual(nn.ReLU(), halve(), nn.ReLU(), double())], [False, True]),
    "own Sequential": ([Reversed(halve(), nn.ReLU(), mix())], []),
    "own convolution": ([mix(), nn.ReLU(), Scaled(4, 4, 4, 2, 1)], []),
    "kernel of two": ([mix(), nn.ReLU(), halve(kernel_size=2, padding=0)], []),
    "after an own convolution": ([Scaled(4, 4, 1), nn.ReLU(), halve()], [False]),
    "other kernel": ([mix(), nn.ReLU(), halve(kernel_size=3)], []),
    "other stride": ([mix(), nn.ReLU(), double(stride=1)], []),
    "other padding": ([mix(), nn.ReLU(), halve(padding=2)], []),
    "uneven padding": ([mix(), nn.ReLU(), halve(padding=(1, 0))], []),
    "output padding": ([mix(), nn.ReLU(), double(output_padding=1)], []),
    "dilation": ([mix(), nn.ReLU(), halve(dilation=2)], []),
    "groups": ([mix(), nn.ReLU(), double(groups=2)], []),
    "no bias": ([mix(), nn.ReLU(), halve(bias=False), nn.ReLU(), double(bias=False)], []),
    "reflected": ([mix(), nn.ReLU(), halve(padding_mode="reflect")], []),
    "weights of a norm": ([mix(), nn.ReLU(), nn.utils.parametrizations.weight_norm(halve())], []),
    "odd sides": ([nn.ZeroPad2d((0, 1, 1, 0)), mix(), nn.ReLU(), halve()], [True]),
    "fixed weights": ([mix(), nn.ReLU(), halve().requires_grad_(False)], [True]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_compute_the_same(name, calls):
    layers, expected = ODD[name]
    torch.manual_seed(0)
    assert_same(nn.Sequential(*layers).double().eval(), torch.randn(2, 4, 10, 8, dtype=torch.float64))
    assert calls == expected * 3


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize(
    "images",
    [
        pytest.param(torch.randn(4, 8, 8).double(), id="one image"),
        pytest.param(torch.zeros(0, 4, 8, 8).double(), id="no image"),
        pytest.param(torch.full((1, 4, 8, 8), torch.nan).double(), id="not a number"),
        pytest.param(torch.randn(2, 4, 8, 8, dtype=torch.complex128), id="complex"),
    ],
)
def test_odd_images_give_the_same(images):
    between = nn.Identity() if images.is_complex() else nn.ReLU()
    network = nn.Sequential(double(), between, double(), mix(), double()).to(images.dtype)
    replaced = fuse(copy.deepcopy(network))
    expected, computed = (values_and_gradients(one, images) for one in (network, replaced))
    for value, other in zip(computed, expected, strict=True):
        torch.testing.assert_close(value, other, equal_nan=True)


def test_other_devices_and_kinds_of_tensors_are_left_to_torch(calls):
    class Images(torch.Tensor):
        pass

    network = fuse(nn.Sequential(halve(), nn.ReLU(), halve()))
    assert isinstance(network(torch.zeros(2, 4, 16, 16).as_subclass(Images)), Images)
    assert network.to("meta")(torch.zeros(2, 4, 16, 16, device="meta")).shape == (2, 4, 4, 4)
    assert calls == []


def test_what_autocast_leaves_in_float64_stays_so(calls):
    network = nn.Sequential(mix(), nn.ReLU(), halve()).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(network, torch.randn(2, 4, 8, 8, dtype=torch.float64))
    assert calls == []


HOOKS = {
    "forward hook": lambda layer, kept: layer.register_forward_hook(
        lambda layer, inputs, output: kept.extend([inputs[0], output])
    ),
    "forward pre-hook": lambda layer, kept: layer.register_forward_pre_hook(
        lambda layer, inputs: kept.append(inputs[0])
    ),
    "backward hook": lambda layer, kept: layer.register_full_backward_hook(
        lambda layer, inputs, outputs: kept.extend([*inputs, *outputs])
    ),
    "backward pre-hook": lambda layer, kept: layer.register_full_backward_pre_hook(
        lambda layer, outputs: kept.extend(outputs)
    ),
    "own forward": lambda layer, kept: setattr(
        layer, "forward", lambda images: kept.append(images) or type(layer).forward(layer, images)
    ),
}


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_see_what_they_would_see(hook, index):
    """The input of the ReLU is used twice: by the ReLU, and by a hook that keeps it."""
    torch.manual_seed(0)
    network = nn.Sequential(mix(), nn.ReLU(), halve(), nn.ReLU(), double()).double()
    images = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    seen = []
    for one in (network, fuse(copy.deepcopy(network))):
        kept: list[torch.Tensor] = []
        handle = HOOKS[hook](one[index], kept)
        values = values_and_gradients(one, images)
        if handle is not None:
            handle.remove()
        assert kept
        seen.append([*values, *kept])
    for value, other in zip(*seen, strict=True):
        torch.testing.assert_close(value, other)


def test_second_derivatives_through_a_chain():
    torch.manual_seed(0)
    network = nn.Sequential(halve(), nn.ReLU(), halve(), nn.ReLU(), double(), nn.ReLU(), double(4, 20))
    network = network.double()
    images = torch.randn(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    found = []
    for one in (network, fuse(copy.deepcopy(network))):
        (slope,) = torch.autograd.grad(one(images).square().sum(), images, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), one.parameters()))
    for value, other in zip(*found, strict=True):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize("channels", [3, 16])
def test_what_follows_may_write_in_place(channels):
    assert_same(
        nn.Sequential(double(2, channels), nn.ReLU(), double(channels, 2), nn.ReLU(inplace=True)).double(),
        torch.randn(2, 2, 4, 4, dtype=torch.float64),
    )


def test_every_sequential_is_fused_in_place_with_the_same_parameters():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(mix(), nn.Sequential(nn.ReLU(), halve()))
            self.others = nn.ModuleList([Reversed(halve()), nn.Sequential(double())])

    model = Model()
    before = model.state_dict(keep_vars=True)
    assert fuse(model) is model
    assert [type(module) for module in (model.encoder, model.encoder[1], *model.others)] == [
        *(Fused, Fused, Reversed, Fused)
    ]
    after = model.state_dict(keep_vars=True)
    assert list(before) == list(after) and all(before[name] is after[name] for name in before)


def test_a_fused_model_computes_in_bfloat16(calls):
    encoder, _ = make_networks("conv4x4", (3, 32, 32), outputs=5, latents=2, channels=3)
    model = nn.ModuleDict({"encoder": encoder})
    images = torch.rand(4, 3, 32, 32)
    exact = model["encoder"](images)
    compute_in_bfloat16(fuse(model))
    rounded = model["encoder"](images)
    assert calls == [False, True, True, True] and rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05


@pytest.mark.parametrize(("network", "small"), [("conv", 2), ("conv4x4", 4)])
def test_convolutional_networks_layer_by_layer(calls, network, small):
    """Layer by layer with torch's functions: 4 convolutions and 2 dense layers, and the decoder.

    TensorFlow's "same" padding puts max((ceil(n / stride) - 1) stride + kernel - n, 0) rows around n.
    """
    torch.manual_seed(0)
    encoder, decoder = make_networks(network, (3, 64, 64), outputs=20, latents=10, channels=3)
    assert [tuple(p.shape) for p in encoder.parameters() if p.ndim > 1] == [
        *((32, 3, 4, 4), (32, 32, 4, 4), (64, 32, small, small), (64, 64, small, small)),
        *((256, 1024), (20, 256)),
    ]
    images, codes = torch.rand(2, 3, 64, 64), torch.randn(2, 10)
    (*convolutions, dense, last) = zip(*[iter(encoder.parameters())] * 2, strict=True)
    hidden = images
    for weight, bias in convolutions:
        side, kernel = hidden.shape[-1], weight.shape[-1]
        around = max((-(-side // 2) - 1) * 2 + kernel - side, 0)
        half = around // 2, around - around // 2
        hidden = F.conv2d(F.pad(hidden, (*half, *half)), weight, bias, 2).relu()
    encoded = F.linear(F.linear(hidden.flatten(1), *dense).relu(), *last)
    (first, dense, *convolutions) = zip(*[iter(decoder.parameters())] * 2, strict=True)
    hidden = F.linear(F.linear(codes, *first).relu(), *dense).relu().unflatten(1, (64, 4, 4))
    for number, (weight, bias) in enumerate(convolutions):
        hidden = F.conv_transpose2d(hidden.relu() if number else hidden, weight, bias, 2, 1)
    for part, inputs, expected in ((encoder, images, encoded), (decoder, codes, hidden)):
        torch.testing.assert_close(part(inputs), expected)
        before, calls[:] = inputs.clone(), []
        torch.testing.assert_close(fuse(part)(inputs), expected)
        replaced = 2 if part is encoder and small == 2 else 4
        assert calls == [False, True, True, True][:replaced] and torch.equal(inputs, before)
