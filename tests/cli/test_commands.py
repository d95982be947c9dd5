"""The command line: what it prints, what it leaves, and how it fails."""

import io
import json
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fastcutpaste.cli import app, main
from fastcutpaste.cli.options import areas_of
from fastcutpaste.console import people
from fastcutpaste.images.dali_batches import has_dali
from fastcutpaste.reports.runs import claim
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.training.loop import Training
from fastcutpaste.training.watch import StepProfile

QUICK = ("--size", "48x64", "--crop", "24", "--stride", "12", "--steps", "2", "--batch", "2")


def run(*arguments, status=0):
    """Run the command line; give the last line of stdout as JSON, and stderr."""
    out, err = io.StringIO(), io.StringIO()
    people.file = err
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), warnings.catch_warnings():
        patch.setattr(sys, "argv", ["fastcutpaste", *map(str, arguments)])
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


def write_image(path: Path, height: int, width: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def category(tmp_path_factory):
    """An MVTec category of wide, tall and square noise, two kinds of defect, masks for both."""
    root = tmp_path_factory.mktemp("data") / "tile"
    for i in range(6):
        write_image(root / f"train/good/{i}.png", 60 + 8 * i, 100 - 8 * i, i)
    for i, kind in enumerate(("good", "good", "crack", "stain")):
        write_image(root / f"test/{kind}/{i}.png", 64, 80, 10 + i)
        if kind != "good":
            mask = np.zeros((64, 80), np.uint8)
            mask[10:30, 20:60] = 255
            (root / f"ground_truth/{kind}").mkdir(parents=True)
            Image.fromarray(mask).save(root / f"ground_truth/{kind}/{i}_mask.png")
    return root


@pytest.fixture(scope="module")
def trained(category, tmp_path_factory):
    """A run folder trained on it for two steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result, text = run("train", category, "--out", out, *QUICK)
    assert "6 normal images" in text
    return out, result


def test_train_leaves_a_detector_and_a_log(trained):
    out, result = trained
    assert result["images"] == 6
    assert result["steps"] == 2
    detector = Detector.load(result["detector"])
    assert detector.threshold == result["threshold"]
    assert detector.provenance["data"] == {"source": "tile", "images": 5, "mean": detector.provenance["data"]["mean"]}
    assert detector.provenance["training"]["seed"] == 0
    assert (out / "training.csv").read_text().startswith("step,loss,accuracy,learning_rate,images_per_s\n2,")


def test_what_is_pasted_comes_from_where_source_says(category, tmp_path, monkeypatch):
    tasks = []

    def watched(network, task, *others):
        tasks.append(task)
        return Training(network, task, *others)

    monkeypatch.setattr("fastcutpaste.training.recipe.Training", watched)
    result, _ = run("train", category, "--out", tmp_path / "run", *QUICK, "--source", "other")
    assert Detector.load(result["detector"]).provenance["training"]["source"] == "other"
    run("train", category, "--out", tmp_path / "run", *QUICK, "--overwrite")
    line = failing("train", category, "--out", tmp_path / "alone", *QUICK, "--source", "other", "--batch", "1")
    assert line == "error: source='other': a batch of at least 2 images, 2 a process, required, got 1"
    assert [[one.source for one in task.transforms] for task in tasks] == [["other"] * 2, ["same"] * 2]


def test_a_run_that_reads_its_images_anew_is_the_same_and_can_be_profiled(category, tmp_path):
    settings = (*QUICK, "--steps", "13", "--preset", "quick", "--border", "--areas", "36,48", "--jitter", "0.2")
    losses = []
    for read in ("stream", "resident"):
        out = tmp_path / read
        run("train", category, "--out", out, *settings, "--read", read, *(["--profile"] if read == "stream" else []))
        losses.append([line.split(",")[:2] for line in (out / "training.csv").read_text().splitlines()])
    assert losses[0] == losses[1]
    summary = (tmp_path / "stream/profile/summary.txt").read_text()
    assert [name in summary for name in ("augment and forward", "backward", "update", "data")] == [True] * 4
    assert "traceEvents" in json.loads((tmp_path / "stream/profile/trace.json").read_text())
    detector = Detector.load(tmp_path / "stream/detector.safetensors")
    assert (detector.config.border, detector.config.areas) == (True, (36, 48))
    assert detector.network.config.backbone == "patchnet"
    assert detector.provenance["training"]["optimizer"] == "adamw"
    if find_spec("tensorboard"):
        assert list((tmp_path / "stream/tensorboard").glob("events.*"))


@pytest.mark.skipif(not has_dali(), reason="needs DALI")
def test_a_run_can_have_its_images_read_by_dali(category, tmp_path):
    result, text = run("train", category, "--out", tmp_path / "run", *QUICK, "--read", "dali")
    assert "decoded by DALI, as asked for" in text
    assert 0 < result["loss"] < 3
    _, text = run("train", category, "--out", tmp_path / "run", *QUICK, "--read", "stream", "--overwrite")
    assert "decoded by Pillow, as asked for" in text


def test_dali_is_asked_for_before_anything_is_made(category, tmp_path, monkeypatch):
    monkeypatch.setattr("fastcutpaste.cli.train.has_dali", lambda: False)
    assert "fastcutpaste[dali]" in failing("train", category, "--out", tmp_path / "run", "--read", "dali")
    assert not (tmp_path / "run").exists()


def test_evaluate_measures_everything_and_draws_heat_maps(trained, category):
    out, _ = trained
    result, text = run("evaluate", out, category)
    for name in ("image_auroc", "pixel_auroc", "pro_auc", "false_positive_rate", "detection_rate"):
        assert 0 <= result[name] <= 1
    assert set(result["image_auroc_by_kind"]) == {"crack", "stain"}
    assert "pixel auroc" in text
    assert Image.open(result["heat_maps"]).width > 300
    page = Path(result["report"]).read_text(encoding="utf-8")
    for shown in ("Evaluation of tile", "Curves", "crack", "stain", f"{result['image_auroc']:.3f}"):
        assert shown in page
    written = json.loads((out / "evaluation/metrics.json").read_text())
    assert written["image_auroc"] == result["image_auroc"]
    rows = (out / "evaluation/scores.csv").read_text().splitlines()
    assert len(rows) == 5


def test_predict_scores_files_and_folders_as_the_detector_does(trained, category, tmp_path):
    out, _ = trained
    one = category / "test/crack/2.png"
    result, text = run("predict", out, one, category / "test/good", "--heatmaps", tmp_path / "maps")
    assert [Path(row["image"]).name for row in result["results"]] == ["2.png", "0.png", "1.png"]
    for row in result["results"]:
        assert row["defective"] == (row["score"] > result["threshold"])
        assert Image.open(row["heat_map"]).size > (100, 50)
        assert row["defective"] or not row["regions"]
        for region in row["regions"]:
            assert 0 < region["area"] <= region["height"] * region["width"] <= 64 * 80
    verdicts = [line.split(maxsplit=2) for line in text.splitlines() if line.endswith(".png")]
    assert [path for _, _, path in verdicts] == [row["image"] for row in result["results"]]
    assert [word == "DEFECTIVE" for word, _, _ in verdicts] == [row["defective"] for row in result["results"]]
    alone, _ = run("predict", out / "detector.safetensors", one)
    torch.testing.assert_close(alone["results"][0]["score"], result["results"][0]["score"], rtol=1e-3, atol=1e-3)


def test_export_writes_one_graph_beside_the_detector(trained):
    out, _ = trained
    result, text = run("export", out, "--format", "torch")
    assert Path(result["exported"]) == out / "detector.pt2"
    assert result["bytes"] == (out / "detector.pt2").stat().st_size > 1_000_000
    assert "heat maps" in text


def test_preview_writes_a_picture(category, tmp_path):
    result, _ = run("preview", category, "--out", tmp_path / "p.png", "--count", 1, "--size", 64)
    assert len(result["transforms"]) >= 5
    assert Image.open(tmp_path / "p.png").height > 400
    assert "a picture's name required, such as preview.png" in failing("preview", category, "--out", tmp_path / "p")


def test_a_profile_adds_host_and_device_and_lists_no_part_as_an_operator(tmp_path):
    """As a GPU gives them: each part once for the host and once for the device, annotated there."""

    def event(key, host=0, device=0, own=0, annotation=False):
        return SimpleNamespace(
            key=key, cpu_time_total=host, device_time_total=device, self_cpu_time_total=host,
            self_device_time_total=own, is_user_annotation=annotation,
        )  # fmt: skip

    events = [
        event("backward", host=5_000),
        event("backward", device=40_000, own=40_000, annotation=True),
        event("aten::mm", host=1_000, own=20_000),
        event("a_kernel", own=15_000),
    ]
    measured = SimpleNamespace(key_averages=lambda: events, export_chrome_trace=lambda _: None)
    StepProfile(tmp_path)._write(measured)
    told = [line.rsplit(maxsplit=2) for line in (tmp_path / "summary.txt").read_text().splitlines()[1:]]
    assert [(name.strip(), float(host), float(device)) for name, host, device in told] == [
        ("backward", 1.0, 8.0), ("aten::mm", 0.2, 4.0), ("a_kernel", 0.0, 3.0),
    ]  # fmt: skip


def test_whole_image_detectors_score_without_maps(category, tmp_path):
    run("train", category, "--out", tmp_path / "run", "--size", 32, "--crop", 0, "--steps", 1, "--batch", 2)
    result, _ = run("evaluate", tmp_path / "run", category)
    assert "image_auroc" in result
    assert "pixel_auroc" not in result
    assert "trained on patches" in failing("predict", tmp_path / "run", category, "--heatmaps", tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "predict", "export", "preview"])
def test_help_tells_the_defaults(command, capsys):
    app.main([command, "--help"], standalone_mode=False)
    assert "default" in capsys.readouterr().out


def test_a_process_of_its_own_ends_with_json_or_with_a_status(category):
    command = [sys.executable, "-m", "fastcutpaste", "preview", category / "nowhere"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: find_training_images: a folder of images required, {command[-1]} is missing"
    ]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("train", "{empty}", "--out", "{new}"), ("empty folder", "required")),
        (("train", "{nowhere}", "--out", "{new}"), ("is missing",)),
        (("train", "{no_good}", "--out", "{new}"), ("train/good required",)),
        (("train", "{category}", "--out", "{foreign}"), ("not a run", "foreign")),
        (("train", "{category}", "--out", "{file}"), ("is a file",)),
        (("train", "{category}", "--out", "{new}", "--size", "32"), ("at least 64×64", "32×32")),
        (("train", "{category}", "--out", "{new}", "--size", "big"), ("HEIGHTxWIDTH", "big")),
        (("train", "{category}", "--out", "{new}", "--stride", "0"), ("stride", "at least 1")),
        (("train", "{category}", "--out", "{new}", "--steps", "0"), ("steps", "at least 1")),
        (("train", "{category}", "--out", "{new}", "--fpr", "2"), ("false_positive_rate", "got 2")),
        (("train", "{category}", "--out", "{new}", "--backbone", "resnet8"), ("resnet18", "'resnet8'")),
        (("train", "{category}", "--out", "{new}", "--stage", "layer9"), ("layer4", "'layer9'")),
        (("train", "{category}", "--out", "{new}", "--weights", "{file}"), ("plain tensors", "file.txt")),
        (("train", "{category}", "--out", "{new}", "--device", "tpu"), ("cuda:N", "'tpu'")),
        (("train", "{broken}", "--out", "{new}"), ("half.png", "required")),
        (("evaluate", "{foreign}", "{category}"), ("detector.safetensors required",)),
        (("predict", "{file}", "{category}/test/good"), ("file.txt", "whole detector file")),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line_and_leave_nothing(arguments, fragments, category, tmp_path):
    places = {name: tmp_path / name for name in ("empty", "no_good", "foreign", "broken", "new", "nowhere")}
    (places["no_good"] / "train/bad").mkdir(parents=True)
    places["empty"].mkdir()
    places["foreign"].mkdir()
    (places["foreign"] / "thesis.txt").write_text("mine")
    write_image(places["broken"] / "half.png", 40, 40, 0)
    half = (places["broken"] / "half.png").read_bytes()
    (places["broken"] / "half.png").write_bytes(half[: len(half) // 2])
    (tmp_path / "file.txt").write_text("text")
    places |= {"file": tmp_path / "file.txt", "category": category}
    line = failing(*(argument.format(**places) for argument in arguments))
    for fragment in fragments:
        assert fragment in line
    assert not (places["new"] / "detector.safetensors").exists()
    assert (places["foreign"] / "thesis.txt").read_text() == "mine"


def test_usage_mistakes_end_in_one_line_too():
    assert "--preset" in failing("train", "x", "--out", "y", "--preset", "slow", status=2)
    assert "DATA" in failing("train", status=2)
    assert "No such command" in failing("trian", status=2)


def test_a_demo_never_takes_a_runs_folder(tmp_path):
    claim(tmp_path / "run")
    (tmp_path / "run/data").mkdir()
    assert "holds files that are not a demo's" in failing("demo", "--out", tmp_path / "run")
    assert (tmp_path / "run/data").is_dir()
    claim(tmp_path / "demo", kind="demo")
    with pytest.raises(ValueError, match="holds files that are not a run's"):
        claim(tmp_path / "demo", overwrite=True)


def test_a_run_is_not_overwritten_unasked(tmp_path):
    claim(tmp_path / "run")
    claim(tmp_path / "run")  # nothing in it yet
    (tmp_path / "run/detector.safetensors").write_bytes(b"precious")
    with pytest.raises(ValueError, match="--overwrite"):
        claim(tmp_path / "run")
    claim(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run/detector.safetensors").read_bytes() == b"precious"


def test_conversions_are_said_on_stderr(trained, tmp_path):
    Image.fromarray(np.full((64, 80), 40_000, np.uint16)).save(tmp_path / "deep.png")
    _, text = run("predict", trained[0], tmp_path / "deep.png")
    assert "note:" in text
    assert "16 bits" in text


@pytest.mark.parametrize("text", ["big", ",", "128,,96", "-4"])
def test_areas_that_are_no_sides_are_refused(text):
    with pytest.raises(ValueError, match="--areas: sides in pixels such as 128 or 96,128 required, got"):
        areas_of(text)


def test_areas_are_read_in_the_order_given():
    assert (areas_of(""), areas_of("128"), areas_of("96, 128")) == ((), (128,), (96, 128))
