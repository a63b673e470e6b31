"""Plug-in files that misbehave: the message names the file."""

from __future__ import annotations

import random
from pathlib import Path

from dislab.benchmarks.robustness import bars
from dislab.benchmarks.robustness.cases.case import DONE, FAILED, QUICK, REFUSED, Case

HEAD = """import os
import sys

import numpy as np
import torch

import dislab
from dislab.models.vae import VAE

"""
METRIC = (
    HEAD + '@dislab.register_metric("odd", slow=True)\ndef odd(table, rng):\n    """A metric."""\n    {}\n'
)
RETURNS = (
    "None",
    '"text"',
    "object()",
    "float('nan')",
    "10**400",
    "-10**400",
    "float('inf')",
    "{1: 2}",
    "{}",
    "[]",
    "()",
)
RETURNS += (
    '{"odd": None}',
    '{"odd": "x"}',
    '{"odd": 1, 2: 3}',
    '{"odd": {1, 2}}',
    '{"odd": [[1, 2], [3]]}',
    "True",
    "1j",
)
RETURNS += (
    '{"other": 1.0}',
    '{"odd": 1, "odd_x": object()}',
    "np.array([1.0, 2.0])",
    "np.array(['a'])",
    "torch.ones(3)",
)
RETURNS += (
    '{"odd": 1, "odd_x\\n": 2}',
    '{"odd": 1, "odd_x": [10**400]}',
    '{"odd": 1, "odd_x": float("nan")}',
    "odd",
    "b'x'",
)
RETURNS += (
    '{"odd": 1, None: 2}',
    '{"odd": 1, "odd_x": "text"}',
    '{"odd": 1, "odd_x": [None]}',
    "iter([1])",
    "np.ma.masked",
)
DOES = (
    'raise ValueError("no\\ncodes")',
    'raise ValueError("\\x1b[31mred")',
    "raise ValueError",
    "raise KeyError('x')",
)
DOES += (
    "sys.exit(0)",
    "sys.exit('bye')",
    "raise KeyboardInterrupt",
    "raise MemoryError",
    "return odd(table, rng)",
)
DOES += (
    "table.mean[:] = 0; return 1.0",
    "table.factors[:] = 0; return 1.0",
    "os.chdir('..'); return 1.0",
    "assert False",
)
DOES += (
    "table.mean = None; return 1.0",
    "return np.zeros((10**6, 10**6)).sum()",
    "raise StopIteration",
    "raise SystemExit",
)
DOES += (
    "raise Exception('x' * 10**6)",
    "raise dislab.DislabError('a\\nb')",
    "raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'y')",
)
DOES += (
    "sys.stdout.close(); return 1.0",
    "return 1 / 0",
)
DOES += (
    "import warnings; warnings.warn('a\\nb', dislab.DislabWarning); return 1 / 0",
    "raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})",
)
FILES = (
    "def f(:\n",
    "1 / 0\n",
    "import not_there\n",
    "raise ValueError('a\\nb')\n",
    "raise ValueError('\\x1b[31m')\n",
    "import sys\nsys.exit(0)\n",
    "import sys\nsys.exit('bye\\nbye')\n",
    "raise KeyboardInterrupt\n",
    "def f():\n    f()\nf()\n",
    "raise BaseException('x')\n",
    "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})\n",
    "\0",
    "# coding: nothing\n",
    "'\\ud800'\nraise ValueError('\\ud800')\n",
    "x = " + "(" * 3000 + ")" * 3000 + "\n",
    HEAD + "dislab.register_metric('odd')(3)\n",
    HEAD + "dislab.register_metric('o\\ndd')(lambda table, rng: 1.0)\n",
    HEAD + "dislab.register_metric(3)(lambda table, rng: 1.0)\n",
    HEAD + "dislab.register_metric('mig')(lambda table, rng: 1.0)\n",
    HEAD + "dislab.register_metric('odd', needs=('x\\ny',))(lambda table, rng: 1.0)\n",
    HEAD + "dislab.register_metric('odd', low='x')(lambda table, rng: 1.0)\n",
    HEAD + "dislab.register_metric('odd', direction=3)(lambda table, rng: 1.0)\n",
    HEAD + "dislab.register_metric('odd', title=3)(lambda table, rng: 1.0)\n",
    HEAD + "dislab.register_metric('odd', needs=3)(lambda table, rng: 1.0)\n",
    HEAD + "@dislab.register_metric('odd')\ndef odd(table):\n    return 1.0\n",
    HEAD + "@dislab.register_metric\ndef odd(table, rng):\n    return 1.0\n",
    HEAD + "dislab.register_dataset('../../evil')(lambda source, data_dir, device: None)\n",
    HEAD + "dislab.register_dataset('vae', reference=3)(None)\n",
    HEAD + "dislab.register_model('odd')(None)\n",
)
MODEL = HEAD + '@dislab.register_model("odd")\nclass Odd(VAE):\n    """A model."""\n    {}\n'
MODELS = (
    "def loss(self, batch, step): raise ValueError('no\\nloss')",
    "def loss(self, batch, step): return None",
    "def loss(self, batch, step): return {}",
    "def loss(self, batch, step): return {'loss': None}",
    "def loss(self, batch, step): return {'loss': 3.0}",
    "def loss(self, batch, step): return {'loss': torch.zeros(())}",
    "def loss(self, batch, step): return {'loss': torch.ones(3)}",
    "def loss(self, batch, step): return {'loss': torch.tensor(1)}",
    "def loss(self, batch, step): return {'other': torch.zeros(())}",
    "def loss(self, batch, step): return super().loss(batch, step) | {3: torch.zeros(())}",
    "def loss(self, batch, step): return super().loss(batch, step) | {'a,b\\n': torch.zeros(())}",
    "def loss(self, batch, step): return super().loss(batch, step) | {'text': 'x'}",
    "def loss(self, batch, step): return super().loss(batch, step) | {'nan': torch.tensor(torch.nan)}",
    "def loss(self, batch, step): sys.exit(0)",
    "def loss(self, batch, step): raise KeyboardInterrupt",
    "def loss(self, batch): return None",
    "def loss(self): return None",
    "loss = None",
    "loss = 3",
    "def encode(self, images): return None",
    "def encode(self, images): return images",
    "def encode(self, images): return torch.zeros(3)",
    "def encode(self, images): return torch.zeros(len(images), 0)",
    "def encode(self, images): return torch.full((len(images), 10), torch.nan)",
    "def encode(self, images): return torch.zeros(len(images) + 1, 10)",
    "def encode(self, images): return 'x'",
    "def encode(self, images): return [1, 2, 3]",
    "def encode(self, images): return torch.zeros(len(images), 10, dtype=torch.complex64)",
    "def decode(self, codes): return None",
    "def decode(self, codes): raise ValueError('no\\nimages')",
    "def decode(self, codes): return codes",
    "def mean_image(self, codes): return 'x'",
    "def mean_image(self, codes): return codes",
    "def reconstruction(self, images, noise): return 'x'",
    "def reconstruction(self, images, noise): return torch.full((len(images),), torch.nan)",
    "def report(self, image_shape): return 3",
    "def report(self, image_shape): return 'x'",
    "def report(self, image_shape): return {3: 4}",
    "def report(self, image_shape): return {'x': 'text'}",
    "def report(self, image_shape): return {'x': object()}",
    "def report(self, image_shape): return {'x': float('nan')}",
    "def report(self, image_shape): return {'x': 10**400}",
    "def report(self, image_shape): raise ValueError('a\\nb')",
    "report = 'text'",
    "supervision = 'none'",
    "supervision = 'groups'",
    "supervision = None",
    "supervision = []",
    "supervision = 'x\\ny'",
    "blocks = 3",
    "blocks = {'x': 3}",
    "blocks = {'content': slice(0, 99), 'style': slice(99, 100)}",
    "likelihood = 'x'",
    "latents = 'ten'",
    "def __init__(self): super().__init__((1, 16, 16))",
    "def __init__(self, image_shape, latents): super().__init__(image_shape)",
    "def __init__(self, image_shape, *, latents=None): super().__init__(image_shape)",
    "def __init__(self, image_shape, *, beta=object()): super().__init__(image_shape)",
    "def __init__(self, image_shape, *, beta=1.0): raise ValueError('a\\nb')",
    "def __init__(self, image_shape, *, beta=1.0): pass",
    "def __init__(self, image_shape, *, beta=1.0): sys.exit(0)",
    "def __init_subclass__(cls): raise ValueError('a\\nb')",
    "def state_dict(self, *a, **k): raise ValueError('a\\nb')",
    "def state_dict(self, *a, **k): return {'x': 3}",
    "def train(self, mode=True): raise ValueError('a\\nb')",
    "def parameters(self, recurse=True): return iter(())",
)
OTHER_MODELS = (
    "@dislab.register_model('odd')\ndef odd(image_shape):\n    return torch.nn.Identity()\n",
    "dislab.register_model('odd')(torch.nn.Identity)\n",
    "dislab.register_model('odd')(torch.nn.Identity())\n",
    "dislab.register_model('odd')(int)\n",
    "@dislab.register_model('odd')\nclass Odd:\n    supervision = 'none'\n",
    "@dislab.register_model('odd')\nclass Odd(torch.nn.Module):\n    supervision = 'none'\n",
    "@dislab.register_model('odd')\nclass Odd(torch.nn.Module):\n    supervision = 'none'\n"
    "    def __init__(self, image_shape): super().__init__()\n"
    "    def fit(self, dataset, rows, generator): raise ValueError('a\\nb')\n"
    "    def encode(self, images): return images.flatten(1)\n",
)
DATASET = (
    HEAD
    + """images = torch.randint(0, 255, (12, 1, 16, 16), dtype=torch.uint8)

def made(name="odd", source="rendered", space=(("shape", "size"), (4, 3)), shape=(1, 16, 16),
         draw=lambda rows: images[rows], group_by=("shape",)):
    return dislab.Dataset(name, source, space and dislab.FactorSpace(*space), shape, draw, group_by)

@dislab.register_dataset("odd")
def odd(source, data_dir, device):
    {}
"""
)
DATASETS = (
    "return None",
    "return 3",
    "raise ValueError('no\\nimages')",
    "sys.exit(0)",
    "raise KeyboardInterrupt",
    "return made(name='../../evil')",
    "return made(name='/evil')",
    "return made(name='..', source='..')",
    "return made(name='', source='')",
    "return made(name='a\\nb')",
    "return made(name='a\\0b')",
    "return made(name='a' * 300)",
    "return made(name=3)",
    "return made(source='../../evil')",
    "return made(source=3)",
    "return made(space=None)",
    "return made(shape=(1, 16))",
    "return made(shape=(0, 16, 16))",
    "return made(shape='abc')",
    "return made(shape=(3, 64, 64))",
    "return made(group_by=[])",
    "return made(group_by=['shap'])",
    "return made(group_by=3)",
    "return made(group_by=None)",
    "return made(draw=lambda rows: None)",
    "return made(draw=lambda rows: 1 / 0)",
    "return made(draw=lambda rows: images[rows].float())",
    "return made(draw=lambda rows: images[rows].numpy())",
    "return made(draw=lambda rows: images)",
    "return made(draw=lambda: images)",
    "return made(draw=images)",
    "return made(draw=lambda rows: sys.exit(0))",
    "return made(space=((), ()))",
    "return made(space=(('a', 'a'), (2, 2)))",
    "return made(space=(('a',), (0,)))",
    "return made(space=(('a',), (-1,)))",
    "return made(space=(('shape',), (10**30,)))",
    "return made(space=(('a\\nb',), (3,)))",
    "return made(space=(3, 4))",
    "return dislab.Dataset()",
)
NETWORK = (
    HEAD + "@dislab.register_network('odd')\ndef odd(image_shape, outputs, latents, channels):\n    {}\n"
)
NETWORKS = (
    "return None",
    "return 3, 4",
    "raise ValueError('a\\nb')",
    "sys.exit(0)",
    "return torch.nn.Identity(), torch.nn.Identity()",
    "return torch.nn.Flatten()",
    "return torch.nn.Flatten(), torch.nn.Flatten(), torch.nn.Flatten()",
    "return torch.nn.LazyLinear(3), torch.nn.LazyLinear(4)",
)
LONG = {  # kind -> files
    "file": FILES,
    "metric": tuple(METRIC.format(f"return {value}") for value in RETURNS) + tuple(map(METRIC.format, DOES)),
    "model": tuple(map(MODEL.format, MODELS)) + tuple(HEAD + text for text in OTHER_MODELS),
    "dataset": tuple(DATASET.replace("{}", text) for text in DATASETS),
    "network": tuple(map(NETWORK.format, NETWORKS)),
}
ALL = [(kind, index) for kind, texts in LONG.items() for index in range(len(texts))]


