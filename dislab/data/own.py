"""A user's own data as a dataset: arrays with their factors, or a folder with a sub-folder per group."""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dislab.data.arrays import as_array, as_factors
from dislab.data.cache import cached_array
from dislab.data.dataset import Dataset, check_name, in_short, load_dataset, look_up
from dislab.data.devices import choose_device
from dislab.data.hold_out import hold_out
from dislab.data.official import is_folder
from dislab.data.space import FactorSpace
from dislab.errors import DislabError, DislabWarning
from dislab.progress import Bar
from dislab.registry import DATASETS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CHANNELS = (1, 3)
MOST_SIDE = 4096  # pixels
CHUNK = 4096  # images converted or hashed at a time, so that arrays larger than memory can be given
FOLDER = "folder"  # the one factor of a folder of images
# The usual formats of 8 bits per channel; other files in a folder are not taken for images.
IMAGE_FILES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
DECODED = "centre-bilinear-1"  # how images are made from files: another way must have another name


def from_arrays(
    images: ArrayLike,
    factors: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    name: str = "own",
    group_by: str | Sequence[str] | None = None,
    held_out: ArrayLike | None = None,
    device: str = "cpu",
) -> Dataset:
    """Make a dataset of images and their factor values, for `dislab.run` and `dislab.evaluate`.

    Parameters
    ----------
    images : [N, H, W] (one channel), [N, C, H, W] or [N, H, W, C] with C of 1 or 3: uint8 in 0..255, or
        float in [0, 1], which is rounded to the nearest of these. uint8 with the channels first is used
        without a copy, so a memory map serves as well.
    factors : int [N, K] (or [N]), values 0, 1, 2, … of each factor. If the rows are all combinations of
        values, each once, the last factor fastest, the dataset is a full grid and all metrics apply.
    names : K factor names; by default factor_0, factor_1, ….
    name : the dataset's name in tables. Its source there is "own-" and a digest of images and factors.
    group_by : factors whose combined value is a group; by default the first factor.
    held_out : rows int [M], or bool [N], kept from training and scored instead of all rows;
        `dislab.hold_out` chooses them by factor values.
    device : the device that stores the images.

    Examples
    --------
    >>> import dislab, numpy as np
    >>> images = np.zeros((6, 16, 16), np.uint8)
    >>> images[:, :, :8] = 40 * np.arange(6)[:, None, None]
    >>> dislab.from_arrays(images, factors=[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]).space.is_grid
    True
    """
    images = _checked_images(images)
    values = _checked_factors(factors, len(images))
    sizes = [int(column.max()) + 1 for column in values.T]
    names = [f"factor_{k}" for k in range(len(sizes))] if names is None else [str(name) for name in names]
    if len(names) != len(sizes) or len(set(names)) != len(names):
        raise DislabError(f"{len(sizes)} different factor names are needed, not {', '.join(names) or 'none'}")
    space = FactorSpace(names, sizes, None if _is_grid(values, sizes) else values)
    source = f"own-{_digest(images, values, names)}"
    draw = look_up(images, choose_device(device))
    dataset = Dataset(
        name, source, space, images.shape[1:], draw, names[:1] if group_by is None else group_by
    )
    if held_out is None:
        return dataset
    rows = _checked_rows(held_out, len(images))
    digest = hashlib.sha256(rows.tobytes()).hexdigest()[:8]
    return dataset.with_held_out(rows, f"{len(rows)} rows {digest}")


