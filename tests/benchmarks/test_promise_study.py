"""The study of what a threshold keeps: its rows, its page."""

import csv
from pathlib import Path

import pytest
import torch

from benchmarks.accuracy import promise
from benchmarks.kept import read


def test_a_set_is_drawn_ten_times_and_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.randint(0, 256, (60, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(promise, "read_set", lambda root: ("noise", noise[:50], noise[50:]))
    monkeypatch.setattr(promise, "COUNTS", (4, 20))
    monkeypatch.setattr(promise, "RATE", 0.1)
    out = tmp_path / "promise.csv"
    for _ in range(2):
        promise.main(["--steps", "1", "--out", str(out)])
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["name"], row["held_out"], row["fresh"]) for row in rows] == [
        ("noise", "4", "29"),
        ("noise", "20", "13"),
    ]
    assert [float(row["promised"]) for row in rows] == pytest.approx([0.2, 0.1])
    for row in rows:
        assert 0 <= float(row["lowest"]) <= float(row["mean"]) <= float(row["highest"]) <= 1
        assert int(row["outside"]) <= 2  # of ten draws one in ten is seen once in a hundred tests
    page = tmp_path / "promise.md"
    page.write_text("<!-- promise -->\nold\n<!-- /promise -->\n")
    monkeypatch.setattr(promise, "PAGE", page)
    promise.write_page(read(promise.Kept, out))
    assert "| noise | 4 | 20.0% | 29 |" in page.read_text()
    assert "old" not in page.read_text()
