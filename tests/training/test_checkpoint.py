"""A run is never lost: checkpoints whole or refused, signals heeded, killed runs that end as if nothing had been."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_cli import failing, run
from test_train import TASK, Tiny, draw_noise, settings

from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.training import checkpoint as checkpoint_module
from fastcutpaste.training.checkpoint import (
    Keeper,
    Stopped,
    differences,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from fastcutpaste.training.loop import Training, proceed
from fastcutpaste.training.recipe import facts_of, fingerprint, take_up
from fastcutpaste.training.step import TrainConfig

STATE = {
    "network.a": torch.arange(6.0).view(2, 3),
    "step": torch.tensor([4, 2]),
    "b": torch.tensor(2, dtype=torch.uint8),
}
FACTS = {"settings": {"batch": 4}, "data": {"images": 9}, "surroundings": {"threads": 2}}


def same(one, two):
    return list(one) == list(two) and all(torch.equal(value, two[name]) for name, value in one.items())


# The file


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    odd = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "c.safetensors", STATE | {"odd": odd}, FACTS)
    state, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert same(dict(sorted(state.items())), dict(sorted((STATE | {"odd": odd}).items())))
    assert facts == FACTS


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_a_cut_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE, FACTS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"c\.safetensors: a whole checkpoint required, got a damaged"):
        load_checkpoint(path)


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE, FACTS)
    whole = path.read_bytes()
    for place in range(8, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="required"):
            load_checkpoint(path)


def test_another_safetensors_file_is_refused(tmp_path):
    save_file(STATE, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="a whole checkpoint required"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_a_checkpoint_of_another_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "FORMAT", 7)
    save_checkpoint(tmp_path / "c.safetensors", STATE, FACTS)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"of format {checkpoint_module.FORMAT} required, got 7"):
        load_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of file size")
def test_a_write_that_fails_half_way_leaves_the_checkpoint_before_whole(tmp_path):
    """As on a full disk; here the system refuses what is beyond a limit of file size."""
    import resource

    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE, FACTS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"c\.safetensors: .*the checkpoint before it is whole"):
            save_checkpoint(path, {"network.a": torch.zeros(1 << 20)}, FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]
    assert same(dict(sorted(load_checkpoint(path)[0].items())), dict(sorted(STATE.items())))


def test_what_a_killed_writer_left_is_removed_and_a_live_ones_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".c.{dead.pid}.part.safetensors", f".c.{os.getpid()}.part.safetensors", "c.safetensors", "other.txt"]
    for name in names:
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path / "c.safetensors")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names[1:])


# Settings and data


def test_each_difference_is_named_however_deep():
    before = {"training": {"batch": 4, "crop": None, "size": (1, 2)}, "gone": 1}
    now = {"training": {"batch": 8, "crop": None, "size": [1, 2]}, "new": "x"}
    assert differences(before, now) == [
        "training.batch: 4 before, 8 now", "gone: 1 before, None now", "new: None before, x now"
    ]  # fmt: skip
    assert differences(before, before) == []


def test_other_settings_are_refused_unless_accepted_and_other_images_always(tmp_path, capsys):
    path = tmp_path / "c.safetensors"
    assert take_up(path, FACTS) is None
    save_checkpoint(path, STATE, FACTS)
    assert same(dict(sorted(take_up(path, FACTS).items())), dict(sorted(STATE.items())))
    other = FACTS | {"settings": {"batch": 8, "crop": 3}}
    with pytest.raises(ValueError, match=r"batch: 4 before, 8 now; crop: None before, 3 now\); --accept-changes"):
        take_up(path, other)
    assert take_up(path, other, accept_changes=True) is not None
    with pytest.raises(ValueError, match=r"images of the run required, got other ones .*images: 9 before, 10 now"):
        take_up(path, FACTS | {"data": {"images": 10}}, accept_changes=True)
    assert take_up(path, FACTS | {"surroundings": {"threads": 9}}) is not None


def test_a_setting_that_an_earlier_version_did_not_know_was_as_its_default_is(tmp_path):
    path = tmp_path / "c.safetensors"
    known = {"training": asdict(TrainConfig()), "scoring": asdict(DetectorConfig()), "seeds": 1}
    early = {
        "training": {name: value for name, value in known["training"].items() if name != "source"},
        "scoring": {name: value for name, value in known["scoring"].items() if name not in ("border", "areas")},
        "seeds": 1,
    }
    save_checkpoint(path, STATE, FACTS | {"settings": early})
    assert take_up(path, FACTS | {"settings": known}) is not None
    for part, name, value, message in (
        ("training", "source", "other", r"training\.source: same before, other now"),
        ("scoring", "areas", (96,), r"scoring\.areas: \(\) before, \(96,\) now"),
    ):
        changed = known | {part: known[part] | {name: value}}
        with pytest.raises(ValueError, match=message):
            take_up(path, FACTS | {"settings": changed})


def test_a_fingerprint_tells_names_order_and_contents_apart(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i] * 9))
    first = fingerprint(paths)
    assert fingerprint(paths) == first
    assert fingerprint(paths[::-1]) != first
    assert fingerprint(paths[:2]) != first
    paths[1].write_bytes(bytes([1] * 8 + [2]))
    assert fingerprint(paths) != first
    facts = facts_of({"a": 1}, paths, torch.device("cpu"), 2)
    assert facts["data"]["images"] == 3
    assert facts["surroundings"]["processes"] == 2


# When it is saved


def saved_steps(keeper, steps=10, window=4):
    """Train and give the steps at which the checkpoint was another."""
    seen = []

    def look(training):
        keeper(training)
        if keeper.path.is_file():
            step = int(load_checkpoint(keeper.path)[0]["step"][0])
            seen.append(step) if step not in seen else None

    proceed(Training(Tiny(), TASK, settings(steps), window=window), draw_noise(), on_step=look)
    return seen


def test_it_is_saved_every_so_many_steps_and_at_the_end(tmp_path):
    assert saved_steps(Keeper(tmp_path / "c.safetensors", FACTS, steps=3)) == [3, 6, 9, 10]
    assert saved_steps(Keeper(tmp_path / "d.safetensors", FACTS)) == [10]


def test_it_is_saved_every_so_many_minutes(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 30))  # half a minute a look
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: next(clock))
    steps = saved_steps(Keeper(tmp_path / "c.safetensors", FACTS, minutes=2))
    assert steps[0] == 4
    assert len(steps) >= 3


def test_limits_out_of_bounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"above 0 minutes and at least 1 step .*got 0 and None"):
        Keeper(tmp_path, FACTS, minutes=0)
    with pytest.raises(ValueError, match=r"got 5\.0 and 0"):
        Keeper(tmp_path, FACTS, steps=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_step_and_leaves(tmp_path, number):
    keeper = Keeper(tmp_path / "c.safetensors", FACTS)
    training = Training(Tiny(), TASK, settings(9))
    before = signal.getsignal(number)

    def interrupt(training):
        if training.step == 3:
            os.kill(os.getpid(), number)
        keeper(training)

    with pytest.raises(Stopped, match=f"stopped by {number.name} at step 3") as stopped, keeper.heeding():
        proceed(training, draw_noise(), on_step=interrupt)
    assert stopped.value.number == number
    assert signal.getsignal(number) == before
    assert load_checkpoint(keeper.path)[0]["step"][0] == 3


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(tmp_path):
    keeper = Keeper(tmp_path / "c.safetensors", FACTS, steps=2)
    good = [next(draw_noise()) for _ in range(5)]
    bad = [torch.full((8, 3, 24, 24), float("nan"))] * 4
    with pytest.raises(FloatingPointError, match="at step 6"):
        proceed(Training(Tiny(), TASK, settings(9)), iter(good + bad), on_step=keeper)
    state, _ = load_checkpoint(keeper.path)
    assert state["step"][0] == 4
    assert all(value.isfinite().all() for value in state.values())


# The command


@pytest.fixture(scope="module")
def category(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "tile"
    (root / "train/good").mkdir(parents=True)
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"train/good/{i}.png")
    return root


def command(category, out, *more):
    return [
        sys.executable, "-m", "fastcutpaste", "train", str(category), "--out", str(out), "--size", "32", "--crop", "16",
        "--stride", "8", "--backbone", "shufflenet_v2_x0_5", "--precision", "fp32", "--steps", "60", "--batch", "3",
        "--save-steps", "1", *more,
    ]  # fmt: skip


def start(arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def step_of(checkpoint):
    return int(load_checkpoint(checkpoint)[0]["step"][0])


def wait_for(path, process, beyond=0, seconds=120):
    """Wait for a checkpoint of a later step than `beyond`."""
    until = time.monotonic() + seconds
    while not path.exists() or step_of(path) <= beyond:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.02)


def losses(run):
    with open(run / "training.csv", newline="") as file:
        return [row[:4] for row in csv.reader(file)]


@pytest.fixture(scope="module")
def unbroken(category, tmp_path_factory):
    """A run that nothing befell."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    process = start(command(category, out))
    assert process.wait(timeout=300) == 0, process.communicate()
    assert not (out / "checkpoint.safetensors").exists()
    return out


