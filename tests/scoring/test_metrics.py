"""Metrics against pair counting, scikit-learn, and loops over every threshold."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from sklearn.metrics import roc_auc_score

from fastcutpaste.scoring.metrics import (
    conformal_rank,
    image_auroc,
    pixel_auroc,
    pixel_roc_curve,
    pro_auc,
    pro_curve,
    roc_curve,
    threshold_at_fpr,
)

Arrays = list[NDArray[Any]]


def draw_scores(count: int, seed: int, ties: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.3
    labels[:2] = [True, False]
    scores = rng.standard_normal(count) + labels
    return (np.round(scores * 2) if ties else scores), labels


def draw_maps(seed: int, ties: bool) -> tuple[Arrays, Arrays]:
    """Draw maps of unequal sizes: two regions, none, regions that touch at corners, one at the border."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros(shape, dtype=bool) for shape in [(9, 13), (8, 8), (7, 10), (12, 6)]]
    masks[0][1:4, 2:7] = True
    masks[0][6:8, 9:13] = True
    masks[2][[1, 2, 3, 5], [4, 5, 4, 8]] = True  # three that touch at corners only, and one apart
    masks[3][8:, :3] = True
    maps = [rng.standard_normal(mask.shape) + mask for mask in masks]
    return [np.round(values * 2) / 2 for values in maps] if ties else maps, masks


