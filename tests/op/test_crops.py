"""Random crops: slices of their own images, from everywhere alike."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fastcutpaste.op import paste as paste_module
from fastcutpaste.op.paste import random_crops, translate


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
    monkeypatch.setattr(paste_module, "uniform", lambda *_: ends)
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


def mirrored(image, down, right):
    """Shift one (C, H, W) array by whole pixels through NumPy's symmetric padding."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (height, height), (width, width)), mode="symmetric")
    return padded[:, height - down : 2 * height - down, width - right : 2 * width - right]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width"), [(9, 14), (14, 9), (1, 6), (1, 1)])
def test_translate_shifts_and_mirrors_like_symmetric_padding(dtype, height, width):
    images = torch.randint(0, 256, (40, 2, height, width), generator=torch.Generator().manual_seed(0)).to(dtype)
    shift = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    shift[0], shift[1] = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 0.0])
    shifted = translate(images, shift)
    assert shifted.dtype == dtype
    for image, result, (y, x) in zip(images, shifted, shift, strict=True):
        down, right = round(y.item() * height), round(x.item() * width)
        assert np.array_equal(result.numpy(), mirrored(image.numpy(), down, right))


def test_a_positive_shift_goes_down_and_right():
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 1, 1] = 1
    assert translate(image, torch.tensor([[0.25, 0.5]]))[0, 0, 2, 3] == 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_translate_keeps_the_memory_format_and_its_input(memory_format):
    images = torch.rand(3, 3, 8, 9).contiguous(memory_format=memory_format)
    before = images.clone()
    shifted = translate(images, torch.full((3, 2), 0.3))
    assert shifted.stride() == images.stride()
    assert_close(shifted, translate(before.contiguous(), torch.full((3, 2), 0.3)), atol=0, rtol=0)
    shifted.zero_()
    assert torch.equal(images, before)
    assert translate(images[:0], torch.zeros(0, 2)).shape == (0, 3, 8, 9)
