"""Blends: how a fill goes into a mask. Each gives the share of the fill, or mixes the two itself."""

import math

import torch
from torch import Tensor, nn

from fastcutpaste.op.blends import blend, distance_inside
from fastcutpaste.op.checks import Range, check_range
from fastcutpaste.op.poisson import poisson_blend


class Blend(nn.Module):
    """Say how; subclasses define `share`, or `forward` where a fill and an image are not just averaged.

    Attributes:
        numbers: how many random numbers an image takes, uniform in [0, 1).
    """

    numbers = 0

    def share(self, mask: Tensor, draws: Tensor) -> Tensor | None:
        """Give the share of the fill in a mask (B, 1, H, W), 0 to 1, of a shape that broadcasts to the mask's."""
        return None

    def forward(self, images: Tensor, fill: Tensor, mask: Tensor, draws: Tensor) -> Tensor:
        """Put a fill (B, C, H, W) or (B, C, 1, 1) into the masks (B, 1, H, W) of images (B, C, H, W)."""
        share = self.share(mask, draws)
        if share is None:
            raise TypeError(f"{type(self).__name__}: a subclass that defines share() or forward() required")
        return blend(images, fill, mask, share)


class Replace(Blend):
    """Put the fill in place of the image."""

    def share(self, mask: Tensor, draws: Tensor) -> Tensor:
        return torch.ones(len(mask), 1, 1, 1, dtype=torch.float32, device=mask.device)


class Feather(Blend):
    """Fade the fill in from the mask's edge.

    Args:
        pixels: from the edge to where nothing of the image is left, above 0 to 64.
    """

    def __init__(self, pixels: float = 4.0) -> None:
        super().__init__()
        if not 0 < pixels <= 64:
            raise ValueError(f"Feather: above 0 to 64 pixels required, got {pixels}")
        self.pixels = pixels

    def share(self, mask: Tensor, draws: Tensor) -> Tensor:
        distance = distance_inside(mask, math.ceil(self.pixels + 0.5))
        return (distance / self.pixels).clamp(max=1)


class Transparent(Blend):
    """Let the image show through the fill.

    Args:
        beta: smallest and largest share of the image, 0 to 1, drawn for each.
        normal: mean and standard deviation of a normal distribution, cut to `beta`; None: uniform.

    Source: Zavrtanik et al., "DRAEM", 2021, whose range is the default.
    """

    def __init__(self, beta: Range = (0.0, 0.8), normal: tuple[float, float] | None = None) -> None:
        super().__init__()
        check_range("Transparent", "beta", beta, 0.0, 1.0)
        if normal is not None and not (len(normal) == 2 and math.isfinite(normal[0]) and 0 <= normal[1] < math.inf):
            raise ValueError(f"Transparent: a mean and a standard deviation of at least 0 required, got {normal}")
        self.beta, self.normal, self.numbers = beta, normal, 1

    def share(self, mask: Tensor, draws: Tensor) -> Tensor:
        low, high = self.beta
        if self.normal is None:
            beta = draws[:, 0] * (high - low) + low
        else:
            mean, deviation = self.normal
            beta = mean + deviation * math.sqrt(2) * (draws[:, 0] * 2 - 1).clamp(min=-1 + 1e-6).erfinv()
            beta = beta.clamp(low, high)
        return (1 - beta).view(-1, 1, 1, 1)


class Poisson(Blend):
    """Blend by gradients, so that the fill takes the colors around it; pixels beside the mask change a little, too.

    Args:
        mixed: whether the image's gradients stay where they are the stronger ones.

    Source: Pérez et al. 2003; see `poisson_blend`.
    """

    def __init__(self, mixed: bool = False) -> None:
        super().__init__()
        self.mixed = mixed

    def forward(self, images: Tensor, fill: Tensor, mask: Tensor, draws: Tensor) -> Tensor:
        return poisson_blend(images, fill, mask, self.mixed)
