"""The comparison of models with golden files: on a folder made here and on the reference's."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dislab.benchmarks import goldens, model_goldens, reference

FOLDER = Path(os.environ.get("DISLAB_DATA", "")).parent / "goldens" / "models"
NAMES = sorted(goldens.load())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Two cases of a golden whose function squares x and halves y, and one case without a function."""

    def toy(given: goldens.Given) -> dict[str, object]:
        square = given["x"] ** 2
        return {"square": square, "half": given["y"] / 2, "wrong": square}

    monkeypatch.setitem(goldens.GOLDENS, "toy", (toy, frozenset(["wrong"])))
    x = np.array([1.0, 2.0, -30.0])
    arrays = {"x": x, "square": x**2, "wrong": x**3}
    write_case(tmp_path, "toy", arrays, y=3.0, half=1.5)
    write_case(tmp_path, "again", arrays | {"square": x**2 * [1, 1, 1 + 9e-9]}, y=4.0, half=2.0)
    return tmp_path


def write_case(folder: Path, case: str, arrays: dict, golden: str = "toy", **scalars: float) -> None:
    about = {
        "golden": golden,
        "tolerance": 1e-8,
        "arrays": {name: {"meaning": ""} for name in arrays},
        "scalars": {name: {"value": value, "meaning": ""} for name, value in scalars.items()},
    }
    (folder / f"{case}.json").write_text(json.dumps(about))
    np.savez(folder / f"{case}.npz", **arrays)


def results(folder: Path, case: str) -> dict[str, str]:
    return {line.quantity: line.result for line in model_goldens.compare(folder, case)}


def test_inputs_are_not_lines_and_what_is_not_followed_is_shown(folder, tmp_path, capsys):
    table = tmp_path / "table.csv"
    assert reference.main([str(folder), "--out", str(table)]) == 0
    expected = {"square": "ok", "half": "ok", "wrong": "not followed"}
    assert results(folder, "toy") == results(folder, "again") == expected
    lines = pd.read_csv(table).set_index(["case", "quantity"])
    assert len(lines) == 6
    wrong = lines.loc["toy", "wrong"]
    assert (wrong["reference"], wrong["ours"], wrong["difference"]) == (-27_000, 900, 27_900)
    assert wrong["note"] == "at [2] of [3]"
    # Relative to values above 1, and the element that is nearest to its limit is shown.
    assert lines.loc[("again", "square"), "difference"] == pytest.approx(-9e-9 * 900, rel=1e-6)
    assert "toy    2 ok, 1 not followed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "quantity", "result"),
    [
        ({"square": np.array([1.0, 4.0, 900.00001])}, "square", "differs"),
        ({"square": np.array([1.0, 4.0, np.nan])}, "square", "differs"),
        ({"square": np.array([1.0, 4.0])}, "square", "differs"),
        ({"cube": np.zeros(2)}, "cube", "not compared"),
    ],
)
def test_anything_out_or_not_compared_fails(folder, capsys, change, quantity, result):
    x = np.array([1.0, 2.0, -30.0])
    write_case(folder, "toy", {"x": x, "square": x**2, "wrong": x} | change, y=3.0, half=1.5)
    assert results(folder, "toy")[quantity] == result
    assert reference.main([str(folder), "--cases", "again"]) == 0
    assert reference.main([str(folder)]) == 1
    assert f"1 {result}" in capsys.readouterr().out


def test_a_golden_without_a_function_or_without_an_input_is_not_compared(folder, capsys):
    write_case(folder, "strange", {"x": np.zeros(3)}, golden="no such")
    assert results(folder, "strange") == {"x": "not compared"}
    write_case(folder, "strange", {"x": np.zeros(3)})
    assert results(folder, "strange") == {"x": "not compared"}  # the function lacks y
    assert reference.main([str(folder), "--cases", "strange"]) == 1
    assert "KeyError: 'y'" in capsys.readouterr().out
    write_case(folder, "strange", {"x": np.zeros(3)}, y=1.0, half=0.5)
    assert results(folder, "strange") == dict.fromkeys(["half", "square", "wrong"], "ok") | {
        "square": "not compared",  # the golden has none of these two
        "wrong": "not compared",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("{}", "tolerance"), ('{"arrays": {"v": {}}, "tolerance": 0}', "lacks v")],
)
def test_a_damaged_golden_is_one_clear_line(folder, capsys, text, message):
    (folder / "toy.json").write_text(text)
    assert reference.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and "toy" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"), [(("--cases", "betatc*"), "again, toy"), (("--metrics", "mig"), "--metrics")]
)
def test_what_cannot_be_compared_is_one_clear_line(folder, capsys, arguments, message):
    assert reference.main([str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no folder of goldens beside $DISLAB_DATA")
@pytest.mark.parametrize("name", NAMES)
def test_the_goldens_of_the_models(name):
    if not (FOLDER / f"{name}.json").is_file():
        pytest.skip("the folder has no such golden")
    failed = [line for line in model_goldens.compare(FOLDER, name) if line.failed]
    assert not failed
