"""Heat maps of images of any size: kept as the scores of a grid, a sixteenth of the pixels or fewer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fastcutpaste.scoring.bands import Band, HeatMap
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import resize_map, weights_between
from fastcutpaste.scoring.density import Density
from fastcutpaste.scoring.embedder import Embedder
from fastcutpaste.scoring.fitting import Progress
from fastcutpaste.scoring.scorer import check_finite, score_grids
from fastcutpaste.scoring.tiles import check_own_scale, cut_tiles, tile_starts

BAND = 2**22  # pixels of a band
_WIDE = 1024  # columns of a map made at a time: products with zeros alone are left out


class PatchMap(HeatMap):
    """A heat map spread from the scores of grids of patches and areas.

    Args:
        size: of the image.
        grids: (h, w) on the CPU for each of `config.sides`.
        config: of the detector.
    """

    def __init__(self, size: tuple[int, int], grids: Sequence[Tensor], config: DetectorConfig) -> None:
        super().__init__(size)
        self._grids, self._config = grids, config
        ends = [*range(0, size[1], _WIDE), size[1]]
        self._columns = [
            [self._weights(first, last, grid.shape[1], side) for first, last in pairwise(ends)]
            for grid, side in zip(grids, config.sides, strict=True)
        ]

    def band(self, top: int, bottom: int) -> Band:
        maps = list[Tensor]()
        for grid, side, columns in zip(self._grids, self._config.sides, self._columns, strict=True):
            first, weights = self._weights(top, bottom, grid.shape[0], side)
            rows = weights @ grid[first : first + weights.shape[1]]  # (rows, h) · (h, w)
            parts = [rows[:, left : left + part.shape[1]] @ part.T for left, part in columns]
            maps.append(torch.cat(parts, 1))  # (rows, W)
        return (torch.stack(maps).mean(0) if len(maps) > 1 else maps[0]).numpy()

    def _weights(self, first: int, last: int, count: int, side: int) -> tuple[int, Tensor]:
        margin = self._config.margin
        return weights_between(first + margin, last + margin, count, side, self._config.stride)


class TileMap(HeatMap):
    """A heat map in which a pixel has the highest score of the tiles it is in.

    Args:
        size: of the image.
        scores: (h, w) of its tiles, on the CPU.
        starts: first row of each of the h, first column of each of the w.
        tile: (height, width).
    """

    def __init__(
        self, size: tuple[int, int], scores: Tensor, starts: tuple[list[int], list[int]], tile: tuple[int, int]
    ) -> None:
        super().__init__(size)
        for dim in (0, 1):
            edges = sorted({*starts[dim], *(start + tile[dim] for start in starts[dim])})
            parts = []
            for first, _ in pairwise(edges):  # between two edges the tiles are the same
                inside = [i for i, start in enumerate(starts[dim]) if start <= first < start + tile[dim]]
                parts.append(scores.narrow(dim, inside[0], len(inside)).amax(dim))
            scores = torch.stack(parts, dim)
            lengths = torch.tensor([last - first for first, last in pairwise(edges)])
            places = torch.arange(len(lengths)).repeat_interleave(lengths)  # (H,) or (W,): the part a pixel is in
            if dim == 0:
                self._rows = places
        self._cells, self._columns = scores, places

    def band(self, top: int, bottom: int) -> Band:
        return self._cells[self._rows[top:bottom]][:, self._columns].numpy()


class ResizedMap(HeatMap):
    """A heat map (h, w) of a resized image, brought back to the image's size."""

    def __init__(self, size: tuple[int, int], score_map: Tensor) -> None:
        super().__init__(size)
        self._map = score_map

    def band(self, top: int, bottom: int) -> Band:
        return self._whole[top:bottom]

    @property
    def _whole(self) -> Band:
        whole: Band = resize_map(self._map[None], self.size)[0].cpu().numpy()
        return whole

    def bands(self) -> Iterator[Band]:
        yield self._whole


class MeanMap(HeatMap):
    """The mean of heat maps, each brought to a scale where 0 is the first and 1 the second number given with it."""

    def __init__(self, maps: Sequence[HeatMap], scales: Sequence[tuple[float, float]]) -> None:
        super().__init__(maps[0].size)
        self._maps, self._scales = maps, scales

    def band(self, top: int, bottom: int) -> Band:
        return self._mean([one.band(top, bottom) for one in self._maps])

    def bands(self) -> Iterator[Band]:
        yield from (self._mean(bands) for bands in zip(*(one.bands() for one in self._maps), strict=True))

    def _mean(self, bands: Sequence[Band]) -> Band:
        scaled = [(band - low) / (high - low) for band, (low, high) in zip(bands, self._scales, strict=True)]
        return sum(scaled[1:], scaled[0]) / np.float32(len(scaled))


@torch.no_grad()
def score_at_own_scale(embedder: Embedder, densities: Sequence[Density], image: Tensor) -> HeatMap:
    """Score an image (3, H, W) at its own scale, a tile at a time.

    Raises:
        ValueError: an image smaller than `config.least`, pixels that are not finite.
    """
    config, size = embedder.config, (image.shape[1], image.shape[2])
    check_own_scale(image, config)
    if config.patch is not None:
        grids = [grid[0].float().cpu() for grid in score_grids(embedder, densities, image[None])]
        made: HeatMap = PatchMap(size, grids, config)
    else:
        rows, columns = (tile_starts(size[i], config.size[i], config.overlap) for i in (0, 1))
        scores = [densities[0].score(embedder.embed(embedder.levelled(tiles))) for tiles in cut_tiles(image, config)]
        grids = [torch.cat(scores).float().cpu().view(len(rows), len(columns))]
        made = TileMap(size, grids[0], (rows, columns), config.size)
    for grid in grids:
        check_finite("heat_map", grid.sum())
    return made


def score_normal(
    score: Callable[[Tensor], HeatMap], images: Iterable[Tensor], count: int, progress: Progress | None
) -> tuple[Tensor, float]:
    """Score normal images (3, H, W) by what gives a heat map of each; give the scores (N,) and the typical score.

    That is the median of all pixels, of which a thousand of each image are looked at.
    """
    scores, some = [], []
    batches: Iterable[Tensor] = (image[None] for image in images)
    for batch in batches if progress is None else progress(batches, count, "scoring"):
        heat = score(batch[0])
        scores.append(heat.score)
        step = max(1, heat.size[0] // 32)
        some += [heat.band(y, y + 1)[0, :: max(1, heat.size[1] // 32)] for y in range(0, heat.size[0], step)]
    return torch.tensor(scores), float(np.median(np.concatenate(some)))
