"""Confetti, and patches cut from another image of the batch; the other baselines are in test_transforms."""

import numpy as np
import pytest
import torch
from small_patches import random_images, seeded
from torch.testing import assert_close

from fastcutpaste import Confetti, Cutout, CutPaste, CutPasteScar, PretextTask, QuarterTurn, Scar
from fastcutpaste.transforms.baselines import plain_color


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(4, 3, 40, 64), (2, 1, 64, 40)])
def test_confetti_changes_only_what_its_mask_holds(dtype, shape):
    images = torch.full(shape, 100).to(dtype) if dtype == torch.uint8 else torch.full(shape, 0.4)
    before = images.clone()
    strewn, mask = Confetti(density=0.01).augment(images, torch.Generator().manual_seed(0))
    assert torch.equal(images, before)
    assert strewn.dtype == dtype
    changed = (strewn != images).any(1, keepdim=True)
    assert not (changed & ~mask).any()
    assert changed.sum() > 0.9 * mask.sum()
    assert 0.01 < mask.float().mean() < 0.2


@pytest.mark.parametrize("side", [1, 3, 5])
def test_confetti_squares_are_at_most_as_wide_as_asked_and_of_one_color(side):
    images = torch.zeros(400, 3, 33, 33, dtype=torch.uint8)
    strewn, mask = Confetti(density=0.0004, side=side).augment(images, torch.Generator().manual_seed(1))
    widths = set()
    for image, one in zip(strewn, mask[:, 0], strict=True):
        rows, columns = one.any(1).nonzero(), one.any(0).nonzero()
        if not len(rows):
            continue
        height, width = (int(found.max() - found.min()) + 1 for found in (rows, columns))
        inside = image[:, one]
        if height == width and int(one.sum()) == height * width and (inside == inside[:, :1]).all():
            widths.add(height)  # a square by itself; others overlap or are cut by the border
    assert widths == set(range(1, side + 1))


def test_confetti_repeats_by_seed_and_can_be_a_task():
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    task = PretextTask(Confetti(density=0.01))
    first, second = (task.augment(images, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert first.images.is_contiguous(memory_format=torch.channels_last)
    assert not first.masks[:3].any()
    assert first.masks[3:].any()


def test_confetti_settings_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match=r"density from 0 to 1 required, got 1\.5"):
        Confetti(density=1.5)
    with pytest.raises(ValueError, match="side of at least 1 pixel required, got 0"):
        Confetti(side=0)


@pytest.mark.parametrize("make", [CutPaste, CutPasteScar])
def test_source_other_takes_the_pixels_of_the_neighbour_in_the_batch(make):
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 64, 48) * 50
    pasted, mask = make(jitter=0.0, source="other").augment(images.contiguous(), torch.Generator().manual_seed(0))
    for i in range(5):
        assert (pasted[i][mask[i].expand(3, -1, -1)] == (i - 1) % 5 * 50).all()
        assert (pasted[i][~mask[i].expand(3, -1, -1)] == i * 50).all()
    with pytest.raises(ValueError, match="source: 'same' or 'other' required, got 'batch'"):
        make(source="batch")


@pytest.mark.parametrize("kind", [Cutout, Scar])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_holds_exactly_one_color(kind, dtype, channels):
    images = random_images((12, channels, 64, 70), dtype)
    for color in ("black", "mean", "random"):
        result = kind(color).augment(images, seeded())
        for b in range(12):
            pixels = result.images[b].permute(1, 2, 0)[result.mask[b, 0]]  # (pixels, C)
            assert (pixels == pixels[0]).all()
            if color == "black":
                assert (pixels == 0).all()
            if color == "mean":
                mean = images[b].double().mean((-2, -1))
                mean = mean.round() if dtype == torch.uint8 else mean
                tolerance = {torch.uint8: 0, torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype]
                assert_close(pixels[0].double(), mean, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_random_colors_fill_the_color_cube(dtype):
    colors = plain_color(torch.empty(6000, 3, 2, 2, dtype=dtype), "random", torch.rand(6000, 5, generator=seeded()))
    assert colors.shape == (6000, 3, 1, 1)
    assert colors.dtype == dtype
    top = 255 if dtype == torch.uint8 else 1
    unit = colors.flatten(1).double() / top
    assert unit.min() < 0.01
    assert 0.99 < unit.max() <= 1
    assert_close(unit.mean(0), torch.full((3,), 0.5, dtype=torch.float64), atol=0.02, rtol=0)
    assert_close(unit.var(0), torch.full((3,), 1 / 12, dtype=torch.float64), atol=0.004, rtol=0)
    assert (torch.corrcoef(unit.T) - torch.eye(3)).abs().max() < 0.06
    if dtype == torch.uint8:
        assert len(colors.unique()) == 256


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_quarter_turn_equals_numpy(turns, dtype):
    images = random_images((3, 3, 8, 8), dtype)
    result = QuarterTurn(turns).augment(images)
    assert np.array_equal(result.images.numpy(), np.rot90(images.numpy(), turns, (2, 3)))
    assert result.mask.shape == (3, 1, 8, 8)
    assert result.mask.dtype == torch.bool
    assert result.mask.all()


def test_four_quarter_turns_are_none():
    images, turn = random_images((3, 3, 8, 8)), QuarterTurn(1)
    assert torch.equal(turn(turn(turn(turn(images)))), images)
    assert torch.equal(turn(turn(images)), QuarterTurn(2)(images))


def test_quarter_turn_refuses_oblong_images():
    with pytest.raises(ValueError, match=r"QuarterTurn: square images required, got 8×9"):
        QuarterTurn(1)(torch.zeros(2, 3, 8, 9))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_confetti_strewn_square_by_square_is_that_of_all_pixels(dtype, monkeypatch):
    images, confetti = random_images((3, 3, 40, 33), dtype), Confetti(density=0.02, side=5)
    few = confetti.augment(images, seeded(3))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    every = confetti.augment(images, seeded(3))
    assert torch.equal(few.mask, every.mask)
    assert torch.equal(few.images, every.images)
