"""The folder of a run is its own: no other's is taken, and none is replaced unasked."""

import pytest

from fastcutpaste.reports.runs import claim


def test_a_run_is_not_overwritten_unasked(tmp_path):
    claim(tmp_path / "run")
    claim(tmp_path / "run")  # nothing in it yet
    (tmp_path / "run/detector.safetensors").write_bytes(b"precious")
    with pytest.raises(ValueError, match="--overwrite"):
        claim(tmp_path / "run")
    claim(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run/detector.safetensors").read_bytes() == b"precious"


def test_a_run_killed_while_it_marked_its_folder_is_gone_on_with(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as killed:
        killed.setattr("os.replace", raises(KeyboardInterrupt))
        killed.setattr("pathlib.Path.unlink", raises(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            claim(folder)
    [left] = folder.iterdir()
    assert left.name != ".fastcutpaste"
    claim(folder, resume=True)
    assert (folder / ".fastcutpaste").is_file()


@pytest.mark.parametrize("mark", [b"", b"a", b"\xff\xfe"])
def test_a_folder_with_a_mark_that_is_not_ours_is_anothers(mark, tmp_path):
    (tmp_path / ".fastcutpaste").write_bytes(mark)
    for leave in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ValueError, match="files that are not a run's"):
            claim(tmp_path, **leave)
    assert (tmp_path / ".fastcutpaste").read_bytes() == mark


def raises(error):
    def raising(*_arguments, **_options):
        raise error

    return raising
