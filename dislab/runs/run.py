"""A run: train, encode, score, into one folder that is a result only once its run.json is there.

results/shapes3d-rendered/quick/mlvae-1a2b3c/seed0/
    checkpoint.safetensors   parameters, optimiser and random state, while training
    model.safetensors        the trained parameters
    codes.safetensors        the code table
    history.csv              loss terms over the steps
    evidence.csv             of models with content and style: what joining a group's images does
    *.png                    pictures
    run.json                 configuration, environment, timings, scores: written last
"""

from __future__ import annotations

import datetime
import hashlib
import inspect
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

import dislab
from dislab.data import hold_out as held_out
from dislab.data.dataset import Dataset
from dislab.data.devices import choose_device
from dislab.data.own import dataset_from_text
from dislab.data.space import Circle, parse_groupings
from dislab.errors import DislabError, RunFailed, line_within
from dislab.files import write_atomically
from dislab.progress import Bar, say
from dislab.registry import METRICS, MODELS, Entry
from dislab.runs import hyperparameters as hyper
from dislab.runs import workers
from dislab.scoring.encoding import choose_rows, encode, reconstruction_errors
from dislab.scoring.evaluate import Scores, score
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL, metric_settings, protocol_used, recorded_name
from dislab.scoring.table import CodeTable
from dislab.training.batches import Batches
from dislab.training.checkpoint import History, Member
from dislab.training.loop import TRAINING, fit, train_stack
from dislab.training.precision import arithmetic, compute_in_bfloat16
from dislab.training.protocol import Protocol, choose_protocol, usual_precision

FORMAT = 4
OPTIONAL_ARRAYS = ("logvar", "labels", "tested", "reconstruction")  # of a code table


