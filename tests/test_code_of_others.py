"""Whatever code of a user's does, a run ends in one line, and what is computed is kept."""

import copy
import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from every_metric import SMALL, short_training  # noqa: F401
from metric_tables import full_table, grid, mixture

import dislab
from dislab.cli import main
from dislab.errors import DislabError
from dislab.kept import kept
from dislab.registry import METRICS, MODELS, load_plugin
from dislab.scoring.score import score
from dislab.scoring.table import CodesOnDemand
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.protocol import PROTOCOLS
from dislab.training.steps import SingleSteps

METRIC = """
import sys
import numpy as np
import dislab


@dislab.register_metric("odd")
def odd(table, rng):
    {}
"""
RETURNS = [
    "return 10**400",
    "return 1j",
    "return None",
    "return 'high'",
    "return {'odd': 1.0, 'odd_list': [{1}]}",
    "return {'odd': 1.0, 'odd_list': np.array([object()])}",
    "return {3: 1.0}",
    "return {'odd': float('inf')}",
    "sys.exit(0)",
    "raise dislab.DislabError('first\\nsecond')",
    "raise ValueError('first\\nsecond')",
]


@pytest.fixture
def folder(tmp_path, monkeypatch, isolated, no_pictures):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("body", RETURNS)
def test_a_metric_that_returns_nonsense_fails_alone(folder, tiny_dataset, body, capsys):
    Path("odd.py").write_text(METRIC.format(body))
    load_plugin("odd.py")
    with pytest.raises(DislabError) as error:
        dislab.run("oracle", tiny_dataset, metrics=["mig", "odd"])
    text = str(error.value)
    assert "metric 'odd' failed" in text and "\n" not in text
    assert "odd.py, line" in text or "first second" in text
    [run] = dislab.runs_in("results")
    assert set(run.scores) == {"mig"}
    np.savez("codes.npz", codes=run.codes.mean, factors=run.codes.factors)
    assert main(["evaluate", "codes.npz", "--metrics", "odd", "--plugin", "odd.py"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_json_can_hold_is_kept(folder, tiny_dataset):
    values = "[np.float32(1), None, [np.int64(2), True], np.ones(2)]"
    Path("odd.py").write_text(METRIC.format(f"return {{'odd': np.ones(()), 'odd_list': {values}, 3: 1}}"))
    load_plugin("odd.py")
    run = dislab.run("oracle", tiny_dataset, metrics=["odd"])
    assert dict(run.scores) == {"odd": 1.0}
    assert run.scores.details == {"odd_list": [1.0, None, [2, True], [1.0, 1.0]]}


def test_code_that_calls_exit_is_said(folder, tiny_dataset):
    Path("nets.py").write_text("import sys\n\n\ndef leaves(*sizes, **more):\n    sys.exit(0)\n")
    with pytest.raises(DislabError, match=r"SystemExit: 0 \(.*nets.py, line 5\)"):
        dislab.run("vae", tiny_dataset, network="nets.py:leaves")

    def leaves(images):
        raise SystemExit(0)

    with pytest.raises(DislabError, match="the encoder failed: SystemExit: 0"):
        dislab.evaluate(leaves, dataset=tiny_dataset)

    @dislab.register_dataset("leaving")
    def leaving(source, data_dir, device):
        raise SystemExit(0)

    with pytest.raises(DislabError, match="'leaving' cannot be opened: SystemExit: 0"):
        dislab.load_dataset("leaving")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a@b"}, "metric name 'a@b': write letters, digits, _ and -"),
        ({"name": "default"}, "metric name 'default'"),
        ({"name": 5}, "metric name 5"),
        ({"name": "mine", "low": "a"}, "low is 'a', high None: each must be a number"),
        ({"name": "mine", "group": "mig"}, "its group 'mig' is the name of a metric"),
    ],
)
def test_what_cannot_be_registered(isolated, options, message):
    with pytest.raises(DislabError, match=message):
        dislab.register_metric(**options)(lambda table, rng: 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": 5}, "metrics is 5: it must be names"),
        ({"metrics": [None]}, r"metrics is \[None\]: it must be names"),
        ({"metrics": [""]}, "unknown metric ''"),
        ({"metric_protocol": None}, "metric protocol None: choose locatello2019"),
        ({"metric_settings": "sap"}, "metric_settings is 'sap': it must map names to settings"),
    ],
)
def test_wrong_arguments_of_evaluate_are_one_line(arguments, message):
    with pytest.raises(DislabError, match=message):
        dislab.evaluate(codes=np.eye(4), factors=np.arange(4), **arguments)


