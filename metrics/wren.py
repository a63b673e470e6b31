"""Abstract visual reasoning: can a network that reasons on the codes complete matrices like Raven's?"""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

from dislab.errors import DislabError, DislabWarning
from dislab.progress import Bar
from dislab.registry import register_metric
from dislab.scoring.matrices import (
    NUM_ANSWERS,
    RELATIONS,
    Matrices,
    Panels,
    answers_only,
    draw_matrices,
    last_row_only,
)
from dislab.scoring.readouts import Standardiser
from dislab.scoring.table import CodeTable

if TYPE_CHECKING:
    from torch import nn

    from dislab.scoring.wren import Training

BATCH = 32  # matrices in a step
# Of the training "dislab": units of the layers of both networks, and steps between two validations.
EDGE, GRAPH, STEPS = (96, 64), (64, 64), 250


@register_metric(
    "wren_accuracy",
    title="Accuracy in abstract visual reasoning, by a network on the codes (WReN)",
    group="wren",
    reference="van Steenkiste et al. 2019; network of Barrett et al. 2018",
    low=0.0,
    high=1.0,
    slow=True,
    needs=("matrices",),
)
def wren(
    table: CodeTable,
    rng: np.random.Generator,
    *,
    training: Literal["dislab", "vansteenkiste2019", "softtpr2024"] = "dislab",
    matrices: Literal["mixed", "easy1", "easy2", "easy3", "hard1", "hard2", "hard3"] = "mixed",
    num_train: int = 10_000,
    num_validation: int = 1_000,
    num_test: int = 5_000,
    num_networks: int = 1,
    num_steps: int = 10_000,
) -> dict:
    """Return the accuracy with which a network that has learnt from matrices completes new ones.

    A matrix has 3 x 3 panels, rows of the table, and 1 to 3 factors that are constant along every row; one of
    six answers is its last panel. `dislab.scoring.matrices` draws matrices, and `dislab.scoring.wren` has the
    network. Chance is 1/6. docs/tasks.md says how long it takes, and where the published protocols differ.

    Parameters
    ----------
    table : codes [N, D] and factors [N, K]; those that vary must have 3 values or more, and be 3 or more.
    training : "dislab" trains a small network on standardised codes, and on the same matrices again and
        again, each time with their panels in another order of the same rule, for at most `num_steps` steps of
        32, or until the accuracy on validation matrices has not risen for a third of that; the best
        parameters are kept.
        "vansteenkiste2019" trains a network drawn from their search space on codes as they are, and
        on every matrix once. "softtpr2024" is the network of Soft TPR, on the same matrices again and again.
    matrices : how many relations they have, and how wrong answers are made, see `draw_matrices`.
    num_train, num_validation, num_test : numbers of matrices. In "vansteenkiste2019" each validation has new
        ones.
    num_networks : networks that are trained, each with its own size and first parameters.
    num_steps : of "dislab" only; the others have as many as were published.

    Returns
    -------
    wren_accuracy : on test matrices, mean over networks; in [0, 1].
    wren_accuracy_last_row : of a rule that knows the factors and sees the last row only. A network that does
        no better need not have used the rows before.
    wren_accuracy_answers_only : of the better of two rules that see the answers only.
    wren_accuracy_chance : 1/6.
    wren_accuracy_curve : list of [training matrices seen, accuracy on validation matrices] of the first
        network; a matrix counts as often as it is seen.
    wren_accuracy_per_network : list of accuracies.
    wren_accuracy_networks : list of [rate of Adam, units of the edge network, its layers, units of the graph
        network, its layers, probability to keep or None].

    Raises
    ------
    DislabError : num_train is 1, or the table has no rows for such matrices.
    """
    import torch

    from dislab.scoring.wren import accuracy, logits_of, train

    if num_train < 2:
        raise DislabError(f"num_train is {num_train}: it must be 2 or more")
    panels = Panels(table)
    remark(panels, matrices)

    def draw(number: int) -> Matrices:
        return draw_matrices(panels, matrices, number, rng)

    test, validation = draw(num_test), draw(num_validation)
    means = np.asarray(table.mean[panels.rows])
    if training == "dislab":
        means = Standardiser(means)(means).astype(np.float32)
    is_fresh = training == "vansteenkiste2019"
    data = None if is_fresh else itertools.repeat((draw(num_train), validation))
    accuracies, curves = [], []
    # Whatever a user has set for torch; its random state is put back.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.enable_grad():
        torch.manual_seed(int(rng.integers(2**31)))
        codes = torch.from_numpy(means)
        plans = [
            usual(means.shape[1], num_steps)
            if training == "dislab"
            else PUBLISHED[training](means.shape[1], num_train, rng)
            for _ in range(num_networks)
        ]
        total, done = sum(how.rounds * how.steps for _, how, _ in plans), itertools.count(1)
        with Bar("wren", total) as bar:
            for network, how, _ in plans:
                if is_fresh:
                    data = ((draw(BATCH * how.steps), draw(num_validation)) for _ in range(how.rounds))
                curve = train(
                    network.to(codes.dtype), how, codes, data, rng, lambda note: bar.update(next(done), note)
                )
                curves.append([[BATCH * how.steps * number, value] for number, value in enumerate(curve, 1)])
                accuracies.append(accuracy(logits_of(network, codes, test), test))
            bar.update(total)
    return {
        "wren_accuracy": np.mean(accuracies),
        "wren_accuracy_last_row": last_row_only(panels, test),
        "wren_accuracy_answers_only": max(answers_only(panels.values[test.answers], test.label)),
        "wren_accuracy_chance": 1 / NUM_ANSWERS,
        "wren_accuracy_curve": curves[0],
        "wren_accuracy_per_network": accuracies,
        "wren_accuracy_networks": [size for _, _, size in plans],
    }


