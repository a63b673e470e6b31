"""Records: what a finished run leaves. Only this module and `lines` know what a results folder looks like.

results/
    records.jsonl                           a line for each finished run: its record
    leaderboard.csv                         a line for each configuration
    scores.csv                              a line for each run and score
    claims/                                 which process does which run now
    shapes3d-rendered/quick/mlvae-1a2b3c4d5e6f/seed0/
        run.json                            the same record, for reading
        model.safetensors                   the trained parameters
        codes.safetensors                   the code table
        history.csv                         loss terms over the steps
        *.png, *.gif                        pictures, and on wish *.svg or *.pdf
        checkpoint.safetensors              while training: parameters, optimiser and random state

A run is finished once its line is in records.jsonl, which is written after all else. Files of several
machines join by concatenation: of two records of one run the last counts. The folders of runs may be gone:
tables and figures are made from records alone.

A record holds its own digest, and those of the run's other files: what has changed since it was written is
named, and is never taken for a result. A file that dislab did not write is never overwritten.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from dislab.claim import Claim, claimed, sweep_claims
from dislab.errors import DislabError, DislabWarning, RunFailed
from dislab.files import check_own, is_sealed, not_own, sweep, write_atomically
from dislab.runs.config import RunConfig
from dislab.runs.finished import NoRecord, NotWhole, Run, as_json, read_record, record_in
from dislab.runs.lines import NAMED, RECORDS, Lines, home_of, is_records

CLAIMS = "claims"
SHORT = 400  # bytes in which a line names its run


class Results:
    """A results folder.

    Parameters
    ----------
    folder : its path; it need not exist as long as nothing is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.lines = Lines(self.folder)
        self._is_swept = False  # whether the claims of killed processes were removed

    @classmethod
    def around(cls, path: str | Path) -> Results | None:
        """Return the results folder that a path is or lies in, see `home_of`; or None."""
        home = home_of(path)
        return None if home is None else cls(home)

    def create(self) -> None:
        """Make the folder, and check that it can be written to.

        Raises
        ------
        DislabError : it cannot, or a file that would be overwritten is none of dislab's.
        """
        path = self.folder / RECORDS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_own(self.folder / "leaderboard.csv", self.folder / "scores.csv")
            if path.is_file() and not is_records(path):
                raise not_own(path)
            if not path.is_file():
                with self.lock():
                    if not path.is_file():  # there may be run folders alone
                        self.lines.refresh()
                        write_atomically(path, self.lines.of_folders)
            with path.open("ab"):
                pass
        except (OSError, RunFailed) as error:
            why = getattr(error, "strerror", None) or error
            raise DislabError(f"cannot write to the output folder '{self.folder}': {why}") from None

    @property
    def damaged(self) -> list[str]:
        """A line for every record that is left out because it is damaged, see `Lines.damaged`."""
        return self.lines.damaged()

    def find(self, digest: str) -> Run | None:
        """Return the finished run of a configuration with this digest, or None."""
        record = next(self.lines.records([digest]), None)
        return None if record is None else self.run_of(record)

    def finished(self, config: RunConfig) -> Run | None:
        """Return the finished run of a configuration; one whose line is lost has its run.json left."""
        run = self.find(config.digest)
        if run is None:
            try:
                record = read_record(self.folder / config.folder)
            except NotWhole:
                return None
            run = self.write(record) if record["digest"] == config.digest else None
        return run

    def each(self, within: str | Path | None = None) -> Iterator[Run]:
        """Yield all finished runs, one by one; with `within`, those whose folder lies in that folder.

        Raises
        ------
        DislabError : the folder does not exist, or a record has another format.
        """
        if not self.folder.is_dir():
            raise DislabError(f"results folder '{self.folder}' does not exist")
        part = "." if within is None else os.path.relpath(Path(within).resolve(), self.folder.resolve())
        for record in self.lines.records():
            if part == "." or Path(record["folder"]).is_relative_to(part):
                yield self.run_of(record)

    def runs(self, within: str | Path | None = None) -> list[Run]:
        """Return what `each` yields, sorted by path."""
        was_on = gc.isenabled()
        gc.disable()  # all these objects stay: to look for garbage among them takes a third of the time
        try:
            return sorted(self.each(within), key=lambda run: run.record["folder"])
        finally:
            if was_on:
                gc.enable()

    def run_of(self, record: dict) -> Run:
        """Return the run of a record of this folder."""
        return Run(self.folder / record["folder"], record, self)

    def write(self, record: dict) -> Run:
        """Add a finished run, or its new scores: its run.json, and then a line of records.jsonl.

        Raises
        ------
        RunFailed : the files cannot be written.
        """
        path, line = self.folder / RECORDS, as_json(record)
        run = self.run_of(record_in(line, path))
        run.write()
        with self.lock():
            size = None
            try:
                with path.open("ab+") as file:
                    size, last = file.tell(), _last_line(file)
                    again = b"\n" if last else b""
                    if last and not is_sealed(last + b"\n"):  # a process was killed while it wrote it
                        again = self._again(last, record["digest"])
                        if again is None:  # it stays, and is named
                            again = b"\n"
                        else:
                            size -= len(last)
                    file.truncate(size)
                    file.write(again + line)
            except OSError as error:
                if size is not None:
                    os.truncate(path, size)  # no half line stays on a full disk
                raise RunFailed(f"cannot write '{path}': {error.strerror}") from None
        return run

    def _again(self, line: bytes, written: str) -> bytes | None:
        """Return what stands in place of a record that was cut off: that in the run.json which it names.

        Nothing does if it is the record that is being written, or too short to name a run. None is returned
        if there is no such run.json.
        """
        match = NAMED.search(line)
        if match is None:
            return b"" if len(line) < SHORT else None
        try:
            record = read_record(self.folder / match[1].decode(errors="replace"))
        except DislabError:
            return None
        return b"" if record["digest"] == written else as_json(record)

    def tidy(self, runs: Iterable[Run]) -> dict[str, str]:
        """Remove what killed processes left of finished runs; return a line for each damaged run.json.

        A damaged one is written anew from the records, and the line is by the digest of its run.
        """
        damaged = {}
        for run in runs:
            if not run.path.is_dir():
                continue
            sweep(run.path)
            digest = run.record["digest"]
            with suppress(RunFailed, OSError):  # a folder that cannot be written to
                if not run.is_tidy and (claim := self.claim(digest)).take():
                    try:
                        text = self._mend(self.find(digest) or run)
                        if text:
                            damaged[digest] = text
                        (run.path / "checkpoint.safetensors").unlink(missing_ok=True)
                    finally:
                        claim.release()
        if not self._is_swept:
            sweep_claims(self.folder / CLAIMS)
            self._is_swept = True
        return damaged

    def _mend(self, run: Run) -> str:
        """Make run.json and the record of a run the same; return a line if run.json is damaged, else ""."""
        try:
            kept = read_record(run.path)
        except NoRecord:
            run.write()
            return ""
        except NotWhole as error:
            run.write()
            return f"{error}; it is written anew from the records"
        # Records of several machines may have been joined, and this run.json may be of another training.
        if kept["files"] != run.record["files"]:
            return ""
        # A process was killed after it wrote run.json, or the line that it wrote then is damaged.
        if kept["digest"] == run.record["digest"] and kept["metrics"].keys() > run.record["metrics"].keys():
            self.write(kept)
        else:
            run.write()
        return ""

    def lock(self):
        """Hold the records and the leaderboard, as a context manager; wait until they are free."""
        return claimed(self.folder / RECORDS)

    def claim(self, digest: str) -> Claim:
        """Return the claim on a run, which is to be taken before the run is begun or changed.

        Claims have a folder of their own: to take one lists its folder, and a row may have thousands of runs.

        Raises
        ------
        RunFailed : the folder of claims cannot be made.
        """
        folder = self.folder / CLAIMS
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFailed(f"cannot make the folder '{folder}': {error.strerror}") from None
        return Claim(folder / digest)

    def claimed(self, digest: str) -> AbstractContextManager:
        """Hold the claim on a run, as a context manager; wait until it is free."""
        return claimed(self.claim(digest).path)


def load(path: str | Path) -> Run:
    """Read a finished run from its folder.

    Raises
    ------
    DislabError : the folder holds no finished run of this version's format.
    """
    return Run(path, results=Results.around(path))


def runs_in(folder: str | Path) -> list[Run]:
    """Return the finished runs of a results folder, or of a folder within one, sorted by path.

    A record that is damaged is left out, and a `DislabWarning` names its run.

    Raises
    ------
    DislabError : the folder does not exist, or its records cannot be read.
    """
    results = results_of(folder)
    runs = results.runs(within=folder)
    for line in results.damaged:
        warnings.warn(line, DislabWarning, stacklevel=2)
    return runs


def results_of(folder: str | Path) -> Results:
    """Return the results folder that a folder is or lies in; without records, the folder itself."""
    return Results.around(folder) or Results(folder)


def _last_line(file) -> bytes:
    """Return what follows the last end of a line in an open file."""
    end = file.seek(0, os.SEEK_END)
    last = b""
    while end and b"\n" not in last:
        begin = max(0, end - 2**16)
        file.seek(begin)
        last, end = file.read(end - begin) + last, begin
    return last[last.rfind(b"\n") + 1 :]
