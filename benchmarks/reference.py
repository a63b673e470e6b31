"""Compare scores and models of dislab with golden files of reference implementations.

    python -m dislab.benchmarks.reference FOLDER [--metrics mig,sap] [--cases 'cars3d*'] [--out FILE.csv]

A FOLDER without goldens.json holds goldens of models, see `dislab.benchmarks.model_goldens`. Another holds
codes and factors of several cases, and their scores by google-research/disentanglement_lib (commit 86a644d),
see `Goldens`. Ours are those of `dislab.evaluate` on the same rows in the same order; the
BetaVAE and FactorVAE scores are means over several seeds on the whole grid of factors. dci and dci_fast take
long and are compared only if they are named. The exit status is 1 if anything differs or is not compared.
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
from dislab.benchmarks import model_goldens
from dislab.benchmarks.lines import Line, header, row, write_csv
from dislab.errors import DislabError
from dislab.registry import unknown_name

SUMMARY = __doc__.partition("\n")[0]
FIRST_TEST_ROW = 10_000
NOISE_ROWS = 4096
CHUNK = 100_000  # rows that are encoded together


class Goldens:
    """A folder of golden files.

    `<grid>__<representation>.npz` is a case, see `Case`. In `goldens.json`, "records" is a list of mappings:
    {case, metric, value, std, parameters, error, …}. A value is a number or a mapping of names to numbers;
    NaN and infinities are strings; `error` is what the reference raised, if it did.

    Parameters
    ----------
    folder : the folder of the files. A folder that does not exist has no cases.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @property
    def found(self) -> bool:
        """Whether the folder has the reference's values."""
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
        """Read a case."""
        return Case(self.folder / f"{name}.npz")


class Case:
    """Codes of factor vectors drawn uniformly, and their encoder in closed form.

    Attributes
    ----------
    arrays : everything in the file.
    factors, codes : int64 [N, K] and float32 [N, D]. The first 10,000 rows are for training, the others for
        testing.
    sizes : numbers of values of the K factors.
    """

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.arrays = dict(file)
        self.codes, self.factors = self.arrays["codes"], self.arrays["factors"].astype(np.int64)
        self.sizes = tuple(int(size) for size in self.arrays["factor_sizes"])

    def rows(self, num_train: int, num_test: int) -> tuple[np.ndarray, np.ndarray]:
        """Return codes and factors of the first training rows, followed by the first test rows."""
        rows = np.r_[:num_train, FIRST_TEST_ROW : FIRST_TEST_ROW + num_test]
        return self.codes[rows], self.factors[rows]

    def grid(self) -> np.ndarray:
        """Return all combinations of factor values, int64 [N, K], the last factor fastest."""
        return np.stack(np.unravel_index(np.arange(math.prod(self.sizes)), self.sizes), axis=-1)

    def encode(self, factors: np.ndarray) -> np.ndarray:
        """Return codes float32 [B, D] of factor vectors [B, K].

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
    """Return the row 0 .. 4095 of the noise table for mixed-radix indices of factors: a 32-bit hash."""
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
    converged : name of our score -> key in the record's "converged_float64", the value when the reference's
        convex problem is solved to convergence. Agreeing with it is as good.
    on_grid : whether rows are sampled from the whole grid; the tolerance is then three standard errors of the
        reference's mean over its seeds, if that is more.
    """

    record: str
    scores: dict[str, str | None]
    tolerance: float
    converged: dict[str, str] | None = None
    on_grid: bool = False


def _dci(prefix: str) -> Comparison:
    scores = {
        f"{prefix}_disentanglement": "disentanglement",
        f"{prefix}_completeness": "completeness",
        f"{prefix}_informativeness": "informativeness_test",
        f"{prefix}_informativeness_train": "informativeness_train",
    }
    return Comparison("dci_3000", scores, 0.02)


def _on_grid(name: str, record: str) -> Comparison:
    scores = {name: "eval_accuracy", f"{name}_train": "train_accuracy"}
    return Comparison(record, scores, 0.01, on_grid=True)


