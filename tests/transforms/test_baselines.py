"""Confetti, and patches cut from another image of the batch; the other baselines are in test_transforms."""

import pytest
import torch

from fastcutpaste import Confetti, CutPaste, CutPasteScar, PretextTask


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
