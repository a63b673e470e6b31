"""An analysis in words, and its files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dislab.errors import DislabError
from dislab.files import check_own, write_own
from dislab.report.analysis import ANALYSES, models_of, scores_in, with_udr
from dislab.runs.finished import Run

HEADING = "<!-- made by dislab -->\n# Analysis of {folder}\n\n"


def write_analysis(runs: list[Run], out: Path, title: str, scores: list[str] | None = None) -> list[str]:
    """Write the tables of an analysis as CSV files, and analysis.md; return the lines of its summary.

    Parameters
    ----------
    runs : finished runs.
    out : folder of the files, which is made.
    title : what was analysed.
    scores : names of scores; by default see `dislab.report.analysis.models_of`.

    Raises
    ------
    DislabError : fewer than two trained models have these scores, or a file there is none of dislab's.
    """
    models = models_of(runs, scores)
    if len(models) < 2 or not scores_in(models):
        raise DislabError(f"an analysis needs two trained models with scores: {title} has {len(models)}")
    paths = {name: out / f"{name}.csv" for name in ANALYSES}
    check_own(*paths.values(), out / "analysis.md")
    models = models if scores else with_udr(models, runs)
    tables = {name: analyse(models) for name, analyse in ANALYSES.items()}
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_own(paths[name], table.to_csv(index=False).encode())
    lines = summary(models, tables)
    text = HEADING.format(folder=title) + "".join(f"- {line}\n" for line in lines)
    write_own(out / "analysis.md", text.encode())
    return lines


def summary(models: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return what an analysis says, a line each."""
    data = models["data"].nunique()
    lines = [
        f"{len(models)} models: {models['method'].nunique()} methods, {models['configuration'].nunique()} "
        f"configurations, {models['seed'].nunique()} seeds, {data} data set{'s' * (data > 1)}"
    ]
    shares = tables["variance_explained"]
    lines += [f"what explains a score, and which agree: {line}" for line in shares.attrs.values()]
    if len(shares):
        means = shares.groupby("by")["share"].mean()
        lines.append(
            f"the method explains {means['method']:.0%} of a score's variance, method and strength "
            f"{means['configuration']:.0%}, the seed the rest (mean over scores and data sets)"
        )
    ranks = tables["rank_correlation"].query("data == 'mean' and score < other").dropna()
    if len(ranks):
        for words, row in (
            ("agree most", ranks.loc[ranks["spearman"].idxmax()]),
            ("agree least", ranks.loc[ranks["spearman"].idxmin()]),
        ):
            lines.append(f"{row['score']} and {row['other']} {words}: Spearman {row['spearman']:.2f}")
    seeds = tables["seed_correlation"]
    if len(seeds):
        lines.append(
            f"the order of configurations with one seed and with another: Spearman "
            f"{seeds['spearman'].mean():.2f}, mean over scores"
        )
    for _, row in tables["chance_to_beat"].iterrows():
        lines.append(f"a chosen configuration beats a random model, {row['which']}: {row['chance']:.1%}")
    chosen = tables["selection"].groupby("chosen_by", sort=False)[["chance", "spearman"]].mean()
    for name, row in chosen.iterrows():
        lines.append(
            f"the model chosen by {name} beats a random one in {row['chance']:.0%} of the other scores; "
            f"Spearman with them {row['spearman']:.2f}"
        )
    return lines
