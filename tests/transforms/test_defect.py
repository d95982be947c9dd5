"""Defects: any mask, fill and blend together; the same draws, the same pixels, in whatever way they are computed."""

import copy
import pickle

import pytest
import torch
from small_patches import random_images, seeded
from torch import nn
from torch.testing import assert_close

from fastcutpaste import CutPaste, CutPasteScar, PretextTask
from fastcutpaste.transforms.baselines import Cutout
from fastcutpaste.transforms.blends import Blend, Feather, Poisson, Replace, Transparent
from fastcutpaste.transforms.defect import Defect, Mixture
from fastcutpaste.transforms.fills import AnyOf, Color, Fill, Noise, Other, Pattern, Shifted, Textures
from fastcutpaste.transforms.foreground import OnForeground
from fastcutpaste.transforms.masks import Blob, Clump, Either, Intersection, OnObject, Perlin, Rectangle, Scratch, Union
from fastcutpaste.transforms.recipes import RECIPES, recipe

TEXTURES = (torch.rand(3, 3, 20, 28, generator=torch.Generator().manual_seed(5)) * 255).to(torch.uint8)
MASKS = {
    "rectangle": lambda: Rectangle(CutPaste()),
    "turned": lambda: Rectangle(CutPasteScar()),
    "perlin": lambda: Perlin(scale=(0, 4)),
    "blob": Blob,
    "scratch": Scratch,
    "clump": Clump,
    "union": lambda: Union(Blob(), Scratch()),
    "intersection": lambda: Intersection(Blob(), Perlin(scale=(0, 3), threshold=0)),
    "either": lambda: Either(Blob(), Scratch()),
    "on object": lambda: OnObject(Blob()),
}
FILLS = {
    "shifted": Shifted,
    "other": Other,
    "turned": lambda: Shifted(flip=True, turn=True),
    "color": Color,
    "noise": Noise,
    "textures": lambda: Textures(TEXTURES),
    "pattern": Pattern,
}
BLENDS = {"replace": Replace, "feather": Feather, "transparent": Transparent}


def made_of_all(defect, images, draws):
    """Give what a defect makes where every pixel is computed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        return defect.make(images, draws)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_masked_pixels_alone_are_what_they_are_among_all(mask, dtype):
    images = random_images((5, 3, 40, 56), dtype)
    defect = Defect(MASKS[mask](), Other(), Feather(3), jitter=0.2)
    draws = torch.rand(5, defect.numbers, generator=seeded(1))
    before = images.clone()
    made, all_of_it = defect.augment(images, draws=draws), made_of_all(defect, images, draws)
    assert torch.equal(images, before)
    assert torch.equal(made.mask, all_of_it.mask)
    assert made.mask.any()
    assert_close(made.images.float(), all_of_it.images.float(), atol=1.0 if dtype == torch.uint8 else 1e-5, rtol=0)
    assert_close(made.soft, all_of_it.soft, atol=0.03 if dtype == torch.uint8 else 1e-4, rtol=0)
    assert not ((made.images != images).any(1, keepdim=True) & ~made.mask).any()
    assert made.images.dtype == dtype
    assert made.kind.tolist() == made.mask.flatten(1).any(1).long().tolist()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("blend", BLENDS)
def test_every_fill_goes_with_every_blend(fill, blend):
    images = random_images((4, 3, 48, 40), torch.uint8)
    defect = Defect(Blob(area=(0.05, 0.2)), FILLS[fill](), BLENDS[blend](), jitter=0.1)
    draws = torch.rand(4, defect.numbers, generator=seeded(2))
    made, all_of_it = defect.augment(images, draws=draws), made_of_all(defect, images, draws)
    assert_close(made.images.int(), all_of_it.images.int(), atol=1, rtol=0)
    changed = (made.images != images).any(1, keepdim=True)
    assert changed.sum() > 0.5 * made.mask.sum()


def test_the_same_seed_makes_the_same_pixels():
    images, mixture = (
        random_images((4, 3, 64, 64), torch.uint8),
        Mixture(Defect(Perlin(), Pattern(), Transparent()), CutPaste()),
    )
    first, again = (mixture.augment(images, seeded(3)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first.images, mixture.augment(images, seeded(4)).images)
    assert torch.equal(first.images, mixture(images, seeded(3)))


@pytest.mark.parametrize("name", ["draem", "nsa"])
def test_autocast_changes_nothing(name):
    """A training's bfloat16 would move lattices and boundaries by pixels."""
    images = random_images((3, 3, 64, 64), torch.uint8)
    expected = recipe(name).augment(images, seeded(13))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = recipe(name).augment(images, seeded(13))
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))


