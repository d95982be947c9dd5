"""Draw → place → paste: the whole of CutPaste as three pure functions on batches.

`draw` is the only randomness, `place_*` turns its numbers into `Patches`, `paste` moves the pixels. A method of the
family is a choice of mask (an upright or a turned rectangle) × fill (the image itself, another image, a color).
Source of the method: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", 2021.
"""

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastcutpaste.checks import Range, check_images, check_range, memory_format_of
from fastcutpaste.color import Jitter, JitterStrength, greys, place_jitter, recolor, rotate_hue

DRAWS = 13  # uniform numbers a patch: height/width 2, source 2, destination 2, angle, jitter 5, applied or not
AspectDistribution = Literal["log_uniform", "two_uniforms"]


class Patches(NamedTuple):
    """Hold one patch per image; every field is a tensor of shape (B,), lengths and positions in pixels."""

    source_y: Tensor  # int64, top of the upright rectangle that is cut out
    source_x: Tensor  # int64, its left
    y: Tensor  # int64, top of the destination rectangle before it is turned about its centre
    x: Tensor  # int64, its left
    height: Tensor  # int64, 0: nothing is pasted
    width: Tensor  # int64
    angle: Tensor  # float32, degrees, counter-clockwise as the viewer sees it
    jitter: Jitter | None = None  # None: pixels are copied unchanged

    def map(self, change: Callable[[Tensor], Tensor]) -> "Patches":
        """Give the patches with `change` applied to every field, those of the jitter included."""
        jitter = None if self.jitter is None else self.jitter.map(change)
        return Patches._make([*(change(field) for field in self[:-1]), jitter])


class Pasted(NamedTuple):
    """Hold augmented images (B, C, H, W) and the mask (B, 1, H, W), bool, of the pixels that were pasted."""

    images: Tensor
    mask: Tensor


def draw(batch: int, device: torch.device | str, generator: torch.Generator | None = None) -> Tensor:
    """Draw the random numbers of a batch of patches.

    Args:
        batch: B, number of images.
        device: where the numbers are made; nothing passes through the host.
        generator: source of randomness on that device; the device's default generator if None.

    Returns:
        (B, DRAWS) float32, uniform in [0, 1).
    """
    return uniform((batch, DRAWS), device, generator)


def uniform(shape: tuple[int, ...], device: torch.device | str, generator: torch.Generator | None = None) -> Tensor:
    """Draw float32 numbers of any shape, uniform in [0, 1), as `torch.rand` does."""
    # torch.rand(generator=…), None included, fails under torch.compile(fullgraph=True) once the batch size has changed.
    return torch.empty(shape, device=device, dtype=torch.float32).uniform_(generator=generator)


def place_cutpaste(
    draws: Tensor,
    height: int,
    width: int,
    *,
    area: Range = (0.02, 0.15),
    aspect: Range = (0.3, 3.3),
    aspect_distribution: AspectDistribution = "log_uniform",
    jitter: JitterStrength = 0.1,
) -> Patches:
    """Place one upright rectangle per image, cut and pasted at uniform positions fully inside it.

    Args:
        draws: (B, DRAWS) uniform numbers in [0, 1), from `draw`.
        height: H of the images, pixels.
        width: W of the images, pixels.
        area: smallest and largest patch area, fractions of the image; sides are cut to the image where they exceed it.
        aspect: smallest and largest height : width of the patch.
        aspect_distribution: "log_uniform" over the whole range, or "two_uniforms": below 1 or above 1 with equal
            chance, uniform in each half.
        jitter: largest change of brightness, contrast, saturation (factors 1 ± jitter) and hue (turns, at most 0.5),
            one number for all four or one for each.

    Returns:
        Patches with angle 0.

    Raises:
        ValueError: a range upside down or out of bounds, draws of another shape.
    """
    _check_draws("place_cutpaste", draws, height, width)
    check_range("place_cutpaste", "area", area, 0.0, 1.0)
    check_range("place_cutpaste", "aspect", aspect, 1e-6, 1e6)
    areas = _between(draws[:, 0], area) * (height * width)
    if aspect_distribution == "log_uniform":
        aspects = torch.exp(_between(draws[:, 1], (math.log(aspect[0]), math.log(aspect[1]))))
    elif aspect_distribution == "two_uniforms":
        if not aspect[0] <= 1 <= aspect[1]:
            raise ValueError(
                f"place_cutpaste: aspect with low <= 1 <= high required for 'two_uniforms', got {tuple(aspect)}"
            )
        low, high = draws[:, 1] * 2, draws[:, 1] * 2 - 1  # each uniform in [0, 1) on its half of the draws
        aspects = torch.where(low < 1, _between(low, (aspect[0], 1.0)), _between(high, (1.0, aspect[1])))
    else:
        raise ValueError(
            f"place_cutpaste: aspect_distribution 'log_uniform' or 'two_uniforms' required, got {aspect_distribution!r}"
        )
    heights = (areas * aspects).sqrt().round().clamp(1, height).long()
    widths = (areas / aspects).sqrt().round().clamp(1, width).long()
    return Patches(
        source_y=_inside(draws[:, 2], height - heights),
        source_x=_inside(draws[:, 3], width - widths),
        y=_inside(draws[:, 4], height - heights),
        x=_inside(draws[:, 5], width - widths),
        height=heights,
        width=widths,
        angle=torch.zeros_like(areas),
        jitter=place_jitter(draws[:, 7:12], jitter),
    )


