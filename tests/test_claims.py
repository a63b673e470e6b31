"""Claims: one process alone does a run, and takes over what a dead one left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dislab import claim as claims
from dislab import processes
from dislab.claim import Claim, claimed
from dislab.errors import RunFailed


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_process(code: str, *arguments) -> subprocess.Popen:
    """A process that has imported Claim."""
    head = "import os, sys, time\nfrom pathlib import Path\nfrom dislab.claim import Claim, claimed\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_one_holds_a_claim_until_it_gives_it_back(tmp_path):
    one, other = Claim(tmp_path / "run"), Claim(tmp_path / "run")
    assert one.is_free() and one.take() and not other.take() and not other.is_free()
    other.release()
    assert files(tmp_path) == ["run.claim-1"], "who holds nothing gives nothing back"
    one.release()
    assert files(tmp_path) == [] and other.take() and not other.is_lost()
    assert Claim(tmp_path / "run2").take(), "a name that begins alike is another claim"


def test_the_claim_of_a_killed_process_is_taken_over(tmp_path):
    process = in_process("print(Claim(Path(sys.argv[1])).take()); os.kill(os.getpid(), 9)", tmp_path / "run")
    assert process.wait(60) == -signal.SIGKILL and files(tmp_path) == ["run.claim-1"]
    one, other = Claim(tmp_path / "run"), Claim(tmp_path / "run")
    assert one.take() and one.number == 2 and not other.take()
    one.release()
    assert files(tmp_path) == []


def test_a_number_that_another_process_has_now_is_not_the_owner(tmp_path):
    """The claim names this process's number with another start time: its owner is dead."""
    owner = processes.this_process() | {"started": "1"}
    (tmp_path / "run.claim-1").write_text(json.dumps(owner))
    if owner["started"] == processes.start_time(os.getpid()) or not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    assert Claim(tmp_path / "run").take()


@pytest.mark.parametrize("content", ['{"machine": "another", "process": 1, "started": "1"}', ""])
def test_an_owner_on_another_machine_is_dead_when_it_is_silent(content, tmp_path):
    """Also one whose claim is still empty: it is writing it, or died while it did."""
    file = tmp_path / "run.claim-1"
    file.write_text(content)
    assert not Claim(tmp_path / "run").take()
    silent = time.time() - claims.SECONDS_UNTIL_STALE - 10
    os.utime(file, (silent, silent))
    late = Claim(tmp_path / "run")
    assert late.take() and files(tmp_path) == ["run.claim-1", "run.claim-2"]


def test_an_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SECONDS_BETWEEN_SIGNS", 0.02)
    monkeypatch.setattr(claims, "_beating", threading.Lock())
    claim = Claim(tmp_path / "run")
    assert claim.take()
    os.utime(tmp_path / "run.claim-1", (0, 0))
    for _ in range(200):
        if (tmp_path / "run.claim-1").stat().st_mtime > 1e9:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the claim was not touched")
    claim.release()


def test_of_many_processes_one_at_a_time_works(tmp_path):
    """Each reads a number, waits, and writes the next: a number is lost if two work at once."""
    (tmp_path / "number").write_text("0")
    code = """
for _ in range(5):
    with claimed(Path(sys.argv[1])):
        number = int(Path(sys.argv[2]).read_text())
        time.sleep(0.002)
        Path(sys.argv[2]).write_text(str(number + 1))
"""
    processes = [in_process(code, tmp_path / "work", tmp_path / "number") for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "20" and files(tmp_path) == ["number"]


def test_a_dead_claim_goes_to_one_of_many(tmp_path):
    """Eight threads find the same dead owner at once, again and again."""
    for round_ in range(20):
        path = tmp_path / f"run{round_}"
        dead = processes.this_process() | {"started": "1"}
        path.with_name(f"{path.name}.claim-1").write_text(json.dumps(dead))
        barrier, won = threading.Barrier(8), []

        def contend(path=path, barrier=barrier, won=won) -> None:
            claim = Claim(path)
            barrier.wait()
            if claim.take():
                won.append(claim)

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) <= 1
        for claim in won:
            claim.release()


def test_an_owner_knows_that_its_claim_was_taken_over(tmp_path):
    claim = Claim(tmp_path / "run")
    assert claim.take()
    parent = {"process": os.getppid(), "started": processes.start_time(os.getppid())}
    (tmp_path / "run.claim-2").write_text(json.dumps(processes.this_process() | parent))
    assert claim.is_lost()
    claim.release()
    assert files(tmp_path) == ["run.claim-2"], "the claim of the other stays"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(RunFailed, match="cannot claim"), claimed(tmp_path / "missing" / "run"):
        pass


def test_a_claim_that_was_interrupted_does_not_hang_its_own_process(tmp_path, monkeypatch):
    """Ctrl-C comes while the claim's file is written."""
    monkeypatch.setattr(claims.json, "dumps", lambda *content: (_ for _ in ()).throw(KeyboardInterrupt))
    claim = Claim(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        claim.take()
    monkeypatch.undo()
    (tmp_path / "run.claim-1").write_text(json.dumps(processes.this_process()))
    assert claim.take() and files(tmp_path) == ["run.claim-1", "run.claim-2"]
    claim.release()
    assert files(tmp_path) == []


def test_a_claim_that_cannot_be_written_leaves_no_file(tmp_path, monkeypatch):
    def full(*content, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims.os, "link", full)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RunFailed, match=r"cannot claim .*No space left"):
        Claim(tmp_path / "run").take()
    assert files(tmp_path) == []


@pytest.mark.parametrize("content", ["[]", "5", "null", '"a"', '{"machine": "x"}', "{", "\x00"])
def test_a_file_that_is_no_claim_counts_as_one_until_it_is_old(content, tmp_path):
    file = tmp_path / f"run.claim-{10**30}"
    file.write_text(content)
    assert not Claim(tmp_path / "run").take()
    os.utime(file, (0, 0))
    claim = Claim(tmp_path / "run")
    assert claim.take()
    claim.release()
    assert files(tmp_path) == []
