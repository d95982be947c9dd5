"""Paste on a GPU: two Triton kernels, which read and write each byte about once.

The first copies the batch, as often as there are patches an image, and on the way sums each patch's grey. The second
computes the pixels of the patches, and those alone. `paste._paste_grid` is the same op in torch's own: Inductor
makes thirteen kernels of it, which keep the hue's intermediates of every pixel in device memory, 24 MB an image where
1.4 would do, although patches cover a twelfth of a CutPaste. Loaded when the first batch comes to a GPU.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import functools
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcutpaste.op.checks import memory_format_of
from fastcutpaste.op.kernel_color import grey_of, hue_rotated, jittered, number, share_of_hue, stored
from fastcutpaste.op.placement import Patches

COPIED = 4_096  # values a program copies: 32 a thread
PIXELS = 512  # of a patch, that a program computes at a time
PARTS = tl.constexpr(8)  # programs that share a patch, so that the largest does not keep all others waiting
COUNTS = ("batch", "count", "sources", "sum_programs")  # no new kernel for a new batch size


@functools.cache
def triton_starts() -> bool:
    """Tell whether kernels can be launched; warn, once, if not.

    Triton compiles its driver at the first use, and slim machines have no C compiler.
    """
    try:
        triton.runtime.driver.active.get_current_target()
    except Exception as error:  # whatever a compiler, or its absence, makes of it
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"paste: Triton does not start; torch's own operations paste, slower ({reason})", stacklevel=4)
        return False
    return True


def paste_kernels(
    images: Tensor,
    patches: Patches,
    fill: Tensor | None = None,
    *,
    masked: bool = True,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Do what `paste` does, for checked images (B, 1 or 3, H, W) of uint8 or up to 32 floating bits.

    Args:
        images, patches, fill: as `paste` takes them.
        masked: whether the mask is wanted; if not, what comes in its place is empty.
        scale: (C,) float32 and
        offset: (C,) float32: give images · scale - offset, in channels_last, instead of images.
        dtype: floating-point type of the result where scale and offset are given.

    Returns:
        Images (k·B, C, H, W), and mask (k·B, 1, H, W) or (0, 1, H, W), bool.

    Cost: two launches (three with a mask), no host sync, no allocation whose size is not known to the host. The images
        are read once, the pixels of the patches twice more; the result is written once, that of the patches twice.
    """
    where = torch.stack(patches.geometry[:6])  # (6, N) int64: source_y, source_x, y, x, height, width
    how = torch.stack([field.float() for field in patches.tensors[6:]])  # (1 to 7, N): angle, jitter, feather
    result: tuple[Tensor, Tensor] = paste_op(images, where, how, fill, scale, offset, dtype or images.dtype, masked)
    return result


@torch.library.custom_op("fastcutpaste::paste", mutates_args=())
def paste_op(
    images: Tensor,
    where: Tensor,
    how: Tensor,
    fill: Tensor | None,
    scale: Tensor | None,
    offset: Tensor | None,
    dtype: torch.dtype,
    masked: bool,
) -> tuple[Tensor, Tensor]:
    """Launch the kernels; the patches come as two tables, so that what places them can write there directly."""
    order = memory_format_of(images)
    images = images.contiguous(memory_format=order)
    pasted, mask = _empty_like_result(images, where, scale, dtype, masked)
    (batch, channels, height, width), count = images.shape, where.shape[1]
    if count == 0:
        return pasted, mask.zero_()
    jittered, feathered = len(how) >= 6, len(how) in (2, 7)
    is_color = fill is not None and fill.shape[2:] != images.shape[2:]
    source = images if fill is None else fill
    # a color is an image whose rows and columns are all the same place
    strides = (*source.stride()[:2], 0, 0) if is_color else source.stride()
    where, how = where.contiguous(), how.contiguous()
    sums = torch.empty(count, PARTS.value, dtype=torch.float32, device=images.device) if jittered else how
    sum_programs = count * PARTS.value if jittered and not is_color else 0
    blocks = triton.cdiv(images[0].numel(), COPIED)
    out_is_planar = scale is None and order != torch.channels_last
    factors = (how, how) if scale is None or offset is None else (scale.contiguous(), offset.contiguous())
    shape = (batch, count, height, width, len(source), *strides)
    flags = {"CHANNELS": channels, "NORMALIZED": scale is not None, "PIXELS": PIXELS}
    with torch.cuda.device_of(images):
        _copy_and_sum[(sum_programs + batch * blocks,)](
            images, source, pasted, where, how, sums, *factors, *shape, sum_programs, blocks, **flags, COPIED=COPIED,
            IN_PLANAR=order != torch.channels_last, OUT_PLANAR=out_is_planar,
        )  # fmt: skip
        mask.zero_()
        _paste_patches[(count, PARTS.value)](
            images, source, pasted, mask if masked else pasted, where, how, sums, *factors, *shape,
            *images.stride()[1:], *pasted.stride()[1:], **flags, JITTERED=jittered, FEATHERED=feathered,
            IS_COLOR=is_color, MASKED=masked,
        )  # fmt: skip
    return pasted, mask


