"""Depth: a camera's 10, 12 or 14 bits in files of 16 keep what they tell, by one scale for all images."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import SMALL, run
from deep_pictures import write_deep_png, write_tiff
from pictures import draw_noise, write_picture
from PIL import Image

from fastcutpaste.images.batches import ImageFiles
from fastcutpaste.images.decode import find_bits, load_images, read_image
from fastcutpaste.scoring.detector import Detector

pytestmark = pytest.mark.filterwarnings("error")  # whatever a test does not expect


def draw_deep(bits: int, channels: int = 1, seed: int = 0, low: int = 0) -> np.ndarray:
    shape = (6, 8) if channels == 1 else (6, 8, channels)
    return np.random.default_rng(seed).integers(low, 1 << bits, shape, dtype=np.uint16)


def write_any(path: Path, pixels: np.ndarray) -> Path:
    """Write uint16 (H, W) or (H, W, 3) as the extension says."""
    if path.suffix == ".png" and pixels.ndim == 3:
        return write_deep_png(path, pixels)
    return write_picture(path, pixels) if path.suffix == ".png" else write_tiff(path, pixels, 16, pixels.ndim * 2 - 3)


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_highest_eight_of_the_given_bits_are_kept(tmp_path: Path, bits: int, channels: int, extension: str) -> None:
    deep = draw_deep(bits, channels)
    deep[0, 0] = (1 << bits) - 1
    path = write_any(tmp_path / f"a.{extension}", deep)
    assert find_bits([path]) == bits
    expected = deep >> (bits - 8)
    expected = expected if channels == 3 else np.stack([expected] * 3, -1)
    assert np.array_equal(np.asarray(read_image(path, bits)), expected)
    assert np.array_equal(load_images([path], (6, 8), bits=bits).pixels[0].permute(1, 2, 0).numpy(), expected)
    assert torch.equal(ImageFiles([path], (6, 8), bits)[0], load_images([path], (6, 8), bits=bits).pixels[0])


@pytest.mark.parametrize(
    ("brightest", "bits"),
    [
        (0, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (1024, 12),
        (4095, 12),
        (4096, 14),
        (16383, 14),
        (16384, 16),
        (65535, 16),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_bits_come_from_the_brightest_value_of_all_images(
    tmp_path: Path, brightest: int, bits: int, channels: int
) -> None:
    lot = [np.full((4, 4, 3)[: 1 + channels // 2 + 1], value, np.uint16) for value in (0, brightest, brightest // 2)]
    paths = [write_any(tmp_path / f"{i}.png", pixels) for i, pixels in enumerate(lot)]
    assert find_bits([write_picture(tmp_path / "8.png"), *paths]) == bits


def test_images_of_eight_bits_have_no_depth_to_find_and_look_the_same_whatever_is_given(tmp_path: Path) -> None:
    paths = [write_picture(tmp_path / name) for name in ("a.png", "b.jpg", "c.bmp", "d.tif")]
    assert find_bits(paths) is None
    assert find_bits([]) is None
    assert torch.equal(load_images(paths, 8, bits=12).pixels, load_images(paths, 8).pixels)


def test_a_file_of_twelve_bits_has_twelve_whatever_its_values(tmp_path: Path) -> None:
    deep = draw_deep(9)
    path = write_tiff(tmp_path / "a.tif", deep, 12, 1)
    assert find_bits([path]) == 12
    assert np.array_equal(np.asarray(read_image(path, 12))[..., 0], deep >> 4)
    assert np.array_equal(np.asarray(read_image(path, 16))[..., 0], deep >> 4)


def test_values_above_the_given_bits_become_white_and_are_said(tmp_path: Path) -> None:
    for channels in (1, 3):
        deep = draw_deep(12, channels, low=100)
        path = write_any(tmp_path / f"{channels}.png", deep)
        with pytest.warns(
            UserWarning, match="1 of 1 images had values above the highest of the bits given, made white"
        ):
            pixels = np.asarray(read_image(path, 10))
        assert np.array_equal(pixels, np.minimum(deep.reshape(6, 8, -1) >> 2, 255).repeat(3 // channels, -1))


def test_sixteen_bits_that_are_hardly_used_are_said_where_no_bits_were_given(tmp_path: Path) -> None:
    for channels in (1, 3):
        path = write_any(tmp_path / f"{channels}.png", draw_deep(12, channels))
        with pytest.warns(UserWarning, match="1 of 1 images had 16 bits a channel but used a quarter at most"):
            load_images([path], 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_deep_color_is_turned_upright_as_all_else(tmp_path: Path, orientation: int, extension: str) -> None:
    deep = draw_deep(12, 3)
    flat = write_picture(tmp_path / "flat.jpg", (deep >> 4).astype(np.uint8), exif=_turned(orientation), quality=100)
    path = tmp_path / f"deep.{extension}"
    if extension == "png":
        write_deep_png(path, deep, _turned(orientation).tobytes())
    else:
        write_tiff(path, deep, 16, 3, more={274: orientation})
    wanted, got = (np.asarray(read_image(one, 12)).astype(int) for one in (flat, path))
    assert got.shape == wanted.shape
    upright = np.asarray(_apply(Image.fromarray((deep >> 4).astype(np.uint8)), orientation))
    assert np.array_equal(got, upright)


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _apply(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image by the table of the EXIF standard."""
    ways = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
            7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
    return image if orientation == 1 else image.transpose(Image.Transpose[ways[orientation]])


