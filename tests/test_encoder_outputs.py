"""What an encoder may be and may return: each gives the codes that were meant, or a line that says how."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny_dataset, one_line
from scipy.sparse import csr_array
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal

import dislab
from dislab.data.dataset import unit_images
from dislab.errors import DislabError
from dislab.scoring.encoding import encode
from dislab.scoring.score import score

B, D = 60, 4
MEAN = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
LOGVAR = MEAN.flip(0) - 1
NOISY = MEAN + 10
STD = (LOGVAR / 2).exp()
FRAME = pd.DataFrame(MEAN.numpy()).astype("Float64")  # its columns may lack values


class Output(OrderedDict):
    """A mapping whose items are attributes too, as pythae, diffusers and transformers return."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__.update(items)


@dataclass
class Posterior:
    """As the posterior of diffusers: `mean` and `logvar` are tensors, `mode` is a method."""

    mean: object
    logvar: object = None

    def mode(self):
        return self.mean


Named = namedtuple("Named", ["z", "mu", "log_var"])


class Squared(Normal):
    """A Normal of a user's own."""


def table_of(returned):
    """The code table of the tiny dataset of B images, for which the encoder returns the same at any time."""
    return encode(lambda images: returned, make_tiny_dataset(), np.arange(B))


@pytest.mark.parametrize(
    ("returned", "normal"),
    [
        (MEAN, False),
        (MEAN.numpy(), False),
        (MEAN.double(), False),
        (MEAN.clone().requires_grad_(), False),
        (MEAN.to_sparse(), False),
        (csr_array(MEAN.numpy()), False),
        (FRAME, False),
        ((MEAN, None), False),
        ((MEAN, LOGVAR), True),
        ([MEAN.numpy(), LOGVAR], True),
        (Normal(MEAN, STD), True),
        (Squared(MEAN, STD), True),
        (Independent(Normal(MEAN, STD), 1), True),
        (Output(embedding=MEAN, log_covariance=LOGVAR), True),
        (Output(recon_x=torch.zeros(B, 1, 16, 16), embedding=MEAN), False),
        ({"z": NOISY, "mean": MEAN, "logvar": LOGVAR}, True),
        ({"mu": MEAN, "sigma": STD, "logvar": None}, False),
        (Posterior(MEAN, LOGVAR), True),
        (Posterior(MEAN), False),
        (SimpleNamespace(embedding=MEAN.numpy(), log_covariance=LOGVAR.numpy()), True),
        (Named(NOISY, MEAN, LOGVAR), True),
    ],
)
def test_every_form_gives_the_mean_and_the_log_variance(returned, normal):
    table = table_of(returned)
    assert table.mean.dtype == np.float32
    np.testing.assert_array_equal(table.mean, MEAN)
    assert (table.logvar is not None) == normal
    if normal:
        np.testing.assert_allclose(table.logvar, LOGVAR, rtol=1e-5, atol=1e-6)


def test_one_deviation_for_all_dimensions_of_a_normal():
    assert np.array_equal(table_of(Normal(MEAN, 0.5)).logvar, np.full((B, D), 2 * np.log(0.5), np.float32))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision_is_read(kind):
    table = table_of((MEAN.to(kind), LOGVAR.to(kind)))
    assert np.array_equal(table.mean, MEAN.to(kind).float())
    assert np.array_equal(table.logvar, LOGVAR.to(kind).float())


WANTED = "for 60 images: it must return codes [60, D], or a pair (mean, logvar) of such arrays"


