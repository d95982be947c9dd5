"""Folders, decoding and crops, on generated images."""

import os
import struct
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastcutpaste import functional
from fastcutpaste.data import (
    ImageSet,
    find_test_images,
    find_training_images,
    load_images,
    load_masks,
    read_image,
)
from fastcutpaste.functional import random_crops


@pytest.fixture(autouse=True)
def _warnings_fail():
    """Fail on any warning that a test does not expect."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _noise(height=6, width=8, channels=3, seed=0):
    """Give random uint8 pixels, (H, W) for one channel or (H, W, C)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _smooth(height, width):
    """Give an RGB photograph's stand-in, (H, W, 3): waves that a JPEG keeps well."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y), np.sin(5 * x * y)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def _write(path: Path, pixels=None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_noise() if pixels is None else pixels).save(path, **options)
    return path


def _write_text(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not an image")
    return path


def _mvtec(root: Path, masks=True) -> Path:
    """Write a small MVTec category: 2 train, test/good 1, test/crack 2, test/hole 1."""
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/crack/0", "test/crack/1", "test/hole/0"):
        _write(root / f"{name}.png")
        kind, stem = name.split("/")[1:]
        if masks and kind != "good":
            _write(root / "ground_truth" / kind / f"{stem}_mask.png", 255 * np.eye(6, 8, dtype=np.uint8))
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


def test_plain_folder_is_all_normal_as_path_or_string(tmp_path):
    _write(tmp_path / "a.png")
    assert find_training_images(str(tmp_path)) == find_training_images(tmp_path)
    assert find_training_images(tmp_path).kinds == ("good",)


def test_names_are_sorted_as_people_count(tmp_path):
    names = ["10.png", "2.png", "a10.png", "A2.png", "b.png", "02.png", "1.png"]
    for name in names:
        _write(tmp_path / name)
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
        _write(tmp_path / name)
    for name in (".DS_Store", "Thumbs.db", "._x.png", ".hidden.png", "notes.txt", "x.gif"):
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
    with pytest.raises(ValueError, match=r"read_image: .*gone\.png.*No such file"):
        load_images(find_training_images(tmp_path).paths, 4)


@pytest.mark.parametrize("find", [find_training_images, find_test_images])
def test_missing_folder_is_named(tmp_path, find):
    with pytest.raises(ValueError, match=rf"{find.__name__}: a folder of images required, .*nowhere is missing"):
        find(tmp_path / "nowhere")


@pytest.mark.parametrize("find", [find_training_images, find_test_images])
def test_folder_without_images_is_refused_with_what_it_holds(tmp_path, find):
    expected = rf"{find.__name__}: images \(\.bmp \.jpeg \.jpg \.png \.tif \.tiff\) required in .*, got "
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
    with pytest.raises(ValueError, match=rf"{find.__name__}: one category required, .* holds bottle, screw: pass one"):
        find(tmp_path)


def test_training_root_that_is_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a folder of images required, .*a\.png is a file"):
        find_training_images(_write(tmp_path / "a.png"))


def test_training_without_train_good_is_refused(tmp_path):
    _write(tmp_path / "test/good/0.png")
    with pytest.raises(ValueError, match=r"find_training_images: a folder train/good required in .*, got test/"):
        find_training_images(tmp_path)
    _write(tmp_path / "train/OK/0.png")
    with pytest.raises(ValueError, match=r"a folder train/good required in .*, got train with OK/"):
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
    for name in ("test/crack/é 1.jpg", "test/crack/b_mask.png", "test/crack/b.png"):
        _write(tmp_path / name)
    for name in ("e\u0301 1.bmp", "b_mask_mask.png", "b_mask.tif"):  # é as two code points, as macOS writes it
        _write(tmp_path / "ground_truth/crack" / name)
    assert [mask.name for mask in find_test_images(tmp_path).masks] == [
        "b_mask.tif",
        "b_mask_mask.png",
        "e\u0301 1.bmp",
    ]


def test_without_ground_truth_there_are_no_masks(tmp_path):
    images = find_test_images(_mvtec(tmp_path, masks=False))
    assert images.masks == (None,) * 4
    assert not images.has_masks


def test_masks_of_good_images_are_not_looked_at(tmp_path):
    _write(_mvtec(tmp_path) / "ground_truth/good/7_mask.png")
    assert find_test_images(tmp_path).masks[2] is None


def test_plain_folder_and_single_file_are_unlabelled(tmp_path):
    path = _write(tmp_path / "a.png")
    for root in (tmp_path, path):
        assert find_test_images(root) == ImageSet((path,), (None,), (None,))
    with pytest.raises(ValueError, match=r"ImageSet: a kind for every image required, got none for .*a\.png"):
        find_test_images(path).labels  # noqa: B018


def test_single_file_must_be_an_image(tmp_path):
    with pytest.raises(ValueError, match=r"find_test_images: an image \(\.bmp .*\) or a folder required, got .*a\.txt"):
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
    extra = _write(_mvtec(tmp_path) / "ground_truth/crack/7_mask.png")
    with pytest.raises(ValueError, match=r"an image for each mask required, got none in .*crack for .*7_mask\.png"):
        find_test_images(tmp_path)
    extra.unlink()
    _write(tmp_path / "ground_truth/bent/0_mask.png")
    with pytest.raises(ValueError, match=r"an image for each mask required, got .*bent and no .*bent"):
        find_test_images(tmp_path)


def test_two_masks_for_an_image_and_two_images_for_a_mask_are_refused(tmp_path):
    _write(_mvtec(tmp_path / "a") / "ground_truth/crack/0_mask.bmp")
    with pytest.raises(ValueError, match=r"one mask per image required, got .*0_mask\.bmp and 0_mask\.png"):
        find_test_images(tmp_path / "a")
    _write(_mvtec(tmp_path / "b") / "test/crack/0.bmp")
    with pytest.raises(ValueError, match=r"a mask of its own per image required, .*0\.bmp and .*0\.png share .*0_mask"):
        find_test_images(tmp_path / "b")


def test_test_folder_must_hold_kinds_with_images(tmp_path):
    _write(tmp_path / "a/train/good/0.png")
    with pytest.raises(ValueError, match=r"a folder test/<kind> required in .*, got train/"):
        find_test_images(tmp_path / "a")
    _write(tmp_path / "b/test/0.png")
    with pytest.raises(ValueError, match=r"folders test/good and test/<defect> required in .*, got 0\.png"):
        find_test_images(tmp_path / "b")
    (_mvtec(tmp_path / "c") / "test/empty").mkdir()
    with pytest.raises(ValueError, match=r"images \(.*\) required in .*empty, got none"):
        find_test_images(tmp_path / "c")


def test_image_set_needs_equal_lengths():
    with pytest.raises(ValueError, match=r"ImageSet: .* got 1 paths, 0 kinds, 1 masks"):
        ImageSet((Path("a"),), (), (None,))


# Reading one image


def _same(path: Path, expected: np.ndarray) -> bool:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.array_equal(np.asarray(image), expected)


def test_grey_palette_and_one_bit_images_become_rgb(tmp_path):
    grey = _noise(channels=1)
    assert _same(_write(tmp_path / "grey.png", grey), np.stack([grey] * 3, -1))
    two = Image.fromarray(grey).convert("1")
    two.save(tmp_path / "two.png")
    assert _same(tmp_path / "two.png", np.stack([255 * np.asarray(two).astype(np.uint8)] * 3, -1))
    palette = Image.fromarray(_noise()).quantize(7)
    palette.save(tmp_path / "palette.png")
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    assert _same(tmp_path / "palette.png", colours[np.asarray(palette)])


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_high_byte_and_says_so(tmp_path, extension):
    deep = np.random.default_rng(0).integers(0, 65536, (6, 8), dtype=np.uint16)
    path = _write(tmp_path / f"deep.{extension}", deep)
    with pytest.warns(
        UserWarning, match=r"read_image: 1 of 1 images had 12 or 16 bits a channel, reduced to 8 .first:"
    ):
        assert _same(path, np.stack([deep // 256] * 3, -1))


def _tiff(path: Path, pixels: np.ndarray, bits: int, channels: int, signed: bool = False) -> Path:
    """Write an uncompressed little-endian TIFF by hand, since Pillow writes neither 12 bits nor deep colour."""
    height, width = pixels.shape[:2]
    if bits == 12:  # two values in three bytes, the high bits first
        pairs = pixels.reshape(-1, 2).astype(int)
        data = b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in pairs.tolist())
    else:
        data = pixels.astype("<u2").tobytes()
    photometric = 2 if channels == 3 else 1
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: channels, 278: height}
    tags |= {279: len(data), 339: 2 if signed else 1}
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start + 6
    entries = b""
    for tag, value in tags.items():
        many = tag == 258 and channels == 3
        entries += struct.pack("<HHII", tag, 3 if many else 4, 3 if many else 1, start if many else value)
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(head + struct.pack("<HHH", bits, bits, bits) + data)
    return path


def test_twelve_bit_grey_is_scaled_from_twelve(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (6, 8), dtype=np.uint16)
    with pytest.warns(UserWarning, match="had 12 or 16 bits"):
        assert _same(_tiff(tmp_path / "deep.tif", deep, 12, 1), np.stack([deep // 16] * 3, -1))


def test_sixteen_bit_colour_is_noticed_though_pillow_hides_it(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (6, 8, 3), dtype=np.uint16)
    with pytest.warns(UserWarning, match="had 12 or 16 bits"):
        assert _same(_tiff(tmp_path / "deep.tif", deep, 16, 3), deep // 256)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_channels_without_a_known_range_are_refused(tmp_path, dtype):
    path = _write(tmp_path / "a.tif", np.ones((4, 4), dtype))
    with pytest.raises(ValueError, match=r"read_image: .*a\.tif: its channels are neither 8 nor 16 bits"):
        read_image(path)


def test_sixteen_bits_with_sign_are_refused(tmp_path):
    path = _tiff(tmp_path / "a.tif", np.ones((4, 4), np.uint16), 16, 1, signed=True)
    with pytest.raises(ValueError, match=r"read_image: .*a\.tif: its channels are neither 8 nor 16 bits without sign"):
        read_image(path)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped_and_said_only_if_something_was_transparent(tmp_path, channels):
    pixels = _noise(channels=channels)
    colours = pixels[..., :3] if channels == 4 else np.repeat(pixels[..., :1], 3, axis=2)
    path = _write(tmp_path / "clear.png", pixels)
    with pytest.warns(UserWarning, match="1 of 1 images had transparent pixels, alpha dropped"):
        assert _same(path, colours)
    pixels[..., -1] = 255
    assert _same(_write(tmp_path / "solid.png", pixels), colours)


def test_transparent_palette_colours_are_said(tmp_path):
    image = Image.fromarray(_noise()).quantize(7)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    with pytest.warns(UserWarning, match="transparent pixels"):
        assert _same(tmp_path / "a.png", np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)])


def test_cmyk_is_converted_and_said(tmp_path):
    flat = np.full((16, 16, 4), (0, 255, 255, 0), np.uint8)  # no cyan, full magenta and yellow: red
    Image.frombytes("CMYK", (16, 16), flat.tobytes()).save(tmp_path / "a.jpg", quality=95)
    with pytest.warns(UserWarning, match="1 of 1 images were CMYK, converted without a colour profile"):
        pixels = np.asarray(read_image(tmp_path / "a.jpg")).astype(int)
    assert np.abs(pixels - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("extension", ["tif", "png"])
def test_first_of_several_pages_or_frames_is_used_and_said(tmp_path, extension):
    first, second = _noise(seed=1), _noise(seed=2)
    path = _write(tmp_path / f"a.{extension}", first, save_all=True, append_images=[Image.fromarray(second)])
    with pytest.warns(UserWarning, match="had more than one page or frame, the first is used"):
        assert _same(path, first)


@pytest.mark.parametrize("extension", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, extension, orientation):
    turns = {
        1: 0,
        2: 0,
        3: 2,
        4: 2,
        5: 1,
        6: 3,
        7: 3,
        8: 1,
    }  # quarter turns to the left, 2, 4, 5, 7 after a left-right flip
    stored = np.kron(_noise(3, 5), np.ones((8, 8, 1), np.uint8)) // 2 + 64
    flipped = stored[:, ::-1] if orientation in (2, 4, 5, 7) else stored
    expected = np.rot90(flipped, turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _write(
        tmp_path / f"a.{extension}",
        np.ascontiguousarray(stored),
        exif=exif,
        **({"quality": 95, "subsampling": 0} if extension == "jpg" else {}),
    )
    pixels = np.asarray(read_image(path)).astype(int)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 4
    loaded = load_images([path], expected.shape[:2])
    assert loaded.sizes == [expected.shape[:2]]
    assert np.abs(loaded.pixels[0].permute(1, 2, 0).numpy() - expected.astype(int)).mean() < 4


def test_content_counts_not_the_extension(tmp_path):
    Image.fromarray(_noise()).save(tmp_path / "a.jpg", format="PNG")
    assert _same(tmp_path / "a.jpg", _noise())


def _break(path: Path, how: str) -> Path:
    if how == "truncated":
        content = _write(path, _noise(64, 64)).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_text("this is a letter, not an image")
    return path


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("how", ["truncated", "empty", "text"])
def test_broken_file_is_named_and_stops_the_load(tmp_path, extension, how):
    bad = _break(tmp_path / f"bad one.{extension}", how)
    paths = [_write(tmp_path / "a.png"), bad, *[_write(tmp_path / "b.png")] * 20]
    for read in (lambda: read_image(bad), lambda: load_images(paths, 8), lambda: load_images(paths, 8, workers=1)):
        with pytest.raises(ValueError, match=r"read_image: a whole BMP, JPEG, PNG, TIFF image required, .*bad one\."):
            read()


def test_missing_image_and_other_formats_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"got .*none\.png: .*No such file"):
        read_image(tmp_path / "none.png")
    Image.fromarray(_noise()).save(tmp_path / "gif.png", format="GIF")
    with pytest.raises(
        ValueError, match=r"got .*gif\.png: a file of another format or broken from the start \(\d+ bytes"
    ):
        read_image(tmp_path / "gif.png")


# Loading many


@pytest.mark.parametrize("workers", [None, 1, 5])
def test_loading_keeps_order_and_original_sizes(tmp_path, workers):
    sizes = [(6, 8), (30, 4), (3, 50), (64, 64), (1, 1)] * 4
    paths = [_write(tmp_path / f"{i}.png", _noise(*size, seed=i)) for i, size in enumerate(sizes)]
    pixels, came = load_images(paths, (10, 12), workers=workers)
    assert came == sizes
    assert (pixels.shape, pixels.dtype, pixels.is_contiguous()) == ((20, 3, 10, 12), torch.uint8, True)
    for i, path in enumerate(paths):
        expected = np.asarray(Image.open(path).resize((12, 10), Image.Resampling.BILINEAR))
        assert np.array_equal(pixels[i].permute(1, 2, 0).numpy(), expected)


def test_images_of_the_right_size_are_not_touched(tmp_path):
    paths = [_write(tmp_path / f"{i}.png", _noise(8, 8, channels=c, seed=i)) for i, c in enumerate((3, 1))]
    pixels = load_images([str(path) for path in paths], 8).pixels
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), _noise(8, 8))
    assert torch.equal(pixels[1], torch.from_numpy(_noise(8, 8, channels=1, seed=1)).expand(3, 8, 8))


def test_shrinking_averages_instead_of_picking(tmp_path):
    board = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    pixels = load_images([_write(tmp_path / "board.png", board)], 8).pixels
    assert (pixels.int() - 127).abs().max() <= 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_decoded_small_looks_like_one_decoded_whole(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _write(tmp_path / "big.jpg", _smooth(480, 960), quality=95, exif=exif)
    whole = read_image(path)
    size = (40, 30) if orientation == 6 else (30, 40)
    pixels, sizes = load_images([path], size)
    assert sizes == [(whole.height, whole.width)] == [(960, 480) if orientation == 6 else (480, 960)]
    expected = np.asarray(whole.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels[0].permute(1, 2, 0).numpy() - expected).max() <= 3


def test_large_jpeg_is_decoded_at_twice_the_size_or_more(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _write(tmp_path / "wide.jpg", _smooth(480, 960))
    turned = _write(tmp_path / "turned.jpg", _smooth(480, 960), exif=exif)  # upright 960 × 480
    seen = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, *a, **k: seen.append(image.size) or resize(image, *a, **k))
    load_images([path], (60, 60))
    load_images([path], (200, 200))
    load_images([turned], (60, 200))
    load_images([turned], (200, 60))
    assert seen == [(240, 120), (960, 480), (480, 960), (240, 480)]  # (width, height)


def test_an_error_stops_the_load(tmp_path, monkeypatch):
    paths = [_break(tmp_path / "bad.png", "empty"), *[_write(tmp_path / "a.png")] * 200]
    opened = []
    open_image = Image.open

    def open_slowly(*arguments, **options):
        opened.append(arguments)
        time.sleep(0.01)
        return open_image(*arguments, **options)

    monkeypatch.setattr(Image, "open", open_slowly)
    with pytest.raises(ValueError, match=r"bad\.png"):
        load_images(paths, 4, workers=2)
    assert len(opened) < 100


def test_each_kind_of_loss_is_said_once_with_counts(tmp_path):
    deep = np.full((4, 4), 4096, np.uint16)
    clear = np.zeros((4, 4, 4), np.uint8)
    files = {"a": _noise(), "b": deep, "c": clear, "d": deep, "e": _noise(channels=1)}
    paths = [_write(tmp_path / f"{name}.png", pixels) for name, pixels in files.items()]
    with pytest.warns(UserWarning, match="load_images") as caught:
        load_images(paths, 4)
    assert [str(w.message) for w in caught] == [
        f"load_images: 2 of 5 images had 12 or 16 bits a channel, reduced to 8 (first: {paths[1]})",
        f"load_images: 1 of 5 images had transparent pixels, alpha dropped (first: {paths[2]})",
    ]
    assert {w.filename for w in caught} == {__file__}


def test_no_images_give_an_empty_tensor():
    assert load_images([], 8).pixels.shape == (0, 3, 8, 8)


def test_progress_bar_goes_to_stderr(tmp_path, capsys):
    paths = [_write(tmp_path / "a.png")] * 3
    load_images(paths, 4)
    assert capsys.readouterr() == ("", "")
    pixels = load_images(paths, 4, progress=True).pixels
    assert len(pixels) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "reading images" in err


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), ((4, -1), ValueError), (4.0, TypeError), ((4, 4, 4), TypeError)]
)
def test_wrong_size_is_refused_before_any_file_is_read(size, error):
    with pytest.raises(error, match=r"load_images: a size of .* required, got [\d(]"):
        load_images(["nowhere.png"], size)


def test_workers_below_one_are_refused():
    with pytest.raises(ValueError, match="load_images: at least one worker required, got 0"):
        load_images(["nowhere.png"], 4, workers=0)


# Masks


def _one(tmp_path: Path, mask_name: str, mask, height=6, width=8, **options) -> ImageSet:
    """Write one defective image and its mask."""
    image = _write(tmp_path / "image.png", _noise(height, width))
    if isinstance(mask, Image.Image):
        mask.save(tmp_path / mask_name, **options)
    else:
        _write(tmp_path / mask_name, mask, **options)
    return ImageSet((image,), ("crack",), (tmp_path / mask_name,))


def test_masks_keep_original_sizes_and_good_images_are_all_false(tmp_path):
    images = find_test_images(_mvtec(tmp_path))
    _write(images.paths[2], _noise(20, 5))
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
    with pytest.raises(ValueError, match=r"load_masks: .* required, .*mask\.png is 8×6, .*image\.png is 6×8"):
        load_masks(images)


def test_masks_need_labels_masks_and_one_size_each(tmp_path):
    path = _write(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a kind for every image required, got none for .*a\.png"):
        load_masks(ImageSet((path,), (None,), (None,)))
    with pytest.raises(
        ValueError, match=r"load_masks: a mask for every defective image required, got none for .*a\.png"
    ):
        load_masks(ImageSet((path,), ("crack",), (None,)))
    with pytest.raises(ValueError, match="load_masks: one size per image required, got 2 for 1 images"):
        load_masks(ImageSet((path,), ("good",), (None,)), [(4, 4), (4, 4)])


def test_broken_mask_is_named(tmp_path):
    images = _one(tmp_path, "mask.png", np.zeros((6, 8), np.uint8))
    (tmp_path / "mask.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"got .*mask\.png: a file of another format or broken from the start \(0 bytes"
    ):
        load_masks(images)


# Crops


def _coordinates(batch, height, width):
    """Give images whose channels tell image, row and column, (B, 3, H, W)."""
    grid = torch.meshgrid(torch.arange(batch), torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid, dim=1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(5, 3), 4, (9, 2), (1, 11), (9, 11)])
def test_each_crop_is_a_slice_of_its_own_image(memory_format, size):
    images = _coordinates(6, 9, 11).contiguous(memory_format=memory_format)
    crops = random_crops(images, size, generator=torch.Generator().manual_seed(0))
    height, width = (size, size) if isinstance(size, int) else size
    assert crops.shape == (6, 3, height, width)
    for i, crop in enumerate(crops):
        top, left = int(crop[1, 0, 0]), int(crop[2, 0, 0])
        assert torch.equal(crop, images[i, :, top : top + height, left : left + width])
    assert crops.is_contiguous(memory_format=memory_format)


def test_crops_reach_every_place_about_equally_often():
    images = _coordinates(1, 5, 8).expand(7000, -1, -1, -1)
    crops = random_crops(images, (3, 2), generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(crops[:, 1, 0, 0] * 7 + crops[:, 2, 0, 0])  # 3 × 7 places, 333 each
    assert len(counts) == 21
    assert counts.min() > 260
    assert counts.max() < 410


def test_crops_at_the_ends_of_the_draw_stay_inside(monkeypatch):
    images = _coordinates(2, 9, 4099)
    ends = torch.tensor([[0.0, 0.0], [1 - 2**-24, 1 - 2**-24]])
    monkeypatch.setattr(functional, "uniform", lambda *_: ends)
    crops = random_crops(images, (2, 4))
    assert crops[0, 1:, 0, 0].tolist() == [0, 0]
    assert crops[1, 1:, -1, -1].tolist() == [8, 4098]


def test_crops_take_one_draw_a_batch_and_the_seed_fixes_them():
    images = _coordinates(6, 9, 11).to(torch.uint8)
    generator = torch.Generator().manual_seed(0)
    first = random_crops(images, 4, generator=generator)
    other = torch.Generator().manual_seed(0)
    torch.rand(6, 2, generator=other)
    assert torch.equal(generator.get_state(), other.get_state())
    assert first.dtype == torch.uint8
    assert torch.equal(first, random_crops(images, 4, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(first, random_crops(images, 4, generator=generator))


def test_crops_of_an_empty_batch_are_empty_and_images_stay_as_they_are():
    assert random_crops(torch.zeros(0, 3, 4, 4), 2).shape == (0, 3, 2, 2)
    images = _coordinates(2, 4, 4)
    random_crops(images, 4).zero_()
    assert torch.equal(images, _coordinates(2, 4, 4))


def test_crops_larger_than_the_images_are_refused():
    with pytest.raises(ValueError, match="a crop of at least 1×1 and at most the image required, got 4×6 from 5×5"):
        random_crops(torch.zeros(2, 3, 5, 5), (4, 6))
    with pytest.raises(ValueError, match=r"random_crops: images \(B, C, H, W\) required, got \(3, 5, 5\)"):
        random_crops(torch.zeros(3, 5, 5), 2)
    with pytest.raises(ValueError, match="at least 1×1 and at most the image required, got 0×0"):
        random_crops(torch.zeros(2, 3, 5, 5), 0)
    with pytest.raises(TypeError, match=r"random_crops: a size of .* required, got 2\.5"):
        random_crops(torch.zeros(2, 3, 5, 5), 2.5)
