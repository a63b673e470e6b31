"""A training loop that may be stopped at any time."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset

from dislab.errors import DislabError, RunFailed
from dislab.files import SEAL, UNSEALED, sealed
from dislab.models.mlvae import MLVAE
from dislab.models.vae import VAE
from dislab.training import loop as training
from dislab.training.batches import Batches
from dislab.training.checkpoint import History, Member
from dislab.training.loop import train_members
from dislab.training.protocol import Protocol

CPU = torch.device("cpu")


STEPS = 60
PROTOCOL = Protocol("test", steps=STEPS, learning_rate=2e-3, batch_size=10, rows=None, warmup=5)


def make_training(kind: type = MLVAE, seed: int = 0) -> tuple[VAE, Batches]:
    """A small model with the parameters of its seed, and its batches."""
    sizes = {"content": 2, "style": 2, "group_size": 4} if issubclass(kind, MLVAE) else {"latents": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(IMAGE_SHAPE, network="mlp", **sizes)
    return model, Batches(make_tiny_dataset(), model, PROTOCOL.batch_size, [["shape"]], seed, CPU)


def train(model, batches: Batches, protocol: Protocol, checkpoint: Path) -> History:
    """Train a single model."""
    member = Member(model, batches, checkpoint)
    train_members([member], protocol)
    if member.failure:
        raise member.failure
    return member.history


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
        optimiser.param_groups[0]["lr"] = 2e-3 * min((step + 1) / 5, 1, 2 - 2 * step / STEPS)
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
    member = Member(*make_training(seed=5), checkpoint)
    member.resume(PROTOCOL.learning_rate)
    assert member.done == steps
    assert torch.equal(member.batches.generator.get_state(), generator_after(steps))
    counts = {int(value) for name, value in member.optimiser.state().items() if name.endswith("step")}
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
from dislab import files
from dislab.training import loop as training
from test_training import PROTOCOL, at_step, make_training, train

checkpoint, moment, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
training.SECONDS_BETWEEN_CHECKPOINTS, training.LOG_EVERY = -1, 25
model, batches = make_training()

def wait(*_):
    print("waiting", flush=True)
    time.sleep(60)

if moment == "loss":
    at_step(model, 37, wait)
else:  # the second checkpoint is written, but not yet renamed
    sync, calls = files.os.fsync, []
    files.os.fsync = lambda file: sync(file) if calls.append(1) or len(calls) == 1 else wait()
train(model, batches, PROTOCOL, checkpoint)
"""


@pytest.mark.parametrize("moment", ["loss", "checkpoint"])
def test_killed_training_goes_on_to_the_same_result(tmp_path, uninterrupted, moment):
    whole, history = uninterrupted
    checkpoint = tmp_path / "checkpoint.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(checkpoint), moment, str(torch.get_num_threads())],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    try:
        assert process.stdout.readline() == "waiting\n"
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.part"))) == (moment == "checkpoint")
    assert_same_progress(checkpoint, 25)

    model, batches = make_training(seed=5)
    resumed = train(model, batches, PROTOCOL, checkpoint)
    assert_same_parameters(model, whole)
    assert (resumed.terms, resumed.rows) == (history.terms, history.rows)


def test_checkpoints_are_written_when_their_time_has_come(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Member, "save", lambda member: saved.append(member.done))
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
    first, other = (Member(*make_training(seed=seed), tmp_path / "checkpoint") for seed in (0, 3))
    first.resume(PROTOCOL.learning_rate)
    first.save()
    other.resume(PROTOCOL.learning_rate)
    assert (other.done, other.history) == (0, History())
    assert_same_parameters(first.model, other.model)


@pytest.mark.parametrize("damage", ["bits", "text", "cut"])
def test_from_a_damaged_checkpoint_the_training_begins_anew(tmp_path, capsys, damage):
    path = tmp_path / "checkpoint"
    member = Member(*make_training(), path)
    member.resume(PROTOCOL.learning_rate)
    member.done = 2
    member.save()
    content = bytearray(path.read_bytes())
    for position in range(5000, 5100):
        content[position] ^= 1 << position % 8
    path.write_bytes({"bits": content, "text": b"damaged", "cut": content[:-1]}[damage])
    history = train(*make_training(), PROTOCOL, path)
    assert f"'{path}' is damaged: the training begins anew" in capsys.readouterr().err
    assert history.rows == train(*make_training(), PROTOCOL, tmp_path / "other").rows


def test_a_checkpoint_of_another_device_or_model_is_one_clear_line(tmp_path):
    path = tmp_path / "checkpoint"
    member = Member(*make_training(), path)
    member.resume(PROTOCOL.learning_rate)
    member.save()
    content = path.read_bytes()
    unsealed = SEAL.sub(b'"check":"' + UNSEALED + b'"', content.replace(b".weight", b".wEight"), count=1)
    path.write_bytes(sealed(unsealed))
    with pytest.raises(DislabError, match=r"is of another model, delete it to train anew") as error:
        train(*make_training(), PROTOCOL, path)
    assert "\n" not in str(error.value)
    content = content.replace(b'"device":"cpu"', b'"device":"tpu"')
    path.write_bytes(sealed(SEAL.sub(b'"check":"' + UNSEALED + b'"', content, count=1)))
    with pytest.raises(DislabError, match=r"the run was begun on tpu: go on there \(--device\), or delete"):
        train(*make_training(), PROTOCOL, path)


@pytest.mark.parametrize(("returned", "named"), [(torch.ones(()), "not Tensor"), ({"kl": 1}, "not only kl")])
def test_a_loss_that_does_not_return_its_terms_is_one_clear_line(tmp_path, returned, named):
    model, batches = make_training(VAE)
    model.loss = lambda batch, step: returned
    with pytest.raises(DislabError, match=f"VAE.loss must return a dict .* with the key 'loss', {named}"):
        train(model, batches, PROTOCOL, tmp_path / "checkpoint")


def test_history_is_written_as_csv(tmp_path):
    history = History(["loss", "kl"], [[25, 1.5, 0.25], [50, 1234567.0, 1e-9]], 1.0)
    history.write_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text() == "step,loss,kl\n25,1.5,0.25\n50,1.23457e+06,1e-09\n"
