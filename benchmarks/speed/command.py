"""Measure the CPU seconds of every phase of one `dislab run`.

    python -m dislab.benchmarks.speed.command --model mlvae --dataset shapes3d --steps 25

The options are those of `dislab run`; its results are thrown away. A phase includes the imports that it is
the first to need. The last line of the output is a JSON object: phase -> CPU seconds of all threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import wraps

from dislab.cli import main as dislab_command
from dislab.errors import RunFailed
from dislab.runs import perform

PHASES = {  # functions that `dislab.runs.perform` calls -> the phase
    "images_of": "opening the dataset",
    "_train": "training",
    "encode_model": "encoding",
    "reconstruction_errors": "reconstruction errors",
    "compute": "scoring",
    "draw_pictures": "pictures",
    "evidence": "evidence",
}
STEPS = 25  # the phases but training take the same time after any number of steps


def main(arguments: Sequence[str] | None = None) -> int:
    seconds = {"imports": time.process_time()}  # since Python started
    for name, phase in PHASES.items():
        setattr(perform, name, _timed(getattr(perform, name), phase, seconds))
    arguments = sys.argv[1:] if arguments is None else arguments
    with tempfile.TemporaryDirectory() as folder:
        code = dislab_command(["run", *arguments, "--out", folder])
    seconds["rest"] = time.process_time() - sum(seconds.values())
    print(json.dumps({phase: round(value, 3) for phase, value in seconds.items()}))
    return code


def _timed(function: Callable, phase: str, seconds: dict[str, float]) -> Callable:
    """Return the function; a call adds its CPU seconds to those of the phase."""

    @wraps(function)
    def timed(*arguments, **options):
        began = time.process_time()
        try:
            return function(*arguments, **options)
        finally:
            seconds[phase] = seconds.get(phase, 0.0) + time.process_time() - began

    return timed


def measure_command(column: str, device: str, data_dir, threads: int) -> list[dict]:
    """Return a line of the table per phase of `dislab run --model mlvae --dataset shapes3d`, but training."""
    command = [sys.executable, "-m", "dislab.benchmarks.speed.command", "--device", device]
    command += ["--model", "mlvae", "--dataset", "shapes3d", "--steps", str(STEPS)]
    command += ["--data-dir", str(data_dir)] if data_dir else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise RunFailed(f"`dislab run` for its phases ended with exit code {ended.returncode}")
    seconds = json.loads(ended.stdout.splitlines()[-1])
    line = {"what": "command", "dataset": "shapes3d", "unit": "CPU seconds"}
    return [line | {"of": phase, column: value} for phase, value in seconds.items() if phase != "training"]


if __name__ == "__main__":
    sys.exit(main())
