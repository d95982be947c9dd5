"""The colors of a patch on a GPU: what `color` does to tensors, done to the values a Triton program holds."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from fastcutpaste.op.color import GREY_WEIGHTS

RED, GREEN, BLUE = (tl.constexpr(weight) for weight in GREY_WEIGHTS)
ROUNDER = tl.constexpr(1.5 * 2**23)  # added to a float32 and taken away it rounds, halves to even


@triton.jit
def number(how, field, n, count):
    return tl.load(how + field * count + n)


@triton.jit
def grey_of(red, green, blue, CHANNELS: tl.constexpr):
    return red * RED + green * GREEN + blue * BLUE if CHANNELS == 3 else red


@triton.jit
def jittered(red, green, blue, mean, how, n, count, full, CHANNELS: tl.constexpr, IS_COLOR: tl.constexpr):
    """Do what `color.greys` and `color.recolor` do."""
    brightness, contrast, rank = number(how, 1, n, count), number(how, 2, n, count), number(how, 5, n, count)
    gain, share = brightness * contrast, 1.0
    grey = grey_of(red, green, blue, CHANNELS)
    own = grey
    if CHANNELS == 3:
        share = number(how, 3, n, count)  # saturation
        red, green, blue = hue_rotated(red, green, blue, number(how, 4, n, count))
        change = grey_of(red, green, blue, CHANNELS) - grey
        own += change * share_of_hue(rank, share)
        grey += change * tl.where(rank < 1 / 2, 1.0, 0.0)
    if IS_COLOR:
        mean = own
    shift = grey * (gain * (1 - share)) + mean * (brightness * (1 - contrast))
    red, green, blue = red * (gain * share) + shift, green * (gain * share) + shift, blue * (gain * share) + shift
    return clipped(red, full), clipped(green, full), clipped(blue, full)


@triton.jit
def share_of_hue(rank, saturation):
    """Say how much of the hue's change of grey comes before contrast, by the order of the steps; see `color.greys`."""
    return tl.where(rank < 1 / 3, 1.0, tl.where(rank > 5 / 6, saturation, 0.0))


@triton.jit
def stored(value, images):
    """Round a float32 to what the images' type can hold."""
    return (
        value + ROUNDER - ROUNDER
        if images.dtype.element_ty == tl.uint8
        else value.to(images.dtype.element_ty).to(tl.float32)
    )


@triton.jit
def clipped(value, highest):
    return tl.minimum(tl.maximum(value, 0.0), highest)


@triton.jit
def hue_rotated(red, green, blue, turns):
    """Do what `color.rotate_hue` does."""
    high, low = tl.maximum(tl.maximum(red, green), blue), tl.minimum(tl.minimum(red, green), blue)
    chroma = high - low
    per_chroma = 1.0 / tl.maximum(chroma, 1e-12)
    sixths = tl.where(
        high == red,
        (green - blue) * per_chroma,
        tl.where(high == green, (blue - red) * per_chroma + 2, (red - green) * per_chroma + 4),
    )
    turned = sixths + turns * 6
    turned -= tl.floor(turned / 6) * 6
    red = low + chroma * clipped(tl.abs(turned - 3) - 1, 1.0)
    green = low + chroma * clipped(2 - tl.abs(turned - 2), 1.0)
    blue = low + chroma * clipped(2 - tl.abs(turned - 4), 1.0)
    return red, green, blue
