"""How a report was made: command, versions, protocols, machine, and the commands that repeat its runs."""

from __future__ import annotations

import shlex
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import dislab
from dislab.report.html.rows import Row, Table
from dislab.report.names import counted
from dislab.report.published import published
from dislab.runs.config import MEMORY, RunConfig
from dislab.scoring.protocols import protocol_of


def provenance(tables: Sequence[Table], folder: Path, command: str) -> dict:
    """Return what stands at the end of every page."""
    rows = list({id(row): row for table in tables for row in table.rows}.values())
    runs = [run for row in rows for run in row.runs]
    environments = Counter(_machine(run.record["environment"]) for run in runs)
    versions = sorted({run.record["environment"].get("dislab", "") for run in runs})
    protocols = Counter(protocol_of(score) for run in runs for score in run.record["metrics"])
    table = published()
    sources = counted(table["source_title"].nunique(), "source")
    names = ", ".join(sorted(protocols, key=protocols.get, reverse=True))
    state = commit()
    return {
        "command": command,
        "version": f"dislab {dislab.__version__}" + (f", {state}" if state else ""),
        "runs_by": f"runs of dislab {', '.join(versions)}",
        "results": f"{folder}: {counted(len(runs), 'run')} in {counted(len(rows), 'row')}",
        "published": f"{counted(len(table), 'value')} from {sources}, each named beside its value",
        "scores": f"protocol {names}; ± is one standard deviation over seeds (n − 1); intervals are 95 % "
        "(Student t) over seeds, clipped to the score's range; rows are told apart by Welch's test at 5 %",
        "machines": [f"{text} ({counted(n, 'run')})" for text, n in environments.most_common()],
        "rebuild": [(row, line) for row, line in ((row, repeat(row)) for row in rows) if line],
    }


def _machine(environment: dict) -> str:
    parts = [environment.get("device", ""), counted(environment.get("threads", 1), "thread")]
    parts += [environment.get("system", ""), f"Python {environment.get('python', '?')}"]
    parts += [f"torch {environment.get('torch', '?')}", environment.get("precision", "")]
    return ", ".join(part for part in parts if part)


def repeat(row: Row) -> str:
    """Return the command that makes the runs of a row again; "" for images or codes of other programs."""
    config: RunConfig = row.config
    protocol, _, changes = config.protocol.name.partition("+")
    if config.own_images == MEMORY or row.is_external:
        return ""
    words = ["dislab", "run", "--model", config.model, "--dataset", config.own_images or config.dataset]
    words += ["--factors", config.own_factors] if config.own_factors else []
    words += ["--protocol", protocol]
    for change in filter(None, changes.split("+")):
        name, _, value = change.partition("=")
        words += [f"--{name.replace('_', '-')}", value]
    words += ["--seeds", ",".join(map(str, row.seeds))]
    for name, value in config.changed.items():
        words += ["--set", f"{name}={value}"]
    for names in config.group_by:
        words += ["--group-by", ",".join(names)]
    for text in config.hold_out:
        words += ["--hold-out", text]
    source = config.source.partition("-")[0].partition(" ")[0]
    words += ["--source", source] if source in ("official", "rendered") else []
    words += [] if config.precision == "usual" else ["--precision", config.precision]
    return shlex.join(words)


def commit() -> str:
    """Return the commit of dislab's own repository and whether files differ from it; "" outside of one."""
    home = Path(dislab.__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(home), *arguments], capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if Path(git("rev-parse", "--show-toplevel") or "/") != home.resolve():
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no")
        return f"commit {git('rev-parse', '--short', 'HEAD')}" + (", with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):  # no git here
        return ""
