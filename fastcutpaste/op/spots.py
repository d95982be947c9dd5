"""Masked pixels on a CPU: found, read, recolored, blended and put back, without the others.

A core pays for bytes and for calls. Pixels of several images lie packed in one array (C, n), image after image, as
those of patches do in `slices`; where they fill a rectangle they are cut out of it, not picked.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastcutpaste.op.checks import memory_format_of
from fastcutpaste.op.color import Jitter, copied
from fastcutpaste.op.slices import Array, grouped, recolor


class Spot(NamedTuple):
    """Say which pixels of one image are masked."""

    image: int
    found: Array  # (n,) int64, ascending: row · width + column
    box: tuple[slice, slice] | None = None  # rows and columns, if they fill a rectangle

    def lines(self, width: int) -> tuple[Array, Array]:
        """Give rows and columns (n,) each, or of a rectangle (h, 1) and (1, w), of images of a width."""
        if self.box is None:
            return np.divmod(self.found, width)
        rows, columns = self.box
        return np.arange(rows.start, rows.stop)[:, None], np.arange(columns.start, columns.stop)


Packed = Callable[[list[Spot]], Array]  # what fills these spots, (C, n)


def find_spots(mask: Tensor) -> list[Spot]:
    """Give where each mask (B, 1, H, W) is set; of empty ones none."""
    spots, width = [], mask.shape[-1]
    for b, marked in enumerate(mask[:, 0].numpy()):
        found = np.flatnonzero(marked)
        if not len(found):
            continue
        (top, left), (bottom, right) = divmod(int(found[0]), width), divmod(int(found[-1]), width)
        box = (slice(top, bottom + 1), slice(left, right + 1))
        full = (bottom + 1 - top) * (right + 1 - left) == len(found) and marked[box].all()
        spots.append(Spot(b, found, box if full else None))
    return spots


def take(images: Array, spots: list[Spot]) -> Array:
    """Give the pixels (C, n) of images (B, C, H, W) at spots."""
    pixels = []
    for spot in spots:
        image = images[spot.image]
        flat = image.reshape(len(image), -1)
        pixels.append(
            pick(flat, spot.found) if spot.box is None else image[(slice(None), *spot.box)].reshape(len(image), -1)
        )
    return np.concatenate(pixels, 1)


def pick(image: Array, index: Array) -> Array:
    """Give pixels (C, n) of an image (C, H·W) by their index (n,), in whichever order it lies in memory."""
    return image.take(index, 1) if image.flags.c_contiguous else image.T.take(index, 0).T


def put(images: Array, spots: list[Spot], pixels: Array) -> None:
    """Write pixels (C, n) of the same type into images (B, C, H, W) at spots."""
    start = 0
    for spot in spots:
        image, end = images[spot.image], start + len(spot.found)
        if spot.box is not None:
            target = image[(slice(None), *spot.box)]
            target[:] = pixels[:, start:end].reshape(target.shape)
        else:
            for channel, values in zip(image.reshape(len(image), -1), pixels[:, start:end], strict=True):
                channel[spot.found] = values
        start = end


def fill_spots(
    images: Tensor, spots: list[Spot], packed: Packed, jitter: Jitter | None
) -> Iterator[tuple[list[Spot], Tensor]]:
    """Give groups of the spots and what fills them, (C, n), float32 or as the images float64, its color changed."""
    kind = np.float64 if images.dtype == torch.float64 else np.float32
    jitters = None if jitter is None else torch.stack(jitter, 1).tolist()
    for members in grouped([len(spot.found) for spot in spots]):
        group = [spots[i] for i in members]
        pixels = np.ascontiguousarray(packed(group), kind)
        if jitters is not None:
            sizes, each = [len(spot.found) for spot in group], [jitters[spot.image] for spot in group]
            recolor(pixels, sizes, each, whole=images.dtype == torch.uint8)
        yield group, torch.from_numpy(pixels)


def filled(images: Tensor, mask: Tensor, packed: Packed, jitter: Jitter | None) -> Tensor:
    """Give what fills a mask as a tensor like images (B, C, H, W), 0 elsewhere."""
    result = torch.zeros_like(images, memory_format=memory_format_of(images))  # which `put` can write into
    for group, pixels in fill_spots(images, find_spots(mask), packed, jitter):
        put(result.numpy(), group, pixels.to(images.dtype).numpy())
    return result


def blend_spots(images: Tensor, mask: Tensor, packed: Packed, share: Tensor, jitter: Jitter | None) -> Tensor:
    """Do what `blends.jittered` and `blends.blend` do with what `packed` gives, with the masked pixels alone."""
    result, alike = copied(images, 1), share.shape[-2:] == (1, 1)
    share = share if share.dtype in (torch.float32, torch.float64) else share.float()  # NumPy knows no bfloat16
    values, shares = result.numpy(), share.expand(len(images), 1, *((1, 1) if alike else mask.shape[-2:])).numpy()
    for group, pixels in fill_spots(images, find_spots(mask), packed, jitter):
        if alike:
            spread = np.repeat([shares[spot.image, 0, 0, 0] for spot in group], [len(spot.found) for spot in group])
        else:
            spread = take(shares, group)[0]  # (n,)
        mixed = pixels
        if (spread != 1).any():
            below = torch.from_numpy(take(values, group)).to(pixels.dtype)
            mixed = torch.lerp(below, pixels, torch.from_numpy(spread).to(pixels.dtype))
        put(values, group, (mixed.round() if images.dtype == torch.uint8 else mixed).to(images.dtype).numpy())
    return result
