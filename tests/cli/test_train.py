"""Training by the command: how images are read, and runs that are killed, stopped and taken up again."""

import csv
import json
import os
import random
import shutil
import signal
from importlib.util import find_spec
from threading import Timer

import pytest
import torch
from command_line import QUICK, SMALL, failing, run, write_normal
from pictures import draw_noise, write_picture
from PIL import Image
from processes import Started, run_command
from safetensors.torch import load_file

from fastcutpaste.images.batches import load_textures
from fastcutpaste.images.dali_batches import has_dali
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.training import checkpoint
from fastcutpaste.training.loop import Training
from fastcutpaste.transforms.recipes import recipe


def test_the_recipe_says_what_defects_are_learned_from(category, tmp_path, monkeypatch):
    tasks = []

    def watched(network, task, *others):
        tasks.append(task)
        return Training(network, task, *others)

    monkeypatch.setattr("fastcutpaste.training.recipe.Training", watched)
    result, _ = run("train", category, "--out", tmp_path / "run", *SMALL, "--recipe", "fpi+cutpaste_scar")
    assert Detector.load(result["detector"]).provenance["training"]["recipe"] == "fpi+cutpaste_scar"
    assert tasks[0].classes == 2
    assert [type(one).__name__ for one in tasks[0].transforms[0].transforms] == ["Defect", "Mixture"]
    line = failing("train", category, "--out", tmp_path / "one", *SMALL, "--recipe", "fpi", "--batch", "1")
    assert line == "error: patches of other images: a batch of at least 2 images, 2 a process, required, got 1"
    line = failing("train", category, "--out", tmp_path / "two", *SMALL, "--recipe", "fpi", "--source", "other")
    assert line == "error: --recipe fpi: without --jitter and --source, which are the 3-way task's, required"
    line = failing("train", category, "--out", tmp_path / "two", *SMALL, "--recipe", "fip")
    assert line.endswith("joined by +, required, got 'fip'")
    line = failing("train", category, "--out", tmp_path / "two", *SMALL, "--recipe", "nsa+draem")
    assert line.startswith("error: --recipe nsa+draem, which learns from 24×24 pixels: Perlin: images of at least 64")
    assert not (tmp_path / "two").exists()  # said before anything is made


