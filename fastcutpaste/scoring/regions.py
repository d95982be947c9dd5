"""Regions: where a heat map lies above the threshold, as boxes and areas that a machine can act on."""

from collections.abc import Iterable
from typing import Any, NamedTuple

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
    """
    scores = as_array(score_map)
    if scores.ndim != 2:
        raise ValueError(f"find_regions: a map of shape (H, W) required, got {scores.shape}")
    return find_regions_in([scores], threshold)


def find_regions_in(bands: Iterable[NDArray[Any]], threshold: float) -> list[Region]:
    """Do the same for a map that comes in bands (rows, W) from the top, of which one is held at a time.

    Cost: our own, since the libraries that label regions take half a second to import, as long as a graph takes for
        an image, are not there where graphs alone are scored, and want the whole map.
    """
    runs, highest, top = [], [], 0
    for band in bands:
        row, start, end = _runs(band > threshold)
        edged = np.pad(band.astype(np.float32), ((0, 0), (1, 1)), constant_values=-np.inf)  # (rows, W + 2)
        if len(row):
            first, behind = (row * edged.shape[1] + 1 + column for column in (start, end))
            highest.append(np.maximum.reduceat(edged.ravel(), np.stack([first, behind], 1).ravel())[::2])
            runs.append((row + top, start, end))
        top, line = top + len(band), edged.shape[1]
    if not runs:
        return []
    row, start, end = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    region = _joined(row * line + start, row * line + end, line)
    count = int(region.max()) + 1
    first_row, left, bottom, right = (np.full(count, far) for far in (top, line, 0, 0))
    best = np.full(count, -np.inf, np.float32)
    np.minimum.at(first_row, region, row)
    np.minimum.at(left, region, start)
    np.maximum.at(bottom, region, row + 1)
    np.maximum.at(right, region, end)
    np.maximum.at(best, region, np.concatenate(highest))
    area = np.bincount(region, end - start).astype(int)
    columns = (first_row, left, bottom - first_row, right - left, area, best)
    found = [Region(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
    return sorted(found, key=lambda one: -one.score)


def region_weights_in(bands: Iterable[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Give the weights of the defect pixels of a mask in bands (rows, W), row by row: 1 a region, over its pixels."""
    runs, top = [], 0
    for band in bands:
        row, start, end = _runs(band)
        runs.append((row + top, start, end))
        top, line = top + len(band), band.shape[1] + 2
    row, start, end = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    region = _joined(row * line + start, row * line + end, line)
    weights: NDArray[np.float64] = 1 / np.bincount(region, end - start)[region]  # of each run
    return weights.repeat(end - start)


def _runs(marked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give the row of each run of marked pixels along a row, in reading order, its first column and the one behind."""
    change = np.diff(np.pad(marked.astype(np.int8), ((0, 0), (1, 1))), axis=1)  # (rows, W + 1)
    row, start = np.nonzero(change == 1)
    return row, start, np.nonzero(change == -1)[1]


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