def place_scar(
    draws: Tensor,
    height: int,
    width: int,
    *,
    scar_width: Range = (2, 16),
    scar_length: Range = (10, 25),
    rotation: Range = (-45, 45),
    reference: int | None = 256,
    jitter: JitterStrength = 0.1,
) -> Patches:
    """Place one thin strip per image, cut upright and pasted turned, both fully inside the image.

    Args:
        draws: (B, DRAWS) uniform numbers in [0, 1), from `draw`.
        height: H of the images, pixels.
        width: W of the images, pixels.
        scar_width: thinnest and thickest scar, pixels of an image whose shorter side is `reference`.
        scar_length: shortest and longest scar, the same pixels.
        rotation: smallest and largest angle, degrees counter-clockwise.
        reference: image side the lengths above refer to, scaled with the shorter side; None: pixels as they are.
        jitter: as in `place_cutpaste`.

    Returns:
        Patches with a turned destination. In an image smaller than the scar the strip is cut to the image first.

    Raises:
        ValueError: a range upside down or out of bounds, draws of another shape.
    """
    _check_draws("place_scar", draws, height, width)
    check_range("place_scar", "scar_width", scar_width, 0.0, 1e6)
    check_range("place_scar", "scar_length", scar_length, 0.0, 1e6)
    check_range("place_scar", "rotation", rotation, -360.0, 360.0)
    if reference is not None and reference < 1:
        raise ValueError(f"place_scar: reference of at least 1 pixel, or None, required, got {reference}")
    scale = 1.0 if reference is None else min(height, width) / reference
    heights = (_between(draws[:, 0], scar_length) * scale).round().clamp(1, height).long()
    widths = (_between(draws[:, 1], scar_width) * scale).round().clamp(1, width).long()
    angle = _between(draws[:, 6], rotation)
    beyond_y, beyond_x = turned_reach(heights, widths, angle)
    return Patches(
        source_y=_inside(draws[:, 2], height - heights),
        source_x=_inside(draws[:, 3], width - widths),
        y=_inside(draws[:, 4], height - heights - 2 * beyond_y) + beyond_y,
        x=_inside(draws[:, 5], width - widths - 2 * beyond_x) + beyond_x,
        height=heights,
        width=widths,
        angle=angle,
        jitter=place_jitter(draws[:, 7:12], jitter),
    )


