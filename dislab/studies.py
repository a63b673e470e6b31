"""Studies: which models x datasets x hyper-parameters x seeds x metrics, run and reported as a whole.

A study is a TOML file: one shipped in benchmarks/, known by its name, or a user's own.

    title = "How beta trades reconstruction for disentanglement"
    protocol = "quick"                  # steps, batch_size, precision, metrics, …: as for `dislab run`
    seeds = [0, 1, 2]
    rank_by = "mig"
    figures = ["scores_by_model"]       # names of FIGURES; by default all

    [[runs]]                            # may be repeated, with protocol, steps, … of its own
    model = ["betavae", "betatcvae"]
    dataset = "shapes3d"                # a list of datasets is run one after the other
    group_by = ["object_hue"]           # group_by, hold_out, source: as for `dislab.run`
    optional = true                     # left out with a line where its official files are missing
    set = { beta = [1, 4, 16] }         # a list is swept; of several lists, all combinations

The study is checked as a whole before anything trains. Its state is that of its run folders: what is finished
is not done again, and what was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import heapq
import importlib.resources
import itertools
import json
import shlex
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

import dislab
from dislab.data import official as files
from dislab.data.dataset import Dataset
from dislab.data.devices import choose_device
from dislab.data.hold_out import hold_out
from dislab.data.own import is_folder_text
from dislab.errors import DislabError, RunFailed
from dislab.files import save_figure, write_atomically
from dislab.progress import Bar, clock, say
from dislab.registry import DATASETS, METRICS, MODELS, Entry, unknown_name
from dislab.report import leaderboard
from dislab.report.figures import FIGURES, SETTING, names_of_rows, names_of_settings, rows_of
from dislab.runs import hyperparameters as hyper
from dislab.runs import run as runs
from dislab.runs import workers
from dislab.runs.run import Run
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL, metric_settings, protocol_used, recorded_name
from dislab.training.protocol import Protocol, choose_protocol

# What a run's configuration has that tells it from every other run.
IDENTITY = ("dataset", "source", "protocol", "model", "hyperparameters", "group_by", "hold_out", "seed")
MOST_PIXELS = 60_000  # of a figure's longer side; matplotlib draws up to 65,535


def _is_text(value) -> bool:
    return isinstance(value, str) and value != ""


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value, is_item: Callable) -> bool:
    return isinstance(value, list) and value != [] and all(map(is_item, value))


def _is_name_or_names(value) -> bool:
    return _is_text(value) or _is_list(value, _is_text)


def _is_seeds(value) -> bool:
    return _is_list(value, lambda seed: _is_whole(seed) and 0 <= seed < 2**63)


def _is_groupings(value) -> bool:
    return _is_name_or_names(value) or _is_list(value, lambda names: _is_list(names, _is_text))


def _is_settings(value) -> bool:
    def is_value(item) -> bool:
        return isinstance(item, (str, int, float)) or _is_list(
            item, lambda one: isinstance(one, (str, int, float))
        )

    return isinstance(value, dict) and all(map(is_value, value.values()))


# The keys of a study file: what a value must be, and the words for it.
TEXT, NAMES = (_is_text, "a text"), (lambda value: _is_list(value, _is_text), "a list of names")
NAME_OR_NAMES = (_is_name_or_names, "a name or a list of names")
TRAINING = {  # in the study, or in one of its tables
    "protocol": TEXT,
    "steps": (_is_whole, "a whole number"),
    "batch_size": (_is_whole, "a whole number"),
    "precision": TEXT,
    "seeds": (_is_seeds, "a list of whole numbers, 0 or more, such as [0, 1, 2]"),
    "metrics": NAMES,
    "metric_protocol": TEXT,
}
STUDY_KEYS = TRAINING | {
    "title": TEXT,
    "rank_by": TEXT,
    "figures": (lambda value: value == [] or _is_list(value, _is_text), "a list of names"),
    "runs": (lambda value: _is_list(value, lambda table: isinstance(table, dict)), "tables [[runs]]"),
}
TABLE_KEYS = TRAINING | {
    "model": NAME_OR_NAMES,
    "dataset": NAME_OR_NAMES,
    "group_by": (
        _is_groupings,
        'a factor, a list of factors, or a list of such lists, such as [["a"], ["b"]]',
    ),
    "hold_out": (_is_name_or_names, "a text or a list of texts"),
    "source": TEXT,
    "optional": (lambda value: isinstance(value, bool), "true or false"),
    "set": (_is_settings, "hyper-parameters, such as { beta = [1, 4], latents = 10 }"),
}


@dataclass(frozen=True)
class Planned:
    """One run of a study.

    Attributes
    ----------
    where : its table in the study file, for messages.
    model, dataset, source, seed : as for `dislab.run`.
    options : the other arguments of `dislab.run`.
    given : the hyper-parameters that the study sets.
    optional : whether it is left out where official files are missing.
    identity : what its run.json will say of it, see `identity_of`; "" before it is checked.
    """

    where: str
    model: str
    dataset: str
    source: str
    seed: int
    options: Mapping[str, object]
    given: Mapping[str, object]
    optional: bool
    identity: str = ""

    def __str__(self) -> str:
        parts = [f"{self.model} on {self.dataset}"]
        parts += [f"without {text}" for text in _listed(self.options.get("hold_out", []))]
        parts += [f"{name}={value}" for name, value in self.given.items()]
        return ", ".join([*parts, f"seed {self.seed}"])

    @property
    def kind(self) -> tuple:
        """What decides how long a run takes, what matters most first."""
        return (MODELS[self.model].make.batch != "none", self.model, self.dataset)


@dataclass(frozen=True)
class Study:
    """A study as its file has it.

    Attributes
    ----------
    name : the name of its file, without .toml.
    title : one line.
    text : the content of its file.
    planned : its runs, in their order.
    rank_by : the score that orders its tables, "" where the file does not say.
    figures : names of FIGURES, None where the file does not say.
    """

    name: str
    title: str
    text: str
    planned: tuple[Planned, ...]
    rank_by: str
    figures: tuple[str, ...] | None


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

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


def shipped_studies() -> dict[str, Path]:
    """The studies that come with dislab: name -> file."""
    with importlib.resources.as_file(importlib.resources.files("dislab.benchmarks")) as folder:
        return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_study(text: str) -> Path:
    """The file that a text means: the name of a shipped study, or the path of a user's own (.toml).

    Raises
    ------
    DislabError : there is neither; the nearest is offered.
    """
    shipped = shipped_studies()
    path = Path(text)
    if text in shipped:
        return shipped[text]
    if path.is_file():
        return path
    beside = [str(other) for other in sorted(path.parent.glob("*.toml"))]
    raise unknown_name("study", text, [*shipped, *beside])


def read_study(path: str | Path, seeds: Sequence[int] | None = None) -> Study:
    """Read a study file; what it names is not looked up yet (`check_study`).

    Parameters
    ----------
    path : the file.
    seeds : in place of the file's.

    Raises
    ------
    DislabError : the file cannot be read, is not TOML, or has keys or values that a study has not.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise DislabError(f"the study '{path}' cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DislabError(f"the study '{path}' is not TOML: {error}") from None
    with _within(str(path)):
        _check_keys(content, STUDY_KEYS, required=["runs"])
        planned = []
        for number, table in enumerate(content["runs"], start=1):
            where = f"{path}: [[runs]] table {number}"
            with _within(f"[[runs]] table {number}"):
                _check_keys(table, TABLE_KEYS, required=["model", "dataset"])
            planned += _expand(where, content, table, seeds)
        figures = content.get("figures")
        return Study(
            name=path.stem,
            title=content.get("title", path.stem),
            text=text,
            planned=tuple(planned),
            rank_by=content.get("rank_by", ""),
            figures=None if figures is None else tuple(figures),
        )


def _check_keys(table: Mapping, keys: Mapping[str, tuple], required: list[str]) -> None:
    for key, value in table.items():
        if key not in keys:
            if key in STUDY_KEYS:  # TOML takes it for the table's
                raise DislabError(f"{key} is of the whole study: write it above the first [[runs]]")
            raise unknown_name("key", key, keys)
        is_right, words = keys[key]
        if not is_right(value):
            raise DislabError(f"{key} is {value!r}: it must be {words}")
    for key in required:
        if key not in table:
            raise DislabError(f"'{key}' is missing: it must be {keys[key][1]}")


def _expand(where: str, study: Mapping, table: Mapping, seeds: Sequence[int] | None) -> list[Planned]:
    """The runs of a table: datasets x models x hyper-parameter values x seeds, the last fastest."""
    training = {key: table.get(key, study.get(key)) for key in TRAINING}
    options = {key: value for key, value in training.items() if key != "seeds" and value is not None}
    options |= {key: table[key] for key in ("group_by", "hold_out") if key in table}
    swept = {
        name: value if isinstance(value, list) else [value] for name, value in table.get("set", {}).items()
    }
    combinations = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    return [
        Planned(
            where,
            model,
            dataset,
            table.get("source", "auto"),
            seed,
            options,
            given,
            table.get("optional", False),
        )
        for dataset, model, given, seed in itertools.product(
            _listed(table["dataset"]),
            _listed(table["model"]),
            combinations,
            dict.fromkeys(seeds or training["seeds"] or [0]),
        )
    ]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@contextmanager
def _within(where: str):
    """Say in an error where in the study its cause is."""
    try:
        yield
    except DislabError as error:
        raise type(error)(f"{where}: {error}") from None


def check_study(study: Study, data_dir=None, device: str = "cpu", quiet: bool = True) -> Study:
    """Look up all that a study names, before anything trains.

    Names are looked up first; then the datasets are opened, once each, for their factors, and every model is
    made and given its batches.

    Parameters
    ----------
    study : as it was read.
    data_dir : where official files lie, see `dislab.load_dataset`.
    device : where it will run.
    quiet : do not say what is left out or opened.

    Returns
    -------
    The study with the identity of every run, without optional runs whose official files are missing.

    Raises
    ------
    DislabError : a name, a hyper-parameter, a group_by or a hold-out is wrong, or official files are missing.
    """
    for planned in study.planned:
        with _within(planned.where):
            _look_up_names(planned, device)
    with _within(study.name):
        _check_report(study)
    kept, left_out = [], {}
    for planned in study.planned:
        if planned.optional and _lacks_files(planned, data_dir):
            left_out.setdefault((planned.where, planned.dataset), []).append(planned)
        else:
            kept.append(planned)
    for (where, dataset), those in left_out.items():
        say(f"{where}: {len(those)} run(s) left out, the official files of {dataset} are not there", quiet)
    if not kept:
        raise DislabError(f"the study '{study.name}' has nothing to run: all of it is optional")

    opened: dict[tuple[str, str], Dataset] = {}
    configurations: dict[str, dict] = {}
    checked: dict[tuple[str, str], Planned] = {}
    for planned in kept:
        with _within(planned.where):
            place = (planned.dataset, planned.source)
            if place not in opened:
                opened[place] = runs.open_dataset(*place, data_dir, "cpu", quiet)
            same = json.dumps([*place, planned.model, planned.options, planned.given])
            if same not in configurations:
                configurations[same] = _configuration(planned, opened[place], device)
        identity = identity_of(configurations[same] | {"seed": planned.seed})
        # Tables may overlap: a run is done once, unless its scores differ.
        scores = json.dumps([planned.options.get(key) for key in ("metrics", "metric_protocol")])
        checked.setdefault((identity, scores), replace(planned, identity=identity))
    return replace(study, planned=tuple(checked.values()))


def _look_up_names(planned: Planned, device: str) -> None:
    hyper.resolve(MODELS[planned.model], planned.given)
    if not is_folder_text(planned.dataset):
        DATASETS[planned.dataset]
    options = planned.options
    _protocol(planned, device)
    METRICS.choose(options.get("metrics", []))
    metric_settings(options.get("metric_protocol", DEFAULT_METRIC_PROTOCOL))


def _check_report(study: Study) -> None:
    """Whether the scores that the tables and figures need are among those that the study computes."""
    computed = dict.fromkeys(entry.name for planned in study.planned for entry in _metrics_of(planned))
    score = study.rank_by.partition("@")[0]
    if score and not any(score == name or score.startswith(f"{name}_") for name in computed):
        raise unknown_name("score to rank by", study.rank_by, computed)
    for name in study.figures or ():
        if name not in FIGURES:
            raise unknown_name("figure", name, FIGURES)
        needs = FIGURES[name].needs
        if needs and not computed.keys() & needs:
            raise DislabError(f"the figure '{name}' needs one of the metrics {', '.join(needs)}")


def _metrics_of(planned: Planned) -> list[Entry]:
    """The metrics that a run is scored by."""
    return METRICS.choose(planned.options["metrics"]) if "metrics" in planned.options else METRICS.default()


def _lacks_files(planned: Planned, data_dir) -> bool:
    """Whether a run needs official files that are not there."""
    official = files.OFFICIAL.get(planned.dataset)
    if official is None or planned.source == "rendered" or (planned.source == "auto" and official.is_drawn):
        return False
    return any(files.locate(official, file, data_dir) is None for file in official.files)


def _protocol(planned: Planned, device: str) -> Protocol:
    keys = ("steps", "batch_size", "precision")
    changes = {key: planned.options[key] for key in keys if key in planned.options}
    return choose_protocol(planned.options.get("protocol", "quick"), **changes, device=device)


def _configuration(planned: Planned, dataset: Dataset, device: str) -> dict:
    """What `dislab.run` will record as the configuration, but for the seed.

    Raises
    ------
    DislabError : it would refuse it before it trains.
    """
    entry, options = MODELS[planned.model], planned.options
    protocol = _protocol(planned, device)
    if "hold_out" in options:
        dataset = hold_out(dataset, options["hold_out"])
    config = runs.configure(entry, dataset, protocol, planned.given, group_by=options.get("group_by"))
    runs.check_model(entry, dataset, config)
    return config


def identity_of(config: Mapping) -> str:
    """What tells a run from every other, as one text, of the configuration that its run.json has."""
    return json.dumps([config[name] for name in IDENTITY], sort_keys=True)


def run_study(
    study: str | Path,
    *,
    out: str | Path | None = None,
    device: str | None = None,
    data_dir: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = 1,
    quiet: bool = True,
) -> Outcome:
    """Run what is missing of a study, and write its tables and figures.

    The same seed and the same number of threads give the same scores, however many runs go at a time.

    Parameters
    ----------
    study : the name of a shipped study, or a file.
    out : folder of its runs; by default results/ and its name. leaderboard.csv and leaderboard.md there are
        of all runs in the folder; the figures are of this study's.
    device, data_dir : see `dislab.run`.
    seeds : in place of the study's.
    jobs : runs at a time, see `dislab.workers.shared`.
    quiet : show no progress.

    Raises
    ------
    DislabError : the study or an argument is wrong; nothing was trained. A run that fails raises
        nothing: it is among the failures of the outcome.
    """
    path = find_study(str(study))
    read = read_study(path, seeds)
    place = str(choose_device(device))
    folder = Path("results") / read.name if out is None else Path(out)
    checked = check_study(read, data_dir, place, quiet)
    share = workers.shared(jobs, len(checked.planned), place)
    runs.writable_folder(folder)
    _write_copy(checked, str(study), seeds, folder)

    number = len(checked.planned)
    finished = _finished(folder)
    before = sum(planned.identity in finished for planned in checked.planned)
    say(f"{checked.title}: {number} runs, {before} of them finished before", quiet)
    common = {"device": place, "data_dir": data_dir, "out": folder}
    failures = _run_missing(checked.planned, finished, common, share, quiet)

    finished = _finished(folder)  # also those of which only a metric failed
    identities = dict.fromkeys(planned.identity for planned in checked.planned)
    found = [finished[identity] for identity in identities if identity in finished]
    others = len(finished) - len(found)
    if others:
        say(f"{others} run(s) in '{folder}' are not of this study: the leaderboard has them, too", quiet)
    rank_by = _rank_by(checked, found, quiet)
    paths = _write_tables(checked, folder, rank_by)
    drawn, problems = _draw_figures(checked, found, folder, quiet)
    return Outcome(found, failures + problems, paths + drawn, rank_by)


def _run_missing(
    planned: Sequence[Planned],
    finished: Mapping[str, Run],
    common: Mapping,
    share: tuple[int, int] | None,
    quiet: bool,
) -> list[str]:
    """Do what is missing of a study, here or in worker processes: a line for each run that failed.

    Parameters
    ----------
    planned, finished : all its runs, and by identity those that are finished.
    common : the arguments of `dislab.run` that all have.
    share : see `dislab.workers.shared`.
    quiet : as for `run_study`.
    """
    missing = [one for one in planned if _lacks(one, finished.get(one.identity))]
    if share is None or not missing:
        return _run_here(planned, finished, common, quiet)
    for one in missing:
        workers.check_known_elsewhere(one.model, one.dataset, [entry.name for entry in _metrics_of(one)])
    # A run that is planned twice, for other scores, is one folder: no two processes work in it at a time.
    first = {one.identity: one for one in reversed(missing)}
    again = [one for one in missing if first[one.identity] is not one]
    failures = _run_in_workers(
        list(reversed(first.values())),
        _durations(planned, finished),
        common,
        *share,
        len(planned) - len(again),
        quiet,
    )
    return failures + (_run_here(again, _finished(common["out"]), common, quiet) if again else [])


def _lacks(planned: Planned, run: Run | None) -> bool:
    """Whether a run is not finished, or lacks a score that the study asks of it."""
    if run is None:
        return True
    protocol = planned.options.get("metric_protocol", DEFAULT_METRIC_PROTOCOL)
    return any(
        recorded_name(entry.name, protocol_used(protocol, entry.make.__name__)) not in run.scores
        and entry.name not in run.scores.left_out
        for entry in _metrics_of(planned)
    )


def _run_here(
    all_planned: Sequence[Planned], finished: Mapping[str, Run], common: Mapping, quiet: bool
) -> list[str]:
    """Do the runs in this process, one after the other: a line for each that failed."""
    finished = dict(finished)
    durations = _durations(all_planned, finished)
    open_once = lru_cache(maxsize=1)(runs.open_dataset)  # the runs of one dataset follow one another
    failures = []
    index = 0
    for stack in _stacks(all_planned, common["device"]):
        missing = [later.kind for later in all_planned[index:] if later.identity not in finished]
        left = ""
        if missing and durations:
            left = f", about {clock(sum(expected_seconds(kind, durations) for kind in missing))} left"
        for planned in stack:
            index += 1
            say(f"run {index} of {len(all_planned)}{left}: {planned}", quiet)
        first = stack[0]
        place = (first.dataset, first.source, common["data_dir"], common["device"])
        try:
            outcomes = runs.run_several(
                [planned.given | {"seed": planned.seed} for planned in stack],
                first.model,
                open_once(*place, True),
                **common | first.options,
                quiet=quiet,
            )
        except Exception as error:  # whatever it is, the other runs go on
            outcomes = [error] * len(stack)
        for planned, outcome in zip(stack, outcomes, strict=True):
            if isinstance(outcome, Exception):
                failures.append(f"{planned}: {workers.in_one_line(outcome)}")
                say(f"failed: {failures[-1]}", quiet)
            elif planned.identity not in finished:
                durations.append((planned.kind, _seconds(outcome)))
                finished[planned.identity] = outcome
    return failures


def _stacks(all_planned: Sequence[Planned], device: str) -> list[list[Planned]]:
    """The runs in their order; those in one list whose models can be trained at once: on a GPU, what follows
    one another and differs in the seed and in hyper-parameters that are floats."""
    if runs.most_at_once(choose_device(device)) == 1:
        return [[planned] for planned in all_planned]

    def same(planned: Planned) -> str:
        values = dict(zip(IDENTITY, json.loads(planned.identity), strict=True))
        hyperparameters = values.pop("hyperparameters").items()
        del values["seed"]
        sizes = {name: value for name, value in hyperparameters if not isinstance(value, float)}
        return json.dumps([values, sizes, dict(planned.options)])

    return [list(stack) for _, stack in itertools.groupby(all_planned, same)]


def _run_in_workers(
    missing: Sequence[Planned],
    durations: list[tuple[tuple, float]],
    common: Mapping,
    jobs: int,
    threads: int,
    number: int,
    quiet: bool,
) -> list[str]:
    """Do the missing runs of a study in worker processes: a line for each that failed.

    Parameters
    ----------
    missing : what to do; `number` is how many runs the study has in all.
    durations : (kind, seconds) of runs finished before.
    jobs, threads : worker processes at a time, and the torch threads of each.
    """
    jobs = min(jobs, len(missing))
    say(workers.in_words(len(missing), jobs, threads), quiet)
    tasks = [_arguments(planned, common) for planned in missing]
    done = number - len(missing)
    failures: dict[int, str] = {}
    unanswered: dict[int, float | None] = dict.fromkeys(range(len(missing)))  # task -> when it began
    unanswered |= dict.fromkeys(range(jobs), time.monotonic())
    on_terminal = sys.stderr.isatty() and not quiet
    with (
        Bar("runs", number, start=done, quiet=not on_terminal) as bar,
        closing(workers.run_tasks(tasks, jobs, threads)) as answers,
    ):
        for answer in answers:
            planned, now = missing[answer.task], time.monotonic()
            done += 1
            del unanswered[answer.task]
            for task in list(unanswered)[:jobs]:  # tasks begin in their order
                unanswered[task] = unanswered[task] or now
            if answer.path is not None:
                durations.append((planned.kind, _seconds(Run(answer.path))))
            left, words = None if unanswered else 0.0, ""
            if durations and unanswered:
                expected = [
                    expected_seconds(missing[task].kind, durations) - (now - (began or now))
                    for task, began in unanswered.items()
                ]
                left = seconds_of_several(expected, jobs)
                words = f", about {clock(left)} left"
            if answer.failure:
                failures[answer.task] = f"{planned}: {answer.failure}"
                say(f"failed: {failures[answer.task]}", quiet)
            else:
                say(f"run {done} of {number} done{words}: {planned}", quiet)
            bar.update(done, str(planned), left)
    return [failures[task] for task in sorted(failures)]


def _arguments(planned: Planned, common: Mapping) -> dict[str, object]:
    """The arguments of `dislab.run` for a run of a study."""
    return dict(
        model=planned.model,
        dataset=planned.dataset,
        source=planned.source,
        seed=planned.seed,
        **common,
        **planned.options,
        **planned.given,
    )


def _durations(all_planned: Sequence[Planned], finished: Mapping[str, Run]) -> list[tuple[tuple, float]]:
    """(kind, seconds) of the finished runs."""
    return [
        (planned.kind, _seconds(finished[planned.identity]))
        for planned in all_planned
        if planned.identity in finished
    ]


def expected_seconds(kind: tuple, durations: Sequence[tuple[tuple, float]]) -> float:
    """How long a run takes, if as long as the mean of the finished ones most like it.

    Parameters
    ----------
    kind : see `Planned.kind`.
    durations : (kind, seconds) of finished runs, at least one.
    """
    for shared in range(len(kind), -1, -1):
        alike = [seconds for other, seconds in durations if other[:shared] == kind[:shared]]
        if alike:
            return sum(alike) / len(alike)
    raise ValueError("no run is finished")


def seconds_of_several(expected: Iterable[float], jobs: int) -> float:
    """How long runs of these durations take, begun in their order as one of `jobs` places becomes free."""
    ends = [0.0] * jobs
    for seconds in expected:
        heapq.heapreplace(ends, ends[0] + max(0.0, seconds))
    return max(ends)


def _seconds(run: Run) -> float:
    """Training, encoding and scoring, also of the time before an interruption."""
    timings = run.record["timings"]
    return sum(timings[name] for name in ("train_seconds", "encode_seconds", "score_seconds"))


def _finished(folder: Path) -> dict[str, Run]:
    return {identity_of(run.config): run for run in runs.find_runs(folder)}


def _write_copy(study: Study, given: str, seeds: Sequence[int] | None, folder: Path) -> None:
    command = ["dislab", "bench", given]
    if seeds:
        command += ["--seeds", ",".join(map(str, seeds))]
    heading = f"# As run by dislab {dislab.__version__}: {shlex.join(command)}\n"
    write_atomically(folder / "study.toml", (heading + study.text).encode())


def _rank_by(study: Study, found: list[Run], quiet: bool) -> str:
    """The score that orders the tables: the study's, else mig where there is one, else the first."""
    scores = dict.fromkeys(name for run in found for name in run.scores)
    if study.rank_by in scores:
        return study.rank_by
    chosen = leaderboard.RANK_BY if leaderboard.RANK_BY in scores else next(iter(scores), leaderboard.RANK_BY)
    if study.rank_by and scores:
        say(f"no run has the score {study.rank_by}: the tables are ranked by {chosen}", quiet)
    return chosen


def _write_tables(study: Study, folder: Path, rank_by: str) -> list[Path]:
    csv = leaderboard.write_leaderboard(folder, rank_by)
    table = leaderboard.render(leaderboard.leaderboard(folder, rank_by), "markdown")
    heading = f"# {study.title}\n\nBest first by {rank_by}; mean ± standard deviation over n seeds.\n\n"
    markdown = folder / "leaderboard.md"
    write_atomically(markdown, (heading + table).encode())
    return [csv, markdown]


def short_lines(outcome: Outcome) -> list[tuple[str, ...]]:
    """The score that a study's tables are ranked by, a line per row in their order, below a heading."""
    name = outcome.rank_by
    rows = rows_of(outcome.runs)
    row_names = names_of_rows(rows)
    setting_names = names_of_settings(key[: len(SETTING)] for key in rows)
    lines = [("dataset", "model", "seeds", f"{name}, mean", "std")]
    for _, row in leaderboard.tabulate(outcome.runs, name).iterrows():
        key = tuple(row[leaderboard.KEY])
        numbers = (row.get(f"{name}_mean", np.nan), row.get(f"{name}_std", np.nan))
        texts = ("" if np.isnan(number) else f"{number:.4f}" for number in numbers)
        lines.append((setting_names[key[: len(SETTING)]], row_names[key], row["seeds"], *texts))
    return lines


def _draw_figures(study: Study, found: list[Run], folder: Path, quiet: bool) -> tuple[list[Path], list[str]]:
    """Write the study's figures, each as PNG and CSV: the files, and a line for each that failed."""
    paths, problems = [], []
    for name in FIGURES if study.figures is None else study.figures:
        try:
            table, figure = FIGURES[name].draw(found)
        except RunFailed as error:  # a run's codes are damaged
            problems.append(f"figure {name}: {error}")
            continue
        if table.empty:
            say(f"figure {name} is left out: no run has what it shows", quiet)
            continue
        if isinstance(figure, Mapping):  # pictures, in a folder of their own
            place = runs.writable_folder(folder / name)
            for file, picture in figure.items():
                write_atomically(place / file, picture.read_bytes())
        else:
            place = folder / f"{name}.png"
            figure.set_dpi(min(130, MOST_PIXELS / max(figure.get_size_inches())))
            save_figure(figure, place)
        write_atomically(folder / f"{name}.csv", table.to_csv(index=False).encode())
        paths += [place, folder / f"{name}.csv"]
    return paths, problems
