"""Blends and labels, against SciPy and loops over pixels."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from small_patches import random_images, seeded
from torch.testing import assert_close

from fastcutpaste import CutPaste, paste
from fastcutpaste.op.blends import distance_inside, soft_label
from fastcutpaste.transforms.blends import Blend, Feather, Replace, Transparent
from fastcutpaste.transforms.defect import Defect
from fastcutpaste.transforms.fills import Color, Shifted
from fastcutpaste.transforms.masks import Blob, Rectangle, Scratch, Union


@pytest.mark.parametrize("most", [1, 3, 6])
def test_distances_are_scipys(most):
    masks = Union(Blob(area=(0.1, 0.4)), Scratch())
    mask = masks(torch.zeros(6, 1, 40, 33), torch.rand(6, masks.numbers, generator=seeded(0)))
    distances = distance_inside(mask, most)
    for one, distance in zip(mask[:, 0].numpy(), distances[:, 0].numpy(), strict=True):
        true = distance_transform_edt(np.pad(one, 1))[1:-1, 1:-1]  # the border is an edge
        np.testing.assert_allclose(distance, np.clip(np.minimum(true, most) - 0.5, 0, None), atol=1e-5)


def test_a_feathered_rectangle_is_that_of_the_patch_transform():
    images = random_images((6, 3, 48, 40), torch.uint8)
    draws = torch.rand(6, 13, generator=seeded(1))
    feathered = CutPaste(jitter=0, feather=5)
    black = paste(images, feathered.patches(draws, 48, 40), torch.zeros(6, 3, 1, 1, dtype=torch.uint8))
    defect = Defect(Rectangle(CutPaste()), Color("black"), Feather(5))
    made = defect.augment(images, draws=torch.cat([torch.zeros(6, 6), draws, torch.zeros(6, 5)], 1))
    assert torch.equal(made.mask, black.mask)
    assert_close(made.images.int(), black.images.int(), atol=1, rtol=0)


def test_transparency_is_in_its_range_and_as_distributed():
    draws = torch.rand(5000, 1, generator=seeded(2))
    mask = torch.ones(5000, 1, 1, 1, dtype=torch.bool)
    beta = 1 - Transparent(beta=(0.1, 0.7)).share(mask, draws)
    assert 0.1 <= float(beta.min()) < 0.11
    assert 0.69 < float(beta.max()) <= 0.7
    assert abs(float(beta.mean()) - 0.4) < 0.01
    beta = 1 - Transparent(beta=(0.2, 0.8), normal=(0.5, 0.1)).share(mask, draws)
    assert abs(float(beta.mean()) - 0.5) < 0.005
    assert abs(float(beta.std()) - 0.1) < 0.005
    assert float(beta.min()) >= 0.2 - 1e-6
    assert torch.isfinite(1 - Transparent(normal=(0.5, 0.1)).share(mask[:1], torch.zeros(1, 1))).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_blend_is_the_average_that_beta_says(dtype):
    images = random_images((3, 3, 16, 16), dtype)
    defect = Defect(Blob(area=(0.3, 0.5)), Color("random"), Transparent())
    draws = torch.rand(3, defect.numbers, generator=seeded(3))
    made = defect.augment(images, draws=draws)
    color, beta = Color("random")(images, draws[:, 21:26]).double(), draws[:, -1] * 0.8
    for b, row, column in made.mask[:, 0].nonzero().tolist():
        expected = beta[b] * images[b, :, row, column].double() + (1 - beta[b]) * color[b, :, 0, 0]
        near = 0.51 if dtype == torch.uint8 else 1e-6
        assert_close(made.images[b, :, row, column].double(), expected.double(), atol=near, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 16, 1), (3, 1, 1, 16)])
def test_a_share_may_be_of_any_shape_that_broadcasts(shape):
    share = torch.rand(shape, generator=seeded(6))

    class Given(Blend):
        def share(self, mask, draws):
            return share

    images = random_images((3, 3, 16, 16), torch.float32)
    made = Defect(Blob(area=(0.3, 0.5)), Color("black"), Given()).augment(images, seeded(7))
    assert_close(made.images, torch.where(made.mask, images * (1 - share), images), atol=1e-6, rtol=0)


def test_a_jittered_fill_is_that_of_a_patch():
    """A rectangle that is filled with the image itself at its place, jittered, is a CutPaste to its own place."""
    images = random_images((4, 3, 40, 40), torch.uint8)
    draws = torch.rand(4, 13, generator=seeded(4))
    patches = CutPaste(jitter=0.3).patches(draws, 40, 40)
    patches = patches._replace(source_y=patches.y, source_x=patches.x)
    defect = Defect(Rectangle(CutPaste()), Shifted(shift=(0, 0)), Replace(), jitter=0.3)
    own = torch.cat([torch.zeros(4, 1), draws[:, 7:12]], 1)
    made = defect.augment(images, draws=torch.cat([own, draws, torch.zeros(4, 3), torch.ones(4, 4) * 0.6], 1))
    assert_close(made.images.int(), paste(images, patches).images.int(), atol=1, rtol=0)


@pytest.mark.parametrize("full", [255, 1])
def test_the_soft_label_is_a_logistic_of_the_mean_change(full):
    before = random_images((2, 3, 6, 6), torch.uint8 if full == 255 else torch.float32)
    after = random_images((2, 3, 6, 6), before.dtype).flip(0)
    mask = torch.rand(2, 1, 6, 6, generator=seeded(5)) < 0.5
    label = soft_label(before, after, mask)
    for b, p, q in np.ndindex(2, 6, 6):
        change = sum(abs(float(after[b, c, p, q]) - float(before[b, c, p, q])) for c in range(3)) / 3 * 255 / full
        expected = 1 / (1 + math.exp(-(change - 24) / 12)) if mask[b, 0, p, q] else 0.0
        assert float(label[b, 0, p, q]) == pytest.approx(expected, abs=1e-5)
