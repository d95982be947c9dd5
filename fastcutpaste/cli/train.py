"""fastcutpaste train: a detector from a folder of normal images."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fastcutpaste.cli.options import (
    DEVICE_OPTION,
    DEVICES_OPTION,
    areas_of,
    device_named,
    finish,
    launched,
    seeds_of,
    size_of,
)
from fastcutpaste.console import people, show_progress
from fastcutpaste.images.batches import RESIDENT_SHARE, ImageFiles, fits, free_bytes, image_batches, stream_batches
from fastcutpaste.images.dali_batches import dali_batches, has_dali
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_training_images
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.reports.runs import CHECKPOINT_FILE, DETECTOR_FILE, claim, complete, is_complete
from fastcutpaste.scoring.calibration import calibrated
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector, hold_out
from fastcutpaste.scoring.ensemble import Ensemble, Scored
from fastcutpaste.training.checkpoint import Keeper, Stopped, remove_leftovers
from fastcutpaste.training.launch import PRECISIONS
from fastcutpaste.training.recipe import Batches, check_facts, facts_of, provenance_of, take_up, train_network
from fastcutpaste.training.step import ADAMW_RATE, OPTIMIZERS, PRESETS, TrainConfig
from fastcutpaste.transforms.patch import SOURCES

READ = ("auto", "resident", "stream", "dali")


@dataclass(frozen=True)
class _Images:
    """Hold what a run learns from: files, pixels where they are resident, and which of them set the threshold."""

    files: ImageFiles
    pixels: Tensor | None  # uint8 (N, 3, H, W) on the device; None: streamed
    held_out: float
    decoder: str = "Pillow"  # or DALI

    def batches(self, config: TrainConfig, device: torch.device) -> Batches:
        learned = hold_out(torch.arange(len(self.files)), self.held_out)[0]
        if self.pixels is not None:
            give: Any = partial(image_batches, self.pixels[: len(learned)], config.batch, seed=config.seed)
        else:
            files = ImageFiles(self.files.paths[: len(learned)], self.files.size)
            stream = dali_batches if self.decoder == "DALI" else stream_batches
            give = partial(stream, files, config.batch, device, seed=config.seed)

        def batches(start: int, share: tuple[int, int]) -> Iterator[Tensor]:
            given: Iterator[Tensor] = give(start=start, share=share)
            return given

        return batches

    def for_fitting(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Give images for the density and for the threshold: of streamed ones, evenly spaced, as many as fit."""
        if self.pixels is not None:
            return hold_out(self.pixels, self.held_out)
        height, width = self.files.size
        room = max(3, int(RESIDENT_SHARE * free_bytes(device)) // (3 * height * width))
        chosen = self.files.paths[:: -(-len(self.files) // room)]
        people.print(f"{len(chosen)} of {len(self.files)} images fit into memory, for density and threshold")
        return hold_out(load_images(chosen, self.files.size, progress=True).pixels.to(device), self.held_out)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make for the detector.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="fast", show_default=True,
              help="paper: 65,536 updates; fast: half of them, as good; quick: minutes on a CPU; pretrained: the head "
                   "first, then all layers, of a backbone with --weights.")  # fmt: skip
@click.option("--size", default="256", show_default=True, help="Images are resized to this: SIDE or HEIGHTxWIDTH, px.")
@click.option("--crop", default=64, show_default=True,
              help="Side of the patches it learns from and scores, px; 0: whole images, no heat maps.")  # fmt: skip
@click.option("--stride", default=4, show_default=True, help="Pixels between scored patches.")
@click.option("--steps", type=int, help="Updates, instead of the preset's.")
@click.option("--batch", type=int, help="Normal images a step, instead of the preset's; the task triples them.")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="adamw learns faster where updates are few.  "
                                                                 "[default: sgd, as in the paper]")  # fmt: skip
@click.option("--learning-rate", type=float, help="At the first update.  [default: 0.03; adamw: 0.001]")
@click.option("--jitter", type=float, help="Largest change of color of what is pasted, instead of the preset's.")
@click.option("--source", type=click.Choice(SOURCES), default="same", show_default=True,
              help="Where what is pasted is cut out: of the image itself, or of another; for images that differ in "
                   "exposure or surface.")  # fmt: skip
@click.option("--backbone", help="patchnet: heat maps in one pass; or any torchvision or timm classification model.  "
                                 "[default: resnet18; quick: patchnet]")  # fmt: skip
@click.option("--weights", help="'imagenet', or a local file of the backbone's weights.  [default: from scratch]")
@click.option("--stage", help="Node of the backbone whose output is the features, such as layer3.")
@click.option("--density", type=click.Choice(["gaussian", "kernel", "nearest", "location"]), default="gaussian",
              show_default=True, help="Of normal features; nearest: the distance to the closest of 3,000 of them; "
                                      "location: a Gaussian at every place of the grid.")  # fmt: skip
@click.option("--border/--no-border", default=False, show_default=True,
              help="Continue images by half a patch: finer maps at the edge, of objects on plain ground.")  # fmt: skip
@click.option("--level/--no-level", default=False, show_default=True,
              help="Bring images to one mean brightness to score them: for exposures that differ.")  # fmt: skip
@click.option("--areas", default="", help="Sides of larger squares scored besides, px, such as 128 or 96,128: for "
                                          "defects larger than the patches.")  # fmt: skip
@click.option("--fpr", default=0.05, show_default=True, help="Share of normal images that may be called defective.")
@click.option("--held-out", default=0.2, show_default=True,
              help="Share of the images, the last ones, kept out of training to set the threshold on.")  # fmt: skip
@click.option("--seed", "--seeds", "seeds", default="0", show_default=True,
              help="Of weights, data order, augmentation; 0-4 or 0,7: several detectors, scored together.")  # fmt: skip
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True,
              help="auto: bf16 where the device computes in it, else fp32.")  # fmt: skip
