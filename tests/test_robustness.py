"""Smoke tests of the commands that show robustness, with very small numbers; the commands do more."""

import subprocess
import sys

PARTS = [
    ["kills", "--kills", "1", "--commands", "evaluate"],
    ["inputs", "--number", "8", "--families", "options,studies,codes,plugins"],
    ["races", "--rounds", "1", "--processes", "2"],
    ["shards", "--rounds", "1", "--processes", "3", "--killed", "1", "--runs", "6"],
]
PROGRAM = f"""
from dislab.benchmarks.robustness.__main__ import main
for arguments in {PARTS}:
    print("part", arguments[0], main(arguments), flush=True)
"""


def test_smoke():
    """A process of its own: the commands become the parent of orphans, and end them."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=900)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    tables = done.stdout
    for name, *_ in PARTS:
        table, ended, tables = tables.partition(f"part {name} 0\n")
        assert ended, said
        heading, *lines = table.splitlines()
        assert len(lines) >= 1 and heading.split()[0] in ("command", "family", "rounds"), said
