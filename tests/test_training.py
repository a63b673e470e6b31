"""Batches, hyper-parameters, protocols, and a training loop that may be stopped at any time."""

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset
from scipy.stats import chisquare

from dislab.errors import DislabError, RunFailed
from dislab.files import write_atomically
from dislab.models.mlvae import MLVAE
from dislab.models.vae import VAE
from dislab.registry import MODELS, Entry
from dislab.runs import hyperparameters
from dislab.training import loop as training
from dislab.training.batches import Batches
from dislab.training.checkpoint import History, save_checkpoint
from dislab.training.loop import train
from dislab.training.protocol import PROTOCOLS, Protocol, choose_protocol

CPU = torch.device("cpu")


class Grouped:
    """What `Batches` asks of a model that is trained on groups."""

    batch, latents = "groups", 3

    def __init__(self, group_size: int):
        self.group_size = group_size


class Ungrouped:
    batch, latents = "iid", 3


def draw_rows(batches: Batches, times: int) -> np.ndarray:
    """Rows [times, B] of so many batches."""
    return torch.stack([batches.rows()[0] for _ in range(times)]).numpy()


def assert_uniform(rows: np.ndarray, among) -> None:
    """The rows are uniform draws from `among`, and nothing else."""
    values, counts = np.unique(rows, return_counts=True)
    assert set(values) == set(among)
    # The seeds are fixed, so this does not fail by chance; a true bias gives far smaller p-values.
    assert chisquare(counts).pvalue > 1e-3


# Batches


@pytest.mark.parametrize("group_by", [["shape"], ["position", "shape"]])
def test_groups_share_their_label_and_have_different_members(tiny_dataset, group_by):
    batches = Batches(tiny_dataset, Grouped(3), 9, [group_by], 0, CPU)
    columns = tiny_dataset.space.columns(group_by)
    for rows in draw_rows(batches, 50):
        for group in rows.reshape(3, 3):
            assert len(set(group)) == 3
            assert len(np.unique(tiny_dataset.space.factors(group)[:, columns], axis=0)) == 1
    assert batches.slots.index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert batches.slots.first.tolist() == [0, 3, 6]


def test_rows_are_uniform_in_every_place_of_a_batch(tiny_dataset):
    for model in (Ungrouped(), Grouped(4)):
        rows = draw_rows(Batches(tiny_dataset, model, 12, [["shape"]], 1, CPU), 2000)
        assert_uniform(rows, range(60))
    # In a group of an "iid" batch there is one image, and images come back.
    batches = Batches(tiny_dataset, Ungrouped(), 12, [["shape"]], 1, CPU)
    assert batches.slots.index.tolist() == batches.slots.first.tolist() == list(range(12))
    assert any(len(set(rows)) < 12 for rows in draw_rows(batches, 50))


def test_every_set_of_members_is_equally_likely(tiny_dataset):
    # The groups of shape and size have five rows each, and ten sets of three.
    rows = draw_rows(Batches(tiny_dataset, Grouped(3), 30, [["shape", "size"]], 2, CPU), 1000)
    sets = np.sort(rows.reshape(-1, 3) % 5, axis=1) @ [25, 5, 1]
    assert_uniform(sets, [a * 25 + b * 5 + c for a, b, c in itertools.combinations(range(5), 3)])


