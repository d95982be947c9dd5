"""Two processes do what one does: the same global batch, the same losses, the same weights, within rounding."""

import csv
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run, write_normal
from processes import run_command, start_two
from safetensors.torch import load_file
from small_training import TASK, Tiny, draw_batches, settings
from torch import Tensor, nn

from fastcutpaste.images.batches import image_batches
from fastcutpaste.images.textures import make_demo, write_demo
from fastcutpaste.training.launch import make_fabric, matrix_products, tried_convolutions
from fastcutpaste.training.loop import Training, proceed, train
from fastcutpaste.training.step import TrainConfig
from fastcutpaste.transforms.tasks import CutPaste3Way

TRAIN = ("--size", 32, "--crop", 16, "--stride", 8, "--batch", 4, "--backbone", "shufflenet_v2_x0_5",
         "--precision", "fp32", "--device", "cpu")  # fmt: skip


def train_on(devices: int) -> None:
    """Train in one of `devices` processes; the first prints the reports, the weights and how many they are."""
    fabric = make_fabric(torch.device("cpu"), "fp32", devices)
    fabric.launch()
    torch.manual_seed(fabric.global_rank)  # the weights of the first process count
    layers = nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()
    network = nn.Sequential(*layers, nn.Linear(8, 3))  # no BatchNorm, which sees the images of its own process alone
    images = torch.rand(10, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=7, batch=6, crop=16, learning_rate=0.1, precision="fp32")
    training = Training(network, CutPaste3Way(), config, fabric=fabric, window=3)
    reports: list[Any] = []
    proceed(training, image_batches(images, 6, seed=0, share=training.share), on_report=reports.append)
    weights = [value.tolist() for value in network.state_dict().values()]
    if fabric.is_global_zero:
        print(json.dumps({"reports": reports, "weights": weights, "world": fabric.world_size}))


def told_by_two(folder: Path, call: Any, *arguments: Any) -> Any:
    """Give what the first of two processes prints, as JSON; the second prints nothing."""
    first, second = (started.succeed() for started in start_two(folder, call, *arguments))
    assert second.said("out") == ""
    (line,) = first.said("out").splitlines()
    return json.loads(line)