def from_folder(
    path: str | Path,
    size: int = 64,
    color: bool = True,
    name: str | None = None,
    held_out: float | None = None,
    *,
    device: str = "cpu",
    quiet: bool = True,
) -> Dataset:
    """Make a dataset of a folder of images with a sub-folder per group: a person, an object, a class.

    Its one factor, `folder`, is the number of the sub-folder, and images of one sub-folder are a group.
    Sub-folders and the images in them are numbered by sorted name. Hidden ones are left out, and so are files
    whose name is not an image's, with a warning. A link to a file that is gone is refused, and so are images
    that lie deeper. An image is turned upright as its camera noted, cropped to the square in its
    middle, and resized by Pillow's bilinear filter, which weighs all pixels that become one. Transparent
    pixels become black. Images are decoded once into the cache folder, and again when a file changes.

    Parameters
    ----------
    path : the folder.
    size : side of the images in pixels.
    color : False makes them grey, one channel.
    name : the dataset's name in tables; by default the folder's.
    held_out : part of the sub-folders, such as 0.25, that is kept from training and scored; see `hold_out`.
    device : the device that stores the images.
    quiet : show no progress while images are decoded.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST_SIDE:
        raise DislabError(f"size is {in_short(size)}: it must be a whole number of pixels, 1 to {MOST_SIDE}")
    folder = expanded(path)
    files, group = _find_images(folder)
    name = (folder.resolve().name or "own") if name is None else name
    check_name(name)
    mode = "RGB" if color else "L"

    def make(array: np.ndarray) -> None:
        with Bar("reading images", len(files), quiet=quiet) as bar:
            for row, file in enumerate(files):
                array[row] = read_image(file, size, mode).transpose(2, 0, 1)
                bar.update(row + 1)

    images = cached_array(_cache_name(files, size, mode), (len(files), len(mode), size, size), make)
    dataset = from_arrays(images, group, [FOLDER], name=name, device=device)
    return dataset if held_out is None else hold_out(dataset, str(held_out))


def dataset_from_text(
    text: str, *, source: str = "auto", data_dir=None, device: str = "cpu", quiet: bool = True
) -> Dataset:
    """Open the dataset that a command line names: one of the registry, or a folder of images."""
    if not is_folder_text(text):
        return load_dataset(text, source=source, data_dir=data_dir, device=device)
    if source != "auto":
        raise DislabError(f"'{text}' is a folder of your own images, there is no --source {source} of it")
    return from_folder(text, device=device, quiet=quiet)


def is_folder_text(text: str) -> bool:
    """Return whether a text means a folder: it has a path separator, or names a folder and no dataset."""
    if text in DATASETS:
        return False
    return "/" in text or "\\" in text or is_folder(text)


def expanded(path: str | Path) -> Path:
    """Return a path without ~; raise DislabError if it names the home of a user that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DislabError(f"'{path}' cannot be a folder: {error}") from None


def read_image(path: Path, size: int, mode: str) -> np.ndarray:
    """Read an image file as uint8 [size, size, C], in Pillow's mode "RGB" or "L"; see `from_folder`."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # Pillow warns of odd files that it can read.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would cut every value above 255 off
                raise DislabError(f"'{path}' has more than 8 bits per channel: save it with 8")
            image = ImageOps.exif_transpose(image)
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
            image = image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    except DislabError:
        raise
    except UnidentifiedImageError:
        raise DislabError(f"'{path}' is not an image of a format that can be read") from None
    except Exception as error:  # every format's decoder has its own errors for damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DislabError(f"the image '{path}' cannot be read: {reason}") from None
    return np.asarray(image).reshape(size, size, len(mode))


def _find_images(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Return all image files, and the number of the sub-folder that each lies in, int64 [N]."""
    try:
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise DislabError(f"'{folder}' {problem}: it should hold a sub-folder of images for each group")
        groups = [path for path in _entries(folder) if path.is_dir()]
        if len(groups) < 2:
            present = f"only '{groups[0].name}'" if groups else "none"
            raise DislabError(
                f"'{folder}' needs a sub-folder of images for each group, two or more: it has {present}"
            )
        strays = [path for path in _entries(folder) if path.is_file()]
        if any(map(_is_image, strays)):
            stray = next(filter(_is_image, strays))
            raise DislabError(f"'{stray}' belongs to no group: move it into one of the sub-folders")
        entries = [_entries(group) for group in groups]
        for path in itertools.chain.from_iterable(entries):
            if path.is_dir() and (deeper := _image_within(path)):
                raise DislabError(
                    f"the image '{deeper}' lies too deep: move it into '{path.parent}', as the images of a "
                    "group lie in its sub-folder itself, or hide the folder by a name that begins with a dot"
                )
    except OSError as error:
        path = error.filename or folder
        raise DislabError(f"'{path}' cannot be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte
        raise DislabError(f"{in_short(str(folder))} cannot be a folder: {error}") from None
    members = [[path for path in paths if _is_image(path)] for paths in entries]
    counts = [len(images) for images in members]
    if 0 in counts:
        empty = groups[counts.index(0)]
        raise DislabError(f"there is no image in '{empty}' (it reads {', '.join(IMAGE_FILES)})")
    others = Counter(
        path.suffix.lower() or "no suffix"
        for path in itertools.chain(strays, *entries)
        if path.is_file() and not _is_image(path)
    )
    if others:
        kinds = ", ".join(f"{number:,} of {suffix}" for suffix, number in sorted(others.items()))
        warnings.warn(f"'{folder}': files that are not read as images: {kinds}", DislabWarning, stacklevel=3)
    return list(itertools.chain.from_iterable(members)), np.repeat(np.arange(len(groups)), counts)


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, without what is hidden; raise if it is no file and no folder."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in entries:
        if not path.exists():
            raise DislabError(f"'{path}' is a link to a file that is not there: mend the link or delete it")
        if not path.is_file() and not path.is_dir():
            raise DislabError(f"'{path}' is neither a file nor a folder, and cannot be read: delete it")
    return entries


def _image_within(folder: Path) -> Path | None:
    """Return an image in a folder or deeper, or None."""
    folders = [folder]
    while folders:
        for path in _entries(folders.pop()):
            if _is_image(path):
                return path
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
    return None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_FILES and path.is_file()


def _cache_name(files: list[Path], size: int, mode: str) -> str:
    """Return a name that changes with the files, with what is made of them, and with the decoder."""
    import PIL

    digest = hashlib.sha256(f"{DECODED} {PIL.__version__} {mode} {size}".encode())
    for file in files:
        status = file.stat()
        digest.update(repr((str(file.absolute()), status.st_size, status.st_mtime_ns)).encode())
    return f"folder-{digest.hexdigest()[:16]}"


def _checked_images(images) -> np.ndarray:
    """Return the images as uint8 [N, C, H, W], the same array if it is one."""
    images = as_array("images", images)
    kind = f"{images.dtype} {list(images.shape)}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DislabError(f"images must be [N, H, W], [N, C, H, W] or [N, H, W, C], not {kind}")
    if images.ndim == 3:
        images = images[:, None]
    else:
        first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
        if first == last:
            raise DislabError(
                f"images of four dimensions have 1 or 3 channels, in the second or in the last: in {kind} "
                f"{'both' if first else 'neither'} could be"
            )
        images = images if first else images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8:
        if images.max() <= 1:
            raise DislabError(
                "uint8 images must be 0 to 255, and these have no value above 1: multiply them by 255"
            )
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        raise DislabError(f"images must be uint8 in 0..255 or float in [0, 1], not {images.dtype}")
    pixels = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), CHUNK):
        block = images[start : start + CHUNK].astype(np.float64)
        right = (block >= 0) & (block <= 1)  # false for NaN
        if not right.all():
            wrong = np.unravel_index(np.argmin(right), right.shape)
            raise DislabError(
                f"{images.dtype} images must lie in [0, 1]: image {start + wrong[0]} has {block[wrong]:g}"
            )
        pixels[start : start + CHUNK] = np.rint(block * 255)
    return pixels


