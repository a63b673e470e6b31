"""Every model that is trained on single images, from the command's entry to its scores, on tiny images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset

import dislab
from dislab.models import factorvae
from dislab.models.factorvae import FactorVAE, discriminator
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import train_members
from dislab.training.model import check_model
from dislab.training.protocol import Protocol

PROTOCOL = Protocol("test", steps=8, learning_rate=1e-3, batch_size=6, rows=None)
TERMS = {
    "annealedvae": {"kl", "capacity"},
    "dipvae1": {"kl", "off_diagonal", "diagonal"},
    "dipvae2": {"kl", "off_diagonal", "diagonal"},
    "factorvae": {"kl", "total_correlation", "adversary_loss"},
    "hfs": {"kl", "support"},
    "infovae": {"kl", "mmd"},
    "qlae": {"quantisation", "commitment"},
}


@pytest.fixture(autouse=True)
def small_discriminator(monkeypatch):
    """A discriminator of one small layer: the published one has five million weights."""
    monkeypatch.setattr(factorvae, "discriminator", lambda latents, *sizes: discriminator(latents, 8, 2))


@pytest.mark.parametrize("name", TERMS)
def test_a_run_of_the_model(name, tmp_path, tiny_dataset, no_pictures):
    settings = {"steps": 30, "batch_size": 16, "metrics": ["mig"], "device": "cpu", "network": "mlp"}
    run = dislab.run(name, tiny_dataset, out=tmp_path, **settings)
    terms = run.history.columns
    assert {*terms} == {"step", "loss", "reconstruction"} | TERMS[name]
    assert run.history.notna().all(axis=None) and len(run.history) == 2
    assert 0 <= run.scores["mig"] <= 1
    assert dislab.load(run.path).scores["mig"] == run.scores["mig"]


def make_member(checkpoint: Path, seed: int = 0) -> Member:
    torch.manual_seed(seed)
    model = check_model(FactorVAE(IMAGE_SHAPE, network="mlp", latents=3), "factorvae")
    return Member(
        model, Batches(make_tiny_dataset(), model, 6, [["shape"]], seed, torch.device("cpu")), checkpoint
    )


def test_an_interrupted_factorvae_goes_on_bit_by_bit(tmp_path):
    whole = make_member(tmp_path / "whole")
    train_members([whole], PROTOCOL)
    train_members([make_member(tmp_path / "part")], replace(PROTOCOL, steps=3))
    resumed = make_member(tmp_path / "part", seed=1)
    train_members([resumed], PROTOCOL)
    assert resumed.history.rows[-1] == whole.history.rows[-1]
    states = [(one.model.state_dict(), one.adversary.state()) for one in (whole, resumed)]
    (model, moments), (other_model, other_moments) = states
    assert all(torch.equal(value, other_model[name]) for name, value in model.items())
    assert len(moments) == 3 * 4  # of the discriminator's two layers
    assert all(torch.equal(value, other_moments[name]) for name, value in moments.items())


def test_a_step_of_each_loss_moves_its_own_parameters_only(tmp_path):
    members = [make_member(tmp_path / "one"), make_member(tmp_path / "other")]
    members[1].model.gamma = 0.0  # what the discriminator says does not move the encoder then
    for member in members:
        train_members([member], replace(PROTOCOL, steps=1))
    first, second = (member.model.state_dict() for member in members)
    moved = {name for name, value in first.items() if not torch.equal(value, second[name])}
    assert any(name.startswith("encoder") for name in moved)
    assert not any(name.startswith("decoder") for name in moved)
