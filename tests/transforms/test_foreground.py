"""Object-aware placement: patches stay on the object."""

import os

import pytest
import torch
from small_patches import random_images

from fastcutpaste import CutPaste, OnForeground, draw, place_cutpaste, place_scar
from fastcutpaste.op.placement import turned_reach
from fastcutpaste.transforms.foreground import move_onto, object_or_all, unlike_border

BATCH, HEIGHT, WIDTH = 64, 80, 120


def make_foreground():
    """Give an object a third of the image wide, at another place in each image."""
    foreground = torch.zeros(BATCH, 1, HEIGHT, WIDTH, dtype=torch.bool)
    for b in range(BATCH):
        foreground[b, 0, 10 + b % 20 : 60 + b % 20, b : b + 45] = True
    return foreground


def shares(foreground, y, x, patches):
    """Count, one image at a time, what share of each rectangle is foreground."""
    places = zip(y.tolist(), x.tolist(), patches.height.tolist(), patches.width.tolist(), strict=True)
    boxes = [
        foreground[b, 0, max(t, 0) : t + h, max(le, 0) : le + w].sum() / (h * w)
        for b, (t, le, h, w) in enumerate(places)
    ]
    return torch.stack(boxes)


@pytest.fixture(params=[place_cutpaste, place_scar], ids=["cutpaste", "scar"])
def patches(request):
    options = {"area": (0.02, 0.06)} if request.param is place_cutpaste else {"reference": 120}
    return request.param(draw(BATCH, "cpu", torch.Generator().manual_seed(0)), HEIGHT, WIDTH, **options)


def draws(candidates, seed=1):
    return torch.rand(BATCH, candidates, 4, generator=torch.Generator().manual_seed(seed))


def test_moved_patches_lie_on_the_object_and_keep_their_shape(patches):
    foreground = make_foreground()
    moved = move_onto(patches, foreground, draws(64), least=0.5)
    assert shares(foreground, patches.y, patches.x, patches).lt(0.5).float().mean() > 0.4  # before
    assert shares(foreground, moved.y, moved.x, moved).min() >= 0.5
    assert shares(foreground, moved.source_y, moved.source_x, moved).min() >= 0.5
    for name in ("height", "width", "angle"):
        assert torch.equal(getattr(moved, name), getattr(patches, name))
    assert moved.jitter is patches.jitter


def test_a_place_that_is_good_enough_is_kept(patches):
    foreground = make_foreground()
    moved = move_onto(patches, foreground, draws(8), least=0.5)
    good = shares(foreground, patches.y, patches.x, patches) >= 0.5
    assert good.any()
    assert torch.equal(moved.y[good], patches.y[good])
    assert torch.equal(moved.x[good], patches.x[good])


def test_without_any_foreground_patches_stay_where_they_are(patches):
    nothing = torch.zeros(BATCH, 1, HEIGHT, WIDTH, dtype=torch.bool)
    moved = move_onto(patches, nothing, draws(8))
    for name in ("source_y", "source_x", "y", "x"):
        assert torch.equal(getattr(moved, name), getattr(patches, name))


