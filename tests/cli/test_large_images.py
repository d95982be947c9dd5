"""Training, evaluation and prediction at the images' own scale, through the command line."""

import json

import numpy as np
import pytest
from command_line import failing, run
from pictures import write_picture
from PIL import Image

OWN = ("--size", "original", "--preset", "quick", "--stride", "8", "--batch", "4", "--precision", "fp32")
SIZES = ((96, 130), (150, 90), (64, 260), (100, 100), (99, 127))


def surface(height, width, seed):
    """Draw grey waves (H, W) with a little noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).normal(0, 3, (height, width))
    return (120 + 15 * np.sin(x / 7 + seed) + 10 * np.cos(y / 9) + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory):
    """Normal images of five sizes; a good and two defective ones, with masks, in other sizes."""
    root = tmp_path_factory.mktemp("surfaces")
    for i in range(10):
        write_picture(root / f"train/good/{i}.png", surface(*SIZES[i % 5], i))
    for i, (height, width, y, x) in enumerate([(90, 300, 0, 0), (400, 70, 300, 40), (70, 700, 30, 555)]):
        pixels, kind = surface(height, width, 50 + i), "spot" if i else "good"
        if i:
            pixels[y : y + 12, x : x + 12] = 255
            mask = np.zeros((height, width), np.uint8)
            mask[y : y + 12, x : x + 12] = 255
            write_picture(root / f"ground_truth/spot/{i}_mask.png", mask)
        write_picture(root / f"test/{kind}/{i}.png", pixels)
    return root


@pytest.fixture(scope="module")
def trained(surfaces, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    run("train", surfaces, "--out", out, *OWN, "--crop", "32", "--steps", "20", "--seeds", "0-1")
    return out


def test_a_small_defect_is_found_in_images_of_other_sizes_without_any_option(surfaces, trained, tmp_path):
    told, _ = run(
        "predict", trained, surfaces / "test", "--heatmaps", tmp_path / "maps", "--report", tmp_path / "a.html"
    )
    good, tall, wide = told["results"]
    assert tall["defective"]
    assert wide["defective"]
    assert max(tall["score"], wide["score"]) > 2 * good["score"]
    for one, (y, x) in ((tall, (300, 40)), (wide, (30, 555))):
        worst = one["regions"][0]
        assert worst["y"] <= y + 6 <= worst["y"] + worst["height"]
        assert worst["x"] <= x + 6 <= worst["x"] + worst["width"]
        assert worst["width"] < 90  # in pixels of the file, not of a smaller one
    assert Image.open(wide["heat_map"]).size[0] < 1200  # a picture of the file's size would be of no use


def test_it_is_evaluated_at_its_own_scale(surfaces, trained, tmp_path):
    result, _ = run("evaluate", trained, surfaces, "--out", tmp_path / "evaluation")
    assert result["image_auroc"] == 1.0
    assert result["pixel_auroc"] > 0.95
    assert result["pro_auc"] > 0.8


def test_new_images_of_any_size_set_another_threshold(surfaces, trained):
    before = json.loads((trained / "ensemble.json").read_text())["threshold"]
    result, _ = run("calibrate", trained / "seed-0", surfaces / "test/good")
    assert result["count"] == 1
    assert result["threshold"] != before


def test_an_image_smaller_than_a_patch_is_passed_over_by_name(trained, tmp_path):
    write_picture(tmp_path / "images/a.png", surface(40, 31, 1))
    write_picture(tmp_path / "images/b.png", surface(40, 32, 1))
    told, _ = run("predict", trained, tmp_path / "images", status=3)
    assert (
        "a.png: an image of at least 32×32 pixels, which patches and areas take, required, got 40×31"
        in (told["results"][0]["error"])
    )
    assert "score" in told["results"][1]
    assert "a.png: an image of at least" in failing("predict", trained, tmp_path / "images", "--strict")


def test_whole_tiles_are_learned_and_found(surfaces, tmp_path):
    run("train", surfaces, "--out", tmp_path / "run", *OWN, "--crop", "0", "--tile", "64", "--steps", "2",
        "--backbone", "shufflenet_v2_x0_5")  # fmt: skip
    told, _ = run("predict", tmp_path / "run", surfaces / "test/spot/2.png")
    assert all(region["height"] <= 70 for region in told["results"][0]["regions"])
    assert told["results"][0]["score"] > 0
    write_picture(tmp_path / "a.png", surface(63, 90, 1))
    assert "at least 64×64 pixels, which a tile has" in failing(
        "predict", tmp_path / "run", tmp_path / "a.png", "--strict"
    )


def test_it_is_not_exported_as_one_that_resizes(trained):
    assert "one that scores them at their own scale" in failing("export", trained)


def test_images_read_anew_train_the_same_network(surfaces, tmp_path):
    results = [
        run("train", surfaces, "--out", tmp_path / read, *OWN, "--crop", "32", "--steps", "3", "--read", read)[0]
        for read in ("resident", "stream")
    ]
    assert results[0]["loss"] == results[1]["loss"]
    assert results[0]["threshold"] == results[1]["threshold"]


@pytest.mark.parametrize("read", ["resident", "stream"])
def test_images_in_which_there_is_nothing_to_learn_are_refused(tmp_path, read):
    for i in range(4):
        write_picture(tmp_path / f"black/{i}.png", np.zeros((60 + i, 70), np.uint8))
    options = (*OWN, "--crop", "32", "--steps", "2", "--read", read)
    assert "images that differ required" in failing("train", tmp_path / "black", "--out", tmp_path / "run", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--crop", "0"), "--size original: --tile, the side of a tile in pixels, with --crop 0 required, got None"),
        (("--crop", "0", "--tile", "64", "--overlap", "64"), "less than a tile, required, got 64"),
        (("--crop", "32", "--tile", "64"), "--tile, --overlap: --size original and --crop 0 required"),
        (("--crop", "32", "--density", "location"), "required at the images' own scale"),
        (("--crop", "72"), "2.png: an image of at least 72×72 pixels, which patches"),
        (("--crop", "0", "--tile", "65"), "2.png: an image of at least 65×65 pixels, which a tile has"),
        (("--crop", "18"), "at least 19 pixels required, got 18"),
        (("--crop", "32", "--read", "dali"), "required, got"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_made(surfaces, tmp_path, options, message):
    backbone = () if "0" not in options else ("--backbone", "shufflenet_v2_x0_5")
    assert message in failing("train", surfaces, "--out", tmp_path / "run", *OWN, *options, *backbone)
    assert not (tmp_path / "run").exists()
