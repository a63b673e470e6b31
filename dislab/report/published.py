"""Published numbers: what papers and repositories print, read from published.csv beside this file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

from dislab.registry import DATASETS, METRICS, unknown_name


def published(dataset: str | None = None, score: str | None = None) -> pd.DataFrame:
    """Return published numbers, one row per value; those of other papers were trained by other protocols.

    Columns: method, dataset, metric, value, std, n (number of seeds), supervision ("no labels", "groups" or
    "pairs"), steps (of training), source_title, source_year, table, link, protocol_note (what differs from
    dislab's protocol) and how_obtained. A cell is empty if the source does not say it.

    Parameters
    ----------
    dataset : only rows of this dataset. Variants are datasets of their own: mpi3d_toy, mpi3d_real, and
        mpi3d_variant_disputed if caption and code of a source contradict each other.
    score : only rows of this score, the column metric.

    Raises
    ------
    DislabError : the dataset or the score is neither published here nor registered.

    Examples
    --------
    >>> import dislab
    >>> table = dislab.published(dataset="shapes3d", score="mig")
    >>> set(table["dataset"]), set(table["metric"])
    ({'shapes3d'}, {'mig'})
    """
    table = _table()
    for column, name, registry in (("dataset", dataset, DATASETS), ("metric", score, METRICS)):
        if name is not None:
            known = set(_table()[column])
            if name not in known and name not in registry:
                raise unknown_name(f"{column} of published numbers", name, sorted(known))
            table = table[table[column] == name]
    return table.reset_index(drop=True)


@cache
def _table() -> pd.DataFrame:
    numbers = {"n": "Int64", "steps": "Int64", "source_year": "Int64"}
    with files(__package__).joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=numbers)
    texts = [name for name in table if table[name].dtype.kind not in "fi"]
    return table.fillna(dict.fromkeys(texts, ""))
