"""Laws of the jitter, of normalization and of levelling, held against the slow reference and torchvision."""

import itertools
import math

import numpy as np
import pytest
import torch
from reference import STEPS, one_patch, paste_reference, step_orders
from small_patches import (
    check_against_reference,
    patch_at,
    random_images,
    random_jitter,
    random_patches,
    seeded,
    to_numpy,
)
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as tv

from fastcutpaste.op.color import Jitter, level_brightness, normalize, place_jitter
from fastcutpaste.op.paste import paste
from fastcutpaste.op.placement import draw, place_cutpaste

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(6, 3, 40, 57), (6, 3, 57, 40), (6, 1, 33, 33), (6, 4, 24, 48), (6, 2, 48, 24)]

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


pytestmark = pytest.mark.usefixtures("way")


# Geometry


@pytest.mark.parametrize("angle", [0, 31])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.uint8, 1), (torch.float32, 1e-5), (torch.float64, 1e-5)])
def test_jitter_equals_the_reference(shape, angle, dtype, tolerance):
    difference = check_against_reference(
        random_images(shape, dtype), random_patches(shape, angle, jitter=True), tolerance=tolerance
    )
    assert (difference > 1e-5).double().mean() < 1e-3  # a level off only where the exact value lies between two


@pytest.mark.parametrize("order", [0.1, 0.4, 0.49, 0.51, 0.6, 0.8, 0.9])
def test_jitter_takes_the_steps_in_any_order_that_its_number_stands_for(order):
    shape = (1, 3, 20, 30)
    images, patches = random_images(shape, torch.float64), random_patches(shape, jitter=True)
    patches = patches._replace(jitter=patches.jitter._replace(order=torch.tensor([order])))
    result = to_numpy(paste(images, patches).images[0])
    assert len(step_orders(order)) in (4, 8)
    for steps in step_orders(order):
        reference = paste_reference(to_numpy(images[0]), one_patch(patches, 0), steps=steps)[0]
        assert np.abs(result - reference).max() < 1e-5


def test_every_order_of_the_steps_is_equally_likely():
    numbers = (np.arange(240) + 0.5) / 240
    share = sum(np.array([steps in step_orders(u) for steps in all_orders()]) / len(step_orders(u)) for u in numbers)
    assert_close(share / 240, np.full(24, 1 / 24), atol=1e-3, rtol=0)


def all_orders():
    return list(itertools.permutations(STEPS))


def test_jitter_equals_torchvision_step_by_step():
    """Inside the range nothing is clamped, so torchvision's clamping after each step changes nothing."""
    orders = all_orders()
    shape = (24, 3, 18, 25)
    images = 0.35 + 0.3 * random_images(shape, torch.float32)
    patches = random_patches(shape, jitter=True)
    numbers = torch.tensor([next(u for u in (0.2, 0.4, 0.6, 0.9) if steps in step_orders(u)) for steps in orders])
    jitter = random_jitter(24, torch.Generator().manual_seed(3), strength=0.2)._replace(order=numbers)
    result = paste(images, patches._replace(jitter=jitter))
    for b, steps in enumerate(orders):
        patch = one_patch(patches, b)
        pixels = tv.crop(images[b], patch.source_y, patch.source_x, patch.height, patch.width)
        for step in steps:
            pixels = getattr(tv, f"adjust_{step}")(pixels, getattr(jitter, step)[b].item())
        assert pixels.min() > 0
        assert pixels.max() < 1
        pasted = tv.crop(result.images[b], patch.y, patch.x, patch.height, patch.width)
        assert_close(pasted, pixels, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_neutral_jitter_copies(channels, dtype):
    shape = (4, channels, 20, 20)
    images, patches = random_images(shape, dtype), random_patches(shape)
    neutral = Jitter(*torch.tensor([1.0, 1.0, 1.0, 0.0, 0.3])[:, None].expand(5, 4))
    copied = paste(images, patches).images
    assert_close(paste(images, patches._replace(jitter=neutral)).images, copied, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_jitter_stays_in_the_range(dtype):
    shape = (16, 3, 20, 20)
    images, patches = random_images(shape, dtype), random_patches(shape)
    strong = random_jitter(16, torch.Generator().manual_seed(5), strength=1.0)
    strong = strong._replace(brightness=strong.brightness * 2, saturation=strong.saturation * 3)
    # The grey weights sum to 0.9999, so the steps commute to 1e-4 of what they change: here up to six-fold.
    check_against_reference(images, patches._replace(jitter=strong), tolerance=1 if dtype == torch.uint8 else 1e-3)
    pasted = paste(images, patches._replace(jitter=strong)).images
    top = 255 if dtype == torch.uint8 else 1
    assert pasted.min() == 0
    assert pasted.max() == top


def test_grey_and_black_patches_survive_a_hue_shift():
    images = torch.zeros(2, 3, 8, 8)
    images[1] = 0.5
    hue = Jitter(*torch.tensor([1.0, 1.0, 1.0, 0.3, 0.0])[:, None].expand(5, 2))
    patches = random_patches((2, 3, 8, 8))._replace(jitter=hue)
    assert_close(paste(images, patches).images, images)


def test_contrast_uses_the_grey_of_the_patch_alone():
    images = torch.zeros(1, 1, 10, 10)
    images[0, 0, :2, :2] = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    flat = Jitter(*torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])[:, None])
    result = paste(images, patch_at((0, 0), (7, 7), (2, 2), jitter=flat))
    assert_close(result.images[0, 0, 7:9, 7:9], torch.full((2, 2), 0.5))


