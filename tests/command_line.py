"""The command line, called in this process, and the folders of images that it is given."""

import io
import json
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pictures import draw_noise, write_picture

from fastcutpaste.cli import main
from fastcutpaste.console import people

QUICK = ("--size", "48x64", "--crop", "24", "--stride", "12", "--steps", "2", "--batch", "2")  # training in a moment
SMALL = (*QUICK, "--backbone", "shufflenet_v2_x0_5", "--precision", "fp32")


def run(*arguments, status=0):
    """Run the command line; give the last line of stdout as JSON, and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), warnings.catch_warnings():
        patch.setattr(sys, "argv", ["fastcutpaste", *map(str, arguments)])
        patch.setattr(people, "_file", err)  # which `file` gives, or stderr as it is just then
        if status:
            with pytest.raises(SystemExit) as end:
                main()
            assert end.value.code == status, err.getvalue()
        else:
            main()
    lines = out.getvalue().splitlines()
    return (json.loads(lines[-1]) if lines else None), err.getvalue()


def failing(*arguments, status=1):
    """Run what must fail; give its one line of complaint."""
    result, text = run(*arguments, status=status)
    assert result is None
    assert "Traceback" not in text
    *_, last = text.strip().splitlines()
    assert last.startswith("error: ")
    assert text.count("error: ") == 1
    return last


def write_normal(root: Path, count: int, side: int = 32) -> Path:
    """Write normal images of noise as an MVTec category has them."""
    for i in range(count):
        write_picture(root / f"train/good/{i}.png", draw_noise(side, side, seed=i))
    return root


def write_category(root: Path) -> Path:
    """Write an MVTec category of wide, tall and square noise, two kinds of defect, masks for both."""
    for i in range(6):
        write_picture(root / f"train/good/{i}.png", draw_noise(60 + 8 * i, 100 - 8 * i, seed=i))
    for i, kind in enumerate(("good", "good", "crack", "stain")):
        write_picture(root / f"test/{kind}/{i}.png", draw_noise(64, 80, seed=10 + i))
        if kind != "good":
            mask = np.zeros((64, 80), np.uint8)
            mask[10:30, 20:60] = 255
            write_picture(root / f"ground_truth/{kind}/{i}_mask.png", mask)
    return root
