"""Abstract visual reasoning: the network against slow loops, what it learns, and what cannot be done."""

import itertools

import numpy as np
import pytest
import torch
from metric_tables import grid, mixture
from wren_tables import SIZES, table_of

import dislab
from dislab.errors import DislabError, DislabWarning
from dislab.metrics import wren as metric
from dislab.scoring import wren as networks
from dislab.scoring.matrices import Panels, draw_matrices
from dislab.scoring.score import score
from dislab.scoring.table import CodeTable
from dislab.scoring.wren import NormalisedWReN, Training, WReN, sigmoid_loss, train

# Networks ------------------------------------------------------------------------------------------


def random_panels(number: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(number, n, size, dtype=torch.float64, generator=draw) for n in (8, 6))


def nodes_of(context, answer) -> list[torch.Tensor]:
    """Nine panels with their positions appended."""
    positions = torch.eye(9, dtype=torch.float64)
    return [torch.cat(pair) for pair in zip([*context, answer], positions, strict=True)]


def test_logits_equal_loops_over_all_81_pairs_and_follow_the_answers():
    context, answers = random_panels(2, 3)
    network = WReN(3, edge=[5, 7, 4], graph=[6, 3]).double()
    for layer in (*network.edge, *network.graph):
        torch.nn.init.normal_(layer.bias)
    logits = network(context, answers)
    for matrix in range(2):
        for number, answer in enumerate(answers[matrix]):
            nodes, total = nodes_of(context[matrix], answer), 0
            for one in nodes:
                for other in nodes:
                    hidden = torch.cat([one, other])
                    for layer in network.edge:
                        hidden = torch.relu(layer(hidden))
                    total = total + hidden
            for layer in network.graph[:-1]:
                total = torch.relu(layer(total))
            torch.testing.assert_close(logits[matrix, number], network.graph[-1](total)[0])
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    torch.testing.assert_close(network(context, answers[:, order]), logits[:, order])


def test_a_network_of_33_units_solves_every_matrix_of_factors():
    """Its weights are set by hand: that factors stay below 1 is due to training alone.

    Edge units are |difference| of each factor and which row both panels are in; then 1 where panels of the
    first two rows, or of the last, are equal in a factor. The graph network sees how many of the 18 and 9
    ordered pairs are: a factor that is constant before and not in the last row counts against the answer.
    """
    panels = Panels(table_of((5, 5, 5, 4, 4, 4)))
    codes = torch.from_numpy(panels.values).float()
    network = WReN(6, edge=[15, 12], graph=[6])
    first, second, third, last = (*network.edge, *network.graph)
    with torch.no_grad():
        for layer in (first, second, third, last):
            layer.weight.zero_(), layer.bias.zero_()
        for k in range(6):
            first.weight[2 * k, [k, 15 + k]] = torch.tensor([1.0, -1.0])
            first.weight[2 * k + 1] = -first.weight[2 * k]
            second.weight[[k, 6 + k], 2 * k : 2 * k + 2] = -1
            third.weight[k, [k, 6 + k]] = torch.tensor([0.5, -0.25])
        for row in range(3):
            first.weight[12 + row, [at + 3 * row + i for at in (6, 21) for i in range(3)]] = 1
            first.bias[12 + row] = -1
        second.weight[:6, 12:14] = second.weight[6:, 14:] = 1
        third.bias[:] = 9 / 4 - 2 * (14 / 4 + 1)
        last.weight[:] = -1
    for kind in ("mixed", "hard1"):
        matrices = draw_matrices(panels, kind, 1_000, np.random.default_rng(0))
        assert networks.accuracy(networks.logits_of(network, codes, matrices), matrices) == 1


