"""A dataset of 60 small images, a study of it, and the commands that are stopped and raced."""

from __future__ import annotations

from pathlib import Path

PLUGIN = '''"""A tiny dataset, and a checkpoint at every look at the loss."""

import numpy as np
import torch

import dislab
import dislab.training.loop

dislab.training.loop.SECONDS_BETWEEN_CHECKPOINTS = 0


@dislab.register_dataset("bars")
def bars(source, data_dir, device):
    """A bright bar."""
    space = dislab.FactorSpace(("shape", "size", "position"), (4, 3, 5))
    images = torch.zeros(len(space), 1, 16, 16, dtype=torch.uint8)
    for row, (shape, size, position) in enumerate(space.factors(np.arange(len(space)))):
        images[row, 0, 3 * shape : 3 * shape + size + 1, 3 * position : 3 * position + 3] = 255 - 20 * shape
    return dislab.Dataset("bars", "rendered", space, (1, 16, 16), lambda rows: images[rows], ["shape"])
'''
STUDY = """title = "Bars"
steps = 50
batch_size = 16
metrics = ["mig"]
figures = ["scores_by_model"]

[[runs]]
model = ["vae", "betavae"]
dataset = "bars"
set = { network = "mlp" }
"""
PLUGINS = ["--plugin", "bars.py"]
TRAINING = ["--device", "cpu", *PLUGINS]
SMALL = ["--dataset", "bars", "--set", "network=mlp", "--batch-size", "16", "--metrics", "mig", *TRAINING]
RUN = ["run", "--model", "vae", "--steps", "100", *SMALL]
SEEDS = ["run", "--model", "vae", "--steps", "50", "--seeds", "0-1", "--jobs", "2", *SMALL]
BENCH = ["bench", "study.toml", "--jobs", "1", *TRAINING]
EVALUATE = ["evaluate", "results", "--metrics", "sap,irs", *PLUGINS]


def furnish(folder: Path) -> Path:
    """Make a working folder with the plug-in and the study; return it."""
    folder.mkdir(parents=True)
    (folder / "bars.py").write_text(PLUGIN)
    (folder / "study.toml").write_text(STUDY)
    return folder


def places(folder: Path) -> dict[str, str]:
    """Return the variables that keep a command's cache and temporary files in a folder."""
    places = {"DISLAB_CACHE": folder / "cache", "TMPDIR": folder / "tmp"}
    for path in places.values():
        path.mkdir(exist_ok=True)
    return {name: str(path) for name, path in places.items()}
