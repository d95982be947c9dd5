"""Confetti on a GPU: one kernel, in which each pixel asks the corners around it whether their squares reach it."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcutpaste.op.checks import memory_format_of

PIXELS = 512  # a program's


@torch.library.custom_op("fastcutpaste::confetti", mutates_args=())
def confetti_op(images: Tensor, seeds: Tensor, density: float, side: int) -> tuple[Tensor, Tensor]:
    """Strew confetti over images (B, 1 or 3, H, W), as `Confetti` does with seeds (B,) float32 in [0, 1)."""
    order = memory_format_of(images)
    images = images.contiguous(memory_format=order)
    strewn, mask = _empty(images, seeds, density, side)
    batch, channels, height, width = images.shape
    if batch:
        with torch.cuda.device_of(images):
            _strew[batch, triton.cdiv(height * width, PIXELS)](
                images, strewn, mask, seeds, density, height, width, *images.stride(), seeds.stride(0),
                CHANNELS=channels, SIDE=side, PIXELS=PIXELS,
            )  # fmt: skip
    return strewn, mask


@confetti_op.register_fake
def _empty(images, seeds, density, side):
    mask = images.new_empty((images.shape[0], 1, *images.shape[2:]), dtype=torch.bool)
    return torch.empty_like(images, memory_format=memory_format_of(images)), mask


@triton.jit(do_not_specialize=("density",))
def _strew(
    images, strewn, mask, seeds, density, height, width, step_b, step_c, step_y, step_x, seed_step,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    seed = _finalized((tl.load(seeds + b * seed_step).to(tl.float64) * 4294967296.0).to(tl.uint32))
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    y, x, area = pixel // width, pixel % width, height * width
    red, green, blue = tl.zeros((PIXELS,), tl.float32), tl.zeros((PIXELS,), tl.float32), tl.zeros((PIXELS,), tl.float32)
    for near in range(SIDE * SIDE):  # not unrolled, which takes 255 registers
        up, left = near // SIDE, near % SIDE
        corner = pixel - up * width - left
        size = tl.floor(_noise(seed, corner + area) * SIDE)  # less one
        reaches = (y >= up) & (x >= left) & (_noise(seed, corner) < density) & (size >= up) & (size >= left)
        red = tl.maximum(red, tl.where(reaches, _noise(seed, corner + 2 * area) + 1e-6, 0.0))
        if CHANNELS == 3:
            green = tl.maximum(green, tl.where(reaches, _noise(seed, corner + 3 * area) + 1e-6, 0.0))
            blue = tl.maximum(blue, tl.where(reaches, _noise(seed, corner + 4 * area) + 1e-6, 0.0))
    covered, there = red > 0, pixel < area  # a color is never 0
    tl.store(mask + b * area + pixel, covered, mask=there)
    place = b * step_b + y * step_y + x * step_x
    _write(images + place, strewn + place, red, covered, there)
    if CHANNELS == 3:
        _write(images + place + step_c, strewn + place + step_c, green, covered, there)
        _write(images + place + 2 * step_c, strewn + place + 2 * step_c, blue, covered, there)


@triton.jit
def _write(images, strewn, color, covered, there):
    full: tl.constexpr = 255.0 if images.dtype.element_ty == tl.uint8 else 1.0
    value = tl.minimum(color * full, full).to(images.dtype.element_ty)
    tl.store(strewn, tl.where(covered, value, tl.load(images, mask=there)), mask=there)


@triton.jit
def _noise(seed, place):
    """Give the number in [0, 1) that `textures.hashed` has at a place of the field."""
    return (_finalized(seed + place.to(tl.uint32)) >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2**-24


@triton.jit
def _finalized(mixed):
    """Mix 32 bits. Source: MurmurHash3's finalizer (Appleby, public domain)."""
    mixed = (mixed ^ (mixed >> 16)) * 0x85EBCA6B
    mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35
    return mixed ^ (mixed >> 16)
