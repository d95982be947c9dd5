"""The paper's baselines: rectangles and strips of plain color, confetti, and quarter turns."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.op.checks import Range, check_images, memory_format_of, touches_little
from fastcutpaste.op.color import copied
from fastcutpaste.op.paste import Pasted, has_kernels
from fastcutpaste.op.rules import Rule
from fastcutpaste.op.textures import hashed
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar
from fastcutpaste.transforms.ruled import drawn

Color = Literal["black", "mean", "random"]


class Cutout(CutPaste):
    """Cover a rectangle of each image with one color: the paper's Cutout baselines.

    Args:
        color: "black", "mean" (of each image) or "random" (uniform in the color cube).
        area: smallest and largest area of the rectangle, fractions of the image.
        aspect: smallest and largest height : width.
        p: share of the images that get a rectangle.

    Source: Li et al. 2021, Table 4; DeVries and Taylor 2017.
    """

    def __init__(
        self, color: Color = "black", area: Range = (0.02, 0.15), aspect: Range = (0.3, 3.3), p: float = 1.0
    ) -> None:
        super().__init__(area, aspect, jitter=0.0, p=p)
        self.color = check_color(color)

    def rules(self) -> tuple[Rule, ...]:
        return self.ruled(self.rule()._replace(colored=1), Cutout)

    def fill(self, images: Tensor, draws: Tensor) -> Tensor:
        return plain_color(images, self.color, draws[:, 7:12])  # plain color has no use for jitter


class Scar(CutPasteScar):
    """Cover a thin turned strip of each image with one color: the paper's Scar baseline.

    Args:
        color: "black", "mean" (of each image) or "random" (uniform in the color cube).
        scar_width: thinnest and thickest scar, pixels of an image whose shorter side is `reference`.
        scar_length: shortest and longest scar, the same pixels.
        rotation: smallest and largest angle, degrees.
        reference: image side those pixels refer to; None: pixels as they are.
        p: share of the images that get a scar.

    Source: Li et al. 2021, Table 1, column "Scar".
    """

    def __init__(
        self,
        color: Color = "random",
        scar_width: Range = (2, 16),
        scar_length: Range = (10, 25),
        rotation: Range = (-45, 45),
        reference: int | None = 256,
        p: float = 1.0,
    ) -> None:
        super().__init__(scar_width, scar_length, rotation, reference, jitter=0.0, p=p)
        self.color = check_color(color)

    def rules(self) -> tuple[Rule, ...]:
        return self.ruled(self.rule()._replace(colored=1), Scar)

    def fill(self, images: Tensor, draws: Tensor) -> Tensor:
        return plain_color(images, self.color, draws[:, 7:12])  # plain color has no use for jitter


class QuarterTurn(nn.Module):
    """Turn square images by quarter turns: one class of the rotation-prediction baseline.

    Args:
        turns: number of quarter turns counter-clockwise, 1 to 3.

    Source: Gidaris et al. 2018, the "Rotation" baseline of Li et al. 2021.
    """

    def __init__(self, turns: int) -> None:
        super().__init__()
        if turns not in (1, 2, 3):
            raise ValueError(f"QuarterTurn: 1, 2 or 3 turns required, got {turns}")
        self.turns, self.numbers = turns, 0

    def augment(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Pasted:
        """Turn images (B, C, H, H) and give a mask (B, 1, H, H) that is True everywhere."""
        check_images("QuarterTurn", images)
        if images.shape[-2] != images.shape[-1]:
            raise ValueError(f"QuarterTurn: square images required, got {images.shape[-2]}×{images.shape[-1]}")
        mask = torch.ones_like(images[:, :1], dtype=torch.bool)
        turned = torch.rot90(images, self.turns, (-2, -1))
        return Pasted(turned.contiguous(memory_format=memory_format_of(images)), mask)

    def forward(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Tensor:
        """Turn images (B, C, H, H)."""
        return self.augment(images, generator, draws).images

    def extra_repr(self) -> str:
        return f"turns={self.turns}"


class Confetti(nn.Module):
    """Strew small squares of random colors over each image: the paper's confetti noise.

    Args:
        density: chance of each pixel to be the corner of a square, 0 to 1.
        side: largest side, pixels; each square is 1 to `side` wide. Where two overlap, the brighter color wins.

    Source: Liznerski et al. 2021 (FCDD); Li et al. 2021, Table 4.
    """

    def __init__(self, density: float = 0.002, side: int = 5) -> None:
        super().__init__()
        if not 0 <= density <= 1:
            raise ValueError(f"Confetti: density from 0 to 1 required, got {density}")
        if side < 1:
            raise ValueError(f"Confetti: side of at least 1 pixel required, got {side}")
        self.density, self.side, self.numbers = density, side, 1

    def augment(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Pasted:
        """Strew confetti over images (B, C, H, W) and give the mask (B, 1, H, W) of where it lies."""
        seeds = drawn(self, images, generator, draws)[:, 0]
        if has_kernels(images) and seeds.dtype == torch.float32 and not torch.compiler.is_compiling():
            from fastcutpaste.op.kernel_confetti import confetti_op

            return Pasted(*confetti_op(images, seeds, self.density, self.side))
        if touches_little(images):
            return self._strewn(images, seeds)
        shape = (1, images.shape[1] + 2, *images.shape[-2:])
        places = torch.arange(math.prod(shape), device=images.device).view(shape)
        noise = hashed(seeds.view(-1, 1, 1, 1), places)  # (B, C + 2, H, W)
        corner, sides = noise[:, :1] < self.density, noise[:, 1:2] * self.side
        colors = noise[:, 2:] + 1e-6  # never 0, which means no confetti
        confetti = torch.zeros_like(colors)
        for side in range(1, self.side + 1):
            ends = colors * (corner & (sides < side) & (sides >= side - 1))
            grown = F.max_pool2d(F.pad(ends, (side - 1, 0, side - 1, 0)), side, stride=1)
            confetti = torch.maximum(confetti, grown)
        mask = confetti.amax(1, keepdim=True) > 0
        strewn = torch.where(mask, _leveled(confetti, images.dtype), images)
        return Pasted(strewn.contiguous(memory_format=memory_format_of(images)), mask)

    def _strewn(self, images: Tensor, seeds: Tensor) -> Pasted:
        """Do the same on a CPU, where squares are instead of everywhere: 0.4 against 37 ms an image of 256²."""
        (batch, channels, height, width), near = images.shape, np.arange(self.side)
        area = height * width
        found = np.flatnonzero((hashed(seeds[:, None], torch.from_numpy(np.arange(area))) < self.density).numpy())
        image, corner = np.divmod(found, area)  # (n,)
        layers = torch.from_numpy(np.arange(1, channels + 2)[:, None] * area + corner)
        side, *colors = hashed(seeds[image], layers).numpy()  # (C + 1, n)
        side = side[:, None] * self.side
        row, column = (line[:, None] + near for line in np.divmod(corner, width))  # (n, side)
        there = ((side >= near) & (row < height))[:, :, None] & ((side >= near) & (column < width))[:, None]
        which, down, right = there.nonzero()
        places, ends = corner[which] + down * width + right, np.searchsorted(image[which], np.arange(batch + 1))
        strewn, mask = copied(images, 1), torch.zeros_like(images[:, :1], dtype=torch.bool)
        brightest = np.zeros(area, np.float32)
        for b, (pixels, marked) in enumerate(zip(strewn.numpy(), mask.numpy(), strict=True)):
            each = slice(ends[b], ends[b + 1])
            at = places[each]
            for plane, color in zip(pixels.reshape(channels, -1), colors, strict=True):
                np.maximum.at(brightest, at, color[which[each]] + np.float32(1e-6))
                plane[at] = _leveled(torch.from_numpy(brightest[at]), images.dtype).numpy()
                brightest[at] = 0
            marked.reshape(-1)[at] = True
        return Pasted(strewn, mask)

    def forward(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Tensor:
        """Strew confetti over images (B, C, H, W)."""
        return self.augment(images, generator, draws).images

    def extra_repr(self) -> str:
        return f"density={self.density}, side={self.side}"


def _leveled(confetti: Tensor, dtype: torch.dtype) -> Tensor:
    full = 255 if dtype == torch.uint8 else 1
    return (confetti * full).clamp(max=full).to(dtype)


def plain_color(images: Tensor, color: Color, draws: Tensor) -> Tensor:
    """Give one color (B, C, 1, 1) per image, of the images' dtype and range.

    Args:
        images: (B, C, H, W).
        color: "black", "mean" of each image, or "random", uniform in the color cube.
        draws: (B, n) uniform in [0, 1), n at least C where the color is random.

    Raises:
        ValueError: a random color of more channels than draws.
    """
    shape = (*images.shape[:2], 1, 1)
    if color == "black":
        return images.new_zeros(shape)
    if color == "mean":
        mean = images.mean((-2, -1), keepdim=True, dtype=torch.float32)
        return (mean.round() if images.dtype == torch.uint8 else mean).to(images.dtype)
    if images.shape[1] > draws.shape[1]:
        raise ValueError(f"random color: at most {draws.shape[1]} channels required, got {images.shape[1]}")
    levels = draws[:, : images.shape[1], None, None]  # (B, C, 1, 1)
    return (levels * 256).to(torch.uint8) if images.dtype == torch.uint8 else levels.to(images.dtype)


def check_color(color: Color) -> Color:
    """Give the word, and raise unless it is one."""
    if color not in ("black", "mean", "random"):
        raise ValueError(f"color: 'black', 'mean' or 'random' required, got {color!r}")
    return color
