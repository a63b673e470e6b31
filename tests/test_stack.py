"""Models trained at once get what they get alone, side by side or stacked."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import IMAGE_SHAPE, make_tiny_dataset
from test_training import at_step, make_training, train
from torch import nn

from dislab.models.betatcvae import BetaTCVAE
from dislab.models.betavae import BetaVAE
from dislab.models.mlvae import MLVAE
from dislab.models.vae import VAE
from dislab.training import loop as training
from dislab.training.batches import Batches, draw_together
from dislab.training.checkpoint import Member
from dislab.training.loop import steps_of, train_stack
from dislab.training.protocol import Protocol
from dislab.training.steps import CannotStack, ParallelSteps, SingleSteps, StackedSteps

# What torch cannot map over a stack, it would do one by one.
pytestmark = pytest.mark.filterwarnings("error:There is a performance drop")
CPU = torch.device("cpu")
STEPS = 60
PROTOCOL = Protocol("test", steps=STEPS, learning_rate=1e-3, batch_size=10, rows=None)
WARMED_UP = replace(PROTOCOL, warmup=2)  # the rate changes at every step


def make_members(folder, kind: type = MLVAE, seeds=(0, 1, 2)) -> list[Member]:
    return [Member(*make_training(kind, seed), folder / f"seed{seed}") for seed in seeds]


def begun(members: list[Member]) -> list[Member]:
    """The members with their optimisers, before the first step."""
    for member in members:
        member.resume(PROTOCOL.learning_rate)
    return members


def assert_close_histories(member: Member, other: Member) -> None:
    assert member.history.terms == other.history.terms
    np.testing.assert_allclose(member.history.rows, other.history.rows, rtol=2e-3, atol=2e-3)


def assert_same_training(member: Member, alone: Member, way: str) -> None:
    """The same to the last bit, but for the rounding of what is stacked."""
    if way == "stacked":
        assert_close_histories(member, alone)
    else:
        assert_equal_members(member, alone)


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


@pytest.mark.parametrize("kind", [VAE, BetaVAE, BetaTCVAE, MLVAE])
def test_first_steps_are_those_of_the_members_alone(tmp_path, kind):
    members, alone = (begun(make_members(tmp_path, kind)) for _ in range(2))
    stack, single = StackedSteps(members, WARMED_UP), [SingleSteps(member, WARMED_UP) for member in alone]
    for _ in range(5):
        together, one_by_one = stack.step(), [steps.step() for steps in single]
        for name, values in together.items():
            expected = torch.stack([terms[name] for terms in one_by_one])
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-3)
    for member, other in zip(members, alone, strict=True):
        for mine, theirs in zip(member.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=2e-4)
            mine, theirs = member.optimiser.state[mine], other.optimiser.state[theirs]
            assert mine["step"] == theirs["step"] == 5
            torch.testing.assert_close(mine["exp_avg"], theirs["exp_avg"], rtol=1e-2, atol=1e-2)


def test_several_groupings_and_the_convolutional_network(tiny_dataset, tmp_path):
    def make(seed: int) -> Member:
        torch.manual_seed(seed)
        model = MLVAE(IMAGE_SHAPE, content=2, style=1, group_size=4, groupings=2, network="conv")
        batches = Batches(tiny_dataset, model, 12, [["shape"], ["size"]], seed, CPU)
        return Member(model.to(memory_format=torch.channels_last), batches, tmp_path / "none")

    members, alone = (begun([make(seed) for seed in (0, 1)]) for _ in range(2))
    together = StackedSteps(members, PROTOCOL).step()["loss"]
    expected = torch.stack([SingleSteps(member, PROTOCOL).step()["loss"] for member in alone])
    torch.testing.assert_close(together, expected)


def test_members_may_differ_in_the_weights_of_the_loss(tmp_path):
    def make() -> list[Member]:
        members = make_members(tmp_path, BetaVAE, (0, 1, 2))
        for member, beta in zip(members, (1.0, 4.0, 16.0), strict=True):
            member.model.beta = beta
        return begun(members)

    members, alone = make(), make()
    stack, single = StackedSteps(members, WARMED_UP), [SingleSteps(member, WARMED_UP) for member in alone]
    for _ in range(3):
        loss = stack.step()["loss"]
        expected = torch.stack([steps.step()["loss"] for steps in single])
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)
    assert [member.model.beta for member in members] == [1.0, 4.0, 16.0]


def test_members_that_differ_in_more_cannot_be_stacked(tmp_path):
    members = begun(make_members(tmp_path, BetaVAE))
    members[1].model.warmup_steps = 10
    with pytest.raises(CannotStack, match="they differ in warmup_steps: 0, 10, 0"):
        StackedSteps(members, PROTOCOL)


@pytest.fixture(params=["side by side", "stacked"])
def way(request, monkeypatch) -> str:
    """How several models are trained in the test."""

    def chosen(members, *others):
        return steps_of(members, *others, stacked=request.param == "stacked" and len(members) > 1)

    monkeypatch.setattr(training, "steps_of", chosen)
    return request.param


def test_several_are_trained_like_each_alone(tmp_path, way):
    members = make_members(tmp_path)
    train_stack(members, PROTOCOL)
    for seed, member in enumerate(members):
        alone = Member(*make_training(seed=seed), tmp_path / "alone" / str(seed))
        alone.checkpoint.parent.mkdir(exist_ok=True)
        train_stack([alone], PROTOCOL)
        assert_same_training(member, alone, way)
        assert torch.equal(member.batches.generator.get_state(), alone.batches.generator.get_state())
        assert member.done == STEPS and not member.model.training
        assert member.history.seconds > 0


WHOLE: dict[str, list[Member]] = {}


@pytest.fixture
def whole_stack(tmp_path_factory, way) -> list[Member]:
    if way not in WHOLE:
        WHOLE[way] = make_members(tmp_path_factory.mktemp("whole"))
        train_stack(WHOLE[way], PROTOCOL)
    return WHOLE[way]


@pytest.mark.parametrize("step", [0, 31, 49])
def test_an_interrupted_stack_goes_on_to_the_same_result(tmp_path, whole_stack, step):
    members = make_members(tmp_path)
    pressed = []

    def press(terms) -> None:
        # Without gradients the loss is only tried, to see whether it can be mapped.
        if torch.is_grad_enabled() and not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    at_step(members[0].model, step, press)
    with pytest.raises(KeyboardInterrupt):
        train_stack(members, PROTOCOL)
    assert [member.done for member in members] == [step + 1] * 3
    resumed = [Member(*make_training(seed=9), member.checkpoint) for member in members]
    train_stack(resumed, PROTOCOL)
    for member, other in zip(resumed, whole_stack, strict=True):
        assert_equal_members(member, other)


def test_a_member_goes_on_alone(tmp_path, whole_stack, way):
    members = make_members(tmp_path)
    train_stack(members, Protocol("test", 25, 1e-3, 10, None))
    model, batches = make_training(seed=9)
    alone = Member(model, batches, members[1].checkpoint)
    alone.history = train(model, batches, PROTOCOL, members[1].checkpoint)
    assert_same_training(alone, whole_stack[1], way)


def test_members_that_are_behind_catch_up(tmp_path, whole_stack, way, monkeypatch):
    first = make_members(tmp_path)[:2]
    train_stack(first, Protocol("test", 25, 1e-3, 10, None))
    (third,) = make_members(tmp_path, seeds=(2,))
    train_stack([third], Protocol("test", 50, 1e-3, 10, None))
    seen = []
    chosen = training.steps_of

    def noted(members, *others):
        seen.append((len(members), members[0].done))
        return chosen(members, *others)

    monkeypatch.setattr(training, "steps_of", noted)
    members = make_members(tmp_path)
    train_stack(members, PROTOCOL)
    assert seen == [(2, 25), (3, 50)]
    for member, other in zip(members, whole_stack, strict=True):
        assert_same_training(member, other, way)


def test_a_member_whose_loss_is_not_finite_does_not_stop_the_others(tmp_path, whole_stack, way):
    members = make_members(tmp_path)
    with torch.no_grad():
        members[1].model.encoder[-1].bias[0] = math.nan
    train_stack(members, PROTOCOL)
    assert "is nan, noticed at step 25" in str(members[1].failure)
    assert not members[1].checkpoint.exists()
    for index in (0, 2):
        assert members[index].failure is None
        assert_same_training(members[index], whole_stack[index], way)


class Branching(VAE):
    """A loss with a branch in Python, which can neither be mapped over a stack nor captured."""

    def loss(self, batch, step):
        terms = super().loss(batch, step)
        return terms if terms["kl"].item() >= 0 else {}


def test_models_that_cannot_be_stacked_are_trained_side_by_side(tmp_path, capsys):
    members = begun(make_members(tmp_path, Branching))
    assert isinstance(steps_of(members, PROTOCOL, False, stacked=True), ParallelSteps)
    assert "the models are trained side by side, not stacked: " in capsys.readouterr().err
    train_stack(members, PROTOCOL)
    model, batches = make_training(VAE, seed=1)
    history = train(model, batches, PROTOCOL, tmp_path / "alone")
    assert members[1].history.rows == history.rows


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


def test_what_is_no_number_and_differs_is_not_stacked(tmp_path):
    members = begun(make_members(tmp_path, VAE, seeds=(0, 1)))
    for member, capacity in zip(members, (5.0, 25.0), strict=True):
        member.model.capacity = (0.0, capacity)
    with pytest.raises(CannotStack, match="they differ in capacity"):
        StackedSteps(members, PROTOCOL)
