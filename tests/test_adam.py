"""Adam on parts of the parameters, as on a GPU, and on whole ones, against torch.optim.Adam."""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset
from torch import nn

from dislab.errors import DislabError
from dislab.models.vae import VAE
from dislab.networks import adam
from dislab.networks.adam import Adam
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import train_members
from dislab.training.protocol import Protocol

PROTOCOL = Protocol("test", steps=6, learning_rate=1e-2, batch_size=8, rows=None)
OPTIONS = {
    "usual": {},
    "betas": {"betas": (0.8, 0.9), "eps": 1e-3},
    "decay": {"weight_decay": 0.1},
    "decoupled": {"weight_decay": 0.1, "decoupled_weight_decay": True},
}


@pytest.fixture
def split(monkeypatch) -> None:
    monkeypatch.setattr(adam, "SPLIT_ON", "cpu")
    monkeypatch.setattr(adam, "PART", 100)


class Layers(nn.Module):
    """Convolutions, parameters with gaps, in another order and of another type, and one without gradients."""

    def __init__(self):
        super().__init__()
        self.gaps = nn.Parameter(torch.randn(30, 20)[:, ::2])
        self.turned = nn.Parameter(torch.randn(12, 10).T)
        self.exact = nn.Parameter(torch.ones(150, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(300))
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4), nn.Conv2d(8, 6, 2), nn.Conv2d(6, 2, 1))

    def forward(self, images):
        others = (self.gaps * self.turned[:, 0]).sum() + self.exact.square().sum()
        return self.layers(images).square().sum() + others.square()


def assert_steps_of_torch(options: dict, layout: torch.memory_format) -> tuple[Adam, torch.optim.Adam]:
    torch.manual_seed(0)
    model = Layers().to(memory_format=layout)
    plain = copy.deepcopy(model)
    ours = Adam(model.parameters(), 1e-2, **options)
    theirs = torch.optim.Adam(plain.parameters(), 1e-2, **options)
    for step in range(6):
        images = torch.randn(2, 3, 8, 8).contiguous(memory_format=layout)
        ours.rate.fill_(1e-2 / (1 + step))
        theirs.param_groups[0]["lr"] = 1e-2 / (1 + step)
        for one, optimiser in ((model, ours), (plain, theirs)):
            optimiser.zero_grad()
            one(images).backward()
            optimiser.step()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert model.unused.eq(1).all()
    return ours, theirs


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steps_are_those_of_torch(options, layout):
    ours, theirs = assert_steps_of_torch(options, layout)
    states = theirs.state_dict()["state"]  # checkpoints were written from it
    expected = {f"{index}.{name}": one for index, state in states.items() for name, one in state.items()}
    found = ours.state()
    assert expected.keys() <= found.keys()
    assert not any(one.any() for name, one in found.items() if name not in expected), "without gradients"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_parts_take_the_steps_of_the_whole(split, options, layout):
    ours, _ = assert_steps_of_torch(options, layout)
    assert len(ours.state()) == 3 * sum([3, 2, 2, 3, 4, 1, 2, 1, 1, 1])


def test_a_large_tensor_has_a_limited_number_of_parts(split):
    assert len(Adam([nn.Parameter(torch.ones(100 * 1000))], 1e-2).state()) == 3 * adam.MOST_PARTS


@pytest.mark.parametrize("is_split", [False, True])
def test_a_parameter_that_gets_other_memory_is_moved_on(is_split, request):
    """As by a model that normalises a weight, or that ties one to the transposed of another."""
    if is_split:
        request.getfixturevalue("split")
    one, tied = nn.Parameter(torch.ones(30, 20)), nn.Parameter(torch.zeros(20, 30))
    tied.data = one.data.T
    optimiser = Adam([one], 0.1)
    for step in range(3):
        one.grad = torch.ones_like(one)
        optimiser.step()
        torch.testing.assert_close(one.detach(), torch.full_like(one, 1 - (step + 1) * 0.1))
        assert torch.equal(tied, one.T) == (step == 0)
        one.data = one.data.clone()
    both = Adam([one, tied], 0.1)
    tied.data = one.data.T
    both.zero_grad()
    (one.sum() + tied.sum()).backward()
    both.step()
    assert torch.equal(tied, one.T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "Adam's eps is -1.0: it must be 0 or more"),
        ({"weight_decay": -0.1}, "Adam's weight_decay is -0.1"),
        ({"betas": (0.9, 1.0)}, r"Adam's betas are \(0.9, 1.0\): each must be 0 or more and below 1"),
    ],
)
def test_an_option_out_of_its_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Adam([nn.Parameter(torch.ones(3))], 1e-2, **options)
    with pytest.raises(ValueError, match="Adam's rate is nan"):
        Adam([nn.Parameter(torch.ones(3))], float("nan"))


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 2, sparse=True)
    optimiser = Adam(table.parameters(), 1e-2)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="Adam takes no sparse gradients"):
        optimiser.step()


def test_a_run_does_not_import_the_compiler(tmp_path):
    """It would take 1.6 s and 77 MB of every process that trains."""
    program = """
import sys
import dislab
from conftest import make_tiny_dataset
run = dislab.run(model="mlvae", dataset=make_tiny_dataset(), network="mlp", group_size=2, steps=2,
                 batch_size=4, group_by="shape", metrics=["swap_accuracy", "mig"], out=sys.argv[1])
assert "swap_accuracy" in run.scores, dict(run.scores)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, cwd=Path(__file__).parent)


def make_member(path) -> Member:
    torch.manual_seed(0)
    model = VAE(IMAGE_SHAPE, network="mlp", latents=4)
    batches = Batches(make_tiny_dataset(), model, PROTOCOL.batch_size, [["shape"]], 0, torch.device("cpu"))
    return Member(model, batches, path)


def test_a_training_by_parts_resumes_to_the_same_parameters(split, tmp_path):
    found = []
    for steps in ((6,), (3, 6)):
        for until in steps:
            member = make_member(tmp_path / f"checkpoint{len(steps)}")
            train_members([member], replace(PROTOCOL, steps=until))
        found.append(member)
    for one, other in zip(*(member.model.parameters() for member in found), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_with_other_parts_is_one_clear_line(split, tmp_path, monkeypatch):
    train_members([make_member(tmp_path / "checkpoint")], PROTOCOL)
    monkeypatch.setattr(adam, "PART", 7)
    with pytest.raises(DislabError, match="of another version of dislab, delete it"):
        train_members([make_member(tmp_path / "checkpoint")], replace(PROTOCOL, steps=9))
