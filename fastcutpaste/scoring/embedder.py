"""From images to the features of their patches, a few images or rows of the grid at a time: memory is bounded."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fastcutpaste.networks.backbone import Network, autocast
from fastcutpaste.networks.patchnet import STEP
from fastcutpaste.op.color import level_brightness
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import continue_edges, embed_densely, embed_patches, fitting_chunk, slabs


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

    def batches(self, images: Tensor) -> list[Tensor]:
        """Split images (N, 3, H, W) into batches that are worked on at a time, at least one."""
        height, width = images.shape[-2:]
        count = self._pixels // (height * width)
        if self.config.patch is None:
            count = self.config.chunk or fitting_chunk(max(height, width), self.device)
        return list(torch.split(images, max(1, count)))

    def levelled(self, images: Tensor) -> Tensor:
        """Bring images (B, 3, H, W) to the brightness where the config says so."""
        return level_brightness(images, self.brightness) if self.config.level else images

    def continued(self, images: Tensor) -> Tensor:
        """Level images (B, 3, H, W), and continue their edges, as the config says."""
        return continue_edges(self.levelled(images), self.config.margin)

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
            if network.field is None or stride % STEP:
                embedded = embed_patches(images, network.embed, patch=patch, stride=stride, chunk=self.config.chunk)
            else:
                embedded = embed_densely(
                    images, network.embed_map, patch=patch, stride=stride, field=network.field, step=STEP
                )
            return embedded.float()

    def rows(self, images: Tensor) -> Iterator[Tensor]:
        """Give the features (B, rows, w, D) of the grid of continued images, as many rows at a time as fit."""
        patch, stride, (height, width) = self._patch, self.config.stride, images.shape[-2:]
        rows = max(1, (self._pixels // width - patch) // stride + 1)
        if self.config.density == "location":
            rows = height  # it scores the whole grid at once
        yield from (self.embed(slab) for slab in slabs(images, patch, stride, rows))

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
