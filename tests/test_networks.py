"""Networks by name: their layers, the user's own, and the name under which they are recorded."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import dislab
from dislab.errors import DislabError
from dislab.networks.architectures import initialisation
from dislab.networks.named import choose_network, make_networks
from dislab.registry import NETWORKS
from dislab.runs.machine import Machine
from dislab.runs.resolve import make_model, resolve

OWN = """
from torch import nn


def tiny(image_shape, outputs, latents, channels):
    c, h, w = image_shape
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, outputs))
    return encoder, nn.Sequential(nn.Linear(latents, channels * h * w), nn.Unflatten(1, (channels, h, w)))


def narrow(image_shape, outputs, latents, channels):
    return tiny(image_shape, outputs - 1, latents, channels)


def broken(image_shape, outputs, latents, channels):
    raise ValueError("no such luck")


def alone(image_shape, outputs, latents, channels):
    return nn.Identity()
"""


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_orthogonal_weights_before_a_relu_keep_the_variance_and_others_are_as_usual(name):
    with initialisation("orthogonal"):
        parts = make_networks(name, (3, 64, 64), outputs=20, latents=10, channels=3)
    for layers in map(list, parts):
        for layer, after in zip(layers, [*layers[1:], None], strict=True):
            if not hasattr(layer, "weight"):
                continue
            assert (layer.bias == 0).all()
            matrix = layer.weight.detach().flatten(1).double()
            matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.T
            is_orthogonal = torch.allclose(matrix @ matrix.T, 2 * torch.eye(len(matrix)).double(), atol=1e-4)
            assert is_orthogonal == isinstance(after, nn.ReLU), layer


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_lecun_weights_have_the_variance_of_one_input_and_biases_are_random(name):
    torch.manual_seed(0)
    with initialisation("lecun"):
        parts = make_networks(name, (3, 64, 64), outputs=20, latents=10, channels=3)
    biases = []
    for layer in (layer for part in parts for layer in part if hasattr(layer, "weight")):
        inputs = nn.init._calculate_fan_in_and_fan_out(layer.weight)[0]
        scaled = layer.weight.detach() * math.sqrt(inputs)
        assert scaled.std().item() == pytest.approx(1, rel=0.1)
        assert 1.5 < scaled.abs().max() <= math.sqrt(3) + 1e-6  # a uniform of variance 1
        biases.append(layer.bias.detach() * math.sqrt(inputs))
    biases = torch.cat(biases)
    assert biases.abs().max() <= 1 + 1e-6
    assert biases.std().item() == pytest.approx(math.sqrt(1 / 3), rel=0.1)


def test_a_run_has_the_initialisation_of_its_protocol():
    """And what is made afterwards has the usual one again."""

    def first_weight(protocol: str) -> torch.Tensor:
        config = resolve("vae", "dsprites", Machine(), source="rendered", protocol=protocol, network="conv")
        return next(make_model(config, (1, 64, 64)).parameters()).flatten(1)

    for protocol, squared in (("quick", None), ("paper", None), ("fast", 2.0), ("medium", 2.0)):
        weight = first_weight(protocol)
        gram = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
        off_diagonal = (gram - gram.diagonal().diag()).abs().max()
        assert (off_diagonal < 1e-5) == (squared is not None)
        if squared is not None:
            torch.testing.assert_close(gram.diagonal(), torch.full((len(gram),), squared))
    encoder, _ = make_networks("conv", (1, 64, 64), outputs=2, latents=1, channels=1)
    bound = (6 / (16 + 16 * 32)) ** 0.5  # Glorot & Bengio 2010, eq. 16
    assert 0.9 * bound < encoder[0].weight.abs().max() <= bound


@pytest.fixture
def nets(tmp_path, monkeypatch, isolated):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(OWN)
    return tmp_path / "nets.py"


def shapes(network: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of all weights, in order."""
    return [tuple(one.shape) for one in network.parameters() if one.ndim > 1]


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 32, 48)])
@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_every_network_has_the_asked_shapes_and_the_usual_start(name, shape):
    torch.manual_seed(0)
    encoder, decoder = make_networks(name, shape, outputs=7, latents=3, channels=2)
    assert encoder(torch.rand(2, *shape)).shape == (2, 7)
    assert decoder(torch.randn(2, 3)).shape == (2, 2, *shape[1:])
    for layer in [*encoder, *decoder]:
        if hasattr(layer, "weight"):
            assert layer.bias.eq(0).all()
            fans = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / sum(fans)), rel=0.1)


def test_the_layers_are_those_of_the_papers():
    made = {
        name: [shapes(part) for part in make_networks(name, (1, 64, 64), outputs=20, latents=10, channels=1)]
        for name in ("burgess", "fc1200", "mlp")
    }
    assert made["burgess"] == [
        [(32, 1, 4, 4), *[(32, 32, 4, 4)] * 3, (256, 512), (256, 256), (20, 256)],
        [(256, 10), (256, 256), (512, 256), *[(32, 32, 4, 4)] * 3, (32, 1, 4, 4)],
    ]
    assert made["fc1200"] == [
        [(1200, 4096), (1200, 1200), (20, 1200)],
        [(1200, 10), (1200, 1200), (1200, 1200), (4096, 1200)],
    ]
    assert made["mlp"] == [[(500, 4096), (20, 500)], [(500, 10), (4096, 500)]]


