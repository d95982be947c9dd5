"""Accuracy: the paper's tables measured anew, one row and seed after another, each kept as soon as it is finished.

    python -m benchmarks.accuracy --study localization --folders DATA/mvtec_ad_256/screw --minutes 8
    python -m benchmarks.accuracy --study localization --folders DATA/mvtec_ad_256/screw --minutes 8 --planted
    python -m benchmarks.accuracy --study detection --folders MVTEC/*/ --steps 65536 --seeds 0-4
    python -m benchmarks.accuracy --study synthetic --mnist DATA/mnist/MNIST/raw --steps 1000 --seeds 0-2
    python -m benchmarks.accuracy --study cifar10 --cifar DATA/cifar10.tar.gz --steps 1000
    python -m benchmarks.accuracy --page                 docs/accuracy.md from what is kept, and nothing measured

Seeds are the outermost loop, so that an interrupted study has all rows of the first. What is kept is passed over; at
most the row in progress is lost. Nothing is chosen on test images: every network is measured once, after its last step.
"""

import argparse
import csv
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.accuracy_page import write_page
from benchmarks.accuracy_pictures import draw_pictures, show_maps
from benchmarks.rows import RESULTS, commit, name_of
from benchmarks.sets import CIFAR_CLASSES, USUAL_SIZE, Data, Test, make_brick, read_cifar, read_folder, read_mnist
from benchmarks.studies import STUDIES, Study
from fastcutpaste.cli.options import seeds_of
from fastcutpaste.files import written_whole
from fastcutpaste.images.batches import image_batches
from fastcutpaste.networks.backbone import Network
from fastcutpaste.networks.gradcam import grad_cam
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.metrics import image_auroc, pixel_auroc, pro_auc
from fastcutpaste.training.loop import train
from fastcutpaste.training.step import TrainConfig
from fastcutpaste.transforms.patch import BaseAugmentation

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


@dataclass(frozen=True)
class Budget:
    """Say how long a row is trained: a number of steps, or as many as fit into some minutes on this machine."""

    steps: int | None
    minutes: float | None

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.minutes is None else f"{self.minutes:g} min"


def learn(network: Network, study: Study, normal: Tensor, steps: int, seed: int) -> float:
    """Train; give the seconds."""
    if study.task is None or steps == 0:
        return 0.0
    head = 0 if not study.pretrained else max(1, round(study.head_share * steps))
    config = TrainConfig(
        steps=steps, batch=study.batch, crop=study.scorings[0][1].patch, optimizer=study.optimizer,  # type: ignore[arg-type]
        learning_rate=study.learning_rate, head_steps=head, seed=seed,
    )  # fmt: skip
    shift = 0.05 if config.crop is None else 0.0
    begun = time.perf_counter()
    batches = image_batches(normal, study.batch, seed=seed)
    train(network, batches, study.task(study.reference), config, base=BaseAugmentation(shift, study.base_jitter))
    return time.perf_counter() - begun


def steps_of(study: Study, normal: Tensor, budget: Budget, make: Callable[[], Network]) -> int:
    """Give the steps of a row: those asked for, or those that fit into the time, told from a twelfth of it."""
    if study.task is None:
        return 0
    if budget.steps is not None:
        return round(budget.steps * study.share)
    assert budget.minutes is not None
    count, taken = 2, 0.0
    while taken < budget.minutes * 60 / 12:
        count *= 2
        taken = learn(make(), study, normal, count, 0)
    return max(1, round(budget.minutes * 60 * study.share / (taken / count)))


def make_network(study: Study, seed: int, weights: Path | None, device: torch.device) -> Network:
    """Build the network of a row, with weights of the seed's own or those of the file."""
    torch.manual_seed(seed)
    classes = 2 if study.task is None else study.task(study.reference).classes
    return Network(replace(study.network, classes=classes), weights if study.pretrained else None).to(device)


