"""Shapes of masks: blobs, scratches and noise above a threshold; numbers (B,) an image in, bool (B, 1, H, W) out."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcutpaste.op.blends import touches_little
from fastcutpaste.op.textures import hashed


def perlin(seeds: Tensor, cells: Tensor, angle: Tensor, size: tuple[int, int], most: int) -> Tensor:
    """Give Perlin noise, turned about the middle; what a turn brings in from outside is 0.

    Args:
        seeds: (B,) in [0, 1), of the gradients on the corners of cells.
        cells: (B, 2) how many along the height and the width, at most `most`.
        angle: (B,) degrees counter-clockwise.
        size: (height, width).
        most: cells along a side.

    Returns:
        (B, 1, H, W) float32, about -1 to 1.

    Cost: two products of matrices, no gather: each pixel's weights of the corner lines, 0 of all but two, times the
        gradients. With 32 cells that is 5 million multiplications an image of 256².

    Source: Perlin 2002; turned and cut at a threshold as in Zavrtanik et al., "DRAEM", 2021.
    """
    # Once for the gradients' rows and once for their columns, beside each other: cat would be launches of its own.
    twice = torch.arange(2 * (most + 1), device=seeds.device)
    lines, block = twice % (most + 1), twice // (most + 1)
    first = block == 0
    corners = hashed(seeds[:, None, None], lines[:, None] * (most + 1) + lines) * (2 * math.pi)  # (B, 2·n, 2·n)
    gradients = torch.where(first, corners.sin(), corners.cos()) * (block[:, None] == block)
    weights = []
    for i, (length, sloping) in enumerate(zip(size, (first, ~first), strict=True)):
        along = torch.arange(length, device=seeds.device) / length * cells[:, i, None]  # (B, length), in cells
        beyond = along[..., None] - lines  # (B, length, 2·n), from each line
        near = (1 - beyond.abs()).clamp(min=0)
        faded = near**3 * (near * (near * 6 - 15) + 10)
        weights.append(faded * torch.where(sloping, beyond, 1))
    noise = weights[0] @ gradients @ weights[1].mT * math.sqrt(2)  # (B, H, W)
    return _turned(noise[:, None], angle)


def _turned(field: Tensor, angle: Tensor) -> Tensor:
    """Turn a field (B, 1, H, W) by degrees (B,) counter-clockwise about its middle, bilinear, 0 outside."""
    height, width = field.shape[-2:]
    radians = angle.deg2rad().view(-1, 1, 1)
    down = (torch.arange(height, device=field.device) + 0.5 - height / 2).view(-1, 1)
    right = torch.arange(width, device=field.device) + 0.5 - width / 2
    x = (right * radians.cos() - down * radians.sin()) * (2 / width)  # (B, H, W), -1 to 1 across the field
    y = (right * radians.sin() + down * radians.cos()) * (2 / height)
    is_x = torch.arange(2, device=field.device) == 0  # stack would be a launch of its own where this is compiled
    return F.grid_sample(field, torch.where(is_x, x[..., None], y[..., None]), align_corners=False)


def blob(
    centre: Tensor, area: Tensor, stretch: Tensor, angle: Tensor, waves: Tensor, size: tuple[int, int], count: int = 1
) -> Tensor:
    """Give smooth closed shapes: ellipses whose radius waves along the angle; `count` together make a mask.

    Args:
        centre: (B·count, 2) row and column, pixels, those of a mask one after another.
        area: (B·count,) pixels; 0: none.
        stretch: (B·count,) length : width.
        angle: (B·count,) degrees counter-clockwise, of the longer axis.
        waves: (B·count, K, 2) cosine and sine of 2 … K + 1 waves, shares of the radius, the amplitudes' sum at most 1.
        size: (height, width).
        count: shapes a mask.
    """
    heights = waves.square().sum(-1)  # (B, K), squares of the amplitudes
    radius = (area / math.pi / (1 + heights.sum(1) / 2)).sqrt()  # so that the area is as asked for
    tall = stretch.sqrt()

    def inside(down: Tensor, right: Tensor) -> Tensor:
        along, across = _in_axes(down, right, angle)
        x, y = along / _each(tall * radius), across * _each(tall / radius)
        far = (x.square() + y.square()).sqrt()
        cosine, sine = x / far.clamp(min=1e-6), y / far.clamp(min=1e-6)
        reach, real, imaginary = torch.ones_like(far), cosine, sine
        for k in range(waves.shape[1]):
            real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine  # of k + 2 waves
            reach = reach + real * _each(waves[:, k, 0]) + imaginary * _each(waves[:, k, 1])
        return far <= reach

    return _around(inside, centre, radius * tall * (1 + heights.sqrt().sum(1)), size, count)


def scratch(
    centre: Tensor, length: Tensor, width: Tensor, bend: Tensor, angle: Tensor, phase: Tensor, size: tuple[int, int]
) -> Tensor:
    """Give scratches: parabolas that taper to their ends, to a pixel, and whose width varies on the way.

    Args:
        centre: (B, 2) row and column, pixels, of the middle of the chord.
        length: (B,) of the chord, pixels.
        width: (B,) where it is widest, pixels.
        bend: (B,) height of the arc : length.
        angle: (B,) degrees counter-clockwise.
        phase: (B,) radians, of the width's waves.
        size: (height, width).
    """

    def inside(down: Tensor, right: Tensor) -> Tensor:
        along, across = _in_axes(down, right, angle)
        t = along / _each(length / 2)  # -1 to 1 from end to end
        arc, slope = _each(bend * length) * (1 - t.square()), _each(-4 * bend) * t
        distance = (across - arc).abs() / (1 + slope.square()).sqrt()  # from the curve, nearly
        varied = (3 + (t * (2 * math.pi) + _each(phase)).cos()) / 4
        half = (_each(width / 2) * (1 - t**4) * varied).clamp(min=0.5)  # thinner ones would have gaps
        return (distance <= half) & (t.abs() <= 1)

    return _around(inside, centre, length * (0.25 + bend.square()).sqrt() + width, size, 1)


def _each(numbers: Tensor) -> Tensor:
    return numbers.view(-1, 1, 1, 1)


def _in_axes(down: Tensor, right: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give offsets along and across an axis that is turned counter-clockwise."""
    radians = _each(angle.deg2rad())
    cosine, sine = radians.cos(), radians.sin()
    return right * cosine - down * sine, right * sine + down * cosine