@paste_op.register_fake
def _empty_result(
    images: Tensor,
    where: Tensor,
    how: Tensor,
    fill: Tensor | None,
    scale: Tensor | None,
    offset: Tensor | None,
    dtype: torch.dtype,
    masked: bool,
) -> tuple[Tensor, Tensor]:
    return _empty_like_result(images, where, scale, dtype, masked)


def _empty_like_result(
    images: Tensor, where: Tensor, scale: Tensor | None, dtype: torch.dtype, masked: bool
) -> tuple[Tensor, Tensor]:
    """Allocate images (N, C, H, W) and mask (N or 0, 1, H, W)."""
    count, size = where.shape[1], images.shape[2:]
    order = memory_format_of(images) if scale is None else torch.channels_last
    pasted = torch.empty((count, images.shape[1], *size), dtype=dtype, device=images.device, memory_format=order)
    return pasted, torch.empty((count if masked else 0, 1, *size), dtype=torch.bool, device=images.device)


# In the kernels a name means what it means in `paste`; n counts patches, b images.


@triton.jit(do_not_specialize=COUNTS)
def _copy_and_sum(
    images, source, pasted, where, how, sums, scale, offset, batch, count, height, width, sources, source_b, source_c,
    source_y, source_x, sum_programs, blocks, CHANNELS: tl.constexpr, NORMALIZED: tl.constexpr, PIXELS: tl.constexpr,
    COPIED: tl.constexpr, IN_PLANAR: tl.constexpr, OUT_PLANAR: tl.constexpr,
):  # fmt: skip
    """Let the first programs sum greys, and all others copy: neither waits for the other."""
    program = tl.program_id(0)
    if program < sum_programs:
        n, part = program // PARTS, program % PARTS
        top, left = _whole(where, 0, n, count), _whole(where, 1, n, count)
        h, w = _whole(where, 4, n, count), _whole(where, 5, n, count)
        saturation, hue, rank = number(how, 3, n, count), number(how, 4, n, count), number(how, 5, n, count)
        share = share_of_hue(rank, saturation)
        image = source + (n % sources).to(tl.int64) * source_b
        total = tl.zeros((PIXELS,), tl.float32)
        for first in range(part * PIXELS, h * w, PARTS * PIXELS):
            i = first + tl.arange(0, PIXELS)
            row, column = top + i // w, left + i % w
            there = (i < h * w) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            red, green, blue = _pixels(image + row * source_y + column * source_x, source_c, there, CHANNELS)
            grey = grey_of(red, green, blue, CHANNELS)
            if CHANNELS == 3:
                red, green, blue = hue_rotated(red, green, blue, hue)
                grey += (grey_of(red, green, blue, CHANNELS) - grey) * share
            total += tl.where(there, grey, 0.0)
        tl.store(sums + n * PARTS + part, tl.sum(total, 0))
    else:
        b, block = (program - sum_programs) // blocks, (program - sum_programs) % blocks
        size = CHANNELS * height * width
        i = block * COPIED + tl.arange(0, COPIED)  # as the result lies in memory
        channel = i // (height * width) if OUT_PLANAR else i % CHANNELS
        place = channel * (height * width) + i // CHANNELS if IN_PLANAR and not OUT_PLANAR else i
        value = tl.load(images + b.to(tl.int64) * size + place, mask=i < size)
        if NORMALIZED:
            factor, shift = tl.load(scale), tl.load(offset)
            if CHANNELS == 3:
                factor = tl.where(channel == 0, factor, tl.where(channel == 1, tl.load(scale + 1), tl.load(scale + 2)))
                shift = tl.where(channel == 0, shift, tl.where(channel == 1, tl.load(offset + 1), tl.load(offset + 2)))
            value = value.to(tl.float32) * factor - shift
        value = value.to(pasted.dtype.element_ty)
        for first in range(0, count, batch):
            tl.store(pasted + (first + b).to(tl.int64) * size + i, value, mask=i < size)


