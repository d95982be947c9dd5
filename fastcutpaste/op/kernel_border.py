"""The border of each image on a GPU: its median and how much of it differs, in one kernel instead of four."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import torch
import triton
import triton.language as tl
from torch import Tensor


@torch.library.custom_op("fastcutpaste::border", mutates_args=())
def border_op(images: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Look at the pixels of the four edges of images (B, 1 or 3, H, W), uint8 or up to 32 floating bits.

    Args:
        images: uint8 0–255 or floating point.
        threshold: fraction of the range by which a pixel has to differ in some channel.

    Returns:
        Median of each channel (B, C, 1, 1), float32, and share of the border that differs from it (B, 1, 1, 1).
    """
    medians, shares = _empty(images, threshold)
    batch, channels, height, width = images.shape
    if batch:
        level = float(int(threshold * 255)) if images.dtype == torch.uint8 else threshold
        with torch.cuda.device_of(images):
            _look[(batch,)](
                images, medians, shares, level, height, width, *images.stride(),
                CHANNELS=channels, BORDER=triton.next_power_of_2(2 * (height + width)),
            )  # fmt: skip
    return medians, shares


@border_op.register_fake
def _empty(images, threshold):
    batch, channels = images.shape[:2]
    medians = images.new_empty((batch, channels, 1, 1), dtype=torch.float32)
    return medians, images.new_empty((batch, 1, 1, 1), dtype=torch.float32)


@triton.jit(do_not_specialize=("level",))
def _look(
    images, medians, shares, level, height, width, step_b, step_c, step_y, step_x,
    CHANNELS: tl.constexpr, BORDER: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    i, count = tl.arange(0, BORDER), 2 * (height + width)
    side = i - 2 * width  # along the left edge, and then the right one
    y = tl.where(i < 2 * width, tl.where(i < width, 0, height - 1), tl.where(side < height, side, side - height))
    x = tl.where(i < 2 * width, tl.where(i < width, i, i - width), tl.where(side < height, 0, width - 1))
    place, there = images + b * step_b + y * step_y + x * step_x, i < count
    unlike = i < 0
    for c in tl.static_range(CHANNELS):
        value = tl.load(place + c * step_c, mask=there, other=0).to(tl.float32)
        # In the order of floating-point numbers as integers; the median is the least that half of them do not exceed.
        bits = value.to(tl.int32, bitcast=True)
        bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        low, high = tl.min(tl.where(there, bits, 0x7FFFFFFF), 0), tl.max(tl.where(there, bits, -0x80000000), 0)
        while low < high:
            middle = (low & high) + ((low ^ high) >> 1)  # which a sum would overflow
            enough = 2 * tl.sum((there & (bits <= middle)).to(tl.int32), 0) >= count
            high = tl.where(enough, middle, high)
            low = tl.where(enough, low, middle + 1)
        median = tl.where(low < 0, low ^ 0x7FFFFFFF, low).to(tl.float32, bitcast=True)
        tl.store(medians + b * CHANNELS + c, median)
        unlike |= (value < median - level) | (value > median + level)
    tl.store(shares + b, tl.sum((unlike & there).to(tl.float32), 0) / count)