def test_units_begin_with_the_differences_of_codes_within_one_row():
    torch.manual_seed(0)
    network = WReN(2, edge=[6, 4], graph=[3])
    networks.begin_with_rows(network)
    codes, position = torch.randn(9, 2), torch.eye(9)
    weight = network.edge[0].weight[:, :2]
    for one, other in itertools.product(range(9), repeat=2):
        seen = network.edge[0](torch.cat([codes[one], position[one], codes[other], position[other]]))
        difference = weight @ (codes[one] - codes[other])
        for unit in range(6):
            outside = (one // 3 != unit % 3) + (other // 3 != unit % 3)
            torch.testing.assert_close(seen[unit], difference[unit] - 3.0 * outside)


def test_the_first_weights_are_lecuns():
    torch.manual_seed(0)
    layer = WReN(300, edge=[400], graph=[1]).edge[0]
    weights = layer.weight * layer.in_features**0.5
    assert abs(weights.std() - 1) < 0.01 and weights.abs().max() < 2.28 and not layer.bias.any()


def test_what_is_dropped_is_the_same_for_all_answers_and_matrices():
    torch.manual_seed(0)
    network = WReN(2, edge=[8], graph=[64], keep=0.25)
    panels = torch.ones(3, 8, 2), torch.ones(3, 6, 2)
    first, second = network(*panels), network(*panels)
    assert (first == first[0, 0]).all() and first[0, 0] != second[0, 0]
    means = torch.stack([network(*panels)[0, 0] for _ in range(200)]).mean()
    network.eval()
    whole = network(*panels)[0, 0]
    assert means.item() == pytest.approx(whole.item(), abs=0.3 * whole.abs().item() + 0.1)


def test_the_normalised_network_equals_loops():
    """In evaluation with statistics as they are, in training with those of one answer of a batch."""
    torch.manual_seed(0)
    context, answers = random_panels(4, 2)
    network = NormalisedWReN(2, edge=5, graph=3).double()
    hidden = [layer for layer in network.edge if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in hidden] == [5, 5, 5, 22]
    for _ in range(3):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        in_training = network(context, answers)
    tail = torch.tensor([0.0] * 8 + [1.0], dtype=torch.float64)
    nodes = torch.cat([context, torch.eye(9, dtype=torch.float64)[:8].expand(4, 8, 9)], dim=2)
    for mode, logits in (("eval", None), ("train", in_training)):
        network.load_state_dict(before)
        network.train(mode == "train")
        logits = network.eval()(context, answers) if logits is None else logits
        pairs = torch.stack([torch.cat([a, b]) for row in nodes for a in row for b in row])
        shared = network.edge(pairs).view(4, 64, -1).sum(1)
        for number in range(6):
            answer = torch.cat([answers[:, number], tail.expand(4, 9)], dim=1)
            own = torch.stack([torch.cat([a, answer[i]]) for i, row in enumerate(nodes) for a in row])
            expected = network.graph(shared + network.edge(own).view(4, 8, -1).sum(1))[:, 0]
            torch.testing.assert_close(logits[:, number], expected)


def test_losses():
    logits, label = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64), torch.tensor([2])
    odds = np.array([2.0, -1.0, 0.5])
    assert networks.softmax_loss(logits, label).item() == pytest.approx(np.log(np.exp(odds).sum()) - 0.5)
    expected = np.mean([np.log1p(np.exp(2.0)), np.log1p(np.exp(-1.0)), np.log1p(np.exp(-0.5))])
    assert sigmoid_loss(logits, label).item() == pytest.approx(expected)


# Training ------------------------------------------------------------------------------------------


