"""Signals that end programs: one line and an exit code at any moment, and checkpoints to resume from."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bars import PLAIN
from forked import Forked
from test_training import PROTOCOL, assert_same_progress, at_step, make_training, train

from dislab import signals
from dislab.cli import main

SLOW = ["run", "--model", "vae", "--dataset", "bars", "--steps", "100000", "--batch-size", "16"]
SLOW += ["--set", "network=mlp", "--metrics", "mig"]
EAGER = "from dislab.training import loop\nloop.SECONDS_BETWEEN_CHECKPOINTS = 0\n"
INTERRUPTED = "dislab: interrupted; run the same command to resume"


def start(*arguments: str, ignored: int | None = None, code: str = "") -> subprocess.Popen:
    """A dislab program, a new Python; Ctrl-C is not ignored, as it is in the background jobs of a shell."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)

    command = ["-c", code] if code else ["-m", "dislab"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command, *arguments], **pipes, preexec_fn=prepare)


def wait_for_checkpoints(folder: str, number: int, process: Forked) -> None:
    for _ in range(3000):
        if len(list(Path(folder).rglob("checkpoint.safetensors"))) == number or process.poll() is not None:
            return
        time.sleep(0.02)


@pytest.mark.parametrize("after", [0.6, 1.5])
def test_ctrl_c_at_any_moment_is_one_line(after, bars):
    process = start(*SLOW, *bars)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.count(INTERRUPTED) == 1 and err.endswith(f"{INTERRUPTED}\n")
    assert "Traceback" not in err and "Error" not in err and "Exception" not in err
    assert not list(Path().rglob("*.claim-*")) and not list(Path().rglob("*.part"))


@pytest.mark.parametrize(("how", "jobs"), [(signal.SIGTERM, 1), (signal.SIGHUP, 2)])
def test_signals_of_schedulers_and_terminals_save_checkpoints(how, jobs, bars):
    Path("eager.py").write_text(EAGER)
    several = ["--seeds", "0,1", "--jobs", str(jobs)]
    process = Forked(*SLOW, *bars, "--plugin", "eager.py", *several, log="said.txt")
    wait_for_checkpoints("results", jobs, process)
    process.send_signal(how)
    assert process.wait(60) == 128 + how
    err = Path("said.txt").read_text()
    assert err.splitlines()[-1] == f"dislab: ended by {how.name}; run the same command to resume"
    assert "Traceback" not in err and "failed" not in err
    assert len(list(Path("results").rglob("checkpoint.safetensors"))) == jobs
    assert not list(Path().rglob("*.claim-*")) and not list(Path().rglob("*.part"))


# Says which processes have taken a step.
BEGUN = """
import os
from pathlib import Path
from dislab.training.steps import SingleSteps
step = SingleSteps.step
def stepped(self):
    terms = step(self)
    Path(f"begun{os.getpid()}").touch()
    return terms
SingleSteps.step = stepped
"""


def test_a_worker_that_is_told_to_end_saves_its_checkpoint_and_its_parent_says_so(bars):
    Path("begun.py").write_text(BEGUN)
    several = ["--seeds", "0,1", "--jobs", "2"]
    process = Forked(*SLOW, *bars, "--plugin", "begun.py", *several, log="said.txt")
    for _ in range(3000):
        if len(list(Path().glob("begun[0-9]*"))) == 2:
            break
        time.sleep(0.02)
    children = process.children()
    assert not list(Path("results").rglob("checkpoint.safetensors"))
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    assert process.wait(60) == 1
    err = Path("said.txt").read_text()
    lines = [line for line in err.splitlines() if "its process ended by the signal SIGTERM" in line]
    assert "Traceback" not in err
    assert [line.partition(":")[0] for line in lines] == ["failed", "failed"]
    assert len(list(Path("results").rglob("checkpoint.safetensors"))) == 2


def test_a_signal_that_is_ignored_stays_ignored(bars):
    """As nohup has it."""
    Path("plain.py").write_text(PLAIN)
    arguments = [*SLOW, *bars, "--steps", "300", "--jobs", "1", "--plugin", "plain.py"]
    process = start(*arguments, ignored=signal.SIGHUP)
    for _ in range(40):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        if process.poll() is not None:
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