def test_contrast_uses_the_whole_source_even_if_part_of_it_lands_outside():
    images = torch.zeros(1, 1, 10, 10)
    images[0, 0, 0, :4] = torch.tensor([0.2, 0.4, 0.6, 0.8])
    flat = Jitter(*torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])[:, None])
    result = paste(images, patch_at((0, 0), (5, -2), (1, 4), jitter=flat))
    assert_close(result.images[0, 0, 5, :2], torch.full((2,), 0.5))


def test_jitter_factors_are_uniform_within_their_strengths():
    draws = draw(4000, "cpu", seeded())[:, 7:12]
    jitter = place_jitter(draws.T, (0.1, 0.2, 0.3, 0.4))
    for factor, centre, strength in zip(jitter[:4], (1, 1, 1, 0), (0.1, 0.2, 0.3, 0.4), strict=True):
        assert centre - strength - 1e-6 <= factor.min() < centre - 0.99 * strength
        assert centre + 0.99 * strength < factor.max() <= centre + strength + 1e-6
        assert factor.mean() == pytest.approx(centre, abs=0.05 * strength)
        assert factor.var() == pytest.approx(strength**2 / 3, rel=0.05)
    assert 0 <= jitter.order.min() < 0.01
    assert 0.99 < jitter.order.max() < 1
    assert (torch.corrcoef(torch.stack(jitter)) - torch.eye(5)).abs().max() < 0.06


def test_one_strength_stands_for_all_four():
    draws = draw(9, "cpu", seeded())[:, 7:12]
    assert all(map(torch.equal, place_jitter(draws.T, 0.2), place_jitter(draws.T, (0.2,) * 4)))
    assert place_jitter(draws.T, 0) is None
    assert place_jitter(draws.T, (0, 0.0, 0, 0)) is None


def test_map_reaches_every_field():
    patches = place_cutpaste(draw(4, "cpu", seeded()), 64, 64).map(lambda field: field[:1])
    assert all(field.shape == (1,) for field in patches.tensors)
    assert isinstance(patches.jitter, Jitter)
    assert place_cutpaste(draw(4, "cpu", seeded()), 64, 64, jitter=0).map(torch.neg).jitter is None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("images_dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize_equals_torchvision(memory_format, images_dtype, dtype):
    images = torch.randint(0, 256, (4, 3, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    unit = images.float() / 255
    expected = tv.normalize(unit, MEAN.tolist(), STD.tolist())
    images = (images if images_dtype == torch.uint8 else unit).contiguous(memory_format=memory_format)
    before = images.clone()
    result = normalize(images, MEAN, STD, dtype)
    assert result.dtype == dtype
    assert result.stride() == images.stride()
    assert torch.equal(images, before)
    assert_close(result.float(), expected, atol=2e-6 if dtype == torch.float32 else 0.01, rtol=0)


def test_normalized_images_have_mean_0_and_variance_1():
    images = (
        torch.rand(2, 4, 50, 60, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.2, 0.5, 1, 0.8])[:, None, None]
    )
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    normalized = normalize(images, mean, std)
    assert_close(normalized.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    assert_close(normalized.var((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


def test_normalize_takes_an_empty_batch_and_one_pixel():
    assert normalize(torch.zeros(0, 3, 5, 5, dtype=torch.uint8), MEAN, STD).shape == (0, 3, 5, 5)
    assert_close(normalize(torch.full((1, 3, 1, 1), 0.5), MEAN, STD).flatten(), (0.5 - MEAN) / STD)


@pytest.mark.parametrize("strength", [-0.1, 1.1, 0.6, (0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.6), (1.1, 0, 0, 0), math.nan])
def test_jitter_out_of_bounds_is_refused(strength):
    """0.6 for all is too much too: hue is measured in turns, and half a turn is the largest change."""
    with pytest.raises(ValueError, match=r"jitter: brightness, contrast and saturation from 0 to 1 and hue"):
        place_jitter(torch.zeros(5, 2), strength)


@pytest.mark.parametrize("channels", [1, 4])
def test_normalize_refuses_constants_of_another_length(channels):
    with pytest.raises(ValueError, match=rf"normalize: mean and std of shape \({channels},\).*\(3,\)"):
        normalize(torch.zeros(2, channels, 5, 5), MEAN, STD)


def test_normalize_refuses_other_dtypes():
    with pytest.raises(TypeError, match=r"normalize: .*uint8.*int64"):
        normalize(torch.zeros(2, 3, 5, 5, dtype=torch.int64), MEAN, STD)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_levelled_images_have_the_brightness_asked_for_and_keep_their_ratios(dtype):
    images = torch.rand(4, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 0.5
    images = images * torch.linspace(0.4, 1, 4).view(-1, 1, 1, 1)
    white = 255 if dtype == torch.uint8 else 1
    images = (images * white).to(dtype)
    levelled = level_brightness(images, 0.3)
    assert (levelled.dtype, levelled.shape) == (torch.float32 if white == 255 else dtype, images.shape)
    assert (levelled.double().mean((1, 2, 3)) - 0.3).abs().max() < 0.003
    for before, after in zip(images.double(), levelled.double(), strict=True):
        assert (after - before * 0.3 / before.mean()).abs().max() < (0.004 if dtype == torch.bfloat16 else 1e-5)


def test_levelling_keeps_black_black_and_cuts_at_white():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[1, :, 0, 0] = 200
    levelled = level_brightness(images, 0.5)
    assert levelled[0].max() == 0
    assert levelled[1].unique().tolist() == [0, 1]
