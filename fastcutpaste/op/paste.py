"""Paste: `Patches` into images, with no randomness, no loop and no host sync; crops and shifts of whole images."""

from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from fastcutpaste.op.checks import check_images, check_values, followed, memory_format_of, touches_little
from fastcutpaste.op.color import check_normalization, greys, normalization, normalize, recolor, rotate_hue
from fastcutpaste.op.placement import Patches, uniform
from fastcutpaste.op.rules import Rules
from fastcutpaste.op.slices import paste_slices

HAS_TRITON = find_spec("triton") is not None


class Pasted(NamedTuple):
    """Hold augmented images (B, C, H, W) and the mask (B, 1, H, W), bool, of the pixels that were pasted."""

    images: Tensor
    mask: Tensor


def paste(images: Tensor, patches: Patches, fill: Tensor | None = None) -> Pasted:
    """Paste one patch into each image, or several copies of the batch each with patches of its own.

    Turned patches are read by inverse mapping, nearest pixel, so that no corner is left black. Colour jitter follows
    torchvision's ColorJitter on the patch alone (contrast about the patch's own mean grey), except that values are
    clamped, and for uint8 rounded, once after the four steps instead of after each.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1; never written.
        patches: fields of shape (k·B,) on the images' device: one patch per image, or k, copy after copy of the batch.
        fill: what is pasted: None, the image itself; (k·B, C, H, W), other images to cut from; (k·B, C, 1, 1), a color.

    Returns:
        Images (k·B, C, H, W) of the same dtype, device and memory format, each with one patch, and the mask of the
        pasted pixels. With three channels all four steps of the jitter apply; otherwise brightness and contrast, grey
        being the channel mean.

    Raises:
        TypeError: images neither uint8 nor floating point.
        ValueError: shapes or devices that do not fit; on a CPU, with a jitter, images that are normalized already. On a
            GPU, which would have to be waited for to know, these lose most of what is pasted: normalize after.

    Cost: no host sync and no loop over B on a GPU, where `kernels` reads and writes each byte about once, nor under
        `torch.compile`. On a CPU in eager mode patches are copied slice by slice: only the pasted pixels are
        computed, 0.4 against 13 ms an image of 3 × 256² on one core.
    """
    return _paste(images, patches, fill, masked=True)


def paste_images(images: Tensor, patches: Patches, fill: Tensor | None = None) -> Tensor:
    """Give the images of `paste` alone: on a GPU the mask, a byte a pixel, is then not written."""
    return _paste(images, patches, fill, masked=False).images


def paste_normalized(
    images: Tensor,
    patches: Patches,
    mean: Tensor,
    std: Tensor,
    dtype: torch.dtype = torch.float32,
    fill: Tensor | None = None,
) -> Tensor:
    """Paste and normalize, in one pass on a GPU.

    Args:
        images: as `paste` takes them.
        patches: as `paste` takes them.
        mean: as `normalize` takes it.
        std: as `normalize` takes it.
        dtype: of the result, as `normalize` takes it.
        fill: as `paste` takes it.

    Returns:
        (k·B, C, H, W) of `dtype`: what `normalize` makes of the images of `paste`; on a GPU in channels_last, as a
        network wants it there, elsewhere in the images' memory format.

    Raises:
        TypeError, ValueError: as `paste` and `normalize`.

    Cost: on a GPU the images are read and the result is written, 1.4 MB for 3 × 256² pixels of uint8 and three results
        in bfloat16, and little else; elsewhere one step after the other.
    """
    _check_patches(images, patches, fill)
    check_normalization(images, mean, std)
    if has_kernels(images, fill):
        from fastcutpaste.op.kernels import paste_kernels

        return paste_kernels(images, patches, fill, masked=False, mean=mean, std=std, dtype=dtype)[0]
    scale, offset = normalization(images, mean, std)
    rounds = patches.feather is not None and images.dtype == torch.uint8
    if touches_little(images, fill, scale) and not rounds:
        return paste_slices(images, patches, fill, False, (scale, offset))[0].to(dtype)
    return normalize(paste_images(images, patches, fill), mean, std, dtype)


def cover(patches: Patches, size: tuple[int, int]) -> Tensor:
    """Give where patches (B,) lie in images of a (height, width): bool (B, 1, H, W), the mask of `paste`."""
    if touches_little(patches.angle):
        none = torch.empty(len(patches.y), 0, *size, dtype=torch.float32, device=patches.y.device)
        return paste_slices(none, patches._replace(jitter=None, feather=None), None)[1]
    rows = torch.arange(size[0], device=patches.y.device).view(-1, 1)
    columns = torch.arange(size[1], device=patches.y.device)
    return _locate(rows, columns, patches.map(lambda field: field.view(-1, 1, 1, 1)))[2]


