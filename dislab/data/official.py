"""The official files of each dataset: where they are published and kept, fetching them, checking them.

Nothing here needs torch, so that `dislab data` answers at once.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dislab import __version__
from dislab.errors import DislabError, RunFailed
from dislab.progress import Bar, say
from dislab.registry import unknown_name

CHUNK = 2**20  # bytes read at a time
MEGABYTE = 10**6
SECONDS_OF_SILENCE = 30  # after which a connection counts as cut
SHOW_PROGRESS = 50 * MEGABYTE  # smaller files are hashed in an instant


def cache_folder() -> Path:
    """Where drawn or decoded images are kept between runs: $DISLAB_CACHE, else the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("DISLAB_CACHE") or user_cache_path("dislab", appauthor=False))


def data_folder(data_dir=None) -> Path:
    """Where official files lie: `data_dir`, else $DISLAB_DATA, else `data` in the cache folder.

    Raises
    ------
    DislabError : the folder that the user names does not exist.
    """
    given = data_dir or os.environ.get("DISLAB_DATA")
    if given and not Path(given).is_dir():
        raise DislabError(f"data folder '{given}'{'' if data_dir else ' ($DISLAB_DATA)'} does not exist")
    return Path(given or cache_folder() / "data")


def find_file(name: str, file_names: Sequence[str], data_dir=None) -> Path | None:
    """The first of the file names that exists in the data folder or in its sub-folder `name`, or None."""
    folder = data_folder(data_dir)
    for file_name in file_names:
        for path in (folder / name / file_name, folder / file_name):
            if path.is_file():
                return path
    return None


