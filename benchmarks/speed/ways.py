"""The ways of training and encoding that are compared, each in a process of its own.

"dislab" is what `dislab run` does. "usual" is what one would write with torch alone: images in memory behind
a DataLoader, the channels first, float32 and torch's layers, cross entropy and Adam as they come. Both take
the same models with the same initial parameters.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import dislab
from dislab.benchmarks.speed.metrics import peak_memory
from dislab.data.devices import choose_device
from dislab.data.groups import Groups
from dislab.networks import distributions
from dislab.networks.fused import Double, Halve
from dislab.registry import MODELS
from dislab.runs.run import encode_on
from dislab.scoring.encoding import encode
from dislab.training.batches import Batch, Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import keep_freed_memory, steps_of
from dislab.training.precision import arithmetic, compute_in_bfloat16

LEARNING_RATE = 1e-4
POOL = 20_000  # images that the usual way holds in memory; a whole grid would be 6 GB
MATMUL = 2048  # rows and columns of the matrices whose product is the measured peak


@dataclass(frozen=True)
class Work:
    """What is trained or encoded.

    Attributes
    ----------
    model, dataset : registered names.
    hyperparameters : the model's.
    batch_size : images per step.
    members : models that are trained at once, as a stack.
    rows : so many of the dataset's images are trained on; None is all.
    seed : of the initial parameters and the batches; further members have the seeds after it.
    """

    model: str
    dataset: str
    hyperparameters: Mapping = field(default_factory=dict)
    batch_size: int = 64
    members: int = 1
    rows: int | None = None
    seed: int = 0

    def make_model(self, image_shape, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return MODELS[self.model].make(image_shape, **self.hyperparameters)

    def open(self, device, data_dir):
        dataset = dislab.load_dataset(self.dataset, device=str(device), data_dir=data_dir)
        if self.rows is None:
            return dataset
        return dataset.with_held_out(np.arange(self.rows, len(dataset)), "")


class OfDislab:
    """As `dislab run` trains and encodes."""

    environment: ClassVar = {}

    def __init__(self, work: Work, precision: str, device: torch.device, data_dir):
        keep_freed_memory()
        self.device, self.precision = device, precision
        self.dataset = work.open(device, data_dir)
        members = []
        for seed in range(work.seed, work.seed + work.members):
            model = work.make_model(self.dataset.image_shape, seed)
            model = model.to(device, memory_format=torch.channels_last)
            if precision == "bf16":
                compute_in_bfloat16(model)
            batches = Batches(self.dataset, model, work.batch_size, [self.dataset.group_by], seed, device)
            members.append(Member(model, batches, Path("no-checkpoint")))
        self.model = members[0].model
        for member in members:
            member.resume(LEARNING_RATE)
        self.all_steps = list(steps_of(members, LEARNING_RATE, quiet=True))

    def step(self) -> Tensor:
        losses = [steps.step()["loss"].mean() for steps in self.all_steps]
        return torch.stack(losses).mean()

    def encode(self, rows: np.ndarray) -> None:
        encode(partial(encode_on, self.device, self.model), self.dataset, rows)


class Usual:
    """A DataLoader, contiguous images, eager float32, torch.optim.Adam."""

    environment: ClassVar = {"GOMP_SPINCOUNT": "300000"}  # GNU's OpenMP by default, which dislab changes

    def __init__(self, work: Work, precision: str, device: torch.device, data_dir):
        self.device = device
        dataset = work.open("cpu", data_dir)
        rows = dataset.train_rows()[:: max(1, len(dataset.train_rows()) // POOL)][:POOL]
        self.images = ImagesInMemory(dataset, rows)
        self.model = work.make_model(dataset.image_shape, work.seed).to(device)
        self.model.encoder, self.model.decoder = plain(self.model.encoder), plain(self.model.decoder)
        # (Nothing else computes in this way's process.)
        distributions.bernoulli = partial(F.binary_cross_entropy_with_logits, reduction="none")
        self.latents, self.number = self.model.latents, len(dataset.train_rows())
        size = self.model.group_size if self.model.batch == "groups" else 1
        index = torch.arange(work.batch_size) // size
        self.groups = Groups(index.to(device), torch.arange(0, work.batch_size, size).to(device))
        labels = dataset.space.labels(dataset.group_by, rows)
        workers = 4 if device.type == "cuda" else 0  # on the CPU they would take the cores from the training
        self.loader = DataLoader(
            self.images,
            batch_sampler=Sampler(labels, work.batch_size, size, work.seed),
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
        self.batches = iter(self.loader)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.number_of_step = 0

    def step(self) -> Tensor:
        images = next(self.batches).to(self.device, non_blocking=True)
        noise = torch.randn(len(images), self.latents, device=self.device)
        number = torch.tensor(float(self.number_of_step), device=self.device)
        loss = self.model.loss(Batch(images, noise, self.number, (self.groups,)), number)["loss"]
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.number_of_step += 1
        return loss.detach()

    def encode(self, rows: np.ndarray) -> None:
        some = torch.utils.data.Subset(self.images, (rows % len(self.images)).tolist())
        codes = []
        with torch.no_grad():
            for images in DataLoader(some, batch_size=64, num_workers=self.loader.num_workers):
                codes.append(self.model.encode(images.to(self.device))[0].cpu())
        torch.cat(codes)


def plain(network: nn.Sequential) -> nn.Sequential:
    """The network as one writes it with torch's own layers. It takes over the layers of the one given."""
    layers = []
    for layer in network:
        if isinstance(layer, (Halve, Double)):
            if layer.rectify:
                layers.append(nn.ReLU())
            layer.__class__ = nn.Conv2d if isinstance(layer, Halve) else nn.ConvTranspose2d
        layers.append(nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
    return nn.Sequential(*layers)


class ImagesInMemory(Dataset):
    """Images as a map-style dataset: float32 [C, H, W] in [0, 1] by index."""

    def __init__(self, dataset, rows: np.ndarray):
        parts = [dataset.images(part) for part in np.array_split(rows, -(-len(rows) // 1024))]
        self.pixels = torch.cat(parts).contiguous()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index].float() / 255


class Sampler:
    """Batches of indices without end: random groups, and in each `size` random images."""

    def __init__(self, labels: np.ndarray, batch_size: int, size: int, seed: int):
        self.batch_size, self.size, self.seed = batch_size, size, seed
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.number = len(labels)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(self.seed)
        while True:
            if self.size == 1:
                yield rng.integers(self.number, size=self.batch_size).tolist()
                continue
            groups = rng.integers(len(self.members), size=-(-self.batch_size // self.size))
            chosen = [rng.choice(self.members[group], self.size, replace=False) for group in groups]
            yield np.concatenate(chosen)[: self.batch_size].tolist()


class Competitor:
    """A way in a process of its own, so that what one sets for its process is not the other's.

    Parameters
    ----------
    kind : OfDislab or Usual.
    precision : "fp32", "tf32" or "bf16".
    """

    def __init__(self, kind: type, precision: str, device: str, data_dir, threads: int):
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        arguments = (there, kind, precision, device, data_dir, threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        before = dict(os.environ)
        os.environ.update(kind.environment)
        try:
            self.process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        there.close()

    def begin_to(self, what: str, *arguments) -> None:
        """Let the process do something; see `_serve`."""
        self.connection.send((what, arguments))

    def answer(self):
        """Wait for what the process says of it."""
        try:
            answer = self.connection.recv()
        except EOFError:
            raise dislab.RunFailed("a process of the benchmark ended before it answered") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, what: str, *arguments):
        """Let the process do something, and wait for what it says."""
        self.begin_to(what, *arguments)
        return self.answer()

    def close(self) -> None:
        self.connection.close()
        self.process.join()


class Team:
    """Processes that do the same at the same time, as the seeds of `dislab run` on a CPU.

    Parameters
    ----------
    number : of the processes, each with its share of the threads.
    others : see `Competitor`.
    """

    def __init__(self, number: int, kind: type, precision: str, device: str, data_dir, threads: int):
        share = max(1, threads // number)
        self.members = [Competitor(kind, precision, device, data_dir, share) for _ in range(number)]

    def ask(self, what: str, *arguments) -> list:
        """Let all do something, and wait for what each says."""
        for member in self.members:
            member.begin_to(what, *arguments)
        return [member.answer() for member in self.members]

    def close(self) -> None:
        for member in self.members:
            member.close()


def _serve(connection, kind: type, precision: str, device: str, data_dir, threads: int) -> None:
    torch.set_num_threads(threads)
    place = choose_device(device)
    way = None

    def begin(work: Work) -> None:
        nonlocal way
        way = None  # (frees what the last one held)
        way = kind(work, precision, place, data_dir)

    def steps(number: int) -> float:
        """Seconds of so many steps."""
        began = time.perf_counter()
        for _ in range(number):
            loss = way.step()
        loss.item()
        return time.perf_counter() - began

    def losses(number: int, every: int) -> list[float]:
        """The mean loss of every so many steps."""
        return [torch.stack([way.step() for _ in range(every)]).mean().item() for _ in range(number // every)]

    def encoding(number: int) -> float:
        """Seconds to encode so many rows."""
        rows = np.arange(number)
        began = time.perf_counter()
        way.encode(rows)
        return time.perf_counter() - began

    def peak() -> float:
        """FLOP/s of a matrix product in this precision."""
        kind_of = torch.bfloat16 if precision == "bf16" else torch.float32
        one = torch.randn(MATMUL, MATMUL, device=place).to(kind_of)
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            (one @ one)[0, 0].item()
            seconds.append(time.perf_counter() - began)
        return 2 * MATMUL**3 / min(seconds)

    def memory() -> float:
        """MB that the process, or on a GPU its tensors, held at most."""
        if place.type == "cuda":
            return torch.cuda.max_memory_allocated(place) / 1e6
        return peak_memory()

    tasks = {task.__name__: task for task in (begin, steps, losses, encoding, peak, memory)}
    with arithmetic(place, precision):
        for _ in itertools.count():
            try:
                what, arguments = connection.recv()
            except EOFError:
                return
            try:
                connection.send(tasks[what](*arguments))
            except dislab.DislabError as error:
                connection.send(error)
