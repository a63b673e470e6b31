"""The ML-VAE: its loss against slow loops, its groups, blocks and joined codes."""

import itertools

import pytest
import torch
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
    slow_log_likelihood,
)
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from dislab.data.groups import Groups
from dislab.models.mlvae import MLVAE
from dislab.models.mlvae_svi import MLVAESVI
from dislab.models.vae import VAE
from dislab.networks.distributions import product_of_normals
from dislab.training.batches import Batch

pytestmark = pytest.mark.usefixtures("way_of_sums")

# Multi-level VAE


def slow_average_group_elbo(model: MLVAE, batch: Batch) -> torch.Tensor:
    """Bouchacourt et al. 2017, eq. 3 to 5, one group and one image at a time."""
    prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    elbos = []
    for g in range(batch.groupings[0].number):
        members = [i for i in range(len(batch.images)) if batch.groupings[0].index[i] == g]
        posteriors = {}
        for i in members:
            mean, logvar = model.encode(batch.images[i : i + 1])
            posteriors[i] = mean[0], torch.exp(logvar[0])
        content_mean, content_variance = (part[: model.content] for part in posteriors[members[0]])
        for i in members[1:]:  # multiply the next Normal onto the product so far
            mean, variance = (part[: model.content] for part in posteriors[i])
            content_mean = (content_mean * variance + mean * content_variance) / (variance + content_variance)
            content_variance = variance * content_variance / (variance + content_variance)
        content_posterior = Normal(content_mean, content_variance.sqrt())
        first = int(batch.groupings[0].first[g])
        content = content_mean + content_variance.sqrt() * batch.noise[first, : model.content]
        elbo = -kl_divergence(content_posterior, prior).sum()
        for i in members:
            mean, variance = (part[model.content :] for part in posteriors[i])
            style = mean + variance.sqrt() * batch.noise[i, model.content :]
            decoded = model.decode(torch.cat([content, style])[None])[0]
            elbo = elbo + slow_log_likelihood(decoded, batch.images[i], model.likelihood)
            elbo = elbo - kl_divergence(Normal(mean, variance.sqrt()), prior).sum()
        elbos.append(elbo)
    return sum(elbos) / len(elbos)


@pytest.mark.parametrize(
    "pixels", [{}, {"likelihood": "gaussian"}, {"likelihood": "gaussian", "pixel_logvar": "tanh"}]
)
@pytest.mark.parametrize("sizes", [UNEVEN, [4, 4], [5]])
def test_mlvae_loss_is_the_negative_average_group_elbo(sizes, pixels):
    model = make_model(MLVAE, content=3, style=2, **pixels)
    batch = make_batch(sizes, latents=5)
    assert_same_loss(model.loss(batch, STEP)["loss"], -slow_average_group_elbo(model, batch), model)


def test_mlvae_has_one_content_kl_per_group_and_one_style_kl_per_image():
    model = make_model(MLVAE, content=2, style=3)
    mean, logvar = random_normals(10, 5)
    fix_posterior(model, mean, logvar)
    batch = make_batch(UNEVEN, latents=5)
    terms = model.loss(batch, STEP)
    prior = Normal(0.0, 1.0)
    style = kl_divergence(Normal(mean[:, 2:], torch.exp(logvar[:, 2:] / 2)), prior).sum(1)
    product = product_of_normals(mean[:, :2], logvar[:, :2], batch.groupings[0].index, 4)
    content = kl_divergence(Normal(product[0], torch.exp(product[1] / 2)), prior).sum(1)
    assert style.shape == (10,)
    assert content.shape == (4,)
    torch.testing.assert_close(terms["kl_style"], style.mean())
    torch.testing.assert_close(terms["kl_content"], content.mean())
    total = 10 * terms["reconstruction"] + style.sum() + content.sum()
    torch.testing.assert_close(terms["loss"], total / 4)


def test_mlvae_with_groups_of_one_is_the_vae():
    vae, model = make_model(VAE, latents=5), make_model(MLVAE, content=3, style=2)
    batch = make_batch([1] * 7, latents=5)
    assert_same_loss(model.loss(batch, STEP)["loss"], vae.loss(batch, STEP)["loss"], model, vae)


