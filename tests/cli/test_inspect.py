"""`inspect`, and images that are named by hand."""

import shutil

import numpy as np
import pytest
from command_line import SMALL, failing, run
from pictures import draw_noise, write_picture
from PIL import Image


def test_inspect_tells_what_is_read_and_draws_it(category, tmp_path):
    result, text = run("inspect", category, "--out", tmp_path / "sheet.png")
    assert f"{category} is read as folders train and test; to learn from: 6 good images; to test: 2 good" in text
    assert result["layout"] == "folders train and test"
    assert result["groups"]["to test: crack"]["masks"] == 1
    assert result["groups"]["to learn from: good"]["images"] == 6
    width, height = Image.open(tmp_path / "sheet.png").size
    assert width > 1000
    assert height > 400


def test_inspect_needs_a_folder_and_a_picture(category, tmp_path):
    assert failing("inspect", tmp_path / "no").endswith(f"a folder of images required, {tmp_path / 'no'} is missing")
    assert "a picture's name required" in failing("inspect", category, "--out", "sheet.txt")


@pytest.fixture(scope="module")
def detector(category, tmp_path_factory):
    """A detector that has learned next to nothing, and what was said meanwhile."""
    out = tmp_path_factory.mktemp("run") / "run"
    _, text = run("train", category, "--out", out, *SMALL)
    return out, text


def test_train_says_what_it_reads(category, detector):
    _, text = detector
    assert f"{category} is read as folders train and test; to learn from: 6 good images; to test: 2 good and 2" in text


def test_evaluate_takes_folders_by_hand_and_lists(category, detector, tmp_path):
    run_folder, _ = detector
    by_layout, text = run("evaluate", run_folder, category, "--out", tmp_path / "a")
    assert "2 good and 2 defective images (1 crack, 1 stain), 2 masks" in text
    shutil.copytree(category / "ground_truth", tmp_path / "masks")
    kinds = [item for kind in ("crack", "stain") for item in ("--bad", category / "test" / kind)]
    good = ("--good", category / "test/good")
    by_hand, _ = run("evaluate", run_folder, *good, *kinds, "--masks", tmp_path / "masks", "--out", tmp_path / "b")
    lines = ["path,label,mask,split"]
    for path in sorted((category / "test").rglob("*.png")):
        kind = path.parent.name
        mask = "" if kind == "good" else category / "ground_truth" / kind / f"{path.stem}_mask.png"
        lines.append(f"{path},{kind},{mask},test")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    by_list, _ = run("evaluate", run_folder, tmp_path / "list.csv", "--out", tmp_path / "c")
    for name in ("image_auroc", "pixel_auroc", "pro_auc", "detection_rate"):
        assert by_layout[name] == by_hand[name] == by_list[name]


def test_evaluate_says_what_is_asked_for_twice_or_not_at_all(category, detector):
    run_folder, _ = detector
    assert "DATA, or --good and --bad, required, got neither" in failing("evaluate", run_folder)
    both = failing("evaluate", run_folder, category, "--good", category)
    assert "DATA, or --good and --bad, required, got both" in both
    assert "--masks: --bad, whose images" in failing("evaluate", run_folder, category, "--masks", category)


def test_a_mask_of_another_size_is_found_before_images_are_scored(category, detector, tmp_path, monkeypatch):
    shutil.copytree(category, tmp_path / "data")
    write_picture(tmp_path / "data/ground_truth/crack/2_mask.png", np.zeros((64, 64), np.uint8))
    monkeypatch.setattr("fastcutpaste.cli.evaluate.score_in_turn", lambda *_: pytest.fail("images were scored first"))
    message = failing("evaluate", detector[0], tmp_path / "data")
    assert "2_mask.png is 64×64" in message
    assert "load_masks" not in message


def test_training_names_masks_among_its_images_and_no_function_of_ours(tmp_path):
    write_picture(tmp_path / "x.png", draw_noise(32, 32))
    write_picture(tmp_path / "x_mask.png", np.pad(np.full((8, 8), 255, np.uint8), 12))
    message = failing("train", tmp_path, "--out", tmp_path / "run", *SMALL)
    assert "x_mask.png" in message
    assert "find_" not in message
