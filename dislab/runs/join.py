"""Join results folders: the records of several, and the files of their runs, in one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dislab.errors import DislabError, RunFailed
from dislab.files import temporary
from dislab.runs.finished import Run
from dislab.runs.record import Results

CODES = "codes.safetensors"
SHOWN = 3  # differences of a run that its line names


@dataclass
class Joined:
    """What became of the runs of one folder.

    Attributes
    ----------
    folder : its path.
    new : number of runs that were added.
    double : number of runs that were there already, with the same values.
    more : number of double runs that brought further scores.
    differing : a line for each run that was there already, with other values.
    damaged : a line for each record that is left out.
    """

    folder: Path
    new: int = 0
    double: int = 0
    more: int = 0
    differing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def runs(self) -> int:
        return self.new + self.double + len(self.differing)


def join(folders: Sequence[Path], results: Results) -> list[Joined]:
    """Add the runs of several results folders to one; return what became of those of each.

    Of a run that several folders have, the values of the first one are kept; those that are in `results`
    already come before all. Scores that only a later folder has are added, if the run's codes are the same.
    The files of a run are hard links where the file system can: no file of a run is changed in place.

    Raises
    ------
    DislabError : a folder does not exist, has no finished run, or has records of another format. Nothing was
        written.
    RunFailed : a file cannot be written. The same call goes on.
    """
    sources = [Results(folder) for folder in folders]
    for source in sources:
        if not source.folder.is_dir():
            raise DislabError(f"results folder '{source.folder}' does not exist")
        if not source.lines.digests():
            hint = "".join(f"; {line}" for line in source.damaged)
            raise DislabError(f"there is no finished run in '{source.folder}'{hint}")
    results.create()
    origin: dict[str, Path] = {}  # by digest: whose values are kept, if not those of `results` itself
    return [_join(source, results, origin) for source in sources]


def _join(source: Results, results: Results, origin: dict[str, Path]) -> Joined:
    joined = Joined(source.folder)
    for run in source.each():
        digest = run.record["digest"]
        before = results.find(digest)
        if before is None:
            target = results.run_of(run.record)
            with results.claimed(digest):  # another process may be doing this run
                before = results.find(digest)
                if before is None:
                    _bring_files(run, target)
                    results.write(run.record)
        if before is None:
            origin[digest] = source.folder
            joined.new += 1
        elif differing := differences(before.record, run.record):
            kept = origin.get(digest, results.folder)
            joined.differing.append(_line(before, kept, source.folder, differing))
        else:
            joined.double += 1
            joined.more += _add(run, before, results)
    joined.damaged = source.damaged
    return joined


def differences(first: dict, other: dict) -> dict[str, tuple]:
    """Return what two records of one run say differently: scores that both have, and their codes' digests."""
    shared = [name for name in first["scores"] if name in other["scores"]]
    values = {name: (first["scores"][name], other["scores"][name]) for name in shared}
    if CODES in first["files"] and CODES in other["files"]:
        values["codes"] = first["files"][CODES], other["files"][CODES]
    return {name: both for name, both in values.items() if json.dumps(both[0]) != json.dumps(both[1])}


def _line(run: Run, kept: Path, other: Path, differing: dict[str, tuple]) -> str:
    """Return the line for a run with other values in another folder."""
    texts = [
        name if name == "codes" else f"{name} {here:.6g} and {there:.6g}"
        for name, (here, there) in differing.items()
    ]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"{run.config} differs: {', '.join(texts[:SHOWN])}{more}; that of '{kept}' is kept, not '{other}'"


def _add(run: Run, before: Run, results: Results) -> bool:
    """Add the files and scores that only a later folder has of a run; return whether there are scores."""
    files_are_those = run.record["files"] == before.record["files"]
    if files_are_those and run.path.is_dir() and not before.path.is_dir():
        _bring_files(run, before)
        before.write()
    more = run.record["metrics"].keys() - before.record["metrics"].keys()
    if not more:
        return False
    digest = before.record["digest"]
    with results.claimed(digest):
        record = results.find(digest).record  # with what other processes have added
        parts = {part: run.record[part] | record[part] for part in ("scores", "details", "metrics")}
        left_out = run.record["left_out"] | record["left_out"]
        parts["left_out"] = {name: why for name, why in left_out.items() if name not in parts["scores"]}
        results.write(record | parts)
    return True


def _bring_files(run: Run, target: Run) -> None:
    """Link or copy the files that a run's record names into the folder of the same run elsewhere."""
    if not run.path.is_dir():
        return
    try:
        target.path.mkdir(parents=True, exist_ok=True)
        for name in _names(run.record["files"]):
            if (run.path / name).is_file():
                with temporary(target.path / name) as beside:
                    try:
                        os.link(run.path / name, beside)
                    except OSError:  # another file system, or one without links
                        shutil.copyfile(run.path / name, beside)
                    beside.replace(target.path / name)
    except OSError as error:
        raise RunFailed(f"cannot write the run's folder '{target.path}': {error.strerror}") from None


def _names(files: Iterable[str]) -> list[str]:
    """Return the names that lie in the run's own folder: records may come from anywhere."""
    return [name for name in files if name not in ("", ".", "..") and Path(name).name == name]
