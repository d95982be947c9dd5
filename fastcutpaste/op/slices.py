"""Paste on a CPU: in NumPy, touching the pixels of the patches alone.

A core pays for bytes and for calls. On 3 × 256² pixels the whole-image path of `paste` takes some thirty times as
long. Patches are recolored together, up to `GROUP` pixels: the fifty calls of one recoloring cost 130 µs, as much as
their arithmetic on twelve thousand pixels. What is one number a patch is a Python number.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcutpaste.op.color import GREY_WEIGHTS, copied, scaled
from fastcutpaste.op.placement import Patches

Array = NDArray[Any]
GROUP = 65_536  # pixels


def paste_slices(
    images: Tensor,
    patches: Patches,
    fill: Tensor | None,
    masked: bool = True,
    normalization: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Do what `paste` does, for checked images (B, C, H, W) of uint8, float32 or float64 on a CPU.

    Args:
        images, patches, fill: as `paste` takes them.
        masked: whether the mask is wanted; if not, an empty one (k·B, 1, 0, 0) comes in its place.
        normalization: scale and offset (C,), for images · scale - offset instead of images: each image is converted
            once, and once more where something is pasted. Feathers of uint8 are then not rounded to whole levels.
    """
    count, (channels, height, width) = len(patches.y), images.shape[1:]
    copies = max(count // max(len(images), 1), 1)
    pasted = copied(images, copies) if normalization is None else scaled(images, *normalization, copies)
    masks = np.zeros((count, height if masked else 0, width if masked else 0), bool)
    source, targets = (images if fill is None else fill).detach().numpy(), pasted.numpy()
    is_color = source.shape[2:] != (height, width)
    geometry = list(zip(*(field.tolist() for field in patches.geometry), strict=True))
    if is_color:  # an image of one color, from whose corner all are cut
        geometry = [(0, 0, *each[2:]) for each in geometry]
        sides = [max((each[k] for each in geometry), default=0) for k in (4, 5)]
        source = np.broadcast_to(source, (*source.shape[:2], *sides))
    feathers = [0.0] * count if patches.feather is None else patches.feather.tolist()
    jitters = None if patches.jitter is None else list(zip(*(field.tolist() for field in patches.jitter), strict=True))
    for group in grouped([h * w for _, _, _, _, h, w, _ in geometry]):
        cuts = []  # (C, h, w) each
        for b in group:
            i, j, _, _, h, w, _ = geometry[b]
            if not (is_color or (0 <= i <= height - h and 0 <= j <= width - w)):
                raise ValueError(f"paste: patches that are cut from inside the image of {height}×{width} required, got "
                                 f"{h}×{w} at row {i}, column {j}")  # fmt: skip
            cuts.append(source[b % len(source), :, i : i + h, j : j + w])
        if jitters is not None or normalization is not None:
            shapes, sizes = [cut.shape for cut in cuts], [cut.shape[1] * cut.shape[2] for cut in cuts]
            pixels = np.concatenate([cut.reshape(channels, -1) for cut in cuts], 1)  # (C, n), patch after patch
            pixels = pixels.astype(np.result_type(pixels, np.float32), copy=False)
            if jitters is not None:
                recolor(pixels, sizes, [jitters[b] for b in group], whole=source.dtype == np.uint8)
            if normalization is not None:
                pixels *= normalization[0].numpy()[:, None]
                pixels -= normalization[1].numpy()[:, None]
            pixels, ends = pixels.astype(targets.dtype, copy=False), itertools.accumulate(sizes)
            cuts = [pixels[:, end - h * w : end].reshape(c, h, w) for end, (c, h, w) in zip(ends, shapes, strict=True)]
        for b, patch in zip(group, cuts, strict=True):
            _, _, y, x, h, w, angle = geometry[b]
            if angle == 0 and feathers[b] == 0:
                top, bottom, left, right = max(y, 0), min(y + h, height), max(x, 0), min(x + w, width)
                if top >= bottom or left >= right:
                    continue  # wholly outside
                targets[b, :, top:bottom, left:right] = patch[:, top - y : bottom - y, left - x : right - x]
                masks[b, top:bottom, left:right] = True
            else:
                _paste_mapped(targets[b], masks[b], patch.reshape(channels, h * w), y, x, h, w, angle, feathers[b])
    return pasted, torch.from_numpy(masks[:, None])


def grouped(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Give lists of which hold any pixel, of at most `GROUP` pixels together or one alone."""
    group: list[int] = []
    held = 0
    for b, size in enumerate(sizes):
        if size == 0:
            continue
        if group and held + size > GROUP:
            yield group
            group, held = [], 0
        group.append(b)
        held += size
    if group:
        yield group


def _paste_mapped(
    target: Array, marked: Array, patch: Array, y: int, x: int, h: int, w: int, angle: float, feather: float
) -> None:
    """Paste a turned or feathered patch (C, h·w): each pixel of the box around it is mapped back into the patch.

    Args:
        target: (C, H, W), written.
        marked: (H, W) bool, written, or (0, 0).
        patch: upright and recolored.
        y, x, h, w, angle: of `Patches`.
        feather: pixels.
    """
    radians = math.radians(angle)
    cosine, sine = math.cos(radians), math.sin(radians)
    cosine = 0.0 if abs(cosine) < 1e-6 else cosine  # a right angle's, see `paste`
    half_h, half_w = (h - 1) / 2, (w - 1) / 2
    reach_y = math.ceil((abs(cosine) * h + abs(sine) * w) / 2 + 0.5)  # of the box from the centre
    reach_x = math.ceil((abs(sine) * h + abs(cosine) * w) / 2 + 0.5)
    middle_y, middle_x = y + h // 2, x + w // 2
    top, bottom = max(middle_y - reach_y, 0), min(middle_y + reach_y, target.shape[1])
    left, right = max(middle_x - reach_x, 0), min(middle_x + reach_x, target.shape[2])
    if top >= bottom or left >= right:
        return  # wholly outside
    dy = np.arange(top - y - half_h, bottom - y - half_h, dtype=np.float32)[:, None]  # (rows, 1)
    dx = np.arange(left - x - half_w, right - x - half_w, dtype=np.float32)  # (columns,)
    down = dx * sine + dy * cosine + (half_h + 0.5)  # (rows, columns), from the patch's upper edge
    across = dx * cosine - dy * sine + (half_w + 0.5)  # from its left edge
    inside = (down >= 0) & (down < h) & (across >= 0) & (across < w)
    index = down.astype(np.int64) * w + across.astype(np.int64)
    values = patch.take(index, axis=1, mode="clip")  # (C, rows, columns), of which those inside are pasted
    below = target[:, top:bottom, left:right]
    if feather:
        edge = np.minimum(np.minimum(down, h - down), np.minimum(across, w - across))
        under = below.astype(np.result_type(below, np.float32))
        values = under + np.minimum(edge / np.float32(feather), 1) * (values - under)
        values = np.rint(values) if below.dtype == np.uint8 else values
    np.copyto(below, values, where=inside, casting="unsafe")
    if marked.size:
        marked[top:bottom, left:right] = inside


def recolor(pixels: Array, sizes: Sequence[int], jitters: Sequence[tuple[float, ...]], whole: bool) -> None:
    """Apply `color.rotate_hue` and `color.recolor` in place to several patches at once.

    Args:
        pixels: (C, n) floating point, the pixels of the patches one after another, written.
        sizes: how many of the n are each patch's.
        jitters: the fields of `Jitter` for each; contrast turns about a patch's own mean grey.
        whole: whether pixels are levels from 0 to 255, and shall be whole ones again, instead of 0 to 1.
    """
    starts = [0, *itertools.accumulate(sizes[:-1])]

    def spread(numbers: list[float]) -> Any:
        return numbers[0] if len(numbers) == 1 else np.repeat(np.array(numbers, pixels.dtype), sizes)  # (n,)

    def means(grey: Array) -> list[float]:
        return [total / size for total, size in zip(np.add.reduceat(grey, starts).tolist(), sizes, strict=True)]

    brightness, contrast, saturation, hue, order = map(list, zip(*jitters, strict=True))
    grey = _grey(pixels)
    mean = means(grey)
    if len(pixels) == len(GREY_WEIGHTS):
        share = [(n < 1 / 3) + (n > 5 / 6) * s for n, s in zip(order, saturation, strict=True)]  # see `color.greys`
        _turn_hue(pixels, hue, spread)
        rotated = _grey(pixels)
        mean = [m + (r - m) * s for m, r, s in zip(mean, means(rotated), share, strict=True)]
        for start, size, number in zip(starts, sizes, order, strict=True):
            if number < 1 / 2:  # saturation comes after the hue, and mixes in its grey
                grey[start : start + size] = rotated[start : start + size]
    else:
        saturation = [1.0] * len(sizes)
    gain = [b * c for b, c in zip(brightness, contrast, strict=True)]
    pixels *= spread([g * s for g, s in zip(gain, saturation, strict=True)])
    grey *= spread([g * (1 - s) for g, s in zip(gain, saturation, strict=True)])
    half = 0.5 if whole else 0.0  # so that cutting off rounds
    grey += spread([m * b * (1 - c) + half for m, b, c in zip(mean, brightness, contrast, strict=True)])
    pixels += grey
    torch.from_numpy(pixels).clamp_(0, 255 if whole else 1)  # NumPy takes four times as long
    if whole:
        np.floor(pixels, out=pixels)


def _turn_hue(pixels: Any, turns: list[float], spread: Callable[[list[float]], Any]) -> None:
    """Turn the hue of pixels (3, n) in place as `color.rotate_hue` does, each patch by its own share of the circle.

    On the hexagon of hues a channel stands highest at its own hue and lowest opposite: with value V, chroma C and H
    sixths of a turn from its own hue, 2 - |H| = (V + channel - the two others) / C. Clipped to 0 … 1 it is the
    channel's share of C. A turn of at most one sixth moves it up or down, by which of the two others is larger; farther
    turns take several. No hue is ever computed, no pixel asks which of its channels is the largest.
    """
    sixths = [(turn - round(turn)) * 6 for turn in turns]  # -3 to 3
    steps = max(1, math.ceil(max(map(abs, sixths))))
    by = spread([sixth / steps for sixth in sixths])
    red, green, blue = pixels
    low, value = np.minimum(red, green), np.maximum(red, green)
    np.minimum(low, blue, out=low)
    np.maximum(value, blue, out=value)
    chroma, nothing, side = value - low, np.zeros_like(low), np.empty_like(pixels)
    move = chroma * by
    for _ in range(steps):  # value, low and chroma stay what they are
        np.subtract(green, blue, out=side[0])
        np.subtract(blue, red, out=side[1])
        np.subtract(red, green, out=side[2])
        torch.from_numpy(side).sign_()  # NumPy takes three times as long
        side *= move
        rest = value - red
        rest -= green
        rest -= blue
        pixels *= 2
        pixels += rest
        pixels -= side
        np.maximum(pixels, nothing, out=pixels)  # arrays: with a number NumPy takes four times as long
        np.minimum(pixels, chroma, out=pixels)
        pixels += low


def _grey(pixels: Array) -> Array:
    """Give the grey (n,) of pixels (C, n); a matrix product would start threads."""
    if len(pixels) != len(GREY_WEIGHTS):
        mean: Array = pixels.mean(0)
        return mean
    grey: Array = pixels[0] * GREY_WEIGHTS[0]
    grey += pixels[1] * GREY_WEIGHTS[1]
    grey += pixels[2] * GREY_WEIGHTS[2]
    return grey
