"""Dense scoring: features of every patch of a grid, and scores of the grid spread back over the image."""

import math
import os
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcutpaste.networks.pooling import mean_pool
from fastcutpaste.op.checks import check_images

_BYTES_A_PIXEL = 256  # at most held at once for a pixel that enters a network: ResNet-18 and PatchNet, float32
# a pass; on a CPU 128 patches of 64² were 8 % faster than 64 in bfloat16, and 4 % faster than 256
_MOST_PATCHES = {"cpu": 128, "cuda": 1024}


def grid_shape(height: int, width: int, patch: int, stride: int) -> tuple[int, int]:
    """Give the rows and columns of the grid of patches that fit into an image.

    Args:
        height: H of the image, pixels.
        width: W of the image, pixels.
        patch: side of the square patches, pixels, at most the image's shorter side.
        stride: pixels from one patch to the next, at least 1.

    Returns:
        (h, w); up to stride - 1 pixels at the lower and right border are in no patch.

    Raises:
        ValueError: a patch larger than the image, a stride below 1.
    """
    if stride < 1:
        raise ValueError(f"patch grid: a stride of at least 1 pixel required, got {stride}")
    if not 1 <= patch <= min(height, width):
        raise ValueError(f"patch grid: an image of at least {patch}×{patch} pixels required, got {height}×{width}")
    return (height - patch) // stride + 1, (width - patch) // stride + 1


