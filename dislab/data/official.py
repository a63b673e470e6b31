"""The official files of datasets: what is published of each, where it lies on this machine, checking it.

Nothing here needs torch, so that `dislab data` answers at once.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import textwrap
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from dislab.data.cache import cache_folder, recall, remember
from dislab.errors import DislabError, RunFailed
from dislab.progress import Bar, say
from dislab.registry import DATASETS, unknown_name

CHUNK = 2**20  # bytes read at a time
MEGABYTE = 10**6
SHOW_PROGRESS = 50 * MEGABYTE  # smaller files are hashed in an instant


@dataclass(frozen=True)
class OfficialFile:
    """A file as it was published.

    Attributes
    ----------
    name, url : its name in the data folder, and the address that it is published at.
    digest : "md5:…" or "sha256:…" of the file; "" if no hash of it is published.
    size : its bytes, or about so many if `exact_size` is False: a download of 1.25 times it is cut off. 0 if
        it is not known.
    content_md5 : md5 of what `content` returns. Another copy (compressed anew) with this content is as good.
        Empty if only the published bytes will do.
    content : function from the path of such a copy to the bytes that count.
    earlier_host : True if the digest is that of an earlier host's file, and nobody has documented that the
        file at `url` is the same one. A file with another digest is then judged by its own checksum.
    also : other file names under which the dataset is read, with the same content. They are tried before its
        name, unless it is among them.
    unpacked : patterns, within the data folder, of files that an archive unpacks to. No published hash exists
        to hold them against.
    by_hand : True if the address is a page for people, not the file: `dislab data fetch` then says where to
        get it.
    always : True if drawn images need the file too, as scream_dsprites needs the picture behind its sprites.
    """

    name: str
    url: str
    digest: str
    size: int
    exact_size: bool = False
    content_md5: str = ""
    content: Callable[[Path], bytes] | None = None
    earlier_host: bool = False
    also: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()
    by_hand: bool = False
    always: bool = False


@dataclass(frozen=True)
class OfficialDataset:
    """A published dataset."""

    name: str  # the registered name, also that of the sub-folder of the data folder
    files: tuple[OfficialFile, ...]
    page: str  # the address of the page that describes the files
    licence: str
    is_drawn: bool = False  # whether a module of dislab.rendering draws the same factor grid

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def published() -> dict[str, OfficialDataset]:
    """Return the datasets with official files by name, in alphabetical order."""
    datasets = {entry.official.name: entry.official for entry in DATASETS if entry.official is not None}
    return dict(sorted(datasets.items()))


def official(name: str) -> OfficialDataset:
    """Return the published dataset of a registered name; say so if that is another name of the dataset."""
    dataset = _official_of(name)
    if dataset is None:
        raise unknown_name("official dataset", name, published())
    if dataset.name != name:
        say(f"{name} means {dataset.name}")
    return dataset


def is_complete(name: str, source: str = "auto", data_dir=None) -> bool:
    """Return whether this machine has all the files that a dataset with this source needs.

    Most drawn images need none, and neither do datasets without official files.
    """
    dataset = _official_of(name)
    if dataset is None:
        return True
    drawn = source == "rendered" or (source == "auto" and dataset.is_drawn)
    files = needed(dataset, "rendered" if drawn else "official")
    return all(locate(dataset, file, data_dir) is not None for file in files)


def needed(dataset: OfficialDataset, source: str) -> list[OfficialFile]:
    """Return the files of a dataset that its "official" or its "rendered" images need."""
    return [file for file in dataset.files if source == "official" or file.always]


def _official_of(name: str) -> OfficialDataset | None:
    return next((entry.official for entry in DATASETS if entry.name == name), None)


def data_folder(data_dir=None) -> Path:
    """Return the folder of official files: `data_dir`, else $DISLAB_DATA, else `data` in the cache folder."""
    named = data_dir or os.environ.get("DISLAB_DATA")
    if named and not is_folder(named):
        raise DislabError(f"data folder '{named}'{'' if data_dir else ' ($DISLAB_DATA)'} does not exist")
    return Path(named or cache_folder() / "data")


def is_folder(path: str | Path) -> bool:
    """Return whether there is a folder; False also where no file can have this path."""
    with suppress(OSError, ValueError):  # it is too long, or has a zero byte
        return Path(path).is_dir()
    return False


def locate(dataset: OfficialDataset, file: OfficialFile, data_dir=None) -> Path | None:
    """Return the path of the file, under any of its names, or of the folder it was unpacked to, or None.

    Files lie in the data folder or in its sub-folder of the dataset's name.
    """
    if path := next(copies(dataset, file, data_dir), None):
        return path
    with suppress(OSError):  # no file can have such a path
        for parent, pattern in itertools.product(_parents(dataset, data_dir), file.unpacked):
            for path in parent.glob(pattern):
                return path.parent
    return None


def copies(dataset: OfficialDataset, file: OfficialFile, data_dir=None) -> Iterator[Path]:
    """Yield the paths of the file under all of its names; the first is the one that is read."""
    with suppress(OSError):  # no file can have such a path
        names = dict.fromkeys((*file.also, file.name))
        for name, parent in itertools.product(names, _parents(dataset, data_dir)):
            if (parent / name).is_file():
                yield parent / name


def different_copies(dataset: OfficialDataset, data_dir=None) -> list[str]:
    """Return a line for each copy of a file that is not read and has another content than the one read."""
    lines = []
    for file in dataset.files:
        first, *others = [*copies(dataset, file, data_dir)] or [None]
        for other in others:
            if checked(first, file).other != checked(other, file).other:
                lines.append(f"'{first}' is read, not '{other}', whose content differs: delete one")
    return lines


def _parents(dataset: OfficialDataset, data_dir) -> tuple[Path, Path]:
    folder = data_folder(data_dir)
    return folder / dataset.name, folder


def official_paths(dataset: OfficialDataset, source: str, data_dir=None) -> Sequence[Path]:
    """Return the paths of all official files, or none if the images are to be drawn.

    DislabError is raised if nothing can draw them, or a file that is needed is missing.
    """
    name, can_draw = dataset.name, dataset.is_drawn and source != "official"
    if source != "rendered":
        paths = [locate(dataset, file, data_dir) for file in dataset.files]
        if None not in paths:
            return paths
    drawn = ", ".join(other.name for other in published().values() if other.is_drawn)
    if source == "rendered" and not can_draw:
        raise DislabError(f"{name} has no rendered images: use its official files, or draw one of {drawn}")
    files = needed(dataset, "rendered" if can_draw else "official")
    missing = next((file for file in files if locate(dataset, file, data_dir) is None), None)
    if missing is None:
        return ()
    alone = "" if dataset.is_drawn else f", and only {drawn} can be drawn"
    raise DislabError(
        f"the official file {missing.name} of {name} is not there{alone}: "
        f"{how_to_get(dataset, missing, data_folder(data_dir) / name / missing.name)}"
    )


def how_to_get(dataset: OfficialDataset, file: OfficialFile, target: Path) -> str:
    """Return in words what a user can do to have a file at `target`."""
    if file.by_hand:
        return f"get it at {file.url} and put it at '{target}'"
    return f"`dislab data fetch {dataset.name}`, or put it at '{target}'"


def listed(names: Iterable[str]) -> str:
    """Return names from a file, which may hold anything, as a text of one line that is not long."""
    words = [textwrap.shorten(ascii(name)[1:-1], 60, placeholder="…") for name in sorted(names)]
    return ", ".join(words[:10] + ["…"] * (len(words) > 10)) or "none"


def unreadable(path: Path | str, error: Exception, damage: str) -> DislabError:
    """Return the error for a file that cannot be read: the system's reason, or `damage` if it gives none.

    A file that is locked or forbidden is whole. Whoever takes it for damaged downloads it again.

    Parameters
    ----------
    damage : what is wrong with the file if its bytes are, such as "is not a whole HDF5 file".
    """
    reason = textwrap.shorten(str(error), 200, placeholder=" …") or type(error).__name__
    if "unable to lock file" in reason:  # by HDF5
        return DislabError(
            f"'{path}' is locked, another program has it open to write: close that program, or set "
            "HDF5_USE_FILE_LOCKING=FALSE in the environment if nothing writes to the file"
        )
    # An invalid argument is a position that damaged bytes name.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return DislabError(f"'{path}' cannot be read: {os.strerror(error.errno)}")
    return DislabError(f"'{path}' {damage}: {reason}")


@dataclass(frozen=True)
class Verdict:
    """Whether a file is what it should be, and the words for it.

    Attributes
    ----------
    other : a digest of the content if it is not known to be the published one, else "".
    """

    is_right: bool
    text: str
    other: str = ""


def check(path: Path, file: OfficialFile) -> Verdict:
    """Hold a file, or the folder that it was unpacked to, against the published hash; all is read."""
    algorithm, _, expected = (file.digest or "sha256:").partition(":")
    if path.is_dir():
        digest = _digest(_parts(path, file), algorithm)
        return Verdict(True, "unpacked: there is no published hash to hold it against", digest)
    digest = _digest([path], algorithm)
    if not expected:
        return Verdict(True, f"there is no published hash to hold it against, {algorithm} {digest}", digest)
    if digest == expected:
        return Verdict(True, f"ok, {algorithm} {digest}")
    differs = f"expected {algorithm} {expected}, found {digest}"
    content = _content_md5(path, file) if file.content else ""
    if content and content == file.content_md5:
        return Verdict(True, "ok, the published content, compressed or saved anew")
    other = content or digest
    if file.earlier_host:
        if file.exact_size and path.stat().st_size != file.size:
            text = f"wrong: expected {file.size} bytes, found {path.stat().st_size}"
            return Verdict(False, text, other)
        if _is_whole_zip(path):
            text = f"whole by its own CRC-32, but not the file of the earlier host ({differs})"
            return Verdict(True, text, other)
    return Verdict(False, f"wrong: {differs}", other)


def checked(path: Path, file: OfficialFile) -> Verdict:
    """Return the verdict on a file as `check` does, from what is remembered of it if it has not changed."""
    known = recall(_parts(path, file))
    if known is not None and known["published"] == file.digest:
        return Verdict(**known["verdict"])
    return keep(path, file, check(path, file))


def keep(path: Path, file: OfficialFile, verdict: Verdict) -> Verdict:
    """Remember a verdict for `checked`, and return it."""
    remember(_parts(path, file), {"published": file.digest, "verdict": asdict(verdict)})
    return verdict


def unpublished(dataset: OfficialDataset, data_dir=None, source: str = "official") -> tuple[str, str]:
    """Return 8 hex digits that identify the content of a dataset's files, and the words for it.

    Both are "" if all files that images of this source need are the published ones. Each file is read in full
    when it is first asked for.
    """
    others, words = [], []
    for file in needed(dataset, source):
        path = locate(dataset, file, data_dir)
        verdict = checked(path, file) if path is not None else Verdict(True, "")
        others.append(verdict.other)
        if verdict.other:
            known = "known to be " if verdict.is_right else ""
            words.append(f"'{path}' is not {known}the published file ({verdict.text})")
    return hashlib.sha256(repr(others).encode()).hexdigest()[:8] if words else "", "; ".join(words)


def _parts(path: Path, file: OfficialFile) -> list[Path]:
    """Return a file, or the files that it was unpacked to, sorted by name."""
    if not path.is_dir():
        return [path]
    patterns = [PurePosixPath(pattern).name for pattern in file.unpacked]
    return sorted(part for part in path.iterdir() if any(fnmatchcase(part.name, p) for p in patterns))


class MegabyteBar(Bar):
    """A progress bar over bytes, counted in megabytes."""

    def __init__(self, title: str, num_bytes: int, quiet: bool = False, start: int = 0):
        super().__init__(f"{title} (MB)", max(1, num_bytes // MEGABYTE), start // MEGABYTE, quiet)
        self.num_bytes, self.shown = num_bytes, 0

    def update(self, done: int) -> None:
        """Show that `done` bytes are done."""
        # The last megabyte is shown when the last byte is there, so that the end is said once.
        now = self.total if done >= self.num_bytes else min(done // MEGABYTE, self.total - 1)
        if now > self.shown:
            self.shown = now
            super().update(now)


def _digest(paths: Sequence[Path], algorithm: str) -> str:
    """Return the digest of a file; of several, that of their names, sizes and bytes."""
    digest, path = hashlib.new(algorithm, usedforsecurity=False), paths[0]
    try:
        sizes, done = [path.stat().st_size for path in paths], 0
        size = sum(sizes)
        with MegabyteBar(f"checking {path.name}", size, size < SHOW_PROGRESS) as bar:
            for path, part in zip(paths, sizes, strict=True):
                if len(paths) > 1:
                    digest.update(repr((path.name, part)).encode())
                with path.open("rb") as file:
                    while block := file.read(CHUNK):
                        digest.update(block)
                        done += len(block)
                        bar.update(done)
    except OSError as error:
        raise RunFailed(f"cannot read '{path}': {error.strerror}") from None
    return digest.hexdigest()


def _content_md5(path: Path, file: OfficialFile) -> str:
    try:
        return hashlib.md5(file.content(path), usedforsecurity=False).hexdigest()
    except Exception:  # damaged bytes raise many kinds of errors; they are not the published content
        return ""


def _is_whole_zip(path: Path) -> bool:
    """Return whether every member of a .npz file agrees with the CRC-32 that the file itself keeps of it."""
    size, done = path.stat().st_size, 0
    try:
        with (
            zipfile.ZipFile(path) as archive,
            MegabyteBar(f"checking {path.name}", size, size < SHOW_PROGRESS) as bar,
        ):
            for member in archive.namelist():
                with archive.open(member) as stream:
                    while block := stream.read(CHUNK):
                        done += len(block)
                        bar.update(done)
    except Exception:  # damaged bytes raise many kinds of errors
        return False
    return True


def readable(num_bytes: int) -> str:
    """Return a number of bytes in the unit that suits it: 268 MB, 12.7 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            value = num_bytes / size
            return f"{value:.{int(value < 100 and unit == 'GB')}f} {unit}"
    return f"{num_bytes} bytes"
