"""A model's hyper-parameters, its constructor's keyword arguments: what they are, and checks of a user's."""

from __future__ import annotations

from collections.abc import Mapping

from dislab.arguments import choices_of, converted
from dislab.errors import DislabError
from dislab.registry import Entry, unknown_name

# Hyper-parameters that are numbers of dimensions of a code.
SIZES = ("latents", "content", "style", "categories", "continuous", "incompressible")
MOST_DIMENSIONS = 10_000
TRAINING_STEPS = ("capacity_steps", "warmup_steps", "label_steps")  # that count training steps


def defaults(model: type) -> dict[str, object]:
    """Return the default of every hyper-parameter by name."""
    from dislab.training.model import constructor_parameters  # it imports torch, as the model has done

    parameters = constructor_parameters(model).values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def choices(model: type) -> dict[str, tuple]:
    """Return the values that hyper-parameters annotated as Literal[...] may take, by name."""
    homes = [home for home in reversed(model.__mro__) if "__init__" in vars(home) and home is not object]
    return {name: values for home in homes for name, values in choices_of(home.__init__).items()}


def complete(entry: Entry, values: Mapping[str, object]) -> dict[str, object]:
    """Return all hyper-parameters of a model: its defaults with the user's values, checked and converted.

    Values may be texts from a command line ("8", "true"), which are read as the default's type.

    Raises
    ------
    DislabError : a name is not the model's (the nearest is offered), or a value has the wrong type or is not
        allowed.
    """
    completed = defaults(entry.make)
    allowed, lowest = choices(entry.make), getattr(entry.make, "lowest", {})
    for name, value in values.items():
        if name not in completed:
            raise unknown_name(f"hyper-parameter of {entry.name}", name, completed)
        value = converted(
            f"{entry.name}: {name}", value, completed[name], allowed.get(name), lowest.get(name)
        )
        if name in SIZES and isinstance(value, int) and value > MOST_DIMENSIONS:
            raise DislabError(f"{entry.name}: {name} is {value}: it must be {MOST_DIMENSIONS} or less")
        completed[name] = value
    return completed