def fitting_chunk(patch: int, device: torch.device) -> int:
    """Give how many patches of a side a network may take in one pass, so that a quarter of the free memory is enough.

    Returns:
        1 to 128 on a CPU, 1 to 1,024 on a GPU.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        names = os.sysconf_names if hasattr(os, "sysconf") else {}
        known = "SC_AVPHYS_PAGES" in names and "SC_PAGE_SIZE" in names  # on Linux; elsewhere: what any computer has
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 2**31
    return max(1, min(free // 4 // (_BYTES_A_PIXEL * patch**2), _MOST_PATCHES.get(device.type, 128)))


@torch.inference_mode()
def embed_patches(
    images: Tensor, embed: Callable[[Tensor], Tensor], *, patch: int = 64, stride: int = 4, chunk: int | None = None
) -> Tensor:
    """Give the features of every patch of a grid, exactly: each patch goes through the network by itself.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1.
        embed: maps patches (n, C, patch, patch) to features (n, D).
        patch: side of the square patches, pixels; 64 or 32 in the paper.
        stride: pixels from one patch to the next; 4 in the paper.
        chunk: patches a forward pass, which bounds the memory; the result depends on it by rounding at most. None: what
            the free memory allows.

    Returns:
        (B, h, w, D) features as `embed` gives them, B at least 1.

    Raises:
        ValueError: images smaller than the patch, a stride or chunk below 1.

    Source: Li et al. 2021, §2.4.
    Cost: h·w forward passes of patch² pixels an image, 2,401 for 256² pixels at 64/4; the grid is a view, so only
        the patches of one chunk are copied.
    """
    check_images("embed_patches", images)
    if chunk is not None and chunk < 1:
        raise ValueError(f"embed_patches: a chunk of at least 1 patch required, got {chunk}")
    batch = len(images)
    rows, columns = grid_shape(images.shape[-2], images.shape[-1], patch, stride)
    chunk = fitting_chunk(patch, images.device) if chunk is None else chunk
    windows = images.unfold(2, patch, stride).unfold(3, patch, stride)  # (B, C, h, w, patch, patch), a view
    features = []
    for index in torch.split(torch.arange(batch * rows * columns, device=images.device), chunk):
        b, row, column = index // (rows * columns), index // columns % rows, index % columns
        features.append(embed(windows[b, :, row, column]))  # (n, C, patch, patch) → (n, D)
    return torch.cat(features).view(batch, rows, columns, -1)


@torch.inference_mode()
def embed_densely(
    images: Tensor, embed_map: Callable[[Tensor], Tensor], *, patch: int = 64, stride: int = 4, field: int, step: int
) -> Tensor:
    """Give the features of every patch of a grid from one pass of a network without padding over the image.

    They are those of `embed_patches` with the mean of the same map, to rounding: a patch's final map is a window of
    the image's.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1.
        embed_map: maps images to (B, D, (H - field) // step + 1, (W - field) // step + 1), each position depending on
            the `field`² pixels from `step` times its place on, and on nothing else.
        patch: side of the square patches, pixels, at least `field`.
        stride: pixels from one patch to the next, a multiple of `step`.
        field: side of what one position of the map sees, pixels.
        step: pixels from one position of the map to the next.

    Returns:
        (B, h, w, D).

    Raises:
        ValueError: images smaller than the patch, a patch smaller than the field, a stride that is no multiple of
            `step`.

    Cost: one forward pass over the image; `slabs` bounds the memory.
    """
    check_images("embed_densely", images)
    rows, columns = grid_shape(images.shape[-2], images.shape[-1], patch, stride)
    if patch < field:
        raise ValueError(f"embed_densely: a patch of at least the field of {field} pixels required, got {patch}")
    if stride % step:
        raise ValueError(f"embed_densely: a stride that is a multiple of {step} required, got {stride}")
    window = (patch - field) // step + 1  # positions of the map inside a patch, along a side
    means = mean_pool(embed_map(images), window, stride // step)  # (B, D, h or 1 more, w or 1 more)
    return means[..., :rows, :columns].permute(0, 2, 3, 1)  # (B, h, w, D)


def widen_patches(features: Tensor, along: int) -> Tensor:
    """Give the features of larger squares of an image: the mean of those of the patches in each.

    Args:
        features: (B, h, w, D), of a grid of patches.
        along: patches along a side of the larger squares, at most h and w.

    Returns:
        (B, h - along + 1, w - along + 1, D), of the grid of all such squares.

    Cost: 2·along additions a value.
    """
    if along == 1:
        return features
    maps = features.permute(0, 3, 1, 2)
    return F.avg_pool2d(F.avg_pool2d(maps, (along, 1), 1), (1, along), 1).permute(0, 2, 3, 1)


def continue_edges(images: Tensor, margin: int) -> Tensor:
    """Continue images (B, C, H, W) by `margin` pixels on every side, each the pixel of the edge that is nearest.

    Returns:
        (B, C, H + 2·margin, W + 2·margin) of the same type; the images themselves if the margin is 0.
    """
    height, width = images.shape[-2:]
    return continued_window(images, margin, (0, height + 2 * margin), (0, width + 2 * margin))


def continued_window(images: Tensor, margin: int, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Give rows and columns, each from one to before another, of what `continue_edges` gives; a view if possible."""
    for dim, ends in ((-2, rows), (-1, columns)):
        side, first, last = images.shape[dim], ends[0] - margin, ends[1] - margin
        low, high = max(first, 0), min(last, side)
        images = images.narrow(dim, low, high - low)
        if (low, high) != (first, last):
            nearest = torch.arange(first - low, last - low, device=images.device).clamp(0, high - low - 1)
            images = images.index_select(dim, nearest)
    return images


def slabs(images: Tensor, patch: int, stride: int, rows: int) -> list[Tensor]:
    """Cut images (B, C, H, W) into views that hold `rows` rows of the grid of patches each, fewer in the last.

    The slabs overlap by patch - stride pixels, and their grids one under the other are the grid of the images: what is
    computed patch by patch, or without padding, has no seams.
    """
    count, _ = grid_shape(images.shape[-2], images.shape[-1], patch, stride)
    return [
        images[..., top * stride : (min(top + rows, count) - 1) * stride + patch, :] for top in range(0, count, rows)
    ]


def blocks(grid: tuple[int, int], side: int, stride: int, pixels: int) -> list[tuple[slice, slice]]:
    """Divide a grid of squares into blocks, each of about so many pixels, about as wide as high, and all about equal.

    Args:
        grid: rows and columns of the squares.
        side: of the squares, pixels.
        stride: pixels from one to the next.
        pixels: of the part of the image that the squares of a block cover, at most, or one square's.

    Returns:
        Slices of the rows and of the columns, from the upper left, row by row.
    """
    height, width = ((count - 1) * stride + side for count in grid)
    wide = min(width, max(math.isqrt(pixels), pixels // height))
    parts = []
    for count, length in zip(grid, (pixels // wide, wide), strict=True):
        most = max(1, (length - side) // stride + 1)
        number = -(-count // most)
        ends = [count * i // number for i in range(number + 1)]
        parts.append([slice(first, last) for first, last in pairwise(ends)])
    return [(rows, columns) for rows in parts[0] for columns in parts[1]]


def receptive_field(patch: int) -> Tensor:
    """Give the logarithm (patch,) of the Gaussian, peak 1, that spreads a patch's score over its rows and its columns.

    Source: Liznerski et al. 2021 (FCDD): standard deviation 10 px from a patch of 32 px, log10(0.45·patch + 1) + 0.25
        below; taken over by Li et al. 2021, §2.4.
    """
    sigma = 10.0 if patch >= 32 else math.log10(0.45 * patch + 1) + 0.25
    offset = torch.arange(patch) - (patch - 1) / 2
    return -(offset**2) / (2 * sigma**2)  # (patch,)


def spread_scores(
    scores: Tensor, size: tuple[int, int], *, patch: int = 64, stride: int = 4, normalized: bool = True
) -> Tensor:
    """Spread the scores of a grid of patches over the pixels of the image.

    Args:
        scores: (B, h, w), one score per patch of the grid.
        size: (H, W) of the image the grid was laid over, pixels.
        patch: side of the patches, pixels.
        stride: pixels from one patch to the next.
        normalized: divide by the coverage, so that a pixel gets the mean score of the patches around it; False: the
            plain sum, as in the paper, far lower towards the border, where fewer patches reach: in the corners 350
            times at 32/4, 800,000 times at 64/4.

    Returns:
        (B, H, W), float32; pixels in no patch take their neighbour's value.

    Raises:
        ValueError: scores of another grid than size, patch and stride make.

    Source: Li et al. 2021, §2.4: a transposed convolution with one Gaussian, after FCDD.
    Cost: H·h·w + H·w·W multiply-adds an image. The Gaussian is a product of one over rows and one over columns, so
        the transposed convolution is two small matrix products; and what is divided by is never as small as the
        corner of the two-dimensional Gaussian, which float32 cannot hold for patches of 30 and 31.
    """
    grid = grid_shape(*size, patch, stride)
    if scores.ndim != 3 or scores.shape[1:] != grid:
        raise ValueError(
            f"spread_scores: scores of shape (B, {grid[0]}, {grid[1]}) required, got {tuple(scores.shape)}"
        )
    rows, columns = (reach_weights(size[i], grid[i], patch, stride, normalized).to(scores.device) for i in (0, 1))
    return rows @ scores.float() @ columns.T  # (H, h) · (B, h, w) · (w, W)


def reach_weights(length: int, count: int, patch: int, stride: int, normalized: bool) -> Tensor:
    """Give the weight (length, count) of each of `count` patches along a side at each of its `length` pixels.

    `spread_scores` is two products with such matrices: of the rows, and of the columns.
    """
    return _weights(torch.arange(length), torch.arange(count), count, patch, stride, normalized)


def weights_between(first: int, last: int, count: int, patch: int, stride: int) -> tuple[int, Tensor]:
    """Give of `reach_weights`, normalized, the rows of pixels `first` to before `last`, and no columns of zeros alone.

    Returns:
        The first patch that reaches one of them, and weights (last - first, patches that do).
    """
    end = (count - 1) * stride + patch - 1  # of the last patch
    low = max(0, (min(first, end) - patch) // stride + 1)
    high = min(count - 1, (last - 1) // stride)
    return low, _weights(torch.arange(first, last), torch.arange(low, high + 1), count, patch, stride, True)


def _weights(pixel: Tensor, place: Tensor, count: int, patch: int, stride: int, normalized: bool) -> Tensor:
    """Give the weights (pixels, places) of some places of `count` at some pixels."""
    below = (pixel // stride).clamp(max=count - 1) * stride + patch - 1  # lower end of the last patch that may reach it
    offset = torch.minimum(pixel, below)[:, None] - place * stride  # (pixels, places), inside the patch
    exponent = receptive_field(patch)[offset.clamp(0, patch - 1)]
    exponent = exponent.masked_fill((offset < 0) | (offset >= patch), -math.inf)
    # Some 150 pixels from the middle the Gaussian is 0 in float32, and so may the sum be: softmax is safe there.
    return exponent.softmax(1) if normalized else exponent.exp()


def resize_map(score_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize score maps (B, H, W) to (B, *size), in pixels, bilinearly: back to an image's original size."""
    return F.interpolate(score_map.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


def score_maps(maps: Tensor) -> Tensor:
    """Give the scores (B,) of images from their score maps (B, H, W): the highest score of a pixel."""
    return maps.amax((-2, -1))
