"""Poisson blending, against OpenCV's `seamlessClone` and against the equation itself."""

import numpy as np
import pytest
import torch

from fastcutpaste.op import poisson
from fastcutpaste.op.poisson import poisson_blend


def smooth(rng, size, steps=2):
    """Give one uint8 image (3, H, W) of full contrast, somewhat smooth."""
    image = torch.from_numpy(rng.random((1, 3, *size), np.float32))
    for _ in range(steps):
        image = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    low, high = image.aminmax()
    return ((image - low) / (high - low) * 255).round().to(torch.uint8)[0]


def random_case(rng):
    """Give an image and a fill, uint8 (1, 3, H, W), and a mask (1, 1, H, W) of turned ellipses or of a rectangle."""
    size = tuple(rng.integers(12, 90, 2))
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for _ in range(rng.integers(1, 3)):
        (cy, cx), (ry, rx), angle = rng.random(2) * size, 2 + rng.random(2) * size / 2, rng.random() * np.pi
        dy, dx = y - cy, x - cx
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        mask |= (u / rx) ** 2 + (v / ry) ** 2 <= 1
    if rng.random() < 0.3:
        top, left = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        mask[:] = False
        mask[top : top + rng.integers(4, size[0]), left : left + rng.integers(4, size[1])] = True
    image, fill = smooth(rng, size, rng.integers(0, 4)), smooth(rng, size, rng.integers(0, 4))
    return image[None], fill[None], torch.from_numpy(mask)[None, None]


