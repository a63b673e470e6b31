"""WReN (Barrett et al. 2018): a network that reasons on the codes of a matrix's panels, and its training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dislab.scoring.matrices import NUM_CONTEXT, Matrices, reordered

BATCH = 32  # matrices in a step
BATCH_OF_TEST = 128
NUM_ROWS = 3  # of a matrix
SHUT = 3.0  # shuts a unit off: what it sees of two codes, their difference, has a deviation of about 1.4
# The deviation of a Normal cut off at two of its deviations, to whose inverse it is scaled before it is cut.
CUT_OFF = 0.87962566103423978


class WReN(nn.Module):
    """Score each answer by the relations of all pairs of nine panels: those of the context, and the answer.

    A panel's position is appended to its code, one-hot. The edge network sees all 81 ordered pairs of panels,
    a panel with itself too. Its outputs are summed, and the graph network turns the sum into a logit. Every
    layer but the last one has a ReLU.

    Parameters
    ----------
    num_codes : dimensions of a code.
    edge, graph : units of the layers of the two networks.
    keep : probability with which an input of the last layer is kept in training; None keeps all. Those kept
        are the same for all answers of a batch, as in the published code.
    """

    def __init__(self, num_codes: int, edge: Sequence[int], graph: Sequence[int], keep: float | None = None):
        super().__init__()
        self.edge = _layers((2 * (num_codes + NUM_CONTEXT + 1), *edge))
        self.graph = _layers((edge[-1], *graph, 1))
        self.keep = keep
        for layer in (*self.edge, *self.graph):
            deviation = layer.in_features**-0.5 / CUT_OFF  # LeCun's, as Keras has it
            nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, context: Tensor, answers: Tensor) -> Tensor:
        """Return logits [B, A] of contexts [B, 8, D] and answers [B, A, D]."""
        context, answers = _with_positions(context, answers)
        num_answers = answers.shape[1]
        # The first layer is linear in each panel of a pair, and all answers share the pairs of the context:
        # 64 + 17 A pairs in place of 81 A.
        one, other = self.edge[0].weight.chunk(2, dim=1)
        left, own_left = (functional.linear(nodes, one, self.edge[0].bias) for nodes in (context, answers))
        right, own_right = (functional.linear(nodes, other) for nodes in (context, answers))
        shared = (left[:, :, None] + right[:, None]).flatten(1, 2)
        with_context = own_left[:, :, None] + right[:, None], left[:, None] + own_right[:, :, None]
        own = torch.cat([*with_context, (own_left + own_right)[:, :, None]], dim=2).flatten(1, 2)
        hidden = torch.cat([shared, own], dim=1).relu_()
        for layer in self.edge[1:]:
            hidden = layer(hidden).relu_()
        shared, own = hidden.split([NUM_CONTEXT**2, hidden.shape[1] - NUM_CONTEXT**2], dim=1)
        hidden = shared.sum(dim=1)[:, None] + own.unflatten(1, (num_answers, -1)).sum(dim=2)
        for layer in self.graph[:-1]:
            hidden = layer(hidden).relu_()
        if self.keep is not None and self.training:
            hidden = hidden * (torch.rand(hidden.shape[-1]) < self.keep) / self.keep
        return self.graph[-1](hidden).squeeze(2)


class NormalisedWReN(nn.Module):
    """The network of Soft TPR: batch normalisation, and pairs of the answer with the context in one order.

    It sums over 64 pairs of the context and 8 of the context with the answer. Both networks end, before the
    last layer, in twice as many units as a panel has numbers, and every layer but the last one has batch
    normalisation and a ReLU. The statistics of a batch are those of one answer of all its matrices.

    Parameters
    ----------
    num_codes : dimensions of a code.
    edge, graph : units of each of the three and of the two hidden layers of the two networks.
    """

    def __init__(self, num_codes: int, edge: int, graph: int):
        super().__init__()
        size = 2 * (num_codes + NUM_CONTEXT + 1)
        self.edge = _normalised((size, edge, edge, edge, size))
        self.graph = nn.Sequential(_normalised((size, graph, graph, size)), nn.Linear(size, 1))

    def forward(self, context: Tensor, answers: Tensor) -> Tensor:
        """Return logits [B, A] of contexts [B, 8, D] and answers [B, A, D]."""
        context, answers = _with_positions(context, answers)
        shared = self._sum_of_pairs(context, context)
        sums = (shared + self._sum_of_pairs(context, one[:, None]) for one in answers.unbind(dim=1))
        return torch.cat([self.graph(one) for one in sums], dim=1)

    def _sum_of_pairs(self, ones: Tensor, others: Tensor) -> Tensor:
        """Return the sum [B, S] over all pairs of panels [B, N, S / 2] and [B, M, S / 2]."""
        shape = len(ones), ones.shape[1], others.shape[1], -1
        pairs = torch.cat([ones[:, :, None].expand(shape), others[:, None].expand(shape)], dim=3)
        return self.edge(pairs.flatten(0, 2)).unflatten(0, (len(ones), -1)).sum(dim=1)


def begin_with_rows(network: WReN) -> None:
    """Let every unit of a network's first layer begin as a comparison of two panels of one row.

    Its weights for the two codes are opposite, so it sees their difference. Its weights for positions shut
    it off, through its ReLU, where a panel is not in its row; a third of the units has each row. Nothing is
    fixed: training may change all of it. The relations of rows, which are what a matrix is made of, are
    learned without this start, too, but in many more steps (docs/tasks.md).
    """
    first, after = network.edge[0], network.graph[0]
    num_codes = first.in_features // 2 - NUM_CONTEXT - 1
    row_of_unit = torch.arange(first.out_features) % NUM_ROWS
    row_of_position = torch.arange(NUM_CONTEXT + 1) // NUM_ROWS
    with torch.no_grad():
        codes = torch.randn(first.out_features, num_codes) / num_codes**0.5
        elsewhere = -SHUT * (row_of_unit[:, None] != row_of_position).to(codes.dtype)
        first.weight.copy_(torch.cat([codes, elsewhere, -codes, elsewhere], dim=1))
        after.weight /= NUM_CONTEXT + 1  # some nine pairs of panels are in one row


def _layers(sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))


def _normalised(sizes: Sequence[int]) -> nn.Sequential:
    layers = ((nn.Linear(*pair), nn.BatchNorm1d(pair[1]), nn.ReLU()) for pair in pairwise(sizes))
    return nn.Sequential(*(part for layer in layers for part in layer))


def _with_positions(context: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with the one-hot position appended to the codes; all answers have the last one."""
    position = torch.eye(NUM_CONTEXT + 1, dtype=context.dtype)
    where = position[:NUM_CONTEXT].expand(len(context), -1, -1), position[-1].expand(*answers.shape[:2], -1)
    return tuple(torch.cat(pair, dim=2) for pair in zip((context, answers), where, strict=True))


