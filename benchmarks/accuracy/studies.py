"""The rows of the accuracy study: each says how a network is trained and how its features are scored."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from fastcutpaste.networks.backbone import NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.transforms.baselines import Confetti, Cutout, QuarterTurn, Scar
from fastcutpaste.transforms.foreground import OnForeground
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar, OneOf
from fastcutpaste.transforms.recipes import RECIPES, recipe
from fastcutpaste.transforms.tasks import PretextTask

Reference = int | None  # image side that a scar's pixels refer to; None: pixels as they are
Task = Callable[[Reference], PretextTask]
RESNET, PATCHNET, WHOLE = NetworkConfig(), NetworkConfig("patchnet"), (("", DetectorConfig(patch=None)),)


@dataclass(frozen=True)
class Study:
    """Say what one row measures.

    Attributes:
        name: of the row.
        task: the pretext task; None: the network stays as it begins.
        network: backbone and head.
        scorings: ways of scoring the one network, each by what it adds to the row's name: patches (the same in all),
            density, border; size and calibration come from the data.
        reference: image side that the pixels of scars refer to.
        base_jitter: of whole images or crops before the task.
        share: of the steps that are asked for.
        batch, optimizer, learning_rate: as in `TrainConfig`.
        head_share: of the steps, for the head alone.
        pretrained: begins with weights that are given.
    """

    name: str
    task: Task | None
    network: NetworkConfig = RESNET
    scorings: tuple[tuple[str, DetectorConfig], ...] = WHOLE
    reference: Reference = 256
    base_jitter: float = 0.1
    share: float = 1.0
    batch: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    head_share: float = 0.0
    pretrained: bool = False

    @property
    def rows(self) -> list[str]:
        """The names of what is measured, one for each way of scoring."""
        return [self.name + more for more, _ in self.scorings]


def three_way(reference: Reference) -> PretextTask:
    """Give the 3-way task."""
    return PretextTask(CutPaste(), CutPasteScar(reference=reference))


TASKS: dict[str, Task] = {
    "3-way": three_way,
    "cutpaste-scar": lambda reference: PretextTask(CutPasteScar(reference=reference)),
    "cutpaste": lambda _: PretextTask(CutPaste()),
    "scar": lambda reference: PretextTask(Scar(reference=reference)),
    "cutout": lambda _: PretextTask(Cutout()),
    "rotation": lambda _: PretextTask(QuarterTurn(1), QuarterTurn(2), QuarterTurn(3)),
    "cutout, mean color": lambda _: PretextTask(Cutout("mean")),
    "cutout, random color": lambda _: PretextTask(Cutout("random")),
    "confetti": lambda _: PretextTask(Confetti()),
    "union": lambda reference: PretextTask(OneOf(CutPaste(), CutPasteScar(reference=reference))),
}


def _jittered(jitter: float) -> Task:
    return lambda reference: PretextTask(CutPaste(jitter=jitter), CutPasteScar(jitter=jitter, reference=reference))


def _from_others(jitter: float) -> Task:
    """Give the 3-way task whose patches are cut out of other images."""
    return lambda reference: PretextTask(
        CutPaste(jitter=jitter, source="other"), CutPasteScar(jitter=jitter, reference=reference, source="other")
    )


def _on_crops(name: str, network: NetworkConfig, *scorings: tuple[str, DetectorConfig]) -> Study:
    """Give a row of the patch recipe: random crops as large as the patches, AdamW, strongly jittered patches."""
    return Study(name, _jittered(0.3), network, scorings, None, batch=24, optimizer="adamw", learning_rate=1e-3)


def _detection() -> list[Study]:
    rows = [Study(name, task) for name, task in TASKS.items()]
    rows.append(Study("untrained", None))
    for name, task, share in (("pretrained, untrained", None, 0.0), ("pretrained, 3-way", three_way, 0.135)):
        network = NetworkConfig("tf_efficientnet_lite0")
        rows.append(Study(name, task, network, batch=8, head_share=share, pretrained=True))
    return rows


def _localization() -> list[Study]:
    grid = DetectorConfig(patch=64)
    scorings = tuple(
        (name + more, replace(scoring, border=border))
        for name, scoring in (("", grid), (", nearest", replace(grid, density="nearest")))
        for more, border in (("", False), (", border", True))
    )
    small = tuple((name, replace(scoring, patch=32)) for name, scoring in scorings)
    levelled = tuple((f"{name}, level", replace(scoring, level=True)) for name, scoring in scorings)
    areas = (", areas 128, 192", replace(grid, areas=(128, 192)))
    ours = _on_crops("PatchNet 64/4", PATCHNET, *scorings, *levelled, areas)
    others = replace(ours, name="PatchNet 64/4 from others", task=_from_others(0.3))
    return [
        ours,
        replace(
            others, scorings=(scorings[0], levelled[0], areas, (f"{areas[0]}, level", replace(areas[1], level=True)))
        ),
        replace(ours, name="PatchNet 64/4 untrained", task=None),
        replace(
            ours, name="PatchNet 64/4 otherwise", scorings=((", per location", replace(grid, density="location")),)
        ),
        replace(ours, name="PatchNet 64/4 SGD", optimizer="sgd", learning_rate=0.03),
        replace(ours, name="PatchNet 64/4 jitter 0.1", task=three_way),
        replace(ours, name="PatchNet 32/4", network=NetworkConfig("patchnet", patch=32), scorings=small),
        Study("ResNet-18 64/16", three_way, RESNET, (("", replace(grid, stride=16)),), None),
        Study("ResNet-18 64/4, as in the paper", three_way, RESNET, (("", grid),), None),
    ]


def _equal_time() -> list[Study]:
    fine, coarse = DetectorConfig(patch=64), DetectorConfig(patch=64, stride=16, fit_patches=10_000)
    rows = [_on_crops("PatchNet 64/4", PATCHNET, ("", fine)), _on_crops("ResNet-18 64/16", RESNET, ("", coarse))]
    return [*rows, *(replace(row, name=f"{row.name} untrained", task=None) for row in rows)]


def _open_points(base: Study, jitter: float) -> list[Study]:
    """Give a row, whose patches are jittered so much, and beside it rows that differ from it in one thing each."""

    def on_object(reference: Reference) -> PretextTask:
        return PretextTask(*(OnForeground(one) for one in _jittered(jitter)(reference).transforms))

    def two_uniforms(reference: Reference) -> PretextTask:
        cutpaste = CutPaste(jitter=jitter, aspect_distribution="two_uniforms")
        return PretextTask(cutpaste, CutPasteScar(jitter=jitter, reference=reference))

    suffix, scoring = base.scorings[0]
    kinds: tuple[Literal["kernel", "nearest"], ...] = ("kernel", "nearest")
    densities = tuple((f", {kind}", replace(scoring, density=kind)) for kind in kinds)
    jitters = [other for other in (0.1, 0.2, 0.3) if other != jitter]
    rows = [
        replace(base, scorings=((suffix, scoring), *densities)),
        replace(base, name="head of eight layers", network=replace(base.network, head=(512,) * 8)),
        replace(base, name="half the steps", share=0.5),
        *(replace(base, name=f"jitter {other}", task=_jittered(other)) for other in jitters),
        replace(base, name="base jitter 0", base_jitter=0.0),
        replace(base, name="base jitter 0.3", base_jitter=0.3),
        replace(base, name="aspect from two uniforms", task=two_uniforms),
        replace(base, name="on the object", task=on_object),
        replace(base, name="patch from another image", task=_from_others(jitter)),
    ]
    if base.network.backbone == "resnet18":
        rows.append(replace(base, name="features of layer3", network=replace(base.network, stage="layer3")))
    return rows


def _family() -> list[Study]:
    """Give rows that differ in the defects they learn from alone: the 3-way task, each recipe, and two mixtures."""
    mixtures = ("nsa+draem", "cutpaste+cutpaste_scar+nsa+draem+defectmaker")
    three_way = _on_crops("3-way", PATCHNET, ("", DetectorConfig(patch=64)))
    return [
        three_way,
        *(replace(three_way, name=name, task=_of_recipe(name)) for name in (*RECIPES, *mixtures)),
    ]


def _of_recipe(name: str) -> Task:
    return lambda reference: PretextTask(recipe(name, reference))


def _small(names: tuple[str, ...], reference: Reference) -> list[Study]:
    """Give rows of 32-pixel images: a PatchNet sees the whole of one in four positions."""
    network = NetworkConfig("patchnet", patch=32)
    rows = [
        Study(name, TASKS[name], network, reference=reference, optimizer="adamw", learning_rate=1e-3) for name in names
    ]
    return [*rows, Study("untrained", None, network)]


STUDIES: dict[str, list[Study]] = {
    "detection": _detection(),
    "localization": _localization(),
    "equal time": _equal_time(),
    "open points": _open_points(Study("3-way", three_way), 0.1),
    "open points, patches": _open_points(
        _on_crops("PatchNet 64/8", PATCHNET, ("", DetectorConfig(patch=64, stride=8))), 0.3
    ),
    "family": _family(),
    "synthetic": _small(("cutout", "cutout, random color", "3-way"), 64),
    "cifar10": _small(("rotation", "cutpaste", "cutout"), 64),
}


@dataclass(frozen=True)
class Compared:
    """Say which rows stand beside which published figure."""

    what: str  # in words
    figure: str  # "image_auroc" or "pixel_auroc"
    key: tuple[str, str, str, str, str]  # study, row, data, category, budget
    published: str
    split: str = "official"


def _compared() -> list[Compared]:
    image, pixel, mvtec, tiles = "image_auroc", "pixel_auroc", "mvtec_ad_256", "magnetic_tile at 384²"
    whole, maps, places = "ResNet-18, 3-way on whole images", "PatchNet's heat maps", "PatchNet, a Gaussian a place"
    located, both = "PatchNet 64/4 otherwise, per location", "PatchNet 64/4, nearest, border"
    best = "PatchNet 64/4 from others, areas 128, 192, level"
    settings = "PatchNet, patches of others, areas, levelled"
    screw, tile = "86.3 ± 1.0, CutPaste", "97.7, DifferNet; 97.9, PatchCore; 80.0, 1-NN"
    return [
        Compared(whole, image, ("detection", "3-way", mvtec, "bottle", "8192 steps"), "98.3, CutPaste"),
        Compared(f"{whole}, ensemble", image, ("detection", "3-way, ensemble", mvtec, "bottle", "8192 steps"),
                 "98.2, CutPaste's ensemble"),
        Compared(places, image, ("localization", located, mvtec, "bottle", "4096 steps"), "98.3, CutPaste"),
        Compared("ResNet-18, untrained", image, ("detection", "untrained", mvtec, "bottle", "none"), ""),
        Compared(whole, image, ("detection", "3-way", mvtec, "screw", "16384 steps"), screw),
        Compared(maps, image, ("localization", "PatchNet 64/4", mvtec, "screw", "600 steps"), screw),
        Compared(f"{maps}, nearest normal patch", pixel, ("localization", both, mvtec, "screw", "600 steps"),
                 "96.7 ± 0.1, CutPaste"),
        Compared(settings, image, ("localization", best, f"{tiles}, published split", "magnetic_tile", "8000 steps"),
                 tile, "published"),
        Compared(settings, image, ("localization", best, tiles, "magnetic_tile", "8000 steps"), "", "by tile, ours"),
    ]  # fmt: skip


COMPARED = _compared()

# What the paper reports, in per cent: image AUROC, or pixel AUROC for localization. Li et al. 2021, Tables 1, 2, 4, 6.
PAPER: dict[tuple[str, str, str], str] = {
    ("detection", "rotation", "screw"): "35.8 ± 2.9",
    ("detection", "cutout", "screw"): "17.6 ± 4.4",
    ("detection", "scar", "screw"): "11.3 ± 2.2",
    ("detection", "cutpaste", "screw"): "54.4 ± 1.7",
    ("detection", "cutpaste-scar", "screw"): "83.7 ± 0.7",
    ("detection", "3-way", "screw"): "86.3 ± 1.0",
    ("detection", "3-way, ensemble", "screw"): "88.7",
    ("localization", "ResNet-18 64/4, as in the paper", "screw"): "96.7 ± 0.1",
    **{("synthetic", "cutout", shape): figure for shape, figure in {
        "digit": "52.3", "square": "90.6", "ellipse": "89.3", "heart": "87.5", "square, natural": "86.4",
        "ellipse, natural": "84.0", "heart, natural": "80.7"}.items()},
    **{("synthetic", "3-way", shape): figure for shape, figure in {
        "digit": "96.1", "square": "98.4", "ellipse": "98.2", "heart": "97.9", "square, natural": "99.3",
        "ellipse, natural": "99.2", "heart, natural": "99.0"}.items()},
    ("cifar10", "cutpaste", "mean"): "69.4",
    ("cifar10", "cutout", "mean"): "60.2",
    ("cifar10", "rotation", "mean"): "91.3",
}  # fmt: skip
