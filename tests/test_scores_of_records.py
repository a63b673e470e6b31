"""What a record says of a score: what computed it, its direction, its settings, and its remarks."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dislab
from dislab.cli import main
from dislab.errors import DislabError, DislabWarning, RunFailed
from dislab.registry import METRICS
from dislab.report.board import board_of
from dislab.report.leaderboard import render
from dislab.runs import perform
from dislab.runs.config import RunConfig
from dislab.runs.finished import as_json
from dislab.runs.machine import Machine
from dislab.runs.resolve import check, check_settings, complete, resolve
from dislab.scoring.protocols import metric_of, metric_settings_of
from dislab.scoring.request import request
from dislab.scoring.score import Scores, score, standardised
from dislab.scoring.table import CodeTable

METRIC = """
import warnings
import dislab


@dislab.register_metric("half", direction="down")
def half(table, rng, *, factor: float = 1.0):
    warnings.warn("a remark", dislab.DislabWarning)
    return {"half": VALUE * factor, "half_beside": 1.0}
"""


@pytest.fixture
def table() -> CodeTable:
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, size=(600, 2))
    codes = factors * [0.01, 5.0] + [0.5, 0] + 0.002 * rng.normal(size=(600, 2))
    return CodeTable(codes, factors, logvar=np.full((600, 2), -3.0))


@pytest.fixture
def runs(tiny_dataset, tmp_path, monkeypatch, isolated):
    """A function that writes the plug-in and does the runs of two seeds, with this score."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(perform, "draw_pictures", lambda *scene: [])

    def do(value: float, metrics=("half",), seeds=(0, 1)) -> list[dislab.Run]:
        Path("half.py").write_text(METRIC.replace("VALUE", str(value)))
        dislab.load_plugin("half.py")
        for seed in seeds:
            dislab.run("oracle", tiny_dataset, seed=seed, metrics=list(metrics))
        return dislab.runs_in("results")

    return do


def test_a_score_is_computed_again_if_the_text_of_its_metric_has_changed(runs, capsys):
    assert [run.scores["half"] for run in runs(0.5)] == [0.5, 0.5]
    before = Path("results/records.jsonl").read_text()
    assert [run.scores["half"] for run in runs(0.5)] == [0.5, 0.5]
    assert Path("results/records.jsonl").read_text() == before, "an unchanged metric is not called again"
    assert [run.scores["half"] for run in runs(0.25)] == [0.25, 0.25]
    Path("half.py").write_text(METRIC.replace("VALUE", "0.75").replace('"half_beside"', '"half_other"'))
    assert main(["leaderboard", "--plugin", "half.py"]) == 0
    assert (
        "another version of the metric computed: half (2 of 2); `dislab evaluate`" in capsys.readouterr().err
    )
    assert main(["evaluate", "--metrics", "half", "--plugin", "half.py"]) == 0
    for run in dislab.runs_in("results"):
        assert dict(run.scores) == {"half": 0.75, "half_other": 1.0}, "nothing of the old version stays"
    assert main(["leaderboard", "--plugin", "half.py"]) == 0
    assert "another version" not in capsys.readouterr().err


def test_a_metric_that_fails_is_not_taken_for_computed(runs):
    """Neither its score nor what stands beside it is kept, and the next call asks for it again."""
    for _ in range(2):
        with pytest.raises(dislab.RunFailed, match=r"returned half = nan, .* \(.*half.py, line 6\)"):
            runs("float('nan')", seeds=[0])
    [run] = dislab.runs_in("results")
    assert dict(run.scores) == {} and run.record["metrics"] == {}
    assert [run.scores["half"] for run in runs(0.5, seeds=[0])] == [0.5]


