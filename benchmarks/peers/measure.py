"""One detector on one category: fitted, scored once, and what that took."""

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from math import nan
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.accuracy.sets import USUAL_SIZE, read_folder
from benchmarks.peers.others import PEERS, Scorer, classic
from benchmarks.rows import commit, name_of, peak_mb
from benchmarks.speedrun.__main__ import TRACKS, make_detector
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_training_images
from fastcutpaste.scoring.dense import score_maps
from fastcutpaste.scoring.metrics import image_auroc, pixel_auroc

OURS = "fastcutpaste, PatchNet"


@dataclass(frozen=True)
class Row:
    """Hold one detector on one category; the fields up to `device` are its key.

    Attributes:
        train_s: seconds from reading images until it can score.
        score_ms: an image, in batches, once.
        peak_mb: the most memory that its process held.
        package: whose code it is, with the version.
    """

    peer: str
    category: str
    seed: int
    threads: int
    device: str
    image_auroc: float
    pixel_auroc: float
    train_s: float
    score_ms: float
    peak_mb: float
    package: str
    torch: str
    commit: str
    date: str

    @property
    def key(self) -> tuple[object, ...]:
        """What a row is of: a later one of the same stands for it."""
        return tuple(asdict(self).values())[:5]


def ours(images: Tensor, folder: Path, seed: int, seconds: float, weights: Path | None) -> Scorer:
    """Train the speedrun's detector, for its steps."""
    track = TRACKS[folder.name]
    detector = make_detector(track.chosen(), folder, seed, track.steps[0], torch.device("cpu"))

    def score(given: Tensor) -> tuple[Tensor, Tensor]:
        maps = detector.localize(given)
        return score_maps(maps), maps

    return score


def measure(peer: str, folder: Path, seed: int, seconds: float, weights: Path | None) -> Row:
    """Fit one detector and score the test images: what a process is started for."""
    make: Callable[..., Scorer] = PEERS.get(peer, ours)
    package = {ours: "fastcutpaste", classic: "scikit-learn"}.get(make, "anomalib")
    package = f"{package} {importlib.metadata.version(package)}"
    begun = time.perf_counter()
    images = load_images(find_training_images(folder).paths, (USUAL_SIZE, USUAL_SIZE)).pixels
    score = make(images, folder, seed, seconds, weights)
    taken = time.perf_counter() - begun
    test = next(iter(read_folder(folder, USUAL_SIZE).tests.values()))
    begun = time.perf_counter()
    scores, maps = score(test.images)
    milliseconds = (time.perf_counter() - begun) / len(scores) * 1e3
    pixels = pixel_auroc(list(maps), test.masks) if maps is not None and test.masks else nan
    return Row(
        peer, folder.name, seed, torch.get_num_threads(), name_of(torch.device("cpu")),
        round(image_auroc(scores, test.labels), 4), round(pixels, 4), round(taken, 1), round(milliseconds, 2),
        peak_mb(torch.device("cpu")), package, torch.__version__, commit(),
        date.today().isoformat(),
    )  # fmt: skip
