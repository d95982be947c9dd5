"""The colors of a patch on a GPU: what `color` does to tensors, done to the values a Triton program holds."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from fastcutpaste.op import kernel_constants as at


@triton.jit
def grey_of(red, green, blue, CHANNELS: tl.constexpr):
    return red * at.RED + green * at.GREEN + blue * at.BLUE if CHANNELS == 3 else red


@triton.jit
def jittered(
    red, green, blue, mean, brightness, contrast, saturation, hue, rank, full,
    CHANNELS: tl.constexpr, IS_COLOR: tl.constexpr,
):  # fmt: skip
    """Do what `color.greys` and `color.recolor` do."""
    gain, share = brightness * contrast, 1.0
    grey = grey_of(red, green, blue, CHANNELS)
    own = grey
    if CHANNELS == 3:
        share = saturation
        red, green, blue = hue_rotated(red, green, blue, hue)
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
    if images.dtype.element_ty == tl.uint8:
        return rounded(value)
    else:
        return value.to(images.dtype.element_ty).to(tl.float32)


@triton.jit
def rounded(value):
    """Round to a whole number, halves to the even one; of up to 2**22."""
    return value + at.ROUNDER - at.ROUNDER


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


@triton.jit
def pixels_at(place, channel, there, CHANNELS: tl.constexpr):
    """Read three channels, or one three times, as float32."""
    red = tl.load(place, mask=there, other=0).to(tl.float32)
    green, blue = red, red
    if CHANNELS == 3:
        green = tl.load(place + channel, mask=there, other=0).to(tl.float32)
        blue = tl.load(place + 2 * channel, mask=there, other=0).to(tl.float32)
    return red, green, blue


@triton.jit
def mirrored(position, length):
    """Fold a position from -length to 2·length - 1 back into the image, the edge pixel being seen twice."""
    position = tl.where(position < 0, -1 - position, position)
    return tl.where(position >= length, 2 * length - 1 - position, position)
