"""Whatever code of a user's does, a run ends in one line, and what is computed is kept."""

from pathlib import Path

import numpy as np
import pytest

import dislab
from dislab.cli import main
from dislab.errors import DislabError
from dislab.registry import load_plugin

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


@pytest.fixture
def folder(tmp_path, monkeypatch, isolated, no_pictures):
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_code_that_calls_exit_is_said(folder, tiny_dataset):
    Path("nets.py").write_text("import sys\n\n\ndef leaves(*sizes, **more):\n    sys.exit(0)\n")
    with pytest.raises(DislabError, match=r"SystemExit: 0 \(.*nets.py, line 5\)"):
        dislab.run("vae", tiny_dataset, network="nets.py:leaves")

    def leaves(images):
        raise SystemExit(0)

    with pytest.raises(DislabError, match="the encoder failed: SystemExit: 0"):
        dislab.evaluate(leaves, dataset=tiny_dataset)

    @dislab.register_dataset("leaving")
    def leaving(source, data_dir, device):
        raise SystemExit(0)

    with pytest.raises(DislabError, match="'leaving' cannot be opened: SystemExit: 0"):
        dislab.load_dataset("leaving")


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
    import torch
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