def _around(
    inside: Callable[[Tensor, Tensor], Tensor], centre: Tensor, reach: Tensor, size: tuple[int, int], count: int
) -> Tensor:
    """Ask of every pixel whether its offset from one of `count` centres is inside: bool (B, 1, H, W).

    On a CPU only of squares as large as the farthest reach (B·count,), since a core pays for every pixel.
    """
    total, device, (height, width) = len(centre), centre.device, size
    if not touches_little(centre) or not total:
        down = torch.arange(height, device=device).view(-1, 1) - _each(centre[:, 0])
        found = inside(down, torch.arange(width, device=device) - _each(centre[:, 1]))  # (B·count, 1, H, W)
        return found if count == 1 else found.view(total // count, count, height, width).any(1, keepdim=True)
    most = min(math.ceil(float(reach.max())) + 1, max(height, width))
    corner = centre.round().long() - most
    steps = torch.arange(2 * most + 1)
    down = (corner[:, :1] + steps).sub(centre[:, :1]).view(total, 1, -1, 1)
    found = inside(down, (corner[:, 1:] + steps).sub(centre[:, 1:]).view(total, 1, 1, -1))
    mask = np.zeros((total // count, 1, height, width), bool)  # NumPy's slices cost a tenth of torch's
    for i, ((top, left), square) in enumerate(zip(corner.tolist(), found[:, 0].numpy(), strict=True)):
        above, beside = max(-top, 0), max(-left, 0)
        part = square[above : max(height - top, 0), beside : max(width - left, 0)]
        mask[i // count, 0, top + above :, left + beside :][: part.shape[0], : part.shape[1]] |= part
    return torch.from_numpy(mask)
