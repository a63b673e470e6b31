"""Values of every option of every command, and hyper-parameters of every model."""

from __future__ import annotations

import random
from functools import cache

from dislab.benchmarks.robustness import bars
from dislab.benchmarks.robustness.cases.case import (
    ANY,
    FAILED,
    HOLD_OUTS,
    HUGE,
    NAMES,
    NUMBERS,
    PATHS,
    QUICK,
    REFUSED,
    SEEDS,
    SETTINGS,
    TEXTS,
    Case,
    furnish_paths,
    random_text,
)

# A command that does its work, with options of its own in front.
COMMANDS = {
    ("run",): QUICK[1:],
    ("evaluate",): ["results", "--metrics", "mig", *bars.PLUGINS],
    ("leaderboard",): ["results", *bars.PLUGINS],
    ("bench",): ["study.toml", "--jobs", "1", *bars.TRAINING],
    ("list",): ["metrics", *bars.PLUGINS],
    ("data", "list"): [],
    ("data", "verify"): ["mnist"],
    ("data", "show"): ["bars", *bars.PLUGINS],
}
VALUES = {
    "steps": NUMBERS,
    "batch_size": NUMBERS,
    "jobs": NUMBERS,
    "seed": NUMBERS,
    "seeds": SEEDS,
    "set_": SETTINGS,
    "hold_out": HOLD_OUTS,
    "out": PATHS,
    "data_dir": PATHS,
    "plugin": PATHS,
    "config": PATHS,
    "target": PATHS,
    "results": PATHS,
    "study": PATHS,
    "metrics": NAMES,
    "group_by": (*NAMES, "shape,shape", "shape,", "shap", "size,position,shape"),
}
# What is right is not malformed, and training for ever is right where it is asked for.
ENDLESS = {"steps": ("1" * 5000,), "out": ("/", "//")}
KNOWN = (
    (["run", "--steps", str(2**63)], "steps beyond int64"),
    (["run", "--steps", HUGE], "steps of 400 digits"),
    (["run", "--batch-size", str(2**62)], "a batch beyond all memory"),
    (["run", "--seeds", "0-9999,10000-19999"], "too many seeds in two ranges"),
    (["run", "--set", "group_size=17", "--model", "mlvae"], "a group above the batch"),
    (["run", "--device", "privateuseone"], "a device that torch names"),
    (["run", "--device", "meta"], "a device without numbers"),
    (["run", "--device", "cpu\n"], "a line end in the device"),
    (["run", "--dataset", "a" * 300], "a long name"),
    (["run", "--dataset", "./" + "a" * 300], "a long path"),
    (["run", "--dataset", "/".join(["b" * 200] * 30)], "a path of 6,000 characters"),
    (["run", "--dataset", "x\ny"], "a line end in the dataset"),
    (["run", "--dataset", "a\0b/"], "NUL in a path"),
    (["run", "--model", "v\nae"], "a line end in the model"),
    (["run", "--metrics", "mi\ng"], "a line end in a metric"),
    (["run", "--plugin", "a" * 300], "a long plug-in"),
    (["run", "--config", "a" * 300], "a long configuration"),
    (["run", "--config", "/dev/zero"], "a configuration without end"),
    (["run", "--dataset", "mnist", "--data-dir", "a" * 300], "a long data folder"),
    (["run", "--out", "a" * 300], "a long results folder"),
    (["run", "--out", "/".join(["b" * 200] * 30)], "a results folder of 6,000 characters"),
    (["run", "--out", "file.txt"], "a results folder that is a file"),
    (["run", "--out", "loop"], "a results folder that is a loop"),
    (["evaluate", "a" * 300], "a long target"),
    (["evaluate", "a" * 300 + ".npz"], "a long .npz"),
    (["evaluate", "loop"], "a target that is a loop"),
    (["evaluate", "fifo"], "a target that is a pipe"),
    (["leaderboard", "a" * 300], "a long results folder"),
    (["leaderboard", "loop"], "a results folder that is a loop"),
    (["leaderboard", "file.txt"], "a results folder that is a file"),
    (["leaderboard", "results", "--rank-by", "m\nig"], "a line end in a score"),
    (["bench", "a" * 300], "a long study"),
    (["bench", "loop"], "a study that is a loop"),
    (["bench", "/dev/zero"], "a study without end"),
    (["bench", "x\ny"], "a line end in a study"),
    (["data", "show", "a" * 300], "a long dataset"),
    (["data", "show", "bars", *bars.PLUGINS, "--out", "a" * 300 + ".png"], "a long picture"),
    (["data", "show", "bars", *bars.PLUGINS, "--out", "loop/x.png"], "a picture below a loop"),
    (["data", "show", "bars", *bars.PLUGINS, "--out", "folder.png"], "a picture that is no path to write"),
    (["data", "verify", "x\ny"], "a line end in a dataset"),
    (["data", "fetch", "x\ny"], "a line end in a dataset"),
    (["data", "fetch", "nmist"], "a near miss"),
    (["data", "list", "--data-dir", "a" * 300], "a long data folder"),
    (["data", "list", "--data-dir", "loop"], "a data folder that is a loop"),
    (["list", "modles"], "a near miss"),
    (["lits"], "a near miss of a command"),
    (["run\n"], "a line end in a command"),
    (["--\n"], "a line end in an option"),
    (["run", "--st\neps", "3"], "a line end in an option's name"),
    (["run", "--steps"], "no value"),
)


