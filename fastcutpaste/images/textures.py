"""The embedded data set: crops of real photographs, with planted defects and their masks.

The photographs ship inside scikit-image (brick, grass, gravel; 512 × 512 grey, CC0), so nothing is downloaded.
Of a photograph the upper left gives the training crops, the lower left those for the threshold, the right all test
crops: no pixel is in two of the three.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data as photographs
from torch import Tensor

from fastcutpaste.files import written_whole
from fastcutpaste.images.defects import Byte, plant_defect, to_bytes

TRAIN_ROWS = 320  # of 512; what is below them sets the threshold
TRAIN_COLUMNS = 300  # of 512; the bricks fan out from the middle, so a mirrored left part has the slants of the right
SMALLEST_SIZE = 48  # pixels; below it a crack is as wide as a stain


class DemoData(NamedTuple):
    """Hold one texture's training images, test images and masks.

    Attributes:
        train: uint8 (N, 3, H, W), normal images to learn from.
        calibration: uint8 (K, 3, H, W), other normal images, to set the threshold on.
        test: uint8 (M, 3, H, W), the normal ones first, then the defective ones, kind by kind.
        masks: bool (M, H, W), true on the defect; all false for a normal image.
        kinds: M words: "good" or the kind of defect, such as "crack".
    """

    train: Tensor
    calibration: Tensor
    test: Tensor
    masks: Tensor
    kinds: tuple[str, ...]


def make_demo(
    texture: str = "brick",
    *,
    size: int = 192,
    seed: int = 0,
    train_count: int = 200,
    calibration_count: int = 40,
    good_count: int = 20,
    defect_count: int = 20,
) -> DemoData:
    """Cut crops of a photograph and plant defects in some of those for testing.

    Crops overlap, half of them are mirrored left to right, and the brightness of each is varied by up to 5 %, in
    training and test alike. Crops of one part overlap heavily: 40 test images are far fewer independent pictures.

    Args:
        texture: "brick", "grass" or "gravel".
        size: side of the square images in pixels, 48 to 192.
        seed: not negative. The same seed gives the same data, bit for bit, with the same library versions.
        train_count: number of training images, at least 1.
        calibration_count: number of images for the threshold, at least 1.
        good_count: number of normal test images, at least 1.
        defect_count: number of defective test images, at least 1; the texture's kinds of defect share it evenly.

    Returns:
        The images with their masks. A mask holds each pixel that its defect changes by `VISIBLE_LEVELS` or more, with
        the gaps within the defect closed; outside it the image differs from the clean crop by less than that. Each
        covers 0.3 to 6 % of its image.

    Raises:
        ValueError: for an unknown texture, or a number out of range.
    """
    if texture not in TEXTURES:
        raise ValueError(f"make_demo: texture must be one of {', '.join(TEXTURES)}, got {texture!r}")
    counts = {"train": train_count, "calibration": calibration_count, "good": good_count, "defect": defect_count}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"make_demo: {name}_count must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"make_demo: seed must not be negative, got {seed}")
    photograph: Byte = getattr(photographs, texture)()
    parts = _split_photograph(photograph)
    largest = min(min(part.shape) for part in parts)
    if not SMALLEST_SIZE <= size <= largest:
        raise ValueError(f"make_demo: size must be {SMALLEST_SIZE} to {largest} pixels, got {size}")

    def cut(part: Byte, count: int) -> Byte:
        return _vary_brightness(_cut_crops(part, count, size, random), random)  # (count, H, W)

    random = np.random.default_rng([seed, list(TEXTURES).index(texture)])
    train_part, calibration_part, test_part = parts
    train, calibration = cut(train_part, train_count), cut(calibration_part, calibration_count)
    good, clean = cut(test_part, good_count), cut(test_part, defect_count)
    names = TEXTURES[texture]
    kinds = [names[index * len(names) // defect_count] for index in range(defect_count)]
    planted = [plant_defect(crop, kind, random) for crop, kind in zip(clean, kinds, strict=True)]
    test = np.concatenate([good, np.stack([image for image, _ in planted])])  # (M, H, W)
    masks = np.concatenate([np.zeros(good.shape, bool), np.stack([mask for _, mask in planted])])  # (M, H, W)
    return DemoData(
        _to_three_channels(train),
        _to_three_channels(calibration),
        _to_three_channels(test),
        torch.from_numpy(masks),
        ("good",) * good_count + tuple(kinds),
    )


def write_demo(data: DemoData, root: Path) -> None:
    """Write the images as one category of MVTec AD: PNG files under train/, test/ and ground_truth/.

    Files are train/good/000.png (those for the threshold last, as `hold_out` expects), test/<kind>/000.png and
    ground_truth/<kind>/000_mask.png (0 and 255), numbered from zero within each kind.

    Args:
        data: from `make_demo`.
        root: a folder that is empty or does not exist yet.

    Raises:
        FileExistsError: if the folder holds anything: old images beside new ones would mix two data sets.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"write_demo: an empty or new folder required, got {root}, which is not empty")
    for number, image in enumerate(torch.cat([data.train, data.calibration])):
        _write_png(image.permute(1, 2, 0).numpy(), root / "train" / "good" / f"{number:03d}.png")  # (H, W, 3)
    numbers = dict.fromkeys(data.kinds, 0)
    for image, mask, kind in zip(data.test, data.masks, data.kinds, strict=True):
        number = numbers[kind]
        numbers[kind] += 1
        _write_png(image.permute(1, 2, 0).numpy(), root / "test" / kind / f"{number:03d}.png")  # (H, W, 3)
        if kind != "good":
            _write_png(mask.numpy() * np.uint8(255), root / "ground_truth" / kind / f"{number:03d}_mask.png")


