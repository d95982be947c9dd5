"""Localization: ResNet-18 patch by patch and PatchNet in one pass, trained for equal times, on three sets.

    python -m benchmarks.localize --data DIR                 brick, DIR/magnetic_tile and DIR/mvtec_ad_256/screw
    python -m benchmarks.localize --sets brick --seeds 0     one of them
    python -m benchmarks.localize --table                    what is kept, as a table

Time is the process's own, on all its threads, so that a busy machine changes no row: both networks get as many steps
as fit into `--seconds`. The same networks untrained are measured beside. Each set, network and seed is kept as soon as
it is finished, and skipped the next time.
"""

import argparse
import csv
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from datetime import date
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rows import RESULTS, commit, cpu_name
from fastcutpaste.batches import image_batches
from fastcutpaste.data import find_test_images, find_training_images, load_images, load_masks
from fastcutpaste.demo import make_demo
from fastcutpaste.dense import score_maps
from fastcutpaste.detector import Detector, DetectorConfig, hold_out
from fastcutpaste.files import written_whole
from fastcutpaste.metrics import image_auroc, pixel_auroc, pro_auc
from fastcutpaste.model import Network, NetworkConfig
from fastcutpaste.report import write_heat_maps
from fastcutpaste.step import TrainConfig
from fastcutpaste.tasks import PretextTask
from fastcutpaste.train import train
from fastcutpaste.transforms import BaseAugmentation, CutPaste, CutPasteScar

FOLDERS = {"brick": None, "magnetic_tile": "magnetic_tile", "screw": "mvtec_ad_256/screw"}
NETWORKS = ("resnet18", "patchnet")
METRICS = ["pixel_auroc", "pro_auc", "image_auroc"]
METRICS += [f"random_{name}" for name in METRICS]
SIZE, PATCH, STRIDE, BATCH = 256, 64, 16, 24


@dataclass(frozen=True)
class Outcome:
    """Hold one row; the fields up to `seconds` are its key."""

    data: str
    network: str
    seed: int
    seconds: float  # of training, the process's own time
    steps: int
    pixel_auroc: float
    pro_auc: float
    image_auroc: float
    random_pixel_auroc: float
    random_pro_auc: float
    random_image_auroc: float
    score_ms: float  # an image, the process's own time
    test_images: int
    device: str
    threads: int
    torch: str
    commit: str
    date: str

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(asdict(self).values())[:4]


@dataclass(frozen=True)
class Images:
    """Hold what one set is trained and tested on."""

    train: Tensor
    calibration: Tensor
    test: Tensor
    masks: list[Tensor]
    labels: Tensor