@pytest.mark.parametrize("name", [*RECIPES, "nsa+draem"])
def test_recipes_make_defects_of_whole_images_and_of_crops(name):
    images = random_images((6, 3, 64, 64), torch.uint8)
    for reference in (256, None):
        made = recipe(name, reference).augment(images, seeded(14))
        assert (made.kind > 0).sum() >= 4
        assert 0.0005 < float(made.mask.float().mean()) < 0.4
        assert (made.images != images).any(1, keepdim=True)[made.mask].float().mean() > 0.8


@pytest.mark.parametrize("name", ["fpi", "memseg", "defectmaker", "nsa+draem"])
def test_recipes_are_one_graph_for_the_compiler(name):
    task, images = PretextTask(recipe(name, None)), random_images((3, 3, 64, 64), torch.uint8)
    draws = torch.rand(3, task.numbers, generator=seeded(15))
    compiled = torch.compile(task, fullgraph=True, backend="eager", dynamic=False)(images, draws=draws)
    expected = task(images, draws=draws)
    assert_close(compiled[0].int(), expected[0].int(), atol=1, rtol=0)
    assert torch.equal(compiled[1], expected[1])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
@pytest.mark.parametrize("name", [*RECIPES, "nsa+memseg"])
def test_recipes_make_on_a_cpu_what_they_make_of_every_pixel(name, dtype, order):
    images, maker = random_images((5, 3, 72, 64), dtype).contiguous(memory_format=order), recipe(name)
    inside = images[:3, :, 8:-8, 8:-8] // 4 + 70 if dtype == torch.uint8 else images[:3, :, 8:-8, 8:-8] / 4 + 0.28
    images[:3] = 100 if dtype == torch.uint8 else 0.4  # plain ground, and an object about as unlike it as has to be
    images[:3, :, 8:-8, 8:-8] = inside
    draws = torch.rand(5, maker.numbers, generator=seeded(17))
    made, all_of_it = maker.augment(images, draws=draws), made_of_all(maker, images, draws)
    assert torch.equal(made.mask, all_of_it.mask)
    assert torch.equal(made.kind, all_of_it.kind)
    near = 1.0 if dtype == torch.uint8 else 1e-5
    assert_close(made.images.double(), all_of_it.images.double(), atol=near, rtol=0)
    assert_close(made.soft, all_of_it.soft, atol=0.03 if dtype == torch.uint8 else 1e-4, rtol=0)
    assert made.images.is_contiguous(memory_format=order)


@pytest.mark.parametrize("names", ["nothing", "nsa+nothing", ""])
def test_a_recipe_that_is_none_is_refused(names):
    with pytest.raises(ValueError, match=r"recipe: some of cutpaste, .* joined by \+, required, got "):
        recipe(names)


def test_p_leaves_images_unchanged_and_of_kind_0():
    images = random_images((400, 1, 16, 16), torch.uint8)
    made = Defect(Rectangle(CutPaste()), Color("black"), Replace(), p=0.3).augment(images, seeded(5))
    assert 0.2 < (made.kind > 0).float().mean() < 0.4
    assert torch.equal(made.images[made.kind == 0], images[made.kind == 0])
    assert not made.mask[made.kind == 0].any()


def test_a_mixture_takes_each_with_equal_chance_and_says_which():
    images = random_images((900, 1, 16, 16), torch.uint8)
    nothing = Defect(Blob(), Color("black"), Replace(), p=0)
    mixture = Mixture(CutPaste(), nothing, Defect(Blob(), Color("mean"), Replace()))
    draws = torch.rand(900, mixture.numbers, generator=seeded(6))
    made = mixture.augment(images, draws=draws)
    assert set(made.kind.tolist()) == {0, 1, 3}
    for kind in (0, 1, 3):
        assert 250 < (made.kind == kind).sum() < 350
    pasted = CutPaste().augment(images, draws=draws[:, 1:14])
    assert torch.equal(made.images[made.kind == 1], pasted.images[made.kind == 1])
    assert torch.equal(made.mask[made.kind == 1], pasted.mask[made.kind == 1])