def test_mlvae_with_two_groupings_has_a_content_code_for_each():
    """By hand: the product of Normals of each grouping's groups, one KL for each group of each grouping."""
    model = make_model(MLVAE, content=2, style=1, groupings=2)
    assert model.blocks == {"content_1": slice(0, 2), "content_2": slice(2, 4), "style": slice(4, 5)}
    first, second = make_groups([3, 3]), Groups(torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([0, 1]))
    batch = make_batch([3, 3], latents=5)
    batch.groupings = (first, second)
    prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    mean, logvar = model.encode(batch.images)
    codes = mean + torch.exp(logvar / 2) * batch.noise
    divergence = kl_divergence(Normal(mean[:, 4:], torch.exp(logvar[:, 4:] / 2)), prior).sum()
    for groups, block in ((first, slice(0, 2)), (second, slice(2, 4))):
        for g in range(2):
            members = torch.nonzero(groups.index == g)[:, 0]
            precision = torch.exp(-logvar[members, block])
            product_mean = (precision * mean[members, block]).sum(0) / precision.sum(0)
            deviation = precision.sum(0).rsqrt()
            divergence = divergence + kl_divergence(Normal(product_mean, deviation), prior).sum()
            codes[members, block] = product_mean + deviation * batch.noise[groups.first[g], block]
    likelihood = sum(
        slow_log_likelihood(model.decode(codes[i : i + 1])[0], batch.images[i], model.likelihood)
        for i in range(6)
    )
    assert_same_loss(model.loss(batch, STEP)["loss"], (divergence - likelihood) / 2, model)


def test_mlvae_with_a_content_draw_per_image():
    """Every image has its own noise around the group's product; the KL stays that of the group."""
    model = make_model(MLVAE, content=3, style=2, content_draw="image")
    batch = make_batch(UNEVEN, latents=5)
    groups = batch.groupings[0]
    mean, logvar = random_normals(10, 3)
    content, kl = model.content_of(groups, mean, logvar, batch.noise[:, :3])
    group_mean, group_logvar = product_of_normals(mean, logvar, groups.index, 4)
    for i in range(10):
        g = int(groups.index[i])
        expected = group_mean[g] + torch.exp(group_logvar[g] / 2) * batch.noise[i, :3]
        torch.testing.assert_close(content[i], expected)
    prior = Normal(0.0, 1.0)
    expected = kl_divergence(Normal(group_mean, torch.exp(group_logvar / 2)), prior).sum(1)
    torch.testing.assert_close(kl, expected)


@pytest.mark.parametrize("content_draw", ["group", "image"])
@pytest.mark.parametrize("posterior", ["product", "mixture", "average"])
@pytest.mark.parametrize("kind", [MLVAE, MLVAESVI])
def test_classes_without_images_count_for_nothing(kind, posterior, content_draw):
    """A batch whose classes 0, 3 and 6 have no image has the loss of the same batch of four groups."""
    choices = {"posterior": posterior, "content_draw": content_draw, "group_size": 0}
    if kind is MLVAESVI:
        if (posterior, content_draw) != ("product", "group"):
            pytest.skip("has no choice")
        choices = {"group_size": 0, "inference_steps": 3}
    model = make_model(kind, content=3, style=2, **choices)
    batch, absent = make_batch(UNEVEN, latents=5), make_batch(UNEVEN, latents=5)
    groups = batch.groupings[0]
    classes = torch.tensor([4, 1, 5, 2])
    first = torch.zeros(7, dtype=torch.int64)
    first[classes] = groups.first
    absent.groupings = (Groups(classes[groups.index], first),)
    terms, expected = model.loss(absent, STEP), model.loss(batch, STEP)
    for name in terms:
        torch.testing.assert_close(terms[name], expected[name])
    assert_same_loss(terms["loss"], expected["loss"], model)
    joined = zip(
        model.encode_groups(absent.images, absent.groupings),
        model.encode_groups(batch.images, batch.groupings),
        strict=True,
    )
    for part, other in joined:
        torch.testing.assert_close(part, other)