@pytest.mark.parametrize("max_rows", [-1, 0, 1.5, "a"])
def test_wrong_numbers_of_rows_are_one_line(tiny_dataset, max_rows):
    with pytest.raises(DislabError, match=f"max_rows is {max_rows!r}: it must be a whole number"):
        dislab.evaluate(lambda images: images.flatten(1), dataset=tiny_dataset, max_rows=max_rows)


def test_a_module_can_be_trained_on_after_it_was_scored(tiny_dataset):
    from torch import nn

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.grid = nn.Linear(256, 2), None

        def forward(self, images):
            if self.grid is None:
                self.grid = torch.linspace(0, 1, 256)
            return self.layer(images.flatten(1) * self.grid)

    module = Keeps()
    dislab.evaluate(module, dataset=tiny_dataset, metrics=["mig"])
    module(torch.rand(2, 1, 16, 16)).sum().backward()
    assert module.layer.weight.grad is not None


def test_an_edited_cell_of_a_notebook_replaces_its_metric(isolated):
    names = []
    for cell in ("<cell 1>", "<cell 2>"):
        source = "@dislab.register_metric('mine')\ndef mine(table, rng):\n    return 1\n"
        exec(compile(source, cell, "exec"), {"dislab": dislab, "__name__": "__main__"})
        names.append(cell)
    assert dislab.evaluate(codes=np.eye(4), factors=np.arange(4), metrics=["mine"]) == {"mine": 1}


CHANGES = {  # of what a metric is given, by ways that numpy does not refuse, or of the whole process
    "table.mean = table.mean * 0",
    "table.factors = table.factors[::-1]; table.sharing(rng, 0, np.arange(3))",
    "table.blocks['content'] = slice(0, 1)",
    "del table.labels",
    "table.mean.setflags(write=True); table.mean[:] = 0",
    "torch.from_numpy(np.asarray(table.mean)).zero_()",
    "table.sharing(rng, 0, np.arange(5)); table._sorted[0][0][:] = 0",
    "np.random.seed(0); torch.manual_seed(0); random.seed(0)",
    "np.seterr(all='raise'); warnings.simplefilter('error')",
    "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_num_threads(2)",
    "os.chdir('/'); os.environ['DISLAB_DATA'] = 'other'",
    "sys.stdout = sys.stderr = None; sys.setrecursionlimit(900)",
}
WRITES = (
    "table.mean[0] = 0",
    "table.mean *= 2",
    "table.mean.sort(axis=0)",
    "np.add(table.logvar, 1, out=table.logvar)",
    "rng.shuffle(table.labels)",
    "table.factors[:, 0] = 0",
    "table.reconstruction.fill(0)",
    "codes = table.mean[:]\n    codes -= codes.mean(axis=0)",
)
CHANGER = "import os, random, warnings\nimport torch" + METRIC


def settings() -> list:
    """What code of others may change in this process."""
    states = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate()
    torch_s = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    process = os.getcwd(), dict(os.environ), sys.stdout, sys.stderr, sys.getrecursionlimit()  # noqa: PTH109
    return [states, torch_s, process, np.geterr(), list(warnings.filters)]