def seamless_clone(cv2, image, fill, mask, mixed):
    """Give OpenCV's blend of one image, with the fill where it lies; None if its box has no inside."""
    marked = mask[0, 0].numpy().astype(np.uint8) * 255
    inner = marked.copy()
    inner[[0, -1]] = inner[:, [0, -1]] = 0  # as OpenCV does, before it takes the box
    x, y, width, height = cv2.boundingRect(inner)
    if min(width, height) < 3:
        return None
    images = (np.ascontiguousarray(each[0].permute(1, 2, 0).numpy()) for each in (fill, image))
    flag = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
    blended = cv2.seamlessClone(*images, marked, (x + width // 2, y + height // 2), flag)
    return torch.from_numpy(blended).permute(2, 0, 1)[None]


@pytest.mark.parametrize("mixed", [False, True])
def test_blends_are_those_of_opencv_on_200_random_cases(mixed):
    """Within one level, since OpenCV cuts off what is rounded here; and cut off, but for float32's own errors."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    rng, cases, changed = np.random.default_rng(7), 0, 0
    while cases < 200:
        image, fill, mask = random_case(rng)
        wanted = seamless_clone(cv2, image, fill, mask, mixed)
        if wanted is None:
            continue
        cases += 1
        changed += not torch.equal(wanted, image)
        assert (poisson_blend(image, fill, mask, mixed).int() - wanted.int()).abs().max() <= 1
        exact = poisson_blend(image.double() / 256, fill.double() / 256, mask, mixed) * 256  # equal stays equal
        over = exact.clamp(max=255) - wanted
        assert over.min() > -0.02
        assert over.max() < 1.02
    assert changed > 150


def test_inside_a_rectangle_a_blend_is_the_fill_bent_to_the_rim():
    """Where the fill's gradients count the Laplacian is the fill's, where the image's count it is the image's."""
    torch.manual_seed(0)
    images, fill = torch.rand(2, 1, 40, 50, dtype=torch.float64) * 0.2 + 0.4, torch.rand(2, 1, 40, 50).double() * 0.1
    mask = torch.zeros(2, 1, 40, 50, dtype=torch.bool)
    mask[:, :, 5:30, 10:45] = True
    blended = poisson_blend(images, fill, mask)
    outside = torch.ones(40, 50, dtype=torch.bool)
    outside[6:29, 11:44] = False
    assert torch.equal(blended[..., outside], images[..., outside])

    def laplacian(values):
        inner = values[..., 1:-1, 1:-1]
        around = values[..., :-2, 1:-1] + values[..., 2:, 1:-1] + values[..., 1:-1, :-2] + values[..., 1:-1, 2:]
        return around - 4 * inner  # of (40, 50) pixels, without the rim: row 0 is row 1

    well_inside = (..., slice(8, 25), slice(13, 40))  # 3 from the mask's edge, and the gradients on both sides
    torch.testing.assert_close(laplacian(blended)[well_inside], laplacian(fill)[well_inside])


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_whole_images_give_what_boxes_give(dtype, mixed, monkeypatch):
    """The way of a GPU, and of the compiler, on boxes of different sizes in one batch."""
    rng = np.random.default_rng(1)
    images = torch.stack([smooth(rng, (60, 70)) for _ in range(8)])
    fill = torch.stack([smooth(rng, (60, 70)) for _ in range(8)])
    mask = torch.zeros(8, 1, 60, 70, dtype=torch.bool)  # the first is empty
    mask[1, :, :, :] = True
    mask[2, :, 3:5, 3:60] = True  # two pixels high
    for b in range(3, 8):
        (top, left), (height, width) = rng.integers(0, 30, 2), rng.integers(12, 40, 2)
        mask[b, :, top : top + height, left : left + width] = True
        mask[b, :, top, left + 4 :] = False  # no rectangle
    if dtype != torch.uint8:
        images, fill = images.to(dtype) / 256, fill.to(dtype) / 256
    before = images.clone()
    boxes = poisson_blend(images, fill, mask, mixed)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    whole = poisson_blend(images, fill, mask, mixed)
    assert torch.equal(images, before)
    assert torch.equal(boxes[[0, 2]], images[[0, 2]])
    assert (boxes != images).flatten(1).any(1)[[1, *range(3, 8)]].all()
    assert boxes.dtype == whole.dtype == dtype
    difference = (boxes.double() - whole.double()).abs()
    if dtype == torch.uint8:
        assert difference.max() <= 1  # a half, rounded up or down
        assert (difference > 0).double().mean() < 1e-3
    else:
        assert difference.max() < (1e-4 if dtype == torch.float32 else 1e-12)


def test_it_compiles_whole_and_does_not_depend_on_the_batch():
    rng = np.random.default_rng(2)
    images, fill = (torch.stack([smooth(rng, (32, 40)) for _ in range(3)]) for _ in range(2))
    mask = torch.zeros(3, 1, 32, 40, dtype=torch.bool)
    mask[0, :, 4:20, 5:30], mask[1, :, 10:31, 1:39] = True, True
    compiled = torch.compile(poisson_blend, fullgraph=True, backend="aot_eager")
    blended = poisson_blend(images, fill, mask)
    assert (compiled(images, fill, mask).int() - blended.int()).abs().max() <= 1
    for b in range(3):
        assert torch.equal(poisson_blend(images[b : b + 1], fill[b : b + 1], mask[b : b + 1])[0], blended[b])


def test_a_color_is_a_fill_without_gradients():
    rng = np.random.default_rng(3)
    images, color = smooth(rng, (40, 40))[None], torch.tensor([10, 200, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    mask[..., 5:35, 5:35] = True
    blended = poisson_blend(images, color, mask)
    assert torch.equal(blended, poisson_blend(images, color.expand_as(images).contiguous(), mask))
    inside = (..., slice(12, 28), slice(12, 28))
    assert blended.float()[inside].std() < images.float()[inside].std() / 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    rng = np.random.default_rng(4)
    images, fill = ((smooth(rng, (30, 30))[None] / 256).to(dtype) for _ in range(2))
    mask = torch.zeros(1, 1, 30, 30, dtype=torch.bool)
    mask[..., 5:25, 3:20] = True
    blended = poisson_blend(images, fill, mask)
    assert blended.dtype == dtype
    assert torch.equal(blended, poisson_blend(images.float(), fill.float(), mask).to(dtype))
    assert torch.equal(blended[..., ~mask[0, 0]], images[..., ~mask[0, 0]])


def test_channels_last_one_channel_and_an_empty_batch_come_back_as_they_came():
    rng = np.random.default_rng(5)
    images, fill = (torch.stack([smooth(rng, (24, 30)) for _ in range(2)]) for _ in range(2))
    mask = torch.ones(2, 1, 24, 30, dtype=torch.bool)
    wanted = poisson_blend(images, fill, mask)
    last = poisson_blend(images.contiguous(memory_format=torch.channels_last), fill, mask)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, wanted)
    assert torch.equal(poisson_blend(images[:, 1:2], fill[:, 1:2], mask), wanted[:, 1:2])
    assert poisson_blend(images[:0], fill[:0], mask[:0]).shape == (0, 3, 24, 30)
    tiny = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert torch.equal(poisson_blend(images[:1, :, :2, :2], fill[:1, :, :2, :2], tiny), images[:1, :, :2, :2])


def test_a_gradient_reaches_image_and_fill():
    torch.manual_seed(0)
    images, fill = (torch.rand(1, 1, 12, 12, dtype=torch.float64) * 0.1 + 0.45 for _ in range(2))
    mask = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    wanted = poisson_blend(images, fill, mask)
    blended = poisson_blend(images.requires_grad_(), fill.requires_grad_(), mask)
    torch.testing.assert_close(blended, wanted)
    blended.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert fill.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.int32)}, TypeError, "uint8"),
        ({"images": torch.full((2, 3, 8, 8), -3.0)}, ValueError, "0–1 required"),
        ({"fill": torch.rand(2, 3, 8, 9)}, ValueError, "a fill of"),
        ({"fill": torch.rand(2, 3, 8, 8).double()}, ValueError, "a fill of"),
        ({"mask": torch.ones(2, 1, 8, 8)}, TypeError, "torch.bool"),
        ({"mask": torch.ones(2, 8, 8, dtype=torch.bool)}, ValueError, "a mask of shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"images": torch.rand(2, 3, 8, 8), "fill": torch.rand(2, 3, 8, 8)}
    given["mask"] = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(error, match=message):
        poisson_blend(**{**given, **change})


def test_waves_of_boxes_and_of_whole_images_are_the_same():
    span = (torch.tensor([[[5]]]), torch.tensor([[[13]]]))  # of which 11 positions are inside
    waves, scales = poisson._waves(20, span, torch.zeros((), dtype=torch.float64))
    wanted, wanted_scales = poisson._waves_of(11, np.dtype(np.float64))
    np.testing.assert_allclose(waves[0, 6:17, 1:12], wanted, atol=1e-12)
    np.testing.assert_allclose(scales[0, 0, 1:12], wanted_scales, atol=1e-12)
    assert waves.count_nonzero() <= 121
    np.testing.assert_allclose(wanted @ wanted, np.eye(11), atol=1e-12)