def remark(panels: Panels, kind: str) -> None:
    """Warn of matrices that are not those of the published study."""
    if not panels.exact:
        warnings.warn(
            "wren_accuracy: the table is no full grid, so that neighbouring values of a factor may count as "
            "one in its matrices; those of a full grid are easier",
            DislabWarning,
            stacklevel=3,
        )
    if RELATIONS[kind][0] == "hard":
        warnings.warn(
            f"wren_accuracy: {kind} matrices can be solved in part from the answers alone: read it beside "
            "wren_accuracy_answers_only",
            DislabWarning,
            stacklevel=3,
        )


# How networks are trained --------------------------------------------------------------------------

Plan = tuple["nn.Module", "Training", list]  # a network, its training, and its rate and sizes


def usual(num_codes: int, num_steps: int) -> Plan:
    """Return a network a third as wide as the smallest published, which a CPU core trains in a minute.

    Each answer has a loss of its own. A softmax over the answers does not change with what all answers share,
    the rows before, and its training stands still at what the last row tells (docs/tasks.md).
    """
    from dislab.scoring.wren import Training, WReN, begin_with_rows, sigmoid_loss

    steps = min(STEPS, num_steps)
    rounds = num_steps // steps
    how = Training(
        rate=3e-3,
        rounds=rounds,
        steps=steps,
        patience=max(1, rounds // 3),
        loss=sigmoid_loss,
        reorder=True,
    )
    size = [EDGE[0], len(EDGE), GRAPH[0], len(GRAPH)]
    network = WReN(num_codes, EDGE, GRAPH)
    begin_with_rows(network)
    return network, how, [how.rate, *size, None]


def searched(num_codes: int, num_train: int, rng: np.random.Generator) -> Plan:
    """Return a network of the search space of van Steenkiste et al., which sees each matrix once."""
    from dislab.scoring.wren import Training, WReN

    space = [1e-2, 1e-3, 1e-4], [256, 512], [2, 3, 4], [128, 256], [1, 2], [0.25, 0.5, 0.75, None]
    size = [values[rng.integers(len(values))] for values in space]
    rate, edge, edge_layers, graph, graph_layers, keep = size
    steps = min(1_000, -(-num_train // BATCH))
    rounds = max(1, round(num_train / (BATCH * steps)))
    network = WReN(num_codes, edge=[edge] * edge_layers, graph=[graph] * graph_layers, keep=keep)
    return network, Training(rate, rounds, steps, patience=rounds), size


def normalised(num_codes: int, num_train: int, rng: np.random.Generator) -> Plan:
    """Return the network of Soft TPR, of one of its four sizes."""
    from dislab.scoring.wren import NormalisedWReN, Training, sigmoid_loss

    # By the least number of training matrices: passes, and passes without a better validation.
    most = {100_000: (20, 10), 10_000: (110, 12), 1_000: (210, 14), 500: (310, 18), 0: (410, 18)}
    rounds, patience = next(value for least, value in most.items() if num_train >= least)
    edge, graph = int(rng.choice([256, 512])), int(rng.choice([128, 256]))
    how = Training(
        rate=1e-5,
        rounds=rounds,
        steps=-(-max(1, num_train - 1) // BATCH),
        patience=patience,
        loss=sigmoid_loss,
        keep_best=False,
        in_order=True,
    )
    return NormalisedWReN(num_codes, edge, graph), how, [how.rate, edge, 3, graph, 2, None]


PUBLISHED = {"vansteenkiste2019": searched, "softtpr2024": normalised}
