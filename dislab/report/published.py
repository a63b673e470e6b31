"""Published numbers: what papers and repositories print, read from published.csv beside this file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

from dislab.registry import DATASETS, METRICS, unknown_name

# Names in the file, as regular expressions, and dislab's names of the same. The column steps says for how
# long a representation was trained. Abstract reasoning is a score of codes of Shapes3D.
NAMES = {
    "dataset": {"^abstract_reasoning_shapes3d$": "shapes3d"},
    "metric": {
        r"^fov_regression_r2 \(representation trained \d+ steps\)$": "fov_regression_r2",
        r"^fov_regression_r2 \((\d+) downstream samples\)$": r"fov_regression_r2_\1",
        r"^fov_regression_efficiency \(R2 at 10,000 samples .*$": "fov_regression_r2_efficiency_10000",
        r"^wren_accuracy \(representation trained \d+ steps\)$": "wren_accuracy@softtpr2024",
        r"^wren_accuracy \((\d+) samples\)$": r"wren_accuracy@softtpr2024+num_train=\1",
    },
}


def published(dataset: str | None = None, score: str | None = None) -> pd.DataFrame:
    """Return published numbers, one row per value; those of other papers were trained by other protocols.

    Columns: method, dataset, metric, value, std, n (number of seeds), supervision ("no labels", "groups" or
    "pairs"), steps (of training), source_title, source_year, table, link, protocol_note (what differs from
    dislab's protocol) and how_obtained. A cell is empty if the source does not say it.

    Parameters
    ----------
    dataset : only rows of this dataset. Variants are datasets of their own: mpi3d_toy, mpi3d_real, and
        mpi3d_variant_disputed if caption and code of a source contradict each other.
    score : only rows of this score, the column metric. A name without settings, as wren_accuracy, stands for
        rows of all settings, as wren_accuracy@softtpr2024.

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
            every, plain = _table()[column], table[column].str.partition("@")[0]
            known = {*every, *every.str.partition("@")[0]}
            if name not in known and name not in registry:
                raise unknown_name(f"{column} of published numbers", name, sorted(known))
            table = table[(table[column] == name) | (plain == name)]
    return table.reset_index(drop=True)


@cache
def _table() -> pd.DataFrame:
    numbers = {"n": "Int64", "steps": "Int64", "source_year": "Int64"}
    with files(__package__).joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=numbers)
    texts = [name for name in table if table[name].dtype.kind not in "fi"]
    return table.fillna(dict.fromkeys(texts, "")).replace(NAMES, regex=True)
