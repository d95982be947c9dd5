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
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import plots
from benchmarks.kept import keep
from benchmarks.photographs import make_photographs
from benchmarks.plots import RUNGS
from benchmarks.rows import RESULTS, Row, make_row, peak_mb
from benchmarks.train.rungs import Ready, Stepper, Still, rungs, steady
from fastcutpaste import CutPaste3Way
from fastcutpaste.training.launch import resolve_precision

IMAGES = 256  # in the data set


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


def main(words: list[str] | None = None) -> None:
    """Run what the command line, or the words given, ask for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rungs, two ratios, JSON on the last line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 64], help="sides of the images, px")
    parser.add_argument("--batch", type=int, default=32, help="normal images a step")
    parser.add_argument("--out", type=Path, default=RESULTS / "train.csv")
    arguments = parser.parse_args(words)
    warnings.filterwarnings("ignore", "No device id")
    if arguments.quick:
        print(json.dumps(run_quick(torch.device(arguments.device))))
    else:
        run_all(torch.device(arguments.device), arguments.out, tuple(arguments.sizes), arguments.batch)
        if arguments.out == RESULTS / "train.csv":
            plots.main()


if __name__ == "__main__":
    main()