def _checked_factors(factors, count: int) -> np.ndarray:
    """Return the factors as int64 [N, K]."""
    factors = as_factors(factors)
    if len(factors) != count:
        raise DislabError(f"there are {count} images, but factors of {len(factors)}")
    return factors


def _checked_rows(held_out, count: int) -> np.ndarray:
    """Return the held-out rows as sorted int64 [M]."""
    rows = as_array("held_out", held_out)
    if rows.dtype == bool and rows.shape == (count,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.dtype.kind not in "iu" and len(rows)):
        raise DislabError(
            f"held_out must be rows int [M] or bool [{count}], not {rows.dtype} {list(rows.shape)}"
        )
    rows = np.unique(rows).astype(np.int64)
    if not 0 < len(rows) < count:
        raise DislabError(f"held_out is {len(rows)} of {count} rows: some must be trained on and some scored")
    if rows[0] < 0 or rows[-1] >= count:
        raise DislabError(f"held_out goes from {rows[0]} to {rows[-1]}, but rows from 0 to {count - 1}")
    return rows


def _is_grid(values: np.ndarray, sizes: Sequence[int]) -> bool:
    """Return whether the rows are all combinations of values, in order, the last factor fastest."""
    if math.prod(sizes) != len(values):  # Python's whole numbers: it may be larger than any of numpy's
        return False
    return np.array_equal(values.T, np.unravel_index(np.arange(len(values)), sizes))


def _digest(images: np.ndarray, values: np.ndarray, names: Sequence[str]) -> str:
    """Return a short digest of the data, the same on every machine."""
    digest = hashlib.sha256(repr((images.shape, values.shape, list(names))).encode())
    digest.update(np.ascontiguousarray(values, "<i8"))
    for start in range(0, len(images), CHUNK):
        digest.update(np.ascontiguousarray(images[start : start + CHUNK]))
    return digest.hexdigest()[:8]
