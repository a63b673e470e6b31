"""What can be known of the scores of a run before its model is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    model: torch.nn.Module,
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
    model : the untrained model, in evaluation mode, where the images are.
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
    table = _table_to_come(model, dataset, rows, group_by)
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


def _table_to_come(model, dataset: Dataset, rows: np.ndarray, group_by) -> CodeTable:
    """Return the code table of a run but for its codes, which are zeros."""
    try:
        has_variances = first_codes(model, dataset, rows)[1] is not None
    except DislabError:  # such as of a model that must be fitted first
        has_variances = True

    def zeros(inputs):
        codes = torch.zeros(len(inputs), 1)
        return (codes, codes) if has_variances else codes

    table = encode(zeros, dataset, rows, group_by=group_by, by_row=True, on_demand=True)
    if model.reconstruction is not None:
        table.reconstruction = np.zeros(1, np.float32)
    if can_swap(model):
        table.swaps = np.zeros((1, 5), np.int64)
    return table
