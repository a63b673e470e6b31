"""Loggers: callbacks that show the loss terms of a training elsewhere while it runs.

A callback is a function of a step and of named values, `callback(step, {"loss": 0.5})`. It is called whenever
the loss terms are read, every 25 steps, and changes nothing of the result. `LOGGERS` are those that the
command line names: each is made for one run, from its folder, its title and its settings, and has `close`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from dislab.errors import DislabError
from dislab.registry import unknown_name

Callback = Callable[[int, Mapping[str, float]], None]


class TensorBoard:
    """Write to the folder tensorboard/ in the run's folder; show it by `tensorboard --logdir results`."""

    package = "tensorboard"

    def __init__(self, folder: Path, title: str, settings: Mapping):
        self.folder, self.writer = folder / "tensorboard", None

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # A killed training had logged more than its checkpoint has: what comes after it is hidden.
            self.writer = SummaryWriter(str(self.folder), purge_step=step)
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class WandB:
    """Send to Weights & Biases, project "dislab" or $WANDB_PROJECT; with WANDB_MODE=offline to files only.

    The digest of a run is its id there, so that a training that is resumed goes on in the same run.
    """

    package = "wandb"

    def __init__(self, folder: Path, title: str, settings: Mapping):
        self.folder, self.title, self.settings, self.run = folder, title, settings, None

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        if self.run is None:
            import wandb

            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "dislab"),
                id=self.settings["digest"],
                name=self.title,
                config=dict(self.settings),
                dir=str(self.folder),
                resume="allow",
                reinit="create_new",  # several models may be trained at once
                settings=wandb.Settings(silent=True),
            )
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()

    @staticmethod
    def check() -> None:
        """Raise DislabError if wandb would ask for a key in the middle of a run."""
        if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
            return
        import wandb

        if not wandb.login(prompt=False, verify=False):
            raise DislabError("wandb has no key: run `wandb login` first, or set WANDB_MODE=offline")


LOGGERS = {"tensorboard": TensorBoard, "wandb": WandB}


def check_loggers(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of loggers, each once.

    Raises
    ------
    DislabError : there is no such logger, or its package is not installed or not set up.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in LOGGERS:
            raise unknown_name("logger", name, LOGGERS)
        package = LOGGERS[name].package
        if find_spec(package) is None:
            raise DislabError(f"the logger {name} needs the package {package}: pip install 'dislab[{name}]'")
        if hasattr(LOGGERS[name], "check"):
            LOGGERS[name].check()
    return names


@contextmanager
def opened(names: Iterable[str], folder: Path, title: str, settings: Mapping) -> Iterator[list[Callback]]:
    """Yield the loggers of one run, which are closed at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(LOGGERS[name](folder, title, settings))) for name in names]
