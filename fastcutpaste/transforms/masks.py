"""Masks: where a defect lies. Each takes images (B, C, H, W) and draws (B, numbers), and gives bool (B, 1, H, W)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastcutpaste.op.checks import Range, check_range, touches_little
from fastcutpaste.op.paste import cover
from fastcutpaste.op.shapes import blob, perlin, scratch
from fastcutpaste.transforms.foreground import object_or_all, unlike_border
from fastcutpaste.transforms.patch import PatchTransform


class Mask(nn.Module):
    """Say where; subclasses define `forward`.

    Attributes:
        numbers: how many random numbers an image takes, uniform in [0, 1).
        whole: whether it has to see all images of a batch, where some alone are asked for.
    """

    numbers: int
    whole = False


def masked(mask: Mask, images: Tensor, draws: Tensor, only: Tensor | None) -> Tensor:
    """Give a mask (B, 1, H, W), empty but for the images (B,) bool that are asked for; a CPU draws those alone."""
    if only is None or mask.whole or not touches_little(images):
        drawn: Tensor = mask(images, draws)
        return drawn if only is None else drawn & only.view(-1, 1, 1, 1)
    empty, rows = torch.zeros_like(images[:, :1], dtype=torch.bool), only.nonzero().squeeze(1)
    return empty.index_copy_(0, rows, mask(images.index_select(0, rows), draws[rows]))


class Rectangle(Mask):
    """Take the rectangles that a patch transform pastes, upright or turned, its `p` included.

    Args:
        transform: such as `CutPaste()` or `CutPasteScar()`.
    """

    def __init__(self, transform: PatchTransform) -> None:
        super().__init__()
        if not isinstance(transform, PatchTransform):
            raise TypeError(f"Rectangle: a patch transform such as CutPaste() required, got {type(transform).__name__}")
        self.transform, self.numbers = transform, transform.numbers
        self.whole = any(_holds_masks(part) for part in transform.modules())

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        patches, _ = self.transform.choose(images, draws)
        return cover(patches, _size(images))


class Perlin(Mask):
    """Take where turned Perlin noise exceeds a threshold: several shapes, or none.

    Args:
        scale: smallest and largest exponent of two, of the cells along each side.
        threshold: of noise from about -1 to 1.
        rotation: smallest and largest angle, degrees.

    Raises:
        ValueError: in use, images with less than two pixels a cell at the largest scale.

    Source: Zavrtanik et al., "DRAEM", 2021; the defaults are those of its code.
    """

    def __init__(self, scale: tuple[int, int] = (0, 5), threshold: float = 0.5, rotation: Range = (-90, 90)) -> None:
        super().__init__()
        scale = _whole("Perlin", "scale", scale, 0, 8)
        check_range("Perlin", "rotation", rotation, -360, 360)
        if not -1 < threshold < 1:
            raise ValueError(f"Perlin: threshold between -1 and 1 required, got {threshold}")
        self.scale, self.threshold, self.rotation, self.numbers = scale, threshold, rotation, 4

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        size, (low, high) = _size(images), self.scale
        if min(size) < 2 * 2**high:
            raise ValueError(f"Perlin: images of at least {2 * 2**high} pixels a side for cells down to 2**-{high} of "
                             f"it required, got {size[0]}×{size[1]}")  # fmt: skip
        cells = 2 ** (low + (draws[:, 1:3] * (high - low + 1)).floor())
        angle = _between(draws[:, 3], self.rotation)
        return perlin(draws[:, 0], cells, angle, size, 2**high) > self.threshold


class Blob(Mask):
    """Draw one smooth closed shape: an ellipse whose outline waves.

    Args:
        area: smallest and largest area, fractions of the image; what lies beyond the image is cut off.
        roughness: largest change of the radius, as a share of it.
        stretch: largest length : width, 1 to 100.
    """

    WAVES = 5

    def __init__(self, area: Range = (0.005, 0.1), roughness: float = 0.5, stretch: float = 3.0) -> None:
        super().__init__()
        check_range("Blob", "area", area, 0.0, 1.0)
        if not 0 <= roughness <= 1:
            raise ValueError(f"Blob: roughness from 0 to 1 required, got {roughness}")
        if not 1 <= stretch <= 100:
            raise ValueError(f"Blob: stretch from 1 to 100 required, got {stretch}")
        self.area, self.roughness, self.stretch, self.numbers = area, roughness, stretch, 5 + 2 * self.WAVES

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        return self.around(_anywhere(draws[:, :2], _size(images)), _size(images), draws)

    def around(
        self, centre: Tensor, size: tuple[int, int], draws: Tensor, count: int = 1, there: Tensor | None = None
    ) -> Tensor:
        """Draw `count` blobs a mask about centres (B·count, 2), row and column, those that are there (B·count,) bool.

        The first two draws (B·count, numbers) are then not used.
        """
        area, stretch = _between(draws[:, 2], self.area) * (size[0] * size[1]), self.stretch ** draws[:, 3]
        area = area if there is None else area * there
        tall, phase = draws[:, 5::2], draws[:, 6::2] * (2 * math.pi)  # (B·count, WAVES) each
        falling = 1 / torch.arange(2, self.WAVES + 2, dtype=torch.float32, device=draws.device)  # finer waves are lower
        tall = tall * falling * (self.roughness / sum(1 / k for k in range(2, self.WAVES + 2)))
        waves = torch.stack([tall * phase.cos(), tall * phase.sin()], dim=-1)  # (B·count, WAVES, 2)
        return blob(centre, area, stretch, draws[:, 4] * 180, waves, size, count)


class Scratch(Mask):
    """Draw one thin curve, tapering to its ends, whose width varies on the way.

    Args:
        length: shortest and longest, pixels of an image whose shorter side is `reference`.
        width: thinnest and thickest, the same pixels; at most half the length.
        curvature: largest height of the arc : length.
        reference: image side those pixels refer to; None: pixels as they are.
    """

    def __init__(
        self,
        length: Range = (20, 120),
        width: Range = (1.5, 6),
        curvature: float = 0.3,
        reference: int | None = 256,
    ) -> None:
        super().__init__()
        check_range("Scratch", "length", length, 1, 1e6)
        check_range("Scratch", "width", width, 1, 1e6)
        if not 0 <= curvature <= 2:
            raise ValueError(f"Scratch: curvature from 0 to 2 required, got {curvature}")
        if reference is not None and reference < 1:
            raise ValueError(f"Scratch: reference of at least 1 pixel, or None, required, got {reference}")
        self.length, self.width, self.curvature, self.reference = length, width, curvature, reference
        self.numbers = 7

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        size = _size(images)
        scale = 1.0 if self.reference is None else min(size) / self.reference
        length = _between(draws[:, 2], self.length) * scale
        width = torch.minimum(_between(draws[:, 3], self.width) * scale, length / 2)
        bend, phase = (draws[:, 4] * 2 - 1) * self.curvature, draws[:, 6] * (2 * math.pi)
        return scratch(_anywhere(draws[:, :2], size), length, width, bend, draws[:, 5] * 180, phase, size)


class Clump(Mask):
    """Draw several small blobs close together.

    Args:
        count: fewest and most.
        spread: farthest distance of their centres from the clump's along each axis, fraction of the shorter side.
        blob: what each is.
    """

    def __init__(self, count: tuple[int, int] = (3, 8), spread: float = 0.12, blob: Blob | None = None) -> None:
        super().__init__()
        count = _whole("Clump", "count", count, 1, 64)
        if not 0 <= spread <= 1:
            raise ValueError(f"Clump: spread from 0 to 1 required, got {spread}")
        self.count, self.spread, self.blob = count, spread, blob or Blob(area=(0.0005, 0.004))
        self.numbers = 3 + count[1] * self.blob.numbers

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        low, high = self.count
        size, number = _size(images), (low + draws[:, 2:3] * (high - low + 1)).floor()  # (B, 1)
        each = draws[:, 3:].reshape(len(draws), high, self.blob.numbers)  # (B, most, numbers of a blob)
        away = (each[..., :2] * 2 - 1) * (self.spread * min(size))
        centre = (_anywhere(draws[:, :2], size)[:, None] + away).flatten(0, 1)  # (B·most, 2)
        there = (torch.arange(high, device=draws.device) < number).flatten()
        return self.blob.around(centre, size, each.flatten(0, 1), high, there)


class _Two(Mask):
    def __init__(self, first: Mask, second: Mask) -> None:
        super().__init__()
        _check_masks(type(self).__name__, first, second)
        self.first, self.second, self.numbers = first, second, first.numbers + second.numbers
        self.whole = first.whole or second.whole

    def both(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.split(draws, [self.first.numbers, self.second.numbers], dim=1)
        return self.first(images, first), self.second(images, second)


class Union(_Two):
    """Take what lies in one of two masks."""

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        first, second = self.both(images, draws)
        return first | second


class Intersection(_Two):
    """Take what lies in both of two masks."""

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        first, second = self.both(images, draws)
        return first & second


class Either(Mask):
    """Take one of several masks, drawn anew for each image with equal chance."""

    def __init__(self, *masks: Mask) -> None:
        super().__init__()
        if not masks:
            raise ValueError("Either: at least one mask required, got 0")
        _check_masks("Either", *masks)
        self.masks = nn.ModuleList(masks)
        self.numbers = 1 + max(mask.numbers for mask in masks)
        self.whole = any(mask.whole for mask in masks)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        choice = (draws[:, 0] * len(self.masks)).long()
        result = torch.zeros_like(images[:, :1], dtype=torch.bool)
        for i, mask in enumerate(self.masks):
            result = result | masked(mask, images, draws[:, 1 : 1 + mask.numbers], choice == i)  # type: ignore[operator, arg-type]
        return result


class OnObject(Mask):
    """Keep the part of a mask that lies on the object.

    Args:
        mask: that is cut.
        foreground: gives the object (B, 1, H, W) bool of images (B, C, H, W); what gives masks that you hold is fine.
        least: share of the object that has to be covered; where less is, the mask is empty and the image stays normal.
    """

    def __init__(self, mask: Mask, foreground: Callable[[Tensor], Tensor] = unlike_border, least: float = 0.0) -> None:
        super().__init__()
        _check_masks("OnObject", mask)
        if not 0 <= least <= 1:
            raise ValueError(f"OnObject: least from 0 to 1 required, got {least}")
        self.mask, self.foreground, self.least, self.numbers = mask, foreground, least, mask.numbers
        self.whole = mask.whole or _holds_masks(self)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        there, mask = self.foreground(images), self.mask(images, draws)
        if there.shape != mask.shape or there.dtype != torch.bool:
            raise ValueError(f"OnObject: a bool foreground of shape {tuple(mask.shape)} required, "
                             f"got {there.dtype} {tuple(there.shape)}")  # fmt: skip
        covered: Tensor = mask & there
        if not self.least:
            return covered
        share = covered.sum((1, 2, 3)) / there.sum((1, 2, 3)).clamp(min=1)
        return covered & (share >= self.least).view(-1, 1, 1, 1)


def _holds_masks(module: nn.Module) -> bool:
    """Tell whether a foreground may be that of a certain batch, and not be found in whichever images are shown."""
    return getattr(module, "foreground", unlike_border) not in (unlike_border, object_or_all)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _check_masks(who: str, *masks: Mask) -> None:
    for mask in masks:
        if not isinstance(mask, Mask):
            raise TypeError(f"{who}: a mask of transforms.masks required, got {type(mask).__name__}")


def _whole(who: str, name: str, values: Range, lowest: int, highest: int) -> tuple[int, int]:
    check_range(who, name, values, lowest, highest)
    if int(values[0]) != values[0] or int(values[1]) != values[1]:
        raise ValueError(f"{who}: {name} as whole numbers required, got {tuple(values)}")
    return int(values[0]), int(values[1])


def _between(drawn: Tensor, values: Range) -> Tensor:
    return drawn * (values[1] - values[0]) + values[0]


def _anywhere(drawn: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn draws (B, 2) into places in the image: row and column (B, 2), pixels, those between included."""
    return torch.stack([drawn[:, i] * size[i] - 0.5 for i in range(2)], dim=1)