def load(name: str, root: Path | None, most: int) -> Images:
    """Load a set, its test images thinned out evenly to at most about `most`."""
    if name == "brick":
        demo = make_demo("brick")
        labels = torch.tensor([kind != "good" for kind in demo.kinds])
        return Images(demo.train, demo.calibration, demo.test, list(demo.masks), labels)
    assert root is not None
    size = (SIZE, SIZE)
    normal, calibration = hold_out(load_images(find_training_images(root).paths, size).pixels)
    found = find_test_images(root)
    chosen = range(0, len(found), max(1, len(found) // most))
    test = load_images([found.paths[i] for i in chosen], size).pixels
    whole = load_masks(found)
    masks = [F.interpolate(whole[i][None, None].float(), size, mode="area")[0, 0] > 0.5 for i in chosen]
    return Images(normal, calibration[:20], test, masks, found.labels[list(chosen)])


def learn(network: Network, images: Tensor, steps: int, seed: int) -> float:
    """Train on crops as `fastcutpaste train` does; give the process's seconds."""
    begun = time.process_time()
    train(
        network,
        image_batches(images, BATCH, seed=seed),
        PretextTask(CutPaste(), CutPasteScar(reference=None)),
        TrainConfig(steps=steps, batch=BATCH, crop=PATCH, seed=seed),
        base=BaseAugmentation(shift=0.0),
    )
    return time.process_time() - begun


def make_network(name: str, seed: int) -> Network:
    """Build a network with weights of its own."""
    torch.manual_seed(seed)
    return Network(NetworkConfig(name, patch=PATCH))


def measure(network: Network, images: Images) -> tuple[list[float], float, Tensor]:
    """Give pixel AUROC, PRO and image AUROC, the process's milliseconds an image, and the maps."""
    size = (images.train.shape[-2], images.train.shape[-1])
    config = DetectorConfig(size, PATCH, STRIDE, fit_patches=10_000)
    detector = Detector(network, config).fit(images.train, images.calibration)
    begun = time.process_time()
    maps = detector.localize(images.test)
    taken = (time.process_time() - begun) / len(maps) * 1e3
    found = [pixel_auroc(list(maps), images.masks), pro_auc(list(maps), images.masks)]
    return [*found, image_auroc(score_maps(maps), images.labels)], taken, maps


def run(name: str, backbone: str, seed: int, seconds: float, images: Images, picture: Path | None) -> Outcome:
    """Train and measure one network."""
    random, _, _ = measure(make_network(backbone, seed), images)
    learn(make_network(backbone, seed), images.train, 1, seed)  # warm
    pace = learn(make_network(backbone, seed), images.train, 4, seed) / 4
    steps = max(1, round(seconds / pace))
    network = make_network(backbone, seed)
    taken = learn(network, images.train, steps, seed)
    print(f"{name} {backbone} seed {seed}: {steps} steps in {taken:.0f} s", flush=True)
    trained, score_ms, maps = measure(network, images)
    if picture is not None and name == "brick":
        shown = [20, 25, 30, 35, 38, 0] if len(maps) == 40 else list(range(6))
        low, high = float(maps[~images.labels].median()), float(maps.quantile(0.999))
        write_heat_maps(
            [images.test[i] for i in shown], [maps[i] for i in shown], picture / f"localize_{backbone}.jpg",
            low=low, high=high, masks=[images.masks[i] for i in shown],
        )  # fmt: skip
    rounded = [round(value, 4) for value in (*trained, *random)]
    return Outcome(
        name, backbone, seed, seconds, steps, *rounded, round(score_ms, 1), len(maps), cpu_name(),
        torch.get_num_threads(), torch.__version__, commit(), date.today().isoformat(),
    )  # fmt: skip


def read(path: Path) -> list[Outcome]:
    """Read the rows kept; none if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [Outcome(**{f.name: f.type(row[f.name]) for f in fields(Outcome)}) for row in csv.DictReader(file)]


def keep(row: Outcome, path: Path) -> None:
    """Add a row to the file, in place of one of the same key."""
    rows = {one.key: one for one in [*read(path), row]}
    with written_whole(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for _, one in sorted(rows.items(), key=lambda item: str(item[0])))


def print_table(rows: list[Outcome]) -> None:
    """Print means over the seeds, untrained networks in brackets."""
    groups: dict[tuple[str, str, float], list[Outcome]] = defaultdict(list)
    for row in rows:
        groups[row.data, row.network, row.seconds].append(row)
    print("| set | network | seeds | training s | pixel AUROC | PRO | image AUROC | score, ms an image |")
    print("|---|---|---|---|---|---|---|---|")
    for (data, network, seconds), group in sorted(groups.items()):
        means = {field: mean(getattr(row, field) for row in group) for field in METRICS}
        cells = [f"{means[field]:.3f} ({means['random_' + field]:.3f})" for field in METRICS[:3]]
        speed = f"{mean(row.score_ms for row in group):.0f}"
        print("|", " | ".join([data, network, str(len(group)), f"{seconds:g}", *cells, speed]), "|")


def main() -> None:
    """Run what the arguments ask for and is not kept yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of magnetic_tile and mvtec_ad_256")
    parser.add_argument("--sets", nargs="+", choices=list(FOLDERS), default=list(FOLDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=120.0, help="of training, for each network")
    parser.add_argument("--most", type=int, default=120, help="test images of a set")
    parser.add_argument("--picture", type=Path, help="folder for heat maps of brick")
    parser.add_argument("--out", type=Path, default=RESULTS / "localize.csv")
    parser.add_argument("--table", action="store_true", help="print what is kept and measure nothing")
    arguments = parser.parse_args()
    for name in [] if arguments.table else arguments.sets:
        folder = FOLDERS[name]
        root = None if folder is None or arguments.data is None else arguments.data / folder
        if folder is not None and (root is None or not root.is_dir()):
            print(f"{name}: skipped, no {root or '--data'}")
            continue
        images = load(name, root, arguments.most)
        for seed, backbone in product(arguments.seeds, NETWORKS):
            if (name, backbone, seed, arguments.seconds) in {row.key for row in read(arguments.out)}:
                continue
            keep(run(name, backbone, seed, arguments.seconds, images, arguments.picture), arguments.out)
    print_table(read(arguments.out))


if __name__ == "__main__":
    main()
