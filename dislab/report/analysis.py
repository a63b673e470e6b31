"""What a study says beyond its means: which scores agree, and what explains them.

The questions are those of Locatello et al. 2019 (arXiv:1811.12359, sections 5.3 to 5.6), each answered by
counting: the paper draws models at random where this file enumerates them. All functions take a frame of one
line per trained model, see `models_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from dislab.progress import Bar
from dislab.report.frame import SETTING, applies, direction, directions, names_of_settings
from dislab.runs.finished import Run
from dislab.scoring.aggregate_posterior import kl_per_dimension
from dislab.scoring.table import CodeTable
from dislab.scoring.udr import udr

RESAMPLED = 200  # times, for an interval
UDR_ROWS = 1000  # images on which UDR compares models, as in disentanglement_lib
WHAT = ["data", "method", "configuration", "seed"]  # the columns of a model that are no scores
# What needs no factors, and so may choose a model.
UNSUPERVISED = (
    *("elbo", "elbo_reconstruction", "elbo_kl", "total_correlation", "gaussian_total_correlation"),
    *("udr_lasso", "udr_spearman"),
)
PART_TO_LOWER = "elbo_reconstruction"  # a part of the ELBO, of which less is better


def models_of(runs: Iterable[Run], scores: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a frame of trained models, of which more is better in every score.

    Parameters
    ----------
    runs : finished runs; those of baselines, which are not trained, are left out.
    scores : names of scores; by default the main score of every metric that has a direction, and those of
        `UNSUPERVISED`. A score of which less is better has its sign changed.

    Returns
    -------
    One line per run, by its row and seed: data (dataset, source, protocol and what else sets tables apart),
    method (the model), configuration (model and hyper-parameters, without the dataset), seed, and a column
    per score: NaN where a run lacks it, or where it does not say what its name says.
    """
    runs = [run for run in runs if run.config.protocol.steps]
    known = directions(run.record["metrics"] for run in runs)
    if scores is None:
        main = [name for name in known if known[name]]
        scores = [*main, *(name for name in UNSUPERVISED if name not in main)]
    settings = [tuple(run.config.key[column] for column in SETTING) for run in runs]
    names = names_of_settings(settings)
    lines = []
    for run, setting in zip(runs, settings, strict=True):
        key = run.config.key
        what = (names[setting], key["model"], f"{key['model']} {key['hyperparameters']}", run.config.seed)
        lines.append((*what, *(_score(run, name) for name in scores)))
    index = pd.MultiIndex.from_tuples([(run.row, run.config.seed) for run in runs], names=["row", "of_seed"])
    table = pd.DataFrame(lines, columns=[*WHAT, *scores], index=index if runs else None)
    table = table.drop(columns=[name for name in scores_in(table) if table[name].isna().all()])
    for name in scores_in(table):
        if direction(name, known) == "down" or name == PART_TO_LOWER:
            table[name] = -table[name]
    return table


def _score(run: Run, name: str) -> float:
    said = applies(name, run.record["blocks"])
    return run.record["scores"].get(name, np.nan) if said else np.nan


def scores_in(models: pd.DataFrame) -> list[str]:
    """Return the columns of `models_of` that are scores."""
    return [name for name in models.columns if name not in WHAT]


def with_udr(models: pd.DataFrame, runs: Iterable[Run], quiet: bool = False) -> pd.DataFrame:
    """Return the frame with UDR by both correlations, see `dislab.scoring.udr`, NaN where it has no meaning.

    The seeds of a configuration are compared on 1,000 of the rows that they scored. Models without
    log-variances, a single seed, and runs whose folder is gone have no UDR.
    """
    of_row: dict[str, list[Run]] = {}
    for run in runs:
        if (run.row, run.config.seed) in models.index and run.path.is_dir():
            of_row.setdefault(run.row, []).append(run)
    several = [seeds for seeds in of_row.values() if len(seeds) > 1]
    found = pd.DataFrame(np.nan, index=models.index, columns=["udr_lasso", "udr_spearman"])
    with Bar("udr", len(several), quiet=quiet) as bar:
        for done, seeds in enumerate(several, start=1):
            tables = [run.codes for run in seeds]
            if all(table.logvar is not None for table in tables):
                index = [(run.row, run.config.seed) for run in seeds]
                found.loc[index] = _udr_of(tables)
            bar.update(done)
    return models.join(found.dropna(axis=1, how="all"))


