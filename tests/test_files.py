"""Laws of `written_whole`: a reader sees the old file or the new one, never half of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from fastcutpaste.files import check_writable, safe_name, written_whole
from fastcutpaste.scoring.tensors import save_tensors


def test_the_file_holds_what_was_written_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "map.png"
    with written_whole(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_block_ends_the_old_file_is_seen_whole(tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(b"old")
    with written_whole(path) as temporary:
        temporary.write_bytes(b"half of the n")
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_until_the_block_ends_a_new_file_is_not_there(tmp_path):
    path = tmp_path / "map.png"
    with written_whole(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("written", [True, False])
def test_an_error_leaves_everything_as_it_was(tmp_path, error, old, written):
    path = tmp_path / "map.png"
    if old is not None:
        path.write_bytes(old)

    def write_half():
        with written_whole(path) as temporary:
            if written:
                temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_move_that_fails_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)  # a folder with something in it cannot be replaced
    with pytest.raises(OSError, match="taken"), written_whole(path) as temporary:
        temporary.write_bytes(b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / "runs" / "one" / "log.csv"
    with written_whole(path) as temporary:
        temporary.write_text("a,b\n")
    assert path.read_text() == "a,b\n"


@pytest.mark.parametrize("name", ["map.png", "weights.tar.gz", "no_suffix", ".hidden", "space in it.csv", "ä.json"])
def test_the_temporary_file_is_new_hidden_beside_it_and_of_the_same_suffix(tmp_path, name):
    path = tmp_path / name
    with written_whole(path) as temporary:
        assert not temporary.exists()
        assert temporary != path
        assert temporary.parent == path.parent
        assert temporary.suffix == (path.suffix or ".part")
        assert temporary.name.startswith(".")
        temporary.touch()
    assert path.exists()


def test_a_path_may_be_a_string_and_the_folder_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with written_whole("report.html") as temporary:
        assert isinstance(temporary, Path)
        temporary.write_bytes(b"new")
    assert (tmp_path / "report.html").read_bytes() == b"new"


def test_the_bytes_reach_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("fsync") or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("replace") or replace(*paths))
    with written_whole(tmp_path / "map.png") as temporary:
        temporary.write_bytes(b"new")
        assert not calls
    assert calls == ["fsync", "replace"]


def test_what_killed_writers_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path, end = tmp_path / "run[cam1].safetensors", "part.safetensors"
    kept = [f".run[cam1].{os.getppid()}.{end}", f".run[cam1].{dead.pid}.other", f".run.{dead.pid}.{end}", "other.txt"]
    for name in (f".run[cam1].{dead.pid}.{end}", *kept):
        (tmp_path / name).write_text("x")
    (tmp_path / f".run[cam1].{dead.pid}.{end}.part").mkdir()  # where safetensors write what has another name
    (tmp_path / f".run[cam1].{dead.pid}.{end}.part" / ".tmpx83").write_text("x")
    save_tensors(path, {"a": torch.zeros(2)}, {})
    assert {file.name for file in tmp_path.iterdir()} == {path.name, *kept}


def test_tensors_can_be_read_by_those_who_can_read_our_other_files(tmp_path):
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {"about": "b"})
    with written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "a.txt").stat().st_mode
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("a"), torch.zeros(2))
        assert file.metadata() == {"about": "b"}


def save_four_megabytes(path):
    save_tensors(path, {"a": torch.zeros(1 << 20)}, {})


def write_a_megabyte(path):
    with written_whole(path) as temporary:
        temporary.write_bytes(bytes(1 << 20))


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of file size")
@pytest.mark.parametrize("save", [save_four_megabytes, write_a_megabyte])
def test_on_a_full_disk_the_file_is_named_and_the_one_before_stays(tmp_path, save):
    """Here the system refuses what is beyond a limit of file size."""
    import resource

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"a\.safetensors") as caught:
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "part" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["n" * 255, "나" * 80 + ".html"])
def test_names_may_be_as_long_as_the_disk_has_them(tmp_path, name):
    with written_whole(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_cannot_be_written_is_said_beforehand_and_nothing_is_left(tmp_path):
    check_writable(tmp_path / "new/report.html")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file/report.html")
    if sys.platform == "linux":
        with pytest.raises(OSError, match=r"/proc/report\.html'$"):  # where nobody may write, root neither
            check_writable(Path("/proc/report.html"))


@pytest.mark.parametrize("text", ['a<b>c:d"e/f\\g|h?i*j', "a\nb\x1b[31m\udcff", "CON", "나사 [1].", "x" * 255])
def test_names_of_other_files_become_names_for_every_system(text):
    """By rule: this is no Windows, whose names these are not."""
    name = safe_name(text)
    assert not set(name) & set('<>:"/\\|?*')
    assert name.isprintable()
    assert len(name) == min(len(text), 50)
    assert all(one in (other, "_") for one, other in zip(name, text, strict=False))
    assert safe_name("나사 [1].") == "나사 [1]."


def test_two_files_may_be_written_at_once(tmp_path):
    with written_whole(tmp_path / "a.csv") as first, written_whole(tmp_path / "a.json") as second:
        first.write_text("csv")
        second.write_text("json")
    assert (tmp_path / "a.csv").read_text() == "csv"
    assert (tmp_path / "a.json").read_text() == "json"
