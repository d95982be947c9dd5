"""Two processes do what one does: the same global batch, the same losses, the same weights, within rounding."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fastcutpaste.images.textures import make_demo, write_demo

SCRIPT = """
import json, sys
import torch
from torch import nn
from lightning_fabric import Fabric
from fastcutpaste.images.batches import image_batches
from fastcutpaste.training.launch import make_fabric
from fastcutpaste.training.step import TrainConfig
from fastcutpaste.transforms.tasks import CutPaste3Way
from fastcutpaste.training.loop import Training, proceed

processes, out = int(sys.argv[1]), sys.argv[2]
fabric = make_fabric(torch.device("cpu"), "fp32", processes)
fabric.launch()
torch.manual_seed(fabric.global_rank)  # the weights of the first process count
layers = nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 3)
network = nn.Sequential(*layers)  # no BatchNorm, which sees the images of its own process alone
images = torch.rand(10, 3, 24, 24, generator=torch.Generator().manual_seed(0))
config = TrainConfig(steps=7, batch=6, crop=16, learning_rate=0.1, precision="fp32")
training = Training(network, CutPaste3Way(), config, fabric=fabric, window=3)
reports = []
proceed(training, image_batches(images, 6, seed=0, share=training.share), on_report=reports.append)
weights = [value.tolist() for value in network.state_dict().values()]
if fabric.is_global_zero:
    json.dump({"reports": reports, "weights": weights, "world": fabric.world_size}, open(out, "w"))
"""


def launch(arguments, folder: Path) -> None:
    names = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def trained(folder: Path, processes: int):
    (folder / "script.py").write_text(SCRIPT)
    launch([folder / "script.py", processes, folder / f"{processes}.json"], folder)
    return json.loads((folder / f"{processes}.json").read_text())


def test_two_processes_train_as_one_does(tmp_path):
    one, two = trained(tmp_path, 1), trained(tmp_path, 2)
    assert (one["world"], two["world"]) == (1, 2)
    torch.testing.assert_close(torch.tensor(two["reports"]), torch.tensor(one["reports"]), rtol=1e-4, atol=1e-5)
    for mine, other in zip(one["weights"], two["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(other), torch.tensor(mine), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def category(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "tile"
    (root / "train/good").mkdir(parents=True)
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"train/good/{i}.png")
    return root


def test_the_command_trains_on_two_devices_and_leaves_one_run(category, tmp_path):
    done = launch(
        ["-m", "fastcutpaste", "train", category, "--out", tmp_path / "run", "--size", 32, "--crop", 16, "--stride", 8,
         "--backbone", "shufflenet_v2_x0_5", "--precision", "fp32", "--steps", 4, "--batch", 4, "--device", "cpu",
         "--devices", 2, "--save-steps", 2],
        tmp_path,
    )  # fmt: skip
    assert done.stdout.count("{") == 1
    assert "2 × cpu" in done.stderr
    assert done.stderr.count("normal images") == 1
    with open(tmp_path / "run/training.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["step", "4"]
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run/detector.safetensors").values())


def test_two_devices_score_each_image_once_and_in_the_order_given(tmp_path):
    write_demo(
        make_demo("brick", size=48, train_count=6, calibration_count=2, good_count=3, defect_count=4), tmp_path / "b"
    )
    train = ["--size", 48, "--crop", 24, "--stride", 12, "--steps", 2, "--batch", 2, "--backbone", "shufflenet_v2_x0_5",
             "--precision", "fp32"]  # fmt: skip
    launch(["-m", "fastcutpaste", "train", tmp_path / "b", "--out", tmp_path / "run", *train], tmp_path)

    def told(*arguments):
        done = launch(["-m", "fastcutpaste", *arguments], tmp_path)
        (line,) = done.stdout.splitlines()
        return json.loads(line)

    images = [
        tmp_path / "b/test/crack",
        tmp_path / "b/test/good",
        tmp_path / "b/test/chip",
    ]  # five images, an odd number
    one, two = (told("predict", tmp_path / "run", *images, "--device", "cpu", "--devices", n) for n in (1, 2))
    assert len(two["results"]) == 5
    assert [row["image"] for row in two["results"]] == [row["image"] for row in one["results"]]
    for mine, other in zip(one["results"], two["results"], strict=True):
        assert other["score"] == pytest.approx(mine["score"], rel=1e-3)
    alone, shared = (
        told("evaluate", tmp_path / "run", tmp_path / "b", "--device", "cpu", "--devices", n) for n in (1, 2)
    )
    assert shared["images"] == alone["images"] == 7
    assert shared["pixel_auroc"] == pytest.approx(alone["pixel_auroc"], abs=1e-3)
    assert shared["image_auroc"] == pytest.approx(alone["image_auroc"], abs=1e-6)
