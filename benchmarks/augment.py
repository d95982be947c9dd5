"""The op against what else does its work: 3-way CutPaste, jitter included, from uint8 images to normalized float.

    python -m benchmarks.augment            all providers that are installed, over batches, sizes and types; rows, plot,
                                            and the table of README.md
    python -m benchmarks.augment --quick    one core, the two ratios, JSON on the last line

Every provider gets the same images, each in its native form: tensors in one batch, or PIL images one by one.
"""

import argparse
import importlib.util
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import others, plots
from benchmarks.rows import RESULTS, Row, keep, make_row, measure
from fastcutpaste import CutPaste, CutPaste3Way, CutPasteScar, draw, normalize
from fastcutpaste.images.textures import make_demo
from fastcutpaste.networks.backbone import IMAGENET_MEAN, IMAGENET_STD
from tests.reference import one_patch, paste_reference, three_way_pil

SIZE = 256
MEAN, STD = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)


def photographs(count: int, size: int = SIZE) -> Tensor:
    """Give real texture, uint8 (count, 3, size, size), tinted so that hue and saturation have work to do."""
    bricks = make_demo("brick", size=192, train_count=count).train.float()
    tints = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.6
    return torch.nn.functional.interpolate(bricks * tints, (size, size)).clamp(0, 255).to(torch.uint8)


