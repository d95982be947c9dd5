"""Densities fitted on the features of normal images, in one pass over them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fastcutpaste.scoring.dense import continue_edges, widen_patches
from fastcutpaste.scoring.density import Density, LocationDensity, make_density
from fastcutpaste.scoring.embedder import Embedder

Progress = Callable[[Iterable[Tensor], int, str], Iterable[Tensor]]


def fit_densities(embedder: Embedder, images: Tensor, progress: Progress | None = None) -> list[Density]:
    """Fit the density of the patches, or of whole images, and that of each kind of area.

    Args:
        embedder: says by its config which.
        images: (N, 3, H, W) of `config.size`, normal, N at least 1.
        progress: wraps the batches, for a progress bar.

    Cost: without areas, patches that `fit_patches` leaves out are not embedded. With areas all are.
    """
    config = embedder.config
    densities = [make_density(config.density) for _ in range(1 + len(config.areas))]
    first, located = densities[0], isinstance(densities[0], LocationDensity)
    parts: Iterable[Tensor] = embedder.batches(images)
    if located:
        levelled = torch.cat([embedder.levelled(batch) for batch in parts]) if config.level else images
        parts = embedder.slabs_of_all(continue_edges(levelled, config.margin))
    if progress is not None:
        parts = progress(parts, sum(len(part) for part in parts), "fitting the density")
    if located:
        return [first.fit(embedder.embed_all(slab) for slab in parts)]
    continued = (embedder.continued(batch) for batch in parts)
    most = config.fit_patches
    if not config.areas:  # patches that are left out need not be embedded
        stride = config.stride * _thinning(len(images), config.grid, most)
        return [first.fit(embedder.embed(batch, stride) for batch in continued)]
    steps = [_thinning(len(images), config.grid_of(side), most) for side in config.sides]
    kept: list[list[Tensor]] = [[] for _ in steps]
    for batch in continued:
        grid = torch.cat(list(embedder.rows(batch)), 1)  # (B, h, w, D)
        for features, side, step in zip(kept, config.sides, steps, strict=True):
            features.append(widen_patches(grid, config.patches_along(side))[:, ::step, ::step].contiguous())
    return [density.fit(features) for density, features in zip(densities, kept, strict=True)]


def _thinning(count: int, grid: tuple[int, int], most: int) -> int:
    """Give the smallest step over the grids of `count` images at which at most `most` places are left."""
    step = 1
    while True:
        rows, columns = (-(-side // step) for side in grid)  # rounded up
        if count * rows * columns <= most or rows * columns == 1:
            return step
        step += 1
