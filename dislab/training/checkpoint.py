"""A model in training: its optimiser, its history, and the checkpoint from which it resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dislab.errors import DislabError, RunFailed, said_by
from dislab.files import UNSEALED, about_of, is_sealed, sealed, write_atomically
from dislab.networks.adam import Adam
from dislab.progress import say
from dislab.training.batches import Batches
from dislab.training.loggers import Callback
from dislab.training.validation import Validation


@dataclass
class History:
    """Loss terms over the steps."""

    terms: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)  # the step, then the value of each term
    seconds: float = 0.0  # of training

    def last_tenth(self) -> dict[str, float]:
        """Return the mean of each loss term over the last tenth of the readings; single batches differ."""
        last = self.rows[-max(1, len(self.rows) // 10) :]
        columns = list(zip(*last, strict=True))[1:]
        return {name: sum(column) / len(last) for name, column in zip(self.terms, columns, strict=True)}

    def write_csv(self, path: Path) -> None:
        """Write the loss terms, a line for each row."""
        lines = [",".join(["step", *self.terms])]
        lines += [",".join([str(int(row[0])), *(f"{value:.6g}" for value in row[1:])]) for row in self.rows]
        write_atomically(path, ("\n".join(lines) + "\n").encode())


@dataclass
class Member:
    """A model in training, alone or beside others. Its checkpoint is the same in both cases."""

    model: nn.Module
    batches: Batches
    checkpoint: Path
    history: History = field(default_factory=History)
    done: int = 0  # steps taken
    validation: Validation | None = None  # decides which parameters are the result; None is the last ones
    failure: RunFailed | None = None  # why the training ended before its last step
    callbacks: Sequence[Callback] = ()  # called with each step that is logged, and its loss terms
    at_once: int = 1  # models trained at once, this one included
    optimiser: Adam | None = None  # set by `resume`
    adversary: Adam | None = None  # the adversary's, if the model has one

    def log(self, done: int, terms: Sequence[str], values: Sequence[float]) -> None:
        """Add the loss terms of a step to the history, or set `failure` if one of them is not finite."""
        # The total comes last: the term that makes it NaN says more about the cause.
        for name, value in sorted(zip(terms, values, strict=True), key=lambda term: term[0] == "loss"):
            if not math.isfinite(value):
                self.failure = RunFailed(
                    f"training failed: the loss term '{name}' is {value}, noticed at step {done}"
                )
                return
        self.history.terms = list(terms)
        self.history.rows.append([done, *values])
        for callback in self.callbacks:
            callback(done, dict(zip(terms, values, strict=True)))

    def resume(self, learning_rate: float) -> None:
        """Make the optimiser, and restore the state of the checkpoint if there is one."""
        model, adversary = self.model, getattr(self.model, "adversary", None)
        against = [] if adversary is None else list(adversary.parameters())
        others = [one for one in model.parameters() if all(one is not other for other in against)]
        self.optimiser = Adam(others, learning_rate, **(getattr(model, "adam", None) or {}))
        if against:
            options = dict(model.adversary_adam)
            self.adversary = Adam(against, options.pop("lr"), **options)
        model.train()
        if self.checkpoint.is_file():
            self._load()

    def save(self) -> None:
        """Write parameters, optimiser, random state and history to the checkpoint, replacing the last one."""
        from safetensors.torch import save

        generator = self.batches.generator
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for kind, optimiser in self._optimisers().items():
            tensors |= {f"{kind}.{name}": value for name, value in optimiser.state().items()}
        tensors["generator"] = generator.get_state()
        best = self.validation
        if best is not None:
            tensors |= {f"best.{name}": value for name, value in best.parameters.items()}
        if self.history.rows:
            tensors["history"] = torch.tensor(self.history.rows, dtype=torch.float64)
        about = {
            "step": str(self.done),
            "device": generator.device.type,
            "terms": json.dumps(self.history.terms),
            "seconds": repr(self.history.seconds),
            "best": json.dumps(None if best is None else [best.loss, best.step]),
            "check": UNSEALED.decode(),
        }
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        write_atomically(self.checkpoint, sealed(save(tensors, about)))

    def _load(self) -> None:
        """Restore what `save` wrote."""
        from safetensors.torch import load

        path, generator = self.checkpoint, self.batches.generator
        content = path.read_bytes()
        if not is_sealed(content):
            say(f"'{path}' is damaged: the training begins anew")
            return
        about, tensors = about_of(content), load(content)
        if about["device"] != generator.device.type:
            raise DislabError(
                f"the run was begun on {about['device']}: go on there (--device), or delete '{path}'"
            )
        parameters: dict[str, Tensor] = {}
        states: dict[str, dict[str, Tensor]] = {kind: {} for kind in self._optimisers()}
        best: dict[str, Tensor] = {}
        for name, value in tensors.items():
            kind, _, key = name.partition(".")
            if kind == "model":
                parameters[key] = value
            elif kind == "best":
                best[key] = value
            elif kind in states:
                states[kind][key] = value
        try:
            self.model.load_state_dict(parameters)
        except RuntimeError as error:
            reason = said_by(error)
            raise DislabError(f"'{path}' is of another model, delete it to train anew: {reason}") from None
        try:
            for kind, optimiser in self._optimisers().items():
                optimiser.load(states[kind])
        except ValueError:
            raise DislabError(f"'{path}' is of another version of dislab, delete it to train anew") from None
        generator.set_state(tensors["generator"])
        if self.validation is not None:
            self.validation.parameters = best
            self.validation.loss, self.validation.step = json.loads(about["best"])
        self.history.terms = json.loads(about["terms"])
        self.history.rows = tensors["history"].tolist() if "history" in tensors else []
        self.history.seconds = float(about["seconds"])
        self.done = int(about["step"])

    def _optimisers(self) -> dict[str, Adam]:
        """Return the optimisers by the names that their states have in the checkpoint."""
        both = {"adam": self.optimiser, "adversary": self.adversary}
        return {name: optimiser for name, optimiser in both.items() if optimiser is not None}
