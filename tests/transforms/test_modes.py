"""Torch's global defaults and its ways of following a computation: none of them changes what a transform gives."""

import pytest
import torch
from small_patches import random_images, seeded
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import grad, jvp
from torch.testing import assert_close

from fastcutpaste import CutPaste3Way
from fastcutpaste.transforms.baselines import Scar
from fastcutpaste.transforms.recipes import RECIPES, recipe

TRANSFORMS = {
    **{name: lambda name=name: recipe(name) for name in RECIPES},
    "3-way": CutPaste3Way,
    "scar": lambda: Scar(color="random"),
}


@pytest.fixture(params=[torch.float64, torch.bfloat16, "meta"], ids=str)
def default(request):
    """Set a default that is not torch's own; a meta device stands for a GPU."""
    if request.param == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(request.param)
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def images():
    return {kind: random_images((6, 3, 64, 64), kind) for kind in (torch.uint8, torch.float32)}


@pytest.fixture
def before(images):
    """Give what transforms made before any default was set."""
    asked = random_images((6, 3, 64, 64), torch.float32).requires_grad_()
    return {
        name: [make().augment(each, seeded(1)) for each in (*images.values(), asked)]
        for name, make in TRANSFORMS.items()
    } | {"asked": asked}


def test_torchs_defaults_change_nothing(before, images, default):
    asked = before.pop("asked")
    for name, wanted in before.items():
        for each, want in zip((*images.values(), asked), wanted, strict=True):
            came = TRANSFORMS[name]().augment(each, torch.Generator("cpu").manual_seed(1))
            assert [part.dtype for part in came] == [part.dtype for part in want], name
            assert all(torch.equal(*pair) for pair in zip(came, want, strict=True)), name


@pytest.mark.parametrize("name", RECIPES)
def test_a_derivative_is_the_same_whichever_way_it_is_asked_for(name):
    maker, images = recipe(name), random_images((3, 3, 64, 64), torch.float32)
    draws, (along, weights) = torch.rand(3, maker.numbers, generator=seeded(2)), torch.rand(2, 3, 3, 64, 64)

    def summed(each):
        return (maker(each, draws=draws) * weights).sum()

    asked = images.clone().requires_grad_()
    summed(asked).backward()
    wanted = (asked.grad * along).sum()
    assert wanted > 0
    assert abs(wanted - (along * weights).sum()) > 1e-3  # a defect changes what a pixel is worth
    assert_close((grad(summed)(images) * along).sum(), wanted)
    assert_close(jvp(summed, (images,), (along,))[1], wanted)
    with dual_level():
        assert_close(unpack_dual(summed(make_dual(images, along))).tangent, wanted)
