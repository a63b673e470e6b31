"""The configuration of a run: all that decides its result, as one value.

`dislab.runs.resolve` makes it, once, from what a user writes; every later step passes it on unchanged. Its
digest is the run's identity in folders, records, leaderboards and studies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path

from dislab.errors import DislabError
from dislab.files import read_text
from dislab.registry import MODELS
from dislab.runs import hyperparameters as hyper
from dislab.training.protocol import USUAL, Protocol

# Fields in which two runs of one row may differ.
NOT_IDENTITY = ("seed", "metrics", "own_images", "own_factors")
MEMORY = "memory"
EXTERNAL = "external"  # the source of codes that another program made
# In the source of official files, before a digest of their content.
UNPUBLISHED = " (not the published file) "
MOST_BYTES = 2**26  # of a run.json
FORMAT = 9  # of records


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run; `resolve` makes a checked one.

    Attributes
    ----------
    model : the registered name.
    hyperparameters : all of the model's, name -> value.
    dataset : the dataset's name, with the variant where there is one (mpi3d_toy).
    source : "official"; "official (not the published file) …" with a digest of the files; "rendered-v1" with
        the version of the drawing; or "own-…" with a digest of the data.
    protocol : how the model is trained, and which rows are scored.
    group_by : the groupings, each the names of the factors whose combined value is a group.
    hold_out : what is kept from training and scored alone, see `dislab.hold_out`.
    precision : "usual" (tf32 on CUDA, fp32 elsewhere), or another that a user chose.
    seed : decides initialisation, batches, noise and the metrics' draws.
    metrics : names of the scores that are asked for, see `dislab.scoring.request`. More may be added to a
        finished run, so they are no part of its identity.
    own_images : where a user's own images are: the path of a folder, or "memory" for a Dataset object; "" for
        a registered dataset. No part of the identity: `source` has their digest.
    own_factors : the path of the CSV file of a folder's factors, or "". No part of the identity either:
        `source` has the digest of images and factors.

    Examples
    --------
        >>> from dislab.runs.config import RunConfig
    >>> from dislab.runs.machine import Machine
    >>> from dislab.runs.resolve import resolve
    >>> config = resolve("oracle", "shapes3d", Machine.here("cpu"))
    >>> RunConfig.from_json(config.to_json()) == config
    True
    """

    model: str
    hyperparameters: Mapping[str, object]
    dataset: str
    source: str
    protocol: Protocol
    group_by: tuple[tuple[str, ...], ...]
    hold_out: tuple[str, ...] = ()
    precision: str = USUAL
    seed: int = 0
    metrics: tuple[str, ...] = ("default",)
    own_images: str = ""
    own_factors: str = ""

    def to_json(self) -> dict:
        """Return the configuration as a dict that JSON can hold."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.loads(json.dumps(values, default=vars))  # `asdict` takes four times as long

    @classmethod
    def from_json(cls, source: Mapping | str | Path) -> RunConfig:
        """Return a configuration from `to_json`'s dict, from a record, or from the path of a run.json.

        Raises
        ------
        DislabError : it is not a configuration of this version.
        """
        try:
            values = source
            if not isinstance(source, Mapping):
                text = read_text("the configuration", source, MOST_BYTES)
                values = json.loads(text, object_pairs_hook=_members)
            if values.get("format", FORMAT) != FORMAT:
                raise ValueError(f"it is of format {values['format']}, not {FORMAT}")
            values = dict(values.get("config", values))
            texts = ("model", "dataset", "source", "precision", "own_images", "own_factors")
            lists = [values["hold_out"], values["metrics"], *values["group_by"]]
            words = [values.get(name, "") for name in texts] + [word for words in lists for word in words]
            if not all(isinstance(one, list | tuple) for one in lists):
                raise TypeError("hold_out, metrics and the parts of group_by must be lists")
            if not values["group_by"] or not all(values["group_by"]):
                raise TypeError("group_by must be a list of lists of factors")
            if not all(isinstance(word, str) for word in words):
                raise TypeError(f"{', '.join(texts)} and what the lists hold must be texts")
            values["protocol"] = Protocol(**values["protocol"])
            values["hyperparameters"] = dict(values["hyperparameters"])
            values["group_by"] = tuple(map(tuple, values["group_by"]))
            values["hold_out"], values["metrics"] = tuple(values["hold_out"]), tuple(values["metrics"])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            name = "it" if isinstance(source, Mapping) else f"'{source}'"
            raise DislabError(
                f"{name} is not a configuration of this version, such as run.json holds ({error!r})"
            ) from None

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def row(self) -> str:
        """The digest of all but the seed, 12 hex digits: what the runs of a leaderboard row share."""
        values = {name: value for name, value in self.to_json().items() if name not in NOT_IDENTITY}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def digest(self) -> str:
        """The identity of the run: its row and its seed."""
        return f"{self.row}-{self.seed}"

    @property
    def changed(self) -> dict[str, object]:
        """The hyper-parameters that differ from the model's defaults."""
        usual = {}
        with suppress(DislabError):  # a plug-in's model that is not loaded
            usual = hyper.defaults(MODELS[self.model].make)
        return {name: value for name, value in self.hyperparameters.items() if value != usual.get(name)}

    @property
    def folder(self) -> Path:
        """The run's folder within a results folder: readable, and one for each digest."""
        changes = "".join(f",{name}={value}" for name, value in self.changed.items())[:60]
        model = f"{self.model}{changes}-{self.row}".replace("/", "_")
        images = f"{self.dataset}-{self.source}".replace(UNPUBLISHED, "-").replace("/", "_")
        return Path(images, self.protocol_name, model, f"seed{self.seed}")

    @property
    def protocol_name(self) -> str:
        """The protocol's name with the user's changes, such as quick+steps=100+precision=bf16."""
        return self.protocol.name + ("" if self.precision == USUAL else f"+precision={self.precision}")

    @property
    def key(self) -> dict[str, str]:
        """What a table calls the run's row: column -> text."""
        return {
            "dataset": self.dataset,
            "source": self.source,
            "protocol": self.protocol_name,
            "hold_out": "; ".join(self.hold_out),
            "group_by": " & ".join("+".join(names) for names in self.group_by),
            "model": self.model,
            "hyperparameters": " ".join(f"{name}={value}" for name, value in self.hyperparameters.items()),
        }

    def __str__(self) -> str:
        parts = [f"{self.model} on {self.dataset}", *(f"without {text}" for text in self.hold_out)]
        parts += [f"{name}={value}" for name, value in self.changed.items()]
        return ", ".join([*parts, f"seed {self.seed}"])

    @property
    def title(self) -> str:
        """What the titles of pictures say of the run: model, dataset, hyper-parameters, seed and protocol."""
        return f"{self}, protocol {self.protocol_name}, {self.source.partition('-v')[0]} images"

    def with_seed(self, seed: int) -> RunConfig:
        """Return the configuration with another seed.

        Raises
        ------
        DislabError : the seed is not a whole number, 0 or more.
        """
        if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
            raise DislabError(f"seed is {seed!r}: it must be a whole number, 0 or more")
        other = replace(self, seed=int(seed))
        other.__dict__["row"] = self.row  # the seed is no part of it
        return other


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object as a dict; raise ValueError if a name is twice in it."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is in it twice")
    return dict(pairs)


def merge(configs: Iterable[RunConfig]) -> dict[str, RunConfig]:
    """Return configurations by digest; those of one digest become one that asks for all their scores."""
    merged: dict[str, RunConfig] = {}
    for config in configs:
        before = merged.get(config.digest)
        if before is not None and before.metrics != config.metrics:
            config = replace(config, metrics=tuple(dict.fromkeys([*before.metrics, *config.metrics])))
        merged[config.digest] = config
    return merged
