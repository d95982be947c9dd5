"""fastcutpaste train: a detector from a folder of normal images."""

import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch
from lightning_fabric import Fabric

from fastcutpaste.cli.options import (
    DEVICE_OPTION,
    DEVICES_OPTION,
    PAGES_OPTION,
    TEXTURES_OPTION,
    Finite,
    areas_of,
    device_named,
    finish,
    launched,
    named,
    say_graphs,
    scale_of,
    seeds_of,
)
from fastcutpaste.cli.original_images import check_original, read_all
from fastcutpaste.cli.training_images import (
    Aside,
    Chosen,
    TrainingImages,
    bits_of_all,
    choose_images,
    tell_choice,
)
from fastcutpaste.console import people, show_progress
from fastcutpaste.images.dali_batches import has_dali
from fastcutpaste.images.folders import find_paths, find_training_images
from fastcutpaste.images.hold_out import HOWS
from fastcutpaste.images.looks import Looks
from fastcutpaste.images.survey import survey
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.reports.promise import SOURCE
from fastcutpaste.reports.runs import CHECKPOINT_FILE, DETECTOR_FILE, claim, complete, is_complete
from fastcutpaste.scoring.calibration import calibrated
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.cross import Unseen, cross_scores
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import ENSEMBLE_FILE, Ensemble
from fastcutpaste.training.checkpoint import Keeper, Stopped
from fastcutpaste.training.launch import PRECISIONS
from fastcutpaste.training.recipe import check_facts, facts_of, provenance_of, take_up, task_of, train_network
from fastcutpaste.training.step import ADAMW_RATE, OPTIMIZERS, PRESETS, THREE_WAY, TrainConfig
from fastcutpaste.transforms.patch import SOURCES
from fastcutpaste.transforms.recipes import RECIPES

READ = ("auto", "resident", "stream", "dali")


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make for the detector.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="fast", show_default=True,
              help="paper: 65,536 updates; fast: half of them, as good; quick: minutes on a CPU; pretrained: the head "
                   "first, then all layers, of a backbone with --weights.")  # fmt: skip
@click.option("--size", default="256", show_default=True,
              help="Images are resized to this: SIDE or HEIGHTxWIDTH, px; original: none is, whatever their sizes, "
                   "neither in training nor later.")  # fmt: skip
@click.option("--tile", type=int, help="With --size original and --crop 0: side of the tiles that are learned from and "
                                       "scored as whole images, px.")  # fmt: skip
@click.option("--overlap", type=int, help="Pixels that neighbouring tiles share at least.  [default: a quarter]")
@click.option("--crop", default=64, show_default=True,
              help="Side of the patches it learns from and scores, px; 0: whole images, no heat maps.")  # fmt: skip
@click.option("--stride", default=4, show_default=True, help="Pixels between scored patches.")
@click.option("--steps", type=int, help="Updates, instead of the preset's.")
@click.option("--batch", type=int, help="Normal images a step, instead of the preset's; the task triples them.")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="adamw learns faster where updates are few.  "
                                                                 "[default: sgd, as in the paper]")  # fmt: skip
@click.option("--learning-rate", type=float, help="At the first update.  [default: 0.03; adamw: 0.001]")
@click.option("--recipe", default=THREE_WAY, show_default=True,
              help=f"Defects it learns from: {', '.join(RECIPES)}; or several, joined by +, mixed.")  # fmt: skip
@TEXTURES_OPTION
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
@click.option("--held-out", type=float, help="Share of the images kept out of training, to set the threshold on; with "
                                              "--seeds each detector holds out others.  [default: 0.2]")  # fmt: skip
@click.option("--hold-out", type=click.Choice(HOWS),
              help="blocks: runs of neighbours over the whole folder, of each kind of name and size; last: its end; "
                   "random: single images.  [default: blocks]")  # fmt: skip
@click.option("--group", metavar="PATTERN",
              help="Regular expression, searched in each image's path: images in which it finds the same (in its "
                   "bracket, if it has one), such as those of one part, are held out together.")  # fmt: skip
@click.option("--calibration", type=click.Path(path_type=Path),
              help="Folder of other normal images, to set the threshold on instead.  "
                   "[default: validation/good in DATA, if it is there]")  # fmt: skip
@click.option("--seed", "--seeds", "seeds", default="0", show_default=True,
              help="Of weights, data order, augmentation; 0-4 or 0,7: several detectors, scored together.")  # fmt: skip
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True,
              help="auto: bf16 where the device computes in it, else fp32.")  # fmt: skip
@click.option("--compile/--no-compile", "compiled", default=None,
              help="The step as a few fused kernels, replayed as a CUDA graph.  [default: on a GPU]")  # fmt: skip
@click.option("--read", type=click.Choice(READ), default="auto", show_default=True,
              help="Keep all images on the device, or read them again each epoch, by processes (stream) or by NVIDIA "
                   "DALI, on a GPU; auto: keep what fits, read the rest as can be.")  # fmt: skip
