"""Surveys: what is read as what, and what in it may lead astray."""

from pathlib import Path

import numpy as np
from pictures import draw_noise, write_picture

from fastcutpaste.images.folders import find_test_images, find_training_images
from fastcutpaste.images.survey import inspect_closely, survey


def _category(root: Path) -> Path:
    for i in range(6):
        write_picture(root / f"train/good/{i}.png", draw_noise(seed=i))
        write_picture(root / f"test/good/{i}.png", draw_noise(seed=20 + i) // 2)
    write_picture(root / "test/hole/0.png", draw_noise(seed=40))
    write_picture(root / "ground_truth/hole/0_mask.png", 255 * np.eye(6, 8, dtype=np.uint8))
    return root


def test_a_survey_counts_parts_kinds_and_masks(tmp_path):
    found = survey(_category(tmp_path))
    assert found.headline == (
        f"{tmp_path} is read as folders train and test; to learn from: 6 good images; to test: 6 good and 1 defective "
        "images (1 hole), 1 masks"
    )
    assert found.notes == ()
    assert {name: len(images) for name, images in found.groups.items()} == {
        "to learn from: good": 6, "to test: good": 6, "to test: hole": 1
    }  # fmt: skip
    assert found.parts["to test"] == find_test_images(tmp_path)


def test_what_is_not_read_is_named(tmp_path):
    _category(tmp_path)
    names = ["readme.txt", "test_private/0.png", "train/good/x.psd", "train/odd.png", "train/hole/1.png"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = survey(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in found.passed_over} == set(names)
    assert any("1 images beside good are passed over: " in note and "odd.png" in note for note in found.notes)
    assert found.notes[-1].startswith("5 other files are not read: readme.txt, ")


def test_a_part_that_cannot_be_read_is_a_note(tmp_path):
    (_category(tmp_path) / "ground_truth/hole/0_mask.png").rename(tmp_path / "ground_truth/hole/7_mask.png")
    found = survey(tmp_path)
    assert set(found.parts) == {"to learn from"}
    assert "a mask 0_mask.* or 0.* required" in found.notes[0]


def test_a_closer_look_tells_sizes_modes_bits_brightness_and_doubles(tmp_path):
    _category(tmp_path)
    (tmp_path / "test/hole/1.png").write_bytes((tmp_path / "train/good/3.png").read_bytes())
    write_picture(tmp_path / "ground_truth/hole/1.png", np.zeros((6, 8), np.uint8))
    write_picture(tmp_path / "test/good/9.png", np.full((9, 12), 30000, np.uint16))
    found, facts = inspect_closely(survey(tmp_path))
    good = facts["to test: good"]
    assert (good["images"], good["sizes"], good["range"]) == (7, {"6×8": 6, "9×12": 1}, "6-9 × 8-12")
    assert (good["modes"], good["bits"]) == ({"RGB": 6, "I;16": 1}, 16)
    assert facts["to test: hole"]["masks"] == 2
    expected = np.mean([draw_noise(seed=i).mean() for i in range(6)]) / 255
    assert abs(facts["to learn from: good"]["brightness"] - expected) < 0.02  # which the grey of colors is weighed for
    pair = f"{tmp_path / 'train/good/3.png'} = {tmp_path / 'test/hole/1.png'}"
    assert found.notes[0] == f"1 images are in two parts, by their content: {pair}"
    assert any("good images to test differ from those to learn from: they are darker" in note for note in found.notes)
    assert "1 masks of defective images are empty: 1.png" in found.notes


def test_a_broken_image_and_a_mask_of_another_size_are_notes(tmp_path):
    _category(tmp_path)
    (tmp_path / "train/good/2.png").write_bytes(b"no image")
    write_picture(tmp_path / "ground_truth/hole/0_mask.png", np.zeros((9, 9), np.uint8))
    found, facts = inspect_closely(survey(tmp_path))
    assert facts["to learn from: good"]["images"] == 6
    assert any("1 files cannot be read, such as " in note and "2.png" in note for note in found.notes)
    assert "0_mask.png is 9×9" in found.notes[0]


def test_a_plain_folder_is_to_learn_from_alone(tmp_path):
    for i in range(3):
        write_picture(tmp_path / f"a/{i}.png", draw_noise(seed=i))
    found = survey(tmp_path)
    assert found.headline == f"{tmp_path} is read as a plain folder; to learn from: 3 good images"
    assert found.parts["to learn from"] == find_training_images(tmp_path)
    assert found.notes == ()
