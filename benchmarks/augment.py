"""The op against what else does its work: 3-way CutPaste, jitter included, from uint8 images to normalized float.

    python -m benchmarks.augment            all batches and providers that are installed; rows and table
    python -m benchmarks.augment --quick    one core, the two ratios, one JSON line

Every provider gets the same images, each in its native form: tensors in one batch, or PIL images one by one.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.rows import RESULTS, Row, keep, make_row, measure
from fastcutpaste import CutPaste, CutPaste3Way, CutPasteScar, draw, normalize
from fastcutpaste.demo import make_demo
from fastcutpaste.model import IMAGENET_MEAN, IMAGENET_STD
from tests.reference import one_patch, paste_reference, three_way_pil

SIZE = 256
MEAN, STD = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)


def photographs(count: int, size: int = SIZE) -> Tensor:
    """Give real texture, uint8 (count, 3, size, size), tinted so that hue and saturation have work to do."""
    bricks = make_demo("brick", size=192, train_count=count).train.float()
    tints = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.6
    return torch.nn.functional.interpolate(bricks * tints, (size, size)).clamp(0, 255).to(torch.uint8)


def three_way(images: Tensor, task: CutPaste3Way, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Do the whole work: uint8 (B, 3, H, W) to normalized (3·B, 3, H, W)."""
    return normalize(task(images)[0], mean, std, dtype)


class ThreeWayPIL(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Augment PIL images one at a time, as loader workers of the public projects do."""

    def __init__(self, pictures: list[Image.Image], length: int) -> None:
        self.pictures, self.length = pictures, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return three_way_pil(self.pictures[index % len(self.pictures)], random.Random(index))


class ThreeWayTensor(ThreeWayPIL):
    """Augment one uint8 tensor at a time with this library, in loader workers too."""

    def __init__(self, images: Tensor, length: int) -> None:
        self.images, self.length, self.task = images, length, CutPaste3Way()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        one = three_way(self.images[index % len(self.images)][None], self.task, MEAN, STD, torch.float32)
        return one[0], one[1], one[2]


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


def providers(images: Tensor, pictures: list[Image.Image]) -> dict[str, Callable[[], object]]:
    """Give, by name, what does the 3-way work on the whole batch once."""
    task = CutPaste3Way()
    mean, std = MEAN.to(images.device), STD.to(images.device)
    dtype = torch.bfloat16 if images.device.type == "cuda" else torch.float32
    compiled = torch.compile(three_way, fullgraph=True)

    def loop() -> list[Tensor]:
        return [three_way(image[None], task, mean, std, dtype) for image in images]

    def pil() -> list[tuple[Tensor, Tensor, Tensor]]:
        rng = random.Random(0)
        return [three_way_pil(picture, rng) for picture in pictures]

    return {
        "fastcutpaste": lambda: three_way(images, task, mean, std, dtype),
        "fastcutpaste, compiled": lambda: compiled(images, task, mean, std, dtype),
        "fastcutpaste, image by image": loop,
        "PIL": pil,
    }


def loader_seconds(dataset: Dataset[tuple[Tensor, Tensor, Tensor]], workers: int) -> list[float]:
    """Time DataLoader batches of 32 in steady state; give sorted milliseconds a batch."""
    loader = DataLoader(dataset, batch_size=32, num_workers=workers, persistent_workers=True)
    for _ in loader:
        pass  # workers are started and warm
    return sorted(measure(lambda: [None for _ in loader], least=3))


def run_quick() -> dict[str, float]:
    """Measure on one core how many times faster than PIL the batch and the single image are."""
    torch.set_num_threads(1)
    images = photographs(8)
    check(images)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    calls = providers(images, pictures)
    names = ("fastcutpaste", "fastcutpaste, image by image", "PIL")
    rounds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(5):  # in turns, so that a busy moment of the machine hits all alike
        for name in names:
            rounds[name].append(statistics.median(measure(calls[name], seconds=0.5)))
    batch, single, pil = (statistics.median(rounds[name]) for name in names)
    return {
        "cpu_3way_vs_pil": round(pil / batch, 2),
        "cpu_per_image_vs_pil": round(pil / single, 2),
        "ms_per_image": round(batch / len(images), 3),
        "ms_per_image_one_by_one": round(single / len(images), 3),
        "pil_ms_per_image": round(pil / len(images), 3),
    }


def run_all(device: torch.device, path: Path) -> None:
    """Measure every provider over a sweep of batches and keep the rows."""
    for batch in (1, 8, 32, 128):
        images = photographs(batch).to(device)
        check(images)
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.cpu()]
        rows: list[Row] = []
        for name, call in providers(images, pictures).items():
            rows.append(make_row("3-way", name, batch, SIZE, measure(call), device))
            print(f"{name:32} batch {batch:4d}  {rows[-1].images_per_s:10,.0f} images/s", flush=True)
        keep(rows, path)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one core, two ratios, JSON on the last line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "augment.csv")
    arguments = parser.parse_args()
    if arguments.quick:
        print(json.dumps(run_quick()))
    else:
        run_all(torch.device(arguments.device), arguments.out)


if __name__ == "__main__":
    main()
