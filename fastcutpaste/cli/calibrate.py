"""fastcutpaste calibrate: another threshold, without training."""

from dataclasses import asdict
from pathlib import Path

import click

from fastcutpaste.cli.options import DEVICE_OPTION, PAGES_OPTION, device_named, finish, load_scorer, say_graphs
from fastcutpaste.console import people, show_progress
from fastcutpaste.files import check_writable
from fastcutpaste.images.decode import load_images, say_losses
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.images.looks import Looks
from fastcutpaste.images.originals import Originals
from fastcutpaste.images.pages import all_pages
from fastcutpaste.reports.promise import SOURCE
from fastcutpaste.reports.runs import DETECTOR_FILE
from fastcutpaste.scoring.calibration import check_wanted
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import ENSEMBLE_FILE, Ensemble, names_in
from fastcutpaste.scoring.fitting import Images
from fastcutpaste.training.recipe import fingerprint


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--fpr", type=float, help="Share of normal images that may be called defective.  [default: training's]")
@click.option("--threshold", type=float, help="Set it by hand instead: images with a higher score are defective.")
@PAGES_OPTION
@DEVICE_OPTION
def calibrate(
    run: Path, images: tuple[Path, ...], fpr: float | None, threshold: float | None, pages: bool, device: str
) -> None:  # fmt: skip
    """Set the threshold of the detector in RUN anew, on normal IMAGES (files or folders) it has not learned from.

    Without IMAGES the scores of those held out in training, or of the last IMAGES given, serve once more. The former
    threshold is kept in the file's provenance.
    """
    target = device_named(device)
    check_wanted(fpr, threshold, None)
    detector = load_scorer(run, target)
    path = run
    if run.is_dir():
        path = run / (ENSEMBLE_FILE if isinstance(detector, Ensemble) else DETECTOR_FILE)
    check_writable(path)
    former = detector.calibration
    paths = _normal(images, detector, pages)
    size, bits = detector.config.size, detector.config.bits
    pixels: Images | None = None
    if paths:
        resized = detector.config.resize
        pixels = load_images(paths, size, bits=bits, progress=True).pixels if resized else Originals(paths, bits)
    detector.calibrate(pixels, fpr, threshold, show_progress)
    if isinstance(pixels, Originals):
        say_losses(pixels.losses, paths)
    if paths:
        detector.provenance = detector.provenance | {SOURCE: asdict(Looks.of(paths, bits))}
    if isinstance(detector, Ensemble):
        detector.save(run, names_in(run))
    else:
        detector.save(path)
    people.print(f"{run}: threshold {detector.threshold:.6g}, was {former.threshold:.6g}", markup=False)
    people.print(detector.calibration.text)
    say_graphs(path)
    finish({"run": str(run), **detector.calibration.summary, "former": former.summary})


def _normal(images: tuple[Path, ...], detector: Detector | Ensemble, pages: bool) -> list[Path]:
    """List files of normal images, or their pages, each once."""
    found = [find_test_images(path) for path in images]
    kinds = {kind for some in found for kind in some.kinds} - {None, "good"}
    if kinds:
        named = ", ".join(sorted(map(str, kinds)))
        raise ValueError(f"calibrate: normal images alone required, got {named}, too; give a folder of normal ones")
    paths = list({path.resolve(): path for some in found for path in some.paths}.values())
    paths = list(all_pages(paths)) if pages else paths
    members = detector.members if isinstance(detector, Ensemble) else [detector]
    data = [member.provenance.get("facts", {}).get("data", {}) for member in members]
    if paths and any(one.get("images") == len(paths) and one.get("fingerprint") == fingerprint(paths) for one in data):
        raise ValueError("calibrate: images that the detector has not learned from required, got those it was trained "
                         "with, which it scores too low")  # fmt: skip
    return paths