class Counted(torch.nn.Module):
    """A network with one parameter, whose matrices and modes are noted."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.calls = []

    def forward(self, context, answers):
        self.calls.append((self.training, answers[:, 0, 0].tolist()))
        return self.weight + answers[:, :, 0]


@pytest.mark.parametrize("keep_best", [True, False])
def test_training_stops_and_keeps_what_it_says(monkeypatch, keep_best):
    """Validations of 0.2, 0.5, 0.4, 0.5: the second is the best, and two without a better one end it."""
    panels = Panels(table_of(SIZES))
    matrices = draw_matrices(panels, "easy1", 40, np.random.default_rng(0))
    codes = torch.arange(len(panels), dtype=torch.float32)[:, None]
    network, weights, values = Counted(), [], iter([0.2, 0.5, 0.4, 0.5, 0.9])

    def accuracy(logits, validation) -> float:
        weights.append(network.weight.item())
        return next(values)

    monkeypatch.setattr(networks, "accuracy", accuracy)
    losses = iter([9.0, 7.0, 8.0, 7.0, 1.0])

    def loss(logits, label):
        return logits[:, 0].mean() if network.training else torch.tensor(next(losses))

    how = Training(0.1, rounds=5, steps=2, patience=2, loss=loss, keep_best=keep_best, in_order=True)
    steps = []
    data = iter([(matrices, matrices)] * 5)
    curve = train(network, how, codes, data, np.random.default_rng(0), steps.append)
    assert curve == [0.2, 0.5, 0.4, 0.5] and len(steps) == 8 and steps[2] == "accuracy 0.200"
    assert network.weight.item() == (weights[1] if keep_best else weights[3]) != weights[0]
    trained = [rows for mode, rows in network.calls if mode]
    assert [len(rows) for rows in trained] == [32, 8] * 4, "every round trains, also its batch normalisation"
    assert trained[0] == trained[2] == codes[matrices.answers[:32, 0], 0].tolist()


def test_batches_are_shuffled_anew_and_never_of_one_matrix():
    batches = networks.batches_of(65, np.random.default_rng(0))
    passes = [np.concatenate([next(batches), next(batches)]) for _ in range(2)]
    assert all(len({*rows}) == 64 for rows in passes) and passes[0].tolist() != passes[1].tolist()
    assert [len(next(batches)) for batches in [networks.batches_of(1, None)]] == [1]


@pytest.fixture
def small(monkeypatch) -> None:
    """A network that learns in a second."""
    for name, value in {"EDGE": (32, 32), "GRAPH": (16,), "STEPS": 60}.items():
        monkeypatch.setattr(metric, name, value)


def test_the_factors_teach_a_network_and_constant_codes_do_not(small):
    table = table_of((3, 3, 3))
    sizes = {
        "num_train": 1_000,
        "num_validation": 100,
        "num_test": 300,
        "matrices": "easy3",
        "num_steps": 240,
    }
    rng = np.random.default_rng(0)
    scores = metric.wren(table, rng, **sizes)
    assert scores["wren_accuracy"] > 0.8 and scores["wren_accuracy_answers_only"] < 0.3
    assert scores["wren_accuracy_curve"][0][0] == 32 * 60 and scores["wren_accuracy_chance"] == 1 / 6
    knows_nothing = CodeTable(np.ones((27, 2)), table.factors, sizes=(3, 3, 3), full_grid=True)
    assert abs(metric.wren(knows_nothing, rng, **(sizes | {"num_steps": 2}))["wren_accuracy"] - 1 / 6) < 0.08


def test_the_published_protocols(monkeypatch):
    """New matrices in every round of the one, the same in every pass of the other, networks of each."""
    seen = []
    monkeypatch.setattr(networks, "train", lambda *given: seen.append(given) or [0.5])
    table = table_of(SIZES)
    changes = "+num_networks=3+num_test=20+num_train=64+num_validation=20"
    scores = score(table, [f"wren@vansteenkiste2019{changes}"])
    assert not scores.failed
    for network, how, codes, data, *_ in seen:
        assert how.rounds == 1 and how.steps == 2 and how.keep_best and codes.max() == 4, "codes as they are"
        ((matrices, validation),) = data
        assert len(matrices.label) == 64 and len(validation.label) == 20
        assert network.keep in (0.25, 0.5, 0.75, None)
    sizes = scores.details[f"wren_accuracy_networks@vansteenkiste2019{changes}"]
    assert len(sizes) == 3 and sizes[0] != sizes[1]
    seen.clear()
    assert not score(table, ["wren@softtpr2024+num_train=100+num_test=20"]).failed
    for network, how, _, data, *_ in seen:
        assert (how.rate, how.rounds, how.steps, how.patience) == (1e-5, 410, 4, 18) and not how.keep_best
        first, second = next(data), next(data)
        assert first is second and len(first[0].label) == 100 and isinstance(network, NormalisedWReN)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("number", "rounds", "patience"), [(250, 410, 18), (10_000, 110, 12), (100_000, 20, 10)]
)
def test_the_passes_of_soft_tpr(number, rounds, patience):
    _, how, _ = metric.normalised(2, number, np.random.default_rng(0))
    assert (how.rounds, how.steps, how.patience) == (rounds, -(-number // 32), patience)


def test_nothing_that_a_user_has_set_for_torch_is_in_the_way(small):
    sizes = {"num_train": 32, "num_validation": 10, "num_test": 10, "num_steps": 1}
    expected = metric.wren(table_of(SIZES), np.random.default_rng(0), **sizes)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    try:
        assert metric.wren(table_of(SIZES), np.random.default_rng(0), **sizes).keys() == expected.keys()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    assert torch.equal(torch.get_rng_state(), state)


# What cannot be done -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [((3, 4, 2), {}), ((5, 6), {}), ((4, 5, 6), {"full_grid": False})],
)
def test_tables_without_matrices_are_left_out_in_one_line(sizes, changes):
    scores = score(table_of(sizes, **changes), ["wren"])
    [why] = scores.left_out.values()
    assert (
        not scores and not scores.failed and why.startswith("it needs at least three factors, each of three")
    )


def test_factors_that_do_not_vary_are_left_out():
    table = table_of(SIZES)
    wider = CodeTable(table.mean, np.insert(table.factors, 1, 7, axis=1), sizes=(3, 9, 4, 5), full_grid=True)
    np.testing.assert_array_equal(Panels(wider).values, Panels(table).values)


def test_one_training_matrix_is_refused():
    with pytest.raises(DislabError, match="num_train is 1: it must be 2 or more"):
        metric.wren(table_of(SIZES), np.random.default_rng(0), num_train=1)


def test_remarks(small):
    factors = grid((3, 3, 12), copies=4)
    with pytest.warns(DislabWarning) as caught:
        dislab.evaluate(
            codes=mixture(factors, 3, 0.1),
            factors=factors,
            metrics=["wren@matrices=hard2+num_train=40+num_validation=10+num_steps=1"],
            num_test=20,
        )
    said = [str(one.message) for one in caught]
    assert len(said) == 2 and "no full grid" in said[0] and "answers alone" in said[1]
