"""From encoded files to features: DALI decodes, our op augments, a network looks; beside a DataLoader with PIL."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.augment.providers import MEAN, STD
from benchmarks.gpu.figures import Figures, Plan
from benchmarks.photographs import make_photographs
from fastcutpaste import CutPaste3Way, Network
from fastcutpaste.networks.backbone import autocast
from tests.reference import three_way_pil


class EncodedPIL(Dataset[tuple[Tensor, ...]]):
    """Decode and augment files one at a time, as loader workers of the public projects do."""

    def __init__(self, paths: list[Path], length: int) -> None:
        self.paths, self.length = paths, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        with Image.open(self.paths[index % len(self.paths)]) as picture:
            return three_way_pil(picture.convert("RGB"), random.Random(index))


def dali_batches(folder: Path, batch: int, size: int, on_gpu: bool) -> Iterator[Tensor]:
    """Give uint8 batches (B, 3, size, size), channels_last in memory, decoded by DALI, without end."""
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    @pipeline_def(batch_size=batch, num_threads=os.cpu_count() or 1, device_id=0 if on_gpu else None, seed=0)  # type: ignore[untyped-decorator]
    def decoded() -> Any:
        files, _ = fn.readers.file(file_root=str(folder), random_shuffle=True)
        images = fn.decoders.image(files, device="mixed" if on_gpu else "cpu")
        return fn.resize(images, size=[size, size])

    for [loaded] in DALIGenericIterator(decoded(), ["images"]):  # (B, H, W, 3)
        yield loaded["images"].permute(0, 3, 1, 2)


def measure_pipeline(plan: Plan, figures: Figures) -> None:
    """Measure normal images a second from JPEG files to the class scores of their three forms."""
    workers = 2 if plan.rehearsal else (os.cpu_count() or 1)
    batch, rounds = plan.step_batch * (1 if plan.rehearsal else 4), 2 if plan.rehearsal else 40
    task, mean, std = CutPaste3Way(), MEAN.to(plan.device), STD.to(plan.device)
    network = Network().to(plan.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def look(normalized: Tensor) -> Tensor:
        with autocast(plan.device):
            features: Tensor = network.backbone(normalized)
        return features

    def ours(images: Tensor) -> Tensor:
        return look(task.normalized(images, mean, std, torch.bfloat16 if images.is_cuda else torch.float32)[0])

    def theirs(loaded: list[Tensor]) -> Tensor:
        together = torch.cat(loaded).to(plan.device, non_blocking=True)
        return look(together.contiguous(memory_format=torch.channels_last))

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        for i, image in enumerate(make_photographs(32, plan.size)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.jpg", quality=90)
        length = batch * (rounds + 2)
        loader = DataLoader(EncodedPIL(sorted(folder.iterdir()), length), batch, num_workers=workers)
        pil = figures.row(plan, "pipeline", f"PIL, {workers} workers", batch, _times(iter(loader), theirs, rounds))
        try:
            batches = dali_batches(folder.parent, batch, plan.size, plan.device.type == "cuda")
            taken = _times(batches, ours, rounds)
        except (ImportError, RuntimeError) as error:
            figures.skip("pipeline, DALI", f"{type(error).__name__}: {str(error).splitlines()[0]}")
            return
    median = figures.row(plan, "pipeline", "DALI, fastcutpaste", batch, taken)
    figures.add("pipeline, from JPEG files to features", batch / median * 1e3, "images/s")
    figures.add(f"pipeline against PIL in {workers} workers", pil / median, "times")


def _times(batches: Iterator[Any], look: Callable[[Any], Tensor], rounds: int) -> list[float]:
    """Give the mean milliseconds from one result to the next: a pipeline works ahead, so single ones say little."""
    look(next(batches)).sum().item()
    begun = time.perf_counter()
    for _ in range(rounds):
        last = look(next(batches))
    last.sum().item()  # waits for the device
    return [(time.perf_counter() - begun) / rounds * 1e3]
