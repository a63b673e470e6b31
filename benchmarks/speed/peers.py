"""Measure training steps of other libraries beside dislab's: pythae and disent, with models of their own.

A step is of 64 Shapes3D images of 64 x 64 x 3 in float32. They come from memory by the usual way's
DataLoader; only dislab draws them. Counted are this loader, the forward pass, the loss, the gradients, Adam,
and what else the library's own module does in a step. Not counted are the library's datasets, trainer,
callbacks and logs. The latents are as many as in dislab's model; all else is the library's default. So the
others reconstruct with the squared error, which is cheaper than the cross entropy that dislab has.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import statistics
import warnings
from functools import partial
from importlib.metadata import version
from operator import truediv
from typing import ClassVar

import pandas as pd
import torch
from torch import Tensor

from dislab.benchmarks.speed.processes import WayEnded, WayProcess, in_turn, steps_of_a_reading
from dislab.benchmarks.speed.ways import PROTOCOL, Usual, Work, loader, ways_on
from dislab.errors import FAILURES, DislabError, said_by
from dislab.progress import say
from dislab.registry import MODELS

NETWORK = "conv4x4"  # disent's own has these layers too, but wider borders


class Pythae:
    """Trains as pythae's BaseTrainer does, with dislab's network in torch's own layers.

    The default of pythae is one layer of 512 units.
    """

    environment = Usual.environment
    is_exact = False
    network = f"{NETWORK} in torch's layers"
    names: ClassVar = {"vae": "VAE", "betavae": "BetaVAE", "betatcvae": "BetaTCVAE"}

    def __init__(self, work: Work, precision: str, device: torch.device, data_dir):
        self.device = device
        models, parts = of_library("pythae.models"), of_library("pythae.models.nn")
        output = of_library("pythae.models.base.base_utils").ModelOutput
        name = name_of(self, work)
        dataset = work.open("cpu", data_dir)
        ours = work.make_model(dataset.image_shape, work.seed)

        class Encoder(parts.BaseEncoder):
            def __init__(self):
                super().__init__()
                self.network = ours.encoder

            def forward(self, images):
                mean, logvar = self.network(images).chunk(2, dim=-1)
                return output(embedding=mean, log_covariance=logvar)

        class Decoder(parts.BaseDecoder):
            def __init__(self):
                super().__init__()
                self.network = ours.decoder

            def forward(self, codes):
                return output(reconstruction=self.network(codes).sigmoid())

        config = getattr(models, f"{name}Config")(input_dim=dataset.image_shape, latent_dim=ours.latents)
        self.model = getattr(models, name)(config, Encoder(), Decoder()).to(device)
        self.dataset_size = len(dataset.train_rows())
        self.batches = iter(loader(dataset, work, 1, device))
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=PROTOCOL.learning_rate)  # its defaults

    def step(self) -> Tensor:
        images = {"data": next(self.batches).to(self.device)}
        loss = self.model(images, epoch=1, dataset_size=self.dataset_size, uses_ddp=False).loss
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        loss.item()  # for the mean of the epoch, and to see whether it is NaN
        return loss.detach()


class Disent:
    """Trains as Lightning does with disent's frameworks and their default network.

    Its weakly supervised model takes pairs of images: 32 of them are a batch. They are random here.
    """

    environment = Usual.environment
    is_exact = False
    network = "EncoderConv64, DecoderConv64"
    names: ClassVar = {"vae": "Vae", "betavae": "BetaVae", "betatcvae": "BetaTcVae", "mlvae": "AdaVae"}

    def __init__(self, work: Work, precision: str, device: torch.device, data_dir):
        self.device = device
        warnings.simplefilter("ignore")  # without a trainer, Lightning's log() warns and returns
        frameworks, layers = of_library("disent.frameworks.vae"), of_library("disent.model.ae")
        framework = getattr(frameworks, name_of(self, work))
        dataset = work.open("cpu", data_dir)
        shape, latents = dataset.image_shape, work.make_model(dataset.image_shape, work.seed).latents
        encoder = layers.EncoderConv64(shape, latents, z_multiplier=2)
        model = of_library("disent.model").AutoEncoder(encoder, layers.DecoderConv64(shape, latents))
        self.framework = framework(model).to(device)
        self.batches = iter(loader(dataset, work, 1, device))
        self.optimiser = self.framework.configure_optimizers()

    def step(self) -> Tensor:
        images = next(self.batches).to(self.device).chunk(self.framework.REQUIRED_OBS)
        loss = self.framework.training_step({"x": images, "x_targ": images}, 0)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()


PEERS = {"pythae": Pythae, "disent": Disent}


def of_library(module: str):
    """Return a module of another library. Raise DislabError if it cannot be imported."""
    try:
        return importlib.import_module(module)
    except FAILURES as error:
        raise DislabError(f"{module} cannot be imported: {said_by(error, with_type=True)}") from error


def name_of(peer, work: Work) -> str:
    """Return the peer's name of a model of dislab. Raise DislabError if it has none."""
    if work.model not in peer.names:
        raise DislabError("it has no such model")
    return peer.names[work.model]


