"""fastcutpaste demo: train, score and look through a texture with planted defects."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from fastcutpaste.cli.options import DEVICE_OPTION, SEED_OPTION, device_named, finish
from fastcutpaste.console import people, show_progress
from fastcutpaste.images.batches import image_batches
from fastcutpaste.images.textures import TEXTURES, make_demo, write_demo
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.reports.evaluated import Evaluation
from fastcutpaste.reports.runs import (
    DETECTOR_FILE,
    claim,
    complete,
    evaluate_scores,
    write_evaluation,
)
from fastcutpaste.reports.scored import Scored
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.heat import ResizedMap
from fastcutpaste.training.recipe import provenance_of, train_network
from fastcutpaste.training.step import PRESETS

PATCH = 32  # pixels, as wide as a brick


@click.command()
@click.option("--texture", type=click.Choice(list(TEXTURES)), default="brick", show_default=True)
@SEED_OPTION
@click.option("--out", type=click.Path(path_type=Path), default=Path("fastcutpaste-demo"), show_default=True)
@click.option("--steps", default=1500, show_default=True, help="Updates of the network.")
@DEVICE_OPTION
def demo(texture: str, seed: int, out: Path, steps: int, device: str) -> None:
    """Train, score and look through a real texture with planted defects, in about a minute.

    The photograph ships with scikit-image. The images are left in OUT/data as an MVTec folder, so that `train`,
    `evaluate` and `predict` can be tried on it, and a report on them in OUT.
    """
    target = device_named(device)
    claim(out, overwrite=True, kind="demo")
    images = make_demo(texture, seed=seed)
    shutil.rmtree(out / "data", ignore_errors=True)  # an earlier demo's, of another seed perhaps
    found = write_demo(images, out / "data")
    people.print(f"{len(images.train)} normal crops of {texture} to learn from, {len(images.calibration)} to set the "
                 f"threshold on, {len(images.kinds)} to test on")  # fmt: skip
    size = (images.train.shape[-2], images.train.shape[-1])
    config = replace(PRESETS["quick"], steps=steps, crop=PATCH, seed=seed)
    scoring = DetectorConfig(size, patch=PATCH, fit_patches=10_000)
    normal, calibration = images.train.to(target), images.calibration.to(target)

    def measure(detector: Detector) -> tuple[dict[str, Any], Evaluation]:
        maps, evaluation = detector.localize(images.test, show_progress), Evaluation(detector, found)
        for i, (path, score) in enumerate(zip(found.paths, score_maps(maps).tolist(), strict=True)):
            evaluation.add(i, Scored(path, size, score, (score,), (ResizedMap(size, maps[i]),)), images.masks[i])
        return evaluate_scores(evaluation.scores, images.kinds, detector.threshold, evaluation.pixels[0]), evaluation

    torch.manual_seed(seed)
    network = Network(NetworkConfig("patchnet", patch=PATCH)).to(target)
    people.print("an untrained network first, to compare with")
    untrained, _ = measure(Detector(network, scoring).fit(normal, calibration, show_progress))
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
    trained, evaluation = measure(detector)
    written = write_evaluation(out, evaluation, trained)
    for name in ("image_auroc", "pixel_auroc"):
        people.print(f"{name.replace('_', ' ')}  {trained[name]:.3f}  (untrained network {untrained[name]:.3f})")
    people.print(f"defects found  {trained['detection_rate']:.1%}")
    people.print(f"false alarms  {trained['false_positive_rate']:.1%}  ({scoring.false_positive_rate:.0%} asked for)")
    people.print(f"look at {written['report']}")
    finish({**trained, "untrained": untrained, "texture": texture, "seed": seed, **written})
