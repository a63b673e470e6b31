"""What the engine asks of a model, and the checks that a model keeps to it."""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dislab.data.dataset import Dataset, unit_images
from dislab.data.groups import Groups, join_by_one
from dislab.errors import DislabError
from dislab.networks.adam import OPTIONS
from dislab.networks.distributions import LIKELIHOODS
from dislab.scoring.encoding import first_codes
from dislab.scoring.outputs import check_shapes, describe
from dislab.scoring.table import CodeTable, NotFinite
from dislab.training.batches import Batch

SUPERVISIONS = ("none", "iid", "groups", "pairs")
RESAMPLES = ("any", "other", "laplace")  # see dislab.training.pairs.Redraws


class Model(Protocol):
    """A torch.nn.Module, made by its class from (image_shape, *, hyper-parameters with defaults).

    Every model needs `supervision` and `encode`. With supervision "none" it also needs `fit`, otherwise
    `latents` and `loss`. Codes are float32 [B, D], images float32 [B, C, H, W] in [0, 1].
    """

    # Of the class. The loss sees "iid" images, "groups" of images that share a class, or "pairs" of images
    # that differ in some factors. "none" is no gradient steps.
    supervision: str
    # Of the class: the least values of hyper-parameters that are not 1 for sizes and 0 for weights.
    lowest: Mapping[str, int]
    latents: int  # number of code dimensions D
    noise: int  # columns of the batch's noise; by default D
    # Images per group. With "groups", 0 groups a batch by class, see Batches. With "pairs" it is 2, or 0 if
    # all images of a batch differ in the same factors.
    group_size: int
    least_groups: int  # groups that a batch must have; by default 1
    changed: int | str  # with "pairs": number of factors that are redrawn, or "random"
    resample: str  # with "pairs": one of RESAMPLES
    binds_factors: bool  # with "pairs": whether each factor has a latent of its own
    adam: Mapping[str, object]  # OPTIONS of dislab.networks.adam, as in {"betas": (0.5, 0.999)}
    # A part of the model that `loss` does not train but `adversary_loss` does, in so many steps (1) after
    # each of the model's, by an Adam with these options, of which "lr" is needed.
    adversary: nn.Module
    adversary_steps: int
    adversary_adam: Mapping[str, object]
    likelihood: str  # one of distributions.LIKELIHOODS, with encode_groups
    blocks: Mapping[str, slice]  # named code dimensions; with encode_groups the contents, then "style"

    # Return codes, or the mean and log-variance of q(z|x): of images, or of dataset rows int64 [B] instead.
    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]: ...
    def encode_rows(self, dataset, rows) -> Tensor | tuple[Tensor, Tensor]: ...
    # Return mean and log-variance with the contents of each image's groups. Needs `decode`.
    def encode_groups(self, images: Tensor, groupings: tuple[Groups, ...]) -> tuple[Tensor, Tensor]: ...
    # Return the terms of the loss, of which "loss" is minimised. All noise comes from the batch.
    def loss(self, batch: Batch, step: Tensor) -> dict[str, Tensor]: ...
    # Return what the adversary minimises, one number. `other` is another batch, drawn for this step only.
    def adversary_loss(self, batch: Batch, other: Batch, step: Tensor) -> Tensor: ...
    # Look at the training rows int64 [N] before the first step, and keep what `loss` needs of them.
    def look_at(self, dataset, rows, generator: torch.Generator) -> None: ...
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
    wrong = _wrong_in_class(make)
    if wrong:
        raise DislabError(f"model '{name}'{wrong}")


