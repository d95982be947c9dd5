"""From images to the features of their patches, a few images or rows of the grid at a time: memory is bounded."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from fastcutpaste.networks.backbone import Network, autocast
from fastcutpaste.networks.patchnet import STEP
from fastcutpaste.op.color import brightness_of, level_brightness
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import (
    blocks,
    continued_window,
    embed_densely,
    embed_patches,
    fitting_chunk,
    grid_shape,
    slabs,
    widen_patches,
)
from fastcutpaste.scoring.tiles import check_own_scale, cut_tiles


class Embedder:
    """Embed the patches of images, or whole images, as the config says.

    A network without padding (PatchNet) embeds all patches in one pass, if the stride allows; any other one patch by
    patch.

    Args:
        network: on the device to compute on.
        config: size of the patches, their grid, and how many to take at a time.
        brightness: to which images are brought where the config says so, 0–1.
    """

    def __init__(self, network: Network, config: DetectorConfig, brightness: float = math.nan) -> None:
        self.network, self.config, self.brightness = network, config, brightness

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.mean.device

    def batches(self, images: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
        """Split images (N, 3, H, W) into batches that are worked on at a time, at least one.

        Those of a detector that does not resize, (3, H, W) each, come one by one, or as the tiles of each.
        """
        if not isinstance(images, Tensor) or not self.config.resize:
            return self._at_own_scale(images)
        height, width = images.shape[-2:]
        count = self._pixels // (height * width)
        if self.config.patch is None:
            count = self.config.chunk or fitting_chunk(max(height, width), self.device)
        return list(torch.split(images, max(1, count)))

    def _at_own_scale(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        for image in images:
            check_own_scale(image, self.config)
            yield from cut_tiles(image, self.config) if self.config.patch is None else [image[None]]

    def levelled(self, images: Tensor) -> Tensor:
        """Bring images (B, 3, H, W) to the brightness where the config says so."""
        return level_brightness(images, self.brightness) if self.config.level else images

    def embed(self, images: Tensor, stride: int | None = None) -> Tensor:
        """Give features (B, h, w, D) of the patches of images, or (B, D) of whole images; float32.

        Args:
            images: (B, 3, H, W), with their edges continued where that is wanted.
            stride: pixels between the patches; that of the config if None.
        """
        images, patch, stride = images.to(self.device), self.config.patch, stride or self.config.stride
        network = self.network
        with torch.inference_mode(), autocast(self.device):
            if patch is None:
                return network.embed(images).float()
            apart = stride >= patch  # then a pass over the image would be mostly for nothing
            if network.field is None or stride % STEP or apart:
                embedded = embed_patches(images, network.embed, patch=patch, stride=stride, chunk=self.config.chunk)
            else:
                embedded = embed_densely(
                    images, network.embed_map, patch=patch, stride=stride, field=network.field, step=STEP
                )
            return embedded.float()

    def blocks(self, images: Tensor, stride: int | None = None) -> Iterator[tuple[slice, slice, Tensor]]:
        """Give the features of the grid of images a block at a time, without seams.

        Args:
            images: (B, 3, H, W), neither levelled nor continued yet: that is done block by block.
            stride: pixels between the patches; that of the config if None.

        Yields:
            Rows and columns of a block of the grid, and features (B, rows, columns, D): of as many more patches below
            and to the right of it as are in the largest areas that begin in the block.
        """
        patch, margin, stride = self._patch, self.config.margin, stride or self.config.stride
        height, width = (length + 2 * margin for length in images.shape[-2:])
        grid, side = grid_shape(height, width, patch, stride), max(self.config.sides)
        more = (side - patch) // stride
        means = brightness_of(images) if self.config.level else None
        pixels = height * width if self.config.density == "location" else self._pixels  # it scores a whole grid at once
        for rows, columns in blocks(grid, side, stride, pixels):
            (top, bottom), (left, right) = (
                (part.start * stride, (min(part.stop + more, count) - 1) * stride + patch)
                for part, count in zip((rows, columns), grid, strict=True)
            )
            window = continued_window(images, margin, (top, bottom), (left, right)).to(self.device)
            if means is not None:
                window = level_brightness(window, self.brightness, means.to(self.device))
            yield rows, columns, self.embed(window, stride)

    def squares(self, images: Tensor) -> Iterator[tuple[int, slice, slice, Tensor]]:
        """Give the features of all squares of images (B, 3, H, W) that are scored, a block at a time.

        Yields:
            Which of `config.sides`, rows and columns of a block of its grid, and features (B, rows, columns, D).
        """
        shapes = [self.config.grid_of(side, (images.shape[-2], images.shape[-1])) for side in self.config.sides]
        for *block, features in self.blocks(images):
            for i, (side, shape) in enumerate(zip(self.config.sides, shapes, strict=True)):
                rows, columns = (
                    slice(part.start, min(part.stop, count)) for part, count in zip(block, shape, strict=True)
                )
                h, w = rows.stop - rows.start, columns.stop - columns.start
                if min(h, w) > 0:  # else no square of this side begins here
                    yield i, rows, columns, widen_patches(features, self.config.patches_along(side))[:, :h, :w]

    def slabs_of_all(self, images: Tensor) -> list[Tensor]:
        """Cut all continued images into slabs (N, 3, S, W) of few enough rows of the grid to hold one's features."""
        rows = max(1, 2**26 // (len(images) * self.config.grid[1] * self.network.features))  # 256 MiB of float32
        return slabs(images, self._patch, self.config.stride, rows)

    def embed_all(self, slab: Tensor) -> Tensor:
        """Give the features (N, rows, w, D) of a slab of all images."""
        return torch.cat([self.embed(batch) for batch in self.batches(slab)])

    @property
    def _patch(self) -> int:
        assert self.config.patch is not None
        return self.config.patch

    @property
    def _pixels(self) -> int:
        """Give how many pixels to work on at a time; on a CPU few enough to stay in the cache."""
        return 2**18 if self.device.type == "cpu" else 2**22
