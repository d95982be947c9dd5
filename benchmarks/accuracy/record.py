"""The record: what is kept of a measured row, and the files of its scores."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import RESULTS

KEPT = RESULTS / "accuracy.csv"
ENSEMBLE = -1  # instead of a seed


@dataclass(frozen=True)
class Outcome:
    """Hold one measurement; the fields up to `budget` are its key."""

    study: str
    row: str
    data: str
    category: str
    seed: int
    budget: str  # what was asked for: "2000 steps" or "8 min"
    steps: int
    init: str  # "random" or the name of the weights' file
    image_auroc: float
    pixel_auroc: float  # nan where there are no masks or no heat maps
    pro_auc: float
    train_s: float
    score_ms: float  # an image
    tested: int
    device: str
    threads: int
    torch: str
    commit: str
    date: str
    command: str

    @property
    def key(self) -> tuple[object, ...]:
        """What a row is of: one measured on another device does not stand for it."""
        return self.study, self.row, self.data, self.category, self.seed, self.budget, self.device


def scores_of(folder: Path, outcome: Outcome) -> Path:
    """Name the file of a row's scores."""
    parts = outcome.row, outcome.data, outcome.category, outcome.budget, outcome.device, f"seed {outcome.seed}"
    name = ", ".join(parts)
    return folder / outcome.study / f"{name}.safetensors".replace("/", " by ")
