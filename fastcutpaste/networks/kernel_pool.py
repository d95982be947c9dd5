"""Pools on a GPU, in Triton: the max-pool and ReLU of a ResNet's stem, both ways, and the means of windows.

No addition is atomic. The max-pool's windows are of 3×3 pixels, every second row and column, with one row and column of
nothing around the map. A window remembers in a byte which of its pixels it chose, and that it chose none where the ReLU
gives 0. In the gradient each pixel asks the one, two or four windows that it is in: it is written once, in the map's
own type, always the same.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SHARE = 1_024  # numbers a program computes, of one row of one image: all channels of one pixel after another


class PoolReLU(torch.autograd.Function):
    """Give the ReLU of the largest of each window of maps, as `pool_relu_op` does, with its gradient."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        pooled: Tensor
        pooled, chosen = pool_relu_op(maps)
        ctx.size = maps.shape[2:]
        ctx.save_for_backward(chosen)
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        of_maps: Tensor = pool_relu_backward_op(gradient, *ctx.saved_tensors, *ctx.size)
        return of_maps


@torch.library.custom_op("fastcutpaste::pool_relu", mutates_args=())
def pool_relu_op(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Give the ReLU of the largest of each window.

    Args:
        maps: (B, C, H, W), floating point of up to 32 bits, on a GPU.

    Returns:
        Maps (B, C, ceil(H / 2), ceil(W / 2)), and of the same shape what was chosen: the number of the first pixel that
        is as large, 0 to 8, or -1 where none is above 0, int8. Both channels_last.

    Cost: one launch; the maps are read once, three bytes written for each number of the result in half precision.
    """
    maps = maps.contiguous(memory_format=torch.channels_last)
    pooled, chosen = _empty_like_result(maps)
    batch, channels, height, width = maps.shape
    h, w = pooled.shape[2:]
    if pooled.numel():
        with torch.cuda.device_of(maps):
            _pool[batch * h, triton.cdiv(w * channels, SHARE)](
                maps, pooled, chosen, height, width, h, w, CHANNELS=channels, SHARE=SHARE
            )
    return pooled, chosen


@torch.library.custom_op("fastcutpaste::pool_relu_backward", mutates_args=())
def pool_relu_backward_op(gradient: Tensor, chosen: Tensor, height: int, width: int) -> Tensor:
    """Give the gradient (B, C, H, W) of the maps, for the gradient of the result (B, C, h, w) and what was chosen.

    Of the gradient's type, summed in float32, channels_last.

    Cost: one launch; three bytes are read for each number of the result, two written for each of the maps, in half
        precision.
    """
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    spread: Tensor = _empty_like_maps(gradient, chosen, height, width)
    batch, channels, h, w = gradient.shape
    if spread.numel():
        with torch.cuda.device_of(gradient):
            _spread[batch * height, triton.cdiv(width * channels, SHARE)](
                gradient, chosen, spread, height, width, h, w, CHANNELS=channels, SHARE=SHARE
            )
    return spread


def mean_pool_kernel(maps: Tensor, side: int, stride: int) -> Tensor:
    """Do what `pooling.mean_pool` does, for maps of up to 32 floating bits; the means are channels_last.

    Cost: one launch; each window reads its part of the maps, most of it from the cache.
    """
    maps = maps.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = maps.shape
    h, w = (height - side) // stride + 1, (width - side) // stride + 1
    means = torch.empty((batch, channels, h, w), dtype=maps.dtype, device=maps.device,
                        memory_format=torch.channels_last)  # fmt: skip
    if means.numel():
        with torch.cuda.device_of(maps):
            _mean[batch * h, triton.cdiv(w * channels, SHARE)](
                maps, means, height, width, h, w, CHANNELS=channels, SIDE=side, STRIDE=stride, SHARE=SHARE
            )
    return means


@pool_relu_op.register_fake
def _empty_like_result(maps):
    batch, channels, height, width = maps.shape
    shape = (batch, channels, (height + 1) // 2, (width + 1) // 2)
    pooled = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    return pooled, torch.empty_like(pooled, dtype=torch.int8)


@pool_relu_backward_op.register_fake
def _empty_like_maps(gradient, chosen, height, width):
    shape = (*gradient.shape[:2], height, width)
    return torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)


@triton.jit
def _pool(maps, pooled, chosen, height, width, h, w, CHANNELS: tl.constexpr, SHARE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    image, y = row // h, row % h
    place = tl.program_id(1) * SHARE + tl.arange(0, SHARE)  # in the row of the result
    x, channel = place // CHANNELS, place % CHANNELS
    best = tl.full((SHARE,), float("-inf"), tl.float32)
    choice = tl.full((SHARE,), -1, tl.int32)
    for k in tl.static_range(9):
        up, left = 2 * y + k // 3 - 1, 2 * x + k % 3 - 1
        inside = (up >= 0) & (up < height) & (left >= 0) & (left < width)
        start = (image * height + up) * width * CHANNELS
        value = tl.load(maps + start + left * CHANNELS + channel, mask=inside, other=float("-inf")).to(tl.float32)
        better = (value > best) | (value != value)  # noqa: PLR0124 - what is not a number is passed on, as torch does
        best, choice = tl.where(better, value, best), tl.where(better, k, choice)
    nothing, there = best <= 0, place < w * CHANNELS
    at = row * w * CHANNELS + place
    tl.store(pooled + at, tl.where(nothing, 0.0, best).to(pooled.dtype.element_ty), mask=there)
    tl.store(chosen + at, tl.where(nothing, -1, choice).to(tl.int8), mask=there)


@triton.jit
def _spread(gradient, chosen, spread, height, width, h, w, CHANNELS: tl.constexpr, SHARE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    image, up = row // height, row % height
    place = tl.program_id(1) * SHARE + tl.arange(0, SHARE)  # in the row of the maps
    left, channel = place // CHANNELS, place % CHANNELS
    there = place < width * CHANNELS
    total = tl.zeros((SHARE,), tl.float32)
    for k in tl.static_range(4):
        y, x = up // 2 + k // 2, left // 2 + k % 2
        i, j = up + 1 - 2 * y, left + 1 - 2 * x  # the pixel's row and column in the window; -1: it is not in it
        inside = there & (y < h) & (x < w) & (i >= 0) & (j >= 0)
        at = (image * h + y) * w * CHANNELS + x * CHANNELS + channel
        mine = tl.load(chosen + at, mask=inside, other=-1) == 3 * i + j
        has = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)  # eight at once, not only what is mine
        total += tl.where(mine, has, 0.0)
    tl.store(spread + row * width * CHANNELS + place, total.to(spread.dtype.element_ty), mask=there)


@triton.jit
def _mean(
    maps, means, height, width, h, w, CHANNELS: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr,
    SHARE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    image, y = row // h, row % h
    place = tl.program_id(1) * SHARE + tl.arange(0, SHARE)  # in the row of the result
    there, start = place < w * CHANNELS, place // CHANNELS * (STRIDE * CHANNELS) + place % CHANNELS
    total = tl.zeros((SHARE,), tl.float32)
    for i in range(SIDE):
        for j in range(SIDE):
            at = (image * height + y * STRIDE + i) * width * CHANNELS + start + j * CHANNELS
            total += tl.load(maps + at, mask=there, other=0.0).to(tl.float32)
    tl.store(means + row * w * CHANNELS + place, (total / (SIDE * SIDE)).to(means.dtype.element_ty), mask=there)
