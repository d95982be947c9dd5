"""Looks: what tells one lot of images from another at a glance, in a few numbers that a detector's file can keep."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from fastcutpaste.images.decode import decode, in_threads
from fastcutpaste.images.hold_out import prefix_of

_MOST = 64  # images read, evenly spaced
_KEPT = 8  # sizes and beginnings of names, the most common ones
_NEAR = (64, 64)  # (height, width) that is enough for a mean
_STEP = 0.01  # of mean brightness, 0-1, below which nobody would see it
_ERRORS = 4  # standard errors between two means, which chance alone hardly ever makes
_FEW = 0.1  # share of images that may be unlike the others in size, color or name without a word
_COLORS = {"L": "grey", "RGB": "color"}


@dataclass(frozen=True)
class Looks:
    """Hold how images look.

    images: how many there are.
    brightness, spread: mean, and standard deviation from image to image, of their mean brightness, 0-1.
    sizes: how many of the images read are of a (height, width), as "1024×768".
    colors: how many of the images read are in "grey" or in "color".
    prefixes: how many names are alike but for a number (`prefix_of`): "camera2_" of camera2_0013.png.
    """

    images: int
    brightness: float
    spread: float
    sizes: dict[str, int]
    colors: dict[str, int]
    prefixes: dict[str, int]

    @classmethod
    def of(cls, paths: Sequence[Path], bits: int | None = None) -> "Looks":
        """Look at image files, at 64 of them at most, evenly spaced, and at all names.

        Args:
            paths: the files.
            bits: as for `load_images`; looks are compared by one scale.

        Raises:
            ValueError: no files, one that cannot be read.
        """
        if not paths:
            raise ValueError("Looks.of: at least 1 image required, got none")
        read = paths[:: -(-len(paths) // _MOST)]

        def look(path: Path) -> tuple[float, str, str]:
            image, (height, width), _ = decode(path, _NEAR, bits)
            return float(np.asarray(image.convert("L")).mean()) / 255, f"{height}×{width}", _COLORS[image.mode]

        seen = in_threads("Looks.of", look, read, None, False)
        means = np.array([mean for mean, _, _ in seen])
        return cls(
            len(paths),
            round(float(means.mean()), 4),
            round(float(means.std(ddof=1)), 4) if len(means) > 1 else 0.0,
            _common(size for _, size, _ in seen),
            _common(color for _, _, color in seen),
            _common(prefix_of(path) for path in paths),
        )


def differences(images: Looks, others: Looks) -> list[str]:
    """Tell what sets images apart from others, in a clause each: what a scorer that knows the others may stumble on.

    Sizes, and beginnings of names, that vary from image to image among the others are not compared.
    """
    told = []
    read, others_read = sum(images.colors.values()), sum(others.colors.values())
    if (freedom := read + others_read - 2) > 0:
        squares = (read - 1) * images.spread**2 + (others_read - 1) * others.spread**2
        error = sqrt(squares / freedom * (1 / read + 1 / others_read))
        step = images.brightness - others.brightness
        if abs(step) > max(_STEP, _ERRORS * error):
            than = "brighter" if step > 0 else "darker"
            told.append(f"they are {than} (mean brightness {images.brightness:.3f} against {others.brightness:.3f})")
    for what, mine, theirs, total, others_total in (
        ("are {} px", images.sizes, others.sizes, read, others_read),
        ("are in {}", images.colors, others.colors, read, others_read),
        ("have names that begin with {!r}", images.prefixes, others.prefixes, images.images, others.images),
    ):
        strange = [name for name in mine if name not in theirs]
        count = sum(mine[name] for name in strange)
        if count > _FEW * total and sum(theirs.values()) >= (1 - _FEW) * others_total:
            named = what.format(max(strange, key=mine.__getitem__))
            told.append(f"{count} of {total} {named}{' and the like' if len(strange) > 1 else ''}, as none of those")
    return told


def _common(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common(_KEPT))
