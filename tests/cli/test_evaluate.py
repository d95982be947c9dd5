"""Evaluations go on past files that cannot be read, and measure image by image what all at once would give."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import QUICK, failing, run

from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_test_images, load_masks
from fastcutpaste.reports import scored
from fastcutpaste.scoring.dense import resize_map
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.metrics import pixel_auroc, pro_auc


@pytest.fixture(scope="module")
def trained(category, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    run("train", category, "--out", out, *QUICK)
    return out


def test_figures_are_those_of_all_maps_held_at_once(trained, category, tmp_path, monkeypatch):
    monkeypatch.setattr(scored, "AT_ONCE", 3)
    result, _ = run("evaluate", trained, category, "--out", tmp_path)
    found, detector = find_test_images(category), Detector.load(trained / "detector.safetensors")
    loaded = load_images(found.paths, detector.config.size)
    maps = [resize_map(detector.localize(one[None]), size)[0] for one, size in zip(*loaded, strict=True)]
    masks = load_masks(found, loaded.sizes)
    assert result["pixel_auroc"] == pytest.approx(pixel_auroc(maps, masks), abs=1e-4)
    assert result["pro_auc"] == pytest.approx(pro_auc(maps, masks), abs=1e-4)
    assert result["unread"] == []
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    scores = torch.tensor([float(row["score"]) for row in rows])
    torch.testing.assert_close(scores, torch.stack([one.amax() for one in detector.localize(loaded.pixels)]),
                               rtol=1e-4, atol=1e-4)  # fmt: skip


def test_what_cannot_be_read_is_named_everywhere_and_left_out(trained, category, tmp_path):
    data = tmp_path / "tile"
    shutil.copytree(category, data)
    image, mask = data / "test/good/0.png", data / "ground_truth/stain/3_mask.png"
    image.write_bytes(image.read_bytes()[:500])
    mask.write_text("no mask")
    result, text = run("evaluate", trained, data, "--out", tmp_path / "out", status=3)
    assert [row["image"] for row in result["unread"]] == [str(image), str(data / "test/stain/3.png")]
    assert result["images"] == 2
    assert result["counts"]["good"] == result["counts"]["defective"] == 1
    rows = {row["image"]: row for row in csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines())}
    page = Path(result["report"]).read_text(encoding="utf-8")
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert written["unread"] == result["unread"]
    for broken, row in zip((image, mask), result["unread"], strict=True):
        assert str(broken) in row["error"]
        assert f"not read: {row['error']}" in text
        assert (rows[row["image"]]["score"], rows[row["image"]]["error"]) == ("", row["error"])
        assert str(broken) in page
    assert "2 of 4 images could not be read" in text
    assert str(image) in failing("evaluate", trained, data, "--strict")
    for path in (data / "test").glob("*/*.png"):
        path.write_text("none")
    lost = run("evaluate", trained, data, status=1)
    assert "at least one image that can be read required, got none of 4" in lost[1]
