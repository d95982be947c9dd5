"""The family step by step as each paper's public code makes it, one image at a time: no step more, and none better.

Second baseline of `python -m benchmarks.augment --family`; `family_reference` has the same defects written well. Each
takes an image and another one, prepared as that code gets them, and gives the image with a defect and its label.
imgaug's changes of color and its turns are OpenCV's, since imgaug no longer runs with NumPy.

Sources: uoguelph-mlrg/Cutout, liznerski/fcdd, jemtan/FPI, hmsch/natural-synthetic-anomalies, VitjanZ/DRAEM,
TooTouch/MemSeg, ShuaiLYU/REB.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from skimage.filters import median
from skimage.morphology import disk

from tests.family_reference import cutpaste, cutpaste_scar, object_in, recolored, rectangle
from tests.reference import COLOR_JITTER

Array = np.ndarray
Both = tuple[Array, Array]


def as_tensor(image: Array) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def cutout(image: torch.Tensor, other: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Multiply a floating-point tensor (3, H, W) by a mask of ones and a rectangle of zeros."""
    mask = np.ones(image.shape[1:], np.float32)
    mask[rectangle(tuple(image.shape[1:]), rng, (0.02, 0.15))] = 0.0
    shown = torch.from_numpy(mask).expand_as(image)
    return image * shown, shown


