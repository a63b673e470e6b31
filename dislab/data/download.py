"""Fetching the official files of a dataset."""

from __future__ import annotations

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
    is right. After an interruption nothing of it is left, and it starts anew. A file that is there with the
    wrong hash is an error (DislabError), or is replaced with `force`. RunFailed is raised if a file cannot be
    reached, received whole, or written.
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
    """Receive a file into a temporary folder, check it, and only then move it to its path."""
    is_new = not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each download: two at a time do not meet, and nothing outlives an error.
        with TemporaryDirectory(prefix=f"{target.name}.part-", dir=target.parent) as folder:
            received = Path(folder) / target.name
            _receive(file, received, target)
            verdict = check(received, file)
            if not verdict.is_right:
                raise RunFailed(f"what {file.url} gave is {verdict.text}; it was not kept")
            received.replace(target)
    except OSError as error:
        raise RunFailed(f"cannot write '{target}': {error.strerror or error}") from None
    finally:
        if is_new:
            with suppress(OSError):  # it holds the file, or it could not be made
                target.parent.rmdir()
    return verdict


def _receive(file: OfficialFile, received: Path, target: Path) -> None:
    """Write what the file's URL gives to `received`. Lines for the user name the target."""
    import requests

    headers = {"User-Agent": f"dislab/{__version__}", "Accept-Encoding": "identity"}
    size, done = None, 0
    try:
        with requests.get(file.url, headers=headers, timeout=SECONDS_OF_SILENCE, stream=True) as answer:
            if answer.status_code != 200:
                raise RunFailed(
                    f"{file.url} answered {answer.status_code} {answer.reason}: "
                    f"fetch it elsewhere and put it at '{target}'"
                )
            # Servers that call .gz an encoding would have the file unpacked on the way, and its hash is lost.
            answer.raw.headers.pop("Content-Encoding", None)
            size = int(answer.headers.get("Content-Length", 0)) or file.size
            free = shutil.disk_usage(target.parent).free
            if size > free:
                raise RunFailed(
                    f"no space for {file.name} in '{target.parent}': "
                    f"{readable(size)} needed, {readable(free)} free"
                )
            with received.open("wb") as opened, MegabyteBar(f"fetching {file.name}", size) as bar:
                for block in answer.iter_content(CHUNK):
                    opened.write(block)
                    done += len(block)
                    bar.update(done)
                bar.update(size)  # the server may not have announced it
    except requests.RequestException as error:
        if size is None:
            raise RunFailed(
                f"cannot reach {file.url} ({_root_of(error)}): "
                f"fetch it on another machine and put it at '{target}'"
            ) from None
        raise RunFailed(
            f"the connection to {file.url} was cut after {readable(done)} of {readable(size)}; "
            "nothing was kept"
        ) from None


def _root_of(error: BaseException) -> str:
    """Return what began a chain of exceptions in the operating system's words: Connection refused."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