def three_way(images: Tensor, task: CutPaste3Way, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Do the whole work: uint8 (B, 3, H, W) to normalized (3·B, 3, H, W), on a GPU channels_last."""
    return task.normalized(images, mean, std, dtype)[0]


class ThreeWayPIL(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Augment PIL images one at a time, as loader workers of the public projects do."""

    def __init__(self, pictures: list[Image.Image], length: int) -> None:
        self.pictures, self.length = pictures, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return three_way_pil(self.pictures[index % len(self.pictures)], random.Random(index))


class ThreeWayTensor(Dataset[Tensor]):
    """Augment one uint8 tensor at a time with this library, in loader workers too: uint8 (3, C, H, W), a quarter of the
    bytes that cross from worker to trainer; the batch is normalized where it arrives."""

    def __init__(self, images: Tensor, length: int) -> None:
        self.images, self.length, self.task = images, length, CutPaste3Way()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        return self.task(self.images[index % len(self.images)][None])[0]


def check(images: Tensor) -> None:
    """Refuse to time what is wrong: both transforms must equal the slow reference within one level."""
    for transform in (CutPaste(), CutPasteScar()):
        draws = draw(len(images), images.device)
        patches = transform.patches(draws, *images.shape[-2:])
        pasted = transform(images, draws=draws).cpu()
        for i in range(min(4, len(images))):
            wanted, _ = paste_reference(images[i].cpu().permute(1, 2, 0).numpy(), one_patch(patches, i))
            difference = np.abs(wanted.astype(int) - pasted[i].permute(1, 2, 0).numpy().astype(int))
            if np.mean(difference > 1) > 0.001:
                raise AssertionError(f"{transform}: differs from the reference in {np.mean(difference > 1):.2%}")


def providers(images: Tensor, pictures: list[Image.Image], dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Give, by name, what does the 3-way work on the whole batch once; other libraries where they are installed."""
    task, rng = CutPaste3Way(), random.Random(0)
    mean, std = MEAN.to(images.device), STD.to(images.device)
    calls: dict[str, Callable[[], object]] = {
        "fastcutpaste": lambda: three_way(images, task, mean, std, dtype),
        "fastcutpaste, image by image": lambda: [three_way(image[None], task, mean, std, dtype) for image in images],
    }
    if images.device.type == "cuda" or (len(images) == 32 and dtype == torch.float32):  # minutes to compile on a CPU
        compiled = torch.compile(three_way, fullgraph=True)
        calls["fastcutpaste, compiled"] = lambda: compiled(images, task, mean, std, dtype)
    if dtype != torch.float32:
        return calls  # the others know no other type
    calls["PIL"] = lambda: [three_way_pil(picture, rng) for picture in pictures]
    calls["torchvision v2, image by image"] = lambda: [others.v2_three_way(image, rng) for image in images]
    if importlib.util.find_spec("kornia"):
        calls["kornia, nearest composition"] = others.kornia_nearest(images)
    if importlib.util.find_spec("nvidia.dali"):
        calls["fastcutpaste in DALI"] = others.dali_three_way(images)
    return calls


def loader_call(dataset: Dataset[object], workers: int, batch: int = 32) -> Callable[[], object]:
    """Give a call that takes a data set once through a DataLoader whose workers are started, to normalized batches."""
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=True)

    def once() -> None:
        for loaded in loader:
            if isinstance(loaded, Tensor):  # uint8 (B, 3, C, H, W)
                normalize(loaded.flatten(0, 1), MEAN, STD)

    return once


def run_quick() -> dict[str, float]:
    """Measure on one core how many times faster than PIL the batch, the loader worker and the single image are.

    In time of the processor, so that what else the machine does changes little.
    """
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    images = photographs(8)
    check(images)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    calls = providers(images, pictures, torch.float32)
    worker = ThreeWayTensor(images, len(images))
    calls["a worker's part"] = lambda: [worker[i] for i in range(len(images))]
    names = ("fastcutpaste", "a worker's part", "fastcutpaste, image by image", "PIL")
    rounds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(9):  # in turns, so that a busy moment of the machine hits all alike
        for name in names:
            rounds[name].append(statistics.median(measure(calls[name], 0.3, clock=time.process_time)) / len(images))
    batch, part, single, pil = (min(rounds[name]) for name in names)  # of each the quietest round's median
    return {
        "cpu_3way_vs_pil": round(pil / batch, 2),
        "cpu_per_image_vs_pil": round(pil / part, 2),  # uint8 out: the network normalizes the batch where it arrives
        "cpu_per_image_normalized_vs_pil": round(pil / single, 2),
        "ms_per_image": round(batch, 3),
        "ms_per_image_one_by_one": round(part, 3),
        "ms_per_image_one_by_one_normalized": round(single, 3),
        "pil_ms_per_image": round(pil, 3),
    }


def run_all(device: torch.device, path: Path, seconds: float) -> None:
    """Measure every provider over a sweep of batches, sizes and types and keep the rows."""
    for size, batch, dtype in (
        *((256, batch, torch.float32) for batch in (1, 8, 32, 128)),
        *((256, batch, torch.bfloat16) for batch in (8, 32)),
        *((64, batch, torch.float32) for batch in (8, 96)),
    ):
        images = photographs(batch, size).to(device)
        check(images)
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.cpu()]
        calls = providers(images, pictures, dtype)
        if batch == 32 and dtype == torch.float32:
            workers = os.cpu_count() or 1
            calls["PIL in a DataLoader"] = loader_call(ThreeWayPIL(pictures, batch * 4), workers)
            calls["fastcutpaste in a DataLoader"] = loader_call(ThreeWayTensor(images.cpu(), batch * 4), workers)
        rows: list[Row] = []
        for name, call in calls.items():
            times = 4 if name.endswith("in a DataLoader") else 1
            taken = [value / times for value in measure(call, seconds=seconds, least=3)]
            on = torch.device("cpu") if name.startswith("PIL") or name.endswith("in a DataLoader") else device
            rows.append(make_row("3-way", name, batch, size, taken, on, str(dtype).removeprefix("torch.")))
            speed = f"{rows[-1].images_per_s:10,.0f} images/s"
            print(f"{name:32} {size}² batch {batch:4d} {rows[-1].dtype:9} {speed}", flush=True)
        keep(rows, path)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one core, the ratios, JSON on the last line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured for each row at least")
    parser.add_argument("--out", type=Path, default=RESULTS / "augment.csv")
    arguments = parser.parse_args()
    if arguments.quick:
        print(json.dumps(run_quick()))
        return
    run_all(torch.device(arguments.device), arguments.out, arguments.seconds)
    if arguments.out == RESULTS / "augment.csv":
        plots.main()


if __name__ == "__main__":
    main()