@click.option("--compile/--no-compile", "compiled", default=None,
              help="The step as a few fused kernels, replayed as a CUDA graph.  [default: on a GPU]")  # fmt: skip
@click.option("--read", type=click.Choice(READ), default="auto", show_default=True,
              help="Keep all images on the device, or read them again each epoch, by processes (stream) or by NVIDIA "
                   "DALI, on a GPU; auto: keep what fits, read the rest as can be.")  # fmt: skip
@DEVICE_OPTION
@DEVICES_OPTION
@click.option("--num-nodes", default=1, show_default=True, help="Machines, each with as many devices.")
@click.option("--resume", is_flag=True, help="Go on with the run in OUT from its checkpoint; begin if there is none.")
@click.option("--accept-changes", is_flag=True, help="With --resume: go on although settings differ.")
@click.option("--save-minutes", default=5.0, show_default=True, help="Most minutes from one checkpoint to the next.")
@click.option("--save-steps", type=int, help="Most updates from one checkpoint to the next.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in OUT.")
@click.option("--profile", is_flag=True, help="Write where the time of a step goes into OUT/profile.")
def train(
    data: Path, out: Path, preset: str, size: str, crop: int, stride: int, steps: int | None, batch: int | None,
    optimizer: Any, learning_rate: float | None, jitter: float | None, source: Any, backbone: str | None,
    weights: str | None, stage: str | None, density: Any, border: bool, level: bool, areas: str, fpr: float,
    held_out: float, seeds: str, precision: Any, compiled: bool | None, read: str, device: str, devices: int,
    num_nodes: int, resume: bool, accept_changes: bool, save_minutes: float, save_steps: int | None, overwrite: bool,
    profile: bool,
) -> None:  # fmt: skip
    """Train a detector on the normal images in DATA: an MVTec category (train/good), or a plain folder of images."""
    device_named(device)  # what is wrong with it is said before anything else is done
    numbers, base = seeds_of(seeds), PRESETS[preset]
    if base.head_steps and weights is None:
        raise ValueError(f"--preset {preset}: --weights required, 'imagenet' or a file, got none")
    if resume and overwrite:
        raise ValueError("--resume: without --overwrite required, got both")
    if read == "dali" and not has_dali():
        raise ValueError("--read dali: NVIDIA DALI required, got none; pip install 'fastcutpaste[dali]'")
    total = base.steps if steps is None else steps
    rate = ADAMW_RATE if optimizer == "adamw" and base.optimizer == "sgd" else base.learning_rate
    config = replace(
        base,
        steps=total,
        batch=base.batch if batch is None else batch,
        optimizer=optimizer or base.optimizer,
        learning_rate=rate if learning_rate is None else learning_rate,
        jitter=base.jitter if jitter is None else jitter,
        source=source,
        crop=crop or None,
        head_steps=base.head_steps * total // base.steps,
        precision=precision,
        compile=compiled,
    )
    backbone = backbone or ("patchnet" if preset == "quick" and crop else "resnet18")
    scoring = DetectorConfig(
        size_of(size),
        patch=crop or None,
        stride=stride,
        border=border,
        level=level,
        areas=areas_of(areas),
        density=density,
        false_positive_rate=fpr,
    )
    network = NetworkConfig(backbone, stage=stage, patch=crop or 64)
    Network(network, weights).probe((crop, crop) if crop else scoring.size)  # what is wrong with either comes up now
    found = find_training_images(data)
    if len(numbers) > 1 and len(hold_out(torch.arange(len(found.paths)), held_out)[1]) < 2:
        raise ValueError(f"--seeds: at least 2 images held out required for an ensemble, got 1 of {len(found.paths)}; "
                         "give more images, or a larger --held-out")  # fmt: skip
    fabric = launched(device, devices, num_nodes, precision)
    folders = [out] if len(numbers) == 1 else [out / f"seed-{number}" for number in numbers]
    if fabric.is_global_zero:
        for folder in (out, *folders):
            claim(folder, overwrite, resume)
    fabric.barrier()
    images = _find(found.paths, scoring.size, read, fabric, held_out)
    _say(len(images.files), config, held_out, fabric)
    results = []
    for number, folder in zip(numbers, folders, strict=True):
        settings = {"training": asdict(replace(config, seed=number)), "network": asdict(network), "weights": weights,
                    "scoring": asdict(scoring), "held_out": held_out, "decoder": images.decoder}  # fmt: skip
        keeper = Keeper(
            folder / CHECKPOINT_FILE,
            facts_of(settings, found.paths, fabric.device, fabric.world_size),
            save_minutes,
            save_steps,
        )
        try:
            results.append(_train_one(replace(config, seed=number), network, weights, scoring, images, folder, keeper,
                                      fabric, data.name, resume, accept_changes, profile))  # fmt: skip
        except Stopped as stopped:
            people.print(f"{stopped}; --resume goes on", markup=False)
            sys.exit(128 + stopped.number)
    if not fabric.is_global_zero:
        return
    if len(results) == 1:
        finish(results[0])
    else:
        threshold = _calibrate(out, folders, images, fabric.device, fpr)
        finish({"run": str(out), "threshold": threshold, "detectors": results})