def run(name: str, study: Study, data: Data, seed: int, budget: Budget, weights: Path | None, device: torch.device,
        scores_in: Path | None, pictures: Path | None) -> list[Outcome]:  # fmt: skip
    """Train one network and measure it on each test set of the data."""
    make = partial(make_network, study, seed, weights, device)
    normal = data.normal.to(device)
    steps, network = steps_of(study, normal, budget, make), make()
    taken = learn(network, study, normal, steps, seed)
    print(f"{name}: {study.name}, {data.name}, seed {seed}: {steps} steps in {taken:.0f} s", flush=True)
    outcomes = []
    for row, config in scorings_of(study, data):
        detector = Detector(network, config).fit(normal, data.calibration)
        for category, test in data.tests.items():
            figures, milliseconds, scores, maps = measure(detector, test)
            print(f"  {row}, {category}: image AUROC {figures[0]:.3f}, pixel AUROC {figures[1]:.3f}", flush=True)
            outcomes.append(Outcome(
                name, row, data.name, category, seed, str(budget) if study.task else "none", steps,
                weights.name if weights and study.pretrained else "random", *figures, round(taken, 1), milliseconds,
                len(scores), name_of(device),
                torch.get_num_threads(), torch.__version__, commit(), date.today().isoformat(),
                command_of(name, study, seed, budget, data),
            ))  # fmt: skip
            if scores_in is not None:
                path = scores_of(scores_in, outcomes[-1])
                path.parent.mkdir(parents=True, exist_ok=True)
                scaled = (scores - detector.typical) / (detector.threshold - detector.typical)
                with written_whole(path) as temporary:
                    save_file({"scores": scaled, "labels": test.labels}, temporary)
            if pictures is not None and study.task is not None and test.kinds:
                path = pictures / f"{name}, {row}, {data.name}, {category}, seed {seed}.svg".replace("/", " by ")
                path.parent.mkdir(parents=True, exist_ok=True)
                draw_pictures(detector, study.task(study.reference), data.normal, test, scores, path)
                if maps is not None:
                    show_maps(test, maps, path.with_suffix(".jpg"))
    return outcomes


def choose(study: Study, rows: list[str] | None) -> Study | None:
    """Give a study with the rows asked for: all of them by its name, some by theirs; None if there are none."""
    if rows is None or study.name in rows:
        return study
    scorings = tuple(scoring for row, scoring in zip(study.rows, study.scorings, strict=True) if row in rows)
    return replace(study, scorings=scorings) if scorings else None


def scorings_of(study: Study, data: Data) -> list[tuple[str, DetectorConfig]]:
    """Give the rows of a study, each with its way of scoring images of this size; areas that are larger have none."""
    height, width = data.normal.shape[-2:]
    rows = zip(study.rows, study.scorings, strict=True)
    fitting = [(row, scoring) for row, (_, scoring) in rows if max((0, *scoring.areas)) <= min(height, width)]
    return [(row, replace(scoring, size=(height, width))) for row, scoring in fitting]


def measure(detector: Detector, test: Test) -> tuple[list[float], float, Tensor, Tensor | None]:
    """Give image AUROC, pixel AUROC and PRO (of whole images: Grad-CAM's), milliseconds an image, scores and maps."""
    begun = time.perf_counter()
    maps = None if detector.config.patch is None else detector.localize(test.images)
    scores = detector.score(test.images) if maps is None else score_maps(maps)
    milliseconds = (time.perf_counter() - begun) / len(scores) * 1e3
    figures = [image_auroc(scores, test.labels), float("nan"), float("nan")]
    if maps is None and test.masks:
        network, parts = detector.network, torch.split(test.images, 8)
        maps = torch.cat([grad_cam(network, part.to(detector.device)).cpu() for part in parts])
    if maps is not None and test.masks:
        figures[1:] = pixel_auroc(list(maps), test.masks), pro_auc(list(maps), test.masks)
    return [round(figure, 4) for figure in figures], round(milliseconds, 2), scores, maps


def scores_of(folder: Path, outcome: Outcome) -> Path:
    """Name the file of a row's scores."""
    parts = outcome.row, outcome.data, outcome.category, outcome.budget, outcome.device, f"seed {outcome.seed}"
    name = ", ".join(parts)
    return folder / outcome.study / f"{name}.safetensors".replace("/", " by ")


