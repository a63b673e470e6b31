"""dislab beside the reference library: its scores on golden files, ours, and the difference.

    python -m dislab.benchmarks.reference FOLDER [--metrics mig,sap] [--cases 'cars3d*'] [--out FILE.csv]

FOLDER holds codes and factors of several cases, and what google-research/disentanglement_lib (commit 86a644d)
made of them; `Goldens` says how. Ours is what `dislab.evaluate` gives: on the same rows in the same order,
or, for the BetaVAE and FactorVAE scores, on the whole grid of factors, as the mean over several seeds. dci
and dci_fast take long and are compared where they are named. The exit status is 1 where any score differs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np

import dislab
from dislab.errors import DislabError
from dislab.registry import unknown_name

FIRST_TEST_ROW = 10_000
NOISE_ROWS = 4096
CHUNK = 100_000  # rows that are encoded together


# The golden files ----------------------------------------------------------------------------------


class Goldens:
    """A folder of golden files.

    `<grid>__<representation>.npz` is a case, see `Case`. In `goldens.json`, "records" is a list of mappings:
    {case, metric, value, std, parameters, error, …}. A value is a number or a mapping of names to numbers;
    NaN and infinities are strings; `error` is what the reference raised, if it did.

    Parameters
    ----------
    folder : where the files lie. One that does not exist has no cases.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @property
    def found(self) -> bool:
        """Whether the reference's values are there."""
        return (self.folder / "goldens.json").is_file()

    @property
    def cases(self) -> list[str]:
        """Names of the cases, sorted."""
        names = (path.stem for path in self.folder.glob("*__*.npz"))
        return sorted(name for name in names if not name.startswith("betavae_points__"))

    @cached_property
    def records(self) -> dict[tuple[str, str], dict]:
        """(case, metric) -> record."""
        records = json.loads((self.folder / "goldens.json").read_text())["records"]
        return {(record["case"], record["metric"]): record for record in records}

    def case(self, name: str) -> Case:
        return Case(self.folder / f"{name}.npz")