def test_a_run_killed_three_times_ends_bit_for_bit_as_one_that_was_not(category, unbroken, tmp_path):
    out, chance = tmp_path / "run", random.Random(0)
    reached = []
    for _ in range(3):
        process = start(command(category, out, "--resume"))
        wait_for(out / "checkpoint.safetensors", process, reached[-1] if reached else 0)
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached.append(step_of(out / "checkpoint.safetensors"))
    process = start(command(category, out, "--resume"))
    assert process.wait(timeout=300) == 0, process.communicate()
    wanted, got = load_file(unbroken / "detector.safetensors"), load_file(out / "detector.safetensors")
    assert list(wanted) == list(got)
    for name, value in wanted.items():
        assert torch.equal(value, got[name]), f"{name}, killed after steps {reached}"
    assert losses(unbroken) == losses(out)
    assert 0 < reached[0] < reached[1] < reached[2] < 60
    assert not list(out.glob(".*.part.*"))


def test_a_terminated_run_says_how_to_go_on_and_refuses_to_be_begun_again(category, tmp_path):
    out = tmp_path / "run"
    process = start(command(category, out))
    wait_for(out / "checkpoint.safetensors", process)
    process.send_signal(signal.SIGTERM)
    output, text = process.communicate(timeout=120)
    assert (process.returncode, output) == (143, "")
    assert "stopped by SIGTERM at step" in text.replace("\n", " ")
    assert "--resume goes on" in text.replace("\n", " ")
    assert "Traceback" not in text
    step = step_of(out / "checkpoint.safetensors")
    assert f"at step {step}" in text.replace("\n", " ")

    arguments = command(category, out)[3:]
    assert "--resume goes on with it, --overwrite replaces it" in failing(*arguments)
    assert "training.batch: 3 before, 4 now" in failing(*arguments, "--resume", "--batch", "4")
    whole = (out / "checkpoint.safetensors").read_bytes()
    (out / "checkpoint.safetensors").write_bytes(whole[:-9])
    assert "a whole checkpoint required" in failing(*arguments, "--resume")
    (out / "checkpoint.safetensors").write_bytes(whole)


