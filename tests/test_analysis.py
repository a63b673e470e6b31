"""The analysis of a study against brute force and known answers; UDR against its definition."""

import itertools

import numpy as np
import pandas as pd
import pytest
from made_records import made, written
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from dislab.cli import main
from dislab.errors import DislabError
from dislab.files import check_own
from dislab.report.analysis import (
    chance_to_beat,
    data_correlation,
    models_of,
    rank_correlation,
    scores_in,
    seed_correlation,
    selection,
    variance_explained,
)
from dislab.report.figures import FIGURES
from dislab.runs.machine import Machine
from dislab.scoring.udr import udr
from dislab.studies.study import _draw_figure


def frame(scores: np.ndarray) -> pd.DataFrame:
    """Return the frame of scores [data, method, strength, seed, metric]."""
    of = np.indices(scores.shape[:-1]).reshape(4, -1)
    what = {"data": of[0], "method": of[1], "configuration": of[1] * scores.shape[2] + of[2], "seed": of[3]}
    values = scores.reshape(-1, scores.shape[-1]).T
    return pd.DataFrame(what | {f"s{number}": column for number, column in enumerate(values)})


@pytest.fixture
def scores():
    return np.random.default_rng(0).normal(size=(2, 3, 2, 4, 2)) + 3 * np.arange(3)[None, :, None, None, None]


def test_rank_correlations_are_scipys(scores):
    table = rank_correlation(frame(scores)).set_index(["data", "score", "other"])["spearman"]
    for data in range(2):
        here = scores[data].reshape(-1, 2)
        assert table[data, "s0", "s1"] == pytest.approx(spearmanr(here[:, 0], here[:, 1])[0])
    assert table["mean", "s0", "s1"] == pytest.approx(table[0, "s0", "s1"] / 2 + table[1, "s0", "s1"] / 2)
    means = scores.mean(3).reshape(2, 6, 2)
    between = data_correlation(frame(scores)).set_index(["score", "data", "other"])["spearman"]
    assert between["s1", 0, 1] == pytest.approx(spearmanr(means[0, :, 1], means[1, :, 1])[0])


def test_the_order_of_equal_seeds_is_stable(scores):
    scores[:] = scores[:, :, :, :1]
    table = seed_correlation(frame(scores))
    assert np.allclose(table["spearman"], 1) and (table["pairs"] == 6).all() and (table["n"] == 6).all()


def test_methods_with_equal_means_explain_nothing():
    scores = np.random.default_rng(1).normal(size=(1, 4, 1, 500, 1))
    scores -= scores.mean(3, keepdims=True)
    table = variance_explained(frame(scores), resampled=20).set_index("by")
    assert table["share"]["method"] == pytest.approx(0, abs=1e-12)
    assert table["low"]["method"] == 0 and table["high"]["method"] < 0.02


def test_the_order_of_seeds_does_not_matter_to_the_variance(scores):
    shuffled = np.random.default_rng(2).permuted(scores, axis=3)
    one, other = (variance_explained(frame(values), resampled=2)["share"] for values in (scores, shuffled))
    assert np.allclose(one, other)


def test_the_variance_explained_is_the_r2_of_a_regression_on_dummies(scores):
    table = variance_explained(frame(scores), resampled=2).set_index(["data", "score", "by"])["share"]
    here = frame(scores).query("data == 1")
    for by in ("method", "configuration"):
        dummies = pd.get_dummies(here[by]).to_numpy(float)
        fitted = dummies @ np.linalg.lstsq(dummies, here["s0"], rcond=None)[0]
        expected = 1 - ((here["s0"] - fitted) ** 2).sum() / ((here["s0"] - here["s0"].mean()) ** 2).sum()
        assert table[1, "s0", by] == pytest.approx(expected)


def test_the_chance_to_beat_a_random_model_is_that_of_enumeration(scores):
    scores = np.round(scores)  # with ties
    found = chance_to_beat(frame(scores)).set_index("which")["chance"]
    cells = scores.reshape(2, 6, 4, 2)
    expected: dict[str, list] = {}
    for one, by, other, score in itertools.product(range(2), repeat=4):
        which = ("same" if one == other else "other") + ("same" if by == score else "other")
        for seed in range(4):
            best = int(np.argmax(cells[one, :, seed, by]))
            for again in {0, 1, 2, 3} - {seed}:
                value, rivals = cells[other, best, again, score], cells[other, :, :, score]
                chance = (rivals < value).mean() + (rivals == value).mean() / 2
                expected.setdefault(which, []).append(chance)
    means = [np.mean(expected[which]) for which in ("samesame", "othersame", "sameother", "otherother")]
    assert np.allclose(found, means)


