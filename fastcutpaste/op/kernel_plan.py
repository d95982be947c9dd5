"""First kernel of a paste on a GPU: what is to know of each patch, placed or to be placed, and the sum of its greys."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents

from fastcutpaste.op import kernel_constants as at
from fastcutpaste.op.kernel_color import grey_of, hue_rotated, mirrored, pixels_at, share_of_hue
from fastcutpaste.op.kernel_constants import AGREED
from fastcutpaste.op.kernel_placement import by_rules, turned

COUNTS = ("batch", "count", "sources", "columns", "members")  # no new kernel for a new batch size

# In the kernels a name means what it means in `paste`; n counts patches, b images.


@triton.jit(do_not_specialize=COUNTS)
def plan_patches(
    source, plan, labels, where, draws, rules, foreground, columns, members, batch, count, height, width, sources,
    source_b, source_c, source_y, source_x, CHANNELS: tl.constexpr, DRAWN: tl.constexpr, JITTERED: tl.constexpr,
    FEATHERED: tl.constexpr, MIRRORED: tl.constexpr, SUMMED: tl.constexpr, TRIED: tl.constexpr,
    OVERLAPPED: tl.constexpr,
):  # fmt: skip
    """Write down all that is to know of a patch, and the sum of a part of its greys."""
    tl.static_assert(AGREED == at.AGREED)
    if OVERLAPPED:
        gdc_launch_dependents()  # the second kernel may begin to copy; it waits before it reads a plan
    n, part = tl.program_id(0), tl.program_id(1)
    height, width = height + 0 * n, width + 0 * n  # a 1 comes as a constant, which has no type
    plan += n.to(tl.int64) * at.PLAN
    image = n % sources
    if DRAWN:
        image, top, left, y, x, tall, wide, angle, brightness, contrast, saturation, hue, rank, feather = by_rules(
            draws, rules + (n // batch) * members * at.RULE, foreground, columns, n % batch, image, sources, height,
            width, JITTERED, FEATHERED, TRIED,
        )  # fmt: skip
        if part == 0:
            tl.store(labels + n, (n // batch).to(tl.int64))
    else:  # the draws are the patches' other numbers
        top, left, y, x, tall, wide = _wheres(where + n, count)
        angle, brightness, contrast, saturation, hue, rank, feather = _hows(draws + n, count, JITTERED, FEATHERED)
    if part == 0:
        cosine, sine = turned(angle)
        first_row, last_row = _reach(y, tall, tl.abs(cosine) * tall + tl.abs(sine) * wide, height)
        first_column, last_column = _reach(x, wide, tl.abs(sine) * tall + tl.abs(cosine) * wide, width)
        tl.store(plan + at.FIRST_ROW, first_row)
        tl.store(plan + at.LAST_ROW, tl.where(tall * wide > 0, last_row, 0.0))
        tl.store(plan + at.FIRST_COLUMN, first_column)
        tl.store(plan + at.LAST_COLUMN, last_column)
        tl.store(plan + at.IMAGE, image.to(tl.float32))
        tl.store(plan + at.TOP, top)
        tl.store(plan + at.LEFT, left)
        tl.store(plan + at.Y, y)
        tl.store(plan + at.X, x)
        tl.store(plan + at.TALL, tall)
        tl.store(plan + at.WIDE, wide)
        tl.store(plan + at.COSINE, cosine)
        tl.store(plan + at.SINE, sine)
        tl.store(plan + at.BRIGHTNESS, brightness)
        tl.store(plan + at.CONTRAST, contrast)
        tl.store(plan + at.SATURATION, saturation)
        tl.store(plan + at.HUE, hue)
        tl.store(plan + at.RANK, rank)
        tl.store(plan + at.FEATHER, feather)
    if SUMMED:
        source += image.to(tl.int64) * source_b
        steps = source_y, source_x, source_c
        parts = tl.num_programs(1)
        total = _sum_of_greys(source, steps, part, parts, top, left, tall, wide, height, width, hue, saturation, rank,
                              CHANNELS, MIRRORED)  # fmt: skip
        for slot in range(part, at.PARTS, parts):
            tl.store(plan + at.SUMS + slot, tl.where(slot == part, total, 0.0))


@triton.jit
def _sum_of_greys(
    source, steps, part, parts, top, left, tall, wide, height, width, hue, saturation, rank, CHANNELS: tl.constexpr,
    MIRRORED: tl.constexpr,
):  # fmt: skip
    """Sum what contrast turns about, see `color.greys`, over every so many pixels of a patch, from its upper left."""
    total = tl.zeros((at.SUMMED,), tl.float32)
    columns, share = wide.to(tl.int32), share_of_hue(rank, saturation)
    area, per_column = tall.to(tl.int32) * columns, 1.0 / tl.maximum(wide, 1.0)
    for first in range(part * at.SUMMED, area, parts * at.SUMMED):
        pixel = first + tl.arange(0, at.SUMMED)
        down = ((pixel.to(tl.float32) + 0.5) * per_column).to(tl.int32)  # division of integers takes five times as long
        across = pixel - down * columns
        down += tl.where(across < 0, -1, tl.where(across >= columns, 1, 0))  # of many pixels it is rounded
        row, column = top.to(tl.int32) + down, left.to(tl.int32) + pixel - down * columns
        if MIRRORED:
            row, column = mirrored(row, height), mirrored(column, width)
        there = (pixel < area) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        red, green, blue = pixels_at(source + row * steps[0] + column * steps[1], steps[2], there, CHANNELS)
        grey = grey_of(red, green, blue, CHANNELS)
        if CHANNELS == 3:  # noqa: SIM102, known when the kernel is compiled, the other when it runs
            if share != 0:
                red, green, blue = hue_rotated(red, green, blue, hue)
                grey += (grey_of(red, green, blue, CHANNELS) - grey) * share
        total += tl.where(there, grey, 0.0)
    return tl.sum(total, 0)


@triton.jit
def _reach(start, length, turned_length, limit):
    """Give the first row and the one after the last, or columns, of the box around a turned patch, in the image."""
    reach = tl.ceil(turned_length / 2 + 0.5)  # from the middle
    middle = start + tl.floor(length / 2)
    return tl.maximum(middle - reach, 0.0), tl.minimum(middle + reach, limit.to(tl.float32))


@triton.jit
def _wheres(where, count):
    """Read source_y, source_x, y, x, height and width of a patch as float32, which holds them exactly."""
    top, left = tl.load(where).to(tl.float32), tl.load(where + count).to(tl.float32)
    y, x = tl.load(where + 2 * count).to(tl.float32), tl.load(where + 3 * count).to(tl.float32)
    return top, left, y, x, tl.load(where + 4 * count).to(tl.float32), tl.load(where + 5 * count).to(tl.float32)


@triton.jit
def _hows(how, count, JITTERED: tl.constexpr, FEATHERED: tl.constexpr):
    """Read angle, the five numbers of the jitter and the feather of a patch."""
    brightness, contrast, saturation, hue, rank, feather = 1.0, 1.0, 1.0, 0.0, 0.0, 0.0
    if JITTERED:
        brightness, contrast, saturation = tl.load(how + count), tl.load(how + 2 * count), tl.load(how + 3 * count)
        hue, rank = tl.load(how + 4 * count), tl.load(how + 5 * count)
    if FEATHERED:
        feather = tl.load(how + (6 if JITTERED else 1) * count)
    return tl.load(how), brightness, contrast, saturation, hue, rank, feather