def test_an_interruption_loses_no_score_that_was_computed(tiny_dataset, tmp_path, monkeypatch, isolated):
    """Slow scores are computed once the run is recorded, and each is recorded before the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(perform, "draw_pictures", lambda *scene: [])
    called = []

    @dislab.register_metric("slow_one", slow=True)
    def slow_one(table, rng):
        called.append("one")
        return 1.0

    @dislab.register_metric("slow_two", slow=True)
    def slow_two(table, rng):
        called.append("two")
        if called.count("two") == 1:
            raise KeyboardInterrupt
        return 2.0

    @dislab.register_metric("broken")
    def broken(table, rng):
        called.append("broken")
        raise ValueError("it is broken")

    metrics = ["slow_one", "mig", "slow_two"]
    with pytest.raises(KeyboardInterrupt):
        dislab.run("oracle", tiny_dataset, metrics=metrics)
    [run] = dislab.runs_in("results")
    assert run.scores.keys() & {*metrics} == {"slow_one", "mig"}
    run = dislab.run("oracle", tiny_dataset, metrics=metrics)
    assert called == ["one", "two", "two"] and run.scores["slow_two"] == 2
    called.clear()
    with pytest.raises(RunFailed, match=r"'broken' failed, the other scores are kept in .*: it is broken"):
        dislab.run("oracle", tiny_dataset, metrics=["slow_one", "broken"], out="other")
    assert called == ["broken", "one"], "what failed is not computed again with the slow ones"
    assert "slow_one" in dislab.runs_in("other")[0].scores


def test_force_computes_scores_anew(runs):
    runs(0.5, seeds=[0])
    path = Path("results/records.jsonl")
    record = json.loads(path.read_text())
    path.write_bytes(as_json(record | {"scores": {"half": 9.0}}))
    for options, expected in (([], 9.0), (["--force"], 0.5)):
        assert main(["evaluate", "--metrics", "half", "--plugin", "half.py", *options]) == 0
        assert dislab.runs_in("results")[0].scores["half"] == expected


def test_a_run_whose_folder_is_gone_keeps_the_scores_of_another_version(runs, tiny_dataset):
    [run] = runs(0.5, seeds=[0])
    run.path.rename("elsewhere")
    [run] = runs(0.25, seeds=[0])
    assert run.scores["half"] == 0.5
    with pytest.raises(dislab.RunFailed, match="is gone"):
        dislab.run("oracle", tiny_dataset, metrics=["half", "mig"])
    with pytest.raises(dislab.RunFailed, match="is gone"):
        run.add_scores(["half"], again=True)


def test_tables_know_the_direction_of_a_metric_that_is_not_loaded(runs):
    runs(0.5)
    METRICS._entries.pop("half")
    frame = dislab.leaderboard("results", rank_by="half")
    assert frame.attrs["directions"] == {"half": "down"} and frame.attrs["remarks"] == []
    records = [run.record for run in dislab.runs_in("results")]
    records[0] |= {"scores": {"half": 3.0}, "digest": "aaaaaaaaaaaa-0"}
    Path("results/records.jsonl").write_bytes(b"".join(map(as_json, records)))
    assert list(dislab.leaderboard("results", rank_by="half")["half_mean"]) == [0.5, 3], "the best first"


def test_a_cell_of_fewer_seeds_than_its_row_says_so(runs, capsys):
    [first, _] = runs(0.5)
    first.add_scores(["mig"])
    board = board_of("results")
    for style in ("table", "markdown", "latex"):
        text = render(board, style)
        assert f"{board.frame['mig_mean'].iloc[0]:.3f} (n=1)" in text and text.count("(n=") == 1
    assert main(["evaluate", "--metrics", "half,mig", "--plugin", "half.py"]) == 0


@pytest.mark.filterwarnings("always::dislab.errors.DislabWarning")
def test_a_remark_is_recorded_shown_and_a_warning(runs, table, capsys):
    [run] = runs(0.5, seeds=[0])
    assert run.scores.metrics["half"]["notes"] == ["a remark"]
    assert main(["evaluate", "--metrics", "half", "--plugin", "half.py"]) == 0
    assert "half: a remark" in capsys.readouterr().out
    with pytest.warns(DislabWarning, match="^half: a remark$") as caught:
        dislab.evaluate(codes=table.mean, factors=table.factors, metrics=["half"])
    assert caught[0].filename == __file__
    np.savez("codes.npz", codes=table.mean, factors=table.factors)
    assert main(["evaluate", "codes.npz", "--metrics", "half", "--plugin", "half.py"]) == 0
    assert capsys.readouterr().err.count("half: a remark\n") == 1


def test_a_remark_that_begins_with_the_name_of_its_metric_is_not_named_twice():
    scores = Scores()
    notes = ["sap is 0.1 and would be 0.2", "codes are small"]
    scores.metrics = {"sap@num_train=9": {"notes": notes}, "mig": {"notes": notes[1:]}}
    assert [line for _, line in scores.notes()] == [notes[0], f"sap@num_train=9: {notes[1]}"]


def test_settings_of_a_metric_are_checked_and_make_a_protocol_of_their_own(table, isolated):
    arrays = {"codes": table.mean, "factors": table.factors}
    usual = dislab.evaluate(**arrays, metrics=["sap", "mig"])
    other = dislab.evaluate(
        **arrays, metrics=["sap", "mig"], metric_settings={"sap": {"continuous_factors": True}}
    )
    assert other["mig"] == usual["mig"] and other["sap"] != usual["sap"]
    assert other.protocols["sap"] == "continuous_factors=True" and other.protocols["mig"] == "locatello2019"
    by_name = score(table, ["sap@continuous_factors=True", "sap"])
    assert by_name["sap@continuous_factors=True"] == other["sap"] and by_name["sap"] == usual["sap"]
    same = dislab.evaluate(**arrays, metrics=["sap"], metric_settings={"sap": {"num_train": 10_000}})
    assert same.protocols["sap"] == "locatello2019", "a protocol's own value is no change"
    group = dislab.evaluate(
        **arrays, metrics=["dci_fast"], num_train=200, metric_settings={"dci_fast": {"num_test": 100}}
    )
    assert set(group.protocols.values()) == {"num_test=100+num_train=200"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sap": {"continous_factors": True}},
            "setting of sap 'continous_factors': did you mean 'continuous",
        ),
        ({"sap": {"num_train": "many"}}, "sap: num_train is 'many': it must be a whole number"),
        ({"sap": {"num_train": 0}}, "sap: num_train is 0: it must be 1 or more"),
        ({"sap": {"scale": "units"}}, "sap: scale is 'units': choose raw, unit"),
        ({"sapp": {}}, "unknown metric 'sapp': did you mean 'sap'"),
        ({"mig": {}}, "metric_settings names mig, which is not among the metrics to compute"),
        ({"sap": 5}, "metric_settings of sap is 5: it must map settings to values"),
    ],
)
def test_wrong_settings_are_one_line(table, settings, message):
    with pytest.raises(DislabError, match=message):
        dislab.evaluate(codes=table.mean, factors=table.factors, metrics=["sap"], metric_settings=settings)


def test_a_request_may_name_settings(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert request(["sap@num_train=10000", "mig@scale=unit"]) == ("sap", "mig@scale=unit")
    assert request(["betavae_score@batch_size=32"], "softtpr2024") == ("betavae_score@batch_size=32",)
    assert request(["betavae_score@softtpr2024+batch_size=32"]) == (
        "betavae_score@softtpr2024+batch_size=32",
    )
    assert request(["default@scale=unit"]) == ("default@scale=unit",)
    assert request(None, "softtpr2024") == ("default@softtpr2024",)
    assert request(["sap", "default"]) == ("default", "sap")
    for wrong, message in (
        ("sap@bin=5", "unknown setting of sap 'bin'"),
        ("default@scal=unit", "unknown setting of a metric 'scal': did you mean 'scale'"),
        ("sap@softtpr", "unknown metric protocol 'softtpr'"),
        ("sap@num_train=5+fast", "'fast' has no ="),
    ):
        with pytest.raises(DislabError, match=message):
            request([wrong])
    monkeypatch.setattr(perform, "draw_pictures", lambda *scene: [])
    config = resolve("oracle", tiny_dataset, Machine(), metrics=["mig", "sap@scale=unit"])
    run = dislab.run("oracle", tiny_dataset, metrics=["mig", "sap@scale=unit"])
    assert run.config.metrics == config.metrics and {"mig", "sap@scale=unit"} <= set(run.scores)
    assert dislab.leaderboard("results").attrs["directions"] == {"mig": "up", "sap@scale=unit": "up"}


def test_a_configuration_that_is_read_is_checked_as_one_that_is_written(tiny_dataset, tmp_path):
    machine = Machine(out=str(tmp_path))
    study = complete(
        check_settings("vae", tiny_dataset, machine, metrics=["mig", "pose_error"]), machine, True
    )
    assert check(study, machine) == study, "a study's record is repeated, with a score that does not apply"
    auto = replace(study, hyperparameters=study.hyperparameters | {"network": "auto"}, metrics=("mig",))
    assert check(auto, machine).hyperparameters["network"] == "conv"
    with pytest.raises(DislabError, match="unknown setting of sap 'bin'"):
        check(replace(study, metrics=("sap@bin=5",)), machine)
    with pytest.raises(DislabError, match="it is of format 5, not 9"):
        RunConfig.from_json({"format": 5, "config": study.to_json()})
    with pytest.raises(DislabError, match=r"kl@scale=unit cannot be computed .* scale=unit changes the dens"):
        resolve("vae", tiny_dataset, machine, metrics=["mig", "kl@scale=unit"])


def test_unit_scale_standardises_the_codes_and_refuses_densities(table):
    unit = standardised(table)
    np.testing.assert_allclose(unit.mean.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(unit.mean.std(0), 1, rtol=1e-5)
    deviation = table.mean.astype(np.float64).std(0)
    np.testing.assert_allclose(np.exp(unit.logvar / 2) * deviation, np.exp(table.logvar / 2), rtol=1e-4)
    constant = standardised(CodeTable(np.full((9, 1), 0.3), np.arange(9)))
    assert (constant.mean == 0).all()
    rounded = np.float32(1234.567) + np.spacing(np.float32(1234.567)) * (np.arange(9) % 2)
    almost = standardised(CodeTable(rounded[:, None], np.arange(9), logvar=np.zeros((9, 1))))
    assert (almost.mean == 0).all() and (almost.logvar == 0).all(), "it varies in its last digit only"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DislabWarning)
        scores = dislab.evaluate(
            codes=table.mean,
            logvar=table.logvar,
            factors=table.factors,
            scale="unit",
            metrics=["factorvae_score", "sap", "kl"],
        )
    direct = score(unit, ["factorvae_score", "sap"])
    assert {name: scores[name] for name in direct} == dict(direct)
    assert scores["factorvae_score"] == 1 and set(scores.protocols.values()) == {"scale=unit"}
    assert scores.left_out == {"kl": "scale=unit changes the densities of q(z|x)"}


def test_a_setting_is_written_so_that_it_can_be_read():
    settings = metric_settings_of(METRICS["active_units"], "threshold=1e20")
    assert settings.protocol == "threshold=1e20" and settings.arguments == {"threshold": 1e20}
    assert metric_settings_of(METRICS["active_units"], settings.protocol) == settings


def test_a_value_beside_a_score_comes_from_the_longest_name():
    metrics = ["mig", "mig_sampled", "content_entropy", "betavae_score", "betavae_score@softtpr2024"]
    homes = {
        "mig": "mig",
        "mig_sampled_rows": "mig_sampled",
        "content_entropy_k10": "content_entropy",
        "betavae_score_train@softtpr2024": "betavae_score@softtpr2024",
        "migs": None,
        "mig@scale=unit": None,
    }
    assert {score: metric_of(score, metrics) for score in homes} == homes


def test_the_settings_of_a_protocol_reach_the_function_that_has_them():
    settings = metric_settings_of(METRICS["betavae_score"], "softtpr2024+num_test=7")
    assert settings.protocol == "softtpr2024+num_test=7" and settings.scale == "raw"
    assert settings.arguments == {"num_train": 5_000, "num_test": 7, "penalised": False}
    assert metric_settings_of(METRICS["mig"], "softtpr2024").protocol == "locatello2019"
