"""What the engine asks of a model, and the checks that a model keeps to it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from dislab.data.groups import Groups
from dislab.errors import DislabError
from dislab.training.batches import Batch

SUPERVISIONS = ("none", "iid", "groups")


class Model(Protocol):
    """A torch.nn.Module, made by its class from (image_shape, *, hyper-parameters with defaults).

    Every model needs `supervision` and `encode`. With supervision "none" it also needs `fit`, otherwise
    `latents` and `loss`. Codes are float32 [B, D], images float32 [B, C, H, W] in [0, 1].
    """

    supervision: str  # of the class: the loss sees "iid" images or "groups"; "none" is no gradient steps
    latents: int  # number of code dimensions D
    group_size: int  # images per group, with supervision "groups"
    likelihood: str  # "bernoulli" or "gaussian", with encode_groups
    blocks: Mapping[str, slice]  # named code dimensions; with encode_groups the contents, then "style"

    # Return codes, or the mean and log-variance of q(z|x): of images, or of dataset rows int64 [B] instead.
    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]: ...
    def encode_rows(self, dataset, rows) -> Tensor | tuple[Tensor, Tensor]: ...
    # Return mean and log-variance with the contents of each image's groups. Needs `decode`.
    def encode_groups(self, images: Tensor, groupings: tuple[Groups, ...]) -> tuple[Tensor, Tensor]: ...
    # Return the terms of the loss, of which "loss" is minimised. All noise comes from the batch.
    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]: ...
    # Fit the model to the training rows int64 [N], without gradient steps.
    def fit(self, dataset, rows, generator: torch.Generator) -> None: ...
    # Return the parameters of p(x|z), which `distributions.negative_log_likelihood` takes.
    def decode(self, codes: Tensor) -> Tensor: ...
    # Return the images of codes, for pictures.
    def mean_image(self, codes: Tensor) -> Tensor: ...
    # Return -ln p(x|z) [B] in nats, z being drawn by the noise [B, D], for the ELBO.
    def reconstruction(self, images: Tensor, noise: Tensor) -> Tensor: ...
    # Return values derived from the hyper-parameters, which the record of the run keeps.
    def report(self, image_shape: tuple[int, int, int]) -> dict[str, float]: ...


METHODS = [name for name, value in vars(Model).items() if inspect.isfunction(value) and name[0] != "_"]


def check_model_class(make: object, name: str) -> None:
    """Raise DislabError if a registered model cannot keep to `Model`, as far as its class shows."""
    if not (isinstance(make, type) and issubclass(make, nn.Module)):
        raise DislabError(f"model '{name}' must be a class derived from torch.nn.Module")
    choices = f"choose {', '.join(SUPERVISIONS)}"
    if not hasattr(make, "supervision"):
        raise DislabError(f"model '{name}' lacks the class attribute `supervision`: {choices}")
    if make.supervision not in SUPERVISIONS:
        raise DislabError(f"model '{name}': `supervision` is {make.supervision!r}: {choices}")
    first, *others = list(constructor_parameters(make).values()) or [None]
    wrong = None
    if first is None or first.name != "image_shape" or first.kind is first.KEYWORD_ONLY:
        wrong = "its first argument is not `image_shape`"
    for parameter in others:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            wrong = wrong or f"`{parameter.name}` is not keyword-only"
        elif parameter.default is parameter.empty:
            wrong = wrong or f"`{parameter.name}` has no default"
    if wrong:
        raise DislabError(
            f"model '{name}': its constructor must take (image_shape, *, hyper-parameters with defaults), "
            f"but {wrong}"
        )


def constructor_parameters(make: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor by name: with **others, also those of its base class."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in make.__mro__:
        if base is nn.Module:
            break
        if "__init__" not in vars(base):
            continue
        _, *own = inspect.signature(base.__init__).parameters.values()
        for parameter in own:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                parameters.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return parameters


def check_model(model: nn.Module, name: str) -> nn.Module:
    """Return the model, with what is optional in `Model` and missing set to None, or to {} for `blocks`.

    DislabError is raised if something that the model needs is missing or wrong.
    """
    for attribute in [*Model.__annotations__, *METHODS]:
        if not hasattr(model, attribute):
            setattr(model, attribute, {} if attribute == "blocks" else None)
    for attribute, user in _needs(model).items():
        value = getattr(model, attribute)
        if value is None or value == {}:
            raise DislabError(f"model '{name}' lacks `{attribute}`, which {user} needs")
    for attribute in ("latents", "group_size"):
        value = getattr(model, attribute)
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise DislabError(f"model '{name}': `{attribute}` is {value!r}: it must be 1 or more")
    for method in METHODS:
        arguments = [*inspect.signature(getattr(Model, method)).parameters][1:]
        value = getattr(model, method)
        if value is not None and not _takes(value, arguments):
            raise DislabError(
                f"model '{name}': `{method}` must be a method that takes ({', '.join(arguments)})"
            )
    blocks = model.blocks
    if not (isinstance(blocks, Mapping) and all(isinstance(block, slice) for block in blocks.values())):
        raise DislabError(f"model '{name}': `blocks` must map names to slices of the code dimensions")
    if model.encode_groups is not None and (len(blocks) < 2 or [*blocks][-1] != "style"):
        raise DislabError(f"model '{name}': `encode_groups` needs `blocks` of contents, then 'style'")
    return model


def _needs(model: nn.Module) -> dict[str, str]:
    """Return the attributes that a model must have, each with what needs it."""
    needs = {} if model.encode_rows is not None else {"encode": "scoring"}
    if model.encode_groups is not None:
        needs |= dict.fromkeys(("decode", "likelihood", "blocks"), "`encode_groups`")
    if model.reconstruction is not None:
        needs["latents"] = "`reconstruction`"
    if model.supervision == "none":
        return needs | {"fit": "supervision 'none'"}
    own = ("latents", "loss", "group_size") if model.supervision == "groups" else ("latents", "loss")
    return needs | dict.fromkeys(own, f"supervision '{model.supervision}'")


def _takes(method: object, arguments: list[str]) -> bool:
    """Return whether something can be called with so many arguments by position."""
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:  # also if it cannot be called
        return False
    except ValueError:  # a compiled function does not say what it takes
        pass
    return True
