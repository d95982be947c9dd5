"""One row on one data set: a network is trained for its budget, and measured once in each way of scoring."""

import shlex
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.accuracy.pictures import draw_pictures, show_maps
from benchmarks.accuracy.record import ENSEMBLE, Outcome, scores_of
from benchmarks.accuracy.sets import USUAL_SIZE, Data, Test
from benchmarks.accuracy.studies import Study
from benchmarks.rows import commit, name_of
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


@dataclass(frozen=True)
class Budget:
    """Say how long a row is trained: a number of steps, or as many as fit into some minutes on this machine."""

    steps: int | None
    minutes: float | None

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.minutes is None else f"{self.minutes:g} min"


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


def make_network(study: Study, seed: int, weights: Path | None, device: torch.device) -> Network:
    """Build the network of a row, with weights of the seed's own or those of the file."""
    torch.manual_seed(seed)
    classes = 2 if study.task is None else study.task(study.reference).classes
    return Network(replace(study.network, classes=classes), weights if study.pretrained else None).to(device)


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


def command_of(name: str, study: Study, seed: int, budget: Budget, data: Data) -> str:
    """Give the command that measures a row again; where the data lies is left to who runs it."""
    how = f"--steps {budget.steps}" if budget.minutes is None else f"--minutes {budget.minutes:g}"
    how += "" if data.size in (None, USUAL_SIZE) else f" --size {data.size}"
    how += " --planted" if any("planted" in category for category in data.tests) else ""
    how += " --split FILE" if data.name.endswith("published split") else ""
    where = {"synthetic": "--mnist DIR", "cifar10": "--cifar FILE"}.get(name, "--folders DIR")
    row = shlex.quote(study.name)
    return f"python -m benchmarks.accuracy --study {shlex.quote(name)} --rows {row} --seeds {seed} {how} {where}"


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
