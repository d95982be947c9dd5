"""The report page: whole, self-contained, and shown by a real browser."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastcutpaste.reports.page import Section, write_page
from fastcutpaste.reports.pictures import draw_curves, draw_heat_maps, draw_histogram

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=generator) for _ in range(4)]
    maps = [torch.rand(40, 60, generator=generator) for _ in range(4)]
    curve = (np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.9, 1.0]))
    sections = [
        Section("Scores", "a < b & c", draw_histogram(torch.arange(9.0), ["good", "a", "b"] * 3, 4.5)),
        Section("Curves", "two", draw_curves({"ROC": (curve, 0.85), "PRO": (curve, 0.8)})),
        Section("crack", "four", draw_heat_maps(images, maps, low=0.0, high=1.0)),
    ]
    write_page(path, "Evaluation of <tiles>", "4 images.", {"image AUROC": "0.850", "a<b": "1 & 2"}, sections)
    return path


def test_it_holds_its_texts_and_pictures_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Evaluation of &lt;tiles&gt;" in text
    assert "<td>a&lt;b</td><td>1 &amp; 2</td>" in text
    assert text.count("data:image/png;base64,") == 3
    assert re.search(r"(src|href)=\"(?!data:)|<script|url\(", text) is None
    assert [entry.name for entry in page.parent.iterdir()] == ["report.html"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(page: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    shot = tmp_path / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,1600", f"--screenshot={shot}"]
    subprocess.run([BROWSER, *options, page.as_uri()], check=True, capture_output=True, timeout=120)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (1600, 1100, 3)
    painted = pixels.reshape(16, 100, 1100, 3).std((1, 2, 3))  # in bands of 100 rows
    assert (painted[:13] > 3).all()  # text, table and three figures, none left out
    colored = np.abs(pixels - pixels.mean(2, keepdims=True)).max(2) > 40
    assert colored[1000:1500].mean() > 0.02  # the pictures of noise
