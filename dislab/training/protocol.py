"""Training protocols and precisions: how a model is trained, and how many rows are scored.

Tables are made from records without torch, so this file does not import it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dislab.errors import DislabError
from dislab.registry import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

# What a protocol may ask for at most: a number above is a slip, and some are too large for torch.
MOST_STEPS = 10**9
MOST_IMAGES = 2**20  # in a batch
INITIALISATIONS = ("glorot", "orthogonal", "lecun")  # see `dislab.networks.architectures`
PRECISIONS = ("fp32", "tf32", "bf16")
USUAL = "usual"  # stands for the usual precision of the device in the configuration of a run


@dataclass(frozen=True)
class Protocol:
    """How a model is trained and which rows are scored."""

    name: str  # with the values that the user changed, as in "quick+steps=100"
    steps: int
    learning_rate: float  # of Adam; its largest, if there is a warm-up
    batch_size: int
    rows: int | None  # randomly chosen rows that are encoded and scored; None is all
    initialisation: str = "glorot"  # of the networks, see `dislab.networks.architectures`
    warmup: int | None = None  # steps in which the rate rises from 0; None is a constant rate
    # Steps between two validations, of which the best decides the parameters; None keeps the last ones.
    validate: int | None = None

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise DislabError(f"the protocol's name is {self.name!r}: it must be a text")
        for what, value, lowest, highest in (
            ("--steps", self.steps, "0 (an untrained model)", MOST_STEPS),
            ("--batch-size", self.batch_size, "2", MOST_IMAGES),
            ("rows", 1 if self.rows is None else self.rows, "1", 2**63 - 1),
            ("validate", 1 if self.validate is None else self.validate, "1", MOST_STEPS),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < int(lowest[0]):
                raise DislabError(f"{what} is {value!r}: it must be {lowest} or more")
            if value > highest:
                raise DislabError(f"{what} is {value}: it must be {highest} or less")
        if not (isinstance(self.learning_rate, int | float) and self.learning_rate > 0):
            raise DislabError(f"the learning rate is {self.learning_rate!r}: it must be above 0")
        if self.initialisation not in INITIALISATIONS:
            raise unknown_name("initialisation", self.initialisation, INITIALISATIONS)

    def rate(self, step: Tensor) -> Tensor:
        """Return the learning rate of a step, counted from 0, if there is a warm-up.

        It rises in the warm-up, and falls to 0 in the last half of the steps.
        """
        rising, falling = (step + 1) / self.warmup, 2 - 2 * step / self.steps
        return self.learning_rate * rising.minimum(falling).clamp(max=1)


# Half the steps of quick: docs/protocols.md says which scores they reach.
_FAST = Protocol(
    "fast",
    steps=1000,
    learning_rate=1.5e-3,
    batch_size=32,
    rows=30_000,
    initialisation="orthogonal",
    warmup=50,
)
PROTOCOLS = {
    "fast": _FAST,
    # Made for two CPU cores and a few minutes. Small batches and a ten times larger learning rate make the
    # most of few images (2e-3 was seen to collapse), and random rows of the grid stand for it in the scores.
    "quick": Protocol("quick", steps=2000, learning_rate=1e-3, batch_size=32, rows=30_000),
    "medium": replace(_FAST, name="medium", steps=13_500),
    # Locatello et al. 2019, table 1 of the appendix.
    "paper": Protocol("paper", steps=300_000, learning_rate=1e-4, batch_size=64, rows=None),
    # Bouchacourt et al. 2017 on MNIST: batches of 256 images, LeCun's initialisation, and the parameters of
    # the best ELBO on the 10,000 images that do not train the model. The rate, the number of steps and those
    # between two validations are ours.
    "bouchacourt2017": Protocol(
        "bouchacourt2017",
        steps=12_000,
        learning_rate=1e-3,
        batch_size=256,
        rows=None,
        initialisation="lecun",
        validate=500,
    ),
}


def choose_protocol(name: str, steps: int | None = None, batch_size: int | None = None) -> Protocol:
    """Return the named protocol with the user's changes, which its name then records."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    wanted = {"steps": steps, "batch_size": batch_size}
    changes = {key: value for key, value in wanted.items() if value not in (None, getattr(protocol, key))}
    name = "".join([protocol.name, *(f"+{key}={value}" for key, value in changes.items())])
    return replace(protocol, name=name, **changes)


def usual_precision(device: str) -> str:
    """Return the default precision on a device: tf32 on CUDA, fp32 elsewhere."""
    return "tf32" if device.startswith("cuda") else "fp32"


def choose_precision(precision: str | None, device: str) -> str:
    """Return "usual" if the precision is None, "usual" or the device's usual one, else its checked name."""
    if precision in (None, USUAL, usual_precision(device)):
        return USUAL
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision == "tf32":
        raise DislabError(f"--precision tf32 needs a CUDA device: on {device} choose fp32 or bf16")
    return precision
