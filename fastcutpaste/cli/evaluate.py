"""fastcutpaste evaluate: how good a detector is on labelled images."""

from pathlib import Path

import click

from fastcutpaste.cli.options import DEVICE_OPTION, DEVICES_OPTION, finish, launched, load_scorer
from fastcutpaste.console import people
from fastcutpaste.images.folders import find_test_images, load_masks
from fastcutpaste.reports.runs import evaluate_scores, score_paths, write_evaluation
from fastcutpaste.scoring.ensemble import Ensemble, spread

FIGURES = ("image_auroc", "pixel_auroc", "pro_auc", "false_positive_rate", "detection_rate")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for scores and heat maps.  [default: RUN/evaluation]"
)
@DEVICE_OPTION
@DEVICES_OPTION
def evaluate(run: Path, data: Path, out: Path | None, device: str, devices: int) -> None:
    """Measure the detector in RUN on labelled images: DATA/test/<kind>, with masks in DATA/ground_truth."""
    fabric = launched(device, devices)
    detector = load_scorer(run, fabric.device)
    found = find_test_images(data)
    if None in found.kinds:
        raise ValueError(f"evaluate: labelled images in {data / 'test'}/<kind> required, got a folder of images; "
                         "use predict for these")  # fmt: skip
    scored, sizes = score_paths(detector, found.paths, fabric)
    if not fabric.is_global_zero:
        return
    masks = load_masks(found, sizes) if found.has_masks and detector.config.patch is not None else None
    scores, maps = detector.together(scored) if isinstance(detector, Ensemble) else scored[0]
    results = evaluate_scores(scores, found.kinds, detector.threshold, maps, masks)
    if isinstance(detector, Ensemble):
        pairs = zip(detector.members, scored, strict=True)
        alone = [evaluate_scores(one, found.kinds, member.threshold, of_one, masks) for member, (one, of_one) in pairs]
        results["members"] = {name: spread([one[name] for one in alone]) for name in FIGURES if name in results}
    out = out or (run if run.is_dir() else run.parent) / "evaluation"
    results |= write_evaluation(out, detector, found, scores, maps, masks, results)
    for name in FIGURES:
        if name in results:
            member = results.get("members", {}).get(name)
            alone_text = f"  (one detector {member['mean']:.3f} ± {member['standard_error']:.3f})" if member else ""
            people.print(f"{name.replace('_', ' '):>20}  {results[name]:.3f}{alone_text}")
    finish(results)
