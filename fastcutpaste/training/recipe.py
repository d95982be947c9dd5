"""The recipe: a network trained on a folder's images with the 3-way task, watched, saved, and taken up again."""

import csv
import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

import fastcutpaste
from fastcutpaste.console import people
from fastcutpaste.images.batches import load_textures
from fastcutpaste.images.tree import page_of
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.training.checkpoint import Facts, Keeper, differences, load_checkpoint
from fastcutpaste.training.loop import Report, Training, proceed
from fastcutpaste.training.step import THREE_WAY, TrainConfig
from fastcutpaste.training.watch import LOG_FILE, StepProfile, Watch
from fastcutpaste.transforms.fills import Other
from fastcutpaste.transforms.patch import BaseAugmentation, CutPaste, CutPasteScar
from fastcutpaste.transforms.recipes import recipe
from fastcutpaste.transforms.tasks import PretextTask

Batches = Callable[[int, tuple[int, int]], Iterator[Tensor]]  # from a step on, for the i-th of n processes
_DEFAULTS = {"training": asdict(TrainConfig()), "network": asdict(NetworkConfig()), "scoring": asdict(DetectorConfig())}
_FINGERPRINTED = 1000  # files whose bytes are read to know a data set again


def train_network(
    network: Network,
    batches: Batches,
    config: TrainConfig,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    keeper: Keeper | None = None,
    state: dict[str, Tensor] | None = None,
    profile: bool = False,
) -> Report:
    """Train with the 3-way task, or that of a recipe, showing progress and keeping a log; give the last report.

    Scars keep their size in pixels on crops, which are windows of the image, not small images.

    Args:
        network: trained in place.
        batches: gives the images (B / n, 3, H, W) of a process from a step on.
        config: how to train.
        folder: where log and profile go.
        fabric: launched, for several processes.
        keeper: saves checkpoints and heeds signals; None: neither.
        state: of a checkpoint, to go on from.
        profile: write where the time of a few steps goes into `folder / "profile"`.

    Raises:
        Stopped: by a signal; the state is saved.
        ValueError, FloatingPointError, MemoryError: as `train` does; images of others asked for, and one a process.
    """
    on_crops = config.crop is not None
    task = task_of(config)
    others = config.source == "other" or any(isinstance(module, Other) for module in task.modules())
    if others and config.batch < 2 * (processes := fabric.world_size if fabric else 1):
        raise ValueError(f"patches of other images: a batch of at least {2 * processes} images, 2 a process, required, "
                         f"got {config.batch}")  # fmt: skip
    base = BaseAugmentation(shift=0.0 if on_crops else 0.05)  # a random crop is a random shift
    training = Training(network, task, config, base, fabric)
    if state is not None:
        training.restore(state)
    with ExitStack() as stack:
        on_report: Callable[[Report], None] | None = None
        on_step: list[Callable[[Training], None]] = []
        if training.fabric.is_global_zero:
            watch = stack.enter_context(Watch(folder, config, task.classes, training.step))
            on_report = watch.report
            if profile:
                on_step.append(stack.enter_context(StepProfile(folder / "profile")))
        if keeper is not None:
            stack.enter_context(keeper.heeding())
            on_step.append(keeper)

        def after_step(training: Training) -> None:
            for call in on_step:
                call(training)

        try:
            proceed(training, batches(training.step, training.share), on_report=on_report, on_step=after_step)
        except FloatingPointError as error:
            if keeper is not None:
                keeper.wait()
            kept = keeper is not None and keeper.path.is_file()
            raise FloatingPointError(f"{error}; the last good state is kept" if kept else str(error)) from error
    training.fabric.barrier()  # the log is written
    with open(folder / LOG_FILE, newline="", encoding="utf-8") as file:
        step, *values = list(csv.reader(file))[-1][: len(Report._fields)]
    return Report(int(step), *(float(value) for value in values))


