"""Give malformed input to every command: each must be answered by one line, and by the right exit code.

Every case runs in a process of its own, with at most 8 GB of address space and 60 seconds. It is wrong if
there is a traceback, no line or more than one line of error, a control character in a message, another exit
code than expected, a file outside the results folder, a changed file of the user's, or a wrong score.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

from dislab.benchmarks.robustness import bars, contents
from dislab.benchmarks.robustness.cases import arrays, options, pictures, plugins, results, texts
from dislab.benchmarks.robustness.cases.case import DONE, REFUSED, Case
from dislab.benchmarks.robustness.commands import Command, check_done, prepare, reap
from dislab.benchmarks.robustness.moments import Changes
from dislab.cli.tables import print_table
from dislab.errors import DislabWarning
from dislab.progress import Bar

FAMILIES = {  # generator, and the part of the cases
    "known": (options.known, 5),
    "options": (options.options, 24),
    "hyperparameters": (options.hyperparameters, 7),
    "studies": (texts.studies, 15),
    "configurations": (texts.configurations, 10),
    "pipes": (texts.pipes, 1),
    "results": (results.results, 12),
    "codes": (arrays.codes, 11),
    "official": (pictures.official, 6),
    "folders": (pictures.folders, 4),
    "plugins": (plugins.plugins, 19),
}
SECONDS = 60
BYTES = 8 * 2**30
PROBLEMS = ("tracebacks", "lines", "exit codes", "hangs", "memory", "files", "scores")
OURS = ("work/results", "cache", "tmp")  # where commands may write


def add_options(part: argparse.ArgumentParser) -> None:
    part.add_argument("--number", type=int, default=1000, help="cases (1000)")
    part.add_argument("--families", default=",".join(FAMILIES), help="names with commas")
    part.add_argument("--only", help="one case, FAMILY:NUMBER; what it says is shown")


def show(options, scratch: Path) -> int:
    prepare()
    make_runs(scratch)
    if options.only:
        family, _, number = options.only.partition(":")
        return tell(family, int(number), options, scratch)
    chosen = {name: FAMILIES[name] for name in options.families.split(",")}
    whole = sum(part for _, part in chosen.values())
    counts: dict[str, Counter] = {name: Counter() for name in chosen}
    peak = 0
    todo = [
        (name, number)
        for name, (_, part) in chosen.items()
        for number in range(-(-options.number * part // whole))
    ]
    with Bar("inputs", len(todo)) as bar:
        for done, (family, number) in enumerate(todo, start=1):
            problems, command, case = carry_out(family, number, options.seed, scratch)
            peak = max(peak, command.usage.ru_maxrss)
            counts[family]["cases"] += 1
            counts[family]["right"] += not problems
            counts[family].update(kind for kind, _ in problems)
            for kind, text in problems:
                print(f"{family}:{number} ({case.about!a}) {kind}: {text}", flush=True)
            bar.update(done, family)
    counts["all"] = sum(counts.values(), Counter())
    columns = ("cases", "right", *PROBLEMS)
    lines = [(name, *(str(count[key]) for key in columns)) for name, count in counts.items()]
    print_table([("family", *columns), *lines])
    print(f"peak memory of a case: {peak / 2**20:.2f} GB")
    return int(counts["all"]["cases"] != counts["all"]["right"])


def tell(family: str, number: int, options, scratch: Path) -> int:
    """Do one case, and show all of it."""
    problems, command, case = carry_out(family, number, options.seed, scratch, options.out)
    print(f"{family}:{number} {case.about!a}\ndislab {ascii(' '.join(command.arguments))[:2000]}")
    print(f"exit code {command.code}, expected {' or '.join(map(str, case.expect))}")
    print(ascii(command.messages())[1:-1].replace("\\n", "\n")[-5000:])
    for kind, text in problems:
        print(f"{kind}: {text}")
    return int(bool(problems))


def make_runs(scratch: Path) -> None:
    """Make the finished runs that cases damage, and one that was interrupted."""
    folder = bars.furnish(scratch / "runs")

    def let_go(arguments: list[str], expected: int = 0, before=lambda: None) -> None:
        command = Command(arguments, folder, scratch / "log", before=before, environment=bars.places(scratch))
        if expected:
            command.wait(SECONDS)
        else:
            check_done(command, SECONDS)

    def stop_after_checkpoint() -> None:
        Changes(folder, lambda number, path: is_there() and os.kill(os.getpid(), signal.SIGKILL))

    def is_there() -> bool:
        return any(folder.glob("results/*/*/*/*/checkpoint.safetensors"))

    let_go([*results.MAKE, "--seeds", f"{results.INTERRUPTED}"], -9, stop_after_checkpoint)
    let_go([*results.MAKE, "--seeds", "0-2"])
    shutil.copytree(folder, scratch / "all")
    folder = scratch / "all"
    let_go(["evaluate", "results", "--metrics", "sap,irs", *bars.PLUGINS])
    let_go([*results.MAKE, "--seeds", f"{results.INTERRUPTED}"])
    results.remember(folder, scratch / "runs")


def carry_out(family: str, number: int, seed: int, scratch: Path, keep: Path | None = None):
    """Do a case; return its problems, its command, and the case."""
    make, _ = FAMILIES[family]
    case: Case = make(random.Random(f"{seed} {family} {number}"), number)
    sandbox = scratch / "sandbox"
    work = sandbox / "work"
    sandbox.mkdir()
    bars.furnish(work)
    if case.needs_runs:
        shutil.copytree(scratch / "runs" / "results", work / "results")
        shutil.copy(scratch / "runs" / "expected.json", work)
    case.prepare(work)
    places = bars.places(sandbox) | {"DISLAB_DATA": ""} | (case.environment or {})
    before = snapshot(sandbox)
    remarks = scratch / "remarks"
    remarks.write_text("")
    arguments = results.with_row(case.arguments, work)
    command = Command(arguments, work, scratch / "log", before=lambda: limit(remarks), environment=places)
    problems = []
    if not command.wait(SECONDS):
        for process in command.family():
            os.kill(process, signal.SIGKILL)
        command.wait(SECONDS)
        problems.append(("hangs", f"more than {SECONDS} s"))
    else:
        problems += wrong_answer(command, case, remarks)
        problems += wrong_files(before, snapshot(sandbox), case, command.code)
        if case.check is not None and command.code >= 0:
            printed = command.printed.read_text(errors="replace")
            if problem := case.check(work, command.code, printed, command.messages()):
                problems.append(("scores", problem))
    reap(5)
    if keep is not None:
        shutil.copytree(sandbox, keep / f"{family}-{number}", symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(sandbox)
    return problems, command, case


def limit(remarks: Path) -> None:
    """Limit this process's memory, and note the remarks that it shows, which are no errors."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warn = warnings.warn

    def noting(message, category=None, stacklevel=1, *others, **named) -> None:
        if category is not None and issubclass(category, DislabWarning):
            with remarks.open("a") as file:
                file.write(f"dislab: {' '.join(str(message).split())}\n")
        warn(message, category, stacklevel + 1, *others, **named)

    warnings.warn = noting