def plugins(draw: random.Random, number: int) -> Case:
    """A plug-in file that misbehaves, in turn over all of them; later also cut and damaged files."""
    kind, index = ALL[number % len(ALL)]
    text = LONG[kind][index]
    usual = ["--steps", "2", "--batch-size", "8", "--device", "cpu", "--plugin", "odd.py"]
    arguments = {
        "file": [*QUICK, "--plugin", "odd.py"],
        "metric": [*QUICK, "--metrics", "odd,mig", "--plugin", "odd.py"],
        "model": ["run", "--model", "odd", "--dataset", "bars", "--metrics", "mig", *usual, *bars.PLUGINS],
        "dataset": ["run", "--model", "vae", "--dataset", "odd", "--metrics", "mig", *usual],
        "network": [*QUICK, "--set", "network=odd", "--plugin", "odd.py"],
    }[kind]
    if kind == "model" and "class Odd(VAE)" in text:
        arguments = [*arguments, "--set", "network=mlp"]
    about = text.replace(HEAD, "").splitlines()[-1].strip() if text.strip("\0\n") else ascii(text)
    if number >= len(ALL):
        place = draw.randrange(len(text))
        text = (
            text[:place]
            + draw.choice(("", "\n", "(", "\0", "'", "\t", "1"))
            + text[place + draw.randint(0, 3) :]
        )
        about = f"damaged: {about}"
    is_wrong = number < len(ALL) and kind in ("file", "dataset", "network") and "source=" not in about
    expect = (FAILED, REFUSED) if is_wrong else (DONE, FAILED, REFUSED)
    if "KeyboardInterrupt" in text:  # as if Ctrl-C was pressed
        expect = (*expect, 130)

    def prepare(folder: Path) -> None:
        (folder / "odd.py").write_bytes(text.encode("utf-8", "surrogatepass"))

    return Case(arguments, expect, prepare, f"{kind}: {about[:100]}")
