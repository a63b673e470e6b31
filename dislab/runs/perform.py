"""Carry out runs in this process: train, encode, score, and write the record."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

import dislab
from dislab.claim import Claim
from dislab.data.dataset import Dataset
from dislab.errors import FAILURES, DislabError, RunFailed, in_one_line
from dislab.files import digest, sweep, write_atomically
from dislab.networks.fused import fuse
from dislab.progress import Bar, heard_by, say
from dislab.registry import MODELS, NETWORKS
from dislab.runs.config import RunConfig
from dislab.runs.finished import FORMAT, Run, recorded
from dislab.runs.images import images_of
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.runs.resolve import code_of_model, make_batches, make_model, make_validation
from dislab.scoring.encoding import choose_rows, encode_model, reconstruction_errors
from dislab.scoring.evidence import evidence
from dislab.scoring.pictures import draw_pictures
from dislab.scoring.request import Asked, asked
from dislab.scoring.score import compute
from dislab.scoring.swaps import can_swap, swaps
from dislab.scoring.table import CodeTable
from dislab.scoring.table_file import table_file
from dislab.training.checkpoint import History, Member
from dislab.training.loggers import Callback, opened
from dislab.training.loop import fit, show_dataset, train_members
from dislab.training.model import reported
from dislab.training.precision import arithmetic, compute_in_bfloat16
from dislab.training.protocol import USUAL, usual_precision

FILES = ("model.safetensors", "codes.safetensors", "history.csv")  # that every finished run has
# After which a process that was told to stop is killed: a step and its checkpoint take seconds, but numpy and
# scikit-learn hear of an interruption only between two of their calls.
SECONDS_TO_STOP = 60

# Called with the digests of a task, what is being done, units done, of how many, and a note.
Tell = Callable[[list[str], str, int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes
    ----------
    digest : of its configuration.
    record : its record, if it is finished.
    failure : why it, or a metric of it, failed: one line; "" where nothing did.
    busy : whether another process is doing it.
    """

    digest: str
    record: dict | None = None
    failure: str = ""
    busy: bool = False

    def to_json(self) -> dict:
        """Return the outcome as a dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """A model whose training has ended, well or not.

    Attributes
    ----------
    num_rows : number of dataset rows that it was trained on.
    validated : what its validation reports, see `Validation.report`.
    failure : why training ended before its last step, or None.
    at_once : number of models that were trained at once, with this one.
    """

    config: RunConfig
    path: Path
    network: torch.nn.Module
    history: History
    num_rows: int
    validated: dict[str, float]
    failure: RunFailed | None = None
    at_once: int = 1


def most_at_once(configs: Sequence[RunConfig], device: str) -> int:
    """Return how many models of these configurations are trained at once."""
    # A small network's kernels leave most of a GPU idle; those of several models side by side fill it. On the
    # CPU they fill the cores already.
    alone = any(MODELS[one.model].make.supervision == "none" for one in configs)
    return 16 if device.startswith("cuda") and not alone else 1


def do_task(task: Mapping, tell: Tell, callbacks: Sequence[Callback] = ()) -> Iterator[Outcome]:
    """Do a task of the executor in this process. Its plug-ins are loaded before."""
    configs = [RunConfig.from_json(config) for config in task["configs"]]
    with heard_by(partial(tell, task["digests"])):
        yield from perform(configs, Machine(**task["machine"]), callbacks)


def perform(
    configs: Sequence[RunConfig], machine: Machine, callbacks: Sequence[Callback] = ()
) -> Iterator[Outcome]:
    """Do runs whose models can be trained at once; yield what became of each.

    A run is claimed before it is begun, and is busy where another process has claimed it. A run that was
    interrupted goes on from its last checkpoint to the same result. A run that is finished is not done again;
    only scores and pictures that it lacks are made. A model that is trained with others gets the numbers that
    it gets alone.
    """
    results = Results(machine.out)
    mine: list[RunConfig] = []
    claims: dict[str, Claim] = {}
    try:
        for config in configs:
            outcome = None
            try:
                claim = results.claim(config.digest)
                if not claim.take():
                    outcome = Outcome(config.digest, busy=True)
                # Its last owner may just have finished it.
                elif (run := results.finished(config)) is not None:
                    claim.release()
                    results.tidy([run])
                    outcome = _complete(run, asked(config.metrics), machine)
                    if run.missing_pictures(machine.formats_of_runs):
                        _draw_missing(run, config, machine)
                        outcome = replace(outcome, record=run.record)
                else:
                    claims[config.digest] = claim
                    mine.append(config)
            except FAILURES as error:  # whatever it is, the other runs go on
                outcome = _failed(config, error)
            if outcome is not None:
                yield outcome
        trained: list[Trained] = []
        if mine:
            try:
                images = images_of(mine[0], machine)
                trained = _train(mine, images, results, machine, callbacks)
            except FAILURES as error:
                yield from (_failed(config, error) for config in mine)
        for one in trained:
            config, claim = one.config, claims[one.config.digest]
            try:
                outcome = _finish(one, images, results, machine, claim)
                claim.release()
                slow = {name: each for name, each in asked(config.metrics).items() if each.metric.slow}
                if outcome.record is not None and slow:
                    later = _complete(results.find(config.digest), slow, machine)
                    outcome = replace(later, failure=outcome.failure or later.failure)
            except FAILURES as error:
                outcome = _failed(config, error)
            claim.release()
            yield outcome
    finally:
        for claim in claims.values():
            claim.release()


def _failed(config: RunConfig, error: Exception) -> Outcome:
    return Outcome(config.digest, failure=in_one_line(error))


def _precision(config: RunConfig, machine: Machine) -> str:
    """Return the arithmetic of a run's networks on this machine."""
    return usual_precision(machine.device) if config.precision == USUAL else config.precision