def turned_reach(height: Tensor, width: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give how far a turned patch reaches beyond its upright rectangle on each side, down (B,) and across (B,).

    In whole pixels; negative where the turned patch is the smaller one.
    """
    cos, sin = angle.deg2rad().cos().abs(), angle.deg2rad().sin().abs()
    beyond_y = ((height * cos + width * sin - height) / 2).ceil().long()
    beyond_x = ((height * sin + width * cos - width) / 2).ceil().long()
    return beyond_y, beyond_x


def paste(images: Tensor, patches: Patches, fill: Tensor | None = None) -> Pasted:
    """Paste one patch into each image.

    Turned patches are read by inverse mapping, nearest pixel, so that no corner is left black. Colour jitter follows
    torchvision's ColorJitter on the patch alone (contrast about the patch's own mean grey), except that values are
    clamped, and for uint8 rounded, once after the four steps instead of after each.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1; never written.
        patches: one patch per image, fields of shape (B,) on the images' device.
        fill: what is pasted: None, the image itself; (B, C, H, W), other images to cut from; (B, C, 1, 1), a color.

    Returns:
        Images of the same shape, dtype, device and memory format, and the mask of the pasted pixels. With three
        channels all four steps of the jitter apply; otherwise brightness and contrast, grey being the channel mean.

    Raises:
        TypeError: images neither uint8 nor floating point.
        ValueError: shapes or devices that do not fit.

    Cost: on a GPU and under `torch.compile` no host sync, no loop over B, each byte read and written once (and the
        images read a second time for the contrast mean). On a CPU in eager mode patches are copied slice by slice:
        only the pasted pixels are computed, 0.4 against 13 ms an image of 3 × 256² on one core.
    """
    check_images("paste", images)
    _check_patches(images, patches, fill)
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        return _paste_slices(images, patches, fill)
    return _paste_grid(images, patches, fill)


def random_crops(images: Tensor, size: int | tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """Cut one crop out of each image, at a uniformly drawn place fully inside.

    Args:
        images: (B, C, H, W), any type.
        size: (height, width) of the crops, or one number for both, at most the images' size.
        generator: on the images' device.

    Returns:
        Crops, (B, C, height, width), a new tensor of the images' type, device and memory format.

    Raises:
        ValueError: images of another shape, a size below 1 or above the images'.

    Cost:
        One draw, one gather: the crops are read and written once, nothing is synchronised. The gradient to `images`
        would be as large as all possible crops together, so crop data, not features.
    """
    height, width = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    if not isinstance(height, int) or not isinstance(width, int):
        raise TypeError(f"random_crops: a size of one whole number or (height, width) required, got {size!r}")
    if images.ndim != 4:
        raise ValueError(f"random_crops: images (B, C, H, W) required, got {tuple(images.shape)}")
    rows, columns = images.shape[2] - height + 1, images.shape[3] - width + 1  # places along each side
    if min(rows, columns, height, width) < 1:
        came = f"{height}×{width} from {images.shape[2]}×{images.shape[3]}"
        raise ValueError(f"random_crops: a crop of at least 1×1 and at most the image required, got {came}")
    drawn = uniform((len(images), 2), images.device, generator)
    # The largest float32 below 1 times a whole number below 2**24 stays below that number, so no clamp is needed.
    top, left = (drawn[:, 0] * rows).long(), (drawn[:, 1] * columns).long()  # (B,)
    windows = images.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, rows, columns, height, width), a view
    return windows[torch.arange(len(images), device=images.device), :, top, left]  # (B, C, height, width)


def translate(images: Tensor, shift: Tensor) -> Tensor:
    """Shift each image, mirroring what the shift uncovers.

    Args:
        images: (B, C, H, W), any dtype.
        shift: (B, 2) down and right, fractions of the height and the width, -1 to 1.

    Returns:
        (B, C, H, W), memory format kept; shifts are rounded to whole pixels.
    """
    height, width = images.shape[-2:]
    down, right = (shift[:, 0] * height).round().long(), (shift[:, 1] * width).round().long()
    rows = torch.arange(height, device=images.device).view(-1, 1) - down.view(-1, 1, 1, 1)  # (B, 1, H, 1)
    columns = torch.arange(width, device=images.device) - right.view(-1, 1, 1, 1)  # (B, 1, 1, W)
    shifted = _pixels_at(images, _mirror(rows, height), _mirror(columns, width))
    return shifted.contiguous(memory_format=memory_format_of(images))


def _mirror(position: Tensor, length: int) -> Tensor:
    """Fold positions from -length to 2·length - 1 back into 0 … length - 1, the edge pixel being seen twice."""
    position = torch.where(position < 0, -1 - position, position)
    return torch.where(position >= length, 2 * length - 1 - position, position)


def _paste_grid(images: Tensor, patches: Patches, fill: Tensor | None) -> Pasted:
    """Paste by computing every pixel of the batch: no sync, no loop, few kernels when compiled."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    patches = patches.map(lambda field: field.view(-1, 1, 1, 1))  # fields (B, 1, 1, 1)
    row, column, mask = _locate(rows, columns, patches)  # (B, 1, H, W)
    source = images if fill is None else fill
    is_color = source.shape[-2:] == (1, 1) != images.shape[-2:]
    row = (patches.source_y + row).clamp(0, height - 1)
    column = (patches.source_x + column).clamp(0, width - 1)
    pixels = source if is_color else _pixels_at(source, row, column)  # (B, C, H, W), a color (B, C, 1, 1)
    if patches.jitter is not None:
        values = source.to(_compute_dtype(images))
        _, grey = greys(values, rotate_hue(values, patches.jitter.hue), patches.jitter)  # (B, 1, H, W)
        if not is_color:
            upright = patches._replace(y=patches.source_y, x=patches.source_x, angle=torch.zeros_like(patches.angle))
            cut_out = _locate(rows, columns, upright)[2]
            count = (patches.height * patches.width).clamp(min=1)
            grey = torch.where(cut_out, grey, 0).sum((-2, -1), keepdim=True) / count  # (B, 1, 1, 1)
        values = pixels.to(values.dtype)
        rotated = rotate_hue(values, patches.jitter.hue)
        pixels = recolor(rotated, greys(values, rotated, patches.jitter)[0], grey, patches.jitter, images.dtype)
    pasted = torch.where(mask, pixels, images)
    return Pasted(pasted.contiguous(memory_format=memory_format_of(images)), mask)


