"""Few labels: the label term against slow loops, which images have labels, and the model without labels."""

import math

import numpy as np
import pytest
import torch
from conftest import IMAGE_SHAPE, SIZES, make_tiny_dataset, one_line
from small_models import make_model
from torch.distributions import Bernoulli

import dislab
from dislab.data.dataset import Dataset, unit_images
from dislab.data.space import FactorSpace
from dislab.errors import DislabError
from dislab.models import factorvae
from dislab.models.few_labels import S2DIPVAE1, S2BetaTCVAE, S2BetaVAE, S2FactorVAE, with_errors
from dislab.registry import MODELS
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import show_dataset, train_members
from dislab.training.model import check_model
from dislab.training.protocol import Protocol
from dislab.training.steps import ParallelSteps, SingleSteps

NAMES = ["s2_betavae", "s2_betatcvae", "s2_factorvae", "s2_dipvae1"]
TERMS = ["xent", "l2", "l2_scaled", "cov", "embed"]
PROTOCOL = Protocol("test", steps=8, learning_rate=1e-3, batch_size=6, rows=None)
SMALL = {"network": "mlp", "latents": 4}


@pytest.fixture(autouse=True)
def small_discriminator(monkeypatch):
    """A discriminator of one small layer: the published one has five million weights."""
    published = factorvae.discriminator
    monkeypatch.setattr(factorvae, "discriminator", lambda latents, *sizes: published(latents, 8, 2))


def make_member(name: str, checkpoint, seed: int = 0, **settings) -> Member:
    dataset = make_tiny_dataset()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = check_model(MODELS[name].make(IMAGE_SHAPE, **SMALL, **settings), name)
    show_dataset(model, dataset, seed)
    batches = Batches(dataset, model, PROTOCOL.batch_size, [["shape"]], seed, torch.device("cpu"))
    return Member(model, batches, checkpoint)


@torch.no_grad()
def slow_term(kind: str, model, mean, values, sizes) -> float:
    """The label term by loops over images, factors and values."""
    mean = mean.detach()
    total, number = 0.0, len(mean)
    for k, size in enumerate(sizes.tolist()):
        for m, value in zip(mean[:, k], values[:, k].tolist(), strict=True):
            if kind == "xent":
                share = torch.tensor(value / size, dtype=torch.float64)
                total += share * -torch.sigmoid(m).log() + (1 - share) * -torch.sigmoid(-m).log()
            elif kind == "l2":
                total += (torch.sigmoid(m) - value / size) ** 2
            elif kind == "l2_scaled":
                total += (model.scale * m - value) ** 2
            elif kind == "embed":
                weights = [torch.exp(-((m - model.embeddings[k, v]) ** 2)) for v in range(size)]
                total -= torch.log(weights[value] / sum(weights)) / number
        for d in range(mean.shape[1]) if kind == "cov" else []:
            both = np.cov(mean[:, d], values[:, k], bias=True)
            total += both[0, 1] ** 2 if d != k else 0
    return float(total)


@pytest.mark.parametrize("kind", TERMS)
def test_the_label_term_equals_slow_loops(kind):
    model = make_model(S2BetaVAE, latents=4, label_loss=kind)
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(7, 4, generator=generator, dtype=torch.float64).requires_grad_()
    sizes = torch.tensor([3, 5, 2])
    values = (torch.rand(7, 3, generator=generator) * sizes).long()
    term = model.label_term(mean, values, sizes)
    torch.testing.assert_close(term.item(), slow_term(kind, model, mean, values, sizes), rtol=1e-10, atol=0)
    (gradient,) = torch.autograd.grad(term, [mean])
    for image, dimension in ((0, 0), (3, 2), (6, 3)):
        step = torch.zeros_like(mean)
        step[image, dimension] = 1e-6
        up, down = (model.label_term(mean.detach() + sign * step, values, sizes) for sign in (1, -1))
        expected = ((up - down) / 2e-6).item()
        assert gradient[image, dimension].item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_xent_is_least_where_the_mean_says_the_share_and_never_zero():
    """The share of the last of n values is (n - 1) / n, not 1."""
    model = make_model(S2BetaVAE, latents=1)
    sizes, values = torch.tensor([4]), torch.tensor([[3]])
    means = torch.linspace(-6, 6, 120_001, dtype=torch.float64)
    terms = torch.stack([model.label_term(mean.view(1, 1), values, sizes) for mean in means[::100]])
    assert means[::100][terms.argmin()].item() == pytest.approx(math.log(3), abs=0.01)
    assert terms.min().item() == pytest.approx(Bernoulli(0.75).entropy().item(), abs=1e-4)