def _arithmetic(config: RunConfig, machine: Machine):
    """Set torch's global settings for a run. Models and networks of others need not be deterministic."""
    network = config.hyperparameters.get("network")
    is_ours = MODELS.is_built_in(config.model) and (network is None or NETWORKS.is_built_in(network))
    return arithmetic(torch.device(machine.device), _precision(config, machine), strict=is_ours)


def _train(
    configs: Sequence[RunConfig],
    images: Dataset,
    results: Results,
    machine: Machine,
    callbacks: Sequence[Callback] = (),
) -> list[Trained]:
    """Train the models of these configurations, each in its folder."""
    first = configs[0]
    seeds = ", ".join(str(config.seed) for config in configs)
    at_once = " at once" if len(configs) > 1 else ""
    about = f"{first.model} on {first.dataset}, protocol {first.protocol_name}, seed {seeds}{at_once}"
    say(about, machine.quiet)
    device, precision = torch.device(machine.device), _precision(first, machine)
    paths = [results.folder / config.folder for config in configs]
    with _arithmetic(first, machine), code_of_model(first.model, RunFailed):
        networks = []
        for config in configs:
            network = make_model(config, images.image_shape).to(device, memory_format=torch.channels_last)
            fuse(network)
            if precision == "bf16":
                compute_in_bfloat16(network)
            networks.append(network)
        if networks[0].supervision == "none":
            (config,), (path,), (network,) = configs, paths, networks
            _prepare(path)
            generator = torch.Generator(device).manual_seed(config.seed)
            history = fit(network, images, generator)
            return [Trained(config, path, network, history, len(images.train_rows()), {})]
        members = []
        with ExitStack() as loggers:
            for config, path, network in zip(configs, paths, networks, strict=True):
                show_dataset(network, images, config.seed)
                batches = make_batches(config, images, network, device)
                validation = make_validation(config, images, network, device)
                _prepare(path)
                own = opened(machine.log, path, str(config), config.to_json() | {"digest": config.digest})
                called = [*callbacks, *loggers.enter_context(own)]
                checkpoint = path / "checkpoint.safetensors"
                members.append(Member(network, batches, checkpoint, validation=validation, callbacks=called))
            train_members(members, first.protocol, machine.quiet)
    trained = []
    for config, path, one in zip(configs, paths, members, strict=True):
        rows, history = len(one.batches.order), one.history
        validated = {} if one.validation is None else one.validation.report()
        trained.append(Trained(config, path, one.model, history, rows, validated, one.failure, one.at_once))
    return trained


