"""The comparison of training protocols by scores: two protocols of few steps, resumed, joined, refused."""

import pandas as pd
import pytest

import dislab
from dislab.benchmarks import protocols
from dislab.benchmarks.protocols import KEY, SCORES

pytestmark = pytest.mark.usefixtures("tiny_bars")
TINY = ["--models", "vae", "--datasets", "bars", "--seeds", "0", "--steps", "8", "--readings", "2"]


@pytest.fixture
def tiny_bars(bars):
    """The dataset "bars" is known, and its images are opened anew."""
    dislab.load_plugin("bars.py")


def test_two_protocols_are_compared(tmp_path, capsys):
    out = tmp_path / "both"
    command = [*TINY, "--protocols", "quick,fast", "--out", str(out)]
    assert protocols.main(command) == 0
    lines = pd.read_csv(out / "scores.csv")
    assert list(lines.columns) == [*KEY, "step", "cpu_seconds", *SCORES["vae"]]
    assert lines[[*KEY, "step"]].to_numpy().tolist() == [
        ["bars", "vae", f"{name}+steps=8", 0, step] for name in ("quick", "fast") for step in (4, 8)
    ]
    assert lines["elbo"].between(-1000, 0).all() and lines["elbo"].nunique() == 4
    for _, of_protocol in lines.groupby("protocol"):
        assert (
            of_protocol["cpu_seconds"].is_monotonic_increasing and of_protocol["elbo"].is_monotonic_increasing
        )
    assert (out / "scores.png").read_bytes().startswith(b"\x89PNG")

    capsys.readouterr()
    assert protocols.main(command) == 0
    assert capsys.readouterr().err == "", "nothing is trained twice"
    pd.testing.assert_frame_equal(pd.read_csv(out / "scores.csv"), lines)


def test_the_last_reading_is_the_score_of_a_run(tmp_path):
    """`dislab run` of the same configuration trains and scores alike."""
    assert protocols.main([*TINY, "--protocols", "quick", "--out", str(tmp_path / "here")]) == 0
    [_, last] = pd.read_csv(tmp_path / "here" / "scores.csv")["elbo"]
    run = dislab.run("vae", "bars", source="rendered", steps=8, metrics=["elbo"], out=tmp_path / "run")
    assert last == pytest.approx(run.scores["elbo"], abs=1e-3)


def test_folders_are_joined(tmp_path):
    for seed in "10":
        out = str(tmp_path / seed)
        few = ["--seeds", seed, "--steps", "2", "--readings", "1"]
        assert protocols.main([*TINY, *few, "--protocols", "quick", "--out", out]) == 0
    both = tmp_path / "both"
    assert protocols.main(["--draw", str(tmp_path / "1"), str(tmp_path / "0"), "--out", str(both)]) == 0
    assert pd.read_csv(both / "scores.csv")["seed"].tolist() == [0, 1]
    assert (both / "scores.png").exists()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (["--models", "vea"], "unknown model of this comparison 'vea': did you mean 'vae'?"),
        (["--protocols", "quik"], "unknown protocol 'quik': did you mean 'quick'?"),
        (["--datasets", "shapes"], "unknown dataset 'shapes': did you mean 'shapes3d'?"),
        (["--seeds", "a"], "--seeds is 'a'"),
        (["--readings", "0"], "--readings is 0: it must be 1 or more"),
        (["--steps", "-1"], "--steps is -1"),
    ],
)
def test_what_is_wrong_is_one_line(wrong, line, tmp_path, capsys):
    assert protocols.main([*TINY, *wrong, "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1
    assert not (tmp_path / "scores.csv").exists()
