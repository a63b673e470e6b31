"""Paths, sizes and files that cannot be: one line, exit code 2, nothing written, and no long wait."""

import json
import os
from pathlib import Path

import pytest

import dislab
from dislab.cli import main
from dislab.cli.options import parse_seeds
from dislab.errors import MOST_CHARACTERS, in_one_line, one_line

LONG, DEEP = "a" * 256, "/".join(["d" * 200] * 25)
TABLE = '[[runs]]\nmodel = "betavae"\ndataset = "bars"\n'
PROTOCOL = {"name": "quick+steps=5", "steps": 5, "learning_rate": 1e-3, "batch_size": 32, "rows": 30_000}
CONFIG = {"model": "betavae", "hyperparameters": {"network": "mlp"}, "dataset": "bars", "source": "rendered"}
CONFIG |= {"protocol": PROTOCOL, "group_by": [["shape"]], "hold_out": [], "metrics": ["mig"]}


@pytest.fixture
def refused(bars, capsys):
    """A function that does a command, which must be refused in one line; it returns the line."""
    for name in ("folder", "locked"):
        Path(name).mkdir()
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")

    def command(*arguments: str) -> str:
        before = set(Path().rglob("*"))
        code = main([*arguments, *(bars if arguments[0] in ("run", "bench") else [])])
        out, err = capsys.readouterr()
        lines = [line for line in err.split("\n") if line.startswith("dislab: ")]
        assert (code, len(lines), out) == (2, 1, ""), err
        assert err.endswith(f"{lines[0]}\n") and len(lines[0]) < MOST_CHARACTERS + 50
        left = {path for path in set(Path().rglob("*")) - before if "__pycache__" not in path.parts}
        assert not left, "nothing is written"
        return lines[0]

    return command


COMMANDS_WITH_PATHS = [
    ["run", "--dataset", "bars", "--out"],
    ["run", "--dataset", "bars", "--data-dir"],
    ["run", "--config"],
    ["run", "--plugin"],
    ["run", "--dataset"],
    ["evaluate"],
    ["leaderboard"],
    ["bench"],
    ["data", "list", "--data-dir"],
    ["data", "show", "shapes3d", "--out"],
]


@pytest.mark.parametrize("command", COMMANDS_WITH_PATHS, ids=" ".join)
def test_paths_that_cannot_be(command, refused):
    for path in (f"./{LONG}", "./" + "c" * 5000, DEEP):
        assert ("unknown study" if command == ["bench"] else "File name too long") in refused(*command, path)
    for path in ("", "loop/x", f"no\nfolder/{LONG}"):
        refused(*command, path)
    if command[-1] not in ("--out", "--data-dir"):  # these are made, or not looked at
        refused(*command, "./pipe")
        refused(*command, "/dev/zero")
        refused(*command, "no\nfolder")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "0-9999,10000-19999"], "at most 10000 seeds"),
        (["--seeds", "0-" + "9" * 5000], "write whole numbers"),
        (["--seeds", "٣"], "write whole numbers"),
        (["--seeds", ""], "write whole numbers"),
        (["--seeds", "9223372036854775808"], "below 2**63"),
        (["--steps", str(2**63)], "must be 1000000000 or less"),
        (["--steps", str(10**400)], "must be 1000000000 or less"),
        (["--batch-size", str(2**62)], "must be 1048576 or less"),
        (["--jobs", str(10**9)], "jobs is 1000000000: it must be 1000 or less"),
        (["--set", "latents=1000000000"], "latents is 1000000000: it must be 10000 or less"),
        (["--set", "latents=1e300"], "must be 2,147,483,647 or less"),
        (["--set", "beta=1e999"], "must be a number"),
        (["--set", "network="], "network is ''"),
        (["--model", "mlvae", "--set", "group_size=17"], "group_size=17 is too large"),
        (["--metrics", ","], "',' names nothing"),
        (["--group-by", ""], "'' names nothing"),
        (["--model", "a\nb\x1b[31m"], r"unknown model 'a b\x1b[31m'"),
        (["--device", "meta"], "device 'meta' cannot be used here"),
        (["--device", "privateuseone"], "device 'privateuseone' cannot be used here"),
        (["--device", "cpu:1"], "device 'cpu:1' cannot be used here (use cpu, or cuda with a GPU): there is"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--device", "mkldnn"], "device 'mkldnn' cannot be used here"),
        (["--device", ""], "device '' cannot be used here"),
    ],
)
def test_values_that_cannot_be(arguments, says, refused):
    model = [] if "--model" in arguments else ["--model", "betavae"]
    assert says in refused("run", "--dataset", "bars", *model, *arguments)


