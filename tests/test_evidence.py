"""What joining a group's images does: against closed forms of a linear decoder with Normal noise."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal

from dislab.data.dataset import Dataset
from dislab.data.groups import draw_groups, join_by_one
from dislab.data.space import FactorSpace
from dislab.models.mlvae import MLVAE
from dislab.networks.distributions import LOWEST_PIXEL_LOGVAR
from dislab.scoring.evidence import evidence
from dislab.scoring.protocols import IMAGES

SHAPE, PIXELS = (1, 3, 4), 12
CONTENT, STYLE = slice(0, 2), slice(2, 3)
VARIANCE = 0.3  # of a pixel


def orthogonal(columns: int) -> torch.Tensor:
    """Loadings [PIXELS, columns] at right angles, so that the posterior factorises over all codes."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(PIXELS, columns, generator=generator, dtype=torch.float64))[0]
    return basis * torch.linspace(1.0, 2.0, columns, dtype=torch.float64)


class Linear(MLVAE):
    """x = A z + noise. `encode` is the exact posterior of a single image; that of a group is the product of
    its members' (`MLVAE`), or the exact one."""

    def __init__(self, loadings: torch.Tensor, exact: bool = False, **hyperparameters):
        super().__init__(SHAPE, network="mlp", likelihood="gaussian", **hyperparameters)
        self.loadings, self.exact = loadings, exact

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        mean = (codes.double() @ self.loadings.T).view(-1, *SHAPE)
        # What the floor of the log-variance maps to the wanted one.
        excess = torch.tensor(math.log(VARIANCE) - LOWEST_PIXEL_LOGVAR, dtype=torch.float64)
        raw = LOWEST_PIXEL_LOGVAR + torch.log(torch.expm1(excess))
        return torch.cat([mean, raw.expand_as(mean)], dim=1)

    def encode(self, images: torch.Tensor):
        alone = torch.arange(len(images))
        return self.posterior_of(images, [alone] * self.latents)

    def posterior_of(self, images: torch.Tensor, owners: list[torch.Tensor]):
        """The exact posterior, if the images with the same owner share that dimension."""
        evidence = images.flatten(1).double() @ self.loadings / VARIANCE
        strength = self.loadings.square().sum(0) / VARIANCE
        mean, logvar = torch.empty_like(evidence), torch.empty_like(evidence)
        for d, owner in enumerate(owners):
            same = (owner[:, None] == owner).double()
            precision = 1 + strength[d] * same.sum(1)
            mean[:, d] = same @ evidence[:, d] / precision
            logvar[:, d] = -precision.log()
        return mean, logvar

    def encode_groups(self, images, groupings):
        if not self.exact:
            return super().encode_groups(images, groupings)
        owners = [groups.index for groups in groupings for _ in range(self.content)]
        return self.posterior_of(images, owners + [torch.arange(len(images))] * self.style)


def exact_log_likelihood(loadings: torch.Tensor, shared: slice, images: torch.Tensor) -> float:
    """ln p(x_G) of images [k, C, H, W] of one group: all but the shared dimensions are each image's own."""
    k = len(images)
    own = loadings.clone()
    own[:, shared] = 0
    common = loadings[:, shared] @ loadings[:, shared].T
    noise = VARIANCE * torch.eye(PIXELS, dtype=torch.float64)
    covariance = torch.kron(torch.ones(k, k, dtype=torch.float64), common)
    covariance = covariance + torch.kron(torch.eye(k, dtype=torch.float64), own @ own.T + noise)
    zero = torch.zeros(k * PIXELS, dtype=torch.float64)
    return float(MultivariateNormal(zero, covariance).log_prob(images.flatten().double()))


@pytest.fixture
def drawn():
    """The rows of the dataset whose images were asked for."""
    return []


