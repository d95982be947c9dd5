"""The GPU benchmark, rehearsed on a CPU: what it prints and writes, and what it does where something is wrong."""

import json

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import family
from benchmarks.gpu.figures import Figure, Figures, Plan
from benchmarks.kept import read
from benchmarks.rows import Row
from fastcutpaste.transforms.defect import Made
from fastcutpaste.transforms.recipes import recipe


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def rehearse(out, *sections):
    return gpu.main(["--rehearse", "--out", str(out), "--only", *sections])


def test_a_rehearsal_writes_rows_figures_and_profiles_and_prints_the_table_last(tmp_path, capsys, one_thread):
    assert rehearse(tmp_path, "ceilings", "op", "density") == 0
    printed = capsys.readouterr().out.splitlines()
    rows, found = read(Row, tmp_path / "gpu.csv"), json.loads((tmp_path / "gpu.json").read_text())
    assert set(found) == {"device", "torch", "commit", "rehearsal", "figures", "skipped", "seconds"}
    assert found["rehearsal"] is True
    assert found["skipped"] == {}
    assert list(found["seconds"]) == ["ceilings", "op", "density"]
    assert all(set(figure) == set(Figure._fields) for figure in found["figures"])
    names = {figure["what"] for figure in found["figures"]}
    assert {"device copy, read and written", "matrix product, bf16"} < names
    assert "3-way uint8 to bf16, batch 3, compiled: share of the copy" in names
    assert "CutPaste bf16, compiled: waits for the device" in names
    assert "density fit against scikit-learn" in names
    ops = {(row.op, row.provider, row.batch) for row in rows}
    for batch in Plan.rehearsing().batches:
        for provider in ("eager", "compiled", "compiled, CUDA graph", "paste alone", "paste alone, CUDA graph"):
            assert ("3-way uint8 to bf16", provider, batch) in ops
    assert ("3-way uint8 to bf16", "whole images, compiled", 3) in ops
    assert all(row.p20_ms <= row.p50_ms <= row.p80_ms and row.images_per_s > 0 for row in rows)
    assert "CutPaste uint8, compiled" in (tmp_path / "gpu-profile.txt").read_text()
    head = next(i for i, line in enumerate(printed) if line.startswith("figure "))
    assert len(printed) - head == len(found["figures"]) + 4  # heading, line, device, where it is written
    assert "the numbers mean nothing" in printed[-2]
    assert printed[-1] == f"written: {tmp_path}"


class Unsteady(torch.nn.Module):
    """Change other pixels with every call, whatever the draws."""

    numbers = 1

    def augment(self, images, draws=None):
        mask = torch.rand(len(images), 1, *images.shape[2:], device=images.device) < 0.5
        return Made(images, mask, mask.float(), mask.flatten(1).any(1).long())


def test_recipes_are_compared_and_measured_one_by_one(monkeypatch, tmp_path, one_thread):
    makers = {"cutpaste": lambda: recipe("cutpaste"), "unsteady": Unsteady, "draem": lambda: recipe("draem")}
    monkeypatch.setattr(family, "RECIPES", makers)
    monkeypatch.setattr(family, "recipe", lambda name: makers[name]())
    assert rehearse(tmp_path, "family") == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["skipped"]) == ["unsteady"]
    assert "of torch.bool differ from a CPU's" in found["skipped"]["unsteady"]
    measured = {"cutpaste", "draem", "blend by gradients"}
    assert {f"{name}: launches" for name in measured} <= {figure["what"] for figure in found["figures"]}
    assert {row.op for row in read(Row, tmp_path / "gpu.csv")} == measured


def test_a_section_that_fails_is_named_and_the_others_go_on(monkeypatch, tmp_path, capsys, one_thread):
    def wrong(plan, figures):
        raise AssertionError("differs from the reference\nby much")

    monkeypatch.setitem(gpu.SECTIONS, "op", wrong)
    assert rehearse(tmp_path, "op", "ceilings") == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["skipped"] == {"op": "FAILED: AssertionError: differs from the reference"}
    assert len(found["figures"]) == 3
    assert "skipped op: FAILED" in capsys.readouterr().out


def test_no_section_begins_after_the_time_is_over(tmp_path, capsys):
    assert gpu.run(Plan(rehearsal=True, limit=-1.0), tmp_path, ["density"]) == 0
    assert json.loads((tmp_path / "gpu.json").read_text())["skipped"] == {"density": "the -1 s are over"}


def test_without_a_gpu_the_command_asks_for_one(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "a CUDA device required, got none; --rehearse runs on a CPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "target", "verdict"),
    [(70.0, ">= 70", "yes"), (69.9, ">= 70", "NO"), (3, "<= 3", "yes"), (4, "<= 3", "NO"), ("words", ">= 1", "")],
)
def test_a_figure_says_whether_its_target_is_reached(value, target, verdict):
    figures = Figures()
    figures.add("share", value, "%", target)
    assert figures.entries[0].verdict == verdict
    assert figures.entries[0].value == value
