"""Data sets of the accuracy study: folders in MVTec's layout, brick, MNIST with shapes pasted in, CIFAR-10 classes."""

import functools
import gzip
import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data as photographs
from torch import Tensor
from torch.nn import functional as F

from fastcutpaste.images.decode import load_images
from fastcutpaste.images.defects import DEFECTS, plant_defect, to_bytes
from fastcutpaste.images.folders import find_test_images, find_training_images, load_masks
from fastcutpaste.images.hold_out import hold_out
from fastcutpaste.images.image_set import ImageSet, joined
from fastcutpaste.images.textures import make_demo

Byte = NDArray[np.uint8]
USUAL_SIZE = 256  # pixels, the paper's
MNIST_SIDE = 32  # pixels: 28, and 2 on every side
SHAPES = ("digit", "square", "ellipse", "heart", "square, natural", "ellipse, natural", "heart, natural")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LEAST_PIXELS = 12  # of a pasted shape
VISIBLE_LEVELS = 24  # of 255: least mean change of a pasted shape's pixels
EXPOSURES = (0.8, 1.25)  # least and most light of a planted test set that was exposed otherwise


@dataclass(frozen=True)
class Test:
    """Hold test images uint8 (N, 3, H, W), labels bool (N,), and masks bool (H, W) each where there are any."""

    images: Tensor
    labels: Tensor
    masks: list[Tensor] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # N words, "good" or the defect


@dataclass(frozen=True)
class Data:
    """Hold normal images to learn from and to set the threshold on, and test sets by category."""

    name: str
    normal: Tensor
    calibration: Tensor
    tests: dict[str, Test]
    size: int | None = None  # that was chosen for the images, pixels; None: there is no choice


def read_folder(root: Path, size: int = USUAL_SIZE, planted: bool = False, split: Path | None = None) -> Data:
    """Read a category in MVTec's layout, images and masks resized to a square; an unusual size is part of the name.

    Where defects are to be planted, test images are not read, and a plain folder of normal images will do.

    Args:
        root: the category; without masks only whole images are judged.
        size: of what is read, pixels.
        planted: whether to plant defects in held-out normal images instead of reading test images.
        split: a published split, the names of its training images one a line: all other normal images are tested, and
            the name of the data says so.

    Raises:
        ValueError: what `load_images` and `load_masks` refuse; names of the split that are not there.
    """
    train, tested = find_training_images(root), None if planted else find_test_images(root)
    name = root.parent.name if root.parent.name.startswith("mvtec") else root.name
    name += "" if size == USUAL_SIZE else f" at {size}²"
    if split is not None:
        train, tested = _split_as_published(split, joined([train, tested or find_test_images(root)]))
        name += ", published split"
    normal, calibration = _last_aside(load_images(train.paths, (size, size)).pixels)
    if planted or tested is None:
        return Data(name, normal, calibration, _plant(root.name, calibration), size)
    masks = load_masks(tested) if tested.has_masks else []
    masks = [F.interpolate(mask[None, None].float(), (size, size), mode="area")[0, 0] > 0.5 for mask in masks]
    test = Test(
        load_images(tested.paths, (size, size)).pixels, tested.labels, masks, [str(kind) for kind in tested.kinds]
    )
    return Data(name, normal, calibration, {root.name: test}, size)