@pytest.mark.parametrize("bits", [7, 17])
def test_bits_out_of_bounds_are_refused(bits: int) -> None:
    for read in (lambda: read_image("none.png", bits), lambda: load_images(["none.png"], 4, bits=bits)):
        with pytest.raises(ValueError, match=f"bits from 8 to 16 required, got {bits}"):
            read()


def write_lots(root: Path) -> tuple[Path, Path]:
    """Write a category of 12 bits in files of 16, and the same in 8."""
    for place, count in (("train/good", 6), ("test/good", 2), ("test/hole", 2)):
        for i in range(count):
            pixels = draw_noise(48, 64, 1, seed=i + len(place))
            low = draw_noise(48, 64, 1, seed=99 + i) // 16
            write_picture(root / f"eight/{place}/{i}.png", pixels)
            write_picture(root / f"twelve/{place}/{i}.png", pixels.astype(np.uint16) * 16 + low)
    return root / "twelve", root / "eight"


@pytest.mark.parametrize("read", ["resident", "stream"])
def test_twelve_bits_train_and_score_as_the_same_images_of_eight(tmp_path: Path, read: str) -> None:
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch
        for data, bits in zip(write_lots(tmp_path), (12, None), strict=True):
            _, text = run("train", data, "--out", data / "run", "--device", "cpu", "--read", read, *SMALL)
            assert ("hold values of 12 bits, 0 to 4095" in text) == (bits == 12)
            detector = Detector.load(data / "run/detector.safetensors")
            assert detector.config.bits == bits
            assert detector.provenance["facts"]["settings"]["scoring"]["bits"] == bits
            results, _ = run("evaluate", data / "run", data, "--device", "cpu")
            one, text = run("predict", data / "run", data / "test/hole/0.png", "--device", "cpu", "--heatmaps",
                            data / "m", "--report", data / "r.html")  # fmt: skip
            assert "bits given" not in text
            run("calibrate", data / "run", data / "test/good", "--device", "cpu")
            after = Detector.load(data / "run/detector.safetensors").threshold
            scores.append((results["threshold"], results["image_auroc"], one["results"][0]["score"], after))
    assert scores[0] == scores[1]


def test_bits_asked_for_are_kept_and_what_is_there_is_said(tmp_path: Path) -> None:
    data, _ = write_lots(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, text = run("train", data, "--out", data / "run", "--device", "cpu", "--bits", "14", *SMALL)
    assert "hold values of 14 bits, 0 to 16383, where 12 are there" in text
    assert Detector.load(data / "run/detector.safetensors").config.bits == 14
