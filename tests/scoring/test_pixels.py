"""Pixels gathered image by image give the figures of all pixels at once."""

import numpy as np
import pytest
import torch

from fastcutpaste.scoring import pixels as pixels_module
from fastcutpaste.scoring.metrics import pixel_auroc, pixel_roc_curve, pro_auc, pro_curve
from fastcutpaste.scoring.pixels import PixelScores


def draw(seed, ties=False, count=6, side=40, spread=1.0, offset=0.0):
    """Draw maps of unequal sizes and masks with none to several regions."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(count):
        mask = np.zeros((side + i, side + 2 * i), bool)
        for _ in range(i % 3):
            y, x = rng.integers(0, side - 9, 2)
            mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = True
        values = rng.standard_normal(mask.shape) + mask * 1.5
        maps.append(torch.tensor((np.round(values * 4) / 4 if ties else values) * spread + offset, dtype=torch.float32))
        masks.append(torch.from_numpy(mask))
    return maps, masks


def gathered(maps, masks, most=1 << 20):
    pixels = PixelScores(most)
    for one, mask in zip(maps, masks, strict=True):
        pixels.add(one, mask)
    return pixels


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_an_image_in_bands_counts_as_the_whole(rows, monkeypatch):
    maps, masks = draw(5)
    whole = gathered(maps, masks)
    monkeypatch.setattr(pixels_module, "_WAITING", 300)
    bands = gathered([torch.split(one, rows) for one in maps], masks)
    assert bands.auroc() == pytest.approx(whole.auroc(), abs=1e-12)
    assert bands.pro_auc() == pytest.approx(whole.pro_auc(), abs=1e-12)


@pytest.mark.parametrize("waiting", [1, 5000, 1 << 22])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_few_pixels_are_measured_exactly(seed, ties, waiting, monkeypatch):
    monkeypatch.setattr(pixels_module, "_WAITING", waiting)
    maps, masks = draw(seed, ties)
    pixels = gathered(maps, masks)
    assert pixels.auroc() == pytest.approx(pixel_auroc(maps, masks), abs=1e-12)
    for end in (0.01, 0.3, 1.0):
        assert pixels.pro_auc(end) == pytest.approx(pro_auc(maps, masks, end), abs=1e-12)
    for (x, y), (exact_x, exact_y) in (
        (pixels.roc_curve(), pixel_roc_curve(maps, masks)), (pixels.pro_curve(), pro_curve(maps, masks))
    ):  # fmt: skip
        assert set(zip(exact_x.round(9), exact_y.round(9), strict=True)) <= set(
            zip(x.round(9), y.round(9), strict=True)
        )


# Scores near each other and far from 0, of both signs, over many orders of size, all of one defect kind first
@pytest.mark.parametrize(("spread", "offset"), [(1, 0), (1, 1000), (1e-3, 40), (1e6, -3), (5, -2000)])
@pytest.mark.parametrize("order", [1, -1])
def test_many_pixels_are_measured_to_a_ten_thousandth(spread, offset, order, monkeypatch):
    monkeypatch.setattr(pixels_module, "_WAITING", 100_000)
    maps, masks = draw(4, count=12, side=300, spread=spread, offset=offset)
    pixels = gathered(maps[::order], masks[::order], most=1 << 14)  # a million pixels
    assert pixels.auroc() == pytest.approx(pixel_auroc(maps, masks), abs=1e-4)
    for end in (0.05, 0.3, 1.0):
        assert pixels.pro_auc(end) == pytest.approx(pro_auc(maps, masks, end), abs=1e-4)
    assert len(pixels._keys) <= 1 << 14


def test_scores_of_many_orders_of_size_are_measured_to_a_ten_thousandth(monkeypatch):
    monkeypatch.setattr(pixels_module, "_WAITING", 100_000)
    maps, masks = draw(5, count=12, side=300)
    maps = [torch.exp(8 * one) for one in maps]
    pixels = gathered(maps, masks, most=1 << 14)
    assert pixels.auroc() == pytest.approx(pixel_auroc(maps, masks), abs=1e-4)
    assert pixels.pro_auc() == pytest.approx(pro_auc(maps, masks), abs=1e-4)


@pytest.mark.parametrize("most", [100, 1 << 20])
def test_what_two_have_gathered_is_what_one_would(most):
    maps, masks = draw(6, side=60)
    one, other = gathered(maps[:1], masks[:1], most), gathered(maps[1:], masks[1:], most)
    together = gathered(maps, masks, most)
    one.join(other)
    tolerance = 1e-12 if most > 1000 else 2e-2
    assert one.auroc() == pytest.approx(together.auroc(), abs=tolerance)
    assert one.pro_auc() == pytest.approx(together.pro_auc(), abs=tolerance)


def test_zeros_of_either_sign_are_the_same():
    pixels = gathered([torch.tensor([[0.0, -0.0]])], [torch.tensor([[True, False]])])
    assert pixels.auroc() == 0.5


def test_what_cannot_be_measured_is_refused():
    pixels = PixelScores()
    assert not pixels.both
    with pytest.raises(ValueError, match=r"one shape \(H, W\) required, got \(2, 3\) and \(3, 2\)"):
        pixels.add(torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="finite scores required"):
        pixels.add(torch.full((1, 1), torch.nan), torch.ones(1, 1, dtype=torch.bool))
    pixels.add(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    assert not pixels.both
    with pytest.raises(ValueError, match="both defect and defect-free pixels required"):
        pixels.auroc()
