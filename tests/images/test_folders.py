"""Folders: which images and masks are found in them, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw_noise, write_picture
from PIL import Image

from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import (
    ImageSet,
    find_calibration_images,
    find_test_images,
    find_training_images,
    load_masks,
)

pytestmark = pytest.mark.filterwarnings("error")  # whatever a test does not expect


def _write_text(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not an image")
    return path


def _mvtec(root: Path, masks=True) -> Path:
    """Write a small MVTec category: 2 train, test/good 1, test/crack 2, test/hole 1."""
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/crack/0", "test/crack/1", "test/hole/0"):
        write_picture(root / f"{name}.png")
        kind, stem = name.split("/")[1:]
        if masks and kind != "good":
            write_picture(root / "ground_truth" / kind / f"{stem}_mask.png", 255 * np.eye(6, 8, dtype=np.uint8))
    return root


def _names(images: ImageSet) -> list[str]:
    return [path.name for path in images.paths]


# Finding training images


def test_mvtec_training_images_are_those_of_train_good(tmp_path):
    images = find_training_images(_mvtec(tmp_path))
    assert images.paths == (tmp_path / "train/good/0.png", tmp_path / "train/good/1.png")
    assert (images.kinds, images.masks) == (("good", "good"), (None, None))
    assert len(images) == 2
    assert not images.has_masks
    assert torch.equal(images.labels, torch.tensor([False, False]))


def test_a_category_s_images_for_thresholds_are_those_of_validation_good(tmp_path):
    root = _mvtec(tmp_path / "can")
    assert find_calibration_images(root) is None
    for name in (
        "validation/good/10.png",
        "validation/good/2.png",
        "validation/bad/0.png",
        "plain/validation/good/0.png",
    ):
        write_picture(root / name)
    images = find_calibration_images(str(root))
    assert images is not None
    assert images.paths == (root / "validation/good/2.png", root / "validation/good/10.png")
    assert images.kinds == ("good", "good")
    assert find_calibration_images(root / "plain") is None  # its images are those directly in it, if any
    (tmp_path / "empty/train/good").mkdir(parents=True)
    (tmp_path / "empty/validation/good").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"good: images .* required in .*good, got none"):
        find_calibration_images(tmp_path / "empty")


def test_plain_folder_is_all_normal_as_path_or_string(tmp_path):
    write_picture(tmp_path / "a.png")
    assert find_training_images(str(tmp_path)) == find_training_images(tmp_path)
    assert find_training_images(tmp_path).kinds == ("good",)


def test_names_are_sorted_as_people_count(tmp_path):
    names = ["10.png", "2.png", "a10.png", "A2.png", "b.png", "02.png", "1.png"]
    for name in names:
        write_picture(tmp_path / name)
    assert _names(find_training_images(tmp_path)) == [
        "1.png",
        "02.png",
        "2.png",
        "10.png",
        "A2.png",
        "a10.png",
        "b.png",
    ]


def test_only_visible_image_files_are_listed(tmp_path):
    for name in ("ä ö.JPG", "with space.Tiff", "x.bmp", "y.jpeg", "z.tif"):
        write_picture(tmp_path / name)
    for name in (".DS_Store", "Thumbs.db", "._x.png", ".hidden.png", "notes.txt", "x.psd"):
        _write_text(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    images = find_training_images(tmp_path)
    assert _names(images) == ["with space.Tiff", "x.bmp", "y.jpeg", "z.tif", "ä ö.JPG"]
    assert load_images(images.paths, 4).pixels.shape == (5, 3, 4, 4)


def test_links_to_files_and_folders_are_followed(tmp_path):
    _mvtec(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data/train/good/2.png").symlink_to(tmp_path / "data/train/good/0.png")
    images = find_training_images(tmp_path / "link")
    assert _names(images) == ["0.png", "1.png", "2.png"]
    assert load_images(images.paths, 4).pixels.shape == (3, 3, 4, 4)


def test_broken_link_is_named_when_read(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"gone\.png: .*No such file"):
        load_images(find_training_images(tmp_path).paths, 4)


@pytest.mark.parametrize("find", [find_training_images, find_test_images])
def test_missing_folder_is_named(tmp_path, find):
    with pytest.raises(ValueError, match=r"nowhere: a folder of images required, .*nowhere is missing"):
        find(tmp_path / "nowhere")


@pytest.mark.parametrize("find", [find_training_images, find_test_images])
def test_folder_without_images_is_refused_with_what_it_holds(tmp_path, find):
    expected = r": images \(\.bmp \.gif \.jpeg \.jpg \.png \.tif \.tiff \.webp\) required in .*, got "
    with pytest.raises(ValueError, match=expected + "an empty folder"):
        find(tmp_path)
    _write_text(tmp_path / "notes.txt")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match=expected + "notes.txt, sub/"):
        find(tmp_path)


@pytest.mark.parametrize("find", [find_training_images, find_test_images])
def test_folder_of_categories_says_which_to_pass(tmp_path, find):
    for category in ("screw", "bottle"):
        _mvtec(tmp_path / category)
    with pytest.raises(ValueError, match=r": one category required, .* holds bottle, screw: pass one"):
        find(tmp_path)


def test_training_root_that_is_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a folder of images required, .*a\.png is a file"):
        find_training_images(write_picture(tmp_path / "a.png"))


def test_training_without_train_good_is_refused(tmp_path):
    write_picture(tmp_path / "test/good/0.png")
    with pytest.raises(ValueError, match=r"a folder train/good required in .*, got test/"):
        find_training_images(tmp_path)
    write_picture(tmp_path / "train/crack/0.png")
    with pytest.raises(ValueError, match=r"a folder train/good required in .*, got train with crack/"):
        find_training_images(tmp_path)


def test_empty_train_good_is_refused(tmp_path):
    (tmp_path / "train/good").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"images \(.*\) required in .*good, got none"):
        find_training_images(tmp_path)


# Finding test images


def test_mvtec_test_images_come_with_kinds_and_masks(tmp_path):
    images = find_test_images(_mvtec(tmp_path))
    assert images.kinds == ("crack", "crack", "good", "hole")
    assert images.paths == tuple(
        tmp_path / "test" / name for name in ("crack/0.png", "crack/1.png", "good/0.png", "hole/0.png")
    )
    truth = tmp_path / "ground_truth"
    assert images.masks == (truth / "crack/0_mask.png", truth / "crack/1_mask.png", None, truth / "hole/0_mask.png")
    assert torch.equal(images.labels, torch.tensor([True, True, False, True]))
    assert images.has_masks


def test_masks_may_bear_the_image_name_and_another_extension(tmp_path):
    for name in ("test/crack/é 1.jpg", "test/crack/b_mask.png", "test/crack/b.png", "test/good/0.png"):
        write_picture(tmp_path / name)
    for name in ("e\u0301 1.bmp", "b_mask_mask.png", "b_mask.tif"):  # é as two code points, as macOS writes it
        write_picture(tmp_path / "ground_truth/crack" / name)
    assert [mask and mask.name for mask in find_test_images(tmp_path).masks] == [
        "b_mask.tif",
        "b_mask_mask.png",
        "e\u0301 1.bmp",
        None,
    ]


def test_without_ground_truth_there_are_no_masks(tmp_path):
    images = find_test_images(_mvtec(tmp_path, masks=False))
    assert images.masks == (None,) * 4
    assert not images.has_masks


def test_masks_of_good_images_are_not_looked_at(tmp_path):
    write_picture(_mvtec(tmp_path) / "ground_truth/good/7_mask.png")
    assert find_test_images(tmp_path).masks[2] is None


def test_plain_folder_and_single_file_are_unlabelled(tmp_path):
    path = write_picture(tmp_path / "a.png")
    for root in (tmp_path, path):
        assert find_test_images(root) == ImageSet((path,), (None,), (None,))
    with pytest.raises(ValueError, match=r"ImageSet: a kind for every image required, got none for .*a\.png"):
        find_test_images(path).labels  # noqa: B018


def test_single_file_must_be_an_image(tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt: an image \(\.bmp .*\), a folder or a CSV file required"):
        find_test_images(_write_text(tmp_path / "a.txt"))


def test_defective_image_without_mask_is_refused(tmp_path):
    (_mvtec(tmp_path) / "ground_truth/crack/1_mask.png").unlink()
    with pytest.raises(ValueError, match=r"a mask 1_mask\.\* or 1\.\* required in .*crack, got none for .*1\.png"):
        find_test_images(tmp_path)


def test_kind_without_any_mask_is_refused_when_others_have_them(tmp_path):
    (_mvtec(tmp_path) / "ground_truth/hole/0_mask.png").unlink()
    (tmp_path / "ground_truth/hole").rmdir()
    with pytest.raises(ValueError, match=r"a mask 0_mask\.\* or 0\.\* required in .*hole, got none for .*0\.png"):
        find_test_images(tmp_path)


def test_mask_without_image_is_refused(tmp_path):
    extra = write_picture(_mvtec(tmp_path) / "ground_truth/crack/7_mask.png")
    with pytest.raises(ValueError, match=r"an image for each mask required, got none in .*crack for .*7_mask\.png"):
        find_test_images(tmp_path)
    extra.unlink()
    write_picture(tmp_path / "ground_truth/bent/0_mask.png")
    with pytest.raises(ValueError, match=r"an image for each mask required, got .*bent and no .*bent"):
        find_test_images(tmp_path)


def test_two_masks_for_an_image_and_two_images_for_a_mask_are_refused(tmp_path):
    write_picture(_mvtec(tmp_path / "a") / "ground_truth/crack/0_mask.bmp")
    with pytest.raises(ValueError, match=r"one mask per image required, got .*0_mask\.bmp and 0_mask\.png"):
        find_test_images(tmp_path / "a")
    write_picture(_mvtec(tmp_path / "b") / "test/crack/0.bmp")
    with pytest.raises(ValueError, match=r"a mask of its own per image required, .*0\.bmp and .*0\.png share .*0_mask"):
        find_test_images(tmp_path / "b")


def test_test_folder_must_hold_kinds_with_images(tmp_path):
    write_picture(tmp_path / "a/train/good/0.png")
    with pytest.raises(ValueError, match=r"a folder test/<kind> required in .*, got train/"):
        find_test_images(tmp_path / "a")
    write_picture(tmp_path / "b/test/0.png")
    with pytest.raises(ValueError, match=r"folders test/good and test/<defect> required in .*, got 0\.png"):
        find_test_images(tmp_path / "b")
    (_mvtec(tmp_path / "c") / "test/empty").mkdir()
    with pytest.raises(ValueError, match=r"images \(.*\) required in .*empty, got none"):
        find_test_images(tmp_path / "c")


def test_image_set_needs_equal_lengths():
    with pytest.raises(ValueError, match=r"ImageSet: .* got 1 paths, 0 kinds, 1 masks"):
        ImageSet((Path("a"),), (), (None,))


# Masks


def _one(tmp_path: Path, mask_name: str, mask, height=6, width=8, **options) -> ImageSet:
    """Write one defective image and its mask."""
    image = write_picture(tmp_path / "image.png", draw_noise(height, width))
    if isinstance(mask, Image.Image):
        mask.save(tmp_path / mask_name, **options)
    else:
        write_picture(tmp_path / mask_name, mask, **options)
    return ImageSet((image,), ("crack",), (tmp_path / mask_name,))


def test_masks_keep_original_sizes_and_good_images_are_all_false(tmp_path):
    images = find_test_images(_mvtec(tmp_path))
    write_picture(images.paths[2], draw_noise(20, 5))
    masks = load_masks(images)
    expected = torch.eye(6, 8, dtype=torch.bool)
    assert [tuple(mask.shape) for mask in masks] == [(6, 8), (6, 8), (20, 5), (6, 8)]
    assert not masks[2].any()
    assert all(torch.equal(masks[i], expected) for i in (0, 1, 3))
    known = load_masks(images, load_images(images.paths, 4).sizes)
    assert all(torch.equal(a, b) for a, b in zip(masks, known, strict=True))


@pytest.mark.parametrize(
    "mode", ["0/255", "0/1", "classes", "1 bit", "rgb", "rgba", "16 bit", "16 bit 0/1", "palette", "bmp"]
)
def test_masks_are_understood_however_they_are_stored(tmp_path, mode):
    expected = np.eye(6, 8, dtype=bool)
    grey = 255 * expected.astype(np.uint8)
    palette = Image.fromarray(expected.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    mask = {
        "0/1": expected.astype(np.uint8),
        "classes": (expected * np.arange(8)).astype(np.uint8) + expected,
        "1 bit": Image.fromarray(expected),
        "rgb": np.stack([grey, 0 * grey, 0 * grey], -1),
        "rgba": np.stack([grey, grey, grey, 0 * grey + 255], -1),
        "16 bit": (65535 * expected).astype(np.uint16),
        "16 bit 0/1": expected.astype(np.uint16),
        "palette": palette,
    }.get(mode, grey)
    name = "mask.bmp" if mode == "bmp" else "mask.png"
    assert np.array_equal(load_masks(_one(tmp_path, name, mask))[0].numpy(), expected)


def test_grey_fringe_of_a_mask_is_cut_at_half(tmp_path):
    fringe = np.array([[0, 3, 127, 128, 255]], np.uint8)
    mask = load_masks(_one(tmp_path, "mask.png", fringe, height=1, width=5))[0]
    assert mask.tolist() == [[False, False, False, True, True]]


def test_noise_in_a_jpeg_mask_is_no_defect(tmp_path):
    images = _one(tmp_path, "mask.jpg", np.full((6, 8), 3, np.uint8))
    assert not load_masks(images)[0].any()


def test_empty_mask_is_empty(tmp_path):
    assert not load_masks(_one(tmp_path, "mask.png", np.zeros((6, 8), np.uint8)))[0].any()


def test_mask_of_another_size_is_refused_with_both_names(tmp_path):
    images = _one(tmp_path, "mask.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(ValueError, match=r"mask\.png: .* required, .*mask\.png is 8×6, .*image\.png is 6×8"):
        load_masks(images)


def test_masks_need_labels_masks_and_one_size_each(tmp_path):
    path = write_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a kind for every image required, got none for .*a\.png"):
        load_masks(ImageSet((path,), (None,), (None,)))
    with pytest.raises(ValueError, match=r"a\.png: a mask for every defective image required, got none for .*a\.png"):
        load_masks(ImageSet((path,), ("crack",), (None,)))
    with pytest.raises(ValueError, match="load_masks: one size per image required, got 2 for 1 images"):
        load_masks(ImageSet((path,), ("good",), (None,)), [(4, 4), (4, 4)])


def test_broken_mask_is_named(tmp_path):
    images = _one(tmp_path, "mask.png", np.zeros((6, 8), np.uint8))
    (tmp_path / "mask.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"mask\.png: .* a file of another format or broken from the start \(0 bytes"):
        load_masks(images)