def test_loss_of_a_batch_that_is_grouped_by_class_one_class_at_a_time():
    """ELBO(G) of every class that is there, by hand, and their mean; the others have the prior's KL."""
    model = make_model(MLVAE, content=3, style=2, group_size=0, content_draw="image")
    batch = make_batch([1] * 6, latents=5)
    index = torch.tensor([2, 4, 2, 2, 4, 1])
    batch.groupings = (Groups(index, torch.tensor([0, 5, 0, 0, 1])),)
    mean, logvar = model.encode(batch.images)
    prior, elbos = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0), []
    for members in ([5], [0, 2, 3], [1, 4]):
        precision = sum(torch.exp(-logvar[i, :3]) for i in members)
        centre = sum(torch.exp(-logvar[i, :3]) * mean[i, :3] for i in members) / precision
        elbo = -kl_divergence(Normal(centre, precision**-0.5), prior).sum()
        for i in members:
            style = Normal(mean[i, 3:], torch.exp(logvar[i, 3:] / 2))
            content = centre + precision**-0.5 * batch.noise[i, :3]
            code = torch.cat([content, style.mean + style.stddev * batch.noise[i, 3:]])
            decoded = model.decode(code[None])[0]
            elbo = elbo + slow_log_likelihood(decoded, batch.images[i], model.likelihood)
            elbo = elbo - kl_divergence(style, prior).sum()
        elbos.append(elbo)
    assert_same_loss(model.loss(batch, STEP)["loss"], -sum(elbos) / 3, model)
    _, kl = model.content_of(batch.groupings[0], mean[:, :3], logvar[:, :3], batch.noise[:, :3])
    assert kl[[0, 3]].tolist() == [0, 0]


@pytest.mark.parametrize("content_draw", ["group", "image"])
def test_mlvae_with_a_mixture_of_the_members(content_draw):
    """The KL of a draw against torch's own mixture, one group at a time.

    A group's draw is of the member with the largest noise, and its noise is the scaled sum of the members'.
    """
    model = make_model(MLVAE, content=3, style=2, posterior="mixture", content_draw=content_draw)
    batch = make_batch(UNEVEN, latents=5)
    groups = batch.groupings[0]
    mean, logvar = random_normals(10, 3)
    content, kl = model.content_of(groups, mean, logvar, batch.noise[:, :3])
    own = mean + torch.exp(logvar / 2) * batch.noise[:, :3]
    for g in range(4):
        members = torch.nonzero(groups.index == g)[:, 0]
        drawn = own[members]
        if content_draw == "group":
            noise = batch.noise[members, :3]
            one = members[noise[:, 0].argmax()]
            drawn = (mean[one] + torch.exp(logvar[one] / 2) * noise.sum(0) / len(members) ** 0.5)[None]
        torch.testing.assert_close(content[members], drawn.expand(len(members), 3))
        mixture = MixtureSameFamily(
            Categorical(torch.ones(len(members), dtype=torch.float64)),
            Independent(Normal(mean[members], torch.exp(logvar[members] / 2)), 1),
        )
        prior = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0).log_prob(drawn).sum(1)
        torch.testing.assert_close(kl[g], (mixture.log_prob(drawn) - prior).mean())


def test_the_order_of_images_does_not_matter():
    model = make_model(MLVAE, content=3, style=2)
    batch = make_batch(UNEVEN, latents=5)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    position = torch.argsort(order)  # of each image in the new order
    mixed = Batch(
        batch.images[order],
        batch.noise[order],
        batch.dataset_size,
        (Groups(batch.groupings[0].index[order], position[batch.groupings[0].first]),),
    )
    assert (mixed.groupings[0].index.diff() < 0).any()
    assert_same_loss(model.loss(mixed, STEP)["loss"], model.loss(batch, STEP)["loss"], model)


def test_all_images_of_a_group_share_one_content_draw():
    model = make_model(MLVAE, content=3, style=2)
    batch = make_batch(UNEVEN, latents=5)
    seen = []
    decode = model.decode
    model.decode = lambda codes: seen.append(codes) or decode(codes)
    model.loss(batch, STEP)
    content, style = seen[0].detach().split([3, 2], dim=1)
    assert len(torch.unique(content, dim=0)) == 4
    assert len(torch.unique(style, dim=0)) == 10
    mean, logvar = model.encode(batch.images)
    for g in range(4):
        members = batch.groupings[0].index == g
        group_mean, group_logvar = product_of_normals(
            mean[members, :3], logvar[members, :3], torch.zeros(UNEVEN[g], dtype=torch.int64), 1
        )
        expected = group_mean + torch.exp(group_logvar / 2) * batch.noise[batch.groupings[0].first[g], :3]
        torch.testing.assert_close(content[members], expected.detach().expand(UNEVEN[g], 3))


