"""Pictures: what the transforms do to your images, where a detector sees defects, and how well."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fastcutpaste.files import written_whole
from fastcutpaste.reports.lettering import write_title
from fastcutpaste.scoring.metrics import Values, as_array

if TYPE_CHECKING:  # heat maps of a graph are drawn without torch
    from torch import Tensor, nn

_DPI = 110
_CELL = 1.6  # inches of the side of one picture in a grid
_SMALLEST, _GAP, _TITLE = 384, 8, 22  # px: of the longer side of a picture by itself, between two, above them
_TITLE_WIDTH = 320  # px, that a title needs


def overlay(image: "Tensor", score_map: "Tensor", low: float, high: float, opacity: float = 0.5) -> "Tensor":
    """Lay a heat map over an image: nothing at scores up to `low`, full color from `high` on.

    Args:
        image: (3, H, W) uint8.
        score_map: (H, W) scores.
        low: score drawn transparent.
        high: score drawn in the last color, above `low`.
        opacity: of the last color, 0 to 1.

    Returns:
        (3, H, W) uint8.

    Raises:
        ValueError: a map of another size than the image.
    """
    import torch

    return torch.from_numpy(_laid_over(as_array(image), as_array(score_map), low, high, opacity))


def _laid_over(
    pixels: NDArray[np.uint8], scores: NDArray[Any], low: float, high: float, opacity: float = 0.5
) -> NDArray[np.uint8]:
    if scores.shape != pixels.shape[1:]:
        raise ValueError(f"overlay: a map of shape {pixels.shape[1:]} required, got {scores.shape}")
    heat = ((scores.astype(np.float32) - low) / max(high - low, 1e-12)).clip(0, 1)  # (H, W)
    colors = matplotlib.colormaps["inferno"](heat)[..., :3].astype(np.float32) * 255  # (H, W, 3)
    share = (heat * 2).clip(0, 1) * opacity  # (H, W); half-way up the color is as opaque as it gets
    laid: NDArray[np.uint8] = np.rint(pixels * (1 - share) + colors.transpose(2, 0, 1) * share).astype(np.uint8)
    return laid


def write_preview(images: "Tensor", transforms: Mapping[str, "nn.Module"], path: str | Path, seed: int = 0) -> None:
    """Draw what transforms do: a row per image and transform with image, result, mask and difference.

    Args:
        images: (B, 3, H, W) uint8.
        transforms: by the name they are shown under.
        path: picture to write; the suffix says the format (.png, .jpg, .pdf, .svg).
        seed: of the transforms.
    """
    import torch

    from fastcutpaste.transforms.defect import augmented

    generator = torch.Generator(images.device).manual_seed(seed)
    figure, axes = _grid(len(transforms) * len(images), 4)
    row = 0
    for name, transform in transforms.items():
        pasted = augmented(transform, images, generator)
        for image, result, mask in zip(images, pasted.images, pasted.mask, strict=True):
            difference = (result.int() - image.int()).abs().clamp(0, 127).mul(2).to(torch.uint8)
            for axis, picture in zip(axes[row], (image, result, mask.expand(3, -1, -1) * 255, difference), strict=True):
                _show(axis, picture)
            axes[row][0].set_ylabel(name, fontsize=7)
            row += 1
    for axis, title in zip(axes[0], ("image", "result", "mask", "difference ×2"), strict=True):
        axis.set_title(title, fontsize=8)
    _write(figure, path)


def write_heat_map(
    image: Values, score_map: Values, path: str | Path, *, low: float, high: float, threshold: float, title: str
) -> None:
    """Draw an image and, beside it or below a wide one, its heat map, where what exceeds the threshold is outlined.

    Args:
        image: (3, H, W) uint8, drawn as large as it is, a small one enlarged.
        score_map: (H, W) scores.
        path: picture to write; the suffix says the format.
        low: score drawn transparent.
        high: score drawn in the last color.
        threshold: scores above it are called defective.
        title: a line above.
    """
    pixels, scores = as_array(image), as_array(score_map)
    height, width = (round(side * max(1, _SMALLEST / max(scores.shape))) for side in scores.shape)
    right, down = (width + _GAP, 0) if width <= 2 * height else (0, height + _GAP)
    figure = Figure(figsize=(max(width + right, _TITLE_WIDTH) / _DPI, (height + down + _TITLE) / _DPI))
    FigureCanvasAgg(figure)
    size = figure.get_size_inches() * _DPI
    places = [(0, down, width, height), (right, 0, width, height)]  # px from the lower left corner
    axes = [figure.add_axes((x / size[0], y / size[1], w / size[0], h / size[1])) for x, y, w, h in places]
    for axis, picture in zip(axes, (pixels, _laid_over(pixels, scores, low, high)), strict=True):
        _show(axis, picture)
    if min(scores.shape) > 1 and scores.max() > threshold:  # a line of pixels has no outline
        axes[1].contour(scores, levels=[threshold], colors="#22d3ee", linewidths=1)
    write_title(axes[0], title, 8)
    _write(figure, path)


def write_heat_maps(
    images: Sequence[Values],
    maps: Sequence[Values],
    path: str | Path,
    *,
    low: float,
    high: float,
    masks: Sequence[Values | None] | None = None,
    titles: Sequence[str] | None = None,
) -> None:
    """Draw images beside their heat maps, three to a line, the true defects outlined.

    Args:
        images: (3, H, W) uint8 each; sizes may differ.
        maps: (H, W) scores each.
        path: picture to write; the suffix says the format.
        low: score drawn transparent; about the middle of normal images.
        high: score drawn in the last color.
        masks: (H, W) bool each, or None where unknown.
        titles: a line above each image.
    """
    lines = -(-len(images) // 3)
    figure, axes = _grid(lines, 6)
    for i in range(lines * 3):
        left, right = axes[i // 3][i % 3 * 2 : i % 3 * 2 + 2]
        if i >= len(images):
            left.set_visible(False)
            right.set_visible(False)
            continue
        _show(left, images[i])
        _show(right, _laid_over(as_array(images[i]), as_array(maps[i]), low, high))
        mask = None if masks is None else masks[i]
        drawn = None if mask is None else as_array(mask)
        if drawn is not None and drawn.any():
            for axis in (left, right):
                axis.contour(drawn, levels=[0.5], colors="#31d843", linewidths=0.7)
        if titles is not None:
            write_title(left, titles[i], 7)
    _write(figure, path)


def _grid(rows: int, columns: int, cell: float = _CELL) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(columns * cell, rows * cell + 0.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [list(row) for row in figure.subplots(rows, columns, squeeze=False)]


def _show(axis: Axes, image: Values) -> None:
    pixels: NDArray[Any] = as_array(image)
    axis.imshow(pixels.transpose(1, 2, 0).astype(np.uint8))  # (H, W, 3)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def _write(figure: Figure, path: str | Path) -> None:
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)
