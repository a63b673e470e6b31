"""Validation: the parameters that are best on images that do not train the model become a run's result."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dislab.training.batches import Batches


class Validation:
    """The parameters with the lowest validation loss so far.

    It is the model's own loss, for a VAE or an ML-VAE with all weights at 1 the negative ELBO. It is the mean
    over the same batches every time, with the same noise, so that it is a function of the parameters.

    Attributes
    ----------
    batches : from the validation images; as many are drawn as would hold each image once.
    loss, step : the lowest loss, and the number of steps after which it was reached.
    parameters : those of that step, with the buffers; {} before the first look.
    """

    def __init__(self, batches: Batches):
        self.batches, self.start = batches, batches.generator.get_state()
        self.number = math.ceil(len(batches.order) / len(batches.slots.index))
        self.loss, self.step = math.inf, 0
        self.parameters: dict[str, Tensor] = {}

    def look(self, model: nn.Module, step: int) -> None:
        """Compute the loss after so many steps, and keep the parameters if it is the lowest."""
        self.batches.generator.set_state(self.start)
        number = torch.tensor(float(step), device=self.batches.device)
        model.eval()
        with torch.no_grad():
            losses = [model.loss(self.batches.draw(), number)["loss"] for _ in range(self.number)]
        model.train()
        loss = torch.stack(losses).double().mean().item()
        if loss < self.loss:  # never if it is not a number
            self.loss, self.step = loss, step
            self.parameters = {name: value.clone() for name, value in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Give the model the parameters that were kept, if any."""
        if self.parameters:
            model.load_state_dict(self.parameters)

    def report(self) -> dict[str, float]:
        """Return what the record of the run says of its validation."""
        return {"validation_loss": self.loss, "validation_step": self.step} if self.parameters else {}
