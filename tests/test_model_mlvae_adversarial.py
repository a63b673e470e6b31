"""The ML-VAE with a critic: the bound and its pairs, who gets its gradient, and lambda."""

import math

import pytest
import torch
from conftest import make_tiny_dataset
from small_models import (
    IMAGE_SHAPE,
    STEP,
    UNEVEN,
    assert_same_loss,
    fix_posterior,
    make_batch,
    make_groups,
    make_model,
    random_normals,
)

from dislab.data.groups import Groups
from dislab.errors import DislabError
from dislab.models.mlvae import MLVAE
from dislab.models.mlvae_adversarial import AdversarialMLVAE, Critic, donsker_varadhan, pairs_of
from dislab.networks.distributions import sample_normal
from dislab.training.batches import Batches


def make_adversarial(weight: float = 0.0, **hyperparameters) -> AdversarialMLVAE:
    model = make_model(AdversarialMLVAE, content=3, style=2, **hyperparameters)
    model.leak_weight.fill_(weight)
    return model


def test_bound_is_that_of_donsker_and_varadhan_pair_by_pair():
    values = random_normals(10, 10)[0]
    groups = make_groups(UNEVEN)
    joint, marginal = pairs_of(groups)
    of_joint, of_marginal = [], []
    for i in range(10):
        for j in range(10):
            if groups.index[i] != groups.index[j]:
                of_marginal.append(math.exp(values[i, j]))
            elif i != j:
                of_joint.append(float(values[i, j]))
    expected = sum(of_joint) / len(of_joint) - math.log(sum(of_marginal) / len(of_marginal))
    assert float(donsker_varadhan(values, joint, marginal)) == pytest.approx(expected, abs=1e-12)


def test_bound_of_the_best_critic_is_the_information_of_a_normal_pair():
    """T = ln p(x, s) / p(x) p(s) of two Normals with correlation rho, up to a constant, gives their MI."""
    rho, generator = 0.7, torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 2000, generator=generator, dtype=torch.float64)
    s = rho * x + math.sqrt(1 - rho**2) * noise
    values = (2 * rho * x[:, None] * s - rho**2 * (x[:, None] ** 2 + s**2)) / (2 * (1 - rho**2))
    joint = torch.eye(2000, dtype=torch.bool)
    bound = donsker_varadhan(values, joint, ~joint)
    assert float(bound) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.03)


def test_an_image_and_its_own_style_are_no_pair():
    """A style may tell its own image from all others: with i = j among the pairs that would cost."""
    values = torch.full((8, 8), -3.0).fill_diagonal_(20.0)
    for classes in (False, True):
        bound = donsker_varadhan(values, *pairs_of(make_groups([4, 4]), classes))
        assert float(bound) == pytest.approx(0)


def test_pairs_of_randomly_drawn_images_by_class_include_those_of_one_class():
    joint, marginal = pairs_of(make_groups([3, 1, 2]), classes=True)
    assert joint.sum() == 6 + 2
    assert marginal.sum() == 6 * 5
    assert (marginal | joint == marginal).all()


