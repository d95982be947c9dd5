"""Shapes of masks: blobs, scratches and noise above a threshold; numbers (B,) an image in, bool (B, 1, H, W) out."""

import math
from collections.abc import Callable

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
    lines = torch.arange(most + 1, device=seeds.device)
    corners = hashed(seeds[:, None, None], lines[:, None] * (most + 1) + lines) * (2 * math.pi)  # (B, n, n)
    weights, slopes = [], []
    for i, length in enumerate(size):
        along = torch.arange(length, device=seeds.device) / length * cells[:, i, None]  # (B, length), in cells
        beyond = along[..., None] - lines  # (B, length, n), from each line
        near = (1 - beyond.abs()).clamp(min=0)
        weights.append(near**3 * (near * (near * 6 - 15) + 10))
        slopes.append(weights[-1] * beyond)
    left = torch.cat([slopes[0] @ corners.sin(), weights[0] @ corners.cos()], dim=-1)  # (B, H, 2·n)
    noise = left @ torch.cat([weights[1], slopes[1]], dim=-1).mT * math.sqrt(2)  # (B, H, W)
    return _turned(noise[:, None], angle)


def _turned(field: Tensor, angle: Tensor) -> Tensor:
    """Turn a field (B, 1, H, W) by degrees (B,) counter-clockwise about its middle, bilinear, 0 outside."""
    height, width = field.shape[-2:]
    radians = angle.deg2rad().view(-1, 1, 1)
    down = (torch.arange(height, device=field.device) + 0.5 - height / 2).view(-1, 1)
    right = torch.arange(width, device=field.device) + 0.5 - width / 2
    x = (right * radians.cos() - down * radians.sin()) * (2 / width)  # (B, H, W), -1 to 1 across the field
    y = (right * radians.sin() + down * radians.cos()) * (2 / height)
    return F.grid_sample(field, torch.stack([x, y], dim=-1), align_corners=False)


def blob(centre: Tensor, area: Tensor, stretch: Tensor, angle: Tensor, waves: Tensor, size: tuple[int, int]) -> Tensor:
    """Give smooth closed shapes: ellipses whose radius waves along the angle.

    Args:
        centre: (B, 2) row and column, pixels.
        area: (B,) pixels.
        stretch: (B,) length : width.
        angle: (B,) degrees counter-clockwise, of the longer axis.
        waves: (B, K, 2) cosine and sine of 2 … K + 1 waves, shares of the radius, the amplitudes' sum at most 1.
        size: (height, width).
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

    return _around(inside, centre, radius * tall * (1 + heights.sqrt().sum(1)), size)


def scratch(
    centre: Tensor, length: Tensor, width: Tensor, bend: Tensor, angle: Tensor, phase: Tensor, size: tuple[int, int]
) -> Tensor:
    """Give scratches: parabolas that taper to their ends and whose width varies on the way.

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
        return distance <= _each(width / 2) * (1 - t**4) * varied

    return _around(inside, centre, length * (0.25 + bend.square()).sqrt() + width, size)


def _each(numbers: Tensor) -> Tensor:
    return numbers.view(-1, 1, 1, 1)


def _in_axes(down: Tensor, right: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give offsets along and across an axis that is turned counter-clockwise."""
    radians = _each(angle.deg2rad())
    cosine, sine = radians.cos(), radians.sin()
    return right * cosine - down * sine, right * sine + down * cosine


def _around(inside: Callable[[Tensor, Tensor], Tensor], centre: Tensor, reach: Tensor, size: tuple[int, int]) -> Tensor:
    """Ask of every pixel whether its offset from the centre (B, 2) is inside: bool (B, 1, H, W).

    On a CPU only of squares as large as the farthest reach (B,), since a core pays for every pixel.
    """
    batch, device, (height, width) = len(centre), centre.device, size
    if not touches_little(centre) or not batch:
        down = torch.arange(height, device=device).view(-1, 1) - centre[:, 0].view(-1, 1, 1, 1)
        return inside(down, torch.arange(width, device=device) - centre[:, 1].view(-1, 1, 1, 1))
    most = min(math.ceil(float(reach.max())) + 1, max(height, width))
    corner = centre.round().long() - most
    steps = torch.arange(2 * most + 1)
    down = (corner[:, :1] + steps).sub(centre[:, :1]).view(batch, 1, -1, 1)
    found = inside(down, (corner[:, 1:] + steps).sub(centre[:, 1:]).view(batch, 1, 1, -1))
    mask = torch.zeros(batch, 1, height, width, dtype=torch.bool)
    for b, (top, left) in enumerate(corner.tolist()):
        above, beside = max(-top, 0), max(-left, 0)
        part = found[b, 0, above : max(height - top, 0), beside : max(width - left, 0)]
        mask[b, 0, top + above : top + above + part.shape[0], left + beside : left + beside + part.shape[1]] = part
    return mask
