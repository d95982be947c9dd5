"""Draw → place: the random numbers of a batch, and the arithmetic that makes patches of them.

`draw` is the only randomness. A patch is a rectangle, turned or not; a method of the family is a choice of mask (where
the patch lies) × fill (the image itself, another image, a color) × blend (hard or feathered edge).
Source of the method: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", 2021.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastcutpaste.checks import Range, check_range
from fastcutpaste.color import Jitter, JitterStrength, place_jitter

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
    feather: Tensor | None = None  # float32, pixels from the edge over which the patch fades in; None: a hard edge

    def map(self, change: Callable[[Tensor], Tensor]) -> "Patches":
        """Give the patches with `change` applied to every field, those of the jitter included."""
        jitter = None if self.jitter is None else self.jitter.map(change)
        feather = None if self.feather is None else change(self.feather)
        return Patches._make([*(change(field) for field in self.geometry), jitter, feather])

    @property
    def geometry(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The fields that say where: source_y, source_x, y, x, height, width, angle."""
        return self[:7]


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
    if aspect_distribution == "log_uniform":  # the square root of the aspect, since both sides need it
        stretch = _between(draws[:, 1], (math.log(aspect[0]) / 2, math.log(aspect[1]) / 2)).exp()
    elif aspect_distribution == "two_uniforms":
        if not aspect[0] <= 1 <= aspect[1]:
            raise ValueError(
                f"place_cutpaste: aspect with low <= 1 <= high required for 'two_uniforms', got {tuple(aspect)}"
            )
        low, high = draws[:, 1] * 2, draws[:, 1] * 2 - 1  # each uniform in [0, 1) on its half of the draws
        stretch = torch.where(low < 1, _between(low, (aspect[0], 1.0)), _between(high, (1.0, aspect[1]))).sqrt()
    else:
        raise ValueError(
            f"place_cutpaste: aspect_distribution 'log_uniform' or 'two_uniforms' required, got {aspect_distribution!r}"
        )
    side = _between(draws[:, 0], (area[0] * height * width, area[1] * height * width)).sqrt()
    sizes = _sizes(side * stretch, side / stretch, height, width)
    corners = _inside(draws[:, 2:6].reshape(-1, 2, 2), _room(sizes, height, width)[:, None])  # (B, 2, 2)
    fields = [*corners.flatten(1).unbind(1), *sizes.long().unbind(1), torch.zeros_like(side)]
    return Patches._make([*fields, place_jitter(draws[:, 7:12], jitter), None])


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
    lengths = _between(draws[:, 0], (scar_length[0] * scale, scar_length[1] * scale))
    widths = _between(draws[:, 1], (scar_width[0] * scale, scar_width[1] * scale))
    sizes = _sizes(lengths, widths, height, width)
    room = _room(sizes, height, width)
    angle = _between(draws[:, 6], rotation)
    beyond = _beyond(sizes, angle)
    source, corner = _inside(draws[:, 2:4], room), _inside(draws[:, 4:6], room - 2 * beyond) + beyond.long()
    fields = [*source.unbind(1), *corner.unbind(1), *sizes.long().unbind(1), angle]
    return Patches._make([*fields, place_jitter(draws[:, 7:12], jitter), None])


def turned_reach(height: Tensor, width: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give how far a turned patch reaches beyond its upright rectangle on each side, down (B,) and across (B,).

    In whole pixels; negative where the turned patch is the smaller one.
    """
    beyond_y, beyond_x = _beyond(torch.stack([height, width], dim=1), angle).long().unbind(1)
    return beyond_y, beyond_x


def cosine_and_sine(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give cosine and sine of angles in degrees; a right angle's cosine is 0.

    float32 gives -4e-8, and where height + width is odd every pixel is then a tie, and the patch torn.
    """
    radians = angle.deg2rad()
    cosine = radians.cos()
    return torch.where(cosine.abs() < 1e-6, 0, cosine), radians.sin()


def _beyond(sizes: Tensor, angle: Tensor) -> Tensor:
    """Give what `turned_reach` does of sizes (B, 2) as whole floats (B, 2)."""
    radians = angle.deg2rad()[:, None]  # (B, 1)
    turned = sizes * radians.cos().abs() + sizes.flip(1) * radians.sin().abs()
    return ((turned - sizes) / 2).ceil()


def _sizes(height: Tensor, width: Tensor, tallest: int, widest: int) -> Tensor:
    """Bring heights and widths (B,) to whole pixels of an image: (B, 2), floats still."""
    return torch.stack([height.clamp(1, tallest), width.clamp(1, widest)], dim=1).round()


def _room(sizes: Tensor, height: int, width: int) -> Tensor:
    """Give how far patches of sizes (B, 2) can move down and across: (B, 2)."""
    return height - sizes if height == width else torch.stack([height - sizes[:, 0], width - sizes[:, 1]], dim=1)


def _between(drawn: Tensor, values: Range) -> Tensor:
    return drawn * (values[1] - values[0]) + values[0]


def _inside(drawn: Tensor, room: Tensor) -> Tensor:
    """Turn uniform numbers into integers 0 … room, evenly; a negative room counts as 0."""
    room = room.clamp(min=0)
    return torch.minimum(drawn * (room + 1), room).long()


def _check_draws(who: str, draws: Tensor, height: int, width: int) -> None:
    if draws.ndim != 2 or draws.shape[1] != DRAWS:
        raise ValueError(f"{who}: draws of shape (B, {DRAWS}) required, got {tuple(draws.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"{who}: images of at least 1×1 pixel required, got {height}×{width}")