def tables() -> dict:
    """Code tables with all that a metric may read: of arrays, and of rows that are encoded on demand."""
    factors = grid((4, 3, 5), copies=5)
    codes = mixture(factors, 4, 0.1)
    table = full_table(codes, factors, full_grid=True, blocks={"content": slice(0, 2), "style": slice(2, 4)})
    other = copy.copy(table)
    other.mean, other.logvar = (CodesOnDemand(array, lambda rows: None) for array in (codes, table.logvar))
    return {"arrays": table, "on demand": other}


def content(table) -> list:
    return [np.asarray(value).tolist() for value in vars(table).values() if hasattr(value, "shape")]


@pytest.mark.parametrize("kind", ["arrays", "on demand"])
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_metric_changes_no_score_after_it(folder, kind, change):
    Path("odd.py").write_text(CHANGER.format(change + "\n    return 1.0"))
    load_plugin("odd.py")
    table = tables()[kind]
    names, before, around = ["mig", "betavae_score"], content(table), settings()
    settings_ = {"num_train": 200, "num_test": 100}
    alone = score(table, names, **settings_)
    together = score(table, ["odd", *names], **settings_)
    assert {name: together[name] for name in alone} == alone
    assert not together.failed or "read-only" in together.failed["odd"]
    assert content(table) == before and list(table.blocks) == ["content", "style"]
    assert settings() == around


@pytest.mark.parametrize("kind", ["arrays", "on demand"])
@pytest.mark.parametrize("write", WRITES)
def test_a_metric_that_writes_to_what_it_is_given_fails_alone(folder, kind, write):
    Path("odd.py").write_text(CHANGER.format(write + "\n    return 1.0"))
    load_plugin("odd.py")
    table = tables()[kind]
    before, alone = content(table), score(table, ["mig"])
    scores = score(table, ["odd", "mig"])
    if scores.failed:
        line = scores.failed["odd"]
        assert "odd.py, line" in line and "is read-only, copy it first" in line and "\n" not in line
    assert scores.failed or kind == "on demand"
    assert scores["mig"] == alone["mig"] and content(table) == before


MODEL = """
import sys
import torch
import dislab
from dislab.models.mlvae import MLVAE
from dislab.models.vae import VAE


@dislab.register_model("odd")
class Odd({base}):
    def __init__(self, image_shape, *, network: str = "mlp", size={default}):
        super().__init__(image_shape, network=network)
        {init}

    def {method}:
        {body}
"""


def run_odd(dataset, method="extra(self)", body="pass", init="pass", base="VAE", default="2", steps=4) -> str:
    """Run a model with one method changed; return the line by which it fails, and whether that is before it
    trains."""
    Path("odd.py").write_text(MODEL.format(method=method, body=body, init=init, base=base, default=default))
    load_plugin("odd.py")
    with pytest.raises(DislabError) as error:
        dislab.run("odd", dataset, device="cpu", steps=steps, batch_size=16, metrics=["mig"])
    is_before = not issubclass(error.type, dislab.RunFailed)
    assert is_before == (not Path("results").exists()), "nothing is written for what is refused"
    text = str(error.value)
    assert "odd.py, line" in text and "\n" not in text
    return f"{'before' if is_before else 'while training'}: {text}"


GROUPS = {"base": "MLVAE", "method": "encode_groups(self, images, groupings)"}
CALLED = {  # a method, and the shape that a message asks for, of three images
    "encode(self, images)": "codes [3, D]",
    "mean_image(self, codes)": "must return float [3, 1, 16, 16]",
    "reconstruction(self, images, noise)": "must return float [3]",
    "report(self, image_shape)": "must return a dict of finite numbers by name",
}
NONSENSE = ["None", "'high'", "object()", "[1]", "10**400", "1j", "{3: 1.0}", "{'a': float('nan')}", "Odd"]


@pytest.mark.parametrize("returned", NONSENSE)
@pytest.mark.parametrize("method", CALLED)
def test_a_method_of_a_model_that_returns_nonsense_is_refused(folder, tiny_dataset, method, returned):
    line = run_odd(tiny_dataset, method, f"return {returned}")
    assert line.startswith("before: ") and CALLED[method] in line