def _split_as_published(split: Path, images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Divide all images of a category: normal ones that a file names are trained on, all others tested."""
    names, here = (
        set(split.read_text(encoding="utf-8").split()),
        {path.name for path, kind in zip(images.paths, images.kinds, strict=True) if kind == "good"},
    )
    if not names <= here:
        missing = sorted(names - here)
        raise ValueError(f"{split}: names of normal images required, got {len(missing)} others, {missing[0]} first")
    chosen = [path.name in names for path in images.paths]
    train, tested = ([i for i, one in enumerate(chosen) if one is wanted] for wanted in (True, False))
    return images.chosen(train), images.chosen(tested)


def _last_aside(images: Tensor, share: float = 0.2) -> tuple[Tensor, Tensor]:
    """Hold out the last images, as when the first rows were measured."""
    learned, held_out = hold_out(len(images), share, how="last")
    return images[: len(learned)], images[-len(held_out) :]


def make_brick(planted: bool = False) -> Data:
    """Make the demo's brick; the side is part of the name, since rows "demo" are of former crops of 192 pixels."""
    demo = make_demo("brick")
    name = f"demo at {demo.train.shape[-1]}²"
    if planted:
        return Data(name, demo.train, demo.calibration, _plant("brick", demo.calibration))
    labels = torch.tensor([kind != "good" for kind in demo.kinds])
    test = Test(demo.test, labels, list(demo.masks), list(demo.kinds))
    return Data(name, demo.train, demo.calibration, {"brick": test})


def _plant(category: str, held_out: Tensor) -> dict[str, Test]:
    """Plant defects in images that are held out of training, to choose settings without test images.

    Each image is tested twice, as it is and with a defect; kinds of defect take turns. A second test set is of the same
    images, each multiplied by a factor of its own, 0.8 to 1.25: a camera exposes otherwise than on the day of training.
    """
    random = np.random.default_rng(0)
    clean, names = held_out.numpy(), list(DEFECTS)
    kinds = [names[i % len(names)] for i in range(len(clean))]
    planted = [_plant_in_color(image, kind, random) for image, kind in zip(clean, kinds, strict=True)]
    images = np.concatenate([clean, np.stack([image for image, _ in planted])])
    masks = [torch.zeros(clean.shape[2:], dtype=torch.bool)] * len(clean)
    masks += [torch.from_numpy(mask) for _, mask in planted]
    factors = np.exp(random.uniform(*np.log(EXPOSURES), len(images)))
    exposed = np.stack([to_bytes(image * factor) for image, factor in zip(images, factors, strict=True)])
    labels, kinds = torch.arange(len(images)) >= len(clean), ["good"] * len(clean) + kinds
    return {
        f"{category}, planted": Test(torch.from_numpy(images), labels, masks, kinds),
        f"{category}, planted, other exposures": Test(torch.from_numpy(exposed), labels, masks, kinds),
    }


def _plant_in_color(image: Byte, kind: str, random: np.random.Generator) -> tuple[Byte, NDArray[np.bool_]]:
    """Plant a defect in the grey of an image (3, H, W); each channel changes as the grey does."""
    grey = to_bytes(image.mean(0))
    changed, mask = plant_defect(grey, kind, random)
    return to_bytes(image + (changed.astype(np.float64) - grey)), mask


def read_mnist(root: Path, count: int = 2000, tested: int = 300) -> Data:
    """Read MNIST's digits as normal images, and paste a shape into each anomalous one: the paper's Table 6.

    Squares, ellipses and hearts, 8 to 14 pixels wide, and other digits, 14 to 18, all turned at will, are filled with
    one grey level or with a piece of a photograph (of brick, grass or gravel), the same ones every time.

    Args:
        root: folder of the IDX files, packed or not.
        count: training images.
        tested: normal test images, and anomalous ones of each shape.
    """
    random = np.random.default_rng(0)
    train, test = (_padded(_read_idx(root, name)) for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"))
    chosen = train[random.permutation(len(train))[: count + count // 10]]
    pool = test[random.permutation(len(test))]
    good = pool[:tested]
    tests = {}
    for shape in SHAPES:
        anomalous = np.stack([paste_shape(image, shape, pool[-1 - i], random)
                              for i, image in enumerate(pool[tested : 2 * tested])])  # fmt: skip
        labels = torch.arange(2 * tested) >= tested
        tests[shape] = Test(_three_channels(np.concatenate([good, anomalous])), labels)
    normal, calibration = _last_aside(_three_channels(chosen), 1 / 11)
    return Data("mnist", normal, calibration, tests)


def read_cifar(archive: Path, name: str) -> Data:
    """Read one class of a CIFAR-10 archive (train/<class>/*.jpg, test/<class>/*.jpg) as normal, all others not."""
    images: dict[str, list[Byte]] = {"train": [], "good": [], "bad": []}
    with tarfile.open(archive) as packed:
        for member in packed:
            part, *rest = Path(member.name).parts[-3:]
            if not member.isfile() or len(rest) != 2 or (part == "train" and rest[0] != name):
                continue
            file = packed.extractfile(member)
            assert file is not None
            with Image.open(io.BytesIO(file.read())) as image:
                kind = "train" if part == "train" else "good" if rest[0] == name else "bad"
                images[kind].append(np.asarray(image.convert("RGB")))
    if not images["train"] or not images["good"] or not images["bad"]:
        raise ValueError(f"{archive}: train/{name} and test/*/*.jpg required, got none")
    train, good, bad = (torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2).contiguous() for each in images.values())
    labels = torch.arange(len(good) + len(bad)) >= len(good)
    normal, calibration = _last_aside(train, 0.1)
    return Data("cifar10", normal, calibration, {name: Test(torch.cat([good, bad]), labels)})


def paste_shape(image: Byte, shape: str, digit: Byte, random: np.random.Generator) -> Byte:
    """Paste one shape that can be seen into a grey image (H, W)."""
    while True:
        mask = _draw_shape(shape.partition(",")[0], digit, image.shape[0], random)
        fill = _natural_piece(image.shape[0], random) if "natural" in shape else np.uint8(random.integers(256))
        pasted = np.where(mask, fill, image).astype(np.uint8)
        change = np.abs(pasted.astype(np.int16) - image)
        if mask.sum() >= LEAST_PIXELS and change[mask].mean() >= VISIBLE_LEVELS:
            return pasted


def _draw_shape(shape: str, digit: Byte, side: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Draw a shape or another digit, turned, its middle 6 pixels or more inside: bool (H, W)."""
    radius = random.uniform(7, 9) if shape == "digit" else random.uniform(4, 7)  # strokes are thin
    center = random.uniform(6, side - 6, 2)
    angle = random.uniform(-np.pi, np.pi)
    rows, columns = np.mgrid[:side, :side]
    y, x = (rows - center[0]) / radius, (columns - center[1]) / radius
    y, x = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    if shape == "square":
        mask = np.maximum(np.abs(y), np.abs(x)) <= 1
    elif shape == "ellipse":
        mask = (y / random.uniform(0.4, 0.9)) ** 2 + x**2 <= 1
    elif shape == "heart":
        u, v = 1.2 * x, -1.2 * y + 0.2
        mask = (u**2 + v**2 - 1) ** 3 - u**2 * v**3 <= 0
    else:  # the digit's strokes, the 20 pixels it is wide brought to the width of the shape
        across = np.clip(np.rint((x * 10) + (digit.shape[1] - 1) / 2), 0, digit.shape[1] - 1).astype(int)
        down = np.clip(np.rint((y * 10) + (digit.shape[0] - 1) / 2), 0, digit.shape[0] - 1).astype(int)
        mask = digit[down, across] > 127
    return np.asarray(mask, dtype=np.bool_)


def _natural_piece(side: int, random: np.random.Generator) -> Byte:
    """Cut a square out of a photograph."""
    photograph = _photograph(int(random.integers(3)))
    y, x = (random.integers(length - side + 1) for length in photograph.shape)
    return photograph[y : y + side, x : x + side]


@functools.cache
def _photograph(number: int) -> Byte:
    photograph: Byte = (photographs.brick, photographs.grass, photographs.gravel)[number]()
    return photograph


def _read_idx(root: Path, name: str) -> Byte:
    """Read the images (N, H, W) of an IDX file."""
    packed, plain = root / f"{name}.gz", root / name
    if not packed.exists() and not plain.exists():
        raise ValueError(f"{root}: {name}.gz or {name} required, got neither")
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
    shape = np.frombuffer(raw, ">i4", 4)
    if shape[0] != 0x803 or len(raw) != 16 + int(np.prod(shape[1:])):
        raise ValueError(f"{root / name}: a whole IDX file of images required, got {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8, offset=16).reshape(shape[1:])


def _padded(images: Byte) -> Byte:
    room = (MNIST_SIDE - images.shape[1]) // 2
    return np.pad(images, ((0, 0), (room, room), (room, room)))


def _three_channels(images: Byte) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images))[:, None].repeat(1, 3, 1, 1)
