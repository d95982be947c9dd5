"""What the commands share: options, and how they end."""

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fastcutpaste.console import people
from fastcutpaste.images.readable import Unread
from fastcutpaste.training.shares import Alone, one_of_several

if TYPE_CHECKING:  # --help, and a graph, do without torch
    import torch
    from lightning_fabric import Fabric

    from fastcutpaste.scoring.detector import Detector
    from fastcutpaste.scoring.ensemble import Ensemble
    from fastcutpaste.training.launch import Precision

SEED_OPTION = click.option("--seed", default=0, show_default=True, help="Of weights, data order and augmentation.")
DEVICE_OPTION = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")

DEVICES_OPTION = click.option(
    "--devices", default=1, show_default=True, help="GPUs of this machine, or processes on the CPU."
)

STRICT_OPTION = click.option("--strict", is_flag=True, help="Stop at the first file that cannot be read.")
PAGES_OPTION = click.option(
    "--pages", is_flag=True, help="Take each page of a TIFF, and frame of a GIF, as an image: scan.tif#2."
)
TEXTURES_OPTION = click.option(
    "--textures", type=click.Path(path_type=Path),
    help="Folder of images that the recipes draem and memseg show, instead of patterns made here.",
)  # fmt: skip
_TILE = 512  # px: what an exported detector of patches at the images' own scale takes
INCOMPLETE = 3  # exit status of a command that passed over files it could not read


def processes(device: str, devices: int = 1) -> "Fabric | Alone":
    """Start the processes that --device and --devices ask for, where there is nothing to train."""
    return Alone(device_named(device)) if devices == 1 and not one_of_several() else launched(device, devices)


def launched(
    device: str, devices: int = 1, nodes: int = 1, precision: "Precision" = "auto", batch: int | None = None
) -> "Fabric":
    """Start the processes that --device, --devices and --num-nodes ask for; the first alone speaks.

    Before they start, they have to be able to share a batch, and be no more than a CPU has cores.
    """
    cores = os.cpu_count() or 1
    if device_named(device).type == "cpu" and devices > max(cores, 2):
        raise ValueError(f"--devices: at most {max(cores, 2)} on a CPU of {cores} cores required, got {devices}")
    if batch is not None and batch % (devices * nodes):
        raise ValueError(f"--batch: one that {devices * nodes} processes can share evenly required, got {batch}")
    from fastcutpaste.training.launch import make_fabric

    fabric = make_fabric(device_named(device), precision, devices, nodes)
    fabric.launch()
    people.quiet = not fabric.is_global_zero
    return fabric


def load_scorer(run: Path, device: "torch.device") -> "Detector | Ensemble":
    """Load the detector of a run, or several, in the form that scores fastest there."""
    from fastcutpaste.reports.runs import load_run

    detector = load_run(run, device)
    # On a CPU a hundred images of 256² would have to come to win back the tenth of a second that it takes to make.
    return detector.optimized() if device.type == "cuda" else detector


class Finite(click.FloatRange):
    """Take a number in a range that is one: click's own takes NaN, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        return number if math.isfinite(number) else self.fail(f"a finite number required, got {value!r}", param, ctx)


def finish(result: dict[str, Any], status: int = 0) -> None:
    """Print the one JSON object a command ends with, and leave with a status other than 0."""
    click.echo(json.dumps(result))
    if status:
        sys.exit(status)


def say_unread(unread: Sequence[Unread], count: int) -> int:
    """Say how many of so many files could not be read; give the exit status."""
    if unread:
        people.print(f"{len(unread)} of {count} images could not be read", markup=False)
    return INCOMPLETE if unread else 0


def say_graphs(written: Path) -> None:
    """Say which graphs lie beside a detector that has just been written: they decide as the former one."""
    for path in map(written.with_name, ("detector.onnx", "detector.pt2", "detector.xml")):
        if path.is_file():
            people.print(
                f"note: {path} was exported before, and decides as it did; export writes it anew", markup=False
            )


def named(unread: Sequence[Unread]) -> list[dict[str, str]]:
    """Give files that could not be read as JSON tells them."""
    return [{"image": str(one.path), "error": one.error} for one in unread]


def device_named(name: str) -> "torch.device":
    """Give the device of --device; 'auto' is a CUDA GPU where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not name.startswith("cuda"):
        raise ValueError(f"--device: auto, cpu, cuda or cuda:N required, got {name!r}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: a CUDA GPU that torch sees required, got none")
    return torch.device(name)


def seeds_of(text: str) -> list[int]:
    """Give the numbers of --seeds: "3", "0-4" or "0,2,7"."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ValueError(f"--seeds: a number, a range such as 0-4 or a list such as 0,2,7 required, got {text!r}")
        if int(last or first) >= 2**63:
            raise ValueError(f"--seeds: numbers below 2**63 required, got {part}")
        numbers += range(int(first), int(last or first) + 1)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"--seeds: each seed once required, got {text!r}")
    return numbers


def size_of(text: str) -> tuple[int, int]:
    """Give the (height, width) of --size."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--size: SIDE or HEIGHTxWIDTH in pixels, or original, required, got {text!r}")
    return int(parts[0]), int(parts[-1])


class Scale(NamedTuple):
    """Hold the size that images are resized to, or that of a tile where they are not, as `DetectorConfig` takes it."""

    size: tuple[int, int]
    resize: bool = True
    overlap: int = 0


def scale_of(size: str, crop: int, tile: int | None, overlap: int | None) -> Scale:
    """Give what --size, --crop, --tile and --overlap ask for together."""
    if size != "original" or crop:
        if tile is not None or overlap is not None:
            raise ValueError("--tile, --overlap: --size original and --crop 0 required, which learn from whole tiles; "
                             "patches are scored without seams as they are")  # fmt: skip
        side = max(_TILE, crop)
        return Scale(size_of(size)) if size != "original" else Scale((side, side), False)
    if tile is None or tile < 1:
        raise ValueError(f"--size original: --tile, the side of a tile in pixels, with --crop 0 required, got {tile}")
    common = tile // 4 if overlap is None else overlap
    if not 0 <= common < tile:
        raise ValueError(f"--overlap: 0 to {tile - 1} pixels, less than a tile, required, got {overlap}")
    return Scale((tile, tile), False, common)


def areas_of(text: str) -> tuple[int, ...]:
    """Give the sides of --areas: "", "128" or "96,128"."""
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--areas: sides in pixels such as 128 or 96,128 required, got {text!r}")
    return tuple(int(part) for part in parts)
