"""Study files in TOML and configurations in JSON: values of wrong types, cut and damaged texts, giants."""

from __future__ import annotations

import copy
import json
import os
import random
from pathlib import Path

from dislab.benchmarks.robustness import bars
from dislab.benchmarks.robustness.cases.case import (
    DAMAGES,
    DONE,
    HUGE,
    REFUSED,
    Case,
    damage,
    words,
)
from dislab.runs.config import FORMAT

STUDY = """steps = 2
batch_size = 16
metrics = ["mig"]
figures = []

[[runs]]
model = "vae"
dataset = "bars"
set = { network = "mlp" }
"""
# Values as TOML writes them.
VALUES = (
    "1",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "true",
    '""',
    '"x"',
    '" "',
    "[]",
    "[[]]",
    "[[[]]]",
    "{}",
    HUGE,
)
VALUES += (
    f"-{HUGE}",
    "1e999",
    str(2**63),
    "[1]",
    "[1.5]",
    "[nan]",
    "[true]",
    '[""]',
    '["x"]',
    '[["x"]]',
    '["x", 1]',
)
VALUES += (
    "[[1]]",
    "{ a = 1 }",
    "[{}]",
    "1979-05-27",
    "07:32:00",
    "[1979-05-27T07:32:00Z]",
    '"a\\nb"',
    '"a\\u0000b"',
)
VALUES += (
    '"\\u001b[31m"',
    '["a\\nb"]',
    '"../../evil"',
    '["../../evil"]',
    '"/evil"',
    f'"{"y" * 5000}"',
    "0x7fffffffffffffff",
)
VALUES += (
    f"[{HUGE}]",
    "[-1]",
    f"[{2**63}]",
    "[0, 0]",
    "[" * 60 + "]" * 60,
    '["mig", "mig"]',
    '"\\U0001F600"',
    "0o777",
)
KEYS = ("title", "rank_by", "figures", "protocol", "steps", "batch_size", "precision", "seeds", "metrics")
KEYS += ("metric_protocol", "runs", "unknown")
TABLE_KEYS = (
    "protocol",
    "steps",
    "batch_size",
    "precision",
    "seeds",
    "metrics",
    "metric_protocol",
    "model",
    "dataset",
)
TABLE_KEYS += (
    "group_by",
    "hold_out",
    "source",
    "optional",
    "set",
    "unknown",
    "set.latents",
    "set.network",
    "set.beta",
)
TABLE_KEYS += ("set.likelihood", "set.unknown", "set.seed", "seed", "set.'a\\nb'", '"a\\nb"', '""')
BENCH = ["bench", "study.toml", "--jobs", "1", *bars.TRAINING]
MANY = ", ".join(str(n) for n in range(1, 301))


def nested(depth: int, inner: str = "") -> str:
    return "[" * depth + inner + "]" * depth


