"""fastcutpaste demo: train, score and draw heat maps on a texture with planted defects."""

import shutil
from pathlib import Path
from typing import Any

import click
import torch

from fastcutpaste.cli.options import DEVICE_OPTION, SEED_OPTION, device_named, finish
from fastcutpaste.console import people, show_progress
from fastcutpaste.images.batches import image_batches
from fastcutpaste.images.textures import TEXTURES, make_demo, write_demo
from fastcutpaste.networks.backbone import Network
from fastcutpaste.reports.runs import (
    DETECTOR_FILE,
    claim,
    complete,
    draw_examples,
    evaluate_scores,
)
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.training.recipe import provenance_of, train_network
from fastcutpaste.training.step import TrainConfig


@click.command()
@click.option("--texture", type=click.Choice(list(TEXTURES)), default="brick", show_default=True)
@SEED_OPTION
@click.option("--out", type=click.Path(path_type=Path), default=Path("fastcutpaste-demo"), show_default=True)
@click.option("--steps", default=300, show_default=True, help="Updates of the network.")
@DEVICE_OPTION
def demo(texture: str, seed: int, out: Path, steps: int, device: str) -> None:
    """Train, score and draw heat maps on a real texture with planted defects, in a few minutes.

    The photograph ships with scikit-image. The images are left in OUT/data as an MVTec folder, so that `train`,
    `evaluate` and `predict` can be tried on it.
    """
    target = device_named(device)
    claim(out, overwrite=True, kind="demo")
    images = make_demo(texture, seed=seed)
    shutil.rmtree(out / "data", ignore_errors=True)  # an earlier demo's, of another seed perhaps
    write_demo(images, out / "data")
    people.print(f"{len(images.train)} normal crops of {texture} to learn from, {len(images.kinds)} crops to test on")
    size = (images.train.shape[-2], images.train.shape[-1])
    config = TrainConfig(steps=steps, batch=24, crop=64, seed=seed)
    # A PatchNet finds the defects better still, and calls every good test crop defective: it notices the slants of that
    # part of the wall, which those for the threshold lack.
    scoring = DetectorConfig(size, patch=64, stride=8, fit_patches=10_000, chunk=128)
    normal, calibration = images.train.to(target), images.calibration.to(target)

    def measure(detector: Detector) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        maps = detector.localize(images.test, show_progress)
        scores = score_maps(maps)
        return evaluate_scores(scores, images.kinds, detector.threshold, list(maps), list(images.masks)), maps, scores

    torch.manual_seed(seed)
    network = Network().to(target)
    people.print("an untrained network first, to compare with")
    untrained, _, _ = measure(Detector(network, scoring).fit(normal, calibration, show_progress))
    pixels = normal.contiguous(memory_format=torch.channels_last)
    train_network(
        network,
        lambda start, share: image_batches(pixels, config.batch, seed=seed, start=start, share=share),
        config,
        out,
    )
    detector = Detector(network, scoring, provenance=provenance_of(normal, config, texture))
    detector.fit(normal, calibration, show_progress).save(out / DETECTOR_FILE)
    complete(out)
    trained, maps, scores = measure(detector)
    picture = out / "heatmaps.png"
    draw_examples(detector, images.test.__getitem__, list(maps), images.kinds, scores, picture, list(images.masks))
    for name in ("image_auroc", "pixel_auroc"):
        people.print(f"{name.replace('_', ' ')}  {trained[name]:.3f}  (untrained network {untrained[name]:.3f})")
    people.print(f"look at {picture}")
    finish({**trained, "untrained": untrained, "texture": texture, "seed": seed, "heat_maps": str(picture)})