@triton.jit(do_not_specialize=COUNTS)
def _paste_patches(
    images, source, pasted, mask, where, how, sums, scale, offset, batch, count, height, width, sources, source_b,
    source_c, source_y, source_x, in_c, in_y, in_x, out_c, out_y, out_x, CHANNELS: tl.constexpr,
    NORMALIZED: tl.constexpr, PIXELS: tl.constexpr, JITTERED: tl.constexpr, FEATHERED: tl.constexpr,
    IS_COLOR: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Compute the pixels of the box around a patch, every PARTS-th piece of it, and write those inside the patch."""
    n = tl.program_id(0)
    top, left = _whole(where, 0, n, count), _whole(where, 1, n, count)
    y, x = _whole(where, 2, n, count), _whole(where, 3, n, count)
    h, w = _whole(where, 4, n, count), _whole(where, 5, n, count)
    half_h, half_w = (h - 1) / 2, (w - 1) / 2
    radians = number(how, 0, n, count) * 0.017453292519943295
    cosine, sine = tl.cos(radians), tl.sin(radians)
    cosine = tl.where(tl.abs(cosine) < 1e-6, 0.0, cosine)  # of a right angle, see `paste`
    first_row, rows = _reach(y, h, tl.abs(cosine) * h + tl.abs(sine) * w, height)
    first_column, columns = _reach(x, w, tl.abs(sine) * h + tl.abs(cosine) * w, width)
    held = tl.where(h * w > 0, rows * columns, 0)
    full: tl.constexpr = 255.0 if images.dtype.element_ty == tl.uint8 else 1.0
    mean = 0.0
    if JITTERED and not IS_COLOR:
        mean = tl.sum(tl.load(sums + n * PARTS + tl.arange(0, PARTS)), 0) / tl.maximum(h * w, 1)
    image = source + (n % sources).to(tl.int64) * source_b
    beneath = images + (n % batch).to(tl.int64) * (CHANNELS * height * width)
    result = pasted + n.to(tl.int64) * (CHANNELS * height * width)
    for first in range(tl.program_id(1) * PIXELS, held, PARTS * PIXELS):
        i = first + tl.arange(0, PIXELS)
        row, column = first_row + i // columns, first_column + i % columns
        dy, dx = row - y - half_h, column - x - half_w
        down = dx * sine + dy * cosine + half_h + 0.5  # from the patch's upper edge
        across = dx * cosine - dy * sine + half_w + 0.5  # from its left edge
        inside = (down >= 0) & (down < h) & (across >= 0) & (across < w) & (i < held)
        from_row = tl.minimum(tl.maximum(top + tl.floor(down).to(tl.int32), 0), height - 1)
        from_column = tl.minimum(tl.maximum(left + tl.floor(across).to(tl.int32), 0), width - 1)
        place = image + from_row * source_y + from_column * source_x
        red, green, blue = _pixels(place, source_c, inside, CHANNELS)
        if JITTERED:
            red, green, blue = jittered(red, green, blue, mean, how, n, count, full, CHANNELS, IS_COLOR)
            red, green, blue = stored(red, images), stored(green, images), stored(blue, images)
        if FEATHERED:
            feather = number(how, 6 if JITTERED else 1, n, count)
            edge = tl.minimum(tl.minimum(down, h - down), tl.minimum(across, w - across))
            opacity = tl.minimum(tl.where(feather > 0, edge / tl.maximum(feather, 1e-6), 1.0), 1.0)
            under = _pixels(beneath + row * in_y + column * in_x, in_c, inside, CHANNELS)
            red = stored(under[0] + opacity * (red - under[0]), images)
            green = stored(under[1] + opacity * (green - under[1]), images)
            blue = stored(under[2] + opacity * (blue - under[2]), images)
        place = result + row * out_y + column * out_x
        _write(place, out_c, red, green, blue, scale, offset, inside, CHANNELS, NORMALIZED)
        if MASKED:
            tl.store(mask + n.to(tl.int64) * (height * width) + row * width + column, inside, mask=inside)


@triton.jit
def _reach(start, length, turned, limit):
    """Give the first row and the number of rows, or columns, of the box around a turned patch, inside the image."""
    reach = tl.ceil(turned / 2 + 0.5).to(tl.int32)  # from the middle
    first = tl.maximum(start + length // 2 - reach, 0)
    return first, tl.maximum(tl.minimum(start + length // 2 + reach, limit) - first, 0)


@triton.jit
def _whole(where, field, n, count):
    return tl.load(where + field * count + n).to(tl.int32)


@triton.jit
def _pixels(place, channel, there, CHANNELS: tl.constexpr):
    """Read three channels, or one three times, as float32."""
    red = tl.load(place, mask=there, other=0).to(tl.float32)
    green, blue = red, red
    if CHANNELS == 3:
        green = tl.load(place + channel, mask=there, other=0).to(tl.float32)
        blue = tl.load(place + 2 * channel, mask=there, other=0).to(tl.float32)
    return red, green, blue


@triton.jit
def _write(
    place, channel, red, green, blue, scale, offset, there, CHANNELS: tl.constexpr, NORMALIZED: tl.constexpr
):  # fmt: skip
    if NORMALIZED:
        red = red * tl.load(scale) - tl.load(offset)
    tl.store(place, red.to(place.dtype.element_ty), mask=there)
    if CHANNELS == 3:
        if NORMALIZED:
            green = green * tl.load(scale + 1) - tl.load(offset + 1)
            blue = blue * tl.load(scale + 2) - tl.load(offset + 2)
        tl.store(place + channel, green.to(place.dtype.element_ty), mask=there)
        tl.store(place + 2 * channel, blue.to(place.dtype.element_ty), mask=there)
