"""Training protocols and their changes."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_dataset

from dislab.errors import DislabError
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.protocol import PROTOCOLS, Protocol, choose_protocol
from dislab.training.steps import SingleSteps

CPU = torch.device("cpu")


def test_protocols_and_their_changes():
    assert choose_protocol("quick") == PROTOCOLS["quick"]
    changed = choose_protocol("paper", steps=10, batch_size=32)
    assert changed == Protocol("paper+steps=10+batch_size=32", 10, 1e-4, 32, None)
    # A value that is the protocol's own is no change.
    assert choose_protocol("quick", steps=2000, batch_size=32) == PROTOCOLS["quick"]
    assert choose_protocol("quick", steps=0).steps == 0
    assert Protocol(**asdict(changed)) == changed


@pytest.mark.parametrize("name", ["fast", "quick"])
def test_every_step_has_the_rate_of_the_protocol(name):
    """A constant gradient makes Adam move by exactly its rate, whatever the gradient's size."""
    protocol = choose_protocol(name, steps=200)

    class Slope(torch.nn.Module):
        supervision, latents = "iid", 1

        def __init__(self):
            super().__init__()
            self.position = torch.nn.Parameter(torch.zeros(1))

        def loss(self, batch, step):
            return {"loss": 3 * self.position.sum()}

    model = Slope()
    member = Member(model, Batches(make_tiny_dataset(), model, 4, [["shape"]], 0, CPU), Path("none"))
    member.resume(protocol.learning_rate)
    steps, positions = SingleSteps(member, protocol), [0.0]
    for _ in range(200):
        steps.step()
        positions.append(model.position.item())
    moved = -np.diff(positions)
    number = np.arange(200)
    expected = np.full(200, 1e-3)
    if name == "fast":
        warmup, highest = protocol.warmup, protocol.learning_rate
        rising, falling = (number + 1) / warmup, (200 - number) / 100
        expected = highest * np.minimum(1, np.minimum(rising, falling))
    np.testing.assert_allclose(moved, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("quik", {}, "unknown protocol 'quik': did you mean 'quick'?"),
        ("zzz", {}, "known are fast, quick, medium, paper, bouchacourt2017"),
        ("quick", {"steps": -1}, "--steps is -1: it must be 0"),
        ("quick", {"batch_size": 1}, "--batch-size is 1: it must be 2 or more"),
    ],
)
def test_wrong_protocols_are_errors(name, changes, message):
    with pytest.raises(DislabError) as error:
        choose_protocol(name, **changes)
    assert message in str(error.value)
