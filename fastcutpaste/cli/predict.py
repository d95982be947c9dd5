"""fastcutpaste predict: scores, decisions and heat maps of new images."""

from pathlib import Path
from typing import Any

import click

from fastcutpaste.cli.options import DEVICE_OPTION, DEVICES_OPTION, finish, launched
from fastcutpaste.console import people
from fastcutpaste.data import find_test_images, load_images
from fastcutpaste.ensemble import Ensemble
from fastcutpaste.regions import find_regions
from fastcutpaste.report import write_heat_maps
from fastcutpaste.runs import heat_range, load_run, score_paths


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--heatmaps", type=click.Path(path_type=Path), help="Folder for one overlay picture per image.")
@DEVICE_OPTION
@DEVICES_OPTION
def predict(run: Path, images: tuple[Path, ...], heatmaps: Path | None, device: str, devices: int) -> None:
    """Score IMAGES (files or folders) with the detector in RUN and say which are defective, and where."""
    fabric = launched(device, devices)
    detector = load_run(run, fabric.device)
    if heatmaps is not None and detector.config.patch is None:
        raise ValueError("predict --heatmaps: a detector trained on patches required, got one of whole images")
    paths = [path for argument in images for path in find_test_images(argument).paths]
    scored, sizes = score_paths(detector, paths, fabric, progress=len(paths) > 8)
    if not fabric.is_global_zero:
        return
    scores, maps = detector.together(scored) if isinstance(detector, Ensemble) else scored[0]
    results: list[dict[str, Any]] = []
    for i, path in enumerate(paths):
        score = float(scores[i])
        results.append({"image": str(path), "score": score, "defective": score > detector.threshold})
        if maps is not None:  # boxes in pixels of the file
            results[-1]["regions"] = [region._asdict() for region in find_regions(maps[i], detector.threshold)]
        if heatmaps is not None and maps is not None:
            picture = heatmaps / f"{i:04d}_{path.stem}.png"
            original = load_images([path], sizes[i]).pixels[0]
            low, high = heat_range(detector)
            write_heat_maps([original], [maps[i]], picture, low=low, high=high, titles=[f"{path.name}  {score:.1f}"])
            results[-1]["heat_map"] = str(picture)
        verdict = "DEFECTIVE" if score > detector.threshold else "normal"
        people.print(f"{verdict:>9}  {score:8.2f}  {path}", markup=False)
    finish({"threshold": detector.threshold, "results": results})
