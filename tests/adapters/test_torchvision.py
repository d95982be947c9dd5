"""Patch transforms as steps of torchvision's v2 pipelines: the same pixels as without the host, whatever the sample."""

import copy
import importlib
import importlib.util
import multiprocessing
import pickle
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from reference import one_patch, paste_reference, source_pixels
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from fastcutpaste import Cutout, CutPaste, CutPaste3Way, CutPasteScar, Defect, OneOf, Scar, recipe
from fastcutpaste.adapters.torchvision import V2Transform
from fastcutpaste.transforms.blends import Replace
from fastcutpaste.transforms.fills import Color
from fastcutpaste.transforms.masks import OnObject, Rectangle

HEIGHT, WIDTH = 40, 56
TRANSFORMS = [
    CutPaste(jitter=0.3),
    CutPasteScar(reference=64, jitter=0.3),
    Cutout(color="mean"),
    Scar(color="random", reference=64),
    OneOf(CutPaste(), CutPasteScar(reference=64), Cutout(color="mean")),
    CutPaste(p=0.5),
]
DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def named(values):
    return pytest.mark.parametrize("transform", values, ids=lambda t: f"{type(t).__name__}-p{t.p}")


def noise(*shape, dtype=torch.uint8, seed=0):
    """Give an image (..., C, H, W) no two regions of which are alike."""
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return pixels if dtype == torch.uint8 else (pixels / 255).to(dtype)


def seeded(call, *args, seed=5):
    torch.manual_seed(seed)
    return call(*args)


def empty_mask(*leading, dtype=torch.bool):
    return tv_tensors.Mask(torch.zeros(*leading, HEIGHT, WIDTH, dtype=dtype))


# The same draws give the same pixels as the op itself


