"""fastcutpaste predict: scores, decisions and heat maps of new images."""

from pathlib import Path
from typing import Any

import click
from torch import Tensor

from fastcutpaste.cli.options import DEVICE_OPTION, DEVICES_OPTION, finish, load_scorer, processes
from fastcutpaste.console import people
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.reports.page import Shown
from fastcutpaste.reports.runs import heat_range, score_files, write_report
from fastcutpaste.reports.thumbnails import show
from fastcutpaste.scoring.calibration import Decision
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.regions import find_regions
from fastcutpaste.training.launch import gathered, share_of

_AT_ONCE = 16  # images whose heat maps are held, at the size of the file


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--heatmaps", type=click.Path(path_type=Path), help="Folder for one overlay picture per image.")
@click.option("--report", type=click.Path(path_type=Path), help="HTML file with all images, to be looked through.")
@DEVICE_OPTION
@DEVICES_OPTION
def predict(
    run: Path, images: tuple[Path, ...], heatmaps: Path | None, report: Path | None, device: str, devices: int
) -> None:
    """Score IMAGES (files or folders) with the detector in RUN and say which are defective, and where."""
    fabric = processes(device, devices)
    detector = load_scorer(run, fabric.device)
    if heatmaps is not None and detector.config.patch is None:
        raise ValueError("predict --heatmaps: a detector trained on patches required, got one of whole images")
    paths = [path for argument in images for path in find_test_images(argument, divided=False).paths]
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"predict --report: an HTML file's name required, such as report.html, got {report}")
    mine: list[dict[str, Any]] = []
    shown: list[Shown] = []
    numbered = share_of(list(enumerate(paths)), fabric)
    for some in (numbered[first : first + _AT_ONCE] for first in range(0, len(numbered), _AT_ONCE)):
        scores, maps, sizes = score_files(detector, [path for _, path in some])
        heats = [None] * len(some) if maps is None else maps
        decisions = detector.calibration.decide(scores)
        for (number, path), decision, size, heat in zip(some, decisions, sizes, heats, strict=True):
            picture = None if heatmaps is None else heatmaps / f"{number:04d}_{path.stem}.png"
            mine.append(_told(detector, path, decision, size, heat, picture))
            if report is not None:
                details = decision.details | ({} if heat is None else {"regions": regions_told(mine[-1]["regions"])})
                shown.append(show(path, None, decision.score, heat, heat_range=heat_range(detector), details=details))
            if fabric.world_size == 1:
                _say(mine[-1])
    results, everyones = gathered(mine, fabric), gathered(shown, fabric)
    if not fabric.is_global_zero:
        return
    if fabric.world_size > 1:
        for result in results:
            _say(result)
    outcome: dict[str, Any] = {**detector.calibration.summary, "results": results}
    if report is not None:
        write_report(report, detector, "Prediction by a detector", everyones)
        outcome["report"] = str(report)
        people.print(f"look at {report}")
    finish(outcome)


def _told(
    detector: Detector | Ensemble, path: Path, decision: Decision, size: tuple[int, int], heat: Tensor | None,
    picture: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Tell what was found in an image, and draw its heat map (H, W) if a picture is wanted."""
    told: dict[str, Any] = {"image": str(path), **decision._asdict()}
    if heat is not None:  # boxes in pixels of the file
        told["regions"] = [region._asdict() for region in find_regions(heat, detector.threshold)]
    if heat is not None and picture is not None:
        from fastcutpaste.reports.pictures import write_heat_maps  # Matplotlib takes a second

        low, high = heat_range(detector)
        title = f"{path.name}  {decision.score:.1f}  {decision.text}"
        write_heat_maps([load_images([path], size).pixels[0]], [heat], picture, low=low, high=high, titles=[title])
        told["heat_map"] = str(picture)
    return told


def regions_told(regions: list[dict[str, Any]]) -> str:
    """Tell the regions above the detector's threshold, the worst of them by its box."""
    if not regions:
        return "none above the detector's threshold"
    worst = regions[0]
    where = f"{worst['width']} × {worst['height']} px from x {worst['x']}, y {worst['y']}"
    return where if len(regions) == 1 else f"{len(regions)}, the worst {where}"


def _say(told: dict[str, Any]) -> None:
    decision = Decision(*(told[name] for name in Decision._fields))
    verdict = "DEFECTIVE" if decision.defective else "normal"
    people.print(f"{verdict:>9}  {decision.score:8.2f}  {decision.text:<27}  {told['image']}", markup=False)
