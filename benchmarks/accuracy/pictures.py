"""Pictures of one measured row: the ROC curve, what is found of each kind of defect, and the features as a t-SNE."""

from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from torch import Tensor

from benchmarks.accuracy.sets import Test
from fastcutpaste.files import written_whole
from fastcutpaste.op.paste import random_crops
from fastcutpaste.reports.pictures import write_heat_maps
from fastcutpaste.scoring.dense import score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.metrics import image_auroc, roc_curve
from fastcutpaste.transforms.tasks import PretextTask

SHOWN = 200  # images of each group in the t-SNE, at most


def draw_pictures(
    detector: Detector, task: PretextTask, normal: Tensor, test: Test, scores: Tensor, path: Path
) -> None:
    """Write the three side by side.

    Args:
        detector: fitted.
        task: the pretext task, whose classes are shown beside normal images and real defects.
        normal: (N, 3, H, W) images it has learned from.
        test: with the kind of each image.
        scores: (M,) of the test images.
        path: an SVG file to write.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    roc, bars, tsne = figure.subplots(1, 3)
    false, true = roc_curve(scores, test.labels)
    roc.plot(false, true)
    roc.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal",
            title=f"image AUROC {image_auroc(scores, test.labels):.3f}")  # fmt: skip
    good = scores[~test.labels]
    kinds = [kind for kind in dict.fromkeys(test.kinds) if kind != "good"]
    areas = []
    for kind in kinds:
        of_kind = scores[torch.tensor([one == kind for one in test.kinds])]
        labels = torch.arange(len(good) + len(of_kind)) >= len(good)
        areas.append(image_auroc(torch.cat([good, of_kind]), labels))
    bars.barh(kinds, areas)
    bars.axvline(0.5, color="grey", linewidth=0.5)
    bars.set(xlim=(0, 1), xlabel="image AUROC against good ones", title="kinds of defect")
    for name, points in _tsne(_features(detector, task, normal, test)).items():
        tsne.scatter(*points.T, s=8, label=name)
    tsne.set(xticks=[], yticks=[], title="features, t-SNE")
    tsne.legend(fontsize=7)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def show_maps(test: Test, maps: Tensor, path: Path, most: int = 6) -> None:
    """Draw the heat maps of one good image and some defective ones, of each kind in turn.

    Full color is the median score of defective images: of their highest, a few would leave the others pale.
    """
    by_kind = [[i for i, kind in enumerate(test.kinds) if kind == one] for one in dict.fromkeys(test.kinds)]
    turns = [
        i for turn in zip_longest(*sorted(by_kind, key=lambda group: test.kinds[group[0]] == "good")) for i in turn
    ]
    shown = [i for i in turns if i is not None and test.kinds[i] != "good"][: most - 1]
    shown += [i for i, kind in enumerate(test.kinds) if kind == "good"][:1]
    low, high = float(maps[~test.labels].median()), float(score_maps(maps[test.labels]).median())
    masks = [test.masks[i] for i in shown] if test.masks else None
    write_heat_maps([test.images[i] for i in shown], [maps[i] for i in shown], path, low=low, high=high, masks=masks)


def _features(detector: Detector, task: PretextTask, normal: Tensor, test: Test) -> dict[str, Tensor]:
    """Give features (n, D) by group; of crops where patches are scored, those of real defects around the defect."""
    generator, patch = torch.Generator().manual_seed(0), detector.config.patch
    chosen = normal[torch.randperm(len(normal), generator=generator)[:SHOWN]]
    defective = [i for i in range(len(test.labels)) if test.labels[i] and (not test.masks or test.masks[i].any())]
    defective = defective[:: -(-len(defective) // SHOWN)]
    shown = test.images[defective]
    if patch is not None:
        chosen = random_crops(chosen, patch, generator)
        shown = torch.stack([_around(test.images[i], test.masks[i], patch) for i in defective])
    classes = task(chosen, generator)[0].chunk(task.classes)
    names = ["normal", *(type(transform).__name__ for transform in task.transforms)]
    groups = dict(zip(names, classes, strict=True)) | {"real defects": shown}
    with torch.inference_mode():
        embed = detector.network.embed
        return {name: torch.cat([embed(part) for part in group.split(32)]) for name, group in groups.items()}


def _around(image: Tensor, mask: Tensor, side: int) -> Tensor:
    """Cut a square around a place of the defect's mask out of an image."""
    places = mask.nonzero()
    y, x = places[len(places) // 2].tolist()
    top = min(max(0, y - side // 2), image.shape[1] - side)
    left = min(max(0, x - side // 2), image.shape[2] - side)
    return image[:, top : top + side, left : left + side]


def _tsne(groups: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Bring features into the plane, all groups together."""
    features = torch.cat(list(groups.values()))
    features = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
    plane = TSNE(random_state=0, init="pca", perplexity=min(30, len(features) // 4)).fit_transform(features.numpy())
    parts = np.split(plane, np.cumsum([len(group) for group in groups.values()])[:-1])
    return dict(zip(groups, parts, strict=True))
