"""Masks: which files are some, what is drawn in them, and whose they are."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fastcutpaste.images.decode import in_threads, opened
from fastcutpaste.images.tree import holds_masks, images_in, natural, page_of, some_of, stem_of

Mask: TypeAlias = Path | tuple[Path, ...]  # one file, or several of one image, which are united

_LOSSY = (".jpg", ".jpeg", ".webp")
_NAMES = ("mask", "masks", "label", "labels", "gt", "ground_truth", "groundtruth", "seg", "annotation")
_ENDING = re.compile(rf"^(.+?)[ ._-]({'|'.join(_NAMES)})$", re.IGNORECASE)
_BEGINNING = re.compile(rf"^({'|'.join(_NAMES)})[ ._-](.+)$", re.IGNORECASE)
_FEW = 16  # values that a drawing with classes has at most, or colors
_FRINGE = 0.1  # share of pixels between the two values of a drawing: 0.02 at most in 392 masks, 0.34 at least in photos
_NEAR = 16  # of 255, that is no other value: what JPEG once left


def masks_among(paths: Sequence[Path], root: Path) -> dict[Path, Path | None]:
    """Find the masks among image files: by their name and by what is in them, never by one alone.

    A name says mask as x_mask, x-label, x_GT, mask_x, as that of another image with another extension (a.jpg, a.png),
    or by the folder it lies in (masks, ground_truth). Then it is a mask if its pixels have two values, or, where the
    name itself says so, a few. A file that cannot be read is no mask: reading it as an image says what is wrong.

    Args:
        paths: image files of one tree.
        root: of the tree; names of folders above it say nothing.

    Returns:
        The image of each mask, in its folder; None where there is none.
    """
    alike: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        alike.setdefault((path.parent, stem_of(path)), []).append(path)
    named = {path for path in paths if name_of_image(path) is not None or _in_folder_of_masks(path, root)}
    twins = {path for group in alike.values() if len(group) > 1 for path in group} - named
    asked = [path for path in paths if path in named or path in twins]
    drawn = set()
    for path, is_one in zip(asked, in_threads("masks", lambda p: is_drawing(p, p in named), asked, None, False),
                            strict=True):  # fmt: skip
        if is_one:
            drawn.add(path)
    found = drawn & named
    for group in alike.values():
        if len(group) > 1:
            ordered = sorted(group, key=lambda path: (path.suffix.lower() not in _LOSSY, path in drawn, natural(path)))
            found |= {path for path in ordered[1:] if path in drawn and path.suffix.lower() not in _LOSSY}
    owners: dict[Path, Path | None] = {}
    for path in paths:
        if path in found:
            own = name_of_image(path)
            group = alike.get((path.parent, own if own is not None else stem_of(path)), [])
            owners[path] = next((other for other in group if other not in found), None)
    return owners


def name_of_image(path: Path) -> str | None:
    """Give the stem of the image that a mask's name speaks of: x of x_mask.png; None if it is no name of a mask."""
    stem = stem_of(path)
    if match := _ENDING.match(stem):
        return match[1]
    match = _BEGINNING.match(stem)
    return match[2] if match else None


def _in_folder_of_masks(path: Path, root: Path) -> bool:
    return any(holds_masks(part) for part in path.relative_to(root).parts[:-1])


def is_drawing(path: Path, classes: bool) -> bool:
    """Tell whether an image has two values a channel, as a mask has, or, with `classes`, a few."""
    try:
        written = page_of(path)[0].stat()
    except OSError:  # a broken link
        return False
    return _is_drawing(path, classes, written.st_mtime_ns, written.st_size)


@lru_cache(100_000)  # a folder is looked through for each part of it, and a thousand masks take seconds
def _is_drawing(path: Path, classes: bool, _when: int, _bytes: int) -> bool:
    try:
        with opened(path) as image:
            values = np.asarray(image if image.mode[0] in "LIF" and image.mode != "P" else _in_color(image))
    except ValueError:
        return False
    channels = values.reshape(len(values), values.shape[1], -1)  # (H, W, C)
    return all(_is_drawn(channels[..., i], classes) for i in range(channels.shape[2]))


def _is_drawn(values: NDArray[Any], classes: bool) -> bool:
    low, high = float(values.min()), float(values.max())
    near = _NEAR if values.dtype == np.uint8 else (high - low) / _NEAR
    between = (values > low + near) & (values < high - near)
    return bool(between.mean() <= _FRINGE) or (classes and len(np.unique(values)) <= _FEW)


