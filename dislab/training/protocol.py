"""Training protocols: how a model is trained. The protocol is part of every leaderboard row's key."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dislab.errors import DislabError
from dislab.registry import unknown_name


@dataclass(frozen=True)
class Protocol:
    """How a model is trained and which rows are scored.

    Attributes
    ----------
    name : "quick" or "paper"; settings changed by the user are added to it, as in "quick+steps=100".
    steps : training steps.
    learning_rate : of Adam, with betas (0.9, 0.999).
    batch_size : images per step.
    rows : number of randomly chosen rows that are encoded and scored; None is all.
    precision : "fp32" or "bf16" where it is not the device's usual one (tf32 on CUDA, fp32 elsewhere).
    """

    name: str
    steps: int
    learning_rate: float
    batch_size: int
    rows: int | None
    precision: str | None = None


PROTOCOLS = {
    # Made for two CPU cores and a few minutes: small batches and a ten times larger learning rate make the
    # most of few images (2e-3 was seen to collapse), and random rows of the grid stand for it in the scores.
    "quick": Protocol("quick", steps=2000, learning_rate=1e-3, batch_size=32, rows=30_000),
    # Locatello et al. 2019, table 1 of the appendix.
    "paper": Protocol("paper", steps=300_000, learning_rate=1e-4, batch_size=64, rows=None),
}


PRECISIONS = ("fp32", "tf32", "bf16")


def usual_precision(device: str) -> str:
    """The precision of a run where nothing is said: tf32 on CUDA, fp32 elsewhere."""
    return "tf32" if device.startswith("cuda") else "fp32"


def choose_protocol(
    name: str,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    device: str = "cpu",
) -> Protocol:
    """The named protocol with the user's changes, which its name then records.

    A precision is a change where it is not the usual one of the device.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    if steps is not None and steps < 0:
        raise DislabError(f"--steps is {steps}: it must be 0 (an untrained model) or more")
    if batch_size is not None and batch_size < 2:
        raise DislabError(f"--batch-size is {batch_size}: it must be 2 or more")
    if precision not in (None, *PRECISIONS):
        raise unknown_name("precision", precision, PRECISIONS)
    if precision == "tf32" and usual_precision(device) != "tf32":
        raise DislabError(f"--precision tf32 needs a CUDA device: on {device} choose fp32 or bf16")
    if precision == usual_precision(device):
        precision = None
    given = {"steps": steps, "batch_size": batch_size, "precision": precision}
    changes = {key: value for key, value in given.items() if value not in (None, getattr(protocol, key))}
    name = "".join([protocol.name, *(f"+{key}={value}" for key, value in changes.items())])
    return replace(protocol, name=name, **changes)
