"""Laws of the transforms: what they paste, how often, where the mask is, what they keep, and that they compile."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from recorder import SYNCING, Ops
from small_patches import random_images, seeded
from torch.testing import assert_close

from fastcutpaste import BaseAugmentation, Cutout, CutPaste, CutPasteScar, OneOf, QuarterTurn, Scar
from fastcutpaste.op.paste import _paste_grid
from fastcutpaste.op.placement import draw, place_cutpaste, place_scar
from fastcutpaste.transforms.patch import PatchTransform

PATCH_TRANSFORMS = {
    "cutpaste": CutPaste(),
    "cutpaste two uniforms": CutPaste(aspect_distribution="two_uniforms", jitter=(0.3, 0.2, 0.1, 0.05)),
    "cutpaste p 0.5": CutPaste(p=0.5),
    "scar": CutPasteScar(),
    "scar in pixels": CutPasteScar(reference=None, jitter=0, p=0.7),
    "cutout black": Cutout(),
    "cutout mean": Cutout("mean"),
    "cutout random": Cutout("random"),
    "color scar": Scar(),
    "color scar mean": Scar("mean"),
    "one of copies": OneOf(CutPaste(), CutPasteScar()),
    "one of anything": OneOf(CutPaste(jitter=0), Scar("random"), Cutout("mean"), CutPasteScar(p=0.5)),
    "one of colors": OneOf(Cutout("black"), Scar("random")),
}
ALL = PATCH_TRANSFORMS | {"quarter turn": QuarterTurn(1), "base": BaseAugmentation()}

patch_transforms = pytest.mark.parametrize("transform", PATCH_TRANSFORMS.values(), ids=PATCH_TRANSFORMS)
all_transforms = pytest.mark.parametrize("transform", ALL.values(), ids=ALL)


def changed(images, result):
    return (images != result).any(1, keepdim=True)  # (B, 1, H, W)


# Defaults


def test_defaults_are_the_papers():
    """Li et al. 2021, App. A.2."""
    cutpaste, scar = CutPaste(), CutPasteScar()
    assert (cutpaste.area, cutpaste.aspect, cutpaste.jitter, cutpaste.p) == ((0.02, 0.15), (0.3, 3.3), 0.1, 1)
    assert (scar.scar_width, scar.scar_length, scar.rotation) == ((2, 16), (10, 25), (-45, 45))
    assert (scar.reference, scar.jitter, scar.p) == (256, 0.1, 1)
    assert (Cutout().area, Cutout().aspect, Cutout().jitter) == ((0.02, 0.15), (0.3, 3.3), 0)
    assert (Scar().scar_width, Scar().scar_length, Scar().rotation, Scar().jitter) == ((2, 16), (10, 25), (-45, 45), 0)


@pytest.mark.parametrize(
    ("transform", "place"),
    [(CutPaste, place_cutpaste), (Cutout, place_cutpaste), (CutPasteScar, place_scar), (Scar, place_scar)],
)
def test_a_transform_and_its_placement_have_the_same_defaults(transform, place):
    placement = inspect.signature(place).parameters
    for name, parameter in inspect.signature(transform).parameters.items():
        if name not in ("p", "color", "source", "feather"):
            assert parameter.default == placement[name].default


def test_settings_reach_the_placement():
    draws = draw(50, "cpu", seeded())
    area, aspect, jitter = (0.3, 0.4), (0.9, 1.1), (0.3, 0.2, 0.1, 0.0)
    ours = CutPaste(area, aspect, "two_uniforms", jitter).place(draws, 90, 70)
    theirs = place_cutpaste(draws, 90, 70, area=area, aspect=aspect, aspect_distribution="two_uniforms", jitter=jitter)
    assert all(map(torch.equal, ours.tensors, theirs.tensors))
    settings = {"scar_width": (3, 4), "scar_length": (8, 9), "rotation": (10, 20), "reference": 100, "jitter": 0.2}
    ours, theirs = CutPasteScar(**settings).place(draws, 90, 70), place_scar(draws, 90, 70, **settings)
    assert all(map(torch.equal, ours.tensors, theirs.tensors))
    assert CutPasteScar(**settings, p=0.4).p == 0.4
    settings["jitter"] = 0
    scar = Scar("mean", *list(settings.values())[:4], p=0.3)
    assert all(map(torch.equal, scar.place(draws, 90, 70).tensors, place_scar(draws, 90, 70, **settings).tensors))
    cutout = Cutout("mean", area, aspect, p=0.2)
    theirs = place_cutpaste(draws, 90, 70, area=area, aspect=aspect, jitter=0)
    assert all(map(torch.equal, cutout.place(draws, 90, 70).tensors, theirs.tensors))
    assert (scar.p, cutout.p, scar.color, cutout.color) == (0.3, 0.2, "mean", "mean")


# The mask


@patch_transforms
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 130), (130, 40)])
def test_pixels_outside_the_mask_are_untouched(transform, height, width):
    images = random_images((16, 3, height, width))
    result = transform.augment(images, seeded())
    assert result.mask.shape == (16, 1, height, width)
    assert result.mask.dtype == torch.bool
    assert not (changed(images, result.images) & ~result.mask).any()
    assert result.mask.any()


@patch_transforms
def test_pixels_inside_the_mask_have_changed(transform):
    """Of random float64 pixels no two are equal, so every pasted one differs from what it covers."""
    images = random_images((16, 3, 64, 80), torch.float64)
    result = transform.augment(images, seeded())
    assert torch.equal(changed(images, result.images), result.mask)


@patch_transforms
def test_forward_gives_the_images_of_augment(transform):
    images = random_images((5, 3, 64, 64))
    assert torch.equal(transform(images, seeded()), transform.augment(images, seeded()).images)


def test_an_upright_mask_is_the_rectangle_placed():
    transform, images = CutPaste(), random_images((30, 3, 70, 90))
    patches = transform.place(draw(30, "cpu", seeded()), 70, 90)
    mask = transform.augment(images, seeded()).mask
    for b in range(30):
        drawn = torch.zeros(70, 90, dtype=torch.bool)
        y, x, h, w = (field[b].item() for field in (patches.y, patches.x, patches.height, patches.width))
        drawn[y : y + h, x : x + w] = True
        assert torch.equal(mask[b, 0], drawn)


def test_a_scar_covers_its_own_area_and_is_never_cut_by_the_border():
    transform, images = CutPasteScar(), torch.zeros(300, 1, 256, 256, dtype=torch.uint8)
    patches = transform.place(draw(300, "cpu", seeded()), 256, 256)
    covered = transform.augment(images, seeded()).mask.sum((1, 2, 3))
    area, around = patches.height * patches.width, patches.height + patches.width
    assert ((covered - area).abs() <= around).all()
    assert (covered - area).double().mean().abs() < 1


def test_without_jitter_the_patch_is_a_copy():
    images = random_images((20, 3, 64, 80))
    for transform in (CutPaste(jitter=0), CutPasteScar(jitter=0)):
        patches = transform.place(draw(20, "cpu", seeded()), 64, 80)
        result = transform.augment(images, seeded())
        for b in range(20):
            y, x, h, w = (field[b] for field in (patches.source_y, patches.source_x, patches.height, patches.width))
            source = images[b, :, y : y + h, x : x + w].flatten(1).T  # (h·w, 3)
            pasted = result.images[b].permute(1, 2, 0)[result.mask[b, 0]]  # (pixels, 3)
            assert (pasted[:, None] == source).all(2).any(1).all()


def test_jitter_changes_colors_a_little():
    images = torch.full((200, 3, 64, 64), 0.5)
    images[:, 0] = 0.6
    for transform in (CutPaste(), CutPasteScar()):
        result = transform.augment(images, seeded())
        change = (result.images - images).abs().amax((1, 2, 3))
        assert (change > 0).all()
        assert change.max() < 0.15
        assert change.mean() > 0.01


# p


@pytest.mark.parametrize("kind", [CutPaste, CutPasteScar, Cutout, Scar])
@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_a_share_p_of_the_images_gets_a_patch(kind, p):
    images = 1 + random_images((1500, 1, 16, 16)) // 2
    result = kind(p=p).augment(images, seeded())
    applied = result.mask.flatten(1).any(1)
    assert applied.double().mean() == pytest.approx(p, abs=0.03 if p == 0.3 else 0)
    assert torch.equal(result.images[~applied], images[~applied])
    if p == 0:
        assert torch.equal(result.images, images)


def test_whether_and_where_are_drawn_independently():
    draws = draw(4000, "cpu", seeded())
    patches = CutPaste(p=0.5).patches(draws, 64, 64)
    applied = (patches.height > 0).double()
    for field in (patches.source_y, patches.source_x, patches.y, patches.x, patches.width):
        assert torch.corrcoef(torch.stack([applied, field.double()]))[0, 1].abs() < 0.06
    always = CutPaste().patches(draws, 64, 64)
    assert torch.equal(patches.height, always.height * (draws[:, 12] < 0.5))


# Seeds


@all_transforms
def test_the_same_seed_gives_the_same_pixels(transform):
    images = random_images((6, 3, 64, 64))
    assert torch.equal(transform(images, seeded(3)), transform(images, seeded(3)))
    torch.manual_seed(3)
    first = transform(images)
    torch.manual_seed(3)
    assert torch.equal(transform(images), first)


@pytest.mark.parametrize("transform", [*PATCH_TRANSFORMS.values(), BaseAugmentation()], ids=[*PATCH_TRANSFORMS, "base"])
def test_another_seed_and_the_next_call_give_other_pixels(transform):
    images, generator = random_images((6, 3, 64, 64)), seeded(3)
    first = transform(images, generator)
    assert not torch.equal(transform(images, seeded(4)), first)
    assert not torch.equal(transform(images, generator), first)


# What is kept


@all_transforms
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shape_dtype_and_memory_format_are_kept_and_the_input_never_written(transform, dtype, memory_format):
    images = random_images((4, 3, 24, 24), dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    result = transform(images, seeded())
    assert result.dtype == dtype
    assert result.shape == images.shape
    assert result.stride() == images.stride()
    result.zero_()
    assert torch.equal(images, before)
    plain = transform(before.contiguous(), seeded())
    assert_close(transform(images, seeded()), plain, atol=0 if dtype == torch.uint8 else 1e-6, rtol=0)


@all_transforms
@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (3, 3, 1, 1), (2, 1, 9, 9), (2, 5, 9, 9)])
def test_no_image_one_pixel_and_any_channels_work(transform, shape):
    for dtype in (torch.uint8, torch.float32):
        result = transform(random_images(shape, dtype), seeded())
        assert result.shape == shape
        assert result.dtype == dtype


@pytest.mark.parametrize("transform", [*PATCH_TRANSFORMS.values(), BaseAugmentation()], ids=[*PATCH_TRANSFORMS, "base"])
@pytest.mark.parametrize("shape", [(3, 3, 4, 300), (3, 3, 300, 4), (3, 3, 1, 50), (3, 3, 50, 1)])
def test_wide_and_tall_images_work(transform, shape):
    assert transform(random_images(shape), seeded()).shape == shape


@all_transforms
def test_a_transform_can_be_pickled_and_used_after(transform):
    images = random_images((3, 3, 32, 32))
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(again(images, seeded()), transform(images, seeded()))


@all_transforms
def test_a_transform_keeps_settings_and_no_state(transform):
    assert not list(transform.parameters())
    assert not list(transform.buffers())
    before = repr(transform)
    transform(random_images((2, 3, 32, 32)), seeded())
    assert repr(transform) == before


def test_repr_shows_every_setting():
    assert repr(CutPaste()) == (
        "CutPaste(p=1.0, feather=0.0, area=(0.02, 0.15), aspect=(0.3, 3.3), aspect_distribution='log_uniform', "
        "jitter=0.1, source='same')"
    )
    for setting in ("scar_width=(3, 5)", "scar_length=(10, 25)", "rotation=(-9, 9)", "reference=None", "p=0.5"):
        assert setting in repr(CutPasteScar((3, 5), rotation=(-9, 9), reference=None, p=0.5))
    assert "color='mean'" in repr(Cutout("mean"))
    assert "color='random'" in repr(Scar())
    assert repr(QuarterTurn(3)) == "QuarterTurn(turns=3)"
    assert repr(BaseAugmentation(0.1)) == "BaseAugmentation(shift=0.1, jitter=0.1)"
    assert "CutPaste(" in repr(OneOf(CutPaste(), Scar()))
    assert "Scar(" in repr(OneOf(CutPaste(), Scar()))


# Colors


# OneOf


def members_of(result):
    """Tell black patches, white ones, and images without a patch apart (images are grey 128)."""
    lowest, highest = result.images.amin((1, 2, 3)), result.images.amax((1, 2, 3))
    return lowest == 0, highest > 128, (lowest == 128) & (highest == 128)


class Whiteout(Cutout):
    """A patch that is told from a black one and needs no randomness."""

    def fill(self, images, generator):
        return torch.full((*images.shape[:2], 1, 1), 255, dtype=images.dtype)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_every_member_has_an_equal_share(members):
    images = torch.full((2500, 1, 12, 12), 128, dtype=torch.uint8)
    for place in range(members):
        transforms = [Whiteout() if i == place else Cutout() for i in range(members)]
        black, white, none = members_of(OneOf(*transforms).augment(images, seeded(place)))
        assert not none.any()
        assert not (black & white).any()
        assert white.double().mean() == pytest.approx(1 / members, abs=0.03)


def test_one_of_mixes_color_and_image_fills_and_jitter_with_none():
    images = random_images((400, 3, 32, 40), torch.float32)
    result = OneOf(Cutout("black"), CutPaste(jitter=0), CutPaste(jitter=0.4)).augment(images, seeded())
    assert not (changed(images, result.images) & ~result.mask).any()
    assert changed(images, result.images).sum() > 0.99 * result.mask.sum()  # a copy may land on its own source
    kinds = []
    for before, after, mask in zip(images, result.images, result.mask, strict=True):
        pasted, source = after.permute(1, 2, 0)[mask[0]], before.flatten(1).T  # (pixels, 3), (H·W, 3)
        if (pasted == 0).all():
            kinds.append("black")
        else:  # a neutral jitter rounds in the last place
            copied = torch.cdist(pasted[:1], source, p=1).min() < 1e-5
            kinds.append("copy" if copied else "jitter")
    for kind in ("black", "copy", "jitter"):
        assert kinds.count(kind) / 400 == pytest.approx(1 / 3, abs=0.08)


def test_a_color_within_one_of_stays_exact_beside_jittered_copies():
    images = random_images((60, 3, 32, 40)).clamp(min=1)
    result = OneOf(Cutout("mean"), CutPasteScar()).augment(images, seeded())
    mean = images.double().mean((-2, -1)).round()
    exact = [
        bool((after.permute(1, 2, 0)[mask[0]] == color).all())  # (C, H, W) → (pixels, C)
        for after, mask, color in zip(result.images, result.mask, mean, strict=True)
    ]
    assert 15 < sum(exact) < 45


def test_a_member_that_skips_images_skips_them_within_one_of():
    images = torch.full((2500, 1, 12, 12), 128, dtype=torch.uint8)
    black, white, none = members_of(OneOf(Cutout(p=0.5), Whiteout(p=0.2)).augment(images, seeded()))
    for share, expected in ((black, 0.25), (white, 0.1), (none, 0.65)):
        assert share.double().mean() == pytest.approx(expected, abs=0.03)


def test_one_of_may_hold_another_and_one_alone_is_itself():
    images = torch.full((2500, 1, 12, 12), 128, dtype=torch.uint8)
    nested = OneOf(Whiteout(), OneOf(Cutout(), Cutout()))
    assert members_of(nested.augment(images, seeded()))[1].double().mean() == pytest.approx(0.5, abs=0.03)
    images, alone = random_images((8, 3, 32, 32)), OneOf(CutPaste())
    draws = torch.rand(8, alone.numbers, generator=seeded())  # the first number is its choice
    assert torch.equal(alone(images, draws=draws), CutPaste()(images, draws=draws[:, 1:]))


# QuarterTurn


# BaseAugmentation


def test_base_augmentation_moves_by_at_most_shift_and_brings_in_no_black():
    images = torch.full((200, 1, 100, 120), 0.5)
    images[:, 0, 50, 60] = 1
    result = BaseAugmentation(shift=0.1, jitter=0)(images, seeded())
    assert result.min() == 0.5
    where = result.flatten(1).argmax(1)
    down, right = where // 120 - 50, where % 120 - 60
    assert down.min() == -10
    assert down.max() == 10
    assert right.min() == -12
    assert right.max() == 12
    assert torch.corrcoef(torch.stack([down, right]).double())[0, 1].abs() < 0.2


def test_base_augmentation_without_shift_and_jitter_changes_nothing():
    images = random_images((4, 3, 20, 30))
    assert torch.equal(BaseAugmentation(0, 0)(images, seeded()), images)
    assert torch.equal(BaseAugmentation(0, 0)(images), images)


def test_base_augmentation_jitters_each_image_as_a_whole_and_differently():
    images = torch.full((50, 1, 8, 8), 0.5)
    result = BaseAugmentation(shift=0, jitter=(0.2, 0, 0, 0))(images, seeded()).flatten(1)
    assert (result == result[:, :1]).all()
    assert len(result[:, 0].unique()) == 50
    assert 0.4 <= result.min() < 0.42
    assert 0.58 < result.max() <= 0.6


def test_base_augmentation_turns_contrast_about_each_images_own_mean():
    images = random_images((6, 3, 20, 20), torch.float64) * 0.4 + 0.3
    result = BaseAugmentation(shift=0, jitter=(0, 0.5, 0, 0))(images, seeded())
    weights = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
    mean = (images * weights).sum(1).mean((1, 2)).view(-1, 1, 1, 1)
    factor = (result - mean) / (images - mean)
    centre = factor.flatten(1).median(1).values.view(-1, 1, 1, 1)
    assert_close(result, mean + centre * (images - mean), atol=1e-4, rtol=0)
    assert centre.min() > 0.49
    assert centre.max() < 1.51
    assert centre.max() - centre.min() > 0.2


# Compilation: torch.compile takes no torch.Generator into one graph, so these seed the default one.


def from_seed(function, images, seed=0):
    torch.manual_seed(seed)
    return function(images)


@pytest.mark.parametrize("name", ["cutpaste p 0.5", "scar", "cutout mean", "color scar", "quarter turn", "base"])
def test_a_transform_compiles_into_one_graph(name):
    torch.compiler.reset()
    transform = ALL[name]
    images = random_images((3, 3, 40, 40))
    compiled = torch.compile(transform, fullgraph=True, backend="eager")
    assert torch.equal(from_seed(compiled, images), from_seed(transform, images))


def test_a_compiled_transform_takes_other_batch_and_image_sizes():
    torch.compiler.reset()
    transform = OneOf(CutPaste(), Scar())
    compiled = torch.compile(transform, fullgraph=True, backend="eager")
    for shape in ((3, 3, 40, 44), (5, 3, 40, 44), (4, 3, 52, 36)):
        images = random_images(shape)
        assert torch.equal(from_seed(compiled, images), from_seed(transform, images))


# The grid path: the work on the host does not depend on the batch, and never waits for the device.


@pytest.mark.parametrize("place", [place_cutpaste, place_scar])
@pytest.mark.parametrize("jitter", [0, 0.1])
@pytest.mark.parametrize("source", ["itself", "image", "color"])
def test_the_grid_path_runs_the_same_ops_for_any_batch_and_none_that_syncs(place, jitter, source):
    lists = []
    for batch in (1, 64):
        images = random_images((batch, 3, 24, 30))
        patches = place(draw(batch, "cpu", seeded()), 24, 30, jitter=jitter)
        sides = {"itself": None, "image": (24, 30), "color": (1, 1)}[source]
        fill = None if sides is None else random_images((batch, 3, *sides))
        with Ops() as ops:
            _paste_grid(images, patches, fill)
        lists.append(ops.names)
    assert lists[0] == lists[1]
    assert len(lists[0]) > 10
    assert not SYNCING & set(lists[0])


def test_the_op_recorder_sees_a_sync():
    with Ops() as ops:
        torch.ones(1).item()
    assert SYNCING & set(ops.names)


@all_transforms
def test_nothing_is_read_back_to_the_host(transform):
    """Tensors on the meta device have no contents: whatever asks for one fails."""
    images = torch.empty(4, 3, 32, 32, dtype=torch.uint8, device="meta")
    assert transform(images).device.type == "meta"


# Errors


@all_transforms
def test_images_that_do_not_fit_are_refused_by_name(transform):
    name = type(transform).__name__
    with pytest.raises(TypeError, match=rf"{name}: .*uint8.*floating.*int64"):
        transform(torch.zeros(2, 3, 8, 8, dtype=torch.int64))
    with pytest.raises(TypeError, match=rf"{name}: images as a tensor required, got ndarray"):
        transform(np.zeros((2, 3, 8, 8), dtype=np.uint8))
    for shape in ((3, 8, 8), (2, 3, 0, 8), (2, 0, 8, 8)):
        with pytest.raises(ValueError, match=rf"{name}: images of shape \(B, C, H, W\) required, got \({shape[0]}"):
            transform(torch.zeros(shape))


@pytest.mark.parametrize("kind", [CutPaste, CutPasteScar, Cutout, Scar])
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_out_of_bounds_is_refused(kind, p):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: p from 0 to 1 required, got {p}"):
        kind(p=p)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CutPaste(area=(0.2, 0.1)), r"area with .*got \(0.2, 0.1\)"),
        (lambda: CutPaste(aspect=(0, 1)), r"aspect with .*got \(0, 1\)"),
        (lambda: CutPaste(aspect_distribution="uniform"), r"aspect_distribution .*got 'uniform'"),
        (lambda: CutPaste(jitter=0.6), r"jitter: .*hue from 0 to 0.5 required, got 0.6"),
        (lambda: CutPaste(jitter=(0.1, 0.1)), r"jitter: .*got \(0.1, 0.1\)"),
        (lambda: CutPasteScar(scar_width=(5, 2)), r"scar_width with .*got \(5, 2\)"),
        (lambda: CutPasteScar(scar_length=(-1, 2)), r"scar_length with .*got \(-1, 2\)"),
        (lambda: CutPasteScar(rotation=(0, 999)), r"rotation with .*got \(0, 999\)"),
        (lambda: CutPasteScar(reference=0), r"reference .*got 0"),
        (lambda: Cutout(area=(-1, 0)), r"area with .*got \(-1, 0\)"),
        (lambda: Scar(rotation=(9, 0)), r"rotation with .*got \(9, 0\)"),
        (lambda: Cutout("green"), r"color: 'black', 'mean' or 'random' required, got 'green'"),
        (lambda: Scar("green"), r"color: 'black', 'mean' or 'random' required, got 'green'"),
        (OneOf, r"OneOf: at least one transform required, got 0"),
        (lambda: QuarterTurn(0), r"QuarterTurn: 1, 2 or 3 turns required, got 0"),
        (lambda: QuarterTurn(4), r"QuarterTurn: 1, 2 or 3 turns required, got 4"),
        (lambda: BaseAugmentation(shift=-0.1), r"BaseAugmentation: shift from 0 to below 1 required, got -0.1"),
        (lambda: BaseAugmentation(shift=1), r"BaseAugmentation: shift from 0 to below 1 required, got 1"),
        (lambda: BaseAugmentation(jitter=2), r"jitter: .*got 2"),
    ],
)
def test_wrong_settings_are_refused_when_the_transform_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("member", [QuarterTurn(1), BaseAugmentation(), torch.nn.Identity()])
def test_one_of_refuses_what_pastes_no_patch(member):
    with pytest.raises(TypeError, match=rf"OneOf: .*required, got {type(member).__name__}"):
        OneOf(CutPaste(), member)


def test_a_patch_transform_without_a_place_is_refused():
    with pytest.raises(TypeError, match=r"PatchTransform: a subclass that defines place\(\) required"):
        PatchTransform()(torch.zeros(2, 3, 8, 8))
