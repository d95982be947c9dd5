"""What a threshold promises against what it keeps on normal images that nobody has looked at, ten times over.

    python -m benchmarks.accuracy.promise --data DIR    DIR/mvtec_ad_256/{screw,bottle}, DIR/magnetic_tile, and brick
    python -m benchmarks.accuracy.promise --page        docs/promise.md from the rows

Of each set a PatchNet learns a third of the normal images. Of the others, ten times over, some are drawn that set the
threshold, for a rate of 5 %, and all that are left are scored: fresh images, as like the held-out ones as can be. The
good images of the set's own test folder are scored beside. Rows lie in results/promise.csv; on a core a set takes some
minutes.
"""

import argparse
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom
from torch import Tensor

from benchmarks.kept import keep, read
from benchmarks.plots import replace_between
from benchmarks.rows import RESULTS, commit
from fastcutpaste.console import people
from fastcutpaste.images.batches import image_batches
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_test_images, find_training_images
from fastcutpaste.images.textures import make_demo
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.calibration import calibrated
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.metrics import conformal_rank
from fastcutpaste.training.loop import train
from fastcutpaste.training.step import PRESETS, TrainConfig
from fastcutpaste.transforms.tasks import CutPaste3Way

FOLDERS = ("mvtec_ad_256/screw", "mvtec_ad_256/bottle", "magnetic_tile")
COUNTS, RATE, DRAWS = (10, 20, 40, 64), 0.05, 10
MOST = 320  # normal images of a set, from twice as many on every second, and so on
PAGE = Path(__file__).parents[2] / "docs" / "promise.md"


@dataclass(frozen=True)
class Kept:
    """Hold what ten thresholds of a set kept; rates are shares, 0 to 1."""

    name: str
    held_out: int
    promised: float
    fresh: int
    mean: float
    lowest: float
    highest: float
    outside: int  # of the ten, how many lie outside what chance allows in 99 of 100
    test_good: int
    test_rate: float
    steps: int
    commit: str
    date: str

    @property
    def key(self) -> tuple[object, ...]:
        """What a row is of."""
        return self.name, self.held_out


def read_set(root: Path | None) -> tuple[str, Tensor, Tensor]:
    """Give a set's name, its normal images uint8 (N, 3, H, W), and the good ones of its test; of None, brick."""
    if root is None:
        demo = make_demo("brick", train_count=100, calibration_count=100, good_count=100, defect_count=1)
        good = torch.tensor([kind == "good" for kind in demo.kinds])
        return "brick, the demo's", torch.cat([demo.train, demo.calibration]), demo.test[good]
    paths = find_training_images(root).paths
    found = find_test_images(root)
    good_paths = [path for path, kind in zip(found.paths, found.kinds, strict=True) if kind == "good"]
    normal = load_images(paths[:: max(1, len(paths) // MOST)], (256, 256)).pixels
    return root.name, normal, load_images(good_paths[:: max(1, len(good_paths) // 100)], (256, 256)).pixels


def measure(root: Path | None, steps: int) -> list[Kept]:
    """Train once, draw ten times for each number of held-out images."""
    name, normal, test = read_set(root)
    learned, others = normal[::3], torch.cat([normal[1::3], normal[2::3]])
    side = 32 if root is None else 64
    torch.manual_seed(0)
    network = Network(NetworkConfig("patchnet", patch=side))
    quick = PRESETS["quick"]
    config = TrainConfig(steps, 8, crop=side, jitter=quick.jitter, optimizer=quick.optimizer,
                         learning_rate=quick.learning_rate)  # fmt: skip
    train(network, image_batches(learned, config.batch, seed=0), CutPaste3Way(config.jitter), config)
    detector = Detector(network, DetectorConfig((normal.shape[2], normal.shape[3]), patch=side, stride=8))
    detector.fit(learned, others[:2])
    scores, of_test = detector.score(others).double().numpy(), detector.score(test).double().numpy()
    rows = []
    for count in COUNTS:
        rates, of_good, outside, fresh = [], [], 0, len(scores) - count
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(len(scores))
            calibration = calibrated(scores[order[:count]], RATE)
            called = int((scores[order[count:]] > calibration.threshold).sum())
            rank = min(conformal_rank(count, RATE), count)
            low, high = betabinom.ppf([0.005, 0.995], fresh, count + 1 - rank, rank)
            outside += not low <= called <= high
            rates.append(called / fresh)
            of_good.append(float((of_test > calibration.threshold).mean()))
        spread = float(np.mean(rates)), min(rates), max(rates)
        made = len(test), float(np.mean(of_good)), steps, commit(), date.today().isoformat()
        rows.append(Kept(name, count, calibration.promised, fresh, *spread, outside, *made))
        people.print(rows[-1], markup=False)
    return rows


def write_page(rows: list[Kept]) -> None:
    """Put the table into the page."""
    lines = ["| set | held out | promised | fresh | observed, mean (least to most) | outside 99 % | test's good |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for row in rows:
        spread = f"{row.mean:.1%} ({row.lowest:.0%} to {row.highest:.0%})"
        lines.append(f"| {row.name} | {row.held_out} | {row.promised:.1%} | {row.fresh} | {spread} | {row.outside} of "
                     f"{DRAWS} | {row.test_rate:.1%} of {row.test_good} |")  # fmt: skip
    replace_between(PAGE, "promise", "\n".join(lines) + "\n")


def main(words: list[str] | None = None) -> None:
    """Measure the sets that are there, as the command line, or the words given, ask for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accuracy.promise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of mvtec_ad_256 and magnetic_tile")
    parser.add_argument("--steps", type=int, default=300, help="updates of the network")
    parser.add_argument("--out", type=Path, default=RESULTS / "promise.csv")
    parser.add_argument("--page", action="store_true", help="write docs/promise.md from the rows, measure nothing")
    arguments = parser.parse_args(words)
    found = [arguments.data / name for name in FOLDERS if arguments.data and (arguments.data / name).is_dir()]
    for root in () if arguments.page else (*found, None):
        keep(measure(root, arguments.steps), arguments.out)
    if arguments.out == RESULTS / "promise.csv":
        write_page(read(Kept, arguments.out))


if __name__ == "__main__":
    main()
