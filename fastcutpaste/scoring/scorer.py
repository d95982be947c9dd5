"""What a detector does with each batch: images in, scores or heat maps out, on one device and without a wait for it."""

import math
from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor

from fastcutpaste.scoring.dense import reach_weights
from fastcutpaste.scoring.density import Density
from fastcutpaste.scoring.embedder import Embedder

_MOST_PINNED = 2**28  # bytes; torch keeps page-locked memory for good, and takes it in powers of two


class Scorer:
    """Score batches of images of one size: whole images, or their patches as heat maps.

    It looks at no value, so it never waits for a GPU, and launches the same for every batch of a shape.

    Args:
        embedder: gives the features, on its device.
        densities: of the patches and of each kind of area, in the order of `config.sides`; or of whole images.
        size: (H, W) of the images, pixels.
    """

    def __init__(self, embedder: Embedder, densities: Sequence[Density], size: tuple[int, int]) -> None:
        self.embedder, self.densities = embedder, tuple(densities)
        config, margin = embedder.config, embedder.config.margin
        self._spread: list[tuple[Tensor, Tensor]] = []  # of each side; made at each call, they are a third of its ops
        for side in config.sides:
            rows, columns = (
                reach_weights(length + 2 * margin, (length + 2 * margin - side) // config.stride + 1, side,
                              config.stride, True)[margin : margin + length].to(embedder.device)
                for length in size
            )  # fmt: skip
            self._spread.append((rows, columns.T))  # (H, h), (w, W)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Give the scores (B,) of whole images, or heat maps (B, H, W); float32.

        Args:
            images: (B, 3, H, W), uint8 0–255 or floating point 0–1, on any device, B at least 1.
        """
        device = self.embedder.device
        images = images.to(device, non_blocking=device.type == "cuda")
        if not self._spread:
            return self.densities[0].score(self.embedder.embed(self.embedder.levelled(images)))
        maps = [
            rows @ scores.float() @ columns  # (H, h) · (B, h, w) · (w, W)
            for (rows, columns), scores in zip(self._spread, self._grids(images), strict=True)
        ]
        return maps[0] if len(maps) == 1 else reduce(torch.add, maps) / len(maps)

    def _grids(self, images: Tensor) -> list[Tensor]:
        """Score the patches, and each kind of area, of images: a grid (B, h, w) for each side."""
        return score_grids(self.embedder, self.densities, images)


def score_grids(embedder: Embedder, densities: Sequence[Density], images: Tensor) -> list[Tensor]:
    """Score the patches, and each kind of area, of images (B, 3, H, W): a grid (B, h, w) for each side."""
    shapes = [embedder.config.grid_of(side, (images.shape[-2], images.shape[-1])) for side in embedder.config.sides]
    grids: list[Tensor] = []
    for i, rows, columns, features in embedder.squares(images):
        scores = densities[i].score(features)
        if scores.shape[1:] == shapes[i]:
            grids.append(scores)  # of the one block
            continue
        if i == len(grids):
            grids.append(scores.new_empty(len(images), *shapes[i]))
        grids[i][:, rows, columns] = scores
    return grids


def collect(
    parts: Iterable[Tensor], shape: tuple[int, ...], source: torch.device, target: torch.device | str
) -> Tensor:
    """Put results of batches one behind the other, on the device where they are wanted.

    From a GPU to the CPU each is copied while the next is worked on, and the end alone is waited for. On a GPU nothing
    is waited for.

    Args:
        parts: (n, ...) each, made on `source` as they are asked for, float32.
        shape: (N, ...) of the whole.
        source: where the parts are made.
        target: where the whole is wanted.

    Cost: from a GPU to the CPU, page-locked memory up to 256 MiB; a larger whole lies in ordinary memory, which each
        batch is waited for to be copied to.
    """
    target = torch.device(target)
    if source.type != "cuda" or target.type != "cpu":
        arrived = [part.to(target) for part in parts]
        return arrived[0] if len(arrived) == 1 else torch.cat([torch.empty(0, *shape[1:], device=target), *arrived])
    whole = torch.empty(shape, pin_memory=4 * math.prod(shape) <= _MOST_PINNED)
    copier, done = torch.cuda.Stream(source), 0  # type: ignore[no-untyped-call]
    for part in parts:
        copier.wait_stream(torch.cuda.current_stream(source))  # until it is made
        with torch.cuda.stream(copier):
            whole[done : done + len(part)].copy_(part, non_blocking=True)
        part.record_stream(copier)  # so that its memory is not another's before it is copied
        done += len(part)
    copier.synchronize()
    return whole


def check_finite(who: str, total: Tensor) -> None:
    """Raise unless the sum () of scores is finite: that of an image with a pixel that is not finite is not, either."""
    if not math.isfinite(total):
        raise ValueError(f"{who}: images of finite pixels required, got NaN or infinity")
