"""Color: the jitter of patches as one fused step, and normalization.

Torchvision's ColorJitter applies brightness, contrast, saturation and hue one after the other in random order. On the
way its values are clamped after each step. Clamped once, at the end, the four collapse: brightness, contrast and
saturation are affine and keep the hue, saturation keeps the grey, so only the place of the hue in the order matters,
and that through the grey alone. What is left is one hue rotation and one affine map of the pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcutpaste.op.checks import check_images, memory_format_of, touches_little

CHUNK = 65_536  # values
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue: ITU-R 601, as torchvision rounds it
JitterStrength = float | tuple[float, float, float, float]


class Jitter(NamedTuple):
    """Hold the color jitter of each patch; every field is a float tensor of shape (B,)."""

    brightness: Tensor  # factor, 1 leaves the pixels as they are
    contrast: Tensor  # factor, about the patch's mean grey
    saturation: Tensor  # factor
    hue: Tensor  # turns of the color circle, -0.5 to 0.5
    order: Tensor  # 0 to 1: which of the six orders of hue, saturation and contrast

    def map(self, change: Callable[[Tensor], Tensor]) -> "Jitter":
        """Give the jitter with `change` applied to every field."""
        return Jitter._make(change(field) for field in self)


def place_jitter(drawn: Any, strength: JitterStrength) -> Jitter | None:
    """Turn uniform numbers into jitter factors.

    Args:
        drawn: five uniform numbers in [0, 1): tensors (B,) each, or Python numbers.
        strength: largest change of brightness, contrast and saturation (factors 1 ± strength) and of hue (turns,
            at most 0.5), one number for all four or one for each.

    Returns:
        Jitter of what came, tensors or numbers; or None where the strength is 0 throughout.

    Raises:
        ValueError: a strength out of bounds.
    """
    strengths = strengths_of(strength)
    if max(strengths) == 0:
        return None
    change = [(drawn[i] * 2 - 1) * strengths[i] for i in range(4)]  # -strength to strength
    return Jitter(1 + change[0], 1 + change[1], 1 + change[2], change[3], drawn[4])


def strengths_of(strength: JitterStrength) -> tuple[float, float, float, float]:
    """Give the strengths of brightness, contrast, saturation and hue. Raises as `place_jitter`."""
    strengths = (float(strength),) * 4 if isinstance(strength, int | float) else tuple(strength)
    if len(strengths) != 4 or not (min(strengths) >= 0 and max(strengths) <= 1 and strengths[3] <= 0.5):
        raise ValueError(
            f"jitter: brightness, contrast and saturation from 0 to 1 and hue from 0 to 0.5 required, got {strength}"
        )
    return strengths[0], strengths[1], strengths[2], strengths[3]


def brightness_of(images: Tensor) -> Tensor:
    """Give the mean (B, 1, 1, 1) of the pixels of images (B, C, H, W), uint8 0–255 or floating point, as 0–1."""
    means = images.mean((1, 2, 3), keepdim=True, dtype=torch.float32)
    return means if images.is_floating_point() else means / 255


def level_brightness(images: Tensor, brightness: float, means: Tensor | None = None) -> Tensor:
    """Multiply each image by the factor that brings the mean of its pixels to `brightness`.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1.
        brightness: above 0 to 1, whatever the type of the images.
        means: (B, 1, 1, 1), 0–1, of the images that these are windows of; None: of these.

    Returns:
        The same shape, floating point 0–1: of uint8 float32. What comes out brighter than white is white, a black image
        stays black.
    """
    if not images.is_floating_point():
        images = images.float() / 255
    if means is None:
        means = brightness_of(images)
    return (images * (brightness / means.clamp(min=1e-6))).clamp(max=1).to(images.dtype)


def rotate_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Turn the HSV hue of pixels (..., C, h, w), floating point, by `turns` of the color circle.

    Other than three channels have no hue and are left alone.
    """
    if pixels.shape[-3] != 3:
        return pixels
    red, green, blue = torch.split(pixels, 1, dim=-3)  # (..., 1, h, w) each
    value, low = pixels.amax(-3, keepdim=True), pixels.amin(-3, keepdim=True)
    chroma = value - low
    per_chroma = chroma.clamp(min=1e-12).reciprocal()  # grey pixels have hue 0
    sixths = torch.where(  # hue in sixths of a turn
        value == red,
        (green - blue) * per_chroma,
        torch.where(value == green, (blue - red) * per_chroma + 2, (red - green) * per_chroma + 4),
    )
    turned = sixths + turns * 6
    turned = turned - (turned / 6).floor() * 6  # 0 to 6; remainder is not vectorized on a CPU
    # |turned - 3| - 1, 2 - |turned - 2| and 2 - |turned - 4|: cat would be a launch of its own where this is compiled.
    channel = torch.arange(3, device=pixels.device).view(3, 1, 1)
    away = (turned - torch.where(channel == 0, 3, 2 * channel)).abs()  # (..., 3, h, w)
    return low + chroma * torch.where(channel == 0, away - 1, 2 - away).clamp(0, 1)


def greys(pixels: Tensor, rotated: Tensor, jitter: Jitter) -> tuple[Tensor, Tensor]:
    """Give the greys (..., 1, h, w) that saturation blends with and whose mean contrast turns about.

    Each is the grey before or after the hue, as the order says; in one order contrast comes after hue after saturation,
    and hue then has only part of the color to turn.
    """
    before = _grey(pixels)
    if pixels.shape[-3] != 3:
        return before, before
    change = _grey(rotated) - before
    early, first, last = jitter.order < 1 / 2, jitter.order < 1 / 3, jitter.order > 5 / 6
    return before + change * early, before + change * (first + last * jitter.saturation)


