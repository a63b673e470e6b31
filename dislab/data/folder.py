"""A user's folder of images as a dataset: the images in it, and how one is read."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dislab.data.cache import cached_array
from dislab.data.dataset import Dataset, check_name, in_short
from dislab.data.factors_file import read_factors
from dislab.data.hold_out import hold_out
from dislab.data.own import from_arrays
from dislab.errors import DislabError, DislabWarning, first_of
from dislab.progress import Bar, say

MOST_SIDE = 4096  # pixels
FOLDER = "folder"  # the one factor of a folder of images without a file of factors
# The usual formats of 8 bits per channel; other files in a folder are not taken for images.
IMAGE_FILES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# What systems leave in folders, in lower case; hidden files and folders begin with a dot.
OF_SYSTEMS = ("__macosx", "@eadir", "thumbs.db", "desktop.ini")
DECODED = "centre-bilinear-1"  # how images are made from files: another way must have another name


def from_folder(
    path: str | Path,
    size: int = 64,
    color: bool = True,
    name: str | None = None,
    held_out: float | None = None,
    *,
    factors: str | Path | None = None,
    device: str = "cpu",
    quiet: bool = True,
) -> Dataset:
    """Make a dataset of a folder of images, with a CSV file of their factors or a sub-folder per group.

    With a CSV file, one of its columns has the images' file names, relative to the folder, to the folder that
    it lies in, or to the CSV file, and the others are factors. Numbers that are not 0, 1, 2, … are numbered
    in ascending order, texts in alphabetical order. The images are in the order of the file's rows; images
    without a row are left out, with a warning, and so are columns of a single value.

    Without it the one factor, `folder`, is the number of the sub-folder of `path` that an image lies in,
    directly or deeper: a person, an object, a class. Images of one sub-folder are a group. Sub-folders and
    the images in them are numbered by sorted name.

    Hidden files and folders are skipped, and what systems leave (Thumbs.db, __MACOSX, @eaDir); files whose
    name is not an image's are left out with a warning. A link to a file that is gone is refused, and so are
    images that cannot be read or have more than 8 bits per channel. An image is turned upright as its camera
    noted, cropped to the square in its middle, and resized by Pillow's bilinear filter, which weighs all
    pixels that become one. Transparent images are composed on black. Images are decoded once into the cache
    folder, and again when a file changes.

    Parameters
    ----------
    path : the folder.
    size : side of the images in pixels.
    color : False makes them grey, one channel.
    name : the dataset's name in tables; by default the folder's.
    held_out : part of the combinations of factor values (of the sub-folders), such as 0.25, that is kept from
        training and scored; see `hold_out`.
    factors : the CSV file.
    device : the device that stores the images.
    quiet : show no progress while images are decoded, and do not say how values became numbers.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST_SIDE:
        raise DislabError(f"size is {in_short(size)}: it must be a whole number of pixels, 1 to {MOST_SIDE}")
    folder = expanded(path)
    factors = None if factors is None else expanded(factors)
    files, names = _images_in(folder, factors), [FOLDER]
    if factors is None:
        values = _sub_folders(folder, files)
    else:
        files, values, names = read_factors(factors, folder, files, quiet)
    name = (folder.resolve().name or "own") if name is None else name
    check_name(name)
    mode = "RGB" if color else "L"

    def make(array: np.ndarray) -> None:
        seen, failures = Seen(), []
        with Bar("reading images", len(files), quiet=quiet) as bar:
            for row, file in enumerate(files):
                try:
                    array[row] = read_image(file, size, mode, seen).transpose(2, 0, 1)
                except DislabError as error:
                    failures.append(str(error))
                bar.update(row + 1)
        if failures:
            more = f"; … ({len(failures):,} of {len(files):,} images cannot be used)"
            raise DislabError("; ".join(failures[:3]) + more * (len(failures) > 1))
        for line in seen.lines(size):
            say(f"{name}: {line}", quiet)

    images = cached_array(_cache_name(files, size, mode), (len(files), len(mode), size, size), make)
    dataset = from_arrays(images, values, names, name=name, device=device)
    return dataset if held_out is None else hold_out(dataset, str(held_out))