@pytest.mark.parametrize("name", ["cutpaste", "cutpaste_scar", "confetti", "cutout"])
def test_a_recipe_of_one_transform_is_that_transform(name):
    images, maker = random_images((4, 3, 64, 64), torch.uint8), recipe(name)
    made, pasted = maker.augment(images, seeded(16)), maker.transforms[0].augment(images, seeded(16))
    assert torch.equal(made.images, pasted.images)
    assert torch.equal(made.mask, pasted.mask)
    assert torch.equal(maker(images, seeded(16)), pasted.images)
    assert made.kind.tolist() == [1] * 4
    assert maker.augment(images, seeded(16), soft=False).soft.numel() == 0
    with pytest.raises(ValueError, match="Mixture: images of floating point 0–1 required"):
        maker.augment(images.float())


def test_a_task_labels_images_without_a_defect_as_normal():
    images = random_images((64, 1, 32, 32), torch.uint8)
    task = PretextTask(CutPaste(), Defect(Perlin(scale=(0, 1), threshold=0.8), Noise(), Replace()))
    batch = task.augment(images, seeded(7))
    first, second, third = batch.labels.view(3, 64)
    assert first.eq(0).all()
    assert second.eq(1).all()
    assert torch.equal(third == 2, batch.masks[128:].flatten(1).any(1))
    assert set(third.tolist()) == {0, 2}


@pytest.mark.parametrize("whole", [False, True])  # as a CPU does it, or by computing every pixel
@pytest.mark.parametrize("mask", [Scratch, Blob, lambda: Rectangle(CutPaste(area=(0.01, 0.03)))])
def test_gradients_that_change_nothing_leave_an_image_normal(mask, whole):
    images = random_images((64, 3, 64, 64), torch.float32).requires_grad_(whole)
    batch = PretextTask(Defect(mask(), Shifted(), Poisson())).augment(images, seeded(12))
    changed = (batch.images[64:] != images).flatten(1).any(1)
    assert set(changed.tolist()) == {False, True} or mask is Scratch
    assert torch.equal(batch.labels[64:] > 0, changed)
    assert torch.equal(batch.masks[64:].flatten(1).any(1), changed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3, 16, 24), (1, 1, 24, 16), (2, 3, 9, 8)])
def test_any_type_and_any_size(dtype, shape):
    images = random_images(shape, torch.float32).to(dtype)
    for mask in (Blob(), Scratch(), Clump(), Perlin(scale=(0, 2)), OnObject(Blob())):
        made = Defect(mask, Other(), Feather(2), jitter=0.1).augment(images, seeded(8))
        assert made.images.dtype == dtype
        assert made.images.shape == shape
        assert (made.mask.shape, made.soft.shape, made.kind.shape) == ((len(images), 1, *shape[2:]),) * 2 + (
            (len(images),),
        )
    assert Mixture(CutPaste()).augment(images, seeded(9)).images.shape == shape


def test_channels_last_stays_channels_last():
    images = random_images((2, 3, 32, 32), torch.uint8).contiguous(memory_format=torch.channels_last)
    made = Defect(Blob(), Other(), Replace()).augment(images, seeded(10))
    assert made.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mask", MASKS)
def test_draws_of_float64_lie_where_those_of_float32_do(mask):
    images, draws = (
        random_images((4, 3, 48, 56), torch.uint8),
        torch.rand(4, MASKS[mask]().numbers, generator=seeded(18)),
    )
    one, other = MASKS[mask]()(images, draws), MASKS[mask]()(images, draws.double())
    assert one.any()
    assert (one != other).float().mean() < 0.001


@pytest.mark.parametrize("blend", [Replace, Feather, Poisson])
def test_the_same_pixels_are_made_however_images_lie_in_memory(blend):
    images, defect = random_images((2, 3, 48, 56), torch.uint8), Defect(Blob(area=(0.2, 0.3)), Noise(), blend())
    draws = torch.rand(2, defect.numbers, generator=seeded(17))
    made = defect.augment(images, draws=draws)
    assert (made.images != images).any()
    turned = images.mT.contiguous().mT  # as `torch.rot90` leaves them
    repeated = images[:, :, :1].expand_as(images)
    assert torch.equal(defect.augment(turned, draws=draws).images, made.images)
    assert torch.equal(
        defect.augment(repeated, draws=draws).images, defect.augment(repeated.contiguous(), draws=draws).images
    )


