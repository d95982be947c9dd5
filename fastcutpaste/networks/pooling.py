"""Pools of maps, each as torch has it and as a kernel of our own where torch's is slow: on a GPU, channels last.

On an H100 torch's mean over 3×3 and over 2×2 took 0.31 of the 1.1 ms of sixteen heat maps (PatchNet, 256²), and its
largest of 3×3 took 0.76 of the 5.6 ms of one (ResNet-18, patch by patch): 5 to 15 times what reading the maps takes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.op.paste import HAS_TRITON

HALF = (torch.bfloat16, torch.float16)


class MeanPool(nn.Module):
    """Give the means of windows, see `mean_pool`."""

    def __init__(self, side: int, stride: int) -> None:
        super().__init__()
        self.side, self.stride = side, stride

    def forward(self, maps: Tensor) -> Tensor:
        return mean_pool(maps, self.side, self.stride)

    def extra_repr(self) -> str:
        return f"{self.side}, stride={self.stride}"


def mean_pool(maps: Tensor, side: int, stride: int) -> Tensor:
    """Give the means of square windows without padding, as `avg_pool2d` does.

    Args:
        maps: (B, D, H, W), floating point.
        side: of a window, positions, at most H and W.
        stride: positions from one window to the next.

    Returns:
        (B, D, (H - side) // stride + 1, (W - side) // stride + 1).
    """
    if not (_learns(maps) or torch.compiler.is_compiling()) and _by_kernel(maps):
        from fastcutpaste.networks.kernel_pool import mean_pool_kernel

        return mean_pool_kernel(maps, side, stride)
    return F.avg_pool2d(maps, side, stride)


class PoolThenReLU(nn.Module):
    """Give the ReLU of the largest of each 3×3 pixels, every second row and column: (B, C, H, W) to about half of both.

    It is the pool of the ReLU, in its gradient, too: where the largest is not above 0 there is none either way. A
    quarter of the numbers passes through the ReLU, and nobody needs the map before the pool for its sign. On a CPU both
    took 0.4 to 0.7 times as long, forward and backward (24 × 64 × 128² and 96 × 64 × 32², one core).

    On a GPU kernels of our own do it (`kernel_pool`) where nothing learns, and where it learns, compiled. Inductor's
    gradient in torch 2.11 came to a seventh of the card's memory rate: 0.70 ms of a step of 96 × 256², where ours takes
    0.25; in 2.14 it is scattered by atomic additions in float32, into a map that is filled with zeros before.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if (torch.compiler.is_compiling() or not _learns(maps)) and _by_kernel(maps):
            from fastcutpaste.networks.kernel_pool import PoolReLU, pool_relu_op

            pooled: Tensor = PoolReLU.apply(maps) if _learns(maps) else pool_relu_op(maps)[0]
            return pooled
        return F.relu(F.max_pool2d(maps, 3, 2, 1), inplace=True)


def _by_kernel(maps: Tensor) -> bool:
    """Tell whether kernels can do it; what is followed or exported keeps torch's operations."""
    if not (HAS_TRITON and isinstance(maps, Tensor) and on_a_gpu(maps)) or is_exported():
        return False
    if maps.dtype not in (*HALF, torch.float32) or maps.ndim != 4:
        return False
    return torch.compiler.is_compiling() or _starts()


def _starts() -> bool:
    from fastcutpaste.op.kernels import triton_starts

    return triton_starts()


def _learns(maps: Tensor) -> bool:
    return torch.is_grad_enabled() and maps.requires_grad is True  # of a traced network it is neither True nor False


def on_a_gpu(tensor: Tensor) -> bool:
    """Tell whether a tensor is on one."""
    return tensor.is_cuda


def is_exported() -> bool:
    """Tell whether this is traced for an exported graph, which torch 2.11 also says while it compiles."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
