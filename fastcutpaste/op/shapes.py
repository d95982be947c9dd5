"""Shapes of masks: blobs, scratches and noise above a threshold; numbers (B,) an image in, bool (B, 1, H, W) out."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcutpaste.op.checks import touches_little
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
    cells, angle = cells.float(), angle.float()  # as the gradients are, of draws of any type
    # Once for the gradients' rows and once for their columns, beside each other: cat would be launches of its own.
    twice = torch.arange(2 * (most + 1), device=seeds.device)
    lines, block = twice % (most + 1), twice // (most + 1)
    first = block == 0
    corners = hashed(seeds[:, None, None], lines[:, None] * (most + 1) + lines) * (2 * math.pi)  # (B, 2·n, 2·n)
    gradients = torch.where(first, corners.sin(), corners.cos()) * (block[:, None] == block)
    # Of rows and of columns together: (B, 2, length, 2·n).
    axis, length = torch.arange(2, device=seeds.device).view(2, 1, 1), max(size)
    sides = torch.where(axis[..., 0] == 0, size[0], size[1])
    along = torch.arange(length, dtype=torch.float32, device=seeds.device) / sides * cells[..., None]  # in cells
    beyond = along[..., None] - lines  # from each line
    near = (1 - beyond.abs()).clamp(min=0)
    faded = near**3 * (near * (near * 6 - 15) + 10)
    weights = faded * torch.where(block == axis, beyond, 1)
    rows, columns = weights[:, 0, : size[0]], weights[:, 1, : size[1]]
    noise = rows @ gradients @ columns.mT * math.sqrt(2)  # (B, H, W)
    return _turned(noise[:, None], angle)


def _turned(field: Tensor, angle: Tensor) -> Tensor:
    """Turn a field (B, 1, H, W) by degrees (B,) counter-clockwise about its middle, bilinear, 0 outside."""
    height, width = field.shape[-2:]
    radians = angle.deg2rad().view(-1, 1, 1, 1)
    down = (torch.arange(height, dtype=torch.float32, device=field.device) + 0.5 - height / 2).view(-1, 1)
    right = torch.arange(width, dtype=torch.float32, device=field.device) + 0.5 - width / 2
    is_x = (torch.arange(2, device=field.device) == 0).view(-1, 1, 1)
    to_x, to_y = 2 / width, 2 / height  # -1 to 1 across the field
    # Both coordinates at once, and what depends on one of rows and columns before what depends on both: (B, 2, H, W).
    along = torch.where(is_x, right * radians.cos() * to_x, right * radians.sin() * to_y)
    grid = along + torch.where(is_x, down * -radians.sin() * to_x, down * radians.cos() * to_y)
    return F.grid_sample(field, grid.permute(0, 2, 3, 1), align_corners=False)


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

    reach = radius * tall * (1 + heights.sqrt().sum(1))
    return _around(_in_blob, (angle, tall * radius, tall / radius, waves), centre, reach, size, count)


def _in_blob(down: Tensor, right: Tensor, angle: Tensor, longer: Tensor, thinner: Tensor, waves: Tensor) -> Tensor:
    """Tell which offsets (N, 1, h, w) lie inside ellipses of half axes `longer` and 1 / `thinner`, and their waves."""
    along, across = _in_axes(down, right, angle)
    x, y = along / _each(longer), across * _each(thinner)
    far = (x.square() + y.square()).sqrt()
    cosine, sine = x / far.clamp(min=1e-6), y / far.clamp(min=1e-6)
    reach, real, imaginary = torch.ones_like(far), cosine, sine
    for k in range(waves.shape[1]):
        real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine  # of k + 2 waves
        reach = reach + real * _each(waves[:, k, 0]) + imaginary * _each(waves[:, k, 1])
    return far <= reach


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

    reach = length * (0.25 + bend.square()).sqrt() + width
    return _around(_in_scratch, (length, width, bend, angle, phase), centre, reach, size, 1)


def _in_scratch(
    down: Tensor, right: Tensor, length: Tensor, width: Tensor, bend: Tensor, angle: Tensor, phase: Tensor
) -> Tensor:
    """Tell which offsets (N, 1, h, w) lie on scratches."""
    along, across = _in_axes(down, right, angle)
    half_length, height = _each(length / 2), _each(bend * length)
    t = along / half_length  # -1 to 1 from end to end
    for _ in range(2):  # to the closest point of the curve, along its tangent: steep arcs would have gaps else
        slope, above = _each(-4 * bend) * t, across - height * (1 - t.square())
        t = t + (along - t * half_length + slope * above) / (1 + slope.square()) / half_length
    distance = (along - t * half_length).square() + (across - height * (1 - t.square())).square()
    varied = (3 + (t * (2 * math.pi) + _each(phase)).cos()) / 4
    half = (_each(width / 2) * (1 - t**4) * varied).clamp(min=0.5)  # thinner ones would have gaps
    return (distance <= half.square()) & (t.abs() <= 1)


def _each(numbers: Tensor) -> Tensor:
    return numbers.view(-1, 1, 1, 1)


def _in_axes(down: Tensor, right: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give offsets along and across an axis that is turned counter-clockwise."""
    radians = _each(angle.deg2rad())
    cosine, sine = radians.cos(), radians.sin()
    return right * cosine - down * sine, right * sine + down * cosine


def _around(
    inside: Callable[..., Tensor], shapes: tuple[Tensor, ...], centre: Tensor, reach: Tensor, size: tuple[int, int],
    count: int,
) -> Tensor:  # fmt: skip
    """Ask of every pixel whether its offset from one of `count` centres is inside: bool (B, 1, H, W).

    On a CPU only of squares as large as a shape's reach (B·count,), since a core pays for every pixel. Shapes of about
    the same reach are asked together.
    """
    total, device, (height, width) = len(centre), centre.device, size
    if not touches_little(centre) or not total:
        down = torch.arange(height, device=device).view(-1, 1) - _each(centre[:, 0])
        found = inside(down, torch.arange(width, device=device) - _each(centre[:, 1]), *shapes)  # (B·count, 1, H, W)
        return found if count == 1 else found.view(total // count, count, height, width).any(1, keepdim=True)
    mask = np.zeros((total // count, 1, height, width), bool)  # NumPy's slices cost a tenth of torch's
    for group in _alike(reach):
        most = math.ceil(float(reach[group[0]])) + 1
        sides = min(2 * most + 1, height), min(2 * most + 1, width)
        room = torch.tensor([height - sides[0], width - sides[1]], device=device)
        corner = torch.minimum((centre[group].round().long() - most).clamp(min=0), room)  # of squares inside the image
        lines = (torch.arange(side, device=device) for side in sides)
        down, right = (corner[:, i, None] + line - centre[group][:, i, None] for i, line in enumerate(lines))
        found = inside(down[:, None, :, None], right[:, None, None], *(field[group] for field in shapes))
        for i, (top, left), square in zip(group, corner.tolist(), found[:, 0].numpy(), strict=True):
            mask[i // count, 0, top : top + sides[0], left : left + sides[1]] |= square
    return torch.from_numpy(mask)


def _alike(reach: Tensor) -> list[list[int]]:
    """Give groups of those whose reach is above 0 and at least three quarters of the group's largest, its first."""
    groups: list[list[int]] = []
    each, order = reach.tolist(), reach.argsort(descending=True).tolist()
    for i in order:
        if each[i] > 0:
            alike = groups and each[i] >= 0.75 * each[groups[-1][0]]
            groups[-1].append(i) if alike else groups.append([i])
    return groups
