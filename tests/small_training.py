"""A training of a moment: a network of a few hundred weights, its batches and its settings."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from fastcutpaste.training.loop import train
from fastcutpaste.training.step import TrainConfig
from fastcutpaste.transforms.baselines import Cutout
from fastcutpaste.transforms.patch import BaseAugmentation
from fastcutpaste.transforms.tasks import PretextTask

TASK = PretextTask(Cutout("black"))
STILL = BaseAugmentation(shift=0.0, jitter=0.0)
STATE = {
    "network.a": torch.arange(6.0).view(2, 3),
    "step": torch.tensor([4, 2]),
    "b": torch.tensor(2, dtype=torch.uint8),
}
FACTS = {"settings": {"batch": 4}, "data": {"images": 9}, "surroundings": {"threads": 2}}


class Tiny(nn.Module):
    """A network of a few hundred weights that keeps the shapes it saw."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.layers = nn.Sequential(*layers, nn.Linear(8, classes))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        scores: Tensor = self.layers(images / 255 if images.dtype == torch.uint8 else images)
        return scores


def repeat_flat(batch: int = 8, side: int = 24) -> Iterator[Tensor]:
    """Repeat one batch of flat light-grey uint8 images."""
    levels = torch.linspace(120, 200, batch).to(torch.uint8)
    while True:
        yield levels.view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


def draw_batches(batch: int = 8, side: int = 24, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.rand(batch, 3, side, side, generator=generator)


def settings(steps: int, learning_rate: float = 0.1, batch: int = 8, **others: Any) -> TrainConfig:
    return TrainConfig(**{"precision": "fp32"} | others, steps=steps, learning_rate=learning_rate, batch=batch)


def weights_after(config: TrainConfig, base: nn.Module | None = None) -> list[Tensor]:
    network = Tiny()
    train(network, draw_batches(config.batch), TASK, config, base=base)
    return list(network.state_dict().values())


def scaling_fabric() -> Fabric:
    """Give a Fabric that scales fp16 losses on a CPU, which the library itself leaves to GPUs."""
    return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu"))


def same(one, two):
    return list(one) == list(two) and all(torch.equal(value, two[name]) for name, value in one.items())