WHOLE = {
    "nothing": "",
    "a product of 300^4 runs": STUDY.replace(
        '{ network = "mlp" }',
        f"{{ latents = [{MANY}], a = [{MANY}], b = [{MANY}], c = [{MANY}] }}",
    ),
    "a product of 300^2 runs and 300 seeds": STUDY.replace(
        '{ network = "mlp" }', f"{{ latents = [{MANY}], beta = [{MANY}] }}\nseeds = [{MANY}]"
    ),
    "3,000 lists in one another": STUDY + f"hold_out = {nested(3000)}\n",
    "3,000 lists of a key above": f"title = {nested(3000)}\n" + STUDY,
    "100,000 lists": f"title = {nested(100_000)}\n" + STUDY,
    "1,000 tables in one another": STUDY + "group_by = " + "{ a = " * 1000 + "1" + " }" * 1000 + "\n",
    "a dotted key of 3,000 parts": STUDY + ".".join(["a"] * 3000) + " = 1\n",
    "a number of 400 digits": STUDY.replace("steps = 2", f"steps = {HUGE}"),
    "a number of 10,000 digits": STUDY.replace("steps = 2", f"steps = {'9' * 10_000}"),
    "a seed of 10,000 digits": STUDY + f"seeds = [{'9' * 10_000}]\n",
    "a float beyond all": STUDY.replace('"mlp"', '"mlp", latents = 1e999'),
    "a key twice": STUDY + 'model = "vae"\n',
    "two tables of one name": STUDY + "[runs]\n",
    "no runs": 'title = "x"\n',
    "runs is a table": "[runs]\nmodel = 1\n",
    "an empty list of runs": "runs = []\n",
    "a byte order mark": "\ufeff" + STUDY,
    "NUL": STUDY + "\0",
    "a control character": STUDY + 'source = "\x01"\n',
    "an open text": STUDY + 'source = "x\n',
    "an open text of lines": STUDY + 'source = """x\n',
    "JSON": '{"runs": []}',
    "a long key": STUDY + f"{'k' * 100_000} = 1\n",
    "100,000 keys": STUDY + "".join(f"k{n} = 1\n" for n in range(100_000)),
    "1,000,000 seeds": STUDY + f"seeds = [{', '.join(map(str, range(1_000_000)))}]\n",
    "an unknown escape": STUDY + 'source = "\\q"\n',
    "a surrogate": STUDY + 'source = "\\ud800"\n',
    "a line end in the title": 'title = "a\\nb"\nrank_by = "x"\n' + STUDY,
    "a path as a dataset": STUDY.replace('"bars"', '"../../evil"'),
    "a model and a dataset of 300 characters": STUDY.replace('"bars"', f'"./{"d" * 300}"'),
}


def studies(draw: random.Random, number: int) -> Case:
    """A study file that is wrong."""
    if number < len(WHOLE):
        about, text = list(WHOLE.items())[number]
        return Case(
            BENCH, prepare=lambda folder: (folder / "study.toml").write_bytes(encoded(text)), about=about
        )
    if draw.random() < 0.7:
        top = draw.random() < 0.4
        key = draw.choice(KEYS if top else TABLE_KEYS)
        value = draw.choice(VALUES)
        text, about = STUDY, f"{'' if top else 'runs.'}{key} = {value[:40]}"
        if key.startswith("set."):
            text = text.replace(
                '{ network = "mlp" }',
                f"{{ {'' if 'network' in key else 'network = 1, '}{key[4:]} = {value} }}",
            )
            text = text.replace("network = 1", 'network = "mlp"')
        else:
            lines = [line for line in text.splitlines() if line.partition(" = ")[0] != key]
            lines.insert(0 if top else lines.index("[[runs]]") + 1, f"{key} = {value}")
            text = "\n".join(lines) + "\n"
        return Case(
            BENCH,
            (DONE, REFUSED),
            lambda folder: (folder / "study.toml").write_bytes(encoded(text)),
            about,
        )
    how = draw.choice(DAMAGES)

    def prepare(folder: Path) -> None:
        (folder / "study.toml").write_text(STUDY)
        damage(folder / "study.toml", how, draw)

    # What is damaged may be a name that nobody reads, such as the title's.
    return Case(BENCH, (DONE, REFUSED), prepare, f"study.toml: {words(how)}")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# Configurations ------------------------------------------------------------------------------------

