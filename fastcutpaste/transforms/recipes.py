"""Recipes: the defects of published methods by name, each a few lines; docs/recipes.md says what the papers state."""

from collections.abc import Callable

from torch import Tensor

from fastcutpaste.transforms.baselines import Confetti, Cutout
from fastcutpaste.transforms.blends import Transparent
from fastcutpaste.transforms.defect import Defect, Maker, Mixture
from fastcutpaste.transforms.fills import Other, Pattern, Textures
from fastcutpaste.transforms.masks import Perlin, Rectangle
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar


def cutpaste() -> Maker:
    """Paste a rectangle of the image elsewhere. Source: Li et al., "CutPaste", 2021."""
    return Mixture(CutPaste())


def cutpaste_scar() -> Maker:
    """Paste a thin turned strip of the image elsewhere. Source: as `cutpaste`."""
    return Mixture(CutPasteScar())


def cutout() -> Maker:
    """Cover a rectangle with black. Source: DeVries and Taylor, 2017; Li et al., 2021, Table 4."""
    return Mixture(Cutout())


def confetti() -> Maker:
    """Strew small squares of random colors. Source: Liznerski et al., "FCDD", 2021."""
    return Mixture(Confetti())


def fpi() -> Maker:
    """Mix a square of another image in, at the same place. Source: Tan et al., "Foreign Patch Interpolation", 2020."""
    square = Rectangle(CutPaste(area=(0.01, 0.16), aspect=(1, 1)))
    return Defect(square, Other(shift=(0, 0), resize=(1, 1)), Transparent(beta=(0.05, 0.95)))


def draem(textures: Tensor | None = None) -> Maker:
    """Show a texture through Perlin noise. Source: Zavrtanik et al., "DRAEM", 2021.

    Args:
        textures: (N, 3, h, w) uint8; None: patterns made here.
    """
    fill = Pattern() if textures is None else Textures(textures)
    return Defect(Perlin(), fill, Transparent(beta=(0.0, 0.8)), jitter=0.2)


RECIPES: dict[str, Callable[[], Maker]] = {
    "cutpaste": cutpaste,
    "cutpaste_scar": cutpaste_scar,
    "draem": draem,
    "fpi": fpi,
    "confetti": confetti,
    "cutout": cutout,
}
