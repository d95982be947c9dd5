"""The report of a detector's images: what stands above the page, whose rest is the images'."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import fastcutpaste
from fastcutpaste.images.readable import Unread
from fastcutpaste.reports.page import Shown, write_page
from fastcutpaste.scoring.metrics import Curve

if TYPE_CHECKING:  # a graph is scored without torch
    from fastcutpaste.scoring.detector import Detector
    from fastcutpaste.scoring.ensemble import Ensemble
    from fastcutpaste.scoring.graph import Graph

_NAMED = 50  # files that could not be read, on the page


def write_report(
    path: Path,
    detector: Union["Detector", "Ensemble", "Graph"],
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
    about = getattr(detector, "members", [detector])[0].provenance  # all of an ensemble learned from the same images
    data = about.get("data")
    data = data if isinstance(data, dict) else {}  # whoever made the detector may have kept anything under these names
    if "images" in data:
        facts["learned from"] = f"{data['images']} normal images"
    if "made" in about:
        facts["made"] = str(about["made"]).replace("T", " ")
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
