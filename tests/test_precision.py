"""Precisions: the networks in bfloat16, all else in float32; global settings stay as they were."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE
from PIL import Image
from torch import nn

import dislab
from dislab.cli import main
from dislab.errors import DislabError, DislabWarning
from dislab.models.vae import VAE
from dislab.runs import perform
from dislab.runs.machine import Machine
from dislab.runs.resolve import resolve
from dislab.training import precision as precision_module
from dislab.training.precision import arithmetic, compute_in_bfloat16
from dislab.training.protocol import choose_precision, usual_precision

CUDA = torch.device("cuda")  # to `arithmetic` this is a name only: no GPU is needed
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
    with pytest.raises(KeyError), arithmetic(CUDA, "tf32"):
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    assert not torch.are_deterministic_algorithms_enabled()


# A user's settings, in a process of its own each: torch cannot go back from the new ones to the old.
OLD = (
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.cuda.matmul.allow_tf32 = True",
)
NEW = (
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'ieee'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.cudnn.fp32_precision = 'ieee'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.mkldnn.conv.fp32_precision = 'bf16'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
)
OPERATIONS = [("cuda", one) for one in ("matmul", "conv", "rnn")] + [
    ("mkldnn", one) for one in ("matmul", "conv", "rnn")
]


def precisions() -> list[str]:
    """All settings of both ways, as they are read; "refused" where torch refuses a mix of the two."""
    values = []
    for read in (
        torch.get_float32_matmul_precision,
        lambda: str(torch.backends.cudnn.allow_tf32),
        lambda: str(torch.backends.cuda.matmul.allow_tf32),
    ):
        try:
            values.append(read())
        except RuntimeError:
            values.append("refused")
    if hasattr(torch.backends, "fp32_precision"):
        values += [torch._C._get_fp32_precision_getter(*one) for one in [("generic", "all"), *OPERATIONS]]
    return values


def check_settings(*settings: str) -> None:
    """Make a user's settings, and see what `arithmetic` makes of them and leaves."""
    for setting in settings:
        exec(setting)
    before = precisions()
    for device, precision in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "tf32")):
        with arithmetic(torch.device(device), precision):
            within = precisions()
            assert "refused" in before or "refused" not in within
            if len(within) > 3:
                assert within[4:] == ["tf32" if precision == "tf32" else "ieee"] * 3 + ["ieee"] * 3
        assert precisions() == before, (device, precision)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("first", ["pass", *OLD, *NEW])
def test_a_users_settings_by_either_way_are_left_as_they_were(first):
    new = NEW if hasattr(torch.backends, "fp32_precision") else ()
    if first in NEW and not new:
        pytest.skip("torch has no fp32_precision")
    for second in ("pass", *OLD, *new):
        child = os.fork()
        if child == 0:
            try:
                check_settings(first, second)
            except BaseException as error:
                os.write(2, f"{first}; {second}: {error!r}\n".encode())
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, f"{first}; {second}"


def test_a_run_works_whichever_way_a_user_takes(tmp_path):
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch has no fp32_precision")
    program = f"""
import numpy as np, torch, dislab
torch.backends.cuda.matmul.fp32_precision = "tf32"
images = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
data = dislab.from_arrays(images, np.arange(8) % 2)
settings = dict(steps=2, batch_size=4, network="mlp", metrics=["mig"], device="cpu")
run = dislab.run("vae", data, out={str(tmp_path)!r}, **settings)
assert torch.backends.cuda.matmul.fp32_precision == "tf32"
print(sorted(run.scores))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mig" in done.stdout


def test_torch_without_the_new_way(monkeypatch):
    monkeypatch.setattr(precision_module, "_operations", lambda on_gpu: [])
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for precision, inside in (("tf32", ("high", True)), ("fp32", ("highest", False))):
        with arithmetic(CUDA, precision):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == inside
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def unpool() -> torch.Tensor:
    """An operation that torch cannot do in a deterministic way, on the CPU neither."""
    return torch.nn.functional.max_unpool1d(torch.ones(1, 1, 2), torch.tensor([[[0, 2]]]), 2)


def test_an_operation_that_is_not_deterministic_is_named_once():
    with arithmetic(CUDA, "fp32"), pytest.raises(RuntimeError, match="does not have a deterministic"):
        unpool()
    with pytest.warns(UserWarning) as remarks:
        warnings.simplefilter("always")
        with arithmetic(CUDA, "fp32", strict=False):
            for _ in range(3):
                unpool()
            warnings.warn("another one", stacklevel=1)
            warnings.warn(f"{precision_module.MEANT} …", stacklevel=1)
    assert [(one.category, str(one.message)) for one in remarks] == [
        (
            DislabWarning,
            "max_unpooling2d_forward_out is not deterministic on this device: "
            "a run of the same seed may differ",
        ),
        (UserWarning, "another one"),
    ]
    unpool()


@pytest.mark.parametrize("built_in", [True, False])
def test_only_models_of_others_may_use_such_an_operation(built_in, tiny_dataset, isolated, monkeypatch):
    class Unpooling(VAE):
        pass

    Unpooling.__module__ = "dislab.models.unpooling" if built_in else "unpooling"
    dislab.register_model("unpooling")(Unpooling)
    config = resolve("unpooling", tiny_dataset, Machine(), network="mlp")
    machine = Machine(device="cuda")
    context = (
        pytest.raises(RuntimeError) if built_in else pytest.warns(DislabWarning, match="max_unpooling2d")
    )
    with context, perform._arithmetic(config, machine):
        unpool()


def test_the_workspace_of_cublas_is_set_on_import():
    program = """
import os, sys, types
if sys.argv[1] == "late":
    cuda = types.SimpleNamespace(is_initialized=lambda: True)
    sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
import dislab
print(os.environ["CUBLAS_WORKSPACE_CONFIG"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    for when, chosen, expected, remark in (
        ("early", {}, ":4096:8", ""),
        ("late", {}, ":4096:8", "CUDA was in use before dislab was imported"),
        ("late", {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, ":16:8", ""),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, when], env=environment | chosen, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected, done.stderr
        assert remark in done.stderr and bool(remark) == bool(done.stderr)


@pytest.mark.filterwarnings("always::dislab.errors.DislabWarning")
def test_a_remark_is_one_line_on_the_command_line(tmp_path, cache, capsys):
    for group in ("a", "b"):
        (tmp_path / "photos" / group).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "photos" / group / "0.png")
        (tmp_path / "photos" / group / "1.heic").touch()
    arguments = ["run", "--model", "pca", "--dataset", str(tmp_path / "photos"), "--device", "cpu"]
    main([*arguments, "--out", str(tmp_path / "out"), "--metrics", "pose_error"])
    line = f"dislab: '{tmp_path / 'photos'}': files that are not read as images: 2 of .heic\n"
    assert line in capsys.readouterr().err


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
