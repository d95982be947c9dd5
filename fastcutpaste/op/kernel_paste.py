"""Second kernel of a paste on a GPU: copies the batch into each class, and computes the patches on the way."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from fastcutpaste.op import kernel_constants as at
from fastcutpaste.op.kernel_color import jittered, mirrored, pixels_at, stored
from fastcutpaste.op.kernel_constants import AGREED
from fastcutpaste.op.kernel_plan import COUNTS


@triton.jit(do_not_specialize=COUNTS)
def copy_and_paste(
    images, source, pasted, mask, plan, mean, std, batch, count, height, width, sources, source_b, source_c, source_y,
    source_x, in_c, in_y, in_x, out_c, out_y, out_x, CHANNELS: tl.constexpr, JITTERED: tl.constexpr,
    FEATHERED: tl.constexpr, MIRRORED: tl.constexpr, SUMMED: tl.constexpr, NORMALIZED: tl.constexpr,
    IS_COLOR: tl.constexpr, MASKED: tl.constexpr, IN_PLANAR: tl.constexpr, OUT_PLANAR: tl.constexpr,
    OVERLAPPED: tl.constexpr, COPIED: tl.constexpr,
):  # fmt: skip
    """Read some pixels of an image once; write them into each class, and over them what its patch makes of them."""
    tl.static_assert(AGREED == at.AGREED)
    blocks = tl.cdiv(height * width, COPIED)
    b, first_pixel = tl.program_id(0) // blocks, (tl.program_id(0) % blocks) * COPIED
    end = tl.minimum(first_pixel + COPIED, height * width)
    size = CHANNELS * height * width
    images += b.to(tl.int64) * size
    full: tl.constexpr = 255.0 if images.dtype.element_ty == tl.uint8 else 1.0
    scale_0, scale_1, scale_2, shift_0, shift_1, shift_2 = 1.0, 1.0, 1.0, 0.0, 0.0, 0.0
    if NORMALIZED:
        scale_0, shift_0 = _normalization(mean, std, 0, full)
        if CHANNELS == 3:
            scale_1, shift_1 = _normalization(mean, std, 1, full)
            scale_2, shift_2 = _normalization(mean, std, 2, full)
    shape = height * width, first_pixel, end
    factors = scale_0, scale_1, scale_2, shift_0, shift_1, shift_2
    form: tl.constexpr = (CHANNELS, NORMALIZED, IN_PLANAR, OUT_PLANAR, COPIED)
    if not MIRRORED:  # else all of it is pasted over
        value, target, there = _read(images, 0, shape, factors, form)  # all is read before anything is written
        if CHANNELS == 3:
            value_1, target_1, there_1 = _read(images, 1, shape, factors, form)
            value_2, target_2, there_2 = _read(images, 2, shape, factors, form)
        for first in range(0, count, batch):
            result = pasted + (first + b).to(tl.int64) * size
            tl.store(result + target, value.to(pasted.dtype.element_ty), mask=there)
            if CHANNELS == 3:
                tl.store(result + target_1, value_1.to(pasted.dtype.element_ty), mask=there_1)
                tl.store(result + target_2, value_2.to(pasted.dtype.element_ty), mask=there_2)
    if OVERLAPPED:
        gdc_wait()  # for the plans
    for first in range(0, count, batch):
        n = first + b
        facts, covered = plan + n.to(tl.int64) * at.PLAN, mask + n.to(tl.int64) * (height * width)
        if MASKED:
            pixel = first_pixel + tl.arange(0, COPIED)
            tl.store(covered + pixel, pixel < 0, mask=pixel < end)
        first_row = tl.maximum(tl.load(facts + at.FIRST_ROW).to(tl.int32), first_pixel // width)
        last_row = tl.minimum(tl.load(facts + at.LAST_ROW).to(tl.int32), (end - 1) // width + 1)
        if first_row < last_row:
            tl.debug_barrier()  # what is copied is written before what is pasted
            image = source + tl.load(facts + at.IMAGE).to(tl.int64) * source_b
            steps = source_y, source_x, source_c, in_y, in_x, in_c, out_y, out_x, out_c
            _paste(
                images, image, pasted + n.to(tl.int64) * size, covered, facts, steps, factors, first_row, last_row,
                first_pixel, end, height, width, full, CHANNELS, JITTERED, FEATHERED, MIRRORED, SUMMED, IS_COLOR,
                MASKED,
            )  # fmt: skip


@triton.jit
def _paste(
    images, source, result, covered, facts, steps, factors, first_row, last_row, first_pixel, end, height, width,
    full: tl.constexpr, CHANNELS: tl.constexpr, JITTERED: tl.constexpr, FEATHERED: tl.constexpr, MIRRORED: tl.constexpr,
    SUMMED: tl.constexpr, IS_COLOR: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Write a program's pixels of a patch, in some rows of the box around it, tile by tile."""
    last_column = tl.load(facts + at.LAST_COLUMN).to(tl.int32)
    top, left, y, x = tl.load(facts + at.TOP), tl.load(facts + at.LEFT), tl.load(facts + at.Y), tl.load(facts + at.X)
    tall, wide = tl.load(facts + at.TALL), tl.load(facts + at.WIDE)
    cosine, sine = tl.load(facts + at.COSINE), tl.load(facts + at.SINE)
    half_tall, half_wide = (tall - 1) / 2, (wide - 1) / 2
    brightness, contrast = tl.load(facts + at.BRIGHTNESS), tl.load(facts + at.CONTRAST)
    saturation, hue, rank = tl.load(facts + at.SATURATION), tl.load(facts + at.HUE), tl.load(facts + at.RANK)
    feather, grey = tl.load(facts + at.FEATHER), 0.0
    if SUMMED:
        grey = tl.sum(tl.load(facts + at.SUMS + tl.arange(0, at.PARTS)), 0) / tl.maximum(tall * wide, 1.0)
    for above in range(first_row, last_row, at.TILE_ROWS):
        for before in range(tl.load(facts + at.FIRST_COLUMN).to(tl.int32), last_column, at.TILE_COLUMNS):
            row, column = above + tl.arange(0, at.TILE_ROWS)[:, None], before + tl.arange(0, at.TILE_COLUMNS)[None, :]
            dy, dx = row - y - half_tall, column - x - half_wide
            down = dx * sine + dy * cosine + half_tall + 0.5  # from the patch's upper edge
            across = dx * cosine - dy * sine + half_wide + 0.5  # from its left edge
            pixel = row * width + column
            inside = (down >= 0) & (down < tall) & (across >= 0) & (across < wide)
            inside &= (column < last_column) & (row < last_row) & (pixel >= first_pixel) & (pixel < end)
            from_row, from_column = (top + tl.floor(down)).to(tl.int32), (left + tl.floor(across)).to(tl.int32)
            if MIRRORED:
                from_row, from_column = mirrored(from_row, height), mirrored(from_column, width)
            from_row = tl.minimum(tl.maximum(from_row, 0), height - 1)
            from_column = tl.minimum(tl.maximum(from_column, 0), width - 1)
            place = source + from_row * steps[0] + from_column * steps[1]
            red, green, blue = pixels_at(place, steps[2], inside, CHANNELS)
            if JITTERED:
                red, green, blue = jittered(red, green, blue, grey, brightness, contrast, saturation, hue, rank, full,
                                            CHANNELS, IS_COLOR)  # fmt: skip
                red, green, blue = stored(red, images), stored(green, images), stored(blue, images)
            if FEATHERED:
                edge = tl.minimum(tl.minimum(down, tall - down), tl.minimum(across, wide - across))
                opacity = tl.minimum(tl.where(feather > 0, edge / tl.maximum(feather, 1e-6), 1.0), 1.0)
                under = pixels_at(images + row * steps[3] + column * steps[4], steps[5], inside, CHANNELS)
                red = stored(under[0] + opacity * (red - under[0]), images)
                green = stored(under[1] + opacity * (green - under[1]), images)
                blue = stored(under[2] + opacity * (blue - under[2]), images)
            place = result + row * steps[6] + column * steps[7]
            tl.store(place, (red * factors[0] - factors[3]).to(place.dtype.element_ty), mask=inside)
            if CHANNELS == 3:
                place_1, place_2 = place + steps[8], place + 2 * steps[8]
                tl.store(place_1, (green * factors[1] - factors[4]).to(place.dtype.element_ty), mask=inside)
                tl.store(place_2, (blue * factors[2] - factors[5]).to(place.dtype.element_ty), mask=inside)
            if MASKED:
                tl.store(covered + pixel, inside, mask=inside)