@pytest.mark.parametrize("group_size", [4, 8, 15])
def test_the_last_group_takes_what_is_left_and_is_uniform_too(tiny_dataset, group_size):
    left = 3
    batches = Batches(tiny_dataset, Grouped(group_size), 2 * group_size + left, [["shape"]], 3, CPU)
    assert batches.slots.index.tolist() == [0] * group_size + [1] * group_size + [2] * left
    assert batches.slots.first.tolist() == [0, group_size, 2 * group_size]
    last = draw_rows(batches, 2000)[:, 2 * group_size :]
    assert last.shape == (2000, left)
    assert all(len(set(group)) == left for group in last)
    assert (last // 15 == last[:, :1] // 15).all()
    assert_uniform(last, range(60))


def test_a_batch_smaller_than_a_group_is_one_group(tiny_dataset):
    batches = Batches(tiny_dataset, Grouped(8), 5, [["shape"]], 0, CPU)
    assert batches.slots.index.tolist() == [0] * 5
    assert batches.slots.first.tolist() == [0]
    assert len(set(draw_rows(batches, 1)[0])) == 5


def test_a_group_that_is_too_small_is_an_error(tiny_dataset):
    Batches(tiny_dataset, Grouped(5), 10, [["shape", "size"]], 0, CPU)
    with pytest.raises(
        DislabError, match=r"group_size=6 .*--group-by shape,size.* more than 5 training images"
    ):
        Batches(tiny_dataset, Grouped(6), 12, [["shape", "size"]], 0, CPU)
    with pytest.raises(DislabError, match="did you mean 'shape'"):
        Batches(tiny_dataset, Grouped(2), 12, [["shap"]], 0, CPU)


def test_groups_with_too_few_images_are_not_drawn():
    dataset = make_tiny_dataset(
        held_out=np.arange(12)
    )  # leaves three images of shape 0, fifteen of the others
    rows = draw_rows(Batches(dataset, Grouped(4), 12, [["shape"]], 0, CPU), 200)
    assert set(np.unique(rows // 15)) == {1, 2, 3}


def test_only_training_rows_are_drawn():
    held_out = np.array([0, 1, 2, 3, 4, 5, 14, 16, 33, 58, 59])
    dataset = make_tiny_dataset(held_out)
    trained = np.setdiff1d(np.arange(60), held_out)
    batches = Batches(dataset, Ungrouped(), 10, [[]], 0, CPU)
    assert_uniform(draw_rows(batches, 2000), trained)
    assert batches.draw().dataset_size == 49

    batches = Batches(dataset, Grouped(4), 12, [["shape"]], 0, CPU)
    rows = draw_rows(batches, 2000)
    assert set(rows.flat) == set(trained)
    # Groups are uniform though the first has 8 images and the third has 14; so are images within each.
    assert_uniform(rows[:, ::4] // 15, range(4))
    for shape in range(4):
        assert_uniform(rows[rows // 15 == shape], trained[trained // 15 == shape])
    assert batches.draw().dataset_size == 49


def test_a_group_without_training_rows_is_not_drawn():
    dataset = make_tiny_dataset(np.arange(15, 30))
    rows = draw_rows(Batches(dataset, Grouped(4), 12, [["shape"]], 0, CPU), 200)
    assert set(np.unique(rows // 15)) == {0, 2, 3}


def test_several_groupings_are_drawn_alike(tiny_dataset):
    batches = Batches(tiny_dataset, Grouped(4), 12, [["shape"], ["size", "position"]], 0, CPU)
    values = [[], []]
    for _ in range(500):
        rows, groupings = batches.rows_of_several()
        factors = tiny_dataset.space.factors(rows)
        labels = [factors[:, 0], 5 * factors[:, 1] + factors[:, 2]]
        for grouping, (groups, label) in enumerate(zip(groupings, labels, strict=True)):
            assert torch.bincount(groups.index).tolist() == [4, 4, 4]
            assert groups.index[groups.first].tolist() == [0, 1, 2]
            of_group = label[groups.first]
            assert (label == of_group[groups.index]).all(), "all images of a group share its value"
            values[grouping] += of_group.tolist()
        pairs = torch.stack([groups.index for groups in groupings])
        assert len(torch.unique(pairs, dim=1).T) > 3, "the groupings cut across each other"
    assert_uniform(np.array(values[0]), range(4))
    assert_uniform(np.array(values[1]), range(15))


def test_several_groupings_need_every_combination():
    dataset = make_tiny_dataset(held_out=np.arange(5))  # all images of shape 0 and size 0
    with pytest.raises(DislabError, match=r"1 of 12 are missing for shape with size"):
        Batches(dataset, Grouped(2), 12, [["shape"], ["size"]], 0, CPU)


def test_a_batch_holds_the_images_of_its_rows(tiny_dataset):
    batches, same = (Batches(tiny_dataset, Grouped(4), 10, [["shape"]], 5, CPU) for _ in range(2))
    batch, rows = batches.draw(), same.rows()[0]
    assert batch.images.dtype == torch.float32
    torch.testing.assert_close(batch.images, tiny_dataset.images(rows).float() / 255)
    assert 0.5 < batch.images.max() <= 1
    assert batch.noise.shape == (10, 3)
    assert batch.groupings[0].number == 3
    noise = torch.cat([batches.draw().noise.flatten() for _ in range(300)])
    assert noise.mean().abs() < 0.05
    assert abs(noise.std() - 1) < 0.05


def test_the_seed_decides_the_batches(tiny_dataset):
    first, again, other = (
        Batches(tiny_dataset, Grouped(4), 10, [["shape"]], seed, CPU) for seed in (7, 7, 8)
    )
    for _ in range(3):
        one, two, three = first.draw(), again.draw(), other.draw()
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.noise, two.noise)
        assert not torch.equal(one.noise, three.noise)


# Hyper-parameters and protocols


class Base:
    def __init__(self, image_shape, *, latents: int = 10, kind: Literal["a", "b"] = "a"):
        pass


class Derived(Base):
    def __init__(self, image_shape, *, beta: float = 4.0, offset: int = 0, fast: bool = False, **others):
        pass


class Last(Derived):
    def __init__(self, image_shape, *, beta: float = 8.0, **others):
        pass


class Closed(Derived):
    def __init__(self, image_shape, *, width: int = 3):
        pass


class Inheriting(Derived):
    pass


def resolve(**given):
    return hyperparameters.resolve(Entry("toy", Derived), given)


def test_defaults_follow_others_to_the_base_class():
    assert hyperparameters.defaults(Base) == {"latents": 10, "kind": "a"}
    both = {"beta": 4.0, "offset": 0, "fast": False, "latents": 10, "kind": "a"}
    assert hyperparameters.defaults(Derived) == hyperparameters.defaults(Inheriting) == both
    assert hyperparameters.defaults(Last) == both | {"beta": 8.0}
    assert hyperparameters.defaults(Closed) == {"width": 3}


def test_defaults_of_the_models_make_the_models():
    for name in ("vae", "betavae", "betatcvae", "mlvae"):
        entry = MODELS[name]
        values = hyperparameters.resolve(entry, {"network": "mlp"})
        assert values["network"] == "mlp"
        model = entry.make(IMAGE_SHAPE, **values)
        assert {key: getattr(model, key) for key in values if hasattr(model, key)} == {
            key: value for key, value in values.items() if key != "network"
        }


def test_values_are_read_as_the_type_of_the_default():
    assert resolve() == hyperparameters.defaults(Derived)
    values = resolve(latents="8", beta="2", fast="true", kind="b", offset="0")
    assert values == {"latents": 8, "beta": 2.0, "fast": True, "kind": "b", "offset": 0}
    assert {name: type(value) for name, value in values.items()} == {
        "latents": int,
        "beta": float,
        "fast": bool,
        "kind": str,
        "offset": int,
    }
    assert resolve(latents=8.0)["latents"] == 8
    assert resolve(latents="1e1")["latents"] == 10
    assert resolve(beta=0)["beta"] == 0.0
    for word, value in {"True": True, "no": False, "0": False, "1": True, False: False}.items():
        assert resolve(fast=word)["fast"] is value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latents": "8.5"}, "toy: latents is '8.5': it must be a whole number"),
        ({"latents": 8.5}, "must be a whole number"),
        ({"latents": "many"}, "must be a whole number"),
        ({"latents": None}, "must be a whole number"),
        ({"latents": "nan"}, "must be a whole number"),
        ({"latents": "inf"}, "must be a whole number"),
        ({"latents": 0}, "latents is 0: it must be 1 or more"),
        ({"latents": "-3"}, "latents is -3: it must be 1 or more"),
        ({"beta": "nan"}, "beta is 'nan': it must be a number"),
        ({"beta": float("inf")}, "must be a number"),
        ({"beta": "-0.5"}, "beta is -0.5: it must be 0 or more"),
        ({"offset": -1}, "offset is -1: it must be 0 or more"),
        ({"fast": "maybe"}, "fast is 'maybe': it must be true or false"),
        ({"kind": "c"}, "kind is 'c': choose a, b"),
        ({"betta": 1}, "unknown hyper-parameter of toy 'betta': did you mean 'beta'?"),
        ({"zzz": 1}, "known are beta, offset, fast, latents, kind"),
    ],
)
def test_wrong_values_are_one_clear_line(given, message):
    with pytest.raises(DislabError) as error:
        resolve(**given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_choices_of_the_models():
    with pytest.raises(DislabError, match="estimator is 'exact': choose weighted, stratified"):
        hyperparameters.resolve(MODELS["betatcvae"], {"estimator": "exact"})
    with pytest.raises(DislabError, match="likelihood is 'poisson': choose bernoulli, gaussian"):
        hyperparameters.resolve(MODELS["betatcvae"], {"likelihood": "poisson"})


def test_protocols_and_their_changes():
    assert choose_protocol("quick") == PROTOCOLS["quick"]
    changed = choose_protocol("paper", steps=10, batch_size=32)
    assert changed == Protocol("paper+steps=10+batch_size=32", 10, 1e-4, 32, None)
    # A value that is the protocol's own is no change.
    assert choose_protocol("quick", steps=2000, batch_size=32) == PROTOCOLS["quick"]
    assert choose_protocol("quick", steps=0).steps == 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("quik", {}, "unknown protocol 'quik': did you mean 'quick'?"),
        ("zzz", {}, "known are quick, paper"),
        ("quick", {"steps": -1}, "--steps is -1: it must be 0"),
        ("quick", {"batch_size": 1}, "--batch-size is 1: it must be 2 or more"),
    ],
)
def test_wrong_protocols_are_errors(name, changes, message):
    with pytest.raises(DislabError) as error:
        choose_protocol(name, **changes)
    assert message in str(error.value)


# Training

STEPS = 60
PROTOCOL = Protocol("test", steps=STEPS, learning_rate=1e-3, batch_size=10, rows=None)


def make_training(kind: type = MLVAE, seed: int = 0) -> tuple[VAE, Batches]:
    """A small model with the parameters of its seed, and its batches."""
    sizes = {"content": 2, "style": 2, "group_size": 4} if issubclass(kind, MLVAE) else {"latents": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(IMAGE_SHAPE, network="mlp", **sizes)
    return model, Batches(make_tiny_dataset(), model, PROTOCOL.batch_size, [["shape"]], seed, CPU)


def at_step(model, wanted: int, do) -> None:
    """Call `do(terms)` in the loss of the step number `wanted`, counted from 0; it may change the terms."""
    loss = model.loss

    def patched(batch, step):
        terms = loss(batch, step)
        return (do(terms) or terms) if step.item() == wanted else terms

    model.loss = patched


def assert_same_parameters(model, other) -> None:
    """Equal bit for bit."""
    theirs = other.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, theirs[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The model and the history of a whole training with seed 0."""
    model, batches = make_training()
    return model, train(model, batches, PROTOCOL, tmp_path_factory.mktemp("whole") / "checkpoint")


def test_training_lowers_the_loss_and_logs_it(uninterrupted):
    model, history = uninterrupted
    assert history.terms == ["loss", "reconstruction", "kl_style", "kl_content"]
    assert [row[0] for row in history.rows] == [25, 50, 60]
    assert history.rows[-1][1] < 0.8 * history.rows[0][1]
    assert history.seconds > 0
    assert not model.training


def test_the_logged_terms_are_those_of_the_step(tmp_path):
    model, batches = make_training()
    seen = []
    at_step(model, 24, lambda terms: seen.append({name: value.item() for name, value in terms.items()}))
    history = train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    assert history.rows[0] == [25, *seen[0].values()]


def test_training_is_adam_on_the_loss(tmp_path, uninterrupted):
    # The same by hand, with the unfused optimiser and its published defaults.
    model, batches = make_training()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=False)
    for step in range(STEPS):
        optimiser.zero_grad()
        model.loss(batches.draw(), torch.tensor(float(step)))["loss"].backward()
        optimiser.step()
    for mine, theirs in zip(model.parameters(), uninterrupted[0].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=2e-4)


def test_steps_are_counted_for_the_loss(tmp_path):
    model, batches = make_training()
    seen, loss = [], model.loss
    model.loss = lambda batch, step: seen.append(step.item()) or loss(batch, step)
    train(model, batches, Protocol("test", 3, 1e-3, 10, None), tmp_path / "checkpoint")
    assert seen == [0, 1, 2]


def test_no_steps_leave_the_model_as_it_was(tmp_path):
    (model, batches), (fresh, _) = make_training(), make_training()
    history = train(model, batches, Protocol("test", 0, 1e-3, 10, None), tmp_path / "checkpoint")
    assert_same_parameters(model, fresh)
    assert history.rows == []


def test_same_seed_gives_the_same_parameters_bit_for_bit(tmp_path, uninterrupted):
    whole, history = uninterrupted
    model, batches = make_training()
    torch.rand(100)  # torch's global random state plays no part
    assert train(model, batches, PROTOCOL, tmp_path / "same").rows == history.rows
    assert_same_parameters(model, whole)
    model, batches = make_training(seed=1)
    assert train(model, batches, PROTOCOL, tmp_path / "other").rows != history.rows


@pytest.mark.parametrize("step", [0, 31, 49, 59])
def test_interrupted_training_goes_on_to_the_same_result(tmp_path, uninterrupted, step):
    whole, history = uninterrupted
    model, batches = make_training()
    handler = signal.getsignal(signal.SIGINT)
    at_step(model, step, lambda terms: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    assert signal.getsignal(signal.SIGINT) is handler
    assert_same_progress(tmp_path / "checkpoint", step + 1)

    # Another seed: whatever decides the result must come from the checkpoint.
    model, batches = make_training(seed=5)
    seen, loss = [], model.loss
    model.loss = lambda batch, step: seen.append(step.item()) or loss(batch, step)
    resumed = train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    assert seen == list(range(step + 1, STEPS))
    assert_same_parameters(model, whole)
    assert (resumed.terms, resumed.rows) == (history.terms, history.rows)
    assert torch.equal(batches.generator.get_state(), generator_after(STEPS))


def test_convolutions_with_their_channels_last_go_on_to_the_same_result(tmp_path):
    """Adam's moments must lie in memory as the weights do, which a file does not keep."""

    def make() -> tuple[VAE, Batches]:
        torch.manual_seed(0)
        model = VAE(IMAGE_SHAPE, network="conv", latents=3).to(memory_format=torch.channels_last)
        return model, Batches(make_tiny_dataset(), model, 4, [["shape"]], 0, CPU)

    protocol = Protocol("test", steps=6, learning_rate=1e-2, batch_size=4, rows=None)
    whole, batches = make()
    train(whole, batches, protocol, tmp_path / "whole")
    model, batches = make()
    train(model, batches, replace(protocol, steps=3), tmp_path / "checkpoint")
    model, batches = make()
    train(model, batches, protocol, tmp_path / "checkpoint")
    assert_same_parameters(model, whole)


def assert_same_progress(checkpoint: Path, steps: int) -> None:
    """The checkpoint holds what a training of so many steps has: no step was cut in two."""
    model, batches = make_training(seed=5)
    optimiser = torch.optim.Adam(model.parameters())
    assert training.load_checkpoint(checkpoint, model, optimiser, batches.generator, History()) == steps
    assert torch.equal(batches.generator.get_state(), generator_after(steps))
    counts = {int(state["step"]) for state in optimiser.state_dict()["state"].values()}
    assert counts == {steps}


def generator_after(steps: int) -> torch.Tensor:
    _, batches = make_training()
    for _ in range(steps):
        batches.draw()
    return batches.generator.get_state()


def test_training_interrupted_twice_goes_on_to_the_same_result(tmp_path, uninterrupted):
    for step in (12, 40):
        model, batches = make_training()
        at_step(model, step, lambda terms: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    model, batches = make_training()
    history = train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    assert_same_parameters(model, uninterrupted[0])
    assert history.rows == uninterrupted[1].rows


def test_finished_training_is_not_trained_further(tmp_path, uninterrupted):
    model, batches = make_training()
    before = train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    model, batches = make_training(seed=5)
    model.loss = None
    after = train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    assert_same_parameters(model, uninterrupted[0])
    assert after.rows == before.rows
    assert after.seconds >= before.seconds > 0


# Run by the test below in a process of its own, which it kills. Its arguments are the checkpoint, what to
# wait in, and the number of threads, which decides the last bits of sums.
KILLED = """
import sys, time
from pathlib import Path
import torch
from dislab.training import loop as training
from test_training import PROTOCOL, at_step, make_training

checkpoint, place, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
training.SECONDS_BETWEEN_CHECKPOINTS, training.LOG_EVERY = -1, 25
model, batches = make_training()

def wait(*_):
    print("waiting", flush=True)
    time.sleep(60)

if place == "loss":
    at_step(model, 37, wait)
else:  # the second checkpoint is written, but not moved to its place
    sync, calls = training.os.fsync, []
    training.os.fsync = lambda file: sync(file) if calls.append(1) or len(calls) == 1 else wait()
training.train(model, batches, PROTOCOL, checkpoint)
"""


@pytest.mark.parametrize("place", ["loss", "checkpoint"])
def test_killed_training_goes_on_to_the_same_result(tmp_path, uninterrupted, place):
    whole, history = uninterrupted
    checkpoint = tmp_path / "checkpoint.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(checkpoint), place, str(torch.get_num_threads())],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    try:
        assert process.stdout.readline() == "waiting\n"
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.part"))) == (place == "checkpoint")
    assert_same_progress(checkpoint, 25)

    model, batches = make_training(seed=5)
    resumed = train(model, batches, PROTOCOL, checkpoint)
    assert_same_parameters(model, whole)
    assert (resumed.terms, resumed.rows) == (history.terms, history.rows)


def test_checkpoints_are_written_when_their_time_has_come(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(training, "save_checkpoint", lambda *arguments: saved.append(arguments[-1]))
    for seconds, expected in ((-1, [25, 50, 60, 60]), (1000, [60])):
        saved.clear()
        monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
        train(*make_training(), PROTOCOL, tmp_path / "checkpoint")
        assert saved == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_term_that_is_not_finite_fails_the_run(tmp_path, value):
    model, batches = make_training()
    at_step(model, 49, lambda terms: terms | {"kl_style": torch.tensor(value)})
    with pytest.raises(RunFailed, match=rf"loss term 'kl_style' is {value}, noticed at step 50"):
        train(model, batches, PROTOCOL, tmp_path / "checkpoint")


def test_a_loss_that_turned_nan_is_noticed_at_the_next_reading(tmp_path):
    model, batches = make_training(VAE)
    at_step(model, 30, lambda terms: terms | {"loss": terms["loss"] * float("nan")})
    with pytest.raises(RunFailed, match=r"loss term '\w+' is nan, noticed at step 50") as error:
        train(model, batches, PROTOCOL, tmp_path / "checkpoint")
    assert error.value.exit_code == 1
    # Nothing that is NaN is kept as a state to go on from.
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_without_steps_or_history_can_be_read(tmp_path):
    model, batches = make_training()
    optimiser = torch.optim.Adam(model.parameters())
    save_checkpoint(tmp_path / "checkpoint", model, optimiser, batches.generator, History(), 0)
    other, other_batches = make_training(seed=3)
    history = History()
    steps = training.load_checkpoint(
        tmp_path / "checkpoint", other, torch.optim.Adam(other.parameters()), other_batches.generator, history
    )
    assert (steps, history) == (0, History())
    assert_same_parameters(model, other)


def test_history_is_written_as_csv(tmp_path):
    history = History(["loss", "kl"], [[25, 1.5, 0.25], [50, 1234567.0, 1e-9]], 1.0)
    history.write_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text() == "step,loss,kl\n25,1.5,0.25\n50,1.23457e+06,1e-09\n"


# Files


def test_write_atomically_replaces_the_file(tmp_path):
    for content in (b"first", b"the second, which is longer", b""):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_reader_of_the_old_file_never_sees_a_mixture(tmp_path):
    write_atomically(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        write_atomically(tmp_path / "file", b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_half_one(tmp_path, monkeypatch, error):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor):
        assert path.read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 2
        raise error

    monkeypatch.setattr(training.os, "fsync", fail)
    expected = RunFailed if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as raised:
        write_atomically(path, b"new")
    if expected is RunFailed:
        assert str(raised.value) == f"cannot write '{path}': No space left on device"
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(RunFailed, match="No such file or directory"):
        write_atomically(path, b"new")


def test_a_file_in_place_of_the_folder_is_one_clear_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFailed, match="Not a directory"):
        write_atomically(tmp_path / "taken" / "file", b"new")