@pytest.mark.parametrize(
    "raised", ["sys.exit(0)", "raise ValueError('a\\nb')", "self.x.y", "f = lambda: f(); f()"]
)
@pytest.mark.parametrize("method", CALLED)
def test_a_method_of_a_model_that_raises_is_refused(folder, tiny_dataset, method, raised):
    line = run_odd(tiny_dataset, method, raised)
    number = (
        MODEL.format(method=method, body=raised, init="", base="", default="")
        .splitlines()
        .index(f"        {raised}")
    )
    assert line.startswith("before: ") and f"odd.py, line {number + 1})" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "raise KeyError('a')"}, "model 'odd' failed: KeyError: 'a'"),
        ({"init": "sys.exit(0)"}, "model 'odd' failed: SystemExit: 0"),
        ({"init": "raise dislab.DislabError('a\\nb')"}, "before: a b ("),
        ({"init": "raise type('E', (Exception,), {'__str__': None})"}, "model 'odd' failed: E ("),
        ({"init": "raise ValueError('\\x1b[2J' + 'x' * 10**6)"}, r"\x1b[2Jxxx"),
        ({"init": "self.latents = '3'"}, "`latents` is '3': it must be 1 or more"),
        ({"init": "self.latents = True"}, "`latents` is True: it must be 1 or more"),
        ({"init": "self.latents = 10**400"}, "it must be 1 or more"),
        ({"init": "self.blocks = {'content': slice(0, 99)}"}, "the codes have dimensions 0 to 9"),
        ({"init": "self.blocks = {3: slice(0, 1)}"}, "unknown block '3'"),
        ({"init": "self.blocks = {'content': slice('a', 'b')}"}, "it must be a slice"),
        ({"init": "self.blocks = 5"}, "`blocks` must map names to slices"),
        ({"init": "self.supervision = 'x'"}, "`supervision` is 'x': choose none, iid, groups"),
        ({"init": "self.requires_grad_(False)"}, "lacks parameters"),
        ({"init": "self.encode = None"}, "lacks `encode`, which scoring needs"),
        ({"default": "object()"}, "the default of `size` is no number or text"),
        ({"body": "return images.sum((1, 2, 3))", "method": "encode(self, images)"}, "float32 [3] for 3"),
        ({"body": "return self.mean_image(noise)", "method": "reconstruction(self, images, noise)"}, "[3]"),
        ({**GROUPS, "body": "return images, images"}, "must return float [3, 10] and float [3, 10]"),
        ({**GROUPS, "body": "return None"}, "not None"),
    ],
)
def test_a_model_that_cannot_be_right_is_refused(folder, tiny_dataset, changes, message):
    line = run_odd(tiny_dataset, **changes)
    assert line.startswith("before: ") and message in line and len(line) < 1300


LOSS = "must return a dict of tensors with the key 'loss', "


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", LOSS + "not NoneType"),
        ("[terms]", LOSS + "not list"),
        ("{'kl': terms['kl']}", LOSS + "not only kl"),
        ("{'loss': 1.0}", LOSS + "of one real number each, and 'loss' is float"),
        ("{'loss': batch.images * terms['loss']}", "and 'loss' is float32 [16, 1, 16, 16]"),
        ("terms | {'x': 'high'}", "and 'x' is str"),
        ("terms | {'x': batch.noise}", "and 'x' is float32 [16, 10]"),
        ("terms | {'x': terms['kl'] * 1j}", "and 'x' is complex64 []"),
        ("terms | {3: terms['kl']}", "and the name 3 is no text without commas"),
        ("terms | {'a,b': terms['kl']}", "and the name 'a,b' is no text without commas"),
        ("{'loss': terms['loss'].detach()}", "and nothing in its 'loss' depends on the parameters"),
        ("terms | ({'x': step} if step > 1 else {})", "loss, reconstruction, kl became loss, reconstr"),
        ("batch.pictures", "'Batch' object has no attribute 'pictures'"),
        ("sys.exit(0)", "model 'odd' failed: SystemExit: 0"),
    ],
)
def test_a_wrong_loss_ends_the_run_at_its_first_step(folder, tiny_dataset, returned, message):
    body = f"terms = super().loss(batch, step)\n        return {returned}"
    line = run_odd(tiny_dataset, "loss(self, batch, step)", body)
    assert line.startswith("while training: ") and message in line