def test_auto_is_conv_if_the_image_can_be_halved_four_times():
    assert choose_network("auto", (3, 64, 64)) == "conv"
    assert choose_network("auto", (1, 28, 28)) == choose_network("mlp", (3, 64, 64)) == "mlp"
    with pytest.raises(DislabError, match=r"network=burgess needs image sides divisible by 16, .*mlp"):
        make_networks("burgess", (1, 28, 28), outputs=2, latents=1, channels=1)


def test_a_run_is_recorded_with_the_network_that_it_has(tiny_dataset):
    machine = Machine.here("cpu")
    auto, named, other = (
        resolve("vae", tiny_dataset, machine, network=network) for network in ("auto", "conv", "conv4x4")
    )
    assert auto == named and auto.hyperparameters["network"] == "conv"
    assert other.row != auto.row and "network=conv4x4" in other.key["hyperparameters"]
    with pytest.raises(DislabError, match="unknown network 'conv4': did you mean 'conv"):
        resolve("vae", tiny_dataset, machine, network="conv4")
    with pytest.raises(DislabError, match="network is 5: choose one of"):
        resolve("vae", tiny_dataset, machine, network=5)


def test_a_network_in_a_file_is_recorded_with_a_digest_of_its_text(nets, tiny_dataset, tmp_path):
    options = {"device": "cpu", "steps": 2, "metrics": ["mig"], "out": tmp_path / "out"}
    run = dislab.run("vae", tiny_dataset, network="nets.py:tiny", latents=2, **options)
    name = run.config.hyperparameters["network"]
    assert name.startswith("nets.py:tiny@") and shapes(run.model.encoder) == [(4, 256)]
    assert shapes(dislab.load(run.path).model.encoder) == [(4, 256)]
    nets.write_text(OWN + "\n# another text\n")
    other = resolve("vae", tiny_dataset, Machine.here("cpu"), network="nets.py:tiny")
    assert other.hyperparameters["network"] != name
    with pytest.raises(DislabError, match=rf"'{name}' has changed since"):
        resolve("vae", tiny_dataset, Machine.here("cpu"), network=name)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("nets.py:tinny", r"unknown network in 'nets.py' 'tinny': did you mean 'tiny'"),
        ("none.py:tiny", "the network's file 'none.py' cannot be read: No such file"),
        ("nets.py:narrow", r"its encoder returns \[1, 19\] for an input \[1, 1, 16, 16\], .* \[1, 20\]"),
        ("nets.py:broken", r"that returns an encoder and a decoder: ValueError: no such luck .*line 16"),
        ("nets.py:alone", "must be a function of .* that returns an encoder and a decoder"),
    ],
)
def test_a_wrong_network_is_one_line_before_the_training(nets, tiny_dataset, network, message):
    with pytest.raises(DislabError, match=message):
        resolve("vae", tiny_dataset, Machine.here("cpu"), network=network)


def test_a_path_may_hold_any_sign(nets, tmp_path):
    folder = tmp_path / "a@b c" / "1a2b3c4d"
    folder.mkdir(parents=True)
    path = nets.rename(folder / "nets.py")
    name = choose_network(f"{path}:tiny", (1, 8, 8))
    assert re.fullmatch(rf"{re.escape(str(path))}:tiny@[0-9a-f]{{8}}", name)
    assert choose_network(name, (1, 8, 8)) == name
    make_networks(name, (1, 8, 8), outputs=4, latents=2, channels=1)


def test_a_file_that_changes_back_is_read_again(nets):
    sizes = {"outputs": 4, "latents": 2, "channels": 1}
    made = []
    for text in (OWN, OWN.replace("nn.Flatten(), ", "nn.Flatten(), nn.ReLU(), "), OWN):
        nets.write_text(text)
        name = choose_network("nets.py:tiny", (1, 8, 8))
        made.append((name, len(make_networks(name, (1, 8, 8), **sizes)[0])))
    assert made[0] == made[2] and [number for _, number in made] == [2, 3, 2]


def test_a_registered_network_is_a_name_like_any_other(tiny_dataset, isolated):
    @dislab.register_network("linear", title="No hidden layer")
    def linear(image_shape, outputs, latents, channels):
        pixels = math.prod(image_shape)
        decoder = nn.Sequential(nn.Linear(latents, pixels), nn.Unflatten(1, image_shape))
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, outputs)), decoder

    config = resolve("mlvae", tiny_dataset, Machine.here("cpu"), network="linear", content=2, style=1)
    name = config.hyperparameters["network"]
    assert re.fullmatch(r"linear@[0-9a-f]{8}", name)
    assert resolve("mlvae", tiny_dataset, Machine.here("cpu"), network=name, content=2, style=1) == config
    with pytest.raises(DislabError, match="network 'linear@00000000' has changed since"):
        resolve("vae", tiny_dataset, Machine.here("cpu"), network="linear@00000000")


def test_the_network_of_the_documentation_works(tiny_dataset, tmp_path, monkeypatch, isolated):
    text = (Path(__file__).parent.parent / "docs" / "networks.md").read_text()
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    config = resolve("betavae", tiny_dataset, Machine.here("cpu"), network="nets.py:wide")
    assert config.hyperparameters["network"].startswith("nets.py:wide@")
    listed = {entry.name for entry in NETWORKS}
    assert listed == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