@triton.jit
def _normalization(mean, std, channel, full):
    """Do what `color.normalization` does."""
    deviation = tl.load(std + channel).to(tl.float32)
    return tl.div_rn(1.0, deviation * full), tl.div_rn(tl.load(mean + channel).to(tl.float32), deviation)


@triton.jit
def _read(images, part, shape, factors, form: tl.constexpr):
    """Read some values of a program's pixels, one after another as they lie in the result; tell where that is."""
    pixels, first_pixel, end = shape
    channels: tl.constexpr = form[0]
    copied: tl.constexpr = form[4]
    i = tl.arange(0, copied)
    if form[3]:  # the result is planar: a part is a channel
        target, there = part * pixels + first_pixel + i, first_pixel + i < end
        place, channel = target, i * 0 + part
    else:
        target = first_pixel * channels + part * copied + i
        there, channel = target < end * channels, target % channels
        place = channel * pixels + target // channels if form[2] else target
    value = tl.load(images + place, mask=there)
    if form[1]:
        factor, shift = factors[0], factors[3]
        if channels == 3:
            factor = tl.where(channel == 0, factors[0], tl.where(channel == 1, factors[1], factors[2]))
            shift = tl.where(channel == 0, factors[3], tl.where(channel == 1, factors[4], factors[5]))
        value = value.to(tl.float32) * factor - shift
    return value, target, there