def test_a_loss_that_writes_to_its_arguments_changes_no_later_step(folder, tiny_dataset):
    """The number of a step, its groups and its images are the same as for a loss that only reads them."""
    seen = []
    for change in ("", "step /= 2; batch.groupings[0].index.zero_(); batch.images.zero_()"):
        body = f"""self.seen.append([float(step), *batch.groupings[0].index.tolist(), batch.images.sum()])
        {change}
        return super().loss(batch, step)"""
        method, init = "loss(self, batch, step)", "self.seen = []"
        text = MODEL.format(method=method, body=body, init=init, base="MLVAE", default=2)
        Path("odd.py").write_text(text)
        load_plugin("odd.py")
        network = MODELS["odd"].make((1, 16, 16))
        batches = Batches(tiny_dataset, network, 16, [["shape"]], 0, torch.device("cpu"))
        member = Member(network, batches, Path("checkpoint"))
        member.resume(0.0)
        steps = SingleSteps(member, PROTOCOLS["quick"])
        for _ in range(3):
            steps.step()
        seen.append(network.seen)
    assert seen[0] == seen[1] and [one[0] for one in seen[0]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"x = '\xff\xfe'\n", "does not import: SyntaxError: (unicode error)"),
        (b"def f():\n    f()\nf()\n", "line 2 does not import: RecursionError: maximum recursion depth"),
        (b"raise ValueError('a\\nb')\n", "line 1 does not import: ValueError: a b"),
        (b"import os\nos.chdir('/')\nopen('none')\n", "line 3 does not import: FileNotFoundError"),
        (b"import dislab\ndislab.register_metric('a', title=5)(max)\n", "metric 'a': title is 5: it must"),
        (b"import dislab\ndislab.register_model('a')(5)\n", "model 'a' is 5, which is no class or function"),
        (
            b"import dislab\n@dislab.register_metric('a')\nclass A:\n    pass\n",
            "must be a function of (table,",
        ),
        (b"import dislab\ndislab.register_metric('a', needs=5)(max)\n", "needs is 5: choose of grid, "),
        (b"import dislab\ndislab.register_metric('a', slow='no')(max)\n", "slow 'no': a text, and True or"),
    ],
)
def test_a_plug_in_file_that_is_wrong_is_one_line(folder, text, message):
    Path("plug.py").write_bytes(text)
    with pytest.raises(DislabError) as error:
        load_plugin("plug.py")
    assert message in str(error.value) and "plug.py" in str(error.value) and "\n" not in str(error.value)
    assert Path.cwd() == folder, "paths that the user wrote are still found"


@pytest.mark.parametrize("path", [".", "none.py", "x" * 300 + ".py", "a\0b.py", "/dev/null", ""])
def test_a_path_that_is_no_plug_in_file_is_one_line(folder, path):
    with pytest.raises(DislabError, match="does not exist, or is no file"):
        load_plugin(path)


def test_no_score_of_dislab_depends_on_the_global_random_state(isolated):
    table, scores = tables()["arrays"], []
    names = [entry.name for entry in METRICS if METRICS.is_built_in(entry.name)]
    for seed in (0, 1):
        with kept():
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            scores.append(score(table, names, **SMALL))
    assert scores[0] == scores[1] and len(scores[0]) > 40 and not scores[0].failed