class Run:
    """A finished run on disk.

    Attributes
    ----------
    path : the run's folder.
    record : the content of run.json.
    scores : Scores.
    codes : CodeTable of the scored rows (read when first used).
    model : the trained torch.nn.Module, on the CPU, in evaluation mode (read when first used).
    history : pandas DataFrame, loss terms by step.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.record = _read_record(self.path)
        if self.record is None:
            raise DislabError(f"'{path}' is not a finished run: it has no whole run.json")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {len(self.scores)} scores)"

    @property
    def config(self) -> dict:
        return self.record["config"]

    @cached_property
    def scores(self) -> Scores:
        scores = Scores(
            self.record["scores"], details=self.record["details"], left_out=self.record["left_out"]
        )
        scores.protocols = dict(self.record["metric_protocols"])
        return scores

    @cached_property
    def codes(self) -> CodeTable:
        return _read_codes(self.path / "codes.safetensors")

    @cached_property
    def model(self) -> torch.nn.Module:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        model = _make_model(self.config, tuple(self.record["image_shape"]))
        path = self.path / "model.safetensors"
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise RunFailed(f"the parameters '{path}' are missing or damaged: {error}") from None
        return model.eval()

    @cached_property
    def history(self):
        import pandas as pd

        return pd.read_csv(self.path / "history.csv")

    def add_scores(
        self,
        metrics: Iterable[str] | None = None,
        progress=lambda name: None,
        metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    ) -> Scores:
        """Compute the named scores (by default all but slow ones) that this run lacks; add them to run.json.

        Returns the scores of this call, with `failed` for those that could not be computed.
        """
        missing = []
        for entry in METRICS.default() if metrics is None else METRICS.choose(metrics):
            used = protocol_used(metric_protocol, entry.make.__name__)
            if recorded_name(entry.name, used) not in self.scores:
                missing.append(entry.name)
        if not missing:
            return Scores()
        new = score(self.codes, missing, self.config["seed"], progress, metric_protocol=metric_protocol)
        if metrics is None:  # nobody asked for a metric that refuses this table
            new.left_out |= new.refused
            new.failed = {name: why for name, why in new.failed.items() if name not in new.refused}
        if new or new.left_out:
            for part, values in _recorded(new).items():
                self.record[part] = self.record.get(part, {}) | values
            left_out = self.record["left_out"]
            self.record["left_out"] = {name: why for name, why in left_out.items() if name not in new}
            del self.scores
            _write_record(self.path, self.record)
        return new


def run(
    model: str = "mlvae",
    dataset: str | Dataset = "shapes3d",
    *,
    protocol: str = "quick",
    steps: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    seed: int = 0,
    metrics: Iterable[str] | None = None,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    group_by: str | Sequence | None = None,
    hold_out: str | Sequence[str] | None = None,
    source: str = "auto",
    device: str | None = None,
    data_dir: str | Path | None = None,
    out: str | Path = "results",
    quiet: bool = True,
    **hyperparameters,
) -> Run:
    """Train a model, encode the dataset and score the codes.

    A run that was interrupted goes on from its last checkpoint to the same result; one that is finished is
    read from disk, and only scores that it lacks are computed.

    Parameters
    ----------
    model, dataset : registered names; for the dataset also a folder of images, or a Dataset object.
    protocol : "quick" (minutes on a CPU) or "paper" (Locatello et al. 2019).
    steps, batch_size : instead of the protocol's.
    precision : "fp32", "tf32" (on CUDA) or "bf16" (the networks; losses and parameters stay float32); by
        default tf32 on CUDA and fp32 on the CPU.
    seed : decides initialisation, batches, noise and the metrics' draws.
    metrics : names of the scores to compute; by default all that apply and are not slow.
    metric_protocol : "locatello2019" or "softtpr2024"; a score that the latter changes is recorded under a
        name of its own, betavae_score@softtpr2024.
    group_by : factor name(s), as a list or "a,b", whose combined value makes a group; a list of such lists
        for several groupings at once, each with a content code of its own; by default the dataset's own.
    hold_out : what is kept from training and scored alone, see `dislab.hold_out`.
    source, data_dir : see `dislab.load_dataset`.
    device : "cpu", "cuda", …; by default CUDA where there is a GPU.
    out : folder of all runs.
    quiet : show no progress.
    hyperparameters : the model's own.

    Raises
    ------
    DislabError : a name or a value is wrong.
    RunFailed : the training or a metric failed; what was computed before is kept.
    """
    (outcome,) = run_several(
        [hyperparameters | {"seed": seed}],
        model,
        dataset,
        protocol=protocol,
        steps=steps,
        batch_size=batch_size,
        precision=precision,
        metrics=metrics,
        metric_protocol=metric_protocol,
        group_by=group_by,
        hold_out=hold_out,
        source=source,
        device=device,
        data_dir=data_dir,
        out=out,
        quiet=quiet,
    )
    if isinstance(outcome, RunFailed):
        raise outcome
    return outcome


def run_several(
    variants: Sequence[Mapping],
    model: str = "mlvae",
    dataset: str | Dataset = "shapes3d",
    *,
    protocol: str = "quick",
    steps: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    metrics: Iterable[str] | None = None,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    group_by: str | Sequence | None = None,
    hold_out: str | Sequence[str] | None = None,
    source: str = "auto",
    device: str | None = None,
    data_dir: str | Path | None = None,
    out: str | Path = "results",
    jobs: int | None = 1,
    quiet: bool = True,
) -> list[Run | RunFailed]:
    """`run` for several seeds and hyper-parameter values: on a GPU their models are trained at once, on a CPU
    with `jobs` side by side.

    A model that is trained with others gets the numbers that it gets alone, but for rounding. A run that
    fails does not stop the others: its RunFailed stands in its place.

    Parameters
    ----------
    variants : for each run its hyper-parameters and its "seed". Those that are not floats (sizes, names) are
        the same for all that can be trained at once.
    jobs : runs at a time, see `dislab.workers.shared`.
    others : see `run`.

    Raises
    ------
    DislabError : a name or a value is wrong.
    """
    # What needs no dataset is checked before one is drawn or decoded, which can take minutes the first time.
    entry = MODELS[model]
    place = choose_device(device)
    chosen = choose_protocol(
        protocol, steps=steps, batch_size=batch_size, precision=precision, device=str(place)
    )
    names = None if metrics is None else [entry.name for entry in METRICS.choose(metrics)]
    metric_settings(metric_protocol)
    share = workers.shared(jobs, len(variants), str(place))
    if share:
        if not isinstance(dataset, str):
            raise DislabError("other processes cannot read a Dataset object: give its name, or choose jobs=1")
        scored_by = METRICS.default() if metrics is None else METRICS.choose(names)
        workers.check_known_elsewhere(model, dataset, [metric.name for metric in scored_by])
    seeds = [variant["seed"] for variant in variants]
    own_values = [{name: value for name, value in one.items() if name != "seed"} for one in variants]
    for seed, values in zip(seeds, own_values, strict=True):
        hyper.resolve(entry, values)
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise DislabError(f"seed is {seed!r}: it must be a whole number, 0 or more")

    images = dataset
    if isinstance(dataset, str):  # (the text is what other processes get)
        images = open_dataset(dataset, source, data_dir, str(place), quiet)
    if hold_out:
        images = held_out.hold_out(images, hold_out)
    configs = [
        configure(entry, images, chosen, values, group_by=group_by, seed=seed)
        for seed, values in zip(seeds, own_values, strict=True)
    ]
    out = writable_folder(out)
    common = _Common(entry, images, chosen, place, names, metric_protocol, quiet)
    paths = [run_folder(out, config) for config in configs]
    outcomes: dict[Path, Run | RunFailed] = {}
    missing = []
    for path, config in dict(zip(paths, configs, strict=True)).items():
        if is_finished(path):
            say(f"finished before, nothing is trained (delete the folder to train again): {path}", quiet)
            finished = Run(path)
            with _failure_as_outcome(outcomes, [path]):
                outcomes[path] = _checked(
                    finished, finished.add_scores(names, common.report, metric_protocol)
                )
        else:
            missing.append((config, path))
    if share and missing:
        for config in {repr(config["hyperparameters"]): config for config, _ in missing}.values():
            check_model(entry, images, config)
        given = {
            "model": model,
            "dataset": dataset,
            "protocol": protocol,
            "steps": steps,
            "batch_size": batch_size,
            "precision": precision,
            "metrics": names,
            "metric_protocol": metric_protocol,
            "group_by": group_by,
            "hold_out": hold_out,
            "source": source,
            "device": str(place),
            "data_dir": data_dir,
            "out": out,
        }
        by_path = dict(zip(paths, variants, strict=True))
        tasks = {path: given | by_path[path] for _, path in missing}
        outcomes |= _in_workers(tasks, *share, configs[0]["protocol"]["steps"], quiet)
        missing = []
    # (Mapped over a stack, a convolution was seen to escape the cast to bfloat16.)
    alone = entry.make.batch == "none" or common.precision == "bf16"
    most = 1 if alone else most_at_once(place)
    for begin in range(0, len(missing), most):
        together = missing[begin : begin + most]
        trained: list[_Trained] = []
        with arithmetic(place, common.precision):
            with _failure_as_outcome(outcomes, [path for _, path in together]):
                trained = _train(common, together)
            for one in trained:
                with _failure_as_outcome(outcomes, [one.path]):
                    outcomes[one.path] = _finish(common, one)
    return [outcomes[path] for path in paths]


def _in_workers(
    tasks: Mapping[Path, Mapping], jobs: int, threads: int, steps: int, quiet: bool
) -> dict[Path, Run | RunFailed]:
    """Do runs in worker processes: what became of each.

    Parameters
    ----------
    tasks : by the run's folder, the arguments of `run`.
    jobs, threads : see `dislab.workers.shared`.
    steps : of each run.
    """
    paths = list(tasks)
    names = [f"{path.parent.name}/{path.name}" for path in paths]
    say(workers.in_words(len(tasks), jobs, threads), quiet)
    outcomes: dict[Path, Run | RunFailed] = {}
    done: dict[int, int] = {}  # task -> its steps
    trained, began = 0, 0.0  # steps taken since they are heard of, and when that began

    with Bar(TRAINING, steps * len(paths), quiet=quiet or not steps) as bar:

        def show() -> None:
            all_done = sum(done.values())
            if trained or all_done == bar.total:
                left = (time.monotonic() - began) / max(1, trained) * (bar.total - all_done)
                bar.update(all_done, f"{len(outcomes)} of {len(paths)} runs done", left)

        def hear(progress: workers.Progress) -> None:
            nonlocal trained, began
            if progress.title != TRAINING:
                return
            began = began or time.monotonic()
            if progress.task in done:  # (else it goes on from a checkpoint, or begins)
                trained += progress.done - done[progress.task]
            done[progress.task] = progress.done
            show()
            if progress.done == progress.total:
                say(f"{names[progress.task]}: encoding and scoring", quiet)

        with closing(workers.run_tasks(list(tasks.values()), jobs, threads, hear)) as answers:
            for answer in answers:
                path, name = paths[answer.task], names[answer.task]
                if answer.failure:
                    outcomes[path] = RunFailed(f"{name}: {answer.failure}")
                    say(f"failed: {name}: {answer.failure}", quiet)
                else:
                    outcomes[path] = Run(answer.path)
                    say(f"{name}: done", quiet)
                done[answer.task] = steps
                show()
    return outcomes


def check_model(entry: Entry, dataset: Dataset, config: Mapping) -> None:
    """Raise DislabError where a configuration is refused only when the model or its batches are made.

    A mistake in a model's own code raises nothing here: its runs fail.
    """
    if entry.make.batch == "none":
        return
    try:
        model = _make_model(config, dataset.image_shape)
        size, group_by = config["protocol"]["batch_size"], config["group_by"]
        Batches(dataset, model, size, group_by, 0, torch.device("cpu"))
    except DislabError:
        raise
    except Exception:
        pass


@dataclass(frozen=True)
class _Common:
    """What the runs of one call have in common."""

    entry: Entry
    dataset: Dataset
    protocol: Protocol
    place: torch.device
    metrics: list[str] | None
    metric_protocol: str
    quiet: bool

    @property
    def precision(self) -> str:
        return self.protocol.precision or usual_precision(str(self.place))

    def report(self, metric: str) -> None:
        say(f"scoring {metric}", self.quiet)


@dataclass(frozen=True)
class _Trained:
    """A run whose training has ended, well or not."""

    config: Mapping
    path: Path
    network: torch.nn.Module
    history: History
    failure: RunFailed | None = None
    at_once: int = 1  # models trained at once, with this one


def most_at_once(place: torch.device) -> int:
    """How many models are trained at once on a device, as a stack."""
    # A small network's kernels leave most of a GPU idle; those of a stack fill it. On the CPU they fill the
    # cores already: stacks of 2 and 5 were measured at 0.8 to 1.06 times the speed of one after the other
    # (500 tanh units on 28 x 28) and 0.85 times (the convolutional network on 64 x 64 x 3).
    return 16 if place.type == "cuda" else 1


def _train(common: _Common, together: Sequence[tuple[Mapping, Path]]) -> list[_Trained]:
    """Train the models of these configurations, each for its folder."""
    entry, dataset, place = common.entry, common.dataset, common.place
    seeds = ", ".join(str(config["seed"]) for config, _ in together)
    at_once = " at once" if len(together) > 1 else ""
    name = together[0][0]["protocol"]["name"]
    say(f"{entry.name} on {dataset.name}, protocol {name}, seed {seeds}{at_once}", common.quiet)
    with _failure_in_one_line(entry):
        networks = []
        for config, _ in together:
            network = _make_model(config, dataset.image_shape)
            networks.append(network.to(place, memory_format=torch.channels_last))
            if common.precision == "bf16":
                compute_in_bfloat16(network)
        if entry.make.batch == "none":
            ((config, path),), (network,) = together, networks
            _prepare(path)
            history = fit(network, dataset, torch.Generator(place).manual_seed(config["seed"]))
            return [_Trained(config, path, network, history)]
        members = []
        for (config, path), network in zip(together, networks, strict=True):
            size, group_by, seed = common.protocol.batch_size, config["group_by"], config["seed"]
            batches = Batches(dataset, network, size, group_by, seed, place)
            _prepare(path)
            members.append(Member(network, batches, path / "checkpoint.safetensors"))
        train_stack(members, common.protocol, common.quiet)
    return [
        _Trained(config, path, member.model, member.history, member.failure, member.at_once)
        for (config, path), member in zip(together, members, strict=True)
    ]


def _finish(common: _Common, trained: _Trained) -> Run:
    """Encode and score what was trained, and write the run."""
    if trained.failure is not None:
        raise trained.failure
    config, path, network, history = trained.config, trained.path, trained.network, trained.history
    dataset, place, quiet = common.dataset, common.place, common.quiet
    seed = config["seed"]
    history.write_csv(path / "history.csv")

    began = time.monotonic()
    rows = choose_rows(dataset, common.protocol.rows)
    blocks = getattr(network, "blocks", {})
    try:
        by_row = hasattr(network, "encode_rows")
        encoder = partial(network.encode_rows, dataset) if by_row else partial(encode_on, place, network)
        groupings = config["group_by"]
        table = encode(encoder, dataset, rows, blocks=blocks, group_by=groupings, by_row=by_row, quiet=quiet)
        encoded = time.monotonic()
        if hasattr(network, "reconstruction"):
            table.reconstruction = reconstruction_errors(network, dataset, rows, seed, place)
    except DislabError as error:
        raise RunFailed(f"encoding failed after training: {error}") from error
    scoring = time.monotonic()
    scores = score(table, common.metrics, seed, common.report, metric_protocol=common.metric_protocol)
    scored = time.monotonic()

    from safetensors.torch import save

    from dislab.scoring.evidence import evidence
    from dislab.scoring.pictures import draw_pictures

    parameters = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    write_atomically(path / "model.safetensors", save(parameters))
    _write_codes(path / "codes.safetensors", table, rows)
    with _failure_in_one_line(common.entry):
        draw_pictures(path, network, dataset, table, rows)
        if hasattr(network, "encode_groups"):
            joined = evidence(network, dataset, rows, table.labels, seed, place)
            write_atomically(path / "evidence.csv", joined.to_csv(index=False).encode())
    images = config["protocol"]["steps"] * common.protocol.batch_size
    train_seconds = history.seconds / trained.at_once  # its share
    record = {
        "format": FORMAT,
        "config": config,
        "image_shape": list(dataset.image_shape),
        "report": network.report(dataset.image_shape) if hasattr(network, "report") else {},
        "scored_rows": len(rows),
        "train_rows": len(dataset.train_rows()),
        **_recorded(scores),
        "timings": {
            "train_seconds": round(train_seconds, 3),
            "trained_at_once": trained.at_once,
            "train_images_per_second": round(images / train_seconds, 1) if images else None,
            "encode_seconds": round(encoded - began, 3),
            "score_seconds": round(scored - scoring, 3),
        },
        "environment": _environment(place) | {"precision": common.precision},
    }
    _write_record(path, record)
    (path / "checkpoint.safetensors").unlink(missing_ok=True)
    return _checked(Run(path), scores)


def open_dataset(text: str, source: str, data_dir, device: str, quiet: bool) -> Dataset:
    """The dataset that a text names; says which images it has."""
    dataset = dataset_from_text(text, source=source, data_dir=data_dir, device=device, quiet=quiet)
    origin = f"the official images, {dataset.file}" if dataset.file else f"the {dataset.source} images"
    say(f"{dataset.name}: using {origin} ({len(dataset):,} images)", quiet)
    return dataset


def configure(
    entry: Entry,
    dataset: Dataset,
    protocol: Protocol,
    hyperparameters: Mapping,
    *,
    group_by=None,
    seed: int = 0,
) -> dict:
    """The configuration as run.json will have it.

    Parameters
    ----------
    entry, protocol : the model and how it is trained.
    dataset : with what is held out.
    hyperparameters : the user's.
    group_by, seed : as for `run`.

    Raises
    ------
    DislabError : a name or a value is wrong.
    """
    group_by = parse_groupings(group_by, dataset.group_by)
    dataset.space.columns([name for names in group_by for name in names])
    values = _with_groupings(entry, hyper.resolve(entry, hyperparameters), hyperparameters, len(group_by))
    usual = hyper.defaults(entry.make)
    if entry.make.batch == "none":
        protocol = replace(protocol, steps=0)
    training = asdict(protocol)
    if protocol.precision is None:  # the usual one leaves no mark, as it leaves none on the protocol's name
        del training["precision"]
    return {
        "dataset": dataset.name,
        "source": dataset.source,
        "protocol": training,
        "model": entry.name,
        "hyperparameters": values,
        "changed": {name: value for name, value in values.items() if value != usual[name]},
        "group_by": group_by,
        "hold_out": dataset.split,
        "seed": int(seed),
    }


def load(path: str | Path) -> Run:
    """Read a finished run from its folder.

    Raises
    ------
    DislabError : the folder holds no finished run.
    """
    return Run(path)


def is_finished(path: str | Path) -> bool:
    """Whether a folder holds a finished run."""
    return _read_record(Path(path)) is not None


def find_runs(out: str | Path) -> list[Run]:
    """All finished runs below a folder, sorted by path."""
    paths = sorted(path.parent for path in Path(out).rglob("run.json"))
    return [Run(path) for path in paths if is_finished(path)]


def run_folder(out: Path, config: Mapping) -> Path:
    """The folder of a configuration: readable, and different wherever anything but the seed differs."""
    same_row = {name: value for name, value in config.items() if name != "seed"}
    digest = hashlib.sha256(json.dumps(same_row, sort_keys=True).encode()).hexdigest()[:8]
    changes = "".join(f",{name}={value}" for name, value in config["changed"].items())[:60]
    model = f"{config['model']}{changes}-{digest}".replace("/", "_")
    name = f"{config['dataset']}-{config['source']}"
    return out / name / config["protocol"]["name"] / model / f"seed{config['seed']}"


def _with_groupings(entry: Entry, values: dict, given: Mapping, number: int) -> dict:
    """The hyper-parameters of a model with as many content codes as the run has groupings."""
    if "groupings" in given:
        raise DislabError(f"{entry.name}: groupings is set by --group-by, which may be repeated")
    if "groupings" in values:
        return values | {"groupings": number}
    if entry.make.batch == "groups" and number > 1:
        raise DislabError(f"{entry.name} takes one grouping, but --group-by names {number}")
    return values


def results_folder(path: str | Path) -> Path | None:
    """The outermost folder with a leaderboard.csv that a folder is or lies in; None where there is none."""
    path = Path(path).resolve()
    return next((home for home in [*path.parents[::-1], path] if (home / "leaderboard.csv").is_file()), None)


def writable_folder(path: str | Path) -> Path:
    """The folder, made if need be.

    Raises
    ------
    DislabError : it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".dislab-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DislabError(f"cannot write to the output folder '{path}': {error.strerror}") from None
    return path


