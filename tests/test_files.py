"""Laws of `written_whole`: a reader sees the old file or the new one, never half of one."""

import os
from pathlib import Path

import pytest

from fastcutpaste.files import written_whole


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


def test_two_files_may_be_written_at_once(tmp_path):
    with written_whole(tmp_path / "a.csv") as first, written_whole(tmp_path / "a.json") as second:
        first.write_text("csv")
        second.write_text("json")
    assert (tmp_path / "a.csv").read_text() == "csv"
    assert (tmp_path / "a.json").read_text() == "json"
