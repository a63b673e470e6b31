"""The pictures of a study's runs, side by side in one folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from dislab.report.frame import SETTING, names_of_rows, names_of_settings
from dislab.runs.finished import Run


def pictures_of_rows(
    runs: Sequence[Run], formats: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, Callable[[], bytes]]]:
    """Return the pictures that the first seed's run of every leaderboard row left in its folder.

    Parameters
    ----------
    formats : which pictures beside animations, some of `dislab.files.FORMATS`.

    Returns
    -------
    A table with the columns row, those of KEY, seed, picture. And the pictures: file name -> a function that
    returns its content.
    """
    names = names_of_rows(run.config for run in runs)
    first = {run.config.row: run for run in sorted(runs, key=lambda run: run.config.seed, reverse=True)}
    shown = [first[row] for row in names]
    settings = [tuple(run.config.key[column] for column in SETTING) for run in shown]
    setting_names = names_of_settings(settings)
    lines, files = [], {}
    for run, setting in zip(shown, settings, strict=True):
        for file in sorted(run.record["files"]):
            if not file.endswith((*formats, "gif")) or not (run.path / file).exists():
                continue
            title = f"{setting_names[setting]} {names[run.config.row]} {file}"
            name = re.sub(r"[^\w.=]+", "-", title)
            about = {"row": run.config.row} | run.config.key
            lines.append(about | {"seed": run.config.seed, "picture": name})
            files[name] = partial(run.read, file)
    return pd.DataFrame(lines), files
