"""The images that everything is timed on: photographed texture in color."""

import torch
from torch import Tensor

from fastcutpaste.images.textures import make_demo


def make_photographs(count: int, size: int = 256) -> Tensor:
    """Give real texture, uint8 (count, 3, size, size), tinted so that hue and saturation have work to do."""
    bricks = make_demo("brick", train_count=count).train.float()
    tints = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.6
    return torch.nn.functional.interpolate(bricks * tints, (size, size)).clamp(0, 255).to(torch.uint8)
