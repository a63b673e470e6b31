"""A results folder with damage: what is cut off, changed or not dislab's is named, and the rest is read."""

import json
import os
import shutil
from pathlib import Path

import pytest
from made_records import lines

import dislab
from dislab.cli import main
from dislab.runs.execute import execute
from dislab.runs.finished import as_json
from dislab.runs.machine import Machine
from dislab.runs.record import Results


def test_a_last_line_that_is_not_whole_is_cut_off(results, configs, capsys):
    """A process was killed while it wrote it, and the run is not finished."""
    path = Path("results/records.jsonl")
    text = path.read_bytes()
    fresh = Results("results")
    for length in (1, 100, len(text) // 3):
        path.write_bytes(text + text[:length])
        assert len(list(fresh.lines.records())) == 2
        [line] = fresh.damaged
        assert line.startswith("the last line of 'results/records.jsonl' is damaged and left out")
        assert str(configs[0].folder) in line or length < 300
    path.write_bytes(text + text[:1])
    with fresh.lock():
        assert fresh.damaged == [], "it is being written"
    third = configs[0].with_seed(2)
    [outcome] = execute([third], Machine())
    assert outcome.failure == "" and fresh.damaged == [] == Results("results").damaged
    assert fresh.find(third.digest).scores["mig"] == outcome.record["scores"]["mig"]
    assert len(lines()) == 3 and capsys.readouterr().err == ""


def test_a_last_line_without_its_end_counts(results, configs):
    """As editors write it; the next record begins a line of its own."""
    path = Path("results/records.jsonl")
    path.write_bytes(path.read_bytes().rstrip())
    fresh = Results("results")
    assert len(list(fresh.lines.records())) == 2
    [outcome] = execute([configs[0].with_seed(2)], Machine())
    assert outcome.failure == "" and len(lines()) == 3 == len(list(fresh.lines.records()))
    assert fresh.damaged == []


WRONG = [
    *({part: None} for part in ("folder", "config", "scores", "timings", "environment", "report", "details")),
    {"digest": ["x"]},
    {"folder": 7},
    {"scores": {"mig": "high"}},
    {"metrics": {"mig": {"direction": "up"}}},
    {"metrics": {"mig": "up"}},
    {"config": {"protocol": None}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_line_that_is_no_record_is_left_out(wrong, results, capsys):
    record = lines()[0] | wrong  # it comes after the right one, and must not hide it
    with Path("results/records.jsonl").open("ab") as file:
        file.write(json.dumps(record | {"digest": "x-1"}).encode())
        file.write(b"\n" + b"[" * 100_000 + b"\n")
    with pytest.warns(dislab.DislabWarning, match=r"^line 4 of 'results/records.jsonl' is damaged"):
        assert [run.config.seed for run in dislab.runs_in("results")] == [0, 1]
    assert main(["leaderboard"]) == 1
    assert "line 4 of 'results/records.jsonl' is damaged and left out" in capsys.readouterr().err


def test_a_record_of_nonsense_that_is_whole_is_left_out(results):
    """Somebody wrote it by hand, with the right digest."""
    for wrong in WRONG:
        if "digest" not in wrong:
            with Path("results/records.jsonl").open("ab") as file:
                file.write(as_json(lines()[0] | {"digest": "x-1"} | wrong))
            fresh = Results("results")
            assert len(list(fresh.lines.records())) == 2


CHANGES = {
    "a digit of a score": lambda text: text.replace(b'"mig": ', b'"mig": 1', 1),
    "a flipped bit": lambda text: text[:900] + bytes([text[900] ^ 1]) + text[901:],
    "cut": lambda text: text[: len(text) // 2] + b"\n",
    "zeros": lambda text: text[:300] + bytes(200) + text[500:],
    "the seal": lambda text: text.replace(b'"check": "', b'"check": "0', 1),
    "outside": lambda text: text.replace(b'"folder": "', b'"folder": "../../', 1),
    "no JSON": lambda text: b"no record\n",
    "another thing": lambda text: b"[1, 2]\n",
}
NAMELESS = ("no JSON", "another thing")  # which run they were of is not known


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_record_is_named_and_the_others_are_shown(change, results, configs, capsys):
    path = Path("results/records.jsonl")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(CHANGES[change](first) + second)
    for command in (["leaderboard", "--format", "csv"], ["evaluate", "results", "--metrics", "mig"]):
        assert main(command) == 1
        out, err = capsys.readouterr()
        [line] = [line for line in err.splitlines() if line.startswith("dislab: ")]
        assert line.startswith("dislab: line 1 of 'results/records.jsonl' is damaged and left out")
        assert str(configs[0].folder) in line or change in NAMELESS
        assert "tiny" in out
    [run] = Results("results").runs()
    assert run.config.seed == 1
    # The run has its run.json: nothing is trained again, and the damaged line does not count any more.
    [outcome] = execute(configs[:1], Machine())
    assert outcome.failure == "" and len(Results("results").runs()) == 2
    if change not in NAMELESS:
        assert Results("results").damaged == [] and main(["leaderboard"]) == 0


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_damaged_run_json_is_written_anew_from_the_records(change, results, configs, capsys):
    path = Path("results") / configs[0].folder / "run.json"
    whole = path.read_bytes()
    path.write_bytes(CHANGES[change](whole))
    with pytest.raises(dislab.DislabError, match=r"run.json' is damaged: its bytes are not those"):
        dislab.load(path.parent)
    assert len(dislab.runs_in("results")) == 2
    assert main(["evaluate", "results", "--metrics", "mig"]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dislab: ")]
    assert f"'{path}' is damaged" in line and line.endswith("it is written anew from the records")
    assert path.read_bytes() == whole and main(["evaluate", "results", "--metrics", "mig"]) == 0
    path.write_bytes(CHANGES[change](whole))
    [outcome] = execute(configs[:1], Machine())
    assert "is damaged" in outcome.failure and outcome.record == lines()[0] and path.read_bytes() == whole


def test_the_newest_scores_are_kept_if_their_line_is_damaged(results, configs, capsys):
    run = results.find(configs[0].digest)
    run.add_scores(["sap"])
    path = Path("results/records.jsonl")
    *first, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(first) + last.replace(b'"sap": ', b'"sap": 1', 1))
    assert main(["leaderboard"]) == 1
    assert f"line 3 of '{path}' is damaged and left out: the record of {configs[0].folder}" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", "results", "--metrics", "mig"]) == 1, "it is said once more"
    assert main(["evaluate", "results", "--metrics", "mig"]) == 0 == main(["leaderboard"])
    assert Results("results").find(configs[0].digest).scores["sap"] == run.scores["sap"]


def test_damaged_run_folders_without_records_are_named(results, configs, capsys):
    Path("results/records.jsonl").unlink()
    path = Path("results") / configs[0].folder / "run.json"
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["leaderboard"]) == 1
    assert f"'{path}' is damaged and left out: the record of {configs[0].folder}" in capsys.readouterr().err
    assert main(["evaluate", str(path.parent)]) == 2
    assert "is damaged" in capsys.readouterr().err
    # Nothing is left of its scores: it is done again.
    [outcome] = execute(configs[:1], Machine())
    assert outcome.failure == "" and main(["leaderboard"]) == 0 and len(dislab.runs_in("results")) == 2


@pytest.mark.parametrize("name", ["codes.safetensors", "model.safetensors", "history.csv"])
def test_a_file_of_a_run_that_has_changed_is_refused(name, results, configs):
    run = results.find(configs[0].digest)
    content = bytearray((run.path / name).read_bytes())
    content[-3] ^= 1
    (run.path / name).write_bytes(content)
    with pytest.raises(dislab.RunFailed, match=f"{name}' is damaged, or of another training"):
        getattr(run, name.split(".")[0])


def test_damaged_codes_of_one_run_leave_the_others(results, configs, capsys):
    path = Path("results") / configs[0].folder / "codes.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["evaluate", "results", "--metrics", "sap"]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dislab: ")]
    assert f"{path}' is damaged" in line
    assert ["sap" in run.scores for run in dislab.runs_in("results")] == [False, True]


@pytest.mark.parametrize("name", ["leaderboard.csv", "scores.csv", "records.jsonl"])
def test_a_file_that_dislab_did_not_write_is_never_overwritten(name, configs):
    Path("results").mkdir()
    (Path("results") / name).write_text("mine\n")
    with pytest.raises(dislab.DislabError, match=f"{name}' is there, and dislab did not write it: move it"):
        list(execute(configs, Machine()))
    assert [path.name for path in Path("results").iterdir()] == [name], "nothing was trained"
    assert (Path("results") / name).read_text() == "mine\n"


def test_a_cut_off_record_comes_back_from_its_run_json(results, configs):
    path = Path("results/records.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    assert "the record of" in Results("results").damaged[0]
    [outcome] = execute([configs[0].with_seed(2)], Machine())
    assert outcome.failure == ""
    assert [run.config.seed for run in dislab.runs_in("results")] == [0, 1, 2] and len(lines()) == 3


def test_a_cut_off_record_without_its_folder_stays_named(results, configs):
    path = Path("results/records.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    shutil.rmtree(Path("results") / configs[1].folder)
    [outcome] = execute([configs[0].with_seed(2)], Machine())
    assert outcome.failure == ""
    [line] = Results("results").damaged
    assert line == f"line 2 of '{path}' is damaged and left out: the record of {configs[1].folder}"


def test_records_joined_to_half_a_line_are_all_read(results):
    first, second = Path("results/records.jsonl").read_bytes().splitlines(keepends=True)
    Path("joined").mkdir()
    Path("joined/records.jsonl").write_bytes(second[:300] + first + second)
    joined = Results("joined")
    assert [run.config.seed for run in joined.runs()] == [0, 1] and joined.damaged == []


def test_a_run_json_of_another_training_stays(results, configs):
    """The run was trained on two machines, whose records were joined: the last counts."""
    run = results.find(configs[0].digest)
    kept = (run.path / "run.json").read_bytes()
    other = run.record | {"scores": {"mig": 0.25}, "files": dict.fromkeys(run.record["files"], "0")}
    with Path("results/records.jsonl").open("ab") as file:
        file.write(as_json(other))
    assert main(["evaluate", "results", "--metrics", "mig"]) == 0
    assert (run.path / "run.json").read_bytes() == kept
    assert Results("results").find(configs[0].digest).scores["mig"] == 0.25
    with pytest.raises(dislab.RunFailed, match="of another training of this run"):
        results.find(configs[0].digest).add_scores(["sap"])


@pytest.mark.parametrize("name", ["records.jsonl", "leaderboard.csv", "run.json", "codes.safetensors"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name, results, configs, capsys):
    of_run = name in ("run.json", "codes.safetensors")
    path = (Path("results") / configs[0].folder if of_run else Path("results")) / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert main(["evaluate", "results", "--metrics", "sap"]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_records_of_others_are_no_results_folder(results):
    Path("records.jsonl").write_text('{"id": 1}\n')
    assert Results.around("results/x").folder == Path("results")
    assert Results.around(".") is None
    assert [run.config.seed for run in dislab.runs_in("results")] == [0, 1]
    with pytest.raises(dislab.DislabError, match=r"no finished run in '\.'"):
        dislab.leaderboard(".")


def test_other_bytes_in_place_of_a_record_are_no_record(results, configs):
    path = Path("results/records.jsonl")
    text = path.read_bytes()
    fresh = Results("results")
    assert fresh.find(configs[1].digest) is not None
    first, second = text.splitlines(keepends=True)
    path.write_bytes(second + first + second)
    assert [run.record["digest"] for run in fresh.runs()] == [configs[0].digest, configs[1].digest]
    path.write_bytes(b"x" * len(text) * 2)
    assert fresh.find(configs[1].digest) is None and fresh.damaged
    path.unlink()
    assert len(fresh.runs()) == 2 and fresh.damaged == [], "the run.json of the folders"
    path.write_bytes(text)
    assert fresh.find(configs[1].digest).scores == Results("results").find(configs[1].digest).scores