STUDIES = {
    "a number of 400 digits": (f"steps = 1{'0' * 400}\n{TABLE}", "must be 1000000000 or less"),
    "a number of 5,000 digits": (f"steps = 1{'0' * 5000}\n{TABLE}", "is not TOML: Exceeds the limit"),
    "deep": (f"x = {'[' * 3000}{']' * 3000}", "nested too deep"),
    "a long key": (f"{'.'.join('a' * 60_000)} = 1", "nested too deep"),
    "a product": (
        TABLE + "set = { " + ", ".join(f"{n} = {list(range(300))}" for n in "abcd") + " }",
        "the study has 8,100,000,000 runs up to here: at most 100,000",
    ),
    "many seeds": (f"seeds = {list(range(9999))}\n{TABLE}set = {{ beta = {list(range(1, 99))} }}", "at most"),
    "a date": (f"steps = 2020-01-01\n{TABLE}", "it must be a whole number"),
    "a seed that is no number": (f"seeds = [nan]\n{TABLE}", "it must be a list of whole numbers"),
    "an empty list": (TABLE.replace('"betavae"', "[]"), "model is []"),
    "a value that is no number": (f"{TABLE}set = {{ beta = nan }}", "must be a number"),
    "a path with a NUL": (TABLE.replace('"bars"', '"./a\\u0000b"'), ""),
    "bytes": (b"\xff\xfe\x00", "cannot be read"),
    "a large file": (b"#" * 300_000, "has more than 262,144 bytes"),
}


@pytest.mark.parametrize("kind", STUDIES)
def test_studies_that_cannot_be(kind, refused):
    content, says = STUDIES[kind]
    Path("study.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in refused("bench", "study.toml")


CONFIGS = {
    "deep": ("[" * 100_000, "RecursionError"),
    "deep objects": ('{"config":' * 100_000, "RecursionError"),
    "a number of 5,000 digits": ('{"seed": 1' + "0" * 5000 + "}", "Exceeds the limit"),
    "a name twice": (json.dumps(CONFIG)[:-1] + ', "model": "vae"}', "'model' is in it twice"),
    "no grouping": (json.dumps(CONFIG | {"group_by": [[]]}), "group_by must be a list of lists"),
    "many steps": (json.dumps(CONFIG | {"protocol": PROTOCOL | {"steps": 10**400}}), "or less"),
    "no number": (json.dumps(CONFIG | {"protocol": PROTOCOL | {"learning_rate": float("nan")}}), "above 0"),
    "true": (json.dumps(CONFIG | {"protocol": PROTOCOL | {"batch_size": True}}), "must be 2 or more"),
    "a long seed": (json.dumps(CONFIG | {"seed": 10**400}), "must be a whole number"),
    "no object": ("[1, 2]", "is not a configuration"),
    "bytes": (b"\xff\xfe", "cannot be read"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations_that_cannot_be(kind, refused):
    content, says = CONFIGS[kind]
    Path("config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in refused("run", "--config", "config.json")


def test_a_large_configuration_is_not_read(refused):
    with Path("config.json").open("wb") as file:
        file.truncate(100_000_000)
    assert "has more than 67,108,864 bytes" in refused("run", "--config", "config.json")


def test_seeds_are_counted_before_they_are_listed():
    assert len(parse_seeds("0-4999,5000-9999")) == 10_000
    with pytest.raises(dislab.DislabError, match="at most 10000 seeds"):
        parse_seeds("0-5000,5000-9999")


def test_what_nobody_expected_is_one_line(monkeypatch, capsys, tmp_path):
    """Whatever escapes from a command: its line says where, and how to see more."""
    from dislab.cli import app

    def raising(error):
        def fails(*arguments, **options):
            raise error

        return fails

    cases = [
        (PermissionError(13, "Permission denied", "a\nb"), 2, "dislab: 'a b': Permission denied\n"),
        (OSError(28, "No space left on device", "x"), 1, "dislab: 'x': No space left on device\n"),
        (MemoryError(), 1, "dislab: not enough memory\n"),
        (RuntimeError("can't allocate memory: 9 bytes"), 1, "dislab: not enough memory: can't allocate"),
        (RecursionError("too\ndeep"), 1, "dislab: RecursionError: too deep ("),
        (SystemExit(0), 1, "dislab: SystemExit: 0 ("),
    ]
    for error, code, line in cases:
        monkeypatch.setattr(app, "app", raising(error))
        assert main(["list", "models"]) == code
        err = capsys.readouterr().err
        assert err.startswith(line) and err.count("\n") == 1
    assert "test_bad_paths.py, line" in err and err.endswith("DISLAB_TRACEBACK=1 shows where\n")
    monkeypatch.setenv("DISLAB_TRACEBACK", "1")
    assert main(["list", "models"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_message_is_one_line_of_printable_signs():
    assert one_line("  a\r\n\tb\u2028c \x1b[0m\udcff d\n") == r"  a b c \x1b[0m\udcff d"
    assert len(one_line("x" * 10**6)) < MOST_CHARACTERS + 10
    assert in_one_line(dislab.DislabError("a\nb")) == "a b"


def test_a_table_of_runs_without_scores(bars, capsys):
    dislab.load_plugin("bars.py")
    dislab.run(model="oracle", dataset="bars", metrics=[])
    assert main(["leaderboard", "results"]) == 0 and "oracle" in capsys.readouterr().out