def test_where_nothing_is_enough_the_fullest_candidate_is_taken(patches):
    foreground = make_foreground() & (
        torch.rand(BATCH, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2)) < 0.3
    )
    few, many = (move_onto(patches, foreground, draws(32)[:, :n], least=1.0) for n in (2, 32))
    before = shares(foreground, patches.y, patches.x, patches)
    of_few, of_many = (shares(foreground, moved.y, moved.x, moved) for moved in (few, many))
    assert (of_few >= before).all()
    assert (of_many >= of_few).all()
    assert of_many.mean() > before.mean() + 0.05


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_moved_patches_stay_inside_the_image_with_their_turned_corners(patches, corner):
    foreground = torch.zeros(BATCH, 1, HEIGHT, WIDTH, dtype=torch.bool)
    foreground[:, 0, : HEIGHT // 2, :] = corner[0] == 0
    foreground[:, 0, HEIGHT // 2 :, :] = corner[0] == -1
    half = torch.arange(WIDTH) < WIDTH // 2
    foreground &= half if corner[1] == 0 else ~half
    moved = move_onto(patches, foreground, draws(64), least=0.9)
    beyond_y, beyond_x = turned_reach(moved.height, moved.width, moved.angle)
    for y, x, down, across in ((moved.y, moved.x, beyond_y, beyond_x), (moved.source_y, moved.source_x, 0, 0)):
        assert (y >= down).all()
        assert (x >= across).all()
        assert (y + moved.height + down <= HEIGHT).all()
        assert (x + moved.width + across <= WIDTH).all()


def test_the_border_test_finds_an_object_on_a_plain_background():
    images = torch.full((2, 3, 40, 60), 180, dtype=torch.uint8)
    images[0, :, 10:20, 30:50] = 60
    images[1, 1, 5:9, 5:9] = 230  # one channel is enough
    foreground = unlike_border(images)
    assert foreground.sum((1, 2, 3)).tolist() == [200, 16]
    assert torch.equal(unlike_border(images / 255), foreground)


@pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1"
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 3, 17, 40), (2, 1, 8, 8), (0, 3, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_the_kernel_finds_the_medians_and_shares_of_the_border(dtype, shape, order):
    from fastcutpaste.op.kernel_border import border_op

    images = random_images(shape, torch.float32) - 0.3 * (dtype != torch.uint8)  # below 0, as resizing makes some
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    images = images.to("cuda" if torch.cuda.is_available() else "cpu").contiguous(memory_format=order)
    medians, shares = border_op(images, 0.3)
    for image, median, share in zip(images.cpu(), medians.cpu(), shares.cpu(), strict=True):
        border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1).float()  # (C, n)
        wanted = border.sort(1).values[:, (border.shape[1] - 1) // 2]
        assert torch.equal(median.flatten(), wanted)
        level = 76 if dtype == torch.uint8 else 0.3
        unlike = ((border < (wanted - level)[:, None]) | (border > (wanted + level)[:, None])).any(0)
        assert float(share) == pytest.approx(float(unlike.float().mean()), abs=1e-6)


def test_on_foreground_is_a_transform_like_any_other():
    images = torch.full((8, 3, 64, 64), 200, dtype=torch.uint8)
    images[:, :, 20:44, 20:44] = torch.randint(0, 90, (8, 3, 24, 24), dtype=torch.uint8)
    before = images.clone()
    aware = OnForeground(CutPaste(area=(0.02, 0.05)))
    first, second = (aware.augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(images, before)
    assert (first.mask & unlike_border(images)).sum((1, 2, 3)).gt(0).all()
    compiled = torch.compile(aware.augment, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    wanted = aware.augment(images)
    torch.manual_seed(0)
    got = compiled(images)
    assert torch.equal(got.mask, wanted.mask)


def test_a_patch_from_another_image_is_cut_from_that_images_object():
    """Objects lie left and right by turns, so a place of one image's object is background in its neighbour."""
    images = torch.full((8, 3, 64, 64), 10, dtype=torch.uint8)
    images[0::2, :, 16:48, 4:28], images[1::2, :, 16:48, 36:60] = 200, 200
    transform = OnForeground(CutPaste(area=(0.02, 0.03), aspect=(1, 1), jitter=0, source="other"), candidates=64)
    pasted, mask = transform.augment(images, torch.Generator().manual_seed(0))
    from_object = [float((pasted[b][mask[b].expand(3, -1, -1)] > 100).float().mean()) for b in range(8)]
    assert min(from_object) >= 0.5


def test_mistakes_are_named():
    images = torch.zeros(2, 3, 32, 32)
    patches = place_cutpaste(draw(2, "cpu"), 32, 32)
    with pytest.raises(ValueError, match=r"shape \(2, 1, H, W\) required, got torch.float32 \(2, 1, 32, 32\)"):
        move_onto(patches, images[:, :1], torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match="least from 0 to 1 required, got 2"):
        OnForeground(CutPaste(), least=2)
    with pytest.raises(ValueError, match="at least 1 candidate required, got 0"):
        OnForeground(CutPaste(), candidates=0)
    with pytest.raises(TypeError, match="a patch transform required, got int"):
        OnForeground(3)


def test_an_image_whose_border_is_not_plain_is_all_foreground():
    plain = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    plain[..., 4:9, 5:12] = 200
    stripes = (torch.arange(16) % 2 * 200).to(torch.uint8).expand(1, 3, 16, 16)
    found = object_or_all(torch.cat([plain, stripes]))
    assert torch.equal(found[:1], unlike_border(plain))
    assert found[1].all()