@pytest.mark.parametrize("classes", [False, True])
def test_critic_finds_the_information_of_a_style_that_is_the_class(classes):
    """Four classes, each as often: ln 4 nats. Two groups of a batch may be of one class."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = Critic(IMAGE_SHAPE, style=4, groupings=1)
    adam = torch.optim.Adam(critic.parameters(), lr=1e-3)
    bounds = []
    for _ in range(100):
        members = 1 if classes else 4
        label = torch.randint(4, (64 // members,), generator=generator).repeat_interleave(members)
        images = torch.rand(64, *IMAGE_SHAPE, generator=generator) / 2
        images[torch.arange(64), 0, label] += 0.5  # a bright row tells the class
        groups = torch.unique(label, return_inverse=True)[1] if classes else torch.arange(64) // 4
        first = torch.arange(int(groups.max()) + 1)  # only their number is used
        styles = torch.nn.functional.one_hot(label, 4).float()
        bound = donsker_varadhan(critic(images, styles)[0], *pairs_of(Groups(groups, first), classes))
        adam.zero_grad()
        (-bound).backward()
        adam.step()
        bounds.append(bound.item())
    assert math.log(4) - 0.25 < sum(bounds[-40:]) / 40 < math.log(4) + 0.05


def test_without_a_weight_it_is_the_mlvae():
    model, plain = make_adversarial(), make_model(MLVAE, content=3, style=2)
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = make_batch(UNEVEN, latents=5)
    names = [name for name, _ in model.named_parameters() if not name.startswith("adversary")]
    assert names == [name for name, _ in plain.named_parameters()]
    mine = [dict(model.named_parameters())[name] for name in names]
    theirs = list(plain.parameters())
    loss, expected = model.loss(batch, STEP)["loss"], plain.loss(batch, STEP)["loss"]
    torch.testing.assert_close(loss, expected)
    for one, other in zip(
        torch.autograd.grad(loss, mine), torch.autograd.grad(expected, theirs), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_loss_is_the_mlvae_loss_and_the_weighted_bound_of_drawn_styles():
    model = make_adversarial(weight=3.0)
    batch = make_batch(UNEVEN, latents=5)
    terms = model.loss(batch, STEP)
    mean, logvar = model.encode(batch.images)
    style = sample_normal(mean[:, 3:], logvar[:, 3:], batch.noise[:, 3:])
    values = model.adversary(batch.images, style)[0]
    leak = donsker_varadhan(values, *pairs_of(batch.groupings[0]))
    torch.testing.assert_close(terms["leak"], leak)
    assert not torch.allclose(model.leak(batch, mean[:, 3:]), leak), "the mean is not a draw"
    assert_same_loss(terms["loss"], MLVAE.loss(model, batch, STEP)["loss"] + 3 * leak, model)
    assert set(terms) == {"loss", "reconstruction", "kl_style", "kl_content", "leak", "leak_weight"}


def test_bound_moves_the_style_alone():
    model = make_adversarial(weight=1.0)
    batch = make_batch(UNEVEN, latents=5)
    mean, logvar = (part.detach().requires_grad_() for part in model.encode(batch.images))
    fix_posterior(model, mean, logvar)
    for gradient in torch.autograd.grad(model.loss(batch, STEP)["leak"], (mean, logvar)):
        assert (gradient[:, :3] == 0).all()
        assert (gradient[:, 3:].abs() > 0).all()


def test_critic_loss_is_the_negative_bound_of_the_other_batch_and_moves_the_critic_alone():
    model = make_adversarial()
    batch, other = make_batch(UNEVEN, latents=5), make_batch([5, 5], latents=5, seed=1)
    loss = model.adversary_loss(batch, other, STEP)
    mean, logvar = model.encode(other.images)
    style = sample_normal(mean, logvar, other.noise)[:, 3:]
    torch.testing.assert_close(loss, -model.leak(other, style))
    critic = list(model.adversary.parameters())
    rest = [one for name, one in model.named_parameters() if not name.startswith("adversary")]
    gradients = torch.autograd.grad(loss, critic + rest, allow_unused=True)
    assert all(one is not None for one in gradients[: len(critic)])
    assert all(one is None for one in gradients[len(critic) :])


def test_lambda_follows_the_bound_and_never_falls_below_zero():
    model = make_adversarial(weight=1.0, target=0.2, critic_steps=3)
    batch, other = make_batch(UNEVEN, latents=5), make_batch(UNEVEN, latents=5, seed=1)
    bounds = [-model.adversary_loss(batch, other, STEP).item() for _ in range(3)]
    expected = 1 + 0.1 * (sum(bounds) / 3 / 0.2 - 1)
    assert float(model.leak_weight) == pytest.approx(expected, abs=1e-6)
    model.leak_weight.fill_(0)
    model.target = 1e6
    model.adversary_loss(batch, other, STEP)
    assert float(model.leak_weight) == 0


def test_each_grouping_has_a_bound_of_its_own():
    model = make_model(AdversarialMLVAE, content=2, style=1, groupings=2)
    batch = make_batch([3, 3], latents=5)
    batch.groupings = make_groups([3, 3]), Groups(torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([0, 1]))
    terms = model.loss(batch, STEP)
    mean, logvar = model.encode(batch.images)
    values = model.adversary(batch.images, sample_normal(mean, logvar, batch.noise)[:, 4:])
    bounds = [donsker_varadhan(values[g], *pairs_of(batch.groupings[g])) for g in range(2)]
    torch.testing.assert_close(terms["leak"], bounds[0] + bounds[1])


def test_what_cannot_be_compared_is_one_line():
    with pytest.raises(DislabError, match=r"^mlvae_adversarial compares .* group_size must be 2 or more$"):
        make_adversarial(group_size=1)
    model, dataset = make_adversarial(group_size=6), make_tiny_dataset()
    Batches(dataset, model, 7, [["shape"]], 0, torch.device("cpu"))
    message = "the model compares 2 groups or more, but group_size=6 makes 1 in a batch of 6"
    with pytest.raises(DislabError, match=message):
        Batches(dataset, model, 6, [["shape"]], 0, torch.device("cpu"))
