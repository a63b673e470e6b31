"""Whatever a user's model, plug-in file or dataset does, a run ends in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dislab
from dislab.errors import DislabError
from dislab.registry import MODELS, load_plugin
from dislab.training.batches import Batches
from dislab.training.checkpoint import Member
from dislab.training.protocol import PROTOCOLS
from dislab.training.steps import SingleSteps


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
