"""The configuration of a run as a value: what it is made from, its identity, and its way through JSON."""

import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_tiny_dataset

import dislab
from dislab.runs.config import FORMAT, RunConfig
from dislab.runs.machine import Machine
from dislab.runs.resolve import check, resolve

HERE = Machine()


@pytest.fixture
def config(tiny_dataset) -> RunConfig:
    return resolve(
        "betavae", tiny_dataset, HERE, network="mlp", beta="8", hold_out=["size=0 ", "0.1"], steps=9
    )


def test_it_is_resolved_to_the_last_value(config):
    assert config.hyperparameters == {
        "beta": 8.0,
        "warmup_steps": 0,
        "latents": 10,
        "network": "mlp",
        "likelihood": "bernoulli",
        "pixel_logvar": "floor",
    }
    assert config.dataset == "tiny" and re.fullmatch("own-[0-9a-f]{8}", config.source)
    assert config.hold_out == ("0.1", "size=0") and config.group_by == (("shape",),)
    assert (config.protocol.steps, config.protocol_name) == (9, "quick+steps=9")
    assert config.changed == {"beta": 8.0, "network": "mlp"} and config.metrics == ("default",)
    assert str(config) == "betavae on tiny, without 0.1, without size=0, beta=8.0, network=mlp, seed 0"


def test_it_is_frozen_and_goes_through_json(config, tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"format": FORMAT, "config": config.to_json()}))
    again = RunConfig.from_json(path)
    assert again == config and again.digest == config.digest and again.folder == config.folder


def test_whatever_changes_a_result_changes_the_digest(config, tiny_dataset):
    """And nothing else does: the scores asked for and where a user's images lie are not its identity."""
    changes = {
        "model": "vae",
        "hyperparameters": config.hyperparameters | {"beta": 4.0},
        "dataset": "other",
        "source": "rendered",
        "protocol": replace(config.protocol, learning_rate=0.5),
        "group_by": (("size",),),
        "hold_out": (),
        "precision": "bf16",
        "seed": 1,
    }
    assert {field.name for field in dataclasses.fields(config)} == {
        *changes,
        "metrics",
        "own_images",
        "own_factors",
    }
    others = [replace(config, **{name: value}) for name, value in changes.items()]
    assert len({config.digest, *(other.digest for other in others)}) == len(changes) + 1
    assert [other.row for other in others].count(config.row) == 1, "the seed alone stays in the row"
    assert len({config.folder, *(other.folder for other in others)}) == len(changes) + 1
    same = replace(config, metrics=("mig",), own_images="/elsewhere", own_factors="/a.csv")
    assert same.digest == config.digest and same.folder == config.folder


def test_the_same_run_has_the_same_digest_on_every_machine(config, tiny_dataset):
    """The order in which a user writes, texts for numbers, and the device change nothing."""
    settings = {"steps": 9, "hold_out": ["0.1", "size=0"], "precision": "fp32"}
    other = resolve("betavae", tiny_dataset, Machine(jobs=3, out="x"), beta=8, network="mlp", **settings)
    assert other.digest == config.digest


def test_datasets_that_a_user_made_are_told_apart_by_their_content(tiny_dataset):
    other = make_tiny_dataset()
    other._draw = lambda rows, draw=other._draw: 255 - draw(rows)
    one, same, another = (
        resolve("oracle", images, HERE) for images in (tiny_dataset, make_tiny_dataset(), other)
    )
    assert one.digest == same.digest != another.digest and one.dataset == another.dataset


def test_the_order_of_factors_in_a_group_changes_nothing(tiny_dataset):
    groups = (["size", "shape"], ["shape", "size"])
    one, other = (resolve("oracle", tiny_dataset, HERE, group_by=names) for names in groups)
    assert one == other and one.group_by == (("shape", "size"),)


def test_seeds_are_whole_numbers(config):
    assert config.with_seed(3).seed == 3 and config.with_seed(3).row == config.row
    for seed in (-1, 1.5, "1", True, 2**63):
        with pytest.raises(dislab.DislabError, match="it must be a whole number, 0 or more"):
            config.with_seed(seed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "betavea"}, "did you mean 'betavae'"),
        ({"hyperparameters": {"bta": 1}}, "did you mean 'beta'"),
        ({"hyperparameters": {"beta": "high"}}, "must be a number"),
        ({"group_by": [["shap"]]}, "did you mean 'shape'"),
        ({"hold_out": ["size=7"]}, "size has no value 7"),
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"seed": -1}, "seed is -1"),
        ({"source": "rendered"}, "were a Dataset object"),
        ({"colour": "red"}, "is not a configuration of this version"),
        ({"protocol": {"steps": 3}}, "is not a configuration of this version"),
    ],
)
def test_a_configuration_from_a_file_is_checked(change, says, config):
    with pytest.raises(dislab.DislabError, match=says):
        check(RunConfig.from_json(config.to_json() | change), HERE)


def test_a_file_that_is_no_configuration_is_one_line(tmp_path):
    (tmp_path / "text.json").write_text("not JSON")
    (tmp_path / "list.json").write_text("[1, 2]")
    for name in ("text.json", "list.json"):
        with pytest.raises(dislab.DislabError, match="is not a configuration of this version"):
            RunConfig.from_json(tmp_path / name)
    with pytest.raises(dislab.DislabError, match="cannot be read: No such file"):
        RunConfig.from_json(tmp_path / "missing.json")


def test_a_folder_of_images_is_found_again(tmp_path, monkeypatch):
    from PIL import Image

    for group in ("a", "b"):
        (tmp_path / "photos" / group).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (16, 16), (10 * number, 0, 99)).save(
                tmp_path / "photos" / group / f"{number}.png"
            )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISLAB_CACHE", str(tmp_path / "cache"))
    config = resolve("oracle", "./photos/", HERE)
    assert config.dataset == "photos" and config.own_images == str(tmp_path / "photos")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert check(RunConfig.from_json(config.to_json()), HERE) == config
    Path(tmp_path, "photos", "a", "0.png").unlink()
    from dislab.runs.images import forget_images

    forget_images()
    with pytest.raises(dislab.DislabError, match="but the images here are photos"):
        check(config, HERE)