def _udr_of(tables: Sequence[CodeTable]) -> np.ndarray:
    """Return UDR [M, 2] of M models by the code tables of the same rows."""
    rows = np.linspace(0, len(tables[0]) - 1, min(UDR_ROWS, len(tables[0]))).astype(int)
    codes = np.stack([table.mean[rows] for table in tables])
    kl = np.stack([kl_per_dimension(table) for table in tables])
    return np.stack([udr(codes, kl, "lasso"), udr(codes, kl, "spearman")], axis=1)


def comparable(models: pd.DataFrame) -> pd.DataFrame:
    """Return the models of the data sets that have at least three models of at least two configurations.

    Two models agree or do not, and a single configuration explains nothing. `attrs` of the frame has
    "left_out", a line that names the other data sets, if there are any.
    """
    groups = models.groupby("data", sort=False)["configuration"].agg(["size", "nunique"])
    few = groups.index[(groups["size"] < 3) | (groups["nunique"] < 2)]
    kept = models[~models["data"].isin(few)]
    if len(few):
        kept.attrs["left_out"] = (
            f"left out, because they have few models or one configuration: {'; '.join(few)}"
        )
    return kept


# Which scores agree? -------------------------------------------------------------------------------


def rank_correlation(models: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation of each two scores over all models of a data set (section 5.4, figure 2).

    Returns
    -------
    Columns data, score, other, spearman (NaN where a score is constant), n (models that have both). The data
    set "mean" has the mean over the data sets. Data sets of too few models are left out, see `comparable`.
    """
    models, lines = comparable(models), []
    for data, here in models.groupby("data", sort=False):
        for score, other in product(scores_in(models), repeat=2):
            both = here[list(dict.fromkeys([score, other]))].dropna()
            lines.append((data, score, other, _spearman(both[score], both[other]), len(both)))
    table = pd.DataFrame(lines, columns=["data", "score", "other", "spearman", "n"])
    groups = table.groupby(["score", "other"], sort=False)
    mean = groups.agg(spearman=("spearman", "mean"), n=("n", "sum")).reset_index()
    table = pd.concat([table, mean.assign(data="mean")], ignore_index=True)
    table.attrs = models.attrs
    return table


def data_correlation(models: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation of configurations' mean scores between two data sets (figure 5 there).

    Returns
    -------
    Columns score, data, other, spearman, n (configurations that both have).
    """
    lines = []
    for score in scores_in(models):
        means = models.pivot_table(score, "configuration", "data", sort=False)
        for data, other in product(means.columns, repeat=2):
            both = means[[data, other]].dropna() if data != other else means[[data]].dropna()
            lines.append((score, data, other, _spearman(both[data], both[other]), len(both)))
    return pd.DataFrame(lines, columns=["score", "data", "other", "spearman", "n"])


def seed_correlation(models: pd.DataFrame) -> pd.DataFrame:
    """Return how stable the order of configurations is: Spearman's correlation between two seeds.

    Configurations that lack a seed are left out.

    Returns
    -------
    Columns data, score, spearman (mean over pairs of seeds), least (the lowest pair), pairs, n
    (configurations).
    """
    from scipy.stats import rankdata

    lines = []
    for (data, here), score in product(models.groupby("data", sort=False), scores_in(models)):
        seeds = here.pivot_table(score, "configuration", "seed", sort=False).dropna()
        ranks = rankdata(seeds, axis=0)
        if len(seeds) > 1 and seeds.shape[1] > 1 and ranks.std(axis=0).all():
            values = np.corrcoef(ranks.T)[np.triu_indices(seeds.shape[1], 1)]
            lines.append((data, score, values.mean(), values.min(), len(values), len(seeds)))
    return pd.DataFrame(lines, columns=["data", "score", "spearman", "least", "pairs", "n"])


def _spearman(one: pd.Series, other: pd.Series) -> float:
    """Return Spearman's correlation, NaN if either is constant or there is a single value."""
    from scipy.stats import rankdata

    ranks = np.array([rankdata(one), rankdata(other)])
    if ranks.shape[1] < 2 or not ranks.std(axis=1).all():
        return np.nan
    return float(np.corrcoef(ranks)[0, 1])


# What explains a score? ----------------------------------------------------------------------------


def variance_explained(models: pd.DataFrame, resampled: int = RESAMPLED) -> pd.DataFrame:
    """Return the share of a score's variance that the method, and method and strength together, explain.

    It is R² of a regression on dummies (section 5.3): the variance of the groups' means over that of all
    models. What method and strength leave is that of the seed.

    Parameters
    ----------
    models : see `models_of`.
    resampled : how often the seeds of each configuration are drawn again, with replacement. The interval is
        the basic bootstrap's, which corrects the bias of few seeds.

    Returns
    -------
    Columns data, score, by ("method" or "configuration", which is method and strength), share, low, high
    (95 % interval), adjusted (R² without what as many random dummies explain), groups, n. Data sets of too
    few models are left out, see `comparable`.
    """
    models, lines = comparable(models), []
    for (data, here), score in product(models.groupby("data", sort=False), scores_in(models)):
        values = here.dropna(subset=[score])
        if len(values) < 2 or values[score].std() == 0:
            continue
        cells = [cell[score].to_numpy() for _, cell in values.groupby("configuration", sort=False)]
        methods = pd.factorize(values.groupby("configuration", sort=False)["method"].first())[0]
        random = np.random.default_rng(0)
        drawn = [[random.choice(cell, len(cell)) for cell in cells] for _ in range(resampled)]
        for by, groups in (("method", methods), ("configuration", np.arange(len(cells)))):
            share, number = _r2(cells, groups), groups.max() + 1
            low, high = 2 * share - np.quantile([_r2(again, groups) for again in drawn], [0.975, 0.025])
            free = len(values) - number
            adjusted = 1 - (1 - share) * (len(values) - 1) / free if free else np.nan
            interval = (max(low, 0.0), min(high, 1.0)) if len(values) > len(cells) else (np.nan, np.nan)
            lines.append((data, score, by, share, *interval, adjusted, number, len(values)))
    columns = ["data", "score", "by", "share", "low", "high", "adjusted", "groups", "n"]
    table = pd.DataFrame(lines, columns=columns)
    table.attrs = models.attrs
    return table


def _r2(cells: Sequence[np.ndarray], groups: np.ndarray) -> float:
    """Return the share of the values' variance that lies between groups, those of each cell."""
    values, group = np.concatenate(cells), np.repeat(groups, [len(cell) for cell in cells])
    sizes = np.bincount(group)
    means = np.bincount(group, values) / sizes
    deviation = values - values.mean()
    total = deviation @ deviation
    return float(sizes @ (means - values.mean()) ** 2 / total) if total > 0 else np.nan


# Does a choice carry over? -------------------------------------------------------------------------

SAME_OR_OTHER = ["same data, same score", "other data, same score", "same data, other score", "other of both"]


def chance_to_beat(models: pd.DataFrame) -> pd.DataFrame:
    """Return the chance that a chosen configuration beats a random model (section 5.6, table 1).

    The configuration that is best with one seed, on one data set by one score, is trained with another seed,
    and compared with every model of the data set that it is trained on. Ties count half. A half is no better
    than a random choice.

    Returns
    -------
    Columns which (see `SAME_OR_OTHER`), chance (mean over data sets, scores and seeds), n (values of which it
    is the mean). Without a second data set or score, what needs one is left out.
    """
    configurations, seeds = models["configuration"].unique(), models["seed"].unique()
    tables = {}  # (data, score) -> values [configurations, seeds], NaN where there is none
    for data, here in models.groupby("data", sort=False):
        for score in scores_in(models):
            values = here.pivot_table(score, "configuration", "seed", sort=False)
            if values.size > 1:
                tables[data, score] = values.reindex(index=configurations, columns=seeds).to_numpy()
    chances = {which: _chances(values) for which, values in tables.items()}
    found: dict[str, list] = {which: [] for which in SAME_OR_OTHER}
    for (one, chosen_by), (other, score) in product(tables, repeat=2):
        which = SAME_OR_OTHER[(one != other) + 2 * (chosen_by != score)]
        found[which] += [_retrained(tables[one, chosen_by], chances[other, score])]
    joined = {which: np.concatenate(parts) for which, parts in found.items() if parts}
    lines = [(which, values.mean(), len(values)) for which, values in joined.items() if len(values)]
    return pd.DataFrame(lines, columns=["which", "chance", "n"])


def _chances(values: np.ndarray) -> np.ndarray:
    """Return the chance of each model to beat a random one of them all, itself among them."""
    from scipy.stats import rankdata

    known = ~np.isnan(values)
    chances = np.full(values.shape, np.nan)
    chances[known] = (rankdata(values[known]) - 0.5) / known.sum()
    return chances


def _retrained(values: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Return, for each seed that chooses, the mean chance of the chosen configuration with other seeds.

    Of several that are best the first is chosen, of those that are trained on both data sets.

    Parameters
    ----------
    values : of the score that chooses, [configurations, seeds], NaN where there is none.
    chances : see `_chances`, where the chosen configuration is trained again.
    """
    trained = np.isfinite(chances)
    usable = np.where(trained.any(axis=1, keepdims=True) & np.isfinite(values), values, -np.inf)
    best = usable.argmax(axis=0)
    again = np.where(trained, chances, 0)[best]  # [seeds that choose, seeds]
    others = trained[best] & ~np.eye(len(best), dtype=bool)
    chosen = (others.sum(axis=1) > 0) & np.isfinite(usable.max(axis=0))
    return ((again * others).sum(axis=1) / np.maximum(others.sum(axis=1), 1))[chosen]


# Can a model be chosen without factors? ------------------------------------------------------------


def selection(models: pd.DataFrame) -> pd.DataFrame:
    """Return what a model is worth that a score without factors chooses, beside a random one and the best.

    Returns
    -------
    Columns data, chosen_by, score, chosen (the score of the chosen model), random (mean over all models),
    best, chance (that the chosen model beats a random one), spearman (of both scores over models), n.
    """
    choosing = [name for name in scores_in(models) if name in UNSUPERVISED]
    judging = [name for name in scores_in(models) if name not in UNSUPERVISED]
    lines = []
    for data, here in models.groupby("data", sort=False):
        for chosen_by, score in product(choosing, judging):
            both = here[[chosen_by, score]].dropna()
            if len(both) < 2:
                continue
            chosen = both[score][both[chosen_by] == both[chosen_by].max()].mean()
            chance = (both[score] < chosen).mean() + (both[score] == chosen).mean() / 2
            spearman = _spearman(both[chosen_by], both[score])
            means = (chosen, both[score].mean(), both[score].max())
            lines.append((data, chosen_by, score, *means, chance, spearman, len(both)))
    columns = ["data", "chosen_by", "score", "chosen", "random", "best", "chance", "spearman", "n"]
    return pd.DataFrame(lines, columns=columns)


ANALYSES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "rank_correlation": rank_correlation,
    "data_correlation": data_correlation,
    "seed_correlation": seed_correlation,
    "variance_explained": variance_explained,
    "chance_to_beat": chance_to_beat,
    "selection": selection,
}