def recolor(rotated: Tensor, grey: Tensor, mean_grey: Tensor, jitter: Jitter, dtype: torch.dtype) -> Tensor:
    """Apply all four steps of the jitter at once.

    Args:
        rotated: (..., C, h, w) floating point on the scale of `dtype`, after `rotate_hue`.
        grey: (..., 1, h, w) what saturation blends with, from `greys`.
        mean_grey: (..., 1, 1, 1) mean over the patch of what contrast turns about, from `greys`.
        jitter: fields that broadcast with the pixels.
        dtype: uint8 (results rounded, 0–255) or floating point (0–1).

    Returns:
        (..., C, h, w) of `dtype`.
    """
    saturation = jitter.saturation if rotated.shape[-3] == 3 else 1.0
    gain = jitter.brightness * jitter.contrast
    offset = grey * (gain * (1 - saturation)) + mean_grey * (jitter.brightness * (1 - jitter.contrast))
    result = rotated * (gain * saturation) + offset
    return result.round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else result.clamp(0, 1).to(dtype)


def normalize(images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring images to zero mean and unit variance.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1.
        mean: (C,) mean of the channels on the 0–1 scale, on the images' device.
        std: (C,) standard deviation on the 0–1 scale.
        dtype: floating-point type of the result.

    Returns:
        (B, C, H, W) normalized, memory format kept.

    Raises:
        TypeError: images neither uint8 nor floating point.
        ValueError: mean or std of another length than C, or on another device.
    """
    scale, offset = normalization(images, mean, std)
    if touches_little(images, scale, offset):
        return scaled(images, scale, offset).to(dtype)
    return (images * scale.view(-1, 1, 1) - offset.view(-1, 1, 1)).to(dtype)


def normalization(images: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Give scale and offset (C,): images · scale - offset are normalized. Raises as `normalize`."""
    check_normalization(images, mean, std)
    mean, std = (each if each.dtype == torch.float64 else each.float() for each in (mean, std))
    full = 255.0 if images.dtype == torch.uint8 else 1.0
    return 1 / (std * full), mean / std


def check_normalization(images: Tensor, mean: Tensor, std: Tensor) -> None:
    """Raise unless images, and mean and std (C,) on their device, can be normalized."""
    check_images("normalize", images)
    if mean.shape != (images.shape[1],) or std.shape != mean.shape:
        raise ValueError(
            f"normalize: mean and std of shape ({images.shape[1]},) required, "
            f"got {tuple(mean.shape)} and {tuple(std.shape)}"
        )
    if mean.device != images.device or std.device != images.device:
        raise ValueError(f"normalize: mean and std on {images.device} required, got {mean.device} and {std.device}")


def scaled(images: Tensor, scale: Tensor, offset: Tensor, copies: int = 1) -> Tensor:
    """Give images · scale - offset of images (B, C, H, W) on a CPU, (copies·B, C, H, W), float64 or else float32.

    A core reads and writes the fresh result once: conversion, arithmetic and copies go over `CHUNK` values while they
    are in its cache. In one step, or over the whole batch at once, they take twice as long.
    """
    count, values, factors, shifts = len(images), images.numpy(), scale.numpy(), offset.numpy()
    targets = _fresh(images, copies, np.result_type(values, np.float32))
    result = torch.from_numpy(targets)
    parts: list[Any] = list(range(images.shape[1]))
    if memory_format_of(images) == torch.channels_last:  # pixels as they lie in memory: (B, H·W·C)
        values, targets = (array.transpose(0, 2, 3, 1).reshape(len(array), -1) for array in (values, targets))
        factors, shifts = (np.tile(each, images[0, 0].numel())[None] for each in (factors, shifts))
        parts = [slice(None)]
    at_once = max(1, CHUNK * len(parts) // max(values[:1].size, 1))  # images
    for start in range(0, count, at_once):
        end = min(start + at_once, count)
        for part, factor, shift in zip(parts, factors, shifts, strict=True):
            target = targets[start:end, part]  # (n, H, W), or (n, H·W·C)
            np.copyto(target, values[start:end, part])
            np.multiply(target, factor, out=target)
            np.subtract(target, shift, out=target)
            for first in range(count, copies * count, count):
                targets[first + start : first + end, part] = target
    return result


def copied(images: Tensor, copies: int) -> Tensor:
    """Give images (B, C, H, W) on a CPU several times, one copy of the batch after another: (copies·B, C, H, W)."""
    values = images.detach().numpy()
    targets = _fresh(images, copies, values.dtype)
    for first in range(0, len(targets), max(len(values), 1)):
        targets[first : first + len(values)] = values
    return torch.from_numpy(targets)


def _fresh(images: Tensor, copies: int, kind: Any) -> NDArray[Any]:
    """Give an array (copies·B, C, H, W) to be written, laid out in memory as the images.

    For arrays of 4 MB and more NumPy asks Linux for pages of 2 MB, torch does not: the first touch of 75 MB takes 17
    instead of 60 ms.
    """
    batch, channels, height, width = images.shape
    if memory_format_of(images) == torch.channels_last:
        return np.empty((copies * batch, height, width, channels), kind).transpose(0, 3, 1, 2)
    return np.empty((copies * batch, channels, height, width), kind)


def _grey(pixels: Tensor) -> Tensor:
    """Give the grey (..., 1, h, w) of pixels (..., C, h, w): ITU-R 601 weights of three channels, else the mean."""
    if pixels.shape[-3] != 3:
        return pixels.mean(-3, keepdim=True)
    red, green, blue = torch.split(pixels, 1, dim=-3)
    return torch.add(torch.add(red * GREY_WEIGHTS[0], green, alpha=GREY_WEIGHTS[1]), blue, alpha=GREY_WEIGHTS[2])
