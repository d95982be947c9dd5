"""Speedrun: from a folder of normal images to a detector as good as the paper's, from scratch; how many seconds?

    python -m benchmarks.speedrun --data DIR                    all tracks whose folder lies in DIR/mvtec_ad_256
    python -m benchmarks.speedrun --data DIR --tracks bottle
    python -m benchmarks.speedrun --page                        docs/speedrun.md from the records

The clock runs from reading the images until the detector has its threshold, three seeds, one after another; what a GPU
compiles before the first step is done beforehand, as it is once for any number of trainings. Each track has a budget of
steps that stands here, not one that is found while it runs: the test images are scored once, when the clock has
stopped, and the mean of the seeds reaches the goal or misses it. bottle's settings were chosen on defects planted in
held-out normal images (`benchmarks.accuracy --planted`); those of screw when rows of its test images were known.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import mean

import torch

from benchmarks.accuracy.measure import learn, make_network, measure
from benchmarks.accuracy.sets import USUAL_SIZE, read_folder
from benchmarks.accuracy.studies import STUDIES, Study
from benchmarks.kept import keep, read
from benchmarks.plots import ROOT, replace_between
from benchmarks.rows import RESULTS, commit, name_of
from fastcutpaste.cli.options import seeds_of
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_training_images
from fastcutpaste.images.hold_out import hold_out
from fastcutpaste.scoring.detector import Detector

KEPT, PAGE = RESULTS / "speedrun.csv", ROOT / "docs" / "speedrun.md"


@dataclass(frozen=True)
class Track:
    """Say what has to be reached, and how it is run: a row of the accuracy study, and its steps.

    Attributes:
        category: folder in MVTec's layout, at 256².
        figure: "image_auroc" or "pixel_auroc".
        goal: the paper's mean, fraction.
        study: name of the study that has the row.
        row: of the study.
        steps: on a CPU and on a GPU, fixed.
    """

    category: str
    figure: str
    goal: float
    study: str
    row: str
    steps: tuple[int, int]

    def chosen(self) -> Study:
        """Give the study's network with the one way of scoring."""
        for study in STUDIES[self.study]:
            if self.row in study.rows:
                return replace(study, scorings=(study.scorings[study.rows.index(self.row)],))
        raise ValueError(f"speedrun: a row of the study {self.study!r} required, got {self.row!r}")


TRACKS = {
    "bottle": Track(
        "bottle", "image_auroc", 0.983, "localization", "PatchNet 64/4 otherwise, per location", (2000, 4096)
    ),
    "screw": Track("screw", "image_auroc", 0.863, "localization", "PatchNet 64/4", (600, 600)),
    "screw, pixels": Track(
        "screw", "pixel_auroc", 0.967, "localization", "PatchNet 64/4, nearest, border", (1200, 2000)
    ),
}


@dataclass(frozen=True)
class Record:
    """Hold what a track took: means over its seeds, and the seconds and figures (fractions) of each."""

    track: str
    how: str
    steps: int
    mean_seconds: float
    mean_figure: float
    goal: float
    seconds: str
    figures: str
    device: str
    threads: int
    torch: str
    commit: str
    date: str

    @property
    def key(self) -> tuple[object, ...]:
        """Of which run it is: a slower one stays, as the log of what was tried."""
        return self.track, self.device, self.threads, self.commit, self.date, self.mean_seconds

    @property
    def missed(self) -> bool:
        """Whether the mean is below the goal."""
        return self.mean_figure < self.goal


def run(name: str, track: Track, folder: Path, seeds: Iterable[int], device: torch.device) -> Record:
    """Run a track once a seed; score the test images after each run, when the clock has stopped."""
    study, steps = track.chosen(), track.steps[device.type == "cuda"]
    if device.type == "cuda":
        make_detector(study, folder, 0, 8, device)
    test, seconds, figures = read_folder(folder).tests[track.category], [], []
    for seed in seeds:
        begun = time.perf_counter()
        detector = make_detector(study, folder, seed, steps, device)
        seconds.append(time.perf_counter() - begun)
        found = dict(zip(("image_auroc", "pixel_auroc"), measure(detector, test)[0][:2], strict=True))
        figures.append(found[track.figure])
        print(f"{name}, seed {seed}: {seconds[-1]:.1f} s, {track.figure} {100 * figures[-1]:.1f}", flush=True)
    return Record(
        name, track.row, steps, round(mean(seconds), 1), round(mean(figures), 4), track.goal,
        " ".join(f"{each:.1f}" for each in seconds), " ".join(f"{each:.4f}" for each in figures), name_of(device),
        torch.get_num_threads(), torch.__version__, commit(), date.today().isoformat(),
    )  # fmt: skip


def make_detector(study: Study, folder: Path, seed: int, steps: int, device: torch.device) -> Detector:
    """Read the normal images, train on them and fit: what the clock measures."""
    images = load_images(find_training_images(folder).paths, (USUAL_SIZE, USUAL_SIZE)).pixels
    learned, held_out = (images[chosen] for chosen in hold_out(len(images), how="last"))
    network = make_network(study, seed, None, device)
    normal = learned.to(device)
    learn(network, study, normal, steps, seed)
    return Detector(network, replace(study.scorings[0][1], size=(USUAL_SIZE, USUAL_SIZE))).fit(normal, held_out)


def table(records: list[Record]) -> str:
    """Write the records as a table, tracks in turn, the fastest that reached its goal first."""
    lines = ["| track | goal | reached | seconds | steps | how | device | commit | date |", "|---" * 9 + "|"]
    for one in sorted(records, key=lambda one: (list(TRACKS).index(one.track), one.missed, one.mean_seconds)):
        reached = f"{100 * one.mean_figure:.1f}" + " (missed)" * one.missed
        cells = [one.track, f"{100 * one.goal:.1f}", reached, f"{one.mean_seconds:.1f}", str(one.steps), one.how,
                 f"{one.device}, {one.threads} threads", one.commit, one.date]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> None:
    """Run the tracks that the command line, or the words given, ask for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.speedrun", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of mvtec_ad_256, or of the categories themselves")
    parser.add_argument("--tracks", nargs="+", choices=list(TRACKS), default=list(TRACKS))
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--page", action="store_true", help="write docs/speedrun.md from the records, and end")
    arguments = parser.parse_args(words)
    if not arguments.page:
        if arguments.data is None:
            parser.error("--data required")
        inner = arguments.data / "mvtec_ad_256"
        root = inner if inner.is_dir() else arguments.data
        tracks = {name: TRACKS[name] for name in arguments.tracks if (root / TRACKS[name].category).is_dir()}
        if not tracks:
            parser.error(f"--data: a folder with {' or '.join(sorted({one.category for one in TRACKS.values()}))} "
                         f"required, got {arguments.data}")  # fmt: skip
        for name, track in tracks.items():
            seeds, device = seeds_of(arguments.seeds), torch.device(arguments.device)
            keep([run(name, track, root / track.category, seeds, device)], arguments.out)
    if arguments.page or arguments.out == KEPT:
        replace_between(PAGE, "records", table(read(Record, KEPT)))


if __name__ == "__main__":
    main()
