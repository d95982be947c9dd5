"""Draw → place: the random numbers of a batch, and the arithmetic that makes patches of them.

`draw` is the only randomness. A patch is a rectangle, turned or not; a method of the family is a choice of mask (where
the patch lies) × fill (the image itself, another image, a color) × blend (hard or feathered edge).
Source of the method: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", 2021.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastcutpaste.op.checks import Range, check_range
from fastcutpaste.op.color import Jitter, JitterStrength, place_jitter

DRAWS = 13  # uniform numbers a patch: height/width 2, source 2, destination 2, angle, jitter 5, applied or not
MANY = 8  # patches, from which on arrays of them take less time than one after another
AspectDistribution = Literal["log_uniform", "two_uniforms"]


class Patches(NamedTuple):
    """Hold one patch per image; every field is a tensor of shape (B,), lengths and positions in pixels.

    The rectangle that is cut out lies inside the image; the one that is pasted may reach beyond it.
    """

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
        """Give the patches with `change` applied to every tensor, in the order of `tensors`."""
        geometry = [change(field) for field in self.geometry]
        jitter = None if self.jitter is None else self.jitter.map(change)
        return Patches._make([*geometry, jitter, None if self.feather is None else change(self.feather)])

    @property
    def geometry(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The fields that say where: source_y, source_x, y, x, height, width, angle."""
        return self[:7]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors: of the geometry, of the jitter if there is one, and the feather if there is one."""
        return [*self.geometry, *(self.jitter or ()), *([] if self.feather is None else [self.feather])]


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
        TypeError: draws of another type than float32 or float64.
    """
    _check_draws("place_cutpaste", draws, height, width)
    check_range("place_cutpaste", "area", area, 0.0, 1.0)
    check_range("place_cutpaste", "aspect", aspect, 1e-6, 1e6)
    if aspect_distribution not in ("log_uniform", "two_uniforms"):
        raise ValueError(
            f"place_cutpaste: aspect_distribution 'log_uniform' or 'two_uniforms' required, got {aspect_distribution!r}"
        )
    if aspect_distribution == "two_uniforms" and not aspect[0] <= 1 <= aspect[1]:
        raise ValueError(
            f"place_cutpaste: aspect with low <= 1 <= high required for 'two_uniforms', got {tuple(aspect)}"
        )

    def place(xp: Any, drawn: Any) -> Any:
        if aspect_distribution == "log_uniform":  # the square root of the aspect, since both sides need it
            stretch = xp.exp(_between(drawn[1], math.log(aspect[0]) / 2, math.log(aspect[1]) / 2))
        else:
            low, high = drawn[1] * 2, drawn[1] * 2 - 1  # each uniform in [0, 1) on its half of the draws
            stretch = xp.sqrt(xp.where(low < 1, _between(low, aspect[0], 1.0), _between(high, 1.0, aspect[1])))
        side = xp.sqrt(_between(drawn[0], area[0] * height * width, area[1] * height * width))
        tall = xp.round(xp.clip(side * stretch, 1, height))
        wide = xp.round(xp.clip(side / stretch, 1, width))
        down, across = height - tall, width - wide  # how far it can move
        corners = [_inside(xp, drawn[i], room) for i, room in ((2, down), (3, across), (4, down), (5, across))]
        return *corners, tall, wide, drawn[6] * 0

    return _placed(place, draws, jitter)


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
        TypeError: draws of another type than float32 or float64.
    """
    _check_draws("place_scar", draws, height, width)
    check_range("place_scar", "scar_width", scar_width, 0.0, 1e6)
    check_range("place_scar", "scar_length", scar_length, 0.0, 1e6)
    check_range("place_scar", "rotation", rotation, -360.0, 360.0)
    if reference is not None and reference < 1:
        raise ValueError(f"place_scar: reference of at least 1 pixel, or None, required, got {reference}")
    scale = 1.0 if reference is None else min(height, width) / reference

    def place(xp: Any, drawn: Any) -> Any:
        tall = xp.round(xp.clip(_between(drawn[0], scar_length[0] * scale, scar_length[1] * scale), 1, height))
        wide = xp.round(xp.clip(_between(drawn[1], scar_width[0] * scale, scar_width[1] * scale), 1, width))
        angle = _between(drawn[6], *rotation)
        beyond_y, beyond_x = _beyond(xp, tall, wide, angle)
        down, across = height - tall, width - wide  # how far it can move while upright
        source_y, source_x = _inside(xp, drawn[2], down), _inside(xp, drawn[3], across)
        y = _inside(xp, drawn[4], down - 2 * beyond_y) + beyond_y
        x = _inside(xp, drawn[5], across - 2 * beyond_x) + beyond_x
        return source_y, source_x, y, x, tall, wide, angle

    return _placed(place, draws, jitter)


def turned_reach(height: Tensor, width: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give how far a turned patch reaches beyond its upright rectangle on each side, down (B,) and across (B,).

    In whole pixels; negative where the turned patch is the smaller one.
    """
    beyond_y, beyond_x = _beyond(torch, height, width, angle)
    return beyond_y.long(), beyond_x.long()


