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


def test_choices_of_the_models():
    with pytest.raises(DislabError, match="estimator is 'exact': choose weighted, stratified"):
        hyperparameters.complete(MODELS["betatcvae"], {"estimator": "exact"})
    with pytest.raises(DislabError, match="likelihood is 'poisson': choose bernoulli, binarised, gaussian"):
        hyperparameters.complete(MODELS["betatcvae"], {"likelihood": "poisson"})