def _finish(trained: Trained, images: Dataset, results: Results, machine: Machine, claim: Claim) -> Outcome:
    """Encode and score what was trained, and write the run."""
    if trained.failure is not None:
        raise trained.failure
    config, path, network, history = trained.config, trained.path, trained.network, trained.history
    history.write_csv(path / "history.csv")
    device, precision = torch.device(machine.device), _precision(config, machine)
    with _arithmetic(config, machine):
        table, rows, encode_seconds = _encode(config, network, images, device, machine.quiet)
        began = time.monotonic()
        # The slow ones follow once the run is recorded: an interruption does not lose what is computed.
        wanted = {name: one for name, one in asked(config.metrics).items() if not one.metric.slow}
        with _scoring(list(wanted), machine.quiet) as progress:
            scores = compute(wanted, table, config.seed, progress)
        score_seconds = time.monotonic() - began

        from safetensors.torch import save

        parameters = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        write_atomically(path / "model.safetensors", save(parameters))
        write_atomically(path / "codes.safetensors", table_file(table, rows))
        joined = []
        with code_of_model(config.model, RunFailed):
            report = reported(network, images.image_shape) | trained.validated
            formats = machine.formats_of_runs
            pictures = draw_pictures(path, network, images, table, rows, config.title, formats)
            if network.encode_groups is not None:
                joined = evidence(network, images, rows, table.labels, config.seed, device)
    trained_on = config.protocol.steps * config.protocol.batch_size
    train_seconds = history.seconds / trained.at_once  # its share
    record = {
        "format": FORMAT,
        "digest": config.digest,
        "folder": str(config.folder.as_posix()),
        "config": config.to_json(),
        "image_shape": list(images.image_shape),
        "report": report,
        "blocks": {name: [block.start, block.stop] for name, block in table.blocks.items()},
        "scored_rows": len(rows),
        "train_rows": trained.num_rows,
        "files": {name: digest((path / name).read_bytes()) for name in (*FILES, *[p.name for p in pictures])},
        **recorded(scores),
        "losses": history.last_tenth(),
        "evidence": joined,
        "timings": {
            "train_seconds": round(train_seconds, 3),
            "trained_at_once": trained.at_once,
            "train_images_per_second": round(trained_on / train_seconds, 1) if trained_on else None,
            "encode_seconds": round(encode_seconds, 3),
            "score_seconds": round(score_seconds, 3),
        },
        "environment": environment_of(device) | {"precision": precision},
    }
    if claim.is_lost():  # this process was suspended for long: the run is another's now
        return Outcome(config.digest, busy=True)
    run = results.write(record)
    (path / "checkpoint.safetensors").unlink(missing_ok=True)
    return _outcome(run, scores)


def _encode(
    config: RunConfig, network: torch.nn.Module, images: Dataset, device: torch.device, quiet: bool
) -> tuple[CodeTable, np.ndarray, float]:
    """Return the code table of a run, the dataset rows that it was made from, and the seconds of encoding."""
    began = time.monotonic()
    rows = choose_rows(images, config.protocol.rows)
    try:
        with code_of_model(config.model):
            table = encode_model(network, images, rows, device, group_by=config.group_by, quiet=quiet)
            seconds = time.monotonic() - began
            if network.reconstruction is not None:
                table.reconstruction = reconstruction_errors(network, images, rows, config.seed, device)
            wanted = asked(config.metrics).values()
            if can_swap(network) and any("swaps" in one.metric.needs for one in wanted):
                say("decoding swapped images", quiet)
                table.swaps = swaps(network, images, table, rows, config.group_by, device)
    except DislabError as error:
        raise RunFailed(f"encoding failed after training: {error}") from error
    return table, rows, seconds


def _complete(run: Run, wanted: Mapping[str, Asked], machine: Machine) -> Outcome:
    """Compute the scores that a finished run lacks of those that are asked for."""
    with _scoring(list(wanted) if run.lacks(wanted) else [], machine.quiet) as progress:
        return _outcome(run, run.add_scores(wanted, progress))


def _draw_missing(run: Run, config: RunConfig, machine: Machine) -> None:
    """Draw the pictures that a finished run lacks, of its parameters and codes."""
    say(f"drawing the pictures of {config}", machine.quiet)
    images, missing = images_of(config, machine), run.missing_pictures(machine.formats_of_runs)
    rows = choose_rows(images, config.protocol.rows)
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder), run.model, images, run.codes, rows
        with _arithmetic(config, machine), code_of_model(config.model, RunFailed):
            drawn = draw_pictures(*scene, config.title, machine.formats_of_runs)
        run.add_files({path.name: path.read_bytes() for path in drawn if path.name in missing})


@contextmanager
def _scoring(names: list[str], quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show which of these scores is computed; a metric of several scores is called with the first."""
    with Bar("scoring", len(names), quiet=quiet or not names) as bar:
        yield lambda name: bar.update(names.index(name), name)
        bar.update(len(names))


def _outcome(run: Run, scores) -> Outcome:
    failures = [
        f"metric '{name}' failed, the other scores are kept in {run.path}: {cause}"
        for name, cause in scores.failed.items()
    ]
    return Outcome(run.record["digest"], run.record, failures[0] if failures else "")


def _prepare(path: Path) -> None:
    """Make a run's folder, and remove what a killed process left half written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        sweep(path)
    except OSError as error:
        raise RunFailed(f"cannot make the run's folder '{path}': {error.strerror}") from None


def environment_of(device: torch.device) -> dict[str, object]:
    """Return versions and machine, as a record has them."""
    return {
        "dislab": dislab.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": importlib.metadata.version("scikit-learn"),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
    }
