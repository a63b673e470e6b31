"""From what a user writes to the configuration of a run: names are looked up, values checked, gaps filled."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dislab.data.dataset import SOURCES, Dataset
from dislab.data.folder import expanded
from dislab.data.hold_out import hold_out as without
from dislab.data.hold_out import normalised
from dislab.data.load import check_factors_file, is_folder_text
from dislab.data.space import parse_groupings
from dislab.errors import FAILURES, DislabError, defined_in, in_words, line_within
from dislab.kept import kept
from dislab.networks.architectures import initialisation
from dislab.networks.named import choose_network
from dislab.progress import say
from dislab.registry import DATASETS, MODELS, Entry, unknown_name
from dislab.runs import hyperparameters as hyper
from dislab.runs.config import EXTERNAL, MEMORY, RunConfig
from dislab.runs.images import images_of, open_images, remember, source_of
from dislab.runs.machine import Machine
from dislab.scoring.before_training import check_scores, given_by
from dislab.scoring.protocols import DEFAULT_METRIC_PROTOCOL
from dislab.scoring.request import request
from dislab.training.batches import Batches
from dislab.training.loop import show_dataset
from dislab.training.model import check_model, check_model_class, check_outputs
from dislab.training.protocol import Protocol, choose_precision, choose_protocol
from dislab.training.validation import Validation


@dataclass(frozen=True)
class Checked:
    """What a user writes of a run: names are looked up, and all is checked that needs no images."""

    entry: Entry
    dataset: str | Dataset
    factors: str
    source: str
    group_by: str | Sequence | None
    hold_out: str | Sequence[str] | None
    seed: int
    protocol: Protocol
    precision: str
    metrics: tuple[str, ...]
    hyperparameters: dict[str, object]


def check_settings(
    model: str,
    dataset: str | Dataset,
    machine: Machine,
    *,
    seed: int = 0,
    factors: str | Path | None = None,
    group_by: str | Sequence | None = None,
    hold_out: str | Sequence[str] | None = None,
    source: str = "auto",
    protocol: str = "quick",
    steps: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    metrics: Sequence[str] | str | None = None,
    metric_protocol: str = DEFAULT_METRIC_PROTOCOL,
    **hyperparameters,
) -> Checked:
    """Look up the names of a run and check its values; opening a dataset can take minutes the first time.

    The arguments are those of `dislab.run`.

    Raises
    ------
    DislabError : a name or a value is wrong.
    """
    entry = MODELS[model]
    with code_of_model(entry.name):
        check_model_class(entry.make, entry.name)
    dataset = str(dataset) if isinstance(dataset, Path) else dataset
    if not isinstance(dataset, str | Dataset):
        raise DislabError(f"dataset is {dataset!r}: it must be a name, a folder or a dislab.Dataset")
    if source not in SOURCES:
        raise unknown_name("source", source, SOURCES)
    if isinstance(dataset, str) and not is_folder_text(dataset):
        DATASETS[dataset]
    check_factors_file(dataset, factors)
    if "groupings" in hyperparameters:
        raise DislabError(f"{model}: groupings is set by --group-by, which may be repeated")
    return Checked(
        entry,
        dataset,
        "" if factors is None else str(expanded(factors).absolute()),
        source,
        group_by,
        hold_out,
        seed,
        choose_protocol(protocol, steps=steps, batch_size=batch_size),
        choose_precision(precision, machine.of_runs),
        request(metrics, metric_protocol),
        hyper.complete(entry, hyperparameters),
    )


def resolve(model: str, dataset: str | Dataset, machine: Machine, **settings) -> RunConfig:
    """Check what a user writes of a run, and complete it.

    Parameters
    ----------
    model, dataset, settings : see `dislab.run`.
    machine : where the images are opened.

    Raises
    ------
    DislabError : a name or a value is wrong, official files are missing, or the model cannot be made so.
    """
    return complete(check_settings(model, dataset, machine, **settings), machine)


def complete(chosen: Checked, machine: Machine, lenient: bool = False) -> RunConfig:
    """Return the configuration of a run whose settings `check_settings` has checked; raise as `resolve` does.

    If it is `lenient`, a named score that does not apply is said, not refused: a study's list of scores
    serves several datasets.
    """
    entry, dataset = chosen.entry, chosen.dataset
    if isinstance(dataset, Dataset):
        images, own_images = remember(dataset), MEMORY
    else:
        own_images = str(expanded(dataset).absolute()) if is_folder_text(dataset) else ""
        images = open_images(own_images or dataset, chosen.source, machine, chosen.factors or None)
    held_out = (images.split,) if images.split else ()
    if chosen.hold_out:
        held_out = tuple(normalised(chosen.hold_out))
        images = without(images, held_out)
    groupings = parse_groupings(chosen.group_by, images.group_by)
    images.space.columns([name for names in groupings for name in names])
    # By "a,b" and by "b,a" the groups are the same.
    groupings = [sorted(names, key=images.space.names.index) for names in groupings]
    values = _with_network(entry.name, dict(chosen.hyperparameters), images)
    if "groupings" in values:  # the model has a content code for each
        values["groupings"] = len(groupings)
    elif entry.make.supervision == "groups" and len(groupings) > 1:
        raise DislabError(f"{entry.name} takes one grouping, but --group-by names {len(groupings)}")
    has_steps = entry.make.supervision != "none"
    config = RunConfig(
        model=entry.name,
        hyperparameters=values,
        dataset=images.name,
        source=source_of(images),
        protocol=chosen.protocol if has_steps else replace(chosen.protocol, steps=0),
        group_by=tuple(map(tuple, groupings)),
        hold_out=held_out,
        precision=chosen.precision,
        metrics=chosen.metrics,
        own_images=own_images,
        own_factors=chosen.factors,
    ).with_seed(chosen.seed)
    _check_untrained(config, images, machine.quiet, lenient)
    return config


def check(config: RunConfig, machine: Machine) -> RunConfig:
    """Check a configuration that was read from a file; return it with values of the right types.

    Raises
    ------
    DislabError : a name or a value is wrong, or the images are not there.
    """
    if config.source == EXTERNAL:
        raise DislabError(f"the codes of '{config.model}' are another program's: there is nothing to train")
    values = hyper.complete(MODELS[config.model], config.hyperparameters)
    metrics = request(config.metrics)
    _check_protocol(config)
    precision = choose_precision(config.precision, machine.of_runs)
    images = images_of(config, machine)
    images.space.columns([name for names in config.group_by for name in names])
    values = _with_network(config.model, values, images)
    checked = replace(config, hyperparameters=values, precision=precision, metrics=metrics)
    checked = checked.with_seed(config.seed)
    _check_untrained(checked, images, machine.quiet, lenient=True)
    return checked


def _with_network(model: str, values: dict[str, object], images: Dataset) -> dict[str, object]:
    """Return hyper-parameters with the network by its recorded name, if the model takes any network."""
    if isinstance(values.get("network"), str) and "network" not in hyper.choices(MODELS[model].make):
        return values | {"network": choose_network(values["network"], images.image_shape)}
    return values


def _check_protocol(config: RunConfig) -> None:
    """Raise DislabError if the protocol's values are not those of its name."""
    protocol = config.protocol
    name, *changes = protocol.name.split("+")
    try:
        made = choose_protocol(name, **{key: int(value) for key, value in (c.split("=") for c in changes)})
    except (ValueError, TypeError):
        made = None
    if made is not None and MODELS[config.model].make.supervision == "none":
        made = replace(made, steps=0)
    if made != protocol:
        raise DislabError(f"the values of protocol {protocol.name} are not those of its name in this version")