def count_pairs(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    won = [float(a > n) + 0.5 * float(a == n) for a in scores[labels] for n in scores[~labels]]
    return sum(won) / len(won)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_image_auroc_is_the_share_of_pairs_in_order(seed: int, ties: bool) -> None:
    scores, labels = draw_scores(60, seed, ties)
    assert image_auroc(scores, labels) == pytest.approx(count_pairs(scores, labels), abs=1e-12)
    assert image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_image_auroc_of_clear_cases() -> None:
    labels = [False, False, True, True]
    assert image_auroc([0.0, 1.0, 2.0, 3.0], labels) == 1.0
    assert image_auroc([3.0, 2.0, 1.0, 0.0], labels) == 0.0
    assert image_auroc([5.0, 5.0, 5.0, 5.0], labels) == 0.5
    assert image_auroc([0.0, 2.0, 1.0, 3.0], labels) == 0.75


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_and_pro_stay_the_same_under_a_monotone_transform(ties: bool) -> None:
    scores, labels = draw_scores(80, 7, ties)
    assert image_auroc(np.exp(scores / 2), labels) == image_auroc(scores, labels)
    assert image_auroc(-scores, labels) == pytest.approx(1 - image_auroc(scores, labels), abs=1e-12)
    maps, masks = draw_maps(7, ties)
    for metric in (pixel_auroc, pro_auc):
        assert metric([np.exp(values / 2) for values in maps], masks) == metric(maps, masks)


def test_auroc_and_pro_stay_the_same_when_images_change_places() -> None:
    maps, masks = draw_maps(8, ties=True)
    for metric in (pixel_auroc, pro_auc):
        assert metric(maps[::-1], masks[::-1]) == pytest.approx(metric(maps, masks), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_curve_has_every_threshold_on_it_and_image_auroc_under_it(ties: bool) -> None:
    scores, labels = draw_scores(60, 3, ties)
    fpr, tpr = roc_curve(scores, labels)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    points = set(zip(np.round(fpr, 9), np.round(tpr, 9), strict=True))
    for threshold in scores[labels]:
        above = np.round((scores[~labels] > threshold).mean(), 9), np.round((scores[labels] > threshold).mean(), 9)
        assert above in points
    area = sum((b - a) * (c + d) / 2 for a, b, c, d in zip(fpr[:-1], fpr[1:], tpr[:-1], tpr[1:], strict=True))
    assert area == pytest.approx(image_auroc(scores, labels), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_auroc_pools_the_pixels_of_all_images(seed: int, ties: bool) -> None:
    maps, masks = draw_maps(seed, ties)
    scores, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def find_regions(mask: NDArray[Any]) -> list[list[tuple[int, int]]]:
    """Find the regions of a mask by flooding from each pixel to its eight neighbours."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        border, region = [left.pop()], []
        while border:
            y, x = border.pop()
            region.append((y, x))
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    border.append(near)
        regions.append(region)
    return regions


def pro_points(maps: Arrays, masks: Arrays) -> list[tuple[float, float]]:
    """Compute (false positive rate, overlap) for `score >= threshold` at every score there is, one region at a time."""
    regions = [
        [values[pixel] for pixel in region] for values, m in zip(maps, masks, strict=True) for region in find_regions(m)
    ]
    normal = np.concatenate([values[~mask] for values, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for values in maps for v in values.ravel()}, reverse=True):
        overlaps = [sum(v >= threshold for v in region) / len(region) for region in regions]
        points.append((float((normal >= threshold).mean()), float(np.mean(overlaps))))
    return points


def pro_area(points: list[tuple[float, float]], max_fpr: float) -> float:
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            x1, y1 = max_fpr, y0 + (max_fpr - x0) / (x1 - x0) * (y1 - y0)  # noqa: PLW2901
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


@pytest.mark.parametrize("max_fpr", [0.003, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pro_auc_equals_a_loop_over_every_threshold_and_region(seed: int, ties: bool, max_fpr: float) -> None:
    maps, masks = draw_maps(seed, ties)
    assert pro_auc(maps, masks, max_fpr) == pytest.approx(pro_area(pro_points(maps, masks), max_fpr), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_pro_curve_passes_through_every_threshold(ties: bool) -> None:
    maps, masks = draw_maps(5, ties)
    fpr, overlap = pro_curve(maps, masks)
    assert (fpr[0], overlap[0], fpr[-1], overlap[-1]) == (0, 0, 1, 1)
    points = set(zip(np.round(fpr, 9), np.round(overlap, 9), strict=True))
    corners = {(round(x, 9), round(y, 9)) for x, y in pro_points(maps, masks)}
    heights = {y: [x for x, other in corners if other == y] for _, y in corners}
    for y, places in heights.items():  # where only the false positive rate moves, the ends of the line are enough
        assert {(min(places), y)} <= points, y
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(overlap) >= 0).all()


def test_pro_weighs_a_small_region_as_much_as_a_large_one() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[0, 0] = True
    mask[5:, 5:] = True
    found_small, found_large = np.zeros((10, 10)), np.zeros((10, 10))
    found_small[0, 0], found_large[5:, 5:] = 1, 1
    # half of the regions at once, the other half only with all defect-free pixels: from (0, 0.5) straight to (1, 1)
    assert pro_auc([found_small], [mask], 0.2) == pytest.approx(0.55)
    assert pro_auc([found_large], [mask], 0.2) == pytest.approx(0.55)
    assert pixel_auroc([found_large], [mask]) > 0.95
    assert pixel_auroc([found_small], [mask]) < 0.55


def test_pro_takes_pixels_that_touch_at_a_corner_as_one_region() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[[0, 1, 4], [0, 1, 4]] = True  # a pair joined at a corner, and one pixel apart
    values = np.zeros((6, 6))
    values[4, 4] = 1
    fpr, overlap = pro_curve([values], [mask])
    assert overlap[fpr == 0].max() == pytest.approx(1 / 2)  # a third if the pair were two regions


def test_a_perfect_map_has_pro_and_auroc_one() -> None:
    _, masks = draw_maps(0, ties=False)
    maps = [mask.astype(np.float32) for mask in masks]
    assert pixel_auroc(maps, masks) == 1
    assert pro_auc(maps, masks) == pytest.approx(1, abs=1e-12)
    assert pro_auc([np.zeros_like(m) for m in maps], masks, 0.3) == pytest.approx(0.15)  # the diagonal


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_tensors_and_arrays_give_the_same(dtype: torch.dtype) -> None:
    maps, masks = draw_maps(1, ties=True)  # halves: exact in every dtype
    tensors = [torch.from_numpy(values).to(dtype).requires_grad_() for values in maps]
    marks = [torch.from_numpy(mask) for mask in masks]
    assert pixel_auroc(tensors, marks) == pixel_auroc(maps, masks)
    assert pro_auc(tensors, marks) == pro_auc(maps, masks)
    assert image_auroc(tensors[0].flatten(), marks[0].flatten()) == image_auroc(maps[0].ravel(), masks[0].ravel())
    assert threshold_at_fpr(tensors[0].flatten(), 0.1) == threshold_at_fpr(maps[0].ravel(), 0.1)


def test_float64_scores_are_not_rounded_into_ties() -> None:
    assert image_auroc([1.0, 1.0 + 1e-12], [False, True]) == 1.0


def test_inputs_are_left_as_they_are() -> None:
    maps, masks = draw_maps(2, ties=False)
    before = [values.copy() for values in maps]
    pixel_auroc(maps, masks)
    pro_auc(maps, masks)
    threshold_at_fpr(maps[0].ravel(), 0.1)
    assert all(np.array_equal(a, b) for a, b in zip(maps, before, strict=True))


@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.05, 0.07, 0.29, 0.3, 0.5, 0.58, 0.999])
@pytest.mark.parametrize("count", [1, 2, 10, 99, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_threshold_is_the_lowest_score_that_a_new_one_exceeds_at_the_rate(count: int, fpr: float, ties: bool) -> None:
    scores = np.random.default_rng(count).standard_normal(count)
    scores = np.round(scores) if ties else scores
    # The new one is as likely to take any of count + 1 places among them; ties count against the threshold.
    places = np.arange(1, count + 1)
    kept = np.sort(scores)[[Fraction(count + 1 - int(k), count + 1) <= Fraction(str(fpr)) for k in places]]
    assert threshold_at_fpr(scores, fpr) == min(kept, default=scores.max())


@pytest.mark.parametrize(("count", "fpr", "rank"), [(99, 0.29, 71), (2, 1 / 3, 2), (19, 0.05, 19), (9, 0.7, 3)])
def test_threshold_counts_the_share_and_not_its_rounding(count: int, fpr: float, rank: int) -> None:
    assert conformal_rank(count, fpr) == rank  # (1 - 1 / 3) * 3 > 2 in floating point
    assert threshold_at_fpr(np.arange(1.0, count + 1), fpr) == rank


def test_threshold_of_few_scores_is_the_highest() -> None:
    scores = torch.tensor([0.1, 0.7, 0.3])
    assert threshold_at_fpr(scores, 0.3) == scores.max()
    assert not (scores > threshold_at_fpr(scores, 0.3)).any()


@pytest.mark.parametrize("metric", [image_auroc, roc_curve])
def test_errors_of_image_metrics_say_what_came(metric: Callable[..., Any]) -> None:
    who = metric.__name__
    both = f"{who}: both normal and anomalous images required, got"
    with pytest.raises(ValueError, match=f"{both} 5 anomalous and 0 normal"):
        metric(np.arange(5.0), np.ones(5, dtype=bool))
    with pytest.raises(ValueError, match=f"{both} 0 anomalous and 5 normal"):
        metric(np.arange(5.0), np.zeros(5, dtype=bool))
    with pytest.raises(ValueError, match=rf"{who}: scores and labels \(N,\) required, got \(3,\) and \(2,\)"):
        metric([1.0, 2.0, 3.0], [True, False])
    with pytest.raises(ValueError, match=rf"{who}: scores and labels \(N,\) required, got \(1, 2\) and \(1, 2\)"):
        metric([[1.0, 2.0]], [[True, False]])
    with pytest.raises(ValueError, match=f"{who}: finite scores required, got 2 of 3 NaN or infinite"):
        metric([1.0, np.nan, np.inf], [True, False, True])
    with pytest.raises(TypeError, match=f"{who}: bool labels required, got int64"):
        metric([1.0, 2.0], [0, 1])


@pytest.mark.parametrize("metric", [pixel_auroc, pro_auc, pro_curve])
def test_errors_of_map_metrics_say_what_came(metric: Callable[..., Any]) -> None:
    who = metric.__name__
    maps, masks = draw_maps(0, ties=False)
    with pytest.raises(ValueError, match=f"{who}: one mask a map and at least one required, got 4 maps and 3 masks"):
        metric(maps, masks[:3])
    with pytest.raises(ValueError, match=f"{who}: one mask a map and at least one required, got 0 maps and 0 masks"):
        metric([], [])
    shapes = r"map 2 of shape \(10, 7\) and mask 2 of shape \(7, 10\)"
    with pytest.raises(ValueError, match=rf"{who}: map and mask of one shape \(H, W\) required, got {shapes}"):
        metric([*maps[:2], maps[2].T, maps[3]], masks)
    shapes = r"map 0 of shape \(1, 9, 13\) and mask 0 of shape \(1, 9, 13\)"
    with pytest.raises(ValueError, match=rf"{who}: map and mask of one shape \(H, W\) required, got {shapes}"):
        metric([maps[0][None]], [masks[0][None]])
    with pytest.raises(TypeError, match=f"{who}: bool masks required, got mask 1 of uint8"):
        metric(maps[:2], [masks[0], masks[1].astype(np.uint8)])
    maps[1][3, 4] = np.nan
    with pytest.raises(ValueError, match=f"{who}: finite scores in map 1 required, got 1 of 64 NaN or infinite"):
        metric(maps, masks)


def test_map_metrics_need_both_kinds_of_pixel() -> None:
    maps, none, full = [np.zeros((2, 3))] * 2, [np.zeros((2, 3), dtype=bool)] * 2, [np.ones((2, 3), dtype=bool)] * 2
    both = "pixel_auroc: both defect and defect-free pixels required, got"
    with pytest.raises(ValueError, match=f"{both} 0 defect and 12 defect-free"):
        pixel_auroc(maps, none)
    with pytest.raises(ValueError, match=f"{both} 12 defect and 0 defect-free"):
        pixel_auroc(maps, full)
    with pytest.raises(ValueError, match="pro_auc: at least one defect pixel required, got none in 2 masks"):
        pro_auc(maps, none)
    with pytest.raises(ValueError, match="pro_curve: at least one defect-free pixel required, got none in 2 masks"):
        pro_curve(maps, full)


@pytest.mark.parametrize("fpr", [0.0, -0.1, 1.5, float("nan")])
def test_rates_outside_their_range_are_refused(fpr: float) -> None:
    maps, masks = draw_maps(0, ties=False)
    with pytest.raises(ValueError, match=rf"pro_auc: max_fpr in \(0, 1\] required, got {fpr}"):
        pro_auc(maps, masks, fpr)
    with pytest.raises(ValueError, match=rf"threshold_at_fpr: fpr in \(0, 1\) required, got {fpr}"):
        threshold_at_fpr([1.0, 2.0], fpr)


def test_threshold_errors_say_what_came() -> None:
    with pytest.raises(ValueError, match=r"threshold_at_fpr: fpr in \(0, 1\) required, got 1"):
        threshold_at_fpr([1.0, 2.0], 1)
    with pytest.raises(ValueError, match=r"threshold_at_fpr: scores \(N,\) with N of at least 1 required, got \(0,\)"):
        threshold_at_fpr([], 0.1)
    with pytest.raises(
        ValueError, match=r"threshold_at_fpr: scores \(N,\) with N of at least 1 required, got \(2, 2\)"
    ):
        threshold_at_fpr(np.zeros((2, 2)), 0.1)
    with pytest.raises(ValueError, match="threshold_at_fpr: finite scores required, got 1 of 2 NaN or infinite"):
        threshold_at_fpr([1.0, np.inf], 0.1)


def test_the_area_under_the_pixel_curve_is_the_pixel_auroc():
    generator = np.random.default_rng(0)
    maps, masks = list(generator.random((3, 9, 8)).round(1)), list(generator.random((3, 9, 8)) > 0.7)
    x, y = pixel_roc_curve(maps, masks)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert trapezoid(y, x) == pytest.approx(pixel_auroc(maps, masks))
    with pytest.raises(ValueError, match="pixel_roc_curve: both defect and defect-free pixels required"):
        pixel_roc_curve(maps, [mask & False for mask in masks])
