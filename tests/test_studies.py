"""Studies end to end on a tiny plug-in dataset: what is run and skipped, their tables and figures."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bars import SMALL, runs_of

from dislab.cli import main
from dislab.registry import DATASETS
from dislab.report.frame import KEY, SETTING, names_of_rows, names_of_settings
from dislab.runs.machine import Machine
from dislab.studies.file import read_study, shipped_studies
from dislab.studies.study import check_names, plan

pytestmark = pytest.mark.usefixtures("plugin")
WHOLE = """
title = "A whole study"
steps = 30
batch_size = 16
seeds = [0, 1]
metrics = ["mig"]
rank_by = "content_accuracy"

[[runs]]
model = "mlvae"
dataset = "bars"
metrics = ["mig", "content_scores", "style_scores"]
set = { network = "mlp" }

[[runs]]
model = "vae"
dataset = "bars"
[runs.set]
network = "mlp"
latents = [4, 6]

[[runs]]
model = ["oracle", "vae"]
dataset = "bars"
seeds = [0]
metrics = ["mig", "content_accuracy"]

[[runs]]
model = "vae"
dataset = "mnist"
optional = true
"""


@pytest.fixture(scope="module")
def whole(plugin, tmp_path_factory):
    """The folder of the whole study, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "whole.toml").write_text(WHOLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stream = (folder / "err.txt").open("w")
        patch.setattr("sys.stderr", stream)
        assert main(["bench", "whole.toml"]) == 0
        stream.close()
    return folder / "results" / "whole", (folder / "err.txt").read_text()


def test_a_whole_study_runs_its_product(whole):
    folder, err = whole
    names = [
        (r.config.model, r.config.hyperparameters.get("latents"), r.config.seed) for r in runs_of(folder)
    ]
    expected = [("mlvae", None, 0), ("mlvae", None, 1), ("oracle", None, 0), ("vae", 10, 0)]
    expected += [("vae", latents, seed) for latents in (4, 6) for seed in (0, 1)]
    assert sorted(names, key=str) == sorted(expected, key=str)
    assert "A whole study: 8 runs" in err and "finished before" not in err
    assert re.search(r"run 2 of 8 done, about \d+:\d\d:\d\d left: mlvae on bars, network=mlp, seed 1", err)
    assert "run 8 of 8" in err and "Traceback" not in err
    assert "table 4: 2 run(s) left out, the official files of mnist are not there" in err
    assert "figure" not in err, "both figures are drawn"
    table = pd.read_csv(folder / "leaderboard.csv")
    assert len(table) == 5 and set(table["ranked_by"]) == {"content_accuracy"}
    lines = (folder / "leaderboard.md").read_text().splitlines()
    names = [line.split()[1] for line in lines if line.startswith("| ") and "---" not in line]
    assert lines[1] == "# A whole study" and sorted(names) == [
        "mlvae",
        "model",
        "oracle",
        "vae",
        "vae",
        "vae",
    ]
    assert read_study(folder / "study.toml").title == "A whole study"
    assert WHOLE in (folder / "study.toml").read_text()


def test_what_is_planned_is_what_runs_record(whole):
    folder, _ = whole
    configs = plan(read_study(folder / "study.toml"), Machine())
    assert configs == {run.record["digest"]: run.config for run in runs_of(folder)}


def test_accuracy_over_k_has_the_numbers_of_the_runs(whole):
    folder, _ = whole
    assert (folder / "accuracy_over_k.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(folder / "accuracy_over_k.csv")
    records = [json.loads((run.path / "run.json").read_text()) for run in runs_of(folder, model="mlvae")]
    for quantity in ("accuracy", "entropy"):
        mine = table[(table["model"] == "mlvae") & (table["quantity"] == quantity)]
        curves = np.array([record["details"][f"content_{quantity}_curve"] for record in records])
        content = mine[mine["block"] == "content"]
        assert content["k"].tolist() == curves[0, :, 0].tolist()
        assert np.allclose(content["mean"], curves[:, :, 1].mean(0), rtol=1e-12)
        assert np.allclose(content["std"], curves[:, :, 1].std(0, ddof=1), rtol=1e-9, atol=1e-15)
        assert (content["n"] == 2).all()
        [style] = mine[mine["block"] == "style"].to_dict("records")
        assert style["k"] == 1
        assert style["mean"] == pytest.approx(np.mean([r["scores"][f"style_{quantity}"] for r in records]))
        [level] = mine[mine["block"] == "uninformed"]["mean"]
        assert level == {"accuracy": 1 / 4, "entropy": 2.0}[quantity]
    others = table[table["model"] != "mlvae"]
    assert set(others["block"]) == {"whole code", "uninformed"} and set(others["quantity"]) == {"accuracy"}


def test_scores_by_model_has_the_numbers_of_the_runs(whole):
    folder, _ = whole
    assert (folder / "scores_by_model.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(folder / "scores_by_model.csv")
    assert set(table["score"]) == {
        "mig",
        "content_accuracy",
        "content_entropy",
        "style_accuracy",
        "style_entropy",
    }
    for latents in (4, 6):
        values = [run.scores["mig"] for run in runs_of(folder, model="vae", latents=latents)]
        mine = table[(table["score"] == "mig") & table["hyperparameters"].str.contains(f"latents={latents} ")]
        assert mine["mean"].item() == pytest.approx(np.mean(values), rel=1e-12)
        assert mine["std"].item() == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    alone = table[(table["score"] == "mig") & (table["model"] == "oracle")]
    assert alone["n"].item() == 1 and np.isnan(alone["std"].item())


def test_rows_are_named_by_what_varies_but_for_what_most_have(whole):
    names = sorted(names_of_rows(run.config for run in runs_of(whole[0])).values())
    assert names[:2] == ["mlvae", "oracle"]
    assert names[2:] == ["vae latents=10 network=conv", "vae latents=4", "vae latents=6"]


def test_nothing_is_done_twice_and_what_is_added_is(small, capsys):
    assert main(["bench", "small.toml"]) == 0
    trained = {path: path.stat().st_mtime_ns for path in Path("results").rglob("model.safetensors")}
    assert len(trained) == 2
    capsys.readouterr()
    assert main(["bench", "small.toml", "--seeds", "0,1"]) == 0
    out, err = capsys.readouterr()
    assert "small: 4 runs" in err and "2 of 4 run(s) finished before" in err
    assert "run 3 of 4 done, about" in err, "the finished runs tell how long the others take"
    after = {path: path.stat().st_mtime_ns for path in Path("results").rglob("model.safetensors")}
    assert len(after) == 4 and trained.items() <= after.items()
    assert re.search(r"vae +0 1 +0\.\d{4} +0\.\d{4}", out)
    assert "--seeds 0,1" in Path("results/small/study.toml").read_text().splitlines()[0]
    Path("small.toml").write_text(SMALL.replace('"betavae"', '"pca"').replace("\nset =", "\n#"))
    assert main(["bench", "small.toml"]) == 0
    err = capsys.readouterr().err
    assert "4 run(s) in 'results/small' are not of this study" in err
    assert set(pd.read_csv("results/small/scores_by_model.csv")["model"]) == {"vae", "pca"}


@pytest.mark.parametrize("name", ["scores.csv", "leaderboard.md", "study.toml", "scores_by_model.png"])
def test_a_file_of_the_users_is_never_overwritten(name, small, capsys):
    Path(name).write_text("# mine, for dislab\n")
    assert main(["bench", "small.toml", "--out", "."]) == 2
    assert f"'{name}' is there, and dislab did not write it" in capsys.readouterr().err
    assert Path(name).read_text() == "# mine, for dislab\n" and not Path("records.jsonl").exists()


def test_the_study_that_is_run_may_lie_in_its_results_folder(small):
    Path("small.toml").rename("study.toml")
    for _ in range(2):  # and what dislab wrote is written anew
        assert main(["bench", "study.toml", "--out", "."]) == 0
    assert Path("study.toml").read_text() == SMALL
    assert (
        main(["bench", "study.toml", "--out", "other"])
        == 0
        == main(["bench", "study.toml", "--out", "other"])
    )


def test_the_others_go_on_past_what_fails(small, capsys):
    study = SMALL.replace('["vae", "betavae"]', '["diverges", "vae"]').replace(
        '["mig"]', '["mig", "always_fails"]'
    )
    Path("small.toml").write_text(study)
    assert main(["bench", "small.toml"]) == 1
    err = capsys.readouterr().err
    end = err.splitlines()[-3:]
    assert "diverges on bars, network=mlp, seed 0: training failed: the loss term 'loss' is nan" in end[0]
    assert "vae on bars" in end[1] and "always_fails" in end[1] and "the other scores are kept" in end[1]
    assert end[2].startswith("dislab: 2 failed") and "Traceback" not in err
    [run] = runs_of("results")
    assert set(run.scores) == {"mig"}, "what was computed is kept"
    assert pd.read_csv("results/small/scores_by_model.csv")["mean"].tolist() == [run.scores["mig"]]


def test_a_study_of_which_all_fails(small, capsys):
    Path("small.toml").write_text(SMALL.replace('["vae", "betavae"]', '"diverges"'))
    assert main(["bench", "small.toml"]) == 1
    assert "figure scores_by_model is left out" in capsys.readouterr().err
    assert Path("results/small/leaderboard.md").is_file()


BAD = [
    ("[[runs]]\nmodel = 'vae'", "'dataset' is missing"),
    ("title = 'none'", "'runs' is missing"),
    ("[[runs]\n", "is not TOML"),
    ("[[runs]]\nmodle = 'vae'\ndataset = 'bars'", "table 1: unknown key 'modle': did you mean 'model'"),
    ("figurs = []\n{}", "unknown key 'figurs': did you mean 'figures'"),
    ("{}\nfigures = []", "figures is of the whole study: write it above the first [[runs]]"),
    ("{}\nsteps = 'many'", "table 1: steps is 'many': it must be a whole number"),
    ("{}\nsteps = -1", "must be 0"),
    ("{}\nseeds = [0, -1]", "it must be a list of whole numbers"),
    ("{}\noptional = 1", "it must be true or false"),
    (
        "{}\n[[runs]]\nmodel = ['vae', 'mlvea']\ndataset = 'bars'",
        "table 2: unknown model 'mlvea': did you mean",
    ),
    ("[[runs]]\nmodel = 'vae'\ndataset = ['bars', 'shapes3']", "table 1: unknown dataset 'shapes3': did"),
    ("{}\nprotocol = 'qick'", "did you mean 'quick'"),
    ("{}\nmetrics = ['mgi']", "did you mean 'mig'"),
    ("{}\nmetric_protocol = 'softtpr'", "did you mean 'softtpr2024'"),
    ("{}\n[runs.set]\nlatnts = [4, 6]", "unknown hyper-parameter of vae 'latnts': did you mean 'latents'"),
    ("{}\n[runs.set]\nlatents = [4, 'six']", "vae: latents is 'six': it must be a whole number"),
    ("{}\n[runs.set]\nlatents = []", "set is {'latents': []}"),
    ("{}\ngroup_by = 'shap'", "did you mean 'shape'"),
    ("{}\ngroup_by = [['shape'], 1]", "group_by is"),
    ("{}\nhold_out = 'size=7'", "size has no value 7"),
    (
        "[[runs]]\nmodel = 'mlvae'\ndataset = 'bars'\ngroup_by = ['shape', 'size', 'position']",
        "group_size=8 is too large",
    ),
    ("[[runs]]\nmodel = 'vae'\ndataset = 'mnist'", "mnist"),
    ("[[runs]]\nmodel = 'vae'\ndataset = 'mnist'\noptional = true", "nothing to run"),
    ("rank_by = 'sapp'\n{}", "unknown score to rank by 'sapp': did you mean 'sap'"),
    ("rank_by = 'sap'\nmetrics = ['mig']\n{}", "unknown score to rank by 'sap'"),
    ("figures = ['scores_by_modle']\n{}", "did you mean 'scores_by_model'"),
    ("figures = ['accuracy_over_k']\nmetrics = ['mig']\n{}", "needs one of the metrics content_accuracy"),
]


@pytest.mark.parametrize(("text", "says"), BAD, ids=[says for _, says in BAD])
def test_a_wrong_study_is_one_line_and_nothing_is_trained(text, says, small, capsys):
    first = "[[runs]]\nmodel = 'vae'\ndataset = 'bars'"
    Path("wrong.toml").write_text(text.replace("{}", first))
    assert main(["bench", "wrong.toml"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dislab: ")]
    assert len(lines) == 1 and says in lines[0] and "wrong" in lines[0]
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["qick"], "unknown study 'qick': did you mean 'quick'"),
        (["smal.toml"], "unknown study 'smal.toml': did you mean 'small.toml'"),
        ([], "name a study"),
        (["small.toml", "--seeds", "x"], "--seeds is 'x'"),
        (["small.toml", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["small.toml", "--device", "tpu9"], "device 'tpu9' cannot be used"),
        (["small.toml", "--out", "small.toml"], "cannot write to the output folder"),
        (["small.toml", "--data-dir", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, says, small, capsys):
    if "--data-dir" in arguments:
        Path("small.toml").write_text(SMALL.replace('"bars"', '["bars", "mnist"]'))
    assert main(["bench", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert says in lines[-1] and lines[-1].startswith("dislab: ")
    assert not Path("results").exists()


def test_the_shipped_studies_are_right(capsys):
    studies = {name: read_study(path) for name, path in shipped_studies().items()}
    for study in studies.values():
        assert all(draft.settings["dataset"] in DATASETS for draft in study.drafts)
        check_names(study, Machine())
    models = {draft.settings["model"] for draft in studies["quick"].drafts}
    assert models >= {"vae", "betavae", "betatcvae", "mlvae", "pca", "untrained", "oracle"}
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    assert f"quick: {studies['quick'].title}" in out and "28 runs" in out


def test_figures_tell_settings_apart_by_what_varies():
    key = ("bars", "rendered", "quick", "", "shape")
    assert set(names_of_settings([key]).values()) == {"bars (rendered)"}
    names = names_of_settings([key, (*key[:3], "0.2", "shape"), (*key[:4], "size")])
    assert names[key] == "bars (rendered), nothing held out, grouped by shape"
    assert len(set(names.values())) == 3
    assert len(SETTING) == len(key) and KEY[4] == "group_by"
