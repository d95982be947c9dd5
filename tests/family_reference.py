"""The family as papers and their public codes make it: one image at a time, in NumPy, OpenCV and PIL, on a CPU.

Baseline of `python -m benchmarks.augment --family`. Each takes an image and another one, (H, W, 3) uint8, and gives the
image with a defect and the mask (H, W) bool. They share no line with the library; `tests/reference.py` has CutPaste's.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.reference import cutpaste_pil, scar_pil

Array = np.ndarray
Made = tuple[Array, Array]


def changed(image: Array, result: Array) -> Made:
    return result, (result != image).any(2)


def cutpaste(image: Array, other: Array, rng: np.random.Generator) -> Made:
    return changed(image, np.asarray(cutpaste_pil(Image.fromarray(image), random.Random(int(rng.integers(2**31))))))


def cutpaste_scar(image: Array, other: Array, rng: np.random.Generator) -> Made:
    return changed(image, np.asarray(scar_pil(Image.fromarray(image), random.Random(int(rng.integers(2**31))))))


def rectangle(size: tuple[int, ...], rng: np.random.Generator, areas: tuple[float, float]) -> tuple[slice, slice]:
    """Give rows and columns of a rectangle with a share of the area and height : width of 0.3 to 3.3."""
    area = rng.uniform(*areas) * size[0] * size[1]
    aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
    height = min(size[0], max(1, round(math.sqrt(area * aspect))))
    width = min(size[1], max(1, round(math.sqrt(area / aspect))))
    top, left = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
    return slice(top, top + height), slice(left, left + width)


def cutout(image: Array, other: Array, rng: np.random.Generator) -> Made:
    result, mask, place = image.copy(), np.zeros(image.shape[:2], bool), rectangle(image.shape, rng, (0.02, 0.15))
    result[place], mask[place] = 0, True
    return result, mask


def confetti(image: Array, other: Array, rng: np.random.Generator) -> Made:
    result, mask = image.copy(), np.zeros(image.shape[:2], bool)
    for top, left in np.argwhere(rng.random(image.shape[:2]) < 0.002):
        side = rng.integers(1, 6)
        result[top : top + side, left : left + side] = rng.integers(0, 256, 3)
        mask[top : top + side, left : left + side] = True
    return result, mask


def fpi(image: Array, other: Array, rng: np.random.Generator) -> Made:
    height, width = image.shape[:2]
    side = round(rng.uniform(0.1, 0.4) * min(height, width))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    place, share = (slice(top, top + side), slice(left, left + side)), rng.uniform(0.05, 0.95)
    result, mask = image.copy(), np.zeros((height, width), bool)
    mask[place] = True
    result[place] = np.rint(share * other[place].astype(np.float32) + (1 - share) * image[place])
    return result, mask


def nsa(image: Array, other: Array, rng: np.random.Generator) -> Made:
    """Cut from the other image, resize, blend by `seamlessClone`; a second time by the flip of a coin."""
    result, mask = image, np.zeros(image.shape[:2], bool)
    for _ in range(1 + rng.integers(2)):
        rows, columns = rectangle(image.shape, rng, (0.004, 0.2))
        patch = other[rows, columns]
        patch = cv2.resize(patch, None, fx=(scale := rng.uniform(0.7, 1.3)), fy=scale)
        patch = patch[: image.shape[0] - 2, : image.shape[1] - 2]
        height, width = patch.shape[:2]
        if min(height, width) < 3:
            continue
        top, left = (
            1 + rng.integers(whole - 1 - part) for whole, part in zip(image.shape, patch.shape[:2], strict=False)
        )
        framed = cv2.copyMakeBorder(patch, 1, 1, 1, 1, cv2.BORDER_REPLICATE)  # whose border OpenCV leaves out
        whole = np.full(framed.shape[:2], 255, np.uint8)
        result = cv2.seamlessClone(
            framed, result, whole, (int(left + width // 2), int(top + height // 2)), cv2.NORMAL_CLONE
        )
        mask[top : top + height, left : left + width] = True
    return result, mask


def perlin(size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Give Perlin noise of 1 to 32 cells a side, turned by up to 90° either way."""
    rows, columns = 2 ** rng.integers(0, 6, 2)
    angles = rng.uniform(0, 2 * np.pi, (rows + 1, columns + 1))
    y, x = np.meshgrid(np.arange(size[0]) * rows / size[0], np.arange(size[1]) * columns / size[1], indexing="ij")
    i, j = y.astype(int), x.astype(int)
    y, x = y - i, x - j

    def dot(di: int, dj: int) -> Array:
        angle = angles[i + di, j + dj]
        return np.cos(angle) * (y - di) + np.sin(angle) * (x - dj)

    fade_y, fade_x = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (y, x))
    upper = dot(0, 0) + fade_x * (dot(0, 1) - dot(0, 0))
    lower = dot(1, 0) + fade_x * (dot(1, 1) - dot(1, 0))
    noise = (math.sqrt(2) * (upper + fade_y * (lower - upper))).astype(np.float32)
    turn = cv2.getRotationMatrix2D((size[1] / 2, size[0] / 2), rng.uniform(-90, 90), 1)
    return cv2.warpAffine(noise, turn, size[1::-1])


