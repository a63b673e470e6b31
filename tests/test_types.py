"""Type checkers see what dislab exports: a stub with the public names, and functions with types."""

import ast
import configparser
import inspect
from pathlib import Path

import pytest

import dislab

ROOT = Path(__file__).parent.parent
FUNCTIONS = [name for name in dislab.__all__ if inspect.isfunction(getattr(dislab, name))]


def test_the_stub_has_every_public_name_from_its_module():
    tree = ast.parse((ROOT / "dislab" / "__init__.pyi").read_text())
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    # "import x as x" is what makes a name public in a stub.
    named = {alias.asname: node.module for node in imported for alias in node.names}
    assert named == dislab._HOME


def test_the_stub_and_the_mark_of_types_are_installed():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["options.package_data"]["dislab"].split(", ")
    shipped = {path.name for pattern in patterns for path in (ROOT / "dislab").glob(pattern)}
    assert shipped == {"py.typed", "__init__.pyi"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_typed(name):
    signature = inspect.signature(getattr(dislab, name))
    untyped = [one.name for one in signature.parameters.values() if one.annotation is one.empty]
    assert not untyped and signature.return_annotation is not signature.empty
