"""Recipes: the defects of published methods by name, each a few lines; docs/recipes.md says what the papers state."""

from collections.abc import Callable

from torch import Tensor

from fastcutpaste.transforms.baselines import Confetti, Cutout
from fastcutpaste.transforms.blends import Poisson, Transparent
from fastcutpaste.transforms.defect import Defect, Maker, Mixture
from fastcutpaste.transforms.fills import AnyOf, Fill, Noise, Other, Pattern, Shifted, Textures
from fastcutpaste.transforms.foreground import object_or_all
from fastcutpaste.transforms.masks import Blob, Clump, Either, OnObject, Perlin, Rectangle, Scratch, Union
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar

_STRONG = (0.4, 0.4, 0.4, 0.2)  # for three of imgaug's ten changes of color, drawn anew, which the public codes apply


def cutpaste() -> Maker:
    """Paste a rectangle of the image elsewhere. Source: Li et al., "CutPaste", 2021."""
    return Mixture(CutPaste())


def cutpaste_scar(reference: int | None = 256) -> Maker:
    """Paste a thin turned strip of the image elsewhere. Source: as `cutpaste`.

    Args:
        reference: image side that its pixels refer to; None: pixels as they are.
    """
    return Mixture(CutPasteScar(reference=reference))


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


def nsa() -> Maker:
    """Blend rectangles of another image in, enlarged or reduced, by their gradients: one, often two.

    Source: Schlüter et al., "Natural Synthetic Anomalies", 2022.
    """
    rectangles = Union(Rectangle(CutPaste(area=(0.004, 0.2))), Rectangle(CutPaste(area=(0.004, 0.2), p=0.5)))
    return Defect(rectangles, Other(resize=(0.7, 1.3)), Poisson())


def draem(textures: Tensor | None = None) -> Maker:
    """Show a texture through Perlin noise. Source: Zavrtanik et al., "DRAEM", 2021.

    Args:
        textures: (N, 3, h, w) uint8, as `load_textures` gives them; None: patterns made here.
    """
    return Defect(Perlin(), _textured(textures), Transparent(beta=(0.0, 0.8)), jitter=_STRONG)


def memseg(textures: Tensor | None = None) -> Maker:
    """Show a texture, or the image itself elsewhere, through Perlin noise on the object. Source: Yang et al., 2023.

    Args:
        textures: as for `draem`.
    """
    fill = AnyOf(_textured(textures), Shifted(flip=True, turn=True))
    return Defect(OnObject(Perlin(), object_or_all), fill, Transparent(beta=(0.0, 0.85)), jitter=_STRONG)


def defectmaker(reference: int | None = 256) -> Maker:
    """Put blobs, scratches and clumps of the image itself or of noise on the object.

    Args:
        reference: as for `cutpaste_scar`, of the scratches.

    Source: Lyu et al., "REB: Reducing Biases in Representation for Industrial Anomaly Detection", 2023.
    """

    scratch = Scratch(length=(20, 100), width=(2, 16), reference=reference)
    mask = OnObject(Either(Blob(area=(0.02, 0.15)), scratch, Clump()), object_or_all)
    return Defect(mask, AnyOf(Shifted(), Noise()), Transparent(beta=(0.0, 0.5)), jitter=0.1)


def _textured(textures: Tensor | None) -> Fill:
    return Pattern() if textures is None else Textures(textures)


TEXTURED = ("draem", "memseg")  # those that take textures
RECIPES: dict[str, Callable[[int | None, Tensor | None], Maker]] = {
    "cutpaste": lambda reference, textures: cutpaste(),
    "cutpaste_scar": lambda reference, textures: cutpaste_scar(reference),
    "cutout": lambda reference, textures: cutout(),
    "confetti": lambda reference, textures: confetti(),
    "fpi": lambda reference, textures: fpi(),
    "nsa": lambda reference, textures: nsa(),
    "draem": lambda reference, textures: draem(textures),
    "memseg": lambda reference, textures: memseg(textures),
    "defectmaker": lambda reference, textures: defectmaker(reference),
}


def recipe(names: str, reference: int | None = 256, textures: Tensor | None = None) -> Maker:
    """Give a recipe by its name, or a mixture of several, such as "nsa" or "cutpaste+draem".

    Args:
        names: joined by +, each with equal chance.
        reference: as for `cutpaste_scar`; None for crops, which are windows of the image, not small images.
        textures: as for `draem`, of those recipes that take some.

    Raises:
        TypeError: names that are no text.
        ValueError: a name that is none; textures of recipes that take none.
    """
    parts = check_recipe(names, textures is not None)
    makers = [RECIPES[name](reference, textures) for name in parts]
    return makers[0] if len(makers) == 1 else Mixture(*makers)


def check_recipe(names: str, textured: bool) -> list[str]:
    """Give the names that are joined by +, and raise as `recipe` does, before textures are read."""
    if not isinstance(names, str):
        raise TypeError(f"recipe: names joined by + as one text required, got {type(names).__name__}")
    parts = [name.strip() for name in names.split("+")]
    for name in parts:
        if name not in RECIPES:
            raise ValueError(f"recipe: some of {', '.join(RECIPES)}, joined by +, required, got {name!r}")
    if textured and not set(parts) & set(TEXTURED):
        raise ValueError(f"textures: a recipe that takes them, {' or '.join(TEXTURED)}, required, got {names!r}")
    return parts
