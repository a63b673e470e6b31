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

A record holds its own digest, and those of the run's other files: what has changed since it was written is
named, and is never taken for a result. A file that dislab did not write is never overwritten.
"""

from __future__ import annotations

import gc
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dislab.claim import Claim, claimed, sweep_claims
from dislab.errors import DislabError, DislabWarning, RunFailed
from dislab.files import check_own, is_sealed, not_own, open_file, sweep, write_atomically
from dislab.runs.config import RunConfig
from dislab.runs.finished import FORMAT, NoRecord, NotWhole, Run, as_json, read_record, record_in

RECORDS = "records.jsonl"
HEAD = re.compile(rb'{"format": (\d{1,9}), "digest": "([^"]+)", "check": ')  # of a line
BEGIN = b'{"format": '
SHORT = 400  # bytes in which a line names its run
NAMED = re.compile(rb'"folder": "([^"]+)"')  # in a line, also in a damaged one


class Results:
    """A results folder.

    Parameters
    ----------
    folder : its path; it need not exist as long as nothing is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._lines: dict[str, bytes] = {}  # of records.jsonl, by digest; parsed when they are used
        self._damaged: dict[str, bytes] = {}  # lines that are left out, by what they are called
        self._read: tuple = (None, 0, 0)  # which file was read, and how many bytes and lines of it
        self._last = b""  # the last line, if it has no end

    @classmethod
    def around(cls, path: str | Path) -> Results | None:
        """Return the results folder that a path is or lies in: the nearest with records; else None."""
        path = Path(path)
        # As the user wrote it, if that goes far enough up.
        homes = (path, *path.parents, *path.resolve().parents)
        return next((cls(home) for home in homes if _is_records(home / RECORDS)), None)

    def create(self) -> None:
        """Make the folder, and check that it can be written to.

        Raises
        ------
        DislabError : it cannot, or a file that would be overwritten is none of dislab's.
        """
        path = self.folder / RECORDS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_own(self.folder / "leaderboard.csv")
            if path.is_file() and not _is_records(path):
                raise not_own(path)
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

        If there is no records.jsonl, the run.json of every run folder is read.
        """
        path = self.folder / RECORDS
        try:
            with open_file(path) as file:
                status = os.fstat(file.fileno())
                which, (before, begin, number) = (status.st_dev, status.st_ino), self._read
                if which != before or status.st_size < begin:  # another file than before
                    self._lines, self._damaged, begin, number = {}, {}, 0, 0
                file.seek(begin)
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            if self._read[0] is None:
                self._lines, self._read = dict(self._lines_of_folders()), ("folders", 0, 0)
            return self._lines
        except OSError as error:
            raise DislabError(f"the records '{path}' cannot be read: {error.strerror or error}") from None
        lines = text.split(b"\n")
        last = lines.pop()
        self._last = b""
        if is_sealed(last + b"\n"):  # joined files may lack the last line's end
            lines.append(last)
        else:  # it is being written, or it was when a process was killed
            text, self._last = text[: len(text) - len(last)], last
        self._read = which, begin + len(text), number + len(lines)
        for position, line in enumerate(lines, start=number + 1):
            self._take(line + b"\n", f"line {position} of '{path}'")
        return self._lines

    def _take(self, line: bytes, name: str) -> None:
        """Keep a line of the records, or name it as damaged."""
        head = HEAD.match(line)
        if head and int(head[1]) == FORMAT and is_sealed(line):
            digest = head[2].decode()
            self._lines.pop(digest, None)
            self._lines[digest] = line
            folder = NAMED.search(line)[1] if self._damaged else b""
            for other, damaged in list(self._damaged.items()):  # of the same run, which was done again
                its_head, its_folder = HEAD.match(damaged), NAMED.search(damaged)
                if (its_head and its_head[2] == head[2]) or (its_folder and its_folder[1] == folder):
                    del self._damaged[other]
        elif line.strip():
            record_in(line, self.folder / RECORDS)  # which raises if it is one of another format
            begin = line.rfind(BEGIN)  # files were joined, the first of which ends within a line
            if begin > 0 and is_sealed(line[begin:]):
                self._take(line[begin:], name)
                line = line[:begin]
            self._damaged[name] = line

    def _lines_of_folders(self) -> Iterator[tuple[str, bytes]]:
        """Yield the record in every run folder below, by digest, but of none in another results folder."""
        for path in sorted(self.folder.rglob("run.json")):
            home = Results.around(path)
            if home is None or not home.folder.resolve().is_relative_to(self.folder.resolve()):
                folder = path.parent.relative_to(self.folder).as_posix()
                try:
                    yield (record := read_record(path.parent))["digest"], as_json(record | {"folder": folder})
                except NotWhole:
                    self._damaged[f"'{path}'"] = json.dumps({"folder": folder}).encode()

    @property
    def damaged(self) -> list[str]:
        """A line for every record that was read and is left out because it is damaged.

        A damaged record of a run that has a later one is not named.
        """
        self._refreshed()
        named, damaged = [], dict(self._damaged)
        is_written = False
        if self._last:
            with suppress(OSError):  # a folder that cannot be written to
                is_written = not Claim(self.folder / RECORDS).is_free()
            self._refreshed()  # its writer may just have ended
        if self._last and not is_written:
            damaged[f"the last line of '{self.folder / RECORDS}'"] = self._last
        for name, line in damaged.items():
            match = NAMED.search(line)
            run = f": the record of {match[1].decode(errors='replace')}" if match else ""
            named.append(f"{name} is damaged and left out{run}")
        return named

    def records(self) -> Iterator[dict]:
        """Yield all records. Raises DislabError for a record of another format than this version's."""
        for digest in list(self._refreshed()):
            record = self._parsed(digest)
            if record is not None:
                yield record

    def _parsed(self, digest: str) -> dict | None:
        if digest not in self._lines:
            return None
        record = record_in(self._lines[digest], self.folder / RECORDS)
        if record is None:
            self._damaged[f"a record in '{self.folder / RECORDS}'"] = self._lines.pop(digest)
        return record

    def find(self, digest: str) -> Run | None:
        """Return the finished run of a configuration with this digest, or None."""
        self._refreshed()
        record = self._parsed(digest)
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
        parents, damaged = set(), {}
        for run in runs:
            if not run.path.is_dir():
                continue
            parents.add(run.path.parent)
            sweep(run.path)
            claim = Claim(run.path)
            with suppress(RunFailed, OSError):  # a folder that cannot be written to
                if not run.is_tidy and claim.take():
                    try:
                        text = self._mend(self.find(run.record["digest"]) or run)
                        if text:
                            damaged[run.record["digest"]] = text
                        (run.path / "checkpoint.safetensors").unlink(missing_ok=True)
                    finally:
                        claim.release()
        for parent in parents:
            sweep_claims(parent)
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


def _is_records(path: Path) -> bool:
    """Return whether a file holds records, or nothing yet: a results folder is known by it."""
    try:
        with open_file(path) as file:
            first = file.readline(200)
            return not first or first.startswith(BEGIN) or b"\n" + BEGIN in first + file.read()
    except OSError:
        return False


def _last_line(file) -> bytes:
    """Return what follows the last end of a line in an open file."""
    end = file.seek(0, os.SEEK_END)
    last = b""
    while end and b"\n" not in last:
        begin = max(0, end - 2**16)
        file.seek(begin)
        last, end = file.read(end - begin) + last, begin
    return last[last.rfind(b"\n") + 1 :]
