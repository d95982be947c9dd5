"""fastcutpaste train: a detector from a folder of normal images."""

from pathlib import Path
from typing import Any

import click
import torch

from fastcutpaste.cli.options import DEVICE_OPTION, SEED_OPTION, device_named, finish, size_of
from fastcutpaste.console import people, show_progress
from fastcutpaste.data import find_training_images, load_images
from fastcutpaste.detector import Detector, DetectorConfig, hold_out
from fastcutpaste.model import Network, NetworkConfig
from fastcutpaste.runs import DETECTOR_FILE, claim, provenance_of, train_network
from fastcutpaste.train import PRESETS, TrainConfig


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make for the detector.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="fast", show_default=True,
              help="paper: 65,536 updates; fast: half of them, as good; quick: minutes on a CPU.")  # fmt: skip
@click.option("--size", default="256", show_default=True, help="Images are resized to this: SIDE or HEIGHTxWIDTH, px.")
@click.option("--crop", default=64, show_default=True,
              help="Side of the patches it learns from and scores, px; 0: whole images, no heat maps.")  # fmt: skip
@click.option("--stride", type=int, help="Pixels between scored patches.  [default: 4; quick: 16]")
@click.option("--steps", type=int, help="Updates, instead of the preset's.")
@click.option("--batch", type=int, help="Normal images a step, instead of the preset's; the task triples them.")
@click.option("--backbone", default="resnet18", show_default=True,
              help="patchnet: heat maps in one pass; or any torchvision or timm classification model.")  # fmt: skip
@click.option("--weights", help="'imagenet', or a local file of the backbone's weights.  [default: from scratch]")
@click.option("--stage", help="Node of the backbone whose output is the features, such as layer3.")
@click.option("--density", type=click.Choice(["gaussian", "kernel", "location"]), default="gaussian", show_default=True)
@click.option("--fpr", default=0.05, show_default=True, help="Share of normal images that may be called defective.")
@click.option(
    "--held-out",
    default=0.2,
    show_default=True,
    help="Share of the images, the last ones, kept out of training to set the threshold on.",
)
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in OUT.")
@SEED_OPTION
@DEVICE_OPTION
def train(
    data: Path, out: Path, preset: str, size: str, crop: int, stride: int | None, steps: int | None, batch: int | None,
    backbone: str, weights: str | None, stage: str | None, density: Any, fpr: float,
    held_out: float, precision: Any, overwrite: bool,
    seed: int, device: str,
) -> None:  # fmt: skip
    """Train a detector on the normal images in DATA: an MVTec category (train/good), or a plain folder of images."""
    target = device_named(device)
    base = PRESETS[preset]
    config = TrainConfig(
        steps=base.steps if steps is None else steps,
        batch=base.batch if batch is None else batch,
        crop=crop or None,
        precision=precision,
        seed=seed,
    )
    stride = (16 if preset == "quick" else 4) if stride is None else stride
    scoring = DetectorConfig(size_of(size), patch=crop or None, stride=stride, density=density, false_positive_rate=fpr)
    torch.manual_seed(seed)
    network = Network(NetworkConfig(backbone, stage=stage, patch=crop or 64), weights).to(target)
    found = find_training_images(data)
    claim(out, overwrite)
    images = load_images(found.paths, scoring.size, progress=True).pixels.to(target)
    people.print(f"{len(images)} normal images, {config.steps} updates of 3 × {config.batch} images on {target}")
    normal, calibration = hold_out(images, held_out)
    people.print(f"{len(calibration)} of them are held out of training, to set the threshold on")
    last = train_network(network, normal, config, out)
    detector = Detector(network, scoring, provenance=provenance_of(normal, config, data.name))
    detector.fit(normal, calibration, show_progress).save(out / DETECTOR_FILE)
    finish({
        "detector": str(out / DETECTOR_FILE), "images": len(images), "steps": config.steps, "loss": last.loss,
        "accuracy": last.accuracy, "threshold": detector.threshold,
    })  # fmt: skip
