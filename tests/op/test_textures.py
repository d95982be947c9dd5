"""What a mask is filled with, against loops over pixels."""

import math

import pytest
import torch
from small_patches import random_images, seeded

from fastcutpaste.op.textures import Place, hashed, noise, pattern, read
from fastcutpaste.transforms.fills import AnyOf, Color, Noise, Other, Pattern, Shifted, Textures


def grid(batch, height, width):
    return torch.arange(batch).view(-1, 1, 1), torch.arange(height).view(-1, 1), torch.arange(width)


def mirrored(i, length):
    while not 0 <= i < length:
        i = -1 - i if i < 0 else 2 * length - 1 - i
    return i


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize(("flip_y", "flip_x"), [(1, 1), (-1, 1), (1, -1)])
@pytest.mark.parametrize("zoom", [1.0, 0.7, 1.5])
def test_pixels_are_those_of_a_loop(turn, flip_y, flip_x, zoom):
    source = random_images((2, 3, 9, 14), torch.uint8)
    numbers = [torch.tensor([float(number)]) for number in (3, -5, zoom, flip_y, flip_x)]
    place = Place(torch.tensor([1]), *numbers, torch.tensor([turn]))
    result = read(source, place, (12, 11), *grid(1, 12, 11))
    for p in range(12):
        for q in range(11):
            below, beside = p + 0.5 - 6, q + 0.5 - 5.5
            if turn:
                below, beside = beside, below
            i = mirrored(math.floor(below * flip_y / zoom + 3 + 4.5), 9)
            j = mirrored(math.floor(beside * flip_x / zoom - 5 + 7), 14)
            assert torch.equal(result[0, p, q], source[1, :, i, j]), (p, q)


def test_a_hash_is_that_of_python_numbers():
    def one(seed, position):
        number = int(seed * 2**32) & 0xFFFFFFFF
        for added in (0, position):
            number = (number + added) & 0xFFFFFFFF
            for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
                number = ((number ^ (number >> shift)) * factor) & 0xFFFFFFFF
            number ^= number >> 16
        return number / 2**32

    seeds, places = torch.tensor([[0.0], [0.25], [0.999]]), torch.tensor([0, 1, 2**20, 2**33 + 5])
    expected = torch.tensor([[one(float(seed), int(place)) for place in places] for seed in seeds[:, 0]])
    torch.testing.assert_close(hashed(seeds, places), expected, atol=1e-7, rtol=0)
    exactly = hashed(seeds.requires_grad_(), places)  # whose own operations torch has to see
    assert torch.equal(hashed(seeds.detach(), places), exactly.detach())


def test_noise_is_even_and_each_pixel_its_own():
    values = noise(torch.rand(4, generator=seeded(0)), torch.Size((4, 3, 64, 64)), *grid(4, 64, 64))
    counts = torch.histc(values, 16, 0, 1) / values.numel() * 16
    assert (counts - 1).abs().max() < 0.06
    assert abs(float(torch.corrcoef(values.reshape(-1, 3).T)[0, 1])) < 0.03
    assert (
        abs(float(torch.corrcoef(torch.stack([values[:, :, 1:].flatten(), values[:, :, :-1].flatten()]))[0, 1])) < 0.03
    )


def test_patterns_reach_from_one_color_to_the_other():
    draws = torch.rand(600, 11, generator=seeded(1))
    values = pattern(draws, 64, 3, *grid(600, 64, 64))
    low, high = torch.minimum(draws[:, 5:8], draws[:, 8:]), torch.maximum(draws[:, 5:8], draws[:, 8:])
    assert (values >= low[:, None, None] - 1e-5).all()
    assert (values <= high[:, None, None] + 1e-5).all()
    reached = (values.amax((1, 2)) - values.amin((1, 2))) / (high - low).clamp(min=1e-3)
    assert (reached > 0.8).float().mean() > 0.95


def test_stripes_are_waves_along_their_angle():
    draws = torch.tensor([[0.1, 0.3, 0.5, 0.2, 0.0] + [0.0] * 3 + [1.0] * 3])
    values = pattern(draws, 32, 3, *grid(1, 32, 32))[0, ..., 0]
    angle, scale = 0.3 * math.pi, 2 * math.pi / 32 * 2**3
    for p, q in ((0, 0), (3, 17), (31, 5)):
        wave = math.cos(scale * (q * math.cos(angle) + p * math.sin(angle)) + 0.4 * math.pi)
        assert float(values[p, q]) == pytest.approx(wave / 2 + 0.5, abs=1e-4)


@pytest.mark.parametrize("kind", [Shifted, Other])
def test_shifts_are_within_their_range_either_way(kind):
    images = torch.arange(64.0).view(1, 1, 1, 64).expand(2, 1, 64, 64)
    fill = kind(shift=(0.1, 0.4), resize=(1, 1))
    draws = torch.rand(2000, fill.numbers, generator=seeded(2))
    moved = torch.tensor([float(fill(images, pair)[0, 0, 32, 32]) - 32 for pair in draws.view(1000, 2, -1)])
    assert moved.abs().min() >= 6
    assert moved.abs().max() <= 26
    assert abs(float((moved > 0).float().mean()) - 0.5) < 0.05


def test_other_takes_the_image_before_it():
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    assert Other()(images, torch.rand(3, 7, generator=seeded(3)))[:, 0, 4, 4].tolist() == [2, 0, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_textures_are_drawn_evenly_and_brought_to_the_range_of_the_images(channels):
    levels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, channels, 5, 7)
    draws = torch.rand(900, 7, generator=seeded(4))
    whole = Textures(levels)(torch.zeros(900, 3, 4, 4, dtype=torch.uint8), draws)[:, 0, 0, 0]
    assert set(whole.tolist()) == {0, 51, 255}
    assert all(250 < int((whole == level).sum()) < 350 for level in (0, 51, 255))
    shares = Textures(levels)(torch.zeros(900, 3, 4, 4), draws)[:, 0, 0, 0]
    torch.testing.assert_close(shares * 255, whole.float())


def test_any_of_takes_each_with_equal_chance():
    fill = AnyOf(Color("black"), Noise(), Pattern())
    images = torch.zeros(600, 3, 8, 8, dtype=torch.uint8)
    draws = torch.rand(600, fill.numbers, generator=seeded(5))
    result = fill(images, draws)
    black = result.flatten(1).eq(0).all(1)
    assert torch.equal(black, draws[:, 0] < 1 / 3)
    last = draws[:, 0] >= 2 / 3
    torch.testing.assert_close(result[last], Pattern()(images, draws[:, 1:])[last])
