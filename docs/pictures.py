"""Draw docs/transforms.jpg and recipes.jpg: each once on three photographs, what was changed outlined.

python docs/pictures.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste import Confetti, Cutout, CutPaste, CutPasteScar, OnForeground, QuarterTurn, Scar, recipe

TRANSFORMS = {
    "CutPaste()": CutPaste(),
    "CutPasteScar()": CutPasteScar(),
    'CutPaste(source="other")': CutPaste(source="other"),
    "CutPaste(feather=8)": CutPaste(feather=8),
    "OnForeground(CutPaste())": OnForeground(CutPaste()),
    'Cutout(color="mean")': Cutout(color="mean"),
    "Scar()": Scar(),
    "Confetti()": Confetti(),
    "QuarterTurn(1)": QuarterTurn(1),
}


def photographs(side: int = 192) -> Tensor:
    """Give a brick wall, gravel and a coffee cup, uint8 (3, 3, side, side).

    They ship inside scikit-image, without copyright restrictions.
    """
    images = []
    for picture in (data.brick(), data.gravel(), data.coffee()[:, 100:500]):
        image = torch.from_numpy(picture.copy())
        image = image.permute(2, 0, 1) if image.ndim == 3 else image.expand(3, *image.shape)  # (3, H, W)
        images.append(F.interpolate(image[None].float(), (side, side), mode="bilinear", antialias=True)[0])
    return torch.stack(images).round().clamp(0, 255).to(torch.uint8)


def draw(transforms: dict[str, nn.Module], seed: int, path: Path) -> None:
    """Draw a row for each transform, a column for each photograph."""
    images = photographs()
    rows = {"the photographs": (images, None)}
    for name, transform in transforms.items():
        made = transform.augment(images, torch.Generator().manual_seed(seed))
        rows[name] = (made.images, None if name == "QuarterTurn(1)" else made.mask[:, 0])
    figure = plt.figure(figsize=(8, 3 * len(rows)), layout="constrained")
    for part, (name, (pictures, masks)) in zip(figure.subfigures(len(rows)), rows.items(), strict=True):
        part.suptitle(name, fontsize=14, family="monospace" if masks is not None else None)
        for i, axis in enumerate(part.subplots(1, len(images))):
            axis.imshow(pictures[i].permute(1, 2, 0), interpolation="nearest")  # (H, W, 3)
            axis.set_axis_off()
            if masks is not None and masks[i].any():
                axis.contour(masks[i], levels=[0.5], colors="#00ff66", linewidths=1)
    figure.savefig(path, dpi=75, pil_kwargs={"quality": 82})


def main() -> None:
    """Draw both pictures."""
    draw(TRANSFORMS, 4, Path(__file__).with_name("transforms.jpg"))
    names = ("fpi", "nsa", "draem", "memseg", "defectmaker")
    draw({f'recipe("{name}")': recipe(name) for name in names}, 2, Path(__file__).with_name("recipes.jpg"))


if __name__ == "__main__":
    main()
