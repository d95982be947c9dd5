"""Laws of `draw`, of the placements that turn its numbers into patches, and of `translate` and `normalize`."""

import inspect
import math

import pytest
import torch
from torch.testing import assert_close

from fastcutpaste.op.placement import DRAWS, draw, place_cutpaste, place_scar

SIZES = [(64, 64), (64, 65), (90, 64), (64, 400), (500, 64), (256, 256), (224, 320)]
LARGEST = 1 - 2**-24  # the largest float32 below 1


def random_draws(count=4000, seed=0):
    return draw(count, "cpu", torch.Generator().manual_seed(seed))


def stepped_draws(column, count=4000, others=0.5):
    """Give draws that sweep [0, 1) evenly in one column and are constant in the others."""
    draws = torch.full((count, DRAWS), float(others))
    draws[:, column] = (torch.arange(count) + 0.5) / count
    return draws


def turned_box(patches):
    """Give top, bottom, left, right of the turned rectangles in float64, from their four corners one by one."""
    h, w = patches.height.double(), patches.width.double()
    centre_y, centre_x = patches.y + h / 2, patches.x + w / 2
    ys, xs = [], []
    for above, right in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        angle = torch.deg2rad(patches.angle.double())
        xs.append(centre_x + angle.cos() * right * w / 2 + angle.sin() * above * h / 2)
        ys.append(centre_y - angle.sin() * right * w / 2 + angle.cos() * above * h / 2)
    ys, xs = torch.stack(ys), torch.stack(xs)
    return ys.amin(0), ys.amax(0), xs.amin(0), xs.amax(0)


def default(function, name):
    return inspect.signature(function).parameters[name].default


# draw


def test_draws_are_uniform_float32_in_0_to_1():
    draws = random_draws(20000)
    assert draws.shape == (20000, DRAWS)
    assert draws.dtype == torch.float32
    assert 0 <= draws.min() < 1e-4
    assert 1 - 1e-4 < draws.max() < 1
    assert_close(draws.mean(0), torch.full((DRAWS,), 0.5), atol=0.01, rtol=0)
    assert_close(draws.var(0), torch.full((DRAWS,), 1 / 12), atol=0.005, rtol=0)
    correlation = torch.corrcoef(draws.T) - torch.eye(DRAWS)
    assert correlation.abs().max() < 0.04


def test_draws_repeat_with_the_seed_and_only_with_it():
    assert torch.equal(random_draws(seed=3), random_draws(seed=3))
    assert not torch.equal(random_draws(seed=3), random_draws(seed=4))
    generator = torch.Generator().manual_seed(3)
    assert not torch.equal(draw(5, "cpu", generator), draw(5, "cpu", generator))


def test_a_given_generator_leaves_the_default_one_alone_and_none_uses_it():
    torch.manual_seed(7)
    first = draw(5, "cpu")
    torch.manual_seed(7)
    random_draws(5)
    assert torch.equal(draw(5, "cpu"), first)


