"""What is known of a run before it trains: groups that are too small, scores that cannot be computed."""

import numpy as np
import pytest
import torch
from conftest import make_tiny_dataset, one_line
from torch import nn

import dislab
from dislab.cli import main
from dislab.data.dataset import Dataset
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.registry import METRICS
from dislab.runs.machine import Machine
from dislab.runs.resolve import check_settings, complete, resolve

SETTING = {"steps": 2, "batch_size": 8, "network": "mlp"}


def classes(*sizes: int, held_out=None, test=None) -> Dataset:
    """Images of classes of these sizes, with no other factor."""
    person = np.repeat(np.arange(len(sizes)), sizes)
    images = torch.randint(256, (len(person), 1, 8, 8), dtype=torch.uint8)
    space = FactorSpace(("person",), (len(sizes),), person[:, None])
    return Dataset(
        "people",
        "own",
        space,
        (1, 8, 8),
        lambda rows: images[rows],
        ["person"],
        held_out=held_out,
        test=test,
    )


def refusal(model: str, dataset, tmp_path, **settings) -> str:
    """The line by which a run is refused; nothing is left in its folder."""
    with pytest.raises(DislabError) as error:
        dislab.run(model, dataset, out=tmp_path / "results", device="cpu", **(SETTING | settings))
    assert error.type is DislabError, "nothing was trained"
    assert not (tmp_path / "results").exists()
    return one_line(error)


def said(capsys, model: str, dataset, tmp_path, **settings) -> str:
    """What is said of a run that is not refused, before it trains."""
    capsys.readouterr()
    resolve(model, dataset, Machine.here("cpu", out=tmp_path, quiet=False), **(SETTING | settings))
    return capsys.readouterr().err


def test_groups_that_are_too_small_are_said_and_not_counted(tmp_path, capsys, no_pictures):
    dataset = classes(12, 7, 6)
    line = "trains on 1 of 3 groups, 12 of 25 images: the others have fewer than group_size=8 images"
    for group_size, remark in ((8, line), (6, "trains on 3"), (7, "trains on 2 of 3 groups, 19 of 25")):
        text = said(capsys, "mlvae", dataset, tmp_path, group_size=group_size)
        assert (remark in text) == (group_size != 6)
    assert "trains on" not in said(capsys, "vae", dataset, tmp_path)
    run = dislab.run("mlvae", dataset, out=tmp_path, device="cpu", metrics=[], **SETTING)
    assert run.record["train_rows"] == 12
    run = dislab.run("vae", dataset, out=tmp_path, device="cpu", metrics=[], **SETTING)
    assert run.record["train_rows"] == 25
    run = dislab.run("pca", dataset, out=tmp_path, device="cpu", metrics=[])
    assert run.record["train_rows"] == 25
    assert "trains on" not in capsys.readouterr().err, "dislab.run is quiet by default"


def test_named_scores_that_do_not_apply_are_refused(tmp_path, tiny_dataset):
    """One line for each need of a metric."""
    grid = dislab.hold_out(tiny_dataset, "shape=3")
    of_one = "sap cannot be computed for people: it needs a factor that varies, in the 5 rows that are scored"
    for model, dataset, metric, message in (
        (
            "vae",
            tiny_dataset,
            "pose_error",
            "pose_error cannot be computed for tiny: it needs a circular factor",
        ),
        ("vae", classes(9, 9), "modularity", "it needs at least two factors that vary"),
        (
            "vae",
            classes(9, 9),
            "wren",
            "it needs at least three factors, each of three values or more, and 4",
        ),
        ("vae", classes(9, 3), "content_accuracy", "of at least 4 rows each, in the 12 rows that are scored"),
        ("mlvae", grid, "style_entropy", "in the 15 rows that are scored (hold-out 'shape=3')"),
        ("vae", dislab.hold_out(classes(*[5] * 5), "0.25"), "sap", of_one + " (hold-out '0.25')"),
        ("pca", tiny_dataset, "kl", "it needs the log-variances of q(z|x)"),
        ("oracle", tiny_dataset, "elbo", "it needs the reconstruction errors of a model with a decoder"),
    ):
        settings = {"network": None, "metrics": ["active_units", metric]}
        settings = {key: value for key, value in (SETTING | settings).items() if value is not None}
        with pytest.raises(DislabError) as error:
            resolve(model, dataset, Machine.here("cpu", out=tmp_path), **settings)
        assert message in one_line(error)
        resolve(
            model, dataset, Machine.here("cpu", out=tmp_path), **(settings | {"metrics": ["active_units"]})
        )


