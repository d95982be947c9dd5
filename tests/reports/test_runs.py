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
