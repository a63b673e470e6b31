"""The program of a worker process: it does one task after the other.

    python -m dislab.runs.worker

Tasks come as lines of JSON on standard input; see dislab/runs/execute.py. Lines of JSON go out on standard
output: {"progress": […]}, {"outcome": {…}}, and {} when a task is done. When standard input ends, because the
parent was interrupted, killed or is done, a worker that is training saves its checkpoint between two steps
and ends. So no run trains on without a parent, and all of them resume. SIGTERM and SIGHUP, which schedulers
send to every process of a job, end a worker in the same way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from dislab import registry, signals
from dislab.errors import in_one_line
from dislab.progress import remarks_in_one_line
from dislab.runs.perform import SECONDS_TO_STOP, Outcome, do_task
from dislab.streams import guarded


def main() -> None:
    """Do tasks until standard input ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    number = 0
    try:
        with signals.raised(to_the_end=True), guarded(), remarks_in_one_line():
            work()
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
    except OSError:  # the parent has ended
        pass
    if number not in (0, signal.SIGINT):  # which is the parent's: see `listen`
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # so that the parent sees what ended this process


def work() -> None:
    """Do tasks; KeyboardInterrupt is raised if standard input ends before they are done."""
    # What a plug-in prints is no reply, and what it reads is no task.
    lines = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(2, 1)
    tasks: SimpleQueue = SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        for line in lines:
            busy.set()
            tasks.put(json.loads(line))
        tasks.put(None)
        if busy.is_set():  # as a signal of the system, which ends also what waits
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(SECONDS_TO_STOP)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()

    def reply(**content) -> None:
        print(json.dumps(content), file=replies, flush=True)

    def tell(*progress) -> None:
        with suppress(OSError):  # the parent has ended: `listen` sees to it
            reply(progress=progress)

    while (task := tasks.get()) is not None:
        try:
            for plugin in task["plugins"]:
                if Path(plugin) not in registry.plugin_files:
                    registry.load_plugin(plugin)
            for outcome in do_task(task, tell):
                reply(outcome=outcome.to_json())
        except Exception as error:
            for digest in task["digests"]:
                reply(outcome=Outcome(digest, failure=in_one_line(error)).to_json())
        busy.clear()
        reply()


if __name__ == "__main__":
    main()
