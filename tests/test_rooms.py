"""The rooms of the package: imports point downwards, nothing runs in a circle, no file is long."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the top down: a room imports from itself and from the rooms of later lines.
ORDER = [
    ["__main__", "benchmarks"],
    ["cli"],
    ["studies"],
    ["report"],
    ["runs"],
    ["models", "metrics"],
    ["training"],
    ["scoring"],
    ["networks"],
    ["datasets"],
    ["rendering"],
    ["data"],
    ["claim"],
    ["files"],
    ["progress", "processes", "registry", "arguments", "kept"],
    ["errors", "notebook", "signals", "streams"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MOST_LINES = 400


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for folder in ("dislab", "models", "metrics", "benchmarks"):
        package = "dislab" if folder == "dislab" else f"dislab.{folder}"
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known) -> set[str]:
    """The modules that a file imports anywhere, also inside functions and for type hints."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & known - {"dislab"}


MODULES = modules()
EDGES = {name: imports(path, MODULES.keys()) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[1]


def test_imports_point_downwards():
    upwards = [
        f"{name} imports {other}"
        for name, others in EDGES.items()
        for other in others
        if name != "dislab" and room(name) != room(other) and LEVEL[room(name)] >= LEVEL[room(other)]
    ]
    assert not upwards


def test_there_is_no_circle():
    done, trail = set(), []

    def visit(name: str) -> None:
        assert name not in trail, f"circle: {' > '.join([*trail[trail.index(name) :], name])}"
        if name in done:
            return
        trail.append(name)
        for other in sorted(EDGES[name]):
            visit(other)
        done.add(trail.pop())

    for name in MODULES:
        visit(name)


def test_the_engine_knows_no_metric_and_no_model_by_name():
    """Only the registry imports these, whatever lies in their folders."""
    own = {
        name: others
        for name, others in EDGES.items()
        if room(f"{name}.") not in ("models", "metrics", "benchmarks")
    }
    named = {other for others in own.values() for other in others if room(other) in ("models", "metrics")}
    assert not named
    allowed = {
        "metrics": {"scoring", "data", "registry", "errors", "progress"},
        "models": {"networks", "training", "data", "registry", "errors", "models"},
    }
    outside = [
        f"{name} > {other}"
        for name, others in EDGES.items()
        for other in others
        if room(f"{name}.") in allowed and room(other) not in allowed[room(f"{name}.")]
    ]
    assert not outside, "a metric sees codes alone, no metric imports a metric"


@pytest.mark.parametrize("folder", ["dislab", "models", "metrics", "benchmarks", "tests"])
def test_no_file_is_long(folder):
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert not {
        path: length
        for path, length in lengths.items()
        if length > MOST_LINES and path.parent.name != "rendering"
    }
