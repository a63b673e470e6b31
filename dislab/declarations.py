"""What models, datasets and metrics declare of themselves, read from their source without importing it.

Importing takes seconds, as it imports torch and scikit-learn. What `dislab list` shows stands in decorators
and in the models' constructors, mostly as literals, and is read from there. Where it is not (a value is
computed, a plug-in is loaded, an installed package registers more), all is imported.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import pkgutil
from functools import cached_property, lru_cache
from pathlib import Path

from dislab import hyperparameters, registry
from dislab.registry import Entry, Registry

REGISTER = {
    "model": registry.register_model,
    "dataset": registry.register_dataset,
    "metric": registry.register_metric,
}
# Bases without hyper-parameters of their own.
TORCH_MODULES = ("nn.Module", "torch.nn.Module")


class NotLiteral(Exception):
    """What a source file declares cannot be told without running it."""


def declared(entries: Registry) -> list[tuple[Entry, dict[str, object]]]:
    """Every entry by name, with its hyper-parameters and their defaults ({} but for models).

    `make` of an entry may be None: it is for showing only.
    """
    if not entries.has_entries() and not importlib.metadata.entry_points(group=entries.package):
        try:
            return read_from_source(entries)
        except (NotLiteral, SyntaxError, OSError, RecursionError):
            pass
    return imported(entries)


def imported(entries: Registry) -> list[tuple[Entry, dict[str, object]]]:
    """As `declared`, of what the registry has when all is imported."""
    is_model = entries.kind == "model"
    return [(entry, hyperparameters.defaults(entry.make) if is_model else {}) for entry in entries]


def read_from_source(entries: Registry) -> list[tuple[Entry, dict[str, object]]]:
    """As `declared`, of the built-in files. Raises NotLiteral, or SyntaxError, where they must be run."""
    found = {}
    for info in pkgutil.iter_modules(importlib.util.find_spec(entries.package).submodule_search_locations):
        source = _source(f"{entries.package}.{info.name}")
        if b"register" not in source.text:  # most files beside the datasets
            continue
        for entry, node in _entries_in(source, entries.kind):
            if entry.name in found:
                raise NotLiteral(f"{entry.name} is registered twice")
            found[entry.name] = entry, _defaults(source, node) if entries.kind == "model" else {}
    return [found[name] for name in sorted(found)]


class _Source:
    """A module's source: its tree, and what its top-level names stand for."""

    def __init__(self, path: Path):
        self.text = path.read_bytes()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """What `from module import name` gives: the name here -> (module, name there)."""
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and not node.level
            for alias in node.names
        }

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """The values of names that are given one once in the whole file, at its top level."""
        names = [
            node.id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name) and type(node.ctx) is ast.Store
        ]
        return {
            node.targets[0].id: node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            and names.count(node.targets[0].id) == 1
        }

    def value(self, node: ast.expr) -> object:
        """The value of a literal, which may have constants of the file in it."""
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.value(self.constants[node.id])
        if isinstance(node, ast.JoinedStr):
            return "".join(str(self.value(part)) for part in node.values)
        if isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
            return self.value(node.value)
        if isinstance(node, (ast.Tuple, ast.List)):
            values = [self.value(part) for part in node.elts]
            return tuple(values) if isinstance(node, ast.Tuple) else values
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError):
            raise NotLiteral(ast.unparse(node)) from None


@lru_cache
def _source(module: str) -> _Source:
    spec = importlib.util.find_spec(module)
    if spec is None or not (spec.origin or "").endswith(".py") or spec.submodule_search_locations:
        raise NotLiteral(f"{module} is not a file")
    return _Source(Path(spec.origin))


def _entries_in(source: _Source, kind: str) -> list[tuple[Entry, ast.AST]]:
    """What a file registers, each with its class or function."""
    register = REGISTER[kind]
    found = []
    for node in source.tree.body:
        for call in getattr(node, "decorator_list", []):
            if not isinstance(call, ast.Call) or ast.unparse(call.func).split(".")[-1] != register.__name__:
                continue
            arguments = [source.value(argument) for argument in call.args]
            named = {keyword.arg: source.value(keyword.value) for keyword in call.keywords}
            try:
                register(*arguments, **named)  # it checks them; without a function nothing is registered yet
                bound = inspect.signature(register).bind(*arguments, **named)
            except Exception as error:  # importing the file says what is wrong
                raise NotLiteral(str(error)) from None
            bound.apply_defaults()
            given = bound.arguments
            if given["title"] is None:
                _check_decorators(node, register.__name__)  # another one may change the docstring
                document = (ast.get_docstring(node, clean=False) or "").strip()
                given["title"] = document.splitlines()[0] if document else ""
            if "needs" in given:
                given["needs"] = tuple(given["needs"])
            found.append((Entry(make=None, **given), node))
    # A call elsewhere (in a loop, under another name, of a registry itself) is told by running it alone.
    # Where the text has the name in its import and its decorators only, there is none.
    name = register.__name__
    plain = source.text.count(name.encode()) == len(found) + 1 and f"import {name}\n".encode() in source.text
    if plain and b".register" not in source.text:
        return found
    if sum(_names(node, name) for node in ast.walk(source.tree)) != len(found):
        raise NotLiteral(f"{name} is called where it is no decorator")
    return found


def _names(node: ast.AST, register: str) -> bool:
    """Whether a node of a tree is a use of the function that registers, but for its plain import."""
    if isinstance(node, ast.Attribute):
        return node.attr in (register, "register")
    if isinstance(node, ast.alias):
        return node.name == register and node.asname is not None
    return isinstance(node, ast.Name) and node.id == register


def _check_decorators(node: ast.AST, register: str) -> None:
    for one in node.decorator_list:
        if not isinstance(one, ast.Call) or ast.unparse(one.func).split(".")[-1] != register:
            raise NotLiteral(f"{node.name} has another decorator")


def _defaults(source: _Source, model: ast.AST) -> dict[str, object]:
    """What `hyperparameters.defaults` gives for a class, of its source."""
    found: dict[str, object] = {}
    while True:
        if not isinstance(model, ast.ClassDef):
            raise NotLiteral("a model that is no class")
        _check_decorators(model, "register_model")
        inits = [node for node in ast.walk(model) if getattr(node, "name", "") == "__init__"]
        if inits:
            if len(inits) > 1 or inits[0] not in model.body or inits[0].decorator_list:
                raise NotLiteral(f"{model.name} has several constructors")
            arguments = inits[0].args
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
                if default is None:
                    raise NotLiteral(f"{model.name}: {argument.arg} has no default")
                found.setdefault(argument.arg, source.value(default))
            if arguments.kwarg is None:
                return found
        if len(model.bases) != 1 or model.keywords:
            raise NotLiteral(f"{model.name} has several bases")
        base = ast.unparse(model.bases[0])
        if base in TORCH_MODULES:
            return found
        while base in source.imports:
            module, base = source.imports[base]
            source = _source(module)
        if base not in source.classes:
            raise NotLiteral(f"{model.name} has a base that is not found")
        model = source.classes[base]
