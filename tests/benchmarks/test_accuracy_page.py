"""The page of the accuracy study and the pictures of a row."""

from dataclasses import replace

import torch

from benchmarks.accuracy import page, pictures, record, sets, studies
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.transforms.tasks import CutPaste3Way


def test_the_page_has_means_and_standard_errors_beside_the_papers_figures(monkeypatch, tmp_path):
    path = tmp_path / "accuracy.md"
    path.write_text("before\n<!-- compared -->\n<!-- /compared -->\n<!-- rows -->\nold\n<!-- /rows -->\nafter\n")
    monkeypatch.setattr(page, "PAGE", path)
    monkeypatch.setattr(page, "README", tmp_path / "README.md")
    page.README.write_text("<!-- accuracy -->\n<!-- /accuracy -->\n")
    monkeypatch.setattr(page, "RECIPES", tmp_path / "recipes.md")
    page.RECIPES.write_text("<!-- family -->\n<!-- /family -->\n")
    one = record.Outcome(
        "detection", "3-way", "mvtec", "screw", 0, "9 steps", 9, "random", 0.8, float("nan"), float("nan"), 60.0, 1.0,
        100, "cpu", 1, "2", "c", "d", "command",
    )  # fmt: skip
    page.write_page([one, replace(one, seed=1, image_auroc=0.9), replace(one, row="cutout", image_auroc=0.5)])
    text = path.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| mvtec, screw | 3-way | 9 steps | 2 | 85.0 ± 5.0 |  |  | 86.3 ± 1.0 | 60 | 1.0 | cpu |" in text
    assert text.index("| 3-way |") < text.index("| cutout |")
    assert "Not measured yet." in text

    timed = [replace(one, budget="2 min", seed=seed, steps=30 - seed) for seed in (0, 1)]
    page.write_page([*timed, replace(one, budget="2 min", device="a GPU", steps=900)])
    text = path.read_text()
    assert "| 2 min (29 to 30 steps) | 2 |" in text
    assert "| 2 min (900 steps) | 1 |" in text  # another device's rows are not averaged with these


def test_what_is_learned_from_stands_side_by_side_of_the_budget_with_most_rows():
    one = record.Outcome(
        "family", "3-way", "mvtec_ad_256", "screw", 0, "300 steps", 300, "random", 0.8, float("nan"), float("nan"),
        float("nan"), 1.0, 160, "cpu", 1, "2", "c", "2026-01-01", "command",
    )  # fmt: skip
    tiles = replace(one, data="magnetic_tile at 384², published split", category="magnetic_tile", image_auroc=0.7)
    rows = [one, replace(one, seed=1, image_auroc=0.9), replace(one, row="nsa", image_auroc=0.95), tiles]
    planted = replace(one, category="screw, planted", image_auroc=0.6)
    others = [replace(one, budget="9 steps", image_auroc=1.0), planted, replace(planted, row="nsa", image_auroc=0.5),
              replace(planted, row="nsa", category="screw, planted, other exposures", image_auroc=0.9)]  # fmt: skip
    assert page.family_table([*others, *rows]).splitlines() == [
        "| 300 steps, cpu | magnetic_tile, published split, 1 seed | screw, 2 seeds |",
        "|---|---|---|",
        "| 3-way | **70.0** | **85.0 ± 5.0** |",
        "| nsa |  | 95.0 |",
        "| *chosen on planted defects* |  | 3-way: 85.0 ± 5.0 |",
    ]
    assert page.family_table([]) == "Not measured yet.\n"


def test_rows_stand_beside_published_ones_each_of_the_device_with_most_seeds():
    one = record.Outcome(
        "detection", "3-way", "mvtec_ad_256", "bottle", 0, "8192 steps", 8192, "random", 0.98, float("nan"),
        float("nan"), 60.0, 1.0, 83, "a GPU", 1, "2", "c", "2026-01-01", "command",
    )  # fmt: skip
    both = [replace(one, seed=seed, image_auroc=0.97 + 0.02 * seed, device="another") for seed in (0, 1)]
    text = page.compared_table([one, *both, replace(one, budget="9 steps", image_auroc=0.5)])
    assert text.splitlines()[2:] == [
        "| bottle | ResNet-18, 3-way on whole images | image AUROC | 98.0 ± 1.0 | 98.3, CutPaste | official "
        "| 8192 steps | 2 | another |"
    ]
    assert len(studies.COMPARED) <= 12
    for line in studies.COMPARED:
        study, row = line.key[:2]
        assert row.removesuffix(", ensemble") in [name for each in studies.STUDIES[study] for name in each.rows]


def test_pictures_are_drawn_of_patches_and_of_whole_images(tmp_path):
    images = torch.randint(0, 256, (30, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = [torch.zeros(40, 40, dtype=torch.bool) for _ in range(10)]
    for mask in masks[5:]:
        mask[30:, 38:] = True
    test = sets.Test(images[:10], torch.arange(10) > 4, masks, ["good"] * 5 + ["crack", "hole"] * 2 + ["hole"])
    network = Network(NetworkConfig("patchnet", patch=32, head=()))
    for patch in (None, 32):
        detector = Detector(network, DetectorConfig((40, 40), patch=patch)).fit(images[:20], images[20:])
        path = tmp_path / f"{patch}.svg"
        pictures.draw_pictures(detector, CutPaste3Way(), images[:20], test, detector.score(images[:10]), path)
        assert path.read_text().count("</svg>") == 1
    pictures.show_maps(test, detector.localize(test.images), tmp_path / "maps.jpg")
    assert (tmp_path / "maps.jpg").stat().st_size > 1000
