"""A detector that is fitted in a moment, its files, and changed copies of them."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastcutpaste.images.hold_out import hold_out
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.tensors import checksum

SIZE = (40, 72)
PATCHES = DetectorConfig(size=SIZE, patch=24, stride=8, border=False)  # 3 × 7 patches
WHOLE = DetectorConfig(size=SIZE, patch=None, chunk=5)
KINDS = [
    PATCHES,
    WHOLE,
    replace(WHOLE, density="kernel", level=True),
    replace(PATCHES, border=True, density="nearest", level=True),
    replace(PATCHES, areas=(32, 40)),
]
NAMES = ["patches", "whole", "whole-kernel-level", "border-nearest-level", "areas"]


def draw_images(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """Draw uint8 images (count, 3, *size) of faint noise on grey."""
    generator = torch.Generator().manual_seed(seed)
    return (128 + 12 * torch.randn(count, 3, *size, generator=generator)).clamp(0, 255).to(torch.uint8)


def put_aside(images: Tensor, share: float = 0.2) -> tuple[Tensor, Tensor]:
    """Give images to learn from, and the last ones, to set the threshold on."""
    learned, held_out = hold_out(len(images), share, how="last")
    return images[learned], images[held_out]


def make_network() -> Network:
    """Build a network with weights of its own."""
    torch.manual_seed(0)
    return Network(NetworkConfig(classes=2, head=(8,), stage="layer1"))


@functools.cache
def network() -> Network:
    """Build one network for all tests that only look."""
    return make_network()


def make_fitted(config: DetectorConfig = PATCHES, count: int = 12) -> Detector:
    return Detector(network(), config, provenance={"seed": 3, "data": {"images": count}}).fit(
        *put_aside(draw_images(count, size=config.size))
    )


def read_header(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()["fastcutpaste"])
    return header


def write_changed(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> None:
    """Copy a detector file with header and tensors changed in place by `change`, and the checksum with them."""
    header, tensors = read_header(source), load_file(source)
    del header["checksum"]
    change(header, tensors)
    told = header if header.get("format") in range(7) else header | {"checksum": checksum(tensors, json.dumps(header))}
    save_file(tensors, target, {"fastcutpaste": json.dumps(told)})


def assert_refused(path: Path, message: str) -> None:
    """Assert that loading raises one line that names the file and matches `message`."""
    with pytest.raises(ValueError, match=message) as caught:
        Detector.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(path)) == 1
