"""A model in training: its optimiser, its history, and the checkpoint from which it goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dislab.errors import DislabError, RunFailed
from dislab.files import write_atomically
from dislab.training.batches import Batches


@dataclass
class History:
    """Loss terms over the steps: one row per reading, step first, and the seconds spent training."""

    terms: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0

    def write_csv(self, path: Path) -> None:
        lines = [",".join(["step", *self.terms])]
        lines += [",".join([str(int(row[0])), *(f"{value:.6g}" for value in row[1:])]) for row in self.rows]
        write_atomically(path, ("\n".join(lines) + "\n").encode())


@dataclass
class Member:
    """A model in training, alone or in a stack with others.

    Attributes
    ----------
    model, batches : what is trained, and on what.
    checkpoint : the file from which the training goes on; the same whether alone or in a stack.
    history, done : what has been so far, and how many steps.
    failure : why the training ended before its last step, or None.
    at_once : how many models were trained at once, with this one.
    """

    model: nn.Module
    batches: Batches
    checkpoint: Path
    history: History = field(default_factory=History)
    done: int = 0
    failure: RunFailed | None = None
    at_once: int = 1
    optimiser: torch.optim.Adam | None = None

    def resume(self, learning_rate: float) -> None:
        """Make the optimiser, and go on from the checkpoint where there is one."""
        self.optimiser = adam(list(self.model.parameters()), learning_rate)
        generator = self.batches.generator
        self.done = load_checkpoint(self.checkpoint, self.model, self.optimiser, generator, self.history)
        self.model.train()

    def save(self) -> None:
        generator = self.batches.generator
        save_checkpoint(self.checkpoint, self.model, self.optimiser, generator, self.history, self.done)


def adam(parameters: list[Tensor], learning_rate: float) -> torch.optim.Adam:
    """Adam with its published betas, in one kernel for all parameters, as a CUDA graph can hold it."""
    cuda = parameters[0].is_cuda
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True, capturable=cuda)


def save_checkpoint(
    path: Path, model, optimiser, generator: torch.Generator, history: History, done: int
) -> None:
    """Write parameters, optimiser, random state and history to one file, in place of the last one."""
    from safetensors.torch import save

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    tensors["generator"] = generator.get_state()
    if history.rows:
        tensors["history"] = torch.tensor(history.rows, dtype=torch.float64)
    about = {
        "step": str(done),
        "device": generator.device.type,
        "terms": json.dumps(history.terms),
        "seconds": repr(history.seconds),
    }
    write_atomically(path, save({name: value.cpu().contiguous() for name, value in tensors.items()}, about))


def load_checkpoint(path: Path, model, optimiser, generator: torch.Generator, history: History) -> int:
    """Restore what `save_checkpoint` wrote and return the number of steps done; 0 without a checkpoint."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DislabError(f"'{path}' is damaged, delete it to train anew: {error}") from None
    if about["device"] != generator.device.type:
        raise DislabError(
            f"the run was begun on {about['device']}: go on there (--device), or delete '{path}'"
        )
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    # Fused Adam goes through a parameter's memory and that of its moments side by side: channels that come
    # last in the one must come last in the others.
    for parameter, moments in optimiser.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])
    generator.set_state(tensors["generator"])
    history.terms = json.loads(about["terms"])
    history.rows = tensors["history"].tolist() if "history" in tensors else []
    history.seconds = float(about["seconds"])
    return int(about["step"])