class DrawnAndPasted(NamedTuple):
    """Hold images (k·B, C, H, W), mask (k·B or 0, 1, H, W), bool, and the class (k·B,), int64, each image is of."""

    images: Tensor
    mask: Tensor
    classes: Tensor


def draw_and_paste(
    images: Tensor,
    draws: Tensor | None,
    numbers: int,
    rules: Rules | str,
    fill: Tensor | None = None,
    foreground: Tensor | None = None,
    *,
    masked: bool = True,
    normalization: tuple[Tensor, Tensor, torch.dtype] | None = None,
) -> DrawnAndPasted:
    """Place and paste one patch an image and class, where `has_kernels` says so: three launches for a whole task.

    The first call with new rules copies them to the device, and compiles; call once before recording a CUDA graph.

    Args:
        images: (B, C, H, W), checked.
        draws: (B, numbers) float32 in [0, 1); None: drawn on the way.
        numbers: how many an image takes.
        rules: of k classes, or their description; of several members, a draw chooses one for each image.
        fill: (B, C, 1, 1), a color to paste instead of the images.
        foreground: (B, 1 + H, 1 + W) int32, its counts from `foreground_sums`, for rules with candidates.
        masked: whether the mask is wanted; if not, it is empty.
        normalization: mean, std and dtype as `normalize` takes them, for normalized images in channels_last.
    """
    from fastcutpaste.op.kernels import draw_and_paste_kernels

    mean, std, dtype = normalization or (None, None, None)
    if mean is not None and std is not None:
        check_normalization(images, mean, std)
    return DrawnAndPasted(
        *draw_and_paste_kernels(
            images, draws, numbers, rules, fill, foreground, masked=masked, mean=mean, std=std, dtype=dtype
        )
    )


def random_crops(
    images: Tensor,
    size: int | tuple[int, int],
    generator: torch.Generator | None = None,
    draws: Tensor | None = None,
) -> Tensor:
    """Cut one crop out of each image, at a uniformly drawn place fully inside.

    Args:
        images: (B, C, H, W), any type.
        size: (height, width) of the crops, or one number for both, at most the images' size.
        generator: on the images' device.
        draws: (B, 2) uniform in [0, 1), to be used instead of drawing.

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
    drawn = uniform((len(images), 2), images.device, generator) if draws is None else draws
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


def _paste(images: Tensor, patches: Patches, fill: Tensor | None, masked: bool) -> Pasted:
    """Paste in the way that suits the device; without the mask where that saves its writing."""
    _check_patches(images, patches, fill)
    if touches_little(images, fill):
        return Pasted(*paste_slices(images, patches, fill, masked))
    if has_kernels(images, fill):
        from fastcutpaste.op.kernels import paste_kernels

        return Pasted(*paste_kernels(images, patches, fill, masked=masked))
    return _paste_grid(images, patches, fill)


def _paste_grid(images: Tensor, patches: Patches, fill: Tensor | None) -> Pasted:
    """Paste by computing every pixel of the batch: no sync, no loop, few kernels when compiled."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    patches = patches.map(lambda field: field.view(-1, 1, 1, 1))  # fields (N, 1, 1, 1), N = k·B
    below = _copies_of(images, len(patches.y))  # (N, C, H, W)
    down, across, mask = _locate(rows, columns, patches)  # (N, 1, H, W)
    source = below if fill is None else fill
    is_color = source.shape[-2:] == (1, 1) != images.shape[-2:]
    row = (patches.source_y + down.floor().long()).clamp(0, height - 1)
    column = (patches.source_x + across.floor().long()).clamp(0, width - 1)
    pixels = source if is_color else _pixels_at(images if fill is None else fill, row, column)  # (N, C, H or 1, W or 1)
    if patches.jitter is not None:
        values = source.to(_compute_dtype(images))
        _, grey = greys(values, rotate_hue(values, patches.jitter.hue), patches.jitter)  # (N, 1, H, W)
        if not is_color:
            upright = patches._replace(y=patches.source_y, x=patches.source_x, angle=torch.zeros_like(patches.angle))
            cut_out = _locate(rows, columns, upright)[2]
            count = (patches.height * patches.width).clamp(min=1)
            grey = torch.where(cut_out, grey, 0).sum((-2, -1), keepdim=True) / count  # (N, 1, 1, 1)
        values = pixels.to(values.dtype)
        rotated = rotate_hue(values, patches.jitter.hue)
        pixels = recolor(rotated, greys(values, rotated, patches.jitter)[0], grey, patches.jitter, images.dtype)
    if patches.feather is not None:
        edge = torch.minimum(
            torch.minimum(down, patches.height - down), torch.minimum(across, patches.width - across)
        )  # distance of each pixel's centre from the nearest edge
        share = torch.where(patches.feather > 0, edge / patches.feather.clamp(min=1e-6), 1).clamp(max=1)
        blended = below + share * (pixels - below.to(_compute_dtype(images)))
        pixels = (blended.round() if images.dtype == torch.uint8 else blended).to(images.dtype)
    pasted = torch.where(mask, pixels, below)
    return Pasted(pasted.contiguous(memory_format=memory_format_of(images)), mask)