@named(TRANSFORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_image_equals_a_batch_of_one_of_the_transform_itself(transform, dtype):
    for channels in (1, 3, 4):
        for seed in range(4):
            image = noise(channels, HEIGHT, WIDTH, dtype=dtype)
            result = seeded(V2Transform(transform), image, seed=seed)
            expected = seeded(transform, image[None], seed=seed)[0]
            assert result.dtype == dtype
            assert torch.equal(result, expected)


@named(TRANSFORMS)
def test_a_batch_equals_the_transform_itself_and_each_image_gets_its_own_patch(transform):
    images, mask = noise(6, 3, HEIGHT, WIDTH), empty_mask(6, 1)
    result, mask = seeded(V2Transform(transform), tv_tensors.Image(images), mask)
    expected = seeded(transform.augment, images)
    assert torch.equal(result, expected.images)
    assert torch.equal(mask, expected.mask)
    assert len({tuple(one.flatten().tolist()) for one in mask if one.any()}) == int(mask.flatten(1).any(1).sum()) > 1


@pytest.mark.parametrize("transform", TRANSFORMS[:2], ids=["CutPaste", "CutPasteScar"])
def test_one_image_equals_the_slow_reference(transform):
    for seed in range(5):
        image = noise(3, HEIGHT, WIDTH)
        result, mask = seeded(V2Transform(transform), tv_tensors.Image(image), empty_mask(), seed=seed)
        draws = seeded(torch.rand, 1, transform.numbers, seed=seed)
        patch = one_patch(transform.patches(draws, HEIGHT, WIDTH), 0)
        expected, inside = paste_reference(image.permute(1, 2, 0).numpy(), patch)  # (H, W, C)
        clear = ~source_pixels(patch, HEIGHT, WIDTH)[3] | (patch.angle == 0)
        difference = np.abs(result.permute(1, 2, 0).numpy().astype(int) - expected)  # (H, W, C)
        assert difference[clear].max() <= 1
        assert np.array_equal(mask.numpy()[clear], inside[clear])
        assert inside.any()


def test_leading_dimensions_are_a_batch():
    images = noise(2, 3, 4, HEIGHT, WIDTH)  # (2, 3) images of 4 channels
    result, mask = seeded(V2Transform(CutPaste()), tv_tensors.Image(images), empty_mask(2, 3))
    expected = seeded(CutPaste().augment, images.flatten(0, 1))
    assert torch.equal(result.flatten(0, 1), expected.images)
    assert torch.equal(mask.flatten(0, 1), expected.mask[:, 0])


def test_an_empty_batch_stays_empty():
    assert V2Transform(CutPaste())(noise(0, 3, HEIGHT, WIDTH)).shape == (0, 3, HEIGHT, WIDTH)


def test_the_memory_format_is_kept():
    images = noise(2, 3, HEIGHT, WIDTH).to(memory_format=torch.channels_last)
    result = seeded(V2Transform(CutPaste()), images)
    assert result.stride() == images.stride()
    assert torch.equal(result, seeded(CutPaste(), images))


@named(TRANSFORMS)
def test_no_input_is_written(transform):
    sample = {
        "image": tv_tensors.Image(noise(3, HEIGHT, WIDTH)),
        "pil": Image.fromarray(noise(HEIGHT, WIDTH, 3).numpy()),
        "mask": empty_mask(),
    }
    before = copy.deepcopy(sample)
    V2Transform(transform)(sample)
    assert torch.equal(sample["image"], before["image"])
    assert torch.equal(sample["mask"], before["mask"])
    assert np.array_equal(sample["pil"], before["pil"])


def test_p_is_the_share_of_the_images_with_a_patch():
    image = noise(3, HEIGHT, WIDTH)
    never, half = V2Transform(CutPaste(p=0)), V2Transform(CutPaste(p=0.5))
    assert torch.equal(never(image), image)
    torch.manual_seed(0)
    pasted = [half(tv_tensors.Image(image), empty_mask())[1].any() for _ in range(200)]
    assert 70 < sum(pasted) < 130  # 4 standard deviations either way


# Kinds of images


@named(TRANSFORMS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_pil_image_comes_back_as_one(transform, mode):
    image = Image.fromarray(noise(HEIGHT, WIDTH, 3).numpy()).convert(mode)
    result = seeded(V2Transform(transform), image)
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == (mode, (WIDTH, HEIGHT))
    pixels = torch.from_numpy(np.array(image)).view(HEIGHT, WIDTH, -1).permute(2, 0, 1)  # (C, H, W)
    expected = seeded(transform, pixels[None])[0].permute(1, 2, 0)  # (H, W, C)
    assert np.array_equal(np.array(result).reshape(expected.shape), expected.numpy())


def test_each_kind_of_image_comes_back_as_it_came():
    for image in (noise(3, HEIGHT, WIDTH), tv_tensors.Image(noise(3, HEIGHT, WIDTH))):
        assert type(V2Transform(CutPaste())(image)) is type(image)


def test_where_there_is_an_image_other_tensors_pass_through():
    tensor = noise(3, HEIGHT, WIDTH)
    image, same = V2Transform(CutPaste())(tv_tensors.Image(tensor), tensor)
    assert same is tensor
    assert not torch.equal(image, tensor)


# Masks


@pytest.mark.parametrize(
    ("dtype", "mask_value"), [(torch.bool, 1), (torch.uint8, 1), (torch.uint8, 255), (torch.int64, 3)], ids=str
)
@pytest.mark.parametrize("leading", [(), (1,)], ids=["HW", "1HW"])
def test_a_mask_comes_back_with_the_pasted_pixels_marked(dtype, mask_value, leading):
    image, mask = noise(3, HEIGHT, WIDTH), empty_mask(*leading, dtype=dtype)
    mask[..., :10, :] = mask_value
    result, marked = seeded(V2Transform(CutPaste(), mask_value=mask_value), tv_tensors.Image(image), mask)
    expected = seeded(CutPaste().augment, image[None])
    assert type(marked) is tv_tensors.Mask
    assert (marked.shape, marked.dtype) == (mask.shape, mask.dtype)
    assert torch.equal(marked != 0, (mask != 0) | expected.mask[0, 0])
    assert set(marked.unique().tolist()) == {0, mask_value}
    assert torch.equal(result, expected.images[0])


def test_pasted_pixels_replace_whatever_class_the_mask_had():
    classes = tv_tensors.Mask(torch.full((HEIGHT, WIDTH), 7))
    _, marked = V2Transform(CutPaste(), mask_value=2)(tv_tensors.Image(noise(3, HEIGHT, WIDTH)), classes)
    assert set(marked.unique().tolist()) == {2, 7}


@named(TRANSFORMS)
def test_image_and_mask_agree_in_either_order(transform):
    image = tv_tensors.Image(torch.full((1, HEIGHT, WIDTH), 100, dtype=torch.uint8) + noise(1, HEIGHT, WIDTH) // 4)
    for seed in range(5):
        first, mask = seeded(V2Transform(transform), image, empty_mask(), seed=seed)
        mask_too, second = seeded(V2Transform(transform), empty_mask(), image, seed=seed)
        assert torch.equal(first, second)
        assert torch.equal(mask, mask_too)
        assert not ((first != image)[0] & ~mask).any()


@pytest.mark.parametrize("leading", [(2,), (2, 1)], ids=["BHW", "B1HW"])
def test_a_plain_batch_takes_its_masks_along(leading):
    images = noise(2, 3, HEIGHT, WIDTH)
    result, mask = seeded(V2Transform(CutPaste()), images, empty_mask(*leading))
    expected = seeded(CutPaste().augment, images)
    assert torch.equal(result, expected.images)
    assert torch.equal(mask, expected.mask.view(mask.shape))


# Samples


def test_labels_boxes_and_points_pass_through():
    boxes = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(HEIGHT, WIDTH))
    points = tv_tensors.KeyPoints([[1, 2]], canvas_size=(HEIGHT, WIDTH))
    label, name = torch.tensor([3]), "brick"
    sample = {
        "about": (name, 4, None),
        "image": tv_tensors.Image(noise(3, HEIGHT, WIDTH)),
        "target": [label, boxes, points],
    }
    result = V2Transform(CutPaste())(sample)
    assert list(result) == list(sample)
    assert result["about"] == sample["about"]
    assert [new is old for new, old in zip(result["target"], sample["target"], strict=True)] == [True] * 3
    assert not torch.equal(result["image"], sample["image"])


@pytest.mark.parametrize("label", [7, torch.tensor(7), torch.tensor([0.5, 0.5])], ids=str)
def test_an_image_and_its_label_stay_a_pair(label):
    image = noise(3, HEIGHT, WIDTH)
    for sample in ((image, label), (Image.fromarray(noise(HEIGHT, WIDTH, 3).numpy()), label)):
        result = V2Transform(CutPaste())(sample)
        assert type(result) is tuple
        assert type(result[0]) is type(sample[0])
        assert result[1] is label


def test_images_of_one_sample_get_the_same_patch_each_its_own_pixels():
    one, other = noise(3, HEIGHT, WIDTH), noise(1, HEIGHT, WIDTH, seed=1) // 4
    for seed in range(8):
        transform = V2Transform(OneOf(CutPaste(jitter=0), Scar("random"), Cutout("mean")))
        images = seeded(transform, tv_tensors.Image(one), tv_tensors.Image(other), empty_mask(), seed=seed)
        images = [part.as_subclass(torch.Tensor) for part in images]
        mask = images[2]
        for result, given in zip(images, (one, other), strict=False):
            assert torch.equal(result[:, ~mask], given[:, ~mask])
        assert images[1].max() < 64 or images[1][:, mask].unique().numel() == 1  # a plain color of its own
        assert ((images[0] != one).any(0) <= mask).all()


def test_two_equal_images_of_a_sample_stay_equal_and_new_samples_get_new_patches():
    image = noise(3, HEIGHT, WIDTH)
    transform = V2Transform(OneOf(CutPaste(), CutPasteScar(), Cutout("random")))
    torch.manual_seed(0)
    masks = set()
    for _ in range(10):
        first, second, mask = transform(tv_tensors.Image(image), tv_tensors.Image(image.clone()), empty_mask())
        assert torch.equal(first, second)
        masks.add(tuple(mask.flatten().tolist()))
    assert len(masks) == 10


def test_the_mean_color_is_that_of_each_image():
    dark, light = torch.full((3, HEIGHT, WIDTH), 20), torch.full((3, HEIGHT, WIDTH), 200)
    images = [tv_tensors.Image(image.to(torch.uint8)) for image in (dark, light)]
    assert all(torch.equal(new, old) for new, old in zip(V2Transform(Cutout("mean"))(images), images, strict=True))


def test_a_step_among_others():
    pipeline = v2.Compose(
        [
            v2.RandomResizedCrop(32),
            V2Transform(CutPaste()),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    for image in (tv_tensors.Image(noise(3, HEIGHT, WIDTH)), noise(2, 3, HEIGHT, WIDTH)):
        result = seeded(pipeline, image)
        assert (result.shape[-2:], result.dtype) == ((32, 32), torch.float32)
        assert torch.equal(result, seeded(pipeline, image))
        torch.manual_seed(5)
        by_hand = CutPaste()(v2.RandomResizedCrop(32)(image).as_subclass(torch.Tensor).view(-1, 3, 32, 32))
        torch.testing.assert_close(result.as_subclass(torch.Tensor).view(-1, 3, 32, 32), (by_hand / 255 - 0.5) / 0.25)


def test_random_apply_can_take_it():
    image = noise(3, HEIGHT, WIDTH)
    assert torch.equal(v2.RandomApply([V2Transform(CutPaste())], p=0)(image), image)
    assert not torch.equal(v2.RandomApply([V2Transform(CutPaste())], p=1)(image), image)


# Workers


class Noise(Dataset):
    """The same image ten times, each time with a patch of its own; gives the mask and the worker's number."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 10

    def __getitem__(self, index):
        _, mask = self.transform(tv_tensors.Image(noise(3, HEIGHT, WIDTH)), empty_mask())
        return mask.as_subclass(torch.Tensor), torch.utils.data.get_worker_info().id


@named(TRANSFORMS)
def test_a_pickled_copy_does_the_same(transform):
    one = V2Transform(transform, mask_value=9)
    other = pickle.loads(pickle.dumps(one))
    image = noise(3, HEIGHT, WIDTH)
    assert torch.equal(seeded(one, image), seeded(other, image))
    assert repr(one) == repr(other)


def test_workers_and_epochs_draw_different_patches_and_a_seed_repeats_them():
    loader = DataLoader(Noise(V2Transform(CutPaste())), num_workers=2, multiprocessing_context="fork")

    def two_epochs():
        masks, workers = zip(*[pair for _ in range(2) for pair in loader], strict=True)
        assert {int(worker) for worker in workers} == {0, 1}
        return torch.cat(masks)  # (20, H, W)

    masks = seeded(two_epochs)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 20
    assert torch.equal(seeded(two_epochs), masks)
    assert not torch.equal(seeded(two_epochs, seed=6), masks)


@pytest.mark.skipif("spawn" not in multiprocessing.get_all_start_methods(), reason="no spawn")
def test_spawned_workers_draw_what_forked_ones_draw():
    dataset = Noise(V2Transform(OneOf(CutPaste(), CutPasteScar())))
    masks = [seeded(list, DataLoader(dataset, num_workers=1, multiprocessing_context=how)) for how in ("spawn", "fork")]
    assert torch.equal(torch.cat([mask for mask, _ in masks[0]]), torch.cat([mask for mask, _ in masks[1]]))


# What is shown and what is refused


def test_repr_shows_every_setting():
    shown = repr(V2Transform(CutPaste(area=(0.1, 0.2), p=0.25), mask_value=255))
    for part in ("V2Transform", "CutPaste", "area=(0.1, 0.2)", "p=0.25", "mask_value=255"):
        assert part in shown


IMAGE = tv_tensors.Image(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        (7, TypeError, "an image .* in the sample required, got nothing"),
        ({"label": 3, "mask": empty_mask()}, TypeError, "an image .* in the sample required, got Mask"),
        (tv_tensors.Video(torch.zeros(2, 3, 8, 8)), TypeError, "an image .* in the sample required, got Video"),
        ([IMAGE, tv_tensors.Image(IMAGE[:, :20])], ValueError, r"images of one size .* got \(20, 56\) and \(40, 56\)"),
        ([IMAGE, tv_tensors.Image(IMAGE[None])], ValueError, r"images of one size .* got \(1, 40, 56\) and \(40, 56\)"),
        ((torch.tensor(3), torch.zeros(3, 8, 8)), ValueError, r"shape \(…, C, H, W\) required, got \(\); wrap"),
        (torch.zeros(3, 0, 8), ValueError, r"required, got \(1, 3, 0, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int16), TypeError, "V2Transform: .* required, got torch.int16"),
        ([IMAGE, tv_tensors.Mask(torch.zeros(20, 56))], ValueError, r"\(40, 56\) or \(1, 40, 56\) .* \(20, 56\)"),
        ([IMAGE, empty_mask(5)], ValueError, r"\(40, 56\) or \(1, 40, 56\) required, got \(5, 40, 56\)"),
        (Image.new("P", (8, 8)), ValueError, "mode L or RGB required, got P"),
        (Image.new("RGBA", (8, 8)), ValueError, "mode L or RGB required, got RGBA"),
        (Image.new("I;16", (8, 8)), ValueError, "mode L or RGB required, got I;16"),
    ],
)
def test_a_wrong_sample_is_refused(sample, error, message):
    state = torch.get_rng_state()
    with pytest.raises(error, match=message):
        V2Transform(CutPaste())(sample)
    assert torch.equal(torch.get_rng_state(), state)  # before any work


@pytest.mark.parametrize("wrong", [CutPaste3Way(), CutPaste, v2.RandomErasing(), None], ids=str)
def test_what_pastes_no_patch_is_refused(wrong):
    with pytest.raises(TypeError, match=r"V2Transform: a patch transform such as CutPaste\(\) required, got"):
        V2Transform(wrong)


@pytest.mark.parametrize("value", [0, 256, -1])
def test_a_mask_value_out_of_bounds_is_refused(value):
    with pytest.raises(ValueError, match=f"mask_value from 1 to 255 required, got {value}"):
        V2Transform(CutPaste(), mask_value=value)


# The host


def import_anew(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastcutpaste.adapters.torchvision")
    return importlib.import_module("fastcutpaste.adapters.torchvision")


@pytest.mark.parametrize("version", ["0.23.1+cu128", "0.9.0", "0.15.2a0"])
def test_an_older_torchvision_is_refused(monkeypatch, version):
    monkeypatch.setattr(torchvision, "__version__", version)
    with pytest.raises(ImportError, match=rf"0\.24 or newer required, got {version[:4]}.*pip install 'torchv"):
        import_anew(monkeypatch)


@pytest.mark.parametrize("version", ["0.24.0", "0.100.0a0+git", "1.0.0"])
def test_a_newer_torchvision_is_taken(monkeypatch, version):
    monkeypatch.setattr(torchvision, "__version__", version)
    assert import_anew(monkeypatch).V2Transform


def test_without_torchvision_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"0\.24 or newer required, got .*pip install 'torchvision>=0.24'"):
        import_anew(monkeypatch)


def test_a_torchvision_without_v2_is_refused_as_too_old(monkeypatch):
    monkeypatch.delattr(torchvision.transforms, "v2")
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(ImportError, match=r"0\.24 or newer required, got .*pip install 'torchvision>=0.24'"):
        import_anew(monkeypatch)


def test_defects_go_through_a_pipeline_and_mark_their_masks():
    defect = recipe("draem")
    images, mask = tv_tensors.Image(noise(3, 3, 64, 72)), tv_tensors.Mask(torch.zeros(3, 1, 64, 72, dtype=torch.uint8))
    torch.manual_seed(3)
    made, marked = V2Transform(defect, mask_value=255)(images, mask)
    torch.manual_seed(3)
    expected = defect.augment(images.as_subclass(torch.Tensor), draws=torch.rand(3, defect.numbers))
    assert torch.equal(made.as_subclass(torch.Tensor), expected.images)
    assert torch.equal(marked.as_subclass(torch.Tensor), expected.mask * torch.tensor(255, dtype=torch.uint8))
    assert expected.mask.any()
    single = V2Transform(recipe("defectmaker"))(Image.fromarray(np.zeros((64, 64, 3), np.uint8)))
    assert single.size == (64, 64)


def test_a_mask_of_two_views_marks_what_changed_in_either():
    views = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    views[0, :, 8:28, 8:28], views[1, :, 36:56, 36:56] = 200, 200  # the object is elsewhere in each
    covering = Defect(OnObject(Rectangle(Cutout(area=(0.9, 0.95), aspect=(1, 1)))), Color("black"), Replace())
    one, other, mask = V2Transform(covering)(
        tv_tensors.Image(views[0]), tv_tensors.Image(views[1]), tv_tensors.Mask(torch.zeros(64, 64, dtype=torch.bool))
    )
    changed = torch.stack([one, other]) != views
    assert changed.flatten(1).any(1).all()
    assert torch.equal(mask, changed.any(0).any(0))
