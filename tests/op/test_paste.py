"""Laws of `paste`, held against the slow per-image reference, Pillow and torchvision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference import STEPS, OnePatch, one_patch, paste_with_pil
from small_patches import (
    check_against_reference,
    check_against_reference_in_float,
    expected,
    patch_at,
    random_images,
    random_jitter,
    random_patches,
    take,
    to_numpy,
)
from torch.testing import assert_close

from fastcutpaste.op.color import Jitter
from fastcutpaste.op.paste import paste
from fastcutpaste.op.placement import Patches, joined

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(6, 3, 40, 57), (6, 3, 57, 40), (6, 1, 33, 33), (6, 4, 24, 48), (6, 2, 48, 24)]


pytestmark = pytest.mark.usefixtures("way")


# Geometry


@pytest.mark.parametrize("channels", [1, 3])
def test_upright_paste_equals_pillow_bit_for_bit(channels):
    generator = torch.Generator().manual_seed(channels)
    for case in range(25):
        height, width = torch.randint(1, 80, (2,), generator=generator).tolist()
        shape = (20, channels, height, width)
        images, patches = random_images(shape, seed=case), random_patches(shape, seed=100 + case)
        result = paste(images, patches).images
        for b in range(20):
            # (C, H, W) → (H, W, C), or (H, W) for Pillow's "L"
            pil = Image.fromarray(to_numpy(images[b]).squeeze(2) if channels == 1 else to_numpy(images[b]))
            pasted = np.asarray(paste_with_pil(pil, one_patch(patches, b))).reshape(height, width, channels)
            assert np.array_equal(to_numpy(result[b]), pasted)


@pytest.mark.parametrize("angle", [0, 17, -17, 45, -45, 90, -90, 180, 133.7, "any"])
@pytest.mark.parametrize("shape", SHAPES)
def test_turned_paste_equals_the_reference(shape, angle):
    patches = random_patches(shape, angle)
    if angle not in (0, 17, -17, "any", 133.7):  # odd sizes: every pixel of a multiple of 45° is otherwise a tie
        patches = patches._replace(height=patches.height - 1 | 1, width=patches.width - 1 | 1)
    check_against_reference(random_images(shape), patches)


def test_a_quarter_turn_is_counter_clockwise():
    image = torch.zeros(1, 1, 8, 9, dtype=torch.uint8)
    image[0, 0, :3, :3] = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    turned = paste(image, patch_at((0, 0), (4, 5), (3, 3), 90))
    assert turned.images[0, 0, 4:7, 5:8].tolist() == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]
    turned = paste(image, patch_at((0, 0), (4, 5), (3, 3), -90))
    assert turned.images[0, 0, 4:7, 5:8].tolist() == [[7, 4, 1], [8, 5, 2], [9, 6, 3]]


def test_a_strip_turned_by_45_degrees_rises_to_the_right():
    image = torch.zeros(1, 1, 7, 7, dtype=torch.uint8)
    image[0, 0, 0, :5] = torch.tensor([1, 2, 3, 4, 5])
    result = paste(image, patch_at((0, 0), (4, 1), (1, 5), 45))
    drawn = torch.zeros(7, 7, dtype=torch.uint8)
    drawn[5, 2], drawn[4, 3], drawn[3, 4] = 2, 3, 4
    assert torch.equal(result.mask[0, 0], drawn > 0)
    assert torch.equal(result.images[0, 0, 1:], drawn[1:])


@pytest.mark.parametrize("angle", [90, 180, 270, -90])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (7, 3), (1, 5), (8, 8)])
def test_right_angles_equal_pillow(height, width, angle):
    images = random_images((1, 3, 24, 31))
    y, x = 9, 12
    pil = Image.fromarray(to_numpy(images[0]))
    turned = pil.crop((2, 1, 2 + width, 1 + height)).rotate(angle, expand=True)
    corner = x + (width - turned.width) // 2, y + (height - turned.height) // 2
    pil.paste(turned, corner)
    result = paste(images, patch_at((1, 2), (y, x), (height, width), angle))
    assert np.array_equal(to_numpy(result.images[0]), np.asarray(pil))
    assert result.mask.sum() == height * width


@pytest.mark.parametrize("angle", [90, -90, 270])
@pytest.mark.parametrize(("height", "width"), [(4, 7), (1, 6), (16, 3), (25, 2)])
def test_a_quarter_turn_keeps_every_pixel_of_a_patch_of_odd_and_even_side(height, width, angle):
    """The centre then falls between pixels, but the patch still arrives whole, within half a pixel."""
    image = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    patch = torch.arange(1, height * width + 1, dtype=torch.uint8).reshape(height, width)
    image[0, 0, :height, :width] = patch
    result = paste(image, patch_at((0, 0), (34, 33), (height, width), angle))
    (rows, columns) = torch.where(result.mask[0, 0])
    assert rows.max() - rows.min() + 1 == width
    assert columns.max() - columns.min() + 1 == height
    box = result.images[0, 0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert torch.equal(box, torch.rot90(patch, round(angle / 90)))
    assert abs(rows.double().mean() - (34 + (height - 1) / 2)) <= 0.5
    assert abs(columns.double().mean() - (33 + (width - 1) / 2)) <= 0.5


@pytest.mark.parametrize("angle", [5, 17, -17, 30, -45, 100, -160])
def test_a_turned_paste_equals_pillow_turning_the_whole_canvas(angle):
    height, width, h, w = 61, 81, 21, 35  # odd, so the patch sits exactly on the centre Pillow turns about
    fill = random_images((1, 3, height, width))
    top, left = (height - h) // 2, (width - w) // 2
    canvas = Image.new("RGBA", (width, height))
    pil = Image.fromarray(to_numpy(fill[0]))
    canvas.paste(pil.crop((left, top, left + w, top + h)).convert("RGBA"), (left, top))
    turned = np.asarray(canvas.rotate(angle))
    result = paste(torch.zeros_like(fill), patch_at((top, left), (top, left), (h, w), angle), fill)
    assert (result.mask[0, 0].numpy() != (turned[..., 3] > 0)).mean() <= 0.005
    assert (to_numpy(result.images[0]) != turned[..., :3]).any(axis=2).mean() <= 0.005


def test_a_turned_patch_may_start_outside_the_image():
    """A long strip turned upright fits a column although its upright rectangle does not fit the rows."""
    images = random_images((1, 1, 30, 30))
    patches = patch_at((3, 2), (14, -10), (3, 23), 90)  # centre (15, 1): rows 4–26, columns 0–2
    result = paste(images, patches)
    assert result.mask.sum() == 3 * 23
    assert torch.equal(result.images[0, 0, 4:27, 0:3], torch.rot90(images[0, 0, 3:6, 2:25]))


# What the mask says


@pytest.mark.parametrize("angle", [0, 30, -45])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_mask_marks_exactly_the_pasted_pixels(angle, dtype):
    shape = (8, 3, 31, 44)
    images = random_images(shape, dtype) // 2 if dtype == torch.uint8 else random_images(shape, dtype) / 2.1
    fill = torch.full((8, 3, 1, 1), 200 if dtype == torch.uint8 else 0.75, dtype=dtype)
    result = paste(images, random_patches(shape, angle), fill)
    assert result.mask.shape == (8, 1, 31, 44)
    assert result.mask.dtype == torch.bool
    assert torch.equal((result.images != images).all(dim=1, keepdim=True), result.mask)
    assert torch.equal((result.images != images).any(dim=1, keepdim=True), result.mask)


def test_nothing_changes_outside_the_mask():
    images, patches = random_images((8, 3, 37, 29)), random_patches((8, 3, 37, 29), "any", jitter=True)
    result = paste(images, patches)
    assert not result.mask.all()
    assert torch.equal(result.images.where(~result.mask, 0), images.where(~result.mask, 0))


def test_a_turned_patch_has_no_black_corners():
    images = random_images((8, 3, 40, 40)) // 2 + 100
    assert paste(images, random_patches((8, 3, 40, 40), 30)).images.min() >= 100


def test_the_source_is_the_image_before_pasting():
    images = random_images((1, 3, 16, 16))
    result = paste(images, patch_at((0, 0), (3, 3), (10, 10)))  # source and destination overlap
    assert torch.equal(result.images[0, :, 3:13, 3:13], images[0, :, :10, :10])


# Where the pixels come from


@pytest.mark.parametrize("angle", [0, 31])
@pytest.mark.parametrize("jitter", [False, True])
def test_another_image_is_cut_from(angle, jitter):
    shape = (6, 3, 33, 50)
    images, fill = random_images(shape), random_images(shape, seed=9)
    check_against_reference(images, random_patches(shape, angle, jitter), fill, tolerance=int(jitter))


@pytest.mark.parametrize("angle", [0, 31])
@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_color_fills_the_patch(angle, jitter, channels):
    shape = (6, channels, 33, 50)
    fill = random_images((6, channels, 1, 1), seed=9)
    check_against_reference(random_images(shape), random_patches(shape, angle, jitter), fill, tolerance=int(jitter))


# Jitter


# What is kept


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
def test_dtype_and_device_are_kept(dtype, jitter):
    shape = (4, 3, 16, 20)
    images, patches = random_images(shape, dtype), random_patches(shape, 20, jitter)
    result = paste(images, patches)
    assert result.images.dtype == dtype
    assert result.images.device == result.mask.device == images.device
    assert result.images.shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_copies_exactly_and_jitters_to_its_own_rounding(dtype):
    shape = (6, 3, 32, 40)
    images = random_images(shape, dtype)
    check_against_reference_in_float(images, random_patches(shape, 20), 0.0)
    check_against_reference_in_float(images, random_patches(shape, 20, jitter=True), torch.finfo(dtype).eps)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("source", ["itself", "image", "color"])
@pytest.mark.parametrize("jitter", [False, True])
def test_memory_format_is_kept_and_changes_nothing(memory_format, dtype, source, jitter):
    shape = (4, 3, 16, 20)
    images, patches = random_images(shape, dtype), random_patches(shape, 20, jitter)
    sides = {"itself": None, "image": (16, 20), "color": (1, 1)}[source]
    fill = None if sides is None else random_images((4, 3, *sides), dtype, seed=2)
    formatted = images.contiguous(memory_format=memory_format)
    result = paste(formatted, patches, fill)
    assert result.images.stride() == formatted.stride()
    assert_close(result.images, paste(images, patches, fill).images, atol=1e-6, rtol=0)


# Feather


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("angle", [0, 17, "any"])
@pytest.mark.parametrize("source", ["itself", "color"])
def test_a_feathered_paste_equals_the_reference(dtype, angle, source):
    shape = (8, 3, 40, 57)
    images, patches = random_images(shape, dtype), random_patches(shape, angle, jitter=True)
    feathered = patches._replace(feather=torch.tensor([0.0, 0.3, 1, 2, 3.5, 8, 20, 100]))
    fill = None if source == "itself" else random_images((8, 3, 1, 1), dtype, seed=2)
    check_against_reference(images, feathered, fill, tolerance=1 if dtype == torch.uint8 else 1e-4)


def test_a_feather_fades_in_from_the_edge_and_leaves_the_mask_alone():
    images = torch.zeros(1, 1, 20, 20)
    patches = patch_at((0, 0), (5, 5), (10, 10))
    result = paste(images, patches._replace(feather=torch.tensor([4.0])), torch.ones(1, 1, 1, 1))
    assert result.images[0, 0, 10, 4:17].tolist() == [
        0,
        0.125,
        0.375,
        0.625,
        0.875,
        1,
        1,
        0.875,
        0.625,
        0.375,
        0.125,
        0,
        0,
    ]
    assert torch.equal(result.mask, paste(images, patches).mask)
    none = patches._replace(feather=torch.tensor([0.0]))
    assert all(map(torch.equal, paste(images, none), paste(images, patches)))


# Several patches an image


@pytest.mark.parametrize("fill", [None, "image", "color"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_patches_for_several_copies_of_the_batch_are_pasted_copy_after_copy(fill, memory_format):
    images = random_images((4, 3, 25, 38)).contiguous(memory_format=memory_format)
    blocks = [random_patches((4, 3, 25, 38), angle, jitter=True, seed=i) for i, angle in enumerate((0, "any", 30))]
    fills = [None if fill is None else random_images((4, 3, *((25, 38) if fill == "image" else (1, 1))), seed=i)
             for i in range(3)]  # fmt: skip
    together = paste(images, joined(blocks), None if fill is None else torch.cat(fills))
    assert together.images.is_contiguous(memory_format=memory_format)
    for i, (block, one) in enumerate(zip(blocks, fills, strict=True)):
        alone = paste(images, block, one)
        assert torch.equal(together.images[4 * i : 4 * i + 4], alone.images)
        assert torch.equal(together.mask[4 * i : 4 * i + 4], alone.mask)


def test_joined_patches_without_jitter_or_feather_get_one_that_changes_nothing():
    images, plain = random_images((4, 3, 25, 38)), random_patches((4, 3, 25, 38))
    other = random_patches((4, 3, 25, 38), "any", jitter=True, seed=2)._replace(feather=torch.full((4,), 3.0))
    together = paste(images, joined([plain, other]))
    assert torch.equal(together.images[:4], paste(images, plain).images)
    assert torch.equal(together.images[4:], paste(images, other).images)


# What is kept


@pytest.mark.parametrize("jitter", [False, True])
def test_input_is_never_written(jitter):
    shape = (4, 3, 16, 20)
    images, fill, patches = random_images(shape), random_images(shape, seed=2), random_patches(shape, 20, jitter)
    fields = patches.tensors
    before = [tensor.clone() for tensor in (images, fill, *fields)]
    paste(images, patches)
    result = paste(images, patches, fill)
    result.images.zero_()
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((images, fill, *fields), before, strict=True))


def test_an_expanded_image_or_fill_is_read_like_any_other():
    shape = (4, 3, 16, 20)
    images, fill, patches = (
        random_images((1, 3, 16, 20)),
        random_images((1, 3, 16, 20), seed=2),
        random_patches(shape, 20),
    )
    many = paste(images.expand(shape), patches, fill.expand(shape))
    assert torch.equal(many.images, paste(images.repeat(4, 1, 1, 1), patches, fill.repeat(4, 1, 1, 1)).images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("jitter", [False, True])
def test_batched_equals_one_by_one(dtype, jitter):
    shape = (8, 3, 25, 38)
    images, patches = random_images(shape, dtype), random_patches(shape, "any", jitter)
    result = paste(images, patches)
    for b in range(8):
        alone = paste(images[b : b + 1], take(patches, b))
        assert torch.equal(result.mask[b : b + 1], alone.mask)
        assert_close(result.images[b : b + 1], alone.images, atol=1e-6 if dtype.is_floating_point else 0, rtol=0)


def test_a_patch_is_recolored_to_the_same_bits_alone_and_in_company():
    shape = (8, 3, 25, 38)
    blue = random_images(shape, torch.float32) * torch.tensor([0.1, 0.1, 1]).view(3, 1, 1)  # the hue changes its grey
    images, patches = blue, random_patches(shape, jitter=True)
    patches = patches._replace(jitter=patches.jitter._replace(hue=patches.jitter.hue * 0.3))  # below a sixth of a turn
    alone = [paste(images[b : b + 1], take(patches, b)).images for b in range(8)]
    assert torch.equal(paste(images, patches).images, torch.cat(alone))


def test_paste_is_the_same_each_time():
    images, patches = random_images((4, 3, 30, 30)), random_patches((4, 3, 30, 30), "any", jitter=True)
    assert all(torch.equal(one, two) for one, two in zip(paste(images, patches), paste(images, patches), strict=True))


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("source", ["itself", "image", "color"])
def test_an_empty_batch_gives_an_empty_batch(source, jitter):
    sides = {"itself": None, "image": (9, 7), "color": (1, 1)}[source]
    fill = None if sides is None else random_images((0, 3, *sides))
    result = paste(random_images((0, 3, 9, 7)), random_patches((0, 3, 9, 7), jitter=jitter), fill)
    assert result.images.shape == (0, 3, 9, 7)
    assert result.images.dtype == torch.uint8
    assert result.mask.shape == (0, 1, 9, 7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("angle", [0, 37])
def test_an_image_of_one_pixel_is_pasted_onto_itself(channels, angle):
    images = random_images((1, channels, 1, 1))
    result = paste(images, patch_at((0, 0), (0, 0), (1, 1), angle))
    assert torch.equal(result.images, images)
    assert result.mask.tolist() == [[[[True]]]]


@pytest.mark.parametrize("corner", [(9, 2), (11, 2), (-3, 2), (-5, 2), (2, 12), (2, 14), (2, -4), (2, -6), (-90, 90)])
@pytest.mark.parametrize("angle", [0, 20, 180])
@pytest.mark.parametrize("jitter", [False, True])
def test_a_patch_wholly_outside_changes_nothing(corner, angle, jitter):
    images = random_images((1, 3, 9, 12))
    drawn = random_jitter(1, torch.Generator().manual_seed(0)) if jitter else None
    if angle == 20:  # far enough for the turned corners
        corner = tuple(side + (3 if side > 8 else -3 if side < 0 else 0) for side in corner)
    result = paste(images, patch_at((1, 1), corner, (3, 4), angle, drawn))
    assert torch.equal(result.images, images)
    assert not result.mask.any()


@pytest.mark.parametrize("jitter", [False, True])
def test_a_patch_of_no_size_pastes_nothing(jitter):
    shape = (4, 3, 9, 12)
    images, patches = random_images(shape, torch.float32), random_patches(shape, "any", jitter)
    patches.height[1], patches.width[2] = 0, 0
    patches.height[3] = patches.width[3] = 0
    result = paste(images, patches)
    assert torch.equal(result.images[1:], images[1:])
    assert result.mask.flatten(1).any(1).tolist() == [True, False, False, False]


@pytest.mark.parametrize("corner", [(-1, -2), (7, 9), (-1, 9), (7, -2)])
def test_a_patch_over_the_border_is_cut_there(corner):
    images = random_images((1, 3, 9, 12))
    for angle in (0, 180, 90):
        check_against_reference(images, patch_at((1, 1), corner, (3, 5), angle))


def test_a_patch_may_be_the_whole_image():
    images = random_images((1, 3, 12, 19))
    result = paste(images, patch_at((0, 0), (0, 0), (12, 19)))
    assert torch.equal(result.images, images)
    assert result.mask.all()
    turned = paste(images, patch_at((0, 0), (0, 0), (12, 19), 180))
    assert torch.equal(turned.images, images.flip(2, 3))


# Anything


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_any_patch_of_any_image_equals_the_reference(data):
    height, width = data.draw(st.integers(1, 24), "H"), data.draw(st.integers(1, 24), "W")
    channels = data.draw(st.sampled_from([1, 2, 3, 4]), "C")
    h, w = data.draw(st.integers(1, height), "h"), data.draw(st.integers(1, width), "w")
    patch = OnePatch(
        data.draw(st.integers(0, height - h), "source_y"),
        data.draw(st.integers(0, width - w), "source_x"),
        data.draw(st.integers(-height, 2 * height), "y"),
        data.draw(st.integers(-width, 2 * width), "x"),
        h,
        w,
        data.draw(st.floats(-360, 360, width=32), "angle"),
        feather=data.draw(st.sampled_from([0.0, 0.5, 2.0, 30.0]), "feather"),
    )
    jitter = None
    if data.draw(st.booleans(), "jittered"):
        factors = [data.draw(st.floats(0.5, 1.5, width=32), step) for step in STEPS[:3]]
        numbers = [data.draw(st.floats(-0.5, 0.5, width=32), "hue"), data.draw(st.sampled_from([0.2, 0.4, 0.6, 0.9]))]
        jitter = Jitter(*torch.tensor([*factors, *numbers])[:, None])
    dtype = data.draw(st.sampled_from([torch.uint8, torch.float32]), "dtype")
    images = random_images((1, channels, height, width), dtype, seed=data.draw(st.integers(0, 99), "seed"))
    geometry = (torch.tensor([field]) for field in patch[:7])
    patches = Patches(*geometry, jitter, torch.tensor([patch.feather]) if patch.feather else None)
    # The grey weights sum to 0.9999, so one affine map differs from four steps where the factors are strong.
    tolerance = 0 if jitter is None else 1 if dtype == torch.uint8 else 2e-4
    tolerance = max(tolerance, 1 if dtype == torch.uint8 else 1e-5) if patch.feather else tolerance
    check_against_reference(images, patches, tolerance=tolerance, most_ties=1)


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_paste_compiles_into_one_graph(backend, jitter, way):
    if way == "grid":
        pytest.skip("compiling takes that way by itself")
    shape = (3, 3, 20, 26)
    images, patches = random_images(shape), random_patches(shape, 20, jitter)
    torch.compiler.reset()
    compiled = torch.compile(paste, fullgraph=True, backend=backend)(images, patches)
    eager = paste(images, patches)
    assert torch.equal(compiled.mask, eager.mask)
    assert torch.equal(compiled.images, eager.images)


# Errors


def test_images_that_are_no_tensor_are_refused():
    with pytest.raises(TypeError, match=r"paste: .*tensor.*ndarray"):
        paste(np.zeros((1, 3, 8, 8), dtype=np.uint8), random_patches((1, 3, 8, 8)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_images_of_another_type_are_refused(dtype):
    with pytest.raises(TypeError, match=rf"paste: .*uint8.*{str(dtype).removeprefix('torch.')}"):
        paste(torch.zeros(1, 3, 8, 8, dtype=dtype), random_patches((1, 3, 8, 8)))


def test_images_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"paste: .*\(B, C, H, W\).*\(3, 8, 8\)"):
        paste(torch.zeros(3, 8, 8), random_patches((3, 3, 8, 8)))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_another_number_of_patches_is_refused(count):
    """One patch would silently serve the whole batch if it were broadcast."""
    with pytest.raises(ValueError, match=rf"paste: .*one patch per image.*{count} patch.*4 images"):
        paste(torch.zeros(4, 3, 8, 8), random_patches((count, 3, 8, 8)))


@pytest.mark.parametrize("shape", [(4, 3, 8, 9), (4, 1, 8, 8), (4, 1, 1, 1), (1, 3, 1, 1), (3, 1, 1), (4, 3, 8, 1)])
def test_a_fill_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"paste: .*fill"):
        paste(torch.zeros(4, 3, 8, 8), random_patches((4, 3, 8, 8)), torch.zeros(shape))


def test_a_fill_of_another_dtype_or_device_is_refused():
    images, patches = torch.zeros(4, 3, 8, 8), random_patches((4, 3, 8, 8))
    with pytest.raises((ValueError, TypeError), match=r"paste: .*fill.*uint8"):
        paste(images, patches, torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises((ValueError, TypeError), match=r"paste: .*fill.*meta"):
        paste(images, patches, torch.zeros(4, 3, 8, 8, device="meta"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("jitter", [False, True])
def test_a_gpu_gives_what_the_cpu_gives(jitter):
    shape = (16, 3, 64, 80)
    images, patches = random_images(shape, torch.float32), random_patches(shape, "any", jitter)
    result = paste(images.cuda(), patches.map(lambda field: field.cuda()))
    assert result.images.is_cuda
    assert result.mask.is_cuda
    reference, _, tie = expected(images, patches)
    assert ((result.images.cpu() - reference).abs() * ~tie).max() <= 1e-5
