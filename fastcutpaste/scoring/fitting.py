"""Densities fitted on the features of normal images, in one pass over them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from fastcutpaste.op.color import brightness_of
from fastcutpaste.scoring.dense import continue_edges
from fastcutpaste.scoring.density import Density, LocationDensity, make_density
from fastcutpaste.scoring.embedder import Embedder

Progress = Callable[[Iterable[Tensor], int, str], Iterable[Tensor]]
Images = Tensor | Sequence[Tensor]  # (N, 3, H, W), or (3, H, W) each


def mean_brightness(images: Images) -> float:
    """Give the mean brightness, 0–1, of images, each counting the same however large it is."""
    return float(torch.stack([brightness_of(image[None]).flatten() for image in images]).mean())


def fit_densities(embedder: Embedder, images: Images, progress: Progress | None = None) -> list[Density]:
    """Fit the density of the patches, or of whole images, and that of each kind of area.

    Args:
        embedder: says by its config which.
        images: (N, 3, H, W) of `config.size`, normal, N at least 1; where none are resized, (3, H, W) each.
        progress: wraps the batches, for a progress bar.

    Cost: without areas, patches that `fit_patches` leaves out are not embedded. With areas all are.
    """
    config = embedder.config
    densities = [make_density(config.density) for _ in range(1 + len(config.areas))]
    first, located = densities[0], isinstance(densities[0], LocationDensity)
    parts, count = embedder.batches(images), len(images)
    if located:
        assert isinstance(images, Tensor)  # of one size
        levelled = torch.cat([embedder.levelled(batch) for batch in parts]) if config.level else images
        parts = embedder.slabs_of_all(continue_edges(levelled, config.margin))
        count = sum(len(part) for part in parts)
    if progress is not None and config.patch is None and not config.resize:  # it counts images, not their tiles
        counted = progress((image[None] for image in images), count, "fitting the density")
        parts = embedder.batches(image[0] for image in counted)
    elif progress is not None:
        parts = progress(parts, count, "fitting the density")
    if located:
        return [first.fit(embedder.embed_all(slab) for slab in parts)]
    if config.patch is None:
        return [first.fit(embedder.embed(embedder.levelled(batch)) for batch in parts)]
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    steps = [_thinning([config.grid_of(side, size) for size in sizes], config.fit_patches) for side in config.sides]
    if not config.areas:  # patches that are left out need not be embedded
        stride = config.stride * steps[0]
        return [first.fit(features for batch in parts for _, _, features in embedder.blocks(batch, stride))]
    kept: list[list[Tensor]] = [[] for _ in steps]
    for batch in parts:
        for i, rows, columns, wide in embedder.squares(batch):
            step = steps[i]
            kept[i].append(wide[:, -rows.start % step :: step, -columns.start % step :: step].contiguous())
    return [density.fit(some) for density, some in zip(densities, kept, strict=True)]


def _thinning(grids: Sequence[tuple[int, int]], most: int) -> int:
    """Give the smallest step over grids of rows and columns at which at most `most` places are left."""
    step, least = 1, len(grids)
    counts = Counter(grids)
    while True:
        left = sum(number * -(-rows // step) * -(-columns // step) for (rows, columns), number in counts.items())
        if left <= most or left == least:
            return step
        step += 1
