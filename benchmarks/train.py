"""The trainer, rung by rung, from the classic recipe to ours: 3-way CutPaste on a ResNet-18, loader to update.

    python -m benchmarks.train            every rung at 256² and 64²; rows into results/train.csv
    python -m benchmarks.train --quick    the first rung, the last, and the cost of augmentation; one JSON line

The classic recipe is what is usually written: PIL images augmented one by one in DataLoader workers on every core
(`three_way_pil` of the tests' reference), fp32, NCHW. All rungs do the same work on the same images, decoded
beforehand, without base augmentation; a rung's images are normal images a second, each of them three to the network.
"""

import argparse
import json
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks import plots
from benchmarks.photographs import make_photographs
from benchmarks.plots import RUNGS
from benchmarks.rows import RESULTS, Row, keep, make_row, peak_mb
from fastcutpaste import BaseAugmentation, CutPaste3Way, normalize
from fastcutpaste.images.batches import image_batches
from fastcutpaste.networks.backbone import Network
from fastcutpaste.training.launch import resolve_precision
from fastcutpaste.training.loop import Training
from fastcutpaste.training.step import TrainConfig
from tests.reference import three_way_pil

IMAGES = 256  # in the data set
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


def time_steps(step: Stepper, device: torch.device, seconds: float, least: int = 5) -> list[float]:
    """Give the milliseconds of single steps on a CPU, means of twenty on a GPU, where steps overlap."""
    together = 20 if device.type == "cuda" else 1
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < least or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        for _ in range(together):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append((time.perf_counter() - start) * 1e3 / together)
    return taken


def in_turns(first: Stepper, second: Stepper, device: torch.device, pairs: int) -> tuple[list[float], list[float]]:
    """Time two steppers in turns: a busy moment of the machine then hits both, and neighbours can be compared."""
    taken: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs + 2):
        for step, milliseconds in zip((first, second), taken, strict=True):
            spent = time_steps(step, device, 0, 1)
            if pair >= 2:  # the first two warm up
                milliseconds.extend(spent)
    return taken


def in_blocks(
    make: Callable[[], Stepper], ours: Stepper, device: torch.device, rounds: int = 3
) -> tuple[list[float], list[float]]:
    """Time a stepper that has workers and ours in turns of several steps; a turn's workers end with it.

    What the workers had ready before their turn is used up first; between steps of ours they would take its cores.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        theirs = make()
        time_steps(theirs, device, 0, 2 * (os.cpu_count() or 1) + 2)  # a worker makes two batches ahead
        taken[0].append(statistics.median(time_steps(theirs, device, 0, 6)))
        del theirs
        time_steps(ours, device, 0, 3)
        taken[1].append(statistics.median(time_steps(ours, device, 0, 6)))
    return taken


def ratio(taken: tuple[list[float], list[float]]) -> float:
    """Give the median over neighbours of how many times longer the first took than the second."""
    return round(statistics.median(one / other for one, other in zip(*taken, strict=True)), 3)


def overhead(images: Tensor, batch: int, device: torch.device, pairs: int = 10) -> tuple[list[float], list[float]]:
    """Time the step as it is in training, base augmentation and all, and the same step on ready images."""
    resident = images[:batch].to(device).contiguous(memory_format=torch.channels_last)
    made, labels = CutPaste3Way()(resident)
    return in_turns(
        steady(images, batch, device), steady(images, batch, device, Ready(made, labels), Still()), device, pairs
    )


def run_quick(device: torch.device, batch: int = 32, size: int = 64) -> dict[str, object]:
    """Measure first rung against last, and the cost of augmentation."""
    images = make_photographs(IMAGES, size)
    made = rungs(images, batch, device)
    ours = RUNGS[-1] if device.type == "cuda" else RUNGS[-2]  # compiling gains nothing on a CPU
    taken = in_blocks(made[RUNGS[0]], made[ours](), device)
    return {
        "end_to_end_vs_classic": ratio(taken),
        "augmentation_overhead": ratio(overhead(images, batch, device)),
        "classic_images_per_s": round(batch / statistics.median(taken[0]) * 1e3, 2),
        "images_per_s": round(batch / statistics.median(taken[1]) * 1e3, 2),
        "batch": batch,
        "size": size,
        "threads": torch.get_num_threads(),
        "precision": resolve_precision(device, "auto"),
    }


def run_all(device: torch.device, path: Path, sizes: tuple[int, ...], batch: int) -> None:
    """Measure every rung at every size and keep the rows."""
    for size in sizes:
        images = make_photographs(IMAGES, size)
        rows: list[Row] = []
        for name, make in rungs(images, batch, device).items():
            peak_mb(device, begin=True)
            step = make()
            time_steps(step, device, 5, 2)  # workers started, kernels chosen, step compiled
            taken = sorted(time_steps(step, device, 15))
            del step
            rows.append(make_row("train step", name, batch, size, taken, device, peak_mb=peak_mb(device)))
            print(
                f"{name:32} {size:4d}²  {rows[-1].images_per_s:9,.1f} images/s  {rows[-1].peak_mb:8,.0f} MB", flush=True
            )
        for name, taken in zip(("with", "without"), overhead(images, batch, device), strict=True):
            provider = f"our step, {name} augmentation"
            rows.append(make_row("train step", provider, batch, size, sorted(taken), device))
            print(f"{provider:32} {size:4d}²  {rows[-1].images_per_s:9,.1f} images/s", flush=True)
        keep(rows, path)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rungs, two ratios, JSON on the last line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 64], help="sides of the images, px")
    parser.add_argument("--batch", type=int, default=32, help="normal images a step")
    parser.add_argument("--out", type=Path, default=RESULTS / "train.csv")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "No device id")
    if arguments.quick:
        print(json.dumps(run_quick(torch.device(arguments.device))))
    else:
        run_all(torch.device(arguments.device), arguments.out, tuple(arguments.sizes), arguments.batch)
        if arguments.out == RESULTS / "train.csv":
            plots.main()


if __name__ == "__main__":
    main()
