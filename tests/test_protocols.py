"""Training protocols and their changes."""

from dataclasses import asdict

import pytest

from dislab.errors import DislabError
from dislab.training.protocol import PROTOCOLS, Protocol, choose_protocol


def test_protocols_and_their_changes():
    assert choose_protocol("quick") == PROTOCOLS["quick"]
    changed = choose_protocol("paper", steps=10, batch_size=32)
    assert changed == Protocol("paper+steps=10+batch_size=32", 10, 1e-4, 32, None)
    # A value that is the protocol's own is no change.
    assert choose_protocol("quick", steps=2000, batch_size=32) == PROTOCOLS["quick"]
    assert choose_protocol("quick", steps=0).steps == 0
    assert Protocol(**asdict(changed)) == changed


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("quik", {}, "unknown protocol 'quik': did you mean 'quick'?"),
        ("zzz", {}, "known are quick, paper"),
        ("quick", {"steps": -1}, "--steps is -1: it must be 0"),
        ("quick", {"batch_size": 1}, "--batch-size is 1: it must be 2 or more"),
    ],
)
def test_wrong_protocols_are_errors(name, changes, message):
    with pytest.raises(DislabError) as error:
        choose_protocol(name, **changes)
    assert message in str(error.value)
