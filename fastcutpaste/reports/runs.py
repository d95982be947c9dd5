"""Runs: the folder a detector lives in, and what is measured with it and written beside it."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import fastcutpaste
from fastcutpaste.console import show_progress
from fastcutpaste.files import written_whole
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import ImageSet
from fastcutpaste.images.readable import Unread
from fastcutpaste.reports.page import Shown, write_page
from fastcutpaste.reports.thumbnails import show
from fastcutpaste.scoring.calibration import Decision
from fastcutpaste.scoring.dense import resize_map, score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import ENSEMBLE_FILE, Ensemble, Scored
from fastcutpaste.scoring.intervals import CONFIDENCE, auroc_interval, rate_interval
from fastcutpaste.scoring.metrics import (
    Curve,
    image_auroc,
    pixel_auroc,
    pixel_roc_curve,
    pro_auc,
    pro_curve,
    roc_curve,
)
from fastcutpaste.training.launch import Alone, gathered, share_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DETECTOR_FILE = "detector.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
_MARK = ".fastcutpaste"  # tells our folders from a user's own
_UNFINISHED = "in progress\n"
_NAMED = 50  # files that could not be read, on the page


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
    if folder.is_dir() and any(folder.iterdir()):
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
    return (folder / DETECTOR_FILE).is_file() and _UNFINISHED not in (folder / _MARK).read_text()


def _mark(folder: Path, kind: str, note: str) -> None:
    with written_whole(folder / _MARK) as temporary:
        temporary.write_text(f"a {kind} of fastcutpaste {fastcutpaste.__version__}\n{note}")


def _kind(folder: Path) -> str | None:
    """Tell what a folder is of: "run", "demo"; None: it is not ours."""
    mark = folder / _MARK
    return mark.read_text().split()[1] if mark.is_file() else None


def load_run(run: Path, device: torch.device) -> Detector | Ensemble:
    """Load the detector of a run folder, those of several seeds, or a detector file.

    Raises:
        ValueError: nothing there, or not a whole detector.
    """
    if (run / ENSEMBLE_FILE).is_file():
        return Ensemble.load(run, device)
    if run.is_dir() and not (run / DETECTOR_FILE).is_file():
        raise ValueError(f"{run}: a run folder with {DETECTOR_FILE} required, got one without; was training cut short?")
    return Detector.load(run / DETECTOR_FILE if run.is_dir() else run, device)


def score_paths(
    detector: Detector | Ensemble, paths: Sequence[Path], fabric: "Fabric | Alone"
) -> tuple[list[Scored], list[tuple[int, int]]]:
    """Score image files, each in one of the processes.

    Returns:
        For each detector, or the one, scores (N,) and, from a detector of patches, heat maps (H_i, W_i) at the images'
        original sizes, which come last; all in the order of the paths.
    """
    mine, sizes = _score_files(detector, share_of(paths, fabric), progress=fabric.is_global_zero)
    scored: list[Scored] = []
    for scores, maps in mine:
        everyones = torch.tensor(gathered(scores.tolist(), fabric))
        scored.append((everyones, None if maps is None else gathered(maps, fabric)))
    return scored, gathered(sizes, fabric)


def _score_files(
    detector: Detector | Ensemble, paths: Sequence[Path], progress: bool
) -> tuple[list[Scored], list[tuple[int, int]]]:
    """Score image files with each detector, or the one; give the images' original sizes, too."""
    pixels, sizes = load_images(paths, detector.config.size, progress=progress)
    members = detector.members if isinstance(detector, Ensemble) else [detector]
    return [score_images(member, pixels, sizes, progress) for member in members], sizes


def score_images(detector: Detector, images: Tensor, sizes: Sequence[tuple[int, int]], progress: bool = True) -> Scored:
    """Give scores (N,) and, from a detector of patches, heat maps (H_i, W_i) at the images' original sizes."""
    shown = show_progress if progress else None
    if detector.config.patch is None:
        return detector.score(images, shown), None
    maps = detector.localize(images, shown)  # (N, H, W)
    originals = [resize_map(one[None], size)[0] for one, size in zip(maps, sizes, strict=True)]
    return score_maps(maps), originals


