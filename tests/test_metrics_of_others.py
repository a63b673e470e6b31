"""Whatever a user's metric returns or changes, it fails alone, and every other score is as without it."""

import copy
import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from every_metric import SMALL, short_training  # noqa: F401
from metric_tables import full_table, grid, mixture

import dislab
from dislab.cli import main
from dislab.errors import DislabError
from dislab.kept import kept
from dislab.registry import METRICS, load_plugin
from dislab.scoring.score import score
from dislab.scoring.table import CodesOnDemand

METRIC = """
import sys
import numpy as np
import dislab


@dislab.register_metric("odd")
def odd(table, rng):
    {}
"""
RETURNS = [
    "return 10**400",
    "return 1j",
    "return None",
    "return 'high'",
    "return {'odd': 1.0, 'odd_list': [{1}]}",
    "return {'odd': 1.0, 'odd_list': np.array([object()])}",
    "return {3: 1.0}",
    "return {'odd': float('inf')}",
    "sys.exit(0)",
    "raise dislab.DislabError('first\\nsecond')",
    "raise ValueError('first\\nsecond')",
]


@pytest.mark.parametrize("body", RETURNS)
def test_a_metric_that_returns_nonsense_fails_alone(folder, tiny_dataset, body, capsys):
    Path("odd.py").write_text(METRIC.format(body))
    load_plugin("odd.py")
    with pytest.raises(DislabError) as error:
        dislab.run("oracle", tiny_dataset, metrics=["mig", "odd"])
    text = str(error.value)
    assert "metric 'odd' failed" in text and "\n" not in text
    assert "odd.py, line" in text or "first second" in text
    [run] = dislab.runs_in("results")
    assert set(run.scores) == {"mig"}
    np.savez("codes.npz", codes=run.codes.mean, factors=run.codes.factors)
    assert main(["evaluate", "codes.npz", "--metrics", "odd", "--plugin", "odd.py"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_json_can_hold_is_kept(folder, tiny_dataset):
    values = "[np.float32(1), None, [np.int64(2), True], np.ones(2)]"
    Path("odd.py").write_text(METRIC.format(f"return {{'odd': np.ones(()), 'odd_list': {values}, 3: 1}}"))
    load_plugin("odd.py")
    run = dislab.run("oracle", tiny_dataset, metrics=["odd"])
    assert dict(run.scores) == {"odd": 1.0}
    assert run.scores.details == {"odd_list": [1.0, None, [2, True], [1.0, 1.0]]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a@b"}, "metric name 'a@b': write letters, digits, _ and -"),
        ({"name": "default"}, "metric name 'default'"),
        ({"name": 5}, "metric name 5"),
        ({"name": "mine", "low": "a"}, "low is 'a', high None: each must be a number"),
        ({"name": "mine", "group": "mig"}, "its group 'mig' is the name of a metric"),
    ],
)
def test_what_cannot_be_registered(isolated, options, message):
    with pytest.raises(DislabError, match=message):
        dislab.register_metric(**options)(lambda table, rng: 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": 5}, "metrics is 5: it must be names"),
        ({"metrics": [None]}, r"metrics is \[None\]: it must be names"),
        ({"metrics": [""]}, "unknown metric ''"),
        ({"metric_protocol": None}, "metric protocol None: choose locatello2019"),
        ({"metric_settings": "sap"}, "metric_settings is 'sap': it must map names to settings"),
    ],
)
def test_wrong_arguments_of_evaluate_are_one_line(arguments, message):
    with pytest.raises(DislabError, match=message):
        dislab.evaluate(codes=np.eye(4), factors=np.arange(4), **arguments)


@pytest.mark.parametrize("max_rows", [-1, 0, 1.5, "a"])
def test_wrong_numbers_of_rows_are_one_line(tiny_dataset, max_rows):
    with pytest.raises(DislabError, match=f"max_rows is {max_rows!r}: it must be a whole number"):
        dislab.evaluate(lambda images: images.flatten(1), dataset=tiny_dataset, max_rows=max_rows)


def test_a_module_can_be_trained_on_after_it_was_scored(tiny_dataset):
    from torch import nn

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.grid = nn.Linear(256, 2), None

        def forward(self, images):
            if self.grid is None:
                self.grid = torch.linspace(0, 1, 256)
            return self.layer(images.flatten(1) * self.grid)

    module = Keeps()
    dislab.evaluate(module, dataset=tiny_dataset, metrics=["mig"])
    module(torch.rand(2, 1, 16, 16)).sum().backward()
    assert module.layer.weight.grad is not None