def test_exchangeable_scores_give_no_better_than_a_random_choice():
    scores = np.random.default_rng(3).normal(size=(1, 10, 1, 100, 1))
    assert chance_to_beat(frame(scores))["chance"].item() == pytest.approx(0.5, abs=0.03)


def test_a_score_that_is_another_chooses_the_best_model(scores):
    models = frame(scores).rename(columns={"s0": "elbo", "s1": "mig"})
    models["elbo"] = np.exp(models["mig"])
    table = selection(models)
    assert np.allclose(table["chosen"], table["best"]) and np.allclose(table["spearman"], 1)
    assert (table["random"] < table["best"]).all()


def test_runs_become_lines_in_which_more_is_better(tmp_path):
    records = [
        made(
            "betavae",
            seed,
            {"mig": 0.1 * seed, "content_entropy": 1.0 * seed},
            hyperparameters={"beta": beta},
        )
        for seed in (0, 1)
        for beta in (1.0, 4.0)
    ]
    models = models_of(written(tmp_path, *records, made("oracle", 0, {"mig": 1.0})))
    assert set(scores_in(models)) == {"mig", "content_entropy"} and len(models) == 4, (
        "an oracle is not trained"
    )
    assert models["configuration"].nunique() == 2 and set(models["content_entropy"]) == {0.0, -1.0}