def _in_color(image: Image.Image) -> Image.Image:
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read what is drawn in a mask, bool (H, W).

    Grey: above half of the range, which drops the grey fringe that JPEG once left. If a lossless mask has no such
    pixel, its numbers count classes (0 and 1, or 0 to the number of classes): every pixel that is not 0. In color: what
    is not black. Transparent in part: what is opaque, if there is but one color, or none of it black.

    Raises:
        ValueError: the file cannot be read, or what is drawn cannot be known; with what was seen.
    """
    with opened(path) as image:
        lossy = image.format not in ("BMP", "GIF", "PNG", "TIFF")
        indices = np.asarray(image) if image.mode == "P" else None
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        values = np.asarray(image if image.mode[0] in "LIF" and image.mode not in ("LA", "La") else _in_color(image))
    if values.ndim == 3 and values.shape[2] == 4:
        alpha = values[..., 3]
        if int(alpha.min()) < 255:
            return _opaque(path, values[..., :3], alpha)
        values = values[..., :3]
    if values.ndim == 3:
        if bool((values[..., :1] == values).all()):
            values = values[..., 0]  # (H, W, 3) -> (H, W)
        else:
            return _colored(path, values, lossy)
    if indices is not None and indices.shape == values.shape and values.min() == values.max() and indices.any():
        values = indices  # all colors of the palette are one: the numbers were drawn
    return _grey(path, values, lossy)


def _opaque(path: Path, colors: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.bool_]:
    """Give the opaque pixels of (H, W, 3) colors, unless black among them could be background as well."""
    opaque = alpha > 127
    seen = colors[opaque].max(axis=1) if opaque.any() else np.zeros(0, np.uint8)  # (pixels,)
    black, bright = int((seen <= _NEAR).sum()), int((seen > _NEAR).sum())
    if black and bright:
        raise _unknown(path, f"{_share(~opaque)} transparent, {black / opaque.size:.1%} black and "
                             f"{bright / opaque.size:.1%} in other colors")  # fmt: skip
    if not opaque.any() and len(np.unique(colors.reshape(-1, 3), axis=0)) > 1:
        raise _unknown(path, "all pixels transparent, in several colors")
    return opaque


def _colored(path: Path, values: NDArray[Any], lossy: bool) -> NDArray[np.bool_]:
    """Give what is not black of (H, W, 3): of few colors all the others, of many those above half."""
    brightest = values.max(axis=2)
    colors, counts = np.unique(values.reshape(-1, 3), axis=0, return_counts=True)
    if int(brightest.min()) > 127 if lossy or len(colors) > _FEW else bool(brightest.all()):
        common = ", ".join(f"{tuple(colors[i].tolist())} on {counts[i] / brightest.size:.1%}"
                           for i in np.argsort(-counts)[:3].tolist())  # fmt: skip
        raise _unknown(path, f"no black pixel, but {common}")
    drawn: NDArray[np.bool_] = brightest > 127 if lossy or len(colors) > _FEW else brightest > 0
    return drawn


def _grey(path: Path, values: NDArray[Any], lossy: bool) -> NDArray[np.bool_]:
    """Give what is drawn in grey values (H, W) of any type."""
    top = values.max() if values.size else 0
    if values.dtype.kind == "f":
        half: float = 0.5 if top <= 1 else 127
    elif values.dtype.kind == "b":
        half = 0
    else:
        half = np.iinfo(values.dtype).max // 2
        half = 127 if 127 < top <= 255 else half  # 8 bits, written as more
    above: NDArray[np.bool_] = values > half
    if lossy:
        if 2 * _NEAR < top <= half:
            raise _unknown(path, f"a JPEG of grey values up to {top}, none above half")
        return above
    if above.any():
        numbers = np.unique(values)
        if len(numbers) < 4 and {1, 255} <= set(numbers.tolist()) and values.dtype.kind in "iu":
            seen = ", ".join(map(str, numbers.tolist()))
            raise _unknown(path, f"grey values {seen}: 1 could be a defect, and 255 what is to be ignored")
        return above
    if int(top) and values.min() > 0:
        raise _unknown(path, f"no black pixel, but grey values {values.min()} to {top}, none above half")
    drawn: NDArray[np.bool_] = values > 0
    return drawn


def _unknown(path: Path, came: str) -> ValueError:
    return ValueError(f"{path}: a mask with the defect in white, or in color, on black required, got {came}")


def _share(pixels: NDArray[np.bool_]) -> str:
    return f"{pixels.mean():.1%}"


def pair_masks(images: Sequence[Path], folder: Path, among: Path) -> list[Mask]:
    """Find each image's mask in a folder; every mask must be used just once.

    Of an image x: x_mask.*, or another name that says mask, before x.*; or all that lies in a folder x. Images that lie
    deeper in `among` have their masks as deep.

    Raises:
        ValueError: an image without a mask, a mask without an image, two for one, one for two.
    """
    available: dict[tuple[Path, str], Path] = {}
    for mask in images_in(folder) if folder.is_dir() else ():
        other = available.setdefault((mask.parent.relative_to(folder), stem_of(mask)), mask)
        if other != mask:
            raise ValueError(f"{folder}: one mask per image required, got {other} and {mask.name}")
    called: dict[tuple[Path, str], list[Path]] = {}
    several: dict[Path, list[Path]] = {}  # by the folder they lie in
    for (where, _), mask in available.items():
        if (name := name_of_image(mask)) is not None:
            called.setdefault((where, name), []).append(mask)
        several.setdefault(where, []).append(mask)
    owners: dict[Path, Path] = {}
    paired: list[Mask] = []
    for image in images:
        where, stem = image.parent.relative_to(among), stem_of(image)
        found = called.get((where, stem), []) or several.get(where / stem, [])
        if not found and (where, stem) in available:
            found = [available[where, stem]]
        if not found:
            required = f"{image.stem}_mask.* or {image.stem}.*"
            raise ValueError(f"{folder}: a mask {required} required in {folder}, got none for {image}")
        if found is called.get((where, stem)) and len(found) > 1:
            raise ValueError(f"{folder}: one mask per image required, got {found[0]} and {found[1].name}")
        for mask in found:
            if mask in owners:
                raise ValueError(
                    f"{folder}: a mask of its own per image required, {owners[mask]} and {image} share {mask}"
                )
            owners[mask] = image
        paired.append(found[0] if len(found) == 1 else tuple(found))
    if left := [mask for mask in available.values() if mask not in owners]:
        raise ValueError(f"{folder}: an image for each mask required, got none in {among} for {some_of(left)}")
    return paired
