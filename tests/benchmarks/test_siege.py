"""The siege in its short form, and that it would find what it looks for."""

import json
import random
import shutil
import signal

import pytest

from benchmarks.siege import field as field_module
from benchmarks.siege import kills as kills_module
from benchmarks.siege.__main__ import leaks, main
from benchmarks.siege.damage import damaged
from benchmarks.siege.endurance import Held
from benchmarks.siege.field import Attack, Ended, command, make_field
from benchmarks.siege.kills import Kills, not_whole


def test_a_short_siege_finds_nothing_and_writes_its_table(tmp_path, capsys):
    asked = ("--minutes", "0", "--kills", "3", "--files", "100", "--images", "200")
    assert main([*asked, "--table", str(tmp_path / "siege.md")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["faults"] == 0
    assert told["kills"] >= 3
    assert told["files"] >= 100
    assert told["scored"] >= 200
    text = (tmp_path / "siege.md").read_text(encoding="utf-8")
    assert f"## {told['kills']} attacks on commands, 0 faults" in text
    assert "| checkpoint | " in text


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return make_field(tmp_path_factory.mktemp("siege"))


def test_files_that_are_half_there_are_found(field, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(field.run, run)
    assert not_whole(run) == []
    (run / "results.jsonl").write_text('{"image": 1}\n{"image')  # the last line of which may be cut
    assert not_whole(run) == []
    for name in ("detector.safetensors", "training.csv"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[:-9])
        [found] = not_whole(run)
        assert found.startswith(f"{name} is not whole: ")
        (run / name).write_bytes(whole)


def test_an_attack_reaches_its_command(field):
    arguments = ("calibrate", field.run, "--threshold", "4")
    assert command(field, Attack("kill", (signal.SIGKILL,), write=1), *arguments).status == -signal.SIGKILL
    assert command(field, Attack("full", room=20_000), *arguments).status == 1


def test_a_command_may_end_just_before_its_signal(field, monkeypatch):
    def gone(process, number):
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(field_module.os, "kill", gone)
    late = Attack("late", (signal.SIGTERM,), after=0.0)
    assert command(field, late, "calibrate", field.run, "--threshold", "4").status == 0


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (Ended(0, "", "Traceback (most recent call last)", 1.0), "Traceback"),
        (Ended(-signal.SIGSEGV, "", "", 1.0), f"status {-signal.SIGSEGV}"),
        (Ended(None, "", "", 300.0), "no end in time"),
        (Ended(1, "", "error: no", 1.0), "refused"),
    ],
)
def test_a_bad_end_is_a_fault(field, ended, fault, monkeypatch):
    monkeypatch.setattr(kills_module, "command", lambda *_arguments: ended)
    kills = Kills(field)
    kills._run("train", Attack("SIGTERM"))
    [found] = kills.faults
    assert fault in found


def test_a_training_that_leaves_no_detector_is_a_fault_and_is_said(field, monkeypatch, capsys):
    monkeypatch.setattr(kills_module, "command", lambda *_arguments: Ended(0, "", "well", 1.0))
    kills = Kills(field)
    kills._train()
    assert kills.faults == ["train: status 0, and no detector: well"]
    assert capsys.readouterr().err == f"fault: {kills.faults[0]}\n"


def test_what_a_process_came_to_keep_is_a_fault():
    assert leaks(Held(100, 1, 8), Held(110, 1, 8)) == []
    assert len(leaks(Held(100, 1, 8), Held(200, 1, 9))) == 2
    assert len(leaks(Held(100, 1, 8), Held(100, 2, 8))) == 1


def test_damage_is_drawn_from_the_seed(field):
    whole = (field.run / "detector.safetensors").read_bytes()
    drawn = [damaged(whole, ".safetensors", random.Random(seed)) for seed in (*range(40), 3)]
    assert drawn[3] == drawn[-1]
    assert len({name for name, _ in drawn}) > 5
    assert sum(data == whole for _, data in drawn) == 0
