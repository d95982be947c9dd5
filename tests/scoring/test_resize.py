"""The resize of exported graphs: Pillow's, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastcutpaste.scoring.resize import resize_as_pillow

SIZES = [(40, 72), (1, 1), (2, 3), (300, 200), (1000, 30), (41, 73), (80, 144), (30, 400), (37, 20), (97, 161)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(40, 72), (64, 64), (1, 9)])
def test_images_are_resized_to_the_same_bits_as_by_pillow(size: tuple[int, int], target: tuple[int, int]) -> None:
    random = np.random.default_rng(size[0])
    images = random.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    images[1] = np.where(images[1] > 127, 255, 0)  # the ends of the scale
    wanted = [np.asarray(Image.fromarray(one).resize(target[::-1], Image.Resampling.BILINEAR)) for one in images]
    made = resize_as_pillow(torch.from_numpy(images).permute(0, 3, 1, 2), target)
    assert made.shape == (2, 3, *target)
    assert np.array_equal(made.permute(0, 2, 3, 1).numpy(), np.stack(wanted))


@pytest.mark.parametrize("size", [(900, 900), (2000, 3000)])
def test_large_images_are_resized_to_the_same_bits_as_by_pillow(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = Image.fromarray(image).resize((256, 256), Image.Resampling.BILINEAR)
    made = resize_as_pillow(torch.from_numpy(image).permute(2, 0, 1)[None], (256, 256))
    assert np.array_equal(made[0].permute(1, 2, 0).numpy(), np.asarray(wanted))


def test_an_image_of_that_size_is_left_as_it_is() -> None:
    images = torch.randint(0, 256, (3, 3, 33, 57), dtype=torch.uint8)
    assert torch.equal(resize_as_pillow(images, (33, 57)), images)
