"""Show that nothing is lost, and that every failure is one line.

    python -m dislab.benchmarks.robustness kills  [--kills 200] [--seed 0]
    python -m dislab.benchmarks.robustness inputs [--number 1000] [--seed 0] [--only FAMILY:NUMBER]
    python -m dislab.benchmarks.robustness races  [--processes 8] [--rounds 30] [--seed 0]
    python -m dislab.benchmarks.robustness shards [--processes 8] [--killed 3] [--rounds 4] [--seed 0]

`kills` stops commands at random moments, and holds what they leave after another try against what an
undisturbed command leaves. `inputs` gives malformed input to every command. `races` starts several processes
on one results folder at the same moment. `shards` kills some of the processes that do one study. Each prints
a table, and its exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

PARTS = ("kills", "inputs", "races", "shards")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dislab.benchmarks.robustness",
        description="Nothing lost, and every failure one line: kills, malformed inputs, races, shards.",
    )
    parts = parser.add_subparsers(dest="part", required=True)
    modules = {name: importlib.import_module(f"dislab.benchmarks.robustness.{name}") for name in PARTS}
    for name, module in modules.items():
        part = parts.add_parser(name, help=module.__doc__.partition("\n")[0])
        part.add_argument("--seed", type=int, default=0, help="what is random follows from it (0)")
        part.add_argument("--out", type=Path, help="keep the folders of what went wrong here")
        module.add_options(part)
    options = parser.parse_args(arguments)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dislab-robustness-", ignore_cleanup_errors=True) as scratch:
        return modules[options.part].show(options, Path(scratch))


if __name__ == "__main__":
    sys.exit(main())
