"""The paste op written slowly and plainly, one image at a time: the tests' reference and the benchmark's baseline.

Nothing here is imported from the package. `paste_reference` follows the stated geometry pixel by pixel in float64;
`paste_with_pil` is the upright case in two Pillow calls; `three_way_pil` is the per-image pipeline that CutPaste is
usually trained with, and the honest baseline for speed.
"""

import itertools
import math
import random
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

GREY = np.array([0.2989, 0.587, 0.114])
STEPS = ("brightness", "contrast", "saturation", "hue")
# A source coordinate this close to the border between two pixels may fall on either side in float32.
TIE = 2e-4


class OnePatch(NamedTuple):
    """One image's patch in Python numbers; the fields mean what they mean in `Patches`."""

    source_y: int
    source_x: int
    y: int
    x: int
    height: int
    width: int
    angle: float = 0.0
    jitter: dict[str, float] | None = None
    feather: float = 0.0


def one_patch(patches: Any, b: int) -> OnePatch:
    """Read image b's patch out of batched `Patches`."""
    numbers = {name: getattr(patches, name)[b].item() for name in OnePatch._fields[:-2]}
    jitter = None
    if patches.jitter is not None:
        jitter = {name: getattr(patches.jitter, name)[b].item() for name in (*STEPS, "order")}
    feather = 0.0 if patches.feather is None else patches.feather[b].item()
    return OnePatch(**numbers, jitter=jitter, feather=feather)


def source_position(patch: OnePatch, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn every pixel's centre back into the patch: (height, width) each, down and across from the patch's edges."""
    sine, cosine = math.sin(math.radians(patch.angle)), math.cos(math.radians(patch.angle))
    if patch.angle % 90 == 0:
        sine, cosine = round(sine), round(cosine)
    i, j = np.mgrid[0:height, 0:width].astype(np.float64)
    dy = i - (patch.y + (patch.height - 1) / 2)
    dx = j - (patch.x + (patch.width - 1) / 2)
    column = dx * cosine - dy * sine + (patch.width - 1) / 2 + 0.5
    row = dx * sine + dy * cosine + (patch.height - 1) / 2 + 0.5
    return row, column


def source_pixels(patch: OnePatch, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the pixel of the patch that every pixel of an image comes from.

    Returns:
        row, column: (height, width) int, counted from the patch's own corner; inside: (height, width) bool;
        tie: (height, width) bool, pixels whose source lies within `TIE` of a border: float32 may decide either way.
    """
    row, column = source_position(patch, height, width)
    tie = (np.abs(row - np.rint(row)) < TIE) | (np.abs(column - np.rint(column)) < TIE)
    row, column = np.floor(row).astype(int), np.floor(column).astype(int)
    inside = (row >= 0) & (row < patch.height) & (column >= 0) & (column < patch.width)
    return row, column, inside, tie


def shift_hue(pixels: np.ndarray, turns: float) -> np.ndarray:
    """Shift the HSV hue of (..., 3) pixels, keeping each pixel's largest and smallest value."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    high, low = pixels.max(axis=-1), pixels.min(axis=-1)
    spread = np.where(high > low, high - low, 1.0)
    sector = np.select(
        [high == red, high == green], [(green - blue) / spread, 2 + (blue - red) / spread], 4 + (red - green) / spread
    )
    sector = (sector + 6 * turns) % 6  # 0 red, 2 green, 4 blue
    shifted = []
    for offset in (5, 3, 1):  # red, green, blue
        k = (offset + sector) % 6
        shifted.append(high - (high - low) * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.stack(shifted, axis=-1)


def grey(pixels: np.ndarray) -> np.ndarray:
    """Give the (h, w, 1) grey of (h, w, C) pixels: weighted for three channels, their mean otherwise."""
    return (pixels @ GREY if pixels.shape[-1] == 3 else pixels.mean(axis=-1))[..., None]


def step_orders(order: float) -> list[tuple[str, ...]]:
    """List every order of the four steps that the number `order` in [0, 1) stands for."""
    before_saturation = order < 1 / 2
    before_contrast = order < 1 / 3 or order > 5 / 6
    return [
        steps
        for steps in itertools.permutations(STEPS)
        if (steps.index("hue") < steps.index("saturation")) == before_saturation
        and (steps.index("hue") < steps.index("contrast")) == before_contrast
    ]


def jitter_reference(pixels: np.ndarray, jitter: dict[str, float], steps: tuple[str, ...] | None = None) -> np.ndarray:
    """Apply the color steps one after another to (h, w, C) float64 pixels, neither clamped nor rounded."""
    for step in steps or step_orders(jitter["order"])[0]:
        factor = jitter[step]
        if step == "brightness":
            pixels = factor * pixels
        elif step == "contrast":
            pixels = factor * pixels + (1 - factor) * grey(pixels).mean()
        elif step == "saturation" and pixels.shape[-1] == 3:
            pixels = factor * pixels + (1 - factor) * grey(pixels)
        elif step == "hue" and pixels.shape[-1] == 3:
            pixels = shift_hue(pixels, factor)
    return pixels


def paste_reference(
    image: np.ndarray, patch: OnePatch, fill: np.ndarray | None = None, steps: tuple[str, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut, jitter, turn and paste one patch of one image.

    Args:
        image: (H, W, C), uint8 0–255 or floating 0–1.
        patch: the patch, in pixels and degrees.
        fill: None to cut from the image itself; (H, W, C) to cut from another; (1, 1, C) for a color.
        steps: the order of the color steps; by default one that `patch.jitter["order"]` stands for.

    Returns:
        The pasted image, shape and dtype of `image`, and the (H, W) bool mask.
    """
    source = np.broadcast_to(image if fill is None else fill, image.shape)
    if fill is None or fill.shape == image.shape:
        source = source[patch.source_y :, patch.source_x :]
    pixels = source[: patch.height, : patch.width]  # (h, w, C)
    if patch.jitter is not None:
        pixels = jitter_reference(pixels.astype(np.float64), patch.jitter, steps)
        pixels = np.rint(pixels.clip(0, 255)) if image.dtype == np.uint8 else pixels.clip(0, 1)
    row, column, inside, _ = source_pixels(patch, *image.shape[:2])
    values = pixels[row[inside], column[inside]].astype(np.float64)  # (n, C)
    if patch.feather > 0:
        down, across = (position[inside] for position in source_position(patch, *image.shape[:2]))
        edge = np.min([down, patch.height - down, across, patch.width - across], axis=0)
        share = np.minimum(edge / patch.feather, 1)[:, None]  # (n, 1)
        values = image[inside] * (1 - share) + values * share
    pasted = image.copy()
    pasted[inside] = (np.rint(values) if image.dtype == np.uint8 else values).astype(image.dtype)
    return pasted, inside


def paste_with_pil(image: Image.Image, patch: OnePatch) -> Image.Image:
    """Paste an upright patch without jitter as Pillow does it."""
    right, bottom = patch.source_x + patch.width, patch.source_y + patch.height
    pasted = image.copy()
    pasted.paste(image.crop((patch.source_x, patch.source_y, right, bottom)), (patch.x, patch.y))
    return pasted


COLOR_JITTER = transforms.ColorJitter(0.1, 0.1, 0.1, 0.1)  # draws from torch's own generator
TO_NORMALIZED = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
)


