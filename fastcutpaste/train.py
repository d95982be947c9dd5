"""The training step: base augmentation → pretext task → network → cross-entropy → SGD. One step is one update."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.functional import random_crops
from fastcutpaste.model import Precision, autocast
from fastcutpaste.tasks import PretextTask
from fastcutpaste.transforms import BaseAugmentation


@dataclass(frozen=True)
class TrainConfig:
    """Say how to train; the defaults are the paper's.

    Attributes:
        steps: number of updates.
        batch: images a step, before the pretext task multiplies them by its classes.
        crop: side of the square crop taken from each image before anything is pasted, pixels; None: whole images.
        learning_rate: at the first step; one cosine takes it to 0 at the last.
        momentum: of SGD.
        weight_decay: of SGD.
        precision: "bf16" autocast, "fp32", or "auto": bf16 where the device computes in it.
        seed: of the weights, the order of the data and the augmentation.

    Source: Li et al. 2021, App. A.1 and A.3.
    """

    steps: int = 65_536
    batch: int = 32
    crop: int | None = None
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 3e-5
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1 required, got {getattr(self, name)}")
        if self.crop is not None and self.crop < 8:
            raise ValueError(f"crop: at least 8 pixels required, got {self.crop}")
        for name in ("learning_rate", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: a finite number of at least 0 required, got {getattr(self, name)}")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision: 'auto', 'bf16' or 'fp32' required, got {self.precision!r}")


PRESETS = {
    "paper": TrainConfig(),
    "fast": TrainConfig(steps=32_768),  # the paper's own ablation: half the updates, 95.4 against 95.2 image AUROC
    "quick": TrainConfig(steps=600, batch=24),
}


class Report(NamedTuple):
    """Hold how training stood at a step; loss and accuracy (0 to 1) are means since the report before."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float


def train(
    network: nn.Module,
    batches: Iterator[Tensor],
    task: PretextTask,
    config: TrainConfig,
    *,
    base: nn.Module | None = None,
    on_report: Callable[[Report], None] | None = None,
    report_every: int = 20,
) -> list[Report]:
    """Train a network to tell the classes of a pretext task apart.

    Args:
        network: maps images (B, 3, H, W) as they are to class scores (B, classes); trained in place, left in eval mode.
        batches: endless iterator of images (B, 3, H, W), uint8 0–255 or floating point 0–1, on the network's device.
        task: makes ((k+1)·B) images and labels of B images.
        config: steps, crop, optimizer, precision and seed. The batch size is the iterator's.
        base: augments whole images or crops before the task; `BaseAugmentation()` if None.
        on_report: called with each report, for progress bars and logs.
        report_every: steps from one report to the next: only then the host waits for the device.

    Returns:
        All reports.

    Raises:
        ValueError: images smaller than the crop.
        FloatingPointError: the loss is not finite; names the step and what to lower.
    """
    device = next(network.parameters()).device
    base = BaseAugmentation() if base is None else base
    generator = torch.Generator(device).manual_seed(config.seed)
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    sums = torch.zeros(2, device=device)  # loss and accuracy since the last report
    reports: list[Report] = []
    for step in range(1, config.steps + 1):
        images = next(batches)
        if config.crop is not None:
            images = random_crops(images, (config.crop, config.crop), generator)
        images, labels = task(base(images, generator), generator)
        optimizer.zero_grad()
        with autocast(device, config.precision):
            scores = network(images)
        loss = F.cross_entropy(scores.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums += torch.stack([loss.detach(), (scores.argmax(1) == labels).float().mean()])
        if step % report_every == 0 or step == config.steps:
            count = (step - 1) % report_every + 1
            mean_loss, accuracy = (sums / count).tolist()
            if not math.isfinite(mean_loss):
                raise FloatingPointError(
                    f"training: a finite loss required, got {mean_loss} by step {step}; "
                    f"try a learning rate below {config.learning_rate:g} or precision 'fp32'"
                )
            reports.append(Report(step, mean_loss, accuracy, float(schedule.get_last_lr()[0])))
            sums.zero_()
            if on_report is not None:
                on_report(reports[-1])
        schedule.step()
    network.eval()
    return reports
