"""Read records.jsonl: where each record lies in it, which are damaged, and what stands in for a lost file."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dislab.claim import Claim
from dislab.errors import DislabError
from dislab.files import is_sealed, open_file
from dislab.runs.finished import FORMAT, NotWhole, as_json, read_record, record_in

RECORDS = "records.jsonl"
FOLDERS = "folders"  # are read in place of that
HEAD = re.compile(rb'{"format": (\d{1,9}), "digest": "([^"]+)", "check": ')  # of a line
BEGIN = b'{"format": '
NAMED = re.compile(rb'"folder": "([^"]+)"')  # in a line, also in a damaged one


class Lines:
    """The lines of records.jsonl in a results folder.

    Only where they lie is kept. A line is read and parsed when it is used: those of ten thousand runs are
    110 MB. If there is no records.jsonl, the run.json of every run folder stands in for it.

    Parameters
    ----------
    folder : the results folder.
    """

    def __init__(self, folder: Path):
        self.path = folder / RECORDS
        self._places: dict[str, tuple[int, int]] = {}  # by digest: a line's first byte, and how many
        self._damaged: dict[str, bytes] = {}  # lines that are left out, by what they are called
        # Which file was read, how many bytes and lines of it, and the last bytes of these.
        self._read: tuple = (None, 0, 0, b"")
        self._last = b""  # the last line, if it has no end
        self.of_folders = b""  # the lines that stand in for the file

    def refresh(self) -> None:
        """Find the records that were added since the last time; only new lines of the file are read."""
        try:
            with open_file(self.path) as file:
                status = os.fstat(file.fileno())
                which, (before, begin, _, last) = (status.st_dev, status.st_ino), self._read
                file.seek(begin - len(last))
                if which != before or file.read(len(last)) != last:  # another file than before
                    self._places, self._damaged, self._read = {}, {}, (which, 0, 0, b"")
                self._find(file)
        except (FileNotFoundError, NotADirectoryError):
            if self._read[0] != FOLDERS:
                self._places, self._damaged, self._read = {}, {}, (FOLDERS, 0, 0, b"")
                self.of_folders = b"".join(self._lines_of_folders())
                self._find(io.BytesIO(self.of_folders))
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> DislabError:
        return DislabError(f"the records '{self.path}' cannot be read: {error.strerror or error}")

    def _find(self, file: BinaryIO) -> None:
        """Find the records in what was not read yet of a file."""
        which, begin, number, _ = self._read
        file.seek(begin)
        self._last = b""
        for line in file:
            whole = line.removesuffix(b"\n") + b"\n"  # joined files may lack the last line's end
            if whole != line and not is_sealed(whole):  # it is being written, or its process was killed
                self._last = line
                break
            number += 1
            self._take(whole, begin, f"line {number} of '{self.path}'")
            begin += len(line)
            self._read = which, begin, number, line[-100:]

    def _take(self, line: bytes, begin: int, name: str) -> None:
        """Keep where a line lies, or name it as damaged."""
        head = HEAD.match(line)
        if head and int(head[1]) == FORMAT and is_sealed(line):
            digest = head[2].decode()
            self._places.pop(digest, None)
            self._places[digest] = begin, len(line)
            folder = NAMED.search(line)[1] if self._damaged else b""
            for other, damaged in list(self._damaged.items()):  # of the same run, which was done again
                its_head, its_folder = HEAD.match(damaged), NAMED.search(damaged)
                if (its_head and its_head[2] == head[2]) or (its_folder and its_folder[1] == folder):
                    del self._damaged[other]
        elif line.strip():
            record_in(line, self.path)  # which raises if it is one of another format
            half = line.rfind(BEGIN)  # files were joined, the first of which ends within a line
            if half > 0 and is_sealed(line[half:]):
                self._take(line[half:], begin + half, name)
                line = line[:half]
            self._damaged[name] = line

    def _lines_of_folders(self) -> Iterator[bytes]:
        """Yield the record in every run folder below as a line, but of none in another results folder."""
        folder = self.path.parent
        for path in sorted(folder.rglob("run.json")):
            home = home_of(path)
            if home is None or not home.resolve().is_relative_to(folder.resolve()):
                of_run = path.parent.relative_to(folder).as_posix()
                try:
                    yield as_json(read_record(path.parent) | {"folder": of_run})
                except NotWhole:
                    self._damaged[f"'{path}'"] = json.dumps({"folder": of_run}).encode()

    def damaged(self) -> list[str]:
        """Return a line for every record that is left out because it is damaged.

        A damaged record of a run that has a later one is not named.
        """
        self.refresh()
        is_written = False
        if self._last:
            with suppress(OSError):  # a folder that cannot be written to
                is_written = not Claim(self.path).is_free()
            self.refresh()  # its writer may just have ended
        damaged = dict(self._damaged)
        if self._last and not is_written:
            damaged[f"the last line of '{self.path}'"] = self._last
        named = []
        for name, line in damaged.items():
            match = NAMED.search(line)
            run = f": the record of {match[1].decode(errors='replace')}" if match else ""
            named.append(f"{name} is damaged and left out{run}")
        return named

    def digests(self) -> list[str]:
        """Return the digests of all records, in their order."""
        self.refresh()
        return list(self._places)

    def records(self, digests: Iterable[str] | None = None) -> Iterator[dict]:
        """Yield all records, in their order; with `digests`, those of these that are there."""
        digests = self.digests() if digests is None else digests
        self.refresh()
        try:
            is_file = self._read[0] != FOLDERS
            with open_file(self.path) if is_file else io.BytesIO(self.of_folders) as file:
                for digest in digests:
                    if digest not in self._places:
                        continue
                    begin, size = self._places[digest]
                    file.seek(begin)
                    line = file.read(size).removesuffix(b"\n") + b"\n"
                    record = record_in(line, self.path)
                    if record is not None and record["digest"] == digest:
                        yield record
                    else:
                        self._damaged[f"a record in '{self.path}'"] = line
                        self._places.pop(digest)
        except OSError as error:
            raise self._unreadable(error) from None


def home_of(path: str | Path) -> Path | None:
    """Return the results folder that a path is or lies in: the nearest with records; else None."""
    path = Path(path)
    # As the user wrote it, if that goes far enough up.
    homes = (path, *path.parents, *path.resolve().parents)
    return next((home for home in homes if is_records(home / RECORDS)), None)


def is_records(path: Path) -> bool:
    """Return whether a file holds records, or nothing yet: a results folder is known by it."""
    try:
        with open_file(path) as file:
            first = file.readline(200)
            return not first or first.startswith(BEGIN) or b"\n" + BEGIN in first + file.read()
    except OSError:
        return False