WASSERSTEIN = "gaussian_wasserstein_correlation"
GAUSSIAN = ("gaussian_total_correlation", WASSERSTEIN, f"{WASSERSTEIN}_norm", "mutual_info_score")
EXPLICITNESS = {"explicitness": "test", "explicitness_train": "train"}
CONVERGED = {"explicitness": "explicitness_score_test", "explicitness_train": "explicitness_score_train"}
COMPARISONS = {  # by the name of dislab's metric
    "mig": Comparison("mig", {"mig": None}, 1e-6),
    "modularity": Comparison("modularity", {"modularity": None}, 1e-6),
    "irs": Comparison("irs", {"irs": None}, 1e-4),  # the reference computes in float32
    "sap": Comparison("sap_discrete", {"sap": None}, 0.005),
    "sap_continuous": Comparison("sap_continuous", {"sap_continuous": None}, 1e-6),
    "explicitness": Comparison("explicitness", EXPLICITNESS, 0.005, converged=CONVERGED),
    "gaussian_correlation": Comparison("unsupervised", {name: name for name in GAUSSIAN}, 1e-6),
    "betavae_score": _on_grid("betavae_score", "beta_vae"),
    "factorvae_score": _on_grid("factorvae_score", "factor_vae"),
    "dci": _dci("dci"),
    "dci_fast": _dci("dci_fast"),
}


def compare(goldens: Goldens, case: str, metrics: list[str], num_seeds: int) -> Iterator[Line]:
    """Yield the lines of a case for the metrics that have a record there."""
    chosen = [name for name in metrics if (case, COMPARISONS[name].record) in goldens.records]
    if not chosen:
        return
    file = goldens.case(case)
    grid = None
    for name in chosen:
        comparison = COMPARISONS[name]
        record = goldens.records[case, comparison.record]
        try:
            if comparison.on_grid:
                grid = grid or whole_grid(file)
                ours, failure = on_grid(name, grid, record, num_seeds), ""
            else:
                ours, failure = on_rows(name, file, record), ""
        except DislabError as error:
            ours, failure = {}, f"dislab: {error}"
        for score in comparison.scores:
            yield make_line(case, score, comparison, record, ours, failure)


def whole_grid(file: Case) -> dict[str, np.ndarray]:
    """Return codes and factors of all combinations of factor values."""
    if "table_0" not in file.arrays or "activation" not in file.arrays:
        raise DislabError("the case has no encoder in closed form, so that the grid has no codes")
    if not np.allclose(file.encode(file.factors), file.codes, rtol=1e-5, atol=1e-6):
        raise DislabError("the encoder in closed form does not give the codes of the case")
    grid = file.grid()
    return {"codes": file.encode(grid), "factors": grid}


def on_rows(name: str, file: Case, record: dict) -> dict[str, float]:
    """Return our scores on the rows of the reference."""
    settings = {key: record["parameters"].get(key, 0) for key in ("num_train", "num_test")}
    codes, factors = file.rows(**settings)
    return _scores(codes=codes, factors=factors, metrics=[name], shuffle=False, **settings)


def on_grid(name: str, grid: dict[str, np.ndarray], record: dict, num_seeds: int) -> dict[str, float]:
    """Return our scores on points drawn from the whole grid, as means over seeds."""
    parameters = record["parameters"]
    settings = {"num_train": parameters["num_train"], "num_test": parameters["num_eval"]}
    runs = [_scores(**grid, metrics=[name], seed=seed, **settings) for seed in range(num_seeds)]
    return {score: float(np.mean([run[score] for run in runs])) for score in runs[0]}


def _scores(**arguments) -> dict[str, float]:
    """Return the scores; raise if the metric does not apply."""
    scores = dislab.evaluate(**arguments)
    if scores.left_out:
        raise DislabError("; ".join(scores.left_out.values()))
    return scores


def make_line(
    case: str, score: str, comparison: Comparison, record: dict, ours: dict[str, float], failure: str
) -> Line:
    """Return a line; the reference's value is its converged one if ours is nearer to that."""
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
    else:
        notes.append(f"the reference raised {error}" if error else f"the reference has {value}")
        value = math.nan
    result = "ok" if abs(mine - value) <= tolerance else "differs"
    result = "no value" if math.isnan(value) else result
    return Line(case, score, value, mine, tolerance, result, "; ".join(notes))