def test_a_run_that_is_complete_is_left_alone_when_it_is_resumed(category, unbroken):
    before = (unbroken / "detector.safetensors").stat().st_mtime_ns
    result, text = run(*command(category, unbroken)[3:], "--resume")
    assert "complete already" in text
    assert result["detector"] == str(unbroken / "detector.safetensors")
    for changed in (("--learning-rate", "0.5"), ("--density", "nearest")):
        line = failing(*command(category, unbroken)[3:], "--resume", "--accept-changes", *changed)
        assert f"{changed[0][2:].replace('-', '_')}: " in line
        assert "complete already, --overwrite trains it anew" in line
    assert (unbroken / "detector.safetensors").stat().st_mtime_ns == before


def test_images_that_changed_under_a_run_are_refused(category, tmp_path):
    out = tmp_path / "run"
    copy = tmp_path / "tile"
    (copy / "train/good").mkdir(parents=True)
    for path in (category / "train/good").iterdir():
        (copy / "train/good" / path.name).write_bytes(path.read_bytes())
    process = start(command(copy, out))
    wait_for(out / "checkpoint.safetensors", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130, process.communicate()
    Image.new("RGB", (32, 32)).save(copy / "train/good/3.png")
    line = failing(*command(copy, out)[3:], "--resume", "--accept-changes")
    assert "--resume: the images of the run required, got other ones" in line
