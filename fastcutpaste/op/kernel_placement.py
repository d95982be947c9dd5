"""Where patches lie, on a GPU: what `placement` does to tensors, done by the Triton program that needs the patch.

The same formulas in the same order and in float32 without fused products, so that equal draws give equal patches.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from fastcutpaste.op import kernel_constants as at
from fastcutpaste.op.kernel_color import rounded


@triton.jit
def chosen(drawn, rules):
    """Give the rule that an image's draws choose of a class, and the first of the draws that are the rule's own."""
    choice = tl.load(drawn + tl.load(rules + at.CHOICE).to(tl.int32)) * tl.load(rules + at.MEMBERS).to(tl.float32)
    rule = rules + choice.to(tl.int32) * at.RULE
    return rule, drawn + tl.load(rule + at.COLUMN).to(tl.int32)


@triton.jit
def placed(drawn, rule, height, width):
    """Do what `place_cutpaste` and `place_scar` do: give source_y, source_x, y, x, height, width and angle, float32."""
    kind, zero = tl.load(rule + at.KIND).to(tl.int32), tl.load(drawn) * 0
    tall, wide, angle, beyond_y, beyond_x = zero, zero, zero, zero, zero
    if kind == at.STRIP:
        reference = tl.load(rule + at.REFERENCE)
        shorter = tl.minimum(height, width).to(tl.float64)
        scale = tl.where(reference > 0, shorter / tl.where(reference > 0, reference, 1.0), 1.0)
        tall = _side_of(_between(drawn, 0, rule, at.LOW_0, scale), height)
        wide = _side_of(_between(drawn, 1, rule, at.LOW_1, scale), width)
        angle = _between(drawn, 6, rule, at.LOW_2, 1.0)
        radians = angle * at.RADIANS
        cosine, sine = tl.abs(tl.cos(radians)), tl.abs(tl.sin(radians))
        beyond_y = tl.ceil((tall * cosine + wide * sine - tall) * 0.5)
        beyond_x = tl.ceil((tall * sine + wide * cosine - wide) * 0.5)
    elif kind > 0:
        stretch = zero
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
        tall = _side_of(side * stretch, height)
        wide = _side_of(tl.div_rn(side, stretch), width)
    down, across = height - tall, width - wide  # how far it can move while upright
    source_y, source_x = _inside(drawn, 2, down), _inside(drawn, 3, across)
    y = _inside(drawn, 4, down - 2 * beyond_y) + beyond_y
    x = _inside(drawn, 5, across - 2 * beyond_x) + beyond_x
    tall = tl.where(tl.load(drawn + 12) < tl.load(rule + at.SHARE).to(tl.float32), tall, 0.0)
    return source_y, source_x, y, x, tall, wide, angle


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
def _inside(drawn, column, room):
    return tl.floor(tl.load(drawn + column) * (tl.maximum(room, 0.0) + 1))
