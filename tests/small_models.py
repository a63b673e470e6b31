"""Small models in float64, batches and slow formulas, for the tests of the models."""

import itertools
import math

import torch
from torch.distributions import Normal

from dislab.data.groups import Groups
from dislab.models.vae import VAE
from dislab.networks.distributions import LOWEST_PIXEL_LOGVAR
from dislab.training.batches import Batch

IMAGE_SHAPE = (1, 8, 8)
STEP = torch.tensor(0.0)
UNEVEN = [3, 1, 4, 2]  # sizes of four groups


class Grouped:
    """What `Batches` asks of a model that is trained on groups."""

    supervision, latents = "groups", 3

    def __init__(self, group_size: int):
        self.group_size = group_size


class Ungrouped:
    """What `Batches` asks of a model that is trained on single images."""

    supervision, latents = "iid", 3


def random_normals(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log-variances in float64, so that only formulas can differ."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    logvar = 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64) - 0.5
    return mean, logvar


def make_model(kind: type, seed: int = 0, **hyperparameters):
    """A small model in float64 with initial parameters large enough for all loss terms to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(IMAGE_SHAPE, network="mlp", **hyperparameters).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    return model


def make_batch(sizes: list[int], latents: int, seed: int = 0) -> Batch:
    """Groups of the given sizes, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    return Batch(
        images=torch.rand(count, *IMAGE_SHAPE, generator=generator, dtype=torch.float64),
        noise=torch.randn(count, latents, generator=generator, dtype=torch.float64),
        dataset_size=1000,
        groupings=(make_groups(sizes),),
    )


def make_pairs(changed: list[list[bool]], latents: int) -> Batch:
    """Pairs of random images, of which these factors were redrawn."""
    batch = make_batch([2] * len(changed), latents)
    batch.changed = torch.tensor(changed)
    return batch


def make_groups(sizes: list[int]) -> Groups:
    """Groups of the given sizes, one after the other."""
    return Groups(
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        torch.tensor([0, *itertools.accumulate(sizes)][:-1]),
    )


def gradients(loss: torch.Tensor, model) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)


def assert_same_loss(loss, other_loss, model, other_model=None) -> None:
    """The same value, and the same gradient of every parameter."""
    torch.testing.assert_close(loss, other_loss, rtol=1e-10, atol=1e-10)
    theirs = gradients(other_loss, other_model or model)
    for mine, other in zip(gradients(loss, model), theirs, strict=True):
        assert mine.abs().max() > 1e-6
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def fix_posterior(model, mean: torch.Tensor, logvar: torch.Tensor) -> None:
    """Make the encoder give these parameters whatever the images."""
    model.encode = lambda images: (mean, logvar)


def slow_log_likelihood(decoded: torch.Tensor, image: torch.Tensor, likelihood: str) -> torch.Tensor:
    """ln p(x|z) of one image, pixel by pixel formula."""
    if likelihood == "binarised":
        image = torch.where(image < 0.5, 0.0, 1.0)
    if likelihood in ("bernoulli", "binarised"):
        share = torch.sigmoid(decoded)
        return (image * torch.log(share) + (1 - image) * torch.log(1 - share)).sum()
    mean, raw = decoded[: len(image)], decoded[len(image) :]
    floor = 2 * math.log(1 / 255)
    logvar = {
        "gaussian": lambda: floor + torch.log(1 + torch.exp(raw - floor)),
        "gaussian tanh": lambda: 1 - 2 / (1 + torch.exp(2 * raw)),
        "gaussian tanh5": lambda: 5 - 10 / (1 + torch.exp(2 * raw)),
        "gaussian fixed": lambda: torch.zeros_like(mean),
    }[likelihood]()
    return Normal(mean, torch.exp(logvar / 2)).log_prob(image).sum()


def linear_gaussian_vae(loadings: torch.Tensor, pixel_deviation: float) -> VAE:
    """x = W z + pixel noise, as a VAE whose likelihood is exactly that."""
    model = make_model(VAE, latents=loadings.shape[1], likelihood="gaussian")
    excess = torch.tensor(2 * math.log(pixel_deviation) - LOWEST_PIXEL_LOGVAR, dtype=torch.float64)
    raw = LOWEST_PIXEL_LOGVAR + torch.log(torch.expm1(excess))  # what the floor maps to the wanted variance

    def decode(codes: torch.Tensor) -> torch.Tensor:
        mean = (codes @ loadings.T).view(-1, *IMAGE_SHAPE)
        return torch.cat([mean, raw.expand_as(mean)], dim=1)

    model.decode = decode
    return model
