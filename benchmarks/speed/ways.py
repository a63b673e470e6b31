"""The two ways of training and encoding that are compared.

`OfDislab` does what `dislab run` does. `Usual` is what one would write with torch alone: images in memory
behind a DataLoader, channels first, float32, and torch's layers, cross entropy and Adam with their defaults.
Both have the same models with the same initial parameters.
"""

from __future__ import annotations

import timeit
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
from dislab.data.groups import Groups
from dislab.networks import distributions
from dislab.networks.fused import fuse
from dislab.registry import MODELS
from dislab.scoring.encoding import encode, encode_on
from dislab.training.batches import Batch, Batches
from dislab.training.checkpoint import Member
from dislab.training.loop import keep_freed_memory, steps_of
from dislab.training.precision import compute_in_bfloat16
from dislab.training.protocol import PROTOCOLS, usual_precision

PROTOCOL = PROTOCOLS["paper"]
POOL = 20_000  # images that the usual way holds in memory; a whole grid would take 6 GB


@dataclass(frozen=True)
class Work:
    """What to train or to encode.

    Attributes
    ----------
    model, dataset : registered names.
    hyperparameters : the model's.
    batch_size : images per step.
    members : number of models that are trained at once.
    rows : number of the dataset's images that are trained on; None is all.
    seed : decides the initial parameters and the batches. Further members have the seeds after it.
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
    """Trains and encodes as `dislab run` does.

    Attributes
    ----------
    environment : variables of the environment of the process.
    is_exact : whether the process computes in `dislab.training.precision.arithmetic`, or as torch comes.
    """

    environment: ClassVar = {}
    is_exact = True

    def __init__(self, work: Work, precision: str, device: torch.device, data_dir):
        keep_freed_memory()
        self.device = device
        self.dataset = work.open(device, data_dir)
        members = []
        for seed in range(work.seed, work.seed + work.members):
            model = work.make_model(self.dataset.image_shape, seed)
            model = fuse(model.to(device, memory_format=torch.channels_last))
            if precision == "bf16":
                compute_in_bfloat16(model)
            batches = Batches(self.dataset, model, work.batch_size, [self.dataset.group_by], seed, device)
            members.append(Member(model, batches, Path("no-checkpoint")))
        self.model = members[0].model
        for member in members:
            member.resume(PROTOCOL.learning_rate)
        self.steps = steps_of(members, PROTOCOL, quiet=False)

    def step(self) -> Tensor:
        return self.steps.step()["loss"].mean()

    def encode(self, rows: np.ndarray) -> None:
        encode(partial(encode_on, self.device, self.model), self.dataset, rows % len(self.dataset))


class Usual:
    """A DataLoader, contiguous images, eager float32 as torch has it, torch.optim.Adam."""

    environment: ClassVar = {"GOMP_SPINCOUNT": "300000"}  # the default of GNU OpenMP; dislab changes it
    is_exact = False

    def __init__(self, work: Work, precision: str, device: torch.device, data_dir):
        self.device = device
        dataset = work.open("cpu", data_dir)
        self.model = work.make_model(dataset.image_shape, work.seed).to(device)
        # Replaces dislab's cross entropy by torch's in the whole process, which computes nothing else.
        distributions.bernoulli = partial(F.binary_cross_entropy_with_logits, reduction="none")
        self.latents, self.dataset_size = self.model.latents, len(dataset.train_rows())
        size = self.model.group_size if self.model.supervision == "groups" else 1
        index = torch.arange(work.batch_size) // size
        self.groups = Groups(index.to(device), torch.arange(0, work.batch_size, size).to(device))
        self.loader = loader(dataset, work, size, device)
        self.batches = iter(self.loader)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=PROTOCOL.learning_rate)
        self.number_of_step = 0

    def step(self) -> Tensor:
        images = next(self.batches).to(self.device, non_blocking=True)
        noise = torch.randn(len(images), self.latents, device=self.device)
        number = torch.tensor(float(self.number_of_step), device=self.device)
        loss = self.model.loss(Batch(images, noise, self.dataset_size, (self.groups,)), number)["loss"]
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.number_of_step += 1
        return loss.detach()

    def encode(self, rows: np.ndarray) -> None:
        images = self.loader.dataset
        some = torch.utils.data.Subset(images, (rows % len(images)).tolist())
        codes = []
        with torch.no_grad():
            for images in DataLoader(some, batch_size=64, num_workers=self.loader.num_workers):
                codes.append(self.model.encode(images.to(self.device))[0].cpu())
        torch.cat(codes)


def loader(dataset, work: Work, group_size: int, device: torch.device) -> DataLoader:
    """Return a loader of endless batches of images in memory: at most POOL, from the whole training set."""
    rows = dataset.train_rows()
    rows = rows[:: max(1, len(rows) // POOL)][:POOL]
    labels = dataset.space.labels(dataset.group_by, rows)
    return DataLoader(
        ImagesInMemory(dataset, rows),
        batch_sampler=Sampler(labels, work.batch_size, group_size, work.seed),
        # On a CPU workers would take cores from the training.
        num_workers=4 if device.type == "cuda" else 0,
        pin_memory=device.type == "cuda",
    )


class ImagesInMemory(Dataset):
    """A map-style dataset of images, float32 [C, H, W] in [0, 1]."""

    def __init__(self, dataset, rows: np.ndarray):
        parts = [dataset.images(part) for part in np.array_split(rows, -(-len(rows) // 1024))]
        self.pixels = torch.cat(parts).contiguous()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index].float() / 255


class Sampler:
    """Endless batches of indices: random groups, and `size` random images of each."""

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


def multiplies_bf16(device: str) -> bool:
    """Return whether a matrix product in bf16 takes less than twice the time of one in float32.

    On a CPU without instructions for bf16 it was measured at 300 times the time. True on other devices.
    """
    if device != "cpu":
        return True
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=dtype)
        seconds[dtype] = min(timeit.repeat(lambda it=matrix: it @ it, number=1, repeat=5))
    return seconds[torch.bfloat16] < 2 * seconds[torch.float32]


def ways_on(device: str) -> dict[str, tuple[type, str]]:
    """Return the ways by the names of their columns, with their precisions. The first is the usual one.

    Its precision is that of its convolutions, which torch computes in TF32 on CUDA.
    """
    usual = usual_precision(device)
    ways = {"usual": (Usual, usual), f"dislab {usual}": (OfDislab, usual)}
    return ways | ({"dislab bf16": (OfDislab, "bf16")} if multiplies_bf16(device) else {})
