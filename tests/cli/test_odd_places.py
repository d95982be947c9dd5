"""Odd places: names that are markup, disks that are full, folders that are another's, terminals that are narrow."""

import ctypes
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from command_line import QUICK, failing, run
from pictures import draw_noise, write_picture
from processes import Started, run_command

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, /dev/full, limits of file size, terminals")
ODD = "run[cam1] [/bold] :warning:"


@pytest.fixture(scope="module")
def trained(category, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / ODD
    _, text = run("train", category, "--out", out, *QUICK)
    assert "Traceback" not in text
    return out


@linux
def test_names_are_neither_markup_nor_emoji_nor_commands_to_a_terminal(trained, tmp_path):
    names = ["[bold]a", "new\nline", "\x1b[31mred", "n" * 251, ":smile:", "CON", os.fsdecode(b"\xff")]
    for i, name in enumerate(names):
        write_picture(tmp_path / "images" / f"{name}.png", draw_noise(48, 64, seed=i))
    to = tmp_path / "[/bold]:smile:"
    result, text = run("predict", trained, tmp_path / "images", "--heatmaps", to / "maps", "--report", to / "r.html")
    assert {Path(one["image"]).stem for one in result["results"]} == set(names)
    assert len(list((to / "maps").iterdir())) == len(names)
    assert f"look at {to / 'r.html'}" in text
    assert all(f"/{name}.png" in text for name in ("[bold]a", r"new\nline", r"\x1b[31mred", ":smile:"))
    assert len(text.splitlines()) == len(names) + 1
    for command, *arguments in (("calibrate", "--threshold", 3), ("export", "--out", to / "a.onnx")):
        assert str(trained if command == "calibrate" else to) in run(command, trained, *arguments)[1]
    assert str(to / "p.png") in run("preview", tmp_path / "images", "--out", to / "p.png")[1]
    assert ODD in failing("train", trained, "--out", trained, "--steps", 1)


@linux
@pytest.mark.parametrize("option", ["predict --out x.jsonl", "predict --report x.html", "predict --heatmaps x",
                                    "evaluate --out x", "export --out x.onnx"])  # fmt: skip
@pytest.mark.parametrize("place", ["/proc", "a file"])  # of which the first is closed to everyone
def test_a_place_that_cannot_be_written_is_said_before_any_work(
    trained, category, tmp_path, option, place, monkeypatch
):
    def never(*_arguments, **_options):
        raise AssertionError("scored, though the result cannot be written")

    monkeypatch.setattr("fastcutpaste.scoring.detector.Detector.localize", never)
    folder = Path(place)
    if place == "a file":
        folder = tmp_path / "file"
        folder.write_text("x")
    command, name, target = option.split()
    data = {"predict": [category / "test"], "evaluate": [category], "export": []}[command]
    assert str(folder) in failing(command, trained, *data, name, folder / target)


def run_without_room(arguments, most):
    """Be the command line on a disk with room for files of so many bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    run_command([str(one) for one in arguments])


@linux
@pytest.mark.parametrize("command", ["train", "calibrate", "export", "export --format torch", "evaluate", "predict"])
def test_a_full_disk_ends_in_one_line_that_names_the_file_and_spoils_none(trained, category, tmp_path, command):
    run_folder = tmp_path / "run"
    shutil.copytree(trained, run_folder)
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    name, *options = command.split()
    arguments = {"train": [category, "--out", tmp_path / "new", *QUICK], "evaluate": [run_folder, category],
                 "calibrate": [run_folder, "--threshold", 7], "export": [run_folder, "--out", tmp_path / "new/graph"],
                 "predict": [run_folder, category / "test", "--report", tmp_path / "new/r.html"]}[name]  # fmt: skip
    most = 5_000 if name in ("evaluate", "predict") else 100_000
    started = Started(tmp_path / "said", run_without_room, [name, *arguments, *options], most)
    assert started.status() == 1, started.said()
    assert "Traceback" not in started.said()
    last = started.said().strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(tmp_path) in last
    assert {path: path.read_bytes() for path in before} == before
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path not in before]
    assert {path.name for path in left} <= {"out", "err", ".fastcutpaste", "training.csv", "scores.csv"}, left


def run_with_error_into(arguments, path):
    """Be the command line, whose text for people goes to a file."""
    os.dup2(os.open(path, os.O_WRONLY), 2)
    run_command([str(one) for one in arguments])


@linux
def test_a_log_on_a_full_disk_ends_no_training(category, tmp_path):
    arguments = ["train", category, "--out", tmp_path / "run", *QUICK]
    started = Started(tmp_path, run_with_error_into, arguments, "/dev/full").succeed()
    assert json.loads(started.said("out"))["detector"] == str(tmp_path / "run/detector.safetensors")


def run_without_rights(arguments):
    """Be the command line of a user without a home and, if that is root, without what root alone may do."""
    os.environ["HOME"] = "/proc/nowhere"
    for name in [name for name in os.environ if name.startswith(("XDG_", "MPL", "TORCH", "TRITON_CACHE"))]:
        del os.environ[name]
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # of capset(2): version 3, ourselves
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")
    run_command([str(one) for one in arguments])


@linux
def test_a_user_without_a_home_reads_a_run_and_writes_where_it_is_allowed(trained, category, tmp_path):
    closed = tmp_path / "run"
    shutil.copytree(trained, closed)
    closed.chmod(0o555)
    (tmp_path / "new").mkdir()
    one = Started(tmp_path / "one", run_without_rights, ["evaluate", closed, category])
    two = Started(tmp_path / "two", run_without_rights, ["evaluate", closed, category, "--out", tmp_path / "new/e"])
    assert one.status() == 1, one.said()
    assert one.said().strip().splitlines()[-1].startswith("error: [Errno 13] Permission denied: ")
    assert str(closed / "evaluation") in one.said()
    assert "scoring" not in one.said()
    assert "Traceback" not in two.succeed().said()
    assert (tmp_path / "new/e/heatmaps.png").is_file()
