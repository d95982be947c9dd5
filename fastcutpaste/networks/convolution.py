"""Convolutions of small maps on a CPU in bfloat16, as matrix products.

oneDNN goes through a convolution row by row of the map. The last maps of a network that is shown crops of 64 pixels,
2 × 2 or 4 × 4, have hardly a row to go along, and it reaches a tenth of what the processor multiplies. One matrix
product over all positions of the batch does the same arithmetic. By AMX, one core, 96 maps of 512 × 2 × 2 to as many,
3×3: 24 ms forward, 27 backward for the images and 84 for the weights; here 6 each.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode

SMALL = 16  # positions of a map up to which a product is the faster way, forward and backward
FEW = 3  # of the weights' gradient alone, as long as there are so many times as many channels as positions
Pair = tuple[int, int]


class SmallConvolutions(TorchFunctionMode):
    """Within it, `conv2d` takes matrix products where they are faster; its results differ by rounding alone.

    That is on a CPU, in bfloat16 (by autocast too), without groups and dilation, where the result has at most `SMALL`
    positions an image or, for the gradient of the weights, `FEW` times as many channels as positions. Everything else
    is left as it is. How a product is rounded depends on the number of its rows, so on the images that come together.

    Cost: what the kernel sees at each position is copied, 9 times the maps' memory for 3×3.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding, dilation, groups = args
            pairs = all(isinstance(each, tuple) and len(each) == 2 for each in (stride, padding))
            usual = pairs and dilation == (1, 1) and groups == 1 and images.ndim == 4
            if usual and images.device.type == "cpu" and _in_bf16(images, weight):
                height, width = _map_size(images, weight, stride, padding)
                if min(height, width) > 0 and height * width <= max(SMALL, len(weight) // FEW):
                    maps: Tensor = _Convolution.apply(images.bfloat16(), weight.bfloat16(), stride, padding)
                    return maps if bias is None else maps + bias.bfloat16()[:, None, None]
        return func(*args, **kwargs)


class _Convolution(torch.autograd.Function):
    """Convolve images (B, C, H, W) with weights (D, C, k, l) to (B, D, h, w)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        height, width = _map_size(images, weight, stride, padding)
        if height * width > SMALL:
            return torch.conv2d(images, weight, None, stride, padding)
        rows = _columns(images, weight, stride, padding) @ _matrix(weight).T  # (B·h·w, D)
        maps = rows.view(len(images), height, width, len(weight)).permute(0, 3, 1, 2)
        return maps.clone()  # into views of it the layer behind could not write

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Pair, Pair], output: Tensor) -> None:
        images, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(images, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        of_images = of_weight = None
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))  # (B·h·w, D)
        if ctx.needs_input_grad[0]:
            if gradient.shape[2] * gradient.shape[3] > SMALL:
                of_images = conv2d_input(images.shape, weight, gradient, stride, padding)  # type: ignore[no-untyped-call]
            else:
                of_images = _spread(rows @ _matrix(weight), images, weight, stride, padding)
        if ctx.needs_input_grad[1]:
            products = rows.T @ _columns(images, weight, stride, padding)  # (D, k·l·C)
            of_weight = products.view_as(weight.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return of_images, of_weight, None, None


def _in_bf16(images: Tensor, weight: Tensor) -> bool:
    """Tell whether torch computes with these in bfloat16: because they are, or because autocast says so."""
    dtypes = {images.dtype, weight.dtype}
    rounded = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return dtypes == {torch.bfloat16} or (rounded and dtypes <= {torch.bfloat16, torch.float32})


def _map_size(images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Pair:
    height, width = (
        (length + 2 * pad - side) // step + 1
        for length, side, step, pad in zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
    )
    return height, width


def _matrix(weight: Tensor) -> Tensor:
    """Give weights (D, C, k, l) as (D, k·l·C)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _columns(images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Give what the kernel sees at each position (B·h·w, k·l·C)."""
    padded = F.pad(images, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else images
    windows = padded.permute(0, 2, 3, 1)  # (B, H, W, C)
    for axis in (0, 1):
        windows = windows.unfold(1 + axis, weight.shape[2 + axis], stride[axis])  # (B, h, w, C, k, l)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, weight[0].numel())


def _spread(columns: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Add what each position has for each pixel (B·h·w, k·l·C) to the pixels (B, C, H, W)."""
    count, channels, *size = images.shape
    height, width = _map_size(images, weight, stride, padding)
    columns = columns.view(count, height, width, *weight.shape[2:], channels)
    bottom, right = (length + 2 * pad for length, pad in zip(size, padding, strict=True))
    padded = torch.zeros(count, bottom, right, channels, dtype=torch.float32)  # less is lost in the sums
    for i, j in product(*map(range, weight.shape[2:])):
        down, across = slice(i, i + stride[0] * height, stride[0]), slice(j, j + stride[1] * width, stride[1])
        padded[:, down, across] += columns[:, :, :, i, j]
    inside = padded[:, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
    return inside.to(columns.dtype).permute(0, 3, 1, 2)