def test_the_command_writes_tables_and_says_what_they_say(tmp_path, capsys):
    random = np.random.default_rng(0)
    written(
        tmp_path / "r",
        *(
            made(model, seed, {"mig": random.random(), "sap": random.random(), "elbo": random.random()})
            for model in ("vae", "betavae")
            for seed in range(3)
        ),
    )
    assert main(["analyse", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().out
    assert "6 models: 2 methods, 2 configurations, 3 seeds, 1 data set\n" in said
    assert "the model chosen by elbo beats a random one" in said
    folder = tmp_path / "r" / "analysis"
    shares = pd.read_csv(folder / "variance_explained.csv")
    assert set(shares["score"]) == {"mig", "sap", "elbo"} and shares["share"].between(0, 1).all()
    assert (folder / "analysis.md").read_text().startswith("<!-- made by dislab")
    assert main(["analyse", str(tmp_path / "r"), "--scores", "mig"]) == 0, "again, over its own files"
    assert main(["analyse", str(tmp_path / "r"), "--scores", "mug"]) == 2
    assert "did you mean 'mig'" in capsys.readouterr().err
    (folder / "selection.csv").write_text("mine")
    assert main(["analyse", str(tmp_path / "r")]) == 2


def test_figures_show_their_tables(tmp_path):
    random = np.random.default_rng(0)
    records = [
        made(
            "betavae",
            seed,
            {name: random.random() for name in ("mig", "sap", "elbo", "betavae_score")},
            hyperparameters={"beta": beta, "latents": latents},
        )
        for seed in range(2)
        for beta in (1.0, 4.0)
        for latents in (2, 10)
    ]
    runs = written(tmp_path, *records)
    for name in ("rank_correlation", "variance_explained", "chance_to_beat", "trade_off", "score_map"):
        table = FIGURES[name].table(runs)
        assert not table.empty
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        check_own(tmp_path / f"{name}.csv")  # or the study could not be run again
        own = FIGURES[name].draw(runs)
        axes = Figure().subplots(len(own), squeeze=False).flatten()
        assert [*FIGURES[name].draw(runs, ax=axes)] == [*axes], "the caller's axes"
        with pytest.raises(DislabError, match="nothing to show"):
            FIGURES[name].draw([])
        with pytest.raises(DislabError, match="nothing to show"):
            FIGURES[name].draw(runs, table=table[:0])
    table = FIGURES["score_map"].table(runs).set_index(["latents", "beta"])
    cells = [record["scores"]["betavae_score"] for record in records[:: len(records) // 2]]
    assert table["betavae_score"][2, 1.0] == pytest.approx(np.mean(cells))
    assert table["beta_norm"][10, 4.0] == pytest.approx(40 / (64 * 64 * 3))
    assert FIGURES["score_map"].table(runs[:1]).empty, "nothing is swept"


def test_data_sets_of_two_models_or_of_one_configuration_are_left_out(tmp_path, capsys, monkeypatch):
    random = np.random.default_rng(0)
    numbers = {"shapes3d": (3, 2), "two models": (1, 2), "one configuration": (5, 1)}  # seeds, models
    records = [
        made(model, seed, {"mig": random.random(), "sap": random.random()}, dataset=dataset)
        for dataset, (seeds, models) in numbers.items()
        for model in ("vae", "betavae")[:models]
        for seed in range(seeds)
    ]
    runs = written(tmp_path / "r", *records)
    models = models_of(runs)
    [one, kept, two] = dict.fromkeys(models["data"])
    assert set(variance_explained(models)["data"]) == {kept}
    ranks = rank_correlation(models)
    assert set(ranks["data"]) == {kept, "mean"} and set(ranks["n"]) == {6}
    line = f"left out, because they have few models or one configuration: {one}; {two}"
    assert main(["analyse", str(tmp_path / "r")]) == 0
    assert capsys.readouterr().out.count(line) == 1 and "shapes3d" in kept
    computed = []
    monkeypatch.setattr(
        "dislab.report.analysis_figures.variance_explained",
        lambda models: computed.append(1) or variance_explained(models),
    )
    machine = Machine(out=str(tmp_path), quiet=False)
    assert len(_draw_figure("variance_explained", runs, machine)) == 2
    assert f"figure variance_explained: {line}" in capsys.readouterr().err
    assert computed == [1], "the table and the picture are of one computation"
    others = models[models["data"] != kept]
    assert rank_correlation(others).empty and variance_explained(others).empty


def test_an_analysis_needs_two_models(tmp_path, capsys):
    written(tmp_path / "r", made("vae", 0, {"mig": 0.1}))
    assert main(["analyse", str(tmp_path / "r")]) == 2
    assert "two trained models" in capsys.readouterr().err


# UDR -----------------------------------------------------------------------------------------------


def independent(models: int, dimensions: int, rows: int = 400) -> np.ndarray:
    """Return equal models [M, n, D] whose dimensions are uncorrelated exactly."""
    codes = np.random.default_rng(0).normal(size=(rows, dimensions))
    codes = np.linalg.qr(codes - codes.mean(0))[0]
    return np.repeat(codes[None], models, axis=0)


def test_equal_models_have_the_udr_of_the_soft_threshold():
    kl = np.ones((3, 4))
    assert np.allclose(udr(independent(3, 4), kl), 0.9), (
        "Lasso with alpha 0.1 takes 0.1 from each coefficient"
    )
    sides = udr(independent(3, 4), kl, "spearman")
    assert (sides > 0.8).all(), "ranks are nearly uncorrelated, not exactly"


def test_order_and_signs_of_dimensions_do_not_matter():
    random = np.random.default_rng(0)
    codes, kl = random.normal(size=(3, 200, 4)), np.array([[1, 1, 0, 1.0]] * 3)
    codes += independent(3, 4, 200) * 20
    order, signs = random.permutation(4), random.choice([-1, 1], 4)
    codes2, kl2 = codes.copy(), kl.copy()
    codes2[1], kl2[1] = codes[1][:, order] * signs, kl[1][order]
    for correlation, normaliser in itertools.product(("lasso", "spearman"), ("reference", "paper")):
        one, other = (udr(*it, correlation, normaliser) for it in ((codes, kl), (codes2, kl2)))
        assert np.allclose(one, other, atol=1e-3)


def test_a_model_that_says_nothing_has_no_udr():
    kl = np.array([[1.0] * 4, [0.0] * 4, [1.0] * 4])
    scores = udr(independent(3, 4), kl)
    assert scores[1] == 0 and scores[0] == pytest.approx(0.45), "the median of 0.9 and 0"


def test_udr_needs_two_models():
    with pytest.raises(DislabError, match="two models"):
        udr(independent(1, 4), np.ones((1, 4)))