def test_a_defect_can_be_copied_and_pickled():
    defect, images = Defect(Blob(), Other(), Transparent()), random_images((2, 3, 32, 32), torch.uint8)
    expected = defect(images, seeded(11))
    for other in (copy.deepcopy(defect), pickle.loads(pickle.dumps(defect))):
        assert torch.equal(other(images, seeded(11)), expected)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: Defect(CutPaste(), Other(), Replace()), "Defect: a mask of transforms.masks required, got CutPaste"),
        (lambda: Defect(Blob(), Blob(), Replace()), "Defect: a fill of transforms.fills required, got Blob"),
        (lambda: Mixture(torch.nn.Identity()), "Mixture: a recipe or a transform with augment"),
        (lambda: Rectangle(Blob()), "Rectangle: a patch transform such as .* required, got Blob"),
        (lambda: Union(Blob(), CutPaste()), "Union: a mask of transforms.masks required, got CutPaste"),
        (lambda: Either(Blob(), CutPaste()), "Either: a mask of transforms.masks required, got CutPaste"),
        (lambda: OnObject(CutPaste()), "OnObject: a mask of transforms.masks required, got CutPaste"),
        (lambda: AnyOf(Noise(), Blob()), "AnyOf: a fill of transforms.fills required, got Blob"),
    ],
)
def test_what_is_no_part_is_refused(wrong, error):
    with pytest.raises(TypeError, match=error):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: Perlin(scale=(4, 2)), "Perlin: scale with"),
        (lambda: Perlin(scale=(0.5, 2)), r"Perlin: scale as whole numbers required, got \(0.5, 2\)"),
        (lambda: Clump(count=(2, 3.5)), "Clump: count as whole numbers"),
        (lambda: Perlin(threshold=1), "Perlin: threshold between -1 and 1"),
        (lambda: Perlin(rotation=(90, -90)), "Perlin: rotation with"),
        (lambda: Blob(area=(0.2, 0.1)), "Blob: area with"),
        (lambda: Blob(roughness=2), "Blob: roughness"),
        (lambda: Blob(stretch=0.5), "Blob: stretch"),
        (lambda: Scratch(length=(20, 10)), "Scratch: length with"),
        (lambda: Scratch(width=(0, 1)), "Scratch: width with"),
        (lambda: Scratch(curvature=-1), "Scratch: curvature"),
        (lambda: Scratch(reference=0), "Scratch: reference"),
        (lambda: Clump(count=(0, 2)), "Clump: count with"),
        (lambda: Clump(spread=2), "Clump: spread"),
        (lambda: OnObject(Blob(), least=2), "OnObject: least"),
        (lambda: Shifted(shift=(0.5, 0.1)), "Shifted: shift with"),
        (lambda: Other(resize=(0, 1)), "Other: resize with"),
        (lambda: Color("red"), "color: 'black', 'mean' or 'random'"),
        (lambda: Textures(torch.zeros(0, 3, 4, 4, dtype=torch.uint8)), "Textures: at least one texture"),
        (lambda: Feather(0), "Feather: above 0"),
        (lambda: Transparent(beta=(0.9, 0.1)), "Transparent: beta with"),
        (lambda: Transparent(normal=(0.5, -1)), "Transparent: a mean and"),
        (lambda: Defect(Blob(), Other(), Replace(), p=2), "Defect: p from 0 to 1"),
        (Mixture, "Mixture: at least one"),
        (lambda: PretextTask(Defect(Blob(), Other(), Replace(), p=0.5)), "PretextTask: p=1"),
    ],
)
def test_settings_out_of_bounds_are_refused(wrong, error):
    with pytest.raises(ValueError, match=error):
        wrong()


def test_images_that_do_not_fit_are_refused():
    images = random_images((2, 3, 16, 16), torch.uint8)
    with pytest.raises(ValueError, match=r"Perlin: images of at least 64 pixels a side .* got 16×16"):
        Defect(Perlin(), Other(), Replace()).augment(images)
    with pytest.raises(ValueError, match="OnObject: a bool foreground of shape"):
        Defect(OnObject(Blob(), lambda images: images[:1, :1] > 0), Other(), Replace()).augment(images)
    with pytest.raises(ValueError, match="Textures: of 1 channels"):
        Defect(Blob(), Textures(TEXTURES), Replace()).augment(images[:, :1])
    with pytest.raises(ValueError, match="Defect: images of floating point 0–1 required"):
        Defect(Blob(), Other(), Replace()).augment(images.float())


