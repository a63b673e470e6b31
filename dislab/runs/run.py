"""`dislab.run`: train a model, encode the dataset, and score the codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dislab.data.dataset import Dataset
from dislab.errors import RunFailed
from dislab.runs.execute import execute
from dislab.runs.finished import Run
from dislab.runs.images import forget_images
from dislab.runs.machine import Machine
from dislab.runs.record import Results
from dislab.runs.resolve import resolve
from dislab.training.loggers import Callback


def run(
    model: str = "mlvae",
    dataset: str | Dataset = "shapes3d",
    *,
    device: str | None = None,
    data_dir: str | Path | None = None,
    out: str | Path = "results",
    quiet: bool = True,
    log: str | Iterable[str] = (),
    pictures: str = "png",
    callbacks: Sequence[Callback] = (),
    **settings: object,
) -> Run:
    """Train a model, encode the dataset and score the codes.

    A run that was interrupted goes on from its last checkpoint to the same result; one that is finished is
    read from disk, and only scores and pictures that it lacks are made.

    Parameters
    ----------
    model, dataset : registered names; for the dataset also a folder of images, or a Dataset object.
    device : "cpu", "cuda", …; by default CUDA where there is a GPU.
    data_dir : where official files lie, see `dislab.load_dataset`.
    out : the results folder.
    quiet : show no progress.
    log : "tensorboard", "wandb", or both in a list: where loss terms are shown while the model trains.
    pictures : "svg" or "pdf" draws the run's pictures in this format, too, beside PNG.
    callbacks : functions of a step and a dict of loss terms, called every 25 steps and at the last one.
    protocol : "quick" (minutes on a CPU, the default), "fast" (half of its steps), "medium" (a quarter of an
        hour), "paper" (Locatello et al. 2019) or "bouchacourt2017" (12,000 steps of 256 images, of which the
        best validation decides the parameters).
    steps, batch_size : instead of the protocol's.
    precision : "fp32", "tf32" (on CUDA) or "bf16" (the networks; losses and parameters stay float32); by
        default tf32 on CUDA and fp32 on the CPU.
    seed : decides initialisation, batches, noise and the metrics' draws; 0 by default.
    metrics : names of the scores to compute; by default all that apply and are not slow.
    metric_protocol : "locatello2019" (the default), another name, or settings such as "num_train=2000"; a
        score that it changes is recorded under a name of its own, betavae_score@softtpr2024.
    group_by : factor name(s), as a list or "a,b", whose combined value makes a group; a list of such lists
        for several groupings at once, each with a content code of its own; by default the dataset's own.
    hold_out : what is kept from training and scored alone, see `dislab.hold_out`.
    source : "auto" (the default), "official" or "rendered", see `dislab.load_dataset`.
    factors : a CSV file of the factors of a folder of images, see `dislab.from_folder`.
    settings : the parameters from `protocol` on, and the model's own hyper-parameters.

    Raises
    ------
    DislabError : a name or a value is wrong; nothing was trained.
    RunFailed : the training or a metric failed; what was computed before is kept.

    Examples
    --------
    >>> import dislab
    >>> run = dislab.run("oracle", "shapes3d", metrics=["mig"])  # doctest: +SKIP
    >>> run.scores["mig"] > 0.9  # doctest: +SKIP
    True
    """
    log = [log] if isinstance(log, str) else log
    machine = Machine.here(device, data_dir=data_dir, out=out, quiet=quiet, log=log, pictures=pictures)
    forget_images()
    try:
        (outcome,) = execute([resolve(model, dataset, machine, **settings)], machine, callbacks)
    finally:
        forget_images()
    if outcome.failure:
        raise RunFailed(outcome.failure)
    return Results(machine.out).run_of(outcome.record)