def task_of(config: TrainConfig) -> PretextTask:
    """Make the task that the settings name."""
    reference = None if config.crop is not None else 256
    if config.recipe != THREE_WAY:
        textures = None if config.textures is None else _textures(config.textures)
        return PretextTask(recipe(config.recipe, reference, textures))
    scar = CutPasteScar(reference=reference, jitter=config.jitter, source=config.source)
    return PretextTask(CutPaste(jitter=config.jitter, source=config.source), scar)


@lru_cache(maxsize=1)  # for all detectors of a run: of a large folder it takes a minute
def _textures(folder: str) -> Tensor:
    return load_textures(folder)


def take_up(path: Path, facts: Facts, accept_changes: bool = False) -> dict[str, Tensor] | None:
    """Give the state of a checkpoint if it is of the same settings and data; None if there is no checkpoint.

    Args:
        path: the checkpoint.
        facts: of the run that wants to go on, as `facts_of` gives them.
        accept_changes: go on with other settings; never with other data.

    Raises:
        ValueError: other data; other settings, each named; a damaged checkpoint.
    """
    if not path.is_file():
        return None
    state, before = load_checkpoint(path)
    changed = check_facts(before, facts, accept_changes, "--accept-changes goes on with them")
    for what in changed + differences(before["surroundings"], facts["surroundings"]):
        people.print(f"note: {what}; the result will not be bit for bit that of one run", markup=False)
    return state


def check_facts(before: Facts, now: Facts, accept_changes: bool, advice: str) -> list[str]:
    """Name the settings in which a run differs from the one before it; refuse them, unless accepted, and other data.

    A setting that the version of the run before did not know yet was then as its default is now.
    """
    settings = {name: _DEFAULTS.get(name, {}) | value if isinstance(value, dict) else value
                for name, value in before["settings"].items()}  # fmt: skip
    changed = differences(settings, now["settings"])
    if changed and not accept_changes:
        raise ValueError(f"--resume: the settings of the run required, got other ones ({'; '.join(changed)}); {advice}")
    # What the textures hold is not known of a run that began when their folder alone was compared.
    other = differences({"textures": now["data"].get("textures")} | before["data"], now["data"])
    if other:
        raise ValueError(f"--resume: the images of the run required, got other ones ({'; '.join(other)})")
    return changed


def facts_of(
    settings: Facts, paths: Sequence[Path], held_out: Facts, device: torch.device, processes: int,
    textures: Sequence[Path] = (),
) -> Facts:  # fmt: skip
    """Tell what a run is made with and from: what has to be the same when it goes on.

    Args:
        settings: what JSON can hold.
        paths: all images, those to learn from and those for the threshold.
        held_out: which of them are for the threshold, what JSON can hold; it would be too low of images that the
            network has learned from before it went on.
        device: that trains.
        processes: that train together.
        textures: images that defects are made of, besides.
    """
    data: Facts = {"images": len(paths), "fingerprint": fingerprint(paths), "held_out": held_out}
    if textures:
        data["textures"] = fingerprint(textures)
    surroundings = {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
    return {"settings": settings, "data": data, "surroundings": surroundings}


def fingerprint(paths: Sequence[Path]) -> str:
    """Give a short hash of image files: their names, sizes and order, and the bytes of a thousand of them.

    Of more files, evenly spaced ones are read: a change that keeps a file's size may then go unseen.
    """
    digest = hashlib.blake2b(digest_size=16)
    every = -(-len(paths) // _FINGERPRINTED) or 1  # rounded up
    for i, path in enumerate(paths):
        file = page_of(path)[0]
        digest.update(os.fsencode(path.name) + f" {file.stat().st_size}\n".encode())
        if i % every == 0:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def provenance_of(images: Tensor | Sequence[Tensor], config: TrainConfig, source: str) -> dict[str, Any]:
    """Tell how a detector came to be: settings, versions, and what its training images were."""
    means = torch.stack([image.mean((1, 2), dtype=torch.float32).cpu() for image in images]).mean(0) / 255
    return {
        "training": asdict(config),
        "data": {"source": source, "images": len(images), "mean": [round(float(mean), 4) for mean in means]},
        "versions": {
            "fastcutpaste": fastcutpaste.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": str(images[0].device),
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