class Case:
    """Codes of factor vectors drawn uniformly, and the encoder that they come from, in closed form.

    Attributes
    ----------
    arrays : everything in the file.
    factors, codes : int64 [N, K] and float32 [N, D]. The first 10,000 rows are for training, the others for
        testing.
    sizes : the numbers of values of the K factors.
    """

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.arrays = dict(file)
        self.codes, self.factors = self.arrays["codes"], self.arrays["factors"].astype(np.int64)
        self.sizes = tuple(int(size) for size in self.arrays["factor_sizes"])

    def rows(self, num_train: int, num_test: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes and factors of the first so many training and test rows, one after the other."""
        rows = np.r_[:num_train, FIRST_TEST_ROW : FIRST_TEST_ROW + num_test]
        return self.codes[rows], self.factors[rows]

    def grid(self) -> np.ndarray:
        """Every combination of factor values, int64 [N, K], the last factor fastest."""
        return np.stack(np.unravel_index(np.arange(math.prod(self.sizes)), self.sizes), axis=-1)

    def encode(self, factors: np.ndarray) -> np.ndarray:
        """Codes float32 [B, D] of factor vectors [B, K].

        z_d = b_d + noise_table[h(f), d], with b_d = a_d or, where activation_d is 1, tanh(a_d), and
        a_d = Σ_k table_k[f_k, d]; without a noise table there is no noise.
        """
        codes = np.empty((len(factors), self.codes.shape[1]), np.float32)
        for start in range(0, len(factors), CHUNK):
            chunk = factors[start : start + CHUNK]
            total = sum(self.arrays[f"table_{k}"][column] for k, column in enumerate(chunk.T))
            total = np.where(self.arrays["activation"] == 1, np.tanh(total), total)
            if "noise_table" in self.arrays:
                index = np.ravel_multi_index(tuple(chunk.T), self.sizes)
                total = total + self.arrays["noise_table"][noise_row(index)]
            codes[start : start + CHUNK] = total
        return codes


def noise_row(index: np.ndarray) -> np.ndarray:
    """Row 0 .. 4095 of the noise table for a factor vector's mixed-radix index: a 32-bit hash."""
    index = np.asarray(index, dtype=np.uint32)
    index = (index ^ (index >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    index = (index ^ (index >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (index ^ (index >> np.uint32(16))) % NOISE_ROWS


# What is compared ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A metric of dislab and a record of the reference.

    Attributes
    ----------
    record : the reference's metric.
    scores : name of our score -> key in the record's value, None where that is a number.
    tolerance : of the difference; for values above 1, relative to them.
    converged : name of our score -> key in the record's "converged_float64": what the reference's convex
        problem has when it is solved to the end, which is as good a value to agree with.
    on_grid : whether rows are sampled from the whole grid; the tolerance is then three standard errors of the
        reference's mean over its seeds, if that is more.
    slow : compared only where it is named.
    """

    record: str
    scores: dict[str, str | None]
    tolerance: float
    converged: dict[str, str] | None = None
    on_grid: bool = False
    slow: bool = False


def _dci(prefix: str) -> Comparison:
    scores = {
        f"{prefix}_disentanglement": "disentanglement",
        f"{prefix}_completeness": "completeness",
        f"{prefix}_informativeness": "informativeness_test",
        f"{prefix}_informativeness_train": "informativeness_train",
    }
    return Comparison("dci_3000", scores, 0.02, slow=True)


GAUSSIAN = (
    "gaussian_total_correlation",
    "gaussian_wasserstein_correlation",
    "gaussian_wasserstein_correlation_norm",
    "mutual_info_score",
)
COMPARISONS = {  # by the name of dislab's metric
    "mig": Comparison("mig", {"mig": None}, 1e-6),
    "modularity": Comparison("modularity", {"modularity": None}, 1e-6),
    "irs": Comparison("irs", {"irs": None}, 1e-4),  # the reference computes in float32
    "sap": Comparison("sap_discrete", {"sap": None}, 0.005),
    "explicitness": Comparison(
        "explicitness",
        {"explicitness": "test", "explicitness_train": "train"},
        0.005,
        converged={
            "explicitness": "explicitness_score_test",
            "explicitness_train": "explicitness_score_train",
        },
    ),
    "gaussian_correlation": Comparison("unsupervised", {name: name for name in GAUSSIAN}, 1e-6),
    "betavae_score": Comparison(
        "beta_vae",
        {"betavae_score": "eval_accuracy", "betavae_score_train": "train_accuracy"},
        0.01,
        on_grid=True,
    ),
    "factorvae_score": Comparison(
        "factor_vae",
        {"factorvae_score": "eval_accuracy", "factorvae_score_train": "train_accuracy"},
        0.01,
        on_grid=True,
    ),
    "dci": _dci("dci"),
    "dci_fast": _dci("dci_fast"),
}


@dataclass(frozen=True)
class Line:
    """One score of one case: a row of the table.

    Attributes
    ----------
    reference : NaN where the reference raised, or where its value is no finite number.
    ours : NaN where dislab has no score; `note` then says why.
    result : "ok", "differs", or "no value" where there is none of the reference's to compare with.
    """

    case: str
    metric: str
    reference: float
    ours: float
    tolerance: float
    note: str

    @property
    def difference(self) -> float:
        return self.ours - self.reference

    @property
    def result(self) -> str:
        if math.isnan(self.reference):
            return "no value"
        return "ok" if abs(self.difference) <= self.tolerance else "differs"


def compare(goldens: Goldens, case: str, metrics: list[str], num_seeds: int) -> Iterator[Line]:
    """The lines of a case; metrics without a record there are passed over."""
    chosen = [name for name in metrics if (case, COMPARISONS[name].record) in goldens.records]
    if not chosen:
        return
    file = goldens.case(case)
    grid = None
    for name in chosen:
        comparison = COMPARISONS[name]
        record = goldens.records[case, comparison.record]
        ours, failure = {}, ""
        try:
            if comparison.on_grid:
                grid = grid or whole_grid(file)
                ours = on_grid(name, grid, record, num_seeds)
            else:
                ours = on_rows(name, file, record)
        except DislabError as error:
            failure = f"dislab: {error}"
        for score in comparison.scores:
            yield make_line(case, score, comparison, record, ours, failure)


def whole_grid(file: Case) -> dict[str, np.ndarray]:
    """Codes and factors of every combination of factor values."""
    if "table_0" not in file.arrays or "activation" not in file.arrays:
        raise DislabError("the case has no encoder in closed form, so that the grid has no codes")
    if not np.allclose(file.encode(file.factors), file.codes, rtol=1e-5, atol=1e-6):
        raise DislabError("the encoder in closed form does not give the codes of the case")
    grid = file.grid()
    return {"codes": file.encode(grid), "factors": grid}


def on_rows(name: str, file: Case, record: dict) -> dict[str, float]:
    """Our scores on the rows that the reference had."""
    settings = {key: record["parameters"].get(key, 0) for key in ("num_train", "num_test")}
    codes, factors = file.rows(**settings)
    return _scores(codes=codes, factors=factors, metrics=[name], shuffle=False, **settings)


def on_grid(name: str, grid: dict[str, np.ndarray], record: dict, num_seeds: int) -> dict[str, float]:
    """Our scores on points drawn from the whole grid, the mean over seeds."""
    parameters = record["parameters"]
    settings = {"num_train": parameters["num_train"], "num_test": parameters["num_eval"]}
    runs = [_scores(**grid, metrics=[name], seed=seed, **settings) for seed in range(num_seeds)]
    return {score: float(np.mean([run[score] for run in runs])) for score in runs[0]}


def _scores(**arguments) -> dict[str, float]:
    scores = dislab.evaluate(**arguments)
    if scores.left_out:
        raise DislabError("; ".join(scores.left_out.values()))
    return scores


def make_line(
    case: str, score: str, comparison: Comparison, record: dict, ours: dict[str, float], failure: str
) -> Line:
    key, error = comparison.scores[score], record.get("error")
    value = math.nan if error or record["value"] is None else _number(record["value"], key)
    notes = [failure] if failure else []
    tolerance = comparison.tolerance
    mine = ours.get(score, math.nan)
    if math.isfinite(value):
        if comparison.on_grid:
            seeds = len(record["parameters"]["seeds"])
            tolerance = max(tolerance, 3 * _number(record["std"], key) / math.sqrt(seeds))
        tolerance *= max(1.0, abs(value))
        if score in (comparison.converged or {}) and record.get("converged_float64"):
            converged = _number(record["converged_float64"], comparison.converged[score])
            if abs(mine - converged) < abs(mine - value):
                notes.append(f"nearest: the converged fit; as the reference stops it {value:.6f}")
                value = converged
        if score == GAUSSIAN[0] and ours.get(f"{score}_dependent_dimensions"):
            notes.append(f"infinite but for rounding, which makes it {value:g} in the reference")
            value = math.nan
    elif error:
        notes.append(f"the reference raised {error}")
    else:
        notes.append(f"the reference has {value}")
        value = math.nan
    return Line(case, score, value, mine, tolerance, "; ".join(notes))


def _number(value, key: str | None) -> float:
    return float(value if key is None else value[key])


# The table -----------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dislab.benchmarks.reference",
        description="Scores of dislab beside those of disentanglement_lib, on a folder of golden files.",
    )
    parser.add_argument("folder", help="holds goldens.json and one .npz file per case")
    parser.add_argument("--metrics", help=f"any of {','.join(COMPARISONS)}; by default all but dci, dci_fast")
    parser.add_argument("--cases", default="*", help="pattern of case names, such as 'cars3d__*'")
    parser.add_argument(
        "--seeds", type=int, default=5, help="for the BetaVAE and FactorVAE scores: ours is the mean (5)"
    )
    parser.add_argument("--out", help="write the table as CSV, too")
    options = parser.parse_args(arguments)
    try:
        lines = run(options)
    except DislabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.out:
        write_csv(lines, options.out)
    return int(any(line.result == "differs" for line in lines))


def run(options) -> list[Line]:
    """Compare, printing the table line by line and then the summary."""
    goldens, metrics = Goldens(options.folder), choose_metrics(options.metrics)
    if not goldens.found:
        raise DislabError(f"'{options.folder}' has no file goldens.json")
    if options.seeds < 1:
        raise DislabError(f"--seeds is {options.seeds}: it must be 1 or more")
    cases = [case for case in goldens.cases if fnmatchcase(case, options.cases)]
    if not cases:
        known = ", ".join(goldens.cases) or "none"
        raise DislabError(f"no case in '{options.folder}' is called '{options.cases}': there are {known}")
    scores = [score for name in metrics for score in COMPARISONS[name].scores]
    widths = max(map(len, cases)), max(map(len, scores))
    print(_row(widths, "case", "metric", "reference", "ours", "difference", "tolerance", "", ""))
    lines = []
    for case in cases:
        for line in compare(goldens, case, metrics, options.seeds):
            lines.append(line)
            numbers = (f"{line.reference:.6f}", f"{line.ours:.6f}", f"{line.difference:+.1e}")
            numbers = ("-" if "nan" in number else number for number in numbers)
            print(
                _row(widths, case, line.metric, *numbers, f"{line.tolerance:.1e}", line.result, line.note),
                flush=True,
            )
    if not lines:
        raise DislabError(f"goldens.json has no record of {', '.join(metrics)} for these cases")
    print()
    for score in scores:
        summary = summarise(score, [line for line in lines if line.metric == score])
        print(f"{score:<{widths[1]}}  {summary}")
    compared = {COMPARISONS[name].record for name in metrics}
    others = Counter(metric for case, metric in goldens.records if case in cases and metric not in compared)
    if others:
        print(f"not compared: {', '.join(f'{metric} ({number})' for metric, number in others.items())}")
    return lines


def choose_metrics(names: str | None) -> list[str]:
    """Keys of COMPARISONS for a list of metrics or scores with commas between them; None is all fast ones."""
    if names is None:
        return [name for name, comparison in COMPARISONS.items() if not comparison.slow]
    home = {score: name for name, comparison in COMPARISONS.items() for score in comparison.scores}
    home |= {name: name for name in COMPARISONS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in home:
            raise unknown_name("metric", name, home)
    if not wanted:
        raise DislabError(f"--metrics names none of {', '.join(COMPARISONS)}")
    return list(dict.fromkeys(home[name] for name in wanted))


def summarise(score: str, lines: list[Line]) -> str:
    """How many cases, how many of them within tolerance, the worst difference and where."""
    compared = [line for line in lines if line.result != "no value"]
    text = f"{len(lines)} cases"
    if compared:
        within = sum(line.result == "ok" for line in compared)
        # A score that dislab does not give where the reference does is the worst of all.
        worst = max(compared, key=lambda line: math.inf if math.isnan(line.ours) else abs(line.difference))
        text += f", {within} of {len(compared)} within tolerance, worst difference {worst.difference:+.1e}"
        text += f" ({worst.case})"
    missing = len(lines) - len(compared)
    return text + (f", {missing} without a value of the reference" if missing else "")


def write_csv(lines: list[Line], path: str) -> None:
    import pandas as pd

    columns = ("case", "metric", "reference", "ours", "difference", "tolerance", "result", "note")
    rows = [{column: getattr(line, column) for column in columns} for line in lines]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def _row(widths: tuple[int, int], case, metric, reference, ours, difference, tolerance, result, note) -> str:
    return (
        f"{case:<{widths[0]}}  {metric:<{widths[1]}}  {reference:>11} {ours:>11} {difference:>10} "
        f"{tolerance:>9}  {result:<8}  {note}"
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