@PAGES_OPTION
@click.option("--skip-unreadable", is_flag=True,
              help="Train without files that cannot be read; their names are kept in the detector's file.")  # fmt: skip
@click.option("--bits", type=click.IntRange(8, 16),
              help="Of the values in image files of more than 8 bits, such as 12 for a camera's 0-4095; kept by the "
                   "detector.  [default: the fewest of 8, 10, 12, 14, 16 that hold all images]")  # fmt: skip
@DEVICE_OPTION
@DEVICES_OPTION
@click.option("--num-nodes", default=1, show_default=True, help="Machines, each with as many devices.")
@click.option("--resume", is_flag=True, help="Go on with the run in OUT from its checkpoint; begin if there is none.")
@click.option("--accept-changes", is_flag=True, help="With --resume: go on although settings differ.")
@click.option(
    "--save-minutes",
    type=Finite(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Most minutes from one checkpoint to the next.",
)
@click.option("--save-steps", type=click.IntRange(1), help="Most updates from one checkpoint to the next.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in OUT.")
@click.option("--profile", is_flag=True, help="Write where the time of a step goes into OUT/profile.")
def train(
    data: Path, out: Path, preset: str, size: str, tile: int | None, overlap: int | None, crop: int, stride: int,
    steps: int | None, batch: int | None, optimizer: Any, learning_rate: float | None, recipe: str,
    textures: Path | None, jitter: float | None, source: Any, backbone: str | None, weights: str | None,
    stage: str | None, density: Any, border: bool, level: bool, areas: str, fpr: float, held_out: float | None,
    hold_out: Any, group: str | None, calibration: Path | None, seeds: str, precision: Any, compiled: bool | None,
    read: str, pages: bool, skip_unreadable: bool, bits: int | None, device: str, devices: int, num_nodes: int,
    resume: bool, accept_changes: bool, save_minutes: float, save_steps: int | None, overwrite: bool, profile: bool,
) -> None:  # fmt: skip
    """Train a detector on the normal images in DATA: an MVTec category (train/good), or a plain folder of images.

    DATA may as well be laid out as other published sets are, or be a CSV file with a column path and, as far as known,
    label, mask and split. `fastcutpaste inspect` tells what is read as what.
    """
    device_named(device)  # what is wrong with it is said before anything else is done
    numbers, base = seeds_of(seeds), PRESETS[preset]
    if base.head_steps and weights is None:
        raise ValueError(f"--preset {preset}: --weights required, 'imagenet' or a file, got none")
    if resume and overwrite:
        raise ValueError("--resume: without --overwrite required, got both")
    if read == "dali" and not has_dali():
        raise ValueError("--read dali: NVIDIA DALI required, got none; pip install 'fastcutpaste[dali]'")
    _check_recipe(recipe, jitter, source)
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
        recipe=recipe,
        textures=None if textures is None else str(textures),
        crop=crop or None,
        head_steps=base.head_steps * total // base.steps,
        precision=precision,
        compile=compiled,
    )
    backbone = backbone or ("patchnet" if preset == "quick" and crop else "resnet18")
    scoring = DetectorConfig(
        **scale_of(size, crop, tile, overlap)._asdict(),
        patch=crop or None,
        stride=stride,
        border=border,
        level=level,
        areas=areas_of(areas),
        density=density,
        false_positive_rate=fpr,
    )
    network = NetworkConfig(backbone, stage=stage, patch=crop or 64)
    _probe(network, weights, config, (crop, crop) if crop else scoring.size)
    surveyed = survey(data, pages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is among the survey's notes
        found = find_training_images(data)
    aside = Aside(calibration, hold_out, held_out, group)
    chosen = choose_images(data, found.paths, aside, len(numbers), numbers[0], skip_unreadable, pages)
    check_original(chosen, scoring, read)
    # A detector's scale is made of them; of whole images, whose typical score is a median, it takes more.
    fewest, least = min(len(split.held_out) for split in chosen.splits), 2 if crop else 4
    if len(numbers) > 1 and fewest < least:
        raise ValueError(f"--seeds: at least {least} images held out required for each of an ensemble, got {fewest} of "
                         f"{len(chosen.paths)}; give more images, or a larger --held-out")  # fmt: skip
    fabric = launched(device, devices, num_nodes, precision, config.batch)
    for line in (surveyed.headline, *(f"note: {note}" for note in surveyed.notes)):
        people.print(line, markup=False)
    folders = [out] if len(numbers) == 1 else [out / f"seed-{number}" for number in numbers]
    if fabric.is_global_zero:
        for folder in (out, *folders):
            claim(folder, overwrite, resume)
    fabric.barrier()
    scoring = replace(scoring, bits=bits_of_all(chosen, bits))
    _say(chosen, config, scoring.bits, fabric)
    images = read_all(chosen, scoring, read, fabric)
    results = []
    for member, (number, folder) in enumerate(zip(numbers, folders, strict=True)):
        settings = {"training": asdict(replace(config, seed=number)), "network": asdict(network), "weights": weights,
                    "scoring": asdict(scoring), "decoder": images.decoder}  # fmt: skip
        keeper = Keeper(
            folder / CHECKPOINT_FILE,
            facts_of(settings, chosen.paths, chosen.held_out(member), fabric.device, fabric.world_size,
                     () if textures is None else find_paths(textures)),
            save_minutes, save_steps,
        )  # fmt: skip
        try:
            results.append(_train_one(replace(config, seed=number), network, weights, scoring, images, member, folder,
                                      keeper, fabric, data.name, resume, accept_changes, profile))  # fmt: skip
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


def _check_recipe(recipe: str, jitter: float | None, source: str) -> None:
    if recipe != THREE_WAY and (jitter is not None or source != "same"):
        raise ValueError(f"--recipe {recipe}: without --jitter and --source, which are the 3-way task's, required")


def _probe(network: NetworkConfig, weights: str | None, config: TrainConfig, size: tuple[int, int]) -> None:
    """Say now, and not when all images are read, what a backbone or its weights, or a recipe of such a size, lacks."""
    Network(network, weights).probe(size)
    try:
        task_of(config)(torch.zeros(0, 3, *size, dtype=torch.uint8))
    except ValueError as error:
        raise ValueError(f"--recipe {config.recipe}, which learns from {size[0]}×{size[1]} pixels: {error}") from error


def _calibrate(out: Path, folders: list[Path], images: TrainingImages, device: torch.device, fpr: float) -> float:
    """Make one ensemble of the detectors, with a threshold from all images that any of them has not seen."""
    ensemble = Ensemble([Detector.load(folder / DETECTOR_FILE, device) for folder in folders])
    unseen = []
    for i, member in enumerate(ensemble.members):
        indices, pixels = images.for_threshold(i, device)
        unseen.append(Unseen(member, indices, member.score(pixels, show_progress)))
    ensemble.calibration = calibrated(cross_scores(unseen), fpr)
    people.print(f"threshold of all together: {ensemble.calibration.text}")
    ensemble.save(out, [f"{folder.name}/{DETECTOR_FILE}" for folder in folders])
    say_graphs(out / ENSEMBLE_FILE)
    return ensemble.threshold


def _say(chosen: Chosen, config: TrainConfig, bits: int | None, fabric: Fabric) -> None:
    where = str(fabric.device) if fabric.world_size == 1 else f"{fabric.world_size} × {fabric.device.type}"
    classes = 3 if config.recipe == THREE_WAY else 2
    people.print(f"{len(chosen.paths)} normal images, {config.steps} updates of {classes} × {config.batch} images on "
                 f"{where}")  # fmt: skip
    tell_choice(chosen, bits)
    fewest = min(len(split.learned) for split in chosen.splits)
    if config.batch > fewest:
        people.print(f"note: a batch of {config.batch} repeats some of the {fewest} images to learn from")


def _train_one(
    config: TrainConfig, network_config: NetworkConfig, weights: str | None, scoring: DetectorConfig,
    images: TrainingImages, member: int, folder: Path, keeper: Keeper, fabric: Fabric, source: str, resume: bool,
    accept_changes: bool, profile: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train, fit and keep one detector, or find it done."""
    if resume and is_complete(folder):
        kept = Detector.load(folder / DETECTOR_FILE)
        before = kept.provenance.get("facts", keeper.facts)  # early versions kept none
        check_facts(before, keeper.facts, False, f"{folder} is complete already, --overwrite trains it anew")
        people.print(f"{folder}: complete already")
        return {"detector": str(folder / DETECTOR_FILE), "threshold": kept.threshold}
    state = take_up(keeper.path, keeper.facts, accept_changes) if resume else None
    if state is not None:
        people.print(f"going on from step {int(state['step'][0])}")
    torch.manual_seed(config.seed)
    network = Network(network_config, weights).to(fabric.device)
    batches = images.batches(member, config, fabric.device)
    last = train_network(network, batches, config, folder, fabric=fabric, keeper=keeper, state=state, profile=profile)
    if not fabric.is_global_zero:
        return {}
    normal, calibration = images.for_fitting(member, fabric.device)
    looks = Looks.of([images.files.paths[i] for i in images.splits[member].held_out.tolist()], scoring.bits)
    provenance = provenance_of(normal, config, source) | {"facts": keeper.facts, SOURCE: asdict(looks)}
    if images.unread:
        provenance["unread"] = [str(one.path) for one in images.unread]
    detector = Detector(network, scoring, provenance=provenance)
    detector.fit(normal, calibration, show_progress).save(folder / DETECTOR_FILE)
    complete(folder)
    say_graphs(folder / DETECTOR_FILE)
    people.print(f"threshold: {detector.calibration.text}")
    return {
        "detector": str(folder / DETECTOR_FILE), "images": len(images.files), "steps": config.steps, "loss": last.loss,
        "accuracy": last.accuracy, "threshold": detector.threshold, "promised": detector.calibration.promised,
        "unread": named(images.unread),
    }  # fmt: skip
