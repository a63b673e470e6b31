"""The images of a run: the dataset that its configuration names, opened on this machine."""

from __future__ import annotations

import copy
import hashlib
import warnings

import numpy as np

from dislab.data.dataset import SOURCES, Dataset
from dislab.data.hold_out import hold_out as without
from dislab.data.load import is_folder_text, load_dataset
from dislab.errors import DislabError, DislabWarning
from dislab.progress import say
from dislab.registry import DATASETS
from dislab.runs.config import MEMORY, UNPUBLISHED, RunConfig
from dislab.runs.machine import Machine

DIGESTED = 256  # images of an object that a user made

# Dataset objects that the running program passed to `resolve`, by name, source and split.
in_memory: dict[tuple[str, str, str], Dataset] = {}


def images_of(config: RunConfig, machine: Machine) -> Dataset:
    """Open the dataset of a run, with what it holds out.

    Raises
    ------
    DislabError : the images are not there, or are not those of the configuration.
    """
    split = "; ".join(config.hold_out)
    if config.own_images == MEMORY:
        whole = in_memory.get((config.dataset, config.source, ""))
        images = in_memory.get((config.dataset, config.source, split), whole)
        if images is None:
            raise DislabError(
                f"the images of '{config.dataset}' were a Dataset object of the program that made the run: "
                "repeat it there, with dislab.run(dataset=…)"
            )
    else:
        with warnings.catch_warnings():  # its source in the configuration says that files are not published
            warnings.simplefilter("ignore", DislabWarning)
            text, source = config.own_images or config.dataset, _source_to_open(config.source)
            images = open_images(text, source, machine, config.own_factors or None)
    if (images.name, source_of(images)) != (config.dataset, config.source):
        raise DislabError(
            f"the run was made with {config.dataset} ({config.source}), but the images here are "
            f"{images.name} ({source_of(images)})"
        )
    if split != images.split:
        images = without(images, config.hold_out)
    return images


def remember(images: Dataset) -> Dataset:
    """Keep a Dataset object for the runs of this process; return it with a source that identifies it.

    The source of an object that a user made without `dislab.from_arrays` gets a digest of its factors and of
    up to 256 of its images, so that runs with other images are other runs.
    """
    is_known = images.source in SOURCES and images.name in DATASETS
    if not is_known and not images.source.startswith("own-"):
        rows = np.arange(len(images))
        some = rows[:: -(-len(rows) // DIGESTED)]
        digest = hashlib.sha256(images.space.factors(rows).tobytes())
        digest.update(images.images(some).cpu().contiguous().numpy().tobytes())
        images = copy.copy(images)
        images.source = f"own-{images.source}-{digest.hexdigest()[:8]}".replace("own-own-", "own-")
    in_memory[images.name, source_of(images), images.split] = images
    return images


def source_of(images: Dataset) -> str:
    """Return the source of images as a configuration has it.

    Of drawn ones it has the drawing's version, and of official files that are not known to be the published
    ones a digest of their content.
    """
    source = images.source if images.renderer is None else f"{images.source}-v{images.renderer}"
    return f"{source}{UNPUBLISHED}{images.unpublished}" if images.unpublished else source


def forget_images() -> None:
    """Let the next look-up of a dataset open its files anew."""
    _last_opened.clear()
    in_memory.clear()


# The runs of one dataset follow one another: the dataset that was opened last, by what opened it.
_last_opened: dict[tuple, Dataset] = {}


def open_images(text: str, source: str, machine: Machine, factors: str | None = None) -> Dataset:
    """Open a dataset of the registry, or a folder of images with their factors; say which images it has."""
    where = machine.data_dir, machine.device, factors
    if (text, source, *where) in _last_opened:
        return _last_opened[text, source, *where]
    images = load_dataset(
        text,
        factors=factors,
        source=source,
        data_dir=machine.data_dir,
        device=machine.device,
        quiet=machine.quiet,
    )
    is_folder = is_folder_text(text)
    if not is_folder and images.name not in DATASETS:
        raise DislabError(
            f"the dataset '{text}' calls itself '{images.name}', which is not registered: name its Dataset "
            f"'{text}'"
        )
    source_here = source_of(images) if images.unpublished else images.source
    origin = f"the {source_here} images{f', {images.file}' if images.file else ''}"
    say(f"{images.name}: using {origin} ({len(images):,} images)", machine.quiet)
    _last_opened.clear()
    _last_opened[text, source, *where] = images
    _last_opened[text if is_folder else images.name, _source_to_open(images.source), *where] = images
    return images


def _source_to_open(source: str) -> str:
    """Return how a dataset with this source is opened: plug-ins and folders have sources of their own."""
    kind = source.partition(UNPUBLISHED)[0].partition("-v")[0]
    return kind if kind in SOURCES else "auto"
