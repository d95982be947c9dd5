"""What every op asks of its arguments before any work: answered from shapes and Python numbers, never from contents."""

import torch
from torch import Tensor

Range = tuple[float, float]


def check_images(who: str, images: Tensor) -> None:
    """Raise unless images are a (B, C, H, W) tensor, uint8 or floating point, with at least one pixel each."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{who}: images as a tensor required, got {type(images).__name__}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{who}: images of dtype uint8 (0–255) or floating point (0–1) required, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"{who}: images of shape (B, C, H, W) required, got {tuple(images.shape)}")


def check_range(who: str, name: str, values: Range, lowest: float, highest: float) -> None:
    """Raise unless values are two numbers with lowest <= values[0] <= values[1] <= highest."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise TypeError(f"{who}: {name} as two numbers (low, high) required, got {values!r}")
    if not lowest <= values[0] <= values[1] <= highest:
        raise ValueError(f"{who}: {name} with {lowest:g} <= low <= high <= {highest:g} required, got {tuple(values)}")


def memory_format_of(images: Tensor) -> torch.memory_format:
    """Tell whether images (B, C, H, W) lie in memory as channels_last or contiguous."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
