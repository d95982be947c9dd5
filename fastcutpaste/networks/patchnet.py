"""PatchNet: a network without padding, so that one pass over an image gives the features of all its patches.

With padding, what a network sees of a patch depends on where the patch ends, and a pass over the image is not a pass
over its patches. Without padding, and with a receptive field no larger than the patch, the final map of every patch is
a window of the image's final map: the work of overlapping patches is done once, and nothing else changes.
"""

import torch
from torch import Tensor, nn

from fastcutpaste.networks.pooling import MeanPool

STEP = 4  # pixels from one position of the final map to the next
SMALLEST_PATCH = 19  # pixels: the stem and one convolution
_STEM_FIELD = 11  # pixels a position sees after the stem: 7, and 2 · 2 more by the pooling
_WIDTHS = (64, 128, 256)  # channels of the blocks


class PatchNet(nn.Module):
    """Map normalized images (B, 3, H, W) to maps (B, 256, (H - field) // 4 + 1, (W - field) // 4 + 1).

    A 7×7 convolution and a 3×3 mean, both with stride 2, then residual blocks of 64, 128 and 256 channels that
    share as many 3×3 convolutions as the patch has room for, all without padding; the shortcuts are cropped. The mean
    of a patch's window of the map is its feature.

    Args:
        patch: side of the patches it is to score, pixels, at least 19; 64 makes two convolutions a block, 32 one in
            each of the last two.

    Attributes:
        field: side of what one position of the map sees, pixels, at most `patch`: 59 for 64, 27 for 32.

    Raises:
        ValueError: a patch that is too small.
    """

    def __init__(self, patch: int = 64) -> None:
        super().__init__()
        if patch < SMALLEST_PATCH:
            raise ValueError(f"PatchNet: a patch of at least {SMALLEST_PATCH} pixels required, got {patch}")
        count = (patch - _STEM_FIELD) // (2 * STEP)  # a 3×3 convolution adds twice the step to the field
        self.field = _STEM_FIELD + 2 * STEP * count
        width = _WIDTHS[0]
        layers: list[nn.Module] = [*_convolution(3, width, 7, 2), nn.ReLU(), MeanPool(3, 2)]
        for i, after in enumerate(_WIDTHS):
            share = (count + i) // len(_WIDTHS)  # the later blocks get what is left over
            if share:
                layers.append(_Block(width, after, share))
                width = after
        self.layers = nn.Sequential(*layers)

    def forward(self, normalized: Tensor) -> Tensor:
        maps: Tensor = self.layers(normalized)
        return maps


class _Block(nn.Module):
    """Some 3×3 convolutions without padding, beside a shortcut that is cropped to what they leave."""

    def __init__(self, before: int, after: int, count: int) -> None:
        super().__init__()
        layers = _convolution(before, after, 3)
        for _ in range(count - 1):
            layers += [nn.ReLU(), *_convolution(after, after, 3)]
        self.border = count  # pixels that they leave off on every side
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if before == after else nn.Sequential(*_convolution(before, after, 1))

    def forward(self, maps: Tensor) -> Tensor:
        cropped = maps[..., self.border : -self.border, self.border : -self.border]
        return torch.relu(self.layers(maps) + self.shortcut(cropped))


def _convolution(before: int, after: int, side: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, side, stride, bias=False), nn.BatchNorm2d(after)]