def wrong_answer(command: Command, case: Case, remarks: Path) -> list[tuple[str, str]]:
    """Return what is wrong with the messages and the exit code."""
    problems, text = [], command.messages()
    lines = text.split("\n")
    known = remarks.read_text().splitlines()
    errors = [line for line in lines if line.startswith("dislab: ") and " ".join(line.split()) not in known]
    last = ascii(lines[-2] if len(lines) > 1 else text)[1:-1][:300]
    if command.has_traceback() or "DISLAB_TRACEBACK" in text:  # an error that nobody expected
        problems.append(("tracebacks", last))
    if command.code not in case.expect:
        wanted = " or ".join(map(str, case.expect))
        problems.append(("exit codes", f"{command.code}, expected {wanted}: {last}"))
    if command.code < 0:
        problems.append(("memory", f"ended by the signal {signal.Signals(-command.code).name}"))
    if command.code > 0 and len(errors) != 1 and not command.has_traceback():
        problems.append(("lines", f"{len(errors)} lines of error: {last}"))
    if odd := sorted({one for one in text if unicodedata.category(one) == "Cc"} - {"\n"}):
        line = next(line for line in lines if set(odd) & set(line))
        problems.append(("lines", f"the character {odd[0]!a} in {ascii(line)[:200]}"))
    if any(len(line) > 5000 for line in lines):
        problems.append(("lines", f"a line of {max(map(len, lines))} characters"))
    return problems


def snapshot(folder: Path) -> dict[str, tuple]:
    """Return what lies below a folder, with what tells whether it was changed."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            status = path.lstat()
            is_folder = path.is_dir() and not path.is_symlink()
            about = () if is_folder else (status.st_size, status.st_mtime_ns, status.st_ino)
            found[path.relative_to(folder).as_posix()] = about
    return found


def wrong_files(before: dict, after: dict, case: Case, code: int) -> list[tuple[str, str]]:
    """Return what was written outside the results folder, or written at all by a command that was refused."""
    problems = []
    changed = [name for name, about in after.items() if before.get(name) != about]
    gone = [name for name in before if name not in after]
    left = [
        name for name in changed if contents.LEFT_OVER.search(name.rpartition("/")[2]) and name not in before
    ]
    if code != DONE:  # a run that failed goes on from its checkpoint
        left = [name for name in left if not name.endswith("checkpoint.safetensors")]
    problems += [("files", f"left over: {name}") for name in left]
    refused = code == REFUSED and not case.needs_runs
    allowed = ("cache", "tmp") if refused else OURS
    if case.writes and not refused:
        return problems
    for name in [*changed, *gone]:
        if not name.startswith(allowed) and name not in left:
            problems.append(("files", f"{'changed or written' if name in after else 'deleted'}: {name!a}"))
    problems += [("files", f"written: /{path.name}") for path in Path("/").glob("*evil*")]
    return problems