@cache
def options_of() -> list[tuple[tuple[str, ...], str, str, bool]]:
    """Return each option and argument of each command: the command, its name, how it is written, a flag."""
    import typer

    try:
        from dislab.cli.app import app
    except ImportError:
        from dislab.cli import app

    found = []
    for path in COMMANDS:
        command = typer.main.get_command(app)
        for name in path:
            command = command.commands[name]
        for parameter in command.params:
            if parameter.name != "help":
                written = "" if parameter.param_type_name == "argument" else max(parameter.opts, key=len)
                found.append((path, parameter.name, written, getattr(parameter, "is_flag", False)))
    return found


def known(draw: random.Random, number: int) -> Case:
    """Cases that were answered by a traceback once; all are refused, and nothing is written."""
    arguments, about = KNOWN[number % len(KNOWN)]
    if arguments[0] == "run":
        arguments = [*QUICK, *arguments[1:]]

    def prepare(folder) -> None:
        furnish_paths(folder)
        (folder / "folder.png").mkdir()

    expect = (REFUSED, FAILED) if ".png" in arguments[-1] else (REFUSED,)
    return Case(arguments, expect, prepare, about, needs_runs=arguments[0] == "leaderboard")


def options(draw: random.Random, number: int) -> Case:
    """An odd value of one option, in turn over all options of all commands."""
    everything = options_of()
    command, name, written, is_flag = everything[number % len(everything)]
    pool = VALUES.get(name, TEXTS) if draw.random() < 0.75 else TEXTS
    value = draw.choice(pool) if draw.random() < 0.8 else random_text(draw)
    if value in ENDLESS.get(name, ()) or (
        name == "steps" and value.strip().isdecimal() and len(value.strip()) > 3
    ):
        value = "-1"
    rest = list(COMMANDS[command])
    if is_flag or written:
        arguments = [*command, *rest, f"{written}={value}"]
    else:
        arguments = [*command, *rest[1:], "--", value]
    return Case(
        arguments,
        ANY,
        furnish_paths,
        f"{' '.join(command)} {written or name}",
        writes=name == "out" or "show" in command,
        needs_runs=command[0] in ("evaluate", "leaderboard"),
    )


def hyperparameters(draw: random.Random, number: int) -> Case:
    """An odd value of a hyper-parameter of a model, in turn over all models."""
    from dislab.registry import MODELS
    from dislab.runs.hyperparameters import defaults

    pairs = [(entry.name, name) for entry in MODELS for name in defaults(entry.make)]
    model, name = pairs[number % len(pairs)]
    value = draw.choice((*NUMBERS, *NAMES)) if draw.random() < 0.8 else random_text(draw)
    network = ["--set", "network=mlp"] if "network" in defaults(MODELS[model].make) else []
    base = ["--dataset", "bars", "--batch-size", "16", "--metrics", "mig", *bars.TRAINING]
    steps = [] if MODELS[model].make.supervision == "none" else ["--steps", "2"]
    return Case(
        ["run", "--model", model, *steps, *network, *base, "--set", f"{name}={value}"], ANY, about=name
    )