def _paste_slices(images: Tensor, patches: Patches, fill: Tensor | None) -> Pasted:
    """Paste image by image, touching the patch's pixels alone."""
    height, width = images.shape[-2:]
    source = images if fill is None else fill.expand(-1, -1, height, width)
    pasted = images.clone()
    mask = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    placements = zip(*(field.tolist() for field in patches[:-1]), strict=True)
    jitters = None if patches.jitter is None else list(zip(*(f.tolist() for f in patches.jitter), strict=True))
    for b, (source_y, source_x, y, x, h, w, angle) in enumerate(placements):
        if h == 0 or w == 0:
            continue
        patch = source[b, :, source_y : source_y + h, source_x : source_x + w]  # (C, h, w)
        if jitters is not None:
            jitter = Jitter._make(jitters[b])
            values = patch.to(_compute_dtype(images))
            rotated = rotate_hue(values, jitter.hue)
            grey, contrast_grey = greys(values, rotated, jitter)
            patch = recolor(rotated, grey, contrast_grey.mean((-2, -1), keepdim=True), jitter, images.dtype)
        beyond = 0 if angle == 0 else math.ceil((math.hypot(h, w) - min(h, w)) / 2) + 1  # farthest a corner can turn to
        top, bottom = max(y - beyond, 0), min(y + h + beyond, height)
        left, right = max(x - beyond, 0), min(x + w + beyond, width)
        if top >= bottom or left >= right:
            continue  # wholly outside
        target = pasted[b, :, top:bottom, left:right]
        if angle == 0:
            target.copy_(patch[:, top - y : bottom - y, left - x : right - x])
            mask[b, :, top:bottom, left:right] = True
        else:
            rows, columns = torch.arange(top, bottom).view(-1, 1), torch.arange(left, right).view(1, -1)
            row, column, inside = _locate(rows, columns, patches.map(itemgetter(b)))
            turned = patch[:, row.clamp(0, h - 1), column.clamp(0, w - 1)]  # (C, rows, columns)
            target.copy_(torch.where(inside, turned, target))
            mask[b, 0, top:bottom, left:right] = inside
    return Pasted(pasted, mask)


def _locate(rows: Tensor, columns: Tensor, patches: Patches) -> tuple[Tensor, Tensor, Tensor]:
    """Map destination pixels back into the upright patch: its row, its column, and whether they lie inside it."""
    half_height, half_width = (patches.height - 1) / 2, (patches.width - 1) / 2
    radians = patches.angle.deg2rad()
    cos, sin = radians.cos(), radians.sin()
    # float32 gives cos 90° = -4e-8: where height + width is odd every pixel is then a tie, and the patch is torn
    cos = torch.where(cos.abs() < 1e-6, 0, cos)
    dy, dx = rows - patches.y - half_height, columns - patches.x - half_width
    row = (dx * sin + dy * cos + half_height + 0.5).floor().long()
    column = (dx * cos - dy * sin + half_width + 0.5).floor().long()
    inside = (row >= 0) & (row < patches.height) & (column >= 0) & (column < patches.width)
    return row, column, inside


def _pixels_at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read (B, C, h, w) from images at rows and columns that broadcast to (B, 1, h, w)."""
    batch = torch.arange(images.shape[0], device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return images[batch, channel, rows, columns]


def _compute_dtype(images: Tensor) -> torch.dtype:
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def _between(drawn: Tensor, values: Range) -> Tensor:
    return values[0] + drawn * (values[1] - values[0])


def _inside(drawn: Tensor, room: Tensor) -> Tensor:
    """Turn uniform numbers (B,) into integers 0 … room, evenly; a negative room counts as 0."""
    room = room.clamp(min=0)
    return torch.minimum((drawn * (room + 1)).long(), room)


def _check_draws(who: str, draws: Tensor, height: int, width: int) -> None:
    if draws.ndim != 2 or draws.shape[1] != DRAWS:
        raise ValueError(f"{who}: draws of shape (B, {DRAWS}) required, got {tuple(draws.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"{who}: images of at least 1×1 pixel required, got {height}×{width}")


def _check_patches(images: Tensor, patches: Patches, fill: Tensor | None) -> None:
    fields = [*patches[:-1], *(patches.jitter or ())]
    for field in fields:
        if field.shape != (len(images),):
            came = len(field) if field.ndim == 1 else tuple(field.shape)
            raise ValueError(f"paste: one patch per image required, got {came} patches for {len(images)} images")
        if field.device != images.device:
            raise ValueError(f"paste: patches on {images.device} like the images required, got {field.device}")
    if fill is not None:
        color = (*images.shape[:2], 1, 1)
        if fill.shape not in (images.shape, color):
            raise ValueError(f"paste: fill of shape {tuple(images.shape)} or {color} required, got {tuple(fill.shape)}")
        if fill.dtype != images.dtype or fill.device != images.device:
            raise ValueError(
                f"paste: fill of {images.dtype} on {images.device} required, got {fill.dtype} on {fill.device}"
            )
