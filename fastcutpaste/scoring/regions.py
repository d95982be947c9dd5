"""Regions: where a heat map lies above the threshold, as boxes and areas that a machine can act on."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcutpaste.scoring.metrics import Values, as_array


class Region(NamedTuple):
    """Hold one connected region; lengths in pixels of the map, its box from (y, x) on."""

    y: int
    x: int
    height: int
    width: int
    area: int  # pixels of the region itself, at most height · width
    score: float  # the highest in it


def find_regions(score_map: Values, threshold: float) -> list[Region]:
    """Find the regions of a heat map whose pixels all score above a threshold, the highest score first.

    Args:
        score_map: (H, W), floating point; at the image's original size where boxes are wanted there.
        threshold: a detector's, or another one in the units of its scores.

    Returns:
        The regions; pixels that touch by an edge or a corner are in one. None where no pixel lies above.

    Raises:
        ValueError: a map of another shape.

    Cost: our own, since the libraries that label regions take half a second to import, as long as a graph takes for
        an image, and are not there where graphs alone are scored.
    """
    scores = as_array(score_map)
    if scores.ndim != 2:
        raise ValueError(f"find_regions: a map of shape (H, W) required, got {scores.shape}")
    edged = np.pad(scores.astype(np.float32), ((0, 0), (1, 1)), constant_values=-np.inf)  # (H, W + 2)
    change = np.diff((edged > threshold).astype(np.int8), axis=1)  # (H, W + 1)
    row, start = np.nonzero(change == 1)  # runs of pixels along the rows, in reading order: from `start`
    end = np.nonzero(change == -1)[1]  # up to before `end`
    if not len(row):
        return []
    line = edged.shape[1]
    first, behind = row * line + start, row * line + end  # in `edged`, a pixel further left
    highest = np.maximum.reduceat(edged.ravel(), np.stack([first, behind], 1).ravel() + 1)[::2]
    region = _joined(first, behind, line)
    count = int(region.max()) + 1
    top, left, bottom, right = (np.full(count, far) for far in (scores.shape[0], line, 0, 0))
    best = np.full(count, -np.inf, np.float32)
    np.minimum.at(top, region, row)
    np.minimum.at(left, region, start)
    np.maximum.at(bottom, region, row + 1)
    np.maximum.at(right, region, end)
    np.maximum.at(best, region, highest)
    area = np.bincount(region, end - start).astype(int)
    columns = (top, left, bottom - top, right - left, area, best)
    found = [Region(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
    return sorted(found, key=lambda one: -one.score)


def _joined(first: NDArray[np.int64], behind: NDArray[np.int64], line: int) -> NDArray[np.int64]:
    """Number the regions of N runs from `first` to `behind` (N,), counted through lines of so many pixels."""
    low = np.searchsorted(behind, first + line)  # the runs of the next line that touch it, from `low`
    touching = np.searchsorted(first, behind + line, side="right") - low
    upper = np.repeat(np.arange(len(first)), touching)
    lower = np.arange(len(upper)) + np.repeat(low - (np.cumsum(touching) - touching), touching)
    root = np.arange(len(first))  # of each run's region, as far as it is known: its first run
    while (root[upper] != root[lower]).any():
        least = np.minimum(root[upper], root[lower])
        np.minimum.at(root, root[upper], least)
        np.minimum.at(root, root[lower], least)
        while (root[root] != root).any():
            root = root[root]
    return np.unique(root, return_inverse=True)[1]