def recolored(texture: Array, rng: np.random.Generator) -> Array:
    """Change a texture by three of seven changes, as the public codes do with imgaug's."""
    changes: list[Callable[[Array], Array]] = [
        lambda a: cv2.LUT(a, np.clip(255 * (np.arange(256) / 255) ** rng.uniform(0.5, 2), 0, 255).astype(np.uint8)),
        lambda a: np.clip(a.astype(np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30), 0, 255).astype(np.uint8),
        lambda a: cv2.addWeighted(a, 1.5, cv2.GaussianBlur(a, (3, 3), 0), -0.5, 0),
        lambda a: np.where(a > rng.integers(32, 128), 255 - a, a),
        lambda a: a & 0xF0,
        lambda a: 255 - a,
        lambda a: cv2.warpAffine(a, cv2.getRotationMatrix2D((128, 128), rng.uniform(-45, 45), 1), a.shape[1::-1]),
    ]
    for k in rng.choice(len(changes), 3, replace=False):
        texture = changes[k](texture)
    return texture


def textured(image: Array, texture: Array, mask: Array, share: float, rng: np.random.Generator) -> Made:
    texture = recolored(texture, rng).astype(np.float32)
    shown = mask[..., None].astype(np.float32)
    below = image.astype(np.float32)
    return np.rint(below * (1 - shown) + shown * (share * texture + (1 - share) * below)).astype(np.uint8), mask


def draem(image: Array, other: Array, rng: np.random.Generator) -> Made:
    """Take the other image for a texture, which spares its decoding."""
    return textured(image, other, perlin(image.shape[:2], rng) > 0.5, 1 - rng.uniform(0, 0.8), rng)


def object_in(image: Array) -> Array:
    """Give the object (H, W), 1 or 0: the side of Otsu's threshold that the image's rim has less of."""
    _, bright = cv2.threshold(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    rim = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    return 1 - bright if rim.mean() > 0.5 else bright


def memseg(image: Array, other: Array, rng: np.random.Generator) -> Made:
    foreground = object_in(image)
    mask = (perlin(image.shape[:2], rng) > 0.5) & (foreground > 0)
    if rng.random() < 0.5:  # the image itself, its tiles shuffled
        tiles = [tile for row in np.split(image, 8) for tile in np.split(row, 8, axis=1)]
        order = rng.permutation(len(tiles)).reshape(8, 8)
        other = np.concatenate([np.concatenate([tiles[k] for k in row], axis=1) for row in order])
    return textured(image, other, mask, rng.uniform(0.15, 1), rng)


def defectmaker(image: Array, other: Array, rng: np.random.Generator) -> Made:
    """Fill a closed Bézier curve inside a rectangle, a scratch, or three small curves, with image or noise."""
    foreground = object_in(image)
    drawn = np.zeros(image.shape[:2], np.uint8)
    kind = rng.integers(3)
    for _ in range(3 if kind == 2 else 1):
        rows, columns = rectangle(image.shape, rng, ((0.02, 0.15), (0.002, 0.01), (0.002, 0.02))[kind])
        corners = rng.uniform((columns.start, rows.start), (columns.stop, rows.stop), (6, 2))
        corners = corners[np.argsort(np.arctan2(*(corners - corners.mean(0)).T))]
        middles, t = (corners + np.roll(corners, -1, 0)) / 2, np.linspace(0, 1, 20)[:, None]
        curve = [  # quadratic, from the middle of one side of the polygon to the middle of the next
            (1 - t) ** 2 * middles[k - 1] + 2 * t * (1 - t) * corners[k] + t**2 * middles[k] for k in range(6)
        ]
        cv2.fillPoly(drawn, [np.concatenate(curve).astype(np.int32)], 1)
    mask = (drawn & foreground) > 0
    moved = np.roll(image, tuple(rng.integers(0, image.shape[:2])), (0, 1))
    fill = moved if rng.random() < 0.5 else rng.integers(0, 256, image.shape).astype(np.uint8)
    share = rng.uniform(0.5, 1)
    blended = np.rint(share * fill.astype(np.float32) + (1 - share) * image).astype(np.uint8)
    return np.where(mask[..., None], blended, image), mask


REFERENCES: dict[str, Callable[[Array, Array, Any], Made]] = {
    each.__name__: each for each in (cutpaste, cutpaste_scar, cutout, confetti, fpi, nsa, draem, memseg, defectmaker)
}
