import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image

from fastcutpaste.cli import demo as command
from fastcutpaste.images import defects, textures
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.defects import DEFECTS, VISIBLE_LEVELS, plant_defect
from fastcutpaste.images.folders import find_test_images, load_masks
from fastcutpaste.images.textures import TEXTURES, DemoData, make_demo, write_demo


def make_small(texture: str = "brick", seed: int = 0) -> DemoData:
    counts = {"train_count": 6, "calibration_count": 5, "good_count": 4, "defect_count": 8}
    return make_demo(texture, size=96, seed=seed, **counts)


def clean_crop(texture: str, size: int = 128) -> np.ndarray:
    return getattr(textures.photographs, texture)()[100 : 100 + size, 300 : 300 + size].copy()


def test_each_block_is_dealt_once_and_training_gets_one_of_every_row_and_column() -> None:
    numbered = np.arange(512 * 512).reshape(512, 512)  # each pixel its own number
    seen = np.zeros((2, 512, 512), bool)
    for k, blocks in enumerate(textures._deal_blocks(numbered)):
        for block in blocks:
            assert block.shape == (170, 170)
            seen[k].reshape(-1)[block] = True
    assert seen.sum(0).max() == 1  # no pixel is in two
    for place in range(3):
        within = slice(170 * place, 170 * (place + 1))
        for there in (seen[:, within, :510], seen[:, :510, within]):
            assert there.sum((1, 2)).tolist() == [170**2, 2 * 170**2]