CONFIGURATION = {
    "format": FORMAT,
    "config": {
        "model": "vae",
        "hyperparameters": {"latents": 10, "network": "mlp", "likelihood": "bernoulli"},
        "dataset": "bars",
        "source": "rendered",
        "protocol": {
            "name": "quick+steps=2+batch_size=16",
            "steps": 2,
            "learning_rate": 0.001,
            "batch_size": 16,
            "rows": 30000,
        },
        "group_by": [["shape"]],
        "hold_out": [],
        "precision": "usual",
        "seed": 0,
        "metrics": ["mig"],
        "own_images": "",
    },
}
WRONG = (
    None,
    True,
    0,
    -1,
    1,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    2**63,
    -(2**63),
    "",
    "x",
    "\n",
    "../../evil",
    "/evil",
)
WRONG += (
    "a\0b",
    "\x1b[31m",
    "\ud800",
    [],
    [[]],
    ["x"],
    [["x"]],
    [[]] * 3,
    [None],
    {},
    {"x": 1},
    {"": {}},
    "y" * 5000,
    "mig",
)
CONFIGURED = ["run", "--config", "run.json", *bars.TRAINING, "--jobs", "1"]
TEXTS = {
    "nothing": b"",
    "null": b"null",
    "a number": b"7",
    "a list": b"[]",
    "a text": b'"x"',
    "an empty object": b"{}",
    "NaN": b"NaN",
    "100,000 lists in one another": b"[" * 100_000 + b"]" * 100_000,
    "3,000 objects in one another": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(CONFIGURATION).encode(),
    "UTF-16": json.dumps(CONFIGURATION).encode("utf-16"),
    "invalid UTF-8": json.dumps(CONFIGURATION).encode().replace(b"vae", b"v\xff\xfe"),
    "a number of 10,000 digits": json.dumps(CONFIGURATION)
    .replace('"seed": 0', f'"seed": {"9" * 10_000}')
    .encode(),
    "a seed of 400 digits": json.dumps(CONFIGURATION).replace('"seed": 0', f'"seed": {HUGE}').encode(),
    "a format of another version": json.dumps(CONFIGURATION | {"format": 5}).encode(),
    "a format that is a text": json.dumps(CONFIGURATION | {"format": "\n6"}).encode(),
    "two objects": json.dumps(CONFIGURATION).encode() * 2,
    "NUL": json.dumps(CONFIGURATION).encode() + b"\0",
    "100 MB of spaces": b" " * 100_000_000,
}


def spots(value, path: tuple = ()) -> list[tuple]:
    """Return the path of every value in a tree of JSON."""
    found = [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        found += spots(part, (*path, key))
    return found


def mutated(tree, draw: random.Random) -> tuple[object, str]:
    """Return a tree of JSON with a value that is wrong, or missing, or too much; and what was done."""
    changed = copy.deepcopy(tree)
    spot = draw.choice(spots(changed)[1:])
    holder = changed
    for key in spot[:-1]:
        holder = holder[key]
    place = ".".join(map(str, spot))
    how = draw.random()
    if how < 0.15:
        del holder[spot[-1]]
        return changed, f"{place} is missing"
    if how < 0.25 and isinstance(holder, dict):
        holder["unknown"] = draw.choice(WRONG)
        return changed, f"{place}: an unknown member beside it"
    if how < 0.35 and isinstance(holder[spot[-1]], str):
        holder[spot[-1]] += draw.choice(("\n", "\0", "x", "/../..", "\u202e"))
        return changed, f"{place}: more text"
    value = draw.choice(WRONG)
    holder[spot[-1]] = value
    return changed, f"{place} is {ascii(value)[:40]}"


def configurations(draw: random.Random, number: int) -> Case:
    """A run.json for --config that is wrong."""
    if number < len(TEXTS):
        about, content = list(TEXTS.items())[number]
        return Case(
            CONFIGURED, prepare=lambda folder: (folder / "run.json").write_bytes(content), about=about
        )
    if draw.random() < 0.8:
        tree, about = mutated(CONFIGURATION, draw)
        content = json.dumps(tree).encode()
    else:
        how = draw.choice(DAMAGES)
        content, about = how(json.dumps(CONFIGURATION, indent=1).encode(), draw), words(how)
    return Case(
        CONFIGURED,
        (DONE, REFUSED),
        lambda folder: (folder / "run.json").write_bytes(content),
        about,
    )


def pipes(draw: random.Random, number: int) -> Case:
    """A text file that is a folder, a pipe, a loop or a link to nothing."""
    name, arguments = (("study.toml", BENCH), ("bars.py", BENCH), ("run.json", CONFIGURED))[number % 3]
    how = ("folder", "loop", "link", "pipe")[number // 3 % 4]
    if (name, how) == ("run.json", "pipe"):  # which `--config <(…)` is, rightly
        how = "folder"

    def prepare(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        if how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(name if how == "loop" else "not_there")

    return Case(arguments, (REFUSED,), prepare, f"{name} is a {how}")