def test_textures_are_those_of_a_folder(category, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    folder, wide = tmp_path / "textures", ["--size", 64, "--crop", 64]
    write_picture(folder / "inside/a.png", draw_noise(32, 40))
    write_picture(folder / "b.png", draw_noise(20, 20, seed=1))
    seen = []
    monkeypatch.setattr("fastcutpaste.training.recipe.recipe", lambda *given: seen.append(given[2]) or recipe(*given))
    words = ["train", category, "--out", tmp_path / "run", *SMALL, *wide, "--recipe", "draem+fpi", "--textures"]
    result, _ = run(*words, folder)
    assert Detector.load(result["detector"]).provenance["training"]["textures"] == str(folder)
    assert all(torch.equal(each, load_textures(folder)) for each in seen)
    assert seen[0].shape == (2, 3, 256, 256)
    again = ["train", category, "--out", tmp_path / "no", *SMALL, *wide]
    assert "a folder of images required" in failing(*again, "--recipe", "draem", "--textures", tmp_path / "none")
    assert str(tmp_path / "empty") in failing(*again, "--recipe", "draem", "--textures", tmp_path / "empty")
    (tmp_path / "empty/bad.png").write_bytes(b"no picture")
    assert "bad.png" in failing(*again, "--recipe", "memseg", "--textures", tmp_path / "empty")
    wrong = "error: textures: a recipe that takes them, draem or memseg, required, got "
    assert failing(*again, "--recipe", "nsa+fpi", "--textures", folder) == f"{wrong}'nsa+fpi'"
    assert failing(*again, "--textures", folder) == f"{wrong}none"
    assert not (tmp_path / "no").exists()
    assert "complete already" in run(*words, folder, "--resume")[1]
    write_picture(folder / "b.png", draw_noise(20, 20, seed=2))
    assert "the images of the run required, got other ones (textures: " in failing(*words, folder, "--resume")


def test_what_is_pasted_comes_from_where_source_says(category, tmp_path, monkeypatch):
    tasks = []

    def watched(network, task, *others):
        tasks.append(task)
        return Training(network, task, *others)

    monkeypatch.setattr("fastcutpaste.training.recipe.Training", watched)
    result, _ = run("train", category, "--out", tmp_path / "run", *SMALL, "--source", "other")
    assert Detector.load(result["detector"]).provenance["training"]["source"] == "other"
    run("train", category, "--out", tmp_path / "run", *SMALL, "--overwrite")
    line = failing("train", category, "--out", tmp_path / "alone", *SMALL, "--source", "other", "--batch", "1")
    assert line == "error: patches of other images: a batch of at least 2 images, 2 a process, required, got 1"
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
    result, text = run("train", category, "--out", tmp_path / "run", *SMALL, "--read", "dali")
    assert "decoded by DALI, as asked for" in text
    assert 0 < result["loss"] < 3
    _, text = run("train", category, "--out", tmp_path / "run", *SMALL, "--read", "stream", "--overwrite")
    assert "decoded by Pillow, as asked for" in text


def test_dali_is_asked_for_before_anything_is_made(category, tmp_path, monkeypatch):
    monkeypatch.setattr("fastcutpaste.cli.train.has_dali", lambda: False)
    assert "fastcutpaste[dali]" in failing("train", category, "--out", tmp_path / "run", "--read", "dali")
    assert not (tmp_path / "run").exists()


# Runs that are broken off


STEPS = 16


def command(category, out, *more):
    options = ("--steps", STEPS, "--save-steps", 1)
    return [str(argument) for argument in ("train", category, "--out", out, *SMALL, *options, *more)]


def run_told_twice(arguments, step, gap):
    """Be the command line, and send oneself SIGTERM at a step, and again so many seconds later."""
    keep = checkpoint.Keeper.__call__

    def send_and_keep(keeper, training):
        if training.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
            again = Timer(gap, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start() if gap else os.kill(os.getpid(), signal.SIGTERM)
        keep(keeper, training)

    checkpoint.Keeper.__call__ = send_and_keep
    run_command(arguments)


def run_until(arguments, step, number, seconds=0.0):
    """Be the command line, and send oneself a signal so long after the checkpoint of a step."""
    save = checkpoint.save_checkpoint

    def save_and_end(path, state, facts):
        save(path, state, facts)
        if state["step"][0] == step:
            Timer(seconds, os.kill, (os.getpid(), number)).start()

    checkpoint.save_checkpoint = save_and_end
    run_command(arguments)


def step_of(run):
    return int(checkpoint.load_checkpoint(run / "checkpoint.safetensors")[0]["step"][0])


def losses(run):
    with open(run / "training.csv", newline="") as file:
        return [row[:4] for row in csv.reader(file)]


def assert_same(unbroken, out, what):
    """Assert that a run ended bit for bit as the one that nothing befell."""
    wanted, got = load_file(unbroken / "detector.safetensors"), load_file(out / "detector.safetensors")
    assert list(wanted) == list(got)
    for name, value in wanted.items():
        assert torch.equal(value, got[name]), f"{name}, {what}"
    assert losses(unbroken) == losses(out)


@pytest.fixture(scope="module")
def unbroken(category, tmp_path_factory):
    """A run that nothing befell."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    Started(out.with_name("said"), run_command, command(category, out)).succeed()
    assert not (out / "checkpoint.safetensors").exists()
    return out


def test_a_run_killed_three_times_ends_bit_for_bit_as_one_that_was_not(category, unbroken, tmp_path):
    out, chance = tmp_path / "run", random.Random(0)
    arguments, reached = command(category, out, "--resume"), [0]
    for step in (2, 5, 9):
        started = Started(tmp_path, run_until, arguments, step, signal.SIGKILL, chance.uniform(0.0, 0.06))
        assert started.status() == -signal.SIGKILL, started.said()
        reached.append(step_of(out))
    Started(tmp_path, run_command, arguments).succeed()
    assert_same(unbroken, out, f"killed after steps {reached}")
    assert 0 < reached[1] < reached[2] < reached[3] < STEPS
    assert {file.name for file in out.iterdir()} == {"detector.safetensors", "training.csv", ".fastcutpaste"}


@pytest.mark.parametrize("gap", [0.0, 0.001, 0.02, 0.2])
def test_a_run_told_twice_to_stop_goes_on_to_end_bit_for_bit_as_one_that_was_not(category, unbroken, tmp_path, gap):
    out = tmp_path / "run"
    arguments = command(category, out, "--resume")
    seldom = ("--save-steps", "1000")  # so that what is saved is saved because it was told to stop
    started = Started(tmp_path, run_told_twice, [*arguments, *seldom], 9, gap)
    # The second may come when the training is saved and the process on its way out; a shell calls both 143.
    assert started.status() in (143, -signal.SIGTERM), started.said()
    assert "Traceback" not in started.said()
    assert step_of(out) == 9
    Started(tmp_path, run_command, arguments).succeed()
    assert_same(unbroken, out, f"told twice within {gap} s")


def test_a_terminated_run_says_how_to_go_on_and_refuses_to_be_begun_again(category, tmp_path):
    out = tmp_path / "run"
    started = Started(tmp_path, run_until, command(category, out), 1, signal.SIGTERM)
    assert started.status() == 143
    assert started.said("out") == ""
    text = started.said().replace("\n", " ")
    assert "stopped by SIGTERM at step" in text
    assert "--resume goes on" in text
    assert "Traceback" not in text
    assert f"at step {step_of(out)}" in text

    arguments = command(category, out)
    assert "--resume goes on with it, --overwrite replaces it" in failing(*arguments)
    assert "training.batch: 2 before, 4 now" in failing(*arguments, "--resume", "--batch", "4")
    whole = (out / "checkpoint.safetensors").read_bytes()
    (out / "checkpoint.safetensors").write_bytes(whole[:-9])
    assert "a whole checkpoint required" in failing(*arguments, "--resume")
    (out / "checkpoint.safetensors").write_bytes(whole)


def test_a_run_that_is_complete_is_left_alone_when_it_is_resumed(category, unbroken):
    before = (unbroken / "detector.safetensors").stat().st_mtime_ns
    result, text = run(*command(category, unbroken), "--resume")
    assert "complete already" in text
    assert result["detector"] == str(unbroken / "detector.safetensors")
    for changed in (("--learning-rate", "0.5"), ("--density", "nearest")):
        line = failing(*command(category, unbroken), "--resume", "--accept-changes", *changed)
        assert f"{changed[0][2:].replace('-', '_')}: " in line
        assert "complete already, --overwrite trains it anew" in line
    assert (unbroken / "detector.safetensors").stat().st_mtime_ns == before


def test_images_that_changed_under_a_run_are_refused(category, tmp_path):
    out, copy = tmp_path / "run", tmp_path / "tile"
    shutil.copytree(category / "train", copy / "train")
    started = Started(tmp_path, run_until, command(copy, out), 1, signal.SIGINT)
    assert started.status() == 130, started.said()
    Image.new("RGB", (32, 32)).save(copy / "train/good/3.png")
    line = failing(*command(copy, out), "--resume", "--accept-changes")
    assert "--resume: the images of the run required, got other ones" in line


# Images that cannot be read


@pytest.mark.parametrize("read", ["resident", "stream"])
def test_all_images_that_cannot_be_read_are_named_at_once_or_skipped(tmp_path, read):
    data = write_normal(tmp_path / "data", 8)
    cut, other = data / "train/good/2.png", data / "train/good/5.png"
    cut.write_bytes(cut.read_bytes()[:300])  # its head is whole
    line = failing("train", data, "--out", tmp_path / "one", *QUICK, "--read", read)
    assert "got 1 of 8 that cannot" in line
    other.write_text("none")
    line = failing("train", data, "--out", tmp_path / "two", *QUICK, "--read", read)
    assert "got 2 of 8 that cannot; --skip-unreadable trains without them" in line
    assert str(cut) in line
    assert str(other) in line
    arguments = ("train", data, "--out", tmp_path / "three", *QUICK, "--read", read, "--skip-unreadable")
    result, text = run(*arguments)
    assert result["images"] == 6
    assert [one["image"] for one in result["unread"]] == [str(cut), str(other)]
    assert text.count("skipped: ") == 2
    assert Detector.load(result["detector"]).provenance["unread"] == [str(cut), str(other)]
    for path in (data / "train/good").iterdir():
        path.write_text("none")
    assert "got none of 8" in failing("train", data, "--out", tmp_path / "four", *QUICK, "--skip-unreadable")


def test_broken_images_for_the_threshold_are_skipped_too(tmp_path):
    data = write_normal(tmp_path / "data", 4)
    for i in range(4):
        write_picture(data / f"validation/good/{i}.png", draw_noise(32, 32, seed=20 + i))
    broken = data / "validation/good/1.png"
    broken.write_text("none")
    assert str(broken) in failing("train", data, "--out", tmp_path / "run", *QUICK)
    result, _ = run("train", data, "--out", tmp_path / "run", *QUICK, "--skip-unreadable")
    assert result["images"] == 7
    assert [one["image"] for one in result["unread"]] == [str(broken)]
