"""A finished run: its record, and what lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from pathlib import Path

import msgspec

from dislab.claim import Claim, claimed
from dislab.errors import DislabError, RunFailed
from dislab.files import write_atomically
from dislab.runs.config import FORMAT, RunConfig
from dislab.runs.resolve import make_model
from dislab.scoring.protocols import metric_of, protocol_of
from dislab.scoring.request import missing, request
from dislab.scoring.score import Scores, compute
from dislab.scoring.table import CodeTable
from dislab.scoring.table_file import read_table

PARTS = ("config", "scores", "details", "left_out", "metrics", "timings", "environment", "report")
ABOUT = {"direction", "digest"}  # what a record says of a metric


class NotWhole(DislabError):
    """A folder that holds no finished run."""


class Run:
    """A finished run.

    Attributes
    ----------
    path : the run's folder; it may be gone, then only `record`, `config` and `scores` are there.
    record : the content of run.json.
    config : RunConfig.
    scores : Scores.
    codes : CodeTable of the scored rows (read when first used).
    model : the trained torch.nn.Module, on the CPU, in evaluation mode (read when first used).
    history : pandas DataFrame, loss terms by step (read when first used).
    """

    def __init__(self, path: str | Path, record: dict | None = None, results=None):
        self.path = Path(path)
        self.record = read_record(self.path) if record is None else record
        self._results = results

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {len(self.scores)} scores)"

    @property
    def row(self) -> str:
        """The row of the run's configuration, see `RunConfig.row`."""
        return self.record["digest"].rpartition("-")[0]

    @cached_property
    def config(self) -> RunConfig:
        return RunConfig.from_json(self.record["config"])

    @cached_property
    def scores(self) -> Scores:
        scores = Scores(
            self.record["scores"], details=self.record["details"], left_out=self.record["left_out"]
        )
        scores.protocols = {name: protocol_of(name) for name in (*scores, *scores.details)}
        scores.metrics = dict(self.record["metrics"])
        return scores

    @cached_property
    def codes(self) -> CodeTable:
        return read_table(self.path / "codes.safetensors")

    @cached_property
    def model(self):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        model = make_model(self.config, tuple(self.record["image_shape"]))
        path = self.path / "model.safetensors"
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise RunFailed(f"the parameters '{path}' are missing or damaged: {error}") from None
        return model.eval()

    @cached_property
    def history(self):
        import pandas as pd

        path = self.path / "history.csv"
        try:
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise RunFailed(f"the history '{path}' is missing or damaged: {error}") from None

    def write(self) -> None:
        """Write run.json, if the run's folder is there."""
        if self.path.is_dir():
            text = json.dumps(self.record, indent=1, default=plain) + "\n"
            write_atomically(self.path / "run.json", text.encode())

    def tidy(self) -> None:
        """Mend what a process left that was killed right after its line in the records."""
        is_whole = (self.path / "run.json").is_file() and not (self.path / "checkpoint.safetensors").exists()
        if self.path.is_dir() and not is_whole and Claim(self.path).is_free():
            self.write()
            for left in (self.path / "checkpoint.safetensors", *self.path.glob("*.part")):
                left.unlink(missing_ok=True)

    @property
    def gone(self) -> str:
        """The line for a user who asks for scores of a run whose folder is gone."""
        why = "is gone: its codes cannot be scored again (another --out trains it again)"
        return f"the run's folder '{self.path}' {why}"

    def lacks(self, asked: Iterable[str], again: bool = False) -> bool:
        """Return whether the run lacks any of the scores of a request, see `dislab.scoring.request.missing`.

        If its folder is gone, a score that another version of the metric computed is not lacking.
        """
        lacking = missing(asked, self.record, again)
        if lacking and not again and not self.path.is_dir():
            lacking = lacking.keys() - self.record["metrics"].keys()
        return bool(lacking)

    def add_scores(
        self,
        asked: Iterable[str] | None = None,
        progress: Callable[[str], None] = lambda name: None,
        again: bool = False,
    ) -> Scores:
        """Compute the scores of a request that the run lacks, and add them to its record.

        Parameters
        ----------
        asked : see `dislab.scoring.request`; by default all that apply and are not slow.
        progress : called with the name of each metric before it is computed.
        again : compute all scores of the request, also those that the run has.

        Returns
        -------
        The scores of this call, with `failed` for those that could not be computed.

        Raises
        ------
        RunFailed : the codes are missing or damaged, or the record cannot be written.
        """
        asked = request(None) if asked is None else tuple(asked)
        if not self.lacks(asked, again):
            return Scores()
        if not self.path.is_dir():
            raise RunFailed(self.gone)
        with claimed(self.path):
            if (self.path / "run.json").is_file():
                self.record = read_record(self.path)  # with what other processes have added
            new = compute(missing(asked, self.record, again), self.codes, self.config.seed, progress)
            if new.metrics:
                self.record = self.record | {
                    part: self._without(new.metrics, part) | values for part, values in recorded(new).items()
                }
                self.__dict__.pop("scores", None)
                if self._results is None:  # the folder of a single run, copied from elsewhere
                    self.write()
                else:
                    self._results.write(self.record)
        return new

    def _without(self, metrics: Collection[str], part: str) -> dict:
        """Return a part of the record without what comes from these metrics."""
        of_run = self.record["metrics"]
        return {name: it for name, it in self.record[part].items() if metric_of(name, of_run) not in metrics}


def recorded(scores: Scores) -> dict[str, dict]:
    """Return scores as a record has them."""
    return {
        "scores": dict(scores),
        "details": scores.details,
        "metrics": scores.metrics,
        "left_out": scores.left_out,
    }


def read_record(path: Path) -> dict:
    """Read the record in a run's folder."""
    try:
        record = json.loads((path / "run.json").read_text())
    except (OSError, ValueError):
        raise NotWhole(f"'{path}' is not a finished run: it has no whole run.json") from None
    check_format(record, path / "run.json")
    return record


def record_of(line: bytes) -> dict | None:
    """Return the record in a line, or None where there is none: parts are missing, or of another type.

    A record of another format is returned as it is, for `check_format`.
    """
    try:
        record = _decoded(line)
        if record["format"] != FORMAT:
            return record
        scores = record["scores"].values()
        parts = [record[name] for name in PARTS] + [record["config"]["protocol"]]
        is_record = all(isinstance(part, dict) for part in parts) and isinstance(record["digest"], str)
        is_record = is_record and isinstance(record["folder"], str) and "\0" not in record["folder"]
        is_record = is_record and all(isinstance(score, int | float) for score in scores)
        is_record = is_record and all(about.keys() >= ABOUT for about in record["metrics"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_record else None


def _decoded(line: bytes):
    """Return what a line of JSON holds. Python's json takes three times as long, but it reads NaN."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return json.loads(line)


def check_format(record: dict, path: Path) -> None:
    if record.get("format") != FORMAT:
        raise DislabError(
            f"'{path}' is of format {record.get('format')}, which an earlier or later dislab wrote: this one "
            f"reads format {FORMAT}; run it again in another folder (--out)"
        )


def plain(number):
    """Return the Python number of a numpy or torch one, such as metrics may put into their lists."""
    return number.item()
