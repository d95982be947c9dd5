"""Masks: what was drawn, however it is stored; or an error that says what was seen."""

import numpy as np
import pytest
import torch
from pictures import draw_noise, write_picture
from PIL import Image

from fastcutpaste.images.folders import ImageSet, load_masks
from fastcutpaste.images.masks import read_mask

SHAPE = np.zeros((12, 16), bool)
SHAPE[2:7, 3:11] = True


def _layers(*layers):
    return np.stack([np.broadcast_to(layer, SHAPE.shape) for layer in layers], -1).astype(np.uint8)


def _palette(colors, indices):
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([value for color in colors for value in color])
    return image


TWO = SHAPE * np.where(np.arange(16) < 6, 1, 2)  # two classes
MASKS = {
    "white with an alpha shape": _layers(255, 255, 255, 255 * SHAPE),
    "a red brush on transparency": _layers(200 * SHAPE, 0, 0, 255 * SHAPE),
    "a black brush on transparency": _layers(0, 0, 0, 255 * SHAPE),
    "a soft brush": _layers(255, 255, 255, np.where(SHAPE, 255, 40)),
    "white on opaque black, with alpha": _layers(255 * SHAPE, 255 * SHAPE, 255 * SHAPE, 255),
    "grey with alpha": np.stack([255 + 0 * SHAPE, 255 * SHAPE], -1).astype(np.uint8),
    "dark blue on black": _layers(0, 0, 90 * SHAPE),
    "red and dark green on black": _layers(128 * (TWO == 1), 100 * (TWO == 2), 0),
    "value 1": SHAPE.astype(np.uint8),
    "classes 1 and 2": TWO.astype(np.uint8),
    "16 bits, 255": (255 * SHAPE).astype(np.uint16),
    "palette of classes": _palette([(0, 0, 0), (128, 0, 0), (0, 64, 0)], TWO),
    "palette, background last": _palette([(255, 255, 255), (0, 0, 0)], ~SHAPE),
    "palette of one color": _palette([(0, 0, 0), (0, 0, 0)], SHAPE),
    "palette, dark": _palette([(0, 0, 0), (1, 1, 1)], SHAPE),
    "float": SHAPE.astype(np.float32),
}


@pytest.mark.parametrize("name", MASKS)
def test_what_was_drawn_is_read(tmp_path, name):
    mask = MASKS[name]
    path = tmp_path / ("mask.tif" if name == "float" else "mask.png")
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
    assert np.array_equal(read_mask(path), SHAPE)


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (_layers(255 * (TWO == 1), 0, 0, 255 * SHAPE), r"79\.2% transparent, 13\.0% black and 7\.8% in other colors"),
        (_layers(np.where(SHAPE, 255, 0), 0, np.where(SHAPE, 0, 255)), r"no black pixel, but \(0, 0, 255\) on 79\.2%"),
        (_layers(255 * SHAPE, 0, 0, 0), "all pixels transparent, in several colors"),
        (np.where(SHAPE, 2, 1).astype(np.uint8), "no black pixel, but grey values 1 to 2, none above half"),
        (np.where(TWO == 2, 255, TWO).astype(np.uint8), "grey values 0, 1, 255: 1 could be a defect, and 255 what is"),
        (
            _palette([(250, 0, 0), (0, 0, 250)], SHAPE),
            r"no black pixel, but \(250, 0, 0\) on 79\.2%, ",
        ),
    ],
)
def test_what_cannot_be_known_is_refused_with_what_was_seen(tmp_path, mask, seen):
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=rf"mask\.png: a mask with the defect in white, .* required, got {seen}"):
        read_mask(tmp_path / "mask.png")


def test_a_dark_jpeg_is_refused(tmp_path):
    path = write_picture(tmp_path / "mask.jpg", (90 * SHAPE).astype(np.uint8), quality=95)
    with pytest.raises(ValueError, match="got a JPEG of grey values up to"):
        read_mask(path)


@pytest.mark.parametrize("scale", [2, 3])
def test_a_mask_of_another_size_is_resized_to_the_nearest_if_the_aspect_is_the_same(tmp_path, scale):
    large = np.kron(SHAPE, np.ones((scale, scale), bool))
    for mask, image in ((SHAPE, large), (large, SHAPE)):
        path = write_picture(tmp_path / "x.png", draw_noise(*image.shape))
        images = ImageSet((path,), ("hole",), (write_picture(tmp_path / "m.png", 255 * mask.astype(np.uint8)),))
        with pytest.warns(UserWarning, match=r"1 masks of another size than .* resized .* \(one of them: .*m\.png is"):
            assert torch.equal(load_masks(images)[0], torch.from_numpy(image))


@pytest.mark.parametrize("size", [(12, 15), (13, 16), (16, 12), (24, 30)])
def test_a_mask_of_another_aspect_is_refused(tmp_path, size):
    path = write_picture(tmp_path / "x.png", draw_noise(12, 16))
    images = ImageSet((path,), ("hole",), (write_picture(tmp_path / "m.png", np.zeros(size, np.uint8)),))
    with pytest.raises(
        ValueError, match=rf"m\.png: a mask of its image\'s .*m\.png is {size[0]}×{size[1]}, .*x\.png is 12×16"
    ):
        load_masks(images)
