"""Smoke tests of the commands that show robustness, with very small numbers; the commands do more."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ["kills", "--kills", "1", "--commands", "evaluate"],
        ["inputs", "--number", "8", "--families", "options,studies,codes,plugins"],
        ["races", "--rounds", "1", "--processes", "2"],
        ["shards", "--rounds", "1", "--processes", "3", "--killed", "1", "--runs", "6"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_smoke(arguments):
    """A process of its own: the commands become the parent of orphans, and end them."""
    command = [sys.executable, "-m", "dislab.benchmarks.robustness", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    heading, *lines = done.stdout.splitlines()
    assert len(lines) >= 1 and heading.split()[0] in ("command", "family", "rounds")
