"""Laws of the kornia adapter: the same pixels as the core op, and kornia's own contract around them."""

import importlib.util
import math
import pickle
import sys
import types
from pathlib import Path

import kornia
import pytest
import torch
from kornia.augmentation import (
    AugmentationSequential,
    ColorJitter,
    Normalize,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    VideoSequential,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from fastcutpaste import Cutout, CutPaste, CutPasteScar, OneOf, QuarterTurn, Scar, recipe
from fastcutpaste.adapters import kornia as adapter
from fastcutpaste.adapters.kornia import KorniaAugmentation
from fastcutpaste.transforms.patch import PatchTransform

OLD_KORNIA = [int(number) for number in kornia.__version__.split(".")[:2]] < [0, 9]
TRANSFORMS = {
    "cutpaste": CutPaste(),
    "cutpaste p": CutPaste(p=0.5),
    "scar": CutPasteScar(reference=64),
    "cutout black": Cutout(),
    "cutout mean": Cutout("mean"),
    "cutout random": Cutout("random"),
    "color scar": Scar(reference=64),
}
UNIONS = {
    "one of": OneOf(CutPaste(), CutPasteScar(reference=64)),
    "one of anything": OneOf(OneOf(CutPaste(p=0.5), Cutout("mean")), Scar(reference=64), Cutout("random")),
}
single_transforms = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
all_transforms = pytest.mark.parametrize("transform", (TRANSFORMS | UNIONS).values(), ids=TRANSFORMS | UNIONS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def load(path):
    spec = importlib.util.spec_from_file_location("loaded", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_images(*shape, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(dtype)


def nothing(images):
    return torch.zeros_like(images[:, :1])


def expected(transform, images, params):
    """Paste with the core op, image by image, from the numbers kornia kept."""
    results, masks = [], []
    for image, draws in zip(images, params["draws"], strict=True):
        result = transform.augment(image[None], draws=draws[None])
        results.append(result.images)
        masks.append(result.mask)
    return torch.cat(results), torch.cat(masks)


# The core op


@single_transforms
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_same_draws_give_the_pixels_of_the_core_op(transform, channels):
    images = random_images(6, channels, 40, 50)
    augment = KorniaAugmentation(transform)
    result = augment(images)
    pixels, mask = expected(transform, images, augment._params)
    assert_close(result, pixels, rtol=0, atol=1e-6)
    assert mask.any()


@single_transforms
def test_the_mask_is_that_of_the_core_op(transform):
    images = random_images(6, 3, 40, 50)
    augment = AugmentationSequential(KorniaAugmentation(transform), data_keys=["input", "mask"])
    pixels, mask = augment(images, nothing(images))
    wanted_pixels, wanted_mask = expected(transform, images, augment._params[0].data)
    assert_close(pixels, wanted_pixels, rtol=0, atol=1e-6)
    assert torch.equal(mask, wanted_mask.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@all_transforms
def test_type_shape_and_unpasted_pixels_are_kept(transform, dtype):
    images = random_images(8, 3, 40, 50, dtype=dtype)
    before = images.clone()
    augment = AugmentationSequential(KorniaAugmentation(transform), data_keys=["input", "mask"])
    pixels, mask = augment(images, nothing(images))
    assert (pixels.dtype, mask.dtype) == (dtype, dtype)
    assert torch.equal(images, before)
    assert not torch.equal(pixels, images)
    assert torch.equal(torch.where(mask == 1, images, pixels), images)
    assert set(mask.unique().tolist()) == {0, 1}


def test_one_of_chooses_each_member_as_often_as_the_core_does():
    """A nested union of two has the share of one member between them."""
    members = [Cutout(area=(0.01, 0.01), aspect=(1, 1)) for _ in range(3)]
    for number, member in enumerate(members, start=1):
        member.area = (number / 10, number / 10)  # the size tells who pasted
    augment = KorniaAugmentation(OneOf(OneOf(members[0], members[1]), members[2]))
    mask = augment.apply_transform_mask(torch.zeros(2000, 1, 20, 20), augment.generate_parameters((2000, 1)), {})
    sizes = mask.sum((1, 2, 3))
    counts = [(abs(sizes - 400 * number / 10) < 20).sum().item() for number in (1, 2, 3)]
    assert sum(counts) == 2000
    for count, share in zip(counts, (1 / 4, 1 / 4, 1 / 2), strict=True):
        assert abs(count / 2000 - share) < 4 * math.sqrt(share * (1 - share) / 2000)


def test_gradients_flow_through_what_was_not_pasted_and_to_where_a_patch_came_from():
    images = random_images(4, 3, 32, 32).requires_grad_()
    augment = AugmentationSequential(KorniaAugmentation(CutPaste(jitter=0)), data_keys=["input", "mask"])
    pixels, mask = augment(images, nothing(images).detach())
    pixels.sum().backward()
    params = augment._params[0].data
    patches = CutPaste(jitter=0).place(params["draws"], 32, 32)
    wanted = (1 - mask.detach()).expand(-1, 3, -1, -1).clone()
    for b, (y, x, height, width) in enumerate(zip(*(patches[i].tolist() for i in (0, 1, 4, 5)), strict=True)):
        wanted[b, :, y : y + height, x : x + width] += 1
    assert_close(images.grad, wanted)


# Kornia's contract


@all_transforms
def test_p_is_the_share_of_the_images_with_a_patch(transform):
    images = random_images(200, 3, 16, 16)
    for p in (0, 0.5, 1):
        augment = AugmentationSequential(KorniaAugmentation(transform, p=p), data_keys=["input", "mask"])
        pixels, mask = augment(images, nothing(images))
        applied = augment._params[0].data["batch_prob"] > 0.5
        pasted = mask.flatten(1).any(1)
        assert not (pasted & ~applied).any()
        assert torch.equal(pixels[~pasted], images[~pasted])
        assert abs(applied.float().mean() - p) <= (0.15 if p == 0.5 else 0)
        if transform.p == 1 and not isinstance(transform, OneOf):
            assert torch.equal(pasted, applied)


@all_transforms
def test_same_on_batch_pastes_at_the_same_places(transform):
    images = random_images(1, 3, 40, 50).expand(5, -1, -1, -1)
    augment = AugmentationSequential(KorniaAugmentation(transform, same_on_batch=True), data_keys=["input", "mask"])
    for _ in range(4):
        pixels, mask = augment(images, nothing(images))
        assert torch.equal(mask, mask[:1].expand_as(mask))
        assert torch.equal(pixels, pixels[:1].expand_as(pixels))
    other = AugmentationSequential(KorniaAugmentation(CutPaste()), data_keys=["input", "mask"])
    mask = other(images, nothing(images))[1]
    assert not torch.equal(mask[0], mask[1])


@all_transforms
@pytest.mark.parametrize("p", [0.5, 1])
def test_replayed_params_give_the_same_pixels(transform, p):
    images = random_images(8, 3, 40, 50)
    alone = KorniaAugmentation(transform, p=p)
    first = alone(images)
    params = alone._params
    assert not torch.equal(alone(images), first)
    assert torch.equal(alone(images, params=params), first)

    chain = AugmentationSequential(
        RandomHorizontalFlip(), KorniaAugmentation(transform, p=p), RandomVerticalFlip(), data_keys=["input", "mask"]
    )
    first = chain(images, nothing(images))
    params = chain._params
    assert not torch.equal(chain(images, nothing(images))[1], first[1])
    assert all(map(torch.equal, chain(images, nothing(images), params=params), first))


def test_replayed_params_paste_at_the_same_places_of_other_images():
    images, others = random_images(8, 3, 40, 50), random_images(8, 3, 40, 50).flip(0)
    augment = KorniaAugmentation(Cutout("mean"))
    augment(images)
    pixels, mask = expected(Cutout("mean"), others, augment._params)
    assert_close(augment(others, params=augment._params), pixels, rtol=0, atol=1e-6)
    assert mask.any()


def test_one_image_comes_back_as_a_batch_of_one_or_with_keepdim_as_it_came():
    image = random_images(3, 40, 50)
    assert KorniaAugmentation(CutPaste())(image).shape == (1, 3, 40, 50)
    keeping = KorniaAugmentation(CutPaste(), keepdim=True)
    assert keeping(image).shape == image.shape
    assert torch.equal(keeping(image, params=keeping._params), expected(CutPaste(), image[None], keeping._params)[0][0])
    assert keeping(image[0]).shape == image[0].shape
    assert KorniaAugmentation(CutPaste(), p=0.5, keepdim=True)(image).shape == image.shape


@pytest.mark.parametrize("same_on_batch", [False, True])
def test_an_empty_batch_comes_back_empty(same_on_batch):
    images = torch.zeros(0, 3, 16, 16)
    assert KorniaAugmentation(CutPaste(), same_on_batch=same_on_batch)(images).shape == images.shape


def test_flips_before_and_after_turn_image_and_mask_alike():
    images = random_images(4, 3, 40, 50)
    chain = AugmentationSequential(
        RandomHorizontalFlip(p=1.0),
        KorniaAugmentation(CutPaste(jitter=0.2)),
        RandomVerticalFlip(p=1.0),
        Normalize(mean=torch.tensor([0.5]), std=torch.tensor([0.25])),
        data_keys=["input", "mask"],
    )
    normalized, mask = chain(images, nothing(images))
    pixels, wanted_mask = expected(CutPaste(jitter=0.2), images.flip(-1), chain._params[1].data)
    assert_close(normalized, (pixels.flip(-2) - 0.5) / 0.25, rtol=1e-5, atol=1e-5)
    assert torch.equal(mask, wanted_mask.flip(-2).float())


def test_color_before_the_patch_does_not_disturb_the_mask():
    images = random_images(4, 3, 40, 50)
    chain = AugmentationSequential(
        ColorJitter(0.2, 0.2, 0.2, 0.1), KorniaAugmentation(Cutout()), data_keys=["input", "mask"]
    )
    pixels, mask = chain(images, nothing(images))
    assert torch.equal((pixels == 0).all(1, keepdim=True), mask == 1)


@pytest.mark.parametrize(("value", "dtype"), [(1.0, torch.float32), (255, torch.uint8), (7, torch.int64)])
def test_a_mask_keeps_what_it_had_and_gains_the_pasted_pixels(value, dtype):
    images = random_images(4, 3, 40, 50)
    had = torch.zeros(4, 2, 40, 50, dtype=dtype)
    had[:, 0, :20] = 1
    had[:, 1, :, :20] = 3
    augment = AugmentationSequential(KorniaAugmentation(CutPaste(), mask_value=value), data_keys=["input", "mask"])
    mask = augment(images, had)[1]
    pasted = expected(CutPaste(), images, augment._params[0].data)[1]
    assert mask.dtype == dtype
    assert torch.equal(mask, torch.where(pasted, torch.tensor(value, dtype=dtype), had))


def test_the_mask_without_its_image_follows_the_params():
    images = random_images(4, 3, 40, 50)
    augment = AugmentationSequential(KorniaAugmentation(CutPaste(), p=0.5), data_keys=["input", "mask"])
    mask = augment(images, nothing(images))[1]
    assert torch.equal(augment(nothing(images), data_keys=["mask"], params=augment._params), mask)


def test_boxes_and_key_points_pass_through():
    images = random_images(4, 3, 40, 50)
    boxes, points = torch.tensor([[[1.0, 2, 30, 20]]]).expand(4, -1, -1), torch.tensor([[[3.0, 4]]]).expand(4, -1, -1)
    augment = AugmentationSequential(
        KorniaAugmentation(CutPaste(), p=0.5), data_keys=["input", "bbox_xyxy", "keypoints"]
    )
    _, same_boxes, same_points = augment(images, boxes, points)
    assert torch.equal(same_boxes, boxes)
    assert torch.equal(same_points, points)


@pytest.mark.skipif(OLD_KORNIA, reason="kornia 0.8 hands each mask of a list the numbers of the batch")
def test_a_list_of_masks_is_marked_like_a_batch_of_them():
    images = random_images(4, 3, 40, 50)
    augment = AugmentationSequential(KorniaAugmentation(CutPaste(), p=0.5), data_keys=["input", "mask"])
    mask = augment(images, nothing(images))[1]
    one_by_one = augment(images, list(nothing(images)), params=augment._params)[1]
    assert torch.equal(torch.cat(one_by_one), mask)


def test_frames_of_a_video_get_the_same_patch():
    frames = random_images(2, 1, 3, 40, 50).expand(-1, 4, -1, -1, -1)  # (B, T, C, H, W)
    pixels = VideoSequential(KorniaAugmentation(CutPaste()), data_format="BTCHW", same_on_frame=True)(frames)
    assert torch.equal(pixels, pixels[:, :1].expand_as(pixels))
    assert (pixels != frames).flatten(1).any(1).all()


@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize("transform", [CutPaste(), UNIONS["one of anything"]], ids=["cutpaste", "one of anything"])
def test_on_a_gpu_nothing_waits_for_the_device(transform, p):
    """Fake tensors have a device but no contents: whatever asks for those raises."""
    with FakeTensorMode():
        augment = KorniaAugmentation(transform, p=p)
        images = torch.empty(4, 3, 32, 32, device="cuda")
        if not OLD_KORNIA:  # whose gate looks into numbers, though into those of the host
            assert augment(images).device.type == "cuda"
            assert augment._params["draws"].device.type == "cuda"
        augment.set_rng_device_and_dtype(images.device, torch.float32)
        on_device = augment.generate_parameters(images.shape)
        assert {numbers.device.type for numbers in on_device.values()} == {"cuda"}
        carried = {name: numbers.cpu() for name, numbers in on_device.items()}
        assert augment.apply_transform(images, carried, {}).device.type == "cuda"
        assert augment.apply_transform_mask(images, carried, {}).device.type == "cuda"


def test_a_container_draws_on_the_device_it_was_moved_to():
    augment = AugmentationSequential(KorniaAugmentation(CutPaste()), data_keys=["input", "mask"]).to("meta")
    assert augment.forward_parameters(torch.Size((4, 3, 8, 8)))[0].data["draws"].device.type == "meta"
    back = KorniaAugmentation(CutPaste()).half()  # a type is no device
    assert back.generate_parameters((4, 3, 8, 8))["draws"].device.type == "cpu"


def test_the_seed_gives_the_same_pixels():
    images, augment = random_images(4, 3, 40, 50), KorniaAugmentation(UNIONS["one of anything"])
    torch.manual_seed(3)
    first = augment(images)
    torch.manual_seed(3)
    assert torch.equal(augment(images), first)


def test_it_survives_pickling():
    augment = KorniaAugmentation(UNIONS["one of"], p=0.5, same_on_batch=True, keepdim=True, mask_value=2)
    images = random_images(4, 3, 40, 50)
    augment(images)
    copy = pickle.loads(pickle.dumps(augment))
    assert repr(copy) == repr(augment)
    assert torch.equal(copy(images, params=augment._params), augment(images, params=augment._params))


def test_the_settings_are_printed():
    text = repr(KorniaAugmentation(Cutout(color="mean"), p=0.3))
    assert text.startswith("KorniaAugmentation(Cutout(p=1.0, feather=0.0, area=(0.02, 0.15)")
    assert text.endswith("color='mean'), p=0.3, same_on_batch=False, keepdim=False, mask_value=1.0)")


# Errors


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_share_out_of_bounds_is_refused(p):
    with pytest.raises(ValueError, match=f"KorniaAugmentation: p from 0 to 1 required, got {p}"):
        KorniaAugmentation(CutPaste(), p=p)


@pytest.mark.parametrize("wrong", [QuarterTurn(1), torch.nn.Identity(), CutPaste])
def test_what_pastes_no_patch_is_refused(wrong):
    with pytest.raises(TypeError, match=f"that pastes a patch required, got {type(wrong).__name__}"):
        KorniaAugmentation(wrong)


def test_bytes_are_refused():
    with pytest.raises(TypeError, match="uint8"):
        KorniaAugmentation(CutPaste())(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def module_without_attributes(version):
    module = types.ModuleType("kornia")
    module.__version__ = version
    return module


@pytest.mark.parametrize(
    ("installed", "came"), [(None, "import of kornia halted"), (module_without_attributes("0.7.4"), "0.7.4")]
)
def test_without_a_fitting_kornia_the_error_names_what_to_install(installed, came, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", installed)
    with pytest.raises(ImportError, match=rf"kornia 0\.8 or newer required, got {came}.*pip install 'kornia>=0\.8'"):
        load(Path(adapter.__file__))


# A transform of one's own


class Corner(PatchTransform):
    """Paste the lower right quarter over the upper left one."""

    def place(self, draws, height, width):
        patches = CutPaste(jitter=0).place(draws, height, width)
        zero = torch.zeros_like(patches.y)
        half, other = zero + height // 2, zero + width // 2
        return patches._replace(source_y=half, source_x=other, y=zero, x=zero, height=half, width=other)


def test_a_transform_of_ones_own_is_pasted():
    images = random_images(2, 3, 8, 8)
    pixels = KorniaAugmentation(Corner())(images)
    assert torch.equal(pixels[..., :4, :4], images[..., 4:, 4:])
    assert torch.equal(pixels[..., 4:, :], images[..., 4:, :])


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_defects_mark_the_masks_that_come_after_their_images(p):
    images, masks = torch.rand(8, 3, 64, 64), torch.zeros(8, 1, 64, 64)
    augment = AugmentationSequential(KorniaAugmentation(recipe("draem"), p=p), data_keys=["input", "mask"])
    made, marked = augment(images, masks)
    changed = (made != images).any(1, keepdim=True)
    assert not (changed & (marked == 0)).any()
    assert changed.sum() > 0.9 * marked.sum() > 0
    assert set(marked.unique().tolist()) == {0, 1}
    with pytest.raises(TypeError, match="the images before their masks required"):
        KorniaAugmentation(recipe("draem")).apply_transform_mask(masks, {"draws": torch.rand(8, 22)}, {})


def test_defects_are_drawn_again_from_the_same_numbers():
    images, augment = torch.rand(4, 3, 64, 64), KorniaAugmentation(recipe("fpi"))
    first = augment(images)
    assert torch.equal(augment(images, params=augment._params), first)
