"""Thumbnails: an image, its heat map and its true defects, each in the few bytes that a page of thousands allows."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from fastcutpaste.images.decode import decode
from fastcutpaste.reports.page import Shown

# 2,000 images are to fit in 30 MB: 15,000 bytes each, 11,250 before base64.
_SIDE, _BYTES = 240, 9_000  # px of a thumbnail's longer side; bytes it may have
_HEAT_SIDE = 80  # heat maps are smooth
_OUTLINE_SIDES, _OUTLINE_LENGTH = (240, 120, 60, 30), 1_500  # cells along the longer side; characters


def show(
    path: Path,
    kind: str | None,
    score: float,
    heat: Tensor | None = None,
    mask: Tensor | None = None,
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


def heat_jpeg(heat: Tensor, low: float, high: float) -> bytes:
    """Make a grey JPEG of a heat map (H, W): black up to `low`, white from `high` on.

    Each of its pixels is the highest score it stands for, so that the one which decides is seen.
    """
    small = adaptive_max_pool2d(heat[None].float(), _fitted(heat.shape, _HEAT_SIDE))[0]  # (H, W) -> (h, w)
    grey = ((small - low) / max(high - low, 1e-12)).clamp(0, 1).mul(255).round().to(torch.uint8)
    return _encode(Image.fromarray(grey.numpy()), 80)


def outline(mask: Tensor) -> str:
    """Trace the regions of a mask (H, W): the `d` of an SVG path in parts of height and width.

    Where there are so many of them that it would be longer than 1,500 characters, the mask is made coarser.
    """
    if not mask.any():
        return ""
    *finer, coarsest = _OUTLINE_SIDES
    for side in finer:
        path = _traced(mask, side, _OUTLINE_LENGTH)
        if len(path) <= _OUTLINE_LENGTH:
            return path
    return _traced(mask, coarsest, None)


def _traced(mask: Tensor, side: int, enough: int | None) -> str:
    """Trace a mask (H, W) in cells, so many along the longer side; leave off where the path is longer than enough."""
    from skimage.measure import approximate_polygon, find_contours  # half a second to import

    height, width = _fitted(mask.shape, side)
    cells = adaptive_max_pool2d(mask[None].float(), (height, width))[0]  # (H, W) -> (h, w); no spot is lost
    path = ""
    for contour in find_contours(np.pad(cells.numpy(), 1), 0.5):  # (points, 2) of y, x in cells, half a cell late
        points = (approximate_polygon(contour, 0.6) - 0.5) / (height, width)
        path += "M" + " ".join(f"{x:.3f},{y:.3f}" for y, x in points.clip(0, 1))
        if enough is not None and len(path) > enough:
            break
    return path


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Give a (height, width) of the same shape, at most `side` along the longer one, never more than there is."""
    height, width = shape
    share = min(1.0, side / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _encode(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