def test_training_crops_have_blocks_of_their_own_and_chance_parts_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def deal(photograph: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        blocks = [np.full((170, 170), level, np.uint8) for level in (40, 80, 160)]
        return blocks[:1], blocks[1:]

    monkeypatch.setattr(textures, "_deal_blocks", deal)
    data = make_demo(size=96, train_count=6, calibration_count=40, good_count=40, defect_count=8)
    good = data.test[[kind == "good" for kind in data.kinds]]
    assert data.train.max() <= round(40 * (1 + textures.EXPOSURE))
    shares = []
    for crops in (data.calibration, good):
        levels = crops.float().mean((1, 2, 3))
        assert levels.min() >= round(80 * (1 - textures.EXPOSURE))
        shares.append(float((levels > 120).float().mean()))
    assert sum(shares) == pytest.approx(1)  # half of all are of either block
    assert all(0.3 < share < 0.7 for share in shares)
    assert shares[0] != 0.5  # dealt by chance, not in turns


@pytest.mark.parametrize("size", [48, 128, 170])
def test_crops_lie_in_their_block_turned_magnified_and_mirrored_by_chance(size: int) -> None:
    side = 170
    rows = np.repeat(np.arange(side, dtype=float)[:, None], side, 1)  # each pixel holds its row, or its column
    down, across = (textures._cut_crops([block], 60, size, np.random.default_rng(0)) for block in (rows, rows.T))
    assert down.min() >= 0
    assert down.max() <= side - 1
    steps_y, steps_x = down[:, 1, 0] - down[:, 0, 0], across[:, 1, 0] - across[:, 0, 0]  # pixels from row to row
    scales, angles = np.hypot(steps_y, steps_x), np.arctan2(steps_x, steps_y)
    assert np.abs(angles).max() <= textures.TURN
    assert np.abs(angles).max() > 0.9 * textures.TURN
    assert scales.max() <= textures.ZOOM
    if size <= 128:  # a turned crop has room
        assert scales.min() >= 1 / textures.ZOOM
    mirrored = across[:, 0, 1] < across[:, 0, 0]
    assert 15 < mirrored.sum() < 45


def test_as_many_crops_come_from_each_block() -> None:
    blocks = [np.full((60, 60), level, np.uint8) for level in (1, 2, 3)]
    crops = textures._cut_crops(blocks, 10, 50, np.random.default_rng(0))
    assert [int(level) for level in crops[:, 0, 0].round()] == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("texture", TEXTURES)
def test_shapes_dtypes_and_order(texture: str) -> None:
    data = make_small(texture)
    assert data.train.shape == (6, 3, 96, 96)
    assert data.test.shape == (12, 3, 96, 96)
    assert data.masks.shape == (12, 96, 96)
    assert data.train.dtype == data.test.dtype == torch.uint8
    assert data.masks.dtype == torch.bool
    assert data.train.is_contiguous()
    assert data.kinds[:4] == ("good",) * 4
    assert set(data.kinds[4:]) == set(TEXTURES[texture])


def test_images_are_grey_in_three_channels() -> None:
    data = make_small()
    for images in (data.train, data.test):
        assert torch.equal(images[:, 0], images[:, 1])
        assert torch.equal(images[:, 0], images[:, 2])


def test_good_images_have_empty_masks_and_defective_ones_do_not() -> None:
    data = make_small()
    defective = torch.tensor([kind != "good" for kind in data.kinds])
    assert torch.equal(data.masks.flatten(1).any(1), defective)


def test_defect_kinds_share_the_defective_images_evenly() -> None:
    data = make_demo(size=64, train_count=1, calibration_count=1, good_count=1, defect_count=10)
    counts = [data.kinds.count(kind) for kind in TEXTURES["brick"]]
    assert sum(counts) == 10
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("kind", DEFECTS)
@pytest.mark.parametrize("texture", TEXTURES)
def test_a_defect_changes_its_image_only_inside_its_mask(texture: str, kind: str) -> None:
    clean = clean_crop(texture)
    before = clean.copy()
    random = np.random.default_rng(7)
    for _ in range(5):
        image, mask = plant_defect(clean, kind, random)
        change = np.abs(image.astype(int) - clean.astype(int))
        assert change[~mask].max() < VISIBLE_LEVELS
        assert (change[mask] >= VISIBLE_LEVELS).mean() > 0.5  # the mask is the defect, not a box around it
        assert change[mask].mean() > 1.25 * VISIBLE_LEVELS
        assert 0.003 <= mask.mean() <= 0.06
    assert np.array_equal(clean, before)


def test_a_defect_too_small_or_too_large_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = iter([2, 90, 20, 30])

    def darken_square(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        side = next(sides)
        image[5 : 5 + side, 9 : 9 + side] -= 40
        return image

    monkeypatch.setitem(DEFECTS, "chip", darken_square)
    image, mask = plant_defect(np.full((100, 100), 128, np.uint8), "chip", np.random.default_rng(0))
    expected = np.zeros((100, 100), bool)
    expected[5:25, 9:29] = True
    assert np.array_equal(mask, expected)
    assert np.array_equal(image, np.where(expected, 88, 128))


def test_what_no_defect_can_be_planted_in_is_refused() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="on which a crack can be seen required"):
        plant_defect(np.zeros((64, 64), np.uint8), "crack", random)
    with pytest.raises(ValueError, match=r"a square grey image \(S, S\) required, got \(64, 96\)"):
        plant_defect(np.full((64, 96), 128, np.uint8), "chip", random)


def test_blur_follows_its_direction() -> None:
    dot = np.zeros((61, 61))
    dot[30, 30] = 1
    blurred = defects._blur_along(dot, np.deg2rad(30), 20)  # from the x axis towards y, and y points down
    rows, columns = np.indices(dot.shape) - 30
    slope = np.sum(blurred * rows * columns) / np.sum(blurred * columns**2)
    assert slope == pytest.approx(np.tan(np.deg2rad(30)), rel=0.05)
    assert blurred.sum() == pytest.approx(1)
    assert blurred[30 + 4, 30 + 7] > 0.02  # 8 pixels along
    assert blurred[30 - 4, 30 + 7] < 1e-12


@pytest.mark.parametrize("kind", DEFECTS)
def test_two_defects_of_a_kind_differ(kind: str) -> None:
    random = np.random.default_rng(0)
    masks = [plant_defect(clean_crop("brick"), kind, random)[1] for _ in range(2)]
    overlap = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert overlap < 0.5


@pytest.mark.parametrize("kind", DEFECTS)
@pytest.mark.parametrize("size", [textures.SMALLEST_SIZE, 212])
def test_each_defect_can_be_drawn_at_the_smallest_and_largest_size(kind: str, size: int) -> None:
    for seed in range(3):
        image, mask = plant_defect(clean_crop("brick", size), kind, np.random.default_rng(seed))
        assert image.shape == mask.shape == (size, size)


def test_same_seed_gives_the_same_data_bit_for_bit() -> None:
    first, second = make_small(seed=3), make_small(seed=3)
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.test, second.test)
    assert torch.equal(first.masks, second.masks)
    assert first.kinds == second.kinds


def test_another_seed_gives_other_crops_and_defects() -> None:
    first, second = make_small(seed=0), make_small(seed=1)
    for one, other in zip(first.train, second.train, strict=True):
        assert not torch.equal(one, other)
    for one, other in zip(first.masks[4:], second.masks[4:], strict=True):
        assert not torch.equal(one, other)


