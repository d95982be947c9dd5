"""Features that are drawn for tests of densities."""

import torch
from torch import Tensor


def draw_features(
    count: int, width: int, seed: int = 0, shift: float = 0.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw correlated features (count, width) of unequal scales, not Gaussian, around `shift`."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5
    rows = torch.randn(count, width, generator=generator, dtype=torch.float64)
    rows = rows.sign() * rows.abs().pow(1.5) * torch.logspace(-1, 0.5, width, dtype=torch.float64)
    return (rows @ mixing + shift * torch.linspace(0.5, 1.5, width, dtype=torch.float64)).to(dtype)