def test_draws_are_made_on_the_device_asked_for_and_of_any_number():
    assert draw(3, "meta").device.type == "meta"
    assert draw(0, "cpu").shape == (0, DRAWS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_change_the_draws(dtype):
    before = random_draws(5)
    torch.set_default_dtype(dtype)
    try:
        draws = random_draws(5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert draws.dtype == torch.float32
    assert torch.equal(draws, before)


# What both placements hold


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_placement_gives_one_patch_a_row_in_whole_pixels(place, count):
    patches = place(random_draws(count), 80, 100)
    assert all(field.shape == (count,) for field in patches.tensors)
    assert all(field.dtype == torch.int64 for field in patches[:6])
    assert patches.angle.dtype == torch.float32
    assert all(field.dtype == torch.float32 for field in patches.jitter)


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
def test_a_placement_reads_its_own_row_alone_and_writes_nothing(place):
    draws = random_draws(50)
    before = draws.clone()
    patches = place(draws, 80, 100)
    assert torch.equal(draws, before)
    alone = place(draws[17:18], 80, 100)
    for many, one in zip(patches.tensors, alone.tensors, strict=True):
        assert_close(many[17:18], one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_patches_lie_fully_inside_source_and_destination(place, height, width):
    patches = place(random_draws(), height, width)
    assert patches.height.min() >= 1
    assert patches.width.min() >= 1
    assert patches.source_y.min() >= 0
    assert patches.source_x.min() >= 0
    assert (patches.source_y + patches.height).max() <= height
    assert (patches.source_x + patches.width).max() <= width
    top, bottom, left, right = turned_box(patches)
    assert top.min() >= -1e-4
    assert left.min() >= -1e-4
    assert bottom.max() <= height + 1e-4
    assert right.max() <= width + 1e-4


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
@pytest.mark.parametrize("value", [0.0, LARGEST])
def test_the_smallest_and_largest_draws_lie_inside_too(place, value):
    patches = place(torch.full((1, DRAWS), value), 100, 64)
    top, bottom, left, right = turned_box(patches)
    assert patches.source_y + patches.height <= 100
    assert patches.source_x + patches.width <= 64
    assert top >= -1e-4
    assert left >= -1e-4
    assert bottom <= 100 + 1e-4
    assert right <= 64 + 1e-4


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
@pytest.mark.parametrize(
    ("column", "field", "side"),
    [(2, "source_y", "height"), (3, "source_x", "width"), (4, "y", "height"), (5, "x", "width")],
)
def test_every_position_is_reached_equally_often_from_border_to_border(place, column, field, side):
    patches = place(stepped_draws(column), 70, 90)  # the angle stays 0: half-way between -45° and 45°
    room = {"height": 70, "width": 90}[side] - getattr(patches, side)[0].item()
    counts = torch.bincount(getattr(patches, field), minlength=room + 1)
    assert len(counts) == room + 1
    assert counts.max() - counts.min() <= 1


def test_positions_and_jitter_are_drawn_independently():
    for place in (place_cutpaste, place_scar):
        patches = place(random_draws(), 256, 256)
        positions = torch.stack([patches.source_y, patches.source_x, patches.y, patches.x]).double()
        room = 256 - torch.stack([patches.height, patches.width] * 2)
        drawn = torch.cat([positions / room, torch.stack(patches.jitter).double()])  # (4 + 5, B)
        assert (torch.corrcoef(drawn) - torch.eye(9)).abs().max() < 0.08


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (3, 3), (5, 400)])
def test_small_images_get_a_patch_that_starts_inside(place, height, width):
    patches = place(random_draws(500), height, width)
    assert patches.height.min() >= 1
    assert patches.width.min() >= 1
    assert patches.source_y.min() >= 0
    assert patches.source_x.min() >= 0
    assert (patches.source_y + patches.height).max() <= height
    assert (patches.source_x + patches.width).max() <= width


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
def test_no_jitter_is_none(place):
    assert place(random_draws(3), 64, 64, jitter=0).jitter is None
    assert place(random_draws(3), 64, 64, jitter=(0, 0, 0, 0.1)).jitter is not None


# place_cutpaste


def test_cutpaste_defaults_are_the_papers():
    """Li et al. 2021, App. A.2: area 2–15 %, aspect 0.3–1 or 1–3.3, color jitter up to 0.1."""
    assert default(place_cutpaste, "area") == (0.02, 0.15)
    assert default(place_cutpaste, "aspect") == (0.3, 3.3)
    assert default(place_cutpaste, "jitter") == 0.1


@pytest.mark.parametrize(("height", "width"), [(80, 80), (100, 140), (140, 100), (256, 256)])
@pytest.mark.parametrize("distribution", ["log_uniform", "two_uniforms"])
@pytest.mark.parametrize(
    ("area", "aspect"), [((0.02, 0.15), (0.3, 3.3)), ((0.1, 0.2), (0.5, 1.0)), ((0.3, 0.3), (1, 2))]
)
def test_area_and_aspect_stay_in_their_ranges(height, width, distribution, area, aspect):
    patches = place_cutpaste(random_draws(), height, width, area=area, aspect=aspect, aspect_distribution=distribution)
    h, w = patches.height.double(), patches.width.double()
    # each side is rounded by at most half a pixel
    assert ((h + 0.501) * (w + 0.501) >= area[0] * height * width).all()
    assert ((h - 0.501) * (w - 0.501) <= area[1] * height * width).all()
    assert ((h + 0.501) / (w - 0.501) >= aspect[0]).all()
    assert ((h - 0.501) / (w + 0.501) <= aspect[1]).all()
    assert (patches.angle == 0).all()


def test_area_is_uniform():
    side = 20000  # so large that rounding does not show
    patches = place_cutpaste(stepped_draws(0, 1000), side, side)
    areas = patches.height.double() * patches.width / side**2
    expected = 0.02 + 0.13 * (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert_close(areas.sort().values, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("distribution", "quarters"),
    [
        ("log_uniform", [0.3 * 11 ** (1 / 4), 0.3 * 11 ** (1 / 2), 0.3 * 11 ** (3 / 4)]),  # 11 = 3.3 / 0.3
        ("two_uniforms", [0.65, 1.0, 2.15]),
    ],
)
def test_aspect_follows_the_distribution_asked_for(distribution, quarters):
    patches = place_cutpaste(stepped_draws(1), 20000, 20000, aspect_distribution=distribution)
    aspects = patches.height.double() / patches.width
    q = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    assert_close(aspects.quantile(q), torch.tensor([0.3, *quarters, 3.3], dtype=torch.float64), atol=3e-3, rtol=0)
    if distribution == "log_uniform":  # the mean of exp(uniform)
        assert aspects.mean() == pytest.approx((3.3 - 0.3) / math.log(11), abs=2e-3)
    else:
        assert aspects.mean() == pytest.approx((0.65 + 2.15) / 2, abs=2e-3)


def test_aspect_is_height_over_width():
    tall = place_cutpaste(random_draws(50), 200, 300, aspect=(2, 3))
    assert (tall.height > tall.width).all()
    wide = place_cutpaste(random_draws(50), 200, 300, aspect=(0.3, 0.5))
    assert (wide.height < wide.width).all()


def test_a_side_longer_than_the_image_is_cut_to_it():
    patches = place_cutpaste(random_draws(100), 20, 500, area=(0.5, 0.5), aspect=(1, 1))
    assert (patches.height == 20).all()
    assert (patches.width == 71).all()  # √5000
    whole = place_cutpaste(random_draws(100), 30, 40, area=(1, 1), aspect=(0.75, 0.75))
    assert (whole.height == 30).all()
    assert (whole.width == 40).all()
    assert (whole.y == 0).all()
    assert (whole.source_x == 0).all()


def test_an_area_of_zero_gives_one_pixel():
    patches = place_cutpaste(random_draws(10), 64, 64, area=(0, 0))
    assert (patches.height * patches.width == 1).all()


# place_scar


def test_scar_defaults_are_the_papers():
    """Li et al. 2021, App. A.2: 2–16 pixels wide, 10–25 long at 256×256, turned by up to 45° either way."""
    assert default(place_scar, "scar_width") == (2, 16)
    assert default(place_scar, "scar_length") == (10, 25)
    assert default(place_scar, "rotation") == (-45, 45)
    assert default(place_scar, "reference") == 256
    assert default(place_scar, "jitter") == 0.1


@pytest.mark.parametrize(
    ("height", "width", "reference", "scale"),
    [
        (256, 256, 256, 1),
        (256, 900, 256, 1),
        (512, 700, 256, 2),
        (700, 512, 256, 2),
        (1024, 1024, 256, 4),
        (64, 64, 256, 1 / 4),
        (512, 512, None, 1),
        (64, 100, None, 1),
        (100, 100, 50, 2),
    ],
)
def test_scars_grow_with_the_shorter_side(height, width, reference, scale):
    patches = place_scar(random_draws(), height, width, reference=reference)
    for sides, (low, high) in ((patches.width, (2, 16)), (patches.height, (10, 25))):
        assert sides.min().item() == pytest.approx(max(low * scale, 1), abs=0.5)
        assert sides.max().item() == pytest.approx(high * scale, abs=0.5)
        assert sides.double().mean() == pytest.approx((low + high) / 2 * scale, abs=0.15 * scale + 0.1)


def test_angles_are_uniform_in_their_range():
    angles = place_scar(random_draws(), 256, 256).angle
    assert -45 <= angles.min() < -44.9
    assert 44.9 < angles.max() <= 45
    assert angles.mean() == pytest.approx(0, abs=1.5)
    assert angles.var() == pytest.approx(90**2 / 12, rel=0.05)
    steep = place_scar(random_draws(), 256, 256, rotation=(80, 100)).angle
    assert steep.min() >= 80
    assert steep.max() <= 100


@pytest.mark.parametrize("rotation", [(-45, 45), (90, 90), (60, 120), (-360, 360)])
def test_turned_scars_lie_inside_and_come_within_a_pixel_of_each_border(rotation):
    patches = place_scar(random_draws(20000), 64, 80, rotation=rotation, reference=None)
    top, bottom, left, right = turned_box(patches)
    for distance in (top, left, 64 - bottom, 80 - right):
        assert distance.min() >= -1e-4
        assert distance.min() < 0.05
    # neither border is favoured
    assert (top - (64 - bottom)).mean().abs() < 0.6
    assert (left - (80 - right)).mean().abs() < 0.7


def test_scar_width_and_length_may_be_of_any_range():
    patches = place_scar(random_draws(), 200, 200, scar_width=(40, 50), scar_length=(3, 3), reference=None)
    assert patches.width.min() == 40
    assert patches.width.max() == 50
    assert (patches.height == 3).all()


def test_a_scar_larger_than_the_image_is_cut_to_it():
    patches = place_scar(random_draws(50), 8, 9, scar_width=(100, 100), scar_length=(100, 100), reference=None)
    assert (patches.height == 8).all()
    assert (patches.width == 9).all()


# place_jitter


# translate


# normalize


# Errors


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
def test_draws_of_another_shape_or_type_are_refused(place):
    for shape in ((3, DRAWS - 1), (DRAWS,), (3, DRAWS, 1)):
        with pytest.raises(ValueError, match=rf"{place.__name__}: draws of shape \(B, {DRAWS}\).*got \({shape[0]}"):
            place(torch.zeros(shape), 64, 64)
    with pytest.raises(TypeError, match=rf"{place.__name__}: draws of float32 required, got torch.bfloat16"):
        place(torch.zeros(3, DRAWS, dtype=torch.bfloat16), 64, 64)


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_images_without_pixels_are_refused(place, size):
    with pytest.raises(ValueError, match=rf"{place.__name__}: images of at least 1×1.*got {size[0]}×{size[1]}"):
        place(random_draws(2), *size)


@pytest.mark.parametrize(
    ("place", "name", "values"),
    [
        (place_cutpaste, "area", (0.2, 0.1)),
        (place_cutpaste, "area", (-0.1, 0.1)),
        (place_cutpaste, "area", (0.1, 1.1)),
        (place_cutpaste, "area", (0.1, math.nan)),
        (place_cutpaste, "aspect", (3.3, 0.3)),
        (place_cutpaste, "aspect", (0, 1)),
        (place_cutpaste, "aspect", (1, math.inf)),
        (place_scar, "scar_width", (16, 2)),
        (place_scar, "scar_width", (-1, 2)),
        (place_scar, "scar_length", (25, 10)),
        (place_scar, "scar_length", (10, math.inf)),
        (place_scar, "rotation", (45, -45)),
        (place_scar, "rotation", (0, 361)),
    ],
)
def test_ranges_upside_down_or_out_of_bounds_are_refused(place, name, values):
    with pytest.raises(ValueError, match=rf"{place.__name__}: {name} with .* <= low <= high <= .*got \("):
        place(random_draws(2), 64, 64, **{name: values})


@pytest.mark.parametrize(("place", "name"), [(place_cutpaste, "area"), (place_scar, "rotation")])
@pytest.mark.parametrize("values", [0.1, (0.1,), (0.1, 0.2, 0.3), None])
def test_a_range_of_other_than_two_numbers_is_refused(place, name, values):
    with pytest.raises(TypeError, match=rf"{place.__name__}: {name} as two numbers"):
        place(random_draws(2), 64, 64, **{name: values})


def test_another_aspect_distribution_is_refused():
    with pytest.raises(ValueError, match=r"place_cutpaste: aspect_distribution 'log_uniform' or .*got 'uniform'"):
        place_cutpaste(random_draws(2), 64, 64, aspect_distribution="uniform")


@pytest.mark.parametrize("aspect", [(2, 3), (0.3, 0.5)])
def test_two_uniforms_need_a_range_around_one(aspect):
    """Each half of the draws is uniform between 1 and an end: with 1 outside, patches would leave the range."""
    with pytest.raises(ValueError, match=r"place_cutpaste: aspect .*1.*two_uniforms.*got \("):
        place_cutpaste(random_draws(2), 64, 64, aspect=aspect, aspect_distribution="two_uniforms")


@pytest.mark.parametrize("reference", [0, -5])
def test_a_reference_side_below_one_pixel_is_refused(reference):
    with pytest.raises(ValueError, match=rf"place_scar: reference .*got {reference}"):
        place_scar(random_draws(2), 64, 64, reference=reference)


# level_brightness