@pytest.mark.parametrize(
    ("returned", "described", "remedy"),
    [
        ((NOISY, MEAN, LOGVAR), "tuple (float32 [60, 4], float32 [60, 4], ", "encoder(images)[1:]"),
        ([NOISY, MEAN, LOGVAR], "list (float32 [60, 4], float32 [60, 4], ", "encoder(images)[1:]"),
        ((MEAN,), "tuple (float32 [60, 4])", "encoder(images)[0]"),
        ((MEAN, LOGVAR, NOISY, STD), "tuple (float32 [60, 4], ", "encoder(images)[0]"),
        ((NOISY, (MEAN, LOGVAR)), "tuple (float32 [60, 4], tuple)", "encoder(images)[1]"),
        ((NOISY, Normal(MEAN, STD), 0.5), "tuple (float32 [60, 4], Normal, float)", "encoder(images)[1]"),
        ((MEAN, 0.5), "tuple (float32 [60, 4], float)", "encoder(images)[0]"),
        ((MEAN, MEAN.mean()), "tuple (float32 [60, 4], float32 [])", "encoder(images)[0]"),
        ((MEAN, LOGVAR[1:]), "tuple (float32 [60, 4], float32 [59, 4])", "encoder(images)[0]"),
        ((), "tuple", None),
        (list(MEAN), "list (float32 [4], float32 [4], ", "np.stack([*encoder(images)])"),
        (MEAN.tolist(), "list (list, list, ", "np.stack([*encoder(images)])"),
        ((row for row in MEAN), "generator", "np.stack([*encoder(images)])"),
        (MEAN[:, 0], "float32 [60]", "encoder(images)[:, None]"),
        (MEAN[1:], "float32 [59, 4]", None),
        (MEAN[:, :0], "float32 [60, 0]", None),
        (MEAN.mean(), "float32 []", None),
        (MEAN.to(torch.complex64), "complex64 [60, 4]", None),
        (MEAN.reshape(B, 1, 2, 2), "float32 [60, 1, 2, 2]", "encoder(images).reshape(len(images), -1)"),
        (
            (MEAN.reshape(B, 1, 2, 2), LOGVAR.reshape(B, 1, 2, 2)),
            "tuple (float32 [60, 1, 2, 2], float32 [60, 1, 2, 2])",
            "[part.reshape(len(images), -1) for part in encoder(images)]",
        ),
        (
            Posterior(MEAN.reshape(B, 1, 2, 2), LOGVAR.reshape(B, 1, 2, 2)),
            "Posterior (mean float32 [60, 1, 2, 2], logvar float32 [60, 1, 2, 2])",
            "encoder(images).mean.reshape(len(images), -1)",
        ),
        ({"mu": MEAN[:, 0]}, "dict (mu float32 [60])", 'encoder(images)["mu"][:, None]'),
        ({"z": MEAN, "loss": 0.5}, "dict (z float32 [60, 4], loss float)", 'encoder(images)["NAME"]'),
        ({"embedding": NOISY, "mean": MEAN}, "dict (embedding float32", 'encoder(images)["NAME"]'),
        ({"mu": MEAN, "logvar": LOGVAR, "log_var": LOGVAR}, "dict (mu ", 'encoder(images)["NAME"]'),
        ({}, "dict", None),
        (Output(latent_dist=Posterior(MEAN, LOGVAR)), "Output (latent_dist ", 'encoder(images)["NAME"]'),
        (SimpleNamespace(z=MEAN), "SimpleNamespace (z float32 [60, 4])", "encoder(images).NAME"),
        (MultivariateNormal(MEAN, torch.eye(D)), "MultivariateNormal (", "encoder(images).mean"),
        (Independent(Bernoulli(logits=MEAN), 1), "Independent (", "encoder(images).mean"),
        (None, "None", None),
        ("codes", "str", None),
        (0.5, "float", None),
    ],
)
def test_anything_else_is_one_line_with_the_lambda_to_write(returned, described, remedy):
    with pytest.raises(DislabError) as error:
        table_of(returned)
    text = one_line(error)
    assert text.startswith(f"the encoder returned {described}")
    assert WANTED in text
    if remedy is None:
        assert text.endswith(WANTED)
        return
    assert f", for example by lambda images: {remedy}" in text
    if text.endswith(remedy) and described != "generator":  # which can be read once
        codes = eval(f"lambda images: {remedy}", {"encoder": lambda images: returned, "np": np})
        assert np.isfinite(encode(codes, make_tiny_dataset(), np.arange(B)).mean).all()


def test_the_lambda_for_three_outputs_gives_the_mean_and_the_log_variance():
    table = encode(lambda images: (NOISY, MEAN, LOGVAR)[1:], make_tiny_dataset(), np.arange(B))
    assert np.array_equal(table.mean, MEAN) and np.array_equal(table.logvar, LOGVAR)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (np.ma.masked_less(MEAN.numpy(), 0), "codes must be numbers, but some are masked"),
        ((MEAN, np.ma.masked_less(LOGVAR.numpy(), -2)), "logvar must be numbers, but some are masked"),
        (FRAME.mask(FRAME < 0), "codes must be numbers, but hold <NA>"),
    ],
)
def test_masked_codes_of_an_encoder_are_refused(returned, says):
    with pytest.raises(DislabError) as error:
        table_of(returned)
    assert says in one_line(error)


# Encoders that are no functions


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_transformer_of_scikit_learn(kind, scaled):
    dataset = make_tiny_dataset()
    flat = unit_images(dataset.images(np.arange(B))).flatten(1).numpy()
    transformer = make_pipeline(StandardScaler(), PCA(3)) if scaled else PCA(3)
    transformer.fit(flat.astype(kind))
    expected = transformer.transform(flat)
    table = encode(transformer, dataset, np.arange(B))
    np.testing.assert_allclose(table.mean, expected, rtol=1e-5, atol=1e-5)
    assert dislab.evaluate(transformer, dataset=dataset, metrics=["mig"]) == score(table, ["mig"])


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        (PCA(3), "the encoder failed: NotFittedError: This PCA instance is not fitted yet"),
        (PCA(3).fit(np.eye(9)), "X has 256 features, but PCA is expecting 9 features"),
        (np.zeros((B, D)), "or has `transform`: ndarray is no encoder"),
        ("vae", "str is no encoder"),
        (nn.Linear(9, 3), "the encoder failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_an_encoder_that_cannot_be_called_is_one_line(encoder, says):
    with pytest.raises(DislabError) as error:
        dislab.evaluate(encoder, dataset=make_tiny_dataset())
    assert says in one_line(error)
