"""Decoding: whatever a file holds comes out as uint8 RGB, what is lost is said, and what is broken is named."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from deep_pictures import write_tiff
from pictures import draw_noise, draw_waves, write_picture
from PIL import Image

from fastcutpaste.images.decode import load_images, peek, read_image

pytestmark = pytest.mark.filterwarnings("error")  # whatever a test does not expect


# Reading one image


def _same(path: Path, expected: np.ndarray) -> bool:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.array_equal(np.asarray(image), expected)


def test_grey_palette_and_one_bit_images_become_rgb(tmp_path):
    grey = draw_noise(channels=1)
    assert _same(write_picture(tmp_path / "grey.png", grey), np.stack([grey] * 3, -1))
    two = Image.fromarray(grey).convert("1")
    two.save(tmp_path / "two.png")
    assert _same(tmp_path / "two.png", np.stack([255 * np.asarray(two).astype(np.uint8)] * 3, -1))
    palette = Image.fromarray(draw_noise()).quantize(7)
    palette.save(tmp_path / "palette.png")
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    assert _same(tmp_path / "palette.png", colours[np.asarray(palette)])


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_high_byte_and_says_so(tmp_path, extension):
    deep = np.random.default_rng(0).integers(0, 65536, (6, 8), dtype=np.uint16)
    path = write_picture(tmp_path / f"deep.{extension}", deep)
    with pytest.warns(UserWarning, match=r"^1 of 1 images had 12 or 16 bits a channel, reduced to 8 .first:"):
        assert _same(path, np.stack([deep // 256] * 3, -1))


def test_twelve_bit_grey_is_scaled_from_twelve(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (6, 8), dtype=np.uint16)
    with pytest.warns(UserWarning, match="had 12 or 16 bits"):
        assert _same(write_tiff(tmp_path / "deep.tif", deep, 12, 1), np.stack([deep // 16] * 3, -1))


def test_sixteen_bit_colour_is_noticed_though_pillow_hides_it(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (6, 8, 3), dtype=np.uint16)
    with pytest.warns(UserWarning, match="had 12 or 16 bits"):
        assert _same(write_tiff(tmp_path / "deep.tif", deep, 16, 3), deep // 256)


def test_channels_without_a_known_range_are_refused(tmp_path):
    path = write_picture(tmp_path / "a.tif", np.ones((4, 4), np.int32))
    with pytest.raises(ValueError, match=r"a\.tif: .*got: its channels are neither 8 nor 16 bits"):
        read_image(path)


def test_floating_point_of_0_to_1_is_read_and_any_other_range_refused(tmp_path):
    values = np.random.default_rng(0).random((6, 8), dtype=np.float32)
    values[0, :3] = 0, 1, 0.5
    assert _same(write_picture(tmp_path / "a.tif", values), np.stack([np.rint(values * 255)] * 3, -1))
    for wrong, said in ((values * 255, "from 0 to 255"), (values - 0.5, "from -0.5 to 0.5"), (values * np.nan, "nan")):
        path = write_picture(tmp_path / "b.tif", wrong)
        with pytest.raises(
            ValueError, match=rf"b\.tif: .* its floating-point channel goes .*{said}.*, not from 0 to 1"
        ):
            read_image(path)


def test_webp_and_gif_are_read(tmp_path):
    pixels = draw_noise(20, 30)
    assert _same(write_picture(tmp_path / "a.webp", pixels, lossless=True), pixels)
    grey = draw_noise(20, 30, 1)
    assert _same(write_picture(tmp_path / "a.gif", grey), np.stack([grey] * 3, -1))
    assert peek(tmp_path / "a.webp")[0] == peek(tmp_path / "a.gif")[0] == (20, 30)


def test_more_pixels_than_allowed_are_refused_with_what_allows_them(tmp_path, monkeypatch):
    path = write_picture(tmp_path / "a.png", draw_noise(20, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.warns(Image.DecompressionBombWarning):
        read_image(write_picture(tmp_path / "b.png", draw_noise(20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    for read in (read_image, peek):
        with pytest.raises(
            ValueError, match=r"a\.png: .* 600 pixels, more than the 598 that are allowed; .*--most-pixels"
        ):
            read(path)


def test_sixteen_bits_with_sign_are_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.ones((4, 4), np.uint16), 16, 1, signed=True)
    with pytest.raises(ValueError, match=r"a\.tif: .*got: its channels are neither 8 nor 16 bits without sign"):
        read_image(path)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped_and_said_only_if_something_was_transparent(tmp_path, channels):
    pixels = draw_noise(channels=channels)
    colours = pixels[..., :3] if channels == 4 else np.repeat(pixels[..., :1], 3, axis=2)
    path = write_picture(tmp_path / "clear.png", pixels)
    with pytest.warns(UserWarning, match="1 of 1 images had transparent pixels, alpha dropped"):
        assert _same(path, colours)
    pixels[..., -1] = 255
    assert _same(write_picture(tmp_path / "solid.png", pixels), colours)


def test_transparent_palette_colours_are_said(tmp_path):
    image = Image.fromarray(draw_noise()).quantize(7)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    with pytest.warns(UserWarning, match="transparent pixels"):
        assert _same(tmp_path / "a.png", np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)])


def test_cmyk_is_converted_and_said(tmp_path):
    flat = np.full((16, 16, 4), (0, 255, 255, 0), np.uint8)  # no cyan, full magenta and yellow: red
    Image.frombytes("CMYK", (16, 16), flat.tobytes()).save(tmp_path / "a.jpg", quality=95)
    with pytest.warns(UserWarning, match="1 of 1 images were CMYK, converted without a colour profile"):
        pixels = np.asarray(read_image(tmp_path / "a.jpg")).astype(int)
    assert np.abs(pixels - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("extension", ["tif", "png", "webp"])
def test_first_of_several_pages_or_frames_is_used_and_said(tmp_path, extension):
    first, second = draw_noise(seed=1), draw_noise(seed=2)
    more = {"save_all": True, "append_images": [Image.fromarray(second)]} | (
        {"lossless": True} if extension == "webp" else {}
    )
    path = write_picture(tmp_path / f"a.{extension}", first, **more)
    with pytest.warns(UserWarning, match=r"had more than one page or frame, the first is used \(--pages"):
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
    stored = np.kron(draw_noise(3, 5), np.ones((8, 8, 1), np.uint8)) // 2 + 64
    flipped = stored[:, ::-1] if orientation in (2, 4, 5, 7) else stored
    expected = np.rot90(flipped, turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_picture(
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_peek_tells_the_upright_size_without_reading_the_pixels(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif", "a.jpg"):
        path = write_picture(tmp_path / name, draw_noise(20, 30), exif=exif)
        wanted = read_image(path)
        whole = path.read_bytes()
        if name != "a.tif":  # which has its head at the end
            path.write_bytes(whole[:-60])
        assert peek(path) == ((wanted.height, wanted.width), "RGB")
    assert peek(write_picture(tmp_path / "a.png", draw_noise(20, 30, 1))) == ((20, 30), "L")
    path.write_bytes(whole[:9])
    with pytest.raises(ValueError, match=r"a\.jpg: a whole BMP, GIF, JPEG, PNG, TIFF, WEBP image required, got: "):
        peek(path)


def test_content_counts_not_the_extension(tmp_path):
    Image.fromarray(draw_noise()).save(tmp_path / "a.jpg", format="PNG")
    assert _same(tmp_path / "a.jpg", draw_noise())


def _break(path: Path, how: str) -> Path:
    if how == "truncated":
        content = write_picture(path, draw_noise(64, 64)).read_bytes()
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
    paths = [write_picture(tmp_path / "a.png"), bad, *[write_picture(tmp_path / "b.png")] * 20]
    for read in (lambda: read_image(bad), lambda: load_images(paths, 8), lambda: load_images(paths, 8, workers=1)):
        with pytest.raises(
            ValueError, match=r"bad one\..*: a whole BMP, GIF, JPEG, PNG, TIFF, WEBP image required, got: "
        ):
            read()


def test_missing_image_and_other_formats_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: .*No such file"):
        read_image(tmp_path / "none.png")
    Image.fromarray(draw_noise()).save(tmp_path / "pcx.png", format="PCX")
    with pytest.raises(ValueError, match=r"pcx\.png: .* a file of another format or broken from the start \(\d+ bytes"):
        read_image(tmp_path / "pcx.png")


# Loading many


@pytest.mark.parametrize("workers", [None, 1, 5])
def test_loading_keeps_order_and_original_sizes(tmp_path, workers):
    sizes = [(6, 8), (30, 4), (3, 50), (64, 64), (1, 1)] * 4
    paths = [write_picture(tmp_path / f"{i}.png", draw_noise(*size, seed=i)) for i, size in enumerate(sizes)]
    pixels, came = load_images(paths, (10, 12), workers=workers)
    assert came == sizes
    assert (pixels.shape, pixels.dtype, pixels.is_contiguous()) == ((20, 3, 10, 12), torch.uint8, True)
    for i, path in enumerate(paths):
        expected = np.asarray(Image.open(path).resize((12, 10), Image.Resampling.BILINEAR))
        assert np.array_equal(pixels[i].permute(1, 2, 0).numpy(), expected)


def test_images_of_the_right_size_are_not_touched(tmp_path):
    paths = [write_picture(tmp_path / f"{i}.png", draw_noise(8, 8, channels=c, seed=i)) for i, c in enumerate((3, 1))]
    pixels = load_images([str(path) for path in paths], 8).pixels
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), draw_noise(8, 8))
    assert torch.equal(pixels[1], torch.from_numpy(draw_noise(8, 8, channels=1, seed=1)).expand(3, 8, 8))


def test_shrinking_averages_instead_of_picking(tmp_path):
    board = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    pixels = load_images([write_picture(tmp_path / "board.png", board)], 8).pixels
    assert (pixels.int() - 127).abs().max() <= 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_decoded_small_looks_like_one_decoded_whole(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_picture(tmp_path / "big.jpg", draw_waves(480, 960), quality=95, exif=exif)
    whole = read_image(path)
    size = (40, 30) if orientation == 6 else (30, 40)
    pixels, sizes = load_images([path], size)
    assert sizes == [(whole.height, whole.width)] == [(960, 480) if orientation == 6 else (480, 960)]
    expected = np.asarray(whole.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels[0].permute(1, 2, 0).numpy() - expected).max() <= 3


def test_large_jpeg_is_decoded_at_twice_the_size_or_more(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_picture(tmp_path / "wide.jpg", draw_waves(480, 960))
    turned = write_picture(tmp_path / "turned.jpg", draw_waves(480, 960), exif=exif)  # upright 960 × 480
    seen = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, *a, **k: seen.append(image.size) or resize(image, *a, **k))
    load_images([path], (60, 60))
    load_images([path], (200, 200))
    load_images([turned], (60, 200))
    load_images([turned], (200, 60))
    assert seen == [(240, 120), (960, 480), (480, 960), (240, 480)]  # (width, height)


def test_an_error_stops_the_load(tmp_path, monkeypatch):
    paths = [_break(tmp_path / "bad.png", "empty"), *[write_picture(tmp_path / "a.png")] * 2000]
    opened = []
    open_image = Image.open

    def open_slowly(*arguments, **options):
        opened.append(arguments)
        time.sleep(0.01)
        return open_image(*arguments, **options)

    monkeypatch.setattr(Image, "open", open_slowly)
    with pytest.raises(ValueError, match=r"bad\.png"):
        load_images(paths, 4, workers=2)
    assert len(opened) < 1000  # two threads take 5 s for them, and a busy machine some of that to stop them


def test_each_kind_of_loss_is_said_once_with_counts(tmp_path):
    deep = np.full((4, 4), 40960, np.uint16)
    clear = np.zeros((4, 4, 4), np.uint8)
    files = {"a": draw_noise(), "b": deep, "c": clear, "d": deep, "e": draw_noise(channels=1)}
    paths = [write_picture(tmp_path / f"{name}.png", pixels) for name, pixels in files.items()]
    with pytest.warns(UserWarning, match="images had") as caught:
        load_images(paths, 4)
    assert [str(w.message) for w in caught] == [
        f"2 of 5 images had 12 or 16 bits a channel, reduced to 8 (first: {paths[1]})",
        f"1 of 5 images had transparent pixels, alpha dropped (first: {paths[2]})",
    ]
    assert {w.filename for w in caught} == {__file__}


def test_no_images_give_an_empty_tensor():
    assert load_images([], 8).pixels.shape == (0, 3, 8, 8)


def test_progress_bar_goes_to_stderr(tmp_path, capsys):
    paths = [write_picture(tmp_path / "a.png")] * 3
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
