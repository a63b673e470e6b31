"""Fetching the official files of a dataset."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from dislab import __version__
from dislab.data.official import (
    CHUNK,
    MegabyteBar,
    OfficialFile,
    Verdict,
    check,
    data_folder,
    locate,
    official,
    readable,
)
from dislab.errors import DislabError, RunFailed

SECONDS_OF_SILENCE = 30  # after which a connection counts as cut


def fetch(name: str, data_dir=None, force: bool = False) -> None:
    """Download the official files of a dataset that are missing, check all, and print a line on each.

    A download is written to a temporary folder `FILE.part-…` in the target's folder, and moved once its hash
    is right. After an interruption nothing of it is left, and it starts anew.

    Parameters
    ----------
    name : a dataset with official files.
    data_dir : see `data_folder`.
    force : replace a file that is there with the wrong hash; else it is an error.

    Raises
    ------
    DislabError : a file that is there is wrong, and `force` is False.
    RunFailed : a file cannot be reached, received whole, or written.
    """
    dataset = official(name)
    missing = []
    # All that is there is checked first: what needs the user's decision is said before any download.
    for file in dataset.files:
        path = locate(dataset, file, data_dir)
        target = data_folder(data_dir) / dataset.name / file.name
        if path is not None:
            verdict = check(path, file)
            if verdict.is_right:
                print(f"{path}: already there, {verdict.text}", flush=True)
                continue
            if not force:
                raise DislabError(f"'{path}' is there, but {verdict.text} (--force replaces it)")
            target = path.with_name(file.name)
        missing.append((file, target, path))
    for file, target, wrong in missing:
        verdict = download(file, target)
        if wrong is not None and wrong != target:
            wrong.unlink(missing_ok=True)  # the plain file would be read before the compressed one
        print(f"{target}: {verdict.text}", flush=True)


def download(file: OfficialFile, target: Path) -> Verdict:
    """Receive a file into a temporary folder, check it, and only then move it to its path.

    Raises
    ------
    RunFailed : the file cannot be reached, received whole, or written.
    """
    is_new = not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each download: two at a time do not meet, and nothing outlives an error.
        with TemporaryDirectory(prefix=f"{target.name}.part-", dir=target.parent) as folder:
            received = Path(folder).absolute() / target.name
            verdict = _receive(file, received, target)
            received.replace(target)
    except OSError as error:
        raise RunFailed(f"cannot write '{target}': {error.strerror or error}") from None
    finally:
        if is_new:
            with suppress(OSError):  # it holds the file, or it could not be made
                target.parent.rmdir()
    return verdict


def _receive(file: OfficialFile, received: Path, target: Path) -> Verdict:
    """Bring the file from its URL to `received`, which does not exist yet, and check it."""
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")  # else it says where the temporary file is
    # Where other bytes may be right too, what came is judged below by its content or its own checksum.
    is_strict = file.content is None and not file.earlier_host
    with _Transfer(file, target) as transfer:
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
                    f"fetch it on another machine and put it at '{target}'"
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
    """Return what began a chain of exceptions in the operating system's words: Connection refused."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Transfer:
    """Looks at the server's answer, then is the progress bar that pooch calls (`update` to `close`).

    Attributes
    ----------
    size : bytes announced, or expected if the server does not say; None before it has answered.
    done : bytes received, to a chunk.
    total : set by pooch, which asks for it; 0 if the server does not say.
    """

    def __init__(self, file: OfficialFile, target: Path):
        self.file, self.target = file, target
        self.size, self.done, self.total = None, 0, 0
        self.bar = None

    def __enter__(self) -> _Transfer:
        return self

    def __exit__(self, *error) -> None:
        if self.bar:
            self.bar.__exit__(*error)

    def begin(self, response, **options) -> None:
        """Judge an answer before its body is read; requests calls this with each. Raises RunFailed."""
        if response.is_redirect:
            return
        if response.status_code != 200:
            raise RunFailed(
                f"{self.file.url} answered {response.status_code} {response.reason}: "
                f"fetch it elsewhere and put it at '{self.target}'"
            )
        # Servers that call a .gz file an encoding would have it unpacked on the way, and its hash is lost.
        response.raw.headers.pop("Content-Encoding", None)
        self.size = int(response.headers.get("Content-Length", 0)) or self.file.size
        free = shutil.disk_usage(self.target.parent).free
        if self.size > free:
            raise RunFailed(
                f"no space for {self.file.name} in '{self.target.parent}': "
                f"{readable(self.size)} needed, {readable(free)} free"
            )
        self.bar = MegabyteBar(f"fetching {self.file.name}", self.size)
        self.bar.__enter__()

    def update(self, num_bytes: int) -> None:
        # pooch counts the last chunk as a full one; the bar ends with `close`.
        self.done = min(self.done + num_bytes, self.size)
        self.bar.update(min(self.done, self.size - 1))

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        self.bar.update(self.size)
