"""Pictures that are drawn for tests, and written as files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def draw_noise(height=6, width=8, channels=3, seed=0):
    """Give random uint8 pixels, (H, W) for one channel or (H, W, C)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def draw_images(count: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """Draw a batch of noise, uint8 (count, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def draw_waves(height, width):
    """Give an RGB photograph's stand-in, (H, W, 3): waves that a JPEG keeps well."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y), np.sin(5 * x * y)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_picture(path: Path, pixels=None, **options) -> Path:
    """Write pixels, noise if none come, as the extension and the options say; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_noise() if pixels is None else pixels).save(path, **options)
    return path