@pytest.fixture
def dataset(drawn) -> Dataset:
    """Twelve random images of each of three kinds, of each of two others."""
    space = FactorSpace(("kind", "other", "copy"), (3, 2, 12))
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (len(space), *SHAPE), generator=generator, dtype=torch.uint8)

    def draw(rows: torch.Tensor) -> torch.Tensor:
        drawn.append(rows.numpy())
        return images[rows]

    return Dataset("random", "own", space, SHAPE, draw, ["kind"])


def pixels(dataset: Dataset, rows) -> torch.Tensor:
    return dataset.images(rows).double() / 255


# Which images are joined


def test_groups_are_different_images_of_one_class_each():
    classes = np.random.default_rng(0).permutation(np.repeat([2, 5, 7, 11], [30, 9, 14, 20]))
    for most, size in ((10, 4), (4, 9), (10, 100), (1, 3)):
        groups = draw_groups(np.random.default_rng(1), classes, most, size)
        found = classes[groups]
        assert (found == found[:, :1]).all()
        assert len(set(found[:, 0])) == len(groups) == min(most, 4)
        assert all(len(set(group)) == len(group) for group in groups)
        if most >= 4:
            assert groups.shape[1] == min(size, 9), "the smallest class"
    counts = np.zeros(len(classes))
    chosen = set()
    for seed in range(300):
        groups = draw_groups(np.random.default_rng(seed), classes, 2, 6)
        np.add.at(counts, groups, 1)
        chosen |= set(classes[groups[:, 0]])
    assert chosen == {2, 5, 7, 11} and counts.min() > 0, "all classes and images are drawn"
    again = draw_groups(np.random.default_rng(299), classes, 2, 6)
    assert (again == groups).all()


def test_images_are_joined_by_one_grouping_only():
    alone, joined = join_by_one(3, 4, 1, 2, "cpu")
    assert alone.number == 12 and alone.index.tolist() == alone.first.tolist() == list(range(12))
    assert joined.number == 3 and joined.first.tolist() == [0, 4, 8]
    assert joined.index.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    joined, alone = join_by_one(3, 4, 0, 2, "cpu")
    assert (joined.number, alone.number) == (3, 12)


# Against closed forms


def measured(model, dataset, drawn, seed: int = 0, group_by=(("kind",),)):
    """The table of all rows, and for each of its lines the rows of each group: list of int64 [groups, k]."""
    rows = np.arange(len(dataset))
    drawn.clear()
    table = pd.DataFrame(evidence(model, dataset, rows, dataset.space.labels_of(group_by, rows), seed, "cpu"))
    return table, [asked.reshape(-1, k) for asked, k in zip(drawn, table["k"], strict=True)]


def exact_lines(loadings, shared, dataset, groups_of_lines) -> list[float]:
    """ln p(x_G) in nats per image, of each line's groups."""
    return [
        sum(exact_log_likelihood(loadings, shared, pixels(dataset, group)) for group in groups) / groups.size
        for groups in groups_of_lines
    ]


def test_the_exact_posterior_gives_the_exact_likelihood(dataset, drawn):
    loadings = orthogonal(3)
    table, joined = measured(Linear(loadings, exact=True, content=2, style=1), dataset, drawn)
    assert table["k"].tolist() == list(IMAGES) and (table["grouping"] == 1).all()
    assert table["groups"].tolist() == [30, 15, 9, 6, 3] and table["images"].tolist() == [30, 30, 27, 30, 30]
    kinds = dataset.space.labels_of([["kind"]], np.arange(72))[:, 0]
    for groups in joined:
        assert len(set(groups.flatten())) == groups.size
        assert (kinds[groups] == kinds[groups[:, :1]]).all(), "only images of one kind are joined"
    expected = exact_lines(loadings, CONTENT, dataset, joined)
    # All importance weights are the same, so that the bounds are tight up to rounding.
    np.testing.assert_allclose(table["log_likelihood"], expected, rtol=1e-6)
    np.testing.assert_allclose(table["elbo"], expected, rtol=1e-6)


