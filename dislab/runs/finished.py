"""A finished run: its record, and what lies in its folder."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dislab.claim import claimed
from dislab.errors import DislabError, RunFailed, said_by
from dislab.files import UNSEALED, digest, is_sealed, open_file, sealed, write_atomically
from dislab.runs.config import EXTERNAL, FORMAT, RunConfig
from dislab.scoring.protocols import metric_of, protocol_of
from dislab.scoring.request import Asked, asked, missing
from dislab.scoring.score import Scores, compute
from dislab.scoring.table import CodeTable
from dislab.scoring.table_file import table_in

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

PARTS = ("config", "scores", "details", "left_out", "metrics", "timings", "environment", "report", "files")
ABOUT = {"direction", "digest"}  # what a record says of a metric
DRAWN_FROM = {"model.safetensors", "codes.safetensors"}  # files that pictures are drawn from


class NotWhole(DislabError):
    """A folder that holds no finished run, or one whose run.json is damaged."""


class NoRecord(NotWhole):
    """A folder without a run.json."""


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

    def _repr_html_(self) -> str:
        return self.scores._repr_html_(f"{self.config}: {self.path}")

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
        return table_in(self.read("codes.safetensors"))

    @cached_property
    def model(self) -> nn.Module:
        from safetensors.torch import load

        from dislab.runs.resolve import make_model

        content = self.read("model.safetensors")
        model = make_model(self.config, tuple(self.record["image_shape"]))
        try:
            model.load_state_dict(load(content))
        except RuntimeError as error:
            raise RunFailed(
                f"the parameters in '{self.path}' are of another model: {said_by(error)}"
            ) from None
        return model.eval()

    @cached_property
    def history(self) -> pd.DataFrame:
        import pandas as pd

        return pd.read_csv(io.BytesIO(self.read("history.csv")))

    def read(self, name: str) -> bytes:
        """Return the content of a file in the run's folder, which must be as the run wrote it.

        Raises
        ------
        RunFailed : the file is missing or damaged, or the codes are another program's and there is no model.
        """
        path = self.path / name
        if self.config.source == EXTERNAL and name not in self.record["files"]:
            raise RunFailed(f"there is no '{path}': the codes of {self.config.model} are another program's")
        try:
            with open_file(path) as file:
                content = file.read()
        except OSError as error:
            raise RunFailed(f"'{path}' cannot be read: {error.strerror}") from None
        if digest(content) != self.record["files"].get(name):
            why = "its bytes are not those that the run wrote"
            raise RunFailed(f"'{path}' is damaged, or of another training of this run: {why}")
        return content

    def write(self) -> None:
        """Write run.json, if the run's folder is there."""
        self.record = record_in(as_json(self.record), self.path)
        if self.path.is_dir():
            text = json.dumps(self.record, indent=1) + "\n"
            write_atomically(self.path / "run.json", text.encode())

    @property
    def is_tidy(self) -> bool:
        """Whether run.json holds the record, and nothing is left of the training."""
        try:
            with open_file(self.path / "run.json") as file:
                record = _decoded(file.read())
        except (OSError, ValueError, RecursionError):
            return False
        # NaN equals nothing but its text.
        is_whole = record == self.record or json.dumps(record) == json.dumps(self.record)
        return is_whole and not (self.path / "checkpoint.safetensors").exists()

    @property
    def gone(self) -> str:
        """The line for a user who asks for scores of a run whose folder is gone."""
        why = "is gone: its codes cannot be scored again (another --out trains it again)"
        return f"the run's folder '{self.path}' {why}"

    def lacks(self, wanted: Mapping[str, Asked], again: bool = False) -> bool:
        """Return whether the run lacks any of the scores asked for, see `dislab.scoring.request.missing`.

        If its folder is gone, a score that another version of the metric computed is not lacking.
        """
        lacking = missing(wanted, self.record, again)
        if lacking and not again and not self.path.is_dir():
            lacking = lacking.keys() - self.record["metrics"].keys()
        return bool(lacking)

    def add_scores(
        self,
        metrics: Iterable[str] | Mapping[str, Asked] | None = None,
        progress: Callable[[str], None] = lambda name: None,
        again: bool = False,
    ) -> Scores:
        """Compute the scores of a request that the run lacks, and add them to its record.

        Parameters
        ----------
        metrics : a request, or what `asked` returns for one, see `dislab.scoring.request`; by default all
            that apply and are not slow.
        progress : called with the name of each metric before it is computed.
        again : compute all scores of the request, also those that the run has.

        Returns
        -------
        The scores of this call, with `failed` for those that could not be computed.

        Raises
        ------
        RunFailed : the codes are missing or damaged, or the record cannot be written.
        """
        wanted = metrics if isinstance(metrics, Mapping) else asked(metrics)
        if not self.lacks(wanted, again):
            return Scores()
        if not self.path.is_dir():
            raise RunFailed(self.gone)
        scores = Scores()
        with self._claimed():
            self.record = self._latest()  # with what other processes have added
            for part in _parts(missing(wanted, self.record, again)):
                began = time.monotonic()
                new = compute(part, self.codes, self.config.seed, progress)
                scores.add(new)
                if new.metrics:
                    self._add(new, time.monotonic() - began)
        return scores

    def _add(self, new: Scores, seconds: float) -> None:
        """Add scores to the record, and the seconds that they took, and write it."""
        timings = self.record["timings"]
        self.record = self.record | {
            part: self._without(new.metrics, part) | values for part, values in recorded(new).items()
        }
        seconds += timings["score_seconds"] or 0
        self.record["timings"] = timings | {"score_seconds": round(seconds, 3)}
        self.__dict__.pop("scores", None)
        self._save()

    def missing_pictures(self, formats: Sequence[str]) -> list[str]:
        """Return the names of the pictures that the run lacks, and that can be drawn again.

        These are the pictures that it left, in each of the formats, and the animation. A run whose parameters
        or codes are gone has none.

        Parameters
        ----------
        formats : some of `dislab.files.FORMATS`.
        """
        files = self.record["files"]
        stems = [name.removesuffix(".png") for name in files if name.endswith(".png")]
        names = [f"{stem}.{kind}" for stem in stems for kind in formats]
        names += [name for name in files if name.endswith(".gif")]
        if not formats or not names or not self.path.is_dir():
            return []
        here = {path.name for path in self.path.iterdir()}
        if not here >= DRAWN_FROM:
            return []
        return [name for name in names if name not in here or name not in files]

    def add_files(self, files: Mapping[str, bytes]) -> None:
        """Write files into the run's folder, and their digests into its record.

        The record comes first: if the process is killed in between, no file looks damaged.

        Raises
        ------
        RunFailed : a file or the record cannot be written.
        """
        with self._claimed():
            before = self._latest()
            digests = before["files"] | {name: digest(content) for name, content in files.items()}
            self.record = before | {"files": digests}
            if digests != before["files"]:
                self._save()
            for name, content in files.items():
                write_atomically(self.path / name, content)

    def _claimed(self) -> AbstractContextManager:
        """Hold the claim on the run, by its folder if it is in no results folder."""
        if self._results is None:
            return claimed(self.path)
        return self._results.claimed(self.record["digest"])

    def _save(self) -> None:
        """Write the record where it belongs."""
        if self._results is None:  # the folder of a single run, copied from elsewhere
            self.write()
        else:
            self.record = self._results.write(self.record).record

    def _latest(self) -> dict:
        """Return the record as it is in the records, or in run.json if the run is in no results folder."""
        if self._results is None:
            return read_record(self.path)
        run = self._results.find(self.record["digest"])
        return self.record if run is None else run.record

    def _without(self, metrics: Collection[str], part: str) -> dict:
        """Return a part of the record without what comes from these metrics."""
        of_run = self.record["metrics"]
        return {name: it for name, it in self.record[part].items() if metric_of(name, of_run) not in metrics}


