"""Fills: what a defect is made of. Each takes images (B, C, H, W) and draws (B, numbers).

`forward` gives (B, C, H, W), or (B, C, 1, 1) for a color, of the images' range; `at` and, on a CPU, `packed` give it at
some pixels alone.
"""

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from fastcutpaste.op.blends import every_pixel
from fastcutpaste.op.checks import Range, check_range
from fastcutpaste.op.slices import Array
from fastcutpaste.op.spots import Spot
from fastcutpaste.op.textures import Place, noise, pattern, read, read_spots
from fastcutpaste.transforms.baselines import Color as Colors
from fastcutpaste.transforms.baselines import check_color, plain_color
from fastcutpaste.transforms.ruled import picked


class Fill(nn.Module):
    """Say with what; subclasses define `at`.

    Attributes:
        numbers: how many random numbers an image takes, uniform in [0, 1).
    """

    numbers: int

    def check(self, images: Tensor) -> None:
        """Raise for images that it cannot fill, whichever of them would be."""

    def at(self, images: Tensor, draws: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Give (…, C) at pixels that `textures` describes."""
        raise TypeError(f"{type(self).__name__}: a subclass that defines at() required")

    def packed(self, images: Tensor, draws: Tensor, spots: list[Spot]) -> Array:
        """Give (C, n) at spots, on a CPU."""
        lines = [np.broadcast_arrays(*spot.lines(images.shape[-1])) for spot in spots]
        row, column = (
            torch.from_numpy(np.concatenate([each.ravel() for each in part])) for part in zip(*lines, strict=True)
        )
        image = torch.from_numpy(np.repeat([spot.image for spot in spots], [len(spot.found) for spot in spots]))
        pixels: Array = self.at(images, draws, image, row, column).numpy().T
        return pixels

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        return every_pixel(lambda *pixels: self.at(images, draws, *pixels), images)


class Shifted(Fill):
    """Take the image itself, shifted, and mirrored at its border.

    Args:
        shift: smallest and largest shift along each side, fractions of it, either way.
        resize: smallest and largest factor by which it is enlarged.
        flip: whether half of them are turned upside down, and half of them left to right.
        turn: whether half of them are turned by a quarter.
    """

    def __init__(
        self, shift: Range = (0.1, 0.5), resize: Range = (1.0, 1.0), flip: bool = False, turn: bool = False
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_range(who, "shift", shift, 0.0, 1.0)
        check_range(who, "resize", resize, 0.05, 20.0)
        self.shift, self.resize, self.flip, self.turn, self.numbers = shift, resize, flip, turn, 7

    def source(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Give what is read (N, C, h, w), and which of it for each image (B,) int64."""
        return images, torch.arange(len(images), device=images.device)

    def place(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Place]:
        """Give what is read and how it is laid over each image."""
        source, which = self.source(images, draws)
        low, high = self.shift
        away = draws[:, 1:3] * 2 - 1  # (B, 2), how far, either way
        away = torch.full_like(away, low).copysign(away) + away * (high - low)
        down, right = ((away[:, i] * source.shape[2 + i]).round() for i in range(2))
        flip_y, flip_x = (1 - 2 * (draws[:, i] < 0.5).float() if self.flip else None for i in (3, 4))
        low, high = self.resize
        zoom = None if low == high == 1 else draws[:, 5] * (high - low) + low
        return source, Place(which, down, right, zoom, flip_y, flip_x, draws[:, 6] < 0.5 if self.turn else None)

    def at(self, images: Tensor, draws: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        source, place = self.place(images, draws)
        return read(source, place, (images.shape[-2], images.shape[-1]), image, row, column)

    def packed(self, images: Tensor, draws: Tensor, spots: list[Spot]) -> Array:
        source, place = self.place(images, draws)
        return read_spots(source, place, (images.shape[-2], images.shape[-1]), spots)


class Other(Shifted):
    """Take another image of the batch, the one before it: of a batch of one the image itself.

    Args:
        shift, resize, flip, turn: as for `Shifted`.

    Source: Schlüter et al., "Natural Synthetic Anomalies", 2022, resize patches by 0.7 to 1.3.
    """

    def __init__(
        self, shift: Range = (0.0, 0.5), resize: Range = (0.7, 1.3), flip: bool = False, turn: bool = False
    ) -> None:
        super().__init__(shift, resize, flip, turn)

    def source(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        return images, torch.arange(len(images), device=images.device).roll(1)


class Textures(Shifted):
    """Take one of several textures, drawn anew for each image, shifted, enlarged, flipped and turned.

    Args:
        textures: (N, 3 or 1, h, w) uint8, kept on a CPU until images of another device come.
        shift, resize, flip, turn: as for `Shifted`.

    Raises:
        TypeError, ValueError: textures of another type or shape, or none; in use, of other channels than the images.
    """

    textures: Tensor

    def __init__(
        self,
        textures: Tensor,
        shift: Range = (0.0, 0.5),
        resize: Range = (0.7, 1.5),
        flip: bool = True,
        turn: bool = True,
    ) -> None:
        super().__init__(shift, resize, flip, turn)
        if not isinstance(textures, Tensor) or textures.dtype != torch.uint8:
            came = textures.dtype if isinstance(textures, Tensor) else type(textures).__name__
            raise TypeError(f"Textures: a tensor of uint8 required, got {came}")
        if textures.ndim != 4 or textures.shape[1] not in (1, 3) or 0 in textures.shape:
            raise ValueError(f"Textures: at least one texture (N, 3 or 1, h, w) required, got {tuple(textures.shape)}")
        self.register_buffer("textures", textures, persistent=False)

    def check(self, images: Tensor) -> None:
        channels = self.textures.shape[1]
        if channels not in (1, images.shape[1]):
            raise ValueError(f"Textures: of {images.shape[1]} channels like the images required, got {channels}")

    def source(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        self.check(images)
        textures: Tensor = self.textures.expand(-1, images.shape[1], -1, -1)
        return textures, (draws[:, 0] * len(textures)).long()

    def at(self, images: Tensor, draws: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        levels = super().at(images, draws, image, row, column)
        return levels if images.dtype == torch.uint8 else levels / 255

    def packed(self, images: Tensor, draws: Tensor, spots: list[Spot]) -> Array:
        levels = super().packed(images, draws, spots)
        return levels if images.dtype == torch.uint8 else levels / np.float32(255)


class Color(Fill):
    """Take one color for each image.

    Args:
        color: "random", uniform in the color cube, of up to 5 channels, "black" or "mean", of the image.
    """

    def __init__(self, color: Colors = "random") -> None:
        super().__init__()
        self.color, self.numbers = check_color(color), 5

    def check(self, images: Tensor) -> None:
        if self.color == "random" and images.shape[1] > self.numbers:
            raise ValueError(f"Color: images of at most {self.numbers} channels for a random color required, "
                             f"got {images.shape[1]}")  # fmt: skip

    def at(self, images: Tensor, draws: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return self.forward(images, draws)[:, :, 0, 0][image]

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        self.check(images)
        return plain_color(images, self.color, draws)


class Noise(Fill):
    """Take noise, uniform in the color cube, each pixel its own."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 1

    def at(self, images: Tensor, draws: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return _in_range(noise(draws[:, 0], images.shape, image, row, column), images)


class Pattern(Fill):
    """Take stripes, cells or marble between two random colors: textures for whoever has none, of up to 3 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 11

    def check(self, images: Tensor) -> None:
        if images.shape[1] > 3:
            raise ValueError(f"Pattern: images of at most 3 channels required, got {images.shape[1]}")

    def at(self, images: Tensor, draws: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        self.check(images)
        channels, side = images.shape[1], min(images.shape[-2:])
        return _in_range(pattern(draws[:, : 5 + 2 * channels], side, channels, image, row, column), images)


class AnyOf(Fill):
    """Take one of several fills, drawn anew for each image with equal chance."""

    def __init__(self, *fills: Fill) -> None:
        super().__init__()
        if not fills:
            raise ValueError("AnyOf: at least one fill required, got 0")
        for fill in fills:
            if not isinstance(fill, Fill):
                raise TypeError(f"AnyOf: a fill of transforms.fills required, got {type(fill).__name__}")
        self.fills = nn.ModuleList(fills)
        self.numbers = 1 + max(fill.numbers for fill in fills)

    def check(self, images: Tensor) -> None:
        for fill in self.fills:
            fill.check(images)  # type: ignore[operator]

    def at(self, images: Tensor, draws: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        choice = (draws[:, 0] * len(self.fills)).long()[image][..., None]
        options = [fill.at(images, draws[:, 1:], image, row, column) for fill in self.fills]  # type: ignore[operator]
        return picked(choice, options)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        # Of whole fills, not pixels, which lie in memory as images do: compiled, sums over them then share a launch.
        choice = (draws[:, 0] * len(self.fills)).long().view(-1, 1, 1, 1)
        return picked(choice, [fill(images, draws[:, 1:]) for fill in self.fills])

    def packed(self, images: Tensor, draws: Tensor, spots: list[Spot]) -> Array:
        choice = (draws[:, 0] * len(self.fills)).long().tolist()
        found: dict[int, Array] = {}
        for i, fill in enumerate(self.fills):
            chosen = [spot for spot in spots if choice[spot.image] == i]
            if chosen:
                ends = list(accumulate(len(spot.found) for spot in chosen))
                parts = np.split(fill.packed(images, draws[:, 1:], chosen), ends[:-1], axis=1)  # type: ignore[operator]
                found |= {spot.image: part for spot, part in zip(chosen, parts, strict=True)}
        return np.concatenate([found[spot.image] for spot in spots], 1)


def _in_range(values: Tensor, images: Tensor) -> Tensor:
    """Bring values of 0–1 to the images' range, whole levels for uint8."""
    return (values * 255).round() if images.dtype == torch.uint8 else values