def random_crop(image: Image.Image, height: int, width: int, rng: random.Random) -> Image.Image:
    """Cut a rectangle from a uniform place of the image."""
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def cutpaste_pil(image: Image.Image, rng: random.Random) -> Image.Image:
    """Move one jittered rectangle, 2–15 % of an RGB image, to another place."""
    area = rng.uniform(0.02, 0.15) * image.width * image.height
    aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
    height = min(image.height, max(1, round(math.sqrt(area * aspect))))
    width = min(image.width, max(1, round(math.sqrt(area / aspect))))
    patch = COLOR_JITTER(random_crop(image, height, width, rng))
    pasted = image.copy()
    pasted.paste(patch, (rng.randint(0, image.width - width), rng.randint(0, image.height - height)))
    return pasted


def scar_pil(image: Image.Image, rng: random.Random) -> Image.Image:
    """Move one jittered strip, 2–16 px wide and 10–25 px long, turned by up to 45° either way, of an RGB image."""
    width, length = rng.randint(2, 16), rng.randint(10, 25)
    scar = COLOR_JITTER(random_crop(image, length, width, rng)).convert("RGBA")
    scar = scar.rotate(rng.uniform(-45, 45), expand=True)
    pasted = image.copy()
    place = rng.randint(0, image.width - scar.width), rng.randint(0, image.height - scar.height)
    pasted.paste(scar.convert("RGB"), place, mask=scar.getchannel("A"))
    return pasted


def three_way_pil(image: Image.Image, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give one RGB image, its CutPaste and its scar, each a normalised (3, H, W) tensor."""
    return TO_NORMALIZED(image), TO_NORMALIZED(cutpaste_pil(image, rng)), TO_NORMALIZED(scar_pil(image, rng))
