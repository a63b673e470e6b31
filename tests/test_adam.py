"""Adam on parts of the parameters, as on a GPU, against torch's Adam on the whole ones."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset
from torch import nn

from dislab.errors import DislabError
from dislab.models.vae import VAE
from dislab.training import adam
from dislab.training.adam import Adam
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import train_members
from dislab.training.protocol import Protocol

PROTOCOL = Protocol("test", steps=6, learning_rate=1e-2, batch_size=8, rows=None)


@pytest.fixture
def split(monkeypatch) -> None:
    monkeypatch.setattr(adam, "SPLIT_ON", "cpu")
    monkeypatch.setattr(adam, "PART", 100)


class Layers(nn.Module):
    """Convolutions, a parameter without gradients, and one that may have gaps in its memory."""

    def __init__(self, gaps: bool):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4), nn.Conv2d(8, 6, 2), nn.Conv2d(6, 2, 1))
        self.matrix = nn.Parameter(torch.randn(30, 20)[:, ::2] if gaps else torch.randn(30, 10))
        self.unused = nn.Parameter(torch.ones(300))

    def forward(self, images):
        return self.layers(images).square().sum() + (self.matrix * torch.arange(10)).sum().square()


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_take_the_steps_of_the_whole(split, layout, gaps):
    torch.manual_seed(0)
    model = Layers(gaps).to(memory_format=layout)
    plain = copy.deepcopy(model)
    ours = Adam(list(model.parameters()), 1e-2, {"betas": (0.8, 0.9)})
    theirs = torch.optim.Adam(plain.parameters(), 1e-2, (0.8, 0.9))
    assert [len(parts) for parts in ours.parts] == ([1] * 8 if gaps else [3, 3, 4, 1, 2, 1, 1, 1])
    for _ in range(5):
        images = torch.randn(2, 3, 8, 8).contiguous(memory_format=layout)
        for one, optimiser in ((model, ours), (plain, theirs)):
            optimiser.zero_grad()
            one(images).backward()
            optimiser.step()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert model.unused.eq(1).all()


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