@dataclass(frozen=True)
class OfficialFile:
    """A file as it was published.

    Attributes
    ----------
    name : its name in the data folder.
    url : where it is published.
    digest : "md5:…" or "sha256:…" of the file.
    size : its bytes, or about so many where `exact_size` is False.
    content_md5 : md5 of what it holds, as `content` gives it; a copy in another wrapper (compressed anew)
        that holds the same is as good. Empty where only the published bytes will do.
    content : function from the path of such a copy to the bytes that it holds.
    earlier_host : True where the digest is that of an earlier host's file, and nobody has documented that the
        file at `url` is the same one. A file with another digest is then judged by its own checksum.
    also : other file names under which the dataset is read, with the same content.
    unpacked : patterns, within the data folder, of files that an archive unpacks to; there is no published
        hash to hold them against.
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


@dataclass(frozen=True)
class OfficialDataset:
    """A published dataset: its files, the page that describes them, its licence.

    `renderer` names the module of dislab.rendering that draws the same factor grid, "" where there is none.
    """

    name: str
    files: tuple[OfficialFile, ...]
    page: str
    licence: str
    renderer: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def is_drawn(self) -> bool:
        """Whether dislab draws its images where the official files are missing."""
        module = f"dislab.rendering.{self.renderer}"
        return bool(self.renderer) and importlib.util.find_spec(module) is not None


def gunzipped(path: Path) -> bytes:
    """What a file holds, gzip or plain."""
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _olivetti_faces(path: Path) -> bytes:
    from scipy.io import loadmat

    return loadmat(path, variable_names=["faces"])["faces"].tobytes(order="F")


def _mnist(name: str, size: int, md5: str, content_md5: str) -> OfficialFile:
    return OfficialFile(
        f"{name}.gz",
        # The mirror that torchvision reads too; the original page no longer gives the files out.
        f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz",
        f"md5:{md5}",
        size,
        content_md5=content_md5,
        content=gunzipped,
        also=(name,),
    )


def _mpi3d(variant: str, md5: str, exact_size: bool = False) -> OfficialDataset:
    file = OfficialFile(
        f"mpi3d_{variant}.npz",
        f"https://huggingface.co/datasets/waleedgondal/mpi3d/resolve/main/mpi3d_{variant}.npz",
        f"md5:{md5}",
        12_740_198_762,
        exact_size,
        earlier_host=True,  # the Google bucket of 2019 to 2025; the files moved, their hashes were not given
    )
    page = "https://github.com/rr-learning/disentanglement_dataset"
    renderer = "mpi3d" if variant == "toy" else ""
    return OfficialDataset(f"mpi3d_{variant}", (file,), page, "CC-BY-4.0", renderer)


OFFICIAL = {
    dataset.name: dataset
    for dataset in (
        OfficialDataset(
            "cars3d",
            (
                OfficialFile(
                    "nips2015-analogy-data.tar.gz",
                    # There is no https there: the hash alone says that the file is the published one.
                    "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz",
                    "md5:4e866a7919c1beedf53964e6f7a23686",
                    280 * MEGABYTE,
                    unpacked=("car_*_mesh.mat", "cars/car_*_mesh.mat", "data/cars/car_*_mesh.mat"),
                ),
            ),
            "http://www.scottreed.info",
            "not stated",
            "cars3d",
        ),
        OfficialDataset(
            "dsprites",
            (
                OfficialFile(
                    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
                    "https://github.com/google-deepmind/dsprites-dataset/raw/master/"
                    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
                    "md5:7da33b31b13a06f4b04a70402ce90c2e",
                    26 * MEGABYTE,
                ),
            ),
            "https://github.com/google-deepmind/dsprites-dataset",
            "Apache-2.0",
            "dsprites",
        ),
        OfficialDataset(
            "mnist",
            (
                _mnist(
                    "train-images-idx3-ubyte",
                    9_912_422,
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "6bbc9ace898e44ae57da46a324031adb",
                ),
                _mnist(
                    "train-labels-idx1-ubyte",
                    28_881,
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "a25bea736e30d166cdddb491f175f624",
                ),
                _mnist(
                    "t10k-images-idx3-ubyte",
                    1_648_877,
                    "9fb629c4189551a2d022fa330f9573f3",
                    "2646ac647ad5339dbf082846283269ea",
                ),
                _mnist(
                    "t10k-labels-idx1-ubyte",
                    4_542,
                    "ec29112dd5afa0611ce80d1b7f02629c",
                    "27ae3e4e09519cfbb04c329615203637",
                ),
            ),
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "CC-BY-SA-3.0",
        ),
        _mpi3d("toy", "55889cb7c7dfc655d6e0277beee88868"),
        _mpi3d("realistic", "59a6225b88b635365f70c91b3e52f70f", exact_size=True),
        _mpi3d("real", "0f33f609918fb5c97996692f91129802"),
        OfficialDataset(
            "olivetti",
            (
                OfficialFile(
                    "olivettifaces.mat",
                    "https://ndownloader.figshare.com/files/5976027",
                    "sha256:b612fb967f2dc77c9c62d3e1266e0c73d5fca46a4b8906c18e454d41af987794",
                    1_400_000,
                    # Of another copy, saved by MATLAB in 2013: its pixels are those that scikit-learn shows.
                    content_md5="c789a708157faad538517a418579ad21",
                    content=_olivetti_faces,
                ),
            ),
            "https://scikit-learn.org/stable/datasets/real_world.html",
            "not stated",
        ),
        OfficialDataset(
            "shapes3d",
            (
                OfficialFile(
                    "3dshapes.h5",
                    "https://storage.googleapis.com/3d-shapes/3dshapes.h5",
                    "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
                    267_573_662,
                    exact_size=True,
                ),
            ),
            "https://github.com/google-deepmind/3d-shapes",
            "Apache-2.0",
            "shapes3d",
        ),
    )
}


ALIASES = {"mpi3d": "mpi3d_toy"}  # other names that users may write


def official(name: str) -> OfficialDataset:
    """The published dataset of that name.

    Raises
    ------
    DislabError : a name without official files.
    """
    if name in ALIASES:
        say(f"{name} means {ALIASES[name]}")
        name = ALIASES[name]
    if name not in OFFICIAL:
        raise unknown_name("official dataset", name, OFFICIAL)
    return OFFICIAL[name]


def locate(dataset: OfficialDataset, file: OfficialFile, data_dir=None) -> Path | None:
    """Where the file is, under any of its names; the folder that it was unpacked to; or None."""
    # The plain file is looked for first, as the reader does.
    path = find_file(dataset.name, [*file.also, file.name], data_dir)
    folder = data_folder(data_dir)
    for parent in (folder / dataset.name, folder):
        for pattern in file.unpacked:
            path = path or next((found.parent for found in parent.glob(pattern)), None)
    return path


@dataclass(frozen=True)
class Verdict:
    """Whether a file is what it should be, and the words for it."""

    is_right: bool
    text: str


def check(path: Path, file: OfficialFile) -> Verdict:
    """Hold a file, or the folder that it was unpacked to, against the published hash.

    Raises
    ------
    RunFailed : the file cannot be read.
    """
    if path.is_dir():
        return Verdict(True, "unpacked: there is no published hash to hold it against")
    algorithm, _, expected = file.digest.partition(":")
    found = _digest(path, algorithm)
    if found == expected:
        return Verdict(True, f"ok, {algorithm} {found}")
    differs = f"expected {algorithm} {expected}, found {found}"
    if file.content and _content_md5(path, file) == file.content_md5:
        return Verdict(True, "ok, the published content, compressed or saved anew")
    if file.earlier_host:
        if file.exact_size and path.stat().st_size != file.size:
            return Verdict(False, f"wrong: expected {file.size} bytes, found {path.stat().st_size}")
        if _is_whole_zip(path):
            return Verdict(True, f"whole by its own CRC-32, but not the file of the earlier host ({differs})")
    return Verdict(False, f"wrong: {differs}")


def fetch(name: str, data_dir=None, force: bool = False, tell: Callable[[str], None] = print) -> list[Path]:
    """Download the official files of a dataset that are missing, and check every one.

    A download is written to a temporary folder `FILE.part-…` beside its place, and moved there once its hash
    is right. After an interruption nothing of it is left, and it starts anew.

    Parameters
    ----------
    name : a name of OFFICIAL.
    data_dir : see `data_folder`.
    force : replace a file that is there with the wrong hash; else it is an error.
    tell : is given one line on each file.

    Returns
    -------
    Where the files are.

    Raises
    ------
    DislabError : a file that is there is wrong, and `force` is False.
    RunFailed : a file cannot be reached, received whole, or written.
    """
    dataset = official(name)
    folder = data_folder(data_dir)
    paths, missing = [], []
    # All that is there is checked first: what needs the user's decision is said before any download.
    for file in dataset.files:
        path = locate(dataset, file, data_dir)
        place = folder / dataset.name / file.name
        if path is not None:
            verdict = check(path, file)
            if verdict.is_right:
                tell(f"{path}: already there, {verdict.text}")
                paths.append(path)
                continue
            if not force:
                raise DislabError(f"'{path}' is there, but {verdict.text} (--force replaces it)")
            place = path.with_name(file.name)
        missing.append((file, place, path))
    for file, place, before in missing:
        verdict = download(file, place)
        if before is not None and before != place:
            before.unlink(missing_ok=True)  # the plain file would be read before the compressed one
        tell(f"{place}: {verdict.text}")
        paths.append(place)
    return paths


def download(file: OfficialFile, place: Path) -> Verdict:
    """Receive a file beside its place, check it, and only then move it there. Raises as `fetch`."""
    is_new = not place.parent.exists()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each download: two at a time do not meet, and nothing outlives an error.
        with TemporaryDirectory(prefix=f"{place.name}.part-", dir=place.parent) as folder:
            received = Path(folder).absolute() / place.name
            verdict = _receive(file, received, place)
            received.replace(place)
    except OSError as error:
        raise RunFailed(f"cannot write '{place}': {error.strerror or error}") from None
    finally:
        if is_new:
            with suppress(OSError):  # it holds the file, or it could not be made
                place.parent.rmdir()
    return verdict


def _receive(file: OfficialFile, received: Path, place: Path) -> Verdict:
    """Bring the file from its URL to `received`, which does not exist yet, and check it. Raises RunFailed."""
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")  # else it says where the temporary file is
    # Where other bytes may be right too, what came is judged below by its content or its own checksum.
    is_strict = file.content is None and not file.earlier_host
    with _Transfer(file, place) as transfer:
        downloader = pooch.HTTPDownloader(
            progressbar=transfer,
            chunk_size=CHUNK,
            timeout=SECONDS_OF_SILENCE,
            headers={"User-Agent": f"dislab/{__version__}", "Accept-Encoding": "identity"},
            hooks={"response": transfer.begin},
        )
        known_hash = file.digest if is_strict else None
        try:
            pooch.retrieve(file.url, known_hash, received.name, received.parent, downloader=downloader)
        except RequestException as error:
            if transfer.size is None:
                raise RunFailed(
                    f"cannot reach {file.url} ({_root_of(error)}): "
                    f"fetch it on another machine and put it at '{place}'"
                ) from None
            raise RunFailed(
                f"the connection to {file.url} was cut after {readable(transfer.done)} "
                f"of {readable(transfer.size)}; nothing was kept"
            ) from None
        except ValueError as error:  # another hash; what follows the first sentence is advice
            words = str(error).partition(". Deleted")[0]
            raise RunFailed(f"what {file.url} gave is wrong: {words}; it was not kept") from None
    mask = os.umask(0)
    os.umask(mask)
    received.chmod(0o666 & ~mask)  # pooch's files are for their owner only; data folders are shared
    if is_strict:
        return Verdict(True, f"ok, {file.digest.replace(':', ' ')}")
    verdict = check(received, file)
    if not verdict.is_right:
        raise RunFailed(f"what {file.url} gave is {verdict.text}; it was not kept")
    return verdict


def _root_of(error: BaseException) -> str:
    """What began a chain of exceptions, in the words of the operating system: Connection refused."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Transfer:
    """Looks at the server's answer, then is the progress bar that pooch calls (`update` to `close`).

    Attributes
    ----------
    size : bytes announced, or expected where the server does not say; None before it has answered.
    done : bytes received, to a chunk.
    total : set by pooch, which asks for it; 0 where the server does not say.
    """

    def __init__(self, file: OfficialFile, place: Path):
        self.file, self.place = file, place
        self.size, self.done, self.total = None, 0, 0
        self.bar = None

    def __enter__(self) -> _Transfer:
        return self

    def __exit__(self, *error) -> None:
        if self.bar:
            self.bar.__exit__(*error)

    def begin(self, response, **options) -> None:
        """Called by requests with each answer, before its body is read. Raises RunFailed."""
        if response.is_redirect:
            return
        if response.status_code != 200:
            raise RunFailed(
                f"{self.file.url} answered {response.status_code} {response.reason}: "
                f"fetch it elsewhere and put it at '{self.place}'"
            )
        # Servers that call a .gz file an encoding would have it unpacked on the way, and its hash is lost.
        response.raw.headers.pop("Content-Encoding", None)
        self.size = int(response.headers.get("Content-Length", 0)) or self.file.size
        free = shutil.disk_usage(self.place.parent).free
        if self.size > free:
            raise RunFailed(
                f"no space for {self.file.name} in '{self.place.parent}': "
                f"{readable(self.size)} needed, {readable(free)} free"
            )
        self.bar = _MegabyteBar(f"fetching {self.file.name}", self.size)
        self.bar.__enter__()

    def update(self, num_bytes: int) -> None:
        # pooch counts the last chunk as a full one; the bar ends with `close`.
        self.done = min(self.done + num_bytes, self.size)
        self.bar.update(min(self.done, self.size - 1))

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        self.bar.update(self.size)


