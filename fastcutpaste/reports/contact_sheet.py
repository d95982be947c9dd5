"""Contact sheets: a row of small pictures for each part and kind of a data set, masks outlined."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fastcutpaste.files import written_whole
from fastcutpaste.images.decode import decode
from fastcutpaste.images.image_set import ImageSet
from fastcutpaste.images.masks import read_mask
from fastcutpaste.images.survey import Survey, sampled
from fastcutpaste.reports.lettering import write_title

_SIDE, _COLUMNS = 96, 10  # px of a picture, pictures in a row
_GROUND, _OUTLINE = (235, 235, 235), (0, 200, 0)


def write_contact_sheet(found: Survey, path: Path) -> None:
    """Write up to ten images of each part and kind, evenly spaced, with their masks outlined in green.

    A file that cannot be read is a dark square; a mask that cannot is none.
    """
    groups = found.groups
    figure = Figure(figsize=(_COLUMNS, 1.25 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(groups), 1, squeeze=False)
    for axis, (title, images) in zip(axes[:, 0], groups.items(), strict=True):
        axis.imshow(_strip(images), interpolation="nearest")
        axis.set_axis_off()
        write_title(axis, f"{title}, {len(images)}", 8)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix[1:])


def _strip(images: ImageSet) -> NDArray[np.uint8]:
    """Give small pictures side by side, (side, columns · side, 3)."""
    strip = np.full((_SIDE, _COLUMNS * _SIDE, 3), 255, np.uint8)
    for column, i in enumerate(sampled(range(len(images)), _COLUMNS)):
        mask = images.masks[i]
        files = () if mask is None else mask if isinstance(mask, tuple) else (mask,)
        strip[:, column * _SIDE : (column + 1) * _SIDE] = _small(images.paths[i], files)
    return strip


def _small(path: Path, masks: tuple[Path, ...]) -> NDArray[np.uint8]:
    """Give one picture on plain ground, (side, side, 3)."""
    cell = np.full((_SIDE, _SIDE, 3), _GROUND, np.uint8)
    inner = _SIDE - 4
    try:
        image, (height, width), _ = decode(path, (inner, inner))
    except ValueError:
        cell[2:-2, 2:-2] = 60
        return cell
    share = inner / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = np.array(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))  # (h, w, 3)
    for file in masks:
        try:
            drawn = Image.fromarray(read_mask(file)).convert("L")
        except ValueError:
            continue
        inside = np.pad(np.asarray(drawn.resize(size, Image.Resampling.BOX)) > 0, 1)  # no spot is lost
        core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        small[inside[1:-1, 1:-1] & ~core] = _OUTLINE
    top, left = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell
