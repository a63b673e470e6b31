"""Hyper-parameters: their defaults, conversions and checks."""

from typing import Literal

import pytest
import torch
from conftest import IMAGE_SHAPE

from dislab.errors import DislabError
from dislab.registry import MODELS, Entry
from dislab.runs import hyperparameters

CPU = torch.device("cpu")


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
    return hyperparameters.complete(Entry("toy", Derived), given)


def test_defaults_follow_others_to_the_base_class():
    assert hyperparameters.defaults(Base) == {"latents": 10, "kind": "a"}
    both = {"beta": 4.0, "offset": 0, "fast": False, "latents": 10, "kind": "a"}
    assert hyperparameters.defaults(Derived) == hyperparameters.defaults(Inheriting) == both
    assert hyperparameters.defaults(Last) == both | {"beta": 8.0}
    assert hyperparameters.defaults(Closed) == {"width": 3}


def test_defaults_of_the_models_make_the_models():
    for name in ("vae", "betavae", "betatcvae", "mlvae"):
        entry = MODELS[name]
        values = hyperparameters.complete(entry, {"network": "mlp"})
        assert values["network"] == "mlp"
        model = entry.make(IMAGE_SHAPE, **values)
        assert {key: getattr(model, key) for key in values if hasattr(model, key)} == {
            key: value for key, value in values.items() if key not in ("network", "pixel_logvar")
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


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("hfs", {"latents": 1}, "hfs: latents is 1: it must be 2 or more"),
        ("adamlvae", {"latents": 1}, "adamlvae: latents is 1: it must be 2 or more"),
        ("qlae", {"values": 1}, "qlae: values is 1: it must be 2 or more"),
        ("mlvae_svi", {"group_size": -1}, "mlvae_svi: group_size is -1: it must be 0 or more"),
        ("infogan", {"categories": -1}, "infogan: categories is -1: it must be 0 or more"),
        ("infogan", {"continuous": 10**6}, "infogan: continuous is 1000000: it must be 10000 or less"),
    ],
)
def test_models_have_lowest_and_highest_values_of_their_own(name, given, message):
    with pytest.raises(DislabError, match=f"^{message}$"):
        hyperparameters.complete(MODELS[name], given)


def test_a_model_may_allow_zero():
    given = {"categories": "0", "continuous": "5"}
    assert hyperparameters.complete(MODELS["infogan"], given)["categories"] == 0
    assert hyperparameters.complete(MODELS["mlvae_adversarial"], {"group_size": 0})["group_size"] == 0


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("infogan", {"categories": 0, "continuous": 0}, "infogan needs a code: .* are both 0"),
        ("slowvae", {"rate": 0.0}, "slowvae: rate is 0.0: it must be above 0"),
        ("mlvae_adversarial", {"target": 0.0}, "mlvae_adversarial: target is 0.0: it must be above 0"),
        ("infovae", {"alpha": 1.5}, "infovae: alpha=1.5 .* alpha must be 1 or less"),
        ("infovae", {"lambda_prior": 0.5}, r"infovae: .* alpha \+ lambda_prior 1 or more"),
    ],
)
def test_values_with_which_a_loss_has_no_sense_are_one_clear_line(name, given, message):
    with pytest.raises(DislabError, match=f"^{message}"):
        MODELS[name].make(IMAGE_SHAPE, **given)


def test_choices_of_the_models():
    with pytest.raises(DislabError, match="estimator is 'exact': choose weighted, stratified"):
        hyperparameters.complete(MODELS["betatcvae"], {"estimator": "exact"})
    with pytest.raises(DislabError, match="likelihood is 'poisson': choose bernoulli, binarised, gaussian"):
        hyperparameters.complete(MODELS["betatcvae"], {"likelihood": "poisson"})