def _recorded(scores: Scores) -> dict[str, dict]:
    """Scores as run.json has them: named by their metric protocol, and with it."""
    names = {name: recorded_name(name, protocol) for name, protocol in scores.protocols.items()}
    return {
        "scores": {names[name]: value for name, value in scores.items()},
        "details": {names[name]: value for name, value in scores.details.items()},
        "metric_protocols": {names[name]: protocol for name, protocol in scores.protocols.items()},
        "left_out": scores.left_out,
    }


def _checked(finished: Run, scores: Scores) -> Run:
    for name, cause in scores.failed.items():
        raise RunFailed(f"metric '{name}' failed, the other scores are kept in {finished.path}: {cause}")
    return finished


def _prepare(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        for abandoned in path.glob("*.part"):  # by a process that was killed while it wrote
            abandoned.unlink(missing_ok=True)
    except OSError as error:
        raise RunFailed(f"cannot make the run's folder '{path}': {error.strerror}") from None


def encode_on(device: torch.device, model: torch.nn.Module, images: torch.Tensor):
    """Mean and log-variance [B, D] of a model on a device, for images that a dataset may hold elsewhere."""
    return model.encode(images.to(device))


@contextmanager
def _failure_as_outcome(outcomes: dict[Path, Run | RunFailed], paths: Iterable[Path]):
    """Keep a RunFailed as the outcome of the runs of these folders."""
    try:
        yield
    except RunFailed as error:
        outcomes.update(dict.fromkeys(paths, error))


@contextmanager
def _failure_in_one_line(model: Entry):
    """Turn what a model's own code raises into one line that names the place in its file."""
    try:
        yield
    except DislabError:
        raise
    except Exception as error:
        file = inspect.getfile(model.make)
        line = line_within(error, file)
        place = f" ({file}, line {line})" if line else ""
        raise RunFailed(f"model '{model.name}' failed: {type(error).__name__}: {error}{place}") from error


def _make_model(config: Mapping, image_shape: tuple[int, int, int]) -> torch.nn.Module:
    """The model with the initial parameters of its seed, leaving torch's global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return MODELS[config["model"]].make(image_shape, **config["hyperparameters"])


def _read_record(path: Path) -> dict | None:
    try:
        record = json.loads((path / "run.json").read_text())
        return record if record["format"] == FORMAT and record["config"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(path: Path, record: Mapping) -> None:
    write_atomically(path / "run.json", (json.dumps(record, indent=1, default=_plain) + "\n").encode())


def _plain(number):
    """The Python number of a numpy or torch one, such as metrics may put in their lists."""
    return number.item()


def _write_codes(path: Path, table: CodeTable, rows: np.ndarray) -> None:
    from safetensors.numpy import save

    arrays = {"mean": table.mean, "factors": table.factors, "rows": rows}
    for name in OPTIONAL_ARRAYS:
        if getattr(table, name) is not None:
            arrays[name] = getattr(table, name)
    about = {
        "names": list(table.names),
        "sizes": list(table.sizes),
        "blocks": {name: [block.start, block.stop] for name, block in table.blocks.items()},
        "full_grid": table.full_grid,
        "circle": table.circle and asdict(table.circle),
    }
    write_atomically(
        path, save({n: np.ascontiguousarray(a) for n, a in arrays.items()}, {"about": json.dumps(about)})
    )


def _read_codes(path: Path) -> CodeTable:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (OSError, SafetensorError) as error:
        raise RunFailed(f"the codes '{path}' are missing or damaged: {error}") from None
    return CodeTable(
        arrays["mean"],
        arrays["factors"],
        **{name: arrays.get(name) for name in OPTIONAL_ARRAYS},
        names=tuple(about["names"]),
        sizes=tuple(about["sizes"]),
        blocks={name: slice(*ends) for name, ends in about["blocks"].items()},
        full_grid=about["full_grid"],
        circle=about["circle"] and Circle(**about["circle"]),
    )


def _environment(device: torch.device) -> dict[str, object]:
    import sklearn

    return {
        "dislab": dislab.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
