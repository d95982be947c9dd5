"""The family on a CPU: each recipe against its public code's steps, against these written well, and against anomalib's.

One image at a time all of them, on the same images, which each gets as that code has them; they give images and labels:
masks, and with `nsa`, whose code makes them, soft labels. Times are of the processor, in turns, so that what else the
machine does changes little; torch, OpenCV and the rest have one thread.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.kept import keep
from benchmarks.photographs import make_photographs
from benchmarks.rows import make_row, measure
from fastcutpaste.adapters.anomalib import AnomalyGenerator
from fastcutpaste.transforms.recipes import RECIPES, draem, recipe
from tests.family_public import PUBLIC, cv2
from tests.family_reference import REFERENCES

Call = Callable[[], object]
OURS, THEIRS = "fastcutpaste", "anomalib's generator"
STEPS, WELL = "the public code's steps, image by image", "NumPy and OpenCV, image by image"


def calls_of(name: str, images: Tensor) -> dict[str, Call]:
    """Give, by provider, what makes the defects of one recipe in uint8 images (B, 3, H, W)."""
    maker, arrays = recipe(name), [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    rng, reference, (prepare, public) = np.random.default_rng(0), REFERENCES[name], PUBLIC[name]
    prepared = [prepare(each) for each in arrays]
    calls: dict[str, Call] = {
        OURS: lambda: maker.augment(images, soft=name == "nsa"),
        STEPS: lambda: [public(each, prepared[b - 1], rng) for b, each in enumerate(prepared)],
    }
    if reference is not public:
        calls[WELL] = lambda: [reference(each, arrays[b - 1], rng) for b, each in enumerate(arrays)]
    return calls


def calls_in_anomalib(images: Tensor) -> dict[str, Call]:
    """Give anomalib's generator and ours in its place, on the same images as floating point; nothing without it."""
    if not importlib.util.find_spec("anomalib"):
        print("anomalib is not installed: pip install 'fastcutpaste[anomalib]'")
        return {}
    from anomalib.data.utils.generators import PerlinAnomalyGenerator

    ours, theirs, given = AnomalyGenerator(draem(), 1.0), PerlinAnomalyGenerator(probability=1.0), images / 255
    return {OURS: lambda: ours(given), THEIRS: lambda: theirs(given)}


def run_family(path: Path, seconds: float, batch: int = 32, size: int = 256, rounds: int = 5) -> None:
    """Measure every recipe, print how many times faster than the others it is, and keep the rows."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = make_photographs(batch, size)
    works = {name: calls_of(name, images) for name in RECIPES} | {"draem in anomalib": calls_in_anomalib(images)}
    rows = []
    for name, calls in works.items():
        taken: dict[str, list[float]] = {provider: [] for provider in calls}
        for _ in range(rounds):
            for provider, call in calls.items():
                taken[provider] += measure(call, seconds / rounds, least=1, clock=time.process_time)
        dtype = "uint8" if name in RECIPES else "float32"
        rows += [make_row(name, who, batch, size, sorted(t), torch.device("cpu"), dtype) for who, t in taken.items()]
        medians = {who: statistics.median(each) / batch for who, each in taken.items()}
        for who, other in medians.items():
            if who != OURS:
                ours = medians[OURS]
                print(f"{name:18} {ours:8.3f} ms an image, {who}: {other:8.3f}, {other / ours:6.1f} times", flush=True)
    keep(rows, path)  # at once: a file that is changed would mark the commit of the rows that follow
