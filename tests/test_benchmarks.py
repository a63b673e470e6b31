"""The comparison with golden files, on a folder made here: another grid, other cases."""

import json
import os
from math import tanh
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dislab
from dislab.benchmarks import reference
from dislab.benchmarks.reference import Goldens

GOLDENS = Goldens(Path(os.environ.get("DISLAB_DATA", "")).parent / "goldens")
SIZES = (3, 2, 4)


@pytest.fixture
def folder(tmp_path) -> Path:
    """One case with six factor-wise tables, two codes and noise; 12,000 rows. No records yet."""
    rng = np.random.default_rng(0)
    arrays = {f"table_{k}": rng.standard_normal((size, 2)) for k, size in enumerate(SIZES)}
    arrays |= {
        "factor_sizes": np.array(SIZES),
        "activation": np.array([1, 0], dtype=np.uint8),
        "noise_table": 0.1 * rng.standard_normal((4096, 2)).astype(np.float32),
        "factors": rng.integers(0, SIZES, size=(12_000, 3)).astype(np.uint8),
        "codes": np.zeros((12_000, 2), np.float32),
    }
    np.savez(tmp_path / "toy__mixed.npz", **arrays)
    case = Goldens(tmp_path).case("toy__mixed")
    arrays["codes"] = case.encode(case.factors)
    np.savez(tmp_path / "toy__mixed.npz", **arrays)
    np.savez(tmp_path / "betavae_points__toy__mixed.npz", train_points=np.zeros(3))
    return tmp_path


def write_records(folder: Path, *records: dict) -> None:
    usual = {"case": "toy__mixed", "std": None, "error": None}
    (folder / "goldens.json").write_text(json.dumps({"records": [usual | record for record in records]}))


def ours(folder: Path, metric: str, num_train: int, num_test: int = 0) -> dislab.Scores:
    codes, factors = Goldens(folder).case("toy__mixed").rows(num_train, num_test)
    settings = {"num_train": num_train, "num_test": num_test, "shuffle": False}
    return dislab.evaluate(codes=codes, factors=factors, metrics=[metric], **settings)


