"""What a node of a cluster does with a task; see dislab/runs/on_ray.py.

Images are drawn or decoded once on a node: its processes share a cache folder, and each keeps the dataset
that it opened last.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dislab import registry
from dislab.errors import RunFailed, in_one_line
from dislab.runs.lines import RECORDS
from dislab.runs.perform import do_task

SECONDS_BETWEEN_SIGNS = 1.0  # of a task's progress

_loaded: dict[tuple[str, bytes], tempfile.TemporaryDirectory] = {}  # plug-ins of this process


def do_on_node(
    task: Mapping, plugins: Sequence[tuple[str, bytes]], told, collect: bool
) -> list[tuple[dict, dict[str, bytes]]]:
    """Do a task on this node; return its outcomes as JSON, each with the files of its run if these are sent.

    Parameters
    ----------
    plugins : name and content of each plug-in file.
    told : handle of the actor that the progress goes to.
    collect : send the files of the runs, whose folder is a temporary one here.
    """
    said, answers = 0.0, []

    def tell(*progress) -> None:
        nonlocal said
        if time.monotonic() - said > SECONDS_BETWEEN_SIGNS:
            said = time.monotonic()
            told.put_nowait.remote(progress)

    out = Path(tempfile.mkdtemp(prefix="dislab-") if collect else task["machine"]["out"])
    try:
        if not collect and not (out / RECORDS).is_file():
            raise RunFailed(f"this node does not see '{out}': share that folder, or add --collect")
        for name, content in plugins:
            if (name, content) not in _loaded:
                _loaded[name, content] = folder = tempfile.TemporaryDirectory(prefix="dislab-")
                Path(folder.name, name).write_bytes(content)
                registry.load_plugin(Path(folder.name, name))
        for outcome in do_task({**task, "machine": task["machine"] | {"out": str(out)}}, tell):
            names = outcome.record["files"] if collect and outcome.record else ()
            files = {name: (out / outcome.record["folder"] / name).read_bytes() for name in names}
            answers.append((outcome.to_json(), files))
    except Exception as error:
        answers = [({"digest": digest, "failure": in_one_line(error)}, {}) for digest in task["digests"]]
    finally:
        if collect:
            shutil.rmtree(out, ignore_errors=True)
    return answers
