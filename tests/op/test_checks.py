"""Checks: images whose values are plainly not those that were asked for are refused where that costs nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastcutpaste.op.color import normalize
from fastcutpaste.op.paste import paste, paste_normalized
from fastcutpaste.op.placement import DRAWS, place_cutpaste
from fastcutpaste.transforms.patch import BaseAugmentation, CutPaste, CutPasteScar
from fastcutpaste.transforms.tasks import CutPaste3Way

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
PATCHES = place_cutpaste(torch.rand(2, DRAWS, generator=torch.Generator().manual_seed(0)), 32, 40, jitter=0.1)
OPS: dict[str, Callable[[Tensor], object]] = {
    "paste": lambda images: paste(images, PATCHES),
    "paste_normalized": lambda images: paste_normalized(images, PATCHES, MEAN, STD),
    "CutPaste": CutPaste(),
    "augment": CutPasteScar().augment,
    "3-way": CutPaste3Way(),
    "normalized": lambda images: CutPaste3Way().normalized(images, MEAN, STD),
    "base": BaseAugmentation(),
}


def draw_floats() -> Tensor:
    return torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", OPS)
def test_normalized_images_and_floats_up_to_255_are_refused(name: str) -> None:
    images = draw_floats()
    wrong = [normalize(images, MEAN, STD), (images - 0.5) / 0.25, images * 255, normalize(images, MEAN, STD).half()]
    for each in wrong:
        for laid_out in (each, each.contiguous(memory_format=torch.channels_last)):
            with pytest.raises(
                ValueError, match=r"paste: images of floating point 0–1 required, got values from .* to "
            ):
                OPS[name](laid_out)


@pytest.mark.parametrize("name", OPS)
def test_images_of_0_to_1_pass_and_so_do_those_a_little_beyond_and_empty_ones(name: str) -> None:
    images = draw_floats()
    for right in (images, images * 1.4 - 0.2, images.double(), images.requires_grad_(), (images * 255).to(torch.uint8)):
        OPS[name](right)
    if not name.startswith("paste"):
        OPS[name](images[:0])


def test_a_paste_without_jitter_clamps_nothing_and_takes_all_values() -> None:
    images = normalize(draw_floats(), MEAN, STD)
    made = CutPaste(jitter=0)(images, torch.Generator().manual_seed(0))
    assert torch.equal(made.unique(), images.unique()[torch.isin(images.unique(), made)])