def _check_untrained(config: RunConfig, images: Dataset, quiet: bool, lenient: bool = False) -> None:
    """Raise DislabError if the model, its batches or its metrics refuse the configuration; say what is lost.

    All of a model is tried but its loss, which may take its process down: that is left to the run's own.
    """
    network = make_model(config, images.image_shape)
    device = images.images(images.train_rows()[:1]).device
    with code_of_model(config.model):
        network = network.to(device).eval()
        if network.supervision != "none":  # others must be fitted first
            check_outputs(network, images)
            show_dataset(network, images, config.seed)
    # The runs of a sweep have the same rows, and to sort a full grid by its groups takes a while.
    protocol, make = config.protocol, MODELS[config.model].make
    scored = (config.dataset, config.source, config.hold_out, config.group_by, config.metrics, protocol.rows)
    scored = (*scored, quiet, lenient)
    same = (*scored, make, protocol.batch_size, protocol.validate, network.group_size)
    same = (*same, network.changed, network.resample, network.binds_factors and network.latents)
    if same in _checked:
        return
    if network.supervision != "none":
        batches = make_batches(config, images, network, torch.device("cpu"))
        if batches.remark:
            say(batches.remark, quiet)
        make_validation(config, images, network, torch.device("cpu"))
    given = given_by(network, images)
    if (*scored, given) not in _checked:
        check_scores(config.metrics, given, images, config.group_by, protocol.rows, quiet, lenient)
    _checked.update((same, (*scored, given)))


_checked: set[tuple] = set()  # what `_check_untrained` has checked once


def make_model(config: RunConfig, image_shape: tuple[int, int, int]) -> torch.nn.Module:
    """Return the model with the initial parameters of its seed; torch's global random state stays."""
    entry = MODELS[config.model]
    with kept(), code_of_model(entry.name), initialisation(config.protocol.initialisation):
        torch.manual_seed(config.seed)
        return check_model(entry.make(image_shape, **config.hyperparameters), entry.name)


@contextmanager
def code_of_model(model: str, kind: type[DislabError] = DislabError) -> Iterator[None]:
    """Turn what a model's own code raises, or does wrong, into one line that names the line of its file."""
    try:
        yield
    except FAILURES as error:
        make, text = MODELS[model].make, in_words(error, MODELS[model].make)
        if not isinstance(error, DislabError):
            if MODELS.is_built_in(model) and line_within(error, inspect.getfile(make)) is None:
                raise  # it is not the model's own
            raise kind(f"model '{model}' failed: {text}") from error
        if MODELS.is_built_in(model) or ", line " in text:
            raise
        raise kind(text + defined_in(make)) from error


def make_batches(config: RunConfig, images: Dataset, network, device: torch.device) -> Batches:
    """Return the training batches of a run."""
    groupings = [list(names) for names in config.group_by]
    return Batches(images, network, config.protocol.batch_size, groupings, config.seed, device)


def make_validation(config: RunConfig, images: Dataset, network, device: torch.device) -> Validation | None:
    """Return the validation of a run, or None if its protocol has none; raise DislabError if it cannot be."""
    if config.protocol.validate is None:
        return None
    try:
        return Validation(make_batches(config, images.for_validation(), network, device))
    except DislabError as error:
        raise DislabError(f"protocol {config.protocol.name} validates, but {error}") from None