def ensembles(folder: Path, outcomes: list[Outcome]) -> list[Outcome]:
    """Score each row with all of its seeds together, where there are several whose scores are kept."""
    groups: dict[tuple[object, ...], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if one.steps and one.seed != ENSEMBLE and scores_of(folder, one).exists():
            groups[one.study, one.row, one.data, one.category, one.budget, one.device].append(one)
    together = []
    for group in groups.values():
        if len(group) > 1:
            kept = [load_file(scores_of(folder, one)) for one in group]
            area = image_auroc(torch.stack([each["scores"] for each in kept]).mean(0), kept[0]["labels"])
            together.append(replace(
                group[0], row=f"{group[0].row}, ensemble", seed=ENSEMBLE, image_auroc=round(area, 4),
                pixel_auroc=float("nan"), pro_auc=float("nan"), train_s=round(sum(one.train_s for one in group), 1),
                score_ms=round(sum(one.score_ms for one in group), 2),
                command="of seeds " + " ".join(str(one.seed) for one in group),
            ))  # fmt: skip
    return together


def command_of(name: str, study: Study, seed: int, budget: Budget, data: Data) -> str:
    """Give the command that measures a row again; where the data lies is left to who runs it."""
    how = f"--steps {budget.steps}" if budget.minutes is None else f"--minutes {budget.minutes:g}"
    how += "" if data.size in (None, USUAL_SIZE) else f" --size {data.size}"
    how += " --planted" if any("planted" in category for category in data.tests) else ""
    where = {"synthetic": "--mnist DIR", "cifar10": "--cifar FILE"}.get(name, "--folders DIR")
    row = shlex.quote(study.name)
    return f"python -m benchmarks.accuracy --study {shlex.quote(name)} --rows {row} --seeds {seed} {how} {where}"


def read(path: Path) -> list[Outcome]:
    """Read the rows kept; none if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [Outcome(**{f.name: f.type(row[f.name]) for f in fields(Outcome)}) for row in csv.DictReader(file)]


def keep(outcomes: list[Outcome], path: Path) -> None:
    """Add rows to the file, in place of ones of the same key."""
    rows = {one.key: one for one in [*read(path), *outcomes]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for _, one in sorted(rows.items(), key=lambda item: str(item[0])))


def sets_of(study: str, arguments: argparse.Namespace) -> Iterator[Data]:
    """Read what a study is measured on, one after another."""
    if study == "synthetic":
        yield read_mnist(arguments.mnist)
    elif study == "cifar10":
        for name in arguments.classes:
            yield read_cifar(arguments.cifar, name)
    elif arguments.folders:
        for folder in arguments.folders:
            yield read_folder(folder, arguments.size, arguments.planted)
    else:
        yield make_brick(arguments.planted)


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line, or the words given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", nargs="+", choices=list(STUDIES), default=["localization"])
    parser.add_argument("--rows", nargs="+", help="networks or single rows, by name; all if left out")
    parser.add_argument("--folders", nargs="+", type=Path, help="categories in MVTec's layout; brick if left out")
    parser.add_argument("--size", type=int, default=USUAL_SIZE, help="of their images, pixels")
    parser.add_argument("--planted", action="store_true",
                        help="measure on defects planted in held-out normal images: to choose settings by")  # fmt: skip
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as .tar.gz of train/<class>/*.jpg and test/<class>/*.jpg")
    parser.add_argument("--classes", nargs="+", choices=CIFAR_CLASSES, default=CIFAR_CLASSES, help="of CIFAR-10")
    parser.add_argument("--weights", type=Path, help="of tf_efficientnet_lite0, for the pretrained rows")
    parser.add_argument("--seeds", default="0", help="such as 0-4 or 0,3")
    parser.add_argument("--steps", type=int, help="of a row")
    parser.add_argument("--minutes", type=float, help="of training a row, instead of steps")
    parser.add_argument("--budget", type=float, help="minutes after which no further row is begun")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scores", type=Path, help="folder for the scores of each row, for ensembles")
    parser.add_argument("--pictures", type=Path, help="folder for ROC curves, kinds of defect and t-SNEs")
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy.csv")
    parser.add_argument("--page", action="store_true", help="write docs/accuracy.md from what is kept, and end")
    arguments = parser.parse_args(words)
    if not arguments.page and (arguments.steps is None) == (arguments.minutes is None):
        parser.error("one of --steps and --minutes required")
    for study, option in (("synthetic", "mnist"), ("cifar10", "cifar")):
        if not arguments.page and study in arguments.study and getattr(arguments, option) is None:
            parser.error(f"--study {study}: --{option} required")
    return arguments


def main(words: list[str] | None = None) -> None:
    """Measure what the arguments ask for and is not kept yet."""
    arguments = parse(words)
    if arguments.page:
        write_page(read(arguments.out))
        return
    budget, begun = Budget(arguments.steps, arguments.minutes), time.perf_counter()
    device = torch.device(arguments.device)
    for seed in seeds_of(arguments.seeds):
        for name in arguments.study:
            rows = [chosen for study in STUDIES[name] if (chosen := choose(study, arguments.rows)) is not None]
            if not rows:
                sys.exit(f"--rows: some of {'; '.join(row for study in STUDIES[name] for row in study.rows)} required")
            for data in sets_of(name, arguments):
                for study in rows:
                    if study.pretrained and arguments.weights is None:
                        print(f"{name}: {study.name}: skipped, no --weights")
                        continue
                    asked = str(budget) if study.task else "none"
                    kept = {one.key for one in read(arguments.out)}
                    wanted = {
                        (name, row, data.name, test, seed, asked, name_of(device))
                        for row, _ in scorings_of(study, data)
                        for test in data.tests
                    }
                    if wanted <= kept:
                        continue
                    if arguments.budget is not None and time.perf_counter() - begun > arguments.budget * 60:
                        sys.exit(f"{arguments.budget:g} minutes are over; the same command goes on")
                    keep(
                        run(name, study, data, seed, budget, arguments.weights, device, arguments.scores,
                            arguments.pictures),
                        arguments.out,
                    )  # fmt: skip
    if arguments.scores is not None:
        keep(ensembles(arguments.scores, read(arguments.out)), arguments.out)


if __name__ == "__main__":
    main()
