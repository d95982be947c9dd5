"""The DALI adapter against `paste` and `placement.place_*`, with the parameters DALI itself returned."""

import importlib.util
import sys
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcutpaste.op.color import Jitter
from fastcutpaste.op.paste import paste
from fastcutpaste.op.placement import Patches, draw, place_cutpaste, place_scar

pytest.importorskip("nvidia.dali")

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.experimental import dynamic

from fastcutpaste.adapters import dali

SIZES = ((60, 80), (50, 41), (97, 64), (33, 120))  # of the images of a batch
BACKENDS = [
    "cpu",
    pytest.param(
        "gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
    ),
]


def make_images(channels=3):
    """Give one image (H, W, C) for each of SIZES: two of noise, two of smooth colors with grey and plain parts."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, channels), dtype=np.uint8) for size in SIZES]
    for image in images[2:]:
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
        for channel in range(channels):
            image[..., channel] = 128 + 127 * np.sin(rows / 9 + channel) * np.cos(columns / 7)
        image[10:20] = image[10:20, :, :1]
        image[20:25] = (255, 255, 0)[:channels]
    return images


def run(augment, images, backend="cpu", runs=1, inputs=(), seed=1, **settings):
    """Run a pipeline that augments; give, for each image of all runs, a list of the arrays that came out.

    Args:
        augment: takes images and further inputs, gives images, mask and patches.
        images: list of (H, W, C) uint8.
        inputs: for each further input, a list of arrays, one an image.
    """

    @pipeline_def(
        batch_size=len(images), num_threads=1, device_id=0 if backend == "gpu" else None, seed=seed, **settings
    )
    def define():
        source = fn.external_source(repeat(images), layout="HWC")
        more = [fn.external_source(repeat(arrays)) for arrays in inputs]
        augmented, mask, patches = augment(source.gpu() if backend == "gpu" else source, *more)
        return augmented, mask, *patches.tensors

    pipeline = define()
    samples = []
    for _ in range(runs):
        outputs = [output.as_cpu() for output in pipeline.run()]
        samples += [[np.array(output[i]) for output in outputs] for i in range(len(images))]
    return samples


def to_patches(fields):
    """Make `Patches` of one image from the numbers DALI returned."""
    tensors = [torch.tensor([number.item()]) for number in fields]
    return Patches(*tensors[:7], Jitter(*tensors[7:]) if len(tensors) > 7 else None)


def paste_one(image, patches):
    """Paste with `paste`: image (H, W, C) to image (H, W, C) and mask (H, W, 1)."""
    pasted = paste(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous(), patches)  # (1, C, H, W)
    return tuple(result[0].permute(1, 2, 0).numpy() for result in pasted)


def differences(samples, images):
    """Compare with `paste`: mask pixels that differ, and for all images |difference| of their values."""
    wrong, values = 0, []
    for i, (augmented, mask, *fields) in enumerate(samples):
        expected, expected_mask = paste_one(images[i % len(images)], to_patches(fields))
        assert augmented.dtype == expected.dtype
        assert mask.dtype == expected_mask.dtype
        assert augmented.shape == expected.shape
        wrong += (mask != expected_mask).sum()
        values.append(np.abs(augmented.astype(int) - expected).reshape(-1))
    return wrong, np.concatenate(values)


# Pixels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_upright_pixels_and_masks_equal_paste_bit_for_bit(backend, channels):
    images = make_images(min(channels, 3))
    images = [np.concatenate([image, image[..., :1]], -1) for image in images] if channels == 4 else images
    samples = run(lambda images: dali.cutpaste(images, jitter=0), images, backend, runs=10)
    wrong, values = differences(samples, images)
    assert wrong == 0
    assert values.max() == 0
    assert all(mask.sum() == height * width for _, mask, *_, height, width, _ in samples)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rotation", [(-45, 45), (-180, 180), (90, 90), (-90, -90), (180, 180), (0, 0)])
def test_turned_pixels_equal_paste(backend, rotation):
    """Where a pixel falls between two of the patch, rounding of float32 may give the other: 1 of 60,000 measured."""
    images = make_images()
    augment = lambda images: dali.cutpaste_scar(images, rotation=rotation, reference=64, jitter=0)  # noqa: E731
    samples = run(augment, images, backend, runs=20)
    wrong, values = differences(samples, images)
    turned_by_quarters = rotation[0] == rotation[1]
    assert wrong <= (0 if turned_by_quarters else 2)
    assert (values > 0).sum() <= (0 if turned_by_quarters else 6)
    assert sum(sample[1].sum() for sample in samples) > 8_000


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("jitter", [0.1, (0.5, 0.0, 0.0, 0.0), (0.0, 0.9, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), 0.5])
def test_jitter_agrees_within_one_level(backend, jitter):
    images = make_images()
    wrong, values = differences(run(lambda images: dali.cutpaste(images, jitter=jitter), images, backend, 10), images)
    assert wrong == 0
    assert values.max() <= 1
    assert (values > 0).mean() < 1e-3
    wrong, values = differences(run(lambda i: dali.cutpaste_scar(i, jitter=jitter, rotation=(0, 0)), images), images)
    assert wrong == 0
    assert values.max() <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_given_patches_are_pasted_and_what_reaches_beyond_the_image_is_cut_off(backend):
    images = make_images()
    given = {
        "source_y": [3, 0, 20, 5],
        "source_x": [4, 10, 0, 80],
        "y": [50, -8, 30, 12],
        "x": [70, 5, -6, 60],
        "height": [20, 17, 1, 9],
        "width": [7, 30, 40, 4],
        "angle": [30.0, -75.0, 10.0, 0.0],
    }
    dtype = {"angle": np.float32}
    inputs = [[np.array(number, dtype.get(name, np.int32)) for number in values] for name, values in given.items()]

    def replay(images, *fields):
        patches = Patches(*fields)
        return *dali.paste(images, patches, turned=True), patches

    wrong, values = differences(run(replay, images, backend, inputs=inputs), images)
    assert wrong == 0
    assert values.max() == 0


# Parameters


@pytest.mark.parametrize("aspect_distribution", ["log_uniform", "two_uniforms"])
def test_the_same_draws_place_the_patches_of_place_cutpaste(aspect_distribution):
    settings = {"area": (0.1, 0.9), "aspect": (0.2, 4.0), "aspect_distribution": aspect_distribution, "jitter": 0.3}
    check_placement(dali.cutpaste, place_cutpaste, settings)


@pytest.mark.parametrize("settings", [{}, {"reference": None, "scar_width": (1, 3), "scar_length": (5, 90)}])
def test_the_same_draws_place_the_patches_of_place_scar(settings):
    check_placement(dali.cutpaste_scar, place_scar, settings | {"rotation": (-80, 80), "jitter": (0.1, 0.2, 0.3, 0.4)})


def check_placement(augment, place, settings):
    images = make_images() * 16
    draws = draw(len(images), "cpu", torch.Generator().manual_seed(0))
    draws[0], draws[1] = 0, 1 - 2**-24  # the smallest and the largest
    samples = run(lambda i, d: augment(i, draws=d, **settings), images, inputs=[[*draws.numpy()]])
    for drawn, image, (_, _, *fields) in zip(draws, images, samples, strict=True):
        expected = place(drawn[None], *image.shape[:2], **settings)
        for number, reference in zip(fields, expected.tensors, strict=True):
            np.testing.assert_allclose(number, reference[0].numpy(), atol=1e-5)


def test_patches_lie_inside_the_image_and_within_the_ranges():
    images = make_images()
    samples = run(lambda images: dali.cutpaste(images, area=(0.05, 0.1), aspect=(0.5, 2), jitter=0.2), images, runs=50)
    for i, (_, _, source_y, source_x, y, x, height, width, angle, *factors, hue, _) in enumerate(samples):
        rows, columns = SIZES[i % len(SIZES)]
        assert 0 <= source_y <= rows - height
        assert 0 <= source_x <= columns - width
        assert 0 <= y <= rows - height
        assert 0 <= x <= columns - width
        assert 0.05 * 0.9 < height * width / (rows * columns) < 0.1 * 1.1
        assert 0.5 * 0.8 < height / width < 2 * 1.2
        assert angle == 0
        assert all(0.8 <= factor <= 1.2 for factor in factors)
        assert -0.2 <= hue <= 0.2


def test_turned_scars_lie_fully_inside_the_image():
    """One cut off by the border would cover fewer pixels than the same scar on a canvas larger on every side."""
    samples = run(lambda images: dali.cutpaste_scar(images, reference=64, rotation=(-90, 90)), make_images(), runs=20)
    canvas = np.zeros((320, 320, 3), np.uint8)
    for _, mask, *fields in samples:
        patches = to_patches(fields[:7])
        _, whole = paste_one(canvas, patches._replace(y=patches.y + 100, x=patches.x + 100))
        assert -90 <= patches.angle <= 90
        assert abs(int(mask.sum()) - int(whole.sum())) <= 1  # moved, a pixel on the edge may be rounded to either side


def test_each_image_gets_its_own_patch_and_each_run_new_ones():
    samples = run(dali.cutpaste, make_images()[:1] * 4, runs=2)
    assert len({tuple(float(field) for field in sample[2:]) for sample in samples}) == 8


def test_the_seed_of_the_pipeline_decides():
    images = make_images()
    first, again, other = (run(dali.cutpaste, images, seed=seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not any(np.array_equal(x[0], y[0]) for x, y in zip(first, other, strict=True))


# Modes


def test_it_may_stand_inside_an_if_of_a_pipeline():
    def either(images):
        kind = fn.random.coin_flip(dtype=types.BOOL)
        if kind:
            augmented, mask, patches = dali.cutpaste(images)
        else:
            augmented, mask, patches = dali.cutpaste_scar(images)
        return augmented, mask, patches._replace(jitter=(*patches.jitter, kind))

    images = make_images()
    samples = run(either, images, runs=4, enable_conditionals=True)
    assert {bool(sample[-1]) for sample in samples} == {True, False}
    for sample in samples:
        assert (sample[8] == 0) == sample[-1]  # the angle
    wrong, values = differences([sample[:-1] for sample in samples], images)
    assert wrong == 0
    assert values.max() <= 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("augment", [dali.cutpaste, dali.cutpaste_scar])
def test_dynamic_mode_agrees_with_paste(backend, augment):
    images = make_images()
    batch = dynamic.as_batch(images, layout="HWC")
    outputs = []
    for _ in range(2):
        dynamic.random.set_seed(5)
        augmented, mask, patches = augment(batch.gpu() if backend == "gpu" else batch)
        assert augmented.device.device_type == backend
        nodes = [augmented.cpu(), mask.cpu(), *patches.tensors]
        outputs.append([[np.array(node.tensors[i]) for node in nodes] for i in range(len(images))])
    wrong, values = differences(outputs[0], images)
    assert wrong == 0
    assert values.max() <= 1
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(*outputs, strict=True))


def test_dynamic_mode_takes_single_images():
    image = make_images()[1]
    augmented, mask, patches = dali.cutpaste(dynamic.as_tensor(image, layout="HWC"))
    sample = [np.array(node) for node in (augmented, mask, *patches.tensors)]
    wrong, values = differences([sample], [image])
    assert wrong == 0
    assert values.max() <= 1


# Errors


@pytest.mark.parametrize(
    ("augment", "settings", "message"),
    [
        (dali.cutpaste, {"area": (0.2, 0.1)}, "place_cutpaste: area with 0 <= low <= high <= 1 required"),
        (dali.cutpaste, {"jitter": 2}, "jitter: brightness, contrast and saturation from 0 to 1"),
        (dali.cutpaste, {"aspect_distribution": "normal"}, "'log_uniform' or 'two_uniforms' required, got 'normal'"),
        (dali.cutpaste_scar, {"rotation": (45, -45)}, "place_scar: rotation with -360 <= low <= high <= 360 required"),
        (dali.cutpaste_scar, {"reference": 0}, "place_scar: reference of at least 1 pixel"),
    ],
)
def test_wrong_settings_fail_before_anything_is_built(augment, settings, message):
    with pytest.raises(ValueError, match=message):
        augment(None, **settings)


def test_images_from_elsewhere_are_refused():
    with pytest.raises(TypeError, match=r"images as a DataNode of a pipeline, or a Batch or Tensor .* got ndarray"):
        dali.cutpaste(make_images()[0])


def import_again():
    spec = importlib.util.spec_from_file_location("fresh", Path(dali.__file__))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_an_old_dali_is_told_how_to_be_replaced(monkeypatch):
    monkeypatch.setattr("nvidia.dali.__version__", "1.51.0")
    with pytest.raises(ImportError, match=r"2\.2 or newer required, got: version 1\.51\.0 .*fastcutpaste\[dali\]"):
        import_again()


def test_a_missing_dali_is_told_how_to_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia", None)
    with pytest.raises(ImportError, match=r"NVIDIA DALI .* required, .*pip install 'fastcutpaste\[dali\]'"):
        import_again()
