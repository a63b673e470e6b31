"""Opening a dataset by what a user writes: a registered name, or the path of a folder of images."""

from __future__ import annotations

from pathlib import Path

from dislab.data.dataset import Dataset, open_registered
from dislab.data.folder import from_folder
from dislab.data.official import is_folder
from dislab.errors import DislabError
from dislab.registry import DATASETS


def load_dataset(
    name: str | Path,
    *,
    factors: str | Path | None = None,
    source: str = "auto",
    data_dir: str | Path | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> Dataset:
    """Open a dataset of the registry, or a folder of images.

    Parameters
    ----------
    name : a registered name, see `dislab list datasets`; or a folder of images, see `dislab.from_folder`.
    factors : for a folder: a CSV file of the images' factors. Without it, the sub-folder is the only factor.
    source : "official" reads the published file; "rendered" draws the same factor grid; "auto" is official
        if the file is present, else rendered.
    data_dir : the folder of official files; else $DISLAB_DATA, else the user's cache folder.
    device : the device that stores and draws the images.
    quiet : of a folder, show no progress and do not say how values became numbers.

    Warns
    -----
    DislabWarning : an official file is not the published one, by its hash; there are two different copies of
        it; or images or columns of a user's own data are left out.
    """
    text = str(name)
    if is_folder_text(text):
        if source != "auto":
            raise DislabError(f"'{text}' is a folder of your own images, there is no --source {source} of it")
        return from_folder(text, factors=factors, device=device, quiet=quiet)
    check_factors_file(text, factors)
    return open_registered(text, source, data_dir, device)


def check_factors_file(dataset: str | Dataset, factors: str | Path | None) -> None:
    """Raise DislabError if a file of factors is named for a dataset that is no folder of images."""
    if factors is None or (isinstance(dataset, str) and is_folder_text(dataset)):
        return
    if not isinstance(dataset, str):
        raise DislabError("factors is a CSV file for a folder of images, and a Dataset object has its own")
    if dataset not in DATASETS:
        raise DislabError(f"'{dataset}' is not a folder: factors is a CSV file for a folder of images")
    remedy = f"; if you mean the folder, write './{dataset}'" if is_folder(dataset) else ""
    raise DislabError(
        f"factors is a CSV file for a folder of images, and '{dataset}' is a dataset with factors of its own"
        f"{remedy}"
    )


def is_folder_text(text: str) -> bool:
    """Return whether a text means a folder: it has a path separator, or names a folder and no dataset."""
    if text in DATASETS:
        return False
    return "/" in text or "\\" in text or is_folder(text)
