"""Runs: the folder a detector lives in, and what is measured with it and written beside it."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastcutpaste
from fastcutpaste.files import written_whole
from fastcutpaste.reports.evaluated import Evaluation
from fastcutpaste.reports.report import write_report
from fastcutpaste.reports.thumbnails import heat_range
from fastcutpaste.scoring.calibration import Decision
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import ENSEMBLE_FILE, Ensemble
from fastcutpaste.scoring.intervals import CONFIDENCE, auroc_interval, rate_interval
from fastcutpaste.scoring.metrics import image_auroc, roc_curve
from fastcutpaste.scoring.pixels import PixelScores

DETECTOR_FILE = "detector.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
_MARK = ".fastcutpaste"  # tells our folders from a user's own
_UNFINISHED = "in progress\n"


def claim(folder: Path, overwrite: bool = False, resume: bool = False, kind: str = "run") -> None:
    """Make a run folder, or take an earlier run's over.

    Args:
        folder: made if missing.
        overwrite: an earlier run in it may be replaced; its checkpoint, and what made its detectors an ensemble, are
            removed at once.
        resume: an earlier run in it is to be gone on with.
        kind: what the folder is of; a folder of another kind is never taken over.

    Raises:
        ValueError: a file, a folder that holds something else, or an earlier run and no leave to touch it.
    """
    if folder.is_file():
        raise ValueError(f"--out: a folder required, {folder} is a file")
    begun = f".{_MARK}."  # so begins the mark of a run that was killed while it wrote it
    if folder.is_dir() and any(not path.name.startswith(begun) for path in folder.iterdir()):
        if _kind(folder) != kind:
            raise ValueError(f"--out: a new or empty folder required, {folder} holds files that are not a {kind}'s")
        if not overwrite and not resume:
            if (folder / DETECTOR_FILE).exists() or (folder / ENSEMBLE_FILE).exists():
                raise ValueError(
                    f"--out: a folder without a detector required, {folder} has one; --overwrite replaces it"
                )
            if (folder / CHECKPOINT_FILE).exists():
                raise ValueError(f"--out: a folder without a run required, {folder} has one that was cut short; "
                                 "--resume goes on with it, --overwrite replaces it")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in (CHECKPOINT_FILE, ENSEMBLE_FILE):
            (folder / name).unlink(missing_ok=True)
    if not (resume and (folder / _MARK).is_file()):
        _mark(folder, kind, _UNFINISHED)


def complete(folder: Path) -> None:
    """Say in a run folder that its detector is that of the run, and drop what it takes the place of.

    That is the checkpoint, whose weights it has, and an ensemble that was there before.
    """
    _mark(folder, _kind(folder) or "run", "")
    for name in (CHECKPOINT_FILE, ENSEMBLE_FILE):
        (folder / name).unlink(missing_ok=True)


def is_complete(folder: Path) -> bool:
    """Tell whether a run folder has its own detector, not one that a run cut short was to replace."""
    return (folder / DETECTOR_FILE).is_file() and _UNFINISHED not in (folder / _MARK).read_text(encoding="utf-8")


def _mark(folder: Path, kind: str, note: str) -> None:
    with written_whole(folder / _MARK) as temporary:
        temporary.write_text(f"a {kind} of fastcutpaste {fastcutpaste.__version__}\n{note}", encoding="utf-8")


def _kind(folder: Path) -> str | None:
    """Tell what a folder is of: "run", "demo"; None: it is not ours."""
    mark = folder / _MARK
    words = mark.read_text(encoding="utf-8", errors="replace").split() if mark.is_file() else []
    return words[1] if len(words) > 1 else None


def load_run(run: Path, device: torch.device) -> Detector | Ensemble:
    """Load the detector of a run folder, those of several seeds, or a detector file.

    Raises:
        ValueError: nothing there, or not a whole detector.
    """
    if (run / ENSEMBLE_FILE).is_file():
        return Ensemble.load(run, device)
    if run.is_dir() and not (run / DETECTOR_FILE).is_file():
        raise ValueError(f"{run}: a run folder with {DETECTOR_FILE} required, got one without; was training cut short?")
    if run.suffix.lower() in (".onnx", ".pt2", ".xml"):
        raise ValueError(f"{run}: a run's folder or a detector's file required, got a graph; predict alone takes one, "
                         "detector.onnx")  # fmt: skip
    return Detector.load(run / DETECTOR_FILE if run.is_dir() else run, device)


def evaluate_scores(
    scores: Tensor,
    kinds: Sequence[str | None],
    threshold: float,
    pixels: PixelScores | None = None,
) -> dict[str, Any]:
    """Measure scores (N,) and those of pixels against what is known of the images; leave out what cannot be measured.

    Rates and the image AUROC come with their intervals.
    """
    labels = torch.tensor([kind != "good" for kind in kinds])
    called = scores > threshold
    intervals: dict[str, Any] = {"confidence": CONFIDENCE}
    counts: dict[str, int] = {}
    results: dict[str, Any] = {"images": len(labels), "threshold": threshold, "counts": counts, "intervals": intervals}
    if labels.any() and not labels.all():
        results["image_auroc"] = image_auroc(scores, labels)
        intervals["image_auroc"] = auroc_interval(scores, labels)
        results["image_auroc_by_kind"] = by_kind = {}
        for kind in dict.fromkeys(kinds):
            if kind != "good":
                compared = ~labels | torch.tensor([other == kind for other in kinds])
                by_kind[kind] = image_auroc(scores[compared], labels[compared])
    for name, group, whole, part in (
        ("false_positive_rate", ~labels, "good", "false_alarms"),
        ("detection_rate", labels, "defective", "found"),
    ):
        counts[whole], counts[part] = int(group.sum()), int(called[group].sum())
        if counts[whole]:
            results[name] = counts[part] / counts[whole]
            intervals[name] = rate_interval(counts[part], counts[whole])
    if pixels is not None and pixels.both:
        results["pixel_auroc"] = pixels.auroc()
        results["pro_auc"] = pixels.pro_auc()
    return results


def write_evaluation(folder: Path, evaluation: Evaluation, results: dict[str, Any]) -> dict[str, Any]:
    """Write scores.csv, metrics.json, report.html and, where there are heat maps, a picture; give the paths."""
    detector, scores = evaluation.detector, evaluation.scores
    written = {"scores": str(folder / "scores.csv")}
    with (
        written_whole(folder / "scores.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # names as on disk
    ):
        writer = csv.writer(file)
        writer.writerow(["image", "kind", *Decision._fields, "error"])
        decisions = dict(zip(evaluation.seen, detector.calibration.decide(scores), strict=True))
        for number, (path, kind) in enumerate(zip(evaluation.images.paths, evaluation.images.kinds, strict=True)):
            if number in decisions:
                *values, defective = decisions[number]
                numbers = ["" if value is None else f"{value:.6g}" for value in values]
                writer.writerow([path, kind, *numbers, defective, ""])
            else:
                nothing = [""] * len(Decision._fields)
                writer.writerow([path, kind, *nothing, evaluation.unread[number].error])
    if any(seen.example is not None for seen in evaluation.seen.values()):
        _draw_examples(evaluation, folder / "heatmaps.png")
        written["heat_maps"] = str(folder / "heatmaps.png")
    with written_whole(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    curves = {}
    if "image_auroc" in results:
        labels = torch.tensor([kind != "good" for kind in evaluation.kinds])
        curves["image ROC"] = roc_curve(scores, labels), results["image_auroc"]
    if "pixel_auroc" in results:
        curves["pixel ROC"] = evaluation.pixels[0].roc_curve(), results["pixel_auroc"]
        curves["per-region overlap"] = evaluation.pixels[0].pro_curve(), results["pro_auc"]
    shown, unread = (seen.shown for seen in evaluation.seen.values()), list(evaluation.unread.values())
    write_report(folder / "report.html", detector, "Evaluation", shown, results, curves, unread)
    return written | {"report": str(folder / "report.html")}


def _draw_examples(evaluation: Evaluation, path: Path) -> None:
    """Draw a few heat maps of each kind, spread over the images given."""
    from fastcutpaste.reports.pictures import write_heat_maps  # Matplotlib takes a second

    low, high = heat_range(evaluation.detector)
    drawn = [(seen, seen.example) for seen in evaluation.seen.values() if seen.example is not None]
    decisions = evaluation.detector.calibration.decide([seen.score for seen, _ in drawn])
    write_heat_maps(
        [example.image for _, example in drawn],
        [example.heat for _, example in drawn],
        path,
        low=low,
        high=high,
        masks=[example.mask for _, example in drawn],
        titles=[
            f"{seen.kind}  {decision.score:.1f}{' ▲' if decision.defective else ''}  {decision.text}"
            for (seen, _), decision in zip(drawn, decisions, strict=True)
        ],
    )