def test_reconstruction_alone_trains_the_content_posterior_of_every_image():
    # A reproduction in the wild detaches the product of Normals, so that only the KL trains the content.
    model = make_model(MLVAE, content=3, style=2)
    batch = make_batch(UNEVEN, latents=5)
    mean, logvar = (tensor.detach().requires_grad_() for tensor in model.encode(batch.images))
    fix_posterior(model, mean, logvar)
    reconstruction = model.loss(batch, STEP)["reconstruction"]
    to_mean, to_logvar = torch.autograd.grad(reconstruction, (mean, logvar))
    assert (to_mean[:, :3].abs() > 1e-8).all()
    assert (to_logvar[:, :3].abs() > 1e-8).all()

    # and by the right amount: central differences in the content of one member of the group of four
    for tensor, found in ((mean, to_mean), (logvar, to_logvar)):
        values = []
        for change in (1e-5, -1e-5):
            moved = tensor.detach().clone()
            moved[5, 1] += change
            fix_posterior(model, *((moved, logvar) if tensor is mean else (mean, moved)))
            values.append(model.loss(batch, STEP)["reconstruction"].item())
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(found[5, 1].item(), rel=1e-4)


def test_blocks_name_the_content_and_style_dimensions():
    model = make_model(MLVAE, content=3, style=2)
    assert model.latents == 5
    codes = torch.arange(10.0).view(2, 5)
    content, style = codes.split([model.content, model.style], dim=1)
    assert torch.equal(content, codes[:, model.blocks["content"]])
    assert torch.equal(style, codes[:, model.blocks["style"]])
    assert content.shape == (2, 3)
    assert style.shape == (2, 2)


def test_mlvae_betas_weigh_the_two_divergences_and_nothing_else():
    batch = make_batch(UNEVEN, latents=5)
    plain = make_model(MLVAE, content=3, style=2)
    terms = plain.loss(batch, STEP)
    style, content = 10 * terms["kl_style"], 4 * terms["kl_content"]
    for weights, extra in (
        ({"beta_style": 5.0}, 4 * style),
        ({"beta_content": 0.25}, -0.75 * content),
        ({"beta_style": 0.0, "beta_content": 3.0}, 2 * content - style),
    ):
        model = make_model(MLVAE, content=3, style=2, **weights)
        found = model.loss(batch, STEP)
        assert_same_loss(found["loss"], terms["loss"] + extra / 4, model, plain)
        for name in ("reconstruction", "kl_style", "kl_content"):
            torch.testing.assert_close(found[name], terms[name], rtol=0, atol=0)


SCATTERED = (  # a group of three, of one, of four and of two, mixed; and other groups of the same images
    Groups(torch.tensor([2, 0, 2, 1, 3, 0, 2, 3, 0, 2]), torch.tensor([1, 3, 0, 4])),
    Groups(torch.tensor([0, 0, 1, 2, 1, 1, 0, 1, 1, 1]), torch.tensor([0, 2, 3])),
)


@pytest.mark.parametrize("posterior", ["product", "mixture"])
@pytest.mark.parametrize("groupings", [1, 2])
def test_encode_groups_joins_the_content_of_the_members(groupings, posterior):
    """The product's and the mixture's moments by sums over a grid, one group and dimension at a time."""
    model = make_model(MLVAE, content=2, style=1, groupings=groupings, posterior=posterior)
    latents = 2 * groupings + 1
    mean, logvar = random_normals(10, latents)
    untouched = mean.clone(), logvar.clone()
    fix_posterior(model, mean, logvar)
    found = model.encode_groups(torch.zeros(10, *IMAGE_SHAPE), SCATTERED[:groupings])
    torch.testing.assert_close((mean, logvar), untouched, rtol=0, atol=0)
    for part, own in zip(found, (mean, logvar), strict=True):
        assert part.shape == (10, latents)
        torch.testing.assert_close(part[:, -1], own[:, -1], rtol=0, atol=0)  # the style

    grid = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    for number, groups in enumerate(SCATTERED[:groupings]):
        for g, d in itertools.product(range(groups.number), range(2 * number, 2 * number + 2)):
            members = [i for i in range(10) if groups.index[i] == g]
            densities = [
                Normal(mean[i, d], torch.exp(logvar[i, d] / 2)).log_prob(grid).exp() for i in members
            ]
            joined = torch.stack(densities)
            density = joined.prod(0) if posterior == "product" else joined.mean(0)
            density /= density.sum()
            expected = (density * grid).sum()
            variance = (density * (grid - expected) ** 2).sum()
            for i in members:
                torch.testing.assert_close(found[0][i, d], expected, rtol=1e-7, atol=1e-8)
                torch.testing.assert_close(found[1][i, d].exp(), variance, rtol=1e-6, atol=0)
            if len(members) == 1:
                torch.testing.assert_close(found[0][members, d], mean[members, d])
                torch.testing.assert_close(found[1][members, d], logvar[members, d])
