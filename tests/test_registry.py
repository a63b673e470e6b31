"""Registries: names, look-ups, plug-in files, and their isolation in tests."""

import pytest

import dislab
from dislab import registry
from dislab.errors import DislabError
from dislab.registry import METRICS, MODELS, Registry, isolated, load_plugin, register_metric, register_model

PLUGIN = """
import dislab

@dislab.register_metric("half", title="One half")
def half(table, rng):
    return 0.5
"""


REGISTER = """import dislab
@dislab.register_metric({})
def f(table, rng):
    return 0
"""


def names(of: Registry) -> set[str]:
    return {entry.name for entry in of}


def test_what_is_registered_in_isolation_is_forgotten(tmp_path):
    (tmp_path / "half.py").write_text(PLUGIN)
    before, files = [names(one) for one in (MODELS, METRICS)], dict(registry.plugin_files)
    with pytest.raises(KeyError), isolated():
        load_plugin(tmp_path / "half.py")
        register_model("mine")(type("Mine", (), {"__doc__": "My model.\n\nLong."}))
        assert METRICS["half"].title == "One half" and MODELS["mine"].title == "My model."
        assert (tmp_path / "half.py").resolve() in registry.plugin_files
        with isolated():
            register_metric("other")(lambda table, rng: 0)
        assert "half" in names(METRICS) and "other" not in names(METRICS)
        raise KeyError
    assert [names(one) for one in (MODELS, METRICS)] == before
    assert registry.plugin_files == files
    assert {"vae", "mlvae"} <= names(MODELS), "what is built in stays known"
    with isolated():
        load_plugin(tmp_path / "half.py")
        assert METRICS["half"].make(None, None) == 0.5


def test_unknown_names_offer_the_nearest_or_all():
    with pytest.raises(DislabError, match=r"^unknown model 'mlva': did you mean 'mlvae'\?$"):
        MODELS["mlva"]
    with pytest.raises(DislabError, match=r"^unknown model 'zzzz': known are adagvae, adamlvae, .*vae$"):
        MODELS["zzzz"]


def test_a_name_is_registered_once(isolated):
    with pytest.raises(DislabError, match=r"^model 'vae' is registered twice: VAE in .*, Other in .*"):
        register_model("vae")(type("Other", (), {}))


def test_names_that_share_a_function(isolated):
    @register_metric("b_score")
    @register_metric("a_score", group="both")
    def function(table, rng):
        return {"a_score": 1.0, "b_score": 2.0}

    assert METRICS.names_of(function) == ["a_score", "b_score"]
    assert METRICS.names_of(print) == []
    assert METRICS.names_of(METRICS["mig"].make) == ["mig"]
    assert [entry.name for entry in METRICS.choose(["both", "mig", "a_score"])] == [
        "a_score",
        "b_score",
        "mig",
    ]
    assert METRICS.choose("mig") == [METRICS["mig"]]


def test_what_another_process_knows(isolated, tmp_path):
    (tmp_path / "half.py").write_text(PLUGIN)
    load_plugin(tmp_path / "half.py")
    register_metric("here")(lambda table, rng: 0)
    assert [METRICS.is_known_elsewhere(name) for name in ("mig", "half", "here")] == [True, True, False]
    with pytest.raises(DislabError, match="unknown metric 'migg'"):
        METRICS.is_known_elsewhere("migg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import dislab\n1 / 0\n", r"wrong.py, line 2 does not import: ZeroDivisionError"),
        ("def f(:\n", r"wrong.py, line 1 does not import: SyntaxError"),
        ("import dislab\nraise dislab.DislabError('my own words')\n", "wrong.py, line 2: my own words$"),
        ("import sys\nsys.exit(0)\n", "wrong.py, line 2 does not import: SystemExit: 0"),
        (
            REGISTER.format("'x', needs=['grids']"),
            "line 2: unknown need .* 'grids': did you mean 'grid'",
        ),
        (
            REGISTER.format("'x', direction='high'"),
            "2: metric 'x': direction is 'high': choose 'up'",
        ),
        (
            REGISTER.format("'x'").replace("rng)", "rng, scale=1)"),
            "scale is a setting of every metric: choose",
        ),
        (
            REGISTER.format("'x'").replace("table, ", ""),
            r"line 2: metric 'x' must be a function of \(table, rng",
        ),
        (
            REGISTER.format("'x'") + "f = dislab.register_metric('x')(lambda table, rng: 0)",
            "line 5: metric 'x' is reg",
        ),
    ],
)
def test_a_plug_in_that_does_not_import_is_one_clear_line(isolated, tmp_path, content, message):
    (tmp_path / "wrong.py").write_text(content)
    before = dict(registry.plugin_files)
    with pytest.raises(DislabError, match=message):
        dislab.load_plugin(tmp_path / "wrong.py")
    assert registry.plugin_files == before


def test_a_plug_in_file_must_be_there_and_be_python(tmp_path):
    with pytest.raises(DislabError, match=r"plug-in file '.*none\.py' does not exist"):
        load_plugin(tmp_path / "none.py")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(DislabError, match=r"text.txt' is not a Python file \(.py\)"):
        load_plugin(tmp_path / "text.txt")


def test_the_digest_of_a_decorated_metric_is_that_of_its_own_file(isolated, tmp_path):
    text = "import torch\n" + REGISTER.format("'x'").replace("def f", "@torch.no_grad()\ndef f")
    digests = []
    for content in (text, text + "# changed\n", text.replace("\n", "\r\n")):
        (tmp_path / "x.py").write_bytes(content.encode())
        load_plugin(tmp_path / "x.py")
        digests.append(METRICS["x"].digest)
    assert digests[0] == digests[2] != digests[1]