def expanded(path: str | Path) -> Path:
    """Return a path without ~; raise DislabError if it names the home of a user that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DislabError(f"'{path}' cannot be used: {error}") from None


@dataclass
class Seen:
    """What kinds of images were read."""

    sizes: set[tuple[int, int]] = field(default_factory=set)  # width and height, upright
    palettes: int = 0
    alphas: int = 0

    def lines(self, size: int) -> Iterator[str]:
        """Yield a line on each thing that was done to images of `size` x `size` pixels."""
        if self.sizes != {(size, size)}:
            ends = [f"{width} x {height}" for width, height in (min(self.sizes), max(self.sizes))]
            kinds = f"{len(self.sizes):,} different sizes, {' to '.join(ends)}"
            yield (
                f"images of {kinds if len(self.sizes) > 1 else ends[0]} pixels: the square in the middle is "
                f"resized to {size} x {size}; crop them yourself if another part matters, or choose another "
                "size by dislab.from_folder(size=…)"
            )
        if self.alphas:
            yield f"images with transparency: {self.alphas:,}, composed on black"
        if self.palettes:
            yield f"images with a palette: {self.palettes:,}, read as its colours"


def read_image(path: Path, size: int, mode: str, seen: Seen | None = None) -> np.ndarray:
    """Read an image file as uint8 [size, size, C], in Pillow's mode "RGB" or "L"; see `from_folder`.

    What kind of image it is, is added to `seen`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    seen = Seen() if seen is None else seen
    try:
        # Pillow warns of odd files that it can read.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would cut every value above 255 off
                raise DislabError(f"'{path}' has more than 8 bits per channel: save it with 8, 0 to 255")
            seen.palettes += image.mode in ("P", "PA")
            image = ImageOps.exif_transpose(image)
            seen.sizes.add(image.size)
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            if image.has_transparency_data:
                seen.alphas += 1
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


def _sub_folders(folder: Path, images: Sequence[Path]) -> np.ndarray:
    """Return the number of the sub-folder that each image lies in, int64 [N]."""
    groups = sorted(entry.name for entry in _listed(folder) if entry.is_dir())
    if len(groups) < 2:
        present = f"only '{groups[0]}'" if groups else "none"
        raise DislabError(
            f"'{folder}' needs a sub-folder of images for each group, two or more, or a CSV file of factors "
            f"(--factors): it has {present}"
        )
    parts = [path.relative_to(folder).parts for path in images]
    if strays := [path for path, part in zip(images, parts, strict=True) if len(part) == 1]:
        raise DislabError(f"images in no group, move them into one of the sub-folders: {first_of(strays)}")
    counts = Counter(part[0] for part in parts)
    if empty := [folder / group for group in groups if not counts[group]]:
        raise DislabError(f"there is no image in {first_of(empty)} (it reads {', '.join(IMAGE_FILES)})")
    if any(len(part) > 2 for part in parts):
        text = f"images lie deeper than the sub-folders of '{folder}', which are still the groups: "
        text += first_of(groups)
        warnings.warn(text, DislabWarning, stacklevel=3)
    return np.repeat(np.arange(len(groups)), [counts[group] for group in groups])


def _images_in(folder: Path, factors: Path | None) -> list[Path]:
    """Return all images in a folder and deeper, sorted by the parts of their paths."""
    images, others, broken, odd = [], Counter(), [], []
    try:
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise DislabError(f"'{folder}' {problem}: it should hold images")
        for entry in _walked(folder):
            path = Path(entry.path)
            if not entry.is_file(follow_symlinks=False) and not path.is_file():
                (odd if path.exists() else broken).append(path)
            elif path.suffix.lower() in IMAGE_FILES:
                images.append(path)
            elif factors is None or not path.samefile(factors):
                others[path.suffix.lower() or "no suffix"] += 1
    except OSError as error:
        raise DislabError(f"'{error.filename or folder}' cannot be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte
        raise DislabError(f"{in_short(str(folder))} cannot be a folder: {error}") from None
    if broken:
        raise DislabError(f"links to files that are not there, mend or delete them: {first_of(broken)}")
    if odd:
        raise DislabError(f"neither files nor folders, delete them: {first_of(odd)}")
    if others:
        kinds = ", ".join(f"{number:,} of {suffix}" for suffix, number in sorted(others.items()))
        warnings.warn(f"'{folder}': files that are not read as images: {kinds}", DislabWarning, stacklevel=3)
    return sorted(images)


def _walked(folder: Path) -> Iterator[os.DirEntry]:
    """Yield all that is in a folder and deeper but folders; links to folders are followed, never in a circle.

    Hidden files and folders, and those that systems leave, are skipped.
    """
    folders = [(folder, frozenset())]
    while folders:
        folder, above = folders.pop()
        status = folder.stat()
        here = above | {(status.st_dev, status.st_ino)}
        if here == above:
            continue
        for entry in _listed(folder):
            path = Path(entry.path)
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                folders.append((path, here))
            else:
                yield entry


def _listed(folder: Path) -> list[os.DirEntry]:
    """Return what is in a folder but what is hidden or left by a system."""
    with os.scandir(folder) as entries:
        return [
            entry
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower() not in OF_SYSTEMS
        ]


def _cache_name(files: list[Path], size: int, mode: str) -> str:
    """Return a name that changes with the files, with what is made of them, and with the decoder."""
    import PIL

    digest = hashlib.sha256(f"{DECODED} {PIL.__version__} {mode} {size}".encode())
    for file in files:
        status = file.stat()
        digest.update(repr((str(file.absolute()), status.st_size, status.st_mtime_ns)).encode())
    return f"folder-{digest.hexdigest()[:16]}"
