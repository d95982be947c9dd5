"""What options say, read and refused."""

from pathlib import Path

import pytest
import torch
from command_line import failing

from fastcutpaste.cli.options import areas_of, load_scorer


@pytest.mark.parametrize("text", ["big", ",", "128,,96", "-4"])
def test_areas_that_are_no_sides_are_refused(text):
    with pytest.raises(ValueError, match="--areas: sides in pixels such as 128 or 96,128 required, got"):
        areas_of(text)


def test_areas_are_read_in_the_order_given():
    assert (areas_of(""), areas_of("128"), areas_of("96, 128")) == ((), (128,), (96, 128))


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "0-2,1", "-1"])
def test_seeds_that_make_no_sense_are_refused(text, tmp_path):
    assert "--seeds" in failing("train", tmp_path, "--out", tmp_path / "run", f"--seeds={text}")


@pytest.mark.parametrize(("device", "optimized"), [("cuda", True), ("cpu", False)])
def test_on_a_gpu_the_optimized_form_scores(device, optimized, monkeypatch):
    class Loaded:
        def optimized(self):
            return "optimized"

    loaded = Loaded()
    monkeypatch.setattr("fastcutpaste.reports.runs.load_run", lambda *_: loaded)
    assert load_scorer(Path("run"), torch.device(device)) == ("optimized" if optimized else loaded)
