"""What results folders hold, compared: all but times must be equal bit for bit."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

LEFT_OVER = re.compile(r"\.part$|\.claim-|^checkpoint\.|\.clock-|\.tmp$")
# Of a record: times, and digests of what holds times.
DIFFER = ("timings", "check")
TIMES = ("train_seconds", "images_per_second")  # columns of tables


def names(folder: Path) -> set[str]:
    """Return the relative paths of all that lies below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def left_over(folder: Path) -> list[str]:
    """Return the files below a folder that no finished command leaves."""
    return sorted(name for name in names(folder) if LEFT_OVER.search(name.rpartition("/")[2]))


def lines_of(results: Path) -> list[dict]:
    """Return the records of a results folder in their order; {} stands for a line that is none."""
    records = []
    for line in (results / "records.jsonl").read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            records.append(record if "digest" in record else {})
        except ValueError:
            records.append({})
    return records


def last_records(results: Path) -> dict[str, dict]:
    """Return the last record of each digest."""
    return {record["digest"]: record for record in lines_of(results) if record}


def without_times(record: dict) -> dict:
    """Return a record without what differs between two runs of one configuration."""
    kept = {name: part for name, part in record.items() if name not in DIFFER}
    environment = dict(kept.get("environment", {}))
    environment.pop("finished", None)
    return kept | {"environment": environment}


def table(text: str) -> list[list[str]]:
    """Return the cells of a table without the columns of times."""
    heading, *rows = list(csv.reader(text.splitlines())) or [[]]
    kept = [column for column, name in enumerate(heading) if not name.startswith(TIMES)]
    return [[line[column] for column in kept if column < len(line)] for line in (heading, *rows)]


def content(path: Path):
    """Return what must be equal of a file: all bytes, but for records and tables."""
    if path.name == "run.json":
        try:
            return without_times(json.loads(path.read_text()))
        except ValueError:
            return path.read_bytes()
    if path.suffix == ".csv":
        return table(path.read_text(errors="replace"))
    return path.read_bytes()


def compare(reference: Path, other: Path) -> dict[str, list[str]]:
    """Return what is "lost", "wrong" and "left over" in a folder, beside one that nobody disturbed.

    Both are working folders with the results folder `results` in them.
    """
    problems: dict[str, list[str]] = {"wrong": [], "lost": [], "left over": []}
    expected, found = names(reference), names(other)
    problems["left over"] += left_over(other)
    problems["left over"] += sorted(found - expected - set(problems["left over"]))
    problems["lost"] += sorted(expected - found)
    for name in sorted(expected & found):
        is_compared = (reference / name).is_file() and not name.endswith("records.jsonl")
        if is_compared and content(reference / name) != content(other / name):
            problems["wrong"].append(name)
    for home in sorted(name for name in expected & found if name.endswith("records.jsonl")):
        results = (reference / home).parent, (other / home).parent
        for kind, lines in compare_records(*results).items():
            problems[kind] += lines
    return problems


def compare_records(reference: Path, other: Path) -> dict[str, list[str]]:
    """Return what is "lost" and "wrong" in the records of a results folder."""
    lost, wrong = [], []
    expected, found = last_records(reference), last_records(other)
    usual, number = Counter(), Counter()
    usual.update(record.get("digest") for record in lines_of(reference))
    number.update(record.get("digest") for record in lines_of(other))
    for digest in number.keys() | usual.keys():
        if digest is None:
            wrong.append(f"{number[digest]} damaged lines in records.jsonl")
        elif number[digest] > usual[digest]:
            wrong.append(f"{digest} has {number[digest]} lines in records.jsonl, not {usual[digest]}")
    for digest, record in expected.items():
        if digest not in found:
            lost.append(f"record of {digest}")
            continue
        here = found[digest]
        lost += [f"{name} of {digest}" for name in record["scores"].keys() - here["scores"].keys()]
        wrong += [
            f"{part} of {digest}"
            for part, value in without_times(record).items()
            if without_times(here).get(part) != value
        ]
        run_json = other / here["folder"] / "run.json"
        if run_json.is_file() and as_read(run_json) != {**here, "check": None}:
            wrong.append(f"run.json of {digest} is not its record")
    return {"lost": lost, "wrong": wrong}


def as_read(path: Path) -> dict | None:
    """Return the record of a run.json without its digest, None where it is damaged."""
    try:
        return {**json.loads(path.read_text()), "check": None}
    except ValueError:
        return None
