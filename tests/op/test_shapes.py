"""Shapes of masks against pixel-by-pixel references; their areas, extents and shares over thousands of draws."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from small_patches import seeded
from torch.testing import assert_close

from fastcutpaste.op.shapes import blob, perlin, scratch
from fastcutpaste.op.textures import hashed
from fastcutpaste.transforms.masks import Blob, Clump, Either, OnObject, Perlin, Scratch, Union


def perlin_at(y, x, gradients):
    """Give Perlin noise at a place in cells; gradients (n, n) are angles of unit vectors at the corners."""
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            weight = 1.0
            for t in (abs(y - i), abs(x - j)):
                weight *= 1 - (6 * t**5 - 15 * t**4 + 10 * t**3)
            if weight > 0:
                total += weight * (math.sin(gradients[i][j]) * (y - i) + math.cos(gradients[i][j]) * (x - j))
    return math.sqrt(2) * total


@pytest.mark.parametrize(("cells", "size"), [((1, 4), (12, 20)), ((4, 2), (17, 9))])
def test_perlin_is_that_of_a_loop_over_pixels(cells, size):
    seed, most = 0.3, 4
    corners = torch.arange((most + 1) ** 2).view(most + 1, most + 1)
    gradients = (hashed(torch.tensor([[seed]]), corners) * 2 * math.pi).tolist()
    noise = perlin(torch.tensor([seed]), torch.tensor([cells], dtype=torch.float32), torch.zeros(1), size, most)[0, 0]
    for p in range(size[0]):
        for q in range(size[1]):
            expected = perlin_at(p / size[0] * cells[0], q / size[1] * cells[1], gradients)
            assert float(noise[p, q]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("angle", [90.0, -90.0, 180.0])
def test_perlin_turns_counter_clockwise(angle):
    seeds, cells = torch.tensor([0.7]), torch.tensor([[1.0, 4.0]])
    upright = perlin(seeds, cells, torch.zeros(1), (16, 16), 4)
    assert_close(perlin(seeds, cells, torch.tensor([angle]), (16, 16), 4),
                 torch.rot90(upright, round(angle / 90), (-2, -1)), atol=1e-5, rtol=0)  # fmt: skip


def test_a_share_of_perlin_exceeds_the_threshold_and_a_higher_one_less():
    images, draws = torch.zeros(1000, 1, 64, 64), torch.rand(1000, 4, generator=seeded(0))
    shares = [Perlin(threshold=t)(images, draws).float().mean() for t in (0.0, 0.3, 0.5, 0.7)]
    assert shares == sorted(shares, reverse=True)
    assert 0.4 < shares[0] < 0.5  # half, but for what turns bring in
    assert 0.02 < shares[2] < 0.12
    some = Perlin(scale=(0, 2), threshold=0.8)(images, draws).flatten(1).any(1).float().mean()
    assert 0.05 < some < 0.9  # and the others are empty


def test_each_scale_is_as_likely_along_either_side():
    """Along one axis alone: noise of one cell changes sign seldom, of 32 often."""
    draws = torch.rand(3000, 4, generator=seeded(1))
    exponents = (draws[:, 1] * 6).floor()
    counts = torch.bincount(exponents.long(), minlength=6)
    assert (counts - 500).abs().max() < 80
    draws[:, 3] = 0.5  # upright
    noise = Perlin(threshold=0.0)(torch.zeros(3000, 1, 64, 64), draws)[:, 0]
    flips = (noise[:, 1:, 5] != noise[:, :-1, 5]).float().sum(1)
    means = [float(flips[exponents == e].mean()) for e in range(6)]
    assert means == sorted(means)
    assert means[5] > 8 * means[0]


def inside_blob(dy, dx, radius, stretch, angle, waves):
    turned = math.radians(angle)
    along, across = dx * math.cos(turned) - dy * math.sin(turned), dx * math.sin(turned) + dy * math.cos(turned)
    x, y = along / math.sqrt(stretch), across * math.sqrt(stretch)
    theta = math.atan2(y, x)
    reach = 1 + sum(a * math.cos(k * theta) + b * math.sin(k * theta) for k, (a, b) in enumerate(waves, start=2))
    return math.hypot(x, y) <= radius * reach


@pytest.mark.parametrize("angle", [0.0, 30.0, 120.0])
def test_a_blob_is_that_of_a_loop_over_pixels(angle):
    waves = torch.tensor([[[0.2, 0.1], [-0.1, 0.15], [0.05, 0.0]]])
    centre, area, stretch = torch.tensor([[14.3, 20.8]]), torch.tensor([220.0]), torch.tensor([2.0])
    mask = blob(centre, area, stretch, torch.tensor([angle]), waves, (32, 40))[0, 0]
    radius = math.sqrt(220 / math.pi / (1 + float(waves.square().sum()) / 2))
    expected = [[inside_blob(p - 14.3, q - 20.8, radius, 2.0, angle, waves[0].tolist()) for q in range(40)]
                for p in range(32)]  # fmt: skip
    assert (mask != torch.tensor(expected)).sum() <= 1  # a pixel on the outline
    assert abs(int(mask.sum()) - 220) < 12


def test_blobs_have_the_area_they_are_asked_for():
    draws = torch.rand(2000, Blob().numbers, generator=seeded(2))
    draws[:, :2] = 0.5  # in the middle, so that nothing is cut off
    areas = Blob(area=(0.01, 0.1), roughness=0.5)(torch.zeros(2000, 1, 96, 128), draws).flatten(1).float().mean(1)
    asked = 0.01 + draws[:, 2] * 0.09
    assert (areas / asked - 1).abs().max() < 0.1
    assert_close(areas.mean(), asked.mean(), rtol=0.01, atol=0)


def test_rougher_blobs_have_longer_outlines():
    draws = torch.rand(300, Blob().numbers, generator=seeded(3))
    draws[:, :2], lengths = 0.5, []
    for roughness in (0.0, 0.4, 0.9):
        mask = Blob(area=(0.05, 0.05), roughness=roughness)(torch.zeros(300, 1, 64, 64), draws)
        lengths.append(float((mask[..., 1:] != mask[..., :-1]).sum() + (mask[..., 1:, :] != mask[..., :-1, :]).sum()))
    assert lengths == sorted(lengths)
    assert lengths[2] > 1.05 * lengths[0]


@pytest.mark.parametrize(("bend", "length"), [(0.0, 60.0), (0.25, 60.0), (-0.4, 60.0), (1.0, 36.0), (-2.0, 18.0)])
@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0])
def test_a_scratch_is_what_lies_near_its_curve(bend, length, angle):
    width, phase, middle = 6.0, 1.0, (40.0, 44.0)
    numbers = [torch.tensor([value]) for value in (length, width, bend, angle, phase)]
    mask = scratch(torch.tensor([middle]), *numbers, (80, 88))[0, 0]
    t = np.linspace(-1, 1, 4001)
    along, across, turned = t * length / 2, bend * length * (1 - t**2), math.radians(angle)
    rows = middle[0] + across * math.cos(turned) - along * math.sin(turned)
    columns = middle[1] + along * math.cos(turned) + across * math.sin(turned)
    half = np.maximum(width / 2 * (1 - t**4) * (3 + np.cos(2 * np.pi * t + phase)) / 4, 0.5)
    expected = np.zeros((80, 88), bool)
    for p in range(80):
        for q in range(88):
            distance = np.hypot(rows - p, columns - q)
            expected[p, q] = distance.min() <= half[distance.argmin()]
    wrong = (mask.numpy() != expected).sum()
    assert expected.sum() > 100
    assert wrong <= 0.03 * expected.sum(), (wrong, expected.sum())  # just beyond its ends


@pytest.mark.parametrize("curvature", [0.3, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("width", [(1, 1), (2, 16)])
def test_a_scratch_is_one_piece(curvature, width):
    draws = torch.rand(200, 7, generator=seeded(6))
    draws[:, :2] = 0.5  # in the middle: the image's border would cut some in two
    for length in ((4, 8), (10, 40)):
        masks = Scratch(length, width, curvature, reference=None)(torch.zeros(200, 1, 224, 224), draws)[:, 0]
        assert {label(mask, np.ones((3, 3)))[1] for mask in masks.numpy()} == {1}


def test_scratches_are_as_long_as_asked_and_lie_anywhere():
    draws = torch.rand(2000, 7, generator=seeded(4))
    images = torch.zeros(2000, 1, 64, 64)
    mask = Scratch(length=(20, 40), width=(2, 3), curvature=0, reference=None)(images, draws)[:, 0]
    assert mask.any(0).all()
    assert 0.003 < mask.float().mean() < 0.03
    draws[:, :2], draws[:, 5] = 0.5, 0.0  # in the middle, along a row
    mask = Scratch(length=(20, 40), width=(2, 3), curvature=0, reference=None)(images, draws)[:, 0]
    wide = mask.any(1).sum(1)
    assert (wide - (20 + 20 * draws[:, 2])).abs().max() <= 1
    assert ((mask.any(1)[:, 1:] != mask.any(1)[:, :-1]).sum(1) == 2).all()  # without gaps
    assert mask.any(2).sum(1).max() <= 4
    doubled = Scratch(length=(20, 40), width=(2, 3), curvature=0, reference=32)(images, draws)[:, 0]
    assert doubled.any(1).sum(1).float().mean() > 1.7 * wide.float().mean()


def test_clumps_have_as_many_blobs_as_asked_close_together():
    images = torch.zeros(300, 1, 128, 128)
    clump = Clump(count=(2, 5), spread=0.1, blob=Blob(area=(0.001, 0.001), roughness=0, stretch=1))
    draws = torch.rand(300, clump.numbers, generator=seeded(5))
    draws[:, :2] = 0.5
    mask = clump(images, draws)
    asked = (2 + draws[:, 2] * 4).floor() * 0.001
    share = mask.flatten(1).float().mean(1)
    assert (share <= asked * 1.15).all()  # some overlap, so that not the whole area is seen
    assert float((share / asked).mean()) > 0.8
    rows = mask[:, 0].any(2).float()
    assert (rows * (torch.arange(128) - 63.5).abs()).amax(1).max() < 0.1 * 128 + 5


def test_either_takes_each_with_equal_chance():
    images, either = torch.zeros(900, 1, 32, 32), Either(Blob(), Scratch(), Clump())
    draws = torch.rand(900, either.numbers, generator=seeded(6))
    mask = either(images, draws)
    for i, one in enumerate(either.masks):
        chosen = (draws[:, 0] * 3).long() == i
        assert 250 < int(chosen.sum()) < 350
        assert torch.equal(mask[chosen], one(images[chosen], draws[chosen, 1 : 1 + one.numbers]))


def test_union_is_both():
    images, both = torch.zeros(50, 1, 32, 32), Union(Blob(), Scratch())
    draws = torch.rand(50, both.numbers, generator=seeded(7))
    assert torch.equal(both(images, draws), Blob()(images, draws[:, :15]) | Scratch()(images, draws[:, 15:]))


def test_on_object_nothing_lies_beside_it_and_too_little_is_none():
    images = torch.zeros(500, 3, 40, 40)
    images[:, :, 10:30, 10:30] = 1
    draws = torch.rand(500, Blob().numbers, generator=seeded(8))
    anywhere = OnObject(Blob(area=(0.02, 0.3)))(images, draws)
    assert not anywhere[..., :10, :].any()
    assert anywhere.any()
    enough = OnObject(Blob(area=(0.02, 0.3)), least=0.2)(images, draws)
    share = anywhere.flatten(1).sum(1) / 400
    assert torch.equal(enough.flatten(1).any(1), share >= 0.2)
    assert 0.1 < float((share >= 0.2).float().mean()) < 0.9
