"""The step: how to train, and what one update computes from images and random numbers alone."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.op.paste import random_crops
from fastcutpaste.training.launch import PRECISIONS, Precision
from fastcutpaste.transforms.patch import SOURCES, Source
from fastcutpaste.transforms.recipes import TEXTURED, check_recipe
from fastcutpaste.transforms.tasks import PretextTask

OPTIMIZERS = ("sgd", "adamw")
ADAMW_RATE = 1e-3  # a learning rate that suits it
THREE_WAY = "3-way"


@dataclass(frozen=True)
class TrainConfig:
    """Say how to train; the defaults are the paper's.

    Attributes:
        steps: number of updates.
        batch: images a step, before the pretext task multiplies them by its classes, all processes together.
        crop: side of the square crop taken from each image before anything is pasted, pixels; None: whole images.
        jitter: largest change of brightness, contrast, saturation and hue of what is pasted.
        source: where it is cut out: of the "same" image, as in the paper, or of the "other" that is before it in the
            batch (of several processes: in the part of one), for images that differ among each other, in exposure or
            surface, where a patch of the same image can hardly be seen. Needs two images a process at least. Like the
            jitter, it is for `train_network`, which makes the task; `train` is given one.
        recipe: "3-way", the paper's task, to which jitter and source belong; or the name of one of
            `transforms.recipes`, or several joined by +, as `recipe` takes them: normal against defective.
        textures: folder of images that the recipes `draem` and `memseg` take for textures, instead of patterns made
            here. Like the recipe, for `train_network`.
        optimizer: "sgd", as in the paper, or "adamw", which learned faster in trials of a few hundred steps.
        learning_rate: at the first step; one cosine takes it to 0 at the last.
        momentum: of SGD.
        weight_decay: of the optimizer.
        head_steps: the first so many steps train the head alone, on a backbone left as it is; after them all layers
            learn, from `tuning_rate` along a cosine of their own. The backbone's BatchNorm stays as it is throughout.
            For a pretrained backbone; 0: everything learns from the first step.
        tuning_rate: learning rate of the first step after `head_steps`.
        precision: "bf16" autocast, "fp16" autocast with scaled losses, "tf32", "fp32", or "auto": bf16 where the
            device computes in it, else fp32.
        compile: the step becomes a few fused kernels, on a GPU replayed as a CUDA graph; None: on a GPU. On a CPU it
            costs a minute and gained 0–5 % (ResNet-18, 24 × 3 × 64², one core).
        seed: at least 0; of the order of the data and the augmentation.

    Source: Li et al. 2021, App. A.1, A.3 and A.4.
    """

    steps: int = 65_536
    batch: int = 32
    crop: int | None = None
    jitter: float = 0.1
    source: Source = "same"
    recipe: str = THREE_WAY
    textures: str | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 3e-5
    head_steps: int = 0
    tuning_rate: float = 1e-4
    precision: Precision = "auto"
    compile: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1 required, got {getattr(self, name)}")
        if self.crop is not None and self.crop < 8:
            raise ValueError(f"crop: at least 8 pixels required, got {self.crop}")
        for name in ("jitter", "learning_rate", "momentum", "weight_decay", "tuning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: a finite number of at least 0 required, got {getattr(self, name)}")
        if not 0 <= self.head_steps <= self.steps:
            raise ValueError(f"head_steps: from 0 to the {self.steps} steps required, got {self.head_steps}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: one of {', '.join(PRECISIONS)} required, got {self.precision!r}")
        if self.source not in SOURCES:
            raise ValueError(f"source: one of {', '.join(SOURCES)} required, got {self.source!r}")
        if self.recipe != THREE_WAY:
            check_recipe(self.recipe, self.textures is not None)
        elif self.textures is not None:
            raise ValueError(f"textures: a recipe that takes them, {' or '.join(TEXTURED)}, required, got none")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer: one of {', '.join(OPTIMIZERS)} required, got {self.optimizer!r}")
        if self.seed < 0:
            raise ValueError(f"seed: at least 0 required, got {self.seed}")

    def rate_at(self, step: int) -> float:
        """Give the learning rate of a step, counted from 1: one cosine from the first step of its stage to 0."""
        first, last = (0, self.head_steps) if step <= self.head_steps else (self.head_steps, self.steps)
        start = self.tuning_rate if 0 < self.head_steps < step else self.learning_rate
        return start * (1 + math.cos(math.pi * (step - 1 - first) / (last - first))) / 2

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer of these parameters; `rate_at` tells the rate of each of its steps."""
        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, rate, self.momentum, weight_decay=decay, fused=True)
        return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=True)


PRESETS = {
    "paper": TrainConfig(),
    "fast": TrainConfig(steps=32_768),  # the paper's own ablation: half the updates, 95.4 against 95.2 image AUROC
    "quick": TrainConfig(steps=600, batch=24, jitter=0.3, optimizer="adamw", learning_rate=ADAMW_RATE),
    # Of a pretrained backbone: the paper's 10 epochs of 256 updates for the head, 64 for all, 8 images a step.
    "pretrained": TrainConfig(steps=18_944, batch=8, head_steps=2_560),
}


class Step(nn.Module):
    """Map images (B, 3, H, W) and random numbers (B, numbers) to the loss and the accuracy, both of shape ().

    Everything from the images to the loss, and nothing else: what is compiled as one.
    """

    def __init__(self, network: nn.Module, task: PretextTask, base: nn.Module, crop: int | None) -> None:
        super().__init__()
        self.network, self.task, self.base, self.crop = network, task, base, crop
        self.counts = [2, int(base.numbers), task.numbers]  # type: ignore[arg-type]
        self.run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self.measure

    def measure(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Augment, classify, compare."""
        images, labels = self.augment(images, draws)
        scores = self.network(images).float()
        return F.cross_entropy(scores, labels), (scores.detach().argmax(1) == labels).float().mean()

    def augment(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Give the images ((k+1)·B, 3, h, w) and labels ((k+1)·B,) that the network is shown."""
        crop, base, task = torch.split(draws, self.counts, dim=1)
        if self.crop is not None:
            images = random_crops(images, self.crop, draws=crop)
        shown: tuple[Tensor, Tensor] = self.task(self.base(images, draws=base), draws=task)
        return shown

    def forward(self, given: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Do the same with the images and numbers that a call gives.

        Of tensors Fabric would round both to the precision, and bfloat16 makes 1 of one random number in 512: not in
        [0, 1), and its patch would not be inside the image.
        """
        return self.run(*given())