def test_an_edited_cell_of_a_notebook_replaces_its_metric(isolated):
    names = []
    for cell in ("<cell 1>", "<cell 2>"):
        source = "@dislab.register_metric('mine')\ndef mine(table, rng):\n    return 1\n"
        exec(compile(source, cell, "exec"), {"dislab": dislab, "__name__": "__main__"})
        names.append(cell)
    assert dislab.evaluate(codes=np.eye(4), factors=np.arange(4), metrics=["mine"]) == {"mine": 1}


CHANGES = {  # of what a metric is given, by ways that numpy does not refuse, or of the whole process
    "table.mean = table.mean * 0",
    "table.factors = table.factors[::-1]; table.sharing(rng, 0, np.arange(3))",
    "table.blocks['content'] = slice(0, 1)",
    "del table.labels",
    "table.mean.setflags(write=True); table.mean[:] = 0",
    "torch.from_numpy(np.asarray(table.mean)).zero_()",
    "table.sharing(rng, 0, np.arange(5)); table._sorted[0][0][:] = 0",
    "np.random.seed(0); torch.manual_seed(0); random.seed(0)",
    "np.seterr(all='raise'); warnings.simplefilter('error')",
    "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_num_threads(2)",
    "os.chdir('/'); os.environ['DISLAB_DATA'] = 'other'",
    "sys.stdout = sys.stderr = None; sys.setrecursionlimit(900)",
}
WRITES = (
    "table.mean[0] = 0",
    "table.mean *= 2",
    "table.mean.sort(axis=0)",
    "np.add(table.logvar, 1, out=table.logvar)",
    "rng.shuffle(table.labels)",
    "table.factors[:, 0] = 0",
    "table.reconstruction.fill(0)",
    "codes = table.mean[:]\n    codes -= codes.mean(axis=0)",
)
CHANGER = "import os, random, warnings\nimport torch" + METRIC


def settings() -> list:
    """What code of others may change in this process."""
    states = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate()
    torch_s = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    process = os.getcwd(), dict(os.environ), sys.stdout, sys.stderr, sys.getrecursionlimit()  # noqa: PTH109
    return [states, torch_s, process, np.geterr(), list(warnings.filters)]


def tables() -> dict:
    """Code tables with all that a metric may read: of arrays, and of rows that are encoded on demand."""
    factors = grid((4, 3, 5), copies=5)
    codes = mixture(factors, 4, 0.1)
    table = full_table(codes, factors, full_grid=True, blocks={"content": slice(0, 2), "style": slice(2, 4)})
    other = copy.copy(table)
    other.mean, other.logvar = (CodesOnDemand(array, lambda rows: None) for array in (codes, table.logvar))
    return {"arrays": table, "on demand": other}


def content(table) -> list:
    return [np.asarray(value).tolist() for value in vars(table).values() if hasattr(value, "shape")]


@pytest.mark.parametrize("kind", ["arrays", "on demand"])
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_metric_changes_no_score_after_it(folder, kind, change):
    Path("odd.py").write_text(CHANGER.format(change + "\n    return 1.0"))
    load_plugin("odd.py")
    table = tables()[kind]
    names, before, around = ["mig", "betavae_score"], content(table), settings()
    settings_ = {"num_train": 200, "num_test": 100}
    alone = score(table, names, **settings_)
    together = score(table, ["odd", *names], **settings_)
    assert {name: together[name] for name in alone} == alone
    assert not together.failed or "read-only" in together.failed["odd"]
    assert content(table) == before and list(table.blocks) == ["content", "style"]
    assert settings() == around


@pytest.mark.parametrize("kind", ["arrays", "on demand"])
@pytest.mark.parametrize("write", WRITES)
def test_a_metric_that_writes_to_what_it_is_given_fails_alone(folder, kind, write):
    Path("odd.py").write_text(CHANGER.format(write + "\n    return 1.0"))
    load_plugin("odd.py")
    table = tables()[kind]
    before, alone = content(table), score(table, ["mig"])
    scores = score(table, ["odd", "mig"])
    if scores.failed:
        line = scores.failed["odd"]
        assert "odd.py, line" in line and "is read-only, copy it first" in line and "\n" not in line
    assert scores.failed or kind == "on demand"
    assert scores["mig"] == alone["mig"] and content(table) == before


def test_no_score_of_dislab_depends_on_the_global_random_state(isolated):
    table, scores = tables()["arrays"], []
    names = [entry.name for entry in METRICS if METRICS.is_built_in(entry.name)]
    for seed in (0, 1):
        with kept():
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            scores.append(score(table, names, **SMALL))
    assert scores[0] == scores[1] and len(scores[0]) > 40 and not scores[0].failed