SWALLOWED = {
    "a callback": """
class Dropped:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Dropped()
""",
    "a library": """
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
""",
    "another error": """
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    raise ValueError("numpy.core.multiarray failed to import")
""",
}


@pytest.mark.parametrize("by", SWALLOWED)
def test_an_interruption_that_is_swallowed_ends_the_program_all_the_same(by, bars):
    Path("swallows.py").write_text(f"import signal\n{SWALLOWED[by]}")
    process = start(*SLOW, *bars, "--plugin", "swallows.py")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "ignored" not in err
    assert err.endswith(f"{INTERRUPTED}\n") and "multiarray" not in err


def test_an_import_is_finished_before(bars, tmp_path):
    """C++ code that is interrupted while it imports aborts the process."""
    (tmp_path / "slow_import.py").write_text(
        "import signal, sys\nsignal.raise_signal(signal.SIGINT)\nprint('whole', file=sys.stderr)\n"
    )
    Path("imports.py").write_text(
        "import sys, time\nsys.path.insert(0, '.')\nimport slow_import\ntime.sleep(60)\n"
    )
    process = start(*SLOW, *bars, "--plugin", "imports.py")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == f"whole\n{INTERRUPTED}\n"


def test_nothing_interrupts_the_end_of_the_program():
    code = """
import atexit, os, signal, sys, time
from dislab.cli import main
atexit.register(lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(3)])
sys.exit(main())
"""
    process = start("list", "networks", code=code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out and err == ""


def test_the_command_line_leaves_the_signals_as_they_were(capsys):
    before = [signal.getsignal(number) for number in signals.ENDING]
    hooks = sys.unraisablehook, sys.excepthook
    assert main(["list", "models"]) == 0
    assert [signal.getsignal(number) for number in signals.ENDING] == before
    assert (sys.unraisablehook, sys.excepthook) == hooks


# In a program that uses dislab as a library, its own handlers decide what a signal does.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_handler_of_the_users_own_decides(number, tmp_path, monkeypatch):
    class Ended(Exception):
        pass

    def end(received, frame) -> None:
        assert list(tmp_path.glob("*")), "the checkpoint is saved first"
        raise Ended

    before = signal.signal(number, end)
    try:
        model, batches = make_training()
        at_step(model, 31, lambda terms: os.kill(os.getpid(), number))
        with pytest.raises(Ended):
            train(model, batches, PROTOCOL, tmp_path / "checkpoint")
        assert signal.getsignal(number) is end
        assert_same_progress(tmp_path / "checkpoint", 32)
    finally:
        signal.signal(number, before)


def test_training_goes_on_where_the_users_handler_does_not_end_it(tmp_path):
    noted = []
    before = signal.signal(signal.SIGTERM, lambda received, frame: noted.append(received))
    try:
        model, batches = make_training()
        at_step(model, 31, lambda terms: os.kill(os.getpid(), signal.SIGTERM))
        train(model, batches, PROTOCOL, tmp_path / "checkpoint")
        assert noted == [signal.SIGTERM]
        assert_same_progress(tmp_path / "checkpoint", PROTOCOL.steps)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_handler_the_default_action_ends_the_program(bars):
    code = f"""
import os, signal, dislab
{EAGER}
dislab.load_plugin("bars.py")
from dislab.training.steps import SingleSteps
step, taken = SingleSteps.step, []
def stepped(self):
    taken.append(1)
    if len(taken) == 40:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self)
SingleSteps.step = stepped
dislab.run("vae", "bars", steps=5000, batch_size=16, network="mlp", metrics=["mig"])
"""
    process = start(code=code)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert len(list(Path("results").rglob("checkpoint.safetensors"))) == 1


def test_an_interruption_that_is_handled_is_not_repeated():
    with signals.raised(to_the_end=False):
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert signals.ignored() == signal.SIGTERM
        del caught
        gc.collect()
        time.sleep(3 * signals.SECONDS_UNTIL_REPEATED)