def _calibrate(out: Path, folders: list[Path], images: _Images, device: torch.device, fpr: float) -> float:
    """Make one ensemble of the detectors, with a threshold from the images held out."""
    ensemble = Ensemble([Detector.load(folder / DETECTOR_FILE, device) for folder in folders])
    _, calibration = images.for_fitting(device)
    scored: list[Scored] = [(member.score(calibration, show_progress), None) for member in ensemble.members]
    ensemble.calibration = calibrated(ensemble.together(scored)[0], fpr)
    people.print(f"threshold of all together: {ensemble.calibration.text}")
    ensemble.save(out, [f"{folder.name}/{DETECTOR_FILE}" for folder in folders])
    return ensemble.threshold


def _find(paths: tuple[Path, ...], size: tuple[int, int], read: str, fabric: Fabric, held_out: float) -> _Images:
    """Read all images onto the device, or leave them to be streamed; say which, and why."""
    files = ImageFiles(paths, size)
    if read in ("stream", "dali") or (read == "auto" and not fits(len(paths), size, fabric.device)):
        why = f"they take more than {RESIDENT_SHARE:.0%} of the free memory" if read == "auto" else "as asked for"
        by_dali = read == "dali" or (read == "auto" and fabric.device.type == "cuda" and has_dali())
        decoder = "DALI" if by_dali else "Pillow"
        people.print(f"images are streamed from disk and decoded by {decoder}, {why}")
        return _Images(files, None, held_out, decoder)
    pixels = load_images(
        paths, size, progress=fabric.is_global_zero, memory_format=torch.channels_last
    ).pixels  # (N, 3, H, W)
    people.print(f"images are resident on {fabric.device}: {pixels.nbytes / 1e6:,.0f} MB")
    return _Images(files, pixels.to(fabric.device), held_out)


def _say(count: int, config: TrainConfig, held_out: float, fabric: Fabric) -> None:
    normal, calibration = hold_out(torch.arange(count), held_out)
    where = str(fabric.device) if fabric.world_size == 1 else f"{fabric.world_size} × {fabric.device.type}"
    people.print(f"{count} normal images, {config.steps} updates of 3 × {config.batch} images on {where}")
    people.print(f"{len(calibration)} of them are held out of training, to set the threshold on")
    if config.batch > len(normal):
        people.print(f"note: a batch of {config.batch} repeats some of the {len(normal)} images to learn from")


def _train_one(
    config: TrainConfig, network_config: NetworkConfig, weights: str | None, scoring: DetectorConfig, images: _Images,
    folder: Path, keeper: Keeper, fabric: Fabric, source: str, resume: bool, accept_changes: bool, profile: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train, fit and keep one detector, or find it done."""
    if resume and is_complete(folder):
        kept = Detector.load(folder / DETECTOR_FILE)
        before = kept.provenance.get("facts", keeper.facts)  # early versions kept none
        check_facts(before, keeper.facts, False, f"{folder} is complete already, --overwrite trains it anew")
        people.print(f"{folder}: complete already")
        return {"detector": str(folder / DETECTOR_FILE), "threshold": kept.threshold}
    remove_leftovers(keeper.path)
    state = take_up(keeper.path, keeper.facts, accept_changes) if resume else None
    if state is not None:
        people.print(f"going on from step {int(state['step'][0])}")
    torch.manual_seed(config.seed)
    network = Network(network_config, weights).to(fabric.device)
    batches = images.batches(config, fabric.device)
    last = train_network(network, batches, config, folder, fabric=fabric, keeper=keeper, state=state, profile=profile)
    if not fabric.is_global_zero:
        return {}
    normal, calibration = images.for_fitting(fabric.device)
    provenance = provenance_of(normal, config, source) | {"facts": keeper.facts}
    detector = Detector(network, scoring, provenance=provenance)
    detector.fit(normal, calibration, show_progress).save(folder / DETECTOR_FILE)
    complete(folder)
    people.print(f"threshold: {detector.calibration.text}")
    return {
        "detector": str(folder / DETECTOR_FILE), "images": len(images.files), "steps": config.steps, "loss": last.loss,
        "accuracy": last.accuracy, "threshold": detector.threshold, "promised": detector.calibration.promised,
    }  # fmt: skip
