"""What can be known of the scores of a run before its model is trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch

from dislab.data.dataset import Dataset
from dislab.errors import DislabError
from dislab.progress import say
from dislab.registry import NEEDS
from dislab.scoring.encoding import choose_rows, encode, first_codes
from dislab.scoring.request import asked
from dislab.scoring.score import lacks
from dislab.scoring.swaps import can_swap
from dislab.scoring.table import CodeTable


def check_scores(
    metrics: Iterable[str],
    given: Collection[str],
    dataset: Dataset,
    group_by: Sequence[Sequence[str]],
    max_rows: int | None,
    quiet: bool,
    lenient: bool = False,
) -> None:
    """Say which scores will be left out of a run, or raise if the run is not worth its training.

    Of the scores that are not named, only the content and style scores are said.

    Parameters
    ----------
    metrics : the request, see `dislab.scoring.request`.
    given : what the model gives, see `given_by`.
    dataset, group_by, max_rows : which rows are scored, and by which groupings.
    quiet : say nothing.
    lenient : a metric that is named and does not apply is said, not refused.

    Raises
    ------
    DislabError : a metric that is named does not apply, no metric does, or the factors do not vary in the
        rows that a user held out.
    """
    wanted = asked(metrics)
    rows = choose_rows(dataset, max_rows)
    table = _table_to_come(given, dataset, rows, group_by)
    lacking = {name: why for name, one in wanted.items() if (why := lacks(table, one))}
    split = f" (hold-out '{dataset.split}')" if dataset.split else ""
    where = f"the {len(rows):,} rows that are scored{split}"
    for name, why in lacking.items():
        if wanted[name].is_named and not lenient:
            raise DislabError(f"{name} cannot be computed for {dataset.name}: {why}, in {where}")
    if dataset.split and NEEDS["factor"] in lacking.values():
        raise DislabError(
            f"no factor varies in {where}: hold out more, or name scores that need no factor (--metrics)"
        )
    if lacking and len(lacking) == len(wanted):
        reasons = "; ".join(dict.fromkeys(lacking.values()))
        raise DislabError(f"no score can be computed for {dataset.name}: {reasons}")
    said: dict[str, list[str]] = {}
    for name, why in lacking.items():
        if wanted[name].is_named or why == NEEDS["groups"]:
            said.setdefault(why, []).append(name)
    for why, names in said.items():
        say(f"{', '.join(names)} will be left out for {dataset.name}: {why}, in {where}", quiet)


def given_by(model: torch.nn.Module, dataset: Dataset) -> tuple[str, ...]:
    """Return what an untrained model gives for its scores beside codes, of NEEDS.

    The model is in evaluation mode, where the images are.
    """
    try:
        has_variances = first_codes(model, dataset, dataset.evaluation_rows())[1] is not None
    except DislabError:  # such as of a model that must be fitted first
        has_variances = True
    gives = {
        "variances": has_variances,
        "reconstruction": model.reconstruction is not None,
        "swaps": can_swap(model),
    }
    return tuple(name for name, is_given in gives.items() if is_given)


def _table_to_come(given: Collection[str], dataset: Dataset, rows: np.ndarray, group_by) -> CodeTable:
    """Return the code table of a run but for its codes, which are zeros."""

    def zeros(inputs):
        codes = torch.zeros(len(inputs), 1)
        return (codes, codes) if "variances" in given else codes

    table = encode(zeros, dataset, rows, group_by=group_by, by_row=True, on_demand=True)
    if "reconstruction" in given:
        table.reconstruction = np.zeros(1, np.float32)
    if "swaps" in given:
        table.swaps = np.zeros((1, 5), np.int64)
    return table
