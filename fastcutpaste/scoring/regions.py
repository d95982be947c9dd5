"""Regions: where a heat map lies above the threshold, as boxes and areas that a machine can act on."""

from typing import NamedTuple

from torch import Tensor


class Region(NamedTuple):
    """Hold one connected region; lengths in pixels of the map, its box from (y, x) on."""

    y: int
    x: int
    height: int
    width: int
    area: int  # pixels of the region itself, at most height · width
    score: float  # the highest in it


def find_regions(score_map: Tensor, threshold: float) -> list[Region]:
    """Find the regions of a heat map whose pixels all score above a threshold, the highest score first.

    Args:
        score_map: (H, W), floating point; at the image's original size where boxes are wanted there.
        threshold: a detector's, or another one in the units of its scores.

    Returns:
        The regions; pixels that touch by an edge or a corner are in one. None where no pixel lies above.

    Raises:
        ValueError: a map of another shape.
    """
    from skimage.measure import label, regionprops  # half a second to import

    if score_map.ndim != 2:
        raise ValueError(f"find_regions: a map of shape (H, W) required, got {tuple(score_map.shape)}")
    scores = score_map.float().cpu().numpy()
    found = []
    for region in regionprops(label(scores > threshold, connectivity=2), intensity_image=scores):
        top, left, bottom, right = region.bbox
        found.append(Region(top, left, bottom - top, right - left, int(region.area), float(region.intensity_max)))
    return sorted(found, key=lambda region: -region.score)
