"""fastcutpaste preview: every transform on the user's own images."""

from pathlib import Path

import click
from torch import nn

from fastcutpaste.cli.options import SEED_OPTION, TEXTURES_OPTION, finish, size_of
from fastcutpaste.console import people
from fastcutpaste.images.batches import load_textures
from fastcutpaste.images.decode import find_bits, load_images
from fastcutpaste.images.folders import find_training_images
from fastcutpaste.reports.pictures import write_preview
from fastcutpaste.transforms.baselines import Confetti, Cutout, Scar
from fastcutpaste.transforms.foreground import OnForeground
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar
from fastcutpaste.transforms.recipes import RECIPES, TEXTURED, check_recipe
from fastcutpaste.transforms.recipes import recipe as recipe_of


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("preview.png"), show_default=True)
@click.option("--count", type=click.IntRange(1), default=2, show_default=True, help="Images shown with each transform.")
@click.option("--size", default="256", show_default=True, help="SIDE or HEIGHTxWIDTH, px.")
@click.option("--recipe", "recipes", multiple=True,
              help=f"This alone, of {', '.join(RECIPES)}, or several joined by +; may be given again.")  # fmt: skip
@TEXTURES_OPTION
@SEED_OPTION
def preview(
    data: Path, out: Path, count: int, size: str, recipes: tuple[str, ...], textures: Path | None, seed: int
) -> None:
    """Draw image, result, mask and difference of every transform and recipe on the images in DATA."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"):
        raise ValueError(f"preview --out: a picture's name required, such as preview.png, got {out}")
    if recipes and textures is not None:
        check_recipe("+".join(recipes), True)
    texture = None if textures is None else load_textures(textures)

    def made(name: str) -> nn.Module:
        return recipe_of(name, textures=texture if set(check_recipe(name, False)) & set(TEXTURED) else None)

    chosen = {name: made(name) for name in recipes}
    found = find_training_images(data)
    images = load_images(found.paths[:count], size_of(size), bits=find_bits(found.paths)).pixels
    transforms = chosen or {
        "CutPaste": CutPaste(),
        "CutPaste, on the object": OnForeground(CutPaste()),
        "CutPaste, other image": CutPaste(source="other"),
        "CutPaste, feathered": CutPaste(feather=8),
        "CutPasteScar": CutPasteScar(),
        "CutPasteScar, on the object": OnForeground(CutPasteScar()),
        "Cutout": Cutout(),
        "Cutout, random color": Cutout("random"),
        "Scar, random color": Scar(),
        "Confetti": Confetti(),
        **{name: made(name) for name in ("fpi", "nsa", "draem", "memseg", "defectmaker")},
    }
    write_preview(images, transforms, out, seed)
    people.print(f"look at {out}")
    finish({"preview": str(out), "images": len(images), "transforms": list(transforms)})