@pytest.mark.parametrize("wrong", ["content", "style"])
def test_another_proposal_gives_a_lower_bound(wrong, dataset, drawn, monkeypatch):
    """On the mean over many seeds: the gap of the ELBO is KL(q || p(z|x_G)), the other bound is tighter."""
    monkeypatch.setattr("dislab.scoring.evidence.IMAGES", (2, 10))
    loadings = orthogonal(3)
    exact = Linear(loadings, exact=True, content=2, style=1)
    # Of the content the product of the shifted posteriors of single images, which counts the prior k times;
    # or the exact posterior with a shifted style.
    model = Linear(loadings, exact=wrong == "style", content=2, style=1)
    method = "posterior_of" if model.exact else "encode"
    posterior = getattr(model, method)
    shift = torch.tensor([0.4, 0.4, 0.0] if wrong == "content" else [0.0, 0.0, 0.4], dtype=torch.float64)

    def shifted(*arguments):
        mean, logvar = posterior(*arguments)
        return mean + shift, logvar

    monkeypatch.setattr(model, method, shifted)
    gaps, divergences = [], []
    for seed in range(24):
        table, joined = measured(model, dataset, drawn, seed)
        expected = exact_lines(loadings, CONTENT, dataset, joined)
        gaps.append([expected - table[name] for name in ("elbo", "log_likelihood")])
        divergences.append([])
        for members in joined:
            images = pixels(dataset, members.flatten())
            groupings = join_by_one(*members.shape, 0, 1, "cpu")
            (mean, logvar), (true_mean, true_logvar) = (
                one.encode_groups(images, groupings) for one in (model, exact)
            )
            precision = torch.exp(-true_logvar)
            divergence = 0.5 * (
                true_logvar - logvar - 1 + precision * (logvar.exp() + (mean - true_mean) ** 2)
            )
            of_contents = divergence[groupings[0].first][:, CONTENT].sum()
            of_styles = divergence[:, STYLE].sum()
            assert (of_contents < 1e-9) == (wrong == "style") and (of_styles < 1e-9) == (wrong == "content")
            divergences[-1].append(float(of_contents + of_styles) / len(images))
    gap_elbo, gap = np.mean(gaps, axis=0)
    np.testing.assert_allclose(gap_elbo, np.mean(divergences, axis=0), rtol=0.06)
    assert (gap > 0.02).all() and (gap < 0.8 * gap_elbo).all()


def test_reconstruction_is_that_of_draws_of_the_posterior(dataset, drawn):
    loadings = orthogonal(3)
    model = Linear(loadings, exact=True, content=2, style=1)
    table, joined = measured(model, dataset, drawn)
    for line, members in zip(table["reconstruction"], joined, strict=True):
        images = pixels(dataset, members.flatten())
        mean, logvar = model.encode_groups(images, join_by_one(*members.shape, 0, 1, "cpu"))
        error = (images.flatten(1) - mean @ loadings.T).square().sum(1)
        error = error + (logvar.exp() * loadings.square().sum(0)).sum(1)
        expected = -0.5 * (PIXELS * math.log(2 * math.pi * VARIANCE) + error / VARIANCE).mean()
        assert line == pytest.approx(float(expected), abs=0.3)


def test_content_variance_is_that_of_the_product(dataset, drawn):
    model = Linear(orthogonal(3), content=2, style=1)
    table, joined = measured(model, dataset, drawn)
    for variance, members in zip(table["content_variance"], joined, strict=True):
        _, logvar = model.encode(pixels(dataset, members.flatten()))
        precision = torch.exp(-logvar[:, CONTENT]).view(*members.shape, 2).sum(1)
        assert variance == pytest.approx(float((1 / precision).mean()), rel=1e-6)
    assert table["content_variance"].is_monotonic_decreasing