def _between(drawn: Any, low: float, high: float) -> Any:
    """Turn uniform numbers in [0, 1) into uniform numbers from low to high."""
    return drawn * (high - low) + low


def combined(options: Sequence[Patches], combine: Callable[[list[Tensor]], Tensor]) -> Patches:
    """Make one `Patches` of several: each field by `combine` of theirs, in order.

    Where only some have a jitter or a feather, the others get one that changes nothing.
    """
    one, zero = torch.ones_like(options[0].angle), torch.zeros_like(options[0].angle)
    if any(patches.jitter for patches in options):
        neutral = Jitter(one, one, one, zero, zero)
        options = [patches._replace(jitter=patches.jitter or neutral) for patches in options]
    if any(patches.feather is not None for patches in options):
        options = [patches._replace(feather=zero) if patches.feather is None else patches for patches in options]
    fields = iter([combine(list(column)) for column in zip(*(patches.tensors for patches in options), strict=True)])
    return options[0].map(lambda _: next(fields))


def joined(options: Sequence[Patches]) -> Patches:
    """Give the patches of several batches one after another."""
    return combined(options, torch.cat)


class _OneByOne:
    """The functions a placement calls, for Python numbers; of tensors they are torch's, of arrays NumPy's."""

    exp, sqrt, cos, sin, deg2rad = math.exp, math.sqrt, math.cos, math.sin, math.radians
    floor, ceil, round, abs = math.floor, math.ceil, round, abs

    @staticmethod
    def clip(value: float, low: float, high: float) -> float:
        return min(max(value, low), high)

    @staticmethod
    def where(condition: bool, value: float, other: float) -> float:
        return value if condition else other


def _placed(place: Callable[[Any, Any], Any], draws: Tensor, jitter: JitterStrength) -> Patches:
    """Make patches of draws (B, DRAWS) and a formula from drawn numbers to the geometry of a patch.

    On a CPU it is worked out in NumPy, 60 to 100 µs however many the patches, where torch takes 200; or for a few of
    them patch by patch in Python numbers, 10 to 20 µs each.
    """
    if draws.device.type != "cpu" or type(draws) is not Tensor or torch.compiler.is_compiling():
        drawn = draws.T  # (DRAWS, B)
        *whole, angle = place(torch, drawn)
        return Patches._make([*(field.long() for field in whole), angle, place_jitter(drawn[7:12], jitter), None])
    if 0 < len(draws) < MANY:
        rows = [(*place(_OneByOne, row), *(place_jitter(row[7:12], jitter) or ())) for row in draws.tolist()]
        numbers = np.array(rows, np.float64).reshape(len(rows), -1).T  # (fields, B)
    else:
        columns = draws.detach().numpy().T.astype(np.float64)  # (DRAWS, B)
        numbers = np.stack([*place(np, columns), *(place_jitter(columns[7:12], jitter) or ())])
    whole = torch.from_numpy(numbers[:6].astype(np.int64)).unbind()
    angle, *factors = torch.from_numpy(numbers[6:].astype(np.float32)).unbind()
    return Patches._make([*whole, angle, Jitter(*factors) if factors else None, None])


def _beyond(xp: Any, height: Any, width: Any, angle: Any) -> tuple[Any, Any]:
    """Give what `turned_reach` does as whole floats."""
    radians = xp.deg2rad(angle)
    cosine, sine = xp.abs(xp.cos(radians)), xp.abs(xp.sin(radians))
    across, down = height * sine + width * cosine, height * cosine + width * sine  # of the box around it
    return xp.ceil((down - height) / 2), xp.ceil((across - width) / 2)


def _inside(xp: Any, drawn: Any, room: Any) -> Any:
    """Turn uniform numbers into whole ones from 0 to room, evenly; a negative room counts as 0.

    The largest float32 below 1 times a whole number below 2**24 stays below that number, so nothing lies beyond room.
    """
    return xp.floor(drawn * (xp.clip(room, 0, math.inf) + 1))


def _check_draws(who: str, draws: Tensor, height: int, width: int) -> None:
    if draws.ndim != 2 or draws.shape[1] != DRAWS:
        raise ValueError(f"{who}: draws of shape (B, {DRAWS}) required, got {tuple(draws.shape)}")
    if draws.dtype not in (torch.float32, torch.float64):  # others round to 1
        raise TypeError(f"{who}: draws of float32 required, got {draws.dtype}")
    if height < 1 or width < 1:
        raise ValueError(f"{who}: images of at least 1×1 pixel required, got {height}×{width}")
