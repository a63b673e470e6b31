"""The factors of a folder of images: a CSV file with a row per image."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dislab.errors import DislabError, DislabWarning, first_of
from dislab.files import read_text
from dislab.progress import say

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 2**30
SAMPLE = 1000  # rows in which the column of file names is looked for
FEW_IMAGES = 2  # per value of a factor: with fewer, no image can be compared with another of the same value
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A")


def read_factors(
    path: Path, folder: Path, images: Sequence[Path], quiet: bool
) -> tuple[list[Path], np.ndarray, list[str]]:
    """Return the images that the rows of a CSV file name, their factors int64 [N, K], and K factor names.

    A column whose numbers are 0 .. K - 1 is taken as it is. Other numbers become 0 .. K - 1 in ascending
    order, and texts in alphabetical order; one line says so.

    Parameters
    ----------
    path : a CSV file: names of the columns, then a row per image. A column has the names of images, relative
        to the folder, to the folder that it lies in, or to the file's own.
    folder, images : the folder, and all images in it.
    quiet : do not say which numbers values became.

    Raises
    ------
    DislabError : the file cannot be read, a row has no image or shares it with another row, a value is
        missing, or no column varies.
    """
    names, frame = _table(path)
    of_files, base = _column_of_files(names, frame, path, folder, images)
    files = frame.pop(of_files)
    wanted = _absolute(base, files)
    known = dict(zip(_absolute(Path(), images), images, strict=True))
    if lost := [name for name, file in zip(files, wanted, strict=True) if file not in known]:
        raise DislabError(f"'{path}' has rows of images that are not in '{folder}': {first_of(lost)}")
    if twice := [os.path.relpath(file, folder) for file, count in Counter(wanted).items() if count > 1]:
        raise DislabError(f"'{path}' has more than one row of an image: {first_of(twice)}")
    if others := known.keys() - set(wanted):
        rest = first_of(sorted(os.path.relpath(other, folder) for other in others))
        warnings.warn(
            f"images in '{folder}' without a row in '{path}' are left out: {rest}",
            DislabWarning,
            stacklevel=3,
        )
    numbers, words, constant = {}, [], []
    for number, column in frame.items():
        name = names[number]
        if not name:  # pandas writes its index like this
            warnings.warn(f"'{path}': a column without a name is left out", DislabWarning, stacklevel=3)
            continue
        values, text = _numbered(column, f"'{path}': column '{name}'")
        if values.any():
            numbers[name] = values
            words.append(f"{name}: {text}")
        else:
            constant.append(name)
    if not numbers:
        raise DislabError(f"'{path}' has no factor: no column beside '{names[of_files]}' has two values")
    if constant:
        text = f"'{path}': columns with the same value in all rows are left out: {first_of(constant)}"
        warnings.warn(text, DislabWarning, stacklevel=3)
    if rare := [name for name, values in numbers.items() if FEW_IMAGES * values.max() >= len(frame) > 10]:
        text = f"'{path}': columns with fewer than {FEW_IMAGES} images per value: {first_of(rare)}; put "
        text += "measurements into bins, as by pandas.cut, and leave out what identifies an image"
        warnings.warn(text, DislabWarning, stacklevel=3)
    say(f"{path.name}: '{names[of_files]}' names the images; {'; '.join(words)}", quiet)
    return [known[file] for file in wanted], np.stack(list(numbers.values()), axis=1), list(numbers)


def _table(path: Path) -> tuple[list[str], pd.DataFrame]:
    """Return the names of the columns of a CSV file, and its rows as texts."""
    import pandas as pd

    text = read_text("the file of factors", path, MOST_BYTES).removeprefix("\ufeff")
    first = text.lstrip().partition("\n")[0]
    for sign, word in ((";", "semicolons"), ("\t", "tabs")):
        if "," not in first and sign in first:
            raise DislabError(f"'{path}' has {word} between its columns: write commas")
    try:
        # All is read as text, the names too: pandas would rename a column whose name is there twice.
        frame = pd.read_csv(
            io.StringIO(text), header=None, dtype=str, keep_default_na=False, skipinitialspace=True
        )
    except pd.errors.EmptyDataError:
        raise DislabError(f"'{path}' is empty: it should have a row per image") from None
    except (pd.errors.ParserError, ValueError) as error:
        raise DislabError(f"'{path}' is not a CSV file: {' '.join(str(error).split())}") from None
    frame = frame.fillna("").astype(object).apply(lambda column: column.str.strip())
    names, frame = list(frame.iloc[0]), frame.iloc[1:].reset_index(drop=True)
    if not len(frame):
        raise DislabError(f"'{path}' has the names of columns, but no row")
    if twice := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
        raise DislabError(f"'{path}' has more than one column of the same name: {first_of(twice)}")
    return names, frame


def _column_of_files(
    names: Sequence[str], frame: pd.DataFrame, path: Path, folder: Path, images: Sequence[Path]
) -> tuple[int, Path]:
    """Return the column that has the file names of images, and the folder that they are relative to."""
    files = set(_absolute(Path(), images))
    found = {
        (number, base): sum(file in files for file in _absolute(base, column.head(SAMPLE)))
        for number, column in frame.items()
        for base in (folder, folder.parent, path.parent)
    }
    number, base = max(found, key=found.get)
    if not found[number, base]:
        such = f"such as '{os.path.relpath(images[0], folder)}'" if images else "which has none"
        raise DislabError(
            f"no column of '{path}' has the file names of images in '{folder}', {such}: its columns are "
            f"{', '.join(names)}, its first row is {', '.join(frame.iloc[0])}"
        )
    if _absolute(base, [names[number]])[0] in files:
        raise DislabError(f"the first line of '{path}' must name the columns, but has '{names[number]}'")
    return number, base


def _absolute(folder: Path, names) -> list[str]:
    """Return the absolute paths of files by their names relative to a folder."""
    folder = folder.absolute()
    return [os.path.normpath(folder / name) for name in names]


def _numbered(column: pd.Series, where: str) -> tuple[np.ndarray, str]:
    """Return a column of texts as numbers int64 [N], 0 .. K - 1, and in words how they were numbered."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    is_number = np.isfinite(numbers)
    others = column[~is_number]
    if (column == "").any() or (is_number.any() and others.isin(MISSING).all() and len(others)):
        row = others[others.isin(MISSING)].index[0]
        raise DislabError(f"{where} has no value in row {row + 1}: give one, or leave the row out")
    levels, values = np.unique(column.to_numpy(str) if len(others) else numbers, return_inverse=True)
    values = values.reshape(-1).astype(np.int64)
    if len(others):
        return values, f"{len(levels):,} texts in alphabetical order, {_ends(levels)}"
    levels = [f"{level:.10g}" for level in levels]
    if levels == [str(number) for number in range(len(levels))]:
        return values, f"{len(levels):,} numbers as they are, {_ends(levels)}"
    return values, f"{len(levels):,} numbers in ascending order, {_ends(levels)}"


def _ends(levels: Sequence[str]) -> str:
    """Return the first and the last of the values."""
    return f"{levels[0]} to {levels[-1]}"
