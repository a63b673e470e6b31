"""Plan, run and report a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import dislab
from dislab.data.official import is_complete
from dislab.errors import DislabError, in_one_line
from dislab.files import DPI, check_own, picture_of, write_own
from dislab.progress import say
from dislab.registry import unknown_name
from dislab.report.figures import FIGURES
from dislab.report.frame import SETTING, names_of_rows, names_of_settings
from dislab.report.leaderboard import RANK_BY, tabulate, write_leaderboard
from dislab.runs.config import RunConfig, merge
from dislab.runs.execute import execute
from dislab.runs.finished import Run
from dislab.runs.hyperparameters import TRAINING_STEPS
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.runs.resolve import Checked, check_settings, complete
from dislab.scoring.request import asked
from dislab.studies.file import Draft, Study, scaled, within
from dislab.studies.pictures import pictures_of_rows
from dislab.training.protocol import choose_protocol

MOST_PIXELS = 60_000  # of a figure's longer side; matplotlib draws up to 65,535
PICTURES = "pictures"  # the name, among a study's figures, of the pictures of its runs


def plan(study: Study, machine: Machine) -> dict[str, RunConfig]:
    """Return the configuration of every run of a study, by digest; all that it names is looked up.

    Optional runs whose official files are missing are left out. Tables may overlap: a run is planned once,
    with all scores that are asked of it.

    Raises
    ------
    DislabError : a name, a hyper-parameter, a group_by or a hold-out is wrong, or official files are missing.
    """
    kept, left_out = [], {}
    for draft, settings in check_names(study, machine):
        if draft.optional and not is_complete(settings.dataset, settings.source, machine.data_dir):
            left_out.setdefault((draft.where, settings.dataset), []).append(len(draft.seeds))
        else:
            kept.append((draft, settings))
    for (where, dataset), numbers in left_out.items():
        message = f"{where}: {sum(numbers)} run(s) left out, the official files of {dataset} are not there"
        say(message, machine.quiet)
    if not kept:
        raise DislabError(f"the study '{study.name}' has nothing to run: all of it is optional")
    firsts = {}
    # Sorted by dataset, so that each is opened once.
    for number, (draft, settings) in sorted(enumerate(kept), key=lambda one: one[1][1].dataset):
        with within(draft.where):
            firsts[number] = complete(settings, machine, lenient=True)
    seeds = (draft.seeds for draft, _ in kept)
    return merge(firsts[number].with_seed(seed) for number, of in enumerate(seeds) for seed in of)


def share_of(configs: Mapping[str, RunConfig], share: tuple[int, int]) -> dict[str, RunConfig]:
    """Return share k of n, from 1 on, of the runs of a study: every n-th in the study's order, from the k-th.

    The shares differ by at most one run, and each has its part of every model and dataset.
    """
    number, of = share
    return dict(islice(configs.items(), number - 1, None, of))


def check_names(study: Study, machine: Machine) -> list[tuple[Draft, Checked]]:
    """Look up all names of a study that need no images; return its drafts with their settings.

    Raises
    ------
    DislabError : one is unknown, or the study does not compute what its tables and figures need.
    """
    checked, metrics = [], {}
    for draft in study.drafts:
        with within(draft.where):
            settings = _at_scale(check_settings(machine=machine, **draft.settings), study.scale)
            metrics |= {one.metric.name: one for one in asked(settings.metrics).values()}
            checked.append((draft, settings))
    with within(study.name):
        _check_report(study, metrics)
    return checked


def _at_scale(settings: Checked, scale: float) -> Checked:
    """Return settings with a share of the training steps, also where hyper-parameters count them."""
    name, before = settings.protocol.name.partition("+")[0], settings.protocol
    protocol = choose_protocol(name, steps=scaled(before.steps, scale), batch_size=before.batch_size)
    values = settings.hyperparameters
    counts = {
        name: scaled(values[name], scale) for name in TRAINING_STEPS if isinstance(values.get(name), int)
    }
    return replace(settings, protocol=protocol, hyperparameters=values | counts)


def _check_report(study: Study, metrics: Mapping) -> None:
    score = study.rank_by.partition("@")[0]
    if score and not any(score == name or score.startswith(f"{name}_") for name in metrics):
        raise unknown_name("score to rank by", study.rank_by, metrics)
    needs = {name: figure.needs for name, figure in FIGURES.items()} | {PICTURES: ()}
    for name in study.figures or ():
        if name not in needs:
            raise unknown_name("figure", name, needs)
        if needs[name] and not metrics.keys() & needs[name]:
            raise DislabError(f"the figure '{name}' needs one of the metrics {', '.join(needs[name])}")


# Running and reporting it --------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyOutcome:
    """The result of a study.

    Attributes
    ----------
    runs : its finished runs, in the study's order.
    failures : a line for each run that failed, and for each figure.
    paths : the tables and figures written.
    rank_by : the score that orders the tables.
    """

    runs: list[Run]
    failures: list[str]
    paths: list[Path]
    rank_by: str


def run_study(study: Study, machine: Machine, share: tuple[int, int] = (1, 1)) -> StudyOutcome:
    """Run what is missing of a study, or of a share of it; write its tables and figures.

    leaderboard.csv, leaderboard.md and scores.csv are of all runs in the results folder; the figures are of
    all finished runs of this study, also of other shares.
    The same seed and the same number of threads give the same scores, however many runs go at a time.

    Raises
    ------
    DislabError : the study or an argument is wrong; nothing was trained. A run that fails raises nothing: it
        is among the failures of the outcome.
    """
    configs, quiet = plan(study, machine), machine.quiet
    check_own(*_paths(study, machine))
    mine = share_of(configs, share)
    part = f"{len(mine)} of " if len(mine) < len(configs) else ""
    say(f"{study.title}: {part}{len(configs)} runs", quiet)
    results = Results(machine.out)
    folder, damaged = results.folder, results.damaged
    failed = {one.digest: one.failure for one in execute(mine.values(), machine) if one.failure}
    if not mine:
        results.create()
    runs = [results.run_of(record) for record in results.lines.records(configs)]
    failures = [f"{config}: {failed[digest]}" for digest, config in configs.items() if digest in failed]
    others = len(results.lines.digests()) - len(runs)
    if others:
        say(f"{others} run(s) in '{folder}' are not of this study: the leaderboard has them, too", quiet)
    rank_by = _rank_by(study, runs, quiet)
    _write_copy(study, folder)
    paths = [write_leaderboard(results, rank_by, study.title), folder / "leaderboard.md"]
    drawn, problems = _draw_figures(study, runs, machine)
    return StudyOutcome(runs, failures + problems + damaged, paths + drawn, rank_by)


def _figures(study: Study) -> Sequence[str]:
    """Return the names of the figures that a study draws; by default all."""
    return [*FIGURES, PICTURES] if study.figures is None else study.figures


def _paths(study: Study, machine: Machine) -> list[Path]:
    """Return the files that a study writes anew each time, but for pictures of runs."""
    folder, kinds = Path(machine.out), ("csv", *machine.formats)
    figures = [folder / f"{name}.{kind}" for name in _figures(study) for kind in kinds]
    copy = [] if _is_copy(study, folder) else [folder / "study.toml"]
    tables = [folder / name for name in ("leaderboard.csv", "leaderboard.md", "scores.csv")]
    return [*tables, *copy, *figures]


def _is_copy(study: Study, folder: Path) -> bool:
    """Return whether the file that is run is itself the study.toml of the results folder."""
    path = folder / "study.toml"
    return path.exists() and path.samefile(study.path)


def _write_copy(study: Study, folder: Path) -> None:
    """Write study.toml, the study as it was run; a user's own file of that name stays as it is."""
    if _is_copy(study, folder):
        return
    seeds = f" --seeds {','.join(map(str, study.seeds))}" if study.seeds else ""
    scale = "" if study.scale == 1 else f" --scale {study.scale}"
    heading = f"# As run by dislab {dislab.__version__}: dislab bench {study.path.name}{seeds}{scale}\n"
    write_own(folder / "study.toml", (heading + study.text).encode())