def test_two_processes_train_as_one_does(tmp_path, capsys):
    train_on(1)
    one, two = json.loads(capsys.readouterr().out), told_by_two(tmp_path, train_on, 2)
    assert (one["world"], two["world"]) == (1, 2)
    torch.testing.assert_close(torch.tensor(two["reports"]), torch.tensor(one["reports"]), rtol=1e-4, atol=1e-5)
    for mine, other in zip(one["weights"], two["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(other), torch.tensor(mine), rtol=1e-3, atol=1e-4)


def test_the_command_trains_on_two_devices_and_leaves_one_run(tmp_path):
    """The command starts its second process itself."""
    category = write_normal(tmp_path / "tile", 8)
    arguments = ["train", category, "--out", tmp_path / "run", *TRAIN, "--steps", 4, "--devices", 2, "--save-steps", 2]
    names = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-m", "fastcutpaste", *map(str, arguments)], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("{") == 1
    assert "2 × cpu" in done.stderr
    assert done.stderr.count("normal images") == 1
    with open(tmp_path / "run/training.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["step", "4"]
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run/detector.safetensors").values())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A demo's folder and a detector of it."""
    data, out = (tmp_path_factory.mktemp(name) / "brick" for name in ("data", "runs"))
    write_demo(make_demo("brick", size=48, train_count=6, calibration_count=2, good_count=3, defect_count=4), data)
    run("train", data, "--out", out, *TRAIN, "--steps", 2)
    return data, out


def test_two_devices_score_each_image_once_and_in_the_order_given(trained, tmp_path):
    data, out = trained
    images = [str(data / "test" / kind) for kind in ("crack", "good", "chip")]  # five images, an odd number
    arguments = ["predict", str(out), *images, "--device", "cpu", "--devices"]
    one, two = run(*arguments, 1)[0], told_by_two(tmp_path, run_command, [*arguments, "2"])
    assert len(two["results"]) == 5
    assert [row["image"] for row in two["results"]] == [row["image"] for row in one["results"]]
    for mine, other in zip(one["results"], two["results"], strict=True):
        assert other["score"] == pytest.approx(mine["score"], rel=1e-3)


def test_two_devices_measure_what_one_does(trained, tmp_path):
    data, out = trained
    arguments = ["evaluate", str(out), str(data), "--device", "cpu", "--devices"]
    alone, shared = run(*arguments, 1)[0], told_by_two(tmp_path, run_command, [*arguments, "2"])
    assert shared["images"] == alone["images"] == 7
    assert shared["pixel_auroc"] == pytest.approx(alone["pixel_auroc"], abs=1e-3)
    assert shared["image_auroc"] == pytest.approx(alone["image_auroc"], abs=1e-6)


# Precision


@pytest.mark.parametrize(("precision", "matmul", "convolution"), [("tf32", "high", True), ("fp32", "highest", False)])
def test_tf32_is_used_if_asked_for_and_put_back(precision: Any, matmul: str, convolution: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with matrix_products(precision):
        assert torch.get_float32_matmul_precision() == matmul
        assert torch.backends.cudnn.allow_tf32 == convolution
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


# What is global, and only while training


def test_convolutions_are_tried_in_training_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    batches = draw_batches()

    def watched() -> Iterator[Tensor]:
        while True:
            seen.append(torch.backends.cudnn.benchmark)
            yield next(batches)

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    train(Tiny(), watched(), TASK, settings(2))
    with pytest.raises(ZeroDivisionError), tried_convolutions():
        assert 1 // 0
    assert not torch.backends.cudnn.benchmark
    assert seen == [True, True]


@pytest.mark.parametrize("asked", ["cudnn", "everywhere"])
def test_nothing_is_tried_where_results_must_repeat(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    if asked == "cudnn":
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    else:
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with tried_convolutions():
        assert not torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # by the user, who may
    with tried_convolutions():
        assert torch.backends.cudnn.benchmark


NOTES = [  # as torch 2.11 words them
    "\nOnline softmax is disabled on the fly since Inductor decides to\nsplit the reduction. Cut an issue to PyTorch "
    "if this is an\nimportant use case and you want to speed it up with online\nsoftmax.\n",
    "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled. Consider setting "
    "`torch.set_float32_matmul_precision('high')` for better performance.",
]


def test_notes_of_the_compiler_are_kept_back_and_all_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_plainly = torch.compile

    def noting(module: Any, example_inputs: Any) -> Any:
        for text in (*NOTES, "a float32 of another kind"):
            warnings.warn(text, stacklevel=1)
        return module.forward

    def batches() -> Iterator[Tensor]:
        warnings.warn("images are dark: Online softmax is disabled on the fly", stacklevel=1)
        warnings.warn(NOTES[1], DeprecationWarning, stacklevel=1)
        yield from draw_batches()

    monkeypatch.setattr(torch, "compile", lambda call, mode: compile_plainly(call, backend=noting))
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        train(Tiny(), batches(), TASK, settings(2, compile=True))
        said = {str(warning.message) for warning in seen}
        warnings.warn(NOTES[0], stacklevel=1)
    assert {"a float32 of another kind", "images are dark: Online softmax is disabled on the fly", NOTES[1]} <= said
    assert NOTES[0] not in said
    assert not [warning for warning in seen if str(warning.message) == NOTES[1] and warning.category is UserWarning]
    assert str(seen[-1].message) == NOTES[0]  # after training anyone may say it
    assert list(warnings.filters) == filters


# Devices


def test_what_a_device_lacks_is_refused_by_name() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(ValueError, match=r"tf32 requires an NVIDIA GPU .* got cpu"):
        make_fabric(cpu, "tf32")
    with pytest.raises(ValueError, match="fp16 requires a GPU, got cpu"):
        make_fabric(cpu, "fp16")
    with pytest.raises(ValueError, match="at least 1 device and 1 node required, got 0 and 1"):
        make_fabric(cpu, "fp32", 0)
    if torch.cuda.device_count() < 64:
        with pytest.raises(ValueError, match=r"GPUs that torch sees required, got \d+ \(64 asked for\)"):
            make_fabric(torch.device("cuda"), "fp32", 64)
