"""Tiles: an image at its own scale as images of one size, where a detector scores whole ones."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastcutpaste.op.checks import check_images, check_values
from fastcutpaste.scoring.config import DetectorConfig

_AT_ONCE = 2**20  # pixels of tiles that a network takes at a time


def check_own_scale(image: Tensor, config: DetectorConfig) -> None:
    """Refuse what is not an image (3, H, W) with room for what is scored of it."""
    check_images("own scale", image[None])
    check_values("own scale", image[None])
    if image.shape[0] != 3:
        raise ValueError(f"own scale: images of shape (3, H, W) required, got {tuple(image.shape)}")
    check_size("own scale", (image.shape[1], image.shape[2]), config)


def check_size(who: object, size: tuple[int, int], config: DetectorConfig) -> None:
    """Refuse the (height, width) of an image, whose name is given, that is smaller than what is scored of it."""
    (height, width), least = size, config.least
    if height < least[0] or width < least[1]:
        what = "a tile has" if config.patch is None else "patches and areas take"
        raise ValueError(f"{who}: an image of at least {least[0]}×{least[1]} pixels, which {what}, required, got "
                         f"{height}×{width}")  # fmt: skip


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Give where tiles along a side begin, pixels: as few as cover it, evenly spaced, with at least the overlap.

    Args:
        length: of the side, at least `tile`.
        tile: length of a tile.
        overlap: below `tile`.
    """
    more = -(-(length - tile) // (tile - overlap))  # rounded up
    return [(length - tile) * i // more for i in range(more + 1)] if more else [0]


def cut_tiles(image: Tensor, config: DetectorConfig) -> Iterator[Tensor]:
    """Give the tiles of an image (3, H, W), row by row: (n, 3, *config.size) each, `config.chunk` or some at a time."""
    height, width = config.size
    rows, columns = (tile_starts(image.shape[1 + i], config.size[i], config.overlap) for i in (0, 1))
    places = [(top, left) for top in rows for left in columns]
    count = config.chunk or max(1, _AT_ONCE // (height * width))
    for i in range(0, len(places), count):
        yield torch.stack([image[:, top : top + height, left : left + width] for top, left in places[i : i + count]])
