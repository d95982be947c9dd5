"""Ensembles: detectors of several seeds, scored together."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcutpaste.files import read_json, written_whole
from fastcutpaste.scoring.calibration import (
    Calibration,
    calibration_from,
    check_wanted,
    recalibrated,
    with_former,
)
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.fitting import Images, Progress
from fastcutpaste.scoring.tensors import checksum

ENSEMBLE_FILE = "ensemble.json"
Scored = tuple[Tensor, list[Tensor] | None]  # scores (N,) and heat maps (H_i, W_i)


class Ensemble:
    """Score images with several detectors: the mean of their scores, each on a scale where 0 is what is typical of its
    normal images and 1 its threshold.

    Args:
        members: detectors of the same images, of equal size and patch.
        threshold: images with a higher mean are called defective; 1 where no calibration has it.
        calibration: the threshold with what it comes from and can promise; None: a threshold alone.
        scales: what is typical of each member's normal images, and its threshold; None: as the members have them now.
        provenance: former thresholds: what JSON can hold, kept in the file.

    Raises:
        ValueError: no detectors, detectors of different images, one whose threshold is what is typical of its images, a
            threshold that is not finite or not its calibration's.

    Source: Li et al. 2021, §4.1: five models of different seeds.
    """

    typical = 0.0

    def __init__(
        self,
        members: Sequence[Detector],
        threshold: float | None = None,
        calibration: Calibration | None = None,
        scales: Sequence[tuple[float, float]] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if not members:
            raise ValueError("Ensemble: at least 1 detector required, got none")
        shapes = {
            (member.config.size, member.config.resize, member.config.patch, member.config.bits) for member in members
        }
        if len(shapes) > 1:
            raise ValueError(
                f"Ensemble: detectors of one size, resize, patch, bits required, got {sorted(map(str, shapes))}"
            )
        self.scales = [(m.typical, m.threshold) for m in members] if scales is None else list(scales)
        if len(self.scales) != len(members) or not all(top > typical for typical, top in self.scales):
            raise ValueError("Ensemble: detectors with a threshold above what is typical required, got one without: it "
                             "takes at least two different images to set it")  # fmt: skip
        if calibration is not None and threshold not in (None, calibration.threshold):
            raise ValueError(
                f"Ensemble: its calibration's threshold, {calibration.threshold}, required, got {threshold}"
            )
        self.members, self.config, self.provenance = list(members), members[0].config, provenance or {}
        self.calibration = calibration or Calibration(threshold=1.0 if threshold is None else threshold)
        if not all(abs(value) < 1e30 for value in (self.threshold, *sum(self.scales, ()))):  # float32 holds its scores
            raise ValueError(f"Ensemble: finite thresholds required, got {self.threshold} and scales {self.scales}")

    @property
    def threshold(self) -> float:
        """Images with a higher mean are called defective. Setting it is `calibrate(threshold=…)`."""
        return self.calibration.threshold

    @threshold.setter
    def threshold(self, threshold: float) -> None:
        self.calibrate(threshold=threshold)

    def optimized(self) -> "Ensemble":
        """Give an ensemble of the same detectors, each as `Detector.optimized`."""
        members = [member.optimized() for member in self.members]
        return Ensemble(members, None, self.calibration, self.scales, self.provenance)

    def calibrate(
        self,
        images: Images | None = None,
        rate: float | None = None,
        threshold: float | None = None,
        progress: Progress | None = None,
    ) -> "Ensemble":
        """Set another threshold, as `Detector.calibrate`; the members and their scales stay as they are."""
        check_wanted(rate, threshold, images)
        scores = None
        if images is not None:
            scores, _ = self.together([(member.score(images, progress), None) for member in self.members])
        rate = self.config.false_positive_rate if rate is None else rate
        made = recalibrated(self.calibration, scores, rate, threshold)
        Ensemble(self.members, None, made, self.scales)  # a threshold with which it could not be loaded is refused now
        self.calibration, self.provenance = made, with_former(self.provenance, self.calibration)
        return self

    def together(self, scored: Sequence[Scored]) -> Scored:
        """Bring what each member scored, in their order, into one."""
        scores = torch.stack([self._scaled(i, scores) for i, (scores, _) in enumerate(scored)]).mean(0)
        parts = [maps for _, maps in scored if maps is not None]
        if not parts:
            return scores, None
        maps = [
            torch.stack([self._scaled(i, one) for i, one in enumerate(of_one)]).mean(0)
            for of_one in zip(*parts, strict=True)
        ]
        return scores, maps

    def save(self, folder: Path, names: Sequence[str]) -> None:
        """Write which files of a folder belong together, their scales and the threshold, whole or not at all."""
        about = {
            "detectors": list(names),
            "scales": self.scales,
            "threshold": self.threshold,
            "calibration": self.calibration.told(),
            "provenance": self.provenance,
        }
        told = about | {"checksum": checksum({}, json.dumps(about))}
        with written_whole(folder / ENSEMBLE_FILE) as temporary:
            temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "Ensemble":
        """Read an ensemble and its detectors.

        Raises:
            ValueError: no whole ensemble file, a detector that is missing or damaged.
        """
        path = folder / ENSEMBLE_FILE
        try:
            about = read_json(path.read_text(encoding="utf-8"))
            if "checksum" in about and about.pop("checksum") != checksum({}, json.dumps(about)):  # early ones have none
                raise ValueError("a checksum that is not its own")
            names, threshold = [str(name) for name in about["detectors"]], float(about["threshold"])
            calibration = calibration_from(threshold, about.get("calibration"))
            scales = [(float(typical), float(top)) for typical, top in about["scales"]] if "scales" in about else None
            provenance = dict(about.get("provenance", {}))
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise ValueError(f"{path}: a whole ensemble file required, got {type(error).__name__}: {error}") from error
        return cls([Detector.load(folder / name, device) for name in names], None, calibration, scales, provenance)

    def _scaled(self, member: int, values: Tensor) -> Tensor:
        typical, threshold = self.scales[member]
        return (values - typical) / (threshold - typical)


def names_in(folder: Path) -> list[str]:
    """Give the names of an ensemble's detectors, as `Ensemble.save` took them, from a file that could be loaded."""
    return [str(name) for name in json.loads((folder / ENSEMBLE_FILE).read_text(encoding="utf-8"))["detectors"]]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Give mean and standard error of one figure over seeds.

    The standard error is the sample's deviation over the root of the count; NaN of a single value.
    """
    numbers = torch.tensor(values, dtype=torch.float64)
    error = float(numbers.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": float(numbers.mean()), "standard_error": error}
