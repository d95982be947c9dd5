"""fastcutpaste evaluate: how good a detector is on labelled images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastcutpaste.cli.options import (
    DEVICE_OPTION,
    DEVICES_OPTION,
    PAGES_OPTION,
    STRICT_OPTION,
    finish,
    load_scorer,
    named,
    processes,
    say_unread,
)
from fastcutpaste.console import people, show_progress
from fastcutpaste.files import check_writable
from fastcutpaste.images.folders import ImageSet, check_masks, find_test_images, label_images
from fastcutpaste.images.pages import with_pages
from fastcutpaste.images.survey import counted
from fastcutpaste.reports.evaluated import Evaluation
from fastcutpaste.reports.promise import compare_with_promise, looks_of_source, percent
from fastcutpaste.reports.runs import evaluate_scores, write_evaluation
from fastcutpaste.reports.scored import score_in_turn
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble, spread
from fastcutpaste.training.shares import Alone, share_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FIGURES = ("image_auroc", "pixel_auroc", "pro_auc", "false_positive_rate", "detection_rate")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path), required=False)
@click.option(
    "--good",
    "good_folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of good images, instead of DATA.",
)
@click.option("--bad", "bad_folders", multiple=True, type=click.Path(path_type=Path),
              help="Folder of defective images, instead of DATA; its name is their kind.")  # fmt: skip
@click.option("--masks", "mask_folder", type=click.Path(path_type=Path),
              help="Folder of masks for --bad, named as the images or NAME_mask; for several --bad, a "
                   "folder each.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for scores and heat maps.  [default: RUN/evaluation]"
)
@PAGES_OPTION
@STRICT_OPTION
@DEVICE_OPTION
@DEVICES_OPTION
def evaluate(
    run: Path, data: Path | None, good_folders: tuple[Path, ...], bad_folders: tuple[Path, ...],
    mask_folder: Path | None, out: Path | None, pages: bool, strict: bool, device: str,
    devices: int,
) -> None:  # fmt: skip
    """Measure the detector in RUN on labelled images: DATA/test/<kind>, with masks in DATA/ground_truth.

    DATA may as well be laid out as other published sets are, or be a CSV file with a column path and, as far as known,
    label, mask and split. --good and --bad, each as often as wanted, name folders instead. `fastcutpaste inspect` tells
    what is read as what. Files that cannot be read are named and passed over; the exit status is then 3.
    """
    fabric = processes(device, devices)
    detector = load_scorer(run, fabric.device)
    found = _labelled(data, good_folders, bad_folders, mask_folder)
    found = with_pages(found) if pages else found
    people.print(counted(found), markup=False)
    if detector.config.patch is not None:
        check_masks(found)  # before any scoring, which takes minutes
    out = out or (run if run.is_dir() else run.parent) / "evaluation"
    check_writable(out / "scores.csv")
    evaluation = _evaluated(detector, found, fabric, strict)
    if not fabric.is_global_zero:
        return
    unread = list(evaluation.unread.values())
    for one in unread:
        people.print(f"not read: {' '.join(one.error.split())}", markup=False)
    if not evaluation.seen:
        raise ValueError(f"evaluate: at least one image that can be read required, got none of {len(found)}")
    scores, kinds = evaluation.scores, evaluation.kinds
    results = evaluate_scores(scores, kinds, detector.threshold, evaluation.pixels[0])
    results["unread"] = named(unread)
    good = [found.paths[number] for number, seen in evaluation.seen.items() if seen.kind == "good"]
    calibration = detector.calibration
    results["promised"] = None if calibration.rate is None else calibration.promised
    results["notes"] = compare_with_promise(results, calibration, good, looks_of_source(detector), detector.config.bits)
    if isinstance(detector, Ensemble):
        alone = [
            evaluate_scores(evaluation.scores_of(i), kinds, member.threshold, evaluation.pixels[1 + i])
            for i, member in enumerate(detector.members)
        ]
        results["members"] = {name: spread([one[name] for one in alone]) for name in FIGURES if name in results}
        results["detectors"] = [
            {name: value for name, value in one.items() if name != "image_auroc_by_kind"} for one in alone
        ]
    results |= write_evaluation(out, evaluation, results)
    for line in _table(results):
        people.print(line, markup=False)
    finish(results, say_unread(unread, len(found)))


def _evaluated(detector: Detector | Ensemble, found: ImageSet, fabric: "Fabric | Alone", strict: bool) -> Evaluation:
    """Score images, each in one of the processes, a few at a time."""
    evaluation = Evaluation(detector, found)
    mine = share_of(range(len(found)), fabric)
    numbers = iter(mine)
    batches = score_in_turn(detector, [found.paths[number] for number in mine], strict)
    for batch in show_progress(batches, len(mine), "scoring") if fabric.is_global_zero else batches:
        for one in batch:
            evaluation.add(next(numbers), one, strict=strict)
    evaluation.gather(fabric)
    return evaluation


def _labelled(data: Path | None, good: tuple[Path, ...], bad: tuple[Path, ...], masks: Path | None) -> ImageSet:
    """Give the labelled images of a folder or a list, or of folders named by hand."""
    if (data is None) == (not good and not bad):
        raise ValueError(f"evaluate: DATA, or --good and --bad, required, got {'neither' if data is None else 'both'}")
    if masks is not None and not bad:
        raise ValueError("--masks: --bad, whose images they belong to, required, got none")
    if data is None:
        return label_images(good, bad, masks)
    found = find_test_images(data)
    if None in found.kinds:
        raise ValueError(f"evaluate: labelled images in {data / 'test'}/<kind> required, got a folder of images; "
                         "use predict for these, or --good and --bad")  # fmt: skip
    return found


def _table(results: dict[str, Any]) -> list[str]:
    """Write the figures with what is known of their doubt, then those of each detector, then what is to be noted."""
    lines = []
    for name in FIGURES:
        if name in results:
            member = results.get("members", {}).get(name)
            alone = f"one detector {member['mean']:.3f} ± {member['standard_error']:.3f}" if member else ""
            is_promised = name == "false_positive_rate" and results["promised"] is not None
            promise = f"{percent(results['promised'])} promised" if is_promised else ""
            lines.append(_line(name.replace("_", " "), results, name, promise, alone))
    for number, one in enumerate(results.get("detectors", ())):
        lines.append(f"{'detector':>20}  {number + 1}")
        lines += [_line(name.replace("_", " "), one, name) for name in FIGURES if name in one["intervals"]]
    return lines + [f"note: {note}" for note in results["notes"]]


def _line(title: str, results: dict[str, Any], name: str, *more: str) -> str:
    """Write one figure: what it was counted of, and its interval, where there are such."""
    counts, interval = results["counts"], results["intervals"].get(name)
    notes: Sequence[str] = more
    if interval is not None:
        notes = (f"{interval[0]:.3f} to {interval[1]:.3f}", *notes)
    if name == "false_positive_rate":
        notes = (f"{counts['false_alarms']} of {counts['good']}", *notes)
    if name == "detection_rate":
        notes = (f"{counts['found']} of {counts['defective']}", *notes)
    told = "; ".join(note for note in notes if note)
    return f"{title:>20}  {results[name]:.3f}" + (f"  ({told})" if told else "")
