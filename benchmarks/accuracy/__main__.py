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
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.accuracy.measure import Budget, ensembles, run, scorings_of
from benchmarks.accuracy.page import write_page
from benchmarks.accuracy.record import KEPT, Outcome
from benchmarks.accuracy.sets import CIFAR_CLASSES, USUAL_SIZE, Data, make_brick, read_cifar, read_folder, read_mnist
from benchmarks.accuracy.studies import STUDIES, Study
from benchmarks.kept import keep, read
from benchmarks.rows import name_of
from fastcutpaste.cli.options import seeds_of


def choose(study: Study, rows: list[str] | None) -> Study | None:
    """Give a study with the rows asked for: all of them by its name, some by theirs; None if there are none."""
    if rows is None or study.name in rows:
        return study
    scorings = tuple(scoring for row, scoring in zip(study.rows, study.scorings, strict=True) if row in rows)
    return replace(study, scorings=scorings) if scorings else None


def sets_of(study: str, arguments: argparse.Namespace) -> Iterator[Data]:
    """Read what a study is measured on, one after another."""
    if study == "synthetic":
        yield read_mnist(arguments.mnist)
    elif study == "cifar10":
        for name in arguments.classes:
            yield read_cifar(arguments.cifar, name)
    elif arguments.folders:
        for folder in arguments.folders:
            yield read_folder(folder, arguments.size, arguments.planted, arguments.split)
    else:
        yield make_brick(arguments.planted)


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line, or the words given."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", nargs="+", choices=list(STUDIES), default=["localization"])
    parser.add_argument("--rows", nargs="+", help="networks or single rows, by name; all if left out")
    parser.add_argument("--folders", nargs="+", type=Path, help="categories in MVTec's layout; brick if left out")
    parser.add_argument("--size", type=int, default=USUAL_SIZE, help="of their images, pixels")
    parser.add_argument("--split", type=Path, help="file with the names of the images that a published split trains on")
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
    parser.add_argument("--out", type=Path, default=KEPT)
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
        write_page(read(Outcome, arguments.out))
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
                    kept = {one.key for one in read(Outcome, arguments.out)}
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
        keep(ensembles(arguments.scores, read(Outcome, arguments.out)), arguments.out)


if __name__ == "__main__":
    main()