def _split_photograph(photograph: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Split (H, W) into the parts for training, for the threshold and for testing."""
    left = photograph[:, :TRAIN_COLUMNS]
    return left[:TRAIN_ROWS], left[TRAIN_ROWS:], photograph[:, TRAIN_COLUMNS:]


def _cut_crops(part: NDArray[Any], count: int, size: int, random: np.random.Generator) -> NDArray[Any]:
    """Cut (count, size, size) crops of one part, spread evenly from top to bottom, each second one mirrored by chance.

    Even spreading gives normal and defective test crops the same scenery, and so a steadier AUROC.
    """
    rows, columns = part.shape[0] - size + 1, part.shape[1] - size + 1
    tops = ((random.permutation(count) + random.random(count)) / count * rows).astype(int)
    lefts = random.integers(columns, size=count)
    steps = random.choice((-1, 1), size=count)  # left to right only: light and perspective come from above
    return np.stack(
        [part[y : y + size, x : x + size][:, ::step] for y, x, step in zip(tops, lefts, steps, strict=True)]
    )


def _vary_brightness(crops: Byte, random: np.random.Generator) -> Byte:
    """Multiply each of (count, H, W) crops by its own factor, 0.95 to 1.05."""
    factors = random.uniform(0.95, 1.05, len(crops))
    return np.stack([to_bytes(crop * factor) for crop, factor in zip(crops, factors, strict=True)])


def _to_three_channels(images: Byte) -> Tensor:
    """Repeat grey: uint8 (N, H, W) → (N, 3, H, W), contiguous."""
    return torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1)


def _write_png(pixels: NDArray[Any], path: Path) -> None:
    """Write uint8 (H, W) or (H, W, 3)."""
    with written_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, compress_level=1)


# Each photograph with the kinds of defect that could befall it. The brick alone has cracks and smears: a crack is lost
# between blades or stones, and a smear makes a rough surface smoother, and so more normal to most detectors.
TEXTURES: dict[str, tuple[str, ...]] = {
    "brick": ("chip", "crack", "smear", "stain"),
    "grass": ("chip", "stain", "strand"),
    "gravel": ("chip", "stain", "strand"),
}