def _number(value, key: str | None) -> float:
    return float(value if key is None else value[key])


# The table -----------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m dislab.benchmarks.reference", description=SUMMARY)
    parser.add_argument("folder", help="holds goldens.json and one .npz file per case, or goldens of models")
    parser.add_argument("--metrics", help=f"any of {','.join(COMPARISONS)}; by default all but dci, dci_fast")
    parser.add_argument("--cases", default="*", help="pattern of case names, such as 'cars3d__*'")
    seeds = "ours is the mean over so many, for the BetaVAE and FactorVAE scores (5)"
    parser.add_argument("--seeds", type=int, default=5, help=seeds)
    parser.add_argument("--out", help="write the table as CSV, too")
    options = parser.parse_args(arguments)
    scores = Goldens(options.folder).found
    try:
        lines = run(options) if scores else run_models(options)
    except DislabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.out:
        write_csv(lines, options.out, "metric" if scores else "quantity")
    return int(any(line.failed for line in lines))


def run(options) -> list[Line]:
    """Return the lines of the comparison, and print the table line by line and then the summary."""
    goldens, metrics = Goldens(options.folder), choose_metrics(options.metrics)
    if options.seeds < 1:
        raise DislabError(f"--seeds is {options.seeds}: it must be 1 or more")
    cases = [case for case in goldens.cases if fnmatchcase(case, options.cases)]
    if not cases:
        known = ", ".join(goldens.cases) or "none"
        raise DislabError(f"no case in '{options.folder}' is called '{options.cases}': there are {known}")
    scores = [score for name in metrics for score in COMPARISONS[name].scores]
    widths = max(map(len, cases)), max(map(len, scores))
    print(header(widths, "metric"))
    lines = []
    for case in cases:
        for line in compare(goldens, case, metrics, options.seeds):
            lines.append(line)
            print(row(widths, *line.cells()), flush=True)
    if not lines:
        raise DislabError(f"goldens.json has no record of {', '.join(metrics)} for these cases")
    print()
    for score in scores:
        summary = summarise(score, [line for line in lines if line.quantity == score])
        print(f"{score:<{widths[1]}}  {summary}")
    compared = {COMPARISONS[name].record for name in metrics}
    others = Counter(metric for case, metric in goldens.records if case in cases and metric not in compared)
    if others:
        print(f"not compared: {', '.join(f'{metric} ({number})' for metric, number in others.items())}")
    return lines


def run_models(options) -> list[Line]:
    """Return the lines of a folder of model goldens, and print them."""
    folder = Path(options.folder)
    if not model_goldens.cases_in(folder):
        raise DislabError(f"'{folder}' has no file goldens.json, and no NAME.json with a NAME.npz")
    if options.metrics is not None:
        raise DislabError(
            f"--metrics needs goldens.json, and '{folder}' holds goldens of models: use --cases"
        )
    return model_goldens.run(folder, options.cases)


def choose_metrics(names: str | None) -> list[str]:
    """Return keys of COMPARISONS for names of metrics or scores with commas between; None is the default."""
    if names is None:
        return [name for name in COMPARISONS if name not in ("dci", "dci_fast")]
    home = {score: name for name, comparison in COMPARISONS.items() for score in comparison.scores}
    home |= {name: name for name in COMPARISONS}
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in home:
            raise unknown_name("metric", name, home)
    return list(dict.fromkeys(home[name] for name in wanted))


def summarise(score: str, lines: list[Line]) -> str:
    """Return the number of cases, the number within tolerance, and the worst difference with its case."""
    compared = [line for line in lines if line.result != "no value"]
    text = f"{len(lines)} cases"
    if compared:
        within = sum(line.result == "ok" for line in compared)
        # A score that dislab does not give where the reference does is the worst of all.
        worst = max(compared, key=lambda line: math.inf if math.isnan(line.ours) else abs(line.difference))
        text += f", {within} of {len(compared)} within tolerance, "
        text += f"worst difference {worst.difference:+.1e} ({worst.case})"
    if len(compared) < len(lines):
        text += f", {len(lines) - len(compared)} without a value of the reference"
    return text


if __name__ == "__main__":
    sys.exit(main())
