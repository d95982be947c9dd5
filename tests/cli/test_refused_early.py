"""What can be known from the words of a command is said before anything is read, started or written."""

import os

import numpy as np
import pytest
from command_line import failing
from PIL import Image

SMALL = ("--size", 48, "--crop", 24, "--stride", 8, "--backbone", "patchnet", "--device", "cpu", "--steps", 2)

TOO_MANY = max(os.cpu_count() or 1, 2) + 1


@pytest.fixture
def plain(tmp_path):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"data/{i}.png")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--devices", TOO_MANY, "--batch", TOO_MANY), 1, "--devices: at most"),
        (("--devices", 2, "--batch", 3), 1, "--batch: one that 2 processes can share evenly required, got 3"),
        (("--num-nodes", 2, "--batch", 3), 1, "--batch: one that 2 processes can share evenly required, got 3"),
        (("--stride", 25), 1, "stride: at most the 24 pixels of a patch required"),
        (("--save-minutes", "nan"), 2, "a finite number required, got 'nan'"),
        (("--save-minutes", 0), 2, "0.0 is not in the range x>0"),
        (("--save-steps", 0), 2, "0 is not in the range x>=1"),
        (("--seed", 2**63), 1, f"--seeds: numbers below 2**63 required, got {2**63}"),
        (
            ("--recipe", "nsa+draem"),
            1,
            "--recipe nsa+draem, which learns from 24×24 pixels: Perlin",
        ),
    ],
)
def test_training_does_not_begin_with_what_cannot_be(words, status, message, plain, tmp_path):
    assert message in failing("train", plain, *SMALL, *words, "--out", tmp_path / "run", status=status)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", ["nan", "inf", "0"])
def test_a_wait_or_a_tolerance_is_a_number_above_0(number, tmp_path):
    for words in (("predict", tmp_path, tmp_path, "--watch", "--settle", number, "--out", tmp_path / "r"),
                  ("export", tmp_path, "--tolerance", number)):  # fmt: skip
        text = failing(*words, status=2)
        assert "a finite number required" in text or "is not in the range" in text


def test_images_too_large_for_the_memory_end_in_one_line(plain, tmp_path):
    text = failing("train", plain, "--size", 999_999, "--crop", 0, "--backbone", "resnet18", "--device", "cpu",
                   "--steps", 1, "--batch", 2, "--out", tmp_path / "run")  # fmt: skip
    assert "out of memory" in text
    assert "\n" not in text.splitlines()[-1]