def _rank_by(study: Study, runs: list[Run], quiet: bool) -> str:
    """Return the score that orders the tables: the study's, else mig where there is one, else the first."""
    scores = dict.fromkeys(name for run in runs for name in run.scores)
    if study.rank_by in scores:
        return study.rank_by
    chosen = RANK_BY if RANK_BY in scores else next(iter(scores), RANK_BY)
    if study.rank_by and scores:
        say(f"no run has the score {study.rank_by}: the tables are ranked by {chosen}", quiet)
    return chosen


def short_lines(outcome: StudyOutcome) -> list[tuple[str, ...]]:
    """Return the score that a study's tables are ranked by, a line per row, below a heading."""
    name, table = outcome.rank_by, tabulate(outcome.runs, outcome.rank_by)
    names = names_of_rows(run.config for run in outcome.runs)
    settings = names_of_settings(table[SETTING].itertuples(index=False, name=None))
    lines = [("dataset", "model", "seeds", f"{name}, mean", "std")]
    for _, line in table.iterrows():
        numbers = (line.get(f"{name}_mean"), line.get(f"{name}_std"))
        texts = (f"{number:.4f}" if number == number and number is not None else "" for number in numbers)
        lines.append((settings[tuple(line[SETTING])], names[line["row"]], line["seeds"], *texts))
    return lines


def _draw_figures(study: Study, runs: list[Run], machine: Machine) -> tuple[list[Path], list[str]]:
    """Write the study's figures and their tables; return the files, and a line for each that failed."""
    paths, problems = [], []
    for name in _figures(study):
        try:
            drawn = (_copy_pictures if name == PICTURES else _draw_figure)(name, runs, machine)
            if not drawn and study.figures is not None:
                say(f"figure {name} is left out: no run has what it shows", machine.quiet)
            paths += drawn
        except (DislabError, OSError) as error:
            problems.append(f"figure {name}: {in_one_line(error)}")
    return paths, problems


def _draw_figure(name: str, runs: list[Run], machine: Machine) -> list[Path]:
    """Write one figure of a study; return its files, none if no run has what it shows."""
    folder, table = Path(machine.out), FIGURES[name].table(runs)
    left_out = table.attrs.get("left_out")
    if left_out:
        say(f"figure {name}: {left_out}", machine.quiet)
    if table.empty:
        return []
    figure = FIGURES[name].draw(runs, table=table)[0].figure
    figure.set_dpi(min(DPI, MOST_PIXELS / max(figure.get_size_inches())))
    content = {f"{name}.{kind}": picture_of(figure, kind) for kind in machine.formats}
    content[f"{name}.csv"] = table.to_csv(index=False).encode()
    for file, written in content.items():
        write_own(folder / file, written)
    return [folder / file for file in content]


def _copy_pictures(name: str, runs: list[Run], machine: Machine) -> list[Path]:
    """Copy pictures of runs into a folder; return it and its table, or nothing if there are no pictures."""
    folder, (table, pictures) = Path(machine.out), pictures_of_rows(runs, machine.formats)
    if table.empty:
        return []
    (folder / name).mkdir(exist_ok=True)
    for file, picture in pictures.items():
        write_own(folder / name / file, picture())
    write_own(folder / f"{name}.csv", table.to_csv(index=False).encode())
    return [folder / name, folder / f"{name}.csv"]
