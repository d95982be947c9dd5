"""Regions against a slow flood fill."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcutpaste.scoring.regions import Region, find_regions, find_regions_in


def flood(score_map: Tensor, threshold: float) -> set[Region]:
    """Grow every region pixel by pixel over the eight neighbours."""
    height, width = score_map.shape
    left = {(y, x) for y in range(height) for x in range(width) if score_map[y, x] > threshold}
    found = set()
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        ys, xs = [y for y, _ in region], [x for _, x in region]
        score = max(float(score_map[y, x]) for y, x in region)
        box = (min(ys), min(xs), max(ys) - min(ys) + 1, max(xs) - min(xs) + 1)
        found.add(Region(*box, len(region), score))
    return found


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 0.8, 0.99, 2.0])
def test_regions_equal_a_flood_fill_and_come_highest_first(threshold: float) -> None:
    score_map = torch.rand(23, 31, generator=torch.Generator().manual_seed(0))
    regions = find_regions(score_map, threshold)
    assert set(regions) == flood(score_map, threshold)
    assert len(set(regions)) == len(regions)
    assert [region.score for region in regions] == sorted((region.score for region in regions), reverse=True)


@pytest.mark.parametrize("rows", [1, 2, 5, 22])
@pytest.mark.parametrize("threshold", [-1.0, 0.5, 0.8, 2.0])
def test_regions_of_bands_are_those_of_the_whole(rows: int, threshold: float) -> None:
    score_map = torch.rand(23, 31, generator=torch.Generator().manual_seed(0))
    bands = np.split(score_map.numpy(), range(rows, 23, rows))
    assert sorted(find_regions_in(bands, threshold)) == sorted(find_regions(score_map, threshold))


def test_arms_that_meet_below_are_one_region() -> None:
    score_map = torch.tensor([[1.0, 0, 2, 0, 3], [1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]])
    bands = np.split(score_map.numpy(), 4)
    assert find_regions_in(bands, 0.5) == [
        Region(0, 0, 3, 5, 7, 3.0),
        Region(3, 4, 1, 1, 1, 1.0),
    ]


def test_a_pixel_at_the_threshold_is_in_no_region_and_corners_touch() -> None:
    score_map = torch.tensor([[1.0, 0.0, 0.0, 3.0], [0.0, 2.0, 0.0, 0.0]])
    assert find_regions(score_map, 0.5) == [Region(0, 3, 1, 1, 1, 3.0), Region(0, 0, 2, 2, 2, 2.0)]
    assert find_regions(score_map, 2.0) == [Region(0, 3, 1, 1, 1, 3.0)]


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"find_regions: a map of shape \(H, W\) required, got \(1, 4, 4\)"):
        find_regions(torch.zeros(1, 4, 4), 0.5)
