"""Progress: lines without a terminal, bars that fit one, and listeners."""

import io
import re

import pytest

from dislab import progress
from dislab.progress import Bar, clock, heard_by, say


def test_clock_is_hours_minutes_and_seconds():
    assert [clock(seconds) for seconds in (-3, 0.4, 59.6, 490, 3600 * 30 + 61)] == [
        *("0:00:00", "0:00:00", "0:01:00", "0:08:10", "30:01:01")
    ]


def test_say_is_a_line_unless_quiet(capsys):
    say("one")
    say("two", quiet=True)
    assert capsys.readouterr() == ("", "one\n")


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time in seconds, as the only entry of a list that a test can change."""
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[0])
    return times


def test_without_a_terminal_a_line_is_printed_now_and_then(capsys, now):
    with Bar("work", 100, start=20) as bar:
        bar.update(21)
        now[0] += 10
        bar.update(40.5, "loss 1.5")
        bar.update(60)
        now[0] += 10
        bar.update(70, "fast", left=3723)
        bar.update(100, "done")
    assert capsys.readouterr().err.splitlines() == [
        "work 40/100  loss 1.5  ETA 0:00:29",
        "work 70/100  fast  ETA 1:02:03",
        "work 100/100  done  ETA 0:00:00",
    ]


def test_a_quiet_bar_is_heard_for_as_long_as_asked(capsys):
    heard = []
    with heard_by(lambda *update: heard.append(update)), Bar("work", 3, quiet=True) as bar:
        bar.update(2, "a note")
    bar.update(3)
    assert heard == [("work", 2, 3, "a note")] and capsys.readouterr().err == ""


def test_a_bar_within_another_is_shown_by_that_one(capsys, now):
    heard = []
    with heard_by(lambda *update: heard.append(update)):
        for quiet in (False, True):
            with Bar("scoring", 4, quiet=quiet) as bar:
                bar.update(1, "mig")
                now[0] += 10
                with Bar("wren", 200) as within:
                    now[0] += 10
                    within.update(50, "accuracy 0.5")
    assert capsys.readouterr().err == "scoring 1/4  wren 50/200  accuracy 0.5  ETA 0:00:30\n"
    assert heard == [("scoring", 1, 4, "mig"), ("wren", 50, 200, "accuracy 0.5")] * 2


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("title", ["training", "drawing mpi3d_toy, once"])
def test_on_a_terminal_a_line_is_cut_and_not_wrapped(monkeypatch, width, title):
    note = "loss 102.8  reconstruction 99.1  kl_style 2.0  kl_content 1.7  12,345 images/s"
    lines = shown_on_a_terminal(monkeypatch, width, title, note)
    assert all(line.startswith(title[:8]) and len(line) <= width for line in lines), (
        "one line for each update"
    )
    text = lines[-1]
    assert " 50% 150000/300000 ETA 0:00:00" in text and ("━" in text) == (title == "training" and width == 80)
    shown = text.partition("ETA 0:00:00")[2].strip()
    whole = ["loss 102.8", "loss 102.8  reconstruction 99.1"]
    if width == 80:
        assert shown == (whole[1] if title == "training" else whole[0]), "as many whole terms as fit"
    else:
        assert whole[0].startswith(shown.removesuffix("…"))


def test_a_note_of_one_long_term_is_cut(monkeypatch):
    shown = shown_on_a_terminal(
        monkeypatch, 60, "runs", "training 12%: mlvae on shapes3d, network=conv4x4, seed 0"
    )
    assert re.search(r"ETA 0:00:00 training 12%.*…$", shown[-1].rstrip()) and len(shown[-1]) <= 60


def shown_on_a_terminal(monkeypatch, width: int, title: str, note: str) -> list[str]:
    """The lines that a bar shows on a terminal of this width."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    with Bar(title, 300_000) as bar:
        bar.update(150_000, note)
        bar._live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]
