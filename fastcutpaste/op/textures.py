"""What a mask is filled with: pixels read out of images, noise, and patterns made of formulas.

All is asked for by coordinates: of every pixel where whole images are computed, of the masked pixels alone on a CPU.
`image`, `row` and `column` are int64 tensors that broadcast to one shape (…); what comes back is (…, C).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastcutpaste.op.checks import touches_little
from fastcutpaste.op.slices import Array
from fastcutpaste.op.spots import Spot, pick


class Place(NamedTuple):
    """Say for each image, in fields of shape (B,), how another is laid over it, middle upon middle."""

    which: Tensor  # int64, the one that is read
    down: Tensor  # float32, rows by which it is read below its middle
    right: Tensor  # float32, columns
    zoom: Tensor | None = None  # float32, above 1: larger than it is
    flip_y: Tensor | None = None  # float32, -1: upside down, or 1
    flip_x: Tensor | None = None  # float32
    turn: Tensor | None = None  # bool, whether its rows and columns change places: with the flips, quarter turns

    def map(self, change: Callable[[Tensor], Tensor]) -> "Place":
        """Give the place with `change` applied to every field that there is."""
        return Place._make(None if field is None else change(field) for field in self)


def read(source: Tensor, place: Place, size: tuple[int, int], image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Read pixels of images as they are laid over those of a batch: the nearest one, mirrored beyond the border.

    Args:
        source: (N, C, h, w), what is read.
        place: how it is laid over each image of the batch.
        size: (height, width) of the batch's images.
        image, row, column: as the module says.

    Returns:
        (…, C) of the source's type.
    """
    y, x = row.float() + (0.5 - size[0] / 2), column.float() + (0.5 - size[1] / 2)  # from the middle
    place = place.map(lambda field: field[image])
    if place.turn is not None:
        y, x = torch.where(place.turn, x, y), torch.where(place.turn, y, x)
    rows, columns = _lines(place, y, x, source)
    return source[place.which, :, rows, columns]


def read_spots(source: Tensor, place: Place, size: tuple[int, int], spots: list[Spot]) -> Array:
    """Read as `read` does what spots cover, on a CPU: (C, n) of the source's type.

    Which row is read depends on the row alone, or turned on the column alone: no pixel is computed, only looked up.
    """
    count, channels, _, width = source.shape
    y, x = (torch.arange(length, dtype=torch.float32, device=source.device) + (0.5 - length / 2) for length in size)
    place = place.map(lambda field: field[:, None])
    upright = [lines.numpy() for lines in _lines(place, y, x, source)]  # (B, H) and (B, W)
    turned = upright if place.turn is None else [lines.numpy() for lines in _lines(place, x, y, source)]
    turns = np.zeros(len(place.which), bool) if place.turn is None else place.turn[:, 0].numpy()
    which, images, pixels = place.which[:, 0].tolist(), source.numpy().reshape(count, channels, -1), []
    for spot in spots:
        row, column = spot.lines(size[1])
        turn = turns[spot.image]
        rows, columns = (lines[spot.image] for lines in (turned if turn else upright))
        index = rows[column] * width + columns[row] if turn else rows[row] * width + columns[column]
        pixels.append(pick(images[which[spot.image]], index.ravel()))
    return np.concatenate(pixels, 1)


def _lines(place: Place, y: Tensor, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Give rows and columns that are read where y and x are the offsets from the middle, after a turn."""
    if place.flip_y is not None and place.flip_x is not None:
        y, x = y * place.flip_y, x * place.flip_x
    if place.zoom is not None:
        y, x = y / place.zoom, x / place.zoom
    return _mirrored(y + place.down, source.shape[-2]), _mirrored(x + place.right, source.shape[-1])


def _mirrored(position: Tensor, length: int) -> Tensor:
    """Turn positions about the middle into indices 0 … length - 1, mirrored at either end as often as it takes."""
    index = (position + length / 2).floor().long() % (2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)


def hashed(seeds: Tensor, positions: Tensor) -> Tensor:
    """Spread numbers in [0, 1) over a field of them, by a hash of seed and position.

    Args:
        seeds: float tensor in [0, 1).
        positions: int64, broadcasts with the seeds.

    Returns:
        float32 in [0, 1), multiples of 2**-24, of the shape both broadcast to.

    Source: the 32-bit finalizer of MurmurHash3 (Appleby, public domain), once after either is mixed in.
    """
    mixed = _finalized((seeds.double() * 2**32).long().int())
    if touches_little(seeds):  # NumPy has unsigned numbers and writes in place: a quarter of the time
        number = mixed.numpy().view(np.uint32) + positions.numpy().astype(np.uint32)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            number ^= number >> np.uint32(shift)
            number *= np.uint32(factor)
        number >>= np.uint32(8)
        return torch.from_numpy(number.astype(np.float32)).mul_(2**-24)
    return (_finalized(mixed + positions.int()) >> 8 & 0xFFFFFF).float() * 2**-24


def _finalized(mixed: Tensor) -> Tensor:
    """Mix the bits of int32, whose products wrap around and whose shifts have to forget the sign."""
    mixed = (mixed ^ (mixed >> 16 & 0xFFFF)) * (0x85EBCA6B - 2**32)
    mixed = (mixed ^ (mixed >> 13 & 0x7FFFF)) * (0xC2B2AE35 - 2**32)
    return mixed ^ (mixed >> 16 & 0xFFFF)


def noise(seeds: Tensor, shape: torch.Size, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Give (…, C) uniform noise in [0, 1) for images of a shape (B, C, H, W), by the seed (B,) of each."""
    channel = torch.arange(shape[1], device=seeds.device)
    position = ((row * shape[3] + column) * shape[1])[..., None] + channel  # (…, C)
    return hashed(seeds[image][..., None], position)


def pattern(draws: Tensor, side: int, channels: int, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Give stripes, cells or marble between two colors: (…, C) in 0 … 1.

    Args:
        draws: (B, 5 + 2·C) uniform in [0, 1): which, angle, waves across `side`, phase, strength of the marble's
            turbulence; the two colors.
        side: pixels that 2 to 32 waves are laid across.
        channels: C.
        image, row, column: as the module says.
    """
    which, angle, waves, phase, turbulence = (draws[:, i][image] for i in range(5))
    angle, phase = angle * math.pi, phase * 2 * math.pi
    scale = 2 * math.pi / side * 2 ** (1 + 4 * waves)  # radians a pixel
    u, v = scale * (column * angle.cos() + row * angle.sin()), scale * (row * angle.cos() - column * angle.sin())
    stripes = (u + phase).cos()
    cells = ((v * 0.75**0.5 - u / 2 + phase).cos() + (v * 0.75**0.5 + u / 2).cos() + stripes) / 1.5  # at 60° each
    swirl = (v / 2 + 2 * (u / 3 + phase).sin()).sin() + ((u - v) * 0.8 + phase).sin() / 2
    marble = (u + 3 * turbulence * swirl).cos()
    level = torch.where(which < 1 / 3, stripes, torch.where(which < 2 / 3, cells, marble)).clamp(-1, 1) / 2 + 0.5
    dark, light = draws[:, 5 : 5 + channels][image], draws[:, 5 + channels :][image]  # (…, C)
    return torch.lerp(dark, light, level[..., None])