@pytest.mark.parametrize("order", [1, -1])
def test_what_a_fill_cannot_fill_is_refused_whether_or_not_it_is_drawn(order):
    flat = Blob()
    images = random_images((2, 6, 64, 64), torch.uint8)
    refused = r"Pattern: .* at most 3|Textures: of 6|Color: .* at most 5"
    for wrong in (Pattern(), Textures(TEXTURES), Color()):
        either = Defect(flat, AnyOf(*(Noise(), wrong)[::order]), Replace())
        mixture = Mixture(*(Defect(flat, Noise(), Replace()), Defect(flat, wrong, Replace()))[::order])
        for maker in (either, mixture, Defect(flat, wrong, Replace(), p=0.0)):
            for draw in (0.0, 0.99):
                with pytest.raises(ValueError, match=refused):
                    maker.augment(images, draws=torch.full((2, maker.numbers), draw))


def test_masks_that_are_held_are_those_of_the_whole_batch():
    images, held = random_images((6, 3, 64, 64), torch.uint8), torch.rand(6, 1, 64, 64, generator=seeded(14)) > 0.5
    object_of = held.clone()
    on_it = OnObject(Blob(area=(0.2, 0.3)), lambda images: object_of)
    moved = Rectangle(OnForeground(CutPaste(), lambda images: object_of, least=0.0))
    for mask in (on_it, Either(on_it, Scratch()), Union(on_it, Blob()), Intersection(Blob(), on_it), moved):
        plain, some = Defect(mask, Noise(), Replace()), Defect(mask, Noise(), Replace(), p=0.5)
        draws = torch.rand(6, plain.numbers, generator=seeded(15))
        whole, part = plain.augment(images, draws=draws), some.augment(images, draws=draws)
        chosen = draws[:, 0] < 0.5
        assert 0 < chosen.sum() < 6
        assert torch.equal(part.mask, whole.mask & chosen.view(-1, 1, 1, 1))
        Mixture(plain, CutPaste()).augment(images)
    assert not (Defect(on_it, Noise(), Replace()).augment(images).mask & ~held).any()


def test_the_least_shift_is_kept_where_a_draw_is_in_the_middle():
    images = random_images((1, 3, 40, 40), torch.uint8)
    filled = Shifted(shift=(0.3, 0.3))(images, torch.full((1, 7), 0.5))
    assert torch.equal(filled[..., :28, :28], images[..., 12:, 12:])


def test_a_pretext_task_is_no_transform_of_one():
    for host in (Mixture, PretextTask):
        with pytest.raises(TypeError, match=f"{host.__name__}: a recipe or a transform with augment"):
            host(PretextTask(CutPaste()))
    with pytest.raises(TypeError, match="recipe: names joined by"):
        recipe(["nsa"])


def test_an_image_without_object_stays_normal():
    images = torch.full((3, 3, 32, 32), 90, dtype=torch.uint8)
    images[1, :, 8:24, 8:24] = 200
    made = Defect(OnObject(Blob(area=(0.4, 0.5))), Noise(), Replace()).augment(images, seeded(12))
    assert made.kind[0] == made.kind[2] == 0
    assert torch.equal(made.images[0], images[0])


class Learned(Fill):
    """Fill with a color that is a parameter."""

    numbers = 0

    def __init__(self):
        super().__init__()
        self.color = nn.Parameter(torch.tensor([0.1, 0.5, 0.9]))

    def at(self, images, draws, image, row, column):
        return self.color.expand(*torch.broadcast_shapes(image.shape, row.shape, column.shape), 3)


class Half(Blend):
    """Let half of the image show, in whatever type."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def share(self, mask, draws):
        return torch.full((1, 1, 1, 1), 0.5, dtype=self.dtype)


def test_a_fill_can_be_learned():
    images, fill = random_images((2, 3, 32, 40), torch.float32), Learned()
    made = Defect(Blob(), fill, Replace()).augment(images, seeded(19))
    made.images.sum().backward()
    assert fill.color.grad.tolist() == [float(made.mask.sum())] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_share_may_be_of_any_type(dtype):
    images = random_images((2, 3, 32, 40), torch.uint8)
    made, wanted = (Defect(Blob(), Noise(), Half(each)).augment(images, seeded(20)) for each in (dtype, torch.float32))
    assert torch.equal(made.images, wanted.images)


@pytest.mark.parametrize("alone", [CutPaste, Cutout, CutPasteScar])
def test_normalized_images_are_refused_by_a_mixture_of_one_too(alone):
    with pytest.raises(ValueError, match="Mixture: images of floating point 0–1 required"):
        Mixture(alone())(random_images((2, 3, 32, 40), torch.float32) * 5 - 2)