def test_labelled_images_come_in_a_fixed_order_64_at_a_step(tmp_path):
    member = make_member("s2_betavae", tmp_path / "none", labels=50, label_weight=0.3)
    model, batch = member.model, member.batches.draw()
    encode, seen = model.encode, []
    model.encode = lambda images: seen.append(images) or encode(images)
    for step in range(3):
        terms = model.loss(batch, torch.tensor(float(step)))
        assert len(seen) == 2 * (step + 1)
        positions = [(64 * step + one) % 50 for one in range(64)]
        assert torch.equal(seen[-1], model.labelled_images[positions])
        mean, _ = encode(seen[-1])
        expected = model.label_term(mean, model.labelled_values[positions], model.labelled_sizes)
        torch.testing.assert_close(terms["label_term"], expected)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 4 * terms["kl"] + 0.3 * expected)


def test_the_labels_are_those_of_training_images_and_chosen_by_the_seed():
    dataset = make_tiny_dataset(held_out=np.arange(0, 60, 3))
    models = []
    for seed in (0, 0, 1):
        model = check_model(S2BetaVAE(IMAGE_SHAPE, labels=12, **SMALL), "s2_betavae")
        models.append(model)
        show_dataset(model, dataset, seed)
        rows = dataset.space.rows(model.labelled_values)
        assert len({*rows}) == 12 and not any(row % 3 == 0 for row in rows)
        assert torch.equal(model.labelled_images, unit_images(dataset.images(rows)))
        assert model.labelled_sizes.tolist() == list(SIZES)
        assert not any(name.startswith("labelled") for name in model.state_dict())
    first, again, other = (model.labelled_values for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_without_weight_it_is_the_model_without_labels_bit_by_bit(name, tmp_path):
    base = make_member(name.removeprefix("s2_"), tmp_path / "base")
    mine = make_member(name, tmp_path / "mine", labels=30, label_weight=0.0)
    weighted = make_member(name, tmp_path / "weighted", labels=30)
    for member in (base, mine, weighted):
        train_members([member], PROTOCOL)
    expected = base.model.state_dict()
    assert mine.model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in mine.model.state_dict().items())
    assert not torch.equal(weighted.model.state_dict()["encoder.1.weight"], expected["encoder.1.weight"])
    at = [mine.history.terms.index(term) for term in base.history.terms]
    assert [[row[0], *(row[1 + one] for one in at)] for row in mine.history.rows] == base.history.rows


@pytest.mark.parametrize("kind", TERMS)
def test_an_interrupted_training_goes_on_bit_by_bit(kind, tmp_path):
    settings = {"labels": 20, "label_loss": kind, "label_errors": "noisy", "label_steps": 6}
    whole, *parts = (make_member("s2_betavae", tmp_path / at, **settings) for at in ("whole", "part", "part"))
    train_members([whole], PROTOCOL)
    train_members([parts[0]], Protocol("test", 3, 1e-3, 6, None))
    train_members([parts[1]], PROTOCOL)
    assert parts[1].history.rows[-1] == whole.history.rows[-1]
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in parts[1].model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kind"), [("s2_betavae", kind) for kind in TERMS] + [("s2_dipvae1", "xent")]
)
def test_models_side_by_side_have_labels_of_their_own(name, kind, tmp_path):
    members, alone = (
        [make_member(name, tmp_path / "none", seed, labels=20, label_loss=kind) for seed in (0, 1)]
        for _ in range(2)
    )
    for member in (*members, *alone):
        member.resume(1e-3)
    several, single = ParallelSteps(members, PROTOCOL), [SingleSteps(member, PROTOCOL) for member in alone]
    for _ in range(4):
        together, one_by_one = several.step(), [steps.step() for steps in single]
        expected = torch.stack([terms["label_term"] for terms in one_by_one])
        torch.testing.assert_close(together["label_term"], expected, rtol=1e-4, atol=1e-4)
    assert expected[0] != expected[1]


def test_the_weight_by_the_step():
    def weights(**schedule) -> list[float]:
        model = make_model(S2BetaVAE, label_weight=4.0, **schedule)
        return [float(model.weight(torch.tensor(step))) for step in (0.0, 10.0, 100.0, 101.0, 1000.0)]

    assert weights() == [4, 4, 4, 4, 4]
    assert weights(label_steps=100) == pytest.approx([0, 0.4, 4, 4, 4])
    assert weights(label_steps=100, fine_tune=True) == [0, 0, 0, 4, 4]


