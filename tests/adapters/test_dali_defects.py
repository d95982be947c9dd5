"""Recipes in DALI against the same recipes called in torch, with the same draws."""

from itertools import repeat

import numpy as np
import pytest
import torch

from fastcutpaste.transforms.blends import Feather
from fastcutpaste.transforms.defect import Defect
from fastcutpaste.transforms.fills import Other
from fastcutpaste.transforms.masks import Blob
from fastcutpaste.transforms.patch import CutPaste
from fastcutpaste.transforms.recipes import RECIPES, recipe

pytest.importorskip("nvidia.dali")

from nvidia.dali import fn, pipeline_def
from nvidia.dali.experimental import dynamic

from fastcutpaste.adapters.dali_defects import make_defects

BACKENDS = [
    "cpu",
    pytest.param(
        "gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
    ),
]


def make_images(count=3, height=70, width=90, dtype=np.uint8):
    """Give images (H, W, 3) of smooth colors, each its own."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + b) + c) * np.cos(columns / (7 + b)) for b in range(count) for c in range(3)]
    images = 0.5 + 0.45 * np.array(waves).reshape(count, 3, height, width).transpose(0, 2, 3, 1)
    return [np.ascontiguousarray(image) for image in (images * (255 if dtype == np.uint8 else 1)).astype(dtype)]


def draws_for(maker, count=3, seed=0):
    return torch.rand(count, maker.numbers, generator=torch.Generator().manual_seed(seed))


def run(maker, images, draws=None, backend="cpu", runs=1, seed=1, **settings):
    """Run a pipeline; give images (B, H, W, C) and masks (B, H, W, 1) of each run."""

    @pipeline_def(
        batch_size=len(images), num_threads=1, device_id=0 if backend == "gpu" else None, seed=seed, **settings
    )
    def define():
        source = fn.external_source(repeat(images), layout="HWC")
        given = None if draws is None else fn.external_source(repeat(list(draws.numpy())))
        return make_defects(source.gpu() if backend == "gpu" else source, maker, draws=given)

    pipeline = define()
    return [[np.stack([np.array(each) for each in part.as_cpu()]) for part in pipeline.run()] for _ in range(runs)]


def in_torch(maker, images, draws, backend="cpu"):
    """Give the same of `augment`, in channels_last, as DALI's images lie."""
    device = "cuda" if backend == "gpu" else "cpu"
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    made = maker.augment(pixels, draws=draws.to(device))
    return [part.permute(0, 2, 3, 1).cpu().numpy() for part in (made.images, made.mask)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", [*RECIPES, "cutpaste_scar+fpi+draem"])
def test_a_recipe_makes_the_defects_that_it_makes_in_torch(name, dtype, backend):
    maker, images = recipe(name), make_images(dtype=dtype)
    draws = draws_for(maker)
    made, mask = run(maker, images, draws, backend)[0]
    expected, expected_mask = in_torch(maker, images, draws, backend)
    assert made.dtype == dtype
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(made, expected)
    assert mask.any()


@pytest.mark.parametrize("maker", [CutPaste(p=0.5), Defect(Blob(), Other(), Feather(3))])
def test_transforms_and_defects_of_ones_own_are_taken_too(maker):
    images, draws = make_images(), draws_for(maker)
    for part, expected in zip(run(maker, images, draws)[0], in_torch(maker, images, draws), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_the_seed_of_the_pipeline_decides_and_each_run_draws_anew():
    maker, images = recipe("fpi"), make_images()
    first, again, other = (run(maker, images, seed=seed, runs=2) for seed in (5, 5, 6))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], same[0])
    assert not np.array_equal(first[0][1], first[1][1])
    assert not np.array_equal(first[0][1], other[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_dynamic_mode_takes_batches(backend):
    maker, images = recipe("defectmaker"), make_images()
    draws = draws_for(maker)
    batch, given = dynamic.as_batch(images, layout="HWC"), dynamic.as_batch(list(draws.numpy()))
    made, mask = make_defects(batch.gpu() if backend == "gpu" else batch, maker, draws=given)
    assert made.device.device_type == backend
    for part, expected in zip((made, mask), in_torch(maker, images, draws, backend), strict=True):
        np.testing.assert_array_equal(np.stack([np.array(each) for each in part.cpu().tensors]), expected)


def test_dynamic_mode_draws_from_its_own_seed():
    maker, batch, masks = recipe("fpi"), dynamic.as_batch(make_images(), layout="HWC"), []
    for seed in (5, 5, 6):
        dynamic.random.set_seed(seed)
        masks.append(np.stack([np.array(each) for each in make_defects(batch, maker)[1].tensors]))
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_dynamic_mode_takes_single_images():
    maker, image = recipe("draem"), make_images(1)
    draws = draws_for(maker, 1)
    made = make_defects(dynamic.as_tensor(image[0], layout="HWC"), maker, draws=dynamic.as_tensor(draws[0].numpy()))
    for part, expected in zip(made, in_torch(maker, image, draws), strict=True):
        np.testing.assert_array_equal(np.array(part), expected[0])


def test_what_augments_nothing_is_refused_before_anything_is_built():
    with pytest.raises(
        TypeError, match=r"a recipe or a transform with augment\(\), such as CutPaste\(\), required, got Identity"
    ):
        make_defects(None, torch.nn.Identity())
    with pytest.raises(TypeError, match=r"images as a DataNode of a pipeline, .* got ndarray"):
        make_defects(make_images()[0], recipe("nsa"))


def test_images_without_channels_are_told():
    images = [np.ascontiguousarray(image[..., 0]) for image in make_images()]
    with pytest.raises(ValueError, match=r"images \(H, W, C\) required, got \(70, 90\)"):
        make_defects(dynamic.as_batch(images, layout="HW"), recipe("fpi"))


def test_images_of_several_sizes_are_told():
    images = [*make_images(1), *make_images(2, 70, 80)]
    message = "images of one size required, got 70×90, 70×80; resize or crop them before"
    with pytest.raises(RuntimeError, match=message):
        run(recipe("fpi"), images)
    with pytest.raises(ValueError, match=message):
        make_defects(dynamic.as_batch(images, layout="HWC"), recipe("fpi"))
