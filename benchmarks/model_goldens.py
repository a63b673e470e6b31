"""Compare dislab's models with a folder of model goldens: NAME.json and NAME.npz, see `read`.

The functions that give dislab's values are in `dislab.benchmarks.goldens`.
"""

from __future__ import annotations

import json
import math
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from dislab.benchmarks.goldens import Given, load
from dislab.benchmarks.lines import Line, header, row
from dislab.errors import DislabError


def cases_in(folder: Path) -> list[str]:
    """Return the names of the model goldens in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.json") if path.with_suffix(".npz").is_file())


def read(folder: Path, case: str) -> tuple[str, float, dict[str, object]]:
    """Return the name of the golden that a case is an example of, its tolerance, and its values by name.

    The JSON names the golden ("golden"), the tolerance, and the scalars: {name: {"value": number or list}}.
    The arrays are in the .npz file. Both are values alike.
    """
    try:
        about = json.loads((folder / f"{case}.json").read_text())
        with np.load(folder / f"{case}.npz") as file:
            if not isinstance(file, NpzFile):
                raise ValueError("the .npz file holds a single array")
            values: dict[str, object] = dict(file)
        values |= {name: scalar["value"] for name, scalar in about.get("scalars", {}).items()}
        missing = about.get("arrays", {}).keys() - values.keys()
        if missing:
            raise ValueError(f"the .npz file lacks {', '.join(sorted(missing))}")
        return about.get("golden", case), float(about["tolerance"]), values
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DislabError(f"the golden '{case}' in '{folder}' cannot be read: {error!r}") from error


def compare(folder: Path, case: str) -> list[Line]:
    """Return a line for every quantity of a case that is no input."""
    name, tolerance, values = read(folder, case)
    given = Given(values, folder)
    function, not_followed = load().get(name, (None, frozenset()))
    ours: dict[str, object] = {}
    failure = f"no function of the golden '{name}'"
    if function is not None:
        failure = "neither read nor returned by its function"
        try:
            ours = function(given)
        except Exception as error:  # whatever the formula raises: the other goldens are compared all the same
            failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
    lines = []
    for quantity, reference in values.items():
        if quantity in ours:
            lines.append(
                compare_values(
                    case, quantity, reference, ours[quantity], tolerance, quantity not in not_followed
                )
            )
        elif not ours or quantity not in given.read:
            lines.append(Line(case, quantity, math.nan, math.nan, tolerance, "not compared", failure))
    for quantity in ours.keys() - values.keys():
        note = "the golden has no such quantity"
        lines.append(Line(case, quantity, math.nan, math.nan, tolerance, "not compared", note))
    return lines


def compare_values(case: str, quantity: str, reference, ours, tolerance: float, followed: bool) -> Line:
    """Return the line of a quantity, at the element that differs most.

    The tolerance is of the difference; for values above 1, relative to them. NaN agrees with NaN only.
    """
    reference, ours = np.asarray(reference, dtype=float), np.asarray(ours, dtype=float)
    if reference.shape != ours.shape:
        note = f"the reference has the shape {list(reference.shape)}, ours is {list(ours.shape)}"
        return Line(case, quantity, math.nan, math.nan, tolerance, "differs", note)
    if not reference.size:
        return Line(case, quantity, math.nan, math.nan, tolerance, "no value", "the reference is empty")
    allowed = tolerance * np.where(np.isfinite(reference), np.abs(reference), 1).clip(min=1)
    same = (reference == ours) | (np.isnan(reference) & np.isnan(ours))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0, np.nan_to_num(np.abs(ours - reference), nan=np.inf))
    within = bool((difference <= allowed).all())
    worst = np.unravel_index(np.argmax(difference / np.maximum(allowed, 1e-300)), reference.shape)
    note = f"at {list(map(int, worst))} of {list(reference.shape)}" if reference.ndim else ""
    result = ("ok" if within else "differs") if followed else "not followed"
    return Line(
        case, quantity, float(reference[worst]), float(ours[worst]), float(allowed[worst]), result, note
    )


def run(folder: Path, pattern: str) -> list[Line]:
    """Return the lines of the cases whose names match, and print them as a table, then a summary."""
    known = cases_in(folder)
    cases = [case for case in known if fnmatchcase(case, pattern)]
    if not cases:
        raise DislabError(f"no case in '{folder}' is called '{pattern}': there are {', '.join(known)}")
    widths = max(map(len, cases)), max(len(name) for case in cases for name in read(folder, case)[2])
    print(header(widths, "quantity"))
    lines = []
    for case in cases:
        for line in compare(folder, case):
            lines.append(line)
            print(row(widths, *line.cells()), flush=True)
    print()
    for case in cases:
        print(f"{case:<{widths[0]}}  {summarise([line for line in lines if line.case == case])}")
    return lines


def summarise(lines: list[Line]) -> str:
    """Return how many lines have which result."""
    results = [line.result for line in lines]
    return ", ".join(f"{results.count(result)} {result}" for result in dict.fromkeys(results))