def test_training_images_do_not_depend_on_the_number_of_test_images() -> None:
    few = make_demo(size=64, train_count=5, calibration_count=5, good_count=1, defect_count=1)
    many = make_demo(size=64, train_count=5, calibration_count=6, good_count=3, defect_count=4)
    assert torch.equal(few.train, many.train)


def test_written_folder_gives_the_same_data_back(tmp_path: Path) -> None:
    data = make_small()
    root = tmp_path / "brick"
    found = write_demo(data, root)
    for name, images in (("train", data.train), ("validation", data.calibration)):
        written = [np.asarray(Image.open(path)) for path in sorted((root / name / "good").iterdir())]
        assert torch.equal(torch.from_numpy(np.stack(written)).permute(0, 3, 1, 2), images)
    assert found.kinds == data.kinds
    assert torch.equal(load_images(found.paths, (96, 96)).pixels, data.test)
    assert torch.equal(torch.stack(load_masks(found)), data.masks)
    again = find_test_images(root)
    assert dict(zip(found.paths, found.masks, strict=True)) == dict(zip(again.paths, again.masks, strict=True))
    kinds = list(dict.fromkeys(data.kinds))
    assert sorted(path.name for path in (root / "test").iterdir()) == sorted(kinds)
    assert sorted(path.name for path in (root / "ground_truth").iterdir()) == sorted(set(kinds) - {"good"})
    place = 0
    for kind in kinds:
        for number, path in enumerate(sorted((root / "test" / kind).iterdir())):
            assert path.name == f"{number:03d}.png"
            assert data.kinds[place] == kind
            image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)  # (H, W, 3) → (3, H, W)
            assert torch.equal(image, data.test[place])
            if kind != "good":
                mask = np.array(Image.open(root / "ground_truth" / kind / f"{number:03d}_mask.png"))
                assert mask.shape == (96, 96)
                assert set(np.unique(mask)) == {0, 255}
                assert torch.equal(torch.from_numpy(mask == 255), data.masks[place])
            place += 1
    assert place == len(data.kinds)
    assert len(list((root / "ground_truth").rglob("*.png"))) == 8


def test_write_demo_refuses_a_folder_that_holds_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"write_demo: an empty or new folder required, got .*, which is not empty"
    ):
        write_demo(make_small(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_unknown_texture_lists_the_names() -> None:
    with pytest.raises(ValueError, match="make_demo: texture must be one of brick, grass, gravel, got 'camera'"):
        make_demo("camera")


@pytest.mark.parametrize("size", [47, 171, 256])
def test_size_outside_the_parts_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"make_demo: size must be 48 to 170 pixels, got {size}"):
        make_demo(size=size)


@pytest.mark.parametrize("name", ["train_count", "calibration_count", "good_count", "defect_count"])
def test_an_empty_set_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"make_demo: {name} must be at least 1, got 0"):
        make_demo(**{name: 0})


def test_negative_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match="make_demo: seed must not be negative, got -1"):
        make_demo(seed=-1)


def test_the_demo_ends_with_its_report_and_leaves_its_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = partial(make_demo, size=48, train_count=4, calibration_count=3, good_count=3, defect_count=4)
    monkeypatch.setattr(command, "make_demo", few)
    out = tmp_path / "out"
    result, text = run("demo", "--out", out, "--steps", 2, "--seed", 3, "--device", "cpu")
    assert text.splitlines()[-1] == f"look at {out / 'report.html'}"
    assert "4 normal crops of brick to learn from, 3 to set the threshold on, 7 to test on" in text
    assert "false alarms" in text
    assert result["images"] == result["untrained"]["images"] == 7
    assert (result["texture"], result["seed"]) == ("brick", 3)
    assert all(math.isfinite(result[name]) for name in ("image_auroc", "pixel_auroc", "detection_rate"))
    for name in ("report", "scores", "heat_maps"):
        assert Path(result[name]).is_file()
    again, _ = run("evaluate", out, out / "data", "--device", "cpu")  # the files are the images that were measured
    assert again["image_auroc"] == pytest.approx(result["image_auroc"])
    assert again["threshold"] == result["threshold"]
    assert not list(out.glob("data/train/good/004.png"))
    assert len(list(out.glob("data/validation/good/*.png"))) == 3