def evaluate_scores(
    scores: Tensor,
    kinds: Sequence[str | None],
    threshold: float,
    maps: Sequence[Tensor] | None,
    masks: Sequence[Tensor] | None,
) -> dict[str, Any]:
    """Measure scores (N,) and heat maps against what is known of the images; leave out what cannot be measured.

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
    if maps is not None and masks is not None and any(mask.any() for mask in masks):
        results["pixel_auroc"] = pixel_auroc(maps, masks)
        results["pro_auc"] = pro_auc(maps, masks)
    return results


def write_evaluation(
    folder: Path,
    detector: Detector | Ensemble,
    images: ImageSet,
    scores: Tensor,
    maps: Sequence[Tensor] | None,
    masks: Sequence[Tensor] | None,
    results: dict[str, Any],
) -> dict[str, Any]:
    """Write scores.csv, metrics.json, report.html and, where there are heat maps, a picture; give the paths."""
    written = {"scores": str(folder / "scores.csv")}
    decisions = detector.calibration.decide(scores)
    with written_whole(folder / "scores.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "kind", *Decision._fields])
        for path, kind, decision in zip(images.paths, images.kinds, decisions, strict=True):
            numbers = ["" if value is None else f"{value:.6g}" for value in decision[:-1]]
            writer.writerow([path, kind, *numbers, decision.defective])

    if maps is not None:
        sizes = [(one.shape[0], one.shape[1]) for one in maps]
        picture = folder / "heatmaps.png"

        def original(i: int) -> Tensor:
            return load_images([images.paths[i]], sizes[i]).pixels[0]

        draw_examples(detector, original, maps, images.kinds, scores, picture, masks)
        written["heat_maps"] = str(picture)
    with written_whole(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")
    nothing = [None] * len(images)
    rows = zip(images.paths, images.kinds, scores.tolist(), maps or nothing, masks or nothing, strict=True)
    shown = (
        show(*row, heat_range=heat_range(detector), details=decision.details)
        for row, decision in zip(rows, decisions, strict=True)
    )
    curves = {}
    if "image_auroc" in results:
        curves["image ROC"] = roc_curve(scores, images.labels), results["image_auroc"]
    if "pixel_auroc" in results and maps is not None and masks is not None:
        curves["pixel ROC"] = pixel_roc_curve(maps, masks), results["pixel_auroc"]
        curves["per-region overlap"] = pro_curve(maps, masks), results["pro_auc"]
    write_report(folder / "report.html", detector, "Evaluation", shown, results, curves)
    return written | {"report": str(folder / "report.html")}


def write_report(
    path: Path,
    detector: Detector | Ensemble,
    what: str,
    images: Iterable[Shown],
    results: Mapping[str, Any] | None = None,
    curves: Mapping[str, tuple[Curve, float]] | None = None,
    unread: Sequence[Unread] = (),
) -> None:
    """Write the page to decide with.

    Args:
        path: file to write, whole or not at all.
        detector: whose threshold the page begins with.
        what: the title, but for the name of the images that the detector has learned.
        images: taken one at a time.
        results: of `evaluate_scores`, where kinds are known. What depends on the threshold the page counts itself.
        curves: as of `write_page`.
        unread: files that are missing from it, which the page names.
    """
    results = results or {}
    names = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro_auc": "per-region overlap, to 0.3"}
    facts = {text: f"{results[name]:.3f}" for name, text in names.items() if name in results}
    if "image_auroc" in results:
        low, high = results["intervals"]["image_auroc"]
        facts["image AUROC"] += f" ({low:.3f} to {high:.3f})"
    facts |= {f"image AUROC, {kind}": f"{area:.3f}" for kind, area in results.get("image_auroc_by_kind", {}).items()}
    about = (detector.members[0] if isinstance(detector, Ensemble) else detector).provenance
    data = about.get("data", {})
    if "images" in data:
        facts["learned from"] = f"{data['images']} normal images"
    if "made" in about:
        facts["made"] = about["made"].replace("T", " ")
    if unread:
        named = "; ".join(one.error for one in unread[:_NAMED])
        more = f"; and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        facts["could not be read"] = f"{len(unread)} of the images: {named}{more}"
    facts["detector's threshold"] = f"{detector.threshold:.6g}, {detector.calibration.text}"
    title = f"{what} of {data['source']}" if "source" in data else what
    write_page(
        path, title, f"By fastcutpaste {fastcutpaste.__version__}.", facts, images, detector.threshold, curves,
        results.get("promised"), results.get("notes", ()),
    )  # fmt: skip


def draw_examples(
    detector: Detector | Ensemble,
    image_at: Callable[[int], Tensor],
    maps: Sequence[Tensor],
    kinds: Sequence[str | None],
    scores: Tensor,
    path: Path,
    masks: Sequence[Tensor] | None = None,
) -> None:
    """Draw a few heat maps of each kind, spread over the images given: not the best, not the worst."""
    low, high = heat_range(detector)
    chosen = _examples(kinds)
    from fastcutpaste.reports.pictures import write_heat_maps  # Matplotlib takes a second

    write_heat_maps(
        [image_at(i) for i in chosen],
        [maps[i] for i in chosen],
        path,
        low=low,
        high=high,
        masks=None if masks is None else [masks[i] for i in chosen],
        titles=_titles(detector, kinds, scores, chosen),
    )


def _titles(
    detector: Detector | Ensemble, kinds: Sequence[str | None], scores: Tensor, chosen: Sequence[int]
) -> list[str]:
    decisions = detector.calibration.decide([float(scores[i]) for i in chosen])
    return [
        f"{kinds[i]}  {decision.score:.1f}{' ▲' if decision.defective else ''}  {decision.text}"
        for i, decision in zip(chosen, decisions, strict=True)
    ]


def heat_range(detector: Detector | Ensemble) -> tuple[float, float]:
    """Give the scores a heat map is drawn between: from what is typical of normal images, the threshold half-way."""
    return detector.typical, 2 * detector.threshold - detector.typical


def _examples(kinds: Sequence[str | None], each: int = 3) -> list[int]:
    """Choose up to `each` images of every kind, evenly spread."""
    chosen: list[int] = []
    for kind in dict.fromkeys(kinds):
        of_kind = [i for i, other in enumerate(kinds) if other == kind]
        step = max(1, len(of_kind) / each)
        chosen += [of_kind[int(i * step)] for i in range(min(each, len(of_kind)))]
    return chosen