DATASET = """
import sys
import numpy as np
import torch
import dislab

images = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 1, 16, 16)
space = dislab.FactorSpace(("shape", "size"), (4, 15))


def draw(rows):
    {draw}


@dislab.register_dataset("odd")
def odd(source, data_dir, device):
    {body}
"""
RIGHT = {
    "name": "'odd'",
    "source": "'rendered'",
    "space": "space",
    "image_shape": "(1, 16, 16)",
    "draw": "draw",
    "group_by": "['shape']",
}
WRONG_SPACES = [
    "('shape', 'size'), (0, 3)",
    "('shape', 'shape'), (4, 15)",
    "('shape', 'size'), (4,)",
    "('shape', 'size'), (10**10, 10**10)",
    "(1, 2), (4, 15)",
    "('shape',), (3,), np.full((60, 1), 9)",
    "('shape',), (3,), np.full((60, 1), np.nan)",
    "('shape', 'size'), (4, 15), None, 'size'",
    "('shape', 'size'), (4, 15), None, dislab.Circle('angle', 4)",
]
WRONG_DATASETS = [
    {"body": "return None"},
    {"body": "return dislab.Dataset"},
    {"body": "sys.exit(0)"},
    {"body": "raise dislab.DislabError('a\\nb')"},
    {"group_by": "[]"},
    {"group_by": "['shap']"},
    {"group_by": "5"},
    {"image_shape": "(16, 16)"},
    {"name": "'a\\nb'"},
    {"name": "'a' * 200"},
    {"source": "'../../evil'"},
    {"source": "None"},
    {"space": "5"},
    {"body": "return dislab.Dataset('odd', 'own', space, (1, 16, 16), 5, ['shape'])"},
    {"held_out": "np.arange(60)"},
    {"held_out": "np.array([], int)"},
    {"held_out": "[60]"},
    {"held_out": "'x'"},
    *({"space": f"dislab.FactorSpace({space})"} for space in WRONG_SPACES),
]
WRONG_DRAWS = [
    "raise ValueError('a\\nb')",
    "sys.exit(0)",
    "return None",
    "return images[rows].float()",
    "return images[rows].numpy()",
    "return images[rows, :, :8]",
    "return images[rows][1:]",
    "return images[rows].expand(-1, 3, 16, 16)",
]


def write_dataset(draw="return images[rows]", body=None, **changes) -> None:
    arguments = ", ".join(f"{name}={value}" for name, value in (RIGHT | changes).items())
    text = DATASET.format(draw=draw, body=body or f"return dislab.Dataset({arguments})")
    Path("odd.py").write_text(text)
    load_plugin("odd.py")


def refused(**settings) -> str:
    with pytest.raises(DislabError) as error:
        dislab.run("vae", "odd", device="cpu", network="mlp", steps=4, batch_size=16, **settings)
    text = str(error.value)
    assert "odd.py, line" in text and "\n" not in text and "dataset" in text + "space"
    return text


@pytest.mark.parametrize("changes", WRONG_DATASETS)
def test_a_dataset_that_is_wrong_is_refused(folder, changes):
    write_dataset(**changes)
    refused()
    assert not Path("results").exists()


@pytest.mark.parametrize("draw", WRONG_DRAWS)
@pytest.mark.parametrize("when", ["", "if (rows == 7).any(): "])
def test_a_dataset_that_draws_wrong_images_is_named(folder, draw, when):
    write_dataset(draw=f"{when}{draw}\n    return images[rows]")
    assert "dataset 'odd'" in refused()
    assert Path("results").exists() == bool(when), "the images of row 7 are first asked for in training"


def test_stored_images_and_rows_stay_as_they_are(folder):
    """An encoder may write to its images, and `draw` to its rows."""
    write_dataset(draw="rows -= 1; return images[rows + 1]", held_out="np.arange(30, 60)")
    dataset = dislab.load_dataset("odd")
    before = dataset.images(range(60)).clone(), dataset.evaluation_rows().copy()
    dislab.evaluate(lambda images: images.zero_().flatten(1)[:, :2], dataset=dataset, metrics=["mig"])
    assert torch.equal(dataset.images(range(60)), before[0])
    assert np.array_equal(dataset.evaluation_rows(), before[1])
