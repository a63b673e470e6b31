"""Registries of models, networks, datasets and metrics: built-in, installed, and in plug-in files."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from dislab.errors import DislabError, line_within, said_by


def unknown_name(kind: str, name: str, known: Iterable[str]) -> DislabError:
    """Return the error for a name that is not known. It offers the nearest known name, or lists all."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if nearest:
        return DislabError(f"unknown {kind} '{name}': did you mean '{nearest[0]}'?")
    return DislabError(f"unknown {kind} '{name}': known are {', '.join(known) or 'none'}")


Made = TypeVar("Made", bound=Callable)  # a class or function that is registered; it stays what it is
NAME = re.compile(r"[\w-]{1,100}")  # of what is registered; it becomes part of file names
RESERVED = ("default", "auto")  # names that stand for others

# What a metric may need of a code table, and the reason that is shown if the table lacks it.
NEEDS = {
    "grid": "it needs the full grid of factors",
    "factor": "it needs a factor that varies",
    "two factors": "it needs at least two factors that vary",
    "quantities": "it needs a factor that varies",  # whose values may be real numbers
    "variances": "it needs the log-variances of q(z|x)",
    "reconstruction": "it needs the reconstruction errors of a model with a decoder",
    "swaps": "it needs swapped images: a run decodes them with a model of content and style",
    "circle": "it needs a circular factor",
    "viewpoint": "it needs azimuth and elevation in whole degrees, as pascal3d_car has them",
    "groups": "it needs at least two groups (see group_by) of at least 4 rows each",
    "matrices": "it needs at least three factors, each of three values or more, and 4 rows for each "
    "combination of three of them",
}


@dataclass(frozen=True)
class Entry:
    """A registered model, network, dataset or metric; `register_metric` and its like describe the fields."""

    name: str
    make: Callable
    title: str = ""
    reference: str = ""
    low: float | None = None
    high: float | None = None
    direction: str = ""
    needs: tuple[str, ...] = ()
    slow: bool | Callable = False
    group: str = ""
    official: object = None
    digest: str = ""  # of the text of the file that defines it, "" where there is no text

    @property
    def about(self) -> dict[str, str]:
        """What a record says of a metric: its direction, and a digest of what computed the score."""
        return {"direction": self.direction, "digest": self.digest}


class Registry:
    """Entries by name. Built-in modules and installed packages are imported at the first look-up.

    An installed package joins through an entry point of the group `package`, such as dislab.models, that
    names a module. Importing the module registers what it defines.
    """

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(self, name: str, *, title: str | None = None, **metadata) -> Callable[[Made], Made]:
        """Return a decorator that adds a class or function; raise if another file has registered the name."""

        if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED:
            raise DislabError(f"{self.kind} name {name!r}: write letters, digits, _ and -, at most 100")
        for what, text in (("title", title), ("reference", metadata.get("reference"))):
            if not (text is None or (isinstance(text, str) and "\n" not in text)):
                raise DislabError(f"{self.kind} '{name}': {what} is {text!r}: it must be a line of text")

        def add(make: Made) -> Made:
            if not callable(make):
                raise DislabError(f"{self.kind} '{name}' is {make!r}, which is no class or function")
            before = self._entries.get(name)
            if before is not None and _origin(before.make) != _origin(make):
                raise DislabError(
                    f"{self.kind} '{name}' is registered twice: {_origin(before.make)}, {_origin(make)}"
                )
            first_line = (make.__doc__ or "").strip().partition("\n")[0]
            title_ = first_line if title is None else title
            self._entries[name] = Entry(name, make, title_, digest=_digest(make), **metadata)
            return make

        return add

    def __getitem__(self, name: str) -> Entry:
        self._load()
        if name not in self._entries:
            raise unknown_name(self.kind, name, sorted(self._entries))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def choose(self, names: Iterable[str]) -> list[Entry]:
        """Return the named entries. A group's name, such as dci, stands for all that share its function."""
        chosen = {}
        for name in [names] if isinstance(names, str) else names:
            makes = [entry.make for entry in self if name and entry.group == name]
            for entry in [entry for entry in self if entry.make in makes] or [self[name]]:
                chosen[entry.name] = entry
        return list(chosen.values())

    def default(self) -> list[Entry]:
        """Return the entries that are used if none is named: all but those that are always slow."""
        return [entry for entry in self if entry.slow is not True]

    def names_of(self, make: Callable) -> list[str]:
        """Return the sorted names under which a class or function is registered."""
        return [entry.name for entry in self if entry.make is make]

    def is_built_in(self, name: str) -> bool:
        """Return whether a name is one of dislab's own entries."""
        return name in self and self[name].make.__module__.startswith(f"{self.package}.")

    def is_known_elsewhere(self, name: str) -> bool:
        """Return whether a process that loads the same plug-in files knows an entry.

        It does not know what the running program registers otherwise.
        """
        module = self[name].make.__module__
        points = importlib.metadata.entry_points(group=self.package)
        packages = {"dislab", *(point.module.partition(".")[0] for point in points)}
        return module.partition(".")[0] in packages or module.startswith(PLUGIN_MODULE)

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in importlib.metadata.entry_points(group=self.package):
            try:
                point.load()
            except DislabError:
                raise
            except Exception as error:
                raise DislabError(
                    f"the installed plug-in '{point.value}' does not import: {error}"
                ) from error
        self._loaded = True


