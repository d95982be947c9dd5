"""The rungs from the classic recipe to ours, each a function that makes one training step whenever it is called."""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.plots import RUNGS
from fastcutpaste import BaseAugmentation, CutPaste3Way, normalize
from fastcutpaste.images.batches import image_batches
from fastcutpaste.networks.backbone import Network
from fastcutpaste.training.loop import Training
from fastcutpaste.training.step import TrainConfig
from tests.reference import three_way_pil

Stepper = Callable[[], object]  # makes one step each time it is called


class ThreeWay(Dataset[tuple[Tensor, ...]]):
    """Augment PIL images one at a time, without end."""

    def __init__(self, images: Tensor) -> None:
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return three_way_pil(self.pictures[index % len(self.pictures)], random.Random(index))


class Loaded(ThreeWay):
    """Give images as they are, from the loader's workers."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return (self.images[index % len(self.images)],)


class Ready(nn.Module):
    """Stand for a task whose images are made already: what a step costs without augmentation."""

    numbers, classes = 0, 3

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.images, self.labels = images, labels

    def forward(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        return self.images, self.labels


class Still(nn.Module):
    """Stand for a base augmentation that does nothing."""

    numbers = 0

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        return images


def loader(dataset: Dataset[tuple[Tensor, ...]], batch: int, device: torch.device) -> Iterator[list[Tensor]]:
    """Load with a worker a core."""
    return iter(DataLoader(dataset, batch, num_workers=os.cpu_count() or 1, pin_memory=device.type == "cuda"))


def plain(network: Network, batches: Iterator[Tensor], device: torch.device) -> Stepper:
    """Make the usual loop: fp32, NCHW, torch's default SGD, on normalized batches class after class."""
    network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.03, 0.9, weight_decay=3e-5)

    def step() -> None:
        normalized = next(batches)
        labels = torch.arange(3, device=device).repeat_interleave(len(normalized) // 3)
        optimizer.zero_grad()
        F.cross_entropy(network.head(network.backbone(normalized)), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def steady(
    images: Tensor, batch: int, device: torch.device, task: Any = None, base: Any = None, **settings: Any
) -> Stepper:
    """Make our step on resident images; the host waits once in 20 steps, as in training."""
    torch.manual_seed(0)
    training = Training(Network().to(device), task or CutPaste3Way(), TrainConfig(batch=batch, **settings), base)
    resident = images.to(device).contiguous(memory_format=torch.channels_last)
    batches = image_batches(resident, batch, seed=0)

    def step() -> None:
        training.advance(next(batches))
        if training.step % training.window == 0:
            training.read()
            training.start_window()

    return step


def rungs(images: Tensor, batch: int, device: torch.device) -> dict[str, Callable[[], Stepper]]:
    """Give, by name, what makes each rung's stepper."""
    torch.manual_seed(0)
    task = CutPaste3Way()
    mean, std = Network().mean.to(device), Network().std.to(device)
    still = BaseAugmentation(shift=0.0, jitter=0.0)

    def classic() -> Iterator[Tensor]:
        for parts in loader(ThreeWay(images), batch, device):
            yield torch.cat(parts).to(device, non_blocking=True)

    def batched(given: Iterator[Tensor]) -> Iterator[Tensor]:
        return (normalize(task(part.to(device, non_blocking=True))[0], mean, std) for part in given)

    makers: tuple[Callable[[], Stepper], ...] = (
        lambda: plain(Network(), classic(), device),
        lambda: plain(Network(), batched(part for (part,) in loader(Loaded(images), batch, device)), device),
        lambda: plain(Network(), batched(image_batches(images.to(device), batch, seed=0)), device),
        lambda: steady(images, batch, device, base=still, precision="fp32", compile=False),
        lambda: steady(images, batch, device, base=still, compile=False),
        lambda: steady(images, batch, device, base=still, compile=True),
    )
    return dict(zip(RUNGS, makers, strict=True))
