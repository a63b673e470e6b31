"""A model with an adversary: two optimisers, each of which trains its own parameters only."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset
from torch import nn

from dislab.errors import DislabError
from dislab.models.vae import VAE
from dislab.networks.adam import Adam
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import steps_of, train_members
from dislab.training.model import check_model
from dislab.training.protocol import Protocol

CPU = torch.device("cpu")
PROTOCOL = Protocol("test", steps=12, learning_rate=1e-3, batch_size=6, rows=None)
BETAS = (0.5, 0.9)


class Opposed(VAE):
    """A VAE against a critic that tells its codes from noise; nothing is detached."""

    adversary_steps = 2

    def __init__(self, image_shape, **others):
        super().__init__(image_shape, network="mlp", latents=3, **others)
        self.adam, self.adversary_adam = {"betas": (0.8, 0.99)}, {"lr": 1e-2, "betas": BETAS}
        self.adversary = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, batch, step):
        terms = super().loss(batch, step)
        against = self.adversary(self.encode(batch.images)[0]).mean()
        return terms | {"loss": terms["loss"] + 10 * against, "against": against}

    def adversary_loss(self, batch, other, step):
        self.seen += 1
        return (self.adversary(other.noise) - self.adversary(self.encode(batch.images)[0])).mean()


def make_member(checkpoint: Path, seed: int = 0, kind: type = Opposed) -> Member:
    torch.manual_seed(seed)
    model = check_model(kind(IMAGE_SHAPE), "opposed")
    return Member(model, Batches(make_tiny_dataset(), model, 6, [["shape"]], seed, CPU), checkpoint)


def assert_same(member: Member, other: Member) -> None:
    for mine, theirs in zip(
        member.model.state_dict().values(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_steps_are_those_of_two_optimisers_by_hand(tmp_path):
    member, twin = make_member(tmp_path / "one"), make_member(tmp_path / "two")
    train_members([member], PROTOCOL)
    model = twin.model
    against = list(model.adversary.parameters())
    own = [*model.encoder.parameters(), *model.decoder.parameters()]
    first = torch.optim.Adam(own, lr=1e-3, betas=(0.8, 0.99))
    second = torch.optim.Adam(against, lr=1e-2, betas=BETAS)
    for step in range(PROTOCOL.steps):
        batches = [twin.batches.draw() for _ in range(3)]
        number = torch.tensor(float(step))
        for optimiser, parameters, loss in [
            (first, own, lambda: model.loss(batches[0], number)["loss"]),  # noqa: B023
            (second, against, lambda: model.adversary_loss(batches[0], batches[1], number)),  # noqa: B023
            (second, against, lambda: model.adversary_loss(batches[0], batches[2], number)),  # noqa: B023
        ]:
            gradients = torch.autograd.grad(loss(), parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
    for mine, theirs in zip(model.parameters(), member.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert member.model.seen == 2 * PROTOCOL.steps
    assert member.history.terms[-1] == "adversary_loss"


def test_each_loss_moves_its_own_parameters_only(tmp_path):
    member = make_member(tmp_path / "checkpoint")
    member.resume(1e-3)
    steps = steps_of([member], PROTOCOL, quiet=True)
    before = {name: value.clone() for name, value in member.model.state_dict().items()}
    steps.adversary = Adam(member.model.adversary.parameters(), learning_rate=0.0)
    steps.step()
    moved = {
        name for name, value in member.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if not name.startswith("adversary")}
    assert all(parameter.requires_grad for parameter in member.model.parameters())


def test_an_interrupted_training_goes_on_bit_by_bit(tmp_path):
    whole = make_member(tmp_path / "whole")
    train_members([whole], PROTOCOL)
    train_members([make_member(tmp_path / "part")], replace(PROTOCOL, steps=5))
    resumed = make_member(tmp_path / "part", seed=1)
    train_members([resumed], PROTOCOL)
    assert_same(whole, resumed)
    first, second = (member.adversary.state() for member in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_several_models_get_the_numbers_that_they_get_alone(tmp_path):
    together = [make_member(tmp_path / f"{seed}", seed) for seed in range(2)]
    train_members(together, PROTOCOL)
    for seed, member in enumerate(together):
        alone = make_member(tmp_path / f"alone{seed}", seed)
        train_members([alone], PROTOCOL)
        assert_same(alone, member)


@pytest.mark.parametrize("returned", [3.0, torch.ones(2, requires_grad=True), torch.ones(())])
def test_a_wrong_adversary_loss_is_one_clear_line(tmp_path, returned):
    member = make_member(tmp_path / "checkpoint")
    member.model.adversary_loss = lambda batch, other, step: returned
    with pytest.raises(DislabError, match="adversary_loss must return a tensor of one real number"):
        train_members([member], PROTOCOL)


def test_an_adversary_needs_its_loss_and_its_rate():
    class Lacking(VAE):
        def __init__(self, image_shape):
            super().__init__(image_shape, network="mlp")
            self.adversary = nn.Linear(10, 1)

    with pytest.raises(DislabError, match="lacks `adversary_loss`, which `adversary` needs"):
        check_model(Lacking(IMAGE_SHAPE), "lacking")
    Lacking.adversary_loss = Opposed.adversary_loss
    Lacking.adversary_adam = {"betas": BETAS}
    with pytest.raises(DislabError, match="`adversary_adam` needs a rate"):
        check_model(Lacking(IMAGE_SHAPE), "lacking")


def test_an_option_that_adam_does_not_have_is_named():
    model = Opposed(IMAGE_SHAPE)
    model.adversary_adam = {"lr": 1e-3, "beta1": 0.5}
    with pytest.raises(DislabError, match="`adversary_adam` has 'beta1': its options are lr, betas, eps"):
        check_model(model, "opposed")
    model.adversary_adam, model.adam = {"lr": 1e-3, "betas": BETAS}, {"amsgrad": True}
    with pytest.raises(DislabError, match="`adam` has 'amsgrad': its options are betas, eps, weight_decay"):
        check_model(model, "opposed")
    model.adam = {"eps": 1e-4}
    assert check_model(model, "opposed").adam == {"eps": 1e-4}