def test_labels_with_errors():
    sizes = torch.tensor([3, 7, 40])
    generator = torch.Generator().manual_seed(0)
    values = (torch.rand(20_000, 3, generator=generator) * sizes).long()
    binned, fewer = with_errors(values, sizes, "binned", generator)
    assert fewer.tolist() == [3, 5, 5]
    assert torch.equal(binned[:, 0], values[:, 0])
    for column, size in ((1, 7), (2, 40)):
        expected = [min(int(value // (size / 5)), 4) for value in values[:, column].tolist()]
        assert binned[:, column].tolist() == expected
    noisy, same = with_errors(values, sizes, "noisy", generator)
    assert torch.equal(same, sizes) and ((noisy >= 0) & (noisy < sizes)).all()
    # A draw is the true value in one of `size` cases; five standard deviations are 0.011.
    rates = (noisy != values).double().mean(0)
    torch.testing.assert_close(rates, 0.1 * (1 - 1 / sizes.double()), rtol=0, atol=0.011)
    partial, two = with_errors(values, sizes, "partial", generator)
    (first, second) = (sizes.tolist().index(size) for size in two.tolist())
    assert first != second and torch.equal(partial, values[:, [first, second]])
    permuted, same = with_errors(values, sizes, "permuted", generator)
    assert torch.equal(same, sizes) and not torch.equal(permuted, values)
    for column, size in enumerate(sizes.tolist()):
        pairs = {*zip(values[:, column].tolist(), permuted[:, column].tolist(), strict=True)}
        assert len(pairs) == size == len({new for _, new in pairs})


def dataset_with(sizes: list[int]) -> Dataset:
    zeros = torch.zeros(math.prod(sizes), *IMAGE_SHAPE, dtype=torch.uint8)
    names = [f"factor{index}" for index in range(len(sizes))]
    return Dataset("many", "own", FactorSpace(names, sizes), IMAGE_SHAPE, lambda rows: zeros[rows], names[:1])


@pytest.mark.parametrize(
    ("settings", "dataset", "message"),
    [
        (
            {"labels": 10, "latents": 2},
            make_tiny_dataset(),
            "latents=2: each of 3 labelled factors needs a latent",
        ),
        ({"labels": 61}, make_tiny_dataset(), "labels=61: tiny has 60 training images"),
        (
            {"label_loss": "embed"},
            dataset_with([2, 300]),
            "label_loss=embed: a factor has 300 of at most 256 values",
        ),
        ({"labels": 0}, make_tiny_dataset(), "labels is 0: it must be 1 or more"),
        (
            {"label_loss": "l1"},
            make_tiny_dataset(),
            "label_loss is 'l1': choose xent, l2, l2_scaled, cov, embed",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_before_training(settings, dataset, message, tmp_path):
    with pytest.raises(DislabError) as error:
        dislab.run("s2_betavae", dataset, steps=2, out=tmp_path, device="cpu", network="mlp", **settings)
    assert message in one_line(error)
    assert not list(tmp_path.rglob("checkpoint*"))


def test_partial_labels_need_latents_for_two_factors_only():
    model = S2BetaVAE(IMAGE_SHAPE, network="mlp", latents=2, labels=10, label_errors="partial")
    model.look_at(make_tiny_dataset(), np.arange(60), torch.Generator())
    assert model.labelled_values.shape == (10, 2)


@pytest.mark.parametrize("kind", [S2BetaVAE, S2BetaTCVAE, S2FactorVAE, S2DIPVAE1])
def test_a_run_puts_the_factors_into_their_dimensions(kind, tmp_path, tiny_dataset, no_pictures):
    name = next(entry.name for entry in MODELS if entry.make is kind)
    settings = {
        "labels": 40,
        "label_weight": 10,
        "steps": 150,
        "batch_size": 16,
        "metrics": ["mig"],
        "device": "cpu",
    }
    run = dislab.run(name, tiny_dataset, out=tmp_path, **SMALL, **settings)
    falls = run.history["label_term"]
    assert falls.notna().all() and falls.iloc[-1] < falls.iloc[0]
    rows, codes = np.arange(60), run.codes.mean
    factors = tiny_dataset.space.factors(rows)
    for factor in range(3):
        assert np.corrcoef(codes[:, factor], factors[:, factor])[0, 1] > 0.6, factor
    again = dislab.load(run.path)
    assert again.scores["mig"] == run.scores["mig"]
    images = unit_images(tiny_dataset.images(rows))
    torch.testing.assert_close(again.model.encode(images)[0].detach().numpy(), codes, rtol=1e-4, atol=1e-4)
