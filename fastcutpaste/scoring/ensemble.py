"""Ensembles: detectors of several seeds, scored together."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastcutpaste.files import written_whole
from fastcutpaste.scoring.detector import Detector

ENSEMBLE_FILE = "ensemble.json"
Scored = tuple[Tensor, list[Tensor] | None]  # scores (N,) and heat maps (H_i, W_i)


class Ensemble:
    """Score images with several detectors: the mean of their scores, each on a scale where 0 is what is typical of its
    normal images and 1 its threshold.

    Args:
        members: detectors of the same images, of equal size and patch.
        threshold: images with a higher mean are called defective.

    Raises:
        ValueError: no detectors, detectors of different images, one whose threshold is what is typical of its images.

    Source: Li et al. 2021, §4.1: five models of different seeds.
    """

    typical = 0.0

    def __init__(self, members: Sequence[Detector], threshold: float = 1.0) -> None:
        if not members:
            raise ValueError("Ensemble: at least 1 detector required, got none")
        shapes = {(member.config.size, member.config.patch) for member in members}
        if len(shapes) > 1:
            raise ValueError(f"Ensemble: detectors of one size and patch required, got {sorted(map(str, shapes))}")
        if not all(member.threshold > member.typical for member in members):
            raise ValueError("Ensemble: detectors with a threshold above what is typical required, got one without: it "
                             "takes at least two different images to set it")  # fmt: skip
        self.members, self.threshold, self.config = list(members), threshold, members[0].config

    def optimized(self) -> "Ensemble":
        """Give an ensemble of the same detectors, each as `Detector.optimized`."""
        return Ensemble([member.optimized() for member in self.members], self.threshold)

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
        """Write which files of a folder belong together, and the threshold."""
        with written_whole(folder / ENSEMBLE_FILE) as temporary:
            temporary.write_text(json.dumps({"detectors": list(names), "threshold": self.threshold}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "Ensemble":
        """Read an ensemble and its detectors.

        Raises:
            ValueError: no whole ensemble file, a detector that is missing or damaged.
        """
        path = folder / ENSEMBLE_FILE
        try:
            about = json.loads(path.read_text())
            names, threshold = [str(name) for name in about["detectors"]], float(about["threshold"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: a whole ensemble file required, got {type(error).__name__}: {error}") from error
        return cls([Detector.load(folder / name, device) for name in names], threshold)

    def _scaled(self, member: int, values: Tensor) -> Tensor:
        detector = self.members[member]
        return (values - detector.typical) / (detector.threshold - detector.typical)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Give mean and standard error of one figure over seeds.

    The standard error is the sample's deviation over the root of the count; NaN of a single value.
    """
    numbers = torch.tensor(values, dtype=torch.float64)
    error = float(numbers.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": float(numbers.mean()), "standard_error": error}
