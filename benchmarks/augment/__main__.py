"""The op against what else does its work: 3-way CutPaste, jitter included, from uint8 images to normalized float.

    python -m benchmarks.augment            all providers that are installed, over batches, sizes and types; rows, plot,
                                            and the table of README.md
    python -m benchmarks.augment --family   each recipe against the public way and anomalib's generator, one core; rows
    python -m benchmarks.augment --quick    one core, the two ratios, JSON on the last line

Every provider gets the same images, each in its native form: tensors in one batch, or PIL images one by one.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from PIL import Image

from benchmarks import plots
from benchmarks.augment.providers import ThreeWayPIL, ThreeWayTensor, check, loader_call, providers
from benchmarks.kept import keep
from benchmarks.photographs import make_photographs
from benchmarks.rows import RESULTS, Row, make_row, measure


def run_quick() -> dict[str, float]:
    """Measure on one core how many times faster than PIL the batch, the loader worker and the single image are.

    In time of the processor, so that what else the machine does changes little.
    """
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    images = make_photographs(8)
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
        images = make_photographs(batch, size).to(device)
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


def main(words: list[str] | None = None) -> None:
    """Run what the command line, or the words given, ask for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.augment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one core, the ratios, JSON on the last line")
    parser.add_argument("--family", action="store_true", help="the recipes instead, on one core")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured for each row at least")
    parser.add_argument("--out", type=Path, default=RESULTS / "augment.csv")
    arguments = parser.parse_args(words)
    if arguments.quick:
        print(json.dumps(run_quick()))
        return
    if arguments.family:
        from benchmarks.augment.family import run_family  # which needs OpenCV

        run_family(arguments.out, arguments.seconds)
        return
    run_all(torch.device(arguments.device), arguments.out, arguments.seconds)
    if arguments.out == RESULTS / "augment.csv":
        plots.main()


if __name__ == "__main__":
    main()
