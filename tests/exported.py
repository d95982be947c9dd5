"""Detectors to export, images of any size, and what is to come of them: the library's own way, file by file."""

from typing import Any

import numpy as np
import torch
from pictures import draw_images, draw_waves
from PIL import Image
from small_detector import put_aside
from torch import Tensor

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import resize_map, score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble

SIZE = (40, 72)
SIZES = [(97, 161), (23, 150), (300, 200), (41, 73), (20, 36)]  # others than the detector's
PATCHNET, RESNET = NetworkConfig("patchnet", patch=24, head=()), NetworkConfig(stage="layer1", head=())
LITE = NetworkConfig("tf_efficientnet_lite0", head=())


def fit(network_config: NetworkConfig, config: DetectorConfig, seed: int = 0) -> Detector:
    """Fit a detector whose network is untrained, but has seen images."""
    torch.manual_seed(seed)
    network = Network(network_config)
    with torch.no_grad():
        for batch in range(5):
            network(draw_images(8, *SIZE, batch))
    return Detector(network, config, provenance={"seed": 3}).fit(*put_aside(draw_images(10, *SIZE)))


def photographs(count: int, height: int, width: int) -> Tensor:
    """Give uint8 images (count, 3, height, width), waves with noise on them."""
    noise = np.random.default_rng(height).integers(-40, 40, (count, height, width, 3))
    pixels = (draw_waves(height, width) + noise).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # (B, H, W, 3) -> (B, 3, H, W)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images (B, 3, H, W) as `load_images` does, one after another."""
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    pixels = [np.asarray(one.resize(size[::-1], Image.Resampling.BILINEAR)) for one in pictures]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def wanted(scorer: Detector | Ensemble, images: Tensor) -> list[Tensor]:
    """Give maps, scores and decisions of images as the library makes them of files."""
    small, members = resized(images, scorer.config.size), scorer.members if isinstance(scorer, Ensemble) else [scorer]
    scored: list[Any] = []
    for member in members:
        if member.config.patch is None:
            scored.append((member.score(small), None))
            continue
        maps = member.localize(small)
        scored.append((score_maps(maps), list(resize_map(maps, (images.shape[2], images.shape[3])))))
    scores, maps = scorer.together(scored) if isinstance(scorer, Ensemble) else scored[0]
    return [*([] if maps is None else [torch.stack(maps)]), scores, scores > scorer.threshold]


def assert_agree(results: Any, expected: list[Tensor], tolerance: float = 1e-4) -> None:
    """Assert maps and scores within a share of the maps' range, or of the largest score, and the same decisions."""
    scale = expected[0].max() - (expected[0].min() if len(expected) == 3 else 0)
    assert len(results) == len(expected)
    for result, right in zip(results[:-1], expected[:-1], strict=True):
        assert result.shape == right.shape
        assert (torch.as_tensor(result) - right).abs().max() <= tolerance * scale
    assert torch.equal(torch.as_tensor(results[-1]), expected[-1])