def confetti(image: torch.Tensor, other: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw squares of 1 to 5 pixels by lists of their pixels, add them to a uint8 tensor, or take them from it."""
    height, width = image.shape[1:]
    size = torch.LongTensor((1, 3, height, width))
    corners = (torch.rand(1, 1, height, width) < 0.002).nonzero()
    sides, found, colors = torch.rand(len(corners)).mul(5).int(), [], []
    for side in range(1, 6):
        if not (sides == side - 1).any():
            continue
        near = range(-(side // 2) + (side % 2 == 0), side // 2 + 1)
        steps = torch.tensor([(0, 0, down, right) for right in near for down in near])
        pixels = corners[sides == side - 1].unsqueeze(1) + steps  # (n, side², 4)
        colors.append(torch.randint(0, 256, (3,))[:, None].repeat(1, pixels.shape[0] * len(steps)).byte())
        found.append(torch.max(torch.min(pixels.reshape(-1, 4), size - 1), torch.zeros(4, dtype=torch.int64)))
    index, color, noise = torch.cat(found), torch.cat(colors, 1), torch.zeros(1, 3, height, width)
    for channel in range(3):
        where = (index + torch.tensor((0, channel, 0, 0))).T.numpy()
        noise[tuple(where)] = color[channel] + torch.randn(len(index)) * 0
    normal = image[None].clone()
    added = ((normal.int() + noise).clamp(0, 255) - normal.int()).reshape(1, -1).sum(1) / image.numel()
    taken = ((normal.int() - noise).clamp(0, 255) - normal.int()).reshape(1, -1).sum(1) / image.numel()
    noise = -noise if added.abs() < 0.025 and taken.abs() > added.abs() else noise
    anomaly = (normal.int() + noise).clamp(0, 255).byte()
    return anomaly[0], (normal != anomaly).max(1)[0].clone().float()


def fpi(image: Array, other: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Mix whole float32 images by masks; of the two results that the code makes, the first alone."""
    height, width, _ = image.shape
    middle = [int(rng.uniform(0.1, 0.9) * side) for side in (height, width)]
    half = int(rng.integers(round(0.05 * height), round(0.2 * height)))
    top, left = (max(each - half, 0) for each in middle)
    offset, share = 1e-5, rng.uniform(0.05, 0.95)
    mask = np.zeros_like(image)
    mask[top : middle[0] + half, left : middle[1] + half] = share + offset
    patch = np.clip(np.ceil(mask), 0, 1)
    mask = mask - patch * offset
    rest, outside = patch - mask, 1 - patch
    result = image * outside + (mask * image + rest * other)
    valid = np.any(patch * image != patch * other, axis=2)
    return result, valid[..., None] * rest


def nsa(image: Array, other: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Clone one or two resized patches, then label what changed through two median filters and a logistic."""
    height, width, _ = image.shape
    mask, result = np.zeros_like(image[..., :1]), image.copy()
    for i in range(2):
        if i > 0 and not rng.integers(2):
            continue
        half = [int(np.clip((0.03 + rng.gamma(2, 0.05)) * side, 0.03 * side, 0.4 * side)) for side in (height, width)]
        middle = [rng.integers(round(0.03 * side), side - round(0.03 * side)) for side in (height, width)]
        top, left = (max(at - near, 0) for at, near in zip(middle, half, strict=True))
        bottom, right = (min(at + near, side) for at, near, side in zip(middle, half, image.shape, strict=False))
        source = other[top:bottom, left:right]
        scale = np.clip(rng.normal(1, 0.5), 0.7, 1.3)
        tall, wide = (int(np.clip(scale * n, 8, 0.8 * m)) for n, m in zip(source.shape, (height, width), strict=False))
        source = cv2.resize(source, (wide, tall))
        shown = cv2.resize(np.ones((bottom - top, right - left), np.uint8), (wide, tall))[..., None]
        y, x = rng.integers(tall // 2 + 1, height - tall // 2 - 1), rng.integers(wide // 2 + 1, width - wide // 2 - 1)
        top, left = y - tall // 2, x - wide // 2
        scaled = 255 * shown
        scaled[0], scaled[-1], scaled[:, 0], scaled[:, -1] = 0, 0, 0, 0
        centre = (left + wide - wide // 2, top + tall // 2)
        result = cv2.seamlessClone(source, result, scaled, (int(centre[0]), int(centre[1])), cv2.NORMAL_CLONE)
        mask[top : top + tall, left : left + wide] = shown
    changed = np.uint8(np.mean(np.abs(1.0 * mask * image - 1.0 * mask * result), axis=-1, keepdims=True) > 1)
    changed[..., 0] = cv2.medianBlur(changed[..., 0], 5)
    label = np.mean(np.abs(changed * image * 1.0 - changed * result * 1.0), axis=-1, keepdims=True)
    label[..., 0] = median(label[..., 0], disk(5))
    return result, changed / (1 + np.exp(-1 / 6 * (label - 20)))


def perlin(size: tuple[int, int]) -> Array:
    """Give the mask of turned Perlin noise above 0.5, from fields of gradients as large as the image."""
    cells = [2 ** int(torch.randint(0, 6, (1,)).numpy()[0]) for _ in range(2)]
    delta, repeat = (
        [c / s for c, s in zip(cells, size, strict=True)],
        [s // c for c, s in zip(cells, size, strict=True)],
    )
    grid = np.mgrid[0 : cells[0] : delta[0], 0 : cells[1] : delta[1]].transpose(1, 2, 0) % 1
    angles = 2 * math.pi * np.random.rand(cells[0] + 1, cells[1] + 1)  # noqa: NPY002 - as that code
    gradients = np.stack((np.cos(angles), np.sin(angles)), axis=-1)

    def dot(down: int, right: int) -> Array:
        corners = gradients[down : cells[0] + down, right : cells[1] + right]
        corners = np.repeat(np.repeat(corners, repeat[0], axis=0), repeat[1], axis=1)
        return (np.stack((grid[..., 0] - down, grid[..., 1] - right), axis=-1) * corners).sum(axis=-1)

    upper_left, lower_left, upper_right, lower_right = dot(0, 0), dot(1, 0), dot(0, 1), dot(1, 1)
    faded = 6 * grid**5 - 15 * grid**4 + 10 * grid**3
    left = (lower_left - upper_left) * faded[..., 0] + upper_left
    right = (lower_right - upper_right) * faded[..., 0] + upper_right
    noise = math.sqrt(2) * ((right - left) * faded[..., 1] + left)
    turn = cv2.getRotationMatrix2D((size[1] / 2, size[0] / 2), random.uniform(-90, 90), 1)
    noise = cv2.warpAffine(noise, turn, size[::-1])
    return np.where(noise > 0.5, np.ones_like(noise), np.zeros_like(noise))


def draem(image: Both, other: Both, rng: np.random.Generator) -> tuple[Array, Array]:
    """Show a texture, here the other image, decoded already, through noise; the image is float32 0–1 beforehand."""
    image, changed = image[1], recolored(other[0], rng)
    shown = np.expand_dims(perlin(image.shape[:2]), axis=2)
    texture = changed.astype(np.float32) * shown / 255.0
    beta = torch.rand(1).numpy()[0] * 0.8
    result = image * (1 - shown) + (1 - beta) * texture + beta * image * shown
    result, mask = result.astype(np.float32), shown.astype(np.float32)
    return mask * result + (1 - mask) * image, mask


def memseg(image: Array, other: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Show a texture or the image's tiles, changed and shuffled, through noise on the dark side of Otsu's threshold."""
    _, bright = cv2.threshold(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 100, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    foreground = -(bright.astype(bool).astype(int) - 1)
    mask = perlin(image.shape[:2]) * foreground
    shown = np.expand_dims(mask, axis=2)
    if rng.random() < 0.5:
        source = other.astype(np.float32)
    else:
        height, width = (side // 8 for side in image.shape[:2])
        tiles = (
            recolored(image, rng).reshape(8, height, 8, width, 3).transpose(0, 2, 1, 3, 4).reshape(64, height, width, 3)
        )
        tiles = tiles[rng.permutation(64)].reshape(8, 8, height, width, 3).transpose(0, 2, 1, 3, 4)
        source = tiles.reshape(image.shape).astype(np.float32)
    share = rng.uniform(0.15, 1)
    source = share * (shown * source) + (1 - share) * (shown * image)
    return ((-shown + 1) * image + source).astype(np.uint8), mask


def smooth_outline(corners: Array, k: float, between: int = 10) -> Array:
    """Give a closed curve of cubic Béziers through corners (n, 2), each point by itself, every other bend left out."""
    n, curve = len(corners), []
    middles = [(corners[i - 1] + corners[i]) / 2 for i in range(n)]  # before each corner
    controls = []
    for i in range(n):
        before, after = (math.dist(corners[i], corners[(i + step) % n]) for step in (-1, 1))
        split = middles[i] + (middles[(i + 1) % n] - middles[i]) * (before / (before + after))
        moved = [middle + corners[i] - split for middle in (middles[i], middles[(i + 1) % n])]
        controls.append([each + (corners[i] - each) * k for each in moved])
    for i in range(n):
        p0, p1, p2, p3 = corners[i], controls[i][1], controls[(i + 1) % n][0], corners[(i + 1) % n]
        points = [
            p0 * np.power(1 - t, 3)
            + 3 * p1 * t * np.power(1 - t, 2)
            + 3 * p2 * (1 - t) * np.power(t, 2)
            + p3 * np.power(t, 3)
            for t in np.linspace(0, 1, between + 2)
        ]
        curve += points[:1] if random.random() > 0.5 else points[:-1]
    return np.vstack(curve)


def bezier_shape(width: int, height: int) -> Array:
    """Fill such a curve through 5 to 9 random corners, stretched to a width and a height: (H, W) bool."""
    corners = np.random.randint(0, 100, (random.randint(5, 9), 2))  # noqa: NPY002 - as that code
    middle = corners.mean(0)
    outline = smooth_outline(
        np.array(sorted(corners, key=lambda p: math.atan2(p[1] - middle[1], p[0] - middle[0]))), 0.3
    )
    outline = outline - outline.min(0)
    outline = (outline / outline.max(0) * (np.array([width, height]) - 1)).astype(np.int32)
    across, down = outline.max(0) + 1
    return cv2.drawContours(np.zeros((down, across), np.uint8), [outline], -1, (255,), -1).astype(bool)


def coarse_noise(height: int, width: int, channels: int) -> Array:
    mean, change, scale = random.randrange(50, 200, 10), random.randrange(0, 50, 5), 2 ** random.randrange(3)
    small = (max(height // scale, 1), max(width // scale, 1), *[channels] * (channels > 1))
    noise = np.random.randint(max(mean - change, 0), min(mean + change + 1, 255), small)  # noqa: NPY002 - as that code
    return np.asarray(Image.fromarray(noise.astype(np.uint8)).resize((width, height)))


def random_shape(size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Give one of three: a curve in a rectangle, a small turned one, or what noise leaves of one; (h, w) bool."""
    rows, columns = rectangle(size, rng, (0.02, 0.15))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    kind = rng.integers(3)
    if kind == 1:
        shape = bezier_shape(random.randint(2, 16), random.randint(10, 25)).astype(np.uint8) * 255
        shape = np.asarray(Image.fromarray(shape).rotate(random.randint(-45, 45), expand=True))
        down, right = np.nonzero(shape)
        return shape[down.min() : down.max() + 1, right.min() : right.max() + 1] > 0
    shape = bezier_shape(width, height)
    return shape if kind == 0 else shape & (np.where(coarse_noise(*shape.shape, 1) > 138, 255, 0) > 0)


def box_on(saliency: Array, width: int, height: int) -> tuple[int, int]:
    """Give left and top of a box about a random point of a salient object, moved into the image."""
    y, x = random.choice(list(zip(*np.nonzero(np.where(saliency > 0, 255, 0).astype(np.uint8)), strict=True)))
    return (
        min(max(x - width // 2, 0), saliency.shape[1] - width),
        min(max(y - height // 2, 0), saliency.shape[0] - height),
    )


Salient = tuple[Image.Image, Array]


def defectmaker(image: Salient, other: Salient, rng: np.random.Generator) -> tuple[Image.Image, Array]:
    """Put a Bézier shape, of another image or of noise, on the salient object, which is found beforehand."""
    picture, saliency = image
    shape = random_shape(saliency.shape, rng)
    height, width = shape.shape
    left, top = box_on(saliency, width, height)
    shape = shape * (saliency[top : top + height, left : left + width] > 0)
    if rng.random() < 0.5:
        x, y = box_on(other[1], width, height)
        fill = other[0].crop((x, y, x + width, y + height))
    else:
        fill = Image.fromarray(coarse_noise(height, width, 3))
    fill = COLOR_JITTER(fill)
    share = rng.uniform(0.5, 1)
    result, above = np.array(picture, dtype=np.float16), np.array(fill, dtype=np.float16)
    if random.random() < 0.5:
        round_five = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        eroded = cv2.morphologyEx(np.array(shape, np.uint8) * 255, cv2.MORPH_ERODE, round_five)
        weight = np.array(cv2.GaussianBlur(eroded, (5, 5), 5), np.float16) / 255 * share
    else:
        weight = shape.astype(np.float16) * share
    weight = np.expand_dims(weight, axis=-1)
    box = (slice(top, top + height), slice(left, left + width))
    result[box] = weight * above + result[box] * (1 - weight)
    mask = np.zeros(saliency.shape, np.uint8)
    mask[box] = shape
    return Image.fromarray(result.astype(np.uint8)), np.where(mask > 0, 255, 0).astype(np.uint8)


PUBLIC: dict[str, tuple[Callable[[Array], Any], Callable[[Any, Any, np.random.Generator], Any]]] = {
    "cutpaste": (np.asarray, cutpaste),
    "cutpaste_scar": (np.asarray, cutpaste_scar),
    "cutout": (lambda image: as_tensor(image) / 255, cutout),
    "confetti": (as_tensor, confetti),
    "fpi": (lambda image: image.astype(np.float32), fpi),
    "nsa": (np.asarray, nsa),
    "draem": (lambda image: (image, image.astype(np.float32) / 255), draem),
    "memseg": (np.asarray, memseg),
    "defectmaker": (lambda image: (Image.fromarray(image), object_in(image)), defectmaker),
}
