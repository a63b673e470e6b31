"""A network of ReLU layers that is trained by Adam: what readouts and classifiers of codes are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam (Kingma & Ba 2015)


class Perceptron:
    """Layers of weights and biases, float32, with a ReLU after every layer but the last.

    The steps are those of scikit-learn's MLPRegressor and MLPClassifier, to the last digit: the same first
    weights, order of operations and rounding. Scikit-learn takes two to three times as long, because it
    computes the loss at every step and allocates all arrays anew.

    Parameters
    ----------
    sizes : numbers of inputs, of units of the hidden layers, and of outputs.
    random : draws the first weights and biases, uniform up to sqrt(6 / (inputs + outputs of their layer)).
    batch_size : rows per step of Adam.
    learning_rate : of Adam.
    penalty : α of the loss, mean of the rows' losses + α / 2 ‖W‖² / rows of the batch; biases are free.

    Attributes
    ----------
    parameters : all weights and biases, float32 [P]; a copy of it can be assigned to `parameters[:]`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        random: np.random.RandomState,
        *,
        batch_size: int,
        learning_rate: float,
        penalty: float = 0.0,
    ):
        self.batch_size, self.learning_rate, self.penalty = batch_size, learning_rate, penalty
        shapes = list(pairwise(sizes))
        self.num_weights = sum(fan_in * fan_out for fan_in, fan_out in shapes)
        self.parameters, self._gradient, self._first, self._second, self._scratch = (
            np.zeros(self.num_weights + sum(sizes[1:]), dtype=np.float32) for _ in range(5)
        )
        self._update = np.empty(len(self.parameters))
        self._layers = _views(self.parameters, shapes)
        self._slopes = _views(self._gradient, shapes)
        for weights, biases in self._layers:
            bound = np.sqrt(6.0 / sum(weights.shape))
            weights[:] = random.uniform(-bound, bound, weights.shape)
            biases[:] = random.uniform(-bound, bound, biases.shape)
        self._values, self._deltas = (
            [np.empty((batch_size, size), dtype=np.float32) for size in sizes[1:]] for _ in range(2)
        )
        self._steps = 0

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return the values of the last layer, float32 [B, O], of inputs float32 [B, I]."""
        return self._forward(inputs, [np.empty((len(inputs), len(b)), np.float32) for _, b in self._layers])[
            -1
        ]

    def _forward(self, inputs: np.ndarray, values: list[np.ndarray]) -> list[np.ndarray]:
        """Return the inputs and the values of every layer, which are written to `values`."""
        import torch

        values = [inputs, *values]
        for number, (weights, biases) in enumerate(self._layers, start=1):
            np.matmul(values[number - 1], weights, out=values[number])
            values[number] += biases
            if number < len(self._layers):
                torch.from_numpy(values[number]).relu_()  # in a fifth of the time of numpy's
        return values

    def penalty_of(self, num_rows: int) -> float:
        """Return the penalty in the mean loss of so many rows."""
        weights = self.parameters[: self.num_weights]
        return 0.5 * self.penalty * (weights @ weights) / num_rows

    def epoch(self, inputs: np.ndarray, wanted: np.ndarray, order: np.ndarray, residual: Callable) -> None:
        """Take a step of Adam for every batch of rows.

        Parameters
        ----------
        inputs : float32 [N, I].
        wanted : [N] or [N, …], what `residual` gets of the rows of a batch.
        order : int [N], the rows; a batch is `batch_size` of them, the last one has the rest.
        residual : function(outputs float32 [B, O], wanted of these rows) -> slopes of the rows' losses,
            float32 [B, O]. It may write to the outputs.
        """
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            values = self._forward(inputs.take(rows, axis=0), [part[: len(rows)] for part in self._values])
            self._backward(values, residual(values[-1], wanted.take(rows, axis=0)))
            self._gradient[: self.num_weights] += self.penalty * self.parameters[: self.num_weights]
            self._gradient /= len(rows)
            self._step()

    def _backward(self, values: list[np.ndarray], delta: np.ndarray) -> None:
        """Write the slopes of the sum of the losses to the gradient, of the slopes by the last layer."""
        for number in reversed(range(len(self._layers))):
            weights, biases = self._slopes[number]
            np.matmul(values[number].T, delta, out=weights)
            np.sum(delta, axis=0, out=biases)
            if number:
                below = self._deltas[number - 1][: len(delta)]
                np.matmul(delta, self._layers[number][0].T, out=below)
                delta = np.multiply(below, values[number] > 0, out=below)

    def _step(self) -> None:
        """Move the parameters by Adam."""
        gradient, first, second, scratch = self._gradient, self._first, self._second, self._scratch
        self._steps += 1
        first *= BETAS[0]
        first += np.multiply(gradient, 1 - BETAS[0], out=scratch)
        second *= BETAS[1]
        second += np.multiply(np.square(gradient, out=scratch), 1 - BETAS[1], out=scratch)
        np.sqrt(second, out=scratch)
        scratch += EPSILON
        of_first, of_second = (1 - beta**self._steps for beta in BETAS)
        np.multiply(first, -self.learning_rate * np.sqrt(of_second) / of_first, out=self._update)
        self._update /= scratch
        self.parameters += self._update


def _views(flat: np.ndarray, shapes: list[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the weights [I, O] and the biases [O] of each layer as parts of an array [P]: weights first."""
    sizes = [fan_in * fan_out for fan_in, fan_out in shapes] + [fan_out for _, fan_out in shapes]
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    weights = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=False)]
    return list(zip(weights, parts[len(shapes) :], strict=True))
