"""Pixel scores gathered image by image: the curves and areas over all pixels without holding them.

A table keeps each distinct score with how many pixels have it. When it grows too long, neighbouring scores become one:
their last bit is dropped. So a set of up to a million distinct scores is measured exactly, and one of any size
closely, whatever the range of its scores and in whatever order they come.
"""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcutpaste.scoring.metrics import Curve, area_below, area_up_to
from fastcutpaste.scoring.regions import region_weights_in

_MOST = 1 << 20  # distinct scores kept: 28 bytes each
_WAITING = 1 << 21  # pixels gathered before they are counted: 4 bytes each
Columns = NDArray[np.float64]  # (3, K): normal pixels, defect pixels, and these weighted by 1 / their region's size


class PixelScores:
    """Gather the scores of pixels, normal and defective.

    Args:
        most: distinct scores kept.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._dropped = most, 0  # bits of the scores
        self._keys: NDArray[np.int32] = np.empty(0, np.int32)  # (K,), rising as the scores do
        self._columns: Columns = np.empty((3, 0))
        self._normal: list[NDArray[np.int32]] = []  # keys that wait to be counted
        self._defects: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []  # and those with their weights
        self._waiting = 0  # pixels

    @property
    def both(self) -> bool:
        """Whether there are normal pixels and defective ones."""
        self._count()
        return bool(self._columns[0].any() and self._columns[1].any())

    def add(self, score_map: Tensor | Iterable[Tensor | NDArray[np.float32]], mask: Tensor) -> None:
        """Add an image.

        Args:
            score_map: (H, W) float32, finite, or bands (rows, W) of it from the top.
            mask: (H, W) bool, True means defect.

        Raises:
            ValueError: another shape of the mask, a score that is not finite.
        """
        if isinstance(score_map, Tensor):
            if score_map.ndim != 2 or score_map.shape != mask.shape:
                came = f"{tuple(score_map.shape)} and {tuple(mask.shape)}"
                raise ValueError(f"PixelScores: map and mask of one shape (H, W) required, got {came}")
            score_map = [score_map]
        whole, top, done = mask.cpu().numpy(), 0, 0
        weights = None  # of the defect pixels, row by row
        for band in map(torch.as_tensor, score_map):
            if not band.isfinite().all():
                raise ValueError("PixelScores: finite scores required, got some NaN or infinite")
            keys, marks = _ordered(band) >> self._dropped, whole[top : top + len(band)]
            self._normal.append(keys[~marks])
            if marks.any():
                if weights is None:
                    rows = max(1, _WAITING // whole.shape[1])
                    weights = region_weights_in(whole[i : i + rows] for i in range(0, len(whole), rows))
                last = done + int(marks.sum())
                self._defects.append((keys[marks], weights[done:last]))
                done = last
            top += len(band)
            self._waiting += marks.size
            if self._waiting >= _WAITING:
                self._count()

    def join(self, other: "PixelScores") -> None:
        """Add all that another has gathered."""
        self._count()
        other._count()
        dropped = max(self._dropped, other._dropped)
        self._drop(dropped)
        self._merge(other._keys >> (dropped - other._dropped), other._columns)

    def roc_curve(self) -> Curve:
        """Give the curve of `pixel_roc_curve`: false and true positive rate, each (points,)."""
        return self._curve(1)

    def pro_curve(self) -> Curve:
        """Give the curve of `pro_curve`: false positive rate and per-region overlap, each (points,)."""
        return self._curve(2)

    def auroc(self) -> float:
        """Give the area that `pixel_auroc` gives."""
        return area_below(*self.roc_curve())

    def pro_auc(self, max_fpr: float = 0.3) -> float:
        """Give the area that `pro_auc` gives."""
        return area_up_to(*self.pro_curve(), max_fpr)

    def _curve(self, column: int) -> Curve:
        if not self.both:
            raise ValueError("PixelScores: both defect and defect-free pixels required, got one kind")
        falling = self._columns[:, ::-1].cumsum(1)  # (3, K)
        shares = falling / falling[:, -1:]
        return np.concatenate([[0.0], shares[0]]), np.concatenate([[0.0], shares[column]])

    def _count(self) -> None:
        """Put the pixels that wait into the table."""
        normal, defects, self._normal, self._defects, self._waiting = self._normal, self._defects, [], [], 0
        before = self._dropped
        if normal:
            keys, counts = _tally(np.concatenate(normal), None, self._most)
            self._merge(keys, np.concatenate([counts, np.zeros((2, len(keys)))]))
        if defects:
            weights = np.concatenate([weights for _, weights in defects])
            keys = np.concatenate([keys for keys, _ in defects]) >> (self._dropped - before)
            self._merge(keys, np.stack([np.zeros(len(weights)), np.ones(len(weights)), weights]))

    def _merge(self, keys: NDArray[np.int32], columns: Columns) -> None:
        """Put scores, of as few bits as the table's, into it; drop bits while it is too long."""
        both = np.concatenate([self._keys, keys]), np.concatenate([self._columns, columns], axis=1)
        self._keys, self._columns = _tally(*both, self._most)
        dropped = self._dropped
        while len(self._keys) > self._most:
            self._drop(dropped := dropped + 1)

    def _drop(self, bits: int) -> None:
        """Leave so many bits off all scores, in all."""
        more = bits - self._dropped
        if more > 0 and len(self._keys):
            keys = self._keys >> more
            starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
            self._keys, self._columns = keys[starts], np.add.reduceat(self._columns, starts, axis=1)
        self._dropped = bits


def _ordered(values: Tensor) -> NDArray[np.int32]:
    """Give int32 (H, W) in the order of float32 scores: their bits, those of negative ones turned round."""
    bits = (values.detach().cpu().float() + 0.0).contiguous().view(torch.int32).numpy()  # -0 becomes 0
    return cast(NDArray[np.int32], np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int32))


def _tally(keys: NDArray[np.int32], columns: Columns | None, most: int) -> tuple[NDArray[np.int32], Columns]:
    """Sum columns (C, N) of equal keys (N,), or count these (1, K); give the keys, rising, and the sums."""
    if not len(keys):
        return keys, np.empty((1, 0)) if columns is None else columns
    low, span = int(keys.min()), int(keys.max()) - int(keys.min()) + 1
    values = None
    if span <= 4 * most:
        places: NDArray[Any] = keys - np.int32(low)
    elif columns is None:
        values, counts = np.unique(keys, return_counts=True)
        return values, counts[None].astype(np.float64)
    else:
        values, places = np.unique(keys, return_inverse=True)
        span = len(values)
    sums = np.stack([np.bincount(places, row, span) for row in ([None] if columns is None else columns)])
    if values is not None:
        return values, sums.astype(np.float64)
    taken = np.flatnonzero(sums.any(0))
    return (taken + low).astype(np.int32), sums[:, taken].astype(np.float64)
