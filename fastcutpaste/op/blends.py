"""Blend what fills a mask into images, and say how much they changed."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcutpaste.op.checks import memory_format_of, touches_little
from fastcutpaste.op.color import Jitter, greys, recolor, rotate_hue
from fastcutpaste.op.spots import find_spots, put, take

At = Callable[[Tensor, Tensor, Tensor], Tensor]  # image, row, column → pixels (…, C), as `textures` gives them


def every_pixel(at: At, images: Tensor) -> Tensor:
    """Give what `at` gives for every pixel of images (B, C, H, W), as such a tensor."""
    batch, _, height, width = images.shape
    image = torch.arange(batch, device=images.device).view(-1, 1, 1)
    row = torch.arange(height, device=images.device).view(-1, 1)
    return at(image, row, torch.arange(width, device=images.device)).permute(0, 3, 1, 2)


def jittered(fill: Tensor, mask: Tensor, jitter: Jitter, dtype: torch.dtype) -> Tensor:
    """Change the color of a fill (B, C, H or 1, W or 1), contrast about its mean grey within the mask (B, 1, H, W)."""
    jitter = jitter.map(lambda field: field.view(-1, 1, 1, 1))
    values = fill.to(torch.float64 if dtype == torch.float64 else torch.float32)
    rotated = rotate_hue(values, jitter.hue)
    grey, turned_about = greys(values, rotated, jitter)
    count = mask.sum((1, 2, 3), keepdim=True)
    mean = torch.where(mask, turned_about, 0).sum((1, 2, 3), keepdim=True) / count.clamp(min=1)  # (B, 1, 1, 1)
    return recolor(rotated, grey, mean, jitter, dtype)


def blend(images: Tensor, fill: Tensor, mask: Tensor, share: Tensor) -> Tensor:
    """Mix a fill into masked pixels.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1.
        fill: (B, C, H, W) or (B, C, 1, 1), of the images' range.
        mask: (B, 1, H, W) bool.
        share: (B or 1, 1, H or 1, W or 1) of the fill, 0 to 1.

    Returns:
        Images of the same type and memory format.
    """
    kind = torch.float64 if images.dtype == torch.float64 else torch.float32
    mixed = torch.lerp(images.to(kind), fill.to(kind), share.to(kind))
    mixed = (mixed.round() if images.dtype == torch.uint8 else mixed).to(images.dtype)
    return torch.where(mask, mixed, images).contiguous(memory_format=memory_format_of(images))


def distance_inside(mask: Tensor, most: int) -> Tensor:
    """Give the distance of masked pixels from the mask's edge or the image's, pixels, no farther than `most`.

    Args:
        mask: (B, 1, H, W) bool.
        most: at least 1.

    Returns:
        (B, 1, H, W) float32, 0 outside the mask; from the middle of a pixel to the next middle outside, less a half.

    Cost: the squared distance is least along columns of what is least along rows: 4·most + 2 cheap passes.
    """
    height, width = mask.shape[-2:]
    inside = mask.float() * most**2
    across = F.pad(inside, (most, most))
    steps = range(-most, most + 1)
    nearest = _least([across[..., most + step : most + step + width] + step**2 for step in steps])
    down = F.pad(nearest, (0, 0, most, most))
    nearest = _least([down[..., most + step : most + step + height, :] + step**2 for step in steps])
    return (nearest.clamp(max=most**2).sqrt() - 0.5).clamp(min=0)


def _least(options: list[Tensor]) -> Tensor:
    least = options[0]
    for option in options[1:]:
        least = torch.minimum(least, option)
    return least


def soft_label(before: Tensor, after: Tensor, mask: Tensor) -> Tensor:
    """Say how much masked pixels changed: a logistic of the mean absolute change of their channels.

    It is 0.5 at a change of 24 levels of 255, and 0.12 where a masked pixel came out as it was.

    Args:
        before, after: (B, C, H, W), uint8 0–255 or floating point 0–1.
        mask: (B, 1, H, W) bool.

    Returns:
        (B, 1, H, W) float32 from 0 to 1, 0 outside the mask.

    Source: Schlüter et al., "Natural Synthetic Anomalies", 2022: its code's label, without the median filter.
    """
    if touches_little(before, after):
        label, spots = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device), find_spots(mask)
        if spots:
            new, old = (torch.from_numpy(take(images.numpy(), spots)).float() for images in (after, before))
            put(label.numpy(), spots, _logistic((new - old).abs_().mean(0), before.dtype)[None].numpy())
        return label
    return torch.where(mask, _logistic((after.float() - before.float()).abs().mean(1, keepdim=True), before.dtype), 0)


def _logistic(change: Tensor, dtype: torch.dtype) -> Tensor:
    return (change * ((1 if dtype == torch.uint8 else 255) / 12) - 2).sigmoid()