def test_a_study_says_which_of_its_scores_do_not_apply(tmp_path, tiny_dataset, capsys):
    """Its list of scores serves several datasets."""
    machine = Machine.here("cpu", out=tmp_path, quiet=False)
    settings = check_settings("vae", tiny_dataset, machine, metrics=["mig", "pose_error"])
    complete(settings, machine, lenient=True)
    assert "pose_error will be left out for tiny: it needs a circular factor" in capsys.readouterr().err


def test_a_hold_out_that_leaves_one_group_is_refused(tmp_path, capsys):
    """A quarter of five people is one person: no score compares it with anything."""
    fives = dislab.hold_out(classes(*[9] * 5), "0.25")
    message = refusal("mlvae", fives, tmp_path)
    assert message == (
        "no factor varies in the 9 rows that are scored (hold-out '0.25'): hold out more, or name scores "
        "that need no factor (--metrics)"
    )
    assert "left out" not in said(capsys, "mlvae", fives, tmp_path, metrics=["elbo"])
    assert "left out" not in said(capsys, "mlvae", fives, tmp_path, metrics=[])
    assert "left out" not in said(capsys, "mlvae", classes(*[9] * 5), tmp_path, hold_out="0.4")


def test_what_will_be_left_out_of_the_default_scores_is_said(tmp_path, capsys, tiny_dataset):
    line = (
        "content_accuracy, content_accuracy_few, content_entropy, style_accuracy, style_accuracy_few, "
        "style_entropy, swap_accuracy, swap_judge, swap_leak will be left out for tiny: it "
        "needs at least two groups (see group_by) of at least 4 rows each, in the 15 rows that are scored "
        "(hold-out 'shape=3')\n"
    )
    assert line in said(capsys, "mlvae", tiny_dataset, tmp_path, hold_out="shape=3")
    assert "left out" not in said(capsys, "mlvae", tiny_dataset, tmp_path, hold_out="shape=2-3")
    assert "in the 15 rows that are scored\n" in said(capsys, "vae", classes(9, 3, 3), tmp_path)
    assert "left out" not in said(capsys, "vae", classes(9, 9, 3), tmp_path), "the third class is not read"
    # Rows that the dataset itself marks as tested: two on either side are enough.
    whole, test = np.arange(8), np.array([0, 1, 4, 5])
    assert "left out" not in said(capsys, "vae", classes(4, 4, held_out=None, test=test), tmp_path)
    assert "left out" in said(capsys, "vae", classes(4, 4, test=whole[:3]), tmp_path)


def test_a_run_without_any_score_is_refused(tmp_path, isolated):
    @dislab.register_model("codes_only")
    class CodesOnly(nn.Module):
        supervision = "none"

        def __init__(self, image_shape):
            super().__init__()

        def fit(self, dataset, rows, generator):
            pass

        def encode(self, images):
            return images.flatten(1)[:, :2]

    for name in [entry.name for entry in METRICS if not entry.needs]:
        del METRICS._entries[name]
    same = dislab.from_arrays(np.arange(192, dtype=np.uint8).reshape(3, 8, 8), np.zeros(3, int))
    with pytest.raises(DislabError, match="no score can be computed for own: it needs"):
        resolve("codes_only", same, Machine.here("cpu", out=tmp_path))


def test_a_model_that_cannot_encode_before_it_is_fitted_is_not_refused(tmp_path, isolated):
    @dislab.register_model("fitted_first")
    class FittedFirst(nn.Module):
        supervision = "none"

        def __init__(self, image_shape):
            super().__init__()

        def fit(self, dataset, rows, generator):
            self.scale = 1.0

        def encode(self, images):
            return images.flatten(1)[:, :2] * self.scale, images.flatten(1)[:, 2:4]

    run = dislab.run("fitted_first", make_tiny_dataset(), out=tmp_path, device="cpu", metrics=["kl"])
    assert "kl" in run.scores


def test_the_command_line_refuses_before_training(bars, no_pictures, capsys):
    arguments = ["run", "--model", "vae", "--dataset", "bars", *bars, "--device", "cpu"]
    assert main([*arguments, "--metrics", "mig,pose_error"]) == 2
    error = capsys.readouterr().err
    assert "dislab: pose_error cannot be computed for bars: it needs a circular factor" in error
    assert "training" not in error


@pytest.mark.parametrize("batch_size", [2**40, 2**64])
def test_a_batch_that_no_memory_holds_is_refused(tmp_path, tiny_dataset, batch_size):
    message = refusal("vae", tiny_dataset, tmp_path, batch_size=batch_size)
    assert message == f"--batch-size is {batch_size}: it must be 1048576 or less"
