"""InfoGAN: the bound of the information, the codes, both losses and who is moved by them."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import STEP, make_batch, random_normals
from torch import nn
from torch.distributions import Normal

from dislab.errors import DislabError
from dislab.models.infogan import InfoGAN, category_information, number_information
from dislab.networks.adversarial import infogan_networks

SHAPE = (1, 8, 8)


def make_infogan(shape=SHAPE, **hyperparameters) -> InfoGAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return InfoGAN(shape, **{"categories": 4, "incompressible": 3, **hyperparameters}).double()


def make_images(model: InfoGAN, count: int = 12, seed: int = 0):
    return make_batch([1] * count, latents=model.noise, seed=seed)


def test_information_of_a_category_is_at_most_ln_v_and_that_for_a_perfect_q():
    one_hot = F.one_hot(torch.arange(60) % 5, 5).double()
    assert float(category_information(one_hot, 50 * one_hot)) == pytest.approx(math.log(5))
    assert float(category_information(one_hot, torch.zeros(60, 5).double())) == pytest.approx(0, abs=1e-12)
    assert float(category_information(one_hot, random_normals(60, 5)[0])) < math.log(5)
    assert float(category_information(one_hot, -5 * one_hot)) < 0, "an error costs, its sign is not lost"


def test_information_of_numbers_is_the_log_density_and_ln_2_for_each():
    numbers, (mean, logvar) = 2 * torch.rand(40, 3).double() - 1, random_normals(40, 3)
    expected = Normal(mean, torch.exp(logvar / 2)).log_prob(numbers).sum(1).mean() + 3 * math.log(2)
    torch.testing.assert_close(number_information(numbers, mean, logvar), expected)
    perfect = number_information(numbers, numbers, numbers.new_zeros(()))
    # With its variance fixed to 1, even a perfect Q is below 0: a bound, and no tight one.
    assert float(perfect) == pytest.approx(3 * (math.log(2) - 0.5 * math.log(2 * math.pi)))


def test_codes_are_a_uniform_category_and_uniform_numbers():
    model = make_infogan()
    noise = torch.randn(8000, model.noise, generator=torch.Generator().manual_seed(0)).double()
    codes, z = model.draw(noise)
    one_hot, numbers = codes.split([4, 2], dim=1)
    assert ((one_hot == 0) | (one_hot == 1)).all() and (one_hot.sum(1) == 1).all()
    expected = 8000 / 4
    assert ((one_hot.sum(0) - expected) ** 2 / expected).sum() < 16.3, "chi-square with 3 degrees, 0.999"
    for uniform in (*numbers.T, *z.T):
        steps = torch.linspace(0, 1, 8000, dtype=torch.float64)
        assert (((uniform.sort().values + 1) / 2) - steps).abs().max() < 1.95 / 8000**0.5  # Kolmogorov, 0.999
    together = torch.corrcoef(torch.cat([one_hot[:, :1], numbers, z], dim=1).T).fill_diagonal_(0)
    assert together.abs().max() < 0.05
    extreme = model.draw(torch.full((1, model.noise), 40.0).double())[0]
    assert extreme[0, :4].tolist() == [0, 0, 0, 1]


def test_loss_of_the_generator_is_that_of_the_paper():
    model = make_infogan(discrete_weight=0.7, continuous_weight=0.3)
    batch = make_images(model)
    terms = model.loss(batch, STEP)
    codes, z = model.draw(batch.noise)
    images = torch.sigmoid(model.generator(torch.cat([z, codes], dim=1)))
    verdict, parameters = model.adversary(images)
    share = torch.sigmoid(verdict)
    chosen = parameters[:, :4].softmax(1)[codes[:, :4] == 1]
    numbers = Normal(parameters[:, 4:], 1.0).log_prob(codes[:, 4:]).sum(1)
    discrete, continuous = chosen.log().mean() + math.log(4), numbers.mean() + 2 * math.log(2)
    torch.testing.assert_close(terms["generator"], -share.log().mean())
    torch.testing.assert_close(terms["information_discrete"], discrete)
    torch.testing.assert_close(terms["information_continuous"], continuous)
    torch.testing.assert_close(terms["loss"], -share.log().mean() - 0.7 * discrete - 0.3 * continuous)


def test_loss_of_the_discriminator_has_the_information_too_and_judges_each_kind_by_its_own_batch():
    model = make_infogan()
    batch, other = make_images(model), make_images(model, seed=1)
    loss = model.adversary_loss(batch, other, STEP)
    codes, z = model.draw(other.noise)
    real = torch.sigmoid(model.adversary(other.images)[0])
    verdict, parameters = model.adversary(model.generate(codes, z))
    expected = -real.log().mean() - (1 - torch.sigmoid(verdict)).log().mean()
    torch.testing.assert_close(loss, expected - sum(model.information(codes, parameters)))
    together = torch.cat([other.images, model.generate(codes, z)])
    assert not torch.allclose(torch.sigmoid(model.adversary(together)[0])[:12], real)


def test_each_update_leaves_the_other_network_as_it_is():
    model = make_infogan()
    batch, other = make_images(model), make_images(model, seed=1)
    generator, recogniser = list(model.generator.parameters()), list(model.adversary.parameters())
    assert {*map(id, generator)} | {*map(id, recogniser)} == {*map(id, model.parameters())}
    loss = model.adversary_loss(batch, other, STEP)
    gradients = torch.autograd.grad(loss, recogniser + generator, allow_unused=True)
    assert all(one is not None for one in gradients[: len(recogniser)]), (
        "Q's head and the body are among them"
    )
    assert all(one is None for one in gradients[len(recogniser) :])
    gradients = torch.autograd.grad(model.loss(batch, STEP)["loss"], generator)
    assert all(one.abs().max() > 0 for one in gradients)


def test_a_step_of_either_raises_the_information():
    """A wrong sign of lambda is a published mistake."""
    for parts in ("generator", "adversary"):
        model = make_infogan(discrete_weight=1e3, continuous_weight=1e3)
        batch = make_images(model)
        before = model.loss(batch, STEP)
        loss = before["loss"] if parts == "generator" else model.adversary_loss(batch, batch, STEP)
        parameters = list(getattr(model, parts).parameters())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter -= 1e-6 * gradient
        after = model.loss(batch, STEP)
        for name in ("information_discrete", "information_continuous"):
            assert after[name] > before[name]


def test_running_statistics_are_those_of_real_images():
    model = make_infogan()
    batch, other = make_images(model), make_images(model, seed=1)
    norm = next(layer for layer in model.adversary.modules() if isinstance(layer, nn.BatchNorm2d))
    model.loss(batch, STEP)
    assert (norm.running_mean == 0).all()
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.adversary_loss(batch, other, STEP)
    torch.testing.assert_close(norm.running_mean, 0.1 * seen[0].mean((0, 2, 3)))
    torch.testing.assert_close(seen[0], model.adversary.body[:3](other.images))


def test_the_code_of_an_image_is_the_mean_of_q_and_does_not_depend_on_other_images():
    model = make_infogan().eval()
    images = make_images(model).images
    codes = model.encode(images)
    parameters = model.adversary(images)[1]
    torch.testing.assert_close(codes[:, :4].sum(1), torch.ones(12).double())
    assert torch.equal(codes[:, :4].argmax(1), parameters[:, :4].argmax(1))
    torch.testing.assert_close(codes[:, 4:], parameters[:, 4:])  # a softmax over them is a published mistake
    torch.testing.assert_close(model.encode(images[:1]), codes[:1])


def test_pictures_share_one_z():
    model = make_infogan().eval()
    codes, _ = model.draw(make_images(model).noise)
    pictures = model.mean_image(codes)
    assert pictures.shape == (12, *SHAPE) and pictures.min() >= 0 and pictures.max() <= 1
    torch.testing.assert_close(pictures[3:4], model.mean_image(codes[3:4]))
    assert model.pictured.abs().max() <= 1


@pytest.mark.parametrize(("categories", "continuous"), [(0, 3), (3, 0)])
def test_one_kind_of_code_is_enough(categories, continuous):
    model = make_infogan(categories=categories, continuous=continuous)
    terms = model.loss(make_images(model), STEP)
    absent = terms["information_discrete" if categories == 0 else "information_continuous"]
    assert absent == 0 and terms["loss"].isfinite()
    assert model.eval().encode(make_images(model).images).shape == (12, 3)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (1, 16, 32)])
def test_networks_of_each_size(shape):
    generator, recogniser = infogan_networks(shape, inputs=7, outputs=5)
    images = generator(torch.rand(4, 7))
    assert images.shape == (4, *shape)
    verdict, codes = recogniser(images)
    assert verdict.shape == (4,) and codes.shape == (4, 5)
    assert isinstance(generator[1], nn.BatchNorm1d) == (shape[1] == 28)


def test_number_of_weights_of_the_network_for_mnist():
    """By hand, from the sizes in the paper's appendix C.1 (62 + 12 inputs, 12 outputs)."""
    generator, recogniser = infogan_networks((1, 28, 28), inputs=74, outputs=12)
    dense = 74 * 1024 + 3 * 1024 + 1024 * 6272 + 3 * 6272
    assert sum(map(torch.numel, generator.parameters())) == dense + 128 * 64 * 16 + 3 * 64 + 64 * 16 + 1
    body = 16 * 64 + 64 + 64 * 128 * 16 + 3 * 128 + 6272 * 1024 + 3 * 1024
    heads = 1025 + 1024 * 128 + 3 * 128 + 129 * 12
    assert sum(map(torch.numel, recogniser.parameters())) == body + heads


def test_spectral_norm_of_the_large_discriminator_is_one():
    _, recogniser = infogan_networks((1, 16, 16), inputs=7, outputs=5)
    layers = [one for one in recogniser.body if isinstance(one, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 5
    for _ in range(50):  # each takes a step of the power iteration
        recogniser(torch.rand(2, 1, 16, 16))
    for layer in [*layers, recogniser.verdict]:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1, abs=0.1)
    assert all(layer.weight.std() < 0.025 for layer in recogniser.codes if isinstance(layer, nn.Linear))


def test_other_sides_are_refused():
    with pytest.raises(DislabError, match=r"^infogan needs image sides divisible by 4, not \(30, 30\)$"):
        InfoGAN((1, 30, 30))
