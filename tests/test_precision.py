"""Precisions: the networks in bfloat16, all else in float32; global settings stay as they were."""

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE
from torch import nn

import dislab
from dislab.cli import main
from dislab.errors import DislabError
from dislab.models.vae import VAE
from dislab.training.precision import arithmetic, choose_precision, compute_in_bfloat16, usual_precision

SETTING = {"protocol": "quick", "steps": 30, "batch_size": 8, "metrics": ["mig"], "network": "mlp"}


def test_only_an_unusual_precision_is_named():
    for usual in (None, "usual", "fp32"):
        assert choose_precision(usual, "cpu") == "usual"
    for usual in (None, "usual", "tf32"):
        assert choose_precision(usual, "cuda:0") == "usual"
    assert choose_precision("bf16", "cpu") == choose_precision("bf16", "cuda") == "bf16"
    assert choose_precision("fp32", "cuda") == "fp32"
    assert (usual_precision("cpu"), usual_precision("cuda:1")) == ("fp32", "tf32")


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("bf15", "unknown precision 'bf15': did you mean 'bf16'"),
        ("half", "known are fp32, tf32, bf16"),
        ("tf32", "--precision tf32 needs a CUDA device: on cpu choose fp32 or bf16"),
    ],
)
def test_wrong_precisions_are_one_clear_line(precision, message, capsys, tmp_path):
    with pytest.raises(DislabError, match=message):
        choose_precision(precision, "cpu")
    arguments = ["run", "--model", "vae", "--precision", precision, "--device", "cpu", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


class Networks(nn.Module):
    """Networks as a model may have them: a child module, and in a list of modules."""

    def __init__(self):
        super().__init__()
        self.single = nn.Linear(4, 4)
        self.several = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())])


def test_networks_compute_in_bfloat16_and_return_float32():
    torch.manual_seed(0)
    model, exact = Networks(), Networks()
    exact.load_state_dict(model.state_dict())
    compute_in_bfloat16(model)
    seen = []
    inner = model.several[1][0]
    inner.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    inputs = torch.randn(8, 4)
    for network, same in zip([model.single, *model.several], [exact.single, *exact.several], strict=True):
        output, expected = network(inputs), same(inputs)
        assert output.dtype == torch.float32
        assert not torch.equal(output, expected)
        torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)
        output.sum().backward()
    assert seen == [torch.bfloat16]
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_terms_of_the_loss_stay_float32():
    model = VAE(IMAGE_SHAPE, network="mlp")
    compute_in_bfloat16(model)
    mean, logvar = model.encode(torch.rand(3, *IMAGE_SHAPE))
    assert mean.dtype == logvar.dtype == model.decode(mean).dtype == torch.float32
    assert torch.is_autocast_enabled("cpu") is False


def test_global_settings_are_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), arithmetic(torch.device("cpu"), "tf32"):
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_in_bfloat16_is_a_row_of_its_own(tmp_path, tiny_dataset):
    usual = dislab.run("vae", tiny_dataset, out=tmp_path, **SETTING)
    explicit = dislab.run("vae", tiny_dataset, out=tmp_path, precision="fp32", **SETTING)
    rounded = dislab.run("vae", tiny_dataset, out=tmp_path, precision="bf16", **SETTING)
    assert explicit.path == usual.path
    assert (usual.config.precision, rounded.config.precision) == ("usual", "bf16")
    assert usual.record["environment"]["precision"] == "fp32"
    assert rounded.config.protocol_name == "quick+steps=30+batch_size=8+precision=bf16"
    assert rounded.record["environment"]["precision"] == "bf16"
    assert rounded.path.parent.parent != usual.path.parent.parent
    assert rounded.codes.mean.dtype == np.float32
    # The same training but for rounding, and not the very same.
    losses = [run.history["loss"].to_numpy() for run in (usual, rounded)]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert not np.array_equal(*losses)
    assert rounded.model.encoder[1].weight.dtype == torch.float32
