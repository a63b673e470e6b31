"""The parameters of the best validation are kept, whether or not the training is interrupted."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset, one_line
from test_training import CPU, assert_same_parameters, at_step

import dislab
from dislab.data.dataset import Dataset
from dislab.errors import DislabError
from dislab.models.mlvae import MLVAE
from dislab.training import protocol as protocols
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import train_members
from dislab.training.protocol import Protocol
from dislab.training.validation import Validation

PROTOCOL = Protocol("test", steps=40, learning_rate=2e-3, batch_size=10, rows=None, validate=6)
HELD_OUT, TESTED = np.arange(0, 60, 3), np.arange(0, 60, 6)


def parted() -> Dataset:
    """Forty images to train a model, ten for a readout, and ten to test it."""
    tiny = make_tiny_dataset()
    about = tiny.space, IMAGE_SHAPE, tiny.images, ["shape"]
    return Dataset("tiny", "own", *about, held_out=HELD_OUT, test=TESTED)


class Walk(torch.nn.Module):
    """Adam moves `position` by the rate in every step; the loss in evaluation mode is lowest at -0.0101."""

    supervision, latents = "iid", 1

    def __init__(self):
        super().__init__()
        self.position = torch.nn.Parameter(torch.zeros(1))

    def loss(self, batch, step):
        return {"loss": self.position.sum() if self.training else (self.position + 0.0101).square().sum()}


def make_member(path, model=None, seed: int = 0) -> Member:
    if model is None:
        torch.manual_seed(seed)
        model = MLVAE(IMAGE_SHAPE, network="mlp", content=2, style=2, group_size=0)
    batches, validation = (
        Batches(dataset, model, PROTOCOL.batch_size, [["shape"]], seed, CPU)
        for dataset in (parted(), parted().for_validation())
    )
    return Member(model, batches, path, validation=Validation(validation))


@pytest.mark.parametrize(("every", "best"), [(1, 10), (4, 12), (6, 12), (25, 25), (100, 40)])
def test_the_parameters_of_the_lowest_loss_are_the_result(tmp_path, every, best):
    """The last step is looked at, too: of steps 25 and 40, and of 40 alone."""
    member = make_member(tmp_path / "checkpoint", Walk())
    train_members([member], replace(PROTOCOL, learning_rate=1e-3, validate=every))
    assert member.validation.step == best
    assert member.model.position.item() == pytest.approx(-1e-3 * best, rel=1e-4)
    loss = (1e-3 * best - 0.0101) ** 2
    assert member.validation.report() == {
        "validation_loss": pytest.approx(loss, rel=1e-2, abs=1e-9),
        "validation_step": best,
    }


def test_the_loss_is_a_function_of_the_parameters_and_uses_up_nothing(tmp_path):
    member, other = make_member(tmp_path / "one"), make_member(tmp_path / "other")
    other.validation = None
    train_members([member], PROTOCOL)
    train_members([other], replace(PROTOCOL, validate=None))
    assert member.history.rows == other.history.rows
    assert torch.equal(member.batches.generator.get_state(), other.batches.generator.get_state())
    # The parameters that were kept have the loss that was kept, of one batch of ten images.
    again = make_member(tmp_path / "again", member.model)
    again.validation.look(member.model, member.validation.step)
    assert again.validation.loss == member.validation.loss
    batches = Batches(parted().for_validation(), member.model, 10, [["shape"]], 0, CPU)
    with torch.no_grad():
        loss = member.model.loss(batches.draw(), torch.tensor(0.0))["loss"]
    assert loss.item() == pytest.approx(member.validation.loss, rel=1e-6)


@pytest.mark.parametrize("step", [3, 5, 20, 39])
def test_an_interrupted_training_keeps_the_same_parameters(tmp_path, step):
    whole = make_member(tmp_path / "whole")
    train_members([whole], PROTOCOL)
    member = make_member(tmp_path / "checkpoint")
    at_step(member.model, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_members([member], PROTOCOL)
    member = make_member(tmp_path / "checkpoint", seed=5)
    member.validation = make_member(tmp_path / "same").validation
    train_members([member], PROTOCOL)
    assert_same_parameters(member.model, whole.model)
    assert member.validation.report() == whole.validation.report()


def test_an_early_best_survives_an_interruption(tmp_path):
    protocol = replace(PROTOCOL, learning_rate=1e-3)
    member = make_member(tmp_path / "checkpoint", Walk())
    at_step(member.model, 31, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_members([member], protocol)
    assert member.model.position.item() == pytest.approx(-0.032, rel=1e-4)
    member = make_member(tmp_path / "checkpoint", Walk())
    train_members([member], protocol)
    assert member.validation.step == 12
    assert member.model.position.item() == pytest.approx(-0.012, rel=1e-4)


def interrupt(terms) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_no_steps_and_a_loss_that_is_no_number_leave_the_parameters(tmp_path):
    member, fresh = make_member(tmp_path / "none"), make_member(tmp_path / "fresh")
    train_members([member], replace(PROTOCOL, steps=0))
    assert_same_parameters(member.model, fresh.model)
    assert member.validation.report() == {}
    member = make_member(tmp_path / "nan", Walk())
    member.model.loss = lambda batch, step: {"loss": member.model.position.sum() * torch.nan}
    member.validation.look(member.model, 3)
    assert member.validation.report() == {}


def test_several_models_keep_their_own(tmp_path):
    alone = [make_member(tmp_path / f"alone{seed}", seed=seed) for seed in (0, 1)]
    for member in alone:
        train_members([member], PROTOCOL)
    together = [make_member(tmp_path / f"together{seed}", seed=seed) for seed in (0, 1)]
    train_members(together, PROTOCOL)
    for member, other in zip(together, alone, strict=True):
        assert_same_parameters(member.model, other.model)
        assert member.validation.report() == other.validation.report()


def test_validation_images_are_neither_trained_on_nor_tested():
    dataset = parted()
    rows = dataset.for_validation().train_rows()
    assert rows.tolist() == sorted(set(HELD_OUT.tolist()) - set(TESTED.tolist()))
    assert not set(rows.tolist()) & set(dataset.train_rows().tolist())
    assert not dataset.is_test(rows).any()


def test_a_run_is_validated_and_says_so(tmp_path, monkeypatch, no_pictures):
    monkeypatch.setitem(protocols.PROTOCOLS, "test", PROTOCOL)
    options = {"protocol": "test", "network": "mlp", "latents": 2, "metrics": ["elbo"], "device": "cpu"}
    run = dislab.run("vae", parted(), out=tmp_path, **options)
    report = run.record["report"]
    assert report["validation_step"] in (6, 12, 18, 24, 30, 36, 40)
    batches = Batches(parted().for_validation(), run.model, 10, [["shape"]], 0, CPU)
    with torch.no_grad():
        loss = run.model.loss(batches.draw(), torch.tensor(0.0))["loss"].item()
    assert loss == pytest.approx(report["validation_loss"], rel=1e-5)


@pytest.mark.parametrize("held_out", [None, HELD_OUT])
def test_a_dataset_without_validation_images_is_one_line_before_training(tmp_path, held_out):
    with pytest.raises(DislabError) as error:
        dislab.run("vae", make_tiny_dataset(held_out), protocol="bouchacourt2017", out=tmp_path)
    assert one_line(error) == (
        "protocol bouchacourt2017 validates, but tiny has no images that are neither trained on nor tested"
    )
    assert not list(tmp_path.iterdir())