def softmax_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of the right answers [B] among all, in nats, of logits [B, A]."""
    return functional.cross_entropy(logits, label)


def sigmoid_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean over answers of the binary cross-entropy, of logits [B, A] and right answers [B]."""
    wanted = functional.one_hot(label, logits.shape[1]).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, wanted)


@dataclass(frozen=True)
class Training:
    """How a network is trained: rounds of steps of Adam, each followed by a validation.

    Attributes
    ----------
    rate : of Adam.
    rounds, steps : at most so many rounds, and steps in each.
    patience : rounds without a better validation after which training ends.
    loss : of logits [B, A] and right answers [B].
    keep_best : validate by the accuracy, and keep the parameters of the best round. Otherwise by the loss,
        and the last parameters are kept.
    in_order : take the matrices in their order, not shuffled anew for each pass.
    reorder : show each matrix with its panels in another order each time, see `reordered`.
    """

    rate: float
    rounds: int
    steps: int
    patience: int
    loss: Callable[[Tensor, Tensor], Tensor] = softmax_loss
    keep_best: bool = True
    in_order: bool = False
    reorder: bool = False


def train(
    network: nn.Module,
    training: Training,
    codes: Tensor,
    data: Iterable[tuple[Matrices, Matrices]],
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> list[float]:
    """Train a network, and return the accuracy on the validation matrices after each round.

    Parameters
    ----------
    codes : [P, D], of the panels.
    data : training and validation matrices of each round.
    rng : draws the order of the training matrices.
    progress : called at every step with the last accuracy in words.
    """
    optimiser = torch.optim.Adam(network.parameters(), training.rate)
    accuracies: list[float] = []
    best, since, kept, before = -np.inf, 0, network.state_dict(), None
    for matrices, validation in islice(data, training.rounds):
        if matrices is not before:
            before, batches = matrices, batches_of(len(matrices.label), None if training.in_order else rng)
        network.train()
        for rows in islice(batches, training.steps):
            context = matrices.context[rows]
            if training.reorder:
                context = reordered(context, rng)
            logits = network(codes[context], codes[matrices.answers[rows]])
            optimiser.zero_grad()
            training.loss(logits, torch.from_numpy(matrices.label[rows])).backward()
            optimiser.step()
            progress(f"accuracy {accuracies[-1]:.3f}" if accuracies else "")
        logits = logits_of(network, codes, validation)
        accuracies.append(accuracy(logits, validation))
        by_loss = -training.loss(logits, torch.from_numpy(validation.label)).item()
        now = accuracies[-1] if training.keep_best else by_loss
        since = since + 1 if now <= best else 0
        if now > best:
            best, kept = now, copy.deepcopy(network.state_dict())
        if since == training.patience:
            break
    if training.keep_best:
        network.load_state_dict(kept)
    return accuracies


def batches_of(number: int, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
    """Yield batches of 32 of so many matrices, int64 [32], pass after pass without an end.

    The last batch of a pass has the rest; a single matrix, which batch normalisation cannot take, is left out
    where there are others.
    """
    while True:
        order = np.arange(number) if rng is None else rng.permutation(number)
        for start in range(0, max(1, number - 1), BATCH):
            yield order[start : start + BATCH]


def logits_of(network: nn.Module, codes: Tensor, matrices: Matrices) -> Tensor:
    """Return logits [N, 6] of matrices, in evaluation mode, of the codes [P, D] of their panels."""
    network.eval()
    parts = [slice(start, start + BATCH_OF_TEST) for start in range(0, len(matrices.label), BATCH_OF_TEST)]
    with torch.no_grad():
        return torch.cat(
            [network(codes[matrices.context[part]], codes[matrices.answers[part]]) for part in parts]
        )


def accuracy(logits: Tensor, matrices: Matrices) -> float:
    """Return the share of matrices whose right answer has the largest logit."""
    return float((logits.argmax(dim=1).numpy() == matrices.label).mean())
