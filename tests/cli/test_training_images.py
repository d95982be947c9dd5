"""What a run reads: which images set the threshold, what is said of them, and where the pixels are."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import SMALL, failing, run, write_normal
from lightning_fabric import Fabric
from pictures import draw_noise, write_picture
from processes import Started, run_command

from fastcutpaste.cli.training_images import Aside, choose_images, read_images, tell_choice
from fastcutpaste.console import people
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_training_images
from fastcutpaste.images.hold_out import hold_out, spans
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.training.step import TrainConfig

SIZE = (16, 24)


def write_cameras(root: Path, dark=16, bright=4) -> Path:
    """Write photographs of two cameras, which lie one after the other when they are sorted by name."""
    for camera, count, level in (("cam1", dark, 0), ("cam2", bright, 150)):
        for i in range(count):
            write_picture(root / f"{camera}_{i:02d}.png", level + draw_noise(32, 32, seed=i) // 3)
    return root


@pytest.fixture(autouse=True)
def _text_goes_where_it_went(monkeypatch):
    monkeypatch.setattr(people, "_file", None)  # a test that catches it leaves nothing caught


def chosen_of(root, count=1, seed=0, **asked):
    return choose_images(root, find_training_images(root).paths, Aside(**asked), count, seed)


def said_of(chosen):
    people.file = io.StringIO()
    tell_choice(chosen)
    return " ".join(people.file.getvalue().split())


def names(paths):
    return {path.name for path in paths}


def test_two_cameras_both_set_the_threshold_and_nothing_is_said(tmp_path):
    chosen = chosen_of(write_cameras(tmp_path))
    assert {name[:4] for name in names(chosen.unseen)} == {name[:4] for name in names(chosen.seen)} == {"cam1", "cam2"}
    assert said_of(chosen) == "4 of 20 images set the threshold, held out of training: blocks over the whole folder"


def test_a_threshold_from_one_camera_is_said(tmp_path):
    chosen = chosen_of(write_cameras(tmp_path), how="last")
    assert names(chosen.unseen) == {f"cam2_{i:02d}.png" for i in range(4)}
    text = said_of(chosen)
    assert "held out of training: the last of the folder note: the images for the threshold differ from those" in text
    assert "they are brighter (mean brightness 0.75" in text
    assert "4 of 4 have names that begin with 'cam2_'" in text
    assert "--hold-out blocks, --group or --calibration choose others" in text
    text = said_of(chosen_of(write_cameras(tmp_path / "other", dark=4, bright=16), how="last"))
    assert "note: the images to learn from differ from those for the threshold: 4 of 16 have names that begin" in text


@pytest.mark.parametrize("shape", [(32, 40, 3), (32, 32, 1)])
def test_images_of_another_size_or_color_are_on_both_sides(tmp_path, shape):
    assert spans(hold_out(20)[1]) == "2, 7, 12, 17"
    for i in range(20):
        write_picture(tmp_path / f"{i:02d}.png", draw_noise(*(shape if i in (8, 9, 10) else (32, 32, 3)), seed=i))
    chosen = chosen_of(tmp_path)
    assert len(names(chosen.unseen) & {"08.png", "09.png", "10.png"}) == 1
    assert "note" not in said_of(chosen)


def test_each_of_several_detectors_holds_out_others_and_together_all(tmp_path):
    root = write_cameras(tmp_path)
    chosen = chosen_of(root, count=5)
    assert chosen.unseen == chosen.seen == chosen.paths == find_training_images(root).paths
    for learned, held_out in chosen.splits:
        assert sorted([*learned.tolist(), *held_out.tolist()]) == list(range(20))
    assert "20 of 20 images set the threshold, each detector holds out other ones" in said_of(chosen)
    assert [chosen.held_out(i)["images"] for i in (0, 5 % 5)] == [chosen_of(root).held_out(0)["images"]] * 2
    same, other = (chosen_of(root, how="random", seed=seed) for seed in (0, 1))
    assert torch.equal(same.splits[0].held_out, chosen_of(root, how="random").splits[0].held_out)
    assert not torch.equal(same.splits[0].held_out, other.splits[0].held_out)


def test_groups_stay_together(tmp_path):
    for i in range(30):
        write_picture(tmp_path / f"part{i // 3}-{i % 3}.png", draw_noise(32, 32, seed=i))
    chosen = chosen_of(tmp_path, group=r"part(\d+)")
    assert not {name[:5] for name in names(chosen.unseen)} & {name[:5] for name in names(chosen.seen)}
    assert len(chosen.unseen) == 6
    assert "whole groups" in said_of(chosen)
    assert chosen.held_out(0)["group"] == r"part(\d+)"


def test_a_category_s_own_images_for_thresholds_are_found_by_themselves(tmp_path):
    write_normal(tmp_path, 8)
    for i in range(5):
        write_picture(tmp_path / f"validation/good/{i}.png", draw_noise(32, 32, seed=50 + i))
    chosen = chosen_of(tmp_path, count=2)
    assert chosen.seen == find_training_images(tmp_path).paths
    assert chosen.unseen == tuple(tmp_path / f"validation/good/{i}.png" for i in range(5))
    assert [split.held_out.tolist() for split in chosen.splits] == [list(range(8, 13))] * 2
    assert f"5 images of {tmp_path}/validation/good set the threshold" in said_of(chosen)
    for asked in ({"how": "blocks"}, {"share": 0.2}, {"group": r"(\d)\.png"}):
        assert len(chosen_of(tmp_path, **asked).paths) == 8


def test_own_images_for_the_threshold_come_from_a_folder_or_from_good_in_it(tmp_path):
    root = write_normal(tmp_path / "data", 8)
    for i in range(3):
        write_picture(tmp_path / f"own/good/{i}.png", 200 + draw_noise(32, 32, seed=90 + i) // 9)
    for folder in ("own", "own/good"):
        chosen = chosen_of(root, calibration=tmp_path / folder)
        assert chosen.unseen == tuple(tmp_path / f"own/good/{i}.png" for i in range(3))
        assert len(chosen.seen) == 8
    assert "they are brighter" in said_of(chosen)


def test_own_images_that_cannot_set_a_threshold_are_refused(tmp_path):
    root = write_normal(tmp_path / "data", 8)
    with pytest.raises(
        ValueError, match="--calibration: without --hold-out, --held-out and --group required, got both"
    ):
        chosen_of(root, calibration=root, how="last")
    with pytest.raises(ValueError, match=r"other than those to learn from required, got 8 of these, the first of them "
                                         r".*0\.png"):  # fmt: skip
        chosen_of(root, calibration=root / "train/good")
    (tmp_path / "link").symlink_to(root / "train/good")
    with pytest.raises(ValueError, match="other than those to learn from required, got 8 of these"):
        chosen_of(root, calibration=tmp_path / "link")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="got an empty folder"):
        chosen_of(root, calibration=tmp_path / "empty")
    with pytest.raises(ValueError, match="is missing"):
        chosen_of(root, calibration=tmp_path / "none")
    (root / "validation/good").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"images .* required in .*validation/good, got none"):
        chosen_of(root)


@pytest.mark.parametrize("read", ["resident", "stream"])
@pytest.mark.parametrize("asked", [{}, {"how": "random"}, {"how": "last"}])
@pytest.mark.parametrize("count", [1, 3])
def test_each_detector_gets_the_images_of_its_side_alone(tmp_path, read, asked, count):
    root = write_normal(tmp_path, 11)
    chosen, fabric = chosen_of(root, count=count, **asked), Fabric(accelerator="cpu")
    pixels = load_images(chosen.paths, SIZE).pixels
    images = read_images(chosen, SIZE, read, fabric)
    for member, (learned, held_out) in enumerate(chosen.splits):
        for_density, for_threshold = images.for_fitting(member, fabric.device)
        assert torch.equal(for_density, pixels[learned])
        assert torch.equal(for_threshold, pixels[held_out])
        named, again = images.for_threshold(member, fabric.device)
        assert torch.equal(again, for_threshold)
        assert [images.files.paths[i] for i in named.tolist()] == [chosen.paths[i] for i in held_out.tolist()]
        batch = next(images.batches(member, TrainConfig(batch=len(learned)), fabric.device)(0, (0, 1)))
        assert batch.shape == (len(learned), 3, *SIZE)  # one epoch: each image once
        key = [image.flatten().tolist() for image in pixels[learned]]
        assert sorted(image.flatten().tolist() for image in batch) == sorted(key)


def test_a_single_run_s_sides_are_no_copies(tmp_path):
    chosen, fabric = chosen_of(write_normal(tmp_path, 11)), Fabric(accelerator="cpu")
    images = read_images(chosen, SIZE, "resident", fabric)
    assert all(side._base is images.pixels for side in images.for_fitting(0, fabric.device))


def test_of_streamed_images_as_many_as_fit_are_read_those_for_the_threshold_first(tmp_path, monkeypatch):
    chosen, fabric = chosen_of(write_normal(tmp_path, 20), share=0.4), Fabric(accelerator="cpu")
    images = read_images(chosen, SIZE, "stream", fabric)
    monkeypatch.setattr("fastcutpaste.cli.training_images.free_bytes", lambda _: 2 * 10 * 3 * SIZE[0] * SIZE[1])
    people.file = io.StringIO()
    learned, held_out = images.for_fitting(0, fabric.device)
    assert (len(learned), len(held_out)) == (6, 4)
    assert "6 of 12 images fit into memory, for the density, and 4 of 8, for the threshold" in people.file.getvalue()


@pytest.mark.parametrize("read", ["resident", "stream"])
def test_images_in_which_there_is_nothing_to_learn_are_found_when_they_are_read(tmp_path, read):
    black, grey, noise = np.zeros((3, 8, 8), np.uint8), np.arange(192, dtype=np.uint8), draw_noise(8, 8)
    lots = {
        "8 equal ones, all black": [black[0]] * 8,
        "8 equal ones, the first": [noise] * 8,
        "8 of one color each, the first": [np.full((8, 8), grey[i]) for i in range(8)],
    }
    for i, (what, lot) in enumerate(lots.items()):
        for j, pixels in enumerate(lot):
            write_picture(tmp_path / f"{i}/{j}.png", pixels)
        with pytest.raises(ValueError, match=f"train: images that differ required, got {what}.*0.png"):
            read_images(chosen_of(tmp_path / str(i)), (8, 8), read, Fabric(accelerator="cpu"))
        write_picture(tmp_path / f"{i}/7.png", 255 - noise)
        read_images(chosen_of(tmp_path / str(i)), (8, 8), read, Fabric(accelerator="cpu"))


# The command


def test_training_keeps_which_images_it_held_out_and_goes_on_with_no_others(tmp_path):
    root, out = write_cameras(tmp_path / "data"), tmp_path / "run"
    arguments = [str(each) for each in ("train", root, "--out", out, *SMALL)]
    Started(tmp_path, run_command, arguments).succeed()
    kept = Detector.load(out / "detector.safetensors").provenance["facts"]["data"]["held_out"]
    chosen = chosen_of(root)
    assert kept == {"how": "blocks", "share": 0.2, "group": None, "images": chosen.held_out(0)["images"]}
    for changed in (("--hold-out", "last"), ("--held-out", "0.5"), ("--group", r"_(\d+)"),
                    ("--calibration", str(write_normal(tmp_path / "own", 3)))):  # fmt: skip
        line = failing(*arguments, "--resume", "--accept-changes", *changed)
        assert "--resume: the images of the run required, got other ones (" in line
        assert "held_out." in line


def test_bad_groups_end_before_anything_is_made(tmp_path):
    root = write_cameras(tmp_path / "data")
    arguments = ("train", root, "--out", tmp_path / "run", *SMALL)
    assert "finds none in 20 of 20, the first of them" in failing(*arguments, "--group", "lot")
    assert "finds none in 16 of 20" in failing(*arguments, "--group", "cam2")
    assert "at least 2 groups required, got one, 'cam'" in failing(*arguments, "--group", "cam")
    assert "a regular expression required" in failing(*arguments, "--group", "(")
    assert "a share above 0 and below 1 required" in failing(*arguments, "--held-out", "1")
    assert "at least 2 images held out required for each" in failing(*arguments, "--seeds", "0-2", "--held-out", "0.05")
    assert not (tmp_path / "run").exists()


def test_an_ensemble_s_threshold_comes_from_all_images_and_a_folder_s_from_all_of_it(tmp_path):
    root = write_normal(tmp_path / "data", 10)
    result, text = run("train", root, "--out", tmp_path / "run", *SMALL, "--seeds", "0-4")
    assert "10 of 10 images set the threshold, each detector holds out other ones" in " ".join(text.split())
    kept = [Detector.load(row["detector"]).provenance["facts"]["data"]["held_out"] for row in result["detectors"]]
    numbers = [int(part) for each in kept for part in each["images"].split(", ")]
    assert sorted(numbers) == list(range(10))
    assert np.isfinite(result["threshold"])
    assert json.loads((tmp_path / "run/ensemble.json").read_text())["threshold"] == result["threshold"]
    own = write_normal(tmp_path / "own", 3, side=40) / "train/good"
    result, text = run("train", root, "--out", tmp_path / "own-run", *SMALL, "--seeds", "0,1", "--calibration", own)
    assert "3 images of" in text
    kept = [Detector.load(row["detector"]).provenance["facts"]["data"]["held_out"] for row in result["detectors"]]
    assert kept == [{"how": "folder", "images": "10-12"}] * 2
