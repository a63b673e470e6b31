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
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dislab.claim import Claim, claimed
from dislab.errors import DislabError, RunFailed
from dislab.files import write_atomically
from dislab.progress import say
from dislab.runs.config import RunConfig
from dislab.runs.finished import FORMAT, NotWhole, Run, check_format, plain, read_record, record_of

RECORDS = "records.jsonl"
HEAD = re.compile(rb'{"format": (\d+), "digest": "([^"]+)"')  # of a line


class Results:
    """A results folder.

    Parameters
    ----------
    folder : its path; it need not exist as long as nothing is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._lines: dict[str, bytes] = {}  # of records.jsonl, by digest; parsed when they are used
        self._read: tuple = (None, 0)  # which file was read, and how many bytes of it

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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                with self.lock():
                    if not path.is_file():  # there may be run folders alone
                        write_atomically(path, b"".join(self._refreshed().values()))
            with path.open("ab"):
                pass
        except (OSError, RunFailed) as error:
            why = getattr(error, "strerror", None) or error
            raise DislabError(f"cannot write to the output folder '{self.folder}': {why}") from None

    def _refreshed(self) -> dict[str, bytes]:
        """Return the line of each record by digest; only new lines of the file are read.

        A line that is damaged is left out, and is said. If there is no records.jsonl, the run.json of every
        run folder is read.
        """
        path = self.folder / RECORDS
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                which, begin = (status.st_dev, status.st_ino), self._read[1]
                if which != self._read[0] or status.st_size < begin:  # another file than before
                    self._lines, begin = {}, 0
                file.seek(begin)
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            if self._read[0] is None:
                self._lines, self._read = dict(self._lines_of_folders()), ("folders", 0)
            return self._lines
        except OSError as error:
            raise DislabError(f"the records '{path}' cannot be read: {error.strerror}") from None
        text = text[: text.rfind(b"\n") + 1]  # a last line without its end is still being written
        self._read = which, begin + len(text)
        for line in filter(bytes.strip, text.split(b"\n")):
            # As `write` begins and ends a line; another program may have written it another way.
            head = HEAD.match(line) if line.endswith(b"}}") else None
            digest = head[2].decode() if head and int(head[1]) == FORMAT else None
            if digest is None or digest in self._lines:  # a damaged line must not hide an earlier one
                record = record_of(line)
                if record is None:
                    say(f"a damaged line of '{path}' is left out")
                    continue
                check_format(record, path)
                digest = record["digest"]
            self._lines.pop(digest, None)
            self._lines[digest] = line + b"\n"
        return self._lines

    def _lines_of_folders(self) -> Iterator[tuple[str, bytes]]:
        """Yield the record in every run folder below, by digest, but of none in another results folder."""
        for path in sorted(self.folder.rglob("run.json")):
            home = Results.around(path)
            if home is None or not home.folder.resolve().is_relative_to(self.folder.resolve()):
                try:
                    record = read_record(path.parent)
                except NotWhole:
                    continue
                record["folder"] = path.parent.relative_to(self.folder).as_posix()
                line = json.dumps(record).encode() + b"\n"
                if record_of(line) is not None:
                    yield record["digest"], line

    def records(self) -> Iterator[dict]:
        """Yield all records. Raises DislabError for a record of another format than this version's."""
        for digest in list(self._refreshed()):
            record = self._parsed(digest)
            if record is not None:
                yield record

    def _parsed(self, digest: str) -> dict | None:
        if digest not in self._lines:
            return None
        record = record_of(self._lines[digest])
        if record is None:
            say(f"a damaged line of '{self.folder / RECORDS}' is left out")
            del self._lines[digest]
        return record

    def find(self, digest: str) -> Run | None:
        """Return the finished run of a configuration with this digest, or None."""
        self._refreshed()
        record = self._parsed(digest)
        return None if record is None else self.run_of(record)

    def runs(self, within: str | Path | None = None) -> list[Run]:
        """Return all finished runs, sorted by path; with `within`, those whose folder lies in that folder.

        Raises
        ------
        DislabError : the folder does not exist, or a record has another format.
        """
        if not self.folder.is_dir():
            raise DislabError(f"results folder '{self.folder}' does not exist")
        was_on = gc.isenabled()
        gc.disable()  # all these objects stay: to look for garbage among them takes a third of the time
        try:
            runs = [self.run_of(record) for record in self.records()]
        finally:
            if was_on:
                gc.enable()
        part = "." if within is None else os.path.relpath(Path(within).resolve(), self.folder.resolve())
        if part != ".":
            runs = [run for run in runs if Path(run.record["folder"]).is_relative_to(part)]
        return sorted(runs, key=lambda run: run.record["folder"])

    def run_of(self, record: dict) -> Run:
        """Return the run of a record of this folder."""
        return Run(self.folder / record["folder"], record, self)

    def write(self, record: dict) -> Run:
        """Add a finished run, or its new scores: a line of records.jsonl, and then its run.json.

        Raises
        ------
        RunFailed : the files cannot be written.
        """
        path = self.folder / RECORDS
        line = json.dumps(record, default=plain).encode() + b"\n"
        with self.lock():
            size = None
            try:
                with path.open("ab+") as file:
                    size = file.tell()
                    if size:
                        file.seek(-1, 2)
                        if file.read(1) != b"\n":  # a process was killed while it wrote
                            line = b"\n" + line
                    file.write(line)
            except OSError as error:
                if size is not None:
                    os.truncate(path, size)  # no half line stays on a full disk
                raise RunFailed(f"cannot write '{path}': {error.strerror}") from None
        run = self.run_of(json.loads(line))
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


def load(path: str | Path) -> Run:
    """Read a finished run from its folder.

    Raises
    ------
    DislabError : the folder holds no finished run of this version's format.
    """
    return Run(path, results=Results.around(path))


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
