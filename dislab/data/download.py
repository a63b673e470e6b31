"""Fetching the official files of a dataset."""

from __future__ import annotations

import glob
import shutil
import time
from contextlib import suppress
from pathlib import Path

from dislab import __version__
from dislab.claim import claimed
from dislab.data.official import (
    CHUNK,
    MegabyteBar,
    OfficialFile,
    Verdict,
    check,
    checked,
    data_folder,
    how_to_get,
    keep,
    locate,
    official,
    readable,
)
from dislab.errors import DislabError, RunFailed
from dislab.progress import say

SECONDS_OF_SILENCE = 30  # after which a connection counts as cut
SECONDS_UNTIL_ABANDONED = 3600  # for a folder of an earlier version's download, without a change
SLACK = 1.25  # bytes received at most for each byte of a size that is known roughly


def fetch(name: str, data_dir=None, force: bool = False) -> None:
    """Download the official files of a dataset that are missing, check all, and print a line on each.

    A download is written to `FILE.partial` beside the target, and moved once its hash is right. What was
    received before an interruption stays there, and the next call goes on from its end. Of several processes
    one downloads a file, and the others wait. A file that is there with the wrong hash is an error
    (DislabError), or is replaced with `force`. RunFailed is raised if a file cannot be reached, received
    whole, or written.
    """
    dataset = official(name)
    missing = []
    # All that is there is checked first: what needs the user's decision is said before any download.
    for file in dataset.files:
        path = locate(dataset, file, data_dir)
        target = data_folder(data_dir) / dataset.name / file.name
        if path is not None:
            verdict = keep(path, file, check(path, file))
            if verdict.is_right:
                print(f"{path}: already there, {verdict.text}", flush=True)
                continue
            if not force:
                raise DislabError(f"'{path}' is there, but {verdict.text} (--force replaces it)")
            target = path.with_name(file.name)
        if file.by_hand:
            raise DislabError(f"{file.name} cannot be fetched: {how_to_get(dataset, file, target)}")
        missing.append((file, target, path))
    for file, target, wrong in missing:
        verdict = download(file, target)
        if wrong is not None and wrong != target:
            wrong.unlink(missing_ok=True)  # the plain file would be read before the compressed one
        print(f"{target}: {verdict.text}", flush=True)


def download(file: OfficialFile, target: Path) -> Verdict:
    """Receive a file beside its path, check it, and only then move it there."""
    is_new = False
    partial = target.with_name(f"{target.name}.partial")
    try:
        is_new = not target.parent.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(target):
            _remove_earlier(target)
            # Another process may have fetched it while this one waited.
            if target.is_file() and (verdict := checked(target, file)).is_right:
                return verdict
            is_resumed = _received(partial) > 0
            _receive(file, partial, target)
            verdict = check(partial, file)
            if is_resumed and not verdict.is_right:
                say(
                    f"what was received of {file.name} earlier does not fit: it is fetched from the beginning"
                )
                partial.unlink()
                _receive(file, partial, target)
                verdict = check(partial, file)
            if not verdict.is_right:
                partial.unlink()
                raise RunFailed(f"what {file.url} gave is {verdict.text}; it was not kept")
            partial.replace(target)
            return keep(target, file, verdict)
    except OSError as error:
        raise RunFailed(f"cannot write '{target}': {error.strerror or error}") from None
    finally:
        if is_new:
            with suppress(OSError):  # it holds the file, or a part, or it could not be made
                target.parent.rmdir()


def _receive(file: OfficialFile, partial: Path, target: Path) -> None:
    """Add what the file's URL gives to what was received earlier. Lines for the user name the target."""
    import requests

    most = file.size if file.exact_size else int(SLACK * file.size)
    start = _received(partial)
    if start > most:
        start = 0
    if start == most:  # only its hash is still to be checked
        return
    size, done = None, start
    try:
        with _ask(file.url, start) as answer:
            if answer.status_code == 416:  # there is no more
                return
            if answer.status_code not in (200, 206):
                raise RunFailed(
                    f"{file.url} answered {answer.status_code} {answer.reason}: "
                    f"fetch it elsewhere and put it at '{target}'"
                )
            start = done = start if answer.status_code == 206 else 0
            # Servers that call .gz an encoding would have the file unpacked on the way, and its hash is lost.
            answer.raw.headers.pop("Content-Encoding", None)
            announced = answer.headers.get("Content-Length", "")
            size = start + int(announced) if announced.isdecimal() else file.size
            free = shutil.disk_usage(target.parent).free
            if size - start > free:
                raise RunFailed(
                    f"no space for {file.name} in '{target.parent}': "
                    f"{readable(size - start)} needed, {readable(free)} free"
                )
            too_much = f"{file.url} gives more than the {readable(file.size)} of {file.name}: it was not kept"
            if size > most:
                raise RunFailed(too_much)
            with (
                partial.open("ab" if start else "wb") as opened,
                MegabyteBar(f"fetching {file.name}", size, start=start) as bar,
            ):
                for block in answer.iter_content(CHUNK):
                    done += len(block)
                    if done > most:
                        opened.truncate(0)
                        raise RunFailed(too_much)
                    opened.write(block)
                    bar.update(done)
                if file.exact_size and done < size:
                    raise requests.ConnectionError
                bar.update(size)  # the server may not have announced it
    except requests.RequestException as error:
        if size is None:
            raise RunFailed(
                f"cannot reach {file.url} ({_root_of(error)}): "
                f"fetch it on another machine and put it at '{target}'"
            ) from None
        raise RunFailed(
            f"the connection to {file.url} was cut after {readable(done)} of {readable(size)}; "
            "run the same command to resume"
        ) from None
    finally:
        if not _received(partial):
            partial.unlink(missing_ok=True)


def _ask(url: str, start: int):
    """Ask for a file from a position on; if the server does not give that part, for all of the file."""
    import requests

    headers = {"User-Agent": f"dislab/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    answer = requests.get(url, headers=headers, timeout=SECONDS_OF_SILENCE, stream=True)
    part = answer.headers.get("Content-Range", "").strip()
    is_right = {206: part.startswith(f"bytes {start}-"), 416: part == f"bytes */{start}"}
    if start and not is_right.get(answer.status_code, True):
        answer.close()
        return _ask(url, 0)
    return answer


def _received(partial: Path) -> int:
    """Return the number of bytes that were received earlier."""
    try:
        return partial.stat().st_size
    except FileNotFoundError:
        return 0


def _remove_earlier(target: Path) -> None:
    """Delete the folders FILE.part-… that killed downloads of earlier versions left."""
    for folder in target.parent.glob(f"{glob.escape(target.name)}.part-*"):
        with suppress(OSError):
            times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
            if time.time() - max(times) > SECONDS_UNTIL_ABANDONED:
                shutil.rmtree(folder)


def _root_of(error: BaseException) -> str:
    """Return what began a chain of exceptions in the operating system's words: Connection refused."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
