"""A plug-in of a tiny dataset, models that fail and a metric that fails, for tests of runs and studies."""

from pathlib import Path

import dislab

PLUGIN = '''
import os
import signal
import sys
import numpy as np
import torch
import dislab
from dislab.models.vae import VAE

@dislab.register_dataset("bars")
def bars(source, data_dir, device):
    """A bright bar."""
    space = dislab.FactorSpace(("shape", "size", "position"), (4, 3, 5))
    images = torch.zeros(len(space), 1, 16, 16, dtype=torch.uint8)
    for row, (shape, size, position) in enumerate(space.factors(np.arange(len(space)))):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 255
    images = images.to(device)
    return dislab.Dataset("bars", "rendered", space, (1, 16, 16), lambda rows: images[rows], ["shape"])

@dislab.register_model("diverges")
class Diverges(VAE):
    """A model whose loss turns NaN."""
    def loss(self, batch, step):
        return {"loss": super().loss(batch, step)["loss"] * torch.nan}

@dislab.register_model("is_killed")
class IsKilled(VAE):
    """A model whose process the kernel kills."""
    def loss(self, batch, step):
        os.kill(os.getpid(), signal.SIGKILL)

@dislab.register_model("ends")
class Ends(VAE):
    """A model that ends its program, and reads what is not for it."""
    def loss(self, batch, step):
        assert not sys.stdin.readline()
        sys.exit(3)

@dislab.register_metric("always_fails", slow=True)
def always_fails(table, rng):
    """A metric that raises."""
    raise ValueError("no codes today")
'''

# Added to a plug-in: processes that load it draw no pictures, which would take most of their time.
PLAIN = """
import dislab.runs.perform

dislab.runs.perform.draw_pictures = lambda *scene: []
"""

SMALL = """
steps = 30
batch_size = 16
metrics = ["mig"]
figures = ["scores_by_model"]
[[runs]]
model = ["vae", "betavae"]
dataset = "bars"
set = { network = "mlp" }
"""


def runs_of(folder, **wanted) -> list:
    """The finished runs below a folder that have the wanted values in their configuration, by seed."""
    runs = [dislab.load(path.parent) for path in Path(folder).rglob("run.json")]
    return sorted(
        (
            run
            for run in runs
            if all(
                (vars(run.config) | run.config.hyperparameters).get(name) == v for name, v in wanted.items()
            )
        ),
        key=lambda run: run.config.seed,
    )