PLUGIN_MODULE = "dislab_plugin_"  # begins the name of the module that a plug-in file becomes


def _origin(make: Callable) -> str:
    """Return the name and file of a class or function. Loading a file again may replace its own entries."""
    make = inspect.unwrap(make)
    name = getattr(make, "__qualname__", type(make).__qualname__)
    code = getattr(make, "__code__", None) or getattr(getattr(make, "__init__", None), "__code__", None)
    file = code.co_filename if code else getattr(sys.modules.get(make.__module__), "__file__", None)
    # The cells of a notebook are one origin, so that an edited cell replaces what it defined before.
    return f"{name} in {file if file and Path(file).is_file() else make.__module__}"


def _digest(make: Callable) -> str:
    """Return 8 hex digits for the text of the file, or of the notebook's cell, that defines it."""
    make = inspect.unwrap(make)
    try:
        text = Path(inspect.getsourcefile(make)).read_bytes()
    except (OSError, TypeError):
        try:
            text = inspect.getsource(make).encode()
        except (OSError, TypeError):  # it was typed in, or is compiled
            return ""
    return digest_of(text)


def digest_of(text: bytes) -> str:
    """Return 8 hex digits for a text, whatever its line ends."""
    return hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()[:8]


MODELS = Registry("model", "dislab.models")
NETWORKS = Registry("network", "dislab.networks")
DATASETS = Registry("dataset", "dislab.datasets")
METRICS = Registry("metric", "dislab.metrics")
plugin_files: dict[Path, ModuleType] = {}  # loaded so far; worker processes load them too


@contextmanager
def isolated() -> Iterator[None]:
    """Forget afterwards what is registered within the block, and which plug-in files it loads."""
    registries = (MODELS, NETWORKS, DATASETS, METRICS)
    before = [{entry.name: entry for entry in registry} for registry in registries]
    files = dict(plugin_files)
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry._entries = entries
        plugin_files.clear()
        plugin_files.update(files)


def register_model(name: str, *, title: str | None = None, reference: str = "") -> Callable[[Made], Made]:
    """Register a model class: a torch.nn.Module that follows `dislab.training.model.Model`.

    Its constructor takes the image shape (C, H, W), and hyper-parameters as keyword-only arguments with
    defaults. `dislab run --set name=value` is checked against them.
    """
    return MODELS.register(name, title=title, reference=reference)


def register_network(name: str, *, title: str | None = None, reference: str = "") -> Callable[[Made], Made]:
    """Register a network: a function of (image_shape, outputs, latents, channels).

    It returns an encoder of images [B, C, H, W] to [B, outputs], and a decoder of codes [B, latents] to
    [B, channels, H, W]. Models take its name as `network`.
    """
    return NETWORKS.register(name, title=title, reference=reference)


def register_dataset(
    name: str, *, title: str | None = None, reference: str = "", official: object = None
) -> Callable[[Made], Made]:
    """Register a dataset: a function of (source, data_dir, device) that returns a `dislab.Dataset`.

    `official` holds its published files, a `dislab.data.official.OfficialDataset`; None if it has none.
    """
    return DATASETS.register(name, title=title, reference=reference, official=official)


