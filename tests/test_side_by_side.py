"""Models trained at once, side by side, get what each gets alone."""

import math
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from conftest import IMAGE_SHAPE, make_tiny_dataset
from test_training import at_step, make_training, train
from torch import nn

from dislab.models.mlvae import MLVAE
from dislab.models.vae import VAE
from dislab.training import loop as training
from dislab.training.batches import Batches, draw_together
from dislab.training.checkpoint import Member
from dislab.training.loop import train_members
from dislab.training.protocol import Protocol

CPU = torch.device("cpu")
STEPS = 60
PROTOCOL = Protocol("test", steps=STEPS, learning_rate=1e-3, batch_size=10, rows=None)


def make_members(folder, kind: type = MLVAE, seeds=(0, 1, 2)) -> list[Member]:
    return [Member(*make_training(kind, seed), folder / f"seed{seed}") for seed in seeds]


def assert_equal_members(member: Member, other: Member) -> None:
    """Equal bit for bit, in all that decides how they go on."""
    assert member.history.rows == other.history.rows
    theirs = other.model.state_dict()
    for name, value in member.model.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    assert torch.equal(member.batches.generator.get_state(), other.batches.generator.get_state())


@pytest.mark.parametrize("group_by", [[["shape"]], [["shape"], ["size", "position"]]])
def test_members_draw_their_own_batches(tiny_dataset, group_by):
    def make(seed: int) -> Batches:
        model = MLVAE(IMAGE_SHAPE, content=2, style=1, group_size=4, groupings=len(group_by), network="mlp")
        return Batches(tiny_dataset, model, 12, group_by, seed, CPU)

    members, alone = ([make(seed) for seed in (3, 4)] for _ in range(2))
    for _ in range(3):
        together = draw_together(members)
        for index, batches in enumerate(alone):
            batch = batches.draw()
            assert torch.equal(together.images[index], batch.images)
            assert torch.equal(together.noise[index], batch.noise)
            for groups, own in zip(together.groupings, batch.groupings, strict=True):
                for tensor, same in zip(groups, own, strict=True):
                    assert torch.equal(tensor[index], same)
    assert together.dataset_size == batch.dataset_size


def test_several_are_trained_like_each_alone(tmp_path):
    members = make_members(tmp_path)
    train_members(members, PROTOCOL)
    for seed, member in enumerate(members):
        alone = Member(*make_training(seed=seed), tmp_path / "alone" / str(seed))
        alone.checkpoint.parent.mkdir(exist_ok=True)
        train_members([alone], PROTOCOL)
        assert_equal_members(member, alone)
        assert member.done == STEPS and not member.model.training
        assert member.history.seconds > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Member]:
    members = make_members(tmp_path_factory.mktemp("whole"))
    train_members(members, PROTOCOL)
    return members


@pytest.mark.parametrize("step", [0, 31, 49])
def test_an_interrupted_training_goes_on_to_the_same_result(tmp_path, whole, step):
    members = make_members(tmp_path)
    pressed = []

    def press(terms) -> None:
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    at_step(members[0].model, step, press)
    with pytest.raises(KeyboardInterrupt):
        train_members(members, PROTOCOL)
    assert [member.done for member in members] == [step + 1] * 3
    resumed = [Member(*make_training(seed=9), member.checkpoint) for member in members]
    train_members(resumed, PROTOCOL)
    for member, other in zip(resumed, whole, strict=True):
        assert_equal_members(member, other)


def test_a_member_goes_on_alone(tmp_path, whole):
    members = make_members(tmp_path)
    train_members(members, Protocol("test", 25, 1e-3, 10, None))
    model, batches = make_training(seed=9)
    alone = Member(model, batches, members[1].checkpoint)
    alone.history = train(model, batches, PROTOCOL, members[1].checkpoint)
    assert_equal_members(alone, whole[1])


def test_members_that_are_behind_catch_up(tmp_path, whole, monkeypatch):
    first = make_members(tmp_path)[:2]
    train_members(first, Protocol("test", 25, 1e-3, 10, None))
    (third,) = make_members(tmp_path, seeds=(2,))
    train_members([third], Protocol("test", 50, 1e-3, 10, None))
    seen = []
    chosen = training.steps_of

    def noted(members, *others):
        seen.append((len(members), members[0].done))
        return chosen(members, *others)

    monkeypatch.setattr(training, "steps_of", noted)
    members = make_members(tmp_path)
    train_members(members, PROTOCOL)
    assert seen == [(2, 25), (3, 50)]
    for member, other in zip(members, whole, strict=True):
        assert_equal_members(member, other)


def test_a_member_whose_loss_is_not_finite_does_not_stop_the_others(tmp_path, whole):
    members = make_members(tmp_path)
    with torch.no_grad():
        members[1].model.encoder[-1].bias[0] = math.nan
    train_members(members, PROTOCOL)
    assert "is nan, noticed at step 25" in str(members[1].failure)
    assert not members[1].checkpoint.exists()
    for index in (0, 2):
        assert members[index].failure is None
        assert_equal_members(members[index], whole[index])


def test_the_loss_curve_is_that_of_a_plain_loop(tmp_path):
    """The same in plain torch: contiguous images, a DataLoader over them, and torch's default Adam."""
    dataset = make_tiny_dataset()
    model, batches = make_training(VAE)
    rows, noise = [], []
    twin = make_training(VAE)[1]
    for _ in range(STEPS):
        uniform, drawn = twin.random()
        rows.append(twin.rows(uniform)[0])
        noise.append(drawn)

    plain_encoder = nn.Sequential(nn.Flatten(), nn.Linear(256, 500), nn.Tanh(), nn.Linear(500, 8))
    plain_decoder = nn.Sequential(nn.Linear(4, 500), nn.Tanh(), nn.Linear(500, 256))
    plain_encoder.load_state_dict(model.encoder.state_dict())
    plain_decoder.load_state_dict(model.decoder.state_dict())
    optimiser = torch.optim.Adam([*plain_encoder.parameters(), *plain_decoder.parameters()], lr=1e-3)
    images = torch.utils.data.TensorDataset(dataset.images(range(60)).float() / 255)
    loader = torch.utils.data.DataLoader(images, batch_sampler=[chosen.tolist() for chosen in rows])
    curve = []
    for (batch,), draw in zip(loader, noise, strict=True):
        mean, logvar = plain_encoder(batch).chunk(2, dim=1)
        decoded = plain_decoder(mean + torch.exp(logvar / 2) * draw)
        likelihood = -F.binary_cross_entropy_with_logits(decoded, batch.flatten(1), reduction="sum")
        kl = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum()
        loss = (kl - likelihood) / len(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(loss.item())

    history = train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    for done, loss, *_ in history.rows:
        assert loss == pytest.approx(curve[int(done) - 1], rel=1e-3)
