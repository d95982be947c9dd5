"""Where patches lie, on a GPU: what `placement` does to tensors, done by the Triton program that needs the patch.

The same formulas in the same order and in float32 without fused products, so that equal draws give equal patches.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from fastcutpaste.op import kernel_constants as at
from fastcutpaste.op.kernel_color import rounded


@triton.jit
def by_rules(
    draws, rules, foreground, columns, b, image, sources, height, width, JITTERED: tl.constexpr,
    FEATHERED: tl.constexpr, TRIED: tl.constexpr,
):  # fmt: skip
    """Place the patch of image b by the rule that its draws choose.

    Args:
        draws, columns: (B, columns) float32.
        rules: of the class, one after another.
        foreground: (B, 1 + H, 1 + W) int32, where a rule has candidates; TRIED: a power of two above their number.
        image, sources: the image it is cut from, unless that is the one before, of how many.

    Returns:
        The image it is cut from, source_y, source_x, y, x, height, width, angle, the five numbers of the jitter, and
        the feather.
    """
    all_drawn = draws + b.to(tl.int64) * columns
    choice = tl.load(all_drawn + tl.load(rules + at.CHOICE).to(tl.int32)) * tl.load(rules + at.MEMBERS).to(tl.float32)
    rule = rules + choice.to(tl.int32) * at.RULE
    drawn = all_drawn + tl.load(rule + at.COLUMN).to(tl.int32)
    image -= tl.load(rule + at.NEIGHBOUR).to(tl.int32)
    image = tl.where(image < 0, image + sources, image)
    top, left, y, x, tall, wide, angle, beyond_y, beyond_x = placed(drawn, rule, height, width)
    if TRIED > 0:  # noqa: SIM102, known when the kernel is compiled, the other when it runs
        if tl.load(rule + at.CANDIDATES) > 0:
            area, zero = (height + 1) * (width + 1), beyond_y * 0
            cut_from, pasted_on = foreground + image.to(tl.int64) * area, foreground + b.to(tl.int64) * area
            top, left = moved(all_drawn, rule, cut_from, top, left, tall, wide, zero, zero, height, width, 0, TRIED)
            y, x = moved(all_drawn, rule, pasted_on, y, x, tall, wide, beyond_y, beyond_x, height, width, 2, TRIED)
    brightness, contrast, saturation, hue, rank, feather = looks(drawn, rule, JITTERED, FEATHERED)
    return image, top, left, y, x, tall, wide, angle, brightness, contrast, saturation, hue, rank, feather


@triton.jit
def placed(drawn, rule, height, width):
    """Do what `place_cutpaste` and `place_scar` do, and `BaseAugmentation` with whole images.

    Returns:
        source_y, source_x, y, x, height, width, angle, and how far the patch reaches beyond its upright rectangle, down
        and across; all float32.
    """
    kind, zero = tl.load(rule + at.KIND).to(tl.int32), tl.load(rule).to(tl.float32) * 0
    source_y, source_x, y, x, tall, wide, angle = zero, zero, zero, zero, zero, zero, zero
    beyond_y, beyond_x = zero, zero
    if kind == at.WHOLE:
        tall, wide = height + zero, width + zero
        source_y, source_x = -_shift(drawn, 5, rule, height), -_shift(drawn, 6, rule, width)
    elif kind > 0:
        if kind == at.STRIP:
            tall, wide, angle = _strip(drawn, rule, height, width)
            radians = angle * at.RADIANS
            cosine, sine = tl.abs(tl.cos(radians)), tl.abs(tl.sin(radians))
            beyond_y = tl.ceil((tall * cosine + wide * sine - tall) * 0.5)
            beyond_x = tl.ceil((tall * sine + wide * cosine - wide) * 0.5)
        else:
            tall, wide = _rectangle(drawn, rule, kind, height, width)
        down, across = height - tall, width - wide  # how far it can move while upright
        source_y, source_x = _inside(tl.load(drawn + 2), down), _inside(tl.load(drawn + 3), across)
        y = _inside(tl.load(drawn + 4), down - 2 * beyond_y) + beyond_y
        x = _inside(tl.load(drawn + 5), across - 2 * beyond_x) + beyond_x
        tall = tl.where(tl.load(drawn + 12) < tl.load(rule + at.SHARE).to(tl.float32), tall, 0.0)
    return source_y, source_x, y, x, tall, wide, angle, beyond_y, beyond_x


@triton.jit
def _rectangle(drawn, rule, kind, height, width):
    stretch = tl.load(drawn) * 0
    if kind == at.RECTANGLE:
        stretch = tl.exp(_between(drawn, 1, rule, at.LOW_1, 1.0).to(tl.float64)).to(tl.float32)
    else:
        low, high = tl.load(rule + at.LOW_1), tl.load(rule + at.LOW_1 + 1)
        twice = tl.load(drawn + 1) * 2
        flat = twice * (1.0 - low).to(tl.float32) + low.to(tl.float32)
        upright = (twice - 1) * (high - 1.0).to(tl.float32) + 1.0
        stretch = tl.sqrt_rn(tl.where(twice < 1, flat, upright))
    area = height.to(tl.float64) * width.to(tl.float64)
    side = tl.sqrt_rn(_between(drawn, 0, rule, at.LOW_0, area))
    return _side_of(side * stretch, height), _side_of(tl.div_rn(side, stretch), width)


@triton.jit
def _strip(drawn, rule, height, width):
    reference = tl.load(rule + at.REFERENCE)
    shorter = tl.minimum(height, width).to(tl.float64)
    scale = tl.where(reference > 0, shorter / tl.where(reference > 0, reference, 1.0), 1.0)
    tall = _side_of(_between(drawn, 0, rule, at.LOW_0, scale), height)
    wide = _side_of(_between(drawn, 1, rule, at.LOW_1, scale), width)
    return tall, wide, _between(drawn, 6, rule, at.LOW_2, 1.0)


@triton.jit
def moved(
    drawn, rule, sums, now_y, now_x, tall, wide, beyond_y, beyond_x, height, width, first, TRIED: tl.constexpr
):  # fmt: skip
    """Do what `move_onto` does to one corner of a patch.

    Args:
        drawn: the image's draws.
        sums: (1 + H, 1 + W) int32, the foreground above and to the left of each corner of a pixel.
        first: 0 for the source, 2 for the destination, of the four draws a candidate has.
    """
    i, count = tl.arange(0, TRIED), tl.load(rule + at.CANDIDATES).to(tl.int32)
    draws = drawn + tl.load(rule + at.CANDIDATE).to(tl.int32) + 4 * (i - 1) + first
    there = (i > 0) & (i <= count)
    room_y, room_x = tl.maximum(height - tall - 2 * beyond_y, 0.0), tl.maximum(width - wide - 2 * beyond_x, 0.0)
    rows = tl.minimum(_inside(tl.load(draws, mask=there, other=0.0), room_y), room_y) + beyond_y
    columns = tl.minimum(_inside(tl.load(draws + 1, mask=there, other=0.0), room_x), room_x) + beyond_x
    rows, columns = tl.where(i == 0, now_y, rows), tl.where(i == 0, now_x, columns)
    top, bottom = _limited(rows, height), _limited(rows + tall, height)
    left, right = _limited(columns, width), _limited(columns + wide, width)
    held = tl.load(sums + bottom * (width + 1) + right) - tl.load(sums + top * (width + 1) + right)
    held = held - tl.load(sums + bottom * (width + 1) + left) + tl.load(sums + top * (width + 1) + left)
    share = tl.div_rn(held.to(tl.float32), tl.maximum(tall * wide, 1.0) + 0.0 * rows)
    share = tl.where(share >= tl.load(rule + at.LEAST).to(tl.float32), 2.0, share)  # enough counts as 2
    best = tl.argmax(tl.where(i <= count, share, -1.0), 0, tie_break_left=True)
    return tl.sum(tl.where(i == best, rows, 0.0), 0), tl.sum(tl.where(i == best, columns, 0.0), 0)


@triton.jit
def looks(drawn, rule, JITTERED: tl.constexpr, FEATHERED: tl.constexpr):
    """Do what `place_jitter` does: give brightness, contrast, saturation, hue and order, and the feather."""
    brightness, contrast, saturation, hue, rank, feather = 1.0, 1.0, 1.0, 0.0, 0.0, 0.0
    if JITTERED:
        brightness, contrast = 1 + _change(drawn, rule, 0), 1 + _change(drawn, rule, 1)
        saturation, hue, rank = 1 + _change(drawn, rule, 2), _change(drawn, rule, 3), tl.load(drawn + 11)
    if FEATHERED:
        feather = tl.load(rule + at.FADE).to(tl.float32)
    return brightness, contrast, saturation, hue, rank, feather


@triton.jit
def _change(drawn, rule, step):
    return (tl.load(drawn + 7 + step) * 2 - 1) * tl.load(rule + at.JITTER + step).to(tl.float32)


@triton.jit
def turned(angle):
    """Give cosine and sine of degrees; that of a right angle is 0, see `paste`."""
    cosine, sine = tl.cos(angle * at.RADIANS), tl.sin(angle * at.RADIANS)
    return tl.where(tl.abs(cosine) < 1e-6, 0.0, cosine), sine


@triton.jit
def _between(drawn, column, rule, low, scale):
    """Turn a draw into a number between the rule's low and high, each times the scale, worked out in float64."""
    lowest, highest = tl.load(rule + low) * scale, tl.load(rule + low + 1) * scale
    return tl.load(drawn + column) * (highest - lowest).to(tl.float32) + lowest.to(tl.float32)


@triton.jit
def _side_of(length, limit):
    return rounded(tl.minimum(tl.maximum(length, 1.0), limit.to(tl.float32)))


@triton.jit
def _inside(draw, room):
    """Turn a draw into a whole number from 0 to room; a negative room counts as 0."""
    return tl.floor(draw * (tl.maximum(room, 0.0) + 1))


@triton.jit
def _shift(drawn, column, rule, length):
    return rounded((tl.load(drawn + column) * 2 - 1) * tl.load(rule + at.LOW_0).to(tl.float32) * length)


@triton.jit
def _limited(place, length):
    return tl.minimum(tl.maximum(place, 0.0).to(tl.int32), length)
