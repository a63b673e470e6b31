"""Records: what a finished run leaves. A results folder is read, written and claimed here and nowhere else.

results/
    records.jsonl                           a line for each finished run: its record
    leaderboard.csv
    shapes3d-rendered/quick/mlvae-1a2b3c4d5e6f/seed0/
        run.json                            the same record, for reading
        model.safetensors                   the trained parameters
        codes.safetensors                   the code table
        history.csv                         loss terms over the steps
        *.png                               pictures
        checkpoint.safetensors              while training: parameters, optimiser and random state

A run is finished once its line is in records.jsonl, which is written after all else. Files of several
machines join by concatenation: of two records of one run the last counts. The folders of runs may be gone:
tables and figures are made from records alone.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from dislab.errors import DislabError, RunFailed
from dislab.files import write_atomically
from dislab.progress import say
from dislab.runs.claim import Claim, claimed
from dislab.runs.config import RunConfig
from dislab.runs.resolve import make_model
from dislab.scoring.evaluate import Scores
from dislab.scoring.request import compute, missing, request
from dislab.scoring.table import CodeTable
from dislab.scoring.table_file import read_table

FORMAT = 5
RECORDS = "records.jsonl"


class NotWhole(DislabError):
    """A folder that holds no finished run."""


class Results:
    """A results folder.

    Parameters
    ----------
    folder : its path; it need not exist as long as nothing is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._records: dict[str, dict] = {}
        self._read = 0  # bytes of records.jsonl that are read

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}, {len(self.records())} runs)"

    @classmethod
    def around(cls, path: str | Path) -> Results | None:
        """Return the results folder that a path is or lies in: the nearest with records; else None."""
        path = Path(path)
        # As the user wrote it, if that goes far enough up.
        homes = (path, *path.parents, *path.resolve().parents)
        return next((cls(home) for home in homes if (home / RECORDS).is_file()), None)

    def create(self) -> None:
        """Make the folder, and check that it can be written to.

        Raises
        ------
        DislabError : it cannot.
        """
        path = self.folder / RECORDS
        lines = [] if path.is_file() else [json.dumps(one) + "\n" for one in self.records().values()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), path.open("xb") as file:  # where there are run folders alone
                file.write("".join(lines).encode())
            with path.open("ab"):
                pass
        except OSError as error:
            raise DislabError(
                f"cannot write to the output folder '{self.folder}': {error.strerror}"
            ) from None

    def records(self) -> dict[str, dict]:
        """Return all records by the digest of their configuration; only new lines of the file are read.

        A line that is damaged is left out, and is said. Where there is no records.jsonl, the run.json of
        every run folder is read in its place.

        Raises
        ------
        DislabError : a record has another format than this version's.
        """
        path = self.folder / RECORDS
        try:
            with path.open("rb") as file:
                if file.seek(0, 2) < self._read:  # another file than before
                    self._records, self._read = {}, 0
                file.seek(self._read)
                lines = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return dict(self._records_of_folders())
        except OSError as error:
            raise DislabError(f"the records '{path}' cannot be read: {error.strerror}") from None
        lines = lines[: lines.rfind(b"\n") + 1]  # a last line without its end is still being written
        self._read += len(lines)
        with _no_garbage_collection():
            for line in filter(bytes.strip, lines.splitlines()):
                try:
                    record = json.loads(line)
                    digest = record["digest"]
                except (ValueError, KeyError, TypeError):
                    say(f"a damaged line of '{path}' is left out")
                    continue
                _check_format(record, path)
                self._records.pop(digest, None)
                self._records[digest] = record
        return self._records

    def find(self, config: RunConfig) -> Run | None:
        """Return the finished run of a configuration, or None."""
        record = self.records().get(config.digest)
        return None if record is None else self._run(record)

    def runs(self, within: str | Path | None = None) -> list[Run]:
        """Return all finished runs, sorted by path; with `within`, those whose folder lies in that folder.

        Raises
        ------
        DislabError : the folder does not exist, or a record has another format.
        """
        if not self.folder.is_dir():
            raise DislabError(f"results folder '{self.folder}' does not exist")
        runs = [self._run(record) for record in self.records().values()]
        if within is not None:
            wanted = Path(within).resolve()
            runs = [run for run in runs if run.path.resolve().is_relative_to(wanted)]
        return sorted(runs, key=lambda run: run.path)

    def _records_of_folders(self) -> Iterator[tuple[str, dict]]:
        """Read run.json of every run below the folder, but not of those in other results folders."""
        for path in sorted(self.folder.rglob("run.json")):
            home = Results.around(path)
            if home is None or not home.folder.resolve().is_relative_to(self.folder.resolve()):
                try:
                    record = _read_record(path.parent)
                except NotWhole:
                    continue
                yield record["digest"], record | {"folder": path.parent.relative_to(self.folder).as_posix()}

    def _run(self, record: dict) -> Run:
        return Run(self.folder / record["folder"], record, self)

    def write(self, record: dict) -> Run:
        """Add a finished run, or its new scores: a line of records.jsonl, and then its run.json.

        Raises
        ------
        RunFailed : the files cannot be written.
        """
        path = self.folder / RECORDS
        line = json.dumps(record, default=_plain).encode() + b"\n"
        with self.lock():
            try:
                with path.open("ab+") as file:
                    if file.tell():
                        file.seek(-1, 2)
                        if file.read(1) != b"\n":  # a process was killed while it wrote
                            line = b"\n" + line
                    file.write(line)
            except OSError as error:
                raise RunFailed(f"cannot write '{path}': {error.strerror}") from None
        run = self._run(json.loads(line))
        run.write()
        return run

    def lock(self):
        """Hold the records and the leaderboard, as a context manager; wait until they are free."""
        return claimed(self.folder / RECORDS)

    def claim(self, config: RunConfig) -> Claim:
        """Return the claim on a run, which is to be taken before the run is begun or changed.

        Raises
        ------
        RunFailed : the run's folder cannot be made.
        """
        path = self.folder / config.folder
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFailed(f"cannot make the run's folder '{path}': {error.strerror}") from None
        return Claim(path)


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

    def __init__(self, path: str | Path, record: dict | None = None, results: Results | None = None):
        self.path = Path(path)
        self.record = _read_record(self.path) if record is None else record
        self._results = results or Results.around(self.path)

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
        scores.protocols = dict(self.record["metric_protocols"])
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
            text = json.dumps(self.record, indent=1, default=_plain) + "\n"
            write_atomically(self.path / "run.json", text.encode())

    def lacks(self, asked: Iterable[str]) -> bool:
        """Return whether the run lacks any of the scores of a request, see `dislab.scoring.request`."""
        return bool(missing(asked, self.record))

    def add_scores(
        self, asked: Iterable[str] | None = None, progress: Callable[[str], None] = lambda name: None
    ) -> Scores:
        """Compute the scores of a request that the run lacks, and add them to its record.

        Parameters
        ----------
        asked : see `dislab.scoring.request`; by default all that apply and are not slow.
        progress : called with the name of each metric before it is computed.

        Returns
        -------
        The scores of this call, with `failed` for those that could not be computed.

        Raises
        ------
        RunFailed : the codes are missing or damaged, or the record cannot be written.
        """
        asked = request(None) if asked is None else tuple(asked)
        if not self.lacks(asked):
            return Scores()
        if not self.path.is_dir():
            raise RunFailed(f"the run's folder '{self.path}' is gone: its codes cannot be scored again")
        with claimed(self.path):
            if self._results is not None:  # what other processes have added
                self.record = self._results.records().get(self.config.digest, self.record)
            new = compute(missing(asked, self.record), self.codes, self.config.seed, progress)
            if new or new.left_out:
                self.record = self.record | {
                    part: self.record[part] | values for part, values in recorded(new).items()
                }
                self.record["left_out"] = {
                    name: why for name, why in self.record["left_out"].items() if name not in new
                }
                self.__dict__.pop("scores", None)
                if self._results is None:  # the folder of a single run, copied from elsewhere
                    self.write()
                else:
                    self._results.write(self.record)
        return new