def test_one_image_is_no_grouping(dataset, drawn):
    model = Linear(orthogonal(3), content=2, style=1)
    table, joined = measured(model, dataset, drawn)
    assert (table["k"][0], table["groups"][0]) == (1, 30)
    images = pixels(dataset, joined[0].flatten())
    _, logvar = model.encode(images)
    assert table["content_variance"][0] == pytest.approx(float(logvar[:, CONTENT].exp().mean()), rel=1e-6)
    covariance = model.loadings @ model.loadings.T + VARIANCE * torch.eye(PIXELS, dtype=torch.float64)
    single = MultivariateNormal(torch.zeros(PIXELS, dtype=torch.float64), covariance)
    expected = float(single.log_prob(images.flatten(1)).mean())
    assert table["log_likelihood"][0] == pytest.approx(expected, rel=1e-6)


def test_each_grouping_joins_its_own_content(dataset, drawn):
    loadings = orthogonal(5)
    model = Linear(loadings, exact=True, content=2, style=1, groupings=2)
    table, joined = measured(model, dataset, drawn, group_by=(("kind",), ("other",)))
    assert table["grouping"].tolist() == [1] * 5 + [2] * 5
    assert table["groups"].tolist() == [30, 15, 9, 6, 3, 20, 10, 6, 4, 2]
    labels = dataset.space.labels_of([["kind"], ["other"]], np.arange(72))
    for start, shared in ((0, slice(0, 2)), (5, slice(2, 4))):
        lines = slice(start, start + 5)
        for groups in joined[lines]:
            classes = labels[groups, start // 5]
            assert (classes == classes[:, :1]).all()
        expected = exact_lines(loadings, shared, dataset, joined[lines])
        np.testing.assert_allclose(table["log_likelihood"][lines], expected, rtol=1e-6)
        np.testing.assert_allclose(table["elbo"][lines], expected, rtol=1e-6)


def test_the_seed_decides_the_images_and_the_draws(dataset, drawn):
    model = Linear(orthogonal(3), content=2, style=1)
    first, joined = measured(model, dataset, drawn, seed=3)
    again, joined_again = measured(model, dataset, drawn, seed=3)
    assert first.equals(again)
    other, joined_other = measured(model, dataset, drawn, seed=4)
    assert all((a == b).all() for a, b in zip(joined, joined_again, strict=True))
    assert (joined[0] != joined_other[0]).any()
    assert (first["log_likelihood"] != other["log_likelihood"]).all()


def test_an_image_is_decoded_by_two_styles_for_each_of_five_contents(dataset, drawn, monkeypatch):
    model, decoded = Linear(orthogonal(3), content=2, style=1), []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda codes: (decoded.append(codes), decode(codes))[1])
    table, _ = measured(model, dataset, drawn)
    assert [len(codes) for codes in decoded] == [images for images in table["images"] for _ in range(10)]
    of_ten = torch.stack(decoded[-10:]).unflatten(1, (3, 10))  # the last line joins ten images
    contents, styles = of_ten[..., CONTENT], of_ten[..., STYLE]
    assert (contents == contents[:, :, :1]).all(), "a group has one content"
    assert (contents[::2] == contents[1::2]).all() and len(torch.unique(contents)) == 5 * 3 * 2
    assert len(torch.unique(styles)) == 10 * 30, "each time, every image has its own style"


def test_small_classes_are_joined_by_fewer(dataset, drawn):
    model = Linear(orthogonal(3), content=2, style=1)
    rows = np.array([0, 1, 2, 3, 30, 31, 32, 33, 34, 35])  # four rows of one kind, six of another
    table = pd.DataFrame(evidence(model, dataset, rows, dataset.space.labels_of([["kind"]], rows), 0, "cpu"))
    assert table["k"].tolist() == [1, 2, 3] and table["groups"].tolist() == [8, 4, 2]
    assert all(set(asked) <= set(rows) for asked in drawn), "rows are the dataset's, not the table's"