def _parts(wanted: Mapping[str, Asked]) -> list[dict[str, Asked]]:
    """Return what is asked for in parts: the quick metrics, then each slow one. Each part is recorded alone.

    So an interruption loses no slow metric that was computed.
    """
    parts: dict[object, dict[str, Asked]] = {}
    for name, one in wanted.items():
        call = (one.metric.make, one.settings.protocol) if one.metric.slow else None
        parts.setdefault(call, {})[name] = one
    return sorted(parts.values(), key=lambda part: any(one.metric.slow for one in part.values()))


def recorded(scores: Scores) -> dict[str, dict]:
    """Return scores as a record has them."""
    return {
        "scores": dict(scores),
        "details": scores.details,
        "metrics": scores.metrics,
        "left_out": scores.left_out,
    }


def read_record(path: Path) -> dict:
    """Read the record in a run's folder.

    Raises
    ------
    NotWhole : there is none, or it is damaged.
    DislabError : it is of another format.
    """
    try:
        with open_file(path / "run.json") as file:
            content = file.read()
    except FileNotFoundError:
        raise NoRecord(f"'{path}' is not a finished run: it has no run.json") from None
    except OSError as error:
        raise NotWhole(f"'{path / 'run.json'}' cannot be read: {error.strerror}") from None
    record = record_in(_in_a_line(content), path / "run.json")
    if record is None:
        raise NotWhole(f"'{path / 'run.json'}' is damaged: its bytes are not those that the run wrote")
    return record


def as_json(record: dict) -> bytes:
    """Return the line of a record, whose member "check" is the line's own digest."""
    head = {"format": record["format"], "digest": record["digest"]}
    line = json.dumps(head | {"check": ""} | record | {"check": UNSEALED.decode()}, default=plain)
    return sealed(line.encode() + b"\n")


def _in_a_line(content: bytes) -> bytes:
    """Return JSON as it would be in a line of the records."""
    try:
        return json.dumps(_decoded(content)).encode() + b"\n"
    except (ValueError, RecursionError):
        return content


def record_in(line: bytes, path: Path) -> dict | None:
    """Return the record in a line that `as_json` made; None if the line is damaged.

    Raises
    ------
    DislabError : it is a record of another format.
    """
    try:
        record = _decoded(line)
        is_whole = is_sealed(line)
        if record["format"] != FORMAT and (is_whole or "check" not in record):
            raise DislabError(
                f"'{path}' is of format {record['format']}, which an earlier or later dislab wrote: this one "
                f"reads format {FORMAT}; run it again in another folder (--out)"
            )
        scores = set(map(type, record["scores"].values()))
        parts = [record[name] for name in PARTS] + [record["config"]["protocol"]]
        is_whole = is_whole and all(isinstance(part, dict) for part in parts)
        is_whole = is_whole and _is_within(record["digest"]) and _is_within(record["folder"])
        is_whole = is_whole and scores <= {int, float, bool}
        is_whole = is_whole and all(about.keys() >= ABOUT for about in record["metrics"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_whole else None


def _is_within(path: str) -> bool:
    """Return whether a path of a record leads to nothing outside of its results folder."""
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def _decoded(line: bytes):
    """Return what a line of JSON holds. Python's json takes three times as long, but it reads NaN."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return json.loads(line)


def plain(number):
    """Return the Python number of a numpy or torch one, such as metrics may put into their lists."""
    return number.item()
