"""The first layers of a network, whose maps are the largest: the same functions, in the form that costs a GPU least.

A ResNet-18's step at 96 × 256², bfloat16, compiled, took an H100 8.5 ms (torch 2.11). The first convolution and its
weights' gradient were 1.2 of them, for 4 % of the step's products: tensor cores want channels by eights, and an image
has three. Another 0.7 was one kernel of the max-pool's gradient. In the forms here and in `pooling` the step's kernels
take 7.1 ms (benchmarks/README.md).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.networks.pooling import HALF, PoolThenReLU, is_exported, on_a_gpu

SIDE, STRIDE = 7, 2  # of the convolution that is computed by blocks


def arrange_stem(backbone: nn.Module, resnet: bool) -> None:
    """Exchange the first layers of a backbone for ones that compute the same; its parameters keep names and values.

    Args:
        backbone: changed in place where it has such layers. Its first convolution may be 7×7 with stride 2.
        resnet: it is torchvision's ResNet or cut out of one, where ReLU and max-pool follow each other.
    """
    for name, layer in list(backbone.named_modules()):
        if _is_stem(layer):
            backbone.set_submodule(name, StemConvolution.of(layer))
    for part in backbone.modules():
        if resnet and hasattr(part, "maxpool"):  # a ResNet cut before it has none
            part.relu, part.maxpool = nn.Identity(), PoolThenReLU()


class StemConvolution(nn.Conv2d):
    """Convolve images (B, 3, H, W), 7×7 with stride 2; on a GPU in half precision by blocks of 2×2 pixels.

    Exported graphs keep the convolution as it is.

    Cost: by blocks, 256 products for each number of the result, where 147 are needed, and a copy of the images 1.4
        times as large, which Inductor makes while it normalizes them. On a CPU it took 1.3 to 1.9 times as long as the
        convolution itself (AVX-512, bfloat16 and float32, one core).
    """

    @classmethod
    def of(cls, layer: nn.Conv2d) -> "StemConvolution":
        """Give a layer with the parameters of another, without drawing random ones first."""
        padding: Any = layer.padding
        bias = layer.bias is not None
        made = cls(layer.in_channels, layer.out_channels, SIDE, STRIDE, padding, bias=bias, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        return made.train(layer.training)

    def forward(self, images: Tensor) -> Tensor:
        if on_a_gpu(images) and not is_exported() and images.ndim == 4:
            kind = images.device.type
            rounded = torch.is_autocast_enabled(kind) and images.dtype != torch.float64
            dtype = torch.get_autocast_dtype(kind) if rounded else images.dtype
            if dtype in HALF:
                padding: Any = self.padding
                return convolve_by_blocks(images.to(dtype), self.weight.to(dtype), self.bias, padding)
        return super().forward(images)


def convolve_by_blocks(images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Convolve with stride 2 as with stride 1 over blocks of 2×2 pixels: a block's pixels become channels.

    Args:
        images: (B, 3, H, W).
        weight: (D, 3, 7, 7); with a row and a column of zeros it is 8×8, or 4×4 blocks.
        bias: (D,), or none.
        padding: rows above and below, columns on both sides, of zeros.

    Returns:
        (B, D, (H + 2p - 7) // 2 + 1, (W + 2q - 7) // 2 + 1) for padding (p, q), as `conv2d` gives it, to rounding.
    """
    return F.conv2d(image_blocks(images, padding), weight_blocks(weight), bias)


def image_blocks(images: Tensor, padding: tuple[int, int]) -> Tensor:
    """Give the blocks (B, 16, h, w) of images (B, 3, H, W) with zeros around them, see `convolve_by_blocks`."""
    (top, left), (height, width) = padding, images.shape[2:]
    # Where they are odd, one row and column more: they meet the weight's zeros or no window. One channel more: a block
    # has 16 then, and kernels in half precision want whole eights.
    return _blocks(F.pad(images, (left, left + width % 2, top, top + height % 2, 0, 1)))


def weight_blocks(weight: Tensor) -> Tensor:
    """Give the blocks (D, 16, 4, 4) of a weight (D, 3, 7, 7)."""
    return _blocks(F.pad(weight, (0, 1, 0, 1, 0, 1)))


def _blocks(images: Tensor) -> Tensor:
    """Turn blocks of 2×2 pixels into channels: (B, C, 2h, 2w) to (B, 4C, h, w), channels last in memory."""
    count, channels, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(count, height // 2, 2, width // 2, 2, channels)
    blocks = pixels.transpose(2, 3).reshape(count, height // 2, width // 2, 4 * channels)  # (B, h, w, 2 · 2 · C)
    return blocks.permute(0, 3, 1, 2)


def _is_stem(layer: nn.Module) -> bool:
    """Tell whether a layer is a plain 7×7 convolution of three channels with stride 2."""
    if type(layer) is not nn.Conv2d or isinstance(layer.padding, str):
        return False
    shape = layer.in_channels, layer.kernel_size, layer.stride, layer.dilation, layer.groups, layer.padding_mode
    return shape == (3, (SIDE, SIDE), (STRIDE, STRIDE), (1, 1), 1, "zeros")
