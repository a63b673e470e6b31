"""`dislab list`: the models, networks, datasets and metrics."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dislab.cli.options import Plugin, load_plugins
from dislab.report.names import DIRECTIONS


class Kind(StrEnum):
    models = "models"
    networks = "networks"
    datasets = "datasets"
    metrics = "metrics"


def list_command(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    plugin: Plugin = None,
) -> None:
    """List the models with their hyper-parameters, the networks, the datasets, or the metrics."""
    load_plugins(plugin)
    from dislab import registry

    entries = getattr(registry, kind.value.upper())
    describe = {"models": _describe_model, "metrics": _describe_metric}
    for entry in entries:
        print(f"{entry.name}: {entry.title}")
        if entry.reference:
            print(f"    {entry.reference}")
        if kind.value in describe:
            describe[kind.value](entry)


def _describe_model(entry) -> None:
    from dislab.runs.hyperparameters import defaults

    values = {name: value for name, value in defaults(entry.make).items() if name != "groupings"}
    if values:
        words = ", ".join(f"{name}={value}" for name, value in values.items())
        print(f"    hyper-parameters (--set NAME=VALUE): {words}")


def _describe_metric(entry) -> None:
    low, high = ("" if bound is None else f"{bound:g}" for bound in (entry.low, entry.high))
    better = DIRECTIONS[entry.direction] or "no better or worse"
    needs = f"; needs {', '.join(entry.needs)}" if entry.needs else ""
    when = " on a large table" if callable(entry.slow) else ""
    slow = f"; slow{when}: only when it is named" if entry.slow else ""
    print(f"    range {low or 'unbounded'} to {high or 'unbounded'}; {better}{needs}{slow}")