def _copies_of(images: Tensor, count: int) -> Tensor:
    """Give the batch (B, …) as often as it takes to have `count` images: (count, …)."""
    return images if count == len(images) else images.repeat(count // len(images), 1, 1, 1)


def _locate(rows: Tensor, columns: Tensor, patches: Patches) -> tuple[Tensor, Tensor, Tensor]:
    """Map the centres of destination pixels back into the upright patch.

    Returns:
        Distances from the patch's upper and left edge, pixels, and whether they lie inside it.
    """
    half_height, half_width = (patches.height - 1) / 2, (patches.width - 1) / 2
    radians = patches.angle.deg2rad()
    cosine, sine = radians.cos(), radians.sin()
    # float32 gives -4e-8 of a right angle; where height + width is odd every pixel is then a tie, and the patch torn.
    cosine = torch.where(cosine.abs() < 1e-6, 0, cosine)
    dy, dx = rows - patches.y - half_height, columns - patches.x - half_width
    down = dx * sine + dy * cosine + half_height + 0.5
    across = dx * cosine - dy * sine + half_width + 0.5
    inside = (down >= 0) & (down < patches.height) & (across >= 0) & (across < patches.width)
    return down, across, inside


def _pixels_at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read (N, C, h, w) from images (B, C, H, W), N = k·B, at rows and columns that broadcast to (N, 1, h, w)."""
    batch = torch.arange(rows.shape[0], device=images.device).view(-1, 1, 1, 1)
    batch = batch if len(rows) == len(images) else batch % len(images)
    channel = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return images[batch, channel, rows, columns]


def _compute_dtype(images: Tensor) -> torch.dtype:
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def has_kernels(images: Tensor, fill: Tensor | None = None) -> bool:
    """Tell whether `kernels` can do it: on a GPU, with one or three channels, where no gradient is asked for."""
    known = images.dtype in (torch.uint8, torch.float32, torch.bfloat16, torch.float16) and images.shape[1] in (1, 3)
    if images.device.type != "cuda" or not HAS_TRITON or not known or followed(images, fill):
        return False
    if torch.compiler.is_compiling():
        return True
    from fastcutpaste.op.kernels import triton_starts

    return triton_starts()


def _check_patches(images: Tensor, patches: Patches, fill: Tensor | None) -> None:
    check_images("paste", images)
    if patches.jitter is not None:
        check_values("paste", images)  # its colors are clamped to 0–1
    count = len(patches.y) if patches.y.ndim == 1 else -1
    if count < len(images) or count % max(len(images), 1) or (count > 0 and not len(images)):
        came = count if count >= 0 else tuple(patches.y.shape)
        raise ValueError(
            f"paste: one patch per image, or k for each, required, got {came} patches for {len(images)} images"
        )
    for field in patches.tensors:
        if field.shape != (count,):
            raise ValueError(f"paste: fields of shape ({count},) like y required, got {tuple(field.shape)}")
        if field.device != images.device:
            raise ValueError(f"paste: patches on {images.device} like the images required, got {field.device}")
    if fill is not None:
        shapes = ((count, *images.shape[1:]), (count, images.shape[1], 1, 1))
        if fill.shape not in shapes:
            raise ValueError(f"paste: fill of shape {shapes[0]} or {shapes[1]} required, got {tuple(fill.shape)}")
        if fill.dtype != images.dtype or fill.device != images.device:
            raise ValueError(
                f"paste: fill of {images.dtype} on {images.device} required, got {fill.dtype} on {fill.device}"
            )
