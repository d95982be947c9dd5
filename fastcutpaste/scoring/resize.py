"""Pillow's antialiased resize in plain tensor operations, bit for bit, for graphs that run without Pillow."""

from typing import cast

import torch
from torch import Tensor

_TOGETHER = 4  # rows made by one product: of 900² that takes ONNX Runtime, at best, 6.5 ms, 8 take 10.9, 32 13.7


def resize_as_pillow(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images as `PIL.Image.resize` with `BILINEAR` does, whose every pass rounds to whole numbers.

    Args:
        images: (B, C, H, W), uint8; B, H and W may be open in a graph.
        size: (h, w), pixels.

    Returns:
        (B, C, h, w), uint8. The same as Pillow 13's; where that takes rows first, which
        earlier ones never did, theirs differ by 1.

    Cost: 2·H·W·C values read, and of 900² to 256² 80 million multiply-adds a channel.
    """
    (height, width), (h, w) = images.shape[-2:], size

    # To uint8 in either branch: with that behind them OpenVINO 2026.4 got the first images of some sizes wrong.
    def rows_first(values: Tensor) -> Tensor:
        return _resize_rows(_resize_rows(values, h).mT, w).mT.contiguous().to(torch.uint8)

    def columns_first(values: Tensor) -> Tensor:
        return _resize_rows(_resize_rows(values.mT, w).mT, h).to(torch.uint8)

    first = cast(bool, torch.sym_max(0, 2 * (width - w)) < height - h)  # of open sizes torch's own kind of it
    result: Tensor = torch.cond(first, rows_first, columns_first, (images,))
    return result


def _resize_rows(values: Tensor, count: int) -> Tensor:
    """Resize (B, C, H, W), whole numbers 0–255 of any type, to (B, C, count, W), float32 whole numbers."""
    length = values.shape[2]
    blocks = -(-count // _TOGETHER)
    row = torch.arange(blocks * _TOGETHER, device=values.device).view(blocks, _TOGETHER, 1)
    row = row.clamp(max=count - 1)
    # Pixels in units of 1 / (2 · count): a row's middle is (2 · row + 1) · length, a source's (2 · source + 1) · count.
    reach = 2 * cast(int, torch.sym_max(length, count))
    start = ((2 * row[:, :1] + 1) * length - reach) // (2 * count)  # (blocks, 1, 1), may lie before the first
    offset = torch.arange((_TOGETHER + 1) * length // count + 5, device=values.device)
    source = start + offset  # (blocks, 1, sources)
    distance = ((2 * source + 1) * count - (2 * row + 1) * length).abs()
    triangle = (reach - distance).clamp(min=0) * ((source >= 0) & (source < length))  # (blocks, 4, sources)
    total = triangle.sum(-1, keepdim=True)
    # Pillow's weights are whole numbers of 22 bits. As two of 11, float32 multiplies and adds them without rounding.
    high = triangle * 2048 // total
    low = ((triangle * 2048 - high * total) * 4096 + total) // (2 * total)
    weights = torch.cat([high.float() / 2**11, low.float() / 2**22], 1)  # (blocks, 8, sources)
    index = source.clamp(0, length - 1).view(-1)
    taken = values.index_select(2, index).float()
    taken = taken.view(*taken.shape[:2], blocks, -1, taken.shape[-1])  # (B, C, blocks, sources, W)
    upper, lower = torch.split(weights @ taken, _TOGETHER, 3)  # (B, C, blocks, 4, W) each
    whole = upper.floor()
    made: Tensor = (whole + (upper - whole + lower + 0.5).floor()).flatten(2, 3)[:, :, :count]
    return made