def _wrong_in_class(make: object) -> str | None:
    """Return what is wrong with a model's class, as the rest of a sentence; None if nothing is."""
    if not (isinstance(make, type) and issubclass(make, nn.Module)):
        return " must be a class derived from torch.nn.Module"
    choices = f"choose {', '.join(SUPERVISIONS)}"
    if not hasattr(make, "supervision"):
        return f" lacks the class attribute `supervision`: {choices}"
    if make.supervision not in SUPERVISIONS:
        return f": `supervision` is {make.supervision!r}: {choices}"
    if inspect.isabstract(make):
        return f" lacks {', '.join(sorted(make.__abstractmethods__))}, which its base class asks for"
    first, *others = list(constructor_parameters(make).values()) or [None]
    wrong = None
    if first is None or first.name != "image_shape" or first.kind is first.KEYWORD_ONLY:
        wrong = "its first argument is not `image_shape`"
    for parameter in others:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            wrong = wrong or f"`{parameter.name}` is not keyword-only"
        elif parameter.default is parameter.empty:
            wrong = wrong or f"`{parameter.name}` has no default"
        elif not isinstance(parameter.default, bool | int | float | str | list | tuple | None):
            wrong = wrong or f"the default of `{parameter.name}` is no number or text"
    if wrong:
        return f": its constructor must take (image_shape, *, hyper-parameters with defaults), but {wrong}"
    return None


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
    wrong = _wrong_in_model(model)
    if wrong:
        raise DislabError(f"model '{name}'{wrong}")
    return model


def _wrong_in_model(model: nn.Module) -> str | None:
    """Return what is wrong with a model, as the rest of a sentence; None if nothing is."""
    if model.supervision not in SUPERVISIONS:
        return f": `supervision` is {model.supervision!r}: choose {', '.join(SUPERVISIONS)}"
    for attribute, user in _needs(model).items():
        value = getattr(model, attribute)
        if value is None or (isinstance(value, Mapping) and not value):
            return f" lacks `{attribute}`, which {user} needs"
    for attribute in ("latents", "noise", "group_size", "least_groups", "adversary_steps"):
        value, lowest = getattr(model, attribute), int(attribute != "group_size")
        if value is not None and not (type(value) is int and lowest <= value < 2**31):
            return f": `{attribute}` is {textwrap.shorten(repr(value), 60)}: it must be {lowest} or more"
    if model.adversary is not None and "lr" not in model.adversary_adam:
        return f": `adversary_adam` needs a rate, as in {{'lr': 1e-4}}, and is {model.adversary_adam!r}"
    for attribute, options in (("adam", OPTIONS), ("adversary_adam", ("lr", *OPTIONS))):
        unknown = set(getattr(model, attribute) or {}) - set(options)
        if unknown:
            return f": `{attribute}` has '{min(unknown)}': its options are {', '.join(options)}"
    if model.supervision == "pairs":
        if model.group_size not in (0, 2):
            return f": `group_size` is {model.group_size}: with supervision 'pairs' it must be 2, or 0"
        if model.changed != "random" and not (type(model.changed) is int and model.changed >= 1):
            return f": `changed` is {model.changed!r}: it must be 1 or more, or 'random'"
        if model.resample not in RESAMPLES:
            return f": `resample` is {model.resample!r}: choose {', '.join(RESAMPLES)}"
    if model.supervision != "none" and not any(one.requires_grad for one in model.parameters()):
        return f" lacks parameters, which supervision '{model.supervision}' needs"
    for method in METHODS:
        arguments = [*inspect.signature(getattr(Model, method)).parameters][1:]
        value = getattr(model, method)
        if value is not None and not _takes(value, arguments):
            return f": `{method}` must be a method that takes ({', '.join(arguments)})"
    blocks = model.blocks
    if not (isinstance(blocks, Mapping) and all(isinstance(block, slice) for block in blocks.values())):
        return ": `blocks` must map names to slices of the code dimensions"
    if model.encode_groups is not None and (len(blocks) < 2 or [*blocks][-1] != "style"):
        return ": `encode_groups` needs `blocks` of contents, then 'style'"
    if model.encode_groups is not None and model.likelihood not in LIKELIHOODS:
        value = textwrap.shorten(repr(model.likelihood), 60)
        return f": `likelihood` is {value}: choose {', '.join(LIKELIHOODS)}"
    return None


