"""Training steps as CUDA graphs: on a GPU, and on the CPU with the graphs of `fake_cuda`."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE, make_tiny_dataset
from fake_cuda import FakeCuda, FakeStream, HostWaits, WaitingRefused

import dislab
from dislab.errors import DislabWarning
from dislab.models.adamlvae import AdaMLVAE
from dislab.models.betatcvae import BetaTCVAE
from dislab.models.betavae import BetaVAE
from dislab.models.dcign import DCIGN
from dislab.models.few_labels import S2BetaVAE
from dislab.models.mlvae import MLVAE
from dislab.models.mlvae_adversarial import AdversarialMLVAE
from dislab.models.mlvae_svi import MLVAESVI
from dislab.models.slowvae import SlowVAE
from dislab.models.vae import VAE
from dislab.registry import MODELS
from dislab.training import loop as training
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import show_dataset, steps_of, train_members
from dislab.training.model import check_model
from dislab.training.precision import arithmetic, compute_in_bfloat16
from dislab.training.protocol import Protocol, usual_precision
from dislab.training.steps import CapturedSteps, ParallelSteps, SingleSteps

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
PROTOCOL = Protocol("test", steps=30, learning_rate=1e-3, batch_size=10, rows=None)
WARMED_UP = replace(PROTOCOL, warmup=3)  # the rate changes at every step
DRAWN = ("shapes3d", "dsprites", "cars3d", "mpi3d_toy")
# Hyper-parameters of every model that takes steps, and of the ML-VAE's alternatives.
MODELS_THAT_TRAIN = {
    "vae": {},
    "betavae": {"warmup_steps": 3},
    "betatcvae": {},
    "betatcvae stratified": {"estimator": "stratified"},
    "mlvae": {"group_size": 4},
    "mlvae mixture": {"group_size": 4, "posterior": "mixture"},
    "mlvae image": {"group_size": 4, "content_draw": "image"},
    "mlvae mixture image": {"group_size": 4, "posterior": "mixture", "content_draw": "image"},
    "mlvae average": {"group_size": 4, "posterior": "average"},
    "mlvae by class": {"group_size": 0, "content_draw": "image"},
    "mlvae mixture by class": {"group_size": 0, "posterior": "mixture"},
    "mlvae tanh": {"group_size": 4, "likelihood": "gaussian", "pixel_logvar": "tanh"},
    "gvae_groups": {"group_size": 4, "likelihood": "binarised"},
    "mlvae gaussian": {"group_size": 4, "likelihood": "gaussian"},
    "mlvae_svi": {"group_size": 4, "inference_steps": 2},
    "annealedvae": {},
    "dipvae1": {},
    "dipvae2": {},
    "factorvae": {},
    "hfs": {"pairs": 3},
    "infovae": {"kernel": "imq"},
    "qlae": {},
    "gvae": {},
    "mlvae_pairs": {"changed": 2, "resample": "other"},
    "adagvae": {},
    "adamlvae": {"variance": "harmonic"},
    "s2_betavae": {},
    "s2_betavae embed": {"label_loss": "embed", "label_steps": 3},
    "s2_betatcvae": {"label_loss": "l2_scaled"},
    "s2_factorvae": {"label_loss": "l2"},
    "s2_dipvae1": {"label_loss": "cov", "label_errors": "noisy"},
    "slowvae": {},
    "dcign": {},
    "mlvae_adversarial": {"group_size": 4},
    "cyclevae": {},
    "infogan": {},
}
# Each model once, with the dataset of the fewest images, and each dataset once.
SOME = [(about, "cars3d") for about in MODELS_THAT_TRAIN]
SOME += [("mlvae", name) for name in DRAWN if name != "cars3d"]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def device(request, monkeypatch, way_of_sums) -> torch.device:
    """The GPU, or the CPU with streams and graphs."""
    if request.param == "cuda":
        return torch.device("cuda")
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    make = ParallelSteps.__init__

    def with_streams(self, members, protocol):
        make(self, members, protocol)
        self.streams = [FakeStream(cuda) for _ in members]

    monkeypatch.setattr(ParallelSteps, "__init__", with_streams)

    def captured(*arguments, **options):
        return CapturedSteps(steps_of(*arguments, **options), arguments[2])

    monkeypatch.setattr(training, "steps_of", captured)
    return torch.device("cpu")


@pytest.fixture
def way_of_sums(monkeypatch):
    """Sums by group as on a GPU."""
    monkeypatch.setattr("dislab.networks.distributions._would_sort", lambda values, pairs: True)


@pytest.fixture
def drawn(monkeypatch):
    """The drawn datasets, with black images, which need no drawing."""
    monkeypatch.delenv("DISLAB_DATA", raising=False)
    for name in ("shapes3d", "dsprites", "cars3d", "mpi3d"):
        zeros = f"dislab.datasets.{name}.cached_array", lambda file, shape, make: np.zeros(shape, np.uint8)
        monkeypatch.setattr(*zeros)


@pytest.fixture
def captures(monkeypatch) -> list[CapturedSteps]:
    """The steps that were captured in the test, or should have been."""
    steps, make = [], CapturedSteps.__init__

    def noted(self, *arguments):
        steps.append(self)
        make(self, *arguments)

    monkeypatch.setattr(CapturedSteps, "__init__", noted)
    return steps


def assert_captured(captures: list[CapturedSteps], number: int = 1) -> None:
    """All steps were captured with the draw of their batches."""
    assert len(captures) == number
    for steps in captures:
        assert steps.graph is not None and steps.drawn is None


def make_members(folder, device, kind: type, seeds, **sizes) -> list[Member]:
    """Models with their optimisers, before the first step; the images lie on the device."""
    network = "conv" if device.type == "cuda" else "mlp"  # a fake graph of convolutions takes seconds
    images = make_tiny_dataset().images(range(60)).to(device)
    sizes |= {"content": 2, "style": 2, "group_size": 4} if issubclass(kind, MLVAE) else {"latents": 4}
    members = []
    for seed in seeds:
        dataset = make_tiny_dataset()
        dataset._draw = lambda rows: images[rows]
        torch.manual_seed(seed)
        model = kind(IMAGE_SHAPE, network=network, **sizes).to(device, memory_format=torch.channels_last)
        show_dataset(check_model(model, kind.__name__), dataset, seed)
        by = [["shape"], ["size", "position"]][: sizes.get("groupings", 1)]
        batches = Batches(dataset, model, PROTOCOL.batch_size, by, seed, device)
        members.append(Member(model, batches, folder / f"seed{seed}"))
        members[-1].resume(PROTOCOL.learning_rate)
    return members


def make_steps(members: list[Member]):
    return SingleSteps(members[0], WARMED_UP) if len(members) == 1 else ParallelSteps(members, WARMED_UP)


# What a step may not do


@pytest.mark.parametrize(
    "work",
    [
        lambda numbers: numbers[0].item(),
        lambda numbers: float(numbers[0]),
        lambda numbers: 1 if numbers[0] > 0 else 2,
        lambda numbers: numbers[numbers > 0],
        lambda numbers: numbers[[0, 1]],
        lambda numbers: numbers.nonzero(),
        lambda numbers: numbers.masked_select(numbers > 0),
        lambda numbers: numbers.unique(),
        lambda numbers: numbers.long().bincount(),
        lambda numbers: numbers + torch.tensor(3.0),
        lambda numbers: torch.zeros(4).scatter_(0, numbers.long(), numbers),
        lambda numbers: numbers.gather(0, numbers.detach().long()).sum().backward(),
        lambda numbers: numbers.__setitem__(numbers > 0, 0.0),
        lambda numbers: torch.randperm(4),
    ],
)
def test_the_check_of_steps_finds_what_waits(work):
    numbers = torch.rand(4, requires_grad=True) if "backward" in work.__code__.co_names else torch.rand(4)
    with WaitingRefused(), pytest.raises(HostWaits):
        work(numbers)


@pytest.mark.parametrize(("about", "dataset"), SOME)
def test_no_step_waits_for_the_device(about, dataset, drawn, way_of_sums):
    opened = dislab.load_dataset(dataset, source="rendered", device="cpu")
    name, device = about.partition(" ")[0], torch.device("cpu")

    def make_members(seeds, **more) -> list[Member]:
        by = [opened.group_by, *[[opened.space.names[0]]] * (more.get("groupings", 1) - 1)]
        members = []
        for seed in seeds:
            model = MODELS[name].make(opened.image_shape, **MODELS_THAT_TRAIN[about], **more)
            show_dataset(check_model(model, name), opened, seed)
            members.append(Member(model, Batches(opened, model, 6, by, seed, device), Path("none")))
            members[-1].resume(1e-3)
        return members

    several = [make_steps(make_members([0, 1]))]
    two = name in ("mlvae", "mlvae_svi") and "by class" not in about
    if two and opened.space.names[0] not in opened.group_by:
        several.append(make_steps(make_members([0, 1], groupings=2)))
    for steps in (make_steps(make_members([0])), *several):
        with WaitingRefused():
            steps.step()


# Graphs


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (VAE, {}),
        (BetaVAE, {"warmup_steps": 8}),
        (BetaTCVAE, {}),
        (MLVAE, {}),
        (MLVAE, {"groupings": 2}),
        (MLVAE, {"posterior": "mixture", "content_draw": "image"}),
        (MLVAESVI, {"inference_steps": 2}),
        (AdaMLVAE, {}),
        (SlowVAE, {}),
        (S2BetaVAE, {"labels": 20}),
        (DCIGN, {}),
        (AdversarialMLVAE, {"target": 1e-3}),
    ],
)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_graph_takes_the_same_steps(tmp_path, device, kind, sizes, seeds):
    with arithmetic(device, "fp32"):
        steps, eager = (make_steps(make_members(tmp_path, device, kind, seeds, **sizes)) for _ in range(2))
        captured = CapturedSteps(steps, quiet=False)
        for _ in range(10):
            terms, expected = captured.step(), eager.step()
            for name in terms:
                torch.testing.assert_close(terms[name], expected[name], rtol=1e-5, atol=1e-4)
    assert_captured([captured])
    assert steps.number.item() == 10
    for member, other in zip(steps.members, eager.members, strict=True):
        mine, theirs = (one.batches.generator.get_state() for one in (member, other))
        assert torch.equal(mine, theirs)
        for mine, theirs in zip(member.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["usual", "bf16"])
@pytest.mark.parametrize(("kind", "sizes"), [(VAE, {}), (MLVAE, {}), (MLVAESVI, {"inference_steps": 2})])
def test_side_by_side_is_each_alone_and_twice_is_the_same(tmp_path, device, kind, sizes, precision, captures):
    """To the last bit."""

    def trained(folder: Path, seeds) -> list[Member]:
        folder.mkdir()
        members = make_members(folder, device, kind, seeds, **sizes)
        for member in members:
            if precision == "bf16":
                compute_in_bfloat16(member.model)
        train_members(members, PROTOCOL)
        return members

    with arithmetic(device, usual_precision(device.type) if precision == "usual" else precision):
        both = trained(tmp_path / "both", (0, 1))
        again = trained(tmp_path / "again", (0, 1))
        alone = trained(tmp_path / "alone", (1,))
    assert_captured(captures, 3)
    for member, other in [*zip(both, again, strict=True), (both[1], alone[0])]:
        assert member.history.rows == other.history.rows
        theirs = other.model.state_dict()
        for name, value in member.model.state_dict().items():
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_an_interrupted_training_goes_on_to_the_same_result(tmp_path, device, seeds, captures):
    (tmp_path / "whole").mkdir()
    with arithmetic(device, "fp32"):
        whole = make_members(tmp_path / "whole", device, MLVAE, seeds)
        train_members(whole, PROTOCOL)
        train_members(make_members(tmp_path, device, MLVAE, seeds), Protocol("test", 25, 1e-3, 10, None))
        members = make_members(tmp_path, device, MLVAE, seeds)
        train_members(members, PROTOCOL)
    assert_captured(captures, 3)
    for member, other in zip(members, whole, strict=True):
        assert member.history.rows == other.history.rows
        assert torch.equal(member.batches.generator.get_state(), other.batches.generator.get_state())


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_images_on_the_host_are_drawn_outside_of_the_graph(tmp_path, device, seeds):
    def make():
        members = make_members(tmp_path, device, MLVAE, seeds)
        draw = make_tiny_dataset()._draw
        for member in members:
            # On the CPU nothing but `tolist` waits for the rows.
            member.batches.dataset._draw = lambda rows: draw(torch.tensor(rows.tolist()))
        return make_steps(members)

    with arithmetic(device, "fp32"):
        captured, eager = CapturedSteps(make(), quiet=False), make()
        for _ in range(10):
            torch.testing.assert_close(captured.step()["loss"], eager.step()["loss"], rtol=1e-5, atol=1e-4)
    assert captured.graph is not None and captured.drawn is not None


class Branching(VAE):
    """A loss with a branch in Python, which cannot be captured."""

    def loss(self, batch, step):
        terms = super().loss(batch, step)
        return terms if terms["kl"].item() >= 0 else {}


class Deceptive(VAE):
    """A loss that only the capture itself refuses."""

    def loss(self, batch, step):
        if self.is_captured():
            raise ValueError("not in a capture")
        return super().loss(batch, step)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("kind", [Branching, Deceptive])
def test_a_loss_that_cannot_be_captured_is_trained_all_the_same(
    tmp_path, device, kind, seeds, capsys, captures, monkeypatch
):
    def is_captured(self) -> bool:
        if device.type == "cuda":
            return torch.cuda.is_current_stream_capturing()
        return bool(captures and captures[-1].stream.cuda.capturing)

    monkeypatch.setattr(Deceptive, "is_captured", is_captured, raising=False)
    members = make_members(tmp_path, device, kind, seeds)
    with arithmetic(device, "fp32"):
        train_members(members, PROTOCOL, quiet=False)
    assert "CUDA graph capture failed; training without it (slower): " in capsys.readouterr().err
    assert [steps.graph for steps in captures] == [None]
    (tmp_path / "other").mkdir()
    others = make_members(tmp_path / "other", device, VAE, seeds)
    with arithmetic(device, "fp32"):
        train_members(others, PROTOCOL)
    for member, other in zip(members, others, strict=True):
        np.testing.assert_allclose(member.history.rows, other.history.rows, rtol=1e-4)


# Runs


def stop(*arguments):
    raise dislab.RunFailed("stopped")


@pytest.mark.parametrize("dataset", DRAWN)
@pytest.mark.parametrize("about", MODELS_THAT_TRAIN)
def test_a_run_is_captured_with_its_draw(
    about, dataset, device, drawn, captures, tmp_path, no_pictures, monkeypatch, recwarn
):
    if device.type == "cpu":  # there a run is not what is to be seen, but how it trains
        if (about, dataset) not in SOME:
            pytest.skip("on the CPU some are enough")
        monkeypatch.setattr("dislab.runs.perform._finish", stop)
    settings = {"steps": 6, "batch_size": 8, "metrics": [], "source": "rendered", "device": device.type}
    model = about.partition(" ")[0]
    context = pytest.raises(dislab.RunFailed, match="stopped") if device.type == "cpu" else nullcontext()
    with context:
        dislab.run(model, dataset, out=tmp_path, **settings, **MODELS_THAT_TRAIN[about])
    assert_captured(captures)
    assert not [one for one in recwarn if issubclass(one.category, DislabWarning)]
