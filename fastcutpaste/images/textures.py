"""The embedded data set: crops of real photographs, with planted defects and their masks.

The photographs ship inside scikit-image (brick, grass, gravel; 512 × 512 grey, CC0), so nothing is downloaded.
A photograph is cut into 3 × 3 blocks: three give the training crops, the other six those for the threshold and the test
crops. No pixel of a training crop is in another's; crops for the threshold and for the test overlap, so that they are
alike, which a threshold needs to hold.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import data as photographs
from torch import Tensor

from fastcutpaste.files import written_whole
from fastcutpaste.images.defects import Byte, plant_defect, to_bytes
from fastcutpaste.images.folders import ImageSet

BLOCKS = 3  # along each side of a photograph
# How crops of a block differ, in training and test alike: the less they are one picture, the more a share of them says.
TURN = np.deg2rad(10)  # most, either way
ZOOM = 1.1  # most, nearer or farther
EXPOSURE = 0.1  # most, brighter or darker
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
    size: int = 128,
    seed: int = 0,
    train_count: int = 200,
    calibration_count: int = 200,
    good_count: int = 100,
    defect_count: int = 80,
) -> DemoData:
    """Cut crops of a photograph and plant defects in some of those for testing.

    Training has blocks of its own. Crops of the others set the threshold or are tested, as chance will: so a new normal
    crop is like those that set it, though it may show a part of the same bricks. Crops of a block overlap heavily, so
    each is turned, magnified and exposed a little otherwise, and every second one mirrored left to right; 100 of them
    are fewer independent pictures still.

    Args:
        texture: "brick", "grass" or "gravel".
        size: side of the square images in pixels, 48 to 170, the side of a block.
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
    largest = min(photograph.shape) // BLOCKS
    if not SMALLEST_SIZE <= size <= largest:
        raise ValueError(f"make_demo: size must be {SMALLEST_SIZE} to {largest} pixels, got {size}")

    def cut(blocks: list[Byte], count: int) -> Byte:
        return _vary_brightness(_cut_crops(blocks, count, size, random), random)  # (count, H, W)

    random = np.random.default_rng([seed, list(TEXTURES).index(texture)])
    train_blocks, unseen_blocks = _deal_blocks(photograph)
    train, normal = cut(train_blocks, train_count), cut(unseen_blocks, calibration_count + good_count)
    normal = random.permutation(normal)  # which of them set the threshold and which test it, is chance alone
    calibration, good = normal[:calibration_count], normal[calibration_count:]
    clean = cut(unseen_blocks, defect_count)
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


def write_demo(data: DemoData, root: Path) -> ImageSet:
    """Write the images as one category of MVTec AD 2: PNG files under train/, validation/, test/ and ground_truth/.

    Files are train/good/000.png, validation/good/000.png (those for the threshold), test/<kind>/000.png and
    ground_truth/<kind>/000_mask.png (0 and 255), numbered from zero within each kind.

    Args:
        data: from `make_demo`.
        root: a folder that is empty or does not exist yet.

    Returns:
        The test images, in the order of the data.

    Raises:
        FileExistsError: if the folder holds anything: old images beside new ones would mix two data sets.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"write_demo: an empty or new folder required, got {root}, which is not empty")
    for name, images in (("train", data.train), ("validation", data.calibration)):
        for number, image in enumerate(images):
            _write_png(image.permute(1, 2, 0).numpy(), root / name / "good" / f"{number:03d}.png")  # (H, W, 3)
    paths: list[Path] = []
    masks: list[Path | None] = []
    numbers = dict.fromkeys(data.kinds, 0)
    for image, mask, kind in zip(data.test, data.masks, data.kinds, strict=True):
        number = numbers[kind]
        numbers[kind] += 1
        paths.append(root / "test" / kind / f"{number:03d}.png")
        masks.append(None if kind == "good" else root / "ground_truth" / kind / f"{number:03d}_mask.png")
        _write_png(image.permute(1, 2, 0).numpy(), paths[-1])  # (H, W, 3)
        if masks[-1] is not None:
            _write_png(mask.numpy() * np.uint8(255), masks[-1])
    return ImageSet(tuple(paths), data.kinds, tuple(masks))


def _deal_blocks(photograph: NDArray[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Deal the blocks of (H, W): a diagonal to training, the other two to threshold and test together.

    Training gets one block of every row and every column, for bricks fan out from the middle and grow downwards. Nine
    blocks are too few to be alike: with a diagonal of its own for the threshold, the test's normal crops were called
    defective twice as often as asked for, or half as often (benchmarks/README.md).
    """
    height, width = (length // BLOCKS for length in photograph.shape)
    dealt: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
    for row in range(BLOCKS):
        for column in range(BLOCKS):
            block = photograph[row * height : (row + 1) * height, column * width : (column + 1) * width]
            dealt[(row + column) % BLOCKS > 0].append(block)
    return dealt


def _cut_crops(blocks: list[NDArray[Any]], count: int, size: int, random: np.random.Generator) -> NDArray[Any]:
    """Cut (count, size, size) crops, as many of each block, each turned, magnified and mirrored by chance.

    Mirrored left to right only: light and perspective come from above. A crop that would not lie within its block is
    magnified more. Values are as the photograph's, between pixels.
    """
    grid = np.mgrid[:size, :size] - (size - 1) / 2  # (2, size, size) of y, x from the middle
    crops = []
    for i in range(count):
        block = blocks[i % len(blocks)]
        angle = random.uniform(-TURN, TURN)
        turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        reach = (size - 1) / 2 * np.abs(turned).sum(1).max()  # pixels from the middle to the farthest row or column
        scale = min(random.uniform(1 / ZOOM, ZOOM), (min(block.shape) - 1) / 2 / reach)
        middle = [random.uniform(scale * reach, length - 1 - scale * reach) for length in block.shape]
        places = np.einsum("ij,jhw->ihw", scale * turned, grid) + np.reshape(middle, (2, 1, 1))
        crop = ndimage.map_coordinates(block, places, output=np.float64, order=1, mode="nearest")
        crops.append(crop[:, :: random.choice((-1, 1))])
    return np.stack(crops)


def _vary_brightness(crops: NDArray[Any], random: np.random.Generator) -> Byte:
    """Multiply each of (count, H, W) crops by a factor of its own; bytes."""
    factors = random.uniform(1 - EXPOSURE, 1 + EXPOSURE, len(crops))
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
