"""`--pages`: every command takes the pages of a file for images, and names them alike."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import QUICK, failing, run
from pictures import draw_noise
from PIL import Image


def write_pages(path: Path, pages: list[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *more = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=more)
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category of files of several pages: 2 × 4 to learn from, 2 good and 2 defective ones to test, with masks."""
    root = tmp_path_factory.mktemp("scans")
    for number in range(2):
        write_pages(root / f"train/good/{number}.tif", [draw_noise(48, 64, seed=4 * number + i) for i in range(4)])
    for kind, seed in (("good", 20), ("crack", 30)):
        write_pages(root / f"test/{kind}/a.tif", [draw_noise(48, 64, seed=seed + i) for i in range(2)])
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 255
    write_pages(root / "ground_truth/crack/a_mask.tif", [mask, mask.T[:48].repeat(2, 1)[:, :64]])
    return root


@pytest.fixture(scope="module")
def trained(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    result, _ = run("train", scans, "--out", out, "--pages", *QUICK)
    assert result["images"] == 8
    return out


def test_pages_are_scored_and_named(scans: Path, trained: Path, tmp_path: Path) -> None:
    file, maps = scans / "test/crack/a.tif", tmp_path / "maps"
    result, text = run("predict", trained, file, "--pages", "--heatmaps", maps, "--report", tmp_path / "r.html")
    assert [one["image"] for one in result["results"]] == [f"{file}#1", f"{file}#2"]
    assert result["results"][0]["score"] != result["results"][1]["score"]
    assert "more than one page" not in text
    assert sorted(path.name for path in maps.iterdir()) == ["0000_a_page1.png", "0001_a_page2.png"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    shown = json.loads(page.partition('id="images">')[2].partition("</script>")[0])
    assert [one["name"] for one in shown] == ["a.tif#1", "a.tif#2"]
    assert all(one["link"].endswith("a.tif") for one in shown)
    alone, _ = run("predict", trained, f"{file}#2")
    assert alone["results"][0]["score"] == pytest.approx(result["results"][1]["score"], rel=1e-5)


def test_without_the_option_the_first_is_read_with_a_word(scans: Path, trained: Path) -> None:
    file = scans / "test/crack/a.tif"
    result, text = run("predict", trained, file)
    assert [one["image"] for one in result["results"]] == [str(file)]
    assert "1 of 1 images had more than one page or frame, the first is used (--pages" in text


@pytest.mark.parametrize("scale", ["resized", "original"])
def test_calibrate_counts_pages_and_knows_those_it_was_trained_on(scale, scans, trained, tmp_path):
    folder = tmp_path / "run"
    if scale == "resized":
        shutil.copytree(trained, folder)
    else:
        run("train", scans, "--out", folder, "--pages", *QUICK, "--size", "original")
    result, text = run("calibrate", folder, scans / "test/good", "--pages")
    assert result["count"] == 2
    assert "more than one page" not in text
    assert "not learned from required" in failing("calibrate", folder, scans / "train/good", "--pages")
    result, text = run("calibrate", folder, scans / "test/good")
    assert result["count"] == 1
    assert "1 of 1 images had more than one page or frame, the first is used (--pages" in text


def test_evaluate_pairs_pages_with_those_of_masks(scans: Path, trained: Path, tmp_path: Path) -> None:
    result, _ = run("evaluate", trained, scans, "--pages", "--out", tmp_path)
    assert (result["images"], result["counts"]["defective"]) == (4, 2)
    assert "pixel_auroc" in result
    with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
        names = [Path(row["image"]).name for row in csv.DictReader(file)]
    assert sorted(names) == ["a.tif#1", "a.tif#1", "a.tif#2", "a.tif#2"]


def test_inspect_counts_pages(scans: Path, tmp_path: Path) -> None:
    result, _ = run("inspect", scans, "--pages", "--out", tmp_path / "sheet.png")
    assert {name: group["images"] for name, group in result["groups"].items()} == {
        "to learn from: good": 8, "to test: good": 2, "to test: crack": 2,
    }  # fmt: skip
    assert result["passed_over"] == []
    result, _ = run("inspect", scans, "--out", tmp_path / "sheet.png")
    assert result["groups"]["to learn from: good"]["images"] == 2