def test_rows_and_codes_of_a_case(folder):
    goldens = Goldens(folder)
    assert goldens.cases == ["toy__mixed"]
    case = goldens.case("toy__mixed")
    grid = case.grid()
    assert grid.shape == (24, 3) and len(np.unique(grid, axis=0)) == 24
    np.testing.assert_array_equal(grid[[0, 1, 4, 8]], [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(case.rows(5, 3)[1], case.factors[[0, 1, 2, 3, 4, 10_000, 10_001, 10_002]])
    tables = [case.arrays[f"table_{k}"] for k in range(3)]
    for index, (f, codes) in enumerate(zip(grid, case.encode(grid), strict=True)):
        word = index  # the hash, in whole numbers
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            word = (word ^ (word >> shift)) * factor % 2**32
        noise = case.arrays["noise_table"][(word ^ (word >> 16)) % 4096]
        total = [sum(float(tables[k][f[k], d]) for k in range(3)) for d in range(2)]
        assert codes == pytest.approx([tanh(total[0]) + noise[0], total[1] + noise[1]], abs=1e-6)


@pytest.mark.skipif(not GOLDENS.found, reason="no folder of goldens beside $DISLAB_DATA")
def test_the_closed_form_gives_the_codes_of_the_golden_files():
    for name in ("shapes3d__mix10", "cars3d__half_entangled"):
        case = GOLDENS.case(name)
        np.testing.assert_allclose(case.encode(case.factors), case.codes, rtol=1e-6, atol=1e-6)


def test_the_table_says_what_agrees_and_what_differs(folder, tmp_path, capsys):
    mig, sap = ours(folder, "mig", 3000)["mig"], ours(folder, "sap", 3000, 1000)["sap"]
    explicit = ours(folder, "explicitness", 3000, 1000)
    test, train = explicit["explicitness"], explicit["explicitness_train"]
    irs, both = {"num_train": 3000}, {"num_train": 3000, "num_test": 1000}
    converged = {"explicitness_score_test": test + 0.004, "explicitness_score_train": train}
    write_records(
        folder,
        {"metric": "mig", "value": mig + 9e-7, "parameters": irs},
        {"metric": "irs", "value": "NaN", "parameters": irs},
        {"metric": "modularity", "value": None, "parameters": irs, "error": "ValueError: no such thing"},
        {"metric": "sap_discrete", "value": sap, "parameters": both},
        {
            "metric": "explicitness",
            "value": {"test": test + 0.02, "train": train},
            "converged_float64": converged,
            "parameters": both,
        },
        {"metric": "udr_lasso", "value": [1, 2], "parameters": {}},
    )
    assert reference.main([str(folder), "--out", str(tmp_path / "table.csv")]) == 0
    table = pd.read_csv(tmp_path / "table.csv").set_index("metric")
    assert table.loc["mig", "difference"] == pytest.approx(-9e-7)
    assert table["result"].to_dict() == {
        "mig": "ok",
        "modularity": "no value",
        "irs": "no value",
        "sap": "ok",
        "explicitness": "ok",
        "explicitness_train": "ok",
    }
    assert 0 <= table.loc["modularity", "ours"] <= 1
    assert "no such thing" in table.loc["modularity", "note"] and "nan" in table.loc["irs", "note"]
    assert "converged" in table.loc["explicitness", "note"]
    printed = capsys.readouterr().out
    assert "1 of 1 within tolerance" in printed and "not compared: udr_lasso (1)" in printed
    write_records(folder, {"metric": "mig", "value": mig + 2e-6, "parameters": irs})
    assert reference.main([str(folder), "--metrics", "mig"]) == 1
    assert "0 of 1 within tolerance, worst difference -2.0e-06 (toy__mixed)" in capsys.readouterr().out


def test_scores_of_the_grid_are_compared_with_the_mean_over_seeds(folder, capsys):
    case = Goldens(folder).case("toy__mixed")
    codes, factors = case.encode(case.grid()), case.grid()
    parameters = {"num_train": 300, "num_eval": 200, "seeds": [0, 1, 2, 3]}
    runs = [
        dislab.evaluate(
            codes=codes, factors=factors, metrics=["factorvae_score"], seed=s, num_train=300, num_test=200
        )
        for s in (0, 1)
    ]
    mean = np.mean([run["factorvae_score"] for run in runs])
    train = np.mean([run["factorvae_score_train"] for run in runs])
    # Two standard errors off on one side; on the other, more than three, and more than 0.01.
    value = {"eval_accuracy": mean + 0.02, "train_accuracy": train + 0.02}
    record = {"metric": "factor_vae", "value": value, "parameters": parameters}
    write_records(folder, record | {"std": {"eval_accuracy": 0.02, "train_accuracy": 0.001}})
    assert reference.main([str(folder), "--metrics", "factorvae_score", "--seeds", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[6] for line in lines if line.startswith("toy__mixed")] == ["ok", "differs"]


def test_a_score_that_dislab_lacks_differs_unless_the_reference_lacks_it_too(folder, capsys):
    with np.load(folder / "toy__mixed.npz") as file:
        arrays = dict(file)
    np.savez(folder / "toy__mixed.npz", **(arrays | {"factors": np.zeros_like(arrays["factors"])}))
    record = {"metric": "mig", "value": 0.5, "parameters": {"num_train": 3000}}
    write_records(folder, record)
    assert reference.main([str(folder)]) == 1
    assert "needs a factor that varies" in capsys.readouterr().out
    write_records(folder, record | {"value": "NaN"})
    assert reference.main([str(folder)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((".",), "no file goldens.json, and no NAME.json"),
        (("--cases", "cars*"), "toy__mixed"),
        (("--metrics", "mgi"), "did you mean 'mig'"),
        (("--metrics", "irs"), "no record of irs"),
        (("--seeds", "0"), "--seeds is 0"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(folder, tmp_path_factory, capsys, arguments, message):
    write_records(folder, {"metric": "mig", "value": 0.5, "parameters": {"num_train": 3000}})
    place = tmp_path_factory.mktemp("empty") if arguments == (".",) else folder
    options = () if arguments == (".",) else arguments
    assert reference.main([str(place), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
