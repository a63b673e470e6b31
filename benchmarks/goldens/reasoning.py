"""Goldens of abstract visual reasoning: its matrices, and the network that completes them."""

from __future__ import annotations

import numpy as np
import torch

from dislab.benchmarks.goldens import Given, golden
from dislab.scoring.matrices import Panels, answers_only, draw_matrices, follows_rule
from dislab.scoring.table import CodeTable
from dislab.scoring.wren import WReN, softmax_loss


# Both are of other matrices than those of the golden. Published code means to draw answers that differ.
@golden("pgm", not_followed=("duplicated_alternatives", "answers_only_accuracy"))
def pgm(given: Given) -> dict[str, object]:
    """What is active in matrices that dislab's rule accepts, with answers of which it accepts one."""
    values, wrong, sizes = given["matrix"].numpy(), given["alternatives"].numpy(), given["atoms"]
    active = (values == values[:, :, :1]).all(axis=(1, 2))
    accepted = follows_rule(values, active) & (values < sizes).all(axis=(1, 2, 3))
    for answer in np.moveaxis(wrong, 1, 0):
        other = values.copy()
        other[:, 2, 2] = answer
        accepted &= ~follows_rule(other, active)
    # A solver demands of the last row what is constant in both rows before.
    demanded = (values[:, :2] == values[:, :2, :1]).all(axis=(1, 2))
    answers = np.concatenate([values[:, 2, 2:], wrong], axis=1)
    same = (answers[:, :, None] == values[:, 2, None, :2]).all(axis=2)
    fitting = (same | ~demanded[:, None]).all(axis=2)
    grid = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    panels = Panels(CodeTable(grid, grid, sizes=tuple(sizes), full_grid=True))
    ours = draw_matrices(panels, "mixed", 500, np.random.default_rng(0))
    drawn = panels.values[ours.answers]
    return {
        "active": active & accepted[:, None],
        "oracle_accuracy": (fitting[:, 0] & ~fitting[:, 1:].any(axis=1)).mean(),
        "duplicated_alternatives": np.mean([len(np.unique(six, axis=0)) < 6 for six in drawn]),
        "answers_only_accuracy": answers_only(drawn, ours.label)[0],
    }


@golden("wren")
def wren(given: Given) -> dict[str, object]:
    """Logits, loss and accuracy of a network with the golden's weights, and numbers of parameters."""
    context, answers, label = given["context"], given["answers"], given["label"]
    numbers = {part: sum(name.startswith(f"{part}_W") for name in given) for part in ("edge", "graph")}
    weights = {part: [given[f"{part}_W{i}"].T for i in range(numbers[part])] for part in numbers}
    edge, graph = ([len(one) for one in weights[part]] for part in ("edge", "graph"))
    network = WReN(context.shape[2], edge, graph[:-1]).double()
    with torch.no_grad():
        for part, layers in (("edge", network.edge), ("graph", network.graph)):
            for number, layer in enumerate(layers):
                layer.weight.copy_(weights[part][number])
                layer.bias.copy_(given[f"{part}_b{number}"])
        logits = network(context, answers)
    return {
        "logits": logits,
        "loss": softmax_loss(logits, label),
        "accuracy": (logits.argmax(dim=1) == label).double().mean(),
        "parameters_example_gin": number_of_parameters([512] * 4, [256, 256]),
        "parameters_smallest": number_of_parameters([256, 256], [128]),
    }


def number_of_parameters(edge: list[int], graph: list[int]) -> int:
    """Return how many parameters a network on codes of 10 dimensions has."""
    return sum(parameter.numel() for parameter in WReN(10, edge, graph).parameters())
