"""The promise: how many false alarms were to come, how many came, and what may be behind the difference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcutpaste.images.looks import Looks, differences
from fastcutpaste.scoring.calibration import Calibration
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.intervals import CONFIDENCE, kept_interval

SOURCE = "threshold_from"  # under which provenance keeps the looks of the images that a threshold comes from


def compare_with_promise(
    results: Mapping[str, Any],
    calibration: Calibration,
    good: Sequence[Path],
    source: Looks | None,
    bits: int | None = None,
) -> list[str]:
    """Say when a promised rate of false alarms lies outside the interval of what was observed, and why it may.

    Args:
        results: of `evaluate_scores`.
        calibration: the threshold, with what it promises.
        good: files of the good images that were scored; read if there is something to explain.
        source: looks of the images that the threshold comes from; None where not known.
        bits: of the detector, by which the good images are read, as the others were.

    Returns:
        Sentences; none where the promise lies inside, where there is none, or nothing was observed.
    """
    if "false_positive_rate" not in results or calibration.rate is None:
        return []
    promised = calibration.promised
    low, high = results["intervals"]["false_positive_rate"]
    if low <= promised <= high:
        return []
    counts = results["counts"]
    what = (
        f"{'more' if low > promised else 'fewer'} false alarms than the {percent(promised)} promised: "
        f"{counts['false_alarms']} of {counts['good']} good images, {percent(low)} to {percent(high)} of all like them "
        f"(at {100 * CONFIDENCE:g} % confidence)"
    )
    if source is None:
        return [what, "the detector's file does not tell how the images look that its threshold comes from"]
    told = []
    unlike = differences(Looks.of(good, bits), source)
    if unlike:
        told.append("a likely reason: the good images are unlike those the threshold comes from: " + "; ".join(unlike))
    kept_low, kept_high = kept_interval(calibration.count, promised)
    if kept_low <= high and low <= kept_high:
        also = "besides, it" if unlike else "a likely reason: the threshold"
        told.append(f"{also} comes from {calibration.count} images, by the luck of which it may be anything from "
                    f"{percent(kept_low)} to {percent(kept_high)}")  # fmt: skip
    return [what, *(told or ["the good images look like those the threshold comes from, in brightness, size, color and "
                             "name; the false alarms themselves may tell more"])]  # fmt: skip


def percent(rate: float) -> str:
    """Write a rate for people: "4.9 %"."""
    return f"{100 * rate:.1f} %"


def looks_of_source(detector: Detector | Ensemble) -> Looks | None:
    """Give the looks of the images that a detector's threshold comes from, if its file tells them."""
    about = detector.provenance
    if isinstance(detector, Ensemble):
        about = detector.members[0].provenance | about
    return Looks(**about[SOURCE]) if SOURCE in about else None
