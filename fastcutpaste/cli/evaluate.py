"""fastcutpaste evaluate: how good a detector is on labelled images."""

from pathlib import Path

import click

from fastcutpaste.cli.options import DEVICE_OPTION, device_named, finish
from fastcutpaste.console import people
from fastcutpaste.data import find_test_images, load_images, load_masks
from fastcutpaste.runs import evaluate_scores, load_run, score_images, write_evaluation


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for scores and heat maps.  [default: RUN/evaluation]"
)
@DEVICE_OPTION
def evaluate(run: Path, data: Path, out: Path | None, device: str) -> None:
    """Measure the detector in RUN on labelled images: DATA/test/<kind>, with masks in DATA/ground_truth."""
    detector = load_run(run, device_named(device))
    found = find_test_images(data)
    if None in found.kinds:
        raise ValueError(f"evaluate: labelled images in {data / 'test'}/<kind> required, got a folder of images; "
                         "use predict for these")  # fmt: skip
    images, sizes = load_images(found.paths, detector.config.size, progress=True)
    masks = load_masks(found, sizes) if found.has_masks and detector.config.patch is not None else None
    scores, maps = score_images(detector, images, sizes)
    results = evaluate_scores(scores, found.kinds, detector.threshold, maps, masks)
    out = out or (run if run.is_dir() else run.parent) / "evaluation"
    results |= write_evaluation(out, detector, found, scores, maps, masks, results)
    for name in ("image_auroc", "pixel_auroc", "pro_auc", "false_positive_rate", "detection_rate"):
        if name in results:
            people.print(f"{name.replace('_', ' '):>20}  {results[name]:.3f}")
    finish(results)
