"""Paste on a CPU: image by image, in NumPy, touching the pixels of the patch alone.

A core pays for bytes and for calls: on 3 × 256² pixels the whole-image path of `functional` takes some thirty times as
long, and the same steps in torch twice as long, because NumPy's calls are shorter and write where they are told.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcutpaste.color import GREY_WEIGHTS
from fastcutpaste.placement import Patches, cosine_and_sine

Array = NDArray[Any]
_THIRDS = np.array([0, 2, 4], np.float32)[:, None, None]  # hue of red, green and blue, in sixths of a turn


def paste_slices(images: Tensor, patches: Patches, fill: Tensor | None) -> tuple[Tensor, Tensor]:
    """Do what `functional.paste` does, for checked images (B, C, H, W) of uint8, float32 or float64 on a CPU."""
    height, width = images.shape[-2:]
    pasted, mask = images.clone(), torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    source = (images if fill is None else fill).detach().numpy()
    targets, masks = pasted.numpy(), mask.numpy()
    geometry = [field.tolist() for field in (*patches.geometry, *cosine_and_sine(patches.angle))]
    jitters = None if patches.jitter is None else list(zip(*(field.tolist() for field in patches.jitter), strict=True))
    feathers = None if patches.feather is None else patches.feather.tolist()
    for b, (source_y, source_x, y, x, h, w, angle, cosine, sine) in enumerate(zip(*geometry, strict=True)):
        if h == 0 or w == 0:
            continue
        pixels = source[b]
        if pixels.shape[1:] == (height, width):
            pixels = pixels[:, source_y : source_y + h, source_x : source_x + w]  # (C, h, w)
        if jitters is not None:
            pixels = _recolored(pixels, *jitters[b])
        pixels = np.broadcast_to(pixels, (len(pixels), h, w))
        # A turned patch reaches beyond its upright rectangle by half of what its box is larger.
        tall, wide = abs(cosine) * h + abs(sine) * w, abs(sine) * h + abs(cosine) * w
        beyond_y, beyond_x = (int((tall - h) / 2) + 1, int((wide - w) / 2) + 1) if angle else (0, 0)
        top, bottom = max(y - beyond_y, 0), min(y + h + beyond_y, height)
        left, right = max(x - beyond_x, 0), min(x + w + beyond_x, width)
        if top >= bottom or left >= right:
            continue  # wholly outside
        target, marked = targets[b, :, top:bottom, left:right], masks[b, 0, top:bottom, left:right]
        feather = 0.0 if feathers is None else feathers[b]
        if angle == 0 and feather == 0:
            target[...] = pixels[:, top - y : bottom - y, left - x : right - x]
            marked[...] = True
            continue
        dy = np.arange(top - y, bottom - y, dtype=np.float32)[:, None] - (h - 1) / 2
        dx = np.arange(left - x, right - x, dtype=np.float32) - (w - 1) / 2
        down = dx * sine + dy * cosine + (h - 1) / 2 + 0.5  # (rows, columns), from the patch's upper edge
        across = dx * cosine - dy * sine + (w - 1) / 2 + 0.5  # from its left edge
        inside = (down >= 0) & (down < h) & (across >= 0) & (across < w)
        down, across = down[inside], across[inside]  # (n,), the pasted pixels
        values = pixels[:, down.astype(np.int64), across.astype(np.int64)]  # (C, n)
        if feather:
            edge = np.minimum(np.minimum(down, h - down), np.minimum(across, w - across))
            below = target[:, inside].astype(_compute_type(target))
            values = below + np.minimum(edge / np.float32(feather), 1) * (values - below)
            values = np.rint(values) if target.dtype == np.uint8 else values
        target[:, inside] = values
        marked[...] = inside
    return pasted, mask


def _recolored(pixels: Array, brightness: float, contrast: float, saturation: float, hue: float, order: float) -> Array:
    """Apply `color.rotate_hue` and `color.recolor` to one patch (C, h, w), whose mean grey contrast turns about."""
    whole = pixels.dtype == np.uint8
    values: Array = pixels.astype(_compute_type(pixels), order="C")
    has_hue = len(values) == len(GREY_WEIGHTS)
    weights = np.array(GREY_WEIGHTS if has_hue else [1 / len(values)] * len(values), values.dtype)
    grey: Array = (weights @ values.reshape(len(values), -1)).reshape(values.shape[1:])  # (h, w)
    mean = float(np.add.reduce(grey, axis=None)) / grey.size
    if has_hue:
        values = _hue_rotated(values, hue)
        if order < 1 / 2 or order > 5 / 6:  # saturation or contrast comes after the hue
            rotated = (weights @ values.reshape(3, -1)).reshape(grey.shape)
            rotated_mean = float(np.add.reduce(rotated, axis=None)) / grey.size
            grey = rotated if order < 1 / 2 else grey
            mean += (rotated_mean - mean) * ((order < 1 / 3) + (order > 5 / 6) * saturation)
    else:
        saturation = 1.0
    gain = brightness * contrast
    values *= gain * saturation
    grey *= gain * (1 - saturation)
    grey += mean * (brightness * (1 - contrast)) + (0.5 if whole else 0.0)  # 0.5: rounding, where truncation follows
    values += grey
    np.maximum(values, 0, out=values)
    np.minimum(values, 255 if whole else 1, out=values)
    return values.astype(pixels.dtype)


def _hue_rotated(pixels: Array, turns: float) -> Array:
    """Turn the hue of (3, h, w) pixels as `color.rotate_hue` does."""
    red, green, blue = pixels
    value = np.maximum(red, green)
    np.maximum(value, blue, out=value)
    low = np.minimum(red, green)
    np.minimum(low, blue, out=low)
    chroma = value - low
    per_chroma = np.maximum(chroma, 1e-12)
    np.reciprocal(per_chroma, out=per_chroma)
    turned = (turns - round(turns)) * 6  # -3 to 3 sixths
    sixths, part = red - green, blue - red
    sixths *= per_chroma
    sixths += 4 + turned
    part *= per_chroma
    part += 2 + turned
    np.copyto(sixths, part, where=value == green)
    np.subtract(green, blue, out=part)
    part *= per_chroma
    part += turned
    np.copyto(sixths, part, where=value == red)
    if abs(turned) > 2:  # below, distances up to 7 fold right
        sixths -= np.floor(sixths / 6) * 6
    # Each channel is full within a sixth of its own hue, empty beyond two sixths, and hues repeat after six.
    shares: Array = sixths - _THIRDS  # (3, h, w)
    np.abs(shares, out=shares)
    shares -= 3
    np.abs(shares, out=shares)
    shares -= 1
    np.maximum(shares, 0, out=shares)
    np.minimum(shares, 1, out=shares)
    shares *= chroma
    shares += low
    return shares


def _compute_type(pixels: Array) -> type[np.float32] | type[np.float64]:
    return np.float64 if pixels.dtype == np.float64 else np.float32
