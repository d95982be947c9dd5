"""The op's providers under pytest-benchmark, in one process: `pytest -o addopts= benchmarks` with the extra `bench`."""

import pytest
import torch
from PIL import Image

from benchmarks.augment.providers import check, providers
from benchmarks.photographs import make_photographs


@pytest.fixture(scope="module")
def calls():
    images = make_photographs(8)
    check(images)  # nothing wrong is timed
    return providers(images, [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images], torch.float32)


@pytest.mark.parametrize("name", ["fastcutpaste", "fastcutpaste, image by image", "PIL"])
def test_three_way(benchmark, calls, name):
    benchmark(calls[name])
