"""fastcutpaste preview: every transform on the user's own images."""

from pathlib import Path

import click
from torch import nn

from fastcutpaste.cli.options import SEED_OPTION, finish, size_of
from fastcutpaste.console import people
from fastcutpaste.images.decode import find_bits, load_images
from fastcutpaste.images.folders import find_training_images
from fastcutpaste.reports.pictures import write_preview
from fastcutpaste.transforms.baselines import Confetti, Cutout, Scar
from fastcutpaste.transforms.foreground import OnForeground
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar
from fastcutpaste.transforms.recipes import RECIPES
from fastcutpaste.transforms.recipes import recipe as recipe_of


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("preview.png"), show_default=True)
@click.option("--count", default=2, show_default=True, help="Images shown with each transform.")
@click.option("--size", default="256", show_default=True, help="SIDE or HEIGHTxWIDTH, px.")
@click.option("--recipe", "recipes", multiple=True,
              help=f"This alone, of {', '.join(RECIPES)}, or several joined by +; may be given again.")  # fmt: skip
@SEED_OPTION
def preview(data: Path, out: Path, count: int, size: str, recipes: tuple[str, ...], seed: int) -> None:
    """Draw image, result, mask and difference of every transform and recipe on the images in DATA."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"):
        raise ValueError(f"preview --out: a picture's name required, such as preview.png, got {out}")
    chosen: dict[str, nn.Module] = {name: recipe_of(name) for name in recipes}
    found = find_training_images(data)
    images = load_images(found.paths[: max(1, count)], size_of(size), bits=find_bits(found.paths)).pixels
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
        **{name: recipe_of(name) for name in ("fpi", "nsa", "draem", "memseg", "defectmaker")},
    }
    write_preview(images, transforms, out, seed)
    people.print(f"look at {out}")
    finish({"preview": str(out), "images": len(images), "transforms": list(transforms)})