def load(path: str | Path) -> Run:
    """Read a finished run from its folder.

    Raises
    ------
    DislabError : the folder holds no finished run of this version's format.
    """
    return Run(path)


def runs_in(folder: str | Path) -> list[Run]:
    """Return the finished runs of a results folder, or of a folder within one, sorted by path.

    Raises
    ------
    DislabError : the folder does not exist, or its records cannot be read.
    """
    results = Results.around(folder)
    if results is None:
        return Results(folder).runs()
    return results.runs(within=folder)


def recorded(scores: Scores) -> dict[str, dict]:
    """Return scores as a record has them."""
    return {
        "scores": dict(scores),
        "details": scores.details,
        "metric_protocols": scores.protocols,
        "left_out": scores.left_out,
    }


def _read_record(path: Path) -> dict:
    """Read the record in a run's folder."""
    try:
        record = json.loads((path / "run.json").read_text())
    except (OSError, ValueError):
        raise NotWhole(f"'{path}' is not a finished run: it has no whole run.json") from None
    _check_format(record, path / "run.json")
    return record


def _check_format(record: dict, path: Path) -> None:
    if record.get("format") != FORMAT:
        raise DislabError(
            f"'{path}' is of format {record.get('format')}, which an earlier or later dislab wrote: this one "
            f"reads format {FORMAT}; run it again in another folder (--out)"
        )


@contextmanager
def _no_garbage_collection():
    """Create many objects that all stay; to look for garbage among them took a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _plain(number):
    """Return the Python number of a numpy or torch one, such as metrics may put into their lists."""
    return number.item()