class _MegabyteBar:
    """A progress bar over bytes, counted in megabytes."""

    def __init__(self, title: str, num_bytes: int, quiet: bool = False):
        self.num_bytes = num_bytes
        self.total = max(1, num_bytes // MEGABYTE)
        self.shown = 0
        self.bar = Bar(f"{title} (MB)", self.total, quiet=quiet)

    def __enter__(self) -> _MegabyteBar:
        self.bar.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.bar.__exit__(*error)

    def update(self, done: int) -> None:
        # The last megabyte is shown when the last byte is there, so that the end is said once.
        now = self.total if done >= self.num_bytes else min(done // MEGABYTE, self.total - 1)
        if now > self.shown:
            self.shown = now
            self.bar.update(now)


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        size, done = path.stat().st_size, 0
        with (
            path.open("rb") as file,
            _MegabyteBar(f"checking {path.name}", size, size < SHOW_PROGRESS) as bar,
        ):
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
    except Exception:  # damaged bytes raise whatever the decoder met first; they are not the content
        return ""


def _is_whole_zip(path: Path) -> bool:
    """Whether every member of a .npz file agrees with the CRC-32 that the file itself keeps of it."""
    size, done = path.stat().st_size, 0
    try:
        with (
            zipfile.ZipFile(path) as archive,
            _MegabyteBar(f"checking {path.name}", size, size < SHOW_PROGRESS) as bar,
        ):
            for member in archive.namelist():
                with archive.open(member) as stream:
                    while block := stream.read(CHUNK):
                        done += len(block)
                        bar.update(done)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError):
        return False
    return True


def readable(num_bytes: int) -> str:
    """Bytes in the unit that suits them: 268 MB, 12.7 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            value = num_bytes / size
            return f"{value:.1f} {unit}" if value < 100 and unit == "GB" else f"{value:.0f} {unit}"
    return f"{num_bytes} bytes"