def _needs(model: nn.Module) -> dict[str, str]:
    """Return the attributes that a model must have, each with what needs it."""
    needs = {} if model.encode_rows is not None else {"encode": "scoring"}
    if model.encode_groups is not None:
        needs |= dict.fromkeys(("decode", "likelihood", "blocks"), "`encode_groups`")
    if model.reconstruction is not None:
        needs["latents"] = "`reconstruction`"
    if model.supervision == "none":
        return needs | {"fit": "supervision 'none'"}
    if model.adversary is not None:
        needs |= dict.fromkeys(("adversary_loss", "adversary_adam"), "`adversary`")
    groups = {"groups": ["group_size"], "pairs": ["group_size", "changed", "resample"]}
    own = ["latents", "loss", *groups.get(model.supervision, [])]
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


def check_terms(model: nn.Module, terms: object, before: Sequence[str] | None = None) -> None:
    """Raise DislabError if a loss did not return what `Model` says.

    `before` are its terms at the step before. This is done at every step and does not wait for the device.
    """
    wrong = None
    if not isinstance(terms, Mapping):
        wrong = f"not {type(terms).__name__}"
    elif "loss" not in terms:
        wrong = f"not only {', '.join(map(str, terms))}"
    else:
        for name, term in terms.items():
            if not isinstance(name, str) or not name.isprintable() or "," in name:
                wrong = f"and the name {name!r} is no text without commas"
            elif not isinstance(term, Tensor) or term.numel() != 1 or term.is_complex():
                wrong = f"of one real number each, and '{name}' is {describe(term)}"
        if wrong is None and not terms["loss"].requires_grad:
            wrong = "and nothing in its 'loss' depends on the parameters"
        if wrong is None and before is not None and [*terms] != [*before]:
            wrong = f"the same at every step, and {', '.join(before)} became {', '.join(terms)}"
    if wrong:
        raise DislabError(
            f"{type(model).__name__}.loss must return a dict of tensors with the key 'loss', {wrong}"
        )


def check_adversary_loss(model: nn.Module, loss: object) -> None:
    """Raise DislabError if the loss of an adversary is not what `Model` says."""
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex() or not loss.requires_grad:
        raise DislabError(
            f"{type(model).__name__}.adversary_loss must return a tensor of one real number that depends on "
            f"the adversary's parameters, not {describe(loss)}"
        )


def check_outputs(model: nn.Module, dataset: Dataset) -> None:
    """Call what is called after training, but `decode`, for images of a dataset and codes of zeros.

    The model, in evaluation mode, lies where the images are. What it raises passes through; DislabError is
    raised if it returns something else than `Model` says.
    """
    rows = dataset.train_rows()
    try:
        mean, _ = first_codes(model, dataset, rows)
    except NotFinite:  # a seed whose start is bad: its run fails, and the others go on
        return
    CodeTable(np.zeros(mean.shape), np.zeros(len(mean), int), blocks=model.blocks)
    images = unit_images(dataset.images(rows[: len(mean)]))
    with torch.no_grad():
        codes = torch.zeros(len(images), model.latents, device=images.device)
        if model.mean_image is not None:
            check_shapes(model.mean_image, model.mean_image(codes), images.shape)
        if model.reconstruction is not None:
            check_shapes(model.reconstruction, model.reconstruction(images, codes), images.shape[:1])
        if model.encode_groups is not None:
            groupings = join_by_one(1, len(images), 0, len(model.blocks) - 1, images.device)
            check_shapes(model.encode_groups, model.encode_groups(images, groupings), *[codes.shape] * 2)
        reported(model, images.shape[1:])


def reported(model: nn.Module, image_shape: Sequence[int]) -> dict[str, float]:
    """Return what a model reports for its record; raise DislabError if it is no dict of finite numbers."""
    values = {} if model.report is None else model.report(tuple(image_shape))
    try:
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
        if all(isinstance(name, str) and math.isfinite(value) for name, value in plain.items()):
            return plain
    except (AttributeError, TypeError, ValueError, OverflowError, RuntimeError):
        pass
    raise DislabError(
        f"{type(model).__name__}.report must return a dict of finite numbers by name, not "
        f"{textwrap.shorten(repr(values), 60)}"
    )