def measure_peers(device: str, options) -> pd.DataFrame:
    """Return a line for each model and way: its steps/s, and its time per step as a multiple of dislab's.

    A peer that is not installed, or has no such model, is left out; a line on standard error says so.

    Raises
    ------
    DislabError : no peer is installed, or dislab's own model cannot be made.
    """
    installed = [library for library in PEERS if importlib.util.find_spec(library)]
    if not installed:
        raise DislabError(f"none of {', '.join(PEERS)} is installed: pip install {' '.join(PEERS)}")
    for library in PEERS.keys() - installed:
        say(f"{library} is not installed: left out")
    ways = dict(itertools.islice(ways_on(device).items(), 2))  # without bf16
    usual = next(iter(ways))
    for library in installed:
        ways[f"{library} {version(library)}"] = (PEERS[library], ways[usual][1])
    lines = []
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, way in ways.items():
            process = WayProcess(name, *way, device, options.data_dir, options.threads)
            processes[name] = stack.enter_context(contextlib.closing(process))
        for model in options.models.split(","):
            lines += _lines_of(model, processes, ways, device, options)
    return pd.DataFrame(lines)


def _lines_of(model: str, processes, ways, device: str, options) -> list[dict]:
    """Return the lines of a model."""
    usual, ours, *_ = processes
    flop, a_reading, steps = {}, {}, 0
    for name, process in processes.items():
        try:
            process.ask("begin", Work(model, "shapes3d", {"network": NETWORK}))
        except DislabError as error:
            if isinstance(error, WayEnded) or name in (usual, ours):
                raise
            say(f"{name}, {model}: left out: {error}")
            continue
        # The graph of dislab cannot be counted; its model is that of the usual way.
        flop[name] = flop[usual] if name == ours else process.ask("flop")
        process.ask("steps", 5)
        steps = steps or steps_of_a_reading(process, device.partition(":")[0])
        a_reading[name] = partial(process.ask, "steps", steps)
    readings = in_turn(a_reading, options.repeats)
    seconds = {name: [one / steps for one, _ in of_way] for name, of_way in readings.items()}
    lines = []
    for name in readings:
        times = statistics.median(map(truediv, seconds[name], seconds[ours]))
        peer = None if name in (usual, ours) else ways[name][0]
        line = {
            "model": model,
            "way": name,
            "class": peer.names[model] if peer else MODELS[model].make.__name__,
            "network": peer.network if peer else NETWORK,
            "steps/s": round(1 / statistics.median(seconds[name]), 2),
            f"time / {ours}": round(times, 2),
            "GFLOP per step": round(flop[name] / 1e9, 2),
            f"time per FLOP / {ours}": round(times * flop[ours] / flop[name], 2),
        }
        if device == "cpu" and options.threads == 1:
            line["CPU ms per step"] = round(
                1e3 * statistics.median(cpu for _, cpu in readings[name]) / steps, 1
            )
        say(", ".join(f"{key} {value}" for key, value in line.items()))
        lines.append(line)
    return lines