def register_metric(
    name: str,
    *,
    title: str | None = None,
    reference: str = "",
    low: float | None = None,
    high: float | None = None,
    direction: str = "up",
    needs: Iterable[str] = (),
    slow: bool | Callable = False,
    group: str = "",
) -> Callable[[Made], Made]:
    """Register a metric: a function of (table, rng), a `dislab.CodeTable` and a numpy Generator.

    It returns a float, or a mapping with a value under its own name (and any related ones, such as a curve
    over k as a list). Several names may share one function by stacking decorators: it is then called once.
    Keyword arguments of the function with defaults are its protocol (`num_train=10_000`), which
    `dislab.evaluate` can change.

    Parameters
    ----------
    name : the score's name in tables.
    title, reference : one line each; without a title the docstring's first line is taken.
    low, high : the range of the score, None if it has no bound.
    direction : "up" or "down" is better, "" if neither is.
    needs : a selection of "grid", "factor", "two factors", "quantities", "groups", "variances",
        "reconstruction", "swaps", "circle", "viewpoint", "matrices". "quantities" stands for factors that
        need not be whole numbers.
        For a table that lacks one of them the metric is left out, and a line says why. A run that names such
        a metric is refused before it trains. A table in which no "factor" varies is left to the metric, which
        raises DislabError.
    slow : compute it only when it is named, not by default: always, or for the tables for which a function
        of a table returns True.
    group : a name for all scores of the function, such as dci; it is passed with one of them.
    """
    if not isinstance(needs, Iterable):
        raise DislabError(f"metric '{name}': needs is {needs!r}: choose of {', '.join(NEEDS)}")
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    for need in needs:
        if need not in NEEDS:
            raise unknown_name(f"need of metric '{name}'", need, NEEDS)
    if direction not in ("up", "down", ""):
        raise DislabError(f"metric '{name}': direction is {direction!r}: choose 'up', 'down' or ''")
    if not all(bound is None or isinstance(bound, int | float) for bound in (low, high)):
        raise DislabError(f"metric '{name}': low is {low!r}, high {high!r}: each must be a number or None")
    if not isinstance(group, str) or not (isinstance(slow, bool) or callable(slow)):
        raise DislabError(f"metric '{name}': group is {group!r}, slow {slow!r}: a text, and True or False")
    if any(group == entry for entry in METRICS._entries):
        raise DislabError(f"metric '{name}': its group '{group}' is the name of a metric: choose another")
    metadata = {"title": title, "reference": reference, "low": low, "high": high, "direction": direction}
    add = METRICS.register(name, **metadata, needs=needs, slow=slow, group=group)

    def checked(function: Made) -> Made:
        try:
            arguments = inspect.signature(function)
            arguments.bind("table", "rng")
            if isinstance(function, type):
                raise TypeError
        except (TypeError, ValueError):
            raise DislabError(
                f"metric '{name}' must be a function of (table, rng, *, settings with defaults)"
            ) from None
        if "scale" in arguments.parameters:
            raise DislabError(f"metric '{name}': scale is a setting of every metric: choose another name")
        return add(function)

    return checked


def load_plugin(path: str | Path) -> None:
    """Import a plug-in file, so that the names it registers are known."""
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for a name that is too long)
        raise DislabError(f"plug-in file '{path}' does not exist, or is no file")
    resolved, folder = path.resolve(), Path.cwd()
    name = f"{PLUGIN_MODULE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise DislabError(f"plug-in '{path}' is not a Python file (.py)")
    try:
        digest = digest_of(resolved.read_bytes())
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code of others may raise anything
        sys.modules.pop(name, None)
        line = line_within(error, spec.origin)
        source = f"{path}, line {line}" if line else f"{path}"
        is_ours = isinstance(error, DislabError)
        words = said_by(error, with_type=not is_ours)
        raise DislabError(f"plug-in {source}{': ' if is_ours else ' does not import: '}{words}") from error
    finally:
        os.chdir(folder)  # paths that the user wrote are of this folder
    module.__digest__, plugin_files[resolved] = digest, module
