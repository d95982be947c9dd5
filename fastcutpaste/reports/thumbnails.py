"""Thumbnails: an image, its heat map and its true defects, each in the few bytes that a page of thousands allows."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastcutpaste.images.decode import decode
from fastcutpaste.reports.page import Shown
from fastcutpaste.scoring.metrics import Values, as_array

if TYPE_CHECKING:  # a graph is scored without torch
    from fastcutpaste.scoring.detector import Detector
    from fastcutpaste.scoring.ensemble import Ensemble
    from fastcutpaste.scoring.graph import Graph

# 2,000 images are to fit in 30 MB: 15,000 bytes each, 11,250 before base64.
_SIDE, _BYTES = 240, 9_000  # px of a thumbnail's longer side; bytes it may have
_HEAT_SIDE = 80  # heat maps are smooth
_OUTLINE_SIDES, _OUTLINE_LENGTH = (240, 120, 60, 30), 1_500  # cells along the longer side; characters


def heat_range(scorer: Union["Detector", "Ensemble", "Graph"]) -> tuple[float, float]:
    """Give the scores a heat map is drawn between: from what is typical of normal images, the threshold half-way."""
    return scorer.typical, 2 * scorer.threshold - scorer.typical


def show(
    path: Path,
    kind: str | None,
    score: float,
    heat: Values | None = None,
    mask: Values | None = None,
    heat_range: tuple[float, float] = (0.0, 1.0),
    details: Mapping[str, str] | None = None,
    bits: int | None = None,
) -> Shown:
    """Read an image file and make of it, its heat map and its mask what the page shows.

    Args:
        path, kind, score, details: as of `Shown`.
        heat: (H, W) scores.
        mask: (H, W) bool, True where the image is defective.
        heat_range: the score drawn transparent and the one drawn in the last color.
        bits: as for `load_images`.

    Raises:
        ValueError: a file that cannot be read.
    """
    image, size, _ = decode(path, (_SIDE, _SIDE), bits)
    return Shown(
        path, kind, score, size, small_jpeg(image),
        heat=None if heat is None else heat_jpeg(heat, *heat_range),
        outline="" if mask is None else outline(mask),
        details=details or {},
    )  # fmt: skip


def small_jpeg(image: Image.Image) -> bytes:
    """Make a JPEG of 240 pixels along the longer side at most, as good as 9,000 bytes allow."""
    height, width = _fitted((image.height, image.width), _SIDE)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    for quality in (85, 70, 50, 30, 15, 8):  # noise takes the last but one
        data = _encode(image, quality)
        if len(data) <= _BYTES:
            break
    return data


def heat_jpeg(heat: Values, low: float, high: float) -> bytes:
    """Make a grey JPEG of a heat map (H, W): black up to `low`, white from `high` on.

    Each of its pixels is the highest score it stands for, so that the one which decides is seen.
    """
    small = _highest(as_array(heat).astype(np.float32), _HEAT_SIDE)
    grey = np.rint(((small - low) / max(high - low, 1e-12)).clip(0, 1) * 255).astype(np.uint8)
    return _encode(Image.fromarray(grey), 80)


def outline(mask: Values) -> str:
    """Trace the regions of a mask (H, W): the `d` of an SVG path in parts of height and width.

    Where there are so many of them that it would be longer than 1,500 characters, the mask is made coarser.
    """
    mask = as_array(mask)
    if not mask.any():
        return ""
    *finer, coarsest = _OUTLINE_SIDES
    for side in finer:
        path = _traced(mask, side, _OUTLINE_LENGTH)
        if len(path) <= _OUTLINE_LENGTH:
            return path
    return _traced(mask, coarsest, None)


def _traced(mask: NDArray[Any], side: int, enough: int | None) -> str:
    """Trace a mask (H, W) in cells, so many along the longer side; leave off where the path is longer than enough."""
    from skimage.measure import approximate_polygon, find_contours  # half a second to import

    cells = _highest(mask.astype(np.float32), side)  # no spot is lost
    path = ""
    for contour in find_contours(np.pad(cells, 1), 0.5):  # (points, 2) of y, x in cells, half a cell late
        points = (approximate_polygon(contour, 0.6) - 0.5) / cells.shape
        path += "M" + " ".join(f"{x:.3f},{y:.3f}" for y, x in points.clip(0, 1))
        if enough is not None and len(path) > enough:
            break
    return path


def _highest(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Make a map (H, W) smaller, to so many pixels along the longer side, each the highest of those it stands for."""
    for axis, length in enumerate(_fitted(values.shape, side)):
        values = np.maximum.reduceat(values, np.arange(length) * values.shape[axis] // length, axis)
    return values


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Give a (height, width) of the same shape, at most `side` along the longer one, never more than there is."""
    height, width = shape
    share = min(1.0, side / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _encode(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
