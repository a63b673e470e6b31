"""Standard output and standard error that are closed, full, or a pipe that nobody reads any more."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from bars import PLAIN, PLUGIN

from dislab import streams
from dislab.progress import Bar, say

RUN = "run --model vae --dataset bars --steps 30 --batch-size 16 --set network=mlp --metrics active_units"
PROGRAM = f"{sys.executable} -m dislab"


def in_shell(command: str) -> subprocess.CompletedProcess:
    command = command.replace("dislab ", f"{PROGRAM} ")
    shell = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(shell, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("<&- >&- 2>&-", 0),
        (">/dev/full", 1),
        ("--seeds 0,1 --jobs 2 2>&1 | head -1", 0),
    ],
)
def test_a_run_is_stored_whatever_becomes_of_its_output(redirected, code, bars):
    Path("bars.py").write_text(PLUGIN + PLAIN)
    done = in_shell(f"dislab {RUN} --plugin bars.py {redirected}")
    assert done.returncode == code
    assert len(list(Path("results").rglob("run.json"))) == 1 + ("--seeds" in redirected)
    assert Path("results/leaderboard.csv").is_file()
    lines = [line for line in done.stderr.splitlines() if line.startswith("dislab: ")]
    full = "dislab: standard output cannot be written: No space left on device"
    assert lines == ([full] if redirected == ">/dev/full" else [])
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize("command", ["list networks", "--help"])
def test_a_reader_may_stop_early(command):
    done = in_shell(f"dislab {command} | true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    full = in_shell(f"dislab {command} >/dev/full")
    assert full.returncode == 1 and full.stderr.count("\n") == 1 and "No space left" in full.stderr


def test_signs_that_the_encoding_lacks_are_replaced(bars):
    done = in_shell("PYTHONIOENCODING=ascii dislab run --dataset bars --model 'é' --plugin bars.py")
    assert done.returncode == 2 and done.stderr.startswith("dislab: unknown model '?'")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    code = f"""
import os
from dislab.streams import occupy
occupy()
os.write(2, b"into the void")
assert open({str(tmp_path / "record")!r}, "w").fileno() > 2
assert all(os.get_inheritable(number) for number in (0, 1, 2))
"""
    done = in_shell(f"{sys.executable} -c '{code.replace(chr(39), chr(34))}' <&- >&- 2>&-")
    assert done.returncode == 0


def test_a_guarded_stream_keeps_its_first_error_and_drops_the_rest():
    number = os.open("/dev/full", os.O_WRONLY)
    with streams.Guarded(number, "w", closefd=True) as guard:
        stream = io.TextIOWrapper(io.BufferedWriter(guard), "ascii", "replace")
        stream.write("é" * 100_000)
        stream.flush()
        assert guard.error.strerror == "No space left on device"
        stream.write("more")
        stream.flush()


def test_a_stream_that_does_not_wait_gets_all_of_it(tmp_path):
    read, write = os.pipe()
    os.set_blocking(write, False)
    content = bytes(range(256)) * 4096
    with (tmp_path / "read").open("wb") as file, subprocess.Popen(["cat"], stdin=read, stdout=file):
        os.close(read)
        with streams.Guarded(write, "w", closefd=True) as guard:
            buffer = io.BufferedWriter(guard)
            buffer.write(content)
            buffer.flush()
            assert guard.error is None
    assert (tmp_path / "read").read_bytes() == content


def test_a_live_bar_survives_a_terminal_that_goes_away(monkeypatch):
    master, slave = pty.openpty()
    guard = streams.Guarded(slave, "w", closefd=True)
    terminal = io.TextIOWrapper(io.BufferedWriter(guard), "utf-8", "replace", line_buffering=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Bar("training", 100) as bar:
        bar.update(10)
        bar._live.refresh()
        os.close(master)
        bar.update(20)
        bar._live.refresh()
        say("a line")
    assert guard.error.strerror == "Input/output error"


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, Broken()])
def test_a_program_that_uses_dislab_trains_on_without_a_standard_error(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar("work", 2) as bar:
        bar.update(1)
        bar.update(2)
    say("a line")
