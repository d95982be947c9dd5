"""Heat maps in bands of rows, made when they are asked for: what is found in them, without torch.

A map of 14,000 × 13,000 pixels takes 728 MB; a band of it 16 MB.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcutpaste.scoring.regions import Region, find_regions_in

BAND = 2**22  # pixels
Band = NDArray[np.float32]


class HeatMap(ABC):
    """A heat map of one image, float32.

    Attributes:
        size: its (H, W), pixels of the image.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    @abstractmethod
    def band(self, top: int, bottom: int) -> Band:
        """Give rows (bottom - top, W) of it."""

    def bands(self) -> Iterator[Band]:
        """Give all of it, (rows, W) at a time, from the top."""
        for top, bottom in band_rows(self.size):
            yield self.band(top, bottom)

    @cached_property
    def score(self) -> float:
        """The highest score of a pixel."""
        return max(float(band.max()) for band in self.bands())

    def regions(self, threshold: float) -> list[Region]:
        """Find the regions above a threshold, in pixels of the image, the highest score first."""
        return find_regions_in(self.bands(), threshold)

    def smaller(self, side: int) -> Band:
        """Give it (h, w) with at most `side` pixels along the longer side, each the highest score it stands for."""
        return pool_highest(self.bands(), self.size, side)


class WholeMap(HeatMap):
    """A heat map (H, W) that is there."""

    def __init__(self, scores: Band) -> None:
        super().__init__((scores.shape[0], scores.shape[1]))
        self._scores = scores

    def band(self, top: int, bottom: int) -> Band:
        return self._scores[top:bottom]


def band_rows(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Give from which row to before which each band of a map (H, W) goes."""
    rows = max(1, BAND // size[1])
    return [(top, min(size[0], top + rows)) for top in range(0, size[0], rows)]


def pool_highest(bands: Iterable[NDArray[Any]], size: tuple[int, int], side: int) -> Band:
    """Make a map (H, W) that comes in bands smaller, as `HeatMap.smaller` gives it; one small enough stays as it is."""
    share = side / max(size)
    if share >= 1:
        return np.concatenate(list(bands)).astype(np.float32, copy=False)
    (had, across), (height, width) = size, (max(1, round(length * share)) for length in size)
    at = np.arange(width)
    parts = np.stack([at * across // width, -(-(at + 1) * across // width)], 1).ravel()  # first of each, and behind
    pooled, top = np.full((height, width), -math.inf, np.float32), 0
    for band in bands:
        rows = np.maximum.reduceat(band, parts[:-1], 1)[:, ::2]  # (rows, w)
        bottom = top + len(band)
        for i in range(top * height // had, min(height, -(-bottom * height // had) + 1)):
            first, last = max(top, i * had // height), min(bottom, -(-(i + 1) * had // height))
            if first < last:
                pooled[i] = np.maximum(pooled[i], rows[first - top : last - top].max(0))
        top = bottom
    return pooled


def pool_mask(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Make a mask (H, W) smaller as `HeatMap.smaller` makes the map; no spot is lost."""
    size = (mask.shape[0], mask.shape[1])
    return pool_highest((mask[top:bottom] for top, bottom in band_rows(size)), size, side) > 0
